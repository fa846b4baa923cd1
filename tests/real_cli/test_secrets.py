"""The secret of a credential is in credentials.json and nowhere else, whatever happens to the runs that it pays for."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.real_cli.conftest import FAKE_KEYS, Rig, await_both, environment
from tests.standin import StandIn
from tests.support import server as servers
from tests.support.server import ADMIN_KEY, Server

PATHS = {"claude": "/generate", "codex": "/generate-codex"}
#: No prefix by which anything could tell that they are secrets.
SECRETS = {"claude": "Plainly-words-of-Anthropic-4711", "codex": "Plainly-words-of-OpenAI-0815"}
#: One that was replaced, and is nowhere at all.
REPLACED = "Plainly-words-of-yesterday-1234"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """Both CLIs with a credential that was added and comes first, and the environment's; all is logged and traced."""
    with StandIn() as standin:
        env = {
            **environment(standin),
            "BRIDGE_TRACE_DIR": str(tmp_path / "traces"),
            "BRIDGE_LOG_PROMPTS": "full",
            "BRIDGE_ROUTING": "fill-first",
            "BRIDGE_QUEUE_TIMEOUT_SECONDS": "1",
        }
        with servers.running(tmp_path, env) as server:
            await_both(server)
            for provider, secret in SECRETS.items():
                body = {"name": provider, "provider": provider, "apiKey": REPLACED, "priority": 1}
                assert server.admin("POST", "/credentials", body).status == 201
                assert command(server, "credentials", "set", provider, "--api-key", given=secret).returncode == 0
            yield Rig(server, standin, server.new_key())


def command(server: Server, *arguments: str, given: str = "") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "bridge", *arguments],
        env=server.env,
        cwd=server.data_dir.parent,
        input=given.encode(),
        capture_output=True,
        timeout=60,
    )


def use(rig: Rig, provider: str) -> Iterator[tuple[str, bytes]]:
    """All that can become of a call, also where the provider repeats the secret: what the client is told."""
    path, secret, server = PATHS[provider], SECRETS[provider], rig.server
    yield "an answer", rig.ask(path, prompt="hello").body
    yield "a stream", rig.ask(path, prompt="hello", stream=True).body
    for status, says in (
        (401, f"Incorrect API key provided: {secret}."),
        (400, f"{secret}: your credit balance is too low"),
        (400, f"messages.0: {secret} is not allowed"),
        (429, f"Rate limit reached for {secret}"),
        (529, f"Overloaded: {secret}"),
    ):
        rig.standin.script_key(secret, status=status, says=says)
        yield says, rig.ask(path, prompt="hello").body
        yield f"a test: {says}", server.admin("POST", f"/credentials/{provider}/test").body
        server.reset_credentials()
    assert server.admin("POST", f"/credentials/default/disable?provider={provider}").status == 200
    for script in ({"mode": "early_error"}, {"mode": "cut"}, {"status": 401, "says": f"What is {secret}?"}):
        rig.standin.script_key(secret, **script)
        yield f"alone: {script}", rig.ask(path, prompt="hello").body
    server.reset_credentials()
    rig.standin.script_key(secret)
    assert rig.ask(path, prompt="hello").status == 200


def name_of(process: psutil.Process) -> str:
    """What its program is called."""
    return Path((process.cmdline() or [""])[0]).name


def processes(rig: Rig) -> list[tuple[str, str]]:
    """The environments of server and CLIs in the middle of an answer of each, and the arguments of every process."""
    rig.standin.control("DELETE", "/__requests", None)
    found = []
    with ThreadPoolExecutor(2) as pool:
        asked = [
            pool.submit(rig.ask, path, prompt="[[standin mode=hang_mid after=1]] hello") for path in PATHS.values()
        ]
        rig.await_words(2)
        assert {each.key for each in rig.standin.generations} == set(SECRETS.values()), "they are in use now"
        server = psutil.Process(rig.server.process.pid)
        clis = [each for each in server.children(recursive=True) if name_of(each) in PATHS]
        assert {name_of(each) for each in clis} == set(PATHS)
        for each in (server, *clis):
            found.append((f"environment of {each.pid}", json.dumps(each.environ())))
        for each in clis:
            assert not [key for key in FAKE_KEYS.values() if key in json.dumps(each.environ())]
        for each in psutil.process_iter(["cmdline"]):
            found.append((f"arguments of {each.pid}", " ".join(each.info["cmdline"] or [])))
        for run in rig.server.admin("GET", "/runs").json["runs"]:
            rig.server.admin("DELETE", f"/runs/{run['id']}")
        for each in asked:
            assert each.result(30).status == 403
    return found


def answers(server: Server, key: str) -> Iterator[tuple[str, bytes]]:
    """What everybody can read: every path without parameters, as the admin and as a holder."""
    described: dict[str, Any] = server.call("GET", "/openapi.json").json["paths"]
    for path in (path for path, methods in described.items() if "get" in methods and "{" not in path):
        yield f"{path} for the admin", server.call("GET", path, key=ADMIN_KEY).body
        if not path.startswith("/admin"):
            yield f"{path} for the holder", server.call("GET", path, key=key).body
    for name in (*SECRETS, "default?provider=claude"):
        yield name, server.admin("GET", f"/credentials/{name}").body
    logs = server.admin("GET", "/logs?limit=1000").json["logs"]
    assert logs
    for row in logs:
        yield "a line of the log", server.admin("GET", f"/logs/{row['id']}").body


def commands(server: Server) -> Iterator[tuple[str, bytes]]:
    backup = str(server.data_dir.parent / "backup.tar.gz")
    for arguments in (
        ("credentials", "list"),
        ("credentials", "list", "--json"),
        ("credentials", "show", "claude", "--json"),
        ("credentials", "test", "codex"),
        ("doctor",),
        ("logs", "--json"),
        ("usage", "--json"),
        ("top", "--once", "--json"),
        ("capacity", "--json"),
        ("backup", backup),
        ("restore", backup, "--check"),
    ):
        done = command(server, *arguments)
        assert done.stdout or done.stderr, arguments
        yield " ".join(arguments), done.stdout + done.stderr
    with tarfile.open(backup) as archive:
        for member in archive:
            file = archive.extractfile(member)
            yield f"{member.name} of the backup", member.name.encode() + (b"" if file is None else file.read())


@pytest.mark.timeout(300)
def test_the_secret_of_a_credential_is_in_one_file_and_nowhere_else(rig: Rig, tmp_path: Path) -> None:
    server = rig.server
    seen: list[tuple[str, bytes]] = []
    for provider in PATHS:
        seen += use(rig, provider)
    seen += [(place, text.encode()) for place, text in processes(rig)]
    seen += answers(server, rig.key)
    seen += commands(server)
    until = time.monotonic() + 30
    while "credential_blocked" not in (told := str(server.admin("GET", "/overview").json["alerts"])):
        assert time.monotonic() < until, told
        time.sleep(0.1)
    seen.append(("alerts", told.encode()))
    assert server.stop() == 0
    seen.append(("the server's own words", "\n".join(server.output).encode()))

    for secret in (*SECRETS.values(), REPLACED):
        assert [place for place, text in seen if secret.encode() in text] == []
        files = [path for path in tmp_path.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
        expected = [] if secret == REPLACED else [server.data_dir / "credentials.json"]
        assert files == expected
    # That is no wonder where nothing was written: so the provider's words are there, without the secret.
    lines = "".join(path.read_text() for path in (server.data_dir / "logs").iterdir())
    assert "Incorrect API key provided: ***." in lines
    traces = "".join(path.read_text() for path in (tmp_path / "traces").iterdir())
    assert "Incorrect API key provided: ***." in traces
    assert {oct((server.data_dir / "credentials.json").stat().st_mode & 0o777)} == {"0o600"}
