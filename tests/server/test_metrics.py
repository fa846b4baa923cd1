"""`GET /metrics`: who may read it, that it counts right, and that clients cannot make it grow."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import server as servers
from tests.support.server import ADMIN_KEY, Server

SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(server: Server) -> Samples:
    answer = server.call("GET", "/metrics", key=ADMIN_KEY)
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain")
    samples = {}
    for line in answer.body.decode().splitlines():
        if not line.startswith("#"):
            found = SAMPLE.match(line)
            assert found is not None, line
            labels = frozenset(re.findall(r'(\w+)="([^"]*)"', found[2] or ""))
            samples[found[1], labels] = float(found[3])
    return samples


def value(samples: Samples, name: str, **labels: str) -> float:
    """The sum of all samples of a name that have these labels."""
    wanted = set(labels.items())
    return sum(number for (found, has), number in samples.items() if found == name and wanted <= has)


def test_runs_are_counted_by_how_they_end(server: Server, key_with: Callable[..., str]) -> None:
    before = scrape(server)
    key = key_with(maxRequestsPerDay=2)
    answers = [server.call("POST", "/generate", {"userPrompt": "Hello"}, key=key) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    after = scrape(server)

    def grown(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    assert grown("cli_bridge_requests_total", provider="claude", api="native", status="200", code="ok") == 2
    assert grown("cli_bridge_requests_total", status="429", code="requests_per_day") == 1
    assert grown("cli_bridge_duration_seconds_count", provider="claude") == 2
    assert grown("cli_bridge_first_token_seconds_count", provider="claude") == 2
    assert grown("cli_bridge_queued_seconds_count") == 2
    done = [answer.json for answer in answers[:2]]
    assert grown("cli_bridge_tokens_total", kind="output") == sum(a["usage"]["output_tokens"] for a in done)
    assert grown("cli_bridge_cost_usd_total") == pytest.approx(sum(a["cost_usd"] for a in done))
    assert grown("cli_bridge_http_responses_total", status="429") == 1
    assert grown("cli_bridge_ledger_commit_seconds_count") >= 4, "a reservation and a settlement for each run"


def test_gauges_agree_with_the_ledger(server: Server, key: str) -> None:
    server.call("POST", "/generate", {"userPrompt": "Hello"}, key=key)
    overview = server.admin("GET", "/overview").json
    samples = scrape(server)
    assert value(samples, "cli_bridge_spent_usd", window="day") == overview["totals"]["today"]["costUsd"]
    assert value(samples, "cli_bridge_slots") == overview["slots"]
    assert value(samples, "cli_bridge_slots_busy") == 0
    assert value(samples, "cli_bridge_provider_up", provider="codex") == 1
    assert value(samples, "cli_bridge_ledger_open") == 1


def test_the_processes_that_stand_ready_are_seen(server: Server) -> None:
    deadline = time.monotonic() + 30
    while (
        not value(samples := scrape(server), "cli_bridge_pool_processes", provider="codex", state="warm")
        or value(samples, "cli_bridge_memory_bytes", of="children") < 2**20
    ):
        assert time.monotonic() < deadline
    assert value(samples, "cli_bridge_processes") > 0
    assert value(samples, "cli_bridge_memory_bytes", of="bridge") > 2**20


def test_a_client_cannot_add_time_series(server: Server, key: str) -> None:
    server.call("POST", "/generate", {"userPrompt": "Hello"}, key=key)
    before = scrape(server)
    for number in range(30):
        server.call("POST", "/generate", {"userPrompt": "Hello", "model": f"made-up-{number}"}, key=key)
        server.call("GET", f"/no-such-path-{number}", key=f"cb_{number}")
    after = scrape(server)
    new = {(name, labels) for name, labels in after.keys() - before.keys()}
    # The first run that finds no process ready, and statuses that had not been there: neither is a client's word.
    assert {name for name, _ in new} <= {"cli_bridge_http_responses_total", "cli_bridge_cold_starts_total"}
    assert len(new) <= 3
    assert len(new) <= 2
    assert "made-up" not in json.dumps([sorted(labels) for _, labels in after])


@pytest.mark.parametrize("given", [None, "wrong-admin-key-wrong"])
def test_only_the_admin_may_read_it(server: Server, given: str | None) -> None:
    assert server.call("GET", "/metrics", key=given).status == 401


def test_a_key_is_not_enough(server: Server, key: str) -> None:
    assert server.call("GET", "/metrics", key=key).status == 401


THROUGH_A_TUNNEL = (
    {"CF-Ray": "8f0-FRA"},
    {"CF-Connecting-IP": "127.0.0.1"},
    {"X-Forwarded-For": "127.0.0.1"},
    {"X-Real-IP": "127.0.0.1"},
    {"Forwarded": "for=127.0.0.1"},
    {"Via": "1.1 proxy"},
    {"Host": "bridge.example.com"},
    {"Host": "localhost.example.com"},
)


def test_this_host_may_read_it_where_that_is_set_but_not_through_a_tunnel(tmp_path: Path) -> None:
    with servers.running(tmp_path, {"BRIDGE_METRICS": "loopback"}, demo=True) as server:
        assert server.call("GET", "/metrics").status == 200
        assert server.call("GET", "/metrics", headers={"Host": "localhost:3456"}).status == 200
        refused = [server.call("GET", "/metrics", headers=headers).status for headers in THROUGH_A_TUNNEL]
        assert refused == [401] * len(THROUGH_A_TUNNEL)


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    with servers.running(tmp_path, {"BRIDGE_METRICS": "off"}, demo=True) as server:
        assert server.call("GET", "/metrics", key=ADMIN_KEY).status == 404
