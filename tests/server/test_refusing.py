"""A data folder that cannot be trusted: the server says why, once, and ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import server as servers


@pytest.mark.parametrize("name", ["keys.json", "usage.json", "usage.jsonl", "admin.json", "prices.json"])
def test_a_server_with_damaged_state_ends_with_one_message(tmp_path: Path, name: str) -> None:
    server = servers.start(tmp_path, demo=True)
    server.new_key()
    server.stop()
    (server.data_dir / name).write_text('{"schema": 1, half\n{}\n')
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
