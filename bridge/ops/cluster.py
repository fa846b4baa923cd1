"""What `cli-bridge cluster` does: making a cluster of a data folder and a folder of a cluster, and looking at it."""

from __future__ import annotations

import secrets
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from bridge.clock import Clock
from bridge.errors import StoreError
from bridge.ledger.replica import NOTHING, Membership, SharedTallies
from bridge.ledger.tallies import Figures, FileTallies
from bridge.records import audit
from bridge.settings import Settings
from bridge.store.document import Document
from bridge.store.folder import CLUSTER_FILE, Store
from bridge.store.redis import NOT_JOINED, SCHEMA, Cluster, cluster_id, load_functions, memory_of, name, persistence_of
from bridge.store.shared import SHARED


@contextmanager
def connected(settings: Settings) -> Iterator[Cluster]:
    """The server of BRIDGE_STORE_URL, without taking part. Raises StoreError."""
    if settings.store_url is None:
        raise StoreError("BRIDGE_STORE_URL is not set.", "It names the Redis that several hosts share.")
    cluster = Cluster(settings.store_url, "command", Clock(), settings.network)
    try:
        yield cluster
    finally:
        cluster.close()


def init(settings: Settings, folder: Path | None) -> dict[str, Any]:
    """Make a cluster in an empty server, with what a data folder has, which then belongs to it; and in one that holds a
    cluster, renew the functions, and nothing else. Raises StoreError, among them StoreLocked, and BridgeError."""
    with connected(settings) as cluster:
        problem = persistence_of(cluster).problem
        if problem is not None:
            raise StoreError(problem, "docs/cluster.md has a configuration that fits.")
        found = cluster_id(cluster)
        if found is not None:
            _check_schema(cluster)
            if folder is not None:
                raise StoreError(
                    "This Redis holds a cluster already.", "Empty it first, or take another one, or another database."
                )
            load_functions(cluster)
            return {"id": found, "new": False, "keys": None}
        load_functions(cluster)
        id = secrets.token_hex(8)
        taken = 0 if folder is None else _put_in(settings, cluster, folder, id)
        if folder is None:
            _publish(cluster, Figures())
        # So that no life of another cluster has the name of one of this.
        cluster.command("SET", name("epoch"), 1000 * secrets.randbelow(10**6))
        # Last: without it there is no cluster, and this can be done again.
        cluster.command("HSET", name("meta"), "id", id, "schema", SCHEMA)
        return {"id": id, "new": True, "keys": taken}


def _put_in(settings: Settings, cluster: Cluster, folder: Path, id: str) -> int:
    """Put what a data folder has on the server; how many keys."""
    store = Store.open(folder)
    try:
        tallies = FileTallies(store, Clock(), settings.zone)
        for owner in tallies.orphans():
            tallies.recover(owner)
        _publish(cluster, tallies.figures)
        keys = 0
        for document in SHARED:
            content = store.document(document).load()
            if content is not None:
                cluster.command("SET", name("doc", document), msgspec.json.encode(content))
                cluster.command("HSET", name("versions"), document, 1)
                keys += len(content.get("keys", ())) if document == "keys.json" else 0
        cluster.command("DEL", name("audit"))
        for entry in audit.entries(folder / "audit.jsonl"):
            cluster.command("XADD", name("audit"), "*", "e", msgspec.json.encode(entry))
        tallies.adopt(tallies.figures, NOTHING)
        tallies.close()
        store.document(CLUSTER_FILE).save(msgspec.to_builtins(Membership(id, secrets.token_hex(8))))
        return keys
    finally:
        store.close()


def _publish(cluster: Cluster, figures: Figures) -> None:
    packed = zlib.compress(msgspec.json.encode(figures))
    cluster.command("HSET", name("snapshot"), "id", NOTHING, "figures", packed)


def status(settings: Settings) -> dict[str, Any]:
    """What there is of the cluster, for people and programs. Raises StoreError, BridgeError."""
    with connected(settings) as cluster:
        id = _id_of(cluster)
        last = int(cluster.command("GET", name("seq")) or 0)
        alive, at, places = (_hash(cluster, each) for each in ("alive", "at", "places"))
        leases = {owner.rpartition(".")[0]: float(ends) for owner, ends in alive.items()}
        seconds, micros = map(int, cluster.command("TIME"))
        now_ms = 1000 * seconds + micros / 1000
        used, most = memory_of(cluster)
        safety = persistence_of(cluster)
        return {
            "id": id,
            "records": last,
            "kept": int(cluster.command("XLEN", name("journal"))),
            "memory": {"used": used, "most": most},
            "clockAheadS": round(time.time() - now_ms / 1000, 1),
            "problem": safety.problem,
            "warning": safety.warning,
            "nodes": [
                {"name": node, "alive": leases.get(node, 0) > now_ms, "behind": last - int(at.get(node, 0))}
                for node in sorted(places)
            ],
        }


def leave(settings: Settings, node: str) -> None:
    """Forget a node that is gone: the journal is kept for it no longer. Raises StoreError, BridgeError."""
    with connected(settings) as cluster:
        _id_of(cluster)
        if node not in _hash(cluster, "places"):
            raise StoreError(f"The cluster has no host {node[:63]!r}.", "'cli-bridge cluster status' lists them.")
        if any(owner.rpartition(".")[0] == node for owner in _hash(cluster, "alive")):
            raise StoreError(
                f"The host {node} is still there, or has been within the last seconds.",
                "Stop its bridge first; what it had reserved is settled by the others.",
            )
        for each in ("places", "at"):
            cluster.command("HDEL", name(each), node)
        cluster.command("DEL", name("wishes", node))


def export(settings: Settings, target: Path) -> dict[str, Any]:
    """Write keys, usage, credentials and audit of a cluster into a new data folder, which belongs to none.
    Raises StoreError, BridgeError."""
    if target.exists() and any(target.iterdir()):
        raise StoreError(f"{target.name} is not empty.", "Name a folder that does not exist yet.")
    with connected(settings) as cluster:
        _id_of(cluster)
        store = Store.open(target)
        try:
            tallies = SharedTallies(cluster, store, Clock(), settings.zone)
            keys = 0
            for each in SHARED:
                data = cluster.command("GET", name("doc", each))
                if data is not None:
                    content = Document(target / each).parse(data)
                    Document(target / each).save({k: v for k, v in content.items() if k != "schema"})
                    keys += len(content.get("keys", ())) if each == "keys.json" else 0
            entries = audit.unshare(cluster, target / "audit.jsonl")
            records = cluster.seq
            tallies.detach()
            return {"keys": keys, "records": records, "audit": entries}
        finally:
            store.close()


class Loss(msgspec.Struct, frozen=True):
    """How far a node's folder and the server have come, by the numbers of their last records."""

    here: int
    there: int


def loss(settings: Settings) -> Loss:
    """What would be given up. Raises StoreError, BridgeError."""
    with connected(settings) as cluster:
        _id_of(cluster)
        with _own(settings) as (_, tallies):
            here = int((tallies.shared or NOTHING).partition("-")[0])
            return Loss(here, int(cluster.command("GET", name("seq")) or 0))


def accept_loss(settings: Settings) -> None:
    """Let this node's folder take what the server has in the place of its own. Raises StoreError, BridgeError."""
    with connected(settings) as cluster:
        id = _id_of(cluster)
        with _own(settings) as (store, tallies):
            document = store.document(CLUSTER_FILE)
            place = (document.load() or {}).get("place") or secrets.token_hex(8)
            tallies.adopt(Figures(), "")
            document.save(msgspec.to_builtins(Membership(id, place)))


@contextmanager
def _own(settings: Settings) -> Iterator[tuple[Store, FileTallies]]:
    store = Store.open(settings.data_dir)
    try:
        tallies = FileTallies(store, Clock(), settings.zone)
        yield store, tallies
        tallies.close()
    finally:
        store.close()


def _id_of(cluster: Cluster) -> str:
    found = cluster_id(cluster)
    if found is None:
        raise StoreError(*NOT_JOINED["empty"])
    _check_schema(cluster)
    return found


def _check_schema(cluster: Cluster) -> None:
    if int(cluster.command("HGET", name("meta"), "schema")) != SCHEMA:
        raise StoreError(*NOT_JOINED["schema"])


def _hash(cluster: Cluster, which: str) -> dict[str, str]:
    flat = [each.decode() for each in cluster.command("HGETALL", name(which))]
    return dict(zip(flat[::2], flat[1::2], strict=True))
