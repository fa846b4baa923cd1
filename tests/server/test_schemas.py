"""Structured answers over HTTP: the same field behaves the same in every API, and the setting holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support import server as servers
from tests.support.server import Answer, Server

#: What the simulated CLI cannot fill, and what it can.
IMPOSSIBLE = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^[0-9]{40}$"}}, "required": ["a"]}
POSSIBLE = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
BROKEN = {"type": "object", "properties": {"a": {"type": "strin"}}}
HELLO = [{"role": "user", "content": "hello"}]
APIS = ["native", "openai-chat", "openai-responses", "anthropic"]


def ask(server: Server, key: str, api: str, schema: Any, **more: Any) -> Answer:
    named = {"name": "a", "schema": schema}
    path, body = {
        "native": ("/generate", {"userPrompt": "hello", "schema": schema}),
        "openai-chat": (
            "/v1/chat/completions",
            {
                "model": "sonnet",
                "messages": HELLO,
                "response_format": {"type": "json_schema", "json_schema": named},
            },
        ),
        "openai-responses": (
            "/v1/responses",
            {"model": "sonnet", "input": "hello", "text": {"format": {"type": "json_schema", **named}}},
        ),
        "anthropic": (
            "/v1/messages",
            {
                "model": "sonnet",
                "max_tokens": 4000,
                "messages": HELLO,
                "output_config": {"format": {"type": "json_schema", "schema": schema}},
            },
        ),
    }[api]
    return server.call("POST", path, {**body, **more}, key=key)


def error_of(answer: Answer) -> Any:
    body = answer.json
    return body if "code" in body else body["error"]


@pytest.mark.parametrize("api", APIS)
def test_a_schema_that_cannot_be_used_is_refused_with_the_place(server: Server, key: str, api: str) -> None:
    answer = ask(server, key, api, BROKEN)
    error = error_of(answer)
    assert (answer.status, error["code"]) == (400, "invalid_request")
    assert "$.properties.a.type" in (error.get("message") or error["error"])


@pytest.mark.parametrize("api", APIS)
def test_an_answer_that_misses_twice_is_an_error_with_its_text(server: Server, api: str) -> None:
    key = server.new_key(f"miss-{api}")
    answer = ask(server, key, api, IMPOSSIBLE)
    error = error_of(answer)
    assert (answer.status, error["code"]) == (422 if api == "native" else 400, "output_mismatch")
    assert "demo" in error["text"]
    (row,) = server.admin("GET", f"/logs?key=miss-{api}").json["logs"]
    assert (row["api"], row["repairs"], row["status"]) == (api, 1, answer.status)
    usage = server.call("GET", "/me", key=key).json["usage"]
    assert (usage["today"]["requests"], usage["reserved"]["requests"]) == (1, 0)
    assert usage["today"]["costUsd"] == pytest.approx(row["costUsd"])


@pytest.mark.parametrize("api", APIS)
def test_a_schema_and_a_stream_go_together(server: Server, key: str, api: str) -> None:
    answer = ask(server, key, api, POSSIBLE, stream=True)
    assert answer.status == 200
    assert b"demo" in answer.body
    assert b"mismatch" not in answer.body


def test_without_the_setting_nothing_is_asked_twice(tmp_path: Path) -> None:
    with servers.running(tmp_path, {"BRIDGE_SCHEMA_REPAIR": "off"}, demo=True) as server:
        key = server.new_key("once")
        assert ask(server, key, "native", IMPOSSIBLE).json["code"] == "output_mismatch"
        (row,) = server.admin("GET", "/logs?key=once").json["logs"]
        assert row["repairs"] == 0
