"""The main job over HTTP: answers, streams, and clear refusals."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bridge.wire.apis import APIS
from tests.support.server import Server

PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5"
    "ErkJggg=="
)
SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


@pytest.mark.parametrize("path", ["/generate", "/generate-codex"])
def test_an_answer_has_what_clients_read(server: Server, key: str, path: str) -> None:
    answer = server.call("POST", path, {"userPrompt": "hello", "systemPrompt": "be brief"}, key=key)
    assert answer.status == 200
    body = answer.json
    assert set(body) == {"id", "model", "content", "stop_reason", "usage", "cost_usd", "duration_ms"}
    assert "hello" in body["content"][0]["text"]
    assert body["usage"]["input_tokens"] > 0
    assert body["cost_usd"] > 0
    assert float(answer.headers["x-bridge-cost-usd"]) == body["cost_usd"]
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("asked_by", ["field", "header"])
def test_a_stream_starts_brings_pieces_and_ends_with_the_whole_answer(server: Server, key: str, asked_by: str) -> None:
    body = {"userPrompt": "hello", **({"stream": True} if asked_by == "field" else {})}
    headers = {"Accept": "text/event-stream"} if asked_by == "header" else {}
    answer = server.call("POST", "/generate", body, key=key, headers=headers)
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    names = [name for name, _ in answer.events]
    assert names[0] == "start"
    assert names[-1] == "done"
    assert set(names[1:-1]) == {"delta"}
    done = answer.events[-1][1]
    assert "".join(data["text"] for name, data in answer.events if name == "delta") == done["content"][0]["text"]
    assert answer.events[0][1]["id"] == done["id"]


def test_a_conversation_with_images_is_taken(server: Server, key: str) -> None:
    messages = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": [{"type": "text", "text": "two"}]},
        {"role": "user", "content": "three"},
    ]
    answer = server.call("POST", "/generate", {"messages": messages, "images": [PNG]}, key=key)
    assert answer.status == 200
    assert "1 image" in answer.json["content"][0]["text"]


def test_a_schema_brings_parsed_output(server: Server, key: str) -> None:
    answer = server.call("POST", "/generate", {"userPrompt": "x", "schema": SCHEMA}, key=key)
    assert answer.status == 200
    assert answer.json["output"] == json.loads(answer.json["content"][0]["text"])


def test_a_short_maximum_cuts_the_answer_and_says_so(server: Server, key: str) -> None:
    answer = server.call("POST", "/generate", {"userPrompt": "x", "maxOutputTokens": 5}, key=key)
    assert answer.json["stop_reason"] == "max_tokens"
    assert answer.json["usage"]["output_tokens"] == 5


@pytest.mark.parametrize("header", ["Authorization", "x-api-key"])
def test_both_ways_of_sending_a_key_work(server: Server, key: str, header: str) -> None:
    value = f"Bearer {key}" if header == "Authorization" else key
    assert server.call("POST", "/generate", {"userPrompt": "x"}, headers={header: value}).status == 200


def test_the_content_type_does_not_matter(server: Server, key: str) -> None:
    answer = server.call("POST", "/generate", b'{"userPrompt":"x"}', key=key, headers={"Content-Type": "text/plain"})
    assert answer.status == 200


REFUSED = [
    (b"", "not valid JSON"),
    (b"{", "not valid JSON"),
    (b"\xff\xfe", "not valid JSON"),
    (b"[1]", "object"),
    (b"null", "object"),
    (b"[" * 20000, ""),
    (b'{"schema":' * 20000, "not valid JSON"),
    (b"{}", "userPrompt"),
    (b'{"userPrompt": ""}', "userPrompt"),
    (b'{"userPrompt": "  "}', "userPrompt"),
    (b'{"userPrompt": 5}', "userPrompt"),
    (b'{"userPrompt": null}', "userPrompt"),
    (b'{"userPrompt": "a\\u0000b"}', "NUL"),
    (b'{"userPrompt": "\\ud800"}', ""),
    (b'{"userPrompt": "x", "nonsense": 1}', "nonsense"),
    (b'{"userPrompt": "x", "model": "-x"}', "model"),
    (b'{"userPrompt": "x", "model": "--help"}', "model"),
    (b'{"userPrompt": "x", "model": ""}', "model"),
    (b'{"userPrompt": "x", "model": "a b"}', "model"),
    (b'{"userPrompt": "x", "maxOutputTokens": 0}', "maxOutputTokens"),
    (b'{"userPrompt": "x", "maxOutputTokens": -1}', "maxOutputTokens"),
    (b'{"userPrompt": "x", "maxOutputTokens": 1.5}', "maxOutputTokens"),
    (b'{"userPrompt": "x", "maxOutputTokens": 99999999}', "maxOutputTokens"),
    (b'{"userPrompt": "x", "timeoutSeconds": 0}', "timeoutSeconds"),
    (b'{"userPrompt": "x", "timeoutSeconds": 1e9}', "timeoutSeconds"),
    (b'{"userPrompt": "x", "timeoutSeconds": 1e999}', ""),
    (b'{"userPrompt": "x", "effort": "huge"}', "effort"),
    (b'{"userPrompt": "x", "stream": "yes"}', "stream"),
    (b'{"userPrompt": "x", "schema": []}', "schema"),
    (b'{"userPrompt": "x", "schema": {"type": "nonsense"}}', "schema"),
    (b'{"userPrompt": "x", "schema": {"pattern": "("}}', "schema"),
    (b'{"userPrompt": "x", "images": ["http://example.com/x.png"]}', "images[0]"),
    (b'{"userPrompt": "x", "images": ["data:image/png;base64,AAAA"]}', "images[0]"),
    (b'{"messages": []}', "messages"),
    (b'{"messages": [{"role": "assistant", "content": "x"}]}', "messages"),
    (b'{"messages": [{"role": "tool", "content": "x"}]}', "role"),
    (b'{"messages": [{"role": "user", "content": []}]}', "content"),
    (b'{"messages": [{"role": "user", "content": "x"}], "userPrompt": "y"}', "not both"),
]


@pytest.mark.parametrize(("body", "says"), REFUSED, ids=lambda value: repr(value)[:60])
def test_bad_input_is_refused_with_a_sentence_and_costs_nothing(
    server: Server, key: str, body: bytes, says: str
) -> None:
    answer = server.call("POST", "/generate", body, key=key)
    assert answer.status == 400
    assert answer.json["code"] == "invalid_request"
    assert says in answer.json["error"]
    assert answer.json["hint"]
    assert answer.json["request_id"] == answer.headers["x-request-id"]
    assert server.call("GET", "/me", key=key).json["usage"]["today"]["requests"] == 0


def test_the_longest_prompt_is_taken_and_a_longer_one_is_not(server: Server, key: str) -> None:
    assert server.call("POST", "/generate", {"userPrompt": "x" * 500_000}, key=key).status == 200
    answer = server.call("POST", "/generate", {"userPrompt": "x" * 500_001}, key=key)
    assert answer.status == 400
    assert "500000" in answer.json["error"]


def test_a_body_that_is_too_large_gets_413_and_the_connection_is_not_lost(server: Server, key: str) -> None:
    body = json.dumps({"userPrompt": "x" * (33 * 2**20)}).encode()
    answer = server.call("POST", "/generate", body, key=key)
    assert answer.status == 413
    assert answer.json["code"] == "payload_too_large"


def test_without_a_good_key_nothing_of_the_body_is_looked_at(server: Server) -> None:
    for body in (b"{", json.dumps({"userPrompt": "x" * (33 * 2**20)}).encode()):
        for given in (None, "wrong", "cb_" + "x" * 43, "ключ".encode().decode("latin-1")):
            answer = server.call("POST", "/generate", body, key=given)
            assert answer.status == 401
            assert answer.json["code"] == "unauthorized"
            assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nope", 404, "not_found"),
        ("GET", "/generate", 405, "method_not_allowed"),
        ("DELETE", "/me", 405, "method_not_allowed"),
        ("POST", "/health", 405, "method_not_allowed"),
        ("GET", "/../../etc/passwd", 404, "not_found"),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404, "not_found"),
    ],
)
def test_wrong_paths_and_methods_get_json(
    server: Server, key: str, method: str, path: str, status: int, code: str
) -> None:
    answer = server.call(method, path, key=key)
    assert (answer.status, answer.json["code"]) == (status, code)
    assert "x-request-id" in answer.headers


def test_models_and_providers_of_a_key_are_kept_to(server: Server) -> None:
    only = server.admin(
        "POST", "/keys", {"name": "narrow", "models": ["claude-haiku-5-5"], "providers": ["claude"]}
    ).json["key"]
    ask = {"userPrompt": "x"}
    assert server.call("POST", "/generate", {**ask, "model": "claude-haiku-5-5"}, key=only).status == 200
    assert server.call("POST", "/generate", ask, key=only).json["code"] == "model_not_allowed"
    assert server.call("POST", "/generate-codex", ask, key=only).json["code"] == "provider_not_allowed"


def test_every_run_is_in_the_log_also_a_failed_one(server: Server, key: str) -> None:
    name = server.call("GET", "/me", key=key).json["name"]
    server.call("POST", "/generate", {"userPrompt": "the prompt", "systemPrompt": "the system"}, key=key)
    rows = server.admin("GET", f"/logs?key={name}").json["logs"]
    assert len(rows) == 1
    row = rows[0]
    assert (row["userPrompt"], row["systemPrompt"], row["status"]) == ("the prompt", "the system", 200)
    assert row["inputTokens"] > 0
    assert row["costUsd"] > 0


def test_a_request_id_leads_to_its_line_in_the_log(server: Server) -> None:
    key = server.new_key("asker", maxRequestsPerDay=1)
    body = {"model": "claude-sonnet-5-5", "max_tokens": 100, "messages": [{"role": "user", "content": "hello"}]}
    answers = [server.call("POST", "/v1/messages", body, key=key) for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 429]
    assert answers[1].json["request_id"] == answers[1].headers["x-request-id"]
    for answer in answers:
        found = server.admin("GET", f"/logs?text={answer.headers['x-request-id'].upper()}").json["logs"]
        assert [(line["status"], line["requestId"]) for line in found] == [
            (answer.status, answer.headers["x-request-id"])
        ]
    printed = server.command("logs", "--text", answers[1].headers["x-request-id"])
    assert "requests_per_day" in printed.stdout, printed.stderr


@pytest.mark.parametrize(
    ("path", "body"),
    [
        *((path, None) for path in ("/me", "/me/requests", "/v1/models", "/jobs/run_x")),
        *((api.count.path, api.count.example) for api in APIS.values() if api.count is not None),
    ],
)
def test_every_answer_to_a_key_says_what_is_left(server: Server, path: str, body: Any) -> None:
    key = server.new_key(f"left{path.replace('/', '-')}", maxRequestsPerDay=7)
    answer = server.call("GET" if body is None else "POST", path, body, key=key)
    assert answer.headers["x-bridge-remaining-requests-day"] == "7"
