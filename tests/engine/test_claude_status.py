"""Whether the claude CLI can serve: missing, too old, something else, not logged in, or logged in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import BridgeError
from bridge.providers.claude import ClaudeProvider
from tests.engine.harness import ask, complete, told

Make = Callable[..., ClaudeProvider]

UNAVAILABLE = [
    ({"command": "/nonexistent/claude"}, "not installed"),
    ({"command": "no-such-claude-on-path"}, "not installed"),
    ({"version": "2.1.328 (Claude Code)"}, "too old"),
    ({"version": "1.99.999 (Claude Code)"}, "too old"),
    ({"version": "Python 3.11.7"}, "does not run the Claude Code CLI"),
    ({"version": "hello"}, "does not run the Claude Code CLI"),
    ({"command": "/bin/true"}, "does not run the Claude Code CLI"),
    ({"settings": {"ANTHROPIC_API_KEY": ""}}, "No Anthropic API key"),
    ({"settings": {"BRIDGE_CLAUDE_CREDENTIALS": "login"}, "logged_in": False}, "not logged in"),
]


@pytest.mark.parametrize(("options", "problem"), UNAVAILABLE)
def test_a_cli_that_cannot_serve_makes_the_provider_unavailable_and_says_why(
    make_claude: Make, options: dict[str, Any], problem: str
) -> None:
    claude = make_claude(**options)
    status = claude.status()
    assert not status.available
    assert problem in (status.problem or "")
    assert status.hint
    with pytest.raises(BridgeError) as refusal:
        claude.start(ask("hello"), lambda event: None)
    assert refusal.value.code == "cli_unavailable"
    assert refusal.value.hint == status.hint


def test_a_newer_version_is_taken(make_claude: Make) -> None:
    status = make_claude(version="2.10.0 (Claude Code)").status()
    assert (status.available, status.version) == (True, "2.10.0")


def test_a_command_given_relative_to_the_working_directory_is_found_there(
    make_claude: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_claude()
    monkeypatch.chdir(tmp_path)
    assert make_claude(command="./claude").status().problem is None


def test_with_a_login_the_cli_gets_the_login_and_not_the_key(
    make_claude: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "operator"
    config.mkdir()
    (config / ".credentials.json").write_text("{}")
    (config / "CLAUDE.md").write_text("not for the bridge")
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(config))
    monkeypatch.delenv("CLAUDE_CODE_OAUTH_TOKEN", raising=False)
    seen = told(complete(make_claude({"BRIDGE_CLAUDE_CREDENTIALS": "login"}), "[[fake report]]"))
    assert seen["home_files"] == [".claude.json", ".credentials.json"]
    assert "ANTHROPIC_API_KEY" not in seen["env"]
    assert "--bare" not in seen["argv"]
