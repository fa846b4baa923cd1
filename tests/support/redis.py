"""A real redis-server for tests: on a socket in a folder of its own, and ended by its process id."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bridge.clock import Clock
from bridge.errors import BridgeError
from bridge.store import redis
from bridge.store.redis import SCHEMA, Cluster, load_functions, name

START_TIMEOUT_S = 30.0
# In the tests' own process: a disk that is busy with something else for a second is no failure of the store.
redis.ANSWER_S = redis.CONNECT_S = redis.TURN_S = 20.0


class RedisServer:
    """A server with its data in a folder. `always` waits for the disk with each write, as a cluster should."""

    def __init__(self, folder: Path, *, always: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        # A path of a socket may have 107 characters, and those of pytest's folders are long.
        self._short = Path(tempfile.mkdtemp(prefix="cb-"))
        self.url = f"unix://{self._short}/r"
        self._always = always
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        """Start it, with the data that is there, and wait until it answers."""
        command = ["redis-server", "--port", "0", "--unixsocket", f"{self._short}/r", "--dir", str(self.folder)]
        command += ["--appendonly", "yes", "--appendfsync", "always" if self._always else "no", "--save", ""]
        command += ["--databases", "100000", "--maxmemory-policy", "noeviction", "--logfile", str(self.folder / "log")]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.answers():
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.01)

    def answers(self) -> bool:
        """Whether it does at the moment."""
        cluster = Cluster(self.url, "test", Clock())
        try:
            return bool(cluster.command("PING") == b"PONG")
        except BridgeError:
            return False
        finally:
            cluster.abandon()

    def serve_tls(self, shown: Path, authority: Path) -> int:
        """Have it speak TLS as well, with a certificate and its key in one file; the port, on loopback."""
        files = ("tls-cert-file", shown, "tls-key-file", shown, "tls-ca-cert-file", authority)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port: int = taken.getsockname()[1]
        self.command("CONFIG", "SET", *map(str, files), "tls-auth-clients", "no", "bind", "127.0.0.1", "tls-port", port)
        return port

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()

    def command(self, *words: str | int) -> object:
        """What one command answers."""
        cluster = Cluster(self.url, "test", Clock())
        try:
            return cluster.command(*words)
        finally:
            cluster.abandon()

    def found(self, database: int = 0) -> str:
        """Make one of its databases an empty cluster, whatever it was before; its URL."""
        url = f"{self.url}?db={database}"
        cluster = Cluster(url, "test", Clock())
        try:
            cluster.command("FLUSHDB")
            load_functions(cluster)
            cluster.command("HSET", name("meta"), "id", f"cluster-{database}", "schema", SCHEMA)
            cluster.call("cb_snapshot", "0-0", zlib.compress(b"{}"), 0)
        finally:
            cluster.abandon()
        return url

    def close(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.kill()
        shutil.rmtree(self._short, ignore_errors=True)


@contextmanager
def redis_server(folder: Path, *, always: bool = False) -> Iterator[RedisServer]:
    """A server for the length of a block."""
    server = RedisServer(folder, always=always)
    try:
        yield server
    finally:
        server.close()


_of_module: list[RedisServer] = []


def module_server() -> RedisServer:
    """One server for all tests of a module; tests/conftest.py ends it."""
    if not _of_module:
        _of_module.append(RedisServer(Path(tempfile.mkdtemp(prefix="cb-data-"))))
    return _of_module[0]


def end_module_server() -> None:
    """End it, if any test has used it."""
    while _of_module:
        server = _of_module.pop()
        server.close()
        shutil.rmtree(server.folder, ignore_errors=True)
