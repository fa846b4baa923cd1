"""What a request asks of Anthropic's API besides its words: an allow-list, and schemas that the API takes."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import msgspec
import pytest

from bridge.providers import claude_body
from bridge.providers.claude_body import ClaudeAsked, for_output_format
from bridge.types import GenerationRequest, Message, Text, Thinking, Tool, ToolCall, ToolChoice, ToolResult
from tests.standin.instances import instance
from tests.standin.schemas import format_objection

CLOSED: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}},
    "required": ["name"],
    "additionalProperties": False,
}
USER = Message("user", (Text("hello"),))


def asked(*messages: Message, model: str = "claude-sonnet-5-5", **more: Any) -> ClaudeAsked:
    return claude_body.ask(GenerationRequest("claude", model, messages or (USER,), **more))


def with_property(part: Any, **more: Any) -> dict[str, Any]:
    return {**CLOSED, "properties": {"name": {"type": "string"}, "x": part}, **more}


NATIVE = [
    CLOSED,
    {name: value for name, value in CLOSED.items() if name != "additionalProperties"},
    {**CLOSED, "title": "T", "description": "D", "$schema": "https://json-schema.org/draft/2020-12/schema"},
    with_property({"type": "integer", "minimum": 0, "maximum": 9}),
    with_property({"type": "string", "minLength": 2, "pattern": "^a", "description": "said"}),
    with_property({"type": "array", "items": {"type": "string"}, "minItems": 3, "maxItems": 9, "uniqueItems": True}),
    with_property({"type": "array", "items": CLOSED, "minItems": 1}),
    with_property({"anyOf": [{"type": "null"}, CLOSED]}),
    with_property({"enum": ["a", 1, None, True]}),
    with_property({"type": "string", "format": "date"}),
    with_property({"$ref": "#/$defs/a", "description": "beside it"}, **{"$defs": {"a": CLOSED}}),
    {"type": "object", "properties": {}},
]
OTHER = [
    {"type": "object"},
    {"type": "string"},
    {"anyOf": [CLOSED, {"type": "null"}]},
    {**CLOSED, "additionalProperties": True},
    with_property({"type": "object", "additionalProperties": {"type": "string"}}),
    with_property({"type": "string", "format": "idn-email"}),
    with_property({"not": {"const": 1}}),
    with_property({"oneOf": [{"type": "string"}]}),
    with_property({"enum": [{"a": 1}]}),
    with_property({"$ref": "#/$defs/a"}),
    with_property({"$ref": "https://example.com/a"}),
    with_property({"$ref": "#/$defs/a"}, **{"$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}}}}),
    {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(25)}},
    {"type": "object", "properties": {f"p{n}": {"type": ["string", "null"]} for n in range(17)}},
]


@pytest.mark.parametrize("schema", NATIVE)
def test_a_schema_goes_up_as_the_api_takes_it_and_means_no_more(schema: dict[str, Any]) -> None:
    sent = for_output_format(schema)
    assert sent is not None
    assert format_objection(sent) is None
    assert asked(schema=schema).body == {"output_config": {"format": {"type": "json_schema", "schema": sent}}}
    bounded = {"minLength", "minItems", "pattern"} & set(json.dumps(schema).split('"'))
    if not bounded:
        jsonschema.validate(instance(sent), schema)
    for name in bounded:
        assert f"{name}: " in json.dumps(sent) or (name == "minItems" and '"minItems": 1' in json.dumps(sent))


@pytest.mark.parametrize("schema", OTHER)
def test_a_schema_that_the_api_does_not_take_goes_another_way(schema: dict[str, Any]) -> None:
    assert asked(schema=schema).body.keys() <= {"tools"}
    assert asked(schema=schema).by_tool or json.dumps(schema) in asked(schema=schema).request.system


@pytest.mark.parametrize("odd", [{"properties": 7}, {"properties": {"a": 7}}, {"anyOf": 1}, {"enum": 3}, {"$defs": []}])
def test_a_schema_that_is_none_raises_nothing(odd: dict[str, Any]) -> None:
    asked(schema={"type": "object", **odd})
    asked(tools=(Tool("a", "", odd, strict=True),), tool_choice=ToolChoice("required"))


def test_older_models_get_the_output_tool() -> None:
    old = asked(schema=CLOSED, model="claude-opus-4-20250514", tools=(Tool("a"),))
    assert old.by_tool
    assert [tool["name"] for tool in old.body["tools"]] == ["a", "StructuredOutput"]
    assert "output_config" not in old.body


def test_the_output_tool_is_no_way_out_of_a_call_and_not_offered_where_none_may_be_called() -> None:
    for model in ("claude-opus-4-20250514", "claude-haiku-4-5"):
        forced = asked(schema=CLOSED, model=model, tools=(Tool("a"),), tool_choice=ToolChoice("required"))
        assert [tool["name"] for tool in forced.body["tools"]] == ["a"]
        assert forced.body["tool_choice"] == {"type": "any"}
        assert (forced.by_tool, "output_config" in forced.body, forced.request.system) == (False, False, "")
    barred = asked(schema=CLOSED, model="claude-opus-4-20250514", tools=(Tool("a"),), tool_choice=ToolChoice("none"))
    assert [tool["name"] for tool in barred.body["tools"]] == ["a"]
    assert (barred.by_tool, json.dumps(CLOSED) in barred.request.system) == (False, True)
    assert asked(schema=CLOSED, model="claude-opus-4-20250514", tool_choice=ToolChoice("none")).by_tool
    namesake = asked(schema=CLOSED, model="claude-opus-4-20250514", tools=(Tool("StructuredOutput"),))
    assert (len(namesake.body["tools"]), namesake.by_tool) == (1, False)


def test_strict_goes_up_only_where_the_api_takes_the_schema() -> None:
    loose = {**CLOSED, "properties": {"name": {"type": "string", "minLength": 1}}}
    tools = (Tool("a", "", CLOSED, strict=True), Tool("b", "", loose, strict=True), Tool("c", "", CLOSED))
    assert [tool.get("strict") for tool in asked(tools=tools).body["tools"]] == [True, None, None]
    assert "strict" not in json.dumps(asked(tools=tools, model="claude-opus-4-1").body)


def test_nothing_asked_for_is_nothing_in_the_body_and_whether_to_think_is_left_to_the_model() -> None:
    for model, tokens in (("claude-opus-4-8", 0), ("claude-opus-5", None), ("claude-sonnet-5-5", None)):
        plain = asked(model=model, max_output_tokens=100)
        assert plain == ClaudeAsked(plain.request, {}, thinking_tokens=tokens)


def test_an_effort_alone_makes_nothing_think_in_anthropics_api() -> None:
    for model, api, tokens in (
        ("claude-opus-4-8", "anthropic", 0),
        ("claude-opus-4-8", "openai-chat", None),
        ("claude-opus-5", "anthropic", None),
    ):
        assert asked(model=model, api=api, effort="low").thinking_tokens == tokens


@pytest.mark.parametrize("none", [{"thinking": Thinking("disabled")}, {"effort": "none"}])
def test_no_thinking_is_asked_for_in_the_words_of_the_model(none: Any) -> None:
    for model in ("claude-opus-4-8", "claude-opus-5"):
        assert (asked(model=model, **none).body, asked(model=model, **none).thinking_tokens) == ({}, 0)
    assert asked(model="claude-sonnet-5-5", **none).body == {"thinking": {"type": "between_tools"}}


FIND = Tool("find", "Finds people.", {"type": "object", "properties": {"name": {"type": "string"}}})
ADD = Tool("add", "", CLOSED)


def test_a_forced_tool_is_a_schema_where_the_api_cannot_be_made_to_call_it() -> None:
    forced = asked(tools=(FIND, ADD), tool_choice=ToolChoice("required", "find"), system="Be brief.")
    closed = {**FIND.schema, "additionalProperties": False}
    assert forced.body == {"output_config": {"format": {"type": "json_schema", "schema": closed}}}
    assert forced.forced == (FIND,)
    assert forced.request.system.startswith("Be brief.\n\n")
    assert "find: Finds people." in forced.request.system


def test_tools_stay_where_the_conversation_has_calls_of_them() -> None:
    turns = (USER, Message("assistant", (ToolCall("t", "add", "{}"),)), Message("user", (ToolResult("t", ()),)))
    body = asked(*turns, tools=(FIND, ADD), tool_choice=ToolChoice("required")).body
    assert body.keys() == {"tools", "tool_choice", "output_config"}
    assert body["tool_choice"] == {"type": "none"}
    assert format_objection(body["output_config"]["format"]["schema"]) is None


def test_a_forced_tool_whose_schema_cannot_be_enforced_is_asked_for_in_words() -> None:
    anything = Tool("store", "", {"type": "object", "additionalProperties": True})
    told = asked(tools=(anything,), tool_choice=ToolChoice("required", "store"))
    assert told.body.keys() == {"tools"}
    assert told.forced == ()
    assert "must call the function store" in told.request.system


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        ("", b"{}"),
        (" ", b"{}"),
        ('{"a": 1.50, "b": 12345678901234567890}', b'{"a": 1.50, "b": 12345678901234567890}'),
        ('{"a": "Par', b'{"INVALID_JSON":"{\\"a\\": \\"Par"}'),
        ("[1]", b'{"INVALID_JSON":"[1]"}'),
        ("[" * 5000, b'{"INVALID_JSON":"' + b"[" * 5000 + b'"}'),
    ],
)
def test_arguments_of_earlier_calls_stay_as_they_were_written(arguments: str, sent: bytes) -> None:
    (block,) = claude_body.blocks([ToolCall("t", "add", arguments)])
    assert msgspec.json.encode(block["input"]) == sent


def test_a_tool_of_the_vendors_own_kind_goes_up_as_its_api_knows_it() -> None:
    bash = Tool("bash", vendor={"type": "bash_20250124"})
    for model in ("claude-sonnet-4-5", "claude-sonnet-5-5"):
        assert asked(tools=(bash,), model=model).body["tools"] == [{"type": "bash_20250124", "name": "bash"}]
    told = asked(tools=(bash,), tool_choice=ToolChoice("required"))
    assert (told.forced, told.body.keys()) == ((), {"tools"})
    assert "You must call" in told.request.system
