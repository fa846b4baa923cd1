"""Tools with the official SDKs, as their documentation shows them: the simulated CLIs call what is offered."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import openai
import pytest
from anthropic import beta_tool
from pydantic import BaseModel

from tests.contract.sdk.conftest import BOTH_CLIS, CLAUDE, CODEX, Clients
from tests.contract.sdk.test_shapes import check, stream_of

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CHAT_TOOLS: list[Any] = [
    {"type": "function", "function": {"name": name, "description": "d", "parameters": CITY}}
    for name in ("get_weather", "get_time")
]
RESPONSES_TOOLS: list[Any] = [
    {"type": "function", "name": name, "description": "d", "parameters": CITY, "strict": False}
    for name in ("get_weather", "get_time")
]
MESSAGES_TOOLS: list[Any] = [
    {"name": name, "description": "d", "input_schema": CITY} for name in ("get_weather", "get_time")
]
#: prompt -> the tools that it makes the simulated CLIs call
PROMPTS = {
    "What is the weather?": ["get_weather"],
    "get_weather get_time": ["get_weather", "get_time"],
    "get_time " * 5: ["get_time"] * 5,
}
EACH_PROMPT = pytest.mark.parametrize("prompt", PROMPTS)


class GetWeather(BaseModel):
    """The weather in a city."""

    city: str


@BOTH_CLIS
@EACH_PROMPT
@pytest.mark.parametrize("stream", [False, True])
def test_a_round_trip_of_chat(clients: Clients, model: str, prompt: str, stream: bool) -> None:
    client = clients.openai()
    messages: list[Any] = [{"role": "user", "content": prompt}]
    ask: dict[str, Any] = {"model": model, "tools": CHAT_TOOLS}
    if stream:
        with client.chat.completions.stream(messages=messages, **ask) as events:
            kinds = [event.type for event in events]
            choice = events.get_final_completion().choices[0]
        assert kinds.count("tool_calls.function.arguments.done") == len(PROMPTS[prompt])
    else:
        choice = client.chat.completions.create(messages=messages, **ask).choices[0]
    assert choice.finish_reason == "tool_calls"
    calls = choice.message.tool_calls or []
    assert [call.function.name for call in calls] == PROMPTS[prompt]
    assert len({call.id for call in calls}) == len(calls)
    assert all(json.loads(call.function.arguments) == {"city": "demo"} for call in calls)
    assert (choice.message.content or "").startswith("[demo answer")
    messages.append(choice.message)
    messages += [{"role": "tool", "tool_call_id": call.id, "content": f"sunny {i}"} for i, call in enumerate(calls)]
    answer = client.chat.completions.create(messages=messages, **ask).choices[0]
    assert answer.finish_reason == "stop"
    assert all(f"sunny {i}" in (answer.message.content or "") for i in range(len(calls)))
    assert len(clients.log()) == 2


@BOTH_CLIS
@EACH_PROMPT
@pytest.mark.parametrize("stream", [False, True])
def test_a_round_trip_of_responses(clients: Clients, model: str, prompt: str, stream: bool) -> None:
    client = clients.openai()
    items: list[Any] = [{"role": "user", "content": prompt}]
    ask: dict[str, Any] = {"model": model, "tools": RESPONSES_TOOLS}
    if stream:
        with client.responses.stream(input=items, **ask) as events:
            kinds = [event.type for event in events]
            response: Any = events.get_final_response()
        assert kinds.count("response.function_call_arguments.done") == len(PROMPTS[prompt])
    else:
        response = client.responses.create(input=items, **ask)
    assert response.status == "completed"
    calls = [item for item in response.output if item.type == "function_call"]
    assert [call.name for call in calls] == PROMPTS[prompt]
    assert all(json.loads(call.arguments) == {"city": "demo"} for call in calls)
    assert [tool.name for tool in response.tools] == ["get_weather", "get_time"]
    items += response.output
    items += [
        {"type": "function_call_output", "call_id": call.call_id, "output": f"sunny {i}"}
        for i, call in enumerate(calls)
    ]
    answer = client.responses.create(input=items, **ask)
    assert all(f"sunny {i}" in answer.output_text for i in range(len(calls)))


@BOTH_CLIS
@EACH_PROMPT
@pytest.mark.parametrize("stream", [False, True])
def test_a_round_trip_of_messages(clients: Clients, model: str, prompt: str, stream: bool) -> None:
    client = clients.anthropic()
    messages: list[Any] = [{"role": "user", "content": prompt}]
    ask: dict[str, Any] = {"model": model, "max_tokens": 500, "tools": MESSAGES_TOOLS}
    if stream:
        with client.messages.stream(messages=messages, **ask) as events:
            kinds = [event.type for event in events]
            message: Any = events.get_final_message()
        assert kinds.count("content_block_stop") == 1 + len(PROMPTS[prompt])
        assert "input_json" in kinds
    else:
        message = client.messages.create(messages=messages, **ask)
    assert message.stop_reason == "tool_use"
    calls = [block for block in message.content if block.type == "tool_use"]
    assert [(call.name, call.input) for call in calls] == [(name, {"city": "demo"}) for name in PROMPTS[prompt]]
    results = [{"type": "tool_result", "tool_use_id": call.id, "content": f"sunny {i}"} for i, call in enumerate(calls)]
    messages += [{"role": "assistant", "content": message.content}, {"role": "user", "content": results}]
    answer = client.messages.create(messages=messages, **ask)
    assert answer.stop_reason == "end_turn"
    assert all(f"sunny {i}" in answer.content[0].text for i in range(len(calls)))


@BOTH_CLIS
def test_a_tool_that_must_be_called_is(clients: Clients, model: str) -> None:
    chat = clients.openai().chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "hello"}],
        tools=CHAT_TOOLS,
        tool_choice={"type": "function", "function": {"name": "get_time"}},
        parallel_tool_calls=False,
    )
    assert [call.function.name for call in chat.choices[0].message.tool_calls or []] == ["get_time"]
    response = clients.openai().responses.create(
        model=model, input="hello", tools=RESPONSES_TOOLS, tool_choice="required"
    )
    assert [item.type for item in response.output] == ["function_call"]
    assert response.tool_choice == "required"
    message = clients.anthropic().messages.create(
        model=model,
        max_tokens=500,
        messages=[{"role": "user", "content": "hello"}],
        tools=MESSAGES_TOOLS,
        tool_choice={"type": "tool", "name": "get_time"},
    )
    assert [block.type for block in message.content] == ["tool_use"]


@BOTH_CLIS
def test_the_helpers_that_parse_arguments_work(clients: Clients, model: str) -> None:
    messages: list[Any] = [{"role": "user", "content": "weather"}]
    client = clients.openai()
    chat = client.chat.completions.parse(
        model=model, messages=messages, tools=[openai.pydantic_function_tool(GetWeather)]
    )
    (call,) = chat.choices[0].message.tool_calls or []
    assert call.function.parsed_arguments == GetWeather(city="demo")
    response = client.responses.parse(model=model, input=messages, tools=[openai.pydantic_function_tool(GetWeather)])  # type: ignore[list-item]
    (item,) = [item for item in response.output if item.type == "function_call"]
    assert item.parsed_arguments == GetWeather(city="demo")


asked: list[str] = []


@beta_tool
def get_weather(city: str) -> str:
    """The weather in a city.

    Args:
        city: where
    """
    asked.append(city)
    return "sunny"


@BOTH_CLIS
@pytest.mark.parametrize("stream", [False, True])
def test_anthropics_tool_runner_runs_as_its_documentation_shows_it(clients: Clients, model: str, stream: bool) -> None:
    asked.clear()
    messages: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
    runner = clients.anthropic().beta.messages.tool_runner(
        model=model, max_tokens=500, tools=[get_weather], messages=messages, stream=stream
    )
    last: Any = None
    for turn in runner:
        last = turn.get_final_message() if stream else turn
    assert asked == ["demo"]
    assert "sunny" in last.content[0].text


def test_the_older_functions_of_chat_work(clients: Clients) -> None:
    client = clients.openai()
    functions = [tool["function"] for tool in CHAT_TOOLS]
    messages: list[Any] = [{"role": "user", "content": "weather"}]
    choice = client.chat.completions.create(model=CODEX, messages=messages, functions=functions).choices[0]
    assert choice.finish_reason == "function_call"
    assert choice.message.function_call is not None
    assert choice.message.function_call.name == "get_weather"
    messages += [choice.message, {"role": "function", "name": "get_weather", "content": "sunny"}]
    answer = client.chat.completions.create(model=CODEX, messages=messages, functions=functions).choices[0]
    assert "sunny" in (answer.message.content or "")
    stream = client.chat.completions.create(
        model=CODEX, messages=messages[:1], functions=functions, function_call={"name": "get_time"}, stream=True
    )
    pieces = [chunk.choices[0].delta.function_call for chunk in stream]
    assert "".join(piece.arguments or "" for piece in pieces if piece is not None) == '{"city": "demo"}'


def test_a_custom_tool_of_responses_works(clients: Clients) -> None:
    client = clients.openai()
    ask: dict[str, Any] = {"model": CODEX, "tools": [{"type": "custom", "name": "run_code", "description": "Runs."}]}
    items: list[Any] = [{"role": "user", "content": "run_code"}]
    response = client.responses.create(input=items, **ask)
    (call,) = [item for item in response.output if item.type == "custom_tool_call"]
    assert (call.name, call.input) == ("run_code", "demo")
    items += [*response.output, {"type": "custom_tool_call_output", "call_id": call.call_id, "output": "it ran"}]
    assert "it ran" in client.responses.create(input=items, **ask).output_text


WEATHER: list[Any] = [{"role": "user", "content": "weather"}]
BODIES: list[tuple[str, dict[str, Any], Any, Any]] = [
    (
        "/v1/chat/completions",
        {"model": CODEX, "messages": WEATHER, "tools": CHAT_TOOLS},
        openai.types.chat.ChatCompletion,
        openai.types.chat.ChatCompletionChunk,
    ),
    (
        "/v1/chat/completions",
        {"model": CODEX, "messages": WEATHER, "functions": [tool["function"] for tool in CHAT_TOOLS]},
        openai.types.chat.ChatCompletion,
        openai.types.chat.ChatCompletionChunk,
    ),
    (
        "/v1/responses",
        {"model": CODEX, "input": WEATHER, "tools": RESPONSES_TOOLS},
        openai.types.responses.Response,
        openai.types.responses.ResponseStreamEvent,
    ),
    (
        "/v1/responses",
        {
            "model": CODEX,
            "input": WEATHER,
            "tools": [*RESPONSES_TOOLS, {"type": "custom", "name": "weather"}],
            "tool_choice": {"type": "custom", "name": "weather"},
        },
        openai.types.responses.Response,
        openai.types.responses.ResponseStreamEvent,
    ),
    (
        "/v1/messages",
        {"model": CLAUDE, "max_tokens": 500, "messages": WEATHER, "tools": MESSAGES_TOOLS},
        anthropic.types.Message,
        anthropic.types.RawMessageStreamEvent,
    ),
]


@pytest.mark.parametrize(("path", "body", "whole", "event"), BODIES)
def test_calls_are_what_the_sdk_knows(
    clients: Clients, path: str, body: dict[str, Any], whole: Any, event: Any
) -> None:
    answer = clients.server.call("POST", path, body, key=clients.key)
    assert answer.status == 200, answer.body
    check(whole, answer.body)
    events = stream_of(clients, path, body)
    if path == "/v1/chat/completions":
        assert events.pop() == (None, "[DONE]")
    for _, data in events:
        check(event, data)


def test_a_wrong_pairing_is_an_error_that_names_the_id(clients: Clients) -> None:
    call = {"id": "call_9", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    messages: list[Any] = [*WEATHER, {"role": "assistant", "tool_calls": [call]}, *WEATHER]
    with pytest.raises(openai.BadRequestError, match="the tool call 'call_9' has no result"):
        clients.openai().chat.completions.create(model=CODEX, messages=messages, tools=CHAT_TOOLS)
    results: list[Any] = [*WEATHER, {"role": "tool", "tool_call_id": "call_8", "content": "x"}]
    with pytest.raises(openai.BadRequestError, match="no tool call 'call_8'"):
        clients.openai().chat.completions.create(model=CODEX, messages=results, tools=CHAT_TOOLS)


def test_programs_that_rely_on_kept_conversations_get_the_errors_they_know(clients: Clients) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        clients.openai().responses.create(model=CODEX, input="hello", previous_response_id="resp_1")
    assert "Previous response with id 'resp_1' not found." in caught.value.message
    assert caught.value.code == "previous_response_not_found"
    with pytest.raises(anthropic.types.ThreadUnsupportedRequestError):
        clients.anthropic().beta.messages.create(
            model=CLAUDE, max_tokens=50, messages=WEATHER, extra_body={"thread": {"type": "create"}}
        )


def test_what_no_model_takes_is_named(clients: Clients) -> None:
    raw = clients.openai().chat.completions.with_raw_response.create(
        model=CODEX, messages=WEATHER, temperature=0.2, top_p=0.5, stop=["x"], response_format={"type": "json_object"}
    )
    assert raw.headers["x-bridge-ignored"] == "stop, temperature, top_p"
    message = clients.anthropic().messages.with_raw_response.create(
        model="claude-haiku-4-5", max_tokens=50, messages=WEATHER, extra_body={"temperature": 0.2, "top_k": 5}
    )
    assert "x-bridge-ignored" not in message.headers
