"""Data written by earlier releases is opened, brought up to date after a backup, and never by an older one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bridge.clock import parse_iso
from bridge.errors import StoreError
from bridge.keys.keys import KeyBook
from bridge.service import Service
from bridge.settings import Settings
from bridge.store import archive, document
from bridge.store import folder as folders
from bridge.store.folder import Store, upgrade
from tests.support.ledger import FrozenClock

FIXTURES = sorted((Path(__file__).resolve().parents[1] / "fixtures").glob("data-schema-*"))


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda path: path.name)
def test_data_of_every_schema_is_opened_with_its_figures(fixture: Path, tmp_path: Path) -> None:
    shutil.copytree(fixture / "data", tmp_path / "data")
    expected = json.loads((fixture / "expected.json").read_text())
    clock = FrozenClock(parse_iso(expected["at"]))
    service = Service(Settings.load({"BRIDGE_DATA_DIR": str(tmp_path / "data")}), clock=clock)
    try:
        for name, raw in expected["keys"].items():
            assert service.keys.find(raw).name == name
        assert service.admin.verify(expected["admin_key"])
        for name, figures in expected["usage"].items():
            used = service.ledger.usage(name)["today"]
            assert {field: used[field] for field in figures} == pytest.approx(figures)
        assert len(list(service.log.iterate())) == expected["log_lines"]
        assert len(service.audit.page()[0]) == expected["audit_lines"]
    finally:
        service.close()


def test_there_are_fixtures_of_every_schema_up_to_now() -> None:
    newest = max(document.SCHEMAS.values())
    assert [path.name for path in FIXTURES] == [f"data-schema-{n}" for n in range(1, newest + 1)]


def test_there_is_a_step_from_every_schema() -> None:
    wanted = {(name, version) for name, newest in document.SCHEMAS.items() for version in range(1, newest)}
    assert set(folders.STEPS) == wanted


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The data of the first release."""
    shutil.copytree(FIXTURES[0] / "data", tmp_path / "data")
    return tmp_path / "data"


def second(content: dict[str, Any]) -> dict[str, Any]:
    return {**content, "keys": [{**key, "note": "second"} for key in content["keys"]]}


def third(content: dict[str, Any]) -> dict[str, Any]:
    return {**content, "keys": [{**key, "note": key["note"] + " and third"} for key in content["keys"]]}


STEPS = {("keys.json", 1): second, ("keys.json", 2): third}


def test_an_older_file_goes_through_every_step_after_a_backup(folder: Path, tmp_path: Path) -> None:
    before = (folder / "keys.json").read_bytes()
    saved = upgrade(folder, FrozenClock(), {"keys.json": 3, "usage.json": 1}, STEPS)
    content = json.loads((folder / "keys.json").read_text())
    assert content["schema"] == 3
    assert {key["note"] for key in content["keys"]} == {"second and third"}
    assert saved is not None
    (tmp_path / "unpacked").mkdir()
    with saved.open("rb") as file:
        archive.read(file, tmp_path / "unpacked")
    assert (tmp_path / "unpacked" / "keys.json").read_bytes() == before
    log = "logs/2026-11-21.jsonl"
    assert (tmp_path / "unpacked" / log).read_bytes() == (folder / log).read_bytes()
    assert upgrade(folder, FrozenClock(), {"keys.json": 3, "usage.json": 1}, STEPS) is None, "nothing is left"


def test_a_folder_that_is_up_to_date_is_not_touched(folder: Path) -> None:
    before = sorted((path.name, path.stat().st_mtime_ns) for path in folder.iterdir())
    assert upgrade(folder, FrozenClock()) is None
    assert sorted((path.name, path.stat().st_mtime_ns) for path in folder.iterdir()) == before


@pytest.mark.parametrize("name", document.SCHEMAS)
def test_a_newer_file_is_refused_and_left_as_it_is(folder: Path, name: str) -> None:
    if not (folder / name).exists():  # it came after the first release
        document.Document(folder / name).save({})
    content = {**json.loads((folder / name).read_text()), "schema": document.SCHEMAS[name] + 1}
    (folder / name).write_text(json.dumps(content))
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(StoreError, match="newer version of cli-bridge") as refused:
        Store.open(folder)
    assert "backup" in refused.value.hint
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file() and p.name != "lock"} == before


def test_without_a_step_nothing_is_guessed(folder: Path) -> None:
    with pytest.raises(StoreError, match="cannot bring up to date"):
        upgrade(folder, FrozenClock(), {"keys.json": 3}, {("keys.json", 1): second})
    assert json.loads((folder / "keys.json").read_text())["schema"] == 1
    assert not (folder / "backup").exists()


def test_where_the_backup_fails_nothing_is_changed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive, "save", full)
    with pytest.raises(OSError, match="No space"):
        upgrade(folder, FrozenClock(), {"keys.json": 3}, STEPS)
    assert json.loads((folder / "keys.json").read_text())["schema"] == 1


def test_the_server_upgrades_at_its_start(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(document.SCHEMAS, "keys.json", 3)
    monkeypatch.setattr(folders, "STEPS", STEPS)
    monkeypatch.setattr(folders.upgrade, "__defaults__", (document.SCHEMAS, STEPS))
    store = Store.open(folder)
    try:
        book = KeyBook(store.document("keys.json"), FrozenClock())
        assert {key.note for key in book.list()} == {"second and third"}
        assert len(list((folder / "backup").glob("before-upgrade-*.tar.gz"))) == 1
    finally:
        store.close()
