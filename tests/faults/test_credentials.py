"""Servers killed under load with several credentials: no budget is passed, nothing is lost, and states stay."""

from __future__ import annotations

import http.client
import json
import random
import threading
from pathlib import Path

import pytest

from tests.faults.test_kill import eventually, far_from_midnight, kill
from tests.standin import StandIn
from tests.support import server as servers
from tests.support.server import Server

ROUNDS = 20
CLIENTS = 12
BUDGETS = {"a": 0.4, "b": 0.7}


@pytest.mark.timeout(400)
def test_twenty_kills_pass_no_budget_lose_nothing_and_forget_no_state(tmp_path: Path) -> None:
    chance = random.Random(20261128)
    with StandIn() as standin:
        env = {
            "DEMO_GATED": "1",
            "ANTHROPIC_BASE_URL": standin.url,
            "BRIDGE_TIMEZONE": far_from_midnight(),
            "BRIDGE_MAX_CONCURRENT": "8",
            "BRIDGE_QUEUE_TIMEOUT_SECONDS": "1",
        }
        standin.script(words=600, deltas=3, header_delay=0.005)
        standin.script_key("sk-limited-one", status=429, retry_after=1700)
        standin.script_key("sk-rejected-one", status=402)
        answered: dict[str, float] = {}
        key, before = "", {}
        for number in range(ROUNDS):
            server = servers.start(tmp_path, env, demo=True)
            if not key:
                key = server.new_key("ada")
                for name in ("limited", "rejected"):
                    add(server, name, f"sk-{name}-one")
                for name in BUDGETS:
                    add(server, name, f"sk-of-budget-{name}", limits={"maxCostPerDay": BUDGETS[name] / ROUNDS})
            else:
                assert states(server) == before, f"round {number}"
                for name in BUDGETS:
                    assert held(server, name) == 0, f"round {number}"
            for name, budget in BUDGETS.items():
                cap = {"maxCostPerDay": budget * (number + 1) / ROUNDS}
                assert server.admin("PATCH", f"/credentials/{name}", {"limits": cap}).status == 200
            over = threading.Event()
            threads = [threading.Thread(target=ask, args=(server, key, answered, over)) for _ in range(CLIENTS)]
            for thread in threads:
                thread.start()
            wanted = len(answered) + chance.randrange(1, 12)
            try:
                if number < 2:
                    eventually(lambda server=server: list(states(server).values())[:2] == ["benched", "blocked"], 30)
                eventually(lambda wanted=wanted, server=server: len(answered) >= wanted or is_full(server), 30)
                before = states(server)
            finally:
                kill(server)
                over.set()
            for thread in threads:
                thread.join(30)
        with servers.running(tmp_path, env, demo=True) as server:
            assert states(server) == before
            lines = [json.loads(line) for line in server.admin("GET", "/logs/export").body.splitlines()]
            by_id = {line["id"]: line for line in lines}
            assert {run_id: by_id[run_id]["costUsd"] for run_id in answered} == answered, "0 lost"
            for name, budget in BUDGETS.items():
                used = server.admin("GET", f"/credentials/{name}").json["usage"]["today"]
                spent = sum(line["costUsd"] for line in lines if line["credential"] == name)
                assert used["costUsd"] == pytest.approx(spent), "log and ledger agree"
                assert used["costUsd"] <= budget, "0 over"
            assert len(answered) > ROUNDS
            assert any(line["assumed"] and line["credential"] in BUDGETS for line in lines), "runs were cut off"
            assert sum(each.key == "sk-rejected-one" for each in standin.generations) == 1


def add(server: Server, name: str, secret: str, **fields: object) -> None:
    body = {"name": name, "provider": "claude", "apiKey": secret, **fields}
    assert server.admin("POST", "/credentials", body).status == 201


def states(server: Server) -> dict[str, str]:
    """State by name, those that fail first."""
    found = {each["name"]: each["state"] for each in server.admin("GET", "/credentials").json["credentials"]}
    return {name: found[name] for name in ("limited", "rejected", "a", "b")}


def held(server: Server, name: str) -> int:
    return int(server.admin("GET", f"/credentials/{name}").json["usage"]["reserved"]["requests"])


def is_full(server: Server) -> bool:
    """Whether no budget has room for one more answer."""
    rows = [server.admin("GET", f"/credentials/{name}").json for name in BUDGETS]
    return all(row["limits"]["maxCostPerDay"] - row["usage"]["today"]["costUsd"] < 0.01 for row in rows)


def ask(server: Server, key: str, answered: dict[str, float], over: threading.Event) -> None:
    """Ask without a pause, and note what came."""
    while not over.is_set():
        try:
            answer = server.call("POST", "/generate", {"userPrompt": "hello", "maxOutputTokens": 800}, key=key)
        except (OSError, http.client.HTTPException):
            over.wait(0.02)
            continue
        if answer.status == 200:
            answered[answer.json["id"]] = answer.json["cost_usd"]
        else:
            over.wait(0.05)
