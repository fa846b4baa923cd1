"""What the API of a model takes, by its name."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from bridge.providers.models import What, heeded, takes
from bridge.types import (
    NATIVE,
    GenerationRequest,
    Message,
    Sampling,
    Search,
    Text,
    Thinking,
    Thought,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    WebSearch,
)

SAMPLING = ("temperature", "top_p", "top_k")
OLDER = {"own_thinking", "between_tools"}
#: model -> what of it its API does not take
REFUSED = {
    "claude-3-5-haiku-20241022": {
        *OLDER,
        "effort",
        "output_format",
        "thinking",
        "thinking_budget",
        "adaptive_thinking",
    },
    "claude-3-7-sonnet-20250219": {*OLDER, "effort", "output_format", "adaptive_thinking"},
    "claude-opus-4-20250514": {*OLDER, "effort", "output_format", "adaptive_thinking"},
    "claude-haiku-4-5-20251001": {*OLDER, "effort", "adaptive_thinking"},
    "claude-sonnet-4-5[1m]": {*OLDER, "effort", "adaptive_thinking"},
    "claude-opus-4-5": {*OLDER, "adaptive_thinking"},
    "claude-opus-4-6": OLDER,
    "claude-opus-4-7": {*OLDER, *SAMPLING, "thinking_budget"},
    "claude-opus-5": {*SAMPLING, "thinking_budget", "between_tools"},
    "claude-sonnet-5": {*SAMPLING, "thinking_budget", "between_tools"},
    "claude-fable-5": {*SAMPLING, "thinking_budget", "no_thinking", "between_tools"},
    "claude-fable-5[1m]": {*SAMPLING, "thinking_budget", "no_thinking", "between_tools"},
    "claude-fable-5-1": {*SAMPLING, "thinking_budget", "no_thinking", "between_tools", "forced_tool"},
    "claude-opus-5-5": {*SAMPLING, "thinking_budget", "no_thinking", "between_tools", "forced_tool"},
    "claude-sonnet-5-5": {*SAMPLING, "thinking_budget", "forced_tool"},
    "claude-of-my-own": {*SAMPLING, "thinking_budget", "no_thinking", "between_tools", "output_format"},
}


@pytest.mark.parametrize("model", REFUSED)
def test_a_models_name_says_what_its_api_takes(model: str) -> None:
    assert {what for what in get_args(What) if not takes("claude", model, what)} == REFUSED[model]


def test_codex_can_be_told_of_forced_tools_only() -> None:
    assert [what for what in get_args(What) if takes("codex", "gpt-6-sol", what)] == ["forced_tool"]


@pytest.mark.parametrize("mode", ["enabled", "disabled"])
def test_thinking_is_named_where_the_model_is_not_asked_in_those_words(mode: Any) -> None:
    thinking = Thinking(mode)
    assert sampled("claude-opus-4-7", Sampling(), thinking=thinking).thinking == thinking
    request = sampled("gpt-6-sol", Sampling(0.2), thinking=thinking, thoughts="summarized")
    assert (request.thinking, request.thoughts, request.ignored) == (None, None, ("thinking", "temperature"))


ASK = Message("user", (Text("the weather?"),))
CALL = ToolCall("call_1", "weather", "{}")
GIVEN = Message("user", (ToolResult("call_1", (Text("rain"),)),))
THOUGHT = Thought("I need the weather.", "seal")


@pytest.mark.parametrize(
    ("model", "thinking", "more", "kept"),
    [
        ("claude-opus-5-5", Thinking("disabled"), {}, False),
        ("claude-fable-5", Thinking("disabled"), {}, False),
        ("claude-sonnet-5-5", Thinking("disabled"), {}, True),
        ("claude-sonnet-5-5", Thinking("disabled"), {"effort": "max"}, False),
        ("claude-opus-5", Thinking("disabled"), {"effort": "high"}, True),
        ("claude-opus-5", Thinking("disabled"), {"effort": "xhigh"}, False),
        ("claude-opus-4-7", Thinking("disabled"), {"effort": "xhigh"}, True),
        ("claude-haiku-4-5", Thinking("disabled"), {}, True),
        ("claude-sonnet-5-5", Thinking("adaptive"), {"max_output_tokens": 10}, True),
        ("claude-opus-4-7", Thinking("enabled", 2000), {"max_output_tokens": 10}, True),
        ("claude-opus-4-6", Thinking("adaptive"), {"max_output_tokens": 1024}, True),
        ("claude-opus-4-6", Thinking("enabled", 2000), {"max_output_tokens": 1024}, False),
        ("claude-haiku-4-5", Thinking("adaptive"), {"max_output_tokens": 1024}, False),
        ("claude-3-5-haiku-latest", Thinking("enabled", 2000), {}, False),
        ("claude-haiku-4-5", Thinking("enabled", 2000), {"max_output_tokens": 1024}, False),
        ("claude-haiku-4-5", Thinking("enabled", 2000), {"max_output_tokens": 1025}, True),
        ("claude-haiku-4-5", Thinking("enabled", 2000), {"tool_choice": ToolChoice("required")}, False),
        (
            "claude-haiku-4-5",
            Thinking("enabled", 2000),
            {"messages": (ASK, Message("assistant", (CALL,)), GIVEN)},
            False,
        ),
        (
            "claude-sonnet-4-6",
            Thinking("enabled", 2000),
            {"messages": (ASK, Message("assistant", (CALL,)), GIVEN)},
            False,
        ),
        ("claude-sonnet-4-6", Thinking("adaptive"), {"messages": (ASK, Message("assistant", (CALL,)), GIVEN)}, True),
        (
            "claude-haiku-4-5",
            Thinking("enabled", 2000),
            {"messages": (ASK, Message("assistant", (THOUGHT, CALL)), GIVEN)},
            True,
        ),
    ],
)
def test_thinking_that_the_api_would_refuse_is_passed_over_and_named(
    model: str, thinking: Thinking, more: dict[str, Any], kept: bool
) -> None:
    request = sampled(model, Sampling(), thinking=thinking, **more)
    assert (request.thinking, request.ignored) == ((thinking, ()) if kept else (None, ("thinking",)))


def test_an_effort_alone_asks_for_thinking_in_every_api_but_anthropics() -> None:
    for model, api, effort, ignored, warm in (
        ("claude-opus-4-6", "anthropic", "low", (), 0.2),
        ("claude-haiku-4-5", "anthropic", None, ("effort",), 0.2),
        ("claude-opus-4-6", "openai-chat", "low", ("temperature",), None),
        ("claude-haiku-4-5", NATIVE, "low", ("temperature",), None),
    ):
        request = sampled(model, Sampling(0.2), api=api, effort="low")
        assert (request.effort, request.ignored, request.sampling.temperature) == (effort, ignored, warm)


def test_a_summary_of_reasoning_makes_a_claude_that_thinks_show_it() -> None:
    shown = Thinking("adaptive", display="summarized")
    for model, effort, thinking in (
        ("claude-sonnet-5-5", None, shown),
        ("claude-opus-5", None, shown),
        ("claude-opus-5", "none", None),
        ("claude-haiku-4-5", "low", shown),
        ("claude-haiku-4-5", None, None),
        ("claude-haiku-4-5", "none", None),
        ("gpt-6-sol", "low", None),
    ):
        request = sampled(model, Sampling(), thoughts="auto", effort=effort)
        assert (request.thinking, request.thoughts, request.ignored) == (thinking, "auto", ())


@pytest.mark.parametrize("provider", ["claude", "codex"])
@pytest.mark.parametrize("thinking", [Thinking("adaptive"), Thinking("disabled"), None])
def test_what_was_thought_since_the_last_question_goes_back_to_a_model_that_thinks_again(
    provider: str, thinking: Thinking | None
) -> None:
    said = Message("assistant", (THOUGHT, Text("a moment"), CALL))
    messages = (ASK, said, GIVEN, Message("assistant", (THOUGHT, Text("Rain."))), ASK, said, GIVEN)
    request = heeded(GenerationRequest(provider, "claude-opus-4-6", messages, thinking=thinking, thoughts="auto"))
    kept = [any(isinstance(part, Thought) for part in message.content) for message in request.messages]
    goes = provider == "claude" and thinking == Thinking("adaptive")
    assert kept == [False, False, False, False, False, goes, False]
    assert [message.text for message in request.messages if message.role == "user"] == [ASK.text, "rain"] * 2


SEARCH = WebSearch(3)
OWN = (Tool("weather"),)


@pytest.mark.parametrize(
    ("may_search", "more", "kept", "ignored"),
    [
        (True, {}, True, ()),
        (False, {}, True, ()),
        (True, {"tools": OWN}, True, ()),
        (False, {"tools": OWN}, False, ("web_search",)),
        (True, {"tools": OWN, "tool_choice": ToolChoice("required")}, False, ("web_search",)),
        (True, {"tools": (Tool("web_search"),)}, False, ("web_search",)),
        (True, {"web_search": WebSearch(3, blocked=("a.com",))}, True, ()),
        (True, {"web_search": WebSearch(3, context="low")}, True, ("search_context_size",)),
        (True, {"web_search": WebSearch(3, blocked=("a.com",)), "model": "gpt-6-sol"}, True, ("blocked_domains",)),
        (True, {"web_search": WebSearch(3, context="low"), "model": "gpt-6-sol"}, True, ()),
    ],
)
def test_a_search_that_may_not_be_is_left_out_beside_tools_of_the_clients_own(
    may_search: bool, more: dict[str, Any], kept: bool, ignored: tuple[str, ...]
) -> None:
    fields = {"model": "claude-sonnet-5-5", "web_search": SEARCH, "messages": (ASK,), **more}
    provider = "claude" if fields["model"].startswith("claude") else "codex"
    request = heeded(GenerationRequest(provider, **fields), may_search=may_search)
    assert (request.web_search is not None, request.ignored) == (kept, ignored)


def test_earlier_searches_are_left_out_and_with_them_what_newer_models_thought_around_them() -> None:
    said = Message("assistant", (THOUGHT, Search("1", "weather"), Text("a moment"), CALL))
    for model, left in (("claude-haiku-4-5", (THOUGHT, *said.content[2:])), ("claude-sonnet-5-5", said.content[2:])):
        messages, thinking = (ASK, said, GIVEN), Thinking("adaptive")
        request = heeded(GenerationRequest("claude", model, messages, thinking=thinking))
        assert request.messages[1].content == left


def test_what_newer_models_thought_before_the_system_prompt_grew_is_left_out() -> None:
    said = Message("assistant", (THOUGHT, CALL))
    messages, thinking = (ASK, said, GIVEN, said, GIVEN), Thinking("adaptive")
    for model, before, left in (
        ("claude-sonnet-5-5", 0, [1, 3]),
        ("claude-sonnet-5-5", 3, [3]),
        ("claude-sonnet-5-5", 5, []),
        ("claude-opus-4-6", 5, [1, 3]),
    ):
        request = heeded(GenerationRequest("claude", model, messages, thinking=thinking, before_system=before))
        assert [number for number, message in enumerate(request.messages) if THOUGHT in message.content] == left


def sampled(model: str, sampling: Sampling, **more: Any) -> GenerationRequest:
    provider = "claude" if model.startswith("claude") else "codex"
    return heeded(GenerationRequest(provider, model, more.pop("messages", (ASK,)), sampling=sampling, **more))


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
    request = sampled(model, given, **{"api": "openai-chat", **more})
    assert (request.sampling, request.ignored) == (left, ignored)
