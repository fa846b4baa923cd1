"""The breaker: starts that fail are left alone for longer and longer, and tried again one by one."""

from __future__ import annotations

import pytest

from bridge.clock import Clock
from bridge.providers.pool import MAX_PAUSE_S, THRESHOLD, Breaker


class FrozenClock(Clock):
    """A clock that stands still until it is moved."""

    at = 100.0

    def monotonic(self) -> float:
        return self.at


def tripped(clock: Clock) -> Breaker:
    breaker = Breaker(clock)
    for _ in range(THRESHOLD):
        assert breaker.may_try()
        breaker.failed()
    return breaker


def test_a_few_failures_keep_nobody_out() -> None:
    breaker = Breaker(FrozenClock())
    for _ in range(THRESHOLD - 1):
        breaker.failed()
    assert breaker.may_try()
    assert not breaker.tripped
    assert breaker.retry_in_s == 0


def test_after_several_failures_there_is_one_try_for_each_pause() -> None:
    clock = FrozenClock()
    breaker = tripped(clock)
    assert breaker.tripped
    assert not breaker.may_try()
    clock.at += breaker.retry_in_s
    assert [breaker.may_try() for _ in range(3)] == [True, False, False]
    breaker.failed()
    assert not breaker.may_try()


def test_a_start_that_works_closes_it() -> None:
    clock = FrozenClock()
    breaker = tripped(clock)
    clock.at += breaker.retry_in_s
    assert breaker.may_try()
    breaker.succeeded()
    assert not breaker.tripped
    assert all(breaker.may_try() for _ in range(3))


def test_pauses_grow_up_to_a_bound() -> None:
    clock = FrozenClock()
    breaker = Breaker(clock)
    pauses = []
    for _ in range(12):
        breaker.failed()
        pauses.append(breaker.pause_s)
    assert pauses == sorted(pauses)
    assert pauses[0] < pauses[3] < pauses[-1] == pytest.approx(MAX_PAUSE_S)
