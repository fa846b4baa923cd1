"""What each key has used and holds: plain sums, and how they are kept on disk.

`apply` is the one place where figures change. The running server and the replay at start both go through it, so
that they cannot come to different sums. On disk they are the snapshot usage.json, and the journal usage.jsonl of
what came after it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Set

import gevent
import msgspec

from bridge.clock import Clock
from bridge.errors import BridgeError, StoreError
from bridge.limits import Span, spans_of
from bridge.store.document import REPAIR_HINT
from bridge.store.files import unbroken
from bridge.store.folder import Store
from bridge.store.journal import Journal, read_forwards, seq_of
from bridge.types import Charge, Usage

KEPT_DAYS = 400
MINUTE_S = 60.0
COMPACT_LINES = 20_000
COMPACT_BYTES = 16 * 2**20
_RETRY_S = 1.0


class Reservation(msgspec.Struct, frozen=True, rename="camel"):
    """What a run may use at most. Held until it is settled; costs in micro-dollars, `at` in UTC seconds.

    It counts for the day on which it was made, and so does what comes of it.
    """

    id: str
    key_name: str
    provider: str
    model: str
    at: float
    day: str
    input_tokens: int
    output_tokens: int
    cost_micro: int
    requests: int = 1

    @property
    def tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    def as_charge(self) -> Charge:
        """All of it, assumed to have been used."""
        usage = Usage(input_tokens=self.input_tokens, output_tokens=self.output_tokens)
        return Charge(usage, self.cost_micro, assumed=True)


class Counts(msgspec.Struct, rename="camel", omit_defaults=True):
    """What was used. `assumed_micro` is the part of the cost that no CLI confirmed."""

    requests: int = 0
    errors: int = 0
    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cost_micro: int = 0
    assumed_micro: int = 0

    @property
    def tokens(self) -> int:
        """Everything that counts against a token limit."""
        return self.input_tokens + self.cache_read_tokens + self.cache_write_tokens + self.output_tokens

    def add(self, other: Counts) -> None:
        """Add another's figures to these."""
        self.requests += other.requests
        self.errors += other.errors
        self.input_tokens += other.input_tokens
        self.cache_read_tokens += other.cache_read_tokens
        self.cache_write_tokens += other.cache_write_tokens
        self.output_tokens += other.output_tokens
        self.reasoning_tokens += other.reasoning_tokens
        self.cost_micro += other.cost_micro
        self.assumed_micro += other.assumed_micro


def counts_of(charge: Charge, *, error: bool) -> Counts:
    """One run's charge as counts."""
    usage = charge.usage
    return Counts(
        requests=1,
        errors=int(error),
        input_tokens=usage.input_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        output_tokens=usage.output_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        cost_micro=charge.cost_micro,
        assumed_micro=charge.cost_micro if charge.assumed else 0,
    )


class Totals(msgspec.Struct, frozen=True):
    """The three figures that caps are about; cost in micro-dollars."""

    requests: int = 0
    tokens: int = 0
    cost_micro: int = 0

    def of(self, what: str) -> int:
        """The figure that a limit on `what` bounds: requests, tokens, or cost in micro-dollars."""
        figure: int = getattr(self, "cost_micro" if what == "cost" else what)
        return figure


class Tally(msgspec.Struct, rename="camel", omit_defaults=True):
    """One key. What it used is kept by day (`2026-11-20`); longer windows are sums of days."""

    days: dict[str, Counts] = {}
    #: window (`2026-11-20`, `2026-11`) -> what an admin's reset took out of the count
    forgiven: dict[str, Counts] = {}
    #: run id -> what it holds
    open: dict[str, Reservation] = {}
    #: run id -> when it was admitted (UTC seconds), for the last minute
    recent: dict[str, float] = {}
    last_used_at: float | None = None

    def booked(self, days: Set[str]) -> Counts:
        """All that ended runs used on these days."""
        total = Counts()
        for day in days & self.days.keys():
            total.add(self.days[day])
        return total

    def used(self, span: Span) -> Totals:
        """What counts as used in a window; what is held by open runs is not part of it."""
        counts, off = self.booked(span.days), self.forgiven.get(span.key, _NOTHING)
        return Totals(
            counts.requests - off.requests,
            counts.tokens - off.tokens,
            counts.cost_micro - off.cost_micro,
        )

    def held(self, span: Span | None = None) -> Totals:
        """What open runs hold in a window, or altogether."""
        requests = tokens = cost = 0
        for each in self.open.values():
            if span is None or each.day in span.days:
                requests += each.requests
                tokens += each.tokens
                cost += each.cost_micro
        return Totals(requests, tokens, cost)

    def note_recent(self, run_id: str, at: float) -> None:
        """Count a run for the last minute. The oldest come first, and those that are over are dropped."""
        while self.recent and at - next(iter(self.recent.values())) >= MINUTE_S:
            del self.recent[next(iter(self.recent))]
        self.recent[run_id] = at

    def minute_ages_s(self, now: float) -> list[float]:
        """How many seconds ago each run of the last minute was admitted, oldest first.

        One that seems to lie ahead, because the clock was set back, counts as of now: it is over in a
        minute, not when the clock has caught up.
        """
        self.recent = {i: min(at, now) for i, at in self.recent.items() if now - at < MINUTE_S}
        return sorted((now - at for at in self.recent.values()), reverse=True)

    def prune(self) -> None:
        """Forget the oldest days and resets. They are counted, not compared with today: a clock that was wrong
        for a moment must not cost the history."""
        for kept in (self.days, self.forgiven):
            for window in sorted(kept)[:-KEPT_DAYS]:
                del kept[window]


_NOTHING = Counts()


# --- the records of the journal ------------------------------------------------------------------


class Reserve(msgspec.Struct, frozen=True, tag_field="kind", tag="reserve", omit_defaults=True):
    """A run was admitted."""

    reservation: Reservation
    seq: int = 0


class Settle(msgspec.Struct, frozen=True, tag_field="kind", tag="settle", omit_defaults=True):
    """A run has ended and used this."""

    id: str
    key: str
    counts: Counts
    seq: int = 0


class Release(msgspec.Struct, frozen=True, tag_field="kind", tag="release", omit_defaults=True):
    """A run never reached a CLI: nothing is counted, not even the request. But one that was `tried` counts for
    the pace."""

    id: str
    key: str
    seq: int = 0
    tried: bool = False


class Reset(msgspec.Struct, frozen=True, tag_field="kind", tag="reset", omit_defaults=True):
    """An admin set what counts as used in the windows of this day to zero."""

    key: str
    day: str
    seq: int = 0


class Import(msgspec.Struct, frozen=True, tag_field="kind", tag="import", omit_defaults=True):
    """Usage of a day was taken over from another program. A day that has usage already stays as it is."""

    key: str
    day: str
    counts: Counts
    seq: int = 0


Record = Reserve | Settle | Release | Reset | Import


class Tallies:
    """All tallies, by key name."""

    def __init__(self, tallies: dict[str, Tally] | None = None) -> None:
        self.by_name = tallies or {}

    def __getitem__(self, name: str) -> Tally:
        """The tally of a key; an empty one, which is not kept, where it never used anything."""
        return self.by_name.get(name) or Tally()

    def open(self) -> Iterator[Reservation]:
        """Every reservation that is held."""
        for tally in self.by_name.values():
            yield from tally.open.values()

    def apply(self, record: Record) -> None:
        """Change the figures by one record. A second record about the same run changes nothing."""
        match record:
            case Reserve(reservation):
                tally = self._tally(reservation.key_name)
                tally.open[reservation.id] = reservation
                tally.note_recent(reservation.id, reservation.at)
                tally.last_used_at = reservation.at
            case Settle(id, key, counts):
                tally = self._tally(key)
                settled = tally.open.pop(id, None)
                if settled is not None:
                    tally.days.setdefault(settled.day, Counts()).add(counts)
            case Release(id, key, tried=tried):
                tally = self._tally(key)
                if tally.open.pop(id, None) is not None and not tried:
                    tally.recent.pop(id, None)
            case Reset(key, day):
                tally = self._tally(key)
                for span in spans_of(day).values():
                    tally.forgiven[span.key] = tally.booked(span.days)
            case Import(key, day, counts):
                self._tally(key).days.setdefault(day, counts)

    def _tally(self, name: str) -> Tally:
        return self.by_name.setdefault(name, Tally())


# --- on disk -------------------------------------------------------------------------------------


class Snapshot(msgspec.Struct):
    """usage.json: the tallies after record `seq`."""

    schema: int = 1
    seq: int = 0
    accounts: dict[str, Tally] = {}


class FileTallies:
    """Tallies whose every change is on the disk before it is confirmed.

    Memory is changed first and decides. A write that fails closes the books; each later attempt, once a
    second at most, then tries to save all of memory, and opens them again when that works.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        """Read snapshot and journal. Raises StoreError where they cannot be trusted."""
        self._clock = clock
        self._document = store.document("usage.json")
        self._next_try = 0.0
        self._compacting = False
        snapshot = self._load()
        path = store.folder / "usage.jsonl"
        if snapshot.seq and not path.exists():
            raise StoreError("usage.jsonl is missing.", REPAIR_HINT)
        self._journal = Journal(path)
        self.tallies = Tallies(snapshot.accounts)
        self._replay(snapshot.seq)
        self._journal.seq = max(self._journal.seq, snapshot.seq)

    @property
    def open(self) -> bool:
        """Whether the last write worked."""
        return not self._journal.failed

    @property
    def journal(self) -> Journal:
        """The journal, to look at."""
        return self._journal

    def ensure_open(self) -> None:
        """After a write has failed, try again. Does not switch greenlets while the books are open.

        Raises BridgeError storage_failed where the disk still does not work.
        """
        if self._journal.failed:
            now = self._clock.monotonic()
            if now < self._next_try:
                self._journal.refuse_if_failed()
            self._next_try = now + _RETRY_S
            unbroken(self.compact)

    def write(self, record: Record) -> None:
        """Apply a record, at once, and wait until it is on the disk.

        Raises BridgeError storage_failed; the record is then applied all the same and will be part of
        what is saved next, unless the caller takes it back with `undo`.
        """
        self.tallies.apply(record)
        self.ensure_open()
        ticket = self._journal.append(msgspec.json.encode(record))
        if self._journal.lines >= COMPACT_LINES or self._journal.size >= COMPACT_BYTES:
            self._compact_soon()
        self._journal.commit(ticket)

    def undo(self, record: Record) -> None:
        """Apply a record that takes back another whose `write` did not come to its end. Does not wait."""
        self.tallies.apply(record)
        if not self._journal.failed:
            # The write was only no longer waited for, or a snapshot has caught it meanwhile.
            self._journal.append(msgspec.json.encode(record))

    def snapshot(self) -> bytes:
        """All of memory as usage.json would hold it now, to stand beside an empty journal. Does not switch
        greenlets, so that it is of one moment."""
        content = {"schema": self._document.schema, "seq": self._journal.seq, "accounts": self.tallies.by_name}
        return msgspec.json.encode(content)

    def compact(self) -> None:
        """Save all of memory and begin the journal afresh. Raises BridgeError storage_failed."""
        self._journal.compact(self._save)

    def close(self) -> None:
        """Save once more and close the files. Where the disk fails, the journal has what was confirmed."""
        for step in (self.compact, self._journal.close):
            with contextlib.suppress(BridgeError):
                step()

    def _save(self, seq: int) -> None:
        for tally in self.tallies.by_name.values():
            tally.prune()
        self._document.save({"seq": seq, "accounts": self.tallies.by_name})

    def _compact_soon(self) -> None:
        def step() -> None:
            try:
                self.compact()
            except BridgeError:
                pass  # the journal grows on; or it is closed, and the next write tries again
            finally:
                self._compacting = False

        if not self._compacting:
            self._compacting = True
            gevent.spawn(step)

    def _load(self) -> Snapshot:
        try:
            return msgspec.convert(self._document.load() or {}, Snapshot)
        except msgspec.ValidationError as error:
            raise StoreError(f"usage.json is damaged: {error}.", REPAIR_HINT) from None

    def _replay(self, after: int) -> None:
        """Apply the records that the snapshot does not have yet."""
        decoder = msgspec.json.Decoder(Record)
        name = self._journal.path.name
        for number, line in enumerate(read_forwards(self._journal.path), start=1):
            seq = seq_of(line)
            if number == 1 and seq > after + 1:
                raise StoreError(f"{name} lacks lines after the snapshot in usage.json.", REPAIR_HINT)
            if seq <= after:
                continue
            try:
                self.tallies.apply(decoder.decode(line))
            except msgspec.DecodeError as error:
                raise StoreError(f"{name} is damaged at line {number}: {error}.", REPAIR_HINT) from None
