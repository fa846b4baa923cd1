"""Long answers as jobs, and requests that are sent twice: over client aborts and restarts."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import server as servers
from tests.support.server import Answer, Server

ASYNC = {"Prefer": "respond-async"}
BODY = {"userPrompt": "hello"}


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Answers take more than a second; through Cloudflare, a quarter of one is too long."""
    env = {"DEMO_PACE_SECONDS": "0.05", "DEMO_PATIENCE_SECONDS": "0.25"}
    with servers.running(tmp_path_factory.mktemp("slow"), env, demo=True) as server:
        yield server


@pytest.fixture
def slow_key(slow: Server) -> str:
    return slow.new_key(f"key-{time.monotonic_ns()}")


def spent(server: Server, key: str) -> dict[str, Any]:
    usage: dict[str, Any] = server.call("GET", "/me", key=key).json["usage"]
    return usage


def ended(server: Server, key: str, path: str) -> dict[str, Any]:
    """The job when it has ended."""
    deadline = time.monotonic() + 30
    while (job := server.call("GET", f"{path}?wait=10", key=key).json)["status"] in ("queued", "running"):
        assert time.monotonic() < deadline
    found: dict[str, Any] = job
    return found


# --- jobs ---------------------------------------------------------------------------------------


def test_a_client_that_does_not_wait_gets_a_job_and_comes_back_for_the_answer(slow: Server, slow_key: str) -> None:
    accepted = slow.call("POST", "/generate", BODY, key=slow_key, headers=ASYNC)
    assert accepted.status == 202
    assert accepted.json["status"] == "running"
    assert accepted.headers["preference-applied"] == "respond-async"
    path = accepted.headers["location"]
    assert path == f"/jobs/{accepted.json['id']}"
    first = slow.call("GET", path, key=slow_key)
    assert first.json["status"] == "running"
    assert int(first.headers["retry-after"]) >= 1
    job = ended(slow, slow_key, path)
    assert job["status"] == "done"
    assert job["result"]["id"] == accepted.json["id"]
    assert "[demo answer" in job["result"]["content"][0]["text"]
    assert job["result"]["cost_usd"] == pytest.approx(spent(slow, slow_key)["today"]["costUsd"])
    row = slow.admin("GET", "/logs").json["logs"][0]
    assert (row["id"], row["status"]) == (accepted.json["id"], 200)


def test_a_client_waits_as_long_as_it_says(slow: Server, slow_key: str) -> None:
    long = slow.call("POST", "/generate", BODY, key=slow_key, headers={"Prefer": "wait=30"})
    assert long.status == 200
    assert long.headers["preference-applied"] == "wait=30"
    short = slow.call("POST", "/generate", BODY, key=slow_key, headers={"Prefer": "respond-async, wait=0"})
    assert short.status == 202
    assert ended(slow, slow_key, short.headers["location"])["status"] == "done"


@pytest.mark.parametrize("prefer", ["", "wait=x", "return=minimal", "wait=-1", "handling=lenient; x", "wait"])
def test_preferences_that_nobody_knows_are_ignored(server: Server, key: str, prefer: str) -> None:
    assert server.call("POST", "/generate", BODY, key=key, headers={"Prefer": prefer}).status == 200


def test_through_cloudflare_a_long_answer_becomes_a_job_by_itself(slow: Server, slow_key: str) -> None:
    accepted = slow.call("POST", "/generate", BODY, key=slow_key, headers={"CF-Ray": "8a1b2c3d4e5f-FRA"})
    assert accepted.status == 202
    assert ended(slow, slow_key, accepted.headers["location"])["status"] == "done"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hello"}]}),
        ("/v1/responses", {"input": "hello"}),
        ("/v1/messages", {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 500}),
    ],
)
def test_an_sdk_gets_an_error_instead_of_a_job_that_it_would_take_for_an_answer(
    slow: Server, slow_key: str, path: str, body: dict[str, Any]
) -> None:
    asked = {**body, "model": "claude-sonnet-5-5"}
    late = slow.call("POST", path, asked, key=slow_key, headers={"CF-Ray": "8a1b2c3d4e5f-FRA"})
    assert (late.status, late.headers["x-should-retry"]) == (504, "false")
    job = re.search(r"run_\w+", late.json["error"]["message"])
    assert job is not None
    found = ended(slow, slow_key, f"/jobs/{job[0]}")
    assert "[demo answer" in json.dumps(found["result"])
    accepted = slow.call("POST", path, asked, key=slow_key, headers={"CF-Ray": "x", **ASYNC})
    assert accepted.status == 202, "who asks for a job gets one"


def test_a_stream_through_cloudflare_stays_a_stream(slow: Server, slow_key: str) -> None:
    answer = slow.call("POST", "/generate", {**BODY, "stream": True}, key=slow_key, headers={"CF-Ray": "x", **ASYNC})
    assert answer.status == 200
    assert answer.events[-1][0] == "done"


def test_only_the_key_that_asked_sees_a_job(slow: Server, slow_key: str) -> None:
    path = slow.call("POST", "/generate", BODY, key=slow_key, headers=ASYNC).headers["location"]
    other = slow.new_key("other")
    for method in ("GET", "DELETE"):
        assert slow.call(method, path, key=other).status == 404
        assert slow.call(method, path, key=servers.ADMIN_KEY).status == 401
        assert slow.call(method, path).status == 401
    assert ended(slow, slow_key, path)["status"] == "done"
    assert slow.call("GET", path, key=other).status == 404


def test_a_revoked_keys_jobs_are_not_the_next_ones_of_its_name(server: Server) -> None:
    first = server.new_key("reused")
    path = server.call("POST", "/generate", BODY, key=first, headers=ASYNC).headers["location"]
    assert ended(server, first, path)["status"] == "done"
    server.admin("DELETE", "/keys/reused")
    second = server.new_key("reused")
    assert server.call("GET", path, key=second).status == 404


def test_a_job_can_be_cancelled_and_is_charged_what_it_used(slow: Server, slow_key: str) -> None:
    path = slow.call("POST", "/generate", BODY, key=slow_key, headers=ASYNC).headers["location"]
    cancelled = slow.call("DELETE", path, key=slow_key).json
    assert cancelled["status"] == "failed"
    assert cancelled["error"]["code"] == "cancelled"
    assert slow.call("GET", path, key=slow_key).json["error"]["code"] == "cancelled"
    assert slow.call("DELETE", path, key=slow_key).json["status"] == "failed"
    assert spent(slow, slow_key)["reserved"]["requests"] == 0


@pytest.mark.parametrize("path", ["/jobs/run_nothing", "/jobs/..%2f..%2fkeys", "/jobs/%00", "/jobs/" + "x" * 5000])
def test_a_job_that_is_none_is_not_found(server: Server, key: str, path: str) -> None:
    assert server.call("GET", path, key=key).status == 404


@pytest.mark.parametrize("wait", ["x", "-1", "1e9", "1" * 20])
def test_a_wait_that_is_no_number_is_refused(slow: Server, slow_key: str, wait: str) -> None:
    path = slow.call("POST", "/generate", BODY, key=slow_key, headers=ASYNC).headers["location"]
    assert slow.call("GET", f"{path}?wait={wait}", key=slow_key).status == 400


def test_a_refused_request_makes_no_job(slow: Server) -> None:
    poor = slow.new_key(f"poor-{time.monotonic_ns()}", maxCostPerDay=0.000001)
    assert slow.call("POST", "/generate", BODY, key=poor, headers=ASYNC).status == 429
    assert slow.call("POST", "/generate", {"x": 1}, key=poor, headers=ASYNC).status == 400


# --- the same request twice ---------------------------------------------------------------------


def again(server: Server, key: str, body: Any = BODY, name: str = "k1", path: str = "/generate") -> Answer:
    return server.call("POST", path, body, key=key, headers={"Idempotency-Key": name})


def test_the_same_request_gets_the_same_answer_and_is_paid_once(server: Server, key: str) -> None:
    first, second = again(server, key), again(server, key)
    assert first.status == second.status == 200
    assert first.json == second.json
    assert second.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert spent(server, key)["today"]["requests"] == 1


def test_a_repeated_stream_streams_the_first_answer(server: Server, key: str) -> None:
    body = {**BODY, "stream": True}
    first, second = again(server, key, body), again(server, key, body)
    assert second.events[-1] == first.events[-1]
    text = "".join(data["text"] for name, data in second.events if name == "delta")
    assert text == first.events[-1][1]["content"][0]["text"]
    assert spent(server, key)["today"]["requests"] == 1


def test_the_same_idempotency_key_with_another_request_is_a_conflict(server: Server, key: str) -> None:
    again(server, key)
    for other in (again(server, key, {"userPrompt": "other"}), again(server, key, path="/generate-codex")):
        assert (other.status, other.json["code"]) == (409, "conflict")
    assert spent(server, key)["today"]["requests"] == 1


def test_idempotency_keys_of_different_people_have_nothing_to_do_with_each_other(server: Server, key: str) -> None:
    other = server.new_key(f"other-{time.monotonic_ns()}")
    assert again(server, key).json["id"] != again(server, other).json["id"]


def test_while_the_first_still_runs_the_second_is_told_to_come_again(slow: Server, slow_key: str) -> None:
    answers: list[Answer] = []
    first = threading.Thread(target=lambda: answers.append(again(slow, slow_key)))
    first.start()
    # Of this key: what another test has left may still be in the list.
    while not spent(slow, slow_key)["reserved"]["requests"]:
        time.sleep(0.01)
    second = again(slow, slow_key)
    assert (second.status, second.json["code"]) == (409, "conflict")
    assert int(second.headers["retry-after"]) >= 1
    first.join()
    assert again(slow, slow_key).json == answers[0].json


def test_twenty_at_once_with_one_idempotency_key_run_once(slow: Server) -> None:
    key = slow.new_key(f"many-{time.monotonic_ns()}", maxConcurrent=0, maxRequestsPerMinute=0)
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(again(slow, key).status)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] + [409] * 19
    assert spent(slow, key)["today"]["requests"] == 1
    assert spent(slow, key)["reserved"]["requests"] == 0


def test_a_client_that_was_cut_off_gets_the_answer_that_it_paid_for(slow: Server, slow_key: str) -> None:
    body = json.dumps(BODY).encode()
    with socket.create_connection(("127.0.0.1", slow.port)) as connection:
        connection.sendall(
            b"POST /generate HTTP/1.1\r\nHost: x\r\nIdempotency-Key: cut\r\nAuthorization: Bearer %s\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (slow_key.encode(), len(body), body)
        )
        while not spent(slow, slow_key)["reserved"]["requests"]:
            time.sleep(0.01)
    deadline = time.monotonic() + 20
    while (answer := again(slow, slow_key, name="cut")).status == 409:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert answer.status == 200
    assert spent(slow, slow_key)["today"]["requests"] == 1


def test_a_refused_request_can_be_sent_again(server: Server) -> None:
    key = server.new_key("refused", maxRequestsPerDay=1)
    assert server.call("POST", "/generate", BODY, key=key).status == 200
    assert again(server, key).status == 429
    server.admin("PATCH", "/keys/refused", {"maxRequestsPerDay": 5})
    assert again(server, key).status == 200


@pytest.mark.parametrize("name", ["", "x" * 256])
def test_an_idempotency_key_has_bounds(server: Server, key: str, name: str) -> None:
    assert again(server, key, name=name).status == 400


# --- over restarts --------------------------------------------------------------------------------


def restarted(server: Server, how: signal.Signals, folder: Path, env: dict[str, str]) -> Server:
    server.stop(how)
    return servers.start(folder, env, demo=True)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_answers_survive_a_restart_and_what_ran_is_failed_and_charged(tmp_path: Path, how: signal.Signals) -> None:
    env = {"DEMO_PACE_SECONDS": "0"}
    server = servers.start(tmp_path, env, demo=True)
    try:
        key = server.new_key()
        path = server.call("POST", "/generate", BODY, key=key, headers=ASYNC).headers["location"]
        done = ended(server, key, path)
        first = again(server, key)
        server = restarted(server, how, tmp_path, {"DEMO_PACE_SECONDS": "1"})
        assert server.call("GET", path, key=key).json == done
        replayed = again(server, key)
        assert replayed.json == first.json
        assert again(server, key, {"userPrompt": "other"}).status == 409
        before = spent(server, key)["today"]
        running = server.call("POST", "/generate", BODY, key=key, headers={**ASYNC, "Idempotency-Key": "cut off"})
        assert running.status == 202
        _wait_until_submitted(lambda: server)
        _kill(server)
        server = servers.start(tmp_path, env, demo=True)
        job = server.call("GET", running.headers["location"], key=key).json
        assert (job["status"], job["error"]["code"]) == ("failed", "cli_failed")
        after = spent(server, key)
        assert after["today"]["requests"] == before["requests"] + 1
        assert after["today"]["costUsd"] > before["costUsd"]
        assert after["reserved"]["requests"] == 0
        repeated = again(server, key, name="cut off")
        assert (repeated.status, repeated.json["code"]) == (502, "cli_failed")
        assert spent(server, key)["today"]["requests"] == before["requests"] + 1
    finally:
        server.stop()


def _wait_until_submitted(server: Callable[[], Server]) -> None:
    while not any(run["outputTokensSoFar"] for run in server().admin("GET", "/runs").json["runs"]):
        time.sleep(0.02)


def _kill(server: Server) -> None:
    # All at once: a worker that sees the other process gone ends its runs in order.
    os.killpg(server.process.pid, signal.SIGKILL)
    server.stop()


def test_a_damaged_answer_keeps_the_server_from_opening(tmp_path: Path) -> None:
    server = servers.start(tmp_path, demo=True)
    key = server.new_key()
    again(server, key)
    server.stop()
    file = next((tmp_path / "data" / "jobs").glob("*.json"))
    assert file.stat().st_mode & 0o777 == 0o600
    assert b"hello" not in file.read_bytes().split(b'"answer"')[0]
    file.write_bytes(file.read_bytes()[:-5])
    refused = subprocess.run(
        [sys.executable, "-m", "bridge", "serve"],
        env=server.env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert refused.returncode == 1
    assert re.search(
        r"cli-bridge cannot start: jobs/run_\w+\.json is damaged: .*\n  Move that file away.*\n", refused.stderr
    )
    repaired = subprocess.run(
        [sys.executable, "-m", "bridge", "doctor", "--repair"],
        env=server.env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert "this kept answer is lost" in repaired.stdout
    servers.start(tmp_path, demo=True).stop()


def test_no_key_can_wait_in_too_many_places_at_once(tmp_path: Path) -> None:
    with servers.running(tmp_path, {"DEMO_PACE_SECONDS": "1"}, demo=True) as server:
        key = server.new_key()
        path = server.call("POST", "/generate", BODY, key=key, headers=ASYNC).headers["location"]
        states: list[str] = []

        def wait() -> None:
            states.append(server.call("GET", f"{path}?wait=60", key=key).json["status"])

        threads = [threading.Thread(target=wait) for _ in range(25)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 10
        while len(states) < 5:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert states == ["running"] * 5, "the others wait"
        assert server.call("DELETE", path, key=key).status == 200
        for thread in threads:
            thread.join(10)
        assert sorted(states) == ["failed"] * 20 + ["running"] * 5
