from __future__ import annotations

import contextlib
import json

import gevent
import msgspec
import pytest

from bridge.errors import BridgeError
from bridge.ledger.ledger import Ceiling
from bridge.ledger.tallies import KEPT_DAYS, Counts, Snapshot
from bridge.limits import Limits
from tests.support.ledger import Desk, FrozenClock, key_with, line_of


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path / "data")


def make(tmp_path, **how):
    return Desk(tmp_path / "data", **how)


def left(desk, key):
    """What is left of the limits of a key."""
    return {limit.name: left for limit, _, left in desk.ledger.remaining("alice", key.limits)}


# --- reserve and settle ---


def test_what_a_run_may_use_is_held_and_then_replaced_by_what_it_used(desk):
    reservation = desk.reserve(input_tokens=100, output=1000)
    assert (reservation.tokens, reservation.cost_micro) == (1100, 100 * 4 + 1000 * 15 - 25)
    assert desk.ledger.usage("alice")["reserved"] == {"requests": 1, "tokens": 1100, "costUsd": 0.015375}
    desk.settle(reservation, cost_micro=500, tokens=40)
    used = desk.ledger.usage("alice")
    assert used["reserved"] == {"requests": 0, "tokens": 0, "costUsd": 0}
    assert used["today"] == {
        "requests": 1,
        "tokens": 40,
        "costUsd": 0.0005,
        "errors": 0,
        "searches": 0,
        "assumedUsd": 0,
    }
    assert used["lastUsedAt"] == "2026-11-20T12:00:00.000Z"


def test_adding_counts_adds_every_field():
    names = Counts.__struct_fields__
    sums = Counts(*range(1, len(names) + 1))
    sums.add(Counts(*([100] * len(names))))
    assert [getattr(sums, name) for name in names] == [n + 100 for n in range(1, len(names) + 1)]


def test_settling_twice_counts_once(desk):
    reservation = desk.reserve()
    desk.settle(reservation)
    desk.settle(reservation)
    desk.ledger.release(reservation)
    assert desk.today()["requests"] == 1
    desk.crash()
    desk.open()
    assert desk.today()["requests"] == 1


def test_a_released_run_was_never_there(tmp_path):
    desk = make(tmp_path, maxRequestsPerMinute=1, maxRequestsPerDay=1)
    for _ in range(3):
        desk.ledger.release(desk.reserve())
    assert desk.today()["requests"] == 0
    desk.reserve()


def test_errors_and_assumed_costs_are_counted_apart(desk):
    desk.settle(desk.reserve(), 300, 7, input_tokens=5, code="cli_failed", assumed=True)
    assert desk.today() == {
        "requests": 1,
        "tokens": 12,
        "costUsd": 0.0003,
        "errors": 1,
        "searches": 0,
        "assumedUsd": 0.0003,
    }


# --- caps ---


def test_requests_per_day_and_month(tmp_path):
    desk = make(tmp_path, maxRequestsPerDay=2, maxRequestsPerMonth=3)
    desk.spend()
    held = desk.reserve()
    refused = desk.refusal()
    assert refused.code == "requests_per_day"
    assert refused.problem.retry_after == 5  # a running request holds the last one; it may be given back
    assert refused.problem.facts == {
        "limit": 2,
        "used": 1,
        "reserved": 1,
        "remaining": 0,
        "resets_at": "2026-11-21T00:00:00.000Z",
    }
    desk.settle(held)
    assert desk.refusal().problem.retry_after == 12 * 3600
    desk.clock.set("2026-11-21T00:00:00Z")
    desk.spend()
    refused = desk.refusal()
    assert refused.code == "requests_per_month"
    assert refused.problem.facts["resets_at"] == "2026-12-01T00:00:00.000Z"


def test_a_run_that_was_tried_counts_for_the_pace_and_for_nothing_else(tmp_path):
    desk = make(tmp_path, maxRequestsPerMinute=2, maxRequestsPerDay=1)
    for _ in range(2):
        reservation = desk.reserve()
        desk.ledger.release(reservation, line_of(reservation, 0, status=499, code="cancelled"))
    assert desk.refusal().code == "requests_per_minute"
    desk.crash()
    desk.open()
    assert desk.refusal().code == "requests_per_minute", "also after a restart"
    desk.clock.pass_s(60)
    desk.reserve()
    assert desk.today()["requests"] == 0


def test_requests_per_minute_slide(tmp_path):
    desk = make(tmp_path, maxRequestsPerMinute=2)
    desk.spend()
    desk.clock.pass_s(20)
    desk.spend()
    desk.clock.pass_s(10)
    refused = desk.refusal()
    assert (refused.code, refused.problem.retry_after) == ("requests_per_minute", 30)
    desk.clock.pass_s(30)
    desk.spend()
    assert desk.refusal().problem.retry_after == 20


def test_requests_of_the_last_minute_are_remembered_over_a_restart_and_a_snapshot(tmp_path):
    desk = make(tmp_path, maxRequestsPerMinute=1)
    desk.spend()
    for reopen in (desk.reopen, lambda: (desk.crash(), desk.open())):
        reopen()
        assert desk.refusal().code == "requests_per_minute"
    desk.clock.pass_s(60)
    desk.spend()


def test_a_clock_set_back_does_not_block_a_key_for_longer_than_a_minute(tmp_path):
    desk = make(tmp_path, maxRequestsPerMinute=1)
    desk.spend()
    desk.clock.set("2026-11-20T06:00:00Z")
    assert desk.refusal().code == "requests_per_minute"
    desk.clock.pass_s(60)
    desk.spend()


def test_concurrent_requests(tmp_path):
    desk = make(tmp_path, maxConcurrent=2)
    first, _ = desk.reserve(), desk.reserve()
    assert desk.refusal().code == "concurrent_requests"
    desk.settle(first)
    desk.reserve()


def test_output_is_cut_to_what_the_money_bears_and_never_beyond(tmp_path):
    desk = make(tmp_path, maxCostPerDay=0.01)
    reservation = desk.reserve(input_tokens=100, output=8000)
    assert reservation.output_tokens == (10_000 - 375) // 15
    assert 10_000 - 15 < reservation.cost_micro <= 10_000
    desk.settle(reservation, cost_micro=6_000)
    refused = desk.refusal(input_tokens=100, output=8000)
    assert refused.code == "cost_per_day"
    assert refused.problem.facts == {
        "limit": 0.01,
        "used": 0.006,
        "reserved": 0,
        "remaining": 0.004,
        "needed": 0.004215,
        "resets_at": "2026-11-21T00:00:00.000Z",
    }
    assert refused.message == (
        "This key has $0.004 of $0.01 left for today, and this request may need $0.0043; "
        "it resets at 2026-11-21T00:00:00.000Z."
    )
    assert desk.reserve(input_tokens=100, output=200).output_tokens == 200  # less was asked for


@pytest.mark.parametrize(
    ("limits", "code", "resets_at"),
    [
        ({"maxCostPerMonth": 0.001}, "cost_per_month", "2026-12-01T00:00:00.000Z"),
        ({"maxCostPerRequest": 0.001}, "cost_per_request", None),
        ({"maxTokensPerDay": 300}, "tokens_per_day", "2026-11-21T00:00:00.000Z"),
        ({"maxTokensPerMonth": 300}, "tokens_per_month", "2026-12-01T00:00:00.000Z"),
        ({"maxCostPerDay": 0.001, "maxCostPerMonth": 0.0005}, "cost_per_month", "2026-12-01T00:00:00.000Z"),
    ],
)
def test_the_tightest_cap_says_what_is_left_and_when_it_resets(tmp_path, limits, code, resets_at):
    refused = make(tmp_path, **limits).refusal()
    assert refused.code == code
    assert refused.problem.status == 429
    assert refused.problem.facts["resets_at"] == resets_at
    assert (refused.problem.retry_after is None) == (resets_at is None)


def test_tokens_cut_the_output_too(tmp_path):
    desk = make(tmp_path, maxTokensPerDay=1000)
    assert desk.reserve(input_tokens=100, output=5000).output_tokens == 900


def test_a_keys_own_maximum_of_output_tokens_holds(tmp_path):
    assert make(tmp_path, maxOutputTokens=50).reserve(output=5000).output_tokens == 50


def test_a_refusal_costs_nothing_and_uses_no_request(tmp_path):
    desk = make(tmp_path, maxCostPerDay=0.001, maxRequestsPerDay=5)
    for _ in range(10):
        assert desk.refusal().code == "cost_per_day"
    assert desk.ledger.usage("alice")["reserved"]["requests"] == 0
    assert desk.today()["requests"] == 0


def test_money_is_used_up_to_the_micro_dollar(tmp_path):
    desk = make(tmp_path, maxCostPerDay=0.015375)
    desk.settle(desk.reserve(100, 1000), cost_micro=15_375)
    assert desk.refusal(input_tokens=0, output=1).problem.facts["remaining"] == 0


def test_fifty_at_once_at_the_edge_of_a_cap_admit_exactly_what_fits(tmp_path):
    desk = make(tmp_path, maxRequestsPerDay=7)

    def one(number):
        try:
            return desk.ledger.reserve(desk.key.name, desk.key.limits, f"r{number}", Ceiling("demo", "demo", 10, 10))
        except BridgeError as error:
            return error.code

    results = [g.value for g in gevent.joinall([gevent.spawn(one, n) for n in range(50)])]
    assert results.count("requests_per_day") == 43


@pytest.mark.parametrize(
    ("limits", "fits"),
    [
        ({"maxCostPerDay": 0.1}, 100_000 // 15_375 + 1),
        ({"maxCostPerMonth": 0.1}, 100_000 // 15_375 + 1),
        ({"maxTokensPerDay": 5900}, 6),
        ({"maxTokensPerMonth": 5900}, 6),
        ({"maxRequestsPerMonth": 5}, 5),
        ({"maxRequestsPerMinute": 5}, 5),
        ({"maxConcurrent": 5}, 5),
    ],
)
def test_what_is_held_counts_as_if_it_were_used(tmp_path, limits, fits):
    desk = make(tmp_path, **limits)
    held = []

    def one():
        with contextlib.suppress(BridgeError):
            held.append(desk.reserve(100, 1000))

    gevent.joinall([gevent.spawn(one) for _ in range(50)], raise_error=True)
    assert len(held) == fits  # the last one with less output, where the rest was enough for that
    assert sum(each.cost_micro for each in held) <= 100_000
    assert sum(each.tokens for each in held) <= 5900 + 1100 * 2


def test_a_changed_limit_holds_for_the_next_request_while_runs_are_in_flight(desk):
    desk.reserve(), desk.reserve()
    tight = msgspec.structs.replace(desk.key, limits=desk.key.limits.merge(Limits(maxConcurrent=2)))
    with pytest.raises(BridgeError, match="2 requests running at once"):
        desk.reserve(key=tight)
    desk.reserve()


def test_a_reservation_whose_caller_was_killed_holds_nothing(desk):
    caller = gevent.spawn(desk.reserve)
    gevent.sleep(0)
    assert len(desk.ledger.open_reservations()) == 1
    caller.kill()
    assert desk.ledger.open_reservations() == []
    desk.ledger.reset("nobody")  # goes through the journal after what was queued
    desk.crash()
    desk.open()
    assert desk.recovered == []


# --- windows ---


def test_a_run_counts_for_the_day_on_which_it_was_admitted(tmp_path):
    desk = make(tmp_path, clock=FrozenClock("2026-11-30T23:59:00Z"))
    reservation = desk.reserve()
    desk.clock.set("2026-12-01T00:01:00Z")
    assert left(desk, key_with(maxRequestsPerDay=5)) == {"maxRequestsPerDay": 5}
    desk.settle(reservation)
    assert desk.today()["requests"] == 0
    assert desk.ledger.usage("alice")["thisMonth"]["requests"] == 0
    assert [row["day"] for row in desk.ledger.history(5)] == ["2026-11-30"]


def test_days_begin_in_the_servers_zone(tmp_path):
    desk = make(tmp_path, clock=FrozenClock("2026-11-20T22:59:59Z"), zone="Europe/Berlin")
    desk.spend()
    assert desk.ledger.resets_at()["today"] == "2026-11-20T23:00:00.000Z"
    desk.clock.pass_s(1)
    assert desk.today()["requests"] == 0


@pytest.mark.parametrize(
    ("noon", "ends"),
    [("2026-03-29T10:00:00Z", "2026-03-29T22:00:00.000Z"), ("2026-10-25T10:00:00Z", "2026-10-25T23:00:00.000Z")],
)
def test_days_with_23_and_25_hours_end_at_midnight(tmp_path, noon, ends):
    desk = make(tmp_path, clock=FrozenClock(noon), zone="Europe/Berlin")
    assert desk.ledger.resets_at()["today"] == ends


def test_a_clock_that_jumps_back_and_forth_finds_each_day_as_it_was(tmp_path):
    desk = make(tmp_path, maxRequestsPerDay=1)
    desk.spend()
    desk.clock.set("2026-12-01T00:00:00Z")
    desk.spend()
    desk.clock.set("2026-11-20T18:00:00Z")
    assert desk.refusal().code == "requests_per_day"
    desk.clock.set("2026-12-01T01:00:00Z")
    assert desk.refusal().code == "requests_per_day"


def test_a_clock_that_was_in_the_future_does_not_cost_the_history(desk):
    desk.spend()
    desk.clock.set("2099-01-01T00:00:00Z")
    desk.spend()
    desk.reopen()
    assert [row["day"] for row in desk.ledger.history(9)] == ["2026-11-20", "2099-01-01"]


def test_the_oldest_days_are_forgotten_in_the_end(desk):
    for _ in range(KEPT_DAYS + 5):
        desk.spend()
        desk.clock.pass_s(86_400)
    desk.reopen()
    assert len(desk.ledger.history(10_000)) == KEPT_DAYS


# --- views and changes by an admin ---


def test_remaining_is_told_for_the_limits_that_the_key_has(tmp_path):
    desk = make(tmp_path, maxCostPerDay=1, maxTokensPerMonth=5000)
    desk.spend(cost_micro=2_000, tokens=50)
    desk.reserve(100, 1000)
    assert left(desk, desk.key) == {
        "maxCostPerDay": 1_000_000 - 2_000 - 15_375,
        "maxTokensPerMonth": 5000 - 50 - 1100,
    }


def test_a_reset_begins_the_count_anew_and_keeps_history_and_holds(tmp_path):
    desk = make(tmp_path, maxRequestsPerDay=2, maxRequestsPerMonth=2)
    desk.spend()
    held = desk.reserve()
    desk.ledger.reset("alice")
    for again in (False, True):
        if again:
            desk.reopen()  # the open run is settled as assumed, in full
        assert desk.today()["requests"] == int(again)
        assert desk.ledger.history(1)[0]["requests"] == 1 + int(again)
    desk.settle(held)
    assert desk.today()["requests"] == 1


def test_history_and_totals_add_up(desk):
    desk.spend(cost_micro=100)
    desk.settle(desk.reserve(key=key_with("bob")), cost_micro=200)
    desk.clock.set("2026-11-21T12:00:00Z")
    desk.spend(cost_micro=300)
    rows = desk.ledger.history(30)
    assert [(row["day"], row["key"], row["costUsd"]) for row in rows] == [
        ("2026-11-20", "alice", 0.0001),
        ("2026-11-20", "bob", 0.0002),
        ("2026-11-21", "alice", 0.0003),
    ]
    assert desk.ledger.history(1) == rows[2:]
    assert desk.ledger.totals()["thisMonth"]["costUsd"] == 0.0006
    assert desk.ledger.totals()["today"]["requests"] == 1


def test_usage_from_elsewhere_is_taken_over_once(desk):
    counts = Counts(requests=3, output_tokens=70, cost_micro=900)
    for _ in range(2):
        desk.ledger.import_usage("alice", "2026-11-20", counts)
    assert desk.today()["requests"] == 3
    desk.reopen()
    assert desk.ledger.usage("alice")["thisMonth"]["costUsd"] == 0.0009


# --- crashes ---


def test_what_was_confirmed_is_there_after_a_crash(desk):
    desk.spend()
    desk.crash()
    desk.open()
    assert desk.today()["requests"] == 1
    assert desk.recovered == []


def test_a_run_cut_off_by_a_crash_is_charged_what_it_held(desk):
    reservation = desk.reserve()
    desk.crash()
    desk.open()
    assert desk.recovered == [reservation]
    assert desk.ledger.open_reservations() == []
    used = desk.today()
    assert (used["tokens"], used["costUsd"], used["assumedUsd"]) == (1100, 0.015375, 0.015375)
    desk.crash()
    desk.open()
    assert desk.recovered == []
    assert desk.today() == used


def test_a_long_journal_goes_into_a_snapshot_while_requests_go_on(desk, monkeypatch):
    monkeypatch.setattr("bridge.ledger.tallies.SNAPSHOT_LINES", 20)

    def client(number):
        for n in range(20):
            reservation = desk.ledger.reserve(
                desk.key.name, desk.key.limits, f"c{number}-{n}", Ceiling("demo", "demo", 1, 1)
            )
            desk.settle(reservation)

    gevent.joinall([gevent.spawn(client, n) for n in range(8)], raise_error=True)
    assert desk.today()["requests"] == 160
    desk.crash()
    assert Snapshot(**json.loads((desk.folder / "usage.json").read_text())).seq > 160
    desk.open()
    assert desk.today()["requests"] == 160
    assert desk.recovered == []
