"""The other nodes of a cluster: what each says of itself, and wishes that go from one to another."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import gevent
import msgspec

from bridge.errors import BridgeError
from bridge.keys.loops import Signs

if TYPE_CHECKING:
    from bridge.store.redis import Cluster

#: Seconds between two looks at the others, and after which a node that says nothing is not shown any more.
LOOK_S, HOLDS_S = 1.0, 5.0
#: Runs that a node tells the others of: the list is for people.
MOST_RUNS = 500

log = logging.getLogger("bridge")


class Node(msgspec.Struct, rename="camel"):
    """A node of a cluster, the one that was asked first, others as they were a second or two ago. `providers`: whether
    each can work."""

    name: str
    version: str
    slots: int
    running: int
    queued: int
    draining: bool
    providers: dict[str, bool]


class NodeState(Node):
    """What a node says of itself to the others."""

    #: as the admin sees them while they live
    runs: list[dict[str, Any]] = []
    #: what it has counted for throttles: kind, of whom, for how many seconds more, how often
    counts: list[tuple[str, str, float, int]] = []
    loops: Signs = Signs()
    #: sessions that were logged out, and when each would have ended anyway, in UTC seconds
    ended: dict[str, int] = {}


_decode = msgspec.json.Decoder(NodeState).decode


class Nodes:
    """Tells the other nodes how this one is, and knows how they are: as of the last look, a second or two ago."""

    def __init__(self, cluster: Cluster, look_at_documents: Callable[[], None]) -> None:
        """`look_at_documents` may raise BridgeError."""
        self._cluster = cluster
        self._look_at_documents = look_at_documents
        self._changes = -1
        #: wishes that were heard, and that the server does not know of having been
        self._heard: list[bytes] = []
        self._looker: gevent.Greenlet[[], None] | None = None
        #: the others, by their names
        self.others: dict[str, NodeState] = {}
        #: what this node says of itself; set when there is something to say
        self.tell: Callable[[], NodeState | None] = lambda: None
        #: hears what the others say of themselves, after each look
        self.hear: Callable[[Collection[NodeState]], None] = lambda states: None
        #: ends a run of this node, by its id, for somebody: "admin" or "holder"
        self.stop: Callable[[str, str], object] = lambda run_id, who: None
        #: lets a key go on, by its name, that was paused as a suspected loop
        self.resume: Callable[[str], object] = lambda key_name: None

    def start(self) -> None:
        """Look from now on, in the background, until `close`."""
        self._looker = gevent.spawn(self._keep_looking)

    def close(self) -> None:
        """Look no more."""
        if self._looker is not None:
            self._looker.kill()

    def look(self) -> None:
        """Say how this node is, hear of the others, and do what they ask. Raises BridgeError storage_failed."""
        own = self.tell()
        said = b"" if own is None else msgspec.json.encode(own)
        how = (self._cluster.node, said, int(1000 * HOLDS_S))
        changes, self._heard, others = self._cluster.call("cb_look", *how, *self._heard)
        for each in self._heard:
            match each.decode().split(" "):
                case ["stop", run_id, who]:
                    self.stop(run_id, who)
                case ["resume", key_name]:
                    self.resume(key_name)
        self.others = dict(_read(others))
        self.hear(self.others.values())
        if int(changes) != self._changes:
            self._look_at_documents()
            self._changes = int(changes)

    def run(self, run_id: str) -> dict[str, Any] | None:
        """A run of another node, as it was at the last look."""
        runs = (run for state in self.others.values() for run in state.runs)
        return next((run for run in runs if run.get("id") == run_id), None)

    def ask_to_stop(self, node: str, run_id: str, who: str) -> None:
        """Have a run of another node stopped, within a second or two. Raises BridgeError storage_failed."""
        self._wish(node, f"stop {run_id} {who}")

    def ask_to_resume(self, key_name: str) -> None:
        """Have all other nodes let a key go on, within a second or two. Raises BridgeError storage_failed."""
        for node in list(self.others):
            self._wish(node, f"resume {key_name}")

    def _wish(self, node: str, words: str) -> None:
        self._cluster.command("RPUSH", "{cb}:wishes:" + node, words)

    def _keep_looking(self) -> None:
        while True:
            try:
                self.look()
            except BridgeError:
                self.others = {}  # nobody knows how they are
            except Exception:
                log.exception("what the other nodes say could not be used")
            gevent.sleep(LOOK_S)


def _read(said: list[bytes]) -> list[tuple[str, NodeState]]:
    """What the others say; one of another version, whose words mean nothing here, is left out."""
    found = []
    for name, words in zip(said[::2], said[1::2], strict=True):
        try:
            found.append((name.decode(), _decode(words)))
        except msgspec.MsgspecError:
            continue
    return found
