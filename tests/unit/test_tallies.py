"""What the seam `Tallies` promises, of every implementation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gevent
import msgspec
import pytest

from bridge.errors import BridgeError
from bridge.ledger.tallies import BOOKED_DAYS, Counts, Reservation, Tally, sum_of
from bridge.limits import spans_of
from tests.property.tallies_suite import BACKENDS, Backend, refused
from tests.support.ledger import FrozenClock, line_of, record

DAY = "2026-11-20"
TODAY, THIS_MONTH = spans_of(DAY)["day"], spans_of(DAY)["month"]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    opened = BACKENDS[request.param](tmp_path / "data", FrozenClock(), "UTC")
    yield opened
    opened.stop()


def reservation(run_id: str = "run_1", **fields: Any) -> Reservation:
    given = Reservation(run_id, "ada", "demo", "demo", 0.0, DAY, 10, 90, 5_000, owner="here")
    return msgspec.structs.replace(given, **fields)


def admit(backend: Backend, run_id: str = "run_1", **fields: Any) -> Reservation:
    given = reservation(run_id, **fields)
    return backend.tallies.admit(given.key_name, lambda tally, credentials: given)


def restart(backend: Backend, *, crash: bool = False) -> None:
    backend.crash(0.5) if crash else backend.stop()
    backend.open()


def figures(backend: Backend, name: str = "ada") -> tuple[int, int, int]:
    used = backend.tallies.tally(name).used(TODAY)
    return used.requests, used.tokens, used.cost_micro


def confirmed_lines(backend: Backend) -> dict[str, float]:
    return {run_id: usd for run_id, usd in backend.lines().items() if run_id != "run_unconfirmed"}


@pytest.mark.parametrize("crash", [False, True], ids=["stop", "crash"])
def test_what_was_held_and_settled_is_there_again(backend: Backend, crash: bool) -> None:
    first, second = admit(backend), admit(backend, "run_2", credential="key-b")
    backend.tallies.settle(line_of(first, 700, input_tokens=3, output_tokens=4))
    restart(backend, crash=crash)
    assert figures(backend) == (1, 7, 700)
    assert backend.tallies.tally("ada").open == {"run_2": second}
    assert confirmed_lines(backend) == {"run_1": 0.0007}


def test_no_two_admissions_see_the_same_money(backend: Backend) -> None:
    def one(number: int) -> Reservation:
        def decide(tally: Tally, credentials: Mapping[str, Tally]) -> Reservation:
            if len(tally.open) >= 7:
                raise BridgeError("concurrent_requests", "no more")
            return reservation(f"run_{number}")

        return backend.tallies.admit("ada", decide)

    def tried(number: int) -> str | None:
        return refused(lambda: one(number))

    results = [each.value for each in gevent.joinall([gevent.spawn(tried, n) for n in range(40)])]
    assert results.count(None) == len(backend.tallies.tally("ada").open) == 7


def test_a_refusal_holds_nothing(backend: Backend) -> None:
    def decide(tally: Tally, credentials: Mapping[str, Tally]) -> Reservation:
        raise BridgeError("cost_per_day", "no")

    assert refused(lambda: backend.tallies.admit("ada", decide)) == "cost_per_day"
    assert backend.tallies.all() == {}


ENDS: dict[str, Callable[[Backend, Reservation], None]] = {
    "settle": lambda backend, held: backend.tallies.settle(line_of(held, 900)),
    "release": lambda backend, held: backend.tallies.release(held),
    "release with a line": lambda backend, held: backend.tallies.release(held, line_of(held, 0)),
}


@pytest.mark.parametrize("second", ENDS)
@pytest.mark.parametrize(("first", "after"), [("settle", (1, 0, 900)), ("release", (0, 0, 0))])
def test_a_second_end_changes_nothing(backend: Backend, first: str, after: tuple[int, int, int], second: str) -> None:
    held = admit(backend)
    ENDS[first](backend, held)
    lines = backend.lines()
    ENDS[second](backend, held)
    restart(backend)
    assert figures(backend) == after
    assert backend.lines() == lines


def test_only_a_run_that_was_tried_counts_for_the_pace(backend: Backend) -> None:
    held, tried = admit(backend), admit(backend, "run_2")
    backend.tallies.release(held)
    backend.tallies.release(tried, line_of(tried, 0, status=499, code="cancelled"))
    restart(backend)
    assert backend.tallies.tally("ada").minute_ages_s(0.0) == [0.0]
    assert backend.lines() == {"run_2": 0.0}


def test_a_reset_takes_every_figure_out_of_the_count_and_keeps_what_is_held(backend: Backend) -> None:
    held = admit(backend)
    ended = admit(backend, "run_2")
    line = line_of(ended, 800, input_tokens=1, output_tokens=2, code="cli_failed", status=502, assumed=True)
    backend.tallies.settle(line)
    backend.tallies.reset("ada", DAY)
    restart(backend)
    tally = backend.tallies.tally("ada")
    assert tally.used(TODAY) == tally.used(THIS_MONTH) == Counts()
    booked = tally.booked(TODAY.days)
    assert (booked.cost_micro, booked.errors, booked.assumed_micro) == (800, 1, 800)
    assert list(tally.open) == [held.id]


def test_usage_from_elsewhere_is_booked_once_for_a_day(backend: Backend) -> None:
    for _ in range(2):
        backend.tallies.take_over("ada", DAY, Counts(requests=3, output_tokens=70, cost_micro=900))
    restart(backend)
    assert figures(backend) == (3, 70, 900)
    assert backend.tallies.tally("ada").used(THIS_MONTH).requests == 3


def test_what_a_process_has_left_open_is_settled_in_full_with_a_line_and_nothing_else_is(backend: Backend) -> None:
    admit(backend)
    theirs = admit(backend, "run_2", owner="there")
    backend.tallies.recover("here")
    restart(backend)
    tally = backend.tallies.tally("ada")
    assert tally.open == {"run_2": theirs}
    assert figures(backend) == (1, 100, 5_000)
    assert (tally.used(TODAY).errors, tally.used(TODAY).assumed_micro) == (1, 5_000)
    assert backend.lines() == {"run_1": 0.005}
    backend.tallies.recover("here")
    assert figures(backend) == (1, 100, 5_000)


def test_a_line_of_a_refused_request_counts_nothing(backend: Backend) -> None:
    backend.tallies.note(record("run_0", key_name="ada", status=429, code="cost_per_day", cost_usd=0.0))
    assert backend.lines() == {"run_0": 0.0}
    restart(backend)
    assert figures(backend) == (0, 0, 0)
    assert backend.lines() == {"run_0": 0.0}


def test_where_nothing_can_be_stored_no_run_is_admitted_and_an_end_counts_all_the_same(backend: Backend) -> None:
    held = admit(backend)
    with backend.failing():
        assert refused(lambda: admit(backend, "run_2")) == "storage_failed"
        assert refused(lambda: backend.tallies.settle(line_of(held, 600))) == "storage_failed"
        assert not backend.tallies.writable
        assert backend.tallies.tally("ada").open == {}
        assert figures(backend) == (1, 0, 600)
    backend.clock.pass_s(1)
    ended = admit(backend, "run_3")
    assert backend.tallies.writable
    restart(backend, crash=True)
    assert figures(backend) == (1, 0, 600)
    assert confirmed_lines(backend) == {"run_1": 0.0006}
    assert list(backend.tallies.tally("ada").open) == [ended.id]


def test_what_was_forgiven_is_never_more_than_what_was_used() -> None:
    tally = Tally(days={DAY: Counts(requests=2, cost_micro=500)}, forgiven={TODAY.key: Counts(cost_micro=900)})
    assert (tally.used(TODAY).requests, tally.used(TODAY).cost_micro) == (2, 0)


@pytest.mark.parametrize("crash", [False, True], ids=["stop", "crash"])
def test_the_books_by_model_are_there_again_and_are_those_of_the_day(backend: Backend, crash: bool) -> None:
    first, second = admit(backend), admit(backend, "run_2")
    backend.tallies.settle(line_of(first, 700, output_tokens=4, credential="team"))
    backend.tallies.take_over("ada", "2026-11-01", Counts(requests=3, cost_micro=9))
    backend.tallies.settle(line_of(second, 300, output_tokens=4))
    restart(backend, crash=crash)
    tally = backend.tallies.tally("ada")
    assert {name: part.cost_micro for name, part in tally.books[DAY].items()} == {
        "demo demo team": 700,
        "demo demo": 300,
    }
    assert sum_of(tally.books[DAY].values()) == tally.days[DAY]
    assert set(tally.books) == {DAY}


def test_old_books_are_forgotten_before_old_days() -> None:
    tally = Tally()
    for number in range(BOOKED_DAYS + 5):
        tally.enter(f"day-{number:04}", "demo demo", Counts(requests=1))
    tally.prune()
    assert (len(tally.days), len(tally.books)) == (BOOKED_DAYS + 5, BOOKED_DAYS)
    assert "day-0004" not in tally.books


def test_a_run_that_moves_or_lets_go_is_no_newer_use_of_its_key(backend: Backend) -> None:
    first = admit(backend, at=100.0, credential="claude/a")
    admit(backend, "run_2", at=200.0)
    moved = backend.tallies.move(first, lambda credentials: "claude/b")
    assert backend.tallies.tally("ada").last_used_at == 200.0
    assert moved.credential == "claude/b"
    assert backend.tallies.move(first, lambda credentials: None).credential is None
    restart(backend, crash=True)
    assert {each.credential for each in backend.tallies.tally("ada").open.values()} == {None}
    assert not any(tally.open for tally in backend.tallies.credentials().values())
