"""Caps hold when many requests come at once: as many run as fit, and not one more."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support import server as servers
from tests.support.server import Answer, Server

AT_ONCE = 50


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    prices = {"input": 10, "cached": 10, "cacheWrite": 10, "output": 10}
    folder = tmp_path_factory.mktemp("caps")
    data = folder / "data"
    data.mkdir()
    # A model whose every token costs the same, so that what fits can be counted by hand.
    table = {"schema": 1, "providers": {"claude": {"models": {"flat": prices}}}}
    (data / "prices.json").write_text(json.dumps(table))
    env = {"BRIDGE_MAX_CONCURRENT": "8", "BRIDGE_QUEUE_LIMIT": "1000", "DEMO_PACE_SECONDS": "0.002"}
    with servers.running(folder, env, demo=True) as running:
        yield running


def ask_at_once(server: Server, key: str, count: int = AT_ONCE, **body: Any) -> list[Answer]:
    ask = {"userPrompt": "hello", "model": "flat", "maxOutputTokens": 300, **body}
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda _: server.call("POST", "/generate", ask, key=key), range(count)))


def codes(answers: list[Answer]) -> Counter[str]:
    return Counter("ok" if answer.status == 200 else answer.json["code"] for answer in answers)


def usage(server: Server, key: str) -> dict[str, Any]:
    found: dict[str, Any] = server.call("GET", "/me", key=key).json["usage"]
    return found


@pytest.mark.parametrize(
    ("limit", "code"),
    [
        ("maxRequestsPerMinute", "requests_per_minute"),
        ("maxRequestsPerDay", "requests_per_day"),
        ("maxRequestsPerMonth", "requests_per_month"),
    ],
)
def test_exactly_as_many_requests_run_as_the_limit_says(server: Server, limit: str, code: str) -> None:
    key = server.new_key(limit, **{limit: 7})
    assert codes(ask_at_once(server, key)) == {"ok": 7, code: AT_ONCE - 7}
    assert usage(server, key)["today"]["requests"] == 7


def test_no_more_run_at_once_than_the_key_may(server: Server) -> None:
    key = server.new_key("concurrent", maxConcurrent=3)
    found = codes(ask_at_once(server, key))
    assert set(found) == {"ok", "concurrent_requests"}
    assert found["ok"] >= 3
    assert usage(server, key)["reserved"]["requests"] == 0


@pytest.mark.parametrize(
    ("limit", "code", "what"),
    [
        ("maxCostPerDay", "cost_per_day", "costUsd"),
        ("maxCostPerMonth", "cost_per_month", "costUsd"),
        ("maxTokensPerDay", "tokens_per_day", "tokens"),
        ("maxTokensPerMonth", "tokens_per_month", "tokens"),
    ],
)
def test_money_and_tokens_are_never_overdrawn_and_can_be_used_up(
    server: Server, limit: str, code: str, what: str
) -> None:
    most = 0.02 if what == "costUsd" else 2000  # 2,000 tokens at $10 a million
    key = server.new_key(limit, **{limit: most})
    for _ in range(20):
        answers = ask_at_once(server, key, 10)
        used = usage(server, key)
        assert used["today"][what] + used["reserved"][what] <= most + 1e-9
        assert set(codes(answers)) <= {"ok", code}
        if "ok" not in codes(answers):
            break
    # What is left is less than the smallest request takes: 256 tokens of answer, and the prompt.
    assert used["today"][what] >= most - (0.0035 if what == "costUsd" else 350)
    refused = answers[0]
    assert refused.status == 429
    assert refused.json["limit"] == most
    assert refused.json["used"] == pytest.approx(used["today"][what])
    assert refused.json["resets_at"].endswith("Z")
    assert int(refused.headers["retry-after"]) >= 1


def test_a_request_that_is_too_dear_is_refused_and_a_cheaper_one_is_not(server: Server) -> None:
    key = server.new_key("dear", maxCostPerRequest=0.004)
    clamped = ask_at_once(server, key, 1, maxOutputTokens=8000)[0]
    assert clamped.status == 200
    assert clamped.json["cost_usd"] <= 0.004
    refused = ask_at_once(server, key, 1, userPrompt="x" * 10_000)[0]
    assert refused.json["code"] == "cost_per_request"


def test_the_answer_is_clamped_to_what_the_money_affords(server: Server) -> None:
    # 270 tokens at $10 a million, and the prompt: the demo's answer of about 70 words fits well.
    key = server.new_key("clamped", maxCostPerDay=0.0033)
    answer = ask_at_once(server, key, 1, maxOutputTokens=8000)[0]
    assert answer.status == 200
    limit = server.admin("GET", "/logs?key=clamped").json["logs"][0]
    assert limit["outputTokens"] <= 330


def test_four_hundreds_use_nothing(server: Server) -> None:
    key = server.new_key("badly", maxRequestsPerDay=1)
    for body in (b"{", b'{"userPrompt": ""}', b'{"userPrompt": "x", "nonsense": 1}'):
        assert server.call("POST", "/generate", body, key=key).status == 400
    assert ask_at_once(server, key, 1)[0].status == 200


def test_limits_changed_while_runs_are_in_flight_hold_for_the_next(tmp_path: Path) -> None:
    env = {"DEMO_PACE_SECONDS": "0.05", "BRIDGE_MAX_CONCURRENT": "8"}
    with servers.running(tmp_path, env, demo=True) as server:
        key = server.new_key("moving", maxRequestsPerDay=5)
        with ThreadPoolExecutor(5) as pool:
            waiting = [pool.submit(server.call, "POST", "/generate", {"userPrompt": "x"}, key=key) for _ in range(5)]
            while usage(server, key)["reserved"]["requests"] < 5:
                pass
            server.admin("PATCH", "/keys/moving", {"maxRequestsPerDay": 2})
            refused = server.call("POST", "/generate", {"userPrompt": "x"}, key=key)
            assert refused.json["code"] == "requests_per_day"
            assert all(future.result().status == 200 for future in waiting)
        server.admin("PATCH", "/keys/moving", {"maxRequestsPerDay": 6})
        assert server.call("POST", "/generate", {"userPrompt": "x"}, key=key).status == 200
        assert server.call("POST", "/generate", {"userPrompt": "x"}, key=key).status == 429


def test_the_same_prompt_again_and_again_is_slowed_and_then_paused(tmp_path: Path) -> None:
    env = {"BRIDGE_LOOP_REPEATS": "4", "BRIDGE_LOOP_WINDOW_SECONDS": "600"}
    with servers.running(tmp_path, env, demo=True) as server:
        key = server.new_key("loopy")
        ask = {"userPrompt": "again"}
        assert [server.call("POST", "/generate", ask, key=key).status for _ in range(4)] == [200] * 4
        paused = server.call("POST", "/generate", {"userPrompt": "another"}, key=key)
        assert (paused.status, paused.json["code"]) == (429, "loop_suspected")
        assert int(paused.headers["retry-after"]) > 60
        assert server.admin("GET", "/audit").json["audit"][0]["action"] == "loop_suspected"
        server.admin("POST", "/keys/loopy/enable")
        assert server.call("POST", "/generate", ask, key=key).status == 200


def test_a_key_may_have_a_number_of_repeats_of_its_own(tmp_path: Path) -> None:
    with servers.running(tmp_path, {"BRIDGE_LOOP_REPEATS": "2"}, demo=True) as server:
        key = server.new_key("evaluation", loopRepeats=0)
        ask = {"userPrompt": "again"}
        assert [server.call("POST", "/generate", ask, key=key).status for _ in range(5)] == [200] * 5
        assert server.admin("PATCH", "/keys/evaluation", {"loopRepeats": None}).status == 200
        assert server.admin("GET", "/keys/evaluation").json["loopRepeats"] is None
        assert [server.call("POST", "/generate", ask, key=key).status for _ in range(3)] == [200, 200, 429]
        for wrong in (-1, 1.5, "two", 100_001):
            assert server.admin("PATCH", "/keys/evaluation", {"loopRepeats": wrong}).status == 400


def test_a_refused_request_is_in_the_log_and_cost_nothing(server: Server) -> None:
    key = server.new_key("refused", maxRequestsPerDay=1)
    ask_at_once(server, key, 1)
    ask_at_once(server, key, 1)
    refused, ran = server.admin("GET", "/logs?key=refused").json["logs"]
    assert (refused["status"], refused["code"], refused["costUsd"]) == (429, "requests_per_day", 0)
    assert (ran["status"], ran["warm"] in (True, False)) == (200, True)
    assert ran["reservedUsd"] >= ran["costUsd"] > 0
