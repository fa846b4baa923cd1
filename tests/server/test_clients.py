"""What real clients send and official servers take, over a real server: paths, bodies and models in many spellings."""

from __future__ import annotations

import gzip
import http.client
import json
from typing import Any

import pytest

from tests.support.server import Server

CHAT: dict[str, Any] = {"model": "gpt-6-sol", "messages": [{"role": "user", "content": "Grüße"}]}
RESPONSES: dict[str, Any] = {"model": "gpt-6-sol", "input": "hello"}
MESSAGES: dict[str, Any] = {"model": "claude-sonnet-5-5", "max_tokens": 300, "messages": CHAT["messages"]}
EVERY_API = pytest.mark.parametrize(
    ("path", "body"), [("/v1/chat/completions", CHAT), ("/v1/responses", RESPONSES), ("/v1/messages", MESSAGES)]
)


@EVERY_API
@pytest.mark.parametrize("before", ["//v1/", "/", "/v1/v1/", "/v1//"])
def test_a_path_that_a_wrong_base_url_makes_is_served_and_not_redirected(
    server: Server, key: str, path: str, body: Any, before: str
) -> None:
    answer = server.call("POST", before + path.removeprefix("/v1/"), body, key=key)
    assert answer.status == 200, answer.body
    assert server.call("POST", before + path.removeprefix("/v1/"), body).status == 401


@pytest.mark.parametrize("path", ["//admin/keys", "/v1//admin/keys", "//admin/", "//generate", "//nothing", "/v1//x"])
def test_no_post_is_ever_redirected(server: Server, key: str, path: str) -> None:
    # As it is: the client of the tests would take a second slash for the name of a host.
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.putrequest("POST", path, skip_accept_encoding=True)
    connection.putheader("Authorization", f"Bearer {key}")
    connection.putheader("Content-Length", "2")
    connection.endheaders(b"{}")
    answer = connection.getresponse()
    assert answer.status in (400, 401, 404, 405)
    answer.read()
    connection.close()


def test_where_there_is_nothing_the_error_names_the_right_base_url(server: Server, key: str) -> None:
    openai = server.call("POST", "/openai/v1/chat/completions", CHAT, key=key)
    assert openai.status == 404
    assert "http://127.0.0.1:3456/v1" in openai.json["error"]["message"]
    anthropic = server.call("POST", "/anthropic/v1/messages", MESSAGES, key=key)
    assert (anthropic.status, anthropic.json["type"]) == (404, "error")
    assert "without it for Anthropic's" in anthropic.json["error"]["hint"]
    native = server.call("POST", "/genrate", {}, key=key)
    assert (native.status, native.json["code"]) == (404, "not_found")


@EVERY_API
@pytest.mark.parametrize("stream", [False, True])
def test_what_nobody_heeds_is_named_in_a_header(server: Server, key: str, path: str, body: Any, stream: bool) -> None:
    given = {**body, "temperature": 0.2, "top_p": 1, "brand_new": {}, "a\nb": 1, "stream": stream}
    answer = server.call("POST", path, given, key=key)
    assert (answer.status, answer.headers["x-bridge-ignored"]) == (200, "brand_new, temperature")
    assert "x-bridge-ignored" not in server.call("POST", path, body, key=key).headers


def test_the_bridges_own_api_takes_no_field_that_it_does_not_know(server: Server, key: str) -> None:
    answer = server.call("POST", "/generate", {"userPrompt": "x", "top_p": 0.2}, key=key)
    assert (answer.status, "top_p" in answer.json["error"]) == (400, True)


PACKED = {
    "utf-8 with a mark": (lambda text: text.encode("utf-8-sig"), {}),
    "utf-16": (lambda text: text.encode("utf-16"), {}),
    "gzip": (lambda text: gzip.compress(text.encode()), {"Content-Encoding": "gzip"}),
    "utf-16, gzip": (lambda text: gzip.compress(text.encode("utf-16")), {"Content-Encoding": "gzip"}),
}


@EVERY_API
@pytest.mark.parametrize("packed", PACKED)
def test_a_body_is_read_however_it_is_packed(server: Server, key: str, path: str, body: Any, packed: str) -> None:
    pack, headers = PACKED[packed]
    answer = server.call("POST", path, pack(json.dumps(body, ensure_ascii=False)), key=key, headers=headers)
    assert answer.status == 200, answer.body
    if path != "/v1/responses":
        assert "Grüße" in answer.body.decode()


def test_the_admins_bodies_too(server: Server) -> None:
    made = server.admin("POST", "/keys", '{"name": "from-powershell"}'.encode("utf-16"))
    assert made.status == 201, made.body


def test_what_is_packed_is_not_looked_at_without_a_key(server: Server) -> None:
    headers = {"Content-Encoding": "gzip"}
    assert server.call("POST", "/v1/messages", gzip.compress(b" " * 2**24), headers=headers).status == 401


@EVERY_API
def test_what_becomes_too_much_is_too_large(server: Server, key: str, path: str, body: Any) -> None:
    bomb = gzip.compress(b" " * 2**26)
    answer = server.call("POST", path, bomb, key=key, headers={"Content-Encoding": "gzip"})
    assert (answer.status, b"when inflated" in answer.body) == (413, True)


@pytest.mark.parametrize("model", ["openai/gpt-6-sol", "models/gpt-6-sol", "anthropic/claude-sonnet-5-5"])
def test_a_provider_before_the_name_of_a_model_does_no_harm(server: Server, key: str, model: str) -> None:
    assert server.call("POST", "/v1/chat/completions", {**CHAT, "model": model}, key=key).json["model"] in model
    path = "/generate" if "claude" in model else "/generate-codex"
    assert server.call("POST", path, {"userPrompt": "x", "model": model}, key=key).json["model"] in model
