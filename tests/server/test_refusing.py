"""A data folder that cannot be trusted, or an address that cannot be had: the server says why, once, and ends."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import server as servers


@pytest.mark.parametrize("name", ["keys.json", "usage.json", "logs", "admin.json", "prices.json", "credentials.json"])
def test_a_server_with_damaged_state_ends_with_one_message(tmp_path: Path, name: str) -> None:
    server = servers.start(tmp_path, demo=True)
    server.new_key()
    server.stop()
    path = server.data_dir / name
    (next(path.iterdir()) if path.is_dir() else path).write_text('{"schema": 1, half\n{}\n')
    refused = subprocess.run(
        [sys.executable, "-m", "bridge", "serve"],
        env=server.env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert refused.returncode == 1
    assert refused.stderr.count("cli-bridge cannot start") == 1
    assert name in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_program_that_is_not_whole_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "flask_cors.py").write_text("raise ModuleNotFoundError('No module named flask_cors')\n")
    env = servers.environment(tmp_path / "data", {"BRIDGE_PORT": "0", "PYTHONPATH": f"{tmp_path}:{servers.ROOT}"})
    argv = [sys.executable, "-m", "bridge", "serve"]
    done = subprocess.run(argv, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "cli-bridge cannot start: No module named flask_cors.\n  A part of the program is missing" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ({"BRIDGE_HOST": "192.0.2.1"}, "Cannot assign"),
        ({"BRIDGE_HOST": "no-such-host.invalid"}, ""),
        ({"BRIDGE_SOCKET": "/nonexistent/bridge.sock"}, "folder"),
        ({}, "in use"),
    ],
)
def test_an_address_that_cannot_be_listened_on_is_named(tmp_path: Path, address: dict[str, str], reason: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        env = servers.environment(tmp_path / "data", {"BRIDGE_PORT": str(taken.getsockname()[1]), **address})
        argv = [sys.executable, "-m", "tests.support.demo_server"]
        done = subprocess.run(argv, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "cannot listen on" in done.stderr
    assert reason in done.stderr
    assert "BRIDGE_PORT" in done.stderr
    assert "Traceback" not in done.stderr
