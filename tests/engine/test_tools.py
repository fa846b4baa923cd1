"""Tools with a log-in, where no gate puts anything in: what each CLI is told, and the calls that come of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bridge.types import (
    Completed,
    GenerationRequest,
    Message,
    PartDelta,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    whole,
)
from tests.engine.harness import SCHEMA, Running, ask, complete, fail, told

Make = Callable[..., Any]
ECHO = Tool("echo", "Says it again.", SCHEMA)
BOTH = pytest.mark.parametrize("name", ["claude", "codex"])
CALL = '[[fake call name={} arguments={{"echo":"ü"}}]]'


def calls_of(end: Completed) -> list[tuple[str, str]]:
    return [(part.name, part.arguments) for part in end.answer.content if isinstance(part, ToolCall)]


@BOTH
def test_calls_come_back_with_text_before_them_and_figures(make_provider: Make, name: str) -> None:
    run = Running(make_provider(name), ask(CALL.format("echo"), provider=name, tools=(ECHO,)))
    end = run.end()
    assert isinstance(end, Completed)
    assert calls_of(end) == [("echo", '{"echo":"ü"}')]
    assert (end.answer.text, end.answer.stop_reason) == ("echo: ", "tool_use")
    assert end.answer.usage is not None
    assert whole(event for event in run.events if isinstance(event, PartDelta)) == end.answer.content


@BOTH
def test_a_tool_that_nobody_offered_is_a_failure(make_provider: Make, name: str) -> None:
    failure = fail(make_provider(name), CALL.format("nope"), tools=(ECHO,))
    assert failure.problem.code == "cli_bad_output"
    # codex would go on by itself, so it is stopped before it has told its figures.
    assert (failure.usage is None) is (name == "codex")


def conversation(prompt: str) -> dict[str, Any]:
    results = (ToolResult("call_1", (Text("seven"),)), ToolResult("call_2", ()))
    calls = (ToolCall("call_1", "echo", '{"n":1}'), ToolCall("call_2", "mcp__b", ""))
    turns = (Message("user", (Text("go"),)), Message("assistant", (Text("hm"), *calls)))
    return {"messages": (*turns, Message("user", (*results, Text(prompt))))}


def test_claude_is_told_all_in_its_body(make_provider: Make) -> None:
    seen = told(complete(make_provider("claude"), "", **conversation("[[fake told]]"), tools=(ECHO,), stop=("x",)))
    echo = {"name": "echo", "input_schema": SCHEMA, "description": ECHO.description}
    assert seen["body"] == {"tools": [echo], "stop_sequences": ["x"]}
    assert seen["earlier"] == [["user", "go"], ["assistant", 'hm<echo {"n": 1}><mcp__b {}>']]


def test_codex_is_told_all_by_names_that_it_takes(make_provider: Make) -> None:
    bounded = Tool("mcp__b", "Counts.", {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}})
    seen = told(complete(make_provider("codex"), "", **conversation("[[fake told]]"), tools=(ECHO, bounded)))
    first, second = seen["thread"]["dynamicTools"]
    assert first == {"type": "function", "name": "echo", "description": "Says it again.", "inputSchema": SCHEMA}
    assert (second["name"], second["inputSchema"]) == ("tool_mcp__b", bounded.schema)
    # What the CLI would drop stands in words.
    assert second["description"].startswith("Counts.\n\nArguments: JSON Schema {")
    assert '"minimum":1' in second["description"]
    assert seen["thread"]["experimentalRawEvents"] is True
    assert [item.get("name") or item.get("output", item["type"]) for item in seen["earlier"]] == [
        *("message", "message", "echo", "tool_mcp__b", "seven", ""),
    ]
    assert [part["text"] for part in seen["turn"]["input"]] == ["[[fake told]]"]


def test_a_name_that_codex_keeps_for_itself_comes_back_as_the_clients(make_provider: Make) -> None:
    end = complete(make_provider("codex"), CALL.format("tool_mcp__b"), tools=(Tool("mcp__b"), ECHO))
    assert calls_of(end) == [("mcp__b", '{"echo":"ü"}')]


def test_codex_is_told_of_no_tools_where_none_may_be_called(make_provider: Make) -> None:
    end = complete(make_provider("codex"), "[[fake told]]", tools=(ECHO,), tool_choice=ToolChoice("none"))
    assert told(end)["thread"]["dynamicTools"] == []
    assert "experimentalRawEvents" not in told(end)["thread"]


@BOTH
@pytest.mark.parametrize("one", [True, False])
def test_a_forced_tool_is_an_answer_with_its_schema(make_provider: Make, name: str, one: bool) -> None:
    arguments = '{"echo":"1.50"}'
    said = arguments if one else f'{{"call":{{"name":"echo","arguments":{arguments}}}}}'
    tools = (ECHO,) if one else (Tool("other", "", SCHEMA), ECHO)
    request: GenerationRequest = ask(
        f"[[fake say json={said}]]", provider=name, tools=tools, tool_choice=ToolChoice("required")
    )
    run = Running(make_provider(name), request)
    end = run.end()
    assert isinstance(end, Completed)
    assert calls_of(end) == [("echo", arguments)]
    assert (end.answer.text, end.answer.stop_reason) == ("", "tool_use")
    assert whole(event for event in run.events if isinstance(event, PartDelta)) == end.answer.content


@BOTH
def test_what_is_no_call_after_all_stays_an_answer(make_provider: Make, name: str) -> None:
    tools, choice = (Tool("other", "", SCHEMA), ECHO), ToolChoice("required")
    end = complete(make_provider(name), "[[fake say json=words]]", tools=tools, tool_choice=choice)
    assert (end.answer.text, end.answer.stop_reason) == ("words", "end_turn")
