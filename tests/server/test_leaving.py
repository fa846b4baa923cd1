"""Clients that leave, servers that end: nothing is left running, and what was used is booked."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.support import server as servers
from tests.support.server import Server

#: A pause between two pieces of an answer that makes it last for about ten seconds.
SLOW = {"DEMO_PACE_SECONDS": "0.4", "DEMO_WARM": "1"}


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Server]:
    with servers.running(tmp_path, SLOW, demo=True) as server:
        yield server


def eventually(check: Callable[[], bool], within_s: float = 5) -> None:
    deadline = time.monotonic() + within_s
    while not check():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def open_request(server: Server, key: str, *, stream: bool) -> socket.socket:
    body = json.dumps({"userPrompt": "hello", "stream": stream}).encode()
    connection = socket.create_connection(("127.0.0.1", server.port))
    connection.sendall(
        b"POST /generate HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s"
        % (key.encode(), len(body), body)
    )
    return connection


def runs(server: Server) -> list[dict[str, object]]:
    found: list[dict[str, object]] = server.admin("GET", "/runs").json["runs"]
    return found


def below(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_stops_its_run_and_pays_for_what_was_made(slow: Server, stream: bool) -> None:
    key = slow.new_key()
    connection = open_request(slow, key, stream=stream)
    eventually(lambda: [run["state"] for run in runs(slow)] == ["running"])
    connection.close()
    eventually(lambda: runs(slow) == [], within_s=2)
    row = slow.admin("GET", "/logs").json["logs"][0]
    assert row["code"] == "cancelled"
    assert row["assumed"] is True
    assert row["costUsd"] > 0
    usage = slow.call("GET", "/me", key=key).json["usage"]
    assert usage["today"]["requests"] == 1
    assert usage["reserved"]["requests"] == 0


def test_the_admin_can_stop_a_run(slow: Server) -> None:
    key = slow.new_key()
    connection = open_request(slow, key, stream=True)
    eventually(lambda: bool(runs(slow)) and runs(slow)[0]["state"] == "running")
    assert slow.admin("DELETE", f"/runs/{runs(slow)[0]['id']}").status == 200
    received = b""
    while b"event: error" not in received:
        chunk = connection.recv(65536)
        assert chunk
        received += chunk
    assert b"cancelled" in received
    connection.close()


def test_revoking_a_key_stops_what_it_has_running(slow: Server) -> None:
    key = slow.new_key("leaver")
    connection = open_request(slow, key, stream=True)
    eventually(lambda: bool(runs(slow)))
    slow.admin("DELETE", "/keys/leaver")
    eventually(lambda: runs(slow) == [], within_s=2)
    connection.close()


def test_a_killed_server_leaves_no_process_and_charges_what_was_open(tmp_path: Path) -> None:
    server = servers.start(tmp_path, SLOW, demo=True)
    key = server.new_key()
    connection = open_request(server, key, stream=True)
    eventually(lambda: bool(runs(server)) and runs(server)[0]["state"] == "running")
    reserved = server.call("GET", "/me", key=key).json["usage"]["reserved"]
    assert reserved["costUsd"] > 0
    eventually(lambda: len(below(server.process.pid)) >= 3)  # worker, running process, warm process
    family = below(server.process.pid)
    worker = psutil.Process(server.process.pid).children()[0]
    server.process.kill()
    worker.kill()
    connection.close()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive
    server.stop()
    with servers.running(tmp_path, SLOW, demo=True) as again:
        usage = again.call("GET", "/me", key=key).json["usage"]
        assert usage["reserved"]["requests"] == 0
        assert usage["today"]["costUsd"] == pytest.approx(reserved["costUsd"])
        assert usage["today"]["assumedUsd"] == usage["today"]["costUsd"]
        row = again.admin("GET", "/logs").json["logs"][0]
        assert (row["keyName"], row["assumed"], row["code"]) == ("tester", True, "cli_failed")


def test_sigterm_lets_a_running_request_end(tmp_path: Path) -> None:
    server = servers.start(tmp_path, {"DEMO_PACE_SECONDS": "0.05"}, demo=True)
    key = server.new_key()
    answers: list[servers.Answer] = []
    asking = threading.Thread(
        target=lambda: answers.append(server.call("POST", "/generate", {"userPrompt": "hello"}, key=key))
    )
    asking.start()
    eventually(lambda: bool(runs(server)) and runs(server)[0]["state"] == "running")
    family = below(server.process.pid)
    began = time.monotonic()
    server.stop(signal.SIGTERM)
    asking.join(10)
    assert answers[0].status == 200
    assert time.monotonic() - began < 15, "idle connections do not hold the server up"
    assert not [p for p in family if p.is_running()]


# --- draining and handing over --------------------------------------------------------------------


def ask(server: Server, key: str, answers: list[servers.Answer], **more: object) -> threading.Thread:
    """A request in a thread of its own."""

    def send() -> None:
        answers.append(server.call("POST", "/generate", {"userPrompt": "hello", **more}, key=key))

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def test_while_it_drains_who_comes_is_told_when_to_come_again(tmp_path: Path) -> None:
    server = servers.start(tmp_path, {"DEMO_PACE_SECONDS": "0.1"}, demo=True)
    key = server.new_key()
    answers: list[servers.Answer] = []
    running = ask(server, key, answers)
    eventually(lambda: bool(runs(server)) and runs(server)[0]["state"] == "running")
    server.process.send_signal(signal.SIGTERM)
    eventually(lambda: server.call("GET", "/ready").status == 503)
    refused = server.call("POST", "/generate", {"userPrompt": "hello"}, key=key)
    assert (refused.status, refused.json["code"]) == (503, "draining")
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["connection"] == "close"
    assert server.call("GET", "/capacity").json["verdict"] == "red"
    assert server.call("GET", "/health").status == 200
    assert server.call("GET", "/me", key=key).json["usage"]["today"]["requests"] == 0
    running.join(10)
    assert answers[0].status == 200
    assert server.stop() == 0


def test_what_does_not_end_in_time_ends_with_a_clear_error_and_is_settled(tmp_path: Path) -> None:
    server = servers.start(tmp_path, {"DEMO_PACE_SECONDS": "3", "DEMO_DRAIN_SECONDS": "0.5"}, demo=True)
    key = server.new_key()
    answers: list[servers.Answer] = []
    both = [ask(server, key, answers), ask(server, key, answers, stream=True)]
    eventually(lambda: sum(run["state"] == "running" for run in runs(server)) == 2)
    eventually(lambda: all(run["outputTokensSoFar"] for run in runs(server)))
    server.stop(signal.SIGTERM)
    for thread in both:
        thread.join(10)
    whole, streamed = sorted(answers, key=lambda answer: answer.status, reverse=True)
    assert (whole.status, whole.json["code"]) == (503, "draining")
    assert (streamed.events[-1][0], streamed.events[-1][1]["code"]) == ("error", "draining")
    with servers.running(tmp_path, demo=True) as again:
        usage = again.call("GET", "/me", key=key).json["usage"]
        assert (usage["today"]["requests"], usage["reserved"]["requests"]) == (2, 0)
        assert usage["today"]["costUsd"] > 0


def test_sighup_hands_over_without_losing_anybody(tmp_path: Path) -> None:
    server = servers.start(tmp_path, {"DEMO_PACE_SECONDS": "0.05", "BRIDGE_MAX_CONCURRENT": "1"}, demo=True)
    try:
        key = server.new_key("many", maxConcurrent=0, maxRequestsPerMinute=0)
        before: list[servers.Answer] = []
        early = [ask(server, key, before) for _ in range(2)]  # one runs, one waits in the queue
        eventually(lambda: sorted(str(run["state"]) for run in runs(server)) == ["queued", "running"])
        (old,) = psutil.Process(server.process.pid).children()
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: len(psutil.Process(server.process.pid).children()) == 2)
        after: list[servers.Answer] = []
        late = [ask(server, key, after) for _ in range(4)]
        for thread in [*early, *late]:
            thread.join(30)
        assert [answer.status for answer in before + after] == [200] * 6
        eventually(lambda: not old.is_running())
        assert server.call("GET", "/me", key=key).json["usage"]["today"]["requests"] == 6
        assert server.admin("GET", "/overview").json["running"] == 0
    finally:
        server.stop()


def test_sighup_reads_the_settings_again(tmp_path: Path) -> None:
    settings = tmp_path / ".env"
    settings.write_text("BRIDGE_DEFAULT_MAX_COST_PER_DAY=1\n")
    server = servers.start(tmp_path)
    try:
        assert server.admin("POST", "/keys", {"name": "before"}).status == 201
        settings.write_text("BRIDGE_DEFAULT_MAX_COST_PER_DAY=7\nBRIDGE_TIMEZONE=Nowhere/Nothing\n")
        server.process.send_signal(signal.SIGHUP)
        assert server.process.stderr is not None
        while "Nowhere/Nothing" not in server.process.stderr.readline():
            pass
        eventually(lambda: default_cost(server) == 1, within_s=20)
        settings.write_text("BRIDGE_DEFAULT_MAX_COST_PER_DAY=7\n")
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: default_cost(server) == 7, within_s=20)
    finally:
        server.stop()


def test_a_reload_right_after_another_ends_the_worker_that_is_only_starting(tmp_path: Path) -> None:
    with servers.running(tmp_path, demo=True) as server:
        for _ in range(2):
            before = workers(server)
            server.process.send_signal(signal.SIGHUP)
            eventually(lambda known=before: bool(workers(server) - known), within_s=20)
        eventually(lambda: len(workers(server)) == 1, within_s=20)
        assert server.call("GET", "/health").status == 200


def workers(server: Server) -> set[int]:
    return {child.pid for child in psutil.Process(server.process.pid).children()}


def default_cost(server: Server) -> float:
    limits: dict[str, float] = server.admin("GET", "/keys/before").json["limits"]
    return limits["maxCostPerDay"]


def test_systemd_is_told_when_it_serves_and_a_hand_over_is_no_stop(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(30)
        with servers.running(tmp_path, {"NOTIFY_SOCKET": str(tmp_path / "notify")}, demo=True) as server:
            assert systemd.recv(100) == b"READY=1"
            assert server.call("GET", "/health").status == 200
            server.process.send_signal(signal.SIGHUP)
            # Nothing in between: systemd would take "stopping" at its word, and end the new worker, too.
            assert systemd.recv(100) == b"READY=1"
