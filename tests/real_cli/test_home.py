"""The home that claude is given is the one that it would make for itself, so that it need not."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

from bridge.providers import claude_wire
from tests.real_cli.install import binaries


def note_of_a_first_start(home: Path, *, given: bytes | None) -> dict[str, Any]:
    """`.claude.json` in a home after a process has started in it, and waits for its input. Without the id that each
    process makes for itself, and without its count of built-in plugins, which it puts there a moment later."""
    home.mkdir()
    note = home / ".claude.json"
    if given is not None:
        note.write_bytes(given)
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "CLAUDE_CONFIG_DIR": str(home),
        "ANTHROPIC_API_KEY": "sk-ant-made-up",
        # Nobody listens there, and nothing is asked.
        "ANTHROPIC_BASE_URL": "http://127.0.0.1:9",
        **claude_wire.environment(timeout_s=60, idle_timeout_s=60, max_output_tokens=100),
    }
    argv = [str(binaries().claude), *claude_wire.arguments("claude-sonnet-5-5", gated=True)]
    with subprocess.Popen(argv, env=env, cwd=home, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline(), "it says when it has booted, before anything is written to it"
        deadline = time.monotonic() + 10
        while not note.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(1)
        written: dict[str, Any] = json.loads(note.read_bytes())
        process.kill()
    for later in ("userID", "pluginUsage"):
        written.pop(later, None)
    return written


def test_the_note_of_a_first_start_is_what_the_cli_writes_itself_and_is_left_as_it_is(tmp_path: Path) -> None:
    ours = json.loads(claude_wire.FIRST_START)
    own = note_of_a_first_start(tmp_path / "own", given=None)
    personal = {name: ours[name] for name in ("firstStartTime", "machineID")}
    assert {**own, **personal} == ours
    assert note_of_a_first_start(tmp_path / "ours", given=claude_wire.FIRST_START) == ours
