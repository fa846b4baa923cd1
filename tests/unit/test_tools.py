"""Tools in bodies: what is offered, called and answered arrives the same way by every API, and is paired."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bridge.errors import BridgeError
from bridge.records.jobs import Job
from bridge.settings import Settings
from bridge.types import (
    Answer,
    Charge,
    Finished,
    GenerationRequest,
    Image,
    Message,
    ModelChoice,
    Part,
    PartDelta,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Usage,
)
from bridge.wire import anthropic, native, openai_chat, openai_responses
from bridge.wire.api import Asked, Known
from bridge.wire.tools import MAX_TOOL_BYTES, MAX_TOOLS

SETTINGS = Settings.load({})
HELLO = {"role": "user", "content": "hello"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string", "minLength": 2}}, "required": ["city"]}
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
IMAGE = Image("image/png", PNG, 1)

MODULES: dict[str, Any] = {
    "chat": openai_chat,
    "responses": openai_responses,
    "messages": anthropic,
    "native": native,
}
EVERY_API = pytest.mark.parametrize("api", MODULES)

LEAST: dict[str, dict[str, Any]] = {
    "chat": {"model": "gpt-6-sol", "messages": [HELLO]},
    "responses": {"model": "gpt-6-sol", "input": [HELLO]},
    "messages": {"model": "claude-sonnet-5-5", "max_tokens": 100, "messages": [HELLO]},
    "native": {"messages": [HELLO]},
}
#: where each API has the conversation
FIELD = {"chat": "messages", "responses": "input", "messages": "messages", "native": "messages"}

#: a tool, as each API is told of it
OFFER: dict[str, Callable[[str, str, dict[str, Any]], dict[str, Any]]] = {
    "chat": lambda name, text, schema: {
        "type": "function",
        "function": {"name": name, "description": text, "parameters": schema},
    },
    "responses": lambda name, text, schema: {
        "type": "function",
        "name": name,
        "description": text,
        "parameters": schema,
    },
    "messages": lambda name, text, schema: {"name": name, "description": text, "input_schema": schema},
    "native": lambda name, text, schema: {"name": name, "description": text, "inputSchema": schema},
}


def calls(api: str, *given: tuple[str, str, str], text: str = "") -> list[dict[str, Any]]:
    """A turn of the model that calls tools, given as (id, name, arguments)."""
    if api == "chat":
        made = [{"id": i, "type": "function", "function": {"name": n, "arguments": a}} for i, n, a in given]
        return [{"role": "assistant", "content": text or None, "tool_calls": made}]
    if api == "responses":
        said = [{"role": "assistant", "content": [{"type": "output_text", "text": text}]}] if text else []
        made = [
            {"type": "function_call", "call_id": i, "name": n, "arguments": a, "id": f"fc_{i}"} for i, n, a in given
        ]
        return [*said, *made]
    blocks = [{"type": "tool_use", "id": i, "name": n, "input": json.loads(a)} for i, n, a in given]
    return [{"role": "assistant", "content": [*([{"type": "text", "text": text}] if text else []), *blocks]}]


def results(api: str, *given: tuple[str, str]) -> list[dict[str, Any]]:
    """What tools gave, as (id, text)."""
    if api == "chat":
        return [{"role": "tool", "tool_call_id": i, "content": text} for i, text in given]
    if api == "responses":
        return [{"type": "function_call_output", "call_id": i, "output": text} for i, text in given]
    name = "toolUseId" if api == "native" else "tool_use_id"
    return [{"role": "user", "content": [{"type": "tool_result", name: i, "content": text} for i, text in given]}]


def asked(api: str, **fields: Any) -> Asked:
    resolve = lambda name: ModelChoice("codex" if name.startswith("gpt") else "claude", name or "claude-sonnet-5-5")  # noqa: E731
    found: Asked = MODULES[api].parse(json.dumps({**LEAST[api], **fields}).encode(), Known(SETTINGS, resolve))
    return found


def parse(api: str, **fields: Any) -> GenerationRequest:
    return asked(api, **fields).request


def refusal(api: str, **fields: Any) -> str:
    with pytest.raises(BridgeError) as caught:
        parse(api, **fields)
    assert (caught.value.code, caught.value.problem.status) == ("invalid_request", 400)
    assert caught.value.message.endswith(".")
    return caught.value.message


def conversation(api: str, *turns: dict[str, Any]) -> tuple[Message, ...]:
    return parse(api, **{FIELD[api]: [HELLO, *turns]}).messages[1:]


# --- what is offered -------------------------------------------------------------------------------


@EVERY_API
def test_tools_arrive_as_they_were_written(api: str) -> None:
    offers = [OFFER[api](name, "Ünïcode\n✓", SCHEMA) for name in ("get_weather", "__proto__", "Bash", "a-1" * 40)]
    request = parse(api, tools=offers)
    assert request.tools == tuple(
        Tool(name, "Ünïcode\n✓", SCHEMA) for name in ("get_weather", "__proto__", "Bash", "a-1" * 40)
    )
    assert list(request.tools[0].schema) == list(SCHEMA)
    assert request.tool_choice == ToolChoice()


@EVERY_API
def test_a_tool_needs_nothing_but_a_name(api: str) -> None:
    bare = {"chat": {"type": "function", "function": {"name": "now"}}, "responses": {"type": "function", "name": "now"}}
    (tool,) = parse(api, tools=[bare.get(api, {"name": "now"})]).tools
    assert tool == Tool("now", "", {"type": "object", "properties": {}})


def test_strict_arrives_where_it_was_said() -> None:
    offer = OFFER["chat"]("f", "", SCHEMA)
    offer["function"]["strict"] = True
    assert parse("chat", tools=[offer]).tools[0].strict is True
    assert parse("responses", tools=[{**OFFER["responses"]("f", "", SCHEMA), "strict": False}]).tools[0].strict is False
    assert parse("messages", tools=[{**OFFER["messages"]("f", "", SCHEMA), "strict": True}]).tools[0].strict is True


CHOICES: list[tuple[str, str, Any, ToolChoice]] = [
    *((api, "tool_choice", mode, ToolChoice(mode)) for api in ("chat", "responses") for mode in ("none", "required")),
    ("chat", "tool_choice", {"type": "function", "function": {"name": "f"}}, ToolChoice("required", "f")),
    ("responses", "tool_choice", {"type": "function", "name": "f"}, ToolChoice("required", "f")),
    ("messages", "tool_choice", {"type": "any"}, ToolChoice("required")),
    ("messages", "tool_choice", {"type": "none"}, ToolChoice("none")),
    ("messages", "tool_choice", {"type": "tool", "name": "f"}, ToolChoice("required", "f")),
    (
        "messages",
        "tool_choice",
        {"type": "auto", "disable_parallel_tool_use": True},
        ToolChoice(parallel=False),
    ),
    ("chat", "parallel_tool_calls", False, ToolChoice(parallel=False)),
    ("responses", "parallel_tool_calls", False, ToolChoice(parallel=False)),
    ("native", "toolChoice", "required", ToolChoice("required")),
    ("native", "toolChoice", {"name": "f"}, ToolChoice("required", "f")),
]


@pytest.mark.parametrize(("api", "field", "value", "choice"), CHOICES)
def test_a_choice_of_tools_arrives(api: str, field: str, value: Any, choice: ToolChoice) -> None:
    offers = [OFFER[api](name, "", SCHEMA) for name in "fg"]
    assert parse(api, tools=offers, **{field: value}).tool_choice == choice


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_of_all_tools_some_may_be_allowed(api: str) -> None:
    offers = [OFFER[api](name, "", SCHEMA) for name in "fgh"]
    names = [{"type": "function", "name": name, "function": {"name": name}} for name in "gh"]
    allowed = {"mode": "required", "tools": names}
    choice = {"type": "allowed_tools", "allowed_tools": allowed, **allowed}
    request = parse(api, tools=offers, tool_choice=choice)
    assert [tool.name for tool in request.tools] == ["g", "h"]
    assert request.tool_choice == ToolChoice("required")
    assert "names the tool 'g'" in refusal(api, tools=offers[:1], tool_choice=choice)


def test_what_openai_runs_is_passed_over_also_where_it_is_allowed() -> None:
    search, own = {"type": "file_search"}, OFFER["responses"]("f", "", SCHEMA)
    choice = {"type": "allowed_tools", "mode": "auto", "tools": [search, {"type": "function", "name": "f"}]}
    request = parse("responses", tools=[search, own], tool_choice=choice)
    assert ([tool.name for tool in request.tools], request.ignored) == (["f"], ("file_search",))


@pytest.mark.parametrize("api", ["chat", "responses", "messages"])
def test_types_that_a_client_has_made_up_are_named_as_far_as_a_header_carries_them(api: str) -> None:
    odd = ["file_search", "file_search", "a\r\nSet-Cookie: b=c", "日本", "x" * 65, "", *(f"t{n}" for n in range(40))]
    request = parse(api, tools=[OFFER[api]("f", "", SCHEMA), *({"type": kind, "name": "n"} for kind in odd)])
    assert [tool.name for tool in request.tools] == ["f"]
    assert request.ignored == ("file_search", *(f"t{n}" for n in range(19)))


def test_the_older_functions_of_chat_are_tools_of_which_one_is_called() -> None:
    functions = [OFFER["chat"](name, "", SCHEMA)["function"] for name in "fg"]
    assert parse("chat", functions=functions).tool_choice == ToolChoice(parallel=False)
    named = parse("chat", functions=functions, function_call={"name": "g"})
    assert [tool.name for tool in named.tools] == ["f", "g"]
    assert named.tool_choice == ToolChoice("required", "g", parallel=False)
    assert parse("chat", functions=functions, function_call="none").tool_choice.mode == "none"
    assert "h" in refusal("chat", functions=functions, function_call={"name": "h"})


DEEP: dict[str, Any] = {}
for _ in range(150):
    DEEP = {"type": "object", "properties": {"a": DEEP}}


@EVERY_API
@pytest.mark.parametrize(
    ("names", "text", "schema", "says"),
    [
        (["f", "f"], "", {}, "Two tools have the name f."),
        (["a b"], "", {}, "tools[0]"),
        ([""], "", {}, "name"),
        (["ü"], "", {}, "letters, digits"),
        (["x" * 129], "", {}, "128"),
        ([f"f{number}" for number in range(MAX_TOOLS + 1)], "", {}, f"at most {MAX_TOOLS} tools"),
        ([f"f{number}" for number in range(10_000)], "", SCHEMA, "more than 50000 values"),
        ([f"f{number}" for number in range(3)], "x" * 400_000, SCHEMA, f"may have {MAX_TOOL_BYTES}"),
        (["f"], "x" * 10_000_000, SCHEMA, "longer than"),
        (["f"], "", {"type": "object", "description": "x" * 10_000_000}, f"may have {MAX_TOOL_BYTES}"),
        (["f"], "", DEEP, "nested more than 100 deep"),
        (["f"], "a\0b", {}, "NUL"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_tools_that_nobody_means_are_refused_with_a_sentence(
    api: str, names: list[str], text: str, schema: dict[str, Any], says: str
) -> None:
    assert says in refusal(api, tools=[OFFER[api](name, text, schema) for name in names])


#: how each API is told of a schema for its answer
FORM: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "chat": lambda schema: {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}},
    "responses": lambda schema: {"text": {"format": {"type": "json_schema", "name": "a", "schema": schema}}},
    "messages": lambda schema: {"output_config": {"format": {"type": "json_schema", "schema": schema}}},
    "native": lambda schema: {"schema": schema},
}


@EVERY_API
def test_the_schema_of_an_answer_may_be_as_deep_as_that_of_a_tool(api: str) -> None:
    assert parse(api, **FORM[api](SCHEMA)).schema == SCHEMA
    assert "nested more than 100 deep" in refusal(api, **FORM[api](DEEP))


@EVERY_API
def test_a_choice_that_nothing_fits_is_refused(api: str) -> None:
    field = "toolChoice" if api == "native" else "tool_choice"
    named: Any = {"type": "function", "function": {"name": "gone"}, "name": "gone"}
    named = {"name": "gone"} if api == "native" else {**named, **({"type": "tool"} if api == "messages" else {})}
    required = {"type": "any"} if api == "messages" else "required"
    offers = [OFFER[api]("f", "", SCHEMA)]
    assert "names the tool 'gone'" in refusal(api, tools=offers, **{field: named})
    assert "names the tool 'gone'" in refusal(api, **{field: named})
    assert "offers no tools" in refusal(api, **{field: required})


HOSTED = [
    ("chat", {"type": "custom", "custom": {"name": "x"}}, "custom"),
    ("responses", {"type": "file_search", "vector_store_ids": ["x"]}, "file_search"),
    ("responses", {"type": "computer_use_preview"}, "computer_use_preview"),
    ("responses", {"type": "mcp", "server_label": "x", "server_url": "https://a.example"}, "mcp"),
    ("responses", {"type": "code_interpreter", "container": {"type": "auto"}}, "code_interpreter"),
    ("responses", {"type": "image_generation"}, "image_generation"),
    ("messages", {"type": "web_fetch_20250910", "name": "web_fetch"}, "web_fetch_20250910"),
    ("messages", {"type": "computer_20250124", "name": "computer"}, "computer_20250124"),
]


@pytest.mark.parametrize(("api", "tool", "kind"), HOSTED)
def test_tools_that_their_vendor_runs_are_refused_and_beside_own_ones_passed_over(
    api: str, tool: dict[str, Any], kind: str
) -> None:
    assert f"tools[0].type: the bridge has no tools of the type '{kind}'" in refusal(api, tools=[tool])
    own = OFFER[api]("f", "", SCHEMA)
    request = parse(api, tools=[tool, own, tool])
    assert (request.tools, request.ignored) == ((Tool("f", "", SCHEMA),), (kind,))


@pytest.mark.parametrize(
    ("kind", "name"),
    [("bash_20250124", "bash"), ("text_editor_20250728", "str_replace_based_edit_tool"), ("memory_20250818", "memory")],
)
def test_tools_of_anthropics_kind_that_the_client_runs_go_to_models_of_its_own(kind: str, name: str) -> None:
    tool = {"type": kind, "name": name, "max_characters": 5000, "made_up": 1}
    (offered,) = parse("messages", tools=[tool]).tools
    assert offered == Tool(name, vendor={"type": kind, "max_characters": 5000})
    assert kind in refusal("messages", tools=[tool], model="gpt-6-sol")
    own = OFFER["messages"]("f", "", SCHEMA)
    request = parse("messages", tools=[tool, own], model="gpt-6-sol")
    assert ([each.name for each in request.tools], request.ignored) == (["f"], (kind,))


# --- what was called -------------------------------------------------------------------------------


@EVERY_API
def test_calls_and_their_results_arrive_as_they_were(api: str) -> None:
    arguments = '{"b":1,"a":"ü"}'
    turns = [
        *calls(api, ("call_AbC-1", "f", arguments), ("toolu_2", "g", "{}"), text="I look."),
        *results(api, ("call_AbC-1", "x" * 300_000), ("toolu_2", "")),
    ]
    assert conversation(api, *turns) == (
        Message("assistant", (Text("I look."), ToolCall("call_AbC-1", "f", arguments), ToolCall("toolu_2", "g", "{}"))),
        Message("user", (ToolResult("call_AbC-1", (Text("x" * 300_000),)), ToolResult("toolu_2", ()))),
    )


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_arguments_are_the_models_own_text(api: str) -> None:
    for arguments in ('{"price": 1.50, "city":"x"}', '{"broken', '{"a":1}{"b":2}'):
        (message, _) = conversation(api, *calls(api, ("c", "f", arguments)), *results(api, ("c", "ok")))
        assert message.content == (ToolCall("c", "f", arguments),)
    (message, _) = conversation(api, *calls(api, ("c", "f", "")), *results(api, ("c", "ok")))
    assert message.content == (ToolCall("c", "f", "{}"),)


def test_results_may_be_errors_images_and_come_before_words() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
    content = [
        {"type": "text", "text": "look"},
        {
            "type": "tool_result",
            "tool_use_id": "a",
            "content": [{"type": "text", "text": "no"}, image],
            "is_error": True,
        },
        {"type": "tool_result", "tool_use_id": "b"},
    ]
    turns = [*calls("messages", ("a", "f", "{}"), ("b", "f", "{}")), {"role": "user", "content": content}]
    assert conversation("messages", *turns)[1].content == (
        ToolResult("a", (Text("no"), IMAGE), is_error=True),
        ToolResult("b", ()),
        Text("look"),
    )
    part = {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"}
    output = [{"type": "function_call_output", "call_id": "a", "output": [{"type": "input_text", "text": "x"}, part]}]
    given = conversation("responses", *calls("responses", ("a", "f", "{}")), *output)[1].content
    assert given == (ToolResult("a", (Text("x"), IMAGE)),)
    block = {"type": "image", "mediaType": "image/png", "data": PNG}
    result = {"type": "tool_result", "toolUseId": "a", "content": [block], "isError": True}
    turns = [*calls("native", ("a", "f", "{}")), {"role": "user", "content": [result]}]
    assert conversation("native", *turns)[1].content == (ToolResult("a", (IMAGE,), is_error=True),)


def test_a_call_and_a_result_in_the_older_form_find_each_other() -> None:
    turns = []
    for number in range(2):
        call = {"name": "f", "arguments": f'{{"n":{number}}}'}
        turns += [
            {"role": "assistant", "content": None, "function_call": call},
            {"role": "function", "name": "f", "content": f"result {number}"},
        ]
    assert conversation("chat", *turns) == (
        Message("assistant", (ToolCall("function_call", "f", '{"n":0}'),)),
        Message("user", (ToolResult("function_call", (Text("result 0"),)),)),
        Message("assistant", (ToolCall("function_call_2", "f", '{"n":1}'),)),
        Message("user", (ToolResult("function_call_2", (Text("result 1"),)),)),
    )


def ids(messages: tuple[Message, ...]) -> list[list[str]]:
    found = []
    for message in messages:
        parts = [part for part in message.content if isinstance(part, ToolCall | ToolResult)]
        found.append([part.id if isinstance(part, ToolCall) else part.tool_call_id for part in parts])
    return found


@EVERY_API
def test_an_id_that_was_used_before_becomes_another_in_call_and_result(api: str) -> None:
    turns = []
    for _ in range(2):
        turns += [*calls(api, ("a", "f", "{}"), ("a", "g", "{}")), *results(api, ("a", "1"), ("a", "2"))]
    messages = conversation(api, *turns)
    assert ids(messages) == [["a", "a_2"], ["a", "a_2"], ["a_3", "a_4"], ["a_3", "a_4"]]
    assert [part.content for part in messages[3].content if isinstance(part, ToolResult)] == [
        (Text("1"),),
        (Text("2"),),
    ]


@EVERY_API
def test_ids_that_some_api_does_not_take_become_others(api: str) -> None:
    odd = ["functions.f:0", "ü", "x" * 65]
    turns = [
        *calls(api, *((each, "f", "{}") for each in odd)),
        *results(api, *((each, "ok") for each in reversed(odd))),
    ]
    assert ids(conversation(api, *turns)) == [["call", "call_2", "call_3"], ["call_3", "call_2", "call"]]


@EVERY_API
def test_a_call_without_a_result_and_a_result_without_a_call_are_named(api: str) -> None:
    def said(*turns: dict[str, Any]) -> str:
        return refusal(api, **{FIELD[api]: [HELLO, *turns]})

    one, other = calls(api, ("a1", "f", "{}"), ("b2", "f", "{}")), calls(api, ("a1", "f", "{}"))
    assert "the tool call 'b2' has no result" in said(*one, *results(api, ("a1", "x")))
    assert "the tool call 'a1' has no result" in said(*other, HELLO)
    assert "the tool call 'a1' has no result" in said(*other)
    assert "no tool call 'zz'" in said(*other, *results(api, ("zz", "x")))
    assert "no tool call 'a1'" in said(*other, *results(api, ("a1", "x"), ("a1", "y")))
    assert "no tool call 'a1'" in said(*results(api, ("a1", "x")))
    answered = [*other, *results(api, ("a1", "x")), {"role": "assistant", "content": "ok"}]
    assert "no tool call 'a1'" in said(*answered, *results(api, ("a1", "x")))


@EVERY_API
def test_a_call_of_something_without_a_name_is_refused(api: str) -> None:
    for name in ("", "a b", "x" * 129):
        assert "name" in refusal(
            api, **{FIELD[api]: [HELLO, *calls(api, ("a", name, "{}")), *results(api, ("a", "x"))]}
        )


def test_only_an_assistant_calls_and_only_a_user_gives_results() -> None:
    use = {"type": "tool_use", "id": "a", "name": "f", "input": {}}
    given = {"type": "tool_result", "tool_use_id": "a"}
    assert "only an assistant's" in refusal("messages", messages=[{"role": "user", "content": [use]}])
    assert "only a user's" in refusal("messages", messages=[HELLO, {"role": "assistant", "content": [given]}])


def test_calls_and_outputs_of_responses_may_take_turns() -> None:
    turns = [
        *calls("responses", ("a", "f", "{}")),
        *results("responses", ("a", "1")),
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
        *calls("responses", ("b", "f", "{}")),
        *results("responses", ("b", "2")),
    ]
    assert ids(conversation("responses", *turns)) == [["a"], ["a"], ["b"], ["b"]]


def test_tools_count_in_the_size_of_a_request() -> None:
    bare = parse("chat")
    offered = parse("chat", tools=[OFFER["chat"]("f", "x" * 1000, SCHEMA)])
    assert offered.size - bare.size == offered.tools_size > 1000


# --- what is told ----------------------------------------------------------------------------------

CALL, OTHER = ToolCall("call_1", "f", '{"city": "Paris"}'), ToolCall("call_2", "now", "")
USAGE = Usage(10, output_tokens=5)


def finished(*content: Part, reason: str = "tool_use") -> Finished:
    return Finished(Answer(content, "m", reason, USAGE), Charge(USAGE, 5), 10)


def body(api: str, *content: Part, reason: str = "tool_use", **fields: Any) -> dict[str, Any]:
    """The body of an answer."""
    wanted, end = asked(api, **fields), finished(*content, reason=reason)
    return wanted.answer(Job("run_1", "ada", 0.0, wanted.request, finished=end), end)


def test_chat_tells_calls_beside_the_text() -> None:
    (choice,) = body("chat", Text("I look."), CALL, OTHER)["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "I look."
    assert choice["message"]["tool_calls"] == [
        {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"city": "Paris"}'}},
        {"id": "call_2", "type": "function", "function": {"name": "now", "arguments": "{}"}},
    ]
    (bare,) = body("chat", CALL)["choices"]
    assert bare["message"]["content"] is None
    (text,) = body("chat", Text("hi"), reason="end_turn")["choices"]
    assert "tool_calls" not in text["message"]


def test_chat_tells_a_call_in_the_older_form_to_who_asked_in_it() -> None:
    functions = [OFFER["chat"]("f", "", SCHEMA)["function"]]
    (choice,) = body("chat", CALL, functions=functions)["choices"]
    assert choice["finish_reason"] == "function_call"
    assert choice["message"]["function_call"] == {"name": "f", "arguments": '{"city": "Paris"}'}
    assert "tool_calls" not in choice["message"]


def test_messages_tells_blocks_in_their_order() -> None:
    message = body("messages", Text("I look."), CALL, Text("And"), OTHER)
    assert message["stop_reason"] == "tool_use"
    assert message["content"] == [
        {"type": "text", "text": "I look."},
        {"type": "tool_use", "id": "call_1", "name": "f", "input": {"city": "Paris"}},
        {"type": "text", "text": "And"},
        {"type": "tool_use", "id": "call_2", "name": "now", "input": {}},
    ]


def test_responses_tells_items_in_their_order() -> None:
    offers = [OFFER["responses"]("f", "d", SCHEMA)]
    response = body("responses", Text("I "), Text("look."), CALL, Text("And"), OTHER, tools=offers)
    assert [item["type"] for item in response["output"]] == ["message", "function_call", "message", "function_call"]
    assert response["output"][0]["content"][0]["text"] == "I look."
    assert response["output"][1] == {
        "type": "function_call",
        "id": "fc_1_1",
        "status": "completed",
        "call_id": "call_1",
        "name": "f",
        "arguments": '{"city": "Paris"}',
    }
    assert response["output"][3]["arguments"] == "{}"
    assert len({item["id"] for item in response["output"]}) == 4
    assert response["status"] == "completed"
    assert response["tools"] == [
        {"type": "function", "name": "f", "description": "d", "parameters": SCHEMA, "strict": None}
    ]


def test_native_tells_calls_beside_the_text() -> None:
    answer = body("native", Text("I "), Text("look."), CALL)
    assert answer["stop_reason"] == "tool_use"
    assert answer["content"] == [
        {"type": "text", "text": "I look."},
        {"type": "tool_use", "id": "call_1", "name": "f", "input": {"city": "Paris"}},
    ]
    assert body("native", CALL)["content"] == [
        {"type": "tool_use", "id": "call_1", "name": "f", "input": {"city": "Paris"}}
    ]


@pytest.mark.parametrize("api", ["messages", "native"])
def test_arguments_that_are_no_object_are_wrapped(api: str) -> None:
    for broken in ('{"city": "Par', "[1]", '{"a":1}{'):
        (block,) = body(api, ToolCall("c", "f", broken))["content"]
        assert block["input"] == {"INVALID_JSON": broken}


def test_a_custom_tool_of_responses_is_a_function_with_one_text_there_and_back() -> None:
    grammar = {"type": "grammar", "syntax": "lark", "definition": 'start: "x"'}
    tools = [{"type": "custom", "name": "patch", "description": "Patches.", "format": grammar}]
    (tool,) = parse("responses", tools=tools).tools
    assert tool.schema["required"] == ["input"]
    assert tool.description == 'Patches.\n\nThe input must follow this grammar (lark):\nstart: "x"'
    call = ToolCall("call_1", "patch", '{"input":"*** Begin\\n\\"x\\""}')
    response = body("responses", call, tools=tools)
    assert response["output"] == [
        {
            "type": "custom_tool_call",
            "id": "fc_1",
            "status": "completed",
            "call_id": "call_1",
            "name": "patch",
            "input": '*** Begin\n"x"',
        }
    ]
    assert response["tools"][0]["type"] == "custom"
    history = [
        {"type": "custom_tool_call", "call_id": "call_1", "name": "patch", "input": '*** Begin\n"x"'},
        {"type": "custom_tool_call_output", "call_id": "call_1", "output": "done"},
    ]
    assert conversation("responses", *history) == (
        Message("assistant", (call,)),
        Message("user", (ToolResult("call_1", (Text("done"),)),)),
    )
    odd = body("responses", ToolCall("call_1", "patch", "no JSON"), tools=tools)
    assert odd["output"][0]["input"] == "no JSON"


class Live:
    """A run whose answer comes in pieces."""

    id, started_at, queue_position = "run_1", 0.0, 0

    def __init__(self, request: GenerationRequest, pieces: list[PartDelta], end: Finished) -> None:
        self.request = request
        self._pieces, self._end = pieces, end

    def follow(self, heartbeat_s: float) -> Iterator[PartDelta | None]:
        yield from self._pieces
        yield None

    def wait(self, timeout_s: float | None = None) -> Finished:
        return self._end


def events(api: str, **fields: Any) -> list[dict[str, Any]]:
    """The events of a stream with a text and two calls, one of them without arguments."""
    wanted = asked(api, stream=True, **fields)
    pieces = [
        *(PartDelta(0, Text(text)) for text in ("I ", "look.")),
        *(PartDelta(1, ToolCall("call_1", "f", text)) for text in ("", '{"city": ', '"Paris"}')),
        PartDelta(2, ToolCall("call_2", "now", "")),
    ]
    live = Live(wanted.request, pieces, finished(Text("I look."), CALL, OTHER))
    assert wanted.events is not None
    found = []
    for event in wanted.events(live, "req_1"):
        for line in event.decode().splitlines():
            if line.startswith("data: {"):
                found.append(json.loads(line.removeprefix("data: ")))
    return found


def test_a_stream_of_chat_tells_calls_in_pieces() -> None:
    deltas = [chunk["choices"][0]["delta"] for chunk in events("chat")]
    assert [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta] == [
        {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"city": '}},
        {"index": 0, "function": {"arguments": '"Paris"}'}},
        {"index": 1, "id": "call_2", "type": "function", "function": {"name": "now", "arguments": ""}},
        {"index": 1, "function": {"arguments": "{}"}},
    ]
    assert events("chat")[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_a_stream_of_chat_in_the_older_form_tells_the_first_call() -> None:
    chunks = events("chat", functions=[OFFER["chat"]("f", "", SCHEMA)["function"]])
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert [delta["function_call"] for delta in deltas if "function_call" in delta] == [
        {"name": "f", "arguments": ""},
        {"arguments": '{"city": '},
        {"arguments": '"Paris"}'},
    ]
    assert chunks[-1]["choices"][0]["finish_reason"] == "function_call"


def test_a_stream_of_messages_has_a_block_for_each_part() -> None:
    found = events("messages")
    assert [event["type"] for event in found if event["type"] != "ping"] == [
        "message_start",
        *("content_block_start", "content_block_delta", "content_block_delta", "content_block_stop"),
        *("content_block_start", "content_block_delta", "content_block_delta", "content_block_stop"),
        *("content_block_start", "content_block_delta", "content_block_stop"),
        *("message_delta", "message_stop"),
    ]
    starts = [event for event in found if event["type"] == "content_block_start"]
    assert [event["index"] for event in starts] == [0, 1, 2]
    assert starts[1]["content_block"] == {"type": "tool_use", "id": "call_1", "name": "f", "input": {}}
    pieces = [event["delta"] for event in found if event["type"] == "content_block_delta" and event["index"] > 0]
    assert [piece["partial_json"] for piece in pieces] == ['{"city": ', '"Paris"}', "{}"]
    assert found[-2]["delta"]["stop_reason"] == "tool_use"


def test_a_stream_of_responses_has_an_item_for_each_part() -> None:
    found = events("responses")
    assert [event["type"].removeprefix("response.") for event in found] == [
        *("created", "in_progress"),
        *("output_item.added", "content_part.added", "output_text.delta", "output_text.delta"),
        *("output_text.done", "content_part.done", "output_item.done"),
        *("output_item.added", "function_call_arguments.delta", "function_call_arguments.delta"),
        *("function_call_arguments.done", "output_item.done"),
        *("output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done"),
        "completed",
    ]
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    done = [event["item"] for event in found if event["type"] == "response.output_item.done"]
    assert done == found[-1]["response"]["output"]
    arguments = [event["arguments"] for event in found if event["type"].endswith("arguments.done")]
    assert arguments == ['{"city": "Paris"}', "{}"]


def test_a_native_stream_tells_each_call_once_it_is_whole() -> None:
    found = events("native")
    assert [event for event in found if event.get("type") == "tool_use"] == [
        {"type": "tool_use", "id": "call_1", "name": "f", "input": {"city": "Paris"}},
        {"type": "tool_use", "id": "call_2", "name": "now", "input": {}},
    ]
    assert found[-1]["stop_reason"] == "tool_use"
