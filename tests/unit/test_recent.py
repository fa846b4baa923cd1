"""Answers of the last hour: each for the key that got it, within bounds."""

from __future__ import annotations

import pytest

from bridge.records import recent
from bridge.records.recent import KNOWN_S, OVERHEAD_BYTES, RecentAnswers
from bridge.types import Answer, Found, Search, Text, Thought, ToolCall, Usage
from tests.support.ledger import FrozenClock

PARTS = (
    Thought("Hm"),
    Search("srv_1", "tea", (Found("https://example.org", "Tea"),)),
    Text("Tea \N{HOT BEVERAGE}"),
    ToolCall("call_1", "brew", "{}"),
)
ANSWER = Answer(PARTS, "the-model", "tool_use", Usage(output_tokens=3), refusal="No more.")


def test_an_answer_is_known_to_the_key_that_got_it_for_an_hour() -> None:
    clock = FrozenClock()
    known = RecentAnswers(clock)
    known.add("ada", "run_1", ANSWER)
    assert (known.get("ada", "run_1"), known.get("bob", "run_1"), known.get("ada", "run_2")) == (ANSWER, None, None)
    clock.pass_s(KNOWN_S)
    assert known.get("ada", "run_1") == ANSWER
    clock.pass_s(1)
    assert known.get("ada", "run_1") is None
    known.prune()
    assert not vars(known)["_kept"]
    assert not vars(known)["_bytes"]


def test_the_oldest_go_where_there_is_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "MOST_BYTES", 3 * (OVERHEAD_BYTES + 1000))
    known = RecentAnswers(FrozenClock())
    for number in range(10):
        known.add("ada", f"run_{number}", Answer((Text("x" * 700),), "the-model", "end_turn", None))
    assert [known.get("ada", f"run_{number}") is not None for number in range(10)] == 7 * [False] + 3 * [True]
    known.add("ada", "run_large", Answer((Text("x" * 9000),), "the-model", "end_turn", None))
    assert [known.get("ada", each) for each in ("run_9", "run_large")] == [None, None]


def test_whoever_has_the_most_drives_out_nobody_else_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "MOST_BYTES", 5 * (OVERHEAD_BYTES + 1000))
    known = RecentAnswers(FrozenClock())
    honest, hostile = ["ada", "bob"], [f"run_{number}" for number in range(2, 20)]
    for owner, run_id, size in [*((each, "run_1", 700) for each in honest), *(("eve", each, 1400) for each in hostile)]:
        known.add(owner, run_id, Answer((Text("x" * size),), "the-model", "end_turn", None))
    known.add("eve", "run_large", Answer((Text("x" * 9000),), "the-model", "end_turn", None))
    assert [known.get(owner, "run_1") is not None for owner in honest] == [True, True]
    assert [run_id for run_id in (*hostile, "run_large") if known.get("eve", run_id)] == []
    known.add("eve", "run_small", ANSWER)
    assert known.get("eve", "run_small") == ANSWER
