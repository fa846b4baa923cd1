"""Who spent what on what, why it failed, and what it may cost, over HTTP."""

from __future__ import annotations

import time

import pytest

from bridge.errors import CODES
from tests.support import server as servers
from tests.support.server import Server

ASK = {"userPrompt": "Hello"}


def spent(server: Server, query: str) -> dict[str, tuple[int, float]]:
    """A breakdown by the first field of its rows: requests and dollars."""
    by = query.partition("by=")[2].partition("&")[0]
    rows = server.admin("GET", f"/usage/breakdown?{query}").json["rows"]
    return {row[by]: (row["requests"], row["costUsd"]) for row in rows}


def test_a_breakdown_is_what_the_log_says(server: Server) -> None:
    ada, bob = server.new_key("ada-spends"), server.new_key("bob-spends")
    costs: dict[tuple[str, str], float] = {}
    for name, key, path in (
        ("ada", ada, "/generate"),
        ("ada", ada, "/generate-codex"),
        ("bob", bob, "/generate-codex"),
    ):
        answer = server.call("POST", path, ASK, key=key)
        costs[name, path] = answer.json["cost_usd"]
    by_model = server.admin("GET", "/usage/breakdown?by=model&key=ada-spends").json
    assert {row["provider"]: row["costUsd"] for row in by_model["rows"]} == {
        "claude": pytest.approx(costs["ada", "/generate"]),
        "codex": pytest.approx(costs["ada", "/generate-codex"]),
    }
    assert by_model["from"] < by_model["to"]
    model = next(row["model"] for row in by_model["rows"] if row["provider"] == "codex")
    by_key = spent(server, f"by=key&model={model}")
    assert by_key["bob-spends"] == (1, pytest.approx(costs["bob", "/generate-codex"]))
    assert by_key["ada-spends"] == (1, pytest.approx(costs["ada", "/generate-codex"]))
    sums = server.admin("GET", "/logs?key=ada-spends").json["sums"]
    assert {name: by_model["total"][name] for name in ("requests", "tokens", "costUsd", "errors")} == {
        name: sums[name] for name in ("requests", "tokens", "costUsd", "errors")
    }
    assert spent(server, "by=credential&key=ada-spends") == {None: (2, sums["costUsd"])}


def test_a_holder_sees_what_the_own_key_spent_and_no_other(server: Server) -> None:
    mine, other = server.new_key("mine"), server.new_key("not-mine")
    for key in (mine, other, other):
        server.call("POST", "/generate", ASK, key=key)
    answer = server.call("GET", "/me/usage?by=model&key=not-mine", key=mine).json
    assert [row["requests"] for row in answer["rows"]] == [1]
    assert set(answer["rows"][0]) == {"provider", "model", "requests", "tokens", "costUsd", "errors"}
    assert server.call("GET", "/me/usage?by=provider", key=other).json["total"]["requests"] == 2
    for by in ("key", "credential"):
        assert server.call("GET", f"/me/usage?by={by}", key=mine).status == 400
    assert server.call("GET", "/me/usage").status == 401


def test_days_may_be_those_of_any_year(server: Server) -> None:
    for query, first in (
        ("to=0001-01-01", "0001-01-01"),
        ("to=0001-01-31", "0001-01-02"),
        ("to=9999-12-31", "9999-12-02"),
    ):
        answer = server.admin("GET", f"/usage/breakdown?{query}")
        assert (answer.status, answer.json["from"]) == (200, first)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("from=tomorrow", "from must be a day"),
        ("from=20261101", "from must be a day"),
        ("to=2026-02-30", "to must be a day"),
        ("from=2026-11-02&to=2026-11-01", "lies after"),
        ("by=colour", "by must be key or model or provider or credential"),
    ],
)
def test_a_wrong_question_is_told_what_is_wrong(server: Server, query: str, says: str) -> None:
    answer = server.admin("GET", f"/usage/breakdown?{query}")
    assert (answer.status, answer.json["code"]) == (400, "invalid_request")
    assert says in answer.json["error"]


def test_a_log_from_later_than_until_says_so(server: Server) -> None:
    answer = server.admin("GET", "/logs?since=2026-11-02T00:00:00Z&until=2026-11-01T00:00:00Z")
    assert (answer.status, answer.json["error"]) == (400, "since lies after until.")


def test_sums_are_those_of_the_filter_and_can_be_left_out(server: Server) -> None:
    key = server.new_key("summed", maxRequestsPerDay=2)
    costs = [server.call("POST", "/generate", ASK, key=key).json.get("cost_usd", 0) for _ in range(4)]
    page = server.admin("GET", "/logs?key=summed&limit=1").json
    assert page["sums"]["requests"] == 4
    assert page["sums"]["errors"] == 2
    assert page["sums"]["costUsd"] == pytest.approx(sum(costs))
    assert page["sums"]["since"] is None
    assert server.admin("GET", "/logs?key=summed&status=ok").json["sums"]["requests"] == 2
    assert "sums" not in server.admin("GET", "/logs?key=summed&sums=0").json
    assert "sums" not in server.admin("GET", f"/logs?key=summed&before={page['next']}").json


def test_why_a_request_failed_is_known_to_holder_and_admin(server: Server) -> None:
    key = server.new_key("fails", models=["claude-sonnet-5-5"])
    refused = server.call("POST", "/generate", {**ASK, "model": "claude-haiku-5"}, key=key)
    assert refused.status == 403
    (own,) = server.call("GET", "/me/requests", key=key).json["requests"]
    assert own["requestId"] == refused.json["request_id"] == refused.headers["x-request-id"]
    assert (own["error"], own["hint"], own["code"]) == tuple(refused.json[name] for name in ("error", "hint", "code"))
    line = server.admin("GET", f"/logs/{refused.json['request_id']}").json
    assert (line["id"], line["hint"]) == (own["id"], refused.json["hint"])
    assert server.admin("GET", f"/logs/{own['id']}").json == line
    other = server.new_key("looks-on")
    assert server.call("GET", "/me/requests", key=other).json == {"requests": []}


def test_a_hint_that_is_more_exact_than_the_usual_one_is_kept(server: Server) -> None:
    key = server.new_key("hinted", maxCostPerRequest=0.000001)
    refused = server.call("POST", "/generate", ASK, key=key).json
    assert refused["hint"] != CODES["cost_per_request"].hint
    assert server.admin("GET", f"/logs/{refused['request_id']}").json["hint"] == refused["hint"]


def test_csv_begins_with_the_mark_of_utf_8_and_its_file_has_the_day(server: Server) -> None:
    server.call("POST", "/generate", {"userPrompt": "größer"}, key=server.new_key("excel"))
    answer = server.admin("GET", "/logs/export?format=csv&key=excel")
    assert answer.body.startswith(b'\xef\xbb\xbf"id"')
    assert "größer" in answer.body.decode()
    day = time.strftime("%Y-%m-%d", time.gmtime())
    assert f'filename="cli-bridge-log-{day}.csv"' in answer.headers["content-disposition"]


def test_an_estimate_is_what_would_be_reserved_and_holds_nothing(server: Server) -> None:
    key = server.new_key("careful", maxCostPerDay=1, maxRequestsPerMinute=3, maxRequestsPerDay=2)
    body = {**ASK, "maxOutputTokens": 1000}
    for path in ("/generate", "/generate-codex"):
        answers = [server.call("POST", f"{path}/estimate", body, key=key) for _ in range(5)]
        assert {answer.status for answer in answers} == {200}
    estimate = server.call("POST", "/generate/estimate", body, key=key).json
    assert estimate["maxOutputTokens"] == 1000
    assert estimate["remaining"]["today"] == {"costUsd": 1.0, "requests": 2}
    me = server.call("GET", "/me", key=key).json
    assert (me["usage"]["today"]["requests"], me["usage"]["reserved"]["requests"]) == (0, 0)
    answer = server.call("POST", "/generate", body, key=key)
    assert 0 < answer.json["cost_usd"] <= estimate["costUsd"]
    line = server.admin("GET", f"/logs/{answer.headers['x-request-id']}").json
    assert line["reservedUsd"] == estimate["costUsd"]


def test_an_estimate_is_refused_as_the_request_would_be(server: Server) -> None:
    poor = server.new_key("poor", maxCostPerDay=0.001)
    for path, body in (
        ("/generate", ASK),
        ("/generate", {"userPrompt": ""}),
        ("/generate", {**ASK, "model": "gpt-6-sol"}),
        ("/generate-codex", {**ASK, "nonsense": 1}),
    ):
        estimate = server.call("POST", f"{path}/estimate", body, key=poor).json
        answer = server.call("POST", path, body, key=poor).json
        different = {name for name in answer if answer[name] != estimate[name]}
        assert different <= {"request_id"}
    assert server.call("POST", "/generate/estimate", ASK).status == 401


def test_a_forecast_stands_beside_usage(server: Server) -> None:
    key = server.new_key("too-early")
    assert server.call("GET", "/me", key=key).json["forecast"] is None
    assert server.admin("GET", "/keys/too-early").json["forecast"] is None
    assert "forecast" in server.admin("GET", "/overview").json


def test_what_runs_shows_what_was_asked_as_far_as_the_log_may_keep_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    for prompts, shown in (("off", None), ("preview", "slow " * 40)):
        folder = tmp_path_factory.mktemp(prompts)
        pace = {"DEMO_PACE_SECONDS": "1", "BRIDGE_LOG_PROMPTS": prompts}
        with servers.running(folder, pace, demo=True) as server:
            key = server.new_key("asks")
            job = server.call(
                "POST", "/generate", {"userPrompt": "slow " * 100}, key=key, headers={"Prefer": "respond-async"}
            )
            (run,) = server.admin("GET", "/runs").json["runs"]
            assert run["id"] == job.json["id"]
            assert run["userPrompt"] == (shown if shown is None else shown[:200])
            assert run["requestId"] == job.headers["x-request-id"]
            # Otherwise the end of the server would wait for it.
            assert server.call("DELETE", f"/jobs/{job.json['id']}", key=key).status == 200
