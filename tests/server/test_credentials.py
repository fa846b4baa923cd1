"""`/admin/credentials`: what the admin may ask and change, what is refused, and that no secret comes out again."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from tests.engine.harness import install_fake
from tests.standin import StandIn
from tests.support import server as servers
from tests.support.server import Server

ENV_SECRET = "sk-ant-of-the-environment"


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[Server]:
    with servers.running(
        tmp_path, {"ANTHROPIC_API_KEY": ENV_SECRET, "OPENAI_API_KEY": "sk-of-openai-0001"}, demo=True
    ) as s:
        yield s


def secret(number: int = 1) -> str:
    return f"sk-ant-secret-{number:08d}"


def add(bridge: Server, name: str, number: int = 1, **fields: Any) -> dict[str, Any]:
    answer = bridge.admin(
        "POST", "/credentials", {"name": name, "provider": "claude", "apiKey": secret(number), **fields}
    )
    assert answer.status == 201, answer.body
    made: dict[str, Any] = answer.json["credential"]
    return made


def test_one_is_added_changed_disabled_and_removed_and_its_secret_is_never_shown(bridge: Server) -> None:
    made = add(bridge, "team", limits={"maxCostPerDay": 2.5}, group="acme", models=["claude-opus-*"])
    assert (made["last4"], made["state"], made["source"], made["kind"]) == ("0001", "usable", "file", "api-key")
    assert made["limits"] == {"maxCostPerDay": 2.5, "maxCostPerMonth": 0}
    answers = [
        bridge.admin("GET", "/credentials"),
        bridge.admin("PATCH", "/credentials/team", {"name": "crew", "weight": 3, "apiKey": secret(2)}),
        bridge.admin("POST", "/credentials/crew/disable"),
        bridge.admin("GET", "/credentials/crew"),
        bridge.admin("POST", "/credentials/crew/enable"),
        bridge.admin("POST", "/credentials/crew/reset"),
        bridge.admin("DELETE", "/credentials/crew"),
        bridge.admin("GET", "/audit"),
        bridge.admin("GET", "/overview"),
        bridge.call("GET", "/metrics", key=servers.ADMIN_KEY),
    ]
    assert [answer.status for answer in answers] == [200] * len(answers)
    assert answers[3].json["state"] == "disabled"
    for given in (ENV_SECRET, secret(1), secret(2)):
        assert not [answer for answer in answers if given.encode() in answer.body]
        kept = [path for path in bridge.data_dir.rglob("*") if path.is_file() and given.encode() in path.read_bytes()]
        assert kept == [], "the secret of one that is gone is nowhere"
    assert [each["name"] for each in bridge.admin("GET", "/credentials").json["credentials"]] == ["default", "default"]
    actions = [each["action"] for each in answers[7].json["audit"]]
    assert actions[:6] == [
        "credential_removed",
        "credential_reset",
        "credential_enabled",
        "credential_disabled",
        "credential_changed",
        "credential_added",
    ]


def test_a_secret_is_kept_in_credentials_json_alone(bridge: Server) -> None:
    add(bridge, "team")
    bridge.admin("PATCH", "/credentials/team", {"note": "more"})
    kept = [
        path.name for path in bridge.data_dir.rglob("*") if path.is_file() and secret().encode() in path.read_bytes()
    ]
    assert kept == ["credentials.json"]
    backup = bridge.data_dir.parent / "backup.tar"
    assert bridge.command("backup", str(backup)).returncode == 0
    assert secret().encode() not in gzip.decompress(backup.read_bytes())


@pytest.mark.parametrize(
    "body",
    [
        {"provider": "claude", "apiKey": "sk-0123456789"},
        {"name": "a", "apiKey": "sk-0123456789"},
        {"name": "a", "provider": "claude"},
        {"name": "a b", "provider": "claude", "apiKey": "sk-0123456789"},
        {"name": "a", "provider": "gemini", "apiKey": "sk-0123456789"},
        {"name": "a", "provider": ["claude"], "apiKey": "sk-0123456789"},
        {"name": ["a"], "provider": "claude", "apiKey": "sk-0123456789"},
        {"name": "a", "provider": "claude", "apiKey": ["sk-0123456789"]},
        {"name": "a", "provider": "claude", "apiKey": "sk-0123456789", "baseUrl": ["https://a.b"]},
        {"name": "a", "provider": "claude", "apiKey": "sk-0123456789", "limits": ["maxCostPerDay"]},
        {"name": "a", "provider": "claude", "apiKey": "sk-0123456789", "limits": {"maxCostPerDay": [1]}},
        {"name": "a", "provider": "claude", "apiKey": "sk-0123456789", "models": [["x"]]},
        {"name": "a", "provider": "claude", "apiKey": "sk-0123456789", "note": {"x": 1}},
        {"name": "a", "provider": "claude", "apiKey": "sk-0123456789", "weight": 1e400},
        {"name": "a", "provider": "claude", "apiKey": "sk-01\n23456789"},
        {"name": "a", "provider": "claude", "apiKey": "sk-0123456789", "baseUrl": "http://api.example.com"},
        {"name": "a", "provider": "claude", "apiKey": "sk-0123456789", "limits": {"maxTokensPerDay": 1}},
        {"name": "a", "provider": "claude", "apiKey": "sk-0123456789", "limits": {"maxCostPerDay": -1}},
        {"name": "a", "provider": "claude", "apiKey": "sk-0123456789", "weight": 0},
        {"name": "a", "provider": "claude", "apiKey": "sk-0123456789", "priority": "high"},
        {"name": "a", "provider": "claude", "apiKey": "sk-0123456789", "models": "claude"},
        {"name": "a", "provider": "claude", "apiKey": "sk-0123456789", "enabled": "yes"},
        {"name": "a", "provider": "claude", "apiKey": "sk-0123456789", "colour": "red"},
    ],
)
def test_what_makes_no_sense_is_a_400_that_names_the_field(server: Server, body: dict[str, Any]) -> None:
    answer = server.admin("POST", "/credentials", body)
    assert (answer.status, answer.json["code"]) == (400, "invalid_request")
    assert b"0123456789" not in answer.body
    assert server.admin("GET", "/credentials").json["credentials"] == []


def test_a_taken_name_or_secret_is_a_409_that_names_the_other(bridge: Server) -> None:
    add(bridge, "team")
    for body in ({"name": "team", "apiKey": secret(2)}, {"name": "other", "apiKey": secret(1)}):
        answer = bridge.admin("POST", "/credentials", {"provider": "claude", **body})
        assert (answer.status, answer.json["code"]) == (409, "conflict")
        assert "'team'" in answer.json["error"]
    answer = bridge.admin("POST", "/credentials", {"name": "other", "provider": "claude", "apiKey": ENV_SECRET})
    assert answer.status == 409
    assert "'default'" in answer.json["error"]


def test_those_of_the_environment_are_told_apart_by_their_provider(bridge: Server) -> None:
    assert bridge.admin("POST", "/credentials/default/disable").status == 409
    assert bridge.admin("POST", "/credentials/default/disable?provider=codex").status == 200
    states = {each["provider"]: each["state"] for each in bridge.admin("GET", "/credentials").json["credentials"]}
    assert states == {"claude": "usable", "codex": "disabled"}
    assert bridge.admin("PATCH", "/credentials/default?provider=claude", {"weight": 2}).status == 409
    assert bridge.admin("DELETE", "/credentials/default?provider=claude&force=1").status == 409


def test_nobody_but_the_admin_gets_near_them(bridge: Server) -> None:
    key = bridge.new_key()
    for method, path in (
        ("GET", ""),
        ("POST", ""),
        ("GET", "/default"),
        ("DELETE", "/default"),
        ("POST", "/default/test"),
    ):
        for who in (None, key):
            assert bridge.call(method, f"/admin/credentials{path}", {}, key=who).status == 401


def test_a_key_is_bound_to_credentials_that_exist(bridge: Server) -> None:
    add(bridge, "team")
    answer = bridge.admin("POST", "/keys", {"name": "ada", "credentials": ["team", "default"]})
    assert answer.status == 201
    assert bridge.admin("POST", "/keys", {"name": "bob", "credentials": ["nobody"]}).status == 400
    refused = bridge.admin("DELETE", "/credentials/team")
    assert refused.status == 409
    assert "ada" in refused.json["error"]
    assert bridge.admin("PATCH", "/credentials/team", {"name": "crew"}).status == 200
    assert bridge.admin("GET", "/keys/ada").json["credentials"] == ["crew", "default"]
    assert bridge.admin("DELETE", "/credentials/crew?force=1").status == 200
    assert bridge.admin("GET", "/keys/ada").json["credentials"] == ["crew", "default"], "nothing is opened by that"


def test_a_test_asks_the_provider_and_says_what_it_says(bridge: Server) -> None:
    with StandIn() as standin:
        add(bridge, "team", baseUrl=standin.url)
        answer = bridge.admin("POST", "/credentials/team/test").json
        assert answer["ok"], answer
        assert answer["models"] > 0
        (asked,) = standin.requests
        assert (asked.method, asked.path, asked.headers["x-api-key"]) == ("GET", "/v1/models?limit=1000", secret())
        bridge.admin("PATCH", "/credentials/team", {"baseUrl": f"{standin.url}/nowhere"})
        answer = bridge.admin("POST", "/credentials/team/test").json
        assert (answer["ok"], answer["status"]) == (False, 404)
    answer = bridge.admin("POST", "/credentials/team/test").json
    assert not answer["ok"]
    assert "cannot be reached" in answer["message"]
    assert secret() not in answer["message"]


def test_a_thousand_changes_by_eight_admins_leave_the_file_whole_and_the_audit_complete(bridge: Server) -> None:
    def admin(number: int) -> int:
        good = 0
        for turn in range(42):
            name = f"c{number}-{turn}"
            add(bridge, name, 1000 * (number + 1) + turn)
            good += 1
            good += bridge.admin("PATCH", f"/credentials/{name}", {"weight": turn + 1}).status == 200
            good += bridge.admin("DELETE", f"/credentials/{name}").status == 200 if turn % 2 else 0
        return good

    pool = gevent.get_hub().threadpool
    changes = sum(each.get() for each in [pool.spawn(admin, number) for number in range(8)])
    assert changes == 8 * (42 + 42 + 21)
    content = json.loads((bridge.data_dir / "credentials.json").read_text())
    assert len(content["credentials"]) == 8 * 21
    written = (bridge.data_dir / "audit.jsonl").read_text()
    assert sum('"action":"credential_' in line.replace(" ", "") for line in written.splitlines()) == changes
    assert "sk-ant-secret" not in written


# --- with the gate between the CLI and its model -----------------------------------------------------------


@pytest.fixture
def gated(tmp_path: Path) -> Iterator[tuple[Server, StandIn]]:
    """A server whose claude asks the stand-in through the gate, without any credential."""
    with StandIn() as standin:
        env = {"ANTHROPIC_BASE_URL": standin.url, "DEMO_GATED": "1", "BRIDGE_METRICS": "loopback"}
        with servers.running(tmp_path, env, demo=True) as running:
            yield running, standin


def ask(server: Server, key: str, prompt: str = "hello", **headers: str) -> Any:
    return server.call("POST", "/generate", {"userPrompt": prompt}, key=key, headers=headers)


def test_without_a_credential_the_service_is_up_and_says_what_is_missing(gated: tuple[Server, StandIn]) -> None:
    server, standin = gated
    key = server.new_key()
    assert server.call("GET", "/health").status == 200
    ready = server.call("GET", "/ready", key=servers.ADMIN_KEY)
    assert (ready.status, ready.json["claude"]) == (503, "unavailable")
    assert "credential" in ready.json["details"]["claude"]["problem"]
    answer = ask(server, key)
    assert (answer.status, answer.json["code"]) == (503, "no_credentials")
    assert server.call("GET", "/capacity").json["verdict"] == "red"
    add(server, "team")
    assert ask(server, key).status == 200, "at once"
    assert server.call("GET", "/ready").status == 200
    assert server.call("GET", "/capacity").json["verdict"] == "green"
    assert [each.key for each in standin.generations] == [secret()]


def test_what_happens_to_credentials_is_told_where_the_admin_looks(gated: tuple[Server, StandIn]) -> None:
    server, standin = gated
    key = server.new_key("ada")
    add(server, "first", 1, priority=1)
    add(server, "second", 2)
    assert ask(server, key).status == 200
    assert ask(server, key).status == 200
    bad = standin.generations[0].key
    name, other = ("first", "second") if bad == secret(1) else ("second", "first")
    standin.script_key(bad, status=400, says="Your credit balance is too low")
    answers = [ask(server, key, f"number {n}") for n in range(4)]
    assert [answer.status for answer in answers] == [200] * 4
    row = next(each for each in server.admin("GET", "/logs").json["logs"] if each["tried"])
    assert row["credential"] == other
    assert row["tried"].startswith(f"{name} (400 ")
    told = [alert for alert in server.admin("GET", "/overview").json["alerts"] if alert["kind"] == "credential_blocked"]
    assert [(alert["subject"], "credit balance" in alert["message"]) for alert in told] == [(name, True)]
    states = {each["name"]: each["state"] for each in server.admin("GET", "/credentials").json["credentials"]}
    assert states == {name: "blocked", other: "usable"}
    metrics = server.call("GET", "/metrics", key=servers.ADMIN_KEY).body.decode()
    assert f'cli_bridge_credential_usable{{credential="{name}",provider="claude"}} 0.0' in metrics
    assert 'cli_bridge_credentials{provider="claude",state="blocked"} 1.0' in metrics
    others = server.call("GET", "/metrics").body.decode()
    assert 'cli_bridge_credentials{provider="claude",state="blocked"} 1.0' in others
    assert f'"{name}"' not in others, "names are for the admin"
    # A key holder learns nothing of all that.
    for path in ("/me", "/me/requests", "/capacity", "/ready"):
        body = server.call("GET", path, key=key).body
        assert not any(word in body for word in (b'"first"', b'"second"', b"first (", b"second (", b"credit", b"sk-"))
    everything = b"".join(
        path.read_bytes() for path in server.data_dir.rglob("*") if path.is_file() and path.name != "credentials.json"
    )
    assert b"sk-ant-secret" not in everything
    assert not any("sk-ant-secret" in line for line in server.output)


def test_capacity_is_red_with_the_time_while_all_are_limited(gated: tuple[Server, StandIn]) -> None:
    server, standin = gated
    key = server.new_key()
    add(server, "team")
    standin.script_key(secret(), status=429, retry_after=200)
    answer = ask(server, key)
    assert (answer.status, answer.json["code"]) == (503, "provider_rate_limited")
    assert 195 <= int(answer.headers["retry-after"]) <= 202
    shown = server.call("GET", "/capacity").json
    assert shown["verdict"] == "red"
    assert 190 <= shown["soonest_reset_seconds"] <= 200
    assert shown["retry_after_seconds"] == shown["soonest_reset_seconds"]
    done = server.command("capacity")
    assert done.returncode == 20
    assert "limited credential" in done.stdout
    bench = server.admin("GET", "/credentials/team").json
    assert (bench["state"], bench["estimated"]) == ("benched", False)
    assert server.admin("POST", "/credentials/team/reset").status == 200
    standin.script_key(secret())
    assert ask(server, key).status == 200


def test_a_file_with_far_too_many_leaves_the_last_good_one_in_force(gated: tuple[Server, StandIn]) -> None:
    server, _ = gated
    key = server.new_key()
    add(server, "team")
    rows = [{"name": f"c{n}", "provider": "claude", "apiKey": f"sk-far-too-many-{n:06d}"} for n in range(10_000)]
    (server.data_dir / "credentials.json").write_text(json.dumps({"schema": 1, "credentials": rows}))
    until = time.monotonic() + 30
    while not (shown := server.admin("GET", "/credentials").json)["problem"]:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert "a list of at most 1000. The last good one stays in force." in shown["problem"]
    assert [each["name"] for each in shown["credentials"]] == ["team"]
    assert ask(server, key).status == 200
    refused = server.admin("POST", "/credentials", {"name": "one", "provider": "codex", "apiKey": secret(2)})
    assert (refused.status, refused.json["code"]) == (409, "conflict")
    done = run(server, "list")
    assert "at most 1000" in done.stderr
    assert server.stop() == 0
    again = subprocess.run(
        [sys.executable, "-m", "bridge", "serve"], env=server.env, capture_output=True, text=True, timeout=60
    )
    assert again.returncode == 1
    assert "at most 1000" in again.stderr
    assert "sk-far" not in again.stderr


def test_a_live_run_names_the_credential_that_it_uses_now_and_only_to_the_admin(tmp_path: Path) -> None:
    env = {"DEMO_GATED": "1", "BRIDGE_ROUTING": "fill-first"}
    with (
        StandIn() as standin,
        servers.running(tmp_path, {**env, "ANTHROPIC_BASE_URL": standin.url}, demo=True) as server,
    ):
        key = server.new_key("ada")
        add(server, "first", 1, priority=1)
        add(server, "second", 2)
        standin.script_key(secret(1), status=429)
        standin.script_key(secret(2), mode="hang_mid", after=1)
        pool = gevent.get_hub().threadpool
        asked = pool.spawn(ask, server, key)
        pool.apply(standin.wait, (lambda seen: any(each.deltas for each in seen),))
        assert [each.key for each in standin.generations] == [secret(1), secret(2)]
        (run,) = server.admin("GET", "/runs").json["runs"]
        assert (run["keyName"], run["credential"]) == ("ada", "second")
        assert server.admin("PATCH", "/credentials/second", {"name": "other"}).status == 200
        assert server.admin("GET", "/runs").json["runs"][0]["credential"] == "other"
        assert server.admin("DELETE", f"/runs/{run['id']}").status == 200
        told = asked.get()
        assert told.json["code"] == "cancelled"
        assert not any(name in told.body for name in (b"first", b"second", b"other"))


def test_one_that_runs_use_is_removed_only_by_force_and_they_go_on(gated: tuple[Server, StandIn]) -> None:
    server, standin = gated
    key = server.new_key()
    add(server, "team")
    standin.script(header_delay=2.0)
    pool = gevent.get_hub().threadpool
    asked = pool.spawn(ask, server, key)
    pool.apply(standin.wait, (lambda seen: any(each.generates for each in seen),))
    refused = server.admin("DELETE", "/credentials/team")
    assert (refused.status, refused.json["code"]) == (409, "conflict")
    assert server.admin("GET", "/credentials/team").json["running"] == 1
    assert server.admin("DELETE", "/credentials/team?force=1").status == 200
    assert asked.get().status == 200
    assert ask(server, key).json["code"] == "no_credentials"


def test_a_session_keeps_its_credential(gated: tuple[Server, StandIn]) -> None:
    server, standin = gated
    key = server.new_key()
    for number in range(3):
        add(server, f"c{number}", number + 1)
    for number in range(6):
        assert ask(server, key, f"warm up {number}").status == 200
    standin.control("DELETE", "/__requests", None)
    body = {"model": "claude-sonnet-5-5", "max_tokens": 300, "messages": [{"role": "user", "content": "hi"}]}
    for number in range(5):
        assert ask(server, key, f"mine {number}", **{"X-Session-Id": "one"}).status == 200
        assert server.call("POST", "/v1/messages", {**body, "metadata": {"user_id": "two"}}, key=key).status == 200
        assert ask(server, key, f"other {number}").status == 200
    used = {each.text[:4]: set() for each in standin.generations}
    for each in standin.generations:
        used[each.text[:4]].add(each.key)
    assert len(used["mine"]) == len(used["hi"]) == 1
    assert len(used["mine"] | used["hi"] | used["othe"]) > 1


# --- the command --------------------------------------------------------------------------------------------


def run(server: Server, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "bridge", "credentials", *arguments]
    return subprocess.run(
        argv, env=server.env, cwd=server.data_dir.parent, input=given, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("up", [True, False], ids=["while the server runs", "while it is down"])
def test_the_command_does_all_of_it_and_takes_the_secret_from_standard_input(tmp_path: Path, up: bool) -> None:
    server = servers.start(tmp_path, demo=True)
    try:
        if not up:
            server.stop()
        made = run(server, "add", "team", "--provider", "claude", "--max-cost-per-day", "2.5", given=f"{secret()}\n")
        assert made.returncode == 0, made.stderr
        assert run(server, "add", "twin", "--provider", "codex", given=secret()).returncode == 1
        assert run(server, "add", "bad", "--provider", "codex", given="two words").returncode == 1
        assert run(server, "set", "team", "--group", "acme", "--models", "claude-*").returncode == 0
        assert run(server, "rename", "team", "crew").returncode == 0
        assert run(server, "set", "crew", "--api-key", given=secret(2)).returncode == 0
        for step in ("disable", "enable", "reset"):
            assert run(server, step, "crew").returncode == 0
        listed = run(server, "list")
        assert "crew" in listed.stdout
        assert "$2.50" in listed.stdout
        shown = json.loads(run(server, "show", "crew", "--json").stdout)
        assert (shown["group"], shown["models"], shown["last4"]) == ("acme", ["claude-*"], "0002")
        assert "acme" in run(server, "show", "crew").stdout
        assert run(server, "set", "crew", "--base-url", "http://127.0.0.1:9").returncode == 0
        tested = run(server, "test", "crew")
        assert tested.returncode == 1
        assert "cannot be reached" in tested.stdout
        assert run(server, "remove", "crew").returncode == 0
        assert json.loads(run(server, "list", "--json").stdout)["credentials"] == []
        said = "".join(done.stdout + done.stderr for done in (made, listed, tested))
        assert "sk-ant-secret" not in said
    finally:
        if up:
            server.stop()


def test_a_secret_is_no_argument(server: Server) -> None:
    for arguments in (("add", "a", "--provider", "claude", secret()), ("add", "a", "--api-key", secret())):
        assert run(server, *arguments).returncode == 2


def test_doctor_tells_of_a_provider_without_credentials(tmp_path: Path) -> None:
    fake = install_fake(tmp_path, "fake_claude")
    with servers.running(tmp_path, {"BRIDGE_CLAUDE_COMMAND": str(fake)}) as server:
        found = {row["what"]: row for row in json.loads(server.command("doctor", "--json").stdout)}
        assert found["claude credentials"]["level"] == "warn"
        assert "no_credentials" in found["claude credentials"]["found"]
        assert "credentials add" in found["claude credentials"]["todo"]
        add(server, "team")
        found = {row["what"]: row for row in json.loads(server.command("doctor", "--json").stdout)}
        assert "claude credential team" in found
        assert secret() not in json.dumps(found)
