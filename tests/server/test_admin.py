"""Keys and the rest of the admin API, and the commands that use it."""

from __future__ import annotations

import json
import stat
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bridge.errors import CODES
from tests.support import server as servers
from tests.support.server import Server

ASK = {"userPrompt": "x"}


def test_a_key_is_shown_once_and_stored_as_a_hash(server: Server) -> None:
    answer = server.admin("POST", "/keys", {"name": "once", "maxCostPerDay": 2.5, "note": "for tests"})
    assert answer.status == 201
    raw = answer.json["key"]
    assert set(answer.json) >= {"message", "key", "note"}
    shown = server.admin("GET", "/keys/once")
    assert shown.json["limits"]["maxCostPerDay"] == 2.5
    assert raw not in shown.body.decode()
    for path in server.data_dir.rglob("*"):
        if path.is_file():
            assert raw.encode() not in path.read_bytes()
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(server.data_dir.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": "a b"},
        {"name": "a/b"},
        {"name": "x" * 51},
        {"name": "x\n"},
        {"name": 5},
        {"name": "bad", "maxCostPerDay": -1},
        {"name": "bad", "maxCostPerDay": "5"},
        {"name": "bad", "maxCostPerDay": None},
        {"name": "bad", "maxCostPerDay": True},
        {"name": "bad", "maxRequestsPerDay": 1.5},
        {"name": "bad", "maxNonsense": 1},
        {"name": "bad", "expiresAt": "tomorrow"},
        {"name": "bad", "expiresAt": "2020-01-01T00:00:00Z"},
        {"name": "bad", "models": "x"},
        {"name": "bad", "providers": ["nobody"]},
        {"name": "bad", "note": 5},
    ],
    ids=repr,
)
def test_a_key_with_wrong_fields_is_refused(server: Server, body: dict[str, object]) -> None:
    answer = server.admin("POST", "/keys", body)
    assert answer.status == 400, answer.body
    assert answer.json["code"] == "invalid_request"


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e400"])
def test_numbers_that_are_none_are_refused(server: Server, number: bytes) -> None:
    body = b'{"name": "bad", "maxCostPerDay": ' + number + b"}"
    assert server.call("POST", "/admin/keys", body, key=servers.ADMIN_KEY).status == 400


def test_a_name_can_be_used_once(server: Server) -> None:
    assert server.admin("POST", "/keys", {"name": "twice"}).status == 201
    assert server.admin("POST", "/keys", {"name": "twice"}).json["code"] == "conflict"


def test_the_life_of_a_key(server: Server) -> None:
    raw = server.new_key("life")

    def status() -> int:
        return server.call("POST", "/generate", ASK, key=raw).status

    assert status() == 200
    server.admin("POST", "/keys/life/disable")
    assert server.call("POST", "/generate", ASK, key=raw).json["code"] == "key_disabled"
    server.admin("POST", "/keys/life/enable")
    assert status() == 200
    rotated = server.admin("POST", "/keys/life/rotate", {"graceSeconds": 600}).json["key"]
    assert status() == 200
    assert server.call("GET", "/me", key=rotated).status == 200
    server.admin("POST", "/keys/life/rotate")
    assert status() == 401
    assert server.call("GET", "/me", key=rotated).status == 401
    assert server.admin("DELETE", "/keys/life").status == 200
    assert server.admin("GET", "/keys/life").json["status"] == "revoked"
    used = [row for row in server.admin("GET", "/usage").json["usage"] if row["key"] == "life"]
    assert used[0]["requests"] == 3, "the history of a revoked key stays"


def test_a_revoked_key_can_be_looked_at_and_nothing_else(server: Server) -> None:
    server.new_key("ended", note="was ada's")
    assert server.admin("DELETE", "/keys/ended").status == 200
    shown = server.admin("GET", "/keys/ended").json
    assert (shown["status"], shown["note"], shown["rotatingUntil"]) == ("revoked", "was ada's", None)
    assert server.admin("PATCH", "/keys/ended", {"note": "back"}).json["code"] == "not_found"
    assert server.admin("DELETE", "/keys/ended").json["code"] == "not_found"
    for action in ("rotate", "disable", "enable", "reset-usage"):
        assert server.admin("POST", f"/keys/ended/{action}").json["code"] == "not_found"
    assert server.admin("GET", "/keys/ended").json == shown
    assert "revoked" in server.command("keys", "show", "ended").stdout
    assert server.admin("GET", "/keys/never-was").status == 404
    server.new_key("ended")
    assert server.admin("GET", "/keys/ended").json["status"] == "active"


def test_a_changed_limit_acts_on_the_next_request(server: Server, key_with: Callable[..., str]) -> None:
    raw = server.new_key("changing")
    assert server.call("POST", "/generate", ASK, key=raw).status == 200
    server.admin("PATCH", "/keys/changing", {"maxRequestsPerDay": 1})
    refused = server.call("POST", "/generate", ASK, key=raw)
    assert (refused.status, refused.json["code"]) == (429, "requests_per_day")
    assert refused.json["limit"] == 1
    assert refused.json["used"] == 1
    assert int(refused.headers["retry-after"]) > 0
    assert refused.headers["x-bridge-remaining-requests-day"] == "0"
    server.admin("POST", "/keys/changing/reset-usage")
    assert server.call("POST", "/generate", ASK, key=raw).status == 200


ADMIN_PATHS = (("GET", "/keys"), ("POST", "/keys"), ("DELETE", "/keys/x"), ("GET", "/logs"), ("GET", "/runs"))


def test_only_the_admin_may_and_guesses_are_throttled(tmp_path: Path) -> None:
    with servers.running(tmp_path, demo=True) as server:
        raw = server.new_key()
        statuses = []
        for method, path in ADMIN_PATHS:
            for number, given in enumerate((None, raw, "x" * 16, "ключ" * 10)):
                headers = {"X-Forwarded-For": f"1.2.3.{number}", "CF-Connecting-IP": f"1.2.3.{number}"}
                sent = None if given is None else given.encode().decode("latin-1")
                statuses.append(server.call(method, f"/admin{path}", key=sent, headers=headers).status)
        without, guesses = statuses[::4], [status for n, status in enumerate(statuses) if n % 4]
        assert set(without) == {401}, "who brings nothing does not guess"
        assert guesses == [401] * 10 + [429] * 5, "no header gets around the throttle"
        # Commands on this host do not come by the address, and are not locked out.
        assert server.command("keys", "list").returncode == 0
        assert server.call("GET", "/me", key=raw).status == 200


def test_guesses_that_come_all_at_once_are_throttled_as_well(tmp_path: Path) -> None:
    # A key that the bridge made is kept as a slow hash: looking at one takes a moment, in which others come.
    with servers.running(tmp_path, {"BRIDGE_ADMIN_KEY": ""}, demo=True) as server, ThreadPoolExecutor(40) as pool:
        calls = [pool.submit(server.call, "GET", "/admin/keys", key=f"guess-{n}" * 3) for n in range(40)]
        statuses = Counter(call.result().status for call in calls)
    assert statuses == {401: 10, 429: 30}


def test_every_change_is_in_the_audit(tmp_path: Path) -> None:
    with servers.running(tmp_path, demo=True) as server:
        server.admin("POST", "/keys", {"name": "a", "maxCostPerDay": 1})
        server.admin("PATCH", "/keys/a", {"maxCostPerDay": 2})
        server.admin("DELETE", "/keys/a")
        entries = server.admin("GET", "/audit").json["audit"]
    assert [entry["action"] for entry in entries] == ["key_revoked", "key_changed", "key_created"]
    changed = entries[1]
    assert changed["before"]["limits"] == {"maxCostPerDay": 1}
    assert changed["after"]["limits"] == {"maxCostPerDay": 2}
    assert changed["address"] == "127.0.0.1"


def test_logs_are_paged_filtered_and_exported(server: Server) -> None:
    raw = server.new_key("logged")
    for number in range(5):
        server.call("POST", "/generate", {"userPrompt": f"prompt {number}"}, key=raw)
    first = server.admin("GET", "/logs?key=logged&limit=2").json
    second = server.admin("GET", f"/logs?key=logged&limit=2&before={first['next']}").json
    prompts = [row["userPrompt"] for row in first["logs"] + second["logs"]]
    assert prompts == ["prompt 4", "prompt 3", "prompt 2", "prompt 1"]
    found = server.admin("GET", "/logs?key=logged&text=prompt%203").json["logs"]
    assert [row["userPrompt"] for row in found] == ["prompt 3"]
    lines = server.admin("GET", "/logs/export?format=jsonl&key=logged").body.splitlines()
    assert [json.loads(line)["userPrompt"] for line in lines] == [f"prompt {n}" for n in range(5)]
    table = server.admin("GET", "/logs/export?format=csv&key=logged").body.decode("utf-8-sig").splitlines()
    assert len(table) == 6
    assert server.admin("GET", "/logs?limit=0").status == 400
    assert server.admin("GET", "/logs?limit=x").status == 400


def test_a_spreadsheet_does_not_run_what_a_prompt_says(server: Server) -> None:
    raw = server.new_key("formula")
    server.call("POST", "/generate", {"userPrompt": "=cmd|' /C calc'!A0"}, key=raw)
    table = server.admin("GET", "/logs/export?format=csv&key=formula").body.decode("utf-8-sig")
    assert "'=cmd" in table


def test_commands_work_while_the_server_runs_and_while_it_does_not(tmp_path: Path) -> None:
    with servers.running(tmp_path, demo=True) as server:
        made = server.command("keys", "create", "online", "--max-cost-per-day", "3", "--json")
        assert made.returncode == 0, made.stderr
        raw = json.loads(made.stdout)["key"]
        assert server.call("POST", "/generate", ASK, key=raw).status == 200
        assert "online" in server.command("keys", "list").stdout
        assert server.command("keys", "show", "nobody").returncode == 1
    offline = server.command("keys", "create", "offline", "--json")
    assert offline.returncode == 0, offline.stderr
    second = json.loads(offline.stdout)["key"]
    listed = json.loads(server.command("keys", "list", "--json").stdout)["keys"]
    assert {row["name"] for row in listed} == {"online", "offline"}
    assert "online" in server.command("usage").stdout
    assert "online" in server.command("logs").stdout
    with servers.running(tmp_path, demo=True) as again:
        assert again.call("GET", "/me", key=second).status == 200
        assert again.call("GET", "/me", key=raw).json["usage"]["today"]["requests"] == 1


def test_a_command_waits_for_a_server_that_is_just_starting(tmp_path: Path) -> None:
    with servers.running(tmp_path, demo=True) as server:
        lock = server.data_dir / "lock"
        facts = lock.read_text()
        # As it is between taking the folder and listening.
        lock.write_text(json.dumps({"pid": json.loads(facts)["pid"]}))
        threading.Timer(1.0, lock.write_text, (facts,)).start()
        assert server.command("keys", "list").returncode == 0


def test_a_second_server_on_the_same_folder_refuses_and_names_the_first(tmp_path: Path) -> None:
    with servers.running(tmp_path, demo=True) as server:
        second = server.command("serve", "--port", "0")
        assert second.returncode == 1
        holder = json.loads((server.data_dir / "lock").read_text())["pid"]
        assert str(holder) in second.stderr


def test_the_first_start_makes_an_admin_key_and_prints_it_once(tmp_path: Path) -> None:
    with servers.running(tmp_path, {"BRIDGE_ADMIN_KEY": ""}, demo=True) as server:
        shown = [line.strip() for line in server.output if line.strip().startswith("cba_")]
        assert len(shown) == 1
        assert server.call("GET", "/admin/keys", key=shown[0]).status == 200
        assert shown[0] not in (server.data_dir / "admin.json").read_text()
    with servers.running(tmp_path, {"BRIDGE_ADMIN_KEY": ""}, demo=True) as again:
        assert not [line for line in again.output if "cba_" in line]
        assert again.call("GET", "/admin/keys", key=shown[0]).status == 200


def test_all_mistakes_in_the_settings_are_listed_at_once(tmp_path: Path) -> None:
    wrong = {"BRIDGE_PORT": "x", "BRIDGE_ADMIN_KEY": "short", "BRIDGE_TIMEZONE": "Mars"}
    env = servers.environment(tmp_path / "data", wrong)
    server = Server(None, tmp_path / "data", 0, env)  # type: ignore[arg-type]
    done = server.command("serve")
    assert done.returncode == 2
    assert all(name in done.stderr for name in ("BRIDGE_PORT", "BRIDGE_ADMIN_KEY", "BRIDGE_TIMEZONE"))
    assert "Traceback" not in done.stderr


def test_no_keys_means_closed(tmp_path: Path) -> None:
    with servers.running(tmp_path, demo=True) as server:
        assert server.call("POST", "/generate", ASK).status == 401
        assert server.call("POST", "/generate", ASK, key="anything").status == 401


def test_a_missing_cli_makes_its_provider_unavailable_and_only_the_admin_is_told_what_to_do(tmp_path: Path) -> None:
    with servers.running(tmp_path) as server:
        raw = server.new_key()
        answer = server.call("POST", "/generate", ASK, key=raw)
        assert (answer.status, answer.json["code"]) == (503, "cli_unavailable")
        assert answer.json["hint"] == CODES["cli_unavailable"].hint
        ready = server.call("GET", "/ready")
        assert ready.status == 503
        (own,) = server.call("GET", "/me/requests", key=raw).json["requests"]
        for seen in (answer.body, ready.body, json.dumps(own).encode()):
            assert not any(word in seen for word in (b"BRIDGE_", b"deploy/", b"not installed"))
        details = server.call("GET", "/ready", key=servers.ADMIN_KEY).json["details"]["claude"]
        assert "BRIDGE_CLAUDE_COMMAND" in details["hint"]
        assert server.call("GET", "/health").status == 200
