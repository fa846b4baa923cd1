"""The real CLIs are replaced under a running bridge, which goes on with what works."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.real_cli.conftest import Rig, await_both, environment
from tests.real_cli.install import binaries
from tests.real_cli.test_clis_check import between
from tests.standin import StandIn
from tests.support import server as servers

#: Another file that is the same program.
_PASSES_ON = """\
#!{python} -IS
import os, sys
os.execv("{program}", sys.argv)
"""
#: Longest that a check may take on a busy machine, in seconds.
CHECK_S = 110.0


def await_state(rig: Rig, provider: str, holds: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """Until the overview shows what is waited for."""
    until = time.monotonic() + CHECK_S
    while True:
        overview = rig.server.admin("GET", "/overview").json
        found: dict[str, Any] = next(each for each in overview["providers"] if each["name"] == provider)
        if holds(found):
            return found
        assert time.monotonic() < until, found
        time.sleep(0.2)


#: How the programs in their places are bad.
BAD = {
    "claude": 'arguments_of = lambda given: [each for each in given if each != "--bare"]',
    "codex": "to_cli = lambda line: line.replace(b'developerInstructions', b'developerWords')",
}
PATHS = {"claude": "/generate", "codex": "/generate-codex"}


def test_bad_programs_in_their_places_harm_nobody_and_good_ones_serve(tmp_path: Path) -> None:
    settings, ended, statuses = {}, threading.Event(), list[int]()
    for name in BAD:
        (tmp_path / name).symlink_to(getattr(binaries(), name))
        settings[f"BRIDGE_{name.upper()}_COMMAND"] = str(tmp_path / name)
    module = "tests.support.quick_server"
    with StandIn() as standin, servers.running(tmp_path, environment(standin) | settings, module=module) as server:
        await_both(server)
        rig = Rig(server, standin, server.new_key())

        def ask(path: str) -> None:
            while not ended.is_set():
                statuses.append(rig.ask(path, prompt="hello").status)

        clients = [threading.Thread(target=ask, args=(path,)) for path in PATHS.values()]
        for client in clients:
            client.start()
        try:
            for name, change in BAD.items():
                between(tmp_path, getattr(binaries(), name), change).replace(tmp_path / name)
            for name in BAD:
                drift = await_state(rig, name, lambda found: found["drift"])["drift"]
                assert "does not do what the bridge relies on" in drift
                assert drift in rig.server.admin("GET", "/overview").json["problems"]
            for name in BAD:
                other = tmp_path / "other"
                other.write_text(_PASSES_ON.format(python=sys.executable, program=getattr(binaries(), name)))
                other.chmod(0o755)
                other.replace(tmp_path / name)
            for name in BAD:
                await_state(rig, name, lambda found: not found["drift"])
        finally:
            ended.set()
            for client in clients:
                client.join()
        assert set(statuses) == {200}
        (tmp_path / "codex").unlink()
        assert "not installed" in await_state(rig, "codex", lambda found: found["drift"])["drift"]
        assert rig.ask(PATHS["codex"], prompt="hello").status == 200
