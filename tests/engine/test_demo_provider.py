"""The demo provider: a child process like the others, whose answers say that they are made up."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from bridge.providers.demo import DemoProvider
from bridge.sandbox.scratch import Scratch
from bridge.types import (
    Completed,
    Failed,
    Image,
    Message,
    PartDelta,
    Submitted,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    whole,
)
from tests.engine.harness import SCHEMA, Running, ask, children, complete, descriptors, mismatch, talking, until


@pytest.fixture
def make_demo(make_provider: Callable[..., DemoProvider]) -> Callable[..., DemoProvider]:
    """Opened demo providers."""
    return partial(make_provider, "demo")


@pytest.fixture
def demo(make_demo: Callable[..., DemoProvider]) -> DemoProvider:
    """A provider that answers without pauses, nothing kept warm."""
    return make_demo()


def test_an_answer_is_labelled_and_streamed(demo: DemoProvider) -> None:
    run = Running(demo, ask("hello there"))
    end = run.end()
    assert isinstance(end, Completed)
    assert end.answer.text == run.streamed
    assert end.answer.text.startswith("[demo answer, no model was asked]")
    assert "hello there" in end.answer.text
    assert isinstance(run.events[0], Submitted)
    assert end.answer.usage is not None
    assert end.answer.usage.output_tokens == len(end.answer.text.split(" "))


def test_it_stops_at_the_output_limit(demo: DemoProvider) -> None:
    answer = complete(demo, "hello", max_output_tokens=5).answer
    assert (answer.stop_reason, len(answer.text.split(" "))) == ("max_tokens", 5)


@pytest.mark.parametrize(
    "schema",
    [
        SCHEMA,
        {"type": "array", "items": {"type": "integer", "minimum": 7}, "minItems": 3},
        {"enum": ["red", "green"]},
        {"const": 4},
        {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/b"}}, "$defs": {"b": {"type": "number"}}},
        {"type": "string", "minLength": 10, "maxLength": 12},
    ],
)
def test_structured_output_fits_most_schemas(demo: DemoProvider, schema: dict[str, Any]) -> None:
    answer = complete(demo, "hello", schema=schema).answer
    assert mismatch(schema, answer.output) is None
    assert json.loads(answer.text) == answer.output


WEATHER = Tool("get_weather", "", {"type": "object", "properties": {"city": {"type": "string"}}})
CLOCK = Tool("now")


def called(demo: DemoProvider, prompt: str, *tools: Tool, **more: Any) -> tuple[list[str], str]:
    """The tools that an answer calls, and its words."""
    run = Running(demo, ask(prompt, tools=tools, **more))
    end = run.end()
    assert isinstance(end, Completed)
    assert whole([event for event in run.events if isinstance(event, PartDelta)]) == end.answer.content
    calls = [part for part in end.answer.content if isinstance(part, ToolCall)]
    assert end.answer.stop_reason == ("tool_use" if calls else "end_turn")
    assert len({call.id for call in calls}) == len(calls)
    assert all(isinstance(json.loads(call.arguments), dict) for call in calls)
    return [call.name for call in calls], end.answer.text


def test_tools_are_called_where_the_prompt_gives_a_reason(demo: DemoProvider) -> None:
    assert called(demo, "What is the weather?", WEATHER, CLOCK)[0] == ["get_weather"]
    assert called(demo, "now get_weather now", WEATHER, CLOCK)[0] == ["get_weather", "now", "now"]
    assert called(demo, "hello", CLOCK)[0] == ["now"]
    assert called(demo, "hello", WEATHER, CLOCK)[0] == []
    names, text = called(demo, "weather", WEATHER)
    assert (names, text) == (["get_weather"], "[demo answer, no model was asked] Calls get_weather.")


def test_a_choice_of_tools_is_kept(demo: DemoProvider) -> None:
    both = (WEATHER, CLOCK)
    assert called(demo, "weather", *both, tool_choice=ToolChoice("none"))[0] == []
    assert called(demo, "hello", *both, tool_choice=ToolChoice("required")) == (["now"], "")
    assert called(demo, "now", *both, tool_choice=ToolChoice("required", "get_weather")) == (["get_weather"], "")
    assert called(demo, "now now", *both, tool_choice=ToolChoice(parallel=False))[0] == ["now"]


def test_results_of_tools_are_answered(demo: DemoProvider) -> None:
    turns = (
        Message("user", (Text("weather"),)),
        Message("assistant", (ToolCall("a", "get_weather", "{}"),)),
        Message("user", (ToolResult("a", (Text("sunny"),)),)),
    )
    assert "“sunny”" in called(demo, "", WEATHER, CLOCK, messages=turns)[1]
    # What must be called again is one that was not.
    again = called(demo, "", CLOCK, WEATHER, messages=turns, tool_choice=ToolChoice("required"))[0]
    assert again == ["now"]


def test_a_call_is_cut_at_the_output_limit(demo: DemoProvider) -> None:
    answer = complete(demo, "weather", tools=(WEATHER,), max_output_tokens=9).answer
    call = answer.content[1]
    assert isinstance(call, ToolCall)
    assert (answer.stop_reason, call.arguments) == ("max_tokens", '{"city":')


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "^[0-9]{20}$"},
        {"type": "array", "minItems": 10**9},
        {"type": "array", "minItems": 3000, "items": {"type": "array", "minItems": 3000}},
    ],
)
def test_a_schema_that_is_too_much_for_the_demo_ends_in_a_failure(demo: DemoProvider, schema: dict[str, Any]) -> None:
    run = Running(demo, ask("hello", schema=schema))
    end = run.end()
    assert isinstance(end, Failed | Completed)
    assert isinstance(end, Completed) or end.problem.code in ("output_mismatch", "cli_failed")


def test_conversations_and_images_are_counted(demo: DemoProvider) -> None:
    last = Message("user", (Image("image/png", "aGk="), Text("what is this?")))
    messages = (Message("user", (Text("a"),)), Message("assistant", (Text("b"),)), last)
    answer = complete(demo, "", messages=messages).answer
    assert "1 image(s)" in answer.text
    assert answer.usage is not None
    assert answer.usage.input_tokens > 400


def test_a_cancel_ends_the_process_at_once(make_demo: Callable[..., DemoProvider]) -> None:
    slow = make_demo(pace_s=1)
    run = Running(slow, ask("hello"))
    run.until(lambda event: isinstance(event, Submitted))
    run.conversation.cancel()
    assert until(lambda: not talking(run.conversation), 5)
    assert until(lambda: not children(), 5)
    assert run.ends == []


def test_a_killed_process_is_a_failure(make_demo: Callable[..., DemoProvider]) -> None:
    slow = make_demo(pace_s=1)
    run = Running(slow, ask("hello"))
    run.until(lambda event: isinstance(event, Submitted))
    children()[0].kill()
    end = run.end()
    assert isinstance(end, Failed)
    assert end.problem.code == "cli_failed"


def test_warm_processes_stand_ready_and_go_with_the_provider(make_demo: Callable[..., DemoProvider]) -> None:
    demo = make_demo(warm=2)
    assert until(lambda: demo.status().warm == 2)
    assert demo.status().available
    assert isinstance(Running(demo, ask("hi")).end(), Completed)
    demo.close()
    assert until(lambda: not children())


def test_fifty_runs_leave_nothing(demo: DemoProvider, scratch: Scratch) -> None:
    complete(demo, "first")
    assert until(lambda: not children())
    before = descriptors()
    for number in range(50):
        complete(demo, f"run {number}")
    assert until(lambda: not children() and descriptors() <= before)
    assert os.listdir(scratch.path) == ["empty"]
