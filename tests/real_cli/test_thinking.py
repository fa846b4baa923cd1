"""Thinking over HTTP on the real CLIs: asked for, shown, and given back, streamed and not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.real_cli.conftest import Rig
from tests.real_cli.test_tools_http import sse
from tests.standin import encode_calls
from tests.support.server import Answer

Json = dict[str, Any]

THOUGHT = "Let me think about that step by step."
TOOL = {"name": "weather", "input_schema": {"type": "object", "properties": {}}}
BUDGET = {"type": "enabled", "budget_tokens": 1500}
ADAPTIVE = {"type": "adaptive", "display": "summarized"}


def blocks(answer: Answer) -> list[Json]:
    """The content of an answer of /v1/messages, also of a stream."""
    assert answer.status == 200, answer.body
    if not answer.headers["content-type"].startswith("text/event-stream"):
        content: list[Json] = answer.json["content"]
        return content
    found: list[Json] = []
    for event in sse(answer):
        if event["type"] == "content_block_start":
            found.append({**event["content_block"], "pieces": ""})
        elif event["type"] == "content_block_delta":
            block, delta = found[event["index"]], event["delta"]
            if delta["type"] == "citations_delta":
                block.setdefault("citations", []).append(delta["citation"])
            for name in delta.keys() & {"text", "thinking", "signature"}:
                block[name] += delta[name]
            block["pieces"] += delta.get("partial_json", "")
        elif event["type"] == "content_block_stop":
            pieces = found[event["index"]].pop("pieces")
            if pieces:
                found[event["index"]]["input"] = json.loads(pieces)
    return found


def ask(rig: Rig, model: str, messages: list[Json], **more: Any) -> list[Json]:
    """The blocks of an answer, for which the model is asked once, and which is charged as it counts."""
    rig.standin.control("DELETE", "/__requests", None)
    answer = rig.ask("/v1/messages", model=model, messages=messages, max_tokens=4000, tools=[TOOL], **more)
    found = blocks(answer)
    (sent,) = rig.standin.generations
    row = rig.server.admin("GET", "/logs?limit=1").json["logs"][0]
    assert sent.usage is not None
    assert (row["outputTokens"], row["assumed"]) == (sent.usage["output_tokens"], False)
    details = sent.usage.get("output_tokens_details", {"thinking_tokens": 0})
    assert row["reasoningTokens"] == details["thinking_tokens"]
    return found


def replayed(rig: Rig) -> list[Json]:
    """The blocks of the model's first turn as they came back to it."""
    (sent,) = rig.standin.generations
    content: list[Json] = next(each["content"] for each in sent.body["messages"] if each["role"] == "assistant")
    return content


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("redacted", [0, 1])
@pytest.mark.parametrize(
    ("model", "thinking"),
    [
        ("claude-haiku-4-5", BUDGET),
        *((model, ADAPTIVE) for model in ("claude-opus-4-6", "claude-opus-5", "claude-sonnet-5-5")),
    ],
)
def test_what_a_model_thought_is_shown_and_goes_back_with_what_its_tools_gave(
    rig: Rig, model: str, thinking: Json, redacted: int, stream: bool
) -> None:
    calls = encode_calls(("weather", "{}"))
    asked = {"role": "user", "content": f"hi [[standin thinking=1 redacted={redacted} calls={calls}]]"}
    more: Json = {"system": "Be brief.", "thinking": thinking, "stream": stream}
    said = ask(rig, model, [asked], **more)
    assert rig.standin.generations[0].body["thinking"] == thinking
    assert [block["type"] for block in said] == ["redacted_thinking" if redacted else "thinking", "tool_use"]
    assert redacted or (said[0]["thinking"], bool(said[0]["signature"])) == (THOUGHT, True)

    # The stand-in takes a thought only where it is what it said, after all that came before it.
    result = {"type": "tool_result", "tool_use_id": said[1]["id"], "content": "rain"}
    turns = [asked, {"role": "assistant", "content": said}, {"role": "user", "content": [result]}]
    assert [block["type"] for block in ask(rig, model, turns, **more)][-1] == "text"
    assert replayed(rig)[0] == said[0]

    # At the next question it is left out, and so it is where the model is not to think again.
    for further, thinks in (([*turns, {"role": "assistant", "content": "Rain."}, asked], thinking), (turns, None)):
        ask(rig, model, further, **{**more, "thinking": thinks})
        assert [block["type"] for block in replayed(rig)] == ["tool_use"]


@pytest.mark.parametrize("stream", [False, True])
def test_nothing_is_shown_that_nobody_asked_for(rig: Rig, stream: bool) -> None:
    asked = [{"role": "user", "content": "hi [[standin thinking=1]]"}]
    for model, none in (("claude-sonnet-5-5", "between_tools"), ("claude-opus-5", "disabled")):
        for thinking, kind in (({"type": "disabled"}, none), (None, "adaptive")):
            said = ask(rig, model, asked, stream=stream, thinking=thinking)
            assert said == [{"type": "text", "text": "ECHO<hi>"}]
            assert rig.standin.generations[0].body["thinking"]["type"] == kind


@pytest.mark.parametrize("stream", [False, True])
def test_an_effort_alone_makes_no_model_think(rig: Rig, stream: bool) -> None:
    asked = [{"role": "user", "content": "hi"}]
    for model, effort in (("claude-haiku-4-5", None), ("claude-opus-4-6", "low"), ("claude-opus-4-7", "low")):
        ask(rig, model, asked, stream=stream, output_config={"effort": "low"})
        sent = rig.standin.generations[0].body
        assert (sent["thinking"], sent.get("output_config", {}).get("effort")) == ({"type": "disabled"}, effort)


def test_a_budget_is_no_error_of_models_that_know_none(rig: Rig) -> None:
    said = ask(rig, "claude-opus-4-7", [{"role": "user", "content": "hi [[standin thinking=1]]"}], thinking=BUDGET)
    assert [block["type"] for block in said] == ["thinking", "text"]
    assert rig.standin.generations[0].body["thinking"] == ADAPTIVE


@pytest.mark.parametrize("model", ["claude-haiku-4-5", "claude-sonnet-4-5", "claude-opus-4-6", "claude-sonnet-5-5"])
@pytest.mark.parametrize("most", [1, 1024, 1025])
@pytest.mark.parametrize(
    "more", [{}, {"thinking": BUDGET}, {"thinking": ADAPTIVE}, {"output_config": {"effort": "high"}}]
)
def test_every_length_of_an_answer_is_one_that_the_model_takes(rig: Rig, model: str, most: int, more: Json) -> None:
    messages = [{"role": "user", "content": "hi"}]
    answer = rig.ask("/v1/messages", model=model, messages=messages, max_tokens=most, **more)
    assert answer.status == 200, answer.body
    sent = rig.standin.generations[0].body
    assert sent["max_tokens"] == most
    assert more or sent["thinking"]["type"] != "enabled"
    if more.get("thinking") == ADAPTIVE and "4-5" not in model:
        assert (sent["thinking"], answer.headers.get("x-bridge-ignored")) == (ADAPTIVE, None)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["gpt-6-sol", "gpt-5.5", "claude-sonnet-5-5"])
@pytest.mark.parametrize("summary", ["auto", "detailed", None])
def test_reasoning_is_summed_up_where_that_is_asked_for(
    rig: Rig, model: str, summary: str | None, stream: bool
) -> None:
    rig.standin.control("DELETE", "/__requests", None)
    reasoning = {"effort": "low", "summary": summary}
    answer = rig.ask(
        "/v1/responses", model=model, input="hi [[standin thinking=1]]", reasoning=reasoning, stream=stream
    )
    assert answer.status == 200, answer.body
    if not stream:
        response = answer.json
    else:
        events = sse(answer)
        response = events[-1]["response"]
        told = [event["delta"] for event in events if event["type"] == "response.reasoning_summary_text.delta"]
        assert "".join(told) == (THOUGHT if summary else "")
        done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
        assert done == response["output"]
    (sent,) = rig.standin.generations
    if not model.startswith("claude"):
        assert sent.body["reasoning"] == ({"effort": "low", "summary": summary} if summary else {"effort": "low"})
    shown = [part["text"] for item in response["output"] if item["type"] == "reasoning" for part in item["summary"]]
    assert shown == ([THOUGHT] if summary else [])
    assert response["output"][-1]["content"][0]["text"] == "ECHO<hi>"
    assert response["usage"]["output_tokens_details"]["reasoning_tokens"] == 16
