"""The health check of the image, beside a bridge on a port, on a unix socket, and none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import server as servers

SCRIPT = Path(__file__).resolve().parents[2] / "deploy" / "docker" / "health.py"


def look(data_dir: Path) -> subprocess.CompletedProcess[str]:
    """The check, as the image runs it."""
    argv = [sys.executable, "-IS", str(SCRIPT)]
    environment = {"BRIDGE_DATA_DIR": str(data_dir)}
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("way", ["port", "every address", "socket"])
def test_a_bridge_is_well_while_it_answers(way: str, tmp_path: Path) -> None:
    settings = {
        "port": {},
        "every address": {"BRIDGE_HOST": "0.0.0.0"},
        "socket": {"BRIDGE_SOCKET": str(tmp_path / "bridge.sock")},
    }
    with servers.running(tmp_path, settings[way], demo=True) as server:
        well = look(server.data_dir)
        assert (well.returncode, well.stdout, well.stderr) == (0, "", "")
    gone = look(server.data_dir)
    assert gone.returncode == 1
    assert gone.stderr.startswith("The bridge does not answer")
    assert "Traceback" not in gone.stderr


def test_a_folder_without_a_bridge_is_not_well(tmp_path: Path) -> None:
    done = look(tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("The bridge does not answer")
