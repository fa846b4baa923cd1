"""What `cli-bridge doctor` finds in the data folder, and what `doctor --repair` does about it.

Nothing is thrown away: whatever is replaced stays beside it as `NAME.damaged-1`. No key is invented,
and no usage goes without being mentioned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from bridge.errors import StoreError, StoreLocked
from bridge.keys.admin import check_state
from bridge.keys.keys import from_disk
from bridge.ledger.tallies import Record, Reservation, Reserve, Settle, Snapshot
from bridge.records import jobs
from bridge.store.document import REPAIR_HINT, Document
from bridge.store.files import set_aside, sync_folder, write_private
from bridge.store.folder import Store
from bridge.store.journal import encode, intact, read_backwards, seq_of


class Flaw(msgspec.Struct, frozen=True):
    """Something that is wrong with a file."""

    file: str
    problem: str
    #: what --repair does about it; None where it can do nothing
    repair: str | None = None
    #: whether the service refuses to start because of it
    blocks: bool = True


Act = Callable[[], str]
"""Does a repair and returns a sentence about what was done."""


def check(folder: Path) -> list[Flaw]:
    """Everything that is wrong with the files of a data folder. Changes nothing."""
    return [finding for finding, _ in _examine(folder)]


def repair(folder: Path) -> list[str]:
    """Do what can be done safely; a sentence for everything that was done. What remains, `check` says.

    Raises StoreLocked while a server has the folder, and OSError where the disk does not allow it.
    """
    holder = Store.holder(folder)
    if holder is not None:
        raise StoreLocked(holder.get("pid"))
    done: dict[str, str] = {}
    while True:
        # One at a time, because the journal can only be judged by a snapshot that is whole.
        todo = ((finding.file, act) for finding, act in _examine(folder) if act and finding.file not in done)
        file, act = next(todo, ("", None))
        if act is None:
            return list(done.values())
        done[file] = act()


def _examine(folder: Path) -> Iterator[tuple[Flaw, Act | None]]:
    keys, usage = Document(folder / "keys.json"), Document(folder / "usage.json")
    if keys.absent and usage.absent and not (folder / "usage.jsonl").exists():
        return  # a folder that nothing was kept in yet
    yield from _examine_document(keys, lambda content: from_disk(content.get("keys", [])), _no_keys)
    yield from _examine_document(Document(folder / "admin.json"), check_state, _no_admin)
    yield from _examine_usage(folder)
    for path in sorted((folder / "jobs").glob("*.json")):
        yield from _examine_job(path)
    for path in (folder / "audit.jsonl", *sorted((folder / "logs").glob("*.jsonl"))):
        damaged = sum(not intact(line) for line in read_backwards(path))
        if damaged:
            name = str(path.relative_to(folder))
            yield Flaw(name, f"{damaged} lines of {name} are damaged; they are skipped.", blocks=False), None


def _examine_document(
    document: Document, judge: Callable[[dict[str, Any]], object], without: Callable[[Document], Act | None]
) -> Iterator[tuple[Flaw, Act | None]]:
    name = document.path.name
    if document.absent and name != "keys.json":
        return
    problem = problem_of(document, document.path, judge)
    if problem is None:
        return
    if problem.hint != REPAIR_HINT:
        yield Flaw(name, f"{problem.message} {problem.hint}"), None
    elif problem_of(document, document.previous, judge) is None:
        yield Flaw(name, problem.message, f"use {document.previous.name}"), lambda: _go_back(document)
    else:
        act = without(document)
        yield Flaw(name, problem.message, "begin without it" if act else None), act


def problem_of(document: Document, path: Path, judge: Callable[[dict[str, Any]], object]) -> StoreError | None:
    """What is wrong with a version of a document; None where nothing is."""
    name = document.path.name
    try:
        judge(document.parse(path.read_bytes()))
    except FileNotFoundError:
        return StoreError(f"{name} is missing.", REPAIR_HINT)
    except OSError as error:
        return StoreError(f"{name} cannot be read ({error.strerror}).", "Give this user access to it.")
    except StoreError as error:
        return error
    except ValueError as error:
        return StoreError(f"{name} is damaged: {error}.", REPAIR_HINT)
    return None


def _go_back(document: Document) -> str:
    name = document.path.name
    replace(document.path, document.previous.read_bytes())
    return (
        f"{name} was replaced by its previous version. The last change to it is undone: if that was to "
        "disable, revoke or rotate a key, do it again."
    )


def _no_keys(document: Document) -> Act | None:
    def act() -> str:
        replace(document.path, b'{"schema": 1}\n')
        return "keys.json had no usable version: there are no keys now. Restore a backup, or make new ones."

    return act


def _no_admin(document: Document) -> Act | None:
    def act() -> str:
        set_aside(document.path, "damaged")
        document.path.unlink()
        document.previous.unlink(missing_ok=True)
        sync_folder(document.path.parent)
        return "admin.json had no usable version and was put aside: the next start makes a new admin key."

    return act if document.path.exists() else None


def _examine_job(path: Path) -> Iterator[tuple[Flaw, Act | None]]:
    name = f"jobs/{path.name}"

    def act() -> str:
        set_aside(path, "damaged")
        path.unlink()
        sync_folder(path.parent)
        return f"{name} was put aside: this kept answer is lost. Usage is not affected."

    try:
        jobs.read(path)
    except StoreError as error:
        yield Flaw(name, error.message, "put it aside"), act
    except OSError as error:
        yield Flaw(name, f"{name} cannot be read ({error.strerror})."), None


def _examine_usage(folder: Path) -> Iterator[tuple[Flaw, Act | None]]:
    found = examine_usage(folder)
    if found is None:
        return
    rescue = found.rescue
    if rescue is None:
        yield Flaw(found.file, f"{found.problem} Put it back from a backup of the data folder."), None
        return

    def act() -> str:
        if rescue.snapshot is not None:
            replace(folder / "usage.json", rescue.snapshot)
        replace(folder / "usage.jsonl", rescue.journal)
        return rescue.report

    yield Flaw(found.file, found.problem, "keep every line that is whole"), act


def replace(path: Path, data: bytes) -> None:
    """Put `data` in the place of a file, which is kept beside it. Raises OSError."""
    if path.exists():
        set_aside(path, "damaged")
    new = path.with_name(path.name + ".new")
    write_private(new, data)
    new.replace(path)
    sync_folder(path.parent)


# --- damaged usage files -------------------------------------------------------------------------


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


def examine_usage(folder: Path) -> Damage | None:
    """What is wrong with usage.json and usage.jsonl; None where nothing is. Raises OSError."""
    document, journal = Document(folder / "usage.json"), folder / "usage.jsonl"
    lines = _whole_lines(journal)
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
    older = _whole_lines(journal.with_name(journal.name + ".previous"))
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


def _whole_lines(path: Path) -> _Lines | None:
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
        input_tokens=0,
        output_tokens=0,
        cost_micro=0,
    )
