"""`/admin/credentials`: what the admin may ask and change, what is refused, and that no secret comes out again."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

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
        assert (asked.method, asked.path, asked.headers["x-api-key"]) == ("GET", "/v1/models", secret())
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
