"""The native API's bodies: every field, every refusal, and the shapes of answers and errors."""

from __future__ import annotations

import json
import time
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.errors import BridgeError, Problem
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
    Text,
    Usage,
    content_of,
)
from bridge.wire import native
from bridge.wire.api import KEEP_ALIVE, Asked, Known, keep_alive, sse_event
from bridge.wire.native import API, Tokens

SETTINGS = Settings.load({})
#: A picture of one pixel.
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
PNG_URL = f"data:image/png;base64,{PNG}"


def parse_bytes(body: bytes, provider: str = "claude") -> Asked:
    return native.parse(body, Known(SETTINGS, lambda name: ModelChoice(provider, name or "claude-sonnet-5-5")))


def parse(**fields: Any) -> GenerationRequest:
    return parse_bytes(json.dumps(fields).encode())[0]


def refusal(body: bytes | None = None, **fields: Any) -> str:
    with pytest.raises(BridgeError) as caught:
        parse_bytes(json.dumps(fields).encode() if body is None else body)
    assert (caught.value.code, caught.value.problem.status) == ("invalid_request", 400)
    assert "$" not in caught.value.message
    return caught.value.message


def test_a_prompt_alone_takes_every_default() -> None:
    request, _, events = parse_bytes(b'{"userPrompt":"hello"}')
    assert events is None
    assert request == GenerationRequest(
        provider="claude",
        model="claude-sonnet-5-5",
        messages=(Message("user", (Text("hello"),)),),
        max_output_tokens=8192,
        timeout_s=300.0,
    )


def test_every_field_arrives() -> None:
    body = {
        "userPrompt": "what is this?",
        "systemPrompt": "Be brief.",
        "images": [PNG_URL],
        "model": "claude-opus-5-5[1m]",
        "maxOutputTokens": 100,
        "effort": "high",
        "timeoutSeconds": 12.5,
        "schema": {"type": "object"},
        "stream": True,
    }
    request, _, events = parse_bytes(json.dumps(body).encode(), "codex")
    assert events is API.events
    assert request == GenerationRequest(
        provider="codex",
        model="claude-opus-5-5[1m]",
        messages=(Message("user", (Image("image/png", PNG, 1), Text("what is this?"))),),
        system="Be brief.",
        max_output_tokens=100,
        timeout_s=12.5,
        effort="high",
        schema={"type": "object"},
    )


def test_a_conversation_arrives_with_its_parts() -> None:
    parts = [{"type": "text", "text": "see"}, {"type": "image", "mediaType": "image/png", "data": PNG}]
    request = parse(
        messages=[
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": [{"type": "text", "text": "two"}, {"type": "text", "text": " "}]},
            {"role": "user", "content": parts},
        ]
    )
    assert request.messages == (
        Message("user", (Text("one"),)),
        Message("assistant", (Text("two"),)),
        Message("user", (Text("see"), Image("image/png", PNG, 1))),
    )


def test_images_go_with_the_last_message() -> None:
    messages = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
    ]
    request = parse(messages=messages, images=[PNG_URL])
    assert [len(message.content) for message in request.messages] == [1, 1, 2]


def test_null_is_as_good_as_absent() -> None:
    names = ["systemPrompt", "messages", "images", "model", "maxOutputTokens", "effort", "timeoutSeconds", "schema"]
    assert parse(userPrompt="hello", stream=None, **dict.fromkeys(names)) == parse(userPrompt="hello")


def test_the_longest_prompt_is_taken_and_one_more_is_not() -> None:
    assert parse(userPrompt="é" * 500_000).messages[0].text == "é" * 500_000
    assert "userPrompt is longer" in refusal(userPrompt="x" * 500_001)
    assert "systemPrompt is longer" in refusal(userPrompt="x", systemPrompt="x" * 500_001)
    # What one side says in several messages is joined with blank lines.
    turns = [{"role": role, "content": "x" * 400_000} for role in ("user", "assistant") * 2]
    assert parse(messages=[*turns, {"role": "user", "content": "x" * 400_000}]).messages
    assert "together" in refusal(messages=[*turns, {"role": "user", "content": "x" * 400_001}])


NO_JSON = [
    b"",
    b" ",
    b"{",
    b"hello",
    b'{"userPrompt":}',
    b"\xef\xbb\xbf{}",
    b"{}{}",
]
NO_JSON += [b'{"userPrompt":"x","schema":' + b'{"a":' * 40_000, b'{"schema":{"a":NaN}}']


@pytest.mark.parametrize("body", NO_JSON, ids=range(len(NO_JSON)))
def test_what_is_no_json_is_refused(body: bytes) -> None:
    assert refusal(body) == "The body is not valid JSON."


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"\xff\xfe", "not UTF-8, from byte 0 on"),
        (b'{"userPrompt":"\xff"}', "not UTF-8, from byte 15 on"),
        (b'{"userPrompt":"Gr\xfc\xdfe"}', "not UTF-8, from byte 17 on"),
        (b'{"userPrompt":"a \\ud83d b"}', "half a character"),
        (b'{"userPrompt":"a \\uDE00"}', "half a character"),
        (b'{"userPrompt":"\\ud83d\\ud83d\\ude00"}', "half a character"),
        (b'{"userPrompt":"\\ud83d\\ude00"', "not valid JSON"),
    ],
)
def test_what_is_wrong_with_the_text_of_a_body_is_named(body: bytes, says: str) -> None:
    assert says in refusal(body)


def test_what_was_said_around_an_empty_answer_is_one_turn_and_a_system_message_stands_anywhere() -> None:
    turns = [("user", "a"), ("assistant", ""), ("system", "S"), ("user", "b"), ("developer", "D")]
    request = parse(messages=[{"role": role, "content": text} for role, text in turns], systemPrompt="P")
    assert (request.system, [message.text for message in request.messages]) == ("P\n\nS\n\nD", ["a\n\nb"])
    alone = parse(messages=[{"role": "system", "content": "A haiku"}])
    assert (alone.system, [message.text for message in alone.messages]) == ("", ["A haiku"])


@pytest.mark.parametrize("body", [b"null", b"[]", b'"x"', b"3", b"true", b"[" * 40_000])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    assert "object" in refusal(body)


WRONG = [
    ("userPrompt", [1, True, [], {}]),
    ("systemPrompt", [1, True, []]),
    ("messages", [1, "x", {}, [1], ["x"], [{}], [{"role": "tool", "content": "x"}]]),
    ("messages", [[{"role": "user", "content": 1}], [{"role": "user", "content": [{"type": "video"}]}]]),
    ("messages", [[{"role": "user", "content": "x", "name": "bob"}], [{"role": "user", "content": [{}]}]]),
    ("images", [1, "x", {}, [1], [None]]),
    ("model", [1, [], True]),
    ("maxOutputTokens", [0, -1, 1.5, "100", True, [], 32001, 10**30]),
    ("effort", ["huge", "", 1, True]),
    ("timeoutSeconds", [0, -1, "10", True, 301, 1e300]),
    ("schema", [1, "x", [], True]),
    ("stream", [1, 0, "true", []]),
]


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in WRONG for value in values], ids=repr)
def test_a_field_of_the_wrong_type_or_size_is_named(field: str, value: Any) -> None:
    fields: dict[str, Any] = {} if field in ("messages", "userPrompt") else {"userPrompt": "x"}
    assert field in refusal(**fields, **{field: value})


@pytest.mark.parametrize("number", [b"1e400", b"-1e400", b"1" + b"0" * 5000])
def test_a_number_beyond_all_bounds_is_refused(number: bytes) -> None:
    for field in (b"timeoutSeconds", b"maxOutputTokens"):
        refusal(b'{"userPrompt":"x","' + field + b'":' + number + b"}")


@pytest.mark.parametrize(
    "field", ["prompt", "user_prompt", "UserPrompt", "top_p", "tool_choice", "<script>", "a\nb", "`"]
)
def test_an_unknown_field_is_named(field: str) -> None:
    message = refusal(userPrompt="x", **{field: 1})
    assert message.startswith("Unknown field ")
    assert repr(field) in message


def test_an_unknown_field_deeper_inside_is_named_with_its_place() -> None:
    assert "role2" in refusal(messages=[{"role": "user", "content": "x", "role2": 1}])
    assert len(refusal(userPrompt="x", **{"y" * 10_000: 1})) < 400


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "userPrompt is missing"),
        ({"userPrompt": ""}, "userPrompt is empty"),
        ({"userPrompt": " \n\t "}, "userPrompt is empty"),
        ({"userPrompt": "a\0b"}, "NUL"),
        ({"userPrompt": "x", "systemPrompt": "a\0b"}, "systemPrompt contains a NUL"),
        ({"userPrompt": "x", "messages": [{"role": "user", "content": "y"}]}, "not both"),
        ({"messages": []}, "messages is empty"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages[0].content is empty"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content is empty"),
        ({"messages": [{"role": "user", "content": "a\0"}]}, "messages[0].content contains a NUL"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "last of messages must be from the user"),
        ({"messages": [{"role": role, "content": "x"} for role in ("user", "assistant")] * 501}, "more than 1000"),
    ],
)
def test_a_conversation_that_cannot_be_answered_is_refused(fields: dict[str, Any], words: str) -> None:
    assert words in refusal(**fields)


def body_of(start: bytes, part: bytes, end: bytes) -> bytes:
    """A body of about two million bytes that repeats one small part."""
    return start + b",".join([part] * (2_000_000 // (len(part) + 1))) + end


HUGE = {
    "schema": body_of(b'{"userPrompt":"x","schema":{"enum":[', b"[]", b"]}}"),
    "schema of nothing": body_of(b'{"userPrompt":"x","schema":{"enum":[', b"{}", b"]}}"),
    "images": body_of(b'{"userPrompt":"x","images":[', b'"ab"', b"]}"),
    "real images": body_of(b'{"userPrompt":"x","images":[', b'"data:image/gif;base64,R0lGODlh"', b"]}"),
    "messages": body_of(b'{"messages":[', b'{"role":"user","content":""}', b"]}"),
    "parts": body_of(b'{"messages":[{"role":"user","content":[', b'{"type":"text","text":""}', b"]}]}"),
}


@pytest.mark.parametrize("body", HUGE.values(), ids=list(HUGE))
def test_a_body_of_many_small_things_is_refused_before_it_is_large_in_memory(body: bytes) -> None:
    tracemalloc.start()
    try:
        refusal(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6 * len(body)


def test_more_parts_than_a_conversation_needs_are_refused() -> None:
    part = {"type": "text", "text": "x"}
    assert parse(messages=[{"role": "user", "content": [part] * 2000}])
    assert "2000 parts" in refusal(messages=[{"role": "user", "content": [part] * 1001}] * 2)


def test_an_assistant_has_no_images() -> None:
    picture = {"type": "image", "mediaType": "image/png", "data": PNG}
    last = {"role": "user", "content": "x"}
    assert "only a user's message" in refusal(messages=[{"role": "assistant", "content": [picture]}, last])


ODD_MODELS = [
    "",
    "-x",
    "--help",
    "x y",
    "x\n",
    "\nx",
    "x\0",
    "é",
    "x" * 101,
    "../x",
    "/x",
    ".x",
    "[x",
    "x;y",
    "x$y",
    "x'y",
]


@pytest.mark.parametrize("model", ODD_MODELS, ids=repr)
def test_an_odd_model_is_refused(model: str) -> None:
    assert refusal(userPrompt="x", model=model) == "model is not a well-formed model name."


@pytest.mark.parametrize("model", ["x", "claude-opus-5-5[1m]", "gpt-6.1-sol", "us.anthropic/claude:v1", "x" * 100])
def test_a_well_formed_model_is_taken(model: str) -> None:
    assert parse(userPrompt="x", model=model).model == model


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
FIELDS = st.dictionaries(
    st.sampled_from(["userPrompt", "systemPrompt", "model", "effort", "stream", "maxOutputTokens", "x"])
    | st.sampled_from(["messages", "images", "timeoutSeconds", "schema"]),
    JSON | st.just("x") | st.just([{"role": "user", "content": "x"}]) | st.just([PNG_URL]),
)


def fuzz(body: bytes) -> None:
    try:
        request, _, events = parse_bytes(body)
    except BridgeError as error:
        assert error.code == "invalid_request"  # noqa: PT017
        json.dumps(API.error(error.problem, "r")).encode()
    else:
        assert request.messages[-1].role == "user"
        assert events in (None, API.events)


@given(st.binary())
@example(b"\x00" * 100)
def test_any_bytes_are_a_request_or_a_refusal(body: bytes) -> None:
    fuzz(body)


@given(JSON | FIELDS)
def test_any_json_is_a_request_or_a_refusal(value: Any) -> None:
    fuzz(json.dumps(value).encode())


def answered(request: GenerationRequest, answer: Answer, charge: Charge) -> dict[str, Any]:
    finished = Finished(answer, charge, 56)
    return API.answer(Job("run_1", "ada", 0.0, request, finished=finished), finished)


def test_an_answer_has_the_shape_that_clients_of_ai_cli_bridge_read() -> None:
    usage = Usage(10, 3, 2, 5, 1)
    answer, charge = Answer(content_of("hi"), "m", "end_turn", usage, output={"a": 1}), Charge(usage, 1234)
    assert answered(parse(userPrompt="x"), answer, charge) == {
        "id": "run_1",
        "model": "m",
        "content": [{"type": "text", "text": "hi"}],
        "stop_reason": "end_turn",
        "usage": {
            "input_tokens": 10,
            "output_tokens": 5,
            "cache_creation_input_tokens": 2,
            "cache_read_input_tokens": 3,
        },
        "cost_usd": 0.001234,
        "duration_ms": 56,
    }
    structured = answered(parse(userPrompt="x", schema={}), answer, charge)
    assert structured["output"] == {"a": 1}


def test_usage_of_codex_speaks_its_own_words() -> None:
    assert msgspec.to_builtins(Tokens.of("codex", Usage(10, 3, 2, 5, 1))) == {
        "input_tokens": 15,
        "output_tokens": 5,
        "cached_input_tokens": 3,
        "reasoning_output_tokens": 1,
    }


def test_an_error_has_a_sentence_a_code_a_hint_and_its_facts() -> None:
    facts = {"limit": 5, "used": 5.1, "resets_at": "2026-01-01T00:00:00.000Z"}
    error = Problem("cost_per_day", "Enough for today.", facts=facts)
    assert API.error(error, "req_1") == {
        "error": "Enough for today.",
        "code": "cost_per_day",
        "hint": "Wait for the reset, choose a cheaper model, or ask your admin for more.",
        "request_id": "req_1",
        "limit": 5,
        "used": 5.1,
        "resets_at": "2026-01-01T00:00:00.000Z",
    }


@given(st.text(st.characters(exclude_categories=["Cs"])))
@example("a\nb\r\n\nevent: done\ndata: x\u2028\u0085")
def test_an_event_is_one_block_whatever_its_text(text: str) -> None:
    data = sse_event("delta", {"text": text})
    name, payload, empty, end = data.split(b"\n")
    assert (name, empty, end) == (b"event: delta", b"", b"")
    assert json.loads(payload.removeprefix(b"data: ")) == {"text": text}
    assert b"\r" not in data


def test_a_keep_alive_is_a_comment() -> None:
    assert KEEP_ALIVE == b": keep-alive\n\n"


def test_a_keep_alive_says_where_in_the_queue_one_is() -> None:
    assert keep_alive(0) == KEEP_ALIVE
    assert keep_alive(3) == b": queued, place 3\n\n"


@pytest.mark.parametrize("piece", ["[]", "{}", "1", '"a"', '"\\\\"', "[1,2]"])
def test_a_body_of_nothing_but_values_is_refused_before_it_is_decoded(piece: str) -> None:
    body = b'{"x":[' + ",".join([piece] * 590_000).encode() + b"]}"
    began = time.process_time()
    with pytest.raises(BridgeError) as refused:
        API.parse(body, Known(SETTINGS, lambda name: ModelChoice("claude", "m")))
    assert refused.value.message == "The body has more than 50000 values."
    assert time.process_time() - began < 0.25


TEXTS = {"csv": "1," * 240_000, "json": '{"a": [1, "b"]}, ' * 29_000, "backslashes": '\\,\\"' * 100_000}


@pytest.mark.parametrize("text", TEXTS.values(), ids=list(TEXTS))
def test_what_stands_within_a_text_is_no_value(text: str) -> None:
    assert parse(userPrompt=text).messages[0].text == text
