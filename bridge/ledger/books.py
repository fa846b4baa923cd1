"""The accounts on disk: the snapshot usage.json, and the journal usage.jsonl of what came after it."""

from __future__ import annotations

import contextlib

import gevent
import msgspec

from bridge.clock import Clock
from bridge.errors import BridgeError, StoreError
from bridge.ledger.accounts import Account, Accounts, Record
from bridge.store.document import REPAIR_HINT
from bridge.store.files import unbroken
from bridge.store.folder import Store
from bridge.store.journal import Journal
from bridge.store.lines import read_forwards, seq_of

COMPACT_LINES = 20_000
COMPACT_BYTES = 16 * 2**20
_RETRY_S = 1.0


class Snapshot(msgspec.Struct):
    """usage.json: the accounts after record `seq`."""

    schema: int = 1
    seq: int = 0
    accounts: dict[str, Account] = {}


class Books:
    """Accounts whose every change is on the disk before it is confirmed.

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
        self.accounts = Accounts(snapshot.accounts)
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
        self.accounts.apply(record)
        self.ensure_open()
        ticket = self._journal.append(msgspec.json.encode(record))
        if self._journal.lines >= COMPACT_LINES or self._journal.size >= COMPACT_BYTES:
            self._compact_soon()
        self._journal.commit(ticket)

    def undo(self, record: Record) -> None:
        """Apply a record that takes back another whose `write` did not come to its end. Does not wait."""
        self.accounts.apply(record)
        if not self._journal.failed:
            # The write was only no longer waited for, or a snapshot has caught it meanwhile.
            self._journal.append(msgspec.json.encode(record))

    def snapshot(self) -> bytes:
        """All of memory as usage.json would hold it now, to stand beside an empty journal. Does not switch
        greenlets, so that it is of one moment."""
        content = {"schema": self._document.schema, "seq": self._journal.seq, "accounts": self.accounts.by_name}
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
        for account in self.accounts.by_name.values():
            account.prune()
        self._document.save({"seq": seq, "accounts": self.accounts.by_name})

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
                self.accounts.apply(decoder.decode(line))
            except msgspec.DecodeError as error:
                raise StoreError(f"{name} is damaged at line {number}: {error}.", REPAIR_HINT) from None
