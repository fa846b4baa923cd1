"""Two bridges on one Redis: what is promised of one host holds over both."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.standin import StandIn
from tests.support import server as servers
from tests.support.proxy import certificate
from tests.support.receiver import receiving
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
    assert re.search(r"hosts b \d+/\d+, a \d+/\d+", b.command("top", "--once").stdout)
    assert len(b.call("GET", "/capacity").json["nodes"]) == 2
    assert "cli_bridge_nodes 2.0" in b.call("GET", "/metrics", key=servers.ADMIN_KEY).body.decode()
    until(
        lambda: ids[0] in str(b.admin("GET", "/top").json["log"]) and ids[1] in str(b.admin("GET", "/top").json["log"]),
        "top lacks one",
    )


def test_what_a_power_cut_can_lose_is_said(pair: tuple[Server, Server]) -> None:
    a, b = pair
    for each in (a, b):
        until(
            lambda each=each: "power cut" in each.call("GET", "/ready", key=servers.ADMIN_KEY).json.get("warning", ""),
            "it is not said",
        )
        assert "warning" not in each.call("GET", "/ready").json
    assert any("power cut" in text for text in a.admin("GET", "/overview").json["problems"])


def test_a_session_of_one_host_is_one_of_the_other(pair: tuple[Server, Server]) -> None:
    a, b = pair
    entered = a.call("POST", "/admin/session", key=servers.ADMIN_KEY)
    assert entered.status == 200, entered.body
    cookie = {"Cookie": entered.headers["set-cookie"].partition(";")[0]}
    assert b.call("GET", "/admin/session", headers=cookie).json["session"]
    other = {"Cookie": a.call("POST", "/admin/session", key=servers.ADMIN_KEY).headers["set-cookie"].partition(";")[0]}
    token = b.call("GET", "/admin/session", headers=other).json["session"]["token"]
    out = a.call("DELETE", "/admin/session", headers={**other, "X-CSRF-Token": token})
    assert out.status == 200, out.body
    until(lambda: b.call("GET", "/admin/session", headers=other).json["session"] is None, "the log-out is not heard")
    assert b.call("GET", "/admin/session", headers=cookie).json["session"]
    assert a.admin("DELETE", "/sessions").status == 200
    until(lambda: b.call("GET", "/admin/session", headers=cookie).json["session"] is None, "it goes on at b")


def test_a_loop_counts_over_both_hosts_is_paused_and_goes_on_on_both(
    pair: tuple[Server, Server], redis: RedisServer, name: str
) -> None:
    a, b = pair
    key = a.new_key(name, loopRepeats=4)
    assert [ask(a, key).status for _ in range(2)] == [200, 200]
    hear(redis, "b", "a", name)
    assert [ask(b, key).status for _ in range(2)] == [200, 200]
    assert refused_as_loop(b, key)
    until(lambda: refused_as_loop(a, key), "a does not know of the pause")
    assert a.admin("POST", f"/keys/{name}/enable").status == 200
    for each in pair:
        until(lambda each=each: not refused_as_loop(each, key), "it does not go on")


def refused_as_loop(server: Server, key: str) -> bool:
    answer = server.call("POST", "/generate", {**BODY, "userPrompt": secrets.token_hex(8)}, key=key)
    return answer.status == 429 and answer.json["code"] == "loop_suspected"


def hear(redis: RedisServer, host: str, teller: str, what: str) -> None:
    """Wait until a host has heard something that another one tells."""

    def said(of: str) -> tuple[bytes, bytes]:
        words = redis.command("HGET", "{cb}:live", of)
        assert isinstance(words, bytes)
        at, _, text = words.partition(b"\n")
        return at, text

    until(lambda: f'"{what}"'.encode() in said(teller)[1].partition(b'"loops"')[2], "it is not told")
    for _ in range(2):  # with its second look from here, it has heard what the first one gave
        before = said(host)[0]
        until(lambda before=before: said(host)[0] != before, "it does not look")


# --- with a server of their own ---------------------------------------------------------------------------


@contextmanager
def hosts(folder: Path, *names: str, **env: str) -> Iterator[list[Server]]:
    """Bridges on a Redis of their own, without pauses."""
    with redis_server(folder / "redis") as redis, ExitStack() as started:
        redis.found()
        found = []
        for each in names:
            (folder / each).mkdir()
            own = {"BRIDGE_STORE_URL": redis.url, "BRIDGE_NODE": each, **env}
            found.append(started.enter_context(servers.running(folder / each, own, demo=True)))
        yield found


def gated(standin: StandIn, queue_timeout_s: int) -> dict[str, str]:
    """Settings with which the one CLI asks `standin`, through the gate."""
    return {
        "DEMO_GATED": "1",
        "ANTHROPIC_BASE_URL": standin.url,
        "BRIDGE_QUEUE_TIMEOUT_SECONDS": str(queue_timeout_s),
    }


def add_credential(server: Server, name: str, **more: Any) -> None:
    body = {"name": name, "provider": "claude", "apiKey": f"sk-ant-of-{name}", **more}
    assert server.admin("POST", "/credentials", body).status == 201


def test_a_credential_has_no_more_runs_at_once_than_it_may_over_all_hosts(tmp_path: Path) -> None:
    with StandIn() as standin, hosts(tmp_path, "a", "b", **gated(standin, 100)) as pair:
        standin.script(header_delay=0.15)
        add_credential(pair[0], "team", maxConcurrent=5)
        until(lambda: pair[1].admin("GET", "/credentials").json["credentials"], "b does not know it")
        key = pair[0].new_key("ada")
        # Until it has worked once on a host, a key has one run of it at a time there.
        assert [ask(each, key).status for each in pair] == [200, 200]
        with ThreadPoolExecutor(24) as pool:
            answers = list(pool.map(lambda n: ask(pair[n % 2], key, timeout_s=110).status, range(40)))
        assert answers == [200] * 40
        spans = [(each.time, each.time + (each.seconds or 0)) for each in standin.generations]
        assert len(spans) == 42
        assert max(sum(began <= at < ended for began, ended in spans) for at, _ in spans) <= 5
        for each in pair:
            until(lambda each=each: spent_with(each, "team") == (42, 0), "the hosts do not agree on what was spent")


def spent_with(server: Server, credential: str) -> tuple[int, int]:
    """Requests of today with a credential, and those that hold something of it."""
    usage = server.admin("GET", f"/credentials/{credential}").json["usage"]
    return usage["today"]["requests"], usage["reserved"]["requests"]


def test_a_credential_that_one_host_is_refused_with_is_left_alone_by_the_other(tmp_path: Path) -> None:
    with StandIn() as standin, hosts(tmp_path, "a", "b", **gated(standin, 1)) as pair:
        for name, status in (("limited", 429), ("rejected", 401)):
            standin.script_key(f"sk-ant-of-{name}", status=status, retry_after=1700)
            add_credential(pair[0], name)
        key = pair[0].new_key("ada")
        assert ask(pair[0], key).status == 503
        asked = len(standin.generations)
        for each in pair:
            until(lambda each=each: states(each) == {"limited": "benched", "rejected": "blocked"}, "one does not know")
        assert ask(pair[1], key).status == 503
        assert len(standin.generations) == asked == 2


def states(server: Server) -> dict[str, str]:
    return {each["name"]: each["state"] for each in server.admin("GET", "/credentials").json["credentials"]}


def test_four_hosts_take_on_exactly_what_fits(tmp_path: Path) -> None:
    with hosts(tmp_path, "a", "b", "c", "d", DEMO_WARM="0") as four:
        key = four[0].new_key("ada", maxRequestsPerDay=50)
        with ThreadPoolExecutor(40) as pool:
            answers = list(pool.map(lambda n: ask(four[n % 4], key, timeout_s=110), range(200)))
        assert Counter(each.status for each in answers) == {200: 50, 429: 150}
        assert len({each.json["id"] for each in answers if each.status == 200}) == 50
        for each in four:
            until(lambda each=each: today(each, key)["requests"] == 50, "the hosts do not agree")


def test_a_cap_that_several_hosts_have_used_up_is_told_once(tmp_path: Path) -> None:
    with receiving() as receiver:
        with hosts(tmp_path, "a", "b", BRIDGE_ALERT_WEBHOOK=receiver.url) as pair:
            key = pair[0].new_key("ada", maxRequestsPerDay=5)
            for each in (*pair, *pair, pair[0]):
                assert ask(each, key).status == 200
            for each in pair:
                until(lambda each=each: len(key_alerts(each)) == 2, "a host does not show both levels")
            posts = [receiver.next() for _ in range(2)]
        assert {post["kind"] for post in posts} == {"key_limit"}
        assert len({post["message"] for post in posts}) == 2
        assert receiver.posts.empty()


def key_alerts(server: Server) -> list[dict[str, Any]]:
    """The latest alerts about keys."""
    return [each for each in server.admin("GET", "/overview").json["alerts"] if each["kind"] == "key_limit"]


def test_password_and_user_of_the_redis_are_shown_nowhere(tmp_path: Path) -> None:
    login = ("a-user-of-redis", "a-password-of-redis")
    authority, _ = certificate(tmp_path, "localhost")
    texts: list[str] = []
    with redis_server(tmp_path / "redis") as redis:
        redis.found()
        redis.command("ACL", "SETUSER", login[0], "on", f">{login[1]}", "~{cb}*", "+@all")
        port = redis.serve_tls(tmp_path / "server.pem", authority)
        env = {"BRIDGE_STORE_URL": f"rediss://{login[0]}:{login[1]}@localhost:{port}/0", "BRIDGE_NODE": "a"}
        env |= {"SSL_CERT_FILE": str(authority), "BRIDGE_TRACE_DIR": str(tmp_path / "traces")}
        with servers.running(tmp_path, env, demo=True) as server:
            key = server.new_key("ada")
            assert ask(server, key).status == 200
            redis.command("ACL", "SETUSER", login[0], "-fcall")
            refused = ask(server, key)
            assert refused.status == 503
            assert "its user may not do what the bridges need" in refused.json["error"]
            texts += [refused.body.decode(), *map(str, processes(server.process.pid))]
            for path in ("/", "/ready", "/metrics", "/admin/overview", "/admin/top", "/admin/audit"):
                texts.append(server.call("GET", path, key=servers.ADMIN_KEY).body.decode())
            for words in (("doctor",), ("cluster", "status"), ("cluster", "init")):
                done = server.command(*words)
                texts += [done.stdout, done.stderr]
        texts += server.output
        server.env["SSL_CERT_FILE"] = str(certificate(tmp_path / "traces", "localhost")[0])
        texts += [(done := server.command("doctor")).stdout, done.stderr]
        assert "its certificate is not one that this host believes" in done.stdout
        with pytest.raises(AssertionError, match="its user may not do") as caught:
            servers.start(tmp_path, env, demo=True)
        texts.append(str(caught.value))
    traces = [path.read_text() for path in (tmp_path / "traces").glob("*run_*")]
    assert traces
    texts += traces
    for text in texts:
        assert not any(word in text for word in login), text


def processes(leader: int) -> Iterator[list[str]]:
    """The command lines of a server and of all that it has started."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.getsid(int(folder.name)) == leader:
                yield (folder / "cmdline").read_text().split("\0")
