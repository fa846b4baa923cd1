"""`cli-bridge cluster`: a data folder becomes a cluster, and a cluster a data folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from bridge.clock import Clock
from bridge.errors import StoreError
from bridge.keys.keys import KeyBook
from bridge.ledger.pricing import PriceTable
from bridge.ledger.replica import SharedTallies, open_cluster
from bridge.ledger.tallies import FileTallies
from bridge.limits import Limits, spans_of
from bridge.ops import cluster
from bridge.records.audit import Audit
from bridge.settings import Settings
from bridge.store.document import Document
from bridge.store.folder import Store
from tests.support.ledger import Desk, line_of
from tests.support.redis import RedisServer, redis_server

DAY = spans_of("2026-11-20")["day"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis"), always=True) as started:
        yield started


def settings_of(server: RedisServer, folder: Path, **more: str) -> Settings:
    given = {"BRIDGE_STORE_URL": server.url, "BRIDGE_DATA_DIR": str(folder), "BRIDGE_NODE": folder.name, **more}
    return Settings.load(given)


@pytest.fixture
def books(server: RedisServer, tmp_path: Path) -> Path:
    """A data folder with a key, usage, and an entry of the audit, beside an empty server."""
    server.command("FLUSHALL")
    folder = tmp_path / "a"
    desk = Desk(folder)
    desk.spend(cost_micro=700)
    left_open = desk.reserve()
    KeyBook(Document(folder / "keys.json"), Clock()).create("alice", Limits())
    audit = Audit(folder / "audit.jsonl", Clock())
    audit.write("key_created", "alice", actor="admin", address="")
    audit.close()
    desk.crash()
    assert left_open.cost_micro
    return folder


def used_in(folder: Path) -> int:
    """What the key has used by the files of a folder, in micro-dollars."""
    store = Store.open(folder)
    tallies = FileTallies(store, Clock(), Settings.load({}).zone)
    used = tallies.tally("alice").used(DAY).cost_micro
    tallies.close()
    store.close()
    return used


class Node:
    """A node as far as its books."""

    def __init__(self, settings: Settings) -> None:
        clock = Clock()
        self.store = Store.open(settings.data_dir)
        try:
            prices = PriceTable(settings.data_dir / "prices.json", clock)
            self.cluster = open_cluster(settings, self.store, clock, prices)
            self.tallies = SharedTallies(self.cluster, self.store, clock, settings.zone)
        except BaseException:
            self.store.close()
            raise

    def close(self) -> None:
        self.tallies.close()
        self.store.close()


def refusal(settings: Settings) -> str:
    with pytest.raises(StoreError) as caught:
        Node(settings)
    return caught.value.message


def test_a_folder_becomes_a_cluster_and_a_cluster_a_folder(server: RedisServer, books: Path, tmp_path: Path) -> None:
    settings = settings_of(server, books)
    assert cluster.init(settings, books)["keys"] == 1
    before = used_in(books)
    assert before > 700
    node, other = Node(settings), Node(settings_of(server, tmp_path / "b"))
    assert other.tallies.tally("alice").used(DAY).cost_micro == before
    held = msgspec.structs.replace(_some_reservation(before), id="run_9", owner=other.tallies.owner)
    other.tallies.admit("alice", lambda tally, credentials: held)
    other.tallies.settle(line_of(held, 300))
    found = cluster.status(settings)
    assert [(each["name"], each["alive"]) for each in found["nodes"]] == [("a", True), ("b", True)]
    assert (found["records"], found["problem"], found["warning"]) == (2, None, None)
    with pytest.raises(StoreError, match="still there"):
        cluster.leave(settings, "b")
    other.close()
    cluster.leave(settings, "b")
    assert [each["name"] for each in cluster.status(settings)["nodes"]] == ["a"]
    node.close()
    out = tmp_path / "out"
    assert cluster.export(settings, out) == {"keys": 1, "records": 2, "audit": 1}
    assert used_in(out) == before + 300
    assert [key.name for key in KeyBook(Document(out / "keys.json"), Clock()).list()] == ["alice"]
    with pytest.raises(StoreError, match="not empty"):
        cluster.export(settings, out)


def _some_reservation(cost_micro: int):  # type: ignore[no-untyped-def]
    from bridge.ledger.tallies import Reservation

    return Reservation("run", "alice", "demo", "demo", 0.0, "2026-11-20", 10, 90, cost_micro)
