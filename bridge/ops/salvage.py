"""What can be saved of damaged usage files, without losing a charge that is still readable."""

from __future__ import annotations

from pathlib import Path

import msgspec

from bridge.errors import StoreError
from bridge.ledger.accounts import Record, Reservation, Reserve, Settle
from bridge.ledger.books import Snapshot
from bridge.store.document import REPAIR_HINT, Document
from bridge.store.lines import encode, intact, seq_of


class Rescue(msgspec.Struct, frozen=True):
    """New content for usage.jsonl, and for usage.json where that is to be replaced too."""

    journal: bytes
    snapshot: bytes | None
    report: str


class Damage(msgspec.Struct, frozen=True):
    """What is wrong, and what can be saved; None where a person has to decide."""

    file: str
    problem: str
    rescue: Rescue | None


class _Lines(msgspec.Struct):
    """The whole lines of a journal, and how many others there are; a torn last one is neither."""

    good: list[bytes]
    bad: int = 0


def examine(folder: Path) -> Damage | None:
    """What is wrong with usage.json and usage.jsonl; None where nothing is. Raises OSError."""
    document, journal = Document(folder / "usage.json"), folder / "usage.jsonl"
    lines = _read(journal)
    snapshot, problem = _load(document, document.path)
    if snapshot is None:
        assert problem is not None
        rescue = None if problem.hint != REPAIR_HINT else _from_previous(document, journal, lines)
        return Damage("usage.json", problem.message, rescue)
    if lines is None:
        if not snapshot.seq:
            return None
        report = "usage.jsonl was missing; usage since the last snapshot is lost. The request log has it still."
        return Damage("usage.jsonl", "usage.jsonl is missing.", Rescue(b"", None, report))
    lost = max(lines.bad, _gap(lines.good, snapshot.seq))
    if not lost:
        return None  # a torn end is cut off at the next start
    data, invented = _renumber(lines.good, snapshot)
    report = (
        f"usage.jsonl had {lost} lines that cannot be read; the other {len(lines.good)} were kept. "
        "A run whose end was among them is charged what it had reserved."
    )
    if invented:
        report += f" {invented} charges without their reservation were booked on the day beside them."
    return Damage("usage.jsonl", f"usage.jsonl has {lost} damaged or missing lines.", Rescue(data, None, report))


def _from_previous(document: Document, journal: Path, lines: _Lines | None) -> Rescue | None:
    """The previous snapshot and all lines since, if not one of them is missing."""
    snapshot, _ = _load(document, document.previous)
    older = _read(journal.with_name(journal.name + ".previous"))
    if snapshot is None and document.previous.exists():
        return None
    base = snapshot or Snapshot()
    every = {seq_of(line): line for part in (older, lines) if part for line in part.good}
    since = [every[seq] for seq in sorted(every) if seq > base.seq]
    if (lines and lines.bad) or _gap(since, base.seq) or not (since or snapshot):
        return None
    data = document.previous.read_bytes() if snapshot else b'{"schema": 1}\n'
    report = (
        "usage.json was replaced by its previous version and all that the journals have since then; "
        "please compare the usage of the keys with the request log."
    )
    return Rescue(b"".join(line + b"\n" for line in since), data, report)


def _load(document: Document, path: Path) -> tuple[Snapshot | None, StoreError | None]:
    try:
        return msgspec.convert(document.parse(path.read_bytes()), Snapshot), None
    except FileNotFoundError:
        return None, StoreError("usage.json is missing.", REPAIR_HINT)
    except StoreError as error:
        return None, error
    except msgspec.ValidationError as error:
        return None, StoreError(f"usage.json is damaged: {error}.", REPAIR_HINT)


def _read(path: Path) -> _Lines | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    *ended, rest = data.split(b"\n")
    if not rest and ended and not intact(ended[-1]):
        ended.pop()
    good = [line for line in ended if _whole(line)]
    return _Lines(good, len(ended) - len(good))


_decoder = msgspec.json.Decoder(Record)


def _whole(line: bytes) -> bool:
    if not intact(line):
        return False
    try:
        _decoder.decode(line)
    except msgspec.DecodeError:
        return False
    return True


def _gap(lines: list[bytes], after: int) -> int:
    """How many numbers are missing between the snapshot's and the last, or among those of the lines."""
    seqs = [seq_of(line) for line in lines]
    if not seqs:
        return 0
    return max(0, seqs[0] - after - 1) + seqs[-1] - seqs[0] + 1 - len(seqs)


def _renumber(lines: list[bytes], snapshot: Snapshot) -> tuple[bytes, int]:
    """The records after the snapshot, numbered anew, and how many reservations had to be made up.

    A charge is worthless without its reservation, which says what day it is for: if that was in a
    lost line, an empty one of the day of the line before it takes its place.
    """
    known = {run_id for account in snapshot.accounts.values() for run_id in account.open}
    given: list[Record] = [_decoder.decode(line) for line in lines if seq_of(line) > snapshot.seq]
    reservations = [record.reservation for record in given if isinstance(record, Reserve)]
    known.update(each.id for each in reservations)
    beside = next(iter(reservations), None)
    records: list[Record] = []
    invented = 0
    for record in given:
        if isinstance(record, Reserve):
            beside = record.reservation
        elif isinstance(record, Settle) and record.id not in known and beside is not None:
            known.add(record.id)
            invented += 1
            records.append(Reserve(_empty(record, beside)))
        records.append(record)
    bodies = (msgspec.json.encode(msgspec.structs.replace(record, seq=0)) for record in records)
    data = b"".join(encode(seq, body) for seq, body in enumerate(bodies, start=snapshot.seq + 1))
    return data, invented


def _empty(settle: Settle, beside: Reservation) -> Reservation:
    return Reservation(
        id=settle.id,
        key_name=settle.key,
        provider=beside.provider,
        model=beside.model,
        at=beside.at,
        day=beside.day,
        month=beside.month,
        input_tokens=0,
        output_tokens=0,
        cost_micro=0,
    )
