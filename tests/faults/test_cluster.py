"""Two bridges on one Redis, and what is killed or stands still: no cap is passed, nothing confirmed is lost.

The tests share both bridges, in their order; the last one takes the data away.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import re
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import server as servers
from tests.support.redis import RedisServer
from tests.support.server import Answer, Server

BODY = {"userPrompt": "hello", "maxOutputTokens": 4}
_ROW = {"type": "array", "minItems": 20, "items": {"type": "integer"}}
#: What a simulated CLI needs some seconds for.
SLOW = {"userPrompt": "hello", "schema": {"type": "array", "minItems": 20, "items": _ROW}}
PATIENCE_S = 60.0
CAP = 400


class Rig:
    """Two bridges and their Redis."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.redis = RedisServer(folder / "redis", always=True)
        self.redis.found()
        self.bridges: dict[str, Server] = {}
        try:
            for node in ("a", "b"):
                self.start(node)
        except BaseException:
            self.close()
            raise

    def start(self, node: str, **more: str) -> None:
        folder = self.folder / node
        folder.mkdir(exist_ok=True)
        env = {"BRIDGE_STORE_URL": self.redis.url, "BRIDGE_NODE": node, "DEMO_PACE_SECONDS": "0.02", **more}
        self.bridges[node] = servers.start(folder, env, demo=True)

    def kill(self, what: str) -> None:
        """End the Redis or a bridge at once, and start it again."""
        if what == "redis":
            self.redis.kill()
            self.redis.start()
        else:
            _kill(self.bridges.pop(what))
            self.start(what)

    @contextmanager
    def redis_away(self) -> Iterator[Path]:
        """A block in which the Redis does not run; its folder."""
        self.redis.kill()
        yield self.redis.folder
        self.redis.start()

    def usage(self, node: str, name: str) -> dict[str, Any]:
        answer = self.bridges[node].admin("GET", f"/keys/{name}")
        assert answer.status == 200, answer.body
        usage: dict[str, Any] = answer.json["usage"]
        return usage

    def open_runs(self, node: str, name: str) -> int:
        reserved: int = self.usage(node, name)["reserved"]["requests"]
        return reserved

    def close(self) -> None:
        for each in self.bridges.values():
            _kill(each)
        self.redis.close()


def _kill(bridge: Server) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(bridge.process.pid, signal.SIGKILL)
    bridge.stop()


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    made = Rig(tmp_path_factory.mktemp("rig"))
    yield made
    made.close()


def until(what: Callable[[], Any], why: str) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := what()):
        assert time.monotonic() < deadline, why
        time.sleep(0.1)
    return found


class Load:
    """Some clients that ask some bridges in turn, until they are stopped; what they were told."""

    def __init__(self, rig: Rig, key: str, clients: int = 6, nodes: str = "ab") -> None:
        self.statuses: Counter[int] = Counter()
        self.answered: list[str] = []
        self._rig, self._key, self._nodes = rig, key, nodes
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(clients)]
        for each in self._threads:
            each.start()

    def _ask(self, number: int) -> None:
        for turn in itertools.count(number):
            if self._over.is_set():
                return
            try:
                answer = self._rig.bridges[self._nodes[turn % len(self._nodes)]].call(
                    "POST", "/generate", BODY, key=self._key
                )
            except (OSError, KeyError, http.client.HTTPException):
                time.sleep(0.05)
                continue
            self.statuses[answer.status] += 1
            if answer.status == 200:
                self.answered.append(answer.json["id"])
            else:
                time.sleep(0.05)

    def goes_on(self) -> None:
        """Wait until some more were answered; or the cap is used up."""
        answered = len(self.answered)
        until(lambda: len(self.answered) > answered + 10 or self.statuses[429], "nothing is answered")

    def stop(self) -> None:
        self._over.set()
        for each in self._threads:
            each.join()


def ids_in_log(server: Server, name: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    before = ""
    while True:
        page = server.admin("GET", f"/logs?key={name}&limit=500{before}").json
        found.update({line["id"]: line for line in page["logs"]})
        if page["next"] is None:
            return found
        before = f"&before={page['next']}"


def check(rig: Rig, load: Load, name: str) -> None:
    """All that was confirmed is there, once, on both bridges; nothing is held any more; the cap holds."""
    for node in rig.bridges:
        until(lambda node=node: rig.open_runs(node, name) == 0, f"{node}: runs are open")
    used = {node: rig.usage(node, name)["today"] for node in rig.bridges}
    until(lambda: rig.usage("a", name)["today"] == rig.usage("b", name)["today"], f"the bridges differ: {used}")
    requests = rig.usage("a", name)["today"]["requests"]
    assert len(load.answered) <= requests <= CAP
    lines = ids_in_log(rig.bridges["a"], name)
    assert set(load.answered) <= lines.keys()
    spent = sum(round(line["costUsd"] * 1e6) for line in lines.values())
    assert spent == round(rig.usage("a", name)["today"]["costUsd"] * 1e6)


def test_kills_of_bridges_and_of_redis_pass_no_cap_and_lose_nothing(rig: Rig) -> None:
    key = rig.bridges["a"].new_key("kills", maxRequestsPerDay=CAP)
    load = Load(rig, key)
    try:
        for what in ("a", "redis", "b"):
            load.goes_on()
            rig.kill(what)
        load.goes_on()
    finally:
        load.stop()
    check(rig, load, "kills")


def test_a_redis_that_stands_still_refuses_and_then_goes_on(rig: Rig) -> None:
    key = rig.bridges["a"].new_key("still", maxRequestsPerDay=CAP)
    load = Load(rig, key)
    try:
        load.goes_on()
        rig.redis.signal(signal.SIGSTOP)
        until(lambda: load.statuses[503] > 10, "nothing is refused")
        for node, server in rig.bridges.items():
            answer = server.call("POST", "/generate", BODY, key=key)
            assert (answer.status, answer.json["code"]) == (503, "storage_failed"), node
            assert "answer" in answer.json["error"] or "connection" in answer.json["error"]
            assert float(answer.headers["retry-after"]) > 0
        rig.redis.signal(signal.SIGCONT)
        load.goes_on()
    finally:
        rig.redis.signal(signal.SIGCONT)
        load.stop()
    check(rig, load, "still")


def test_a_redis_whose_memory_is_full_refuses_and_is_paid_afterwards_what_it_is_owed(rig: Rig) -> None:
    a = rig.bridges["a"]
    key, other = a.new_key("full", maxRequestsPerDay=CAP), a.new_key("owed")
    load = Load(rig, key)
    try:
        load.goes_on()
        id = a.call("POST", "/generate", SLOW, key=other, headers={"Prefer": "respond-async"}).json["id"]
        until(lambda: rig.open_runs("b", "owed") == 1, "b does not know of the run")
        rig.redis.command("CONFIG", "SET", "maxmemory", 1)
        until(lambda: load.statuses[503] > 10, "nothing is refused")
        for node, server in rig.bridges.items():
            answer = server.call("POST", "/generate", BODY, key=key)
            assert (answer.status, answer.json["code"]) == (503, "storage_failed"), node
            assert "its memory is full" in answer.json["error"]
            until(lambda server=server: server.call("GET", "/ready").status == 503, f"{node} says that it is ready")
            assert "memory is full" in server.call("GET", "/ready", key=servers.ADMIN_KEY).json["warning"]
            assert any("memory is full" in text for text in server.admin("GET", "/overview").json["problems"])
        assert server.admin("POST", "/keys", {"name": "late"}).status == 503
        assert "once its memory is full" in a.command("doctor").stdout
        # The end of the run counts where it was, and is owed.
        until(lambda: rig.open_runs("a", "owed") == 0, "the run has no end")
        assert rig.open_runs("b", "owed") == 1
        rig.redis.command("CONFIG", "SET", "maxmemory", 0)
        load.goes_on()
        done = until(lambda: _ended(a, id, other), "the job has no end")
        assert done["status"] == "done", done
        true = done["result"]["cost_usd"]
        until(lambda: rig.open_runs("b", "owed") == 0, "the end is not paid")
        for node, server in rig.bridges.items():
            assert rig.usage(node, "owed")["today"]["costUsd"] == true
            until(lambda server=server: server.call("GET", "/ready").status == 200, f"{node} does not go on")
    finally:
        rig.redis.command("CONFIG", "SET", "maxmemory", 0)
        load.stop()
    check(rig, load, "full")


def test_a_bridge_that_stood_still_for_longer_than_its_lease_is_put_right(rig: Rig) -> None:
    a, b = rig.bridges["a"], rig.bridges["b"]
    key = a.new_key("silent")
    until(lambda: b.admin("GET", "/keys/silent").status == 200, "b does not know the key")
    accepted = a.call("POST", "/generate", SLOW, key=key, headers={"Prefer": "respond-async"})
    os.killpg(a.process.pid, signal.SIGSTOP)
    try:
        id = accepted.json["id"]
        until(lambda: rig.open_runs("b", "silent") == 1, "b does not know of the run")
        owner = next(each for each in _owners(rig) if each.startswith("a."))
        rig.redis.command("HSET", "{cb}:alive", owner, 1)
        until(lambda: rig.open_runs("b", "silent") == 0, "b does not settle what a has left")
        assumed = rig.usage("b", "silent")["today"]["costUsd"]
    finally:
        os.killpg(a.process.pid, signal.SIGCONT)
    done = until(lambda: _ended(a, id, key), "the run has no end")
    assert done["status"] == "done"
    true = done["result"]["cost_usd"]
    assert true < assumed
    for node in rig.bridges:
        until(lambda node=node: rig.usage(node, "silent")["today"]["costUsd"] == true, f"{node} is not put right")
    assert rig.usage("b", "silent")["today"]["requests"] == 1
    assert a.call("POST", "/generate", BODY, key=key).status == 200
    assert b.call("POST", "/generate", BODY, key=key).status == 200


def _owners(rig: Rig) -> list[str]:
    found = rig.redis.command("HKEYS", "{cb}:alive")
    assert isinstance(found, list)
    return [each.decode() for each in found]


def _ended(server: Server, id: str, key: str) -> dict[str, Any] | None:
    job: dict[str, Any] = server.call("GET", f"/jobs/{id}", key=key).json
    return job if job["status"] in ("done", "failed") else None


def test_an_upgrade_of_one_host_after_the_other_refuses_nobody_on_the_other(rig: Rig, tmp_path: Path) -> None:
    newer = other_version(tmp_path / "newer", {"__init__.py": ("__version__ =", '__version__ = "99" or')})
    functions = newer / "bridge" / "store" / "functions.lua"
    functions.write_text(functions.read_text() + "redis.register_function('cb_newer', leave)\n")
    key = rig.bridges["a"].new_key("upgrade")
    for node, other in (("a", "b"), ("b", "a")):
        load = Load(rig, key, clients=8, nodes=other)
        try:
            load.goes_on()
            server = rig.bridges.pop(node)
            server.stop()
            server.env["PYTHONPATH"] = f"{newer}:{servers.ROOT}"
            done = server.command("cluster", "init")
            assert "are those of this version now" in done.stdout, done.stderr
            load.goes_on()
            rig.start(node, PYTHONPATH=server.env["PYTHONPATH"])
            assert rig.bridges[node].call("POST", "/generate", BODY, key=key).status == 200
            load.goes_on()
        finally:
            load.stop()
        assert load.statuses.keys() == {200}
        assert "cb_newer" in str(rig.redis.command("FUNCTION", "LIST"))
    for server in rig.bridges.values():
        until(
            lambda server=server: [n["version"] for n in server.admin("GET", "/overview").json["nodes"]] == ["99"] * 2,
            "a host is not there, or of the old version",
        )
    schema = other_version(tmp_path / "schema", {"store/redis.py": ("SCHEMA = 1", "SCHEMA = 2")})
    with pytest.raises(AssertionError, match="that keeps it in another way"):
        rig.start("c", PYTHONPATH=f"{schema}:{servers.ROOT}")


def other_version(folder: Path, changes: dict[str, tuple[str, str]]) -> Path:
    """A copy of the program with something changed in some files."""
    shutil.copytree(servers.ROOT / "bridge", folder / "bridge", ignore=shutil.ignore_patterns("__pycache__"))
    for name, (old, new) in changes.items():
        path = folder / "bridge" / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
    return folder


def test_an_older_copy_of_redis_closes_both_bridges_until_the_loss_is_accepted(rig: Rig) -> None:
    key = rig.bridges["a"].new_key("older")
    for node in rig.bridges:
        until(lambda node=node: rig.bridges[node].call("POST", "/generate", BODY, key=key).status == 200, "refused")
    until(lambda: rig.usage("b", "older")["today"]["requests"] == 2, "b does not know all")
    with rig.redis_away() as folder:
        shutil.copytree(folder, copy := rig.folder / "older")
    late = until(lambda: _made(rig.bridges["a"], "late"), "no key is made")
    for node in rig.bridges:
        until(lambda node=node: rig.bridges[node].call("POST", "/generate", BODY, key=late).status == 200, "refused")
    rig.bridges["b"].stop()
    with rig.redis_away() as folder:
        shutil.rmtree(folder)
        copy.rename(folder)
    # One that runs finds it out by itself, and one that starts does not start.
    running = rig.bridges["a"]

    def ready() -> Answer:
        return running.call("GET", "/ready", key=servers.ADMIN_KEY)

    until(lambda: "lacks what it had confirmed" in ready().json.get("warning", ""), "it does not close")
    assert ready().status == 503
    for each in (key, late):
        answer = running.call("POST", "/generate", BODY, key=each)
        assert (answer.status, answer.json["code"]) == (503, "storage_failed")
        assert "lacks what it had confirmed" in answer.json["error"]
    running.stop()
    with pytest.raises(AssertionError, match="lacks what it had confirmed"):
        rig.start("b")
    for server in rig.bridges.values():
        done = server.command("cluster", "accept-loss", "--yes")
        assert done.returncode == 0, done.stderr
        here, there = map(int, re.findall(r"[0-9]+", done.stdout)[:2])
        assert here > there > 0
    for node in ("a", "b"):
        rig.start(node)
    for node, server in rig.bridges.items():
        assert rig.usage(node, "older")["today"]["requests"] == 2
        assert server.call("POST", "/generate", BODY, key=late).status == 401
    assert rig.bridges["a"].call("POST", "/generate", BODY, key=key).status == 200
    until(lambda: rig.usage("b", "older")["today"]["requests"] == 3, "b does not follow")
    assert rig.bridges["b"].call("POST", "/generate", BODY, key=key).status == 200


def _made(server: Server, name: str) -> str | None:
    """A new key, once the store can be used again."""
    answer = server.admin("POST", "/keys", {"name": name})
    return answer.json["key"] if answer.status == 201 else None


def test_a_redis_that_lost_its_data_closes_both_bridges(rig: Rig) -> None:
    key = rig.bridges["a"].new_key("lost")
    assert rig.bridges["b"].call("POST", "/generate", BODY, key=key).status == 200
    rig.redis.command("FLUSHALL")
    for server in rig.bridges.values():
        answer = server.call("POST", "/generate", BODY, key=key)
        assert (answer.status, answer.json["code"]) == (503, "storage_failed")
        until(lambda server=server: server.call("GET", "/ready").status == 503, "it says that it is ready")
    rig.bridges.pop("a").stop()
    with pytest.raises(AssertionError, match="holds no cluster"):
        rig.start("a")
