"""The `llm` command line, a client that knows nothing of the bridge, set up as docs/clients.md says."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.contract.sdk.conftest import PIXEL, Clients

PAGE = Path(__file__).resolve().parents[3] / "docs" / "clients.md"


@pytest.fixture
def llm(clients: Clients, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `llm`, with the lines of the documentation and a key."""
    lines = re.search(r"## llm\n.*?```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert lines is not None
    settings = lines[1].replace("127.0.0.1:3456", f"127.0.0.1:{clients.server.port}")
    (tmp_path / "extra-openai-models.yaml").write_text(settings)
    (tmp_path / "keys.json").write_text(json.dumps({"bridge": clients.key}))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "llm", *arguments],
            env={"PATH": "/usr/bin:/bin", "LLM_USER_PATH": str(tmp_path), "HOME": str(tmp_path)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


Run = Callable[..., subprocess.CompletedProcess[str]]


def test_llm_answers_goes_on_and_streams(llm: Run, clients: Clients) -> None:
    first = llm("-m", "bridge", "-s", "Be brief.", "hello")
    assert first.returncode == 0, first.stderr
    assert "hello" in first.stdout
    assert "and now?" in llm("-m", "bridge", "-c", "and now?").stdout
    assert "hello" in llm("-m", "bridge", "--no-stream", "hello").stdout
    assert [row["stream"] for row in clients.log()] == [False, True, True]


def test_llm_gets_answers_with_a_schema_and_sends_pictures(llm: Run, tmp_path: Path) -> None:
    assert set(json.loads(llm("-m", "bridge", "--schema", "city, country", "a city").stdout)) == {"city", "country"}
    picture = tmp_path / "picture.png"
    picture.write_bytes(base64.b64decode(PIXEL))
    assert "1 image" in llm("-m", "bridge", "what is it?", "-a", str(picture)).stdout


def test_llm_may_set_what_nobody_heeds(llm: Run) -> None:
    assert "hello" in llm("-m", "bridge", "-o", "temperature", "0.2", "hello").stdout


def test_llm_shows_what_is_wrong_and_what_to_do(llm: Run) -> None:
    refused = llm("-m", "bridge", " ")
    assert refused.returncode == 1
    assert "messages[0].content is empty" in refused.stderr
