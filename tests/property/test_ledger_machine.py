"""The ledger against a naive model, through crashes at any byte, failing disks and jumping clocks.

The model knows only what was acknowledged: an admitted reservation, a settled charge. Whatever
happens, the ledger must never show less than that, never admit beyond a cap, and never keep a
reservation over a restart.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict
from pathlib import Path
from zoneinfo import ZoneInfo

import gevent
import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from bridge.clock import day_of
from bridge.errors import BridgeError
from bridge.ledger.ledger import Ceiling, Ledger, Pick
from bridge.ledger.pricing import PriceTable
from bridge.ledger.tallies import Reservation, sum_of
from bridge.limits import LIMITS, Limits, Moment, Span, effective, per_request, spans_of, summed
from tests.property.tallies_suite import BACKENDS, refused
from tests.support.ledger import UNLIMITED, FrozenClock, key_with, line_of

NAMES = ("alice", "bob")
#: credentials and their budgets: one that is soon used up, one that sometimes is, and one without
CREDENTIALS = {
    "tight": Limits.parse({"maxCostPerDay": 0.02}),
    "wide": Limits.parse({"maxCostPerMonth": 0.5}),
    "free": Limits(),
}
#: what is limited -> values around what a few runs need: tight ones, and some that never bind
AMOUNTS = {
    "requests": st.integers(1, 20),
    "tokens": st.integers(300, 40_000),
    "cost": st.integers(1, 600).map(lambda n: n / 1000),
    "output": st.integers(100, 4000),
    "concurrent": st.integers(1, 6),
}
GIVEN = st.fixed_dictionaries({}, optional={limit.name: AMOUNTS[limit.what] for limit in LIMITS})
#: around midnights, ends of months and of the year, and both changes of daylight saving in Berlin
MOMENTS = st.sampled_from(
    [
        "2026-11-20T12:00:00Z",
        "2026-11-20T22:59:59Z",
        "2026-11-20T23:00:00Z",
        "2026-11-30T22:59:59Z",
        "2026-11-30T23:00:01Z",
        "2026-12-31T22:59:59Z",
        "2026-12-31T23:00:00Z",
        "2026-03-29T00:59:59Z",
        "2026-03-29T01:00:00Z",
        "2026-10-25T00:30:00Z",
        "2026-10-25T01:30:00Z",
        "2028-02-29T12:00:00Z",
    ]
)
ASK = st.tuples(st.integers(0, 2000), st.integers(1, 4000))


class LedgerMachine(RuleBasedStateMachine):
    """`booked` and `open` are the model; everything else is the real thing."""

    runs = Bundle("runs")
    kind: str

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.clock = FrozenClock()
        self.zone = ZoneInfo("Europe/Berlin")
        self.backend = BACKENDS[self.kind](self.root / "data", self.clock, "Europe/Berlin")
        self.prices = PriceTable(self.root / "prices.json", self.clock)
        self.begin_ledger()
        self.keys = {name: key_with(name) for name in NAMES}
        self.open: dict[str, Reservation] = {}
        self.booked: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
        self.forgiven: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
        self.spans: dict[str, Span] = {}
        self.logged: dict[str, float] = {}
        #: (credential, window) -> micro-dollars
        self.paid: dict[tuple[str, str], int] = defaultdict(int)
        self.number = 0
        self.refusals: set[int] = set()

    def teardown(self) -> None:
        self.backend.stop()
        shutil.rmtree(self.root)

    def begin_ledger(self) -> None:
        self.tallies = self.backend.tallies
        self.ledger = Ledger(self.tallies, self.clock, self.zone, {}, self.prices)

    # --- the model ---

    def book(self, reservation: Reservation, tokens: int, cost_micro: int) -> None:
        for span in spans_of(reservation.day).values():
            self.spans[span.key] = span
            sums = self.booked[reservation.key_name, span.key]
            for place, amount in enumerate((1, tokens, cost_micro)):
                sums[place] += amount
            if reservation.credential is not None:
                self.paid[reservation.credential, span.key] += cost_micro
        self.logged[reservation.id] = cost_micro / 1e6

    def finish(self, reservation: Reservation, tokens: int, cost_micro: int) -> None:
        """Settle; only the first time counts."""
        self.ledger.settle(line_of(reservation, cost_micro, output_tokens=tokens))
        if self.open.pop(reservation.id, None) is not None:
            self.book(reservation, tokens, cost_micro)

    def shown(self, name: str, window: str) -> list[int]:
        """What the ledger has booked, read past its own views."""
        counts = self.tallies.tally(name).booked(self.spans[window].days)
        return [counts.requests, counts.tokens, counts.cost_micro]

    def check_cap(self, name: str) -> None:
        """Right after an admission: used and held together are within every cap."""
        caps = effective(self.keys[name].limits, {})
        tally = self.tallies.tally(name)
        now = Moment.of(self.clock.now(), self.zone)
        for limit, window, amount in summed(caps):
            span = now.spans[window.name]
            assert tally.used(span).of(limit.what) + tally.held(span).of(limit.what) <= amount
        assert not caps["maxConcurrent"] or len(tally.open) <= caps["maxConcurrent"]
        recent = tally.minute_ages_s(self.clock.now())
        assert not caps["maxRequestsPerMinute"] or len(recent) <= caps["maxRequestsPerMinute"]

    def check_budget(self, held: Reservation) -> None:
        """Right after an admission or a move: what is used and held of its credential is within the budgets. Others may
        have been overdrawn by a run that cost more than it had reserved."""
        tally = self.tallies.credentials().get(held.credential or "")
        limits = effective(CREDENTIALS.get(held.credential or "", Limits()), {})
        for limit, window, amount in summed(limits) if tally is not None else ():
            span = Moment.of(held.at, self.zone).spans[window.name]
            assert tally.used(span).of(limit.what) + tally.held(span).of(limit.what) <= amount

    def pick(self, order: tuple[str, ...]) -> Pick:
        """The first of some credentials that has room."""
        return lambda purse_of, output: next(
            (id for id in order if purse_of(id, CREDENTIALS[id]).output >= output), None
        )

    def check_reservation(self, reservation: Reservation) -> None:
        """What one run may use is within the caps on one request."""
        caps = effective(self.keys[reservation.key_name].limits, {})
        for limit, amount in per_request(caps):
            assert (reservation.cost_micro if limit.is_cost else reservation.tokens) <= amount
        assert not caps["maxOutputTokens"] or reservation.output_tokens <= caps["maxOutputTokens"]

    def admit(self, name: str, ask: tuple[int, int]) -> Reservation | None:
        self.number += 1
        try:
            order = [tuple(CREDENTIALS)[self.number % 3 :], ("wide", "tight"), ()][self.number % 5 % 3]
            run_id, limits = f"run_{self.number}", self.keys[name].limits
            reservation = self.ledger.reserve(name, limits, run_id, Ceiling("demo", "demo", *ask), self.pick(order))
        except BridgeError as error:
            self.refusals.add(error.problem.status)
            return None
        self.open[reservation.id] = reservation
        self.check_cap(name)
        self.check_budget(reservation)
        self.check_reservation(reservation)
        return reservation

    # --- rules ---

    @initialize(limits=GIVEN)
    def begin(self, limits: dict[str, float]) -> None:
        self.change_limits("alice", limits)

    @rule(target=runs, name=st.sampled_from(NAMES), ask=ASK)
    def reserve(self, name: str, ask: tuple[int, int]) -> str:
        reservation = self.admit(name, ask)
        return reservation.id if reservation else ""

    @rule(asks=st.lists(st.tuples(st.sampled_from(NAMES), ASK), min_size=2, max_size=12))
    def reserve_many_at_once(self, asks: list[tuple[str, tuple[int, int]]]) -> None:
        gevent.joinall([gevent.spawn(self.admit, *ask) for ask in asks], raise_error=True)

    @rule(run=consumes(runs), tokens=st.integers(0, 9000), cost=st.integers(0, 200_000), twice=st.booleans())
    def settle(self, run: str, tokens: int, cost: int, twice: bool) -> None:
        reservation = self.open.get(run)
        if reservation is not None:
            self.finish(reservation, tokens, cost)
            if twice:
                self.finish(reservation, 1, 1)

    @rule(asks=st.lists(st.tuples(st.sampled_from(NAMES), ASK), min_size=1, max_size=6))
    def spend(self, asks: list[tuple[str, tuple[int, int]]]) -> None:
        self.spend_all(asks)

    def spend_all(self, asks: list[tuple[str, tuple[int, int]]]) -> None:
        for name, ask in asks:
            reservation = self.admit(name, ask)
            if reservation is not None:
                self.finish(reservation, ask[1], reservation.cost_micro // 2)

    @precondition(lambda self: self.open)
    @rule(order=st.permutations(tuple(CREDENTIALS)), number=st.integers(0, 99))
    def move(self, order: list[str], number: int) -> None:
        """A run goes on with another credential."""
        held = list(self.open.values())[number % len(self.open)]
        others = tuple(id for id in order if id != held.credential)
        moved = self.ledger.move(held, self.pick(others))
        if moved is None:
            assert held.credential == "free", "one of the others has no budget"
            assert all(self.ledger.purses(held)(id, CREDENTIALS[id]).output < held.output_tokens for id in others)
            return
        assert (moved.id, moved.cost_micro) == (held.id, held.cost_micro)
        assert moved.credential in others
        self.open[held.id] = moved
        self.check_budget(moved)

    @rule(name=st.sampled_from(NAMES))
    def reset(self, name: str) -> None:
        self.ledger.reset(name)
        day = day_of(self.clock.now(), self.zone)
        for span in spans_of(day).values():
            self.spans[span.key] = span
            self.forgiven[name, span.key] = list(self.booked[name, span.key])

    @rule(run=consumes(runs))
    def release(self, run: str) -> None:
        reservation = self.open.pop(run, None)
        if reservation is not None:
            self.ledger.release(reservation)

    @rule(run=consumes(runs))
    def turn_back(self, run: str) -> None:
        """It had a line, but never reached a CLI."""
        reservation = self.open.pop(run, None)
        if reservation is not None:
            self.ledger.release(reservation, line_of(reservation, 0, status=499, code="cancelled"))
            self.logged[run] = 0.0

    @rule(name=st.sampled_from(NAMES), limits=GIVEN)
    def change_limits(self, name: str, limits: dict[str, float]) -> None:
        changed = Limits.parse({**UNLIMITED, **limits})
        self.keys[name] = msgspec.structs.replace(self.keys[name], limits=changed)

    @rule(moment=MOMENTS)
    def jump(self, moment: str) -> None:
        self.clock.set(moment)

    @rule(seconds=st.integers(0, 100_000))
    def wait(self, seconds: int) -> None:
        self.clock.pass_s(seconds)

    @rule(kept=st.floats(0, 1))
    def crash(self, kept: float) -> None:
        """What was not acknowledged may be on the disk, in part or in whole, or not at all."""
        self.clock.pass_s(1)
        self.backend.crash(kept)
        self.restart()

    @rule(asks=st.lists(st.tuples(st.sampled_from(NAMES), ASK), max_size=3))
    def crash_before_a_snapshot_is_saved(self, asks: list[tuple[str, tuple[int, int]]]) -> None:
        self.spend_all(asks)
        self.backend.lose_the_last_snapshot()
        self.restart()

    @rule()
    def stop_and_start(self) -> None:
        self.backend.stop()
        self.restart()

    def restart(self) -> None:
        self.backend.open()
        self.begin_ledger()
        assert {each.id: each for each in self.ledger.open_reservations()} == self.open
        self.ledger.recover()
        for reservation in self.open.values():
            self.book(reservation, reservation.tokens, reservation.cost_micro)
        self.open.clear()
        assert self.ledger.open_reservations() == []

    @precondition(lambda self: self.open)
    @rule(
        run=consumes(runs),
        cost=st.integers(0, 9000),
        name=st.sampled_from(NAMES),
    )
    def fail_and_heal(self, run: str, cost: int, name: str) -> None:
        """The storage fails under a reservation and a settlement, and works again later."""
        with self.backend.failing():
            never = refused(
                lambda: self.ledger.reserve(name, key_with(name).limits, "never", Ceiling("demo", "demo", 10, 10))
            )
            assert never == "storage_failed"
            reservation = self.open.pop(run, None)
            if reservation is not None:
                self.book(reservation, 0, cost)
                # Not confirmed, but it must count all the same.
                assert refused(lambda: self.ledger.settle(line_of(reservation, cost))) == "storage_failed"
        self.clock.pass_s(1)
        self.ledger.reset("nobody")
        assert self.ledger.open_for_business

    # --- always ---

    @invariant()
    def the_books_by_model_are_the_books(self) -> None:
        for name in NAMES:
            tally = self.tallies.tally(name)
            for day, books in tally.books.items():
                assert sum_of(books.values()) == tally.days[day]

    @invariant()
    def what_was_acknowledged_is_booked_exactly(self) -> None:
        for (name, window), sums in self.booked.items():
            assert self.shown(name, window) == sums
            used = self.tallies.tally(name).used(self.spans[window])
            counted = [booked - off for booked, off in zip(sums, self.forgiven[name, window], strict=True)]
            assert [used.requests, used.tokens, used.cost_micro] == counted

    @invariant()
    def the_log_has_one_line_with_the_charge_of_each_run_that_ended(self) -> None:
        assert {name: usd for name, usd in self.backend.lines().items() if name != "run_unconfirmed"} == self.logged

    @invariant()
    def refusals_are_about_caps(self) -> None:
        assert self.refusals <= {429}

    @invariant()
    def each_credential_has_what_was_paid_with_it_and_holds_what_runs_hold(self) -> None:
        figures = self.tallies.credentials()
        for (id, window), micro in self.paid.items():
            assert figures[id].booked(self.spans[window].days).cost_micro == micro
        held = {run: each for tally in figures.values() for run, each in tally.open.items()}
        assert held == {run: each for run, each in self.open.items() if each.credential is not None}

    @invariant()
    def exactly_the_open_runs_are_held(self) -> None:
        held = {reservation.id: reservation for reservation in self.ledger.open_reservations()}
        assert held == self.open


# Each step waits for the disk, or for a server: minutes on a host that is busy.
@pytest.mark.timeout(400)
@pytest.mark.parametrize("kind", BACKENDS)
def test_tallies_of_every_kind_agree_with_the_model(kind: str) -> None:
    machine = type("Machine", (LedgerMachine,), {"kind": kind})
    examples = 60 if kind == "files" else 6
    checks = list(HealthCheck)
    bounds = settings(max_examples=examples, stateful_step_count=40, deadline=None, suppress_health_check=checks)
    run_state_machine_as_test(machine, settings=bounds)
