"""Tallies that several nodes share: one journal on a server, and a copy of all that it says on each node.

Every node applies the records of all nodes in the order of the shared journal, in memory and to its own data folder, so
that reading costs no call and each folder is complete. What a node writes is decided on its copy, by the functions that
decide on one host, and taken by the server only where nobody else has taken something of the same key (and the same
credential, where that is bounded) since: compare and set. Otherwise the node reads on and decides again, and the others
wait for it.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import logging
import random
import secrets
import socket
import zlib
from collections.abc import Callable, Mapping
from datetime import tzinfo
from typing import Any

import gevent
import gevent.monkey
import msgspec
from gevent.lock import BoundedSemaphore

from bridge.clock import Clock
from bridge.errors import BridgeError, StoreError
from bridge.ledger.pricing import PriceTable
from bridge.ledger.tallies import (
    Correct,
    Counts,
    Figures,
    FileTallies,
    Import,
    Record,
    Release,
    Reservation,
    Reserve,
    Reset,
    Settle,
    Tally,
    Void,
    apply,
    assumed,
    owners_of,
    settlement,
    void,
)
from bridge.limits import MICRO
from bridge.settings import Settings
from bridge.store.folder import CLUSTER_FILE, Store
from bridge.store.redis import RETRY_S, Cluster, name, persistence_of, unreachable
from bridge.types import RunRecord

#: Seconds between two looks at the journal, and how long one waits for something that is new there.
LOOK_S, NEWS_S = 0.02, 0.25
#: Records that are read at once.
AT_ONCE = 1000
#: How long a request tries to decide where other nodes write about the same key, and the longest pause between two
#: decisions, in seconds.
CONTENDED_S, LONGEST_PAUSE_S = 5.0, 0.02
#: How long the end of a run is tried before its client hears of it, in seconds.
PATIENCE_S = 30.0
#: Lines of refused requests that are kept while they cannot be written.
MOST_NOTES = 10_000
#: All figures are put on the server after so many records, and so many records are kept for nodes that are behind.
PUBLISHED_RECORDS, KEPT_RECORDS = 10_000, 100_000
#: Before the first record.
NOTHING = "0-0"

_NO_DATA = (
    "The shared store lacks what it had confirmed to this node: it lost data, or is another one.",
    "Look at its Redis before anything else; 'Lost data' in docs/cluster.md says what the ways out are.",
)

log = logging.getLogger("bridge")


class Membership(msgspec.Struct, frozen=True):
    """cluster.json: the cluster that a data folder belongs to, and by what the folder is known there."""

    id: str
    place: str


def open_cluster(settings: Settings, store: Store, clock: Clock, prices: PriceTable) -> Cluster:
    """Take part in the cluster of BRIDGE_STORE_URL with a data folder.

    Raises StoreError where server, folder or settings do not fit, and BridgeError storage_failed where the server
    does not answer.
    """
    cluster = Cluster(settings.store_url or "", settings.node or socket.gethostname(), clock, settings.network)
    try:
        problem = persistence_of(cluster).problem
        if problem is not None:
            raise StoreError(problem, "docs/cluster.md has a configuration that fits.")
        document = store.document(CLUSTER_FILE)
        content = document.load()
        known = None if content is None else msgspec.convert(content, Membership)
        if known is None and _has_books(store):
            raise StoreError(
                "This data folder has keys or usage of its own, which are not those of the cluster.",
                "Start with an empty folder; or make a new cluster of this one: 'cli-bridge cluster init --from-data'.",
            )
        cluster.id = "" if known is None else known.id
        place = secrets.token_hex(8) if known is None else known.place
        cluster.join(place, digest_of(prices, settings))
        if known is None:
            document.save(msgspec.to_builtins(Membership(cluster.id, place)))
    except BaseException:
        cluster.close()
        raise
    return cluster


def digest_of(prices: PriceTable, settings: Settings) -> str:
    """What must be the same on all nodes, because caps would differ: prices, time zone and default limits."""
    whole = (prices.digest, str(settings.zone), sorted(settings.default_limits.items()))
    return hashlib.sha256(repr(whole).encode()).hexdigest()[:16]


def _has_books(store: Store) -> bool:
    usage, keys = (store.document(name).load() or {} for name in ("usage.json", "keys.json"))
    return bool(usage.get("tallies") or keys.get("keys") or any((store.folder / "logs").glob("*.jsonl")))


class _Change(msgspec.Struct, frozen=True):
    """A record on its way to the server: what is checked there, and what it is about."""

    record: Record
    check: str
    run: str = ""
    about: tuple[str, ...] = ()
    compared: int = 0
    #: whether less counts with it, so that who has not read it yet decides no worse
    lowers: bool = False


class SharedTallies:
    """Tallies of all nodes of a cluster. See the module."""

    def __init__(self, cluster: Cluster, store: Store, clock: Clock, zone: tzinfo) -> None:
        """Take up where this node's folder ends. Raises StoreError where the server has less than that, and
        BridgeError storage_failed."""
        self._cluster = cluster
        self._clock = clock
        self._own = FileTallies(store, clock, zone)
        #: this node's request log
        self.journal = self._own.journal
        #: whether anything bounds a credential, by its id: only then its runs are admitted one after the other
        self.bounded: Callable[[str], bool] = lambda id: True
        #: called with each line of the log that another node wrote; must not block or raise
        self.on_line: Callable[[RunRecord], None] = lambda line: None
        self.patience_s = PATIENCE_S
        #: what is being admitted or moved, by the run's id; the server has not answered yet
        self._pending: dict[str, Reserve] = {}
        #: ends that the server does not have yet; they count here already
        self._owed: dict[str, _Change] = {}
        #: what the runs of this process hold, and what those held that another node has ended meanwhile
        self._mine: dict[str, Reservation] = {}
        self._assumed: dict[str, Reservation] = {}
        #: lines of refused requests that are in no journal yet
        self._notes: dict[bytes, None] = {}
        self._reading, self._refreshing = BoundedSemaphore(1), BoundedSemaphore(1)
        self._changes = -1
        self._published = 0
        self._begin()
        self._keeper = gevent.spawn(self._keep_up)

    # --- the seam --------------------------------------------------------------------------------

    @property
    def owner(self) -> str:
        """See Tallies."""
        return self._cluster.owner

    @property
    def writable(self) -> bool:
        """See Tallies."""
        return self._own.writable and self._cluster.trouble is None and not self._owed

    @property
    def oldest_file(self) -> str:
        """See FileTallies."""
        return self._own.oldest_file

    def admit(self, key_name: str, decide: Callable[[Tally, Mapping[str, Tally]], Reservation]) -> Reservation:
        """See Tallies."""
        self._own.ensure_writable()
        self._pay()
        fresh, until = False, self._clock.monotonic() + CONTENDED_S
        while self._clock.monotonic() < until:
            # From here until it is pending there is no switch to another greenlet.
            try:
                reservation = decide(self.tally(key_name), self.credentials())
            except BridgeError:
                if fresh:
                    raise
                # Others may have ended meanwhile what stands in the way.
                self._read()
                fresh = True
                continue
            about, compared = self._about(reservation)
            self._pending[reservation.id] = Reserve(reservation)
            try:
                change = _Change(Reserve(reservation), "new", reservation.id, about, compared)
                if self._send(change):
                    self._mine[reservation.id] = reservation
                    return reservation
            finally:
                # Where nobody waits for it any more, whoever reads it in the journal gives it back.
                self._pending.pop(reservation.id, None)
        raise unreachable("too many hosts write about one key")

    def move(self, held: Reservation, decide: Callable[[Mapping[str, Tally]], str | None]) -> Reservation:
        """See Tallies."""
        self._own.ensure_writable()
        fresh, until = False, self._clock.monotonic() + CONTENDED_S
        while self._clock.monotonic() < until:
            credential = decide(self.credentials())
            own = self.tally(held.key_name).open.get(held.id)
            if own is None or own.credential == credential:
                if fresh or own is None or credential is None:
                    return own or held
                self._read()
                fresh = True
                continue
            moved = msgspec.structs.replace(own, credential=credential)
            about = tuple(f"c:{id}" for id in (credential, own.credential) if id is not None)
            compared = int(credential is not None and self.bounded(credential))
            change = _Change(Reserve(moved), "open", held.id, (*about, f"k:{held.key_name}"), compared)
            self._pending[held.id] = Reserve(moved)
            try:
                if self._send(change):
                    if held.id in self._mine:
                        self._mine[held.id] = moved
                    return moved
            except BridgeError:
                self._owed[held.id] = msgspec.structs.replace(change, compared=0)
                raise
            finally:
                self._pending.pop(held.id, None)
        raise unreachable("too many hosts write about one credential")

    def settle(self, line: RunRecord) -> None:
        """See Tallies."""
        held = self.tally(line.key_name).open.get(line.id)
        if held is not None or line.id in self._assumed:
            held = held or self._assumed[line.id]
            self._end(held, settlement(line, held), self.patience_s)

    def release(self, reservation: Reservation, line: RunRecord | None = None) -> None:
        """See Tallies."""
        if reservation.id in self.tally(reservation.key_name).open or reservation.id in self._assumed:
            gone = Release(reservation.id, reservation.key_name)
            # Without a line, its client waits for a refusal: nothing was spent that it must be told of.
            if line is None:
                self._end(reservation, gone, patience_s=0)
            else:
                self._end(reservation, Void(*msgspec.structs.astuple(line)), self.patience_s)

    def note(self, line: RunRecord) -> None:
        """See Tallies."""
        if len(self._notes) < MOST_NOTES:
            self._notes[void(line)] = None

    def reset(self, key_name: str, day: str) -> None:
        """See Tallies."""
        self._pay()
        self._send(_Change(Reset(key_name, day), "any", about=(f"k:{key_name}",)))

    def take_over(self, key_name: str, day: str, counts: Counts) -> None:
        """See Tallies."""
        self._send(_Change(Import(key_name, day, counts), "any", about=(f"k:{key_name}",)))

    def orphans(self) -> set[str]:
        """See Tallies."""
        # What this process held before it was taken for dead is settled by others, or by its runs.
        found = owners_of(self._own.figures) - self._cluster.lives
        if any(not self._cluster.alive(owner) for owner in found):
            # Asked again, after what is held was looked at: who joined since is alive.
            self._cluster.beat()
        return {owner for owner in found if not self._cluster.alive(owner)}

    def recover(self, owner: str) -> None:
        """See Tallies."""
        for tally in list(self._own.figures.tallies.values()):
            for each in [each for each in tally.open.values() if each.owner == owner]:
                line = assumed(each)
                change = _Change(settlement(line, each), "assume", each.id, self._about(each)[0], lowers=True)
                if self._send(change):
                    log.warning("%s of a host that is gone is charged all that it had reserved", each.id)
                    self.on_line(line)

    def sweep(self) -> None:
        """Settle what nodes have left behind that were silent for longer than their lease. Never raises."""
        try:
            for owner in self.orphans():
                self.recover(owner)
        except BridgeError:
            pass  # the next beat tries again

    def tally(self, key_name: str) -> Tally:
        """See Tallies."""
        owed = [each.record for each in self._owed.values() if f"k:{key_name}" in each.about]
        held = [each for each in self._pending.values() if each.reservation.key_name == key_name]
        if not (owed or held):
            return self._own.tally(key_name)
        return self._with([*held, *owed], deep=bool(owed)).tallies[key_name]

    def all(self) -> Mapping[str, Tally]:
        """See Tallies."""
        if not self._owed:
            return self._own.all()
        return self._with([each.record for each in self._owed.values()], deep=True).tallies

    def credentials(self) -> Mapping[str, Tally]:
        """See Tallies."""
        if not (self._owed or self._pending):
            return self._own.credentials()
        records = [*self._pending.values(), *(each.record for each in self._owed.values())]
        return self._with(records, deep=bool(self._owed)).credentials

    def snapshot(self) -> bytes:
        """See Tallies."""
        return self._own.snapshot()

    def save(self) -> None:
        """See FileTallies."""
        self._own.save()

    def sync(self) -> None:
        """Have all that any node has written by now in this node's log. Raises BridgeError storage_failed."""
        self._write_notes()
        self._read_to(int(self._cluster.command("GET", name("seq")) or 0))
        self.journal.sync()

    def close(self) -> None:
        """See Tallies. Its cluster is closed as well."""
        self._keeper.kill()
        for step in (self._pay, self.sync, self._publish):
            try:
                step()
            except BridgeError:
                break  # what is not confirmed is settled by others
        self._own.close()
        self._cluster.close()

    def detach(self) -> None:
        """Close, with a folder that has all of it and follows no journal. Raises BridgeError storage_failed."""
        self._keeper.kill()
        self.sync()
        self._own.adopt(self._own.figures, "")
        self._own.close()
        self._cluster.close()

    # --- writing ---------------------------------------------------------------------------------

    def _about(self, held: Reservation) -> tuple[tuple[str, ...], int]:
        """What a reservation is about, and how much of that must be known for it."""
        key, credential = f"k:{held.key_name}", held.credential
        if credential is None:
            return (key,), 1
        return (key, f"c:{credential}"), 2 if self.bounded(credential) else 1

    def _send(self, change: _Change) -> bool:
        """Put a record into the journal, and apply it; False where the server says that it does not fit any more: the
        run has ended, or others have written about the same. All that it knows is read then.

        Raises BridgeError storage_failed; it may be in the journal then.
        """
        body = msgspec.json.encode(change.record)
        while True:
            owner = self.owner
            how = (owner, self._cluster.seq, change.check, change.run, body, change.compared)
            state, *rest = self._cluster.call("cb_write", *how, *(() if change.lowers else change.about))
            match state:
                case b"ok":
                    self._refresh(int(rest[1]))
                    self._take(rest[0].decode(), body)
                    return True
                case b"gone":
                    self._read_to(int(rest[0]))
                    return False
                case b"conflict":
                    self._read()
                    return False
                case b"wait":
                    gevent.sleep(random.uniform(0, LONGEST_PAUSE_S))
                    return False
                case b"lost":
                    raise self._lost()
            # Fenced: another has taken this node for dead. What it does from now on, it does in a new life.
            if owner == self.owner:
                self._begin_anew()
            if change.check == "new":
                return False

    def _begin_anew(self) -> None:
        try:
            self._cluster.beat()
        except StoreError as error:
            self._cluster.close_for_good(error.message, error.hint)
            raise BridgeError("storage_failed", error.message, retry_after=60) from None

    def _end(self, held: Reservation, record: Settle | Void | Release, patience_s: float) -> None:
        """Write the end of a run, for a while until it works. Raises BridgeError storage_failed; it is owed then."""
        change = _Change(record, "end", held.id, self._about(held)[0], lowers=_lowers(record, held))
        until = self._clock.monotonic() + patience_s
        while True:
            try:
                self._finish(change)
                return
            except BridgeError:
                self._owed[change.run] = change  # it counts here from now on
                if self._clock.monotonic() >= until:
                    raise
            gevent.sleep(RETRY_S)
            if change.run not in self._owed:
                return

    def _finish(self, change: _Change) -> None:
        """Write what ends a run; where another node has taken this one for dead and ended it, what is right."""
        if not self._send(change) and change.run in self._assumed:
            held = self._assumed[change.run]
            correct = Correct(**_line_of(change.record, held), held=held)
            self._send(_Change(correct, "correct", held.id, change.about))
            del self._assumed[change.run]
            log.warning("%s was charged what it had reserved while this host was silent; that is put right", change.run)
        self._mine.pop(change.run, None)
        self._owed.pop(change.run, None)

    def _pay(self) -> None:
        """Write what is owed. Raises BridgeError storage_failed."""
        for run, change in list(self._owed.items()):
            if run in self._owed:
                if change.check == "end":
                    self._finish(change)
                else:
                    self._send(change)
                    if self._owed.get(run) is change:  # the run may have ended meanwhile, and owe that
                        del self._owed[run]

    def _write_notes(self) -> None:
        """Write the lines of refused requests; what is not taken is kept for the next time. Raises BridgeError
        storage_failed; what was taken all the same is found in the journal."""
        while self._notes:
            notes = dict.fromkeys(itertools.islice(self._notes, AT_ONCE))
            self._notes = {body: None for body in self._notes if body not in notes}
            words = ("FCALL", "cb_write", 1, name(), self.owner, 0, "any", "")
            try:
                answers = self._cluster.pipe([(*words, body, 0) for body in notes])
            except BridgeError:
                self._notes = notes | self._notes
                raise
            left = {body: None for body, (state, *_) in zip(notes, answers, strict=True) if state != b"ok"}
            if left:
                # Taken for dead: the next beat begins another life.
                self._notes = left | self._notes
                return

    def _refresh(self, changes: int) -> None:
        """Read documents that others have changed, before what relies on them is confirmed."""
        if changes != self._changes:
            with self._refreshing:
                if changes > self._changes:
                    self._cluster.on_change()
                    self._changes = changes

    # --- reading ---------------------------------------------------------------------------------

    def _begin(self) -> None:
        """See that the server has all that this node has, and read the rest."""
        last = int(self._cluster.command("GET", name("seq")) or 0)
        if _number(self._own.shared or NOTHING) > last:
            raise StoreError(*_NO_DATA)
        if not self._own.shared:
            self._adopt()
        self._cluster.seq = _number(self._own.shared)
        try:
            self._read_to(last)
        except BridgeError:
            if self._cluster.closed is not None:
                raise self._cluster.closed from None
            raise

    def _adopt(self) -> None:
        """Take the figures that the server has: for a new node, and for one that was away for too long."""
        id, packed = self._cluster.command("HMGET", name("snapshot"), "id", "figures")
        if id is None:
            raise self._lost()
        figures = msgspec.json.decode(zlib.decompress(packed), type=Figures)
        self._own.adopt(figures, id.decode())
        self._cluster.seq = _number(self._own.shared)

    def _keep_up(self) -> None:
        """Read what others write, and write what is owed, until `close`."""
        while True:
            gevent.sleep(LOOK_S)
            try:
                self._await_news()
                self._read()
                self._pay()
                self._write_notes()
                if self._cluster.seq - self._published >= PUBLISHED_RECORDS:
                    self._publish()
            except BridgeError:
                gevent.sleep(RETRY_S)

    def _await_news(self) -> None:
        """Wait until there are records that this node does not have, for a while; not at all where a wait would hold
        up all greenlets."""
        if gevent.monkey.is_module_patched("socket") and not (self._owed or self._notes):
            journal, had = name("journal"), self._own.shared
            self._cluster.command("XREAD", "COUNT", 1, "BLOCK", round(NEWS_S * 1000), "STREAMS", journal, had)

    def _read_to(self, seq: int) -> None:
        while self._cluster.seq < seq:
            self._read(seq)

    def _take(self, id: str, body: bytes) -> None:
        """Apply a record of this node, after all that came before it."""
        seq = _number(id)
        self._read_to(seq - 1)
        if self._cluster.seq < seq:
            self._follow(id, body, self.owner)

    def _read(self, needed: int | None = None) -> None:
        """Read on from where this node is; not at all where `needed` has been read meanwhile."""
        with self._reading:
            if needed is not None and self._cluster.seq >= needed:
                return
            had = self._own.shared
            first = "-" if had == NOTHING else had
            rows = self._cluster.command("XRANGE", name("journal"), first, "+", "COUNT", AT_ONCE)
            entries = [(id.decode(), dict(zip(fields[::2], fields[1::2], strict=True))) for id, fields in rows]
            if entries and _number(entries[0][0]) > _number(had) + (had == NOTHING):
                self._adopt()  # what this node has last, and what comes between, was cut off
                return
            if had != NOTHING and (not entries or entries[0][0] != had):
                raise self._lost()
            for id, fields in entries:
                seq = _number(id)
                # This node's own may have been applied while the answer was on its way.
                if seq > self._cluster.seq:
                    if seq != self._cluster.seq + 1:
                        raise self._lost()
                    self._follow(id, fields[b"r"], fields[b"o"].decode())

    def _follow(self, id: str, body: bytes, writer: str) -> None:
        """Apply the next record. Does not switch greenlets."""
        record = self._own.follow(body, id)
        self._cluster.seq = _number(id)
        mine = writer == self.owner
        match record:
            case Reserve(reservation) if mine:
                run = reservation.id
                if run not in self._pending and run not in self._mine and run not in self._owed:
                    # It was written after its caller had given up.
                    gone = Release(run, reservation.key_name)
                    self._owed[run] = _Change(gone, "end", run, self._about(reservation)[0], lowers=True)
            case Settle() if not mine and record.id in self._mine:
                self._assumed[record.id] = self._mine.pop(record.id)
            case Void() if body in self._notes:
                del self._notes[body]
            case Settle() | Void() if not mine:
                self.on_line(record)

    def _publish(self) -> None:
        """Put all figures on the server, for nodes that come new or were away, and let it cut its journal off."""
        figures = self._own.figures
        packed = zlib.compress(msgspec.json.encode(figures), 1)
        self._cluster.call("cb_snapshot", self._own.shared, packed, KEPT_RECORDS)
        self._published = self._cluster.seq

    def _lost(self) -> BridgeError:
        self._cluster.close_for_good(*_NO_DATA)
        return BridgeError("storage_failed", _NO_DATA[0], retry_after=60)

    # --- what is on its way ----------------------------------------------------------------------

    def _with(self, records: list[Any], *, deep: bool) -> Figures:
        """The figures with some records applied that are in no journal yet. Copies: of all that the records touch, or
        with `deep` of everything in these tallies."""
        own = self._own.figures
        figures = Figures(dict(own.tallies), dict(own.credentials))
        keys, ids = set[str](), set[str]()
        for record in records:
            keys.add(record.reservation.key_name if isinstance(record, Reserve) else _key_of(record))
        for key in keys:
            tally = figures.tallies.get(key, Tally())
            ids |= {each.credential for each in tally.open.values() if each.credential is not None}
            figures.tallies[key] = _copy(tally, deep=deep)
        paying = [each.reservation.credential for each in records if isinstance(each, Reserve)]
        ids |= {id for id in paying if id is not None}
        for id in ids:
            figures.credentials[id] = _copy(figures.credentials.get(id, Tally()), deep=deep)
        for record in records:
            apply(figures, record)
        return figures


def _copy(tally: Tally, *, deep: bool) -> Tally:
    if deep:
        return copy.deepcopy(tally)
    return msgspec.structs.replace(tally, open=dict(tally.open), recent=dict(tally.recent))


def _lowers(record: Settle | Void | Release, held: Reservation) -> bool:
    """Whether an end counts for no more than what was held, in anything that a cap bounds."""
    if not isinstance(record, Settle):
        return True
    return record.usage.total <= held.tokens and round(record.cost_usd * MICRO) <= held.cost_micro


def _key_of(record: Any) -> str:
    key: str = record.key if isinstance(record, Release) else record.key_name
    return key


def _line_of(record: Any, held: Reservation) -> dict[str, Any]:
    """The fields of the line of a run that has ended so; with Release, it used nothing."""
    if isinstance(record, Release):
        nothing = {"assumed": False, "input_tokens": 0, "output_tokens": 0, "cost_usd": 0.0}
        record = msgspec.structs.replace(assumed(held), **nothing)
    return {field: getattr(record, field) for field in RunRecord.__struct_fields__}


def _number(id: str) -> int:
    """The number of a record, by its id in the journal."""
    return int(id.partition("-")[0])
