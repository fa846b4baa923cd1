"""The data folder: rights, files, space, keys, backups."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bridge.clock import Clock, parse_iso
from bridge.errors import BridgeError, StoreError
from bridge.keys.keys import from_disk
from bridge.limits import effective, summed
from bridge.ops import rehearsal
from bridge.ops import repair as repairs
from bridge.ops.alerts import BACKUP_OVERDUE_S, LOW_DISK_BYTES
from bridge.ops.doctor import Finding, fail, ok, warn
from bridge.settings import Settings
from bridge.store.document import Document
from bridge.store.folder import RESTORING, Store, older_documents
from bridge.store.trace import trace_files

#: How far this host's clock may be off that of the others, in seconds.
MOST_SKEW_S = 2.0

_OURS = ("*.json", "*.jsonl", "logs/*.jsonl", "lock")


def check(settings: Settings) -> Iterator[Finding]:
    """Whether the data folder is there, readable, whole and backed up."""
    folder = settings.data_dir
    if not folder.exists():
        yield ok("data folder", f"{folder} does not exist yet; the first start makes it")
        yield from _space(folder)
        return
    try:
        holder = Store.holder(folder)
    except OSError as error:
        todo = "Run this as the service's user, such as: sudo -u cli-bridge cli-bridge doctor"
        yield fail("data folder", f"{folder} cannot be read ({error.strerror})", todo)
        return
    used_by = f", in use by process {holder.get('pid')}" if holder else ", no server runs"
    yield ok("data folder", f"{folder.resolve()}{used_by}")
    yield from _rights(folder)
    yield from _files(folder)
    for problem in rehearsal.operator_files(settings):
        yield fail("files", problem.message, problem.hint)
    yield from _space(folder)
    yield from _keys(settings)
    yield from _backups(folder)
    if settings.trace_dir is not None:
        yield _traces(settings.trace_dir)
    if settings.store_url is not None:
        yield _cluster(settings)


def _cluster(settings: Settings) -> Finding:
    # Imported here: without BRIDGE_STORE_URL nothing of it is needed.
    from bridge.ops import cluster

    try:
        found = cluster.status(settings)
    except (BridgeError, StoreError) as error:
        return fail("cluster", error.message, error.hint)
    hosts = ", ".join(each["name"] for each in found["nodes"] if each["alive"]) or "none"
    if found["problem"] or found["warning"]:
        say = fail if found["problem"] else warn
        return say("cluster", found["problem"] or found["warning"], "docs/cluster.md has a configuration that fits.")
    if abs(found["clockAheadS"]) > MOST_SKEW_S:
        off = f"this host's clock is {found['clockAheadS']:+} seconds off that of Redis"
        return warn("cluster", off, "Let all hosts set their clocks by NTP: days begin, and minutes end, by them.")
    return ok("cluster", f"{found['id']}, hosts that run: {hosts}")


def _rights(folder: Path) -> Iterator[Finding]:
    status = folder.stat()
    if status.st_mode & 0o077:
        yield fail("rights", f"the folder has mode {status.st_mode & 0o777:03o}", f"chmod 700 {folder}")
    strangers = [p.name for pattern in _OURS for p in folder.glob(pattern) if p.stat().st_uid != status.st_uid]
    if strangers:
        todo = f"chown -R --reference={folder} {folder}"
        yield fail("rights", f"{', '.join(sorted(strangers)[:5])} belong to another user than the folder", todo)
    if os.geteuid() not in (0, status.st_uid):
        yield fail("rights", "the folder belongs to another user", f"Run this as user {status.st_uid}.")


def _files(folder: Path) -> Iterator[Finding]:
    if (folder / RESTORING).exists():
        yield fail("restore", "one was cut off in the middle", "Run 'cli-bridge restore FILE' again.")
        return
    try:
        older = older_documents(folder)
    except StoreError as error:
        yield fail("files", error.message, error.hint)
        return
    if older:
        names = ", ".join(sorted(older))
        yield ok("files", f"{names} are of an older version; the next start makes a backup and brings them up to date")
        return
    found = repairs.check(folder)
    for each in found:
        todo = f"'cli-bridge doctor --repair' will do this: {each.repair}" if each.repair else ""
        yield Finding("fail" if each.blocks else "warn", each.file, each.problem, todo)
    if not found:
        yield ok("files", "every file is whole")


def _traces(folder: Path) -> Finding:
    """Tracing is for a while: whoever has forgotten it is reminded."""
    try:
        files = trace_files(folder)
        held = sum(path.stat().st_size for path in files) / 2**20
    except OSError as error:
        return fail("traces", f"{folder} cannot be read ({error.strerror})", "Correct or unset BRIDGE_TRACE_DIR.")
    todo = "When you have seen enough: unset BRIDGE_TRACE_DIR, reload, and remove the files."
    return warn("traces", f"BRIDGE_TRACE_DIR is set; {folder} has {len(files)} runs in full, {held:.0f} MB", todo)


def _space(folder: Path) -> Iterator[Finding]:
    there = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    free = shutil.disk_usage(there).free
    found = f"{free / 2**30:.1f} GiB free"
    if free < LOW_DISK_BYTES:
        yield warn("disk", found, "Make some room, or lower BRIDGE_LOG_RETENTION_DAYS.")
    else:
        yield ok("disk", found)


def _keys(settings: Settings) -> Iterator[Finding]:
    try:
        rows = (Document(settings.data_dir / "keys.json").load() or {}).get("keys", [])
        keys = [key for key in from_disk(rows) if key.status(Clock().now()) == "active"]
    except (StoreError, ValueError):
        return  # the check of the files has said it
    if not keys:
        yield warn("keys", "there is none, so no one can use the bridge", "cli-bridge keys create NAME")
        return
    open_ended = [
        key.name
        for key in keys
        if not any(limit.is_cost for limit, _, _ in summed(effective(key.limits, settings.default_limits)))
    ]
    if open_ended:
        names = ", ".join(open_ended[:5]) + (" …" if len(open_ended) > 5 else "")
        todo = "cli-bridge keys set NAME --max-cost-per-day 5"
        yield warn("keys", f"{len(keys)} active; without a limit on dollars per day or month: {names}", todo)
    else:
        yield ok("keys", f"{len(keys)} active, each with a limit on dollars")


def _backups(folder: Path) -> Iterator[Finding]:
    notes: dict[str, Any] = {}
    try:
        notes = Document(folder / "backup.json").load() or {}
    except StoreError:
        pass  # the next backup writes it anew
    last, failure = notes.get("lastGoodAt"), notes.get("lastFailure")
    if failure:
        yield fail("backup", f"the last one failed: {failure.get('error')}", "cli-bridge backup FILE")
    elif last is None:
        todo = "cli-bridge backup FILE; deploy/systemd has a nightly timer."
        yield warn("backup", "none was made yet", todo)
    else:
        age_s = Clock().now() - parse_iso(last)
        found = f"the last good one is {age_s / 3600:.0f} hours old"
        if age_s > BACKUP_OVERDUE_S:
            yield warn("backup", found, "systemctl status cli-bridge-backup.timer")
        else:
            yield ok("backup", found)
