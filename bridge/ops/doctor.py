"""`cli-bridge doctor`: what is well, what is not, and what to do about it."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bridge.clock import Clock
from bridge.engine.schema import SchemaChecker
from bridge.engine.scratch import Scratch
from bridge.errors import StoreError
from bridge.ledger import repair as repairs
from bridge.ledger.store import Store
from bridge.service import real_providers
from bridge.settings import Settings

#: Free disk space below which there is a warning, in bytes.
LOW_DISK_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Finding:
    """One check: `level` is ok, warn or fail; `todo` says what to do about it, where there is something."""

    level: str
    what: str
    found: str
    todo: str = ""


def examine(settings: Settings) -> list[Finding]:
    """All checks. Changes nothing and spends nothing."""
    return [*_host(), *_data_folder(settings), *_clis(settings)]


def repair(settings: Settings) -> list[str]:
    """Mend the data folder as far as that is safe; a sentence for each thing done. Raises StoreError."""
    try:
        return repairs.repair(settings.data_dir) or ["There was nothing to repair."]
    except OSError as error:
        raise StoreError(f"The data folder cannot be repaired ({error.strerror}).", "Check the disk.") from None


def _host() -> Iterator[Finding]:
    yield Finding("ok", "Python", platform.python_version())
    if shutil.which("setpriv"):
        yield Finding("ok", "setpriv", "found")
    else:
        yield Finding(
            "fail",
            "setpriv",
            "not found: CLIs would outlive a server that is killed",
            "Install the package util-linux.",
        )
    if os.geteuid() == 0:
        yield Finding("warn", "user", "root", "Run the service as a user of its own.")


def _data_folder(settings: Settings) -> Iterator[Finding]:
    folder = settings.data_dir
    if not folder.exists():
        yield Finding("ok", "data folder", f"{folder} does not exist yet; the first start makes it")
        return
    holder = Store.holder(folder)
    used_by = f", in use by process {holder.get('pid')}" if holder else ""
    yield Finding("ok", "data folder", f"{folder.resolve()}{used_by}")
    for found in repairs.check(folder):
        todo = f"'cli-bridge doctor --repair' will do this: {found.repair}" if found.repair else ""
        yield Finding("fail" if found.blocks else "warn", found.file, found.problem, todo)
    free = shutil.disk_usage(folder).free
    level = "warn" if free < LOW_DISK_BYTES else "ok"
    yield Finding(level, "disk", f"{free / 2**30:.1f} GiB free", "" if level == "ok" else "Make some room.")


def _clis(settings: Settings) -> Iterator[Finding]:
    # A scratch folder of its own: the one of a running server is not to be touched.
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Scratch(Path(temporary))
        try:
            for provider in real_providers(settings, scratch, Clock(), SchemaChecker(scratch)).values():
                status = provider.check()
                if status.available:
                    yield Finding("ok", status.name, f"version {status.version}, {status.credentials}")
                else:
                    yield Finding("warn", status.name, status.problem or "not available", status.hint or "")
                if status.credentials == "login":
                    yield Finding(
                        "warn",
                        f"{status.name} credentials",
                        "the CLI's own log-in",
                        "A subscription is for one person; for a team, use an API key (see Terms of service).",
                    )
        finally:
            scratch.clear()
