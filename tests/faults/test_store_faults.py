"""Disks that are full, read-only or lying, and files that somebody or something has damaged."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import gevent
import pytest

from bridge.errors import BridgeError, StoreError, StoreLocked
from bridge.keys.admin import AdminCredentials
from bridge.keys.keys import KeyBook
from bridge.limits import Limits
from bridge.ops.repair import check, repair
from bridge.records.runlog import RunLog
from bridge.store.folder import Store
from tests.support.ledger import Desk, record

#: the journal of the day on which a Desk opens
LOG = "logs/2026-11-20.jsonl"
BAD = {
    "empty": lambda data: b"",
    "blank": lambda data: b" \n",
    "truncated": lambda data: data[: len(data) // 2],
    "garbage": lambda data: os.urandom(len(data)),
    "zeros": lambda data: bytes(len(data)),
    "another type": lambda data: b"[1, 2]\n",
    "wrong version": lambda data: data.replace(b'"schema": 1', b'"schema": 99'),
    "wrong fields": lambda data: b'{"schema": 1, "keys": [{"a": 1}], "tallies": [1], "epoch": "no", "seq": "x"}',
}


@pytest.fixture
def desk(tmp_path):
    desk = Desk(tmp_path / "data")
    desk.book = KeyBook(desk.store.document("keys.json"), desk.clock)
    _, desk.raw = desk.book.create("alice", Limits())
    AdminCredentials(desk.store.document("admin.json"), None).ensure()
    desk.spend()
    desk.spend()
    return desk


def open_everything(folder):
    desk = Desk(folder)
    KeyBook(desk.store.document("keys.json"), desk.clock)
    AdminCredentials(desk.store.document("admin.json"), None)
    return desk


# --- damaged files ---


@pytest.mark.parametrize("name", ["keys.json", "admin.json", "usage.json"])
@pytest.mark.parametrize("damage", BAD)
def test_a_damaged_document_never_opens_the_service(desk, name, damage):
    desk.ledger.close()
    desk.store.close()
    path = desk.folder / name
    path.write_bytes(BAD[damage](path.read_bytes()))
    with pytest.raises(StoreError, match=name) as refused:
        open_everything(desk.folder)
    assert refused.value.hint
    assert [finding.file for finding in check(desk.folder) if finding.blocks] == [name]


@pytest.mark.parametrize("damage", ["garbage in the middle", "a line less", "the first line less"])
def test_a_damaged_journal_never_opens_the_service(desk, damage):
    desk.spend()
    desk.store.close()
    path = desk.folder / LOG
    lines = path.read_bytes().splitlines(keepends=True)
    middle = {"garbage in the middle": [b"\xff\xfe garbage\n"], "a line less": []}
    path.write_bytes(b"".join(lines[1:] if damage == "the first line less" else lines[:2] + middle[damage] + lines[3:]))
    with pytest.raises(StoreError, match=LOG):
        open_everything(desk.folder)
    assert [finding.file for finding in check(desk.folder) if finding.blocks] == ["logs"]


@pytest.mark.parametrize("name", ["keys.json", "usage.json", LOG, "admin.json"])
def test_a_folder_in_the_place_of_a_file_cannot_be_read(desk, name):
    desk.ledger.close()
    desk.store.close()
    path = desk.folder / name
    path.unlink()
    path.mkdir()
    with pytest.raises(StoreError):
        open_everything(desk.folder)


def test_a_data_folder_that_cannot_be_made_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be used"):
        Store.open(tmp_path / "file" / "data")


# --- repair ---


def test_a_healthy_folder_has_no_findings_and_repair_does_nothing(desk):
    desk.ledger.close()
    desk.store.close()
    assert check(desk.folder) == []
    assert repair(desk.folder) == []
    assert check(desk.folder.with_name("nowhere")) == []


def test_repair_keeps_away_from_a_running_server(desk):
    with pytest.raises(StoreLocked):
        repair(desk.folder)


@pytest.mark.parametrize("damage", ["empty", "truncated", "garbage", "another type", "wrong fields"])
def test_a_damaged_snapshot_is_rebuilt_without_losing_a_cent(desk, damage):
    desk.reopen()
    desk.spend(cost_micro=1_000)
    desk.reopen()
    desk.spend(cost_micro=10_000)
    before = desk.today()
    desk.store.close()
    path = desk.folder / "usage.json"
    damaged = BAD[damage](path.read_bytes())
    path.write_bytes(damaged)
    assert len(repair(desk.folder)) == 1
    assert (desk.folder / "usage.json.damaged-1").read_bytes() == damaged
    desk.open()
    assert desk.today() == before


def test_a_snapshot_of_a_newer_version_is_left_alone(desk):
    desk.ledger.close()
    desk.store.close()
    path = desk.folder / "usage.json"
    path.write_bytes(BAD["wrong version"](path.read_bytes()))
    assert repair(desk.folder) == []
    assert check(desk.folder)[0].repair is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("costUsd", -5.0), ("costUsd", 1e300), ("inputTokens", -1_000_000), ("outputTokens", -1)),
        *(("cacheReadTokens", -1), ("cacheWriteTokens", -1), ("inputTokens", 10**18)),
    ],
)
def test_a_line_whose_figures_cannot_be_never_opens_the_service_and_lowers_no_usage(desk, field, value):
    before = desk.today()
    desk.spend(cost_micro=7_000)
    desk.store.close()
    path = desk.folder / LOG
    *lines, last = path.read_bytes().splitlines(keepends=True)
    edited = {**json.loads(last), field: value}
    assert edited.pop("kind") == "settle"
    del edited["crc"]
    # By somebody who knows how a line is made.
    text = json.dumps({"seq": edited.pop("seq"), "kind": "settle", **edited}, separators=(",", ":"))[:-1].encode()
    path.write_bytes(b"".join(lines) + text + b',"crc":"%08x"}\n' % zlib.crc32(text))
    with pytest.raises(StoreError, match="record"):
        open_everything(desk.folder)
    repair(desk.folder)
    desk.open()
    after = desk.today()
    assert after["costUsd"] >= before["costUsd"]
    assert after["tokens"] >= before["tokens"]


def test_repair_of_a_journal_keeps_every_whole_line_and_says_how_many_are_lost(desk):
    desk.spend(cost_micro=7_000)
    desk.store.close()
    path = desk.folder / LOG
    lines = path.read_bytes().splitlines(keepends=True)
    # Three runs: reserve, settle, reserve, settle, reserve, settle. The second reserve and the first settle go.
    damaged = lines[0] + b"damaged\n" + b"damaged\n" + b"".join(lines[3:])
    path.write_bytes(damaged)
    (said,) = repair(desk.folder)
    assert "2 records" in said
    desk.open()
    used = desk.today()
    assert used["requests"] == 3
    assert used["costUsd"] == pytest.approx(0.015375 + 0.0005 + 0.007)  # the first is assumed, in full
    assert path.read_bytes().startswith(damaged)


def spent_on(desk, *days):
    """A run on each of some days, with a snapshot after each."""
    for day in days:
        desk.clock.set(f"{day}T12:00:00Z")
        desk.spend(cost_micro=1_000)
        desk.reopen()
    desk.store.close()


def test_without_a_usable_snapshot_the_days_are_counted(desk):
    spent_on(desk, "2026-11-21", "2026-12-01")
    before = desk.ledger.history(9)
    (desk.folder / "usage.json").write_bytes(b"{")
    (desk.folder / "usage.json.previous").unlink()
    (said,) = repair(desk.folder)
    assert "before" not in said
    desk.open()
    assert desk.ledger.history(9) == before


def test_a_count_of_the_days_says_since_when(desk):
    spent_on(desk, "2026-11-21", "2026-12-01")
    before = desk.ledger.history(9)
    (desk.folder / LOG).unlink()
    (desk.folder / "usage.json").write_bytes(b"{")
    (desk.folder / "usage.json.previous").write_bytes(b"{")
    (said,) = repair(desk.folder)
    assert "before 2026-11-21" in said
    desk.open()
    assert desk.ledger.history(9) == before[1:]
    desk.spend(cost_micro=1_000)
    desk.crash()
    desk.open()
    assert desk.today()["requests"] == 2


@pytest.mark.parametrize("left", ["nothing", "half"])
def test_repair_goes_on_behind_a_log_that_is_gone(desk, left):
    desk.reopen()
    before = desk.today()
    desk.spend(cost_micro=1_000)
    desk.store.close()
    path = desk.folder / LOG
    data = path.read_bytes()
    path.unlink()
    if left == "half":
        path.write_bytes(data[: len(data) // 4])
    with pytest.raises(StoreError):
        desk.open()
    (said,) = repair(desk.folder)
    assert "not counted" in said
    desk.open()
    assert desk.today() == before
    desk.spend(cost_micro=1_000)
    desk.crash()
    desk.open()
    assert desk.today()["requests"] == before["requests"] + 1


def test_without_any_log_only_a_backup_helps(desk):
    desk.store.close()
    shutil.rmtree(desk.folder / "logs")
    for name in ("usage.json", "usage.json.previous"):
        (desk.folder / name).write_bytes(b"{")
    assert repair(desk.folder) == []
    (finding,) = [finding for finding in check(desk.folder) if finding.blocks]
    assert "backup" in finding.problem


def test_repair_goes_back_to_the_previous_keys_and_says_what_that_means(desk):
    desk.book.create("bob", Limits())
    desk.ledger.close()
    desk.store.close()
    (desk.folder / "keys.json").write_bytes(b"")
    (said,) = repair(desk.folder)
    assert "revoke" in said
    book = KeyBook(open_everything(desk.folder).store.document("keys.json"), desk.clock)
    assert [key.name for key in book.list()] == ["alice"]


def test_without_a_usable_version_of_the_keys_there_are_none(desk):
    desk.ledger.close()
    desk.store.close()
    for name in ("keys.json", "keys.json.previous"):
        (desk.folder / name).write_bytes(b"garbage")
    (said,) = repair(desk.folder)
    assert "no keys now" in said
    book = KeyBook(open_everything(desk.folder).store.document("keys.json"), desk.clock)
    assert book.list(revoked=True) == []


def test_a_lost_admin_file_leads_to_a_new_admin_key(desk):
    desk.ledger.close()
    desk.store.close()
    (desk.folder / "admin.json").write_bytes(b"")
    assert len(repair(desk.folder)) == 1
    document = open_everything(desk.folder).store.document("admin.json")
    assert AdminCredentials(document, None).ensure() is not None


def test_damaged_log_lines_are_reported_but_stop_nothing(desk):
    desk.ledger.note(record("run_1"))
    desk.ledger.note(record("run_2"))
    desk.ledger.close()
    desk.store.close()
    path = desk.folder / LOG
    path.write_bytes(path.read_bytes().replace(b"run_1", b"run_X"))
    (finding,) = check(desk.folder)
    assert not finding.blocks
    assert repair(desk.folder) == []


# --- disks ---

CAUSES = [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO, errno.EFBIG]
CALLS = ["write", "fsync", "fdatasync", "replace", "link"]


class Disk:
    """Lets one of the calls of `os` fail, all the time or the n-th time from now on."""

    def __init__(self, monkeypatch):
        self.failing: dict[str, int] = {}
        self.calls = 0
        for name in CALLS:
            monkeypatch.setattr(os, name, self._wrap(name, getattr(os, name)))

    def _wrap(self, name, real):
        def call(*args, **kwargs):
            if name in self.failing:
                raise OSError(self.failing[name], os.strerror(self.failing[name]))
            return real(*args, **kwargs)

        return call

    def fail(self, code, *names):
        self.failing = dict.fromkeys(names or CALLS, code)

    def heal(self):
        self.failing = {}


@pytest.fixture
def disk(monkeypatch):
    return Disk(monkeypatch)


@pytest.mark.parametrize("code", CAUSES, ids=errno.errorcode.get)
@pytest.mark.parametrize("call", ["write", "fdatasync"])
def test_a_failing_disk_refuses_new_work_and_heals_without_a_restart(desk, disk, code, call):
    open_run = desk.reserve()
    used = desk.today()
    disk.fail(code)
    refused = desk.refusal()
    assert refused.code == "storage_failed"
    assert not desk.ledger.open_for_business
    assert desk.ledger.open_reservations() == [open_run]
    # What runs already is settled all the same: the money was spent.
    with pytest.raises(BridgeError):
        desk.settle(open_run, cost_micro=9_000)
    assert desk.today()["costUsd"] == pytest.approx(used["costUsd"] + 0.009)
    disk.heal()
    assert desk.refusal().code == "storage_failed"  # tried again once a second at most
    desk.clock.pass_s(1)
    desk.spend(cost_micro=1_000)
    assert desk.ledger.open_for_business
    after = desk.today()
    desk.crash()
    desk.open()
    assert desk.today() == after
    assert desk.recovered == []


@pytest.mark.parametrize("call", CALLS)
def test_a_snapshot_that_fails_at_any_call_loses_nothing(desk, disk, call):
    before = desk.today()
    disk.fail(errno.ENOSPC, call)
    desk.ledger.close()
    disk.heal()
    desk.crash()
    desk.open()
    assert desk.today() == before
    assert desk.recovered == []


@pytest.mark.parametrize("call", ["write", "fsync", "replace", "link"])
def test_a_key_change_that_fails_at_any_call_changes_nothing(desk, disk, call):
    disk.fail(errno.ENOSPC, call)
    with pytest.raises(BridgeError) as refused:
        desk.book.disable("alice")
    assert refused.value.code == "storage_failed"
    assert desk.book.find(desk.raw).name == "alice"
    disk.heal()
    desk.crash()
    desk.open()
    assert KeyBook(desk.store.document("keys.json"), desk.clock).list()[0].name == "alice"
    desk.book.disable("alice")


def test_a_short_write_on_a_full_disk_leaves_no_half_line(desk, monkeypatch):
    real = os.write
    room = [30]

    def nearly_full(fd, data):
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real(fd, bytes(data)[: room[0]])
        room[0] -= written
        return written

    size = (desk.folder / LOG).stat().st_size
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", nearly_full)
        assert desk.refusal().code == "storage_failed"
    assert (desk.folder / LOG).stat().st_size == size
    desk.crash()
    desk.open()
    assert desk.recovered == []


def test_many_requests_while_the_disk_fails_hold_nothing_afterwards(desk, disk):
    disk.fail(errno.ENOSPC)
    results = gevent.joinall([gevent.spawn(desk.refusal) for _ in range(30)])
    assert {greenlet.value.code for greenlet in results} == {"storage_failed"}
    disk.heal()
    desk.clock.pass_s(1)
    desk.spend()
    gevent.joinall([gevent.spawn(desk.spend) for _ in range(30)], raise_error=True)
    assert desk.today()["requests"] == 33
    desk.crash()
    desk.open()
    assert desk.today()["requests"] == 33
    assert desk.recovered == []


def test_a_folder_that_became_read_only_refuses_to_open(desk, disk):
    desk.ledger.close()
    desk.store.close()
    disk.fail(errno.EROFS)
    with pytest.raises(StoreError):
        desk.open()


def small_disk(folder: Path, size: str) -> bool:
    """Mount a small disk on `folder`; false where this user may not."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    return shutil.which("mount") is not None and subprocess.run(command, capture_output=True).returncode == 0


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_a_disk_that_is_really_full_refuses_and_goes_on_once_there_is_room(tmp_path, monkeypatch):
    mounted = small_disk(tmp_path / "disk", "256k")
    try:
        desk = Desk(tmp_path / "disk" / "data")
        desk.spend()
        ballast = tmp_path / "disk" / "ballast"
        real = os.write
        if mounted:
            with pytest.raises(OSError, match="space"):
                fill(ballast)
        else:

            def full(fd, data):
                raise OSError(errno.ENOSPC, "No space left on device")

            monkeypatch.setattr(os, "write", full)
        codes = set()
        for _ in range(60):  # the last page of the journal may still have room
            try:
                desk.spend()
            except BridgeError as error:
                codes.add(error.code)
            desk.clock.pass_s(1)
        assert codes == {"storage_failed"}
        ballast.unlink(missing_ok=True)
        monkeypatch.setattr(os, "write", real)
        desk.clock.pass_s(1)
        desk.spend()
        after = desk.today()
        desk.reopen()
        assert desk.today() == after
        desk.store.close()
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(tmp_path / "disk")], check=True)


RLIMIT = """
import resource, sys
from pathlib import Path
from bridge.errors import BridgeError
from tests.support.ledger import Desk
from tests.faults.test_store_faults import LOG
desk = Desk(Path(sys.argv[1]))
desk.spend()
size = (desk.folder / LOG).stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, resource.RLIM_INFINITY))
try:
    desk.reserve()
except BridgeError as error:
    print(error.code)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
desk.clock.pass_s(1)
desk.spend()
desk.reopen()
print(desk.today()["requests"], desk.recovered)
"""


def test_a_file_size_limit_is_a_refusal_and_not_the_end_of_the_process(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", RLIMIT, str(tmp_path / "data")], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split("\n")[:2] == ["storage_failed", "2 []"], done.stderr


def test_a_journal_removed_under_a_running_server_is_written_again(desk):
    (desk.folder / LOG).unlink()
    desk.spend()
    held = desk.reserve()
    desk.crash()
    desk.open()
    assert desk.today()["requests"] == 4
    assert desk.recovered == [held]


def test_a_log_moved_away_while_the_disk_is_full_loses_nothing(desk, disk):
    held = desk.reserve()
    (desk.folder / LOG).rename(desk.folder / "moved")
    disk.fail(errno.ENOSPC)
    with pytest.raises(BridgeError):
        desk.settle(held, cost_micro=9_000)
    after = desk.today()
    disk.fail(errno.ENOSPC, "replace")  # the log can be written again, the snapshot not
    desk.clock.pass_s(1)
    assert desk.refusal().code == "storage_failed"
    assert not desk.ledger.open_for_business
    disk.heal()
    desk.clock.pass_s(1)
    desk.ledger.release(desk.reserve())
    desk.crash()
    desk.open()
    assert desk.today() == after


def test_a_log_moved_away_is_remembered_until_a_snapshot_has_what_was_in_it(desk, disk):
    (desk.folder / LOG).rename(desk.folder / "moved")
    disk.fail(errno.ENOSPC, "write")  # the new file can be opened, and not yet written to
    assert desk.refusal().code == "storage_failed"
    disk.heal()
    desk.clock.pass_s(1)
    desk.ledger.release(desk.reserve())
    after = desk.today()
    desk.crash()
    desk.open()
    assert desk.today() == after


def test_what_was_settled_while_the_disk_failed_is_in_the_log_afterwards(desk, disk):
    held = desk.reserve()
    disk.fail(errno.ENOSPC)
    with pytest.raises(BridgeError):
        desk.settle(held, cost_micro=9_000)
    disk.heal()
    desk.clock.pass_s(1)
    desk.spend(cost_micro=1_000)
    log = RunLog(desk.tallies.journal, desk.clock, desk.zone)
    assert log.find(held.id)["costUsd"] == 0.009
    assert sum(line["costUsd"] for line in log.iterate()) == pytest.approx(desk.today()["costUsd"])
