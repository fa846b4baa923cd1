"""Files of the CLIs for all people of a machine: found, with what they do."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.providers import machine_files as module
from bridge.providers.machine_files import machine_files


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    found = {name: tmp_path / name for name in ("claude", "codex")}
    monkeypatch.setattr(module, "FOLDERS", found)
    return found


@pytest.mark.parametrize(
    ("provider", "name", "content", "words"),
    [
        ("claude", "managed-settings.json", '{"env": {"A": "1"}, "hooks": {}}', "it sets env (variables, such as"),
        ("claude", "managed-settings.json", '{"hooks": {}}', "hooks (commands that run beside a request)"),
        ("claude", "managed-settings.d/10-team.json", '{"model": "opus"}', "it sets model"),
        ("claude", "managed-mcp.json", '{"mcpServers": {}}', "the CLI does not start"),
        ("claude", "managed-settings.json", "{", "it cannot be read"),
        ("codex", "config.toml", 'notify = ["x"]', "notify (a command after each answer)"),
        ("codex", "managed_config.toml", '[mcp_servers.x]\ncommand = "x"', "MCP servers, which are commands"),
        ("codex", "requirements.toml", "[hooks]", "hooks (commands"),
        ("codex", "config.toml", "notify = ", "it cannot be read"),
    ],
)
def test_what_a_file_does_is_said(folders: dict[str, Path], provider: str, name: str, content: str, words: str) -> None:
    path = folders[provider] / name
    path.parent.mkdir(parents=True)
    path.write_text(content)
    (found,) = machine_files()
    assert (found.provider, found.path) == (provider, path)
    assert found.does.startswith(f"{path} holds for every run of the {provider} CLI: ")
    assert words in found.does


def test_where_there_is_none_or_it_says_nothing_nothing_is_said(folders: dict[str, Path]) -> None:
    assert list(machine_files()) == []
    folders["claude"].mkdir()
    folders["codex"].mkdir()
    (folders["claude"] / "managed-settings.json").write_text("{}")
    (folders["codex"] / "config.toml").write_text("# nothing\n")
    assert list(machine_files()) == []
