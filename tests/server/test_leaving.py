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
