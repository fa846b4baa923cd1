"""Puts a backup in the place of a data folder's content, which is kept in a folder aside.

    restoring.new/    the backup is unpacked and checked here; a crash leaves nothing but this folder
    restoring/        it is whole: from here on the swap must be carried to its end
    replaced-TIME/    what was there before

While `restoring/` is there, no server opens the folder: half of the files would be of another time.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from bridge.clock import Clock
from bridge.errors import StoreError
from bridge.ops import repair
from bridge.store import archive, upgrade
from bridge.store.archive import Manifest
from bridge.store.files import private_folder, sync_folder
from bridge.store.folder import RESTORING, Store

#: What stays where it is: the lock is held, and these are no part of what was kept.
_STAYS = ("lock", "README.md", "backup")


def restore(folder: Path, source: IO[bytes], clock: Clock) -> tuple[Manifest, Path | None]:
    """Check a backup and put it into `folder`; what it says of itself, and where the old content is now.

    Raises StoreError where the backup cannot be trusted, or a server has the folder, and OSError. The old
    content is touched only when the backup has been read to its end and could be opened.
    """
    with Store.held(folder):
        new, whole = folder / f"{RESTORING}.new", folder / RESTORING
        shutil.rmtree(new, ignore_errors=True)
        private_folder(new)
        try:
            manifest = archive.read(source, new)
            _check(new, clock)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        shutil.rmtree(whole, ignore_errors=True)
        new.rename(whole)
        sync_folder(folder)
        aside = _put_aside(folder, clock)
        for path in sorted(whole.iterdir()):
            path.rename(folder / path.name)
        whole.rmdir()
        sync_folder(folder)
        _hand_over(folder)
        return manifest, aside


def _check(folder: Path, clock: Clock) -> None:
    """Bring what was unpacked up to date. Raises StoreError where a server would not open it."""
    if not (folder / "keys.json").exists():
        raise StoreError("The backup has no keys.json.", "Take another backup file.")
    upgrade.run(folder, clock)
    bad = next((finding for finding in repair.check(folder) if finding.blocks), None)
    if bad is not None:
        raise StoreError(f"The backup could not be opened: {bad.problem}", "Take another backup file.")


def _put_aside(folder: Path, clock: Clock) -> Path | None:
    """Move the old content into a folder of its own. After a swap that was cut off, only what is left of it."""
    old = [path for path in sorted(folder.iterdir()) if not _stays(path.name)]
    if not old:
        return None
    stamp = datetime.fromtimestamp(clock.now(), UTC).strftime("%Y%m%dT%H%M%SZ")
    aside = next(path for path in _numbered(folder / f"replaced-{stamp}") if not path.exists())
    private_folder(aside)
    for path in old:
        path.rename(aside / path.name)
    sync_folder(aside)
    sync_folder(folder)
    return aside


def _stays(name: str) -> bool:
    return name in _STAYS or name.startswith(("replaced-", RESTORING))


def _numbered(path: Path) -> Iterator[Path]:
    yield path
    for number in range(2, 1000):
        yield path.with_name(f"{path.name}-{number}")


def _hand_over(folder: Path) -> None:
    """Give what root has restored to the user that the folder belongs to."""
    owner = folder.stat()
    if os.geteuid() != 0 or owner.st_uid == 0:
        return
    for path in (folder, *folder.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
