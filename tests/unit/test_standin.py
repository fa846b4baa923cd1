"""The stand-in for the model APIs does what its directives say, and remembers what it saw."""

from __future__ import annotations

import http.client
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.standin import ScriptError, StandIn, anthropic, encode_text, openai

HEADERS = {"content-type": "application/json", "x-api-key": "made-up"}
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "n": {"type": "integer", "minimum": 3}},
    "required": ["name", "n"],
}
STRICT: dict[str, Any] = {**SCHEMA, "additionalProperties": False}


@pytest.fixture
def standin() -> Iterator[StandIn]:
    with StandIn() as server:
        yield server


def connect(standin: StandIn) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", standin.server_address[1], timeout=5)


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    data: bytes


def post(standin: StandIn, path: str, body: object, headers: dict[str, str] = HEADERS) -> Reply:
    with closing(connect(standin)) as connection:
        connection.request("POST", path, json.dumps(body), headers)
        with connection.getresponse() as response:
            known = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, known, response.read())


def ask_anthropic(standin: StandIn, prompt: str, **more: Any) -> Reply:
    messages = [{"role": "user", "content": prompt}]
    body = {"model": "m", "max_tokens": 50, "stream": True, "messages": messages, **more}
    return post(standin, "/v1/messages?beta=true", body)


def ask_openai(standin: StandIn, prompt: str, **more: Any) -> Reply:
    content = [{"type": "input_text", "text": prompt}]
    asked = [{"type": "message", "role": "user", "content": content}]
    return post(standin, "/v1/responses", {"model": "m", "stream": True, "input": asked, **more})


def events(reply: Reply) -> list[dict[str, Any]]:
    assert reply.status == 200
    lines = reply.data.decode().split("\n")
    return [json.loads(line[6:]) for line in lines if line.startswith("data: ")]


def text_of(seen: list[dict[str, Any]]) -> str:
    deltas = [e.get("delta", "") for e in seen if "delta" in e["type"]]
    return "".join(d if isinstance(d, str) else d.get("text", "") for d in deltas)


def test_messages_stream_in_the_official_order(standin: StandIn) -> None:
    seen = events(ask_anthropic(standin, "hello [[standin deltas=2 input=11 cached=5 output=7]]"))
    assert [e["type"] for e in seen] == [
        "message_start",
        "content_block_start",
        "ping",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert text_of(seen) == "ECHO<hello>"
    assert seen[-2]["usage"]["output_tokens"] == 7
    assert seen[0]["message"]["usage"]["cache_read_input_tokens"] == 5


def test_responses_stream_in_the_official_order(standin: StandIn) -> None:
    seen = events(ask_openai(standin, "[[standin deltas=1 cached=3 input=9]] hello"))
    assert [e["type"].removeprefix("response.") for e in seen] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [e["sequence_number"] for e in seen] == list(range(9))
    assert text_of(seen) == "ECHO<hello>"
    assert seen[-1]["response"]["usage"]["input_tokens_details"]["cached_tokens"] == 3


@pytest.mark.parametrize("status", [401, 429, 500, 529])
def test_errors_have_the_body_of_their_api(standin: StandIn, status: int) -> None:
    for ask in (ask_anthropic, ask_openai):
        reply = ask(standin, f"[[standin status={status} retry_after=3]]")
        assert reply.status == status
        assert reply.headers.get("retry-after") == ("3" if status == 429 else None)
        assert json.loads(reply.data)["error"]["message"]


def test_quota_is_the_code_that_openai_uses(standin: StandIn) -> None:
    reply = ask_openai(standin, "[[standin mode=quota]]")
    assert reply.status == 429
    assert json.loads(reply.data)["error"]["code"] == "insufficient_quota"


def test_long_answers_stop_at_the_limit_of_the_request(standin: StandIn) -> None:
    seen = events(ask_anthropic(standin, "[[standin long=1]]", max_tokens=20))
    assert len(text_of(seen).split()) == 20
    assert seen[-2]["delta"]["stop_reason"] == "max_tokens"
    assert seen[-2]["usage"]["output_tokens"] == 20
    seen = events(ask_openai(standin, "[[standin long=1]]", max_output_tokens=20))
    assert seen[-1]["type"] == "response.incomplete"
    assert seen[-1]["response"]["incomplete_details"]["reason"] == "max_output_tokens"


def test_structured_output_fits_the_schema_unless_told_otherwise(standin: StandIn) -> None:
    tools = [{"name": "StructuredOutput", "input_schema": SCHEMA}]
    form = {"format": {"type": "json_schema", "schema": SCHEMA}}

    def anthropic(directives: str) -> Any:
        seen = events(ask_anthropic(standin, directives, tools=tools))
        assert seen[1]["content_block"]["name"] == "StructuredOutput"
        parts = [e["delta"]["partial_json"] for e in seen if e["type"] == "content_block_delta"]
        return json.loads("".join(parts))

    def openai(directives: str) -> Any:
        return json.loads(text_of(events(ask_openai(standin, directives, text=form))))

    for ask in (anthropic, openai):
        assert ask("go") == {"name": "value", "n": 3}
        assert not isinstance(ask("[[standin schema_bad=1]]")["name"], str)
    seen = events(ask_openai(standin, "[[standin schema_never=1]] no", text=form))
    assert text_of(seen) == "ECHO<no>"


def test_an_exact_text_comes_back_unchanged(standin: StandIn) -> None:
    wanted = 'Ünïcode "quotes"\n\n[[standin]] 🎈'
    directive = f"[[standin text={encode_text(wanted)}]]"
    assert text_of(events(ask_anthropic(standin, directive))) == wanted
    assert text_of(events(ask_openai(standin, directive))) == wanted


def test_tools_are_asked_for_once_and_then_the_answer_follows(standin: StandIn) -> None:
    seen = events(ask_openai(standin, "[[standin tool=exec_command]]"))
    call = seen[-1]["response"]["output"][0]
    assert (call["type"], call["name"]) == ("function_call", "exec_command")
    assert json.loads(call["arguments"]) == {"cmd": "cat /etc/passwd"}
    seen = events(ask_anthropic(standin, "[[standin tool=Read]]"))
    assert seen[-2]["delta"]["stop_reason"] == "tool_use"


def test_a_cut_stream_ends_without_its_last_chunk(standin: StandIn) -> None:
    with pytest.raises(http.client.IncompleteRead):
        ask_anthropic(standin, "[[standin mode=cut]]")
    (record,) = standin.wait(lambda rs: rs[0].outcome != "open")
    assert (record.outcome, record.closed_early) == ("failed", False)


@pytest.mark.parametrize("mode", ["hang", "hang_headers", "hang_mid"])
def test_a_client_that_leaves_a_hanging_answer_is_noticed(standin: StandIn, mode: str) -> None:
    connection = connect(standin)
    body = {"model": "m", "stream": True, "input": f"[[standin mode={mode}]]"}
    connection.request("POST", "/v1/responses", json.dumps(body), HEADERS)
    standin.wait(lambda rs: len(rs) == 1 and rs[0].outcome == "open")
    connection.close()
    (record,) = standin.wait(lambda rs: rs[0].outcome != "open")
    assert record.closed_early
    assert record.seconds is not None


def test_stopping_ends_what_hangs() -> None:
    with StandIn(mode="hang") as standin:
        connection = connect(standin)
        connection.request("POST", "/v1/responses", '{"input": "x"}', HEADERS)
        standin.wait(lambda rs: len(rs) == 1)
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        connection.getresponse()
    connection.close()
    assert standin.requests[0].outcome == "stopped"


def test_delays_are_kept_between_deltas(standin: StandIn) -> None:
    began = time.monotonic()
    seen = events(ask_openai(standin, "x [[standin deltas=12 delay=0.01 first_delay=0.05]]"))
    assert time.monotonic() - began >= 0.15
    assert sum(e["type"].endswith("text.delta") for e in seen) == 12


def test_everything_is_recorded_and_side_traffic_stands_apart(standin: StandIn) -> None:
    events(ask_anthropic(standin, "hello", model="claude-x"))
    assert post(standin, "/api/telemetry", {}).status == 404
    asked, other = standin.wait(lambda rs: all(r.outcome != "open" for r in rs))
    assert (asked.api, asked.model, asked.text) == ("anthropic", "claude-x", "hello")
    assert asked.headers["x-api-key"] == "made-up"
    assert asked.usage is not None
    assert [r.path for r in standin.side_traffic] == [other.path] == ["/api/telemetry"]


def test_what_the_claude_cli_writes_in_between_is_not_the_prompt(standin: StandIn) -> None:
    messages = [
        {"role": "user", "content": "hello [[standin mode=max_tokens]]"},
        {"role": "assistant", "content": "ECHO<hel"},
        {"role": "user", "content": [{"type": "text", "text": "Output token limit hit. Resume directly …"}]},
    ]
    seen = events(ask_anthropic(standin, "", messages=messages))
    assert text_of(seen) == "ECHO<hello>"
    assert seen[-2]["delta"]["stop_reason"] == "max_tokens"


def test_misspelt_directives_are_refused(standin: StandIn) -> None:
    assert ask_openai(standin, "[[standin mdoe=hang]]").status == 400
    assert ask_anthropic(standin, "[[standin mode=hnag]]").status == 400
    with pytest.raises(ScriptError):
        standin.script(deltas="many")


def test_requests_without_a_credential_are_refused(standin: StandIn) -> None:
    assert post(standin, "/v1/messages", {}, headers={}).status == 401


def test_as_a_command_it_prints_its_url_and_is_scripted_over_http() -> None:
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "tests.standin", "--port", "0", "size=10"]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().rsplit(":", 1)[1])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)

        def call(method: str, path: str, body: object = None) -> Any:
            connection.request(method, path, json.dumps(body), HEADERS)
            with connection.getresponse() as response:
                return json.loads(response.read())

        asked = {"model": "m", "input": "x"}
        answer = call("POST", "/v1/responses", asked)
        assert len(answer["output"][0]["content"][0]["text"]) == 10
        assert call("POST", "/__script", {"mode": "empty"}) == {}
        assert call("POST", "/v1/responses", asked)["output"] == []
        assert call("GET", "/__counts")["by_api"] == {"openai": 2}
        assert [r["body"] for r in call("GET", "/__requests")] == [asked, asked]
        call("DELETE", "/__requests")
        assert call("GET", "/__counts")["total"] == 0
        connection.close()
        process.terminate()
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "object", "properties": {}}, "'additionalProperties' is required"),
        ({"type": "object", "properties": {"a": {}}, "additionalProperties": False}, "'required' is required"),
        ({"type": "array", "items": {"type": "string"}}, "type"),
        ({**STRICT, "properties": {**STRICT["properties"], "n": {"minLength": 1}}}, "'minLength' is not permitted"),
    ],
)
def test_a_loose_schema_is_refused_as_openai_does_and_not_without_strict(
    standin: StandIn, schema: dict[str, Any], says: str
) -> None:
    form = {"type": "json_schema", "name": "x", "strict": True, "schema": schema}
    refused = ask_openai(standin, "hello", text={"format": form})
    assert refused.status == 400
    error = json.loads(refused.data)["error"]
    assert (error["code"], says in error["message"]) == ("invalid_json_schema", True)
    assert ask_openai(standin, "hello", text={"format": {**form, "strict": False}}).status == 200
    assert ask_openai(standin, "hello", text={"format": {**form, "schema": STRICT}}).status == 200


def test_a_tool_whose_input_is_no_object_is_refused_as_anthropic_does(standin: StandIn) -> None:
    tools = [{"name": "StructuredOutput", "input_schema": {"type": "array"}}]
    refused = ask_anthropic(standin, "hello", tools=tools)
    assert refused.status == 400
    assert "Input should be 'object'" in refused.data.decode()


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1024, "thinking": {"type": "enabled", "budget_tokens": 1024}}, "must be greater than"),
        ({"max_tokens": 5000, "thinking": {"type": "enabled", "budget_tokens": 1023}}, "1024"),
        ({"max_tokens": 5000, "model": "claude-haiku-4-5", "thinking": {"type": "adaptive"}}, "adaptive"),
        (
            {"max_tokens": 5000, "thinking": {"type": "enabled", "budget_tokens": 2000}, "temperature": 0},
            "temperature",
        ),
    ],
)
def test_anthropics_rules_of_limits_and_thinking_are_kept(standin: StandIn, more: dict[str, Any], why: str) -> None:
    reply = ask_anthropic(standin, "hi", **more)
    assert (reply.status, why in reply.data.decode()) == (400, True)


def test_what_keeps_anthropics_rules_is_taken(standin: StandIn) -> None:
    budget = {"type": "enabled", "budget_tokens": 1024}
    assert ask_anthropic(standin, "hi", max_tokens=1025, thinking=budget).status == 200
    assert ask_anthropic(standin, "hi", model="claude-sonnet-4-6", thinking={"type": "adaptive"}).status == 200


@pytest.mark.parametrize(("limit", "status"), [(0, 400), (15, 400), (16, 200)])
def test_openais_least_output_is_kept(standin: StandIn, limit: int, status: int) -> None:
    assert ask_openai(standin, "hi", max_output_tokens=limit).status == status


# --- what the APIs say of tools -----------------------------------------------------------------

_CALL = {"type": "tool_use", "id": "t1", "name": "a", "input": {}}
_RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "7"}
_TOOLS = [{"name": "a", "input_schema": {"type": "object"}}]
_TEXT = {"type": "text", "text": "hi"}


def _turns(*contents: list[Any]) -> dict[str, Any]:
    roles = itertools.cycle(["user", "assistant"])
    return {"messages": [{"role": role, "content": content} for role, content in zip(roles, contents, strict=False)]}


@pytest.mark.parametrize(
    ("model", "body", "why"),
    [
        ("claude-sonnet-5-5", _turns([_TEXT], [_CALL], [_RESULT]), None),
        ("claude-sonnet-5-5", _turns([_TEXT], [_CALL], [_TEXT]), "without `tool_result`"),
        ("claude-sonnet-5-5", _turns([_RESULT]), "unexpected `tool_use_id`"),
        ("claude-sonnet-5-5", _turns([_TEXT], [_CALL], [_TEXT, _RESULT]), "must come first"),
        ("claude-sonnet-5-5", _turns([_TEXT], [_CALL, _CALL], [_RESULT]), "unique"),
        ("claude-sonnet-5-5", _turns([_TEXT], [{**_CALL, "input": "x"}], [_RESULT]), "dictionary"),
        ("claude-sonnet-5-5", {"tools": [{"name": "a b", "input_schema": {"type": "object"}}]}, "pattern"),
        ("claude-sonnet-5-5", {"tools": [*_TOOLS, *_TOOLS]}, "unique"),
        ("claude-sonnet-5-5", {"tools": [{**_TOOLS[0], "strict": True}]}, "additionalProperties"),
        ("claude-sonnet-5-5", {"tools": _TOOLS, "tool_choice": {"type": "any"}}, "not supported for this model"),
        ("claude-opus-4-7", {"tools": _TOOLS, "tool_choice": {"type": "any"}}, None),
        ("claude-opus-4-7", {"tools": _TOOLS, "tool_choice": {"type": "tool", "name": "b"}}, "not found"),
        ("claude-opus-4-7", {"tool_choice": {"type": "auto"}}, "while providing tools"),
        ("claude-opus-4-7", {"temperature": 0.5}, "deprecated"),
        ("claude-opus-4-6", {"temperature": 0.5}, None),
        ("claude-opus-4-6", {"temperature": 1.5}, "range"),
        ("claude-opus-4-6", {"temperature": 0.5, "thinking": {"type": "adaptive"}}, "only be set to 1"),
        ("claude-opus-5", {"thinking": {"type": "disabled"}}, None),
        ("claude-opus-5", {"thinking": {"type": "disabled"}, "output_config": {"effort": "max"}}, "at the effort"),
        ("claude-opus-5-5", {"thinking": {"type": "disabled"}}, "not supported for this model"),
        ("claude-opus-5-5", {"thinking": {"type": "between_tools"}}, "not supported for this model"),
        ("claude-sonnet-5-5", {"thinking": {"type": "between_tools"}}, None),
        ("claude-opus-4-6", {"stop_sequences": ["\n"]}, "non-whitespace"),
        ("claude-opus-4-1", {"output_config": {"format": {"schema": {}}}}, "not supported"),
        ("claude-opus-4-6", {"output_config": {"format": {"schema": {"type": "object"}}}}, "additionalProperties"),
        (
            "claude-haiku-4-5",
            {**_turns([_TEXT], [_CALL], [_RESULT]), "thinking": {"type": "enabled", "budget_tokens": 1024}},
            "must start with a thinking block",
        ),
    ],
)
def test_the_messages_api_keeps_its_rules_for_tools(model: str, body: dict[str, Any], why: str | None) -> None:
    objection = anthropic.objection({"model": model, "max_tokens": 2000, **_turns([_TEXT]), **body})
    assert (objection is None) is (why is None)
    if objection is not None:
        assert str(why) in objection["error"]["message"]


_FUNCTION = {"type": "function", "name": "a", "parameters": {"type": "object", "properties": {}}}
_ASKED = {"type": "function_call", "call_id": "c1", "name": "a", "arguments": "{}"}
_GIVEN = {"type": "function_call_output", "call_id": "c1", "output": "7"}


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"tools": [_FUNCTION], "tool_choice": "required", "input": [_ASKED, _GIVEN]}, None),
        ({"input": [_ASKED]}, "No tool output found"),
        ({"input": [_GIVEN]}, "No tool call found"),
        ({"tools": [{**_FUNCTION, "strict": True}]}, "additionalProperties"),
        ({"tools": [{**_FUNCTION, "name": "a.b"}]}, "expected"),
        ({"tools": [_FUNCTION], "tool_choice": {"type": "function", "name": "b"}}, "not found"),
        ({"tool_choice": "required"}, "with tools"),
        ({"temperature": 0.5}, "not supported"),
    ],
)
def test_the_responses_api_keeps_its_rules_for_tools(body: dict[str, Any], why: str | None) -> None:
    objection = openai.objection({"model": "gpt-6-sol", "input": [], **body})
    assert (objection is None) is (why is None)
    if objection is not None:
        assert str(why) in objection["error"]["message"]
