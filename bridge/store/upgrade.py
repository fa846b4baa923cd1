"""The versions of what lies in a data folder, and the steps from an older one to this one's.

Each document carries the version of its schema. A newer one than this program knows is refused: it would
misread it. An older one is brought up to date at the start, after a backup of the folder was made. The journal
and the logs go with usage.json: a version that adds a kind of record to them raises its number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from bridge.clock import Clock, iso
from bridge.errors import StoreError
from bridge.store import archive
from bridge.store.document import SCHEMAS, Document
from bridge.store.files import private_folder

Step = Callable[[dict[str, Any]], dict[str, Any]]
"""The content of a document, of one version, as the next version has it."""

STEPS: Mapping[tuple[str, int], Step] = {}
"""(document, version) -> the step to the version after it. None was needed yet: every file is of version 1."""


def check(folder: Path, current: Mapping[str, int] = SCHEMAS) -> dict[str, int]:
    """The documents that are older than `current`, with their versions. Raises StoreError for a newer one.

    What cannot be read is left to those who read it: they have better words for it.
    """
    older = {}
    for name, version in current.items():
        found = _version(folder / name)
        if found is None or found == version:
            continue
        if found > version:
            raise StoreError(
                f"{name} was written by a newer version of cli-bridge (schema {found}; this one reads {version}).",
                "Use that version, or restore the backup that it made before the upgrade (in backup/).",
            )
        older[name] = found
    return older


def run(
    folder: Path,
    clock: Clock,
    current: Mapping[str, int] = SCHEMAS,
    steps: Mapping[tuple[str, int], Step] = STEPS,
) -> Path | None:
    """Bring a folder, of which this process has the lock, up to date; the backup that was made before, if any
    was needed. Raises StoreError and OSError; then everything is as it was, or part of the documents is up to
    date and the next start goes on with the others."""
    older = check(folder, current)
    if not older:
        return None
    missing = [
        name for name, found in older.items() if any((name, v) not in steps for v in range(found, current[name]))
    ]
    if missing:
        raise StoreError(
            f"{missing[0]} has schema {older[missing[0]]}, which this version of cli-bridge cannot bring up to date.",
            "Start a version of cli-bridge in between first; CHANGELOG.md names it.",
        )
    saved = _backup(folder, clock)
    for name, found in older.items():
        content = msgspec.json.decode((folder / name).read_bytes())
        for version in range(found, current[name]):
            content = steps[name, version](content)
        Document(folder / name, current[name]).save({k: v for k, v in content.items() if k != "schema"})
    return saved


def _version(path: Path) -> int | None:
    try:
        content = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    version = content.get("schema") if isinstance(content, dict) else None
    return version if isinstance(version, int) and not isinstance(version, bool) else None


def _backup(folder: Path, clock: Clock) -> Path:
    private_folder(folder / "backup")
    stamp = iso(clock.now()).replace(":", "").replace("-", "").partition(".")[0]
    path = folder / "backup" / f"before-upgrade-{stamp}Z.tar.gz"
    archive.save(path, folder, None, iso(clock.now()))
    return path
