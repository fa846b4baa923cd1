"""Two bridges on one Redis: what is promised of one host holds over both."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support import server as servers
from tests.support.redis import RedisServer, redis_server
from tests.support.server import Answer, Server

BODY = {"userPrompt": "hello", "maxOutputTokens": 4}
_ROW = {"type": "array", "minItems": 20, "items": {"type": "integer"}}
#: What a simulated CLI answers with 400 words, which takes 20 seconds.
LONG = {"userPrompt": "hello", "schema": {"type": "array", "minItems": 20, "items": _ROW}}
ASYNC = {"Prefer": "respond-async"}
PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as started:
        started.found()
        yield started


@pytest.fixture(scope="module")
def pair(redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    """Two bridges with slow answers."""
    started: list[Server] = []
    try:
        for node in ("a", "b"):
            folder = tmp_path_factory.mktemp(node)
            env = {"BRIDGE_STORE_URL": redis.url, "BRIDGE_NODE": node, "DEMO_PACE_SECONDS": "0.2"}
            started.append(servers.start(folder, env, demo=True))
        yield started[0], started[1]
    finally:
        for each in started:
            each.stop()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name that no other test of this file uses."""
    return f"key-{abs(hash(request.node.name)) % 10**9}"


def until(what: Callable[[], Any], why: str) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := what()):
        assert time.monotonic() < deadline, why
        time.sleep(0.05)
    return found


def ask(server: Server, key: str, **more: Any) -> Answer:
    return server.call("POST", "/generate", BODY, key=key, **more)


def today(server: Server, key: str) -> dict[str, Any]:
    usage: dict[str, Any] = server.call("GET", "/me", key=key).json["usage"]["today"]
    return usage


def begin_slow(server: Server, key: str) -> str:
    """A job that runs for a long time; its id."""
    accepted = server.call("POST", "/generate", LONG, key=key, headers=ASYNC)
    assert accepted.status == 202, accepted.body
    id: str = accepted.json["id"]
    return id


def test_a_key_that_was_made_on_one_host_opens_the_other_at_once(pair: tuple[Server, Server], name: str) -> None:
    a, b = pair
    key = a.new_key(name)
    assert ask(b, key).status == 200
    assert b.admin("GET", f"/keys/{name}").json["name"] == name
    until(lambda: today(a, key)["requests"] == 1, "a does not know what b has spent")


def test_a_key_that_was_revoked_on_one_host_spends_nothing_on_the_other(pair: tuple[Server, Server], name: str) -> None:
    a, b = pair
    key = a.new_key(name)
    assert ask(b, key).status == 200
    assert a.admin("DELETE", f"/keys/{name}").status == 200
    assert ask(b, key).status in (401, 403)
    assert ask(a, key).status == 401


def test_a_limit_that_was_lowered_on_one_host_holds_on_the_other(pair: tuple[Server, Server], name: str) -> None:
    a, b = pair
    key = a.new_key(name)
    assert ask(b, key).status == 200
    assert a.admin("PATCH", f"/keys/{name}", {"maxRequestsPerDay": 1}).status == 200
    assert ask(b, key).status == 429


def test_a_cap_holds_over_both_hosts_however_many_ask_at_once(pair: tuple[Server, Server], name: str) -> None:
    key = pair[0].new_key(name, maxRequestsPerDay=10)
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda n: ask(pair[n % 2], key).status, range(24)))
    assert sorted(answers) == [200] * 10 + [429] * 14
    for each in pair:
        until(lambda each=each: today(each, key)["requests"] == 10, "the hosts do not agree")


def test_of_the_same_idempotency_key_on_both_hosts_at_once_one_runs(pair: tuple[Server, Server], name: str) -> None:
    key = pair[0].new_key(name)
    with ThreadPoolExecutor(8) as pool:
        again = {"Idempotency-Key": name}
        answers = list(pool.map(lambda n: ask(pair[n % 2], key, headers=again), range(8)))
    assert {each.status for each in answers} <= {200, 409}
    assert any(each.status == 200 for each in answers)
    replayed = [ask(each, key, headers=again) for each in pair]
    assert [each.status for each in replayed] == [200, 200]
    assert len({each.json["id"] for each in [*replayed, *answers] if each.status == 200}) == 1
    for each in pair:
        until(lambda each=each: today(each, key)["requests"] == 1, "it ran more than once")


def test_a_job_is_seen_waited_for_and_stopped_from_the_other_host(pair: tuple[Server, Server], name: str) -> None:
    a, b = pair
    key = a.new_key(name)
    id = begin_slow(a, key)
    assert b.call("GET", f"/jobs/{id}", key=key).json["status"] in ("queued", "running")
    stopped = b.call("DELETE", f"/jobs/{id}", key=key)
    assert stopped.status == 200
    ended = until(lambda: b.call("GET", f"/jobs/{id}?wait=5", key=key).json["status"] == "failed", "it was not stopped")
    assert ended
    assert b.call("GET", f"/jobs/{id}", key=key).json["error"]["code"] == "cancelled"
    other = a.new_key(f"{name}-other")
    assert b.call("GET", f"/jobs/{id}", key=other).status == 404


def test_a_short_job_of_one_host_is_fetched_from_the_other(pair: tuple[Server, Server], name: str) -> None:
    a, b = pair
    key = a.new_key(name)
    accepted = ask(a, key, headers=ASYNC)
    assert accepted.status == 202
    path = accepted.headers["location"]
    until(lambda: b.call("GET", f"{path}?wait=5", key=key).json["status"] == "done", "it has no end on b")
    assert b.call("GET", path, key=key).json["result"] == a.call("GET", path, key=key).json["result"]


def test_the_admin_sees_and_stops_runs_of_all_hosts_on_each(pair: tuple[Server, Server], name: str) -> None:
    a, b = pair
    key = a.new_key(name)
    id = begin_slow(a, key)
    row = until(lambda: [run for run in b.admin("GET", "/runs").json["runs"] if run["id"] == id], "b does not see it")
    assert (row[0]["node"], row[0]["keyName"]) == ("a", name)
    assert "node" not in next(run for run in a.admin("GET", "/runs").json["runs"] if run["id"] == id)
    assert b.admin("DELETE", f"/runs/{id}").status == 200
    until(lambda: a.call("GET", f"/jobs/{id}", key=key).json["status"] == "failed", "it was not stopped")
    assert b.admin("DELETE", "/runs/run_nothing").status == 404
    newest = a.admin("GET", "/audit").json["audit"][0]
    assert (newest["action"], newest["subject"], newest["before"]) == (
        "run_stopped",
        id,
        {"keyName": name, "node": "a"},
    )


def test_what_runs_for_a_revoked_key_is_stopped_on_every_host(pair: tuple[Server, Server], name: str) -> None:
    a, b = pair
    key = a.new_key(name)
    id = begin_slow(b, key)
    assert a.admin("DELETE", f"/keys/{name}").status == 200
    line = until(
        lambda: [row for row in a.admin("GET", f"/logs?key={name}").json["logs"] if row["id"] == id], "it goes on"
    )
    assert line[0]["code"] == "cancelled"


def test_log_audit_and_overview_are_the_same_on_both(pair: tuple[Server, Server], name: str) -> None:
    a, b = pair
    key = a.new_key(name)
    ids = sorted(ask(each, key).json["id"] for each in pair)
    for each in pair:
        until(
            lambda each=each: sorted(r["id"] for r in each.admin("GET", f"/logs?key={name}").json["logs"]) == ids,
            "the logs differ",
        )
    entries = [each.admin("GET", "/audit?limit=5").json for each in pair]
    assert entries[0] == entries[1]
    assert entries[0]["audit"][0]["subject"] == name
    views = [
        until(
            lambda each=each: len(v["nodes"]) == 2 and v if (v := each.admin("GET", "/overview").json) else 0,
            "one is missing",
        )
        for each in pair
    ]
    assert [[node["name"] for node in view["nodes"]] for view in views] == [["a", "b"], ["b", "a"]]
    assert views[0]["slots"] == views[1]["slots"] == sum(node["slots"] for node in views[0]["nodes"])
    top = b.admin("GET", "/top").json
    assert [node["name"] for node in top["nodes"]] == ["b", "a"]
    assert len(b.call("GET", "/capacity").json["nodes"]) == 2
    assert "cli_bridge_nodes 2.0" in b.call("GET", "/metrics", key=servers.ADMIN_KEY).body.decode()
    until(
        lambda: ids[0] in str(b.admin("GET", "/top").json["log"]) and ids[1] in str(b.admin("GET", "/top").json["log"]),
        "top lacks one",
    )


def test_a_session_of_one_host_is_one_of_the_other(pair: tuple[Server, Server]) -> None:
    a, b = pair
    entered = a.call("POST", "/admin/session", key=servers.ADMIN_KEY)
    assert entered.status == 200, entered.body
    cookie = {"Cookie": entered.headers["set-cookie"].partition(";")[0]}
    assert b.call("GET", "/admin/session", headers=cookie).json["session"]
    assert a.admin("DELETE", "/sessions").status == 200
    until(lambda: b.call("GET", "/admin/session", headers=cookie).json["session"] is None, "it goes on at b")
