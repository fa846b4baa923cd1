"""What would keep a new worker from starting, found out before the old one is told to go.

Nothing is changed: another worker has the data folder meanwhile. usage.json and the logs are not looked at, because
that worker writes them anew when it ends.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import bridge
from bridge.clock import Clock
from bridge.errors import SettingsError, StoreError
from bridge.keys.admin import AdminCredentials
from bridge.keys.keys import KeyBook
from bridge.ledger.pricing import PriceTable
from bridge.providers.models import ModelBook, Offers
from bridge.records import jobs
from bridge.sandbox import host
from bridge.service import credential_book
from bridge.settings import Settings
from bridge.store.document import Document
from bridge.store.files import open_private

#: What must fit on the disk for a start, in bytes: the snapshot, the lock file, the next records.
LEAST_DISK_BYTES = 4 * 2**20
_ACCESS = "Give the user that runs cli-bridge access to its data folder."


def problems(settings: Settings) -> list[str]:
    """What is in the way of a worker with these settings, as sentences."""
    folder, clock = settings.data_dir, Clock()
    found = []
    tries: tuple[Callable[[], object], ...] = (
        lambda: host.find_user(settings.cli_user),
        lambda: KeyBook(Document(folder / "keys.json"), clock),
        lambda: credential_book(settings, clock),
        lambda: AdminCredentials(Document(folder / "admin.json"), settings.admin_key),
        lambda: _read_jobs(folder / "jobs"),
        lambda: _write(folder),
    )
    for attempt in tries:
        try:
            attempt()
        except SettingsError as error:
            found += error.problems
        except StoreError as error:
            found.append(f"{error.message} {error.hint}")
    return found + [f"{error.message} {error.hint}" for error in operator_files(settings)]


def program() -> frozenset[tuple[str, int]]:
    """The program as it lies on the disk: its files, and when they were written. A worker has the parts that its
    arbiter has loaded, and reads the others anew: of another version, they do not fit."""
    folder = Path(bridge.__file__).parent
    try:
        return frozenset((str(path.relative_to(folder)), path.stat().st_mtime_ns) for path in folder.rglob("*.py"))
    except FileNotFoundError:
        # It is being replaced at this moment.
        return frozenset()


def operator_files(settings: Settings) -> list[StoreError]:
    """What is wrong with the files that only the operator writes: prices.json and models.json."""
    folder, clock = settings.data_dir, Clock()
    allowed = {name: own.models for name, own in settings.providers.items()}
    try:
        prices = PriceTable(folder / "prices.json", clock)
        # It takes a model with a price for one that is known.
        ModelBook(
            folder / "models.json", clock, prices.models, prices.stands_for, allowed, Offers(folder / "offers.json")
        )
    except StoreError as error:
        return [error]
    return []


def _read_jobs(folder: Path) -> None:
    for path in folder.glob("*.json"):
        with suppress(FileNotFoundError):  # its time was over
            try:
                jobs.read(path)
            except PermissionError as error:
                raise StoreError(f"jobs/{path.name} cannot be read ({error.strerror}).", _ACCESS) from None


def _write(folder: Path) -> None:
    """Try whether a start can write what it has to. Raises StoreError."""
    path = folder / f"rehearsal-{os.getpid()}.new"
    try:
        try:
            file = open_private(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            try:
                os.posix_fallocate(file, 0, LEAST_DISK_BYTES)
            finally:
                os.close(file)
        finally:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(
            f"The data folder cannot be written to ({error.strerror}).", f"Make some room on its disk. {_ACCESS}"
        ) from None
