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
from bridge.keys.key import from_disk
from bridge.ops import salvage
from bridge.records import jobs
from bridge.store.document import REPAIR_HINT, Document
from bridge.store.files import set_aside, sync_folder, write_private
from bridge.store.folder import Store
from bridge.store.lines import intact, read_backwards


class Finding(msgspec.Struct, frozen=True):
    """Something that is wrong with a file."""

    file: str
    problem: str
    #: what --repair does about it; None where it can do nothing
    repair: str | None = None
    #: whether the service refuses to start because of it
    blocks: bool = True


Act = Callable[[], str]
"""Does a repair and returns a sentence about what was done."""


def check(folder: Path) -> list[Finding]:
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


def _examine(folder: Path) -> Iterator[tuple[Finding, Act | None]]:
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
            yield Finding(name, f"{damaged} lines of {name} are damaged; they are skipped.", blocks=False), None


def _examine_document(
    document: Document, judge: Callable[[dict[str, Any]], object], without: Callable[[Document], Act | None]
) -> Iterator[tuple[Finding, Act | None]]:
    name = document.path.name
    if document.absent and name != "keys.json":
        return
    problem = problem_of(document, document.path, judge)
    if problem is None:
        return
    if problem.hint != REPAIR_HINT:
        yield Finding(name, f"{problem.message} {problem.hint}"), None
    elif problem_of(document, document.previous, judge) is None:
        yield Finding(name, problem.message, f"use {document.previous.name}"), lambda: _go_back(document)
    else:
        act = without(document)
        yield Finding(name, problem.message, "begin without it" if act else None), act


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


def _examine_job(path: Path) -> Iterator[tuple[Finding, Act | None]]:
    name = f"jobs/{path.name}"

    def act() -> str:
        set_aside(path, "damaged")
        path.unlink()
        sync_folder(path.parent)
        return f"{name} was put aside: this kept answer is lost. Usage is not affected."

    try:
        jobs.read(path)
    except StoreError as error:
        yield Finding(name, error.message, "put it aside"), act
    except OSError as error:
        yield Finding(name, f"{name} cannot be read ({error.strerror})."), None


def _examine_usage(folder: Path) -> Iterator[tuple[Finding, Act | None]]:
    found = salvage.examine(folder)
    if found is None:
        return
    rescue = found.rescue
    if rescue is None:
        yield Finding(found.file, f"{found.problem} Put it back from a backup of the data folder."), None
        return

    def act() -> str:
        if rescue.snapshot is not None:
            replace(folder / "usage.json", rescue.snapshot)
        replace(folder / "usage.jsonl", rescue.journal)
        return rescue.report

    yield Finding(found.file, found.problem, "keep every line that is whole"), act


def replace(path: Path, data: bytes) -> None:
    """Put `data` in the place of a file, which is kept beside it. Raises OSError."""
    if path.exists():
        set_aside(path, "damaged")
    new = path.with_name(path.name + ".new")
    write_private(new, data)
    new.replace(path)
    sync_folder(path.parent)
