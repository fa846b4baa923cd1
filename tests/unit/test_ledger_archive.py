"""Backups: what is in them, and that nothing is restored which was not written as a backup."""

from __future__ import annotations

import gzip
import io
import json
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.errors import BridgeError, StoreError, StoreLocked
from bridge.keys.admin import AdminCredentials
from bridge.keys.keys import KeyBook
from bridge.limits import Limits
from bridge.ops import backup
from bridge.ops.backup import put_in_place
from bridge.store import archive
from bridge.store.document import Document
from bridge.store.folder import RESTORING, Store
from tests.support.ledger import Desk, FrozenClock, record

MADE = "2026-11-20T12:00:00.000Z"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A data folder with a key, usage, a running request, a log, an answer of a job, and leavings."""
    desk = Desk(tmp_path / "data")
    book = KeyBook(Document(desk.folder / "keys.json"), desk.clock)
    _, desk.raw = book.create("alice", Limits())  # type: ignore[attr-defined]
    AdminCredentials(Document(desk.folder / "admin.json"), None).ensure()
    desk.ledger.note(record("run_1"))
    desk.spend(700)
    desk.reserve()
    (desk.folder / "jobs").mkdir()
    (desk.folder / "jobs" / "run_9.json").write_text('{"answer": "private"}')
    (desk.folder / "audit.jsonl.torn-1").write_text("x")
    return desk


def save(desk: Desk, path: Path) -> archive.Manifest:
    return archive.save(path, desk.folder, desk.ledger.snapshot(), MADE)


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]


def test_a_backup_has_what_is_needed_and_no_secret(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "b.tar.gz"
    manifest = save(desk, path)
    found = members(path)
    assert set(found) == {
        "usage.json", "keys.json", "admin.json", "logs/2026-11-20.jsonl", "manifest.json"
    }  # fmt: skip
    assert set(manifest.files) == set(found) - {"manifest.json"}
    secrets = [desk.raw, *AdminCredentials(Document(desk.folder / "admin.json"), None).cookie_secrets]  # type: ignore[attr-defined]
    assert len(secrets) == 2
    for secret in secrets:
        assert not any(secret.encode() in content for content in found.values())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith("b.")] == ["b.tar.gz"]


def test_a_line_that_is_just_being_written_is_left_out(desk: Desk, tmp_path: Path) -> None:
    log = desk.folder / "logs" / "2026-11-20.jsonl"
    whole = log.read_bytes()
    usage = desk.ledger.snapshot()
    log.write_bytes(whole + b'{"seq":2,"half')
    archive.save(tmp_path / "b.tar.gz", desk.folder, usage, MADE)
    assert members(tmp_path / "b.tar.gz")["logs/2026-11-20.jsonl"] == whole


def test_a_restored_folder_has_the_same_figures(desk: Desk, tmp_path: Path) -> None:
    save(desk, tmp_path / "b.tar.gz")
    desk.ledger.close()
    desk.store.close()
    with (tmp_path / "b.tar.gz").open("rb") as source:
        put_in_place(tmp_path / "other", source, FrozenClock())
    other = Desk(tmp_path / "other")
    assert other.today()["requests"] == 2
    assert other.today()["costUsd"] == pytest.approx(0.0007 + other.recovered[0].cost_micro / 1e6)
    other.spend(1)
    KeyBook(Document(other.folder / "keys.json"), other.clock).find(desk.raw)  # type: ignore[attr-defined]
    for path in other.folder.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_what_was_there_is_kept_aside(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "b.tar.gz"
    save(desk, path)
    desk.spend(900)
    before = desk.today()
    desk.ledger.close()
    desk.store.close()
    with path.open("rb") as source:
        _, aside = put_in_place(desk.folder, source, desk.clock)
    assert aside is not None
    assert aside.parent == desk.folder
    assert (aside / "jobs" / "run_9.json").exists()
    kept = Desk(aside)
    assert kept.today()["costUsd"] >= before["costUsd"]
    with path.open("rb") as source:
        _, second = put_in_place(desk.folder, source, desk.clock)
    assert second not in (None, aside), "the same second, and still nothing is overwritten"


def test_nothing_is_touched_while_a_server_has_the_folder(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "b.tar.gz"
    save(desk, path)
    with path.open("rb") as source, pytest.raises(StoreLocked):
        put_in_place(desk.folder, source, desk.clock)
    desk.spend(1)


def test_a_swap_that_was_cut_off_keeps_the_server_closed_until_it_is_done_again(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "b.tar.gz"
    save(desk, path)
    desk.ledger.close()
    desk.store.close()
    whole = Path.rename

    def breaks_off(self: Path, target: Path) -> Path:
        if self.name == "keys.json" and self.parent.name == RESTORING:
            raise OSError(5, "cut off")
        return whole(self, target)

    with monkeypatch.context() as patch, path.open("rb") as source:
        patch.setattr(Path, "rename", breaks_off)
        with pytest.raises(OSError, match="cut off"):
            put_in_place(desk.folder, source, desk.clock)
    with pytest.raises(StoreError, match="cut off") as refused:
        Store.open(desk.folder)
    assert "restore" in refused.value.hint
    with path.open("rb") as source:
        put_in_place(desk.folder, source, desk.clock)
    assert Desk(desk.folder).today()["requests"] == 2


def repacked(path: Path, change: Callable[[dict[str, bytes]], None], **odd: tarfile.TarInfo) -> io.BytesIO:
    """The backup with its members changed, as somebody else might pack it."""
    found = members(path)
    change(found)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for member in odd.values():
            tar.addfile(member)
        for name, content in found.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return io.BytesIO(out.getvalue())


def _link(kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo("prices.json")
    member.type, member.linkname = kind, "/etc/passwd"
    return member


def _sparse() -> tarfile.TarInfo:
    """A member of no bytes that says that it is two gigabytes of holes."""
    member = tarfile.TarInfo("logs/2026-11-19.jsonl")
    member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(2**31)}
    return member


def _with_header(size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo("prices.json")
    member.pax_headers = {"comment": "x" * size}
    return member


def _old_sparse() -> tarfile.TarInfo:
    member = tarfile.TarInfo("prices.json")
    member.type = tarfile.GNUTYPE_SPARSE
    return member


def _swap(name: str, content: bytes) -> Callable[[dict[str, bytes]], None]:
    return lambda found: found.update({name: content})


def _keys(name: str) -> bytes:
    row = {"name": name, "hashes": [{"sha256": "0" * 64}], "limits": {}, "createdAt": 1.0}
    return json.dumps({"schema": 1, "keys": [row]}).encode()


TRICKS = {
    "a changed file": (_swap("keys.json", b'{"schema": 1}\n'), {}),
    "a missing file": (lambda found: found.pop("keys.json"), {}),
    "one file more": (_swap("prices.json", b"{}"), {}),
    "a path upwards": (_swap("../evil.json", b"{}"), {}),
    "an absolute path": (_swap("/etc/evil.json", b"{}"), {}),
    "a folder of its own": (_swap("logs/../../evil.jsonl", b""), {}),
    "a program": (_swap("evil.py", b""), {}),
    "a symbolic link": (lambda found: None, {"link": _link(tarfile.SYMTYPE)}),
    "a hard link": (lambda found: None, {"link": _link(tarfile.LNKTYPE)}),
    "a device": (lambda found: None, {"device": _link(tarfile.CHRTYPE)}),
    "holes": (lambda found: None, {"sparse": _sparse()}),
    "holes of the old kind": (lambda found: None, {"sparse": _old_sparse()}),
    "a large header": (lambda found: None, {"header": _with_header(100_000)}),
    "a large file of nothing": (_swap("prices.json", b" " * 60_000_000), {}),
    "a key with a path for a name": (_swap("keys.json", _keys("../../x")), {}),
    "a key with a colour for a name": (_swap("keys.json", _keys("x\x1b[31m")), {}),
    "a manifest that is nested": (_swap("manifest.json", b"[" * 200_000), {}),
    "no manifest": (lambda found: found.pop("manifest.json"), {}),
    "a manifest that is none": (_swap("manifest.json", b"[]"), {}),
    "another format": (_swap("manifest.json", b'{"format": 2}'), {}),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_a_backup_that_is_not_as_it_was_written_is_refused(desk: Desk, tmp_path: Path, trick: str) -> None:
    save(desk, tmp_path / "b.tar.gz")
    desk.ledger.close()
    desk.store.close()
    before = {path: path.read_bytes() for path in desk.folder.rglob("*") if path.is_file() and path.name != "lock"}
    change, odd = TRICKS[trick]
    source = repacked(tmp_path / "b.tar.gz", change, **odd)  # type: ignore[arg-type]
    with pytest.raises(StoreError):
        put_in_place(desk.folder, source, desk.clock)
    after = {path: path.read_bytes() for path in desk.folder.rglob("*") if path.is_file() and path.name != "lock"}
    assert after == before
    assert not list(tmp_path.rglob("evil*"))


def test_a_backup_that_was_cut_anywhere_is_refused(desk: Desk, tmp_path: Path) -> None:
    save(desk, tmp_path / "b.tar.gz")
    data = (tmp_path / "b.tar.gz").read_bytes()
    for end in [*range(0, len(data), 37), *range(len(data) - 40, len(data))]:
        with pytest.raises(StoreError):
            archive.read(io.BytesIO(data[:end]))
    for at in range(10, len(data), 61):
        damaged = bytearray(data)
        damaged[at] ^= 0x10
        try:
            assert archive.read(io.BytesIO(bytes(damaged))).files
        except StoreError:
            continue
        # A bit that says nothing, such as a time in a header; what was read is still as it was.
        assert archive.read(io.BytesIO(bytes(damaged))) == archive.read(io.BytesIO(data))


def test_a_backup_of_something_that_no_server_would_open_is_refused(desk: Desk, tmp_path: Path) -> None:
    (desk.folder / "keys.json").write_text("{")
    save(desk, tmp_path / "b.tar.gz")
    with (tmp_path / "b.tar.gz").open("rb") as source, pytest.raises(StoreError, match="could not be opened"):
        put_in_place(tmp_path / "other", source, desk.clock)
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["lock"]


def test_a_full_disk_leaves_no_half_backup(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "b.tar.gz").write_text("the last one")

    def full(fd: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save(desk, tmp_path / "b.tar.gz")
    assert (tmp_path / "b.tar.gz").read_text() == "the last one"
    assert not list(tmp_path.glob("*.new"))


def test_what_root_restores_belongs_to_the_owner_of_the_folder(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = backup

    save(desk, tmp_path / "b.tar.gz")
    given: dict[str, tuple[int, int]] = {}
    folder = tmp_path / "other"
    folder.mkdir()
    real = Path.stat

    def owned(self: Path, **how: bool) -> os.stat_result:
        status = real(self, **how)
        return os.stat_result((*status[:4], 990, 991, *status[6:])) if self == folder else status

    monkeypatch.setattr(Path, "stat", owned)
    monkeypatch.setattr(module.os, "geteuid", lambda: 0)
    monkeypatch.setattr(module.os, "chown", lambda path, uid, gid, **how: given.update({path.name: (uid, gid)}))
    with (tmp_path / "b.tar.gz").open("rb") as source:
        put_in_place(folder, source, desk.clock)
    assert set(given.values()) == {(990, 991)}
    assert {"keys.json", "usage.json", "logs", "2026-11-20.jsonl"} <= set(given)


def test_the_manifest_is_plain_json(desk: Desk, tmp_path: Path) -> None:
    save(desk, tmp_path / "b.tar.gz")
    manifest = json.loads(members(tmp_path / "b.tar.gz")["manifest.json"])
    assert manifest["format"] == archive.FORMAT
    assert manifest["madeAt"] == MADE
    assert gzip.decompress((tmp_path / "b.tar.gz").read_bytes())
    with pytest.raises(BridgeError):
        KeyBook(Document(desk.folder / "keys.json"), desk.clock).find("cb_somebody else")
