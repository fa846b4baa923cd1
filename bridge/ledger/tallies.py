"""What each key has used and holds: its tally, the records that change it, and the seam behind which they are kept.

`apply` is the one place where figures change. The running server and the replay at start both go through it, so
that they cannot come to different sums.

With files, the records are the lines of the request log: the line of a run settles it. usage.json is a snapshot
of all tallies at a place in logs/.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Callable, Iterable, Mapping, Set
from datetime import tzinfo
from errno import ESTALE
from pathlib import Path
from typing import Annotated, Any, Protocol

import gevent
import msgspec
from gevent.lock import BoundedSemaphore
from msgspec import Meta

from bridge.clock import Clock, day_of, iso
from bridge.errors import BridgeError, StoreError
from bridge.limits import MICRO, Span, spans_of
from bridge.store.document import REPAIR_HINT
from bridge.store.files import storage_failed, unbroken
from bridge.store.folder import Store
from bridge.store.journal import DayJournal, Position, day_files, read_forwards
from bridge.types import RunRecord

KEPT_DAYS = 400
#: Days of a key that are kept by model, and models (with their credentials) of one day: the rest of a day is known
#: as a whole only. A key that names a new model with each request must not fill the memory.
BOOKED_DAYS, MOST_BOOKS = 100, 50
MINUTE_S = 60.0
#: A snapshot is saved after so much of the journal, so that a start has no more to replay.
SNAPSHOT_LINES = 20_000
SNAPSHOT_BYTES = 64 * 2**20
_RETRY_S = 1.0

log = logging.getLogger("bridge")


#: A figure as it may be on the disk.
Count = Annotated[int, Meta(ge=0, le=10**15)]


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
    input_tokens: Count
    output_tokens: Count
    cost_micro: Count
    requests: Count = 1
    #: the process that runs it: what one has left behind is settled by `recover`
    owner: str = ""
    #: the id of the provider's credential that it uses; None while it has none
    credential: str | None = None
    #: of the web
    searches: Count = 0

    @property
    def tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens


class Counts(msgspec.Struct, rename="camel", omit_defaults=True):
    """What was used. `assumed_micro` is the part of the cost that no CLI confirmed."""

    requests: Count = 0
    errors: Count = 0
    input_tokens: Count = 0
    cache_read_tokens: Count = 0
    cache_write_tokens: Count = 0
    output_tokens: Count = 0
    reasoning_tokens: Count = 0
    searches: Count = 0
    cost_micro: Count = 0
    assumed_micro: Count = 0

    def of(self, what: str) -> int:
        """The figure that a limit on `what` bounds: requests, tokens, or cost in micro-dollars."""
        figure: int = getattr(self, "cost_micro" if what == "cost" else what)
        return figure

    @property
    def tokens(self) -> int:
        """Everything that counts against a token limit."""
        return self.input_tokens + self.cache_read_tokens + self.cache_write_tokens + self.output_tokens

    def add(self, other: Counts) -> None:
        """Add another's figures to these."""
        for name, figure in zip(self.__struct_fields__, _figures(other), strict=True):
            setattr(self, name, getattr(self, name) + figure)

    def minus(self, other: Counts) -> Counts:
        """The difference, in each figure."""
        return Counts(*(a - b for a, b in zip(_figures(self), _figures(other), strict=True)))


_figures = msgspec.structs.astuple


def sum_of(several: Iterable[Counts]) -> Counts:
    """All of them together."""
    return Counts(*map(sum, zip(*map(_figures, several), strict=True)))


class Tally(msgspec.Struct, rename="camel", omit_defaults=True):
    """One key, or one credential. What it used is kept by day (`2026-11-20`); longer windows are sums of days."""

    days: dict[str, Counts] = {}
    #: day -> book -> the part of that day that was used of one model; see `book_of`
    books: dict[str, dict[str, Counts]] = {}
    #: window (`2026-11-20`, `2026-11`) -> what an admin's reset took out of the count
    forgiven: dict[str, Counts] = {}
    #: run id -> what it holds
    open: dict[str, Reservation] = {}
    #: run id -> when it was admitted (UTC seconds), for the last minute
    recent: dict[str, float] = {}
    last_used_at: float | None = None

    def enter(self, day: str, book: str, counts: Counts) -> None:
        """Book what a run used on its day, as a whole and by model."""
        self.days.setdefault(day, Counts()).add(counts)
        books = self.books.setdefault(day, {})
        if book in books or len(books) < MOST_BOOKS:
            books.setdefault(book, Counts()).add(counts)

    def booked(self, days: Set[str]) -> Counts:
        """All that ended runs used on these days."""
        return sum_of(self.days[day] for day in days & self.days.keys())

    def used(self, span: Span) -> Counts:
        """What counts as used in a window; what is held by open runs is not part of it."""
        counts, off = self.booked(span.days), self.forgiven.get(span.key)
        # Never less than nothing, whatever somebody has written into the file.
        return counts if off is None else Counts(*(max(0, figure) for figure in _figures(counts.minus(off))))

    def held(self, span: Span | None = None) -> Counts:
        """What open runs hold in a window, or altogether."""
        total = Counts()
        for each in self.open.values():
            if span is None or each.day in span.days:
                total.requests += each.requests
                total.input_tokens += each.input_tokens
                total.output_tokens += each.output_tokens
                total.cost_micro += each.cost_micro
        return total

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
        kept: tuple[tuple[dict[str, Any], int], ...] = (
            (self.days, KEPT_DAYS),
            (self.forgiven, KEPT_DAYS),
            (self.books, BOOKED_DAYS),
        )
        for windows, most in kept:
            for window in sorted(windows)[:-most]:
                del windows[window]


# --- records -------------------------------------------------------------------------------------


class Reserve(msgspec.Struct, frozen=True, tag_field="kind", tag="reserve"):
    """A run was admitted; or one that had been goes on with another credential."""

    reservation: Reservation


class Settle(RunRecord, frozen=True, tag_field="kind", tag="settle", kw_only=True):
    """A run has ended and used what its line says. `day` is that of its reservation."""

    day: str


class Void(RunRecord, frozen=True, tag_field="kind", tag="void"):
    """The line of a request that used nothing: it was refused, or never reached a CLI. What it held is free again,
    and it still counts for the pace if it was admitted."""


class Correct(RunRecord, frozen=True, tag_field="kind", tag="correct", kw_only=True):
    """What a run really used that was settled as assumed while it went on: `held` was booked in its place."""

    held: Reservation


class Release(msgspec.Struct, frozen=True, tag_field="kind", tag="release"):
    """What a run held is free again, and it was never there: it has no line, and does not count for the pace."""

    id: str
    key: str


class Reset(msgspec.Struct, frozen=True, tag_field="kind", tag="reset"):
    """An admin set what counts as used in the windows of this day to zero."""

    key: str
    day: str


class Import(msgspec.Struct, frozen=True, tag_field="kind", tag="import"):
    """Usage of a day was taken over from another program. A day that has usage already stays as it is."""

    key: str
    day: str
    counts: Counts


Record = Reserve | Settle | Void | Correct | Release | Reset | Import
_decoder: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)


def decode(line: bytes) -> Record:
    """The record of a line. Raises msgspec.DecodeError."""
    return _decoder.decode(line)


def void(line: RunRecord) -> bytes:
    """A line that counts nothing, as a record."""
    return msgspec.json.encode(Void(*msgspec.structs.astuple(line)))


def assumed(reservation: Reservation) -> RunRecord:
    """The line of a run that ended with its process: all that it held counts as used."""
    return RunRecord(
        id=reservation.id,
        timestamp=iso(reservation.at),
        key_name=reservation.key_name,
        provider=reservation.provider,
        model=reservation.model,
        api="native",
        status=502,
        code="cli_failed",
        error="The bridge stopped in the middle of this request.",
        input_tokens=reservation.input_tokens,
        output_tokens=reservation.output_tokens,
        cost_usd=reservation.cost_micro / MICRO,
        reserved_usd=reservation.cost_micro / MICRO,
        assumed=True,
        credential=None if reservation.credential is None else credential_name(reservation.credential),
    )


def credential_name(id: str) -> str:
    """The name that a credential had when it got its id: `claude/default`, `team`, `team.2` for a second one."""
    return id.rpartition("/")[2].partition(".")[0]


class Figures(msgspec.Struct):
    """All tallies: of the keys by their names, and of the credentials by their ids."""

    tallies: dict[str, Tally] = {}
    credentials: dict[str, Tally] = {}


def apply(figures: Figures, record: Record) -> None:
    """Change the tallies by one record. A second end of the same run changes nothing."""
    tallies = figures.tallies
    match record:
        case Reserve(reservation):
            tally = tallies.setdefault(reservation.key_name, Tally())
            before = tally.open.get(reservation.id)
            _let_go(figures, before)
            tally.open[reservation.id] = reservation
            if before is None:
                tally.note_recent(reservation.id, reservation.at)
                tally.last_used_at = reservation.at
            if reservation.credential is not None:
                paying = figures.credentials.setdefault(reservation.credential, Tally())
                paying.open[reservation.id] = reservation
                paying.last_used_at = reservation.at
        case Settle():
            tally = tallies.setdefault(record.key_name, Tally())
            held = tally.open.pop(record.id, None)
            if held is not None:
                counts = _counts_of(record)
                tally.enter(record.day, book_of(record), counts)
                _let_go(figures, held)
                if held.credential is not None:
                    figures.credentials[held.credential].days.setdefault(record.day, Counts()).add(counts)
        case Correct(held=held):
            tally = tallies.setdefault(record.key_name, Tally())
            wrong, counts = assumed(held), _counts_of(record)
            tally.enter(held.day, book_of(wrong), Counts().minus(_counts_of(wrong)))
            tally.enter(held.day, book_of(record), counts)
            if held.credential is not None:
                paid = figures.credentials.setdefault(held.credential, Tally())
                paid.days.setdefault(held.day, Counts()).add(counts.minus(_counts_of(wrong)))
        case Void():
            if record.key_name in tallies:
                _let_go(figures, tallies[record.key_name].open.pop(record.id, None))
        case Release(id, key):
            tally = tallies.setdefault(key, Tally())
            held = tally.open.pop(id, None)
            if held is not None:
                tally.recent.pop(id, None)
                _let_go(figures, held)
        case Reset(key, day):
            tally = tallies.setdefault(key, Tally())
            for span in spans_of(day).values():
                tally.forgiven[span.key] = tally.booked(span.days)
        case Import(key, day, counts):
            tallies.setdefault(key, Tally()).days.setdefault(day, counts)


def _let_go(figures: Figures, held: Reservation | None) -> None:
    """Let the credential of a reservation hold it no longer."""
    if held is not None and held.credential is not None:
        figures.credentials.setdefault(held.credential, Tally()).open.pop(held.id, None)


def book_of(line: RunRecord) -> str:
    """Where a run is booked by model: provider, model and, if one is named, credential, with spaces between them."""
    return " ".join(filter(None, (line.provider, line.model, line.credential)))


def _counts_of(line: RunRecord) -> Counts:
    cost_micro = round(line.cost_usd * MICRO)
    return Counts(
        requests=1,
        errors=int(line.code is not None),
        **msgspec.structs.asdict(line.usage),
        cost_micro=cost_micro,
        assumed_micro=cost_micro if line.assumed else 0,
    )


# --- the seam ------------------------------------------------------------------------------------


class Tallies(Protocol):
    """Where tallies are kept. What a call has changed is durable when it returns.

    Each raises BridgeError storage_failed where that did not work. An end of a run (`settle`, `release`) then
    counts all the same from now on, and is saved as soon as it can be: the money was spent.
    """

    @property
    def owner(self) -> str:
        """What a reservation of this process carries."""

    @property
    def writable(self) -> bool:
        """Whether the last write worked. Where it did not, `admit` raises until one does."""

    def admit(self, key_name: str, decide: Callable[[Tally, Mapping[str, Tally]], Reservation]) -> Reservation:
        """Hold what `decide` makes of a key's tally and those of the credentials, in one step: no two admissions see
        the same money.

        `decide` is a pure function. Raises what it raises, or storage_failed; then nothing is held.
        """

    def move(self, held: Reservation, decide: Callable[[Mapping[str, Tally]], str | None]) -> Reservation:
        """Let a run that holds something hold it of the credential whose id `decide` finds in the tallies of the
        credentials, or of none, in one step like `admit`; its reservation then. Raises storage_failed; it is moved
        all the same then."""

    def settle(self, line: RunRecord) -> None:
        """Put what a run used, by its line of the log, in the place of what it held. A second time does nothing."""

    def release(self, reservation: Reservation, line: RunRecord | None = None) -> None:
        """Give back all that a run held, the request too. With a line it is in the log, and counts for the pace."""

    def note(self, line: RunRecord) -> None:
        """Put the line of a request that was refused into the log, soon: it counts nothing. Never raises, and a
        line may be lost where the disk fails: that is no reason to fail a refusal."""

    def reset(self, key_name: str, day: str) -> None:
        """Let what a key has used in the windows of a day count as nothing. Its history stays, and what it holds."""

    def take_over(self, key_name: str, day: str, counts: Counts) -> None:
        """Book a day's usage from elsewhere, unless the key has some on that day already."""

    def orphans(self) -> set[str]:
        """The owners of what is held by processes that are gone. Raises storage_failed."""

    def recover(self, owner: str) -> None:
        """Settle what the runs of a process hold that is gone: all of it, as assumed, with a line each."""

    def tally(self, key_name: str) -> Tally:
        """The tally of a key, to look at; an empty one where it never used anything."""

    def all(self) -> Mapping[str, Tally]:
        """Every tally by the key's name, to look at."""

    def credentials(self) -> Mapping[str, Tally]:
        """The tally of every credential by its id, to look at."""

    def snapshot(self) -> bytes:
        """All of them at one moment, for a backup, as usage.json would hold it."""

    def close(self) -> None:
        """Save what is to be saved. Never raises for the disk: what was confirmed is on it."""


# --- with files ----------------------------------------------------------------------------------


class Snapshot(Figures):
    """usage.json: the tallies after record `seq`, which ends `offset` bytes into `file` of logs/."""

    schema: int = 1
    seq: int = 0
    file: str = ""
    offset: int = 0
    #: the id of the last record of the journal that nodes share; empty without one
    shared: str = ""

    @property
    def position(self) -> Position:
        """Where the records begin that it does not have."""
        return Position(self.seq, self.file, self.offset)

    def check(self, folder: Path) -> None:
        """Raise StoreError where the logs in `folder` end before the place of this snapshot."""
        if self.file:
            path = folder / self.file
            if not path.exists():
                raise StoreError(f"logs/{self.file} is missing.", REPAIR_HINT)
            if path.stat().st_size < self.offset:
                raise StoreError(f"logs/{self.file} lacks lines that usage.json has counted.", REPAIR_HINT)


class _Followed(msgspec.Struct):
    """Of a record in logs/: its id in the journal that nodes share."""

    shared: str = ""


_SHARED = b'"shared":"'


class FileTallies:
    """Tallies in memory, whose every change is in the journal before it is confirmed.

    Memory is changed first and decides. A write that fails closes the books: later attempts, one a second at
    most, write what the journal is owed, and open them again when that works.
    """

    def __init__(self, store: Store, clock: Clock, zone: tzinfo) -> None:
        """Read the snapshot and what came after it. Raises StoreError where they cannot be trusted."""
        self._clock = clock
        self._document = store.document("usage.json")
        folder = store.folder / "logs"
        try:
            snapshot = msgspec.convert(self._document.load() or {}, Snapshot)
        except msgspec.ValidationError as error:
            raise StoreError(f"usage.json is damaged: {error}.", REPAIR_HINT) from None
        snapshot.check(folder)
        #: the request log; others may append lines that count nothing
        self.journal = DayJournal(folder, lambda: day_of(clock.now(), zone))
        snapshot.check(folder)  # what was torn is cut off now
        self._figures = Figures(snapshot.tallies, snapshot.credentials)
        self.owner = secrets.token_hex(8)
        #: the id of the last record of the journal that nodes share, as far as this one has it
        self.shared = snapshot.shared
        self.journal.seq = self._replay(snapshot.position)
        self._saving = BoundedSemaphore(1)
        self._due = False
        self._files = (snapshot.file, snapshot.file)
        self._next_try = 0.0

    @property
    def writable(self) -> bool:
        """Whether the last write worked."""
        return not (self.journal.failed or self.journal.moved)

    @property
    def oldest_file(self) -> str:
        """The first file of the journal that a replay could need, from the last snapshot or the one before it."""
        return min(self._files)

    def admit(self, key_name: str, decide: Callable[[Tally, Mapping[str, Tally]], Reservation]) -> Reservation:
        """See Tallies."""
        self.ensure_writable()
        # From here until the record is applied there is no switch to another greenlet.
        reservation = decide(self.tally(key_name), self._figures.credentials)
        try:
            self._write(Reserve(reservation))
        except BaseException:
            # The disk failed, or the caller was killed while waiting for it and will never settle.
            self._append(Release(reservation.id, key_name))
            raise
        return reservation

    def move(self, held: Reservation, decide: Callable[[Mapping[str, Tally]], str | None]) -> Reservation:
        """See Tallies."""
        self.ensure_writable()
        credential = decide(self._figures.credentials)
        own = self.tally(held.key_name).open.get(held.id)
        if own is None or own.credential == credential:
            return own or held
        moved = msgspec.structs.replace(own, credential=credential)
        self._write(Reserve(moved))
        return moved

    def settle(self, line: RunRecord) -> None:
        """See Tallies."""
        held = self.tally(line.key_name).open.get(line.id)
        if held is not None:
            self._write(settlement(line, held))

    def release(self, reservation: Reservation, line: RunRecord | None = None) -> None:
        """See Tallies."""
        if reservation.id in self.tally(reservation.key_name).open:
            if line is None:
                self._write(Release(reservation.id, reservation.key_name))
            else:
                self._write(Void(*msgspec.structs.astuple(line)))

    def note(self, line: RunRecord) -> None:
        """See Tallies."""
        try:
            self.ensure_writable()
        except BridgeError as error:
            log.warning("the line of %s could not be written to the log: %s", line.id, error.message)
        else:
            self.journal.append(void(line), lazily=True)

    def reset(self, key_name: str, day: str) -> None:
        """See Tallies."""
        self._write(Reset(key_name, day))

    def take_over(self, key_name: str, day: str, counts: Counts) -> None:
        """See Tallies."""
        self._write(Import(key_name, day, counts))

    def orphans(self) -> set[str]:
        """See Tallies."""
        return owners_of(self._figures) - {self.owner}

    def recover(self, owner: str) -> None:
        """See Tallies."""
        for tally in self._figures.tallies.values():
            for each in [each for each in tally.open.values() if each.owner == owner]:
                self._append(settlement(assumed(each), each))
        self.journal.sync()

    def tally(self, key_name: str) -> Tally:
        """See Tallies."""
        return self._figures.tallies.get(key_name) or Tally()

    def all(self) -> Mapping[str, Tally]:
        """See Tallies."""
        return self._figures.tallies

    def credentials(self) -> Mapping[str, Tally]:
        """See Tallies."""
        return self._figures.credentials

    def snapshot(self) -> bytes:
        """See Tallies."""
        try:
            figures, position = self.journal.capture(self._encode)
        except BridgeError:  # a full disk is no reason for no backup
            figures, position = self._encode(), self.journal.position
        return msgspec.json.encode({"schema": self._document.schema, **_content(figures, position)})

    def save(self) -> None:
        """Save a snapshot. Raises BridgeError storage_failed."""
        with self._saving:
            figures, position = self.journal.capture(self._encode)
            self._document.save(_content(figures, position))
            self._files = (self._files[1], position.file)

    # What follows a journal that nodes share, see replica.py.

    def follow(self, body: bytes, shared: str) -> Record:
        """Count the next record of the journal that nodes share, at once, and write it to this one soon. Raises
        msgspec.DecodeError; never switches greenlets."""
        record = decode(body)
        apply(self._figures, record)
        self.shared = shared
        self.journal.append(b'%s,"shared":"%s"}' % (body[:-1], shared.encode()), lazily=True)
        self._save_if_due()
        return record

    def adopt(self, figures: Figures, shared: str) -> None:
        """Take figures of elsewhere in the place of its own, and save them. Raises BridgeError storage_failed."""
        self._figures, self.shared = figures, shared
        self.save()

    @property
    def figures(self) -> Figures:
        """All of them, to look at."""
        return self._figures

    def close(self) -> None:
        """See Tallies."""
        for step in (self._recover, self.save, self.journal.close):
            with contextlib.suppress(BridgeError):
                step()

    def _append(self, record: Record) -> Any:
        apply(self._figures, record)
        return self.journal.append(msgspec.json.encode(record))

    def _write(self, record: Record) -> None:
        """Apply a record, at once, and wait until it is on the disk. Raises BridgeError storage_failed; it is
        applied all the same then, and owed to the journal."""
        ticket = self._append(record)
        self._save_if_due()
        try:
            self.journal.commit(ticket)
        except BridgeError:
            self.ensure_writable()

    def ensure_writable(self) -> None:
        """After a write has failed, try again. Does not switch greenlets where none has.

        Raises BridgeError storage_failed where the disk still does not work.
        """
        if not self.writable:
            if self._clock.monotonic() < self._next_try:
                self.journal.refuse_if_failed()
                raise storage_failed(OSError(ESTALE, ""))
            try:
                unbroken(self._recover)
            except BridgeError:
                self._next_try = self._clock.monotonic() + _RETRY_S
                raise

    def _recover(self) -> None:
        self.journal.reopen()
        if self.journal.moved:
            # What was in the old file is only in memory now.
            self.save()
            self.journal.moved = False

    def _save_if_due(self) -> None:
        if not self._due and self._has_grown():
            self._due = True
            gevent.spawn(self._save_quietly)

    def _has_grown(self) -> bool:
        """Whether so much came since the last snapshot that it is time for another; each day begins with one."""
        journal = self.journal
        long = journal.lines >= SNAPSHOT_LINES or journal.bytes >= SNAPSHOT_BYTES
        return long or journal.path.name != self._files[1]

    def _save_quietly(self) -> None:
        try:
            self.save()
        except BridgeError:
            pass  # the journal grows on, and the next write tries again
        finally:
            self._due = False

    def _encode(self) -> dict[str, msgspec.Raw]:
        both = {"tallies": self._figures.tallies, "credentials": self._figures.credentials}
        for tallies in both.values():
            for tally in tallies.values():
                tally.prune()
        whole: dict[str, Any] = {**both, **({"shared": self.shared} if self.shared else {})}
        return {name: msgspec.Raw(msgspec.json.encode(part)) for name, part in whole.items()}

    def _replay(self, after: Position) -> int:
        """Apply the records that the snapshot does not have yet; the number of the last one."""
        seq = after.seq
        for seq, line in enumerate(read_forwards(day_files(self.journal.folder), after), start=after.seq + 1):
            try:
                apply(self._figures, decode(line))
                if _SHARED in line:
                    self.shared = msgspec.json.decode(line, type=_Followed).shared or self.shared
            except msgspec.DecodeError as error:
                raise StoreError(f"The log is damaged at record {seq}: {error}.", REPAIR_HINT) from None
        return seq


def owners_of(figures: Figures) -> set[str]:
    """Whose reservations there are."""
    return {each.owner for tally in figures.tallies.values() for each in tally.open.values()}


def settlement(line: RunRecord, held: Reservation) -> Settle:
    """The line of a run as the record that settles it."""
    return Settle(*msgspec.structs.astuple(line), day=held.day)


def _content(figures: dict[str, msgspec.Raw], position: Position) -> dict[str, Any]:
    return {"seq": position.seq, "file": position.file, "offset": position.offset, **figures}
