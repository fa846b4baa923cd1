"""The server that the nodes of a cluster share: Redis or Valkey, one connection, and this node's lease on it.

    {cb}:meta      id of the cluster, and the digest of what changes caps (prices, time zone, default limits)
    {cb}:journal   the records of all nodes, in the one order that holds for all; ids are NUMBER-MICROSECONDS
    {cb}:seq       the number of the last one; {cb}:last  subject -> who wrote about it last
    {cb}:open      runs that hold something; {cb}:assumed  those that another node has ended
    {cb}:alive     owner (node and life) -> when its lease ends, in ms; {cb}:epoch  counts lives
    {cb}:beat      when any node has last said that it is alive, in ms
    {cb}:places    node -> its data folder; {cb}:at  node -> the record that it has reached
    {cb}:snapshot  all tallies after a record

redis-py is imported only here, and only where BRIDGE_STORE_URL is set.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any

import gevent
import msgspec
from gevent.lock import BoundedSemaphore

from bridge.clock import Clock
from bridge.errors import BridgeError, StoreError

#: Seconds that an answer, and a connection, may take.
ANSWER_S, CONNECT_S = 1.0, 0.5
#: Connections at once; and how long a call waits for one, in seconds.
MOST_CONNECTIONS, TURN_S = 32, 1.0
#: A node that was silent for so many seconds is taken for dead; how often one says that it is not.
LEASE_S, BEAT_S = 15.0, 3.0
#: After a failure, the server is asked again once in so many seconds.
RETRY_S = 1.0
#: The share of the server's memory from which on that is said.
HIGH = 0.8
FUNCTIONS = "functions.lua"
#: The version of what the cluster keeps on its server.
SCHEMA = 1

log = logging.getLogger("bridge")

Word = str | bytes | int

_UNUSABLE = "The store that the bridge's hosts share cannot be used ({})."


def name(*parts: str) -> str:
    """The name of a key of the cluster. All have the same tag."""
    return ":".join(("{cb}", *parts))


def unreachable(what: str) -> BridgeError:
    """The refusal for a call that the shared server did not answer."""
    return BridgeError(
        "storage_failed",
        _UNUSABLE.format(what),
        "Ask your admin to look at the bridge's Redis; it goes on by itself once that answers again.",
        retry_after=5,
    )


class Cluster:
    """A node's connection to the shared server.

    A call that gets no answer closes it for a second: whoever comes meanwhile is refused at once. A function that is
    refused (its memory is full) says that nothing can be written; reading goes on. Nothing is cached, and there is no
    fall-back. Every call raises BridgeError storage_failed where it did not work; without an answer it may have.
    """

    def __init__(self, url: str, node: str, clock: Clock, network: Mapping[str, str] = {}) -> None:
        """`network`: certificates that are believed, by the names of their variables. Raises StoreError where redis-py
        is missing or the URL is none; does not connect yet."""
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError:
            raise StoreError(
                "BRIDGE_STORE_URL is set, but the package redis is not installed.",
                "Install cli-bridge with its extra: pip install 'cli-bridge[redis]'.",
            ) from None
        self.node = node
        #: this life of this node; what it reserves carries it. Empty before `join`
        self.owner = ""
        #: all lives of this process: it begins a new one where it was taken for dead
        self.lives: set[str] = set()
        #: the id of the cluster, as soon as it is known: it takes part in no other
        self.id = ""
        #: the number of the last record of the journal that this node has; set by who follows it
        self.seq = 0
        #: called after each beat; must not raise
        self.on_beat: list[Callable[[], None]] = []
        #: called where documents have changed, before a reservation is confirmed; may raise BridgeError
        self.on_change: Callable[[], None] = lambda: None
        #: why nothing may be written any more, once that is so
        self.closed: StoreError | None = None
        self._errors = (redis.RedisError, OSError)
        self._gone = (redis.ConnectionError, redis.TimeoutError, OSError)
        self._clock = clock
        self._turns = BoundedSemaphore(MOST_CONNECTIONS)
        self._next_try = 0.0
        self._what = ""
        self._alive: set[str] = set()
        self._beating: gevent.Greenlet[[], None] | None = None
        self._joined: tuple[str, str] = ("", "")
        # The URL's own options win.
        tls = {"ssl_ca_certs": network.get("SSL_CERT_FILE"), "ssl_ca_path": network.get("SSL_CERT_DIR")}
        try:
            self._client: Any = redis.Redis.from_url(
                url,
                socket_timeout=ANSWER_S,
                socket_connect_timeout=CONNECT_S,
                max_connections=MOST_CONNECTIONS,
                retry=Retry(NoBackoff(), 0),
                protocol=2,
                driver_info=None,
                **(tls if url.startswith("rediss://") else {}),
            )
            # One that is not used: an option that does not exist is found here.
            self._client.connection_pool.connection_class(**self._client.connection_pool.connection_kwargs)
            # Answers as the server gives them, whatever the command.
            self._client.response_callbacks.clear()
        except (ValueError, TypeError, redis.RedisError):
            raise StoreError("BRIDGE_STORE_URL is no address of a Redis.", "See docs/cluster.md.") from None

    # --- calls -----------------------------------------------------------------------------------

    def call(self, function: str, *args: Word) -> Any:
        """What a function of the library answers."""
        words = ("FCALL", function, 1, "{cb}", *args)
        return self._ask(lambda: self._client.execute_command(*words), writes=True)

    def command(self, *words: Word) -> Any:
        """What one command answers."""
        return self._ask(lambda: self._client.execute_command(*words))

    def pipe(self, commands: Sequence[Sequence[Word]]) -> list[Any]:
        """What several commands answer, which are done in one step."""

        def ask() -> Any:
            with self._client.pipeline(transaction=True) as pipeline:
                for words in commands:
                    pipeline.execute_command(*words)
                return pipeline.execute()

        answers: list[Any] = self._ask(ask)
        return answers

    def _ask(self, ask: Callable[[], Any], *, writes: bool = False) -> Any:
        if self.closed is not None:
            raise BridgeError("storage_failed", self.closed.message, retry_after=60)
        if self._what and self._clock.monotonic() < self._next_try:
            raise unreachable(self._what)
        if not self._turns.acquire(timeout=TURN_S):
            raise unreachable("no answer")
        try:
            answer = ask()
        except self._errors as error:
            what, gone = _cause(error), isinstance(error, self._gone)
            if gone or writes:
                if not self._what:
                    log.warning("the shared store cannot be used: %s", what)
                self._what = what
            if gone:
                self._next_try = self._clock.monotonic() + RETRY_S
            raise unreachable(what) from None
        finally:
            self._turns.release()
        if self._what and writes:
            self._what = ""
            log.warning("the shared store can be used again")
        return answer

    @property
    def trouble(self) -> str | None:
        """Why nothing can be written at the moment, as a sentence; None where it can."""
        if self.closed is not None:
            return self.closed.message
        return _UNUSABLE.format(self._what) if self._what else None

    def close_for_good(self, message: str, hint: str) -> None:
        """Refuse everything from now on: what the server has is not what it had."""
        if self.closed is None:
            self.closed = StoreError(message, hint)
            log.error("%s %s", message, hint)

    # --- the lease -------------------------------------------------------------------------------

    def join(self, place: str, digest: str) -> None:
        """Begin a life of this node. `place`: the id of its data folder; `digest`: of the settings that change caps.

        Raises StoreError where this node must not take part, and BridgeError storage_failed.
        """
        how = (self.node, place, digest, int(LEASE_S * 1000), SCHEMA, self.id)
        state, *rest = map(_text, self.call("cb_join", *how))
        if state != "ok":
            raise StoreError(*NOT_JOINED[state])
        self._joined = place, digest
        self.owner, self.id = rest
        self.lives.add(self.owner)
        self._alive = {self.owner}

    def alive(self, owner: str) -> bool:
        """Whether the process that has made a reservation may still be there, as far as is known."""
        return owner in self._alive

    def beat(self) -> None:
        """Say that this node is alive, and hear which are. A node that was taken for dead begins a new life.

        Raises BridgeError storage_failed, and StoreError like `join`.
        """
        while True:
            state, *owners = map(_text, self.call("cb_beat", self.owner, int(LEASE_S * 1000), self.seq))
            if state != "fenced":
                self._alive = set(owners)
                return
            log.warning("this node was silent for too long: what it had reserved may be settled by others")
            # A new life knows of no other: it has to ask, or it would take all others for dead.
            self.join(*self._joined)

    def start(self) -> None:
        """Beat from now on, in the background, until `close`."""
        self._beating = gevent.spawn(self._keep_beating)

    def _keep_beating(self) -> None:
        while True:
            try:
                self.beat()
            except BridgeError:
                pass  # it is logged once, and others take this node for dead after a while
            except StoreError as error:
                self.close_for_good(error.message, error.hint)
            else:
                for call in self.on_beat:
                    call()
            gevent.sleep(RETRY_S if self.trouble else BEAT_S)

    def close(self) -> None:
        """End this life, if the server can be told, and the connections."""
        if self._beating is not None:
            self._beating.kill()
        if self.owner:
            try:
                self.call("cb_leave", self.owner)
            except BridgeError:
                pass  # its lease ends by itself
        self._client.close()

    def abandon(self) -> None:
        """Close the connections and tell nobody, as a process does that is killed."""
        if self._beating is not None:
            self._beating.kill()
        self._client.close()


class Persistence(msgspec.Struct, frozen=True):
    """How safe the server keeps what it confirms: why it must not be used, or what may be lost all the same."""

    problem: str | None = None
    warning: str | None = None


def persistence_of(cluster: Cluster) -> Persistence:
    """Look at the server's settings. Raises BridgeError storage_failed."""
    asked = ("maxmemory-policy", "appendonly", "appendfsync")
    answers = [cluster.command("CONFIG", "GET", each) for each in asked]
    policy, append, sync = (_text(each[1]) if len(each) > 1 else "" for each in answers)
    if policy != "noeviction":
        return Persistence("This Redis may throw data away when its memory is full: set 'maxmemory-policy noeviction'.")
    if append != "yes":
        return Persistence("This Redis does not keep what it confirms over a restart: set 'appendonly yes'.")
    used, most = memory_of(cluster)
    if most and used >= HIGH * most:
        shown = f"{used / 2**20:.0f} of {most / 2**20:.0f} MB"
        return Persistence(None, f"Redis uses {shown}: once its memory is full, all requests are refused.")
    if sync != "always":
        return Persistence(
            None, f"A power cut can lose the last seconds: this Redis has 'appendfsync {sync}', not always."
        )
    return Persistence()


def memory_of(cluster: Cluster) -> tuple[int, int]:
    """Bytes of memory that the server uses, and may use (0: no bound). Raises BridgeError storage_failed."""
    info = cluster.command("INFO", "memory").decode()
    found = dict(line.split(":", 1) for line in info.split("\r\n") if ":" in line)
    return int(found["used_memory"]), int(found["maxmemory"])


def cluster_id(cluster: Cluster) -> str | None:
    """The id of the cluster that the server holds; None where it holds none. Raises BridgeError storage_failed."""
    found = cluster.command("HGET", name("meta"), "id")
    return None if found is None else _text(found)


def load_functions(cluster: Cluster) -> None:
    """Put the library on the server, in the place of an older one. Raises BridgeError storage_failed."""
    library = resources.files("bridge.store").joinpath(FUNCTIONS).read_text()
    cluster.command("FUNCTION", "LOAD", "REPLACE", library)


#: Why a node, or a command, cannot take part: a sentence, and what to do.
NOT_JOINED = {
    "empty": (
        "The Redis of BRIDGE_STORE_URL holds no cluster: it is empty, or lost its data.",
        "For a new cluster: 'cli-bridge cluster init'. If there was one, see 'Lost data' in docs/cluster.md first.",
    ),
    "other": (
        "The Redis of BRIDGE_STORE_URL belongs to another cluster than this data folder.",
        "Correct BRIDGE_STORE_URL or BRIDGE_DATA_DIR. After a loss: 'Lost data' in docs/cluster.md.",
    ),
    "settings": (
        "This node's prices, time zone or default limits differ from those of the other nodes.",
        "Give all nodes the same prices.json, BRIDGE_TIMEZONE and BRIDGE_DEFAULT_… settings; or stop the others first.",
    ),
    "schema": (
        "The cluster was made by a version of cli-bridge that keeps it in another way.",
        "Run the same version on all hosts; CHANGELOG.md says how to change from one to the other.",
    ),
    "taken": (
        "Another host is in the cluster under the name of this one.",
        "Give each host its own BRIDGE_NODE.",
    ),
}


#: Words of OpenSSL, and what they mean; the first that fit.
_OF_TLS = {
    "certificate has expired": "its certificate has expired",
    "Hostname mismatch": "its certificate is for another host",
    "IP address mismatch": "its certificate is for another host",
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not one that this host believes",
    "CERTIFICATE_REQUIRED": "it wants a certificate of this host",
}


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _cause(error: Exception) -> str:
    """A few words on why a call failed, without an address."""
    kind, text = type(error).__name__, str(error)
    for words, what in _OF_TLS.items():
        if words in text:
            return what
    if "Function not found" in text:
        return "its functions are not there: it is empty, or never went through 'cluster init'"
    if text.startswith("NOCLUSTER"):
        return "it holds no cluster: it is empty, or lost its data"
    if text.startswith("MISCONF"):
        return "it cannot write to its disk"
    if kind == "OutOfMemoryError" or text.startswith("OOM"):
        return "its memory is full"
    if kind == "BusyLoadingError":
        return "it is starting"
    if kind in ("AuthenticationError", "AuthenticationWrongNumberOfArgsError"):
        return "it refuses the password"
    # In a function: Redis, and Valkey.
    if kind == "NoPermissionError" or "executing the script can't" in text or "ACL failure in script" in text:
        return "its user may not do what the bridges need"
    if kind == "TimeoutError":
        return "no answer"
    if kind == "ReadOnlyError":
        return "it is read-only"
    if kind == "ConnectionError" or isinstance(error, OSError):
        return "no connection"
    return "it answered with an error"
