"""What is refused raises the right class of each SDK, says why and what to do, and is not tried again in vain."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from tests.contract.sdk.conftest import CLAUDE, CODEX, HELLO, City, Clients, clients_of, eventually
from tests.support import server as servers

#: What the simulated CLI cannot fill.
IMPOSSIBLE: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"type": "string", "pattern": "^[0-9]{40}$"}},
    "required": ["a"],
}


def by_chat(clients: Clients, model: str = CODEX, **options: Any) -> Any:
    schema = options.pop("schema", None)
    if schema is not None:
        options["response_format"] = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    client = clients.openai(max_retries=options.pop("max_retries", 0), timeout=options.pop("timeout", 60))
    return client.chat.completions.create(model=model, messages=options.pop("messages", HELLO), **options)


def by_responses(clients: Clients, model: str = CODEX, **options: Any) -> Any:
    schema = options.pop("schema", None)
    if schema is not None:
        options["text"] = {"format": {"type": "json_schema", "name": "a", "schema": schema}}
    client = clients.openai(max_retries=options.pop("max_retries", 0), timeout=options.pop("timeout", 60))
    return client.responses.create(model=model, input=options.pop("messages", HELLO), **options)


def by_messages(clients: Clients, model: str = CLAUDE, **options: Any) -> Any:
    schema = options.pop("schema", None)
    if schema is not None:
        options["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
    client = clients.anthropic(max_retries=options.pop("max_retries", 0), timeout=options.pop("timeout", 60))
    messages = options.pop("messages", HELLO)
    return client.messages.create(model=model, max_tokens=300, messages=messages, **options)


Ask = Callable[..., Any]
EVERY_API = pytest.mark.parametrize(
    ("ask", "sdk"), [(by_chat, openai), (by_responses, openai), (by_messages, anthropic)]
)


def error_of(error: Any) -> dict[str, Any]:
    """The bridge's own part of an error that an SDK raised."""
    body = error.body
    found: dict[str, Any] = body["error"] if isinstance(error, anthropic.APIStatusError) else body
    assert found["hint"]
    assert error.request_id == error.response.headers["x-request-id"]
    return found


@EVERY_API
@pytest.mark.parametrize("key", ["", "wrong", "cb_" + "x" * 43])
def test_a_bad_key_is_an_authentication_error(clients: Clients, ask: Ask, sdk: Any, key: str) -> None:
    clients.key = key or "none"
    with pytest.raises(sdk.AuthenticationError) as caught:
        ask(clients)
    assert error_of(caught.value)["code"] == "unauthorized"


@EVERY_API
def test_a_disabled_key_and_a_model_that_is_not_allowed_are_permission_errors(
    clients_with: Callable[..., Clients], ask: Ask, sdk: Any
) -> None:
    clients = clients_with(models=["gpt-6-luna", "claude-haiku-5-5"])
    with pytest.raises(sdk.PermissionDeniedError) as caught:
        ask(clients)
    assert error_of(caught.value)["code"] == "model_not_allowed"
    clients.server.admin("POST", f"/keys/{clients.name}/disable")
    with pytest.raises(sdk.PermissionDeniedError) as caught:
        ask(clients)
    assert error_of(caught.value)["code"] == "key_disabled"


@EVERY_API
def test_a_model_that_no_cli_has_is_not_found(clients: Clients, ask: Ask, sdk: Any) -> None:
    with pytest.raises(sdk.NotFoundError) as caught:
        ask(clients, "gemini-9")
    assert "gemini-9" in error_of(caught.value)["message"]


@EVERY_API
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"extra_body": {"tools": [{"type": "mcp", "name": "x"}]}}, "tools"),
        ({"extra_body": {"model": "--help"}}, "model"),
        ({"messages": []}, "user"),
        ({"messages": [{"role": "user", "content": " "}]}, "empty"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "role"),
        ({"messages": [{"role": "user", "content": [{"type": "video", "url": "x"}]}]}, "video"),
        ({"schema": {"type": "nonsense"}}, "$.type"),
    ],
)
def test_what_cannot_be_done_is_a_bad_request_that_says_so(
    clients: Clients, ask: Ask, sdk: Any, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(sdk.BadRequestError) as caught:
        ask(clients, **options)
    error = error_of(caught.value)
    assert error["code"] == "invalid_request"
    assert says in error["message"]
    assert says in str(caught.value)
    assert [row["status"] for row in clients.log() if row["status"] != 400] == []


def test_an_answer_cannot_be_begun_for_claude(clients: Clients) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        by_messages(clients, messages=[*HELLO, {"role": "assistant", "content": "It is"}])
    assert "last" in error_of(caught.value)["message"]


@EVERY_API
def test_a_body_that_is_too_large_says_413(clients: Clients, ask: Ask, sdk: Any) -> None:
    with pytest.raises(sdk.APIStatusError) as caught:
        ask(clients, messages=[{"role": "user", "content": "x" * (33 * 2**20)}])
    assert caught.value.status_code == 413
    assert error_of(caught.value)["code"] == "payload_too_large"


@EVERY_API
@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ({"maxRequestsPerMinute": 1}, "requests_per_minute"),
        ({"maxRequestsPerDay": 1}, "requests_per_day"),
        ({"maxTokensPerDay": 900}, "tokens_per_day"),
        ({"maxCostPerDay": 0.009}, "cost_per_day"),
        ({"maxCostPerMonth": 0.009}, "cost_per_month"),
    ],
)
def test_a_cap_is_a_rate_limit_error_with_the_time_to_wait(
    clients_with: Callable[..., Clients], ask: Ask, sdk: Any, limits: dict[str, float], code: str
) -> None:
    clients = clients_with(**limits)

    def ask_until_refused() -> None:
        for _ in range(20):
            ask(clients)

    with pytest.raises(sdk.RateLimitError) as caught:
        ask_until_refused()
    error = error_of(caught.value)
    assert error["code"] == code
    assert error["limit"] == next(iter(limits.values()))
    assert error["resets_at"]
    assert int(caught.value.response.headers["retry-after"]) >= 1
    if sdk is openai:
        assert error["type"] == ("rate_limit_error" if code == "requests_per_minute" else "insufficient_quota")


@EVERY_API
def test_a_cap_for_the_day_is_not_sat_out(clients_with: Callable[..., Clients], ask: Ask, sdk: Any) -> None:
    clients = clients_with(maxRequestsPerDay=1)
    ask(clients)
    began = time.monotonic()
    with pytest.raises(sdk.RateLimitError) as caught:
        ask(clients, max_retries=5)
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert time.monotonic() - began < 30, "the SDK would have slept until midnight"
    assert [row["code"] for row in clients.log()] == ["requests_per_day", None]


@EVERY_API
def test_an_answer_that_misses_the_schema_is_a_bad_request_and_is_not_paid_again(
    clients: Clients, ask: Ask, sdk: Any
) -> None:
    with pytest.raises(sdk.BadRequestError) as caught:
        ask(clients, schema=IMPOSSIBLE, max_retries=5)
    error = error_of(caught.value)
    assert error["code"] == "output_mismatch"
    assert "demo" in error["text"]
    assert len(clients.log()) == 1


@EVERY_API
def test_what_is_in_the_way_for_a_moment_is_sat_out(slow: Clients, ask: Ask, sdk: Any) -> None:
    slow.server.admin("PATCH", f"/keys/{slow.name}", {"maxConcurrent": 1})
    with ThreadPoolExecutor(1) as pool:
        stream = ask(slow, stream=True)
        eventually(lambda: bool(slow.runs()))
        with pytest.raises(sdk.RateLimitError) as caught:
            ask(slow)
        assert error_of(caught.value)["code"] == "concurrent_requests"
        assert caught.value.response.headers["x-should-retry"] == "true"
        waiting = pool.submit(ask, slow, max_retries=9, stream=True)
        eventually(lambda: len(slow.log()) >= 2)
        stream.close()
        waiting.result(60).close()
    assert "concurrent_requests" in {row["code"] for row in slow.log()}


@EVERY_API
def test_a_client_that_gives_up_raises_a_timeout_and_its_run_ends(slow: Clients, ask: Ask, sdk: Any) -> None:
    with pytest.raises(sdk.APITimeoutError):
        ask(slow, timeout=1.0)
    eventually(lambda: slow.runs() == [])
    (row,) = slow.log()
    assert (row["code"], row["assumed"]) == ("cancelled", True)
    assert row["costUsd"] > 0


@EVERY_API
def test_closing_a_stream_stops_the_run(slow: Clients, ask: Ask, sdk: Any) -> None:
    stream = ask(slow, stream=True)
    next(iter(stream))
    eventually(lambda: [run["state"] for run in slow.runs()] == ["running"])
    stream.close()
    eventually(lambda: slow.runs() == [], within_s=3)
    eventually(lambda: bool(slow.log()))
    assert slow.log()[0]["code"] == "cancelled"


def test_a_stream_that_the_admin_stops_raises_in_the_middle(slow: Clients) -> None:
    def stop() -> None:
        eventually(lambda: [run["state"] for run in slow.runs()] == ["running"])
        slow.server.admin("DELETE", f"/runs/{slow.runs()[0]['id']}")

    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(stop)
        with pytest.raises(openai.APIError) as caught:
            list(by_chat(slow, stream=True))
        stopping.result()
        assert caught.value.code == "cancelled"
        stopping = pool.submit(stop)
        with pytest.raises(anthropic.APIStatusError) as stopped:
            list(by_messages(slow, stream=True))
        stopping.result()
        assert stopped.value.type == "permission_error"
        stopping = pool.submit(stop)
        last = list(by_responses(slow, stream=True))[-1]
        stopping.result()
    assert last.type == "response.failed"
    assert (last.response.error.type, last.response.status) == ("cancelled", "failed")


@pytest.fixture(scope="module")
def without_clis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    with servers.running(tmp_path_factory.mktemp("empty")) as server:
        yield server


@EVERY_API
def test_a_bridge_without_clis_is_a_server_error_and_lists_no_models(
    without_clis: servers.Server, ask: Ask, sdk: Any
) -> None:
    clients = clients_of(without_clis)
    with pytest.raises(sdk.InternalServerError) as caught:
        ask(clients)
    assert caught.value.status_code == 503
    assert error_of(caught.value)["code"] == "cli_unavailable"
    assert list(clients.openai().models.list()) == []
    assert list(clients.anthropic().models.list()) == []


def test_a_full_bridge_is_a_server_error_that_says_when_to_come_back(tmp_path: Path) -> None:
    env = {"DEMO_PACE_SECONDS": "0.4", "BRIDGE_MAX_CONCURRENT": "1", "BRIDGE_QUEUE_LIMIT": "0"}
    with servers.running(tmp_path, env, demo=True) as server:
        clients = clients_of(server)
        stream = by_chat(clients, stream=True)
        eventually(lambda: [run["state"] for run in clients.runs()] == ["running"])
        for ask, sdk in ((by_chat, openai), (by_messages, anthropic)):
            with pytest.raises(sdk.InternalServerError) as caught:
                ask(clients)
            assert (caught.value.status_code, error_of(caught.value)["code"]) == (503, "overloaded")
            assert caught.value.response.headers["x-should-retry"] == "true"
            assert int(caught.value.response.headers["retry-after"]) >= 1
        stream.close()


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/v1/nothing", 404, "not_found_error"),
        ("GET", "/v1/chat/completions", 405, "invalid_request_error"),
        ("GET", "/v1/messages", 405, "invalid_request_error"),
        ("GET", "/v1/models", 401, "authentication_error"),
    ],
)
def test_wrong_paths_and_methods_come_in_the_shape_of_their_api(
    server: servers.Server, method: str, path: str, status: int, kind: str
) -> None:
    for headers in ({}, {"anthropic-version": "2023-06-01"}):
        answer = server.call(method, path, headers=headers)
        body = answer.json
        assert answer.status == status
        assert body["error"]["type"] == kind
        theirs = path.startswith("/v1/messages") or (bool(headers) and not path.startswith("/v1/chat"))
        assert (body.get("type") == "error") is theirs
        assert (answer.headers.get("request-id") == answer.headers["x-request-id"]) is theirs


def test_an_answer_that_was_cut_raises_the_class_for_it_where_it_should_be_parsed(clients: Clients) -> None:
    with pytest.raises(openai.LengthFinishReasonError):
        clients.openai().chat.completions.parse(model=CODEX, messages=HELLO, response_format=City, max_tokens=1)
