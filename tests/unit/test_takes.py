"""What the API of a model takes, by its name."""

from __future__ import annotations

from typing import get_args

import pytest

from bridge.providers.models import What, takes

#: model -> what of it its API does not take
REFUSED = {
    "claude-3-5-haiku-20241022": {"output_format", "adaptive_thinking"},
    "claude-opus-4-20250514": {"output_format", "adaptive_thinking"},
    "claude-haiku-4-5-20251001": {"adaptive_thinking"},
    "claude-sonnet-4-5[1m]": {"adaptive_thinking"},
    "claude-opus-4-6": set(),
    "claude-opus-4-7": {"temperature", "top_p", "top_k"},
    "claude-fable-5": {"temperature", "top_p", "top_k"},
    "claude-fable-5[1m]": {"temperature", "top_p", "top_k"},
    "claude-fable-5-1": {"temperature", "top_p", "top_k", "forced_tool"},
    "claude-sonnet-5-5": {"temperature", "top_p", "top_k", "forced_tool"},
    "claude-of-my-own": {"temperature", "top_p", "top_k", "output_format"},
}


@pytest.mark.parametrize("model", REFUSED)
def test_a_models_name_says_what_its_api_takes(model: str) -> None:
    assert {what for what in get_args(What) if not takes("claude", model, what)} == REFUSED[model]


def test_codex_can_be_told_of_forced_tools_only() -> None:
    assert [what for what in get_args(What) if takes("codex", "gpt-6-sol", what)] == ["forced_tool"]
