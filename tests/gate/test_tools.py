"""Tools at the gate: what stands for calls and results must be the run's own, and so is what it puts in."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bridge.gate.body import marks, with_texts_for_parts, without_tool_words
from bridge.gate.server import Gate
from bridge.gate.ticket import Ticket, Upstream
from bridge.providers import claude_body, codex_body
from bridge.types import GenerationRequest, Image, Message, Text, Tool, ToolCall, ToolResult
from tests.gate.conftest import SECRET, ask, messages_body, responses_body, vouched
from tests.standin import StandIn

CALL = ToolCall("call_1", "find", '{"n": 12345678901234567890, "s": 1.50, "__proto__": {"a": 1}}')
RESULT = ToolResult("call_1", (Text("x" * 1000), Image("image/png", "aGk=", 1)), is_error=True)
TURNS = (Message("user", (Text("hello"),)), Message("assistant", (CALL,)), Message("user", (RESULT, Text("and?"))))
REQUEST = GenerationRequest("claude", "claude-sonnet-5-5", TURNS, "Be brief.", tools=(Tool("find"),))
TOLD, PARTS = with_texts_for_parts(REQUEST)
CALL_TEXT, RESULT_TEXT = PARTS
BRIEF = without_tool_words(REQUEST)
CACHED = {"cache_control": {"type": "ephemeral"}}


def claude_says(**changes: Any) -> dict[str, Any]:
    """The body of a CLI that was told no words of tools."""
    call = {"type": "text", "text": CALL_TEXT, **changes.pop("call", {})}
    result = {"type": "text", "text": RESULT_TEXT, **CACHED, **changes.pop("result", {})}
    content = [result, {"type": "text", "text": "and?"}]
    turns = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": content},
    ]
    return messages_body(messages=turns, **changes)


def codex_says(**changes: Any) -> dict[str, Any]:
    """The same of codex."""
    body = responses_body()
    call = {"type": "function_call", "id": "fc_9", "call_id": "call_1", "name": "find", "arguments": "{}"}
    result = {"type": "function_call_output", "id": "fco_9", "call_id": "call_1", "output": "ok"}
    asked = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "and?"}]}
    body["input"] += [call | changes.pop("call", {}), result | changes.pop("result", {}), asked]
    return {**body, **changes}


def told_ticket(gate: Gate, standin: StandIn, wire: str) -> Ticket:
    if wire == "messages":
        upstream, parts = Upstream("messages", standin.url, SECRET), {t: claude_body.block(p) for t, p in PARTS.items()}
        own = vouched(messages=marks(TOLD.messages))
        made = Ticket(upstream, own, put_in=claude_body.ask(REQUEST).body, tool_parts=parts)
    else:
        upstream = Upstream("responses", standin.openai_url, SECRET)
        own = vouched(messages=marks(BRIEF.messages), model="gpt-6-sol", tools=frozenset({"find"}))
        parts = codex_body.tool_parts(REQUEST.messages)
        made = Ticket(upstream, own, put_in=codex_body.tools_body(REQUEST), tool_parts=parts)
    gate.tickets.add(made)
    return made


def test_what_a_tool_was_told_and_gave_goes_up_to_the_character(gate: Gate, standin: StandIn) -> None:
    ask(gate, told_ticket(gate, standin, "messages").token, claude_says())
    (sent,) = standin.generations
    _, (call,), (result, _) = [turn["content"] for turn in sent.body["messages"]]
    assert call["input"] == json.loads(CALL.arguments)
    assert result["is_error"] is True
    assert [block["type"] for block in result["content"]] == ["text", "image"]
    # The provider is told to cache where the CLI said so.
    assert result["cache_control"] == CACHED["cache_control"]
    assert [tool["name"] for tool in sent.body["tools"]] == ["find"]


def test_the_same_for_codex(gate: Gate, standin: StandIn) -> None:
    ticket = told_ticket(gate, standin, "responses")
    ask(gate, ticket.token, codex_says(tools=[{"type": "function", "name": "find"}]), "/v1/responses")
    (sent,) = standin.generations
    call, result = sent.body["input"][2:4]
    assert call == {"type": "function_call", "call_id": "call_1", "name": "find", "arguments": CALL.arguments}
    assert [part["type"] for part in result["output"]] == ["input_text", "input_image"]
    assert sent.body["tools"] == codex_body.tools_body(REQUEST)["tools"]


TOOL_USE = {"type": "tool_use", "id": "call_1", "name": "find", "input": {}}
BASH = [{"type": "function", "name": "Bash", "input_schema": {"type": "object"}}]


@pytest.mark.parametrize(
    ("wire", "change"),
    [
        ("messages", {"call": {"text": RESULT_TEXT}}),
        ("messages", {"call": {"text": CALL_TEXT + "0"}}),
        ("messages", {"call": TOOL_USE}),
        ("messages", {"result": {"text": "another run's words"}}),
        ("messages", {"tools": BASH}),
        ("responses", {"call": {"name": "other"}}),
        ("responses", {"call": {"call_id": "call_2"}}),
        ("responses", {"call": {"arguments": '{"n": 1}'}}),
        ("responses", {"result": {"call_id": "call_2"}}),
        ("responses", {"result": {"output": "another run's words"}}),
        ("responses", {"result": {"output": []}}),
        ("responses", {"tools": BASH}),
    ],
)
def test_calls_results_and_tools_of_somebody_else_do_not_leave(
    gate: Gate, standin: StandIn, wire: str, change: dict[str, Any]
) -> None:
    ticket = told_ticket(gate, standin, wire)
    body = claude_says(**change) if wire == "messages" else codex_says(**change)
    assert ask(gate, ticket.token, body, f"/v1/{wire}").status == 400
    assert standin.requests == []
    assert ticket.call.refused in ("the tools", "message 1", "message 2", "a part of the kind tool_use")


def test_texts_that_stand_for_tools_are_others_in_each_run(gate: Gate) -> None:
    assert not set(PARTS) & set(with_texts_for_parts(REQUEST)[1])
