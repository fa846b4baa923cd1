"""A backup: one tar.gz with the files of a data folder and, last, a manifest of their sums.

It holds no secret that opens anything: keys and the admin key are in it as hashes, and what signs sessions and the
API keys of credentials are left out. Settings are not in the data folder at all. `jobs/` is
left out too: those are whole answers, which are promised to be gone after a day.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import tarfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, Any

import msgspec
from gevent.lock import BoundedSemaphore

from bridge import __version__
from bridge.clock import Clock, iso
from bridge.errors import StoreError
from bridge.store.document import Document
from bridge.store.files import open_private, sync_folder, write_all

FORMAT = 1
MANIFEST = "manifest.json"
#: What is taken along, and all that a restore accepts: a plain name, or the log of a day.
NAME = re.compile(r"[a-z]+\.jsonl?|logs/\d{4}-\d{2}-\d{2}(\.imported)?\.jsonl")

#: Document -> its field that is left out: after a restore whoever was logged in logs in again, and the API keys of
#: credentials are given again.
_SECRETS = {"admin.json": "cookieSecrets", "credentials.json": "apiKey"}

_CHUNK = 1 << 20
_MOST_MANIFEST_BYTES = 16 * 2**20
#: Most bytes of a header that goes before a file's own, and most that the file may become: for each byte of the backup
#: (lines of a log that are all alike are packed to less than a hundredth), and besides.
_MOST_HEADER_BYTES, _MOST_GROWTH, _MOST_BESIDES = 65536, 500, 16 * 2**20
_HINT = "Take another backup file; this one was not written to its end, or was changed since."


class Entry(msgspec.Struct, frozen=True):
    """One file: its size and the SHA-256 of its content."""

    bytes: int
    sha256: str


class _Member(tarfile.TarInfo):
    """A file of an archive. tarfile itself would take any header into memory, and write holes of any size."""

    def _proc_member(self, tar: tarfile.TarFile) -> Any:
        header = self.type == tarfile.XHDTYPE and self.size <= _MOST_HEADER_BYTES
        if not header and self.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            raise StoreError("The backup holds things that no backup has.", _HINT)
        return super()._proc_member(tar)  # type: ignore[misc]


class Manifest(msgspec.Struct, frozen=True, rename="camel"):
    """What a backup says of itself. `made_at` is an ISO time, `version` that of cli-bridge."""

    format: int
    version: str
    made_at: str
    files: dict[str, Entry]


def save(path: Path, folder: Path, usage: bytes | None, made_at: str) -> Manifest:
    """Make a backup of a data folder in the file `path` (0600): whole and read back, or not at all.

    Raises StoreError and OSError.
    """
    new = path.with_name(path.name + ".new")
    try:
        with os.fdopen(open_private(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
            manifest = write(file, folder, usage, made_at)
            file.flush()
            os.fsync(file.fileno())
        with new.open("rb") as file:
            read(file)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    return manifest


def write(target: IO[bytes], folder: Path, usage: bytes | None, made_at: str) -> Manifest:
    """Write a backup of a data folder. Raises StoreError and OSError.

    Where a server has the folder, `usage` is the ledger's own snapshot, taken before: the logs that are read now
    reach at least to its place, and what they have beyond it is counted when the backup is opened, as after a
    crash. None: no server has the folder, so its files are of one moment.
    """
    files: dict[str, Entry] = {}
    with (
        gzip.GzipFile(fileobj=target, mode="wb", compresslevel=6) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        if usage is not None:
            _add(tar, files, "usage.json", io.BytesIO(usage), len(usage))
        for name in _names(folder, files.keys()):
            if name in _SECRETS:
                data = _without_secrets(Document(folder / name), _SECRETS[name])
                _add(tar, files, name, io.BytesIO(data), len(data))
                continue
            with (folder / name).open("rb") as file:
                # Lines that come while it is read are not of this backup, nor is one that is half written.
                _add(tar, files, name, file, _whole_bytes(file) if name.endswith(".jsonl") else None)
        manifest = Manifest(FORMAT, __version__, made_at, files)
        data = msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"
        _add(tar, {}, MANIFEST, io.BytesIO(data), len(data))
    return manifest


def read(source: IO[bytes], target: Path | None = None) -> Manifest:
    """Read a backup to its end and check it; with `target`, an empty folder, its files are put there.

    Raises StoreError for anything that `write` would not have written, and OSError. The files in `target` are
    to be used only when this has returned.
    """
    found: dict[str, Entry] = {}
    manifest: Manifest | None = None
    size = source.seek(0, os.SEEK_END)
    source.seek(0)
    try:
        # gzip itself, and not tarfile's way with it, so that its own sum is checked at the end.
        with (
            gzip.GzipFile(fileobj=source, mode="rb") as packed,
            tarfile.open(fileobj=packed, mode="r|", tarinfo=_Member) as tar,
        ):
            left = _MOST_BESIDES + _MOST_GROWTH * size
            for member in tar:
                left -= member.size
                if member.issparse() or left < 0:
                    raise StoreError("The backup holds things that no backup has.", _HINT)
                content = tar.extractfile(member) if member.isreg() else None
                if manifest is not None or content is None or member.name in found:
                    raise StoreError("The backup holds things that no backup has.", _HINT)
                if member.name == MANIFEST:
                    manifest = _manifest(content.read(_MOST_MANIFEST_BYTES))
                elif NAME.fullmatch(member.name):
                    found[member.name] = _take(content, None if target is None else target / member.name)
                else:
                    raise StoreError("The backup holds things that no backup has.", _HINT)
            while packed.read(_CHUNK):
                pass
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError) as error:
        raise StoreError(f"The backup cannot be read ({error}).", _HINT) from None
    if manifest is None:
        raise StoreError("The backup has no end.", _HINT)
    if manifest.files != found:
        wrong = sorted(name for name in manifest.files.keys() | found.keys() if _differ(manifest, found, name))
        raise StoreError(f"The backup is damaged: the sum of {wrong[0]} is not the one it was made with.", _HINT)
    return manifest


def _differ(manifest: Manifest, found: dict[str, Entry], name: str) -> bool:
    return manifest.files.get(name) != found.get(name)


def _manifest(data: bytes) -> Manifest:
    try:
        format_ = msgspec.json.decode(data).get("format")
        if format_ != FORMAT:
            raise StoreError(
                f"The backup has format {format_!r}; this version of cli-bridge reads {FORMAT}.",
                "Restore it with the version of cli-bridge that made it, or a newer one.",
            )
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, AttributeError, RecursionError):
        raise StoreError("The backup is damaged: its manifest cannot be read.", _HINT) from None


def _names(folder: Path, without: Collection[str]) -> Iterator[str]:
    found = {path.name for path in folder.iterdir() if path.is_file()}
    found |= {f"logs/{path.name}" for path in (folder / "logs").glob("*.jsonl")}
    yield from sorted(name for name in found if name not in without and NAME.fullmatch(name))


def _add(tar: tarfile.TarFile, files: dict[str, Entry], name: str, file: IO[bytes], size: int | None) -> None:
    member = tarfile.TarInfo(name)
    member.size = os.fstat(file.fileno()).st_size if size is None else size
    member.mode = 0o600
    summed = _Summed(file)
    tar.addfile(member, summed)
    files[name] = Entry(member.size, summed.sum.hexdigest())


class _Summed:
    """A file of which the sum is known once it was read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sum = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.sum.update(data)
        return data


def _take(content: IO[bytes], path: Path | None) -> Entry:
    sum_, size = hashlib.sha256(), 0
    fd = None
    if path is not None:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        fd = open_private(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        while chunk := content.read(_CHUNK):
            sum_.update(chunk)
            size += len(chunk)
            if fd is not None:
                write_all(fd, chunk)
        if fd is not None and path is not None:
            os.fsync(fd)
            sync_folder(path.parent)
    finally:
        if fd is not None:
            os.close(fd)
    return Entry(size, sum_.hexdigest())


def _whole_bytes(file: IO[bytes]) -> int:
    """Bytes up to the end of the last whole line."""
    size = end = os.fstat(file.fileno()).st_size
    while end > 0:
        start = max(0, end - _CHUNK)
        cut = os.pread(file.fileno(), end - start, start).rfind(b"\n")
        if cut >= 0:
            return start + cut + 1
        end = start
    return 0 if size else size


def _without_secrets(document: Document, field: str) -> bytes:
    """A document without the secrets in a field of its own, or of the rows of its lists."""
    content = _without(document.load() or {}, field)
    for name, rows in content.items():
        if isinstance(rows, list):
            content[name] = [_without(row, field) if isinstance(row, dict) else row for row in rows]
    return msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n"


def _without(given: dict[str, Any], field: str) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name != field}


# --- how the last one went: backup.json ------------------------------------------------------------


class BackupNotes:
    """What is known of the backups of a data folder. `cli-bridge backup` tells it how each one went."""

    def __init__(self, document: Document, clock: Clock) -> None:
        """A file that cannot be read keeps nobody from his work; it counts as a failed backup."""
        self._document = document
        self._clock = clock
        self._saving = BoundedSemaphore(1)
        self._notes: dict[str, Any] = dict.fromkeys(("lastGoodAt", "lastGoodBytes", "lastFailure"))
        try:
            content = document.load() or {}
            self._notes |= {name: content[name] for name in self._notes if name in content}
        except StoreError as error:
            self._notes["lastFailure"] = {"at": iso(clock.now()), "error": error.message}

    def notes(self) -> dict[str, Any]:
        """`lastGoodAt` (ISO time), `lastGoodBytes`, and `lastFailure` (`at`, `error`) where none worked since."""
        return dict(self._notes)

    def note_good(self, size: int) -> None:
        """One of `size` bytes was made. Raises BridgeError storage_failed."""
        self._note({"lastGoodAt": iso(self._clock.now()), "lastGoodBytes": size, "lastFailure": None})

    def note_failure(self, error: str) -> None:
        """One failed, for the reason that `error` says. Raises BridgeError storage_failed."""
        failure = {"at": iso(self._clock.now()), "error": error[:500]}
        self._note({**self._notes, "lastFailure": failure})

    def _note(self, notes: dict[str, Any]) -> None:
        # Known at once, saved as soon as the disk allows: a full disk is why backups fail.
        self._notes = notes
        with self._saving:
            self._document.save(notes)
