from __future__ import annotations

import msgspec
import pytest

from bridge.errors import BridgeError
from bridge.keys.loops import MOST_TOLD, LoopGuard, Signs, Verdict
from tests.support.ledger import FrozenClock


class Guard(LoopGuard):
    """One whose keys all have the same limits."""

    repeats, per_minute = 6, 30

    def ask(self, key_name, fingerprint):
        return self.check(key_name, fingerprint, repeats=self.repeats, per_minute=self.per_minute)


@pytest.fixture
def clock():
    return FrozenClock()


@pytest.fixture
def guard(clock):
    return Guard(clock, window_s=300)


def test_a_repeated_request_is_slowed_then_let_through_once_more_and_then_paused(guard):
    verdicts = [guard.ask("alice", "same") for _ in range(6)]
    assert [verdict.delay_s for verdict in verdicts] == [0, 0, 0.5, 1.0, 1.5, 0]
    assert [verdict.newly_paused for verdict in verdicts] == [False] * 5 + [True]
    with pytest.raises(BridgeError) as refused:
        guard.ask("alice", "something else")
    assert refused.value.code == "loop_suspected"
    assert refused.value.problem.retry_after == 300
    assert refused.value.problem.facts["resets_at"] == "2026-11-20T12:05:00.000Z"


def test_other_keys_go_on(guard):
    for _ in range(6):
        guard.ask("alice", "same")
    assert guard.ask("bob", "same") == Verdict()


def test_attempts_while_paused_do_not_make_the_pause_longer(guard, clock):
    for _ in range(6):
        guard.ask("alice", "same")
    for _ in range(10):
        clock.pass_s(29)
        with pytest.raises(BridgeError):
            guard.ask("alice", "same")
    clock.pass_s(10)
    assert guard.ask("alice", "same") == Verdict()


def test_an_admin_can_let_the_key_go_on(guard):
    for _ in range(6):
        guard.ask("alice", "same")
    guard.clear("alice")
    assert guard.ask("alice", "same") == Verdict()
    guard.clear("nobody")


def test_repeats_outside_the_window_do_not_count(guard, clock):
    for _ in range(30):
        assert not guard.ask("alice", "same").newly_paused
        clock.pass_s(61)


def test_different_requests_are_not_repeats(guard):
    for n in range(50):
        assert guard.ask("alice", f"prompt {n}") == Verdict()


def test_zero_turns_it_off(clock):
    guard = Guard(clock, window_s=300)
    guard.repeats = guard.per_minute = 0
    assert {guard.ask("alice", "same") for _ in range(2000)} == {Verdict()}


@pytest.mark.parametrize("per_minute", [0, 500], ids=["no cap", "a large cap"])
def test_a_pace_that_its_cap_allows_pauses_no_key_whatever_its_habit_was(guard, clock, per_minute):
    guard.per_minute = per_minute
    for minute in range(6):
        guard.ask("alice", f"case {minute}")
        clock.pass_s(60)
    assert {guard.ask("alice", f"case {minute}.{n}") for n in range(480) for minute in [9]} == {Verdict()}


def test_a_key_that_sends_ten_times_what_it_may_is_paused_for_its_pace(guard):
    verdicts = [guard.ask("alice", f"case {n}") for n in range(300)]
    assert [verdict.newly_paused for verdict in verdicts] == [False] * 299 + [True]
    with pytest.raises(BridgeError) as refused:
        guard.ask("alice", "another")
    assert "sent 300 requests in a minute, of which it may send 30; it goes on by itself" in refused.value.message
    assert refused.value.problem.hint.startswith("Wait between requests")


def test_the_pause_for_repeats_says_why_how_long_and_what_to_change(guard):
    for _ in range(6):
        guard.ask("alice", "same")
    with pytest.raises(BridgeError) as refused:
        guard.ask("alice", "same")
    assert refused.value.message == (
        "This key is paused because it sent the same request 6 times within 300 seconds; "
        "it goes on by itself in 300 seconds."
    )
    assert refused.value.problem.hint == "Vary the prompt, or ask your admin to resume the key."


def test_repeats_and_pace_are_switched_off_each_for_itself(guard):
    guard.repeats = 0
    assert guard.ask("alice", "same") == Verdict()
    assert [guard.ask("alice", "same").newly_paused for _ in range(299)] == [False] * 298 + [True]


def test_memory_is_bounded_however_many_keys_and_prompts_there_are(clock):
    guard = Guard(clock, window_s=300)
    guard.repeats, guard.per_minute = 3, 0
    for n in range(10_050):
        guard.ask(f"key {n}", "x")
    for n in range(300):
        guard.ask("key 10049", f"prompt {n}")
    assert len(guard._watches) == 10_000
    assert len(guard._watches["key 10049"].seen) == 256


def test_it_says_who_is_paused_and_for_how_long(guard, clock):
    for _ in range(6):
        guard.ask("alice", "same")
    guard.ask("bob", "same")
    clock.pass_s(100)
    assert guard.paused() == {"alice": 200}
    clock.pass_s(200)
    assert guard.paused() == {}


# --- several hosts ----------------------------------------------------------------------------------------


def tell(*guards):
    """Each hears what the others say, as it is written between hosts."""
    signs = [msgspec.json.decode(msgspec.json.encode(each.told()), type=Signs) for each in guards]
    for guard, own in zip(guards, signs, strict=True):
        guard.hear(each for each in signs if each is not own)


@pytest.fixture
def pair(clock):
    return Guard(clock, window_s=300), Guard(clock, window_s=300)


def test_repeats_count_over_all_hosts(pair, clock):
    a, b = pair
    for _ in range(3):
        a.ask("alice", "same")
        a.ask("alice", "other")
    tell(a, b)
    assert [b.ask("alice", "same").delay_s, b.ask("alice", "same").delay_s] == [1.0, 1.5]
    assert b.ask("bob", "same") == Verdict()
    assert b.ask("alice", "same").newly_paused
    tell(a, b)
    with pytest.raises(BridgeError, match="sent the same request 6 times"):
        a.ask("alice", "something else")
    clock.pass_s(10)
    assert a.paused() == b.paused() == {"alice": 290}
    clock.pass_s(290)
    assert (a.ask("alice", "same"), b.ask("alice", "same")) == (Verdict(), Verdict())


def test_what_was_told_before_counts_no_more_and_what_is_old_neither(pair, clock):
    a, b = pair
    for _ in range(5):
        a.ask("alice", "same")
    for _ in range(3):
        tell(a, b)
    clock.pass_s(300)
    assert b.ask("alice", "same") == Verdict()
    tell(a, b)
    assert b.ask("alice", "same") == Verdict()


def test_what_becomes_old_on_one_host_counts_no_more_for_who_has_moved_to_another(pair, clock):
    a, b = pair
    for _ in range(5):
        a.ask("alice", "same")
        clock.pass_s(50)
    clock.pass_s(150)  # the two last ones are 200 and 250 seconds old
    tell(a, b)
    assert b.ask("alice", "same") == Verdict(0.5)


def test_a_pace_counts_over_all_hosts(pair):
    a, b = pair
    for n in range(200):
        a.ask("alice", f"case {n}")
    tell(a, b)
    assert [b.ask("alice", f"case {n}").newly_paused for n in range(100)] == [False] * 99 + [True]


def test_a_key_that_an_admin_lets_go_on_goes_on_on_all_hosts(pair):
    a, b = pair
    for _ in range(6):
        a.ask("alice", "same")
    tell(a, b)
    for each in pair:
        each.clear("alice")
    tell(a, b)
    assert (a.ask("alice", "same"), b.ask("alice", "same")) == (Verdict(), Verdict())


def test_what_is_told_has_a_bound(pair):
    a, _ = pair
    a.repeats = 10
    for n in range(300):
        for _ in range(2):
            a.ask(f"key {n % 100}", f"prompt {n}")
    assert len(a.told().counts) == MOST_TOLD
    assert a.told().counts[-1] == ("key 99", "prompt 299", 300, 2)
