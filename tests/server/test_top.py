"""`GET /admin/top` and `cli-bridge top` without its screen."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.test_terminal import ESCAPE, at_a_terminal
from tests.support import server as servers
from tests.support.server import Server

ASK = {"userPrompt": "Hello"}


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with one slot, whose answers take long enough to be watched."""
    settings = {"BRIDGE_MAX_CONCURRENT": "1", "DEMO_PACE_SECONDS": "0.5", "BRIDGE_ALERT_COST_PER_DAY": "20"}
    with servers.running(tmp_path_factory.mktemp("top"), settings, demo=True) as server:
        yield server


def top(server: Server, query: str = "") -> Any:
    answer = server.admin("GET", f"/top{query}")
    assert answer.status == 200, answer.body
    return answer.json


def test_all_of_it_is_in_one_answer(server: Server) -> None:
    key = server.new_key("ada", maxRequestsPerDay=10)
    for _ in range(9):
        server.call("POST", "/generate", ASK, key=key)
    server.call("POST", "/generate-codex", {"nonsense": 1}, key=key)
    seen = top(server)
    assert seen["capacity"]["verdict"] == "green"
    assert (seen["answered"], seen["failed"]) == (9, 0)
    assert seen["tokensPerMinute"][-1] + seen["tokensPerMinute"][-2] == seen["totals"]["today"]["tokens"] > 0
    ada = next(row for row in seen["keys"] if row["name"] == "ada")
    assert (ada["today"]["requests"], ada["closest"]["limit"], ada["closest"]["share"]) == (9, "maxRequestsPerDay", 0.9)
    assert [matter["text"] for matter in seen["attention"]] == ["ada: 90% of 10 requests per day"]
    claude, codex = seen["providers"]
    assert (claude["name"], claude["requests"], claude["last"]["status"]) == ("claude", 9, 200)
    assert (codex["name"], codex["requests"], codex["last"]) == ("codex", 0, None)
    assert [line["keyName"] for line in seen["log"]] == ["ada"] * 9
    assert [each["action"] for each in seen["audit"] if each["subject"] == "ada"] == ["key_created"]
    assert "userPrompt" not in json.dumps(seen["log"])


def test_however_much_there_is_the_answer_stays_small(tmp_path: Path) -> None:
    with servers.running(tmp_path, demo=True) as full:
        for number in range(50):
            secret = full.new_key(
                f"{'a-name-that-is-as-long-as-one-may-be-':->46}{number:04}"[-50:], maxRequestsPerDay=10
            )
            assert full.call("POST", "/generate", ASK, key=secret).status == 200
        for number in range(30):
            body = {
                "name": f"credential-with-a-long-name-{number:03}",
                "provider": "claude",
                "apiKey": f"sk-{number:040}",
            }
            assert full.admin("POST", "/credentials", {**body, "limits": {"maxCostPerDay": 5}}).status == 201
        answer = full.admin("GET", "/top")
        assert len(answer.body) <= 30_000
        seen = answer.json
        # What is left out is the end of the longest lists, and the oldest lines.
        newest = full.admin("GET", "/logs?limit=1").json["logs"][0]
        assert seen["log"][-1]["id"] == newest["id"]
        assert min(len(seen[name]) for name in ("keys", "credentials", "log", "audit")) >= 10
        assert seen["keysInAll"] == 50


def test_only_the_admin_sees_it(server: Server, key: str) -> None:
    assert server.call("GET", "/admin/top").status == 401
    assert server.call("GET", "/admin/top", key=key).status == 401


def test_lines_of_the_log_come_once(server: Server, key: str) -> None:
    server.call("POST", "/generate", ASK, key=key)
    last = top(server)["log"][-1]["id"]
    assert top(server, f"?since={last}")["log"] == []
    server.call("POST", "/generate", ASK, key=key)
    assert len(top(server, f"?since={last}")["log"]) == 1
    assert len(top(server, "?since=run_unknown")["log"]) > 1, "where the id is not known, all"


def test_runs_are_seen_while_they_live_and_those_that_run_come_first(slow: Server) -> None:
    keys = [slow.new_key(name) for name in ("first", "second")]
    asked = [threading.Thread(target=slow.call, args=("POST", "/generate", ASK), kwargs={"key": key}) for key in keys]
    for number, thread in enumerate(asked, start=1):
        thread.start()
        while len(seen := top(slow)["runs"]) < number:
            pass
    assert [(run["keyName"], run["state"], run["queuePosition"]) for run in seen] == [
        ("first", "running", 0),
        ("second", "queued", 1),
    ]
    assert seen[0]["reservedUsd"] > 0
    whole = top(slow)
    assert (whole["running"], whole["queued"], whole["slots"], whole["runsInAll"]) == (1, 1, 1, 2)
    assert whole["capacity"]["verdict"] == "yellow"
    assert {row["name"]: row["running"] for row in whole["keys"]} == {"first": 1, "second": 1}
    found = top(slow, "?text=seco")
    assert [run["keyName"] for run in found["runs"]] == ["second"]
    assert [row["name"] for row in found["keys"]] == ["second"]
    assert top(slow, "?text=queued")["runs"][0]["keyName"] == "second"
    for run in seen:
        slow.admin("DELETE", f"/runs/{run['id']}")
    for thread in asked:
        thread.join()
    assert top(slow)["alertsAt"] == {"today": 20, "thisMonth": 0}


def test_what_needs_a_look_is_said(tmp_path: Path) -> None:
    settings = {"BRIDGE_LOOP_REPEATS": "2", "BRIDGE_LOOP_WINDOW_SECONDS": "200"}
    with servers.running(tmp_path, settings, demo=True) as server:
        key = server.new_key("ci-bot")
        for _ in range(3):
            last = server.call("POST", "/generate", ASK, key=key)
        assert last.json["code"] == "loop_suspected"
        assert [each["text"] for each in top(server)["attention"]] == ["loop paused: ci-bot, 4 m more"]
        (tmp_path / "data" / "prices.json").write_text("nonsense")
        eve = server.new_key("eve")
        while {each["kind"] for each in top(server)["attention"]} != {"loop", "problem"}:
            # The file is looked at now and then, when somebody needs a price.
            server.call("POST", "/generate", {"userPrompt": str(time.monotonic())}, key=eve)
        server.admin("POST", "/keys/ci-bot/enable")
        assert {each["kind"] for each in top(server)["attention"]} == {"problem"}


def test_after_a_start_the_log_is_there_again(tmp_path: Path) -> None:
    with servers.running(tmp_path, demo=True) as server:
        key = server.new_key("ada")
        ids = [server.call("POST", "/generate", ASK, key=key).json["id"] for _ in range(3)]
    with servers.running(tmp_path, demo=True) as server:
        while len(seen := top(server)["log"]) < 3:
            pass
        assert [line["id"] for line in seen] == ids
        again = top(server)
        assert (again["answered"], again["providers"][0]["last"]["id"]) == (3, ids[-1])
        assert [row["name"] for row in again["keys"]] == ["ada"]


# --- the command ---------------------------------------------------------------------------------------------


def test_it_is_printed_once_where_the_output_is_no_terminal(server: Server, key: str) -> None:
    run = server.call("POST", "/generate", ASK, key=key).json["id"]
    for arguments in (("top",), ("top", "--once")):
        done = server.command(*arguments)
        assert done.returncode == 0, done.stderr
        assert ESCAPE not in done.stdout
        first, second, *rest = done.stdout.splitlines()
        assert first.startswith(f"cli-bridge 0.1.0  http://127.0.0.1:{server.port}  GREEN  slots 0/")
        assert second.startswith("today $")
        for title in ("Credentials", "Runs (0 running, 0 queued)", "Nothing is running.", "Log (UTC)"):
            assert title in rest
    answer = json.loads(server.command("top", "--json").stdout)
    assert answer["log"][-1]["id"] == run


def test_at_a_terminal_it_is_coloured_and_without_colour_words_say_the_same(server: Server, key: str) -> None:
    server.call("POST", "/generate", ASK, key=key)
    assert f"{ESCAPE}32mGREEN" in at_a_terminal(server, "top", "--once")
    for plain in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        shown = at_a_terminal(server, "top", "--once", **plain)
        assert "GREEN" in shown
    assert ESCAPE not in at_a_terminal(server, "top", "--once", NO_COLOR="1")


def test_its_status_is_that_of_capacity(slow: Server) -> None:
    keys = [slow.new_key(f"busy-{number}") for number in range(2)]
    asked = [threading.Thread(target=slow.call, args=("POST", "/generate", ASK), kwargs={"key": key}) for key in keys]
    for thread in asked:
        thread.start()
    while len(top(slow)["runs"]) < 2:
        pass
    shown = slow.command("top", "--once")
    assert (shown.returncode, "YELLOW" in shown.stdout) == (10, True)
    for run in top(slow)["runs"]:
        assert f"…{run['id'][-8:]}" in shown.stdout
        slow.admin("DELETE", f"/runs/{run['id']}")
    for thread in asked:
        thread.join()


def elsewhere(server: Server, folder: Path, *arguments: str, **env: str) -> Any:
    """The command on another machine: nothing there is the server's."""
    bare = {name: server.env[name] for name in ("PATH", "PYTHONPATH")}
    other = Server(server.process, folder / "data", server.port, {**bare, "HOME": str(folder), **env})
    return other.command("top", "--once", *arguments)


def test_a_bridge_elsewhere_is_seen_with_the_admin_key_from_a_file_or_the_environment(
    server: Server, tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{server.port}"
    file = tmp_path / "key"
    file.write_text(f"{servers.ADMIN_KEY}\n")
    for seen in (
        elsewhere(server, tmp_path, "--url", url, "--key-file", str(file)),
        elsewhere(server, tmp_path, "--url", f"{url}/", BRIDGE_ADMIN_KEY=servers.ADMIN_KEY),
    ):
        assert seen.returncode == 0, seen.stderr
        assert "GREEN" in seen.stdout
    assert not (tmp_path / "data").exists(), "it opens no data folder"


def test_wrong_use_is_told(server: Server, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{server.port}"
    missing = elsewhere(server, tmp_path, "--url", url)
    assert (missing.returncode, "--key-file" in missing.stderr) == (2, True)
    alone = elsewhere(server, tmp_path, "--key-file", "x")
    assert (alone.returncode, "--url" in alone.stderr) == (2, True)
    unreadable = elsewhere(server, tmp_path, "--url", url, "--key-file", str(tmp_path / "none"))
    assert (unreadable.returncode, "cannot be read" in unreadable.stderr) == (1, True)
    for wrong in ("bridge.example.com", "ftp://x", "https://ada:secret@x", "http://[::1", "https://x/?a=b"):
        refused = elsewhere(server, tmp_path, "--url", wrong, BRIDGE_ADMIN_KEY="k" * 20)
        assert refused.returncode == 2, wrong
        assert "secret" not in refused.stderr
    assert server.command("top", "-d", "0.1").returncode == 2


def test_what_is_no_bridge_a_wrong_key_and_nobody_at_all_are_told_apart(server: Server, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{server.port}"
    wrong = elsewhere(server, tmp_path, "--url", url, BRIDGE_ADMIN_KEY="not-the-admin-key")
    assert (wrong.returncode, "not the admin key" in wrong.stderr) == (1, True)
    older = elsewhere(server, tmp_path, "--url", f"{url}/static", BRIDGE_ADMIN_KEY=servers.ADMIN_KEY)
    assert (older.returncode, "older version" in older.stderr) == (1, True)
    nobody = elsewhere(server, tmp_path, "--url", "http://127.0.0.1:9", BRIDGE_ADMIN_KEY="k" * 20)
    assert (nobody.returncode, "cannot be reached: Connection refused" in nobody.stderr) == (1, True)
    tls = elsewhere(server, tmp_path, "--url", f"https://127.0.0.1:{server.port}", BRIDGE_ADMIN_KEY="k" * 20)
    assert (tls.returncode, "cannot be reached" in tls.stderr) == (1, True)
    server_less = Server(server.process, tmp_path / "data", 0, {**server.env, "BRIDGE_DATA_DIR": str(tmp_path / "d")})
    down = server_less.command("top")
    assert (down.returncode, down.stdout) == (1, "")
    assert "No server has this data folder" in down.stderr
    assert not (tmp_path / "d").exists(), "nothing was opened"
    assert os.listdir(tmp_path) == []


# --- credentials ---------------------------------------------------------------------------------------------


def test_credentials_are_seen_with_their_state_and_budget(tmp_path: Path) -> None:
    with servers.running(tmp_path, demo=True) as server:
        secret = "sk-ant-" + 30 * "x"
        order = {"name": "team-a", "provider": "claude", "apiKey": secret, "limits": {"maxCostPerMonth": 100}}
        assert server.admin("POST", "/credentials", order).status == 201
        server.admin("POST", "/credentials", {"name": "spare", "provider": "claude", "apiKey": "sk-ant-" + 30 * "y"})
        server.admin("POST", "/credentials/spare/disable")
        seen = top(server)
        spare, team = seen["credentials"]
        assert (spare["name"], spare["state"], spare["enabled"], spare["budget"]) == ("spare", "disabled", False, None)
        assert (team["name"], team["state"], team["running"], team["requests"]) == ("team-a", "usable", 0, 0)
        budget = team["budget"]
        assert (budget["window"], budget["used"], budget["most"], budget["share"]) == ("month", 0, 100, 0)
        assert -1 <= budget["line"] < 0
        assert secret not in json.dumps(seen)
        shown = server.command("top", "--once").stdout
        assert "team-a" in shown
        assert "disabled" in shown
        (tmp_path / "data" / "credentials.json").write_text("nonsense")
        while not any("credentials.json" in each["text"] for each in top(server)["attention"]):
            time.sleep(0.2)
