"""`cli-bridge backup` and `restore`. A restore swaps a folder's content, and keeps what was there aside:

    restoring.new/    the backup is unpacked and checked here; a crash leaves nothing but this folder
    restoring/        it is whole: from here on the swap must be carried to its end
    replaced-TIME/    what was there before

While `restoring/` is there, no server opens the folder: half of the files would be of another time.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from bridge.clock import Clock, iso
from bridge.errors import BridgeError, StoreError
from bridge.ops import repair
from bridge.ops.admin_client import AdminClient, admin_client
from bridge.settings import Settings
from bridge.store import archive
from bridge.store.archive import Manifest
from bridge.store.files import private_folder, sync_folder
from bridge.store.folder import RESTORING, Store, upgrade

#: The name of a backup in a folder, by the time at which it was made.
_DATED = re.compile(r"cli-bridge-\d{8}T\d{6}Z\.tar\.gz")
_DISK_HINT = "Check the path, its rights, and the space on its disk."
#: What stays where it is: the lock is held, and these are no part of what was kept.
_STAYS = ("lock", "README.md", "backup")


def to_file(
    settings: Settings, target: Path, *, keep: int | None = None, show: Callable[[str], None] = lambda what: None
) -> dict[str, Any]:
    """Make a backup in a file, or under a dated name in a folder; of those the newest `keep` stay.

    What came of it is told to the service, which raises an alert where it failed. Raises StoreError, BridgeError.
    """
    with admin_client(settings) as client, _told_to(client) as tell:
        made = _to_file(settings, client, target, keep, show)
        tell(made["bytes"])
    return made


def to_stream(settings: Settings, target: IO[bytes]) -> None:
    """Write a backup to an open stream; what came of it is told, too. Raises StoreError, BridgeError."""
    with admin_client(settings) as client, _told_to(client) as tell:
        counted = _Counted(target)
        archive.write(counted, settings.data_dir, _snapshot(client), iso(Clock().now()))  # type: ignore[arg-type]
        target.flush()
        tell(counted.bytes)


def check(settings: Settings, source: IO[bytes]) -> dict[str, Any]:
    """Read a backup to its end; what it says of itself. Raises StoreError."""
    try:
        with _seekable(source, settings.data_dir) as file:
            return _told(archive.read(file))
    except OSError as error:
        raise StoreError(f"The backup cannot be read ({_cause(error)}).", _DISK_HINT) from None


def restore(settings: Settings, source: IO[bytes]) -> dict[str, Any]:
    """Put a backup in the place of the data folder's content. Raises StoreError."""
    try:
        manifest, aside = put_in_place(settings.data_dir, source, Clock())
    except OSError as error:
        raise StoreError(f"The backup could not be restored ({_cause(error)}).", _DISK_HINT) from None
    return {**_told(manifest), "aside": None if aside is None else str(aside)}


@contextmanager
def _seekable(source: IO[bytes], folder: Path) -> Iterator[IO[bytes]]:
    """A backup; what comes through a pipe is put on the disk first, in a file without a name. Raises OSError."""
    if source.seekable():
        yield source
        return
    # Beside the data, where there must be room for it anyway: /tmp may be memory.
    with tempfile.TemporaryFile(dir=folder if folder.is_dir() else None) as file:
        shutil.copyfileobj(source, file)
        yield file


def _to_file(
    settings: Settings, client: AdminClient, target: Path, keep: int | None, show: Callable[[str], None]
) -> dict[str, Any]:
    made_at = iso(Clock().now())
    folder = target if target.is_dir() else None
    if keep is not None and folder is None:
        raise StoreError("--keep needs a folder.", "Make the folder first, and give its path.")
    stamp = made_at.partition(".")[0].replace("-", "").replace(":", "")
    path = target if folder is None else folder / f"cli-bridge-{stamp}Z.tar.gz"
    show("reading the ledger")
    usage = _snapshot(client)
    show(f"writing {path.name}")
    manifest = archive.save(path, settings.data_dir, usage, made_at)
    removed = [] if keep is None or folder is None else _prune(folder, keep)
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "files": len(manifest.files),
        "madeAt": made_at,
        "removed": removed,
    }


def _snapshot(client: AdminClient) -> bytes:
    status, usage = client.send("GET", "/admin/snapshot", None)
    if status != 200:
        raise BridgeError("overloaded", "The running server gave no snapshot of its ledger.")
    return usage


class _Counted:
    """A stream, which may be a pipe, that counts what is written to it."""

    def __init__(self, target: IO[bytes]) -> None:
        self._target = target
        self.bytes = 0

    def write(self, data: bytes) -> int:
        self.bytes += len(data)
        return self._target.write(data)

    def flush(self) -> None:
        self._target.flush()


@contextmanager
def _told_to(client: AdminClient) -> Iterator[Callable[[int], None]]:
    """Tell the service how a backup ends: well, with so many bytes, or why not. Raises StoreError, BridgeError."""
    try:
        yield lambda size: _tell(client, {"bytes": size})
    except (OSError, StoreError, BridgeError) as error:
        message = getattr(error, "message", None) or f"It could not be written ({_cause(error)})."
        _tell(client, {"error": message})
        if isinstance(error, OSError):
            raise StoreError(f"The backup failed: {message}", _DISK_HINT) from None
        raise


def _tell(client: AdminClient, how: dict[str, Any]) -> None:
    try:
        client.call("POST", "/admin/backups", how)
    except BridgeError:
        pass  # the backup itself is what counts; a full disk cannot take the note either


def _prune(folder: Path, keep: int) -> list[str]:
    """Remove all but the newest backups. Only files that this program has named."""
    made = sorted(path for path in folder.iterdir() if _DATED.fullmatch(path.name))
    old = made[:-keep]
    for path in old:
        path.unlink()
    return [path.name for path in old]


def _told(manifest: Manifest) -> dict[str, Any]:
    return {"madeAt": manifest.made_at, "version": manifest.version, "files": len(manifest.files)}


def _cause(error: OSError | StoreError | BridgeError) -> str:
    number = getattr(error, "errno", None)
    return os.strerror(number) if number else str(error)


# --- the swap ------------------------------------------------------------------------------------


def put_in_place(folder: Path, source: IO[bytes], clock: Clock) -> tuple[Manifest, Path | None]:
    """Check a backup and put it into `folder`; what it says of itself, and where the old content is now.

    Raises StoreError where the backup cannot be trusted, or a server has the folder, and OSError. The old
    content is touched only when the backup has been read to its end and could be opened.
    """
    # Held first: beside a server, a pipe is not put on its disk.
    with Store.held(folder), _seekable(source, folder) as file:
        new, whole = folder / f"{RESTORING}.new", folder / RESTORING
        shutil.rmtree(new, ignore_errors=True)
        private_folder(new)
        try:
            manifest = archive.read(file, new)
            _check_opens(new, clock)
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


def _check_opens(folder: Path, clock: Clock) -> None:
    """Bring what was unpacked up to date. Raises StoreError where a server would not open it."""
    if not (folder / "keys.json").exists():
        raise StoreError("The backup has no keys.json.", "Take another backup file.")
    upgrade(folder, clock)
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
