"""Searches of the web over HTTP on the real CLIs: in each API's own words, streamed and not, with the exact charge."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.real_cli.conftest import Rig
from tests.real_cli.test_thinking import blocks
from tests.real_cli.test_tools_http import sse
from tests.standin import Recorded
from tests.support.server import Answer

Json = dict[str, Any]

MODELS = {"claude": "claude-sonnet-5-5", "codex": "gpt-6-sol"}
TOOL = {"type": "web_search_20250305", "name": "web_search", "max_uses": 2}
PAGE = "https://example.com/weather"


def asked(api: str, text: str) -> tuple[str, Json]:
    """The path and the body by which an API asks for at most two searches."""
    turns = [{"role": "user", "content": text}]
    match api:
        case "messages":
            return "/v1/messages", {"max_tokens": 1000, "messages": turns, "tools": [TOOL]}
        case "responses":
            tool = {"type": "web_search", "user_location": {"type": "approximate", "city": "Oslo"}}
            return "/v1/responses", {"input": turns, "tools": [tool], "max_tool_calls": 2}
        case "chat":
            return "/v1/chat/completions", {"messages": turns, "web_search_options": {}}
    return "", {"messages": turns, "webSearch": {"maxUses": 2}}


def ask(rig: Rig, api: str, name: str, text: str, **more: Any) -> tuple[Answer, Recorded]:
    """An answer, for which the model is asked once, and which is charged as it counts."""
    rig.server.admin("PATCH", "/keys/tester", {"webSearch": True})
    rig.standin.control("DELETE", "/__requests", None)
    path, body = asked(api, text)
    path = path or ("/generate" if name == "claude" else "/generate-codex")
    answer = rig.ask(path, model=MODELS[name], **{**body, **more})
    assert answer.status == 200, answer.body
    (sent,) = rig.standin.generations
    row = rig.server.admin("GET", "/logs?limit=1").json["logs"][0]
    assert sent.usage is not None
    assert (row["inputTokens"], row["outputTokens"]) == (sent.usage["input_tokens"], sent.usage["output_tokens"])
    # Both models of this test cost 2 and 10 dollars for a million tokens, and a search costs a cent.
    tokens = 2 * row["inputTokens"] + 10 * row["outputTokens"]
    assert round(row["costUsd"] * 1e6) == tokens + 10_000 * row["searches"] <= round(row["reservedUsd"] * 1e6)
    return answer, sent


def told(api: str, answer: Answer, stream: bool) -> tuple[list[str], str, list[tuple[str, str]]]:
    """What was searched for, what was said, and which words of that cite which page."""
    if api == "messages":
        said = blocks(answer)
        texts = [block for block in said if block["type"] == "text"]
        cited = [(block["text"], each["url"]) for block in texts for each in block.get("citations") or ()]
        asked = [block for block in said if block["type"] == "server_tool_use"]
        queries = [block["input"]["query"] for block in asked]
        found = [block for block in said if block["type"] == "web_search_tool_result"]
        assert [block["id"] for block in asked] == [block["tool_use_id"] for block in found]
        return queries, "".join(block["text"] for block in texts), cited
    body = sse(answer)[-1] if stream else answer.json
    if api == "responses":
        body = body.get("response", body)
        *searches, message = body["output"]
        (part,) = message["content"]
        queries, text, raw = [each["action"]["query"] for each in searches], part["text"], part["annotations"]
    elif api == "chat":
        queries = ["weather 0", "weather 1"]
        deltas = [event["choices"][0]["delta"] for event in sse(answer)] if stream else [body["choices"][0]["message"]]
        text = "".join(delta.get("content") or "" for delta in deltas)
        raw = [each["url_citation"] for delta in deltas for each in delta.get("annotations") or ()]
    else:
        queries = ["weather 0", "weather 1"]
        (part,) = body["content"]
        text, raw = part["text"], part["citations"]
    return queries, text, [(text[each["start_index"] : each["end_index"]], each["url"]) for each in raw]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("api", ["messages", "responses", "chat", "native"])
def test_a_search_is_told_and_cited_in_the_words_of_each_api(rig: Rig, api: str, name: str, stream: bool) -> None:
    answer, sent = ask(rig, api, name, "hi [[standin searches=2]]", stream=stream)
    queries, text, cited = told(api, answer, stream)
    assert queries == ["weather 0", "weather 1"]
    said = "I looked it up. " if name == "claude" else ""
    # Anthropic's API cites with whole texts, OpenAI's with some characters.
    whole = "messages" if name == "codex" else api
    assert (text, cited) == (said + "ECHO<hi>", [("ECHO<hi>" if whole == api else "ECHO", PAGE)])
    (tool,) = sent.body["tools"]
    assert tool["type"] == ("web_search_20250305" if name == "claude" else "web_search")
    most = tool["max_uses"] if name == "claude" else sent.body["max_tool_calls"]
    assert most == (5 if api == "chat" else 2)
    assert rig.server.admin("GET", "/logs?limit=1").json["logs"][0]["searches"] == 2


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("api", ["messages", "responses"])
def test_a_model_that_would_search_on_is_stopped_by_its_provider(rig: Rig, api: str, name: str) -> None:
    ask(rig, api, name, "hi [[standin searches=7]]")
    assert rig.server.admin("GET", "/logs?limit=1").json["logs"][0]["searches"] == 2


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("api", ["messages", "responses"])
def test_a_conversation_goes_on_with_what_was_searched(rig: Rig, api: str, name: str) -> None:
    answer, _ = ask(rig, api, name, "hi [[standin searches=2]]")
    body, field = answer.json, "messages" if api == "messages" else "input"
    said = [{"role": "assistant", "content": body["content"]}] if api == "messages" else body["output"]
    turns = [{"role": "user", "content": "hi"}, *said, {"role": "user", "content": "and now?"}]
    _, sent = ask(rig, api, name, "", **{field: turns})
    assert "ECHO<hi>" in json.dumps(sent.body)
    assert not any(word in json.dumps(sent.body) for word in ("server_tool_use", "web_search_call", PAGE))


@pytest.mark.parametrize("name", MODELS)
def test_searches_and_tools_of_the_client_go_together(rig: Rig, name: str) -> None:
    own = {"name": "weather", "input_schema": {"type": "object", "properties": {}}}
    answer, sent = ask(rig, "messages", name, "hi [[standin searches=1]]", tools=[own, TOOL])
    assert [tool.get("name") or tool["type"] for tool in sent.body["tools"]] == ["weather", "web_search"]
    assert answer.json["usage"]["server_tool_use"] == {"web_search_requests": 1, "web_fetch_requests": 0}


@pytest.mark.parametrize("name", MODELS)
def test_a_key_that_may_not_search_is_told_so_and_goes_on_with_its_own_tools(rig: Rig, name: str) -> None:
    key = rig.server.new_key(f"plain-{name}")
    for api in ("messages", "responses", "chat", "native"):
        path, body = asked(api, "hi [[standin searches=1]]")
        path = path or ("/generate" if name == "claude" else "/generate-codex")
        answer = rig.server.call("POST", path, {**body, "model": MODELS[name]}, key=key)
        assert answer.status == 403, answer.body
        error = answer.json if api == "native" else answer.json["error"]
        assert (error["code"], "admin" in error["hint"]) == ("web_search_not_allowed", True)
    assert rig.standin.generations == []
    path, body = asked("messages", "hi [[standin searches=1]]")
    own = {"name": "weather", "input_schema": {"type": "object", "properties": {}}}
    answer = rig.server.call("POST", path, {**body, "model": MODELS[name], "tools": [own, TOOL]}, key=key)
    assert (answer.status, answer.headers["x-bridge-ignored"]) == (200, "web_search")
    (sent,) = rig.standin.generations
    assert [tool["name"] for tool in sent.body["tools"]] == ["weather"]
