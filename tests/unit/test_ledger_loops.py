from __future__ import annotations

import pytest

from bridge.errors import BridgeError
from bridge.keys.loops import BURST_HISTORY, LoopGuard, Verdict
from tests.support.ledger import FrozenClock


@pytest.fixture
def clock():
    return FrozenClock()


@pytest.fixture
def guard(clock):
    return LoopGuard(clock, repeats=6, window_s=300)


def test_a_repeated_request_is_slowed_then_let_through_once_more_and_then_paused(guard):
    verdicts = [guard.check("alice", "same") for _ in range(6)]
    assert [verdict.delay_s for verdict in verdicts] == [0, 0, 0.5, 1.0, 1.5, 0]
    assert [verdict.newly_paused for verdict in verdicts] == [False] * 5 + [True]
    with pytest.raises(BridgeError) as refused:
        guard.check("alice", "something else")
    assert refused.value.code == "loop_suspected"
    assert refused.value.problem.retry_after == 300
    assert refused.value.problem.facts["resets_at"] == "2026-11-20T12:05:00.000Z"


def test_other_keys_go_on(guard):
    for _ in range(6):
        guard.check("alice", "same")
    assert guard.check("bob", "same") == Verdict()


def test_attempts_while_paused_do_not_make_the_pause_longer(guard, clock):
    for _ in range(6):
        guard.check("alice", "same")
    for _ in range(10):
        clock.pass_s(29)
        with pytest.raises(BridgeError):
            guard.check("alice", "same")
    clock.pass_s(10)
    assert guard.check("alice", "same") == Verdict()


def test_an_admin_can_let_the_key_go_on(guard):
    for _ in range(6):
        guard.check("alice", "same")
    guard.clear("alice")
    assert guard.check("alice", "same") == Verdict()
    guard.clear("nobody")


def test_repeats_outside_the_window_do_not_count(guard, clock):
    for _ in range(30):
        assert not guard.check("alice", "same").newly_paused
        clock.pass_s(61)


def test_different_requests_are_not_repeats(guard):
    for n in range(50):
        assert guard.check("alice", f"prompt {n}") == Verdict()


def test_zero_turns_it_off(clock):
    guard = LoopGuard(clock, repeats=0, window_s=300)
    assert {guard.check("alice", "same") for _ in range(500)} == {Verdict()}


def habit(guard, clock, per_minute, minutes):
    for minute in range(minutes):
        for n in range(per_minute):
            guard.check("alice", f"{minute}-{n}")
        clock.pass_s(60)


def burst(guard, requests):
    return [guard.check("alice", f"burst {n}").newly_paused for n in range(requests)]


def test_a_burst_far_beyond_a_keys_habit_pauses_it(guard, clock):
    habit(guard, clock, per_minute=8, minutes=BURST_HISTORY)
    assert burst(guard, 81) == [False] * 80 + [True]


def test_sixty_requests_a_minute_are_never_a_burst(guard, clock):
    habit(guard, clock, per_minute=1, minutes=BURST_HISTORY)
    assert not any(burst(guard, 60))


def test_a_key_without_a_habit_has_no_bursts(guard, clock):
    habit(guard, clock, per_minute=1, minutes=BURST_HISTORY - 1)
    assert not any(burst(guard, 500))


def test_a_habit_grows_with_use(guard, clock):
    habit(guard, clock, per_minute=50, minutes=BURST_HISTORY)
    assert not any(burst(guard, 400))


def test_memory_is_bounded_however_many_keys_and_prompts_there_are(clock):
    guard = LoopGuard(clock, repeats=3, window_s=300)
    for n in range(10_050):
        guard.check(f"key {n}", "x")
    for n in range(300):
        guard.check("key 10049", f"prompt {n}")
    assert len(guard._watches) == 10_000
    assert len(guard._watches["key 10049"].seen) == 256
