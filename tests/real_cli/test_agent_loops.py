"""The CLIs as clients of the bridge: their own agent loops, unchanged but for the address, do one thing in a folder."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.real_cli.conftest import Rig
from tests.real_cli.install import binaries
from tests.standin import encode_calls


def run(argv: list[str], cwd: Path, env: dict[str, str]) -> str:
    """What a CLI prints that ends well."""
    env = {"PATH": os.environ["PATH"], "HOME": str(cwd.parent), **env}
    done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


#: To the third, claude says in the middle of a conversation how many tokens are left: it adds to the system prompt.
EITHER_MODEL = pytest.mark.parametrize("model", ["claude-sonnet-5-5", "gpt-5.5", "claude-fable-5-1"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "project"
    made.mkdir()
    return made


def check(rig: Rig, api: str, tool: str) -> None:
    """Two requests came, the second with the result; each took one call of the model."""
    first, second = rig.standin.generations
    assert tool in {each.get("name") for each in first.body["tools"]}
    assert "calls=" in json.dumps(second.body)
    rows = rig.server.admin("GET", "/logs?limit=2").json["logs"]
    assert [(row["status"], row["api"]) for row in rows] == [(200, api)] * 2


@EITHER_MODEL
def test_claude_works_in_a_folder(rig: Rig, folder: Path, model: str) -> None:
    target = folder / "hello.txt"
    calls = encode_calls(("Write", json.dumps({"file_path": str(target), "content": "by a tool\n"})))
    argv = [str(binaries().claude), "-p", "--model", model, "--permission-mode", "acceptEdits"]
    env = {"ANTHROPIC_BASE_URL": f"http://127.0.0.1:{rig.server.port}", "ANTHROPIC_API_KEY": rig.key}
    env["CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"] = "1"
    assert "ECHO<" in run([*argv, f"write it [[standin thinking=1 calls={calls}]]"], folder, env)
    assert target.read_text() == "by a tool\n"
    check(rig, "anthropic", "Write")


@EITHER_MODEL
def test_codex_works_in_a_folder(rig: Rig, folder: Path, model: str) -> None:
    target = folder / "hello.txt"
    calls = encode_calls(("exec_command", json.dumps({"cmd": f"echo by a tool > {target}"})))
    home = folder.parent / "codex"
    home.mkdir()
    settings = {
        "model_provider": "bridge",
        "model_providers.bridge.name": "bridge",
        "model_providers.bridge.base_url": f"http://127.0.0.1:{rig.server.port}/v1",
        "model_providers.bridge.env_key": "BRIDGE_KEY",
        "model_providers.bridge.wire_api": "responses",
    }
    argv = [str(binaries().codex), "exec", "--skip-git-repo-check", "--sandbox", "danger-full-access", "-m", model]
    argv += [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    run(
        [*argv, f"write it [[standin thinking=1 calls={calls}]]"],
        folder,
        {"CODEX_HOME": str(home), "BRIDGE_KEY": rig.key},
    )
    assert target.read_text() == "by a tool\n"
    check(rig, "openai-responses", "exec_command")
