"""What the API of a model takes, by its name."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from bridge.providers.models import What, heeded, takes
from bridge.types import NATIVE, GenerationRequest, Sampling, Thinking

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


@pytest.mark.parametrize("mode", ["enabled", "disabled"])
def test_thinking_is_named_where_the_model_is_not_asked_in_those_words(mode: Any) -> None:
    thinking = Thinking(mode)
    assert sampled("claude-sonnet-5-5", Sampling(), thinking=thinking).thinking == thinking
    request = sampled("gpt-6-sol", Sampling(0.2), thinking=thinking)
    assert (request.thinking, request.ignored) == (None, ("thinking", "temperature"))


def sampled(model: str, sampling: Sampling, **more: Any) -> GenerationRequest:
    provider = "claude" if model.startswith("claude") else "codex"
    return heeded(GenerationRequest(provider, model, (), sampling=sampling, **more))


@pytest.mark.parametrize(
    ("model", "given", "more", "left", "ignored"),
    [
        ("claude-haiku-4-5", Sampling(0.2, None, 5), {}, Sampling(0.2, None, 5), ()),
        ("claude-haiku-4-5", Sampling(0.2, 0.9), {}, Sampling(0.2), ("top_p",)),
        ("claude-haiku-4-5", Sampling(1.5, 0.9), {}, Sampling(None), ("temperature", "top_p")),
        ("claude-haiku-4-5", Sampling(0.2), {"effort": "low"}, Sampling(), ("temperature",)),
        ("claude-haiku-4-5", Sampling(0.2), {"effort": "none"}, Sampling(0.2), ()),
        ("claude-haiku-4-5", Sampling(0.2), {"thinking": Thinking("enabled", 2000)}, Sampling(), ("temperature",)),
        ("claude-haiku-4-5", Sampling(0.2), {"thinking": Thinking("disabled")}, Sampling(0.2), ()),
        ("claude-sonnet-5-5", Sampling(0.2, 0.9, 5), {}, Sampling(), ("temperature", "top_p", "top_k")),
        ("claude-sonnet-5-5", Sampling(), {"ignored": ("x",)}, Sampling(), ("x",)),
        ("gpt-6-sol", Sampling(0.2, 0.9), {"ignored": ("x",)}, Sampling(), ("x", "temperature", "top_p")),
        ("gpt-6-sol", Sampling(0.2, 0.9, 5), {"api": NATIVE}, Sampling(), ("temperature", "topP", "topK")),
    ],
)
def test_of_the_sampling_only_what_the_model_takes_is_left_and_the_rest_is_named(
    model: str, given: Sampling, more: dict[str, Any], left: Sampling, ignored: tuple[str, ...]
) -> None:
    request = sampled(model, given, **{"api": "anthropic", **more})
    assert (request.sampling, request.ignored) == (left, ignored)
