"""Writing to disk from a gevent server: off the event loop, privately, and with errors that mean something.

Nothing here knows what the files hold. `document.py` and `journal.py` are the two ways of writing them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar, cast

import gevent

from bridge.errors import BridgeError

P = ParamSpec("P")
T = TypeVar("T")


def in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking `call` in gevent's thread pool, while other greenlets go on. Raises what it raises."""

    def guarded() -> tuple[T | None, BaseException | None]:
        # The pool would print what a task raises; handed back as a value, only the caller deals with it.
        try:
            return call(*args, **kwargs), None
        except BaseException as error:
            return None, error

    value, error = gevent.get_hub().threadpool.apply(guarded)
    if error is not None:
        raise error
    return cast(T, value)


def unbroken(call: Callable[[], T]) -> T:
    """Run `call` to its end even if the greenlet that waits for it is killed. Raises what it raises.

    For steps that must not stop half-way, such as saving a file and then using its content.
    """

    def guarded() -> tuple[T | None, BaseException | None]:
        try:
            return call(), None
        except Exception as error:
            return None, error

    value, error = gevent.spawn(guarded).get()
    if error is not None:
        raise error
    return cast(T, value)


def storage_failed(error: OSError) -> BridgeError:
    """The refusal for a write that failed. It names the cause, never a path."""
    cause = os.strerror(error.errno) if error.errno else "unknown error"
    return BridgeError(
        "storage_failed",
        f"The bridge could not write to its disk ({cause}).",
        "Ask your admin to look at the disk of the bridge; it goes on by itself once it can write again.",
        retry_after=5,
    )


def private_folder(path: Path) -> None:
    """Make a folder that only its owner can enter (0700), whatever the umask. Raises OSError."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.stat().st_mode & 0o777 != 0o700:
        path.chmod(0o700)


def open_private(path: Path, flags: int) -> int:
    """Open a file that only its owner can read and write (0600), whatever the umask. Raises OSError."""
    fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(fd).st_mode & 0o777 != 0o600:
            os.fchmod(fd, 0o600)
    except OSError:
        os.close(fd)
        raise
    return fd


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data`: a short write is followed by the rest, or by the error behind it."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def write_private(path: Path, data: bytes) -> None:
    """Write a whole file and wait until the disk has it. Not atomic: for new names. Raises OSError."""
    fd = open_private(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        write_all(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)


def keep_previous(path: Path) -> Path:
    """Give a file, which is about to be replaced, the second name `NAME.previous`, and return that.

    A second name and not another one, so that there is no moment without a file of the first.
    """
    previous, link = path.with_name(path.name + ".previous"), path.with_name(path.name + ".link")
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except PermissionError:  # a file system without hard links
        write_private(link, path.read_bytes())
    os.replace(link, previous)
    return previous


def set_aside(path: Path, why: str, data: bytes | None = None) -> Path:
    """Keep `data`, or the file as it is, as `NAME.WHY-1` (or the next free number), and return that."""
    number = 1
    while (aside := path.with_name(f"{path.name}.{why}-{number}")).exists():
        number += 1
    write_private(aside, path.read_bytes() if data is None else data)
    sync_folder(path.parent)
    return aside


def sync_folder(path: Path) -> None:
    """Wait until the disk has the names in a folder: what was created, renamed, or removed."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
