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
    known.add("run_1", "ada", ANSWER)
    assert (known.get("run_1", "ada"), known.get("run_1", "bob"), known.get("run_2", "ada")) == (ANSWER, None, None)
    clock.pass_s(KNOWN_S)
    assert known.get("run_1", "ada") == ANSWER
    clock.pass_s(1)
    assert known.get("run_1", "ada") is None
    known.prune()
    assert not vars(known)["_kept"]
    assert vars(known)["_bytes"] == 0


def test_the_oldest_go_where_there_is_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "MOST_BYTES", 3 * (OVERHEAD_BYTES + 1000))
    known = RecentAnswers(FrozenClock())
    for number in range(10):
        known.add(f"run_{number}", "ada", Answer((Text("x" * 700),), "the-model", "end_turn", None))
    assert [known.get(f"run_{number}", "ada") is not None for number in range(10)] == 7 * [False] + 3 * [True]
    known.add("run_large", "ada", Answer((Text("x" * 9000),), "the-model", "end_turn", None))
    assert [known.get(each, "ada") for each in ("run_9", "run_large")] == [None, None]
