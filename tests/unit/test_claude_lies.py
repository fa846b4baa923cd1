"""Lines that claude should never print: noise, odd shapes, and figures that make no sense."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.providers import claude_wire as wire
from bridge.types import Completed, Event, Failed, Usage
from tests.unit.test_claude_wire import SCHEMA, ask, play

STREAM = [
    {"type": "message_start", "message": {"model": "claude-opus-5-5", "usage": {"input_tokens": 5}}},
    {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "hi"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"input_tokens": 5, "output_tokens": 2}},
]


def streamed(*events: dict[str, Any]) -> list[bytes]:
    return [json.dumps({"type": "stream_event", "event": event}).encode() for event in events]


def result(**changes: Any) -> bytes:
    """A result line of a success, changed; a value of ... takes the field away."""
    line = {
        "type": "result",
        "subtype": "success",
        "is_error": False,
        "num_turns": 1,
        "result": "hi",
        "total_cost_usd": 0.001,
        "usage": {"input_tokens": 5, "output_tokens": 2},
        "stop_reason": "end_turn",
        **changes,
    }
    return json.dumps({name: value for name, value in line.items() if value is not ...}).encode()


def end_of(line: bytes, *events: dict[str, Any]) -> Completed | Failed:
    """The end of an answer of two letters with that result line."""
    end = play([*streamed(*(events or STREAM)), line])[-1]
    assert isinstance(end, Completed | Failed)
    return end


@pytest.mark.parametrize(
    "line",
    [b"", b"garbage", b'{"type":"result"', b"\xff\xfe\x00", b"null", b"[]", b'"result"', b"3", b"{}", b"[" * 100_000]
    + [b'{"type":' + value + b"}" for value in (b"null", b"3", b"[]", b"{}", b'"unheard of"')]
    + [b'{"type":"stream_event"}', b'{"type":"stream_event","event":7}', b'{"type":"stream_event","event":{}}'],
)
def test_noise_gives_no_event(line: bytes) -> None:
    assert play([line]) == []


ODD = [None, True, 0, -1, 1.5, "x", [], {}, ["x"], {"x": 1}]


@pytest.mark.parametrize("odd", ODD, ids=repr)
@pytest.mark.parametrize("kind", ["content_block_delta", "content_block_start", "message_start", "message_delta"])
def test_an_odd_shape_inside_an_event_never_raises(kind: str, odd: Any) -> None:
    for field in ("delta", "content_block", "message", "usage"):
        line = json.dumps({"type": "stream_event", "event": {"type": kind, field: odd}}).encode()
        play([line], ask(schema=SCHEMA))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["type", "event", "delta", "message", "usage", "text", "result"]), inner)
        ),
        max_leaves=12,
    ),
    st.sampled_from(["stream_event", "result", "assistant", "system", "control_response"]),
)
def test_whatever_a_line_holds_it_is_an_event_or_noise(inner: Any, kind: str) -> None:
    for line in ({"type": kind, "event": inner}, {**inner, "type": kind} if isinstance(inner, dict) else inner):
        data = json.dumps(line).encode()
        assert all(isinstance(event, Event) for event in play([data], ask(schema=SCHEMA)))
        wire.control_answer(data)


@pytest.mark.parametrize(
    "cost", ["NaN", "Infinity", "-Infinity", "1e400", "-5", "1e12", "0", "6", '"0.5"', "true", "[]"]
)
def test_what_the_cli_says_of_the_cost_changes_nothing(cost: str) -> None:
    end = end_of(result(total_cost_usd="COST").replace(b'"COST"', cost.encode()))
    assert isinstance(end, Completed)
    assert end.answer.usage == Usage(5, output_tokens=2)


LIES = [-1, 1.5, "7", True, 10**9, 10**30, [], {}]


@pytest.mark.parametrize("lie", LIES, ids=repr)
def test_a_usage_that_makes_no_sense_is_not_believed(lie: Any) -> None:
    for name in ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"):
        usage = wire.usage_of({"input_tokens": 5, "output_tokens": 2, name: lie})
        assert usage is None or (not lie and usage.total <= 7)


@pytest.mark.parametrize("raw", [None, 7, "usage", [], True])
def test_a_usage_that_is_none_is_none(raw: Any) -> None:
    assert wire.usage_of(raw) is None


def test_the_usage_of_the_result_counts_where_the_stream_had_none_or_less() -> None:
    end = end_of(result(modelUsage={"m": {"inputTokens": 50, "outputTokens": 20, "cacheReadInputTokens": 7}}))
    assert isinstance(end, Completed)
    assert end.answer.usage == Usage(50, 7, 0, 20)


@pytest.mark.parametrize("lie", [None, {}, 7, [], {"m": 7}, {"m": {"inputTokens": -1}}, {"m": {"inputTokens": "9"}}])
def test_model_usage_that_makes_no_sense_is_not_believed(lie: Any) -> None:
    assert wire.model_usage_of(lie) is None
    end = end_of(result(modelUsage=lie))
    assert isinstance(end, Completed)
    assert end.answer.usage == Usage(5, output_tokens=2)


def test_thinking_tokens_are_part_of_the_output() -> None:
    raw = {"output_tokens": 9, "output_tokens_details": {"thinking_tokens": 4}}
    assert wire.usage_of(raw) == Usage(output_tokens=9, reasoning_tokens=4)


@pytest.mark.parametrize("flag", [True, None, 0, 1, "false", ...])
def test_only_is_error_false_is_a_success(flag: Any) -> None:
    assert isinstance(end_of(result(is_error=flag)), Failed)


@pytest.mark.parametrize("subtype", ["error_during_execution", "error_max_turns", "", None, 7, ...])
def test_only_the_subtype_success_is_a_success(subtype: Any) -> None:
    assert isinstance(end_of(result(subtype=subtype)), Failed)


@pytest.mark.parametrize("turns", [0, -1, None, "1", 0.5, True, ...])
def test_an_answer_without_a_turn_was_not_the_models(turns: Any) -> None:
    end = end_of(result(num_turns=turns))
    assert isinstance(end, Failed)
    assert end.problem.code == "cli_failed"


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_an_empty_answer_is_an_answer_and_is_charged(text: str) -> None:
    end = end_of(
        result(), STREAM[0], {"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}}, STREAM[2]
    )
    assert isinstance(end, Completed)
    assert (end.answer.text, end.answer.stop_reason) == (text, "end_turn")
    assert end.answer.usage == Usage(5, output_tokens=2)


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (b'{"type":"control_response","response":{"subtype":"success","request_id":"settings"}}', ("settings", True)),
        (b'{"type":"control_response","response":{"subtype":"error","request_id":"settings"}}', ("settings", False)),
        (b'{"type":"control_response","response":[]}', None),
        (b'{"type":"control_response"}', None),
        (b'{"type":"result"}', None),
        (b"garbage", None),
        (b"[" * 100_000, None),
    ],
)
def test_a_control_answer_is_recognised(line: bytes, answer: Any) -> None:
    assert wire.control_answer(line) == answer


def test_a_result_is_recognised_also_a_silent_one() -> None:
    assert wire.is_result(result(num_turns=0))
    assert not wire.is_result(b'{"type":"assistant"}')
    assert not wire.is_result(b"garbage")
