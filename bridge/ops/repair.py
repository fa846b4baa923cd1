"""What `cli-bridge doctor` finds in the data folder, and what `doctor --repair` does about it.

Nothing is thrown away: whatever is replaced stays beside it as `NAME.damaged-1`. No key is invented,
and no usage goes without being mentioned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from bridge.clock import parse_iso
from bridge.errors import StoreError, StoreLocked
from bridge.keys import credentials
from bridge.keys.admin import check_state
from bridge.keys.keys import from_disk
from bridge.ledger.tallies import Record, Reservation, Reserve, Settle, Snapshot, Tally, apply, decode
from bridge.records import jobs
from bridge.store.document import REPAIR_HINT, Document
from bridge.store.files import set_aside, sync_folder, write_private
from bridge.store.folder import Store
from bridge.store.journal import day_files, intact, read_backwards, seq_of


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
    if keys.absent and usage.absent and not any((folder / "logs").glob("*.jsonl")):
        return  # a folder that nothing was kept in yet
    yield from _examine_document(keys, lambda content: from_disk(content.get("keys", [])), _no_keys)
    yield from _examine_document(Document(folder / "credentials.json"), credentials.from_disk, lambda document: None)
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
    document, logs = Document(folder / "usage.json"), folder / "logs"
    snapshot, problem = _load(document, document.path)
    if snapshot is None:
        assert problem is not None
        if problem.hint != REPAIR_HINT:
            yield Flaw("usage.json", f"{problem.message} {problem.hint}"), None
            return
        before, _ = _load(document, document.previous)
        base, kind = (before, "its previous version and the log since") if before else (None, "the log")
        fold = _fold(logs, base)
        if fold is None:
            yield Flaw("usage.json", f"{problem.message} Put it back from a backup of the data folder."), None
            return
        yield Flaw("usage.json", problem.message, f"count again from {kind}"), _act(document, fold)
        return
    fold = _fold(logs, snapshot)
    if fold is None or not fold.problem:
        return
    yield Flaw("logs", fold.problem, "count what can still be read"), _act(document, fold)


def replace(path: Path, data: bytes) -> None:
    """Put `data` in the place of a file, which is kept beside it. Raises OSError."""
    if path.exists():
        set_aside(path, "damaged")
    new = path.with_name(path.name + ".new")
    write_private(new, data)
    new.replace(path)
    sync_folder(path.parent)


# --- counting again ------------------------------------------------------------------------------


class _Fold(msgspec.Struct):
    """What the log makes of a snapshot, or of nothing, passing over what cannot be read."""

    snapshot: Snapshot
    #: records that are missing or damaged
    lost: int = 0
    #: a file or an end of one that the snapshot has seen, and that is not there
    missing: str = ""
    #: the first day that was read, where there was no snapshot to begin with and earlier ones are gone
    since: str = ""

    @property
    def problem(self) -> str:
        """What is wrong with the log behind the snapshot; empty where nothing is."""
        return self.missing or (f"{self.lost} records of the log are damaged or missing." if self.lost else "")

    @property
    def report(self) -> str:
        """What was done, and what could not be seen."""
        said = ["The usage was counted again from the log."]
        if self.since:
            said.append(f"What was used before {self.since} is not in it, nor what was reset before.")
        if self.missing:
            said.append(f"{self.missing} What was used there since the last snapshot is not counted.")
        if self.lost:
            said.append(
                f"{self.lost} records cannot be read: a run whose end was among them is charged what it had reserved."
            )
        return " ".join(said)


def _fold(logs: Path, base: Snapshot | None) -> _Fold | None:
    """Count on from a snapshot, or from nothing. None where there is nothing to count. Raises OSError."""
    files = day_files(logs) if logs.is_dir() else []
    if base is None and not files:
        return None
    fold = _Fold(base or Snapshot())
    now = fold.snapshot
    try:
        now.check(logs)
    except StoreError as error:
        fold.missing = error.message
    begin = now.position
    first, bad = base is None, 0
    for path in files:
        if path.name < begin.file:
            continue
        offset = begin.offset if path.name == begin.file else 0
        for line, end in _ended_lines(path, offset, last=path == files[-1]):
            now.file, now.offset = path.name, end
            record = _record(line)
            if record is None:
                bad += 1
                continue
            seq = seq_of(line)
            if first:
                first, now.seq = False, seq - 1
                fold.since = path.stem if seq > 1 else ""
            if seq <= now.seq:
                bad += 1  # of another journal
                continue
            fold.lost += max(bad, seq - now.seq - 1)
            now.seq, bad = seq, 0
            if isinstance(record, Settle) and record.id not in now.tallies.get(record.key_name, Tally()).open:
                # Its reservation is among what was lost; what it used is known all the same.
                apply(now, Reserve(_nothing(record)))
            apply(now, record)
    fold.lost += bad
    try:
        now.check(logs)
    except StoreError:
        # Nothing came after what is missing: the next record does.
        now.file = files[-1].name if files else ""
        now.offset = max((end for _, end in _ended_lines(files[-1], 0, last=True)), default=0) if files else 0
    return fold


def _ended_lines(path: Path, offset: int, *, last: bool) -> Iterator[tuple[bytes, int]]:
    """The lines of a file behind `offset`, each with the place of its end. A torn end of the last file, which the
    next start cuts off, is none."""
    with path.open("rb") as file:
        file.seek(offset)
        before: tuple[bytes, int] | None = None
        for ended in file:
            if before is not None:
                yield before
            offset += len(ended)
            before = ended.rstrip(b"\n"), offset
        if before is not None and not (last and not (ended.endswith(b"\n") and intact(before[0]))):
            yield before


def _record(line: bytes) -> Record | None:
    if not intact(line):
        return None
    try:
        return decode(line)
    except msgspec.DecodeError:
        return None


def _nothing(line: Settle) -> Reservation:
    """A reservation for a run whose own is not known any more."""
    at = parse_iso(line.timestamp)
    return Reservation(line.id, line.key_name, line.provider, line.model, at, line.day, 0, 0, 0)


def _act(document: Document, fold: _Fold) -> Act:
    def act() -> str:
        data = msgspec.json.format(msgspec.json.encode(fold.snapshot), indent=1)
        replace(document.path, data + b"\n")
        return fold.report

    return act


def _load(document: Document, path: Path) -> tuple[Snapshot | None, StoreError | None]:
    try:
        return msgspec.convert(document.parse(path.read_bytes()), Snapshot), None
    except FileNotFoundError:
        return None, StoreError("usage.json is missing.", REPAIR_HINT)
    except StoreError as error:
        return None, error
    except msgspec.ValidationError as error:
        return None, StoreError(f"usage.json is damaged: {error}.", REPAIR_HINT)
