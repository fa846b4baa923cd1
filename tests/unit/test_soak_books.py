"""The soak's comparison of the books finds whatever does not fit."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.soak_books import Books, compare

MODEL = "claude-sonnet-5-5"


def line(tag: str = "soak-1-1", **fields: Any) -> dict[str, Any]:
    """A line of the log: a run that was answered with 100 + 20 tokens of prompt and 30 of output."""
    return {
        "id": f"run_{tag}",
        "keyName": "ann",
        "model": MODEL,
        "status": 200,
        "code": None,
        "assumed": False,
        "warm": True,
        "userPrompt": f"{tag} [[standin deltas=10]]",
        "inputTokens": 100,
        "cacheReadTokens": 20,
        "cacheWriteTokens": 0,
        "outputTokens": 30,
        "costUsd": 0.001,
        **fields,
    }


def call(tag: str = "soak-1-1", **fields: Any) -> dict[str, Any]:
    """What the stand-in has recorded of it."""
    return {
        "api": "anthropic",
        "model": MODEL,
        "text": f"{tag} [[standin deltas=10]]",
        "status": 200,
        "outcome": "complete",
        "deltas": 10,
        "usage": {
            "input_tokens": 100,
            "cache_read_input_tokens": 20,
            "cache_creation_input_tokens": 0,
            "output_tokens": 30,
        },
        **fields,
    }


def booked(*, requests: int = 1, tokens: int = 150, dollars: float = 0.001) -> list[dict[str, Any]]:
    return [{"day": "2026-01-01", "key": "ann", "requests": requests, "tokens": tokens, "costUsd": dollars}]


CUT = {"status": 502, "code": "cancelled", "assumed": True}


def test_books_that_agree_are_good() -> None:
    books = compare([line()], [call()], booked())
    assert books.wrong == []
    assert books.rows[0] == [MODEL, "requests", 1, 1, "yes"]


def test_cached_tokens_of_the_other_api_are_a_part_of_its_input() -> None:
    details = {"cached_tokens": 20, "cache_write_tokens": 0}
    usage = {"input_tokens": 120, "input_tokens_details": details, "output_tokens": 30}
    assert compare([line()], [call(api="openai", usage=usage)], booked()).wrong == []


def test_a_run_that_was_broken_off_may_be_charged_more_than_was_sent() -> None:
    sent = call(deltas=5, outcome="client_closed")
    books = compare([line(**CUT, inputTokens=900)], [sent], booked(tokens=950))
    assert books.wrong == []
    assert books.broken_off["output tokens sent"] == 15


def test_a_request_that_was_turned_away_may_cost_nothing() -> None:
    nothing = dict.fromkeys(("inputTokens", "cacheReadTokens", "outputTokens", "costUsd"), 0)
    refused = call(status=429, outcome="failed", deltas=0, usage=None)
    books = compare([line(status=503, code="x", **nothing)], [refused], booked(tokens=0, dollars=0))
    assert books.wrong == []


def test_a_run_that_was_never_handed_over_is_in_nobodys_books() -> None:
    nothing = dict.fromkeys(("inputTokens", "cacheReadTokens", "outputTokens", "costUsd"), 0)
    assert compare([line(status=503, code="overloaded", warm=None, **nothing)], [], []).wrong == []


@pytest.mark.parametrize(
    ("lines", "calls", "usage"),
    [
        pytest.param([line(outputTokens=29)], [call()], booked(tokens=149), id="a token too few"),
        pytest.param([line(inputTokens=120, cacheReadTokens=0)], [call()], booked(), id="another kind of token"),
        pytest.param([line()], [], booked(), id="a run without a call"),
        pytest.param([line()], [call(), call()], booked(), id="two calls for one run"),
        pytest.param([line()], [call(model="claude-haiku-5-5")], booked(), id="another model"),
        pytest.param([], [call()], [], id="a call that nobody was charged for"),
        pytest.param([line(), line()], [call()], booked(requests=2, tokens=300, dollars=0.002), id="charged twice"),
        pytest.param([line()], [call()], booked(tokens=151), id="a token too many in the ledger"),
        pytest.param([line()], [call()], booked(dollars=0.001001), id="a micro-dollar too many in the ledger"),
        pytest.param([line()], [call()], booked(requests=2), id="a request too many in the ledger"),
        pytest.param([line()], [call()], [], id="nothing in the ledger"),
        pytest.param([line(**CUT, outputTokens=14)], [call(deltas=5)], booked(tokens=134), id="cut, output"),
        pytest.param([line(**CUT, inputTokens=99)], [call(deltas=5)], booked(tokens=149), id="cut, prompt"),
        pytest.param(
            [line(status=502, code="cli_failed", inputTokens=0)], [call(deltas=5)], booked(tokens=50), id="said to be 0"
        ),
        pytest.param([line()], [call(outcome="open")], booked(), id="a call that goes on"),
    ],
)
def test_what_does_not_fit_is_found(lines: list[Any], calls: list[Any], usage: list[Any]) -> None:
    books: Books = compare(lines, calls, usage)
    assert books.wrong
