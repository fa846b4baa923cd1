"""Lines of refused requests: the first ones whole, the others counted."""

from __future__ import annotations

import msgspec
import pytest

from bridge.records.refusals import FIRST, WINDOW_S, Refusals
from bridge.types import RunRecord
from tests.support.ledger import FrozenClock


class Desk:
    """Refusals, and what they have written."""

    def __init__(self) -> None:
        self.clock = FrozenClock()
        self.written: list[RunRecord] = []
        self.refusals = Refusals(self.clock, self.written.append)

    def refuse(self, key: str = "ada", code: str = "requests_per_minute") -> None:
        prompt = "😀" * 200
        line = RunRecord("run_1", "2026-11-20T12:00:00Z", key, "claude", "m", "native", 429, code, "No.")
        self.refusals.note(msgspec.structs.replace(line, system_prompt=prompt, user_prompt=prompt))

    @property
    def times(self) -> list[int]:
        return [line.times for line in self.written]


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_the_first_ones_have_a_line_each_and_all_others_have_one_together(desk: Desk) -> None:
    for _ in range(1000):
        desk.refuse()
    assert desk.times == [1] * FIRST
    desk.clock.pass_s(WINDOW_S)
    desk.refusals.flush()
    assert desk.times == [1] * FIRST + [1000 - FIRST]
    assert desk.written[-1].user_prompt is None
    desk.refusals.flush(all=True)
    assert len(desk.written) == FIRST + 1


def test_keys_and_codes_are_counted_apart(desk: Desk) -> None:
    for _ in range(FIRST + 1):
        desk.refuse("ada")
        desk.refuse("bob")
        desk.refuse("ada", "cost_per_day")
    assert len(desk.written) == 3 * FIRST


def test_after_a_while_the_first_ones_have_lines_again(desk: Desk) -> None:
    for _ in range(FIRST + 3):
        desk.refuse()
    desk.clock.pass_s(WINDOW_S)
    desk.refuse()
    assert desk.times == [*[1] * FIRST, 3, 1]


def test_at_the_end_nothing_is_left_uncounted(desk: Desk) -> None:
    for _ in range(FIRST + 2):
        desk.refuse()
    desk.refusals.flush()
    assert desk.times == [1] * FIRST
    desk.refusals.flush(all=True)
    assert sum(desk.times) == FIRST + 2


def test_a_day_of_nothing_but_refusals_is_a_few_megabytes(desk: Desk) -> None:
    for _ in range(24 * 60):
        for _ in range(120):
            desk.refuse()
        desk.clock.pass_s(60)
    desk.refusals.flush(all=True)
    assert sum(desk.times) == 24 * 60 * 120
    assert sum(len(msgspec.json.encode(line)) for line in desk.written) < 6_000_000
