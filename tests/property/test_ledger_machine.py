"""The ledger against a naive model, through crashes at any byte, failing disks and jumping clocks.

The model knows only what was acknowledged: an admitted reservation, a settled charge. Whatever
happens, the ledger must never show less than that, never admit beyond a cap, and never keep a
reservation over a restart.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections import defaultdict
from pathlib import Path

import gevent
import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from bridge.clock import day_of
from bridge.errors import BridgeError
from bridge.ledger.tallies import Reservation
from bridge.limits import LIMITS, Limits, Moment, Span, effective, per_request, spans_of, summed
from bridge.types import Charge, Usage
from tests.support.ledger import UNLIMITED, Desk, FrozenClock, key_with

NAMES = ("alice", "bob")
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

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.desk = Desk(self.root / "data", FrozenClock(), zone="Europe/Berlin")
        self.keys = {name: key_with(name) for name in NAMES}
        self.open: dict[str, Reservation] = {}
        self.booked: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
        self.forgiven: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
        self.spans: dict[str, Span] = {}
        self.logged: dict[str, Charge] = {}
        self.acknowledged = 0
        self.number = 0
        self.refusals: set[int] = set()
        self.desk.resolve = lambda left: {r.id: self.logged[r.id] for r in left if r.id in self.logged}

    def teardown(self) -> None:
        self.desk.store.close()
        shutil.rmtree(self.root)

    # --- the model ---

    def book(self, reservation: Reservation, charge: Charge) -> None:
        for span in spans_of(reservation.day).values():
            self.spans[span.key] = span
            sums = self.booked[reservation.key_name, span.key]
            for place, amount in enumerate((1, charge.usage.total, charge.cost_micro)):
                sums[place] += amount

    def finish(self, reservation: Reservation, charge: Charge) -> None:
        """Settle; only the first time counts."""
        self.desk.ledger.settle(reservation, charge)
        if self.open.pop(reservation.id, None) is not None:
            self.book(reservation, charge)
        self.remember_size()

    def shown(self, name: str, window: str) -> list[int]:
        """What the ledger has booked, read past its own views."""
        counts = self.desk.ledger._books.tallies[name].booked(self.spans[window].days)
        return [counts.requests, counts.tokens, counts.cost_micro]

    def check_cap(self, name: str) -> None:
        """Right after an admission: used and held together are within every cap."""
        caps = effective(self.keys[name].limits, {})
        account = self.desk.ledger._books.tallies[name]
        now = Moment.of(self.desk.clock.now(), self.desk.zone)
        for limit, window, amount in summed(caps):
            span = now.spans[window.name]
            assert account.used(span).of(limit.what) + account.held(span).of(limit.what) <= amount
        assert not caps["maxConcurrent"] or len(account.open) <= caps["maxConcurrent"]
        recent = account.minute_ages_s(self.desk.clock.now())
        assert not caps["maxRequestsPerMinute"] or len(recent) <= caps["maxRequestsPerMinute"]

    def check_reservation(self, reservation: Reservation) -> None:
        """What one run may use is within the caps on one request."""
        caps = effective(self.keys[reservation.key_name].limits, {})
        for limit, amount in per_request(caps):
            assert (reservation.cost_micro if limit.is_cost else reservation.tokens) <= amount
        assert not caps["maxOutputTokens"] or reservation.output_tokens <= caps["maxOutputTokens"]

    def remember_size(self) -> None:
        self.acknowledged = (self.desk.folder / "usage.jsonl").stat().st_size

    def admit(self, name: str, ask: tuple[int, int]) -> Reservation | None:
        self.number += 1
        try:
            reservation = self.desk.ledger.reserve(
                name, self.keys[name].limits, f"run_{self.number}", "demo", "demo", *ask
            )
        except BridgeError as error:
            self.refusals.add(error.problem.status)
            return None
        self.open[reservation.id] = reservation
        self.check_cap(name)
        self.check_reservation(reservation)
        return reservation

    # --- rules ---

    @initialize(limits=GIVEN)
    def begin(self, limits: dict[str, float]) -> None:
        self.change_limits("alice", limits)

    @rule(target=runs, name=st.sampled_from(NAMES), ask=ASK)
    def reserve(self, name: str, ask: tuple[int, int]) -> str:
        reservation = self.admit(name, ask)
        self.remember_size()
        return reservation.id if reservation else ""

    @rule(asks=st.lists(st.tuples(st.sampled_from(NAMES), ASK), min_size=2, max_size=12))
    def reserve_many_at_once(self, asks: list[tuple[str, tuple[int, int]]]) -> None:
        gevent.joinall([gevent.spawn(self.admit, *ask) for ask in asks], raise_error=True)
        self.remember_size()

    @rule(run=consumes(runs), tokens=st.integers(0, 9000), cost=st.integers(0, 200_000), twice=st.booleans())
    def settle(self, run: str, tokens: int, cost: int, twice: bool) -> None:
        reservation = self.open.get(run)
        if reservation is not None:
            self.finish(reservation, Charge(Usage(output_tokens=tokens), cost))
            if twice:
                self.finish(reservation, Charge(Usage(output_tokens=1), 1))

    @rule(asks=st.lists(st.tuples(st.sampled_from(NAMES), ASK), min_size=1, max_size=6))
    def spend(self, asks: list[tuple[str, tuple[int, int]]]) -> None:
        self.spend_all(asks)

    def spend_all(self, asks: list[tuple[str, tuple[int, int]]]) -> None:
        for name, ask in asks:
            reservation = self.admit(name, ask)
            if reservation is not None:
                self.finish(reservation, Charge(Usage(output_tokens=ask[1]), reservation.cost_micro // 2))

    @rule(name=st.sampled_from(NAMES))
    def reset(self, name: str) -> None:
        self.desk.ledger.reset(name)
        day = day_of(self.desk.clock.now(), self.desk.zone)
        for span in spans_of(day).values():
            self.spans[span.key] = span
            self.forgiven[name, span.key] = list(self.booked[name, span.key])
        self.remember_size()

    @rule(run=consumes(runs))
    def release(self, run: str) -> None:
        reservation = self.open.pop(run, None)
        if reservation is not None:
            self.desk.ledger.release(reservation)
            self.remember_size()

    @rule(run=runs, cost=st.integers(0, 50_000))
    def log_without_settling(self, run: str, cost: int) -> None:
        if run in self.open:
            self.logged[run] = Charge(Usage(output_tokens=1), cost)

    @rule(name=st.sampled_from(NAMES), limits=GIVEN)
    def change_limits(self, name: str, limits: dict[str, float]) -> None:
        changed = Limits.parse({**UNLIMITED, **limits})
        self.keys[name] = msgspec.structs.replace(self.keys[name], limits=changed)

    @rule(moment=MOMENTS)
    def jump(self, moment: str) -> None:
        self.desk.clock.set(moment)

    @rule(seconds=st.integers(0, 100_000))
    def wait(self, seconds: int) -> None:
        self.desk.clock.pass_s(seconds)

    @rule(kept=st.floats(0, 1))
    def crash(self, kept: float) -> None:
        """What was not acknowledged may be on the disk, in part or in whole, or not at all."""
        self.desk.clock.pass_s(1)
        unacknowledged = self.desk.ledger._books._journal.append(b'{"kind":"release","id":"none","key":"none"}')
        self.desk.ledger._books._journal.commit(unacknowledged)
        path = self.desk.folder / "usage.jsonl"
        size = path.stat().st_size
        self.desk.crash()
        os.truncate(path, self.acknowledged + round((size - self.acknowledged) * kept))
        self.restart()

    @rule(asks=st.lists(st.tuples(st.sampled_from(NAMES), ASK), max_size=3))
    def crash_between_snapshot_and_journal(self, asks: list[tuple[str, tuple[int, int]]]) -> None:
        """The snapshot was saved, and the lines that it holds are still there."""
        self.spend_all(asks)
        before = (self.desk.folder / "usage.jsonl").read_bytes()
        self.desk.ledger._books.compact()
        (self.desk.folder / "usage.jsonl").write_bytes(before)
        self.desk.crash()
        self.restart()

    @rule()
    def stop_and_start(self) -> None:
        self.desk.ledger.close()
        self.desk.store.close()
        self.restart()

    def restart(self) -> None:
        self.desk.open()
        recovered = {reservation.id for reservation in self.desk.ledger.recovered}
        assert recovered == self.open.keys() - self.logged.keys()
        for reservation in self.open.values():
            self.book(reservation, self.logged.get(reservation.id) or reservation.as_charge())
        self.open.clear()
        assert self.desk.ledger.open_reservations() == []
        self.remember_size()

    @rule()
    def compact(self) -> None:
        self.desk.ledger._books.compact()
        self.remember_size()

    @precondition(lambda self: self.open)
    @rule(
        run=consumes(runs),
        cost=st.integers(0, 9000),
        name=st.sampled_from(NAMES),
        call=st.sampled_from(["write", "fdatasync"]),
    )
    def fail_and_heal(self, run: str, cost: int, name: str, call: str) -> None:
        """The disk fails under a reservation and a settlement, and works again later."""
        real = getattr(os, call)

        def failing(*_: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        setattr(os, call, failing)
        try:
            refused = None
            try:
                self.desk.ledger.reserve(name, key_with(name).limits, "never", "demo", "demo", 10, 10)
            except BridgeError as error:
                refused = error
            assert refused is not None
            assert refused.code == "storage_failed"
            reservation = self.open.pop(run, None)
            if reservation is not None:
                charge = Charge(Usage(), cost)
                self.book(reservation, charge)
                with contextlib.suppress(BridgeError):  # not confirmed, but it must count all the same
                    self.desk.ledger.settle(reservation, charge)
        finally:
            setattr(os, call, real)
        self.desk.clock.pass_s(1)
        self.desk.ledger.reset("nobody")
        assert self.desk.ledger.open_for_business
        self.remember_size()

    # --- always ---

    @invariant()
    def what_was_acknowledged_is_booked_exactly(self) -> None:
        for (name, window), sums in self.booked.items():
            assert self.shown(name, window) == sums
            used = self.desk.ledger._books.tallies[name].used(self.spans[window])
            counted = [booked - off for booked, off in zip(sums, self.forgiven[name, window], strict=True)]
            assert [used.requests, used.tokens, used.cost_micro] == counted

    @invariant()
    def refusals_are_about_caps(self) -> None:
        assert self.refusals <= {429}

    @invariant()
    def exactly_the_open_runs_are_held(self) -> None:
        held = {reservation.id: reservation for reservation in self.desk.ledger.open_reservations()}
        assert held == self.open


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
