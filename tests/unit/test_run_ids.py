"""Ids of runs: unique, harmless in a URL and a file name, and in the order of time."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from bridge.clock import Clock
from bridge.engine.bill import new_run_id


class FrozenClock(Clock):
    """A clock that stands still at `at`."""

    def __init__(self, at: float) -> None:
        self.at = at

    def now(self) -> float:
        return self.at


def test_an_id_is_short_and_harmless() -> None:
    assert re.fullmatch(r"run_[0-9a-v]{26}", new_run_id(Clock()))


def test_ids_of_one_moment_differ() -> None:
    clock = FrozenClock(1.8e9)
    assert len({new_run_id(clock) for _ in range(10_000)}) == 10_000


@given(st.integers(0, 2**47), st.integers(1, 10**9))
def test_ids_sort_by_time(milliseconds: int, later: int) -> None:
    earlier, then = (new_run_id(FrozenClock(at / 1000)) for at in (milliseconds, milliseconds + later + 1))
    assert earlier < then
