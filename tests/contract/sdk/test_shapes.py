"""Every body and event is held against the SDKs' own types: strictly, with nothing missing and nothing unknown."""

from __future__ import annotations

import json
from typing import Any

import anthropic.types
import openai.types.chat
import openai.types.responses
import pytest
from pydantic import BaseModel, TypeAdapter

from tests.contract.sdk.conftest import CLAUDE, CODEX, HELLO, Clients

CHAT: dict[str, Any] = {"model": CODEX, "messages": HELLO}
RESPONSES: dict[str, Any] = {"model": CODEX, "input": "hello"}
MESSAGES: dict[str, Any] = {"model": CLAUDE, "max_tokens": 500, "messages": HELLO}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
CHAT_SCHEMA = {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}}
TEXT_SCHEMA = {"text": {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA}}}
MESSAGE_SCHEMA = {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}

WITH_USAGE = {"stream_options": {"include_usage": True}}

BODIES = [
    ("/v1/chat/completions", CHAT, openai.types.chat.ChatCompletion),
    ("/v1/chat/completions", {**CHAT, "max_tokens": 5}, openai.types.chat.ChatCompletion),
    ("/v1/chat/completions", {**CHAT, **CHAT_SCHEMA}, openai.types.chat.ChatCompletion),
    ("/v1/completions", {"model": CODEX, "prompt": "hello"}, openai.types.Completion),
    ("/v1/responses", RESPONSES, openai.types.responses.Response),
    ("/v1/responses", {**RESPONSES, "max_output_tokens": 5}, openai.types.responses.Response),
    ("/v1/responses", {**RESPONSES, **TEXT_SCHEMA}, openai.types.responses.Response),
    ("/v1/responses", {**RESPONSES, "reasoning": {"effort": "high"}}, openai.types.responses.Response),
    ("/v1/messages", MESSAGES, anthropic.types.Message),
    ("/v1/messages", {**MESSAGES, "max_tokens": 5}, anthropic.types.Message),
    ("/v1/messages", {**MESSAGES, **MESSAGE_SCHEMA}, anthropic.types.Message),
    ("/v1/messages/count_tokens", {"model": CLAUDE, "messages": HELLO}, anthropic.types.MessageTokensCount),
    (
        "/v1/responses/input_tokens",
        RESPONSES,
        openai.types.responses.input_token_count_response.InputTokenCountResponse,
    ),
]
STREAMS = [
    ("/v1/chat/completions", CHAT, openai.types.chat.ChatCompletionChunk),
    (
        "/v1/chat/completions",
        {**CHAT, **WITH_USAGE},
        openai.types.chat.ChatCompletionChunk,
    ),
    ("/v1/chat/completions", {**CHAT, "max_tokens": 5}, openai.types.chat.ChatCompletionChunk),
    ("/v1/responses", RESPONSES, openai.types.responses.ResponseStreamEvent),
    ("/v1/responses", {**RESPONSES, "max_output_tokens": 5}, openai.types.responses.ResponseStreamEvent),
    ("/v1/responses", {**RESPONSES, **TEXT_SCHEMA}, openai.types.responses.ResponseStreamEvent),
    ("/v1/messages", MESSAGES, anthropic.types.RawMessageStreamEvent),
    ("/v1/messages", {**MESSAGES, "max_tokens": 5}, anthropic.types.RawMessageStreamEvent),
    ("/v1/messages", {**MESSAGES, **MESSAGE_SCHEMA}, anthropic.types.RawMessageStreamEvent),
]


#: What the API sends although these types lack it: those of the same item when it is fetched later, and of the same
#: message when it is not streamed, have it.
SENT_ALL_THE_SAME = {
    (openai.types.responses.ResponseCustomToolCall, "status"),
    (openai.types.chat.chat_completion_chunk.ChoiceDelta, "annotations"),
}


def unknown(value: Any, path: str = "$") -> list[str]:
    """The places in a parsed model that its type does not know."""
    if isinstance(value, list):
        return [place for number, each in enumerate(value) for place in unknown(each, f"{path}[{number}]")]
    if isinstance(value, dict):
        return [place for name, each in value.items() for place in unknown(each, f"{path}.{name}")]
    if not isinstance(value, BaseModel):
        return []
    extra = [name for name in value.model_extra or {} if (type(value), name) not in SENT_ALL_THE_SAME]
    found = [f"{path}.{name}" for name in extra]
    return found + [
        place for name in type(value).model_fields for place in unknown(getattr(value, name), f"{path}.{name}")
    ]


def check(type_: Any, data: str | bytes) -> None:
    parsed = TypeAdapter(type_).validate_json(data, strict=True)
    assert unknown(parsed) == []


def stream_of(clients: Clients, path: str, body: dict[str, Any]) -> list[tuple[str | None, str]]:
    """(name, data) of every event, as it came."""
    answer = clients.server.call("POST", path, {**body, "stream": True}, key=clients.key)
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = []
    for block in answer.body.decode().rstrip("\n").split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n"))
        events.append((lines.get("event"), lines["data"]))
    return events


@pytest.mark.parametrize(("path", "body", "type_"), BODIES)
def test_an_answer_is_what_the_sdk_knows(clients: Clients, path: str, body: dict[str, Any], type_: Any) -> None:
    answer = clients.server.call("POST", path, body, key=clients.key)
    assert answer.status == 200, answer.body
    check(type_, answer.body)


@pytest.mark.parametrize(("path", "body", "type_"), STREAMS)
def test_every_event_is_what_the_sdk_knows(clients: Clients, path: str, body: dict[str, Any], type_: Any) -> None:
    events = stream_of(clients, path, body)
    if path == "/v1/chat/completions":
        assert events.pop() == (None, "[DONE]")
    assert events
    for name, data in events:
        check(type_, data)
        assert name is None or json.loads(data)["type"] == name


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages"])
def test_the_events_of_a_failure_are_what_the_sdk_knows(clients: Clients, path: str) -> None:
    # The simulated CLI makes no text that such a pattern takes.
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^[0-9]{40}$"}}, "required": ["a"]}
    if path == "/v1/responses":
        body = {**RESPONSES, "text": {"format": {"type": "json_schema", "name": "a", "schema": schema}}}
    else:
        body = {**MESSAGES, "output_config": {"format": {"type": "json_schema", "schema": schema}}}
    events = stream_of(clients, path, body)
    if path == "/v1/responses":
        for _, data in events:
            check(openai.types.responses.ResponseStreamEvent, data)
        assert events[-1][0] == "response.failed"
        assert json.loads(events[-1][1])["response"]["error"]["type"] == "output_mismatch"
    else:
        name, data = events[-1]
        error = json.loads(data)
        assert name == error["type"] == "error"
        assert set(error) == {"type", "error", "request_id"}
        assert (error["error"]["type"], error["error"]["code"]) == ("invalid_request_error", "output_mismatch")
        for _, data in events[:-1]:
            check(anthropic.types.RawMessageStreamEvent, data)


def test_lists_of_models_are_what_the_sdks_know_and_the_price_besides(clients: Clients) -> None:
    ours = {"provider", "alias_of", "pricing", "listed"}
    listed = clients.server.call("GET", "/v1/models", key=clients.key).json
    assert (listed["object"], set(listed)) == ("list", {"object", "data"})
    for row in listed["data"]:
        model = openai.types.Model.model_validate_json(json.dumps(row), strict=True)
        assert set(model.model_extra or {}) == ours
    theirs = clients.server.call("GET", "/v1/models", key=clients.key, headers={"anthropic-version": "2023-06-01"}).json
    assert set(theirs) == {"data", "has_more", "first_id", "last_id"}
    assert (theirs["first_id"], theirs["last_id"]) == (theirs["data"][0]["id"], theirs["data"][-1]["id"])
    for row in theirs["data"]:
        info = anthropic.types.ModelInfo.model_validate_json(json.dumps(row), strict=True)
        assert set(info.model_extra or {}) == ours
