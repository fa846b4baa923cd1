"""More requests than slots: who waits knows it, nobody is forgotten, and nobody is held up by another's crowd."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import server as servers
from tests.support.server import Answer, Server

#: An answer takes about a second.
PACE = {"DEMO_PACE_SECONDS": "0.04", "BRIDGE_MAX_CONCURRENT": "1"}
BODY = {"userPrompt": "hello"}


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[Server]:
    """A server with one slot."""
    with servers.running(tmp_path, {**PACE, "BRIDGE_QUEUE_LIMIT": "5"}, demo=True) as server:
        yield server


def eventually(check: Callable[[], bool], within_s: float = 5) -> None:
    deadline = time.monotonic() + within_s
    while not check():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def states(server: Server) -> list[str]:
    return sorted(str(run["state"]) for run in server.admin("GET", "/runs").json["runs"])


class Crowd:
    """Requests in threads of their own, and their answers in the order in which they came."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.answers: list[tuple[str, Answer]] = []
        self.threads: list[threading.Thread] = []

    def send(self, label: str, key: str, **more: Any) -> None:
        def call() -> None:
            answer = self.server.call("POST", "/generate", {**BODY, **more}, key=key)
            self.answers.append((label, answer))

        before = len(states(self.server))
        self.threads.append(threading.Thread(target=call))
        self.threads[-1].start()
        eventually(lambda: len(states(self.server)) > before or not self.threads[-1].is_alive())

    def join(self) -> list[Answer]:
        for thread in self.threads:
            thread.join(60)
        return [answer for _, answer in self.answers]


def test_one_keys_crowd_does_not_delay_anothers_first_request(narrow: Server) -> None:
    many, one = narrow.new_key("many"), narrow.new_key("one")
    crowd = Crowd(narrow)
    for number in range(4):
        crowd.send(f"many {number}", many)
    crowd.send("one", one)
    assert [answer.status for answer in crowd.join()] == [200] * 5
    assert [label for label, _ in crowd.answers].index("one") == 1 + 1, (
        "after the one that ran and the one next in turn"
    )


def test_a_stream_that_waits_is_told_its_place_as_it_changes(narrow: Server) -> None:
    key = narrow.new_key()
    crowd = Crowd(narrow)
    for label in ("first", "second", "third"):
        crowd.send(label, key, stream=True)
    crowd.join()
    events = dict(crowd.answers)["third"].events
    assert [name for name, _ in events[:2]] == ["start", "queued"]
    places = [data["position"] for name, data in events if name == "queued"]
    assert places[0] == 2
    assert places == sorted(places, reverse=True)
    assert events[-1][0] == "done"
    assert "queued" not in [name for name, _ in dict(crowd.answers)["first"].events]


def test_a_job_that_waits_shows_its_place(narrow: Server) -> None:
    key = narrow.new_key()
    crowd = Crowd(narrow)
    crowd.send("first", key)
    accepted = narrow.call("POST", "/generate", BODY, key=key, headers={"Prefer": "respond-async"})
    assert accepted.json["status"] == "queued"
    job = narrow.call("GET", accepted.headers["location"], key=key).json
    assert (job["status"], job["queue_position"]) == ("queued", 1)
    crowd.join()
    assert narrow.call("GET", f"{accepted.headers['location']}?wait=30", key=key).json["status"] == "done"


def test_past_the_queue_limit_requests_are_told_when_to_come_again(narrow: Server) -> None:
    key = narrow.new_key()
    crowd = Crowd(narrow)
    for number in range(6):
        crowd.send(str(number), key)
    assert narrow.call("GET", "/capacity").json["verdict"] == "red"
    refused = narrow.call("POST", "/generate", BODY, key=key)
    assert (refused.status, refused.json["code"]) == (503, "overloaded")
    assert 1 <= int(refused.headers["retry-after"]) <= 120
    assert [answer.status for answer in crowd.join()] == [200] * 6
    assert narrow.call("GET", "/me", key=key).json["usage"]["today"]["requests"] == 6
    assert narrow.call("GET", "/capacity").json["verdict"] == "green"


def test_who_waits_too_long_is_refused_and_pays_nothing(tmp_path: Path) -> None:
    env = {**PACE, "DEMO_PACE_SECONDS": "0.1", "BRIDGE_QUEUE_TIMEOUT_SECONDS": "0.5"}
    with servers.running(tmp_path, env, demo=True) as server:
        first, second = server.new_key("first"), server.new_key("second")
        crowd = Crowd(server)
        crowd.send("first", first)
        refused = server.call("POST", "/generate", BODY, key=second)
        assert (refused.status, refused.json["code"]) == (503, "queue_timeout")
        assert int(refused.headers["retry-after"]) >= 1
        usage = server.call("GET", "/me", key=second).json["usage"]
        assert (usage["today"]["requests"], usage["reserved"]["requests"]) == (0, 0)
        crowd.join()


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_the_queue_frees_its_place_and_pays_nothing(narrow: Server, stream: bool) -> None:
    first, second = narrow.new_key("first"), narrow.new_key("second")
    crowd = Crowd(narrow)
    crowd.send("first", first)
    body = json.dumps({**BODY, "stream": stream}).encode()
    with socket.create_connection(("127.0.0.1", narrow.port)) as waiting:
        waiting.sendall(
            b"POST /generate HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s"
            % (second.encode(), len(body), body)
        )
        eventually(lambda: states(narrow) == ["queued", "running"])
    eventually(lambda: states(narrow) == ["running"], within_s=1)
    crowd.join()
    usage = narrow.call("GET", "/me", key=second).json["usage"]
    assert (usage["today"]["requests"], usage["today"]["costUsd"], usage["reserved"]["requests"]) == (0, 0, 0)
    row = narrow.admin("GET", "/logs?key=second").json["logs"][0]
    assert (row["code"], row["costUsd"]) == ("cancelled", 0)
