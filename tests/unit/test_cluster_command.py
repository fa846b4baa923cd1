"""`cli-bridge cluster`: a data folder becomes a cluster, and a cluster a data folder."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from bridge.clock import Clock
from bridge.errors import BridgeError, StoreError
from bridge.keys.keys import KeyBook
from bridge.ledger.pricing import PriceTable
from bridge.ledger.replica import SharedTallies, open_cluster
from bridge.ledger.tallies import Figures, FileTallies, Reservation
from bridge.limits import Limits, spans_of
from bridge.ops import cluster
from bridge.ops.doctor import data
from bridge.records.audit import Audit
from bridge.settings import Settings
from bridge.store.document import Document
from bridge.store.folder import Store
from tests.property.tallies_suite import refused
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
        self.is_open = True

    def close(self) -> None:
        if self.is_open:
            self.tallies.close()
            self.store.close()
        self.is_open = False


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
    spend(other, "run_9")
    found = cluster.status(settings)
    assert [(each["name"], each["alive"]) for each in found["nodes"]] == [("a", True), ("b", True)]
    assert (found["records"], found["problem"], found["warning"]) == (2, None, None)
    assert abs(found["clockAheadS"]) < 60
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


def spend(node: Node, run: str, cost_micro: int = 300) -> None:
    """Reserve and settle."""
    held = Reservation(run, "alice", "demo", "demo", 0.0, "2026-11-20", 10, 90, 5000, owner=node.tallies.owner)
    node.tallies.admit("alice", lambda tally, credentials: held)
    node.tallies.settle(line_of(held, cost_micro))


@pytest.fixture
def node(server: RedisServer, books: Path) -> Iterator[Node]:
    """A node that has spent something in a cluster."""
    cluster.init(settings_of(server, books), books)
    opened = Node(settings_of(server, books))
    spend(opened, "run_9")
    yield opened
    opened.close()


def test_a_running_node_closes_when_the_server_loses_its_data(server: RedisServer, node: Node) -> None:
    server.command("FLUSHALL")
    with pytest.raises(BridgeError, match="lacks what it had confirmed"):
        spend(node, "run_10")
    assert not node.tallies.writable


def test_a_running_node_writes_nothing_into_another_cluster_that_is_in_the_place_of_its_own(
    server: RedisServer, node: Node, tmp_path: Path
) -> None:
    node.tallies._keeper.kill()  # it would find out by itself, soon
    server.command("FLUSHALL")
    elsewhere = settings_of(server, tmp_path / "elsewhere" / node.cluster.node)
    cluster.init(elsewhere, None)
    other = Node(elsewhere)
    for number in range(3):
        spend(other, f"run_{number}")
    with pytest.raises(BridgeError, match="belongs to another cluster"):
        node.tallies.reset("alice", "2026-11-20")
    assert not node.tallies.writable
    assert server.command("XLEN", "{cb}:journal") == 6
    other.close()


def test_a_running_node_closes_when_the_server_goes_back_in_time(server: RedisServer, node: Node) -> None:
    server.command("SET", "{cb}:seq", 1)
    with pytest.raises(BridgeError, match="lacks what it had confirmed"):
        spend(node, "run_10")


def test_a_node_finds_out_that_others_have_written_over_what_was_lost(server: RedisServer, node: Node) -> None:
    *_, (last, _) = server.command("XRANGE", "{cb}:journal", "-", "+")  # type: ignore[misc]
    server.command("XDEL", "{cb}:journal", last)
    assert refused(node.tallies.sync) is None  # it asks for nothing before what it has
    server.command("SET", "{cb}:seq", 3)
    server.command("XADD", "{cb}:journal", "3-1", "r", "{}", "o", "b.1")
    with pytest.raises(BridgeError, match="lacks what it had confirmed"):
        node.tallies.sync()


def test_a_node_does_not_start_on_a_server_that_lost_data(server: RedisServer, node: Node, tmp_path: Path) -> None:
    settings = settings_of(server, node.store.folder)
    node.close()
    server.command("DEL", "{cb}:journal")
    server.command("SET", "{cb}:seq", 1)
    assert "lacks what it had confirmed" in refusal(settings)
    assert cluster.loss(settings) == cluster.Loss(here=2, there=1)
    server.command("SET", "{cb}:seq", 0)
    cluster.accept_loss(settings)
    again = Node(settings)
    assert again.tallies.tally("alice").used(DAY).cost_micro == used_in_snapshot(server)
    again.close()
    server.command("FLUSHALL")
    assert "holds no cluster" in refusal(settings)


def used_in_snapshot(server: RedisServer) -> int:
    packed = server.command("HGET", "{cb}:snapshot", "figures")
    assert isinstance(packed, bytes)
    return msgspec.json.decode(zlib.decompress(packed), type=Figures).tallies["alice"].used(DAY).cost_micro


def test_a_node_is_the_beginning_of_another_cluster_after_a_loss(server: RedisServer, node: Node) -> None:
    settings = settings_of(server, node.store.folder)
    had = node.tallies.tally("alice").used(DAY).cost_micro
    node.close()
    server.command("FLUSHALL")
    cluster.init(settings, settings.data_dir)
    again = Node(settings)
    assert again.tallies.tally("alice").used(DAY).cost_micro == had
    again.close()


def test_a_server_that_does_not_keep_data_is_refused(server: RedisServer, node: Node) -> None:
    settings = settings_of(server, node.store.folder)
    node.close()
    for name, wrong, right in (("maxmemory-policy", "allkeys-lru", "noeviction"), ("appendonly", "no", "yes")):
        server.command("CONFIG", "SET", name, wrong)
        assert name in refusal(settings)
        server.command("CONFIG", "SET", name, right)
    server.command("CONFIG", "SET", "appendfsync", "everysec")
    try:
        assert "can lose the last seconds" in cluster.status(settings)["warning"]
    finally:
        server.command("CONFIG", "SET", "appendfsync", "always")


def test_another_cluster_another_folder_and_other_settings_are_refused(
    server: RedisServer, node: Node, tmp_path: Path
) -> None:
    settings = settings_of(server, node.store.folder)
    assert "differ from those" in refusal(settings_of(server, tmp_path / "b", BRIDGE_TIMEZONE="Europe/Berlin"))
    prices = tmp_path / "c" / "prices.json"
    Store.open(prices.parent).close()
    prices.write_text(PRICES)
    assert "differ from those" in refusal(settings_of(server, tmp_path / "c"))
    Desk(tmp_path / "d").crash()
    desk = Desk(tmp_path / "e")
    desk.spend()
    desk.ledger.close()
    desk.store.close()
    assert "of its own" in refusal(settings_of(server, tmp_path / "e"))
    server.command("HSET", "{cb}:meta", "schema", 2)
    assert "in another way" in refusal(settings_of(server, tmp_path / "b"))
    for command in (lambda: cluster.init(settings, None), lambda: cluster.status(settings)):
        with pytest.raises(StoreError, match="in another way"):
            command()
    node.close()
    server.command("HSET", "{cb}:meta", "id", "another", "schema", 1)
    assert "another cluster" in refusal(settings)


def test_doctor_says_how_the_cluster_is(
    server: RedisServer, node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(settings: Settings) -> tuple[str, str]:
        found = next(each for each in data.check(settings) if each.what == "cluster")
        return found.level, found.found

    settings = settings_of(server, node.store.folder)
    assert said(settings) == ("ok", f"{node.cluster.id}, hosts that run: a")
    monkeypatch.setattr(data, "MOST_SKEW_S", -1.0)
    assert said(settings)[0] == "warn"
    assert "off that of Redis" in said(settings)[1]
    server.command("CONFIG", "SET", "appendfsync", "everysec")
    assert said(settings)[0] == "warn"
    assert "can lose the last seconds" in said(settings)[1]
    server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    assert said(settings)[0] == "fail"
    server.command("CONFIG", "SET", "appendfsync", "always")
    server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
    elsewhere = settings_of(server, node.store.folder, BRIDGE_STORE_URL=f"unix://{tmp_path}/none")
    assert said(elsewhere)[0] == "fail"
    assert "no connection" in said(elsewhere)[1]


def test_init_and_the_others_say_what_is_wrong(server: RedisServer, node: Node, tmp_path: Path) -> None:
    settings = settings_of(server, node.store.folder)
    with pytest.raises(StoreError, match="holds a cluster already"):
        cluster.init(settings, tmp_path)
    assert cluster.init(settings, None) == {"id": node.cluster.id, "new": False, "keys": None}
    with pytest.raises(StoreError, match="no host 'x'"):
        cluster.leave(settings, "x")
    with pytest.raises(StoreError, match="BRIDGE_STORE_URL is not set"):
        cluster.status(Settings.load({}))


def test_a_node_that_was_away_for_long_takes_the_figures_that_were_put_there(
    server: RedisServer, node: Node, tmp_path: Path
) -> None:
    away = Node(settings_of(server, tmp_path / "b"))
    away.cluster.beat()
    away.close()
    for number in range(20, 24):
        spend(node, f"run_{number}")
    assert node.cluster.call("cb_snapshot", node.tallies._own.shared, packed(node), 1) == 1
    assert server.command("XLEN", "{cb}:journal") == 2
    back = Node(settings_of(server, tmp_path / "b"))
    assert back.tallies.tally("alice").used(DAY) == node.tallies.tally("alice").used(DAY)
    back.close()


def packed(node: Node) -> bytes:
    return zlib.compress(msgspec.json.encode(node.tallies._own.figures))


PRICES = '{"providers": {"demo": {"models": {"demo": {"input": 1, "cached": 1, "cacheWrite": 1, "output": 2}}}}}'
