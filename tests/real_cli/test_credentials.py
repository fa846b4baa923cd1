"""Several credentials behind the real CLIs: what a provider turns away goes on with another, and no CLI knows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.real_cli.conftest import FAKE_KEYS, Rig, await_both, environment
from tests.standin import StandIn
from tests.support import server as servers

PROVIDERS = {
    "/generate": ("claude", FAKE_KEYS["ANTHROPIC_API_KEY"]),
    "/generate-codex": ("codex", FAKE_KEYS["OPENAI_API_KEY"]),
}
SPARES = {"claude": "sk-ant-the-spare-one", "codex": "sk-the-spare-one"}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Each provider with two credentials, of which `default` comes first."""
    with StandIn() as standin:
        env = {**environment(standin), "BRIDGE_ROUTING": "fill-first", "BRIDGE_IDLE_TIMEOUT_SECONDS": "3"}
        with servers.running(tmp_path_factory.mktemp("pair"), env) as server:
            await_both(server)
            for provider, secret in SPARES.items():
                body = {"name": f"spare-{provider}", "provider": provider, "apiKey": secret, "priority": -1}
                assert server.admin("POST", "/credentials", body).status == 201
            yield Rig(server, standin, server.new_key())


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "429": ({"status": 429, "retry_after": 100}, "benched"),
    "429 without a time": ({"status": 429, "retry_after": -1}, "benched"),
    "401": ({"status": 401}, "blocked"),
    "402": ({"status": 402}, "blocked"),
    "credit": ({"status": 400, "says": "Your credit balance is too low to access the API."}, "blocked"),
    "disabled": ({"status": 400, "says": "This organization has been disabled."}, "blocked"),
    "limits": ({"status": 400, "says": "You have reached your specified API usage limits."}, "blocked"),
    "529": ({"status": 529}, "usable"),
    "503": ({"status": 503}, "usable"),
    "an overload that begins a stream": ({"mode": "early_error"}, "usable"),
    "a limit that begins a stream": ({"mode": "early_rate_limit"}, "benched"),
    "silence": ({"mode": "hang"}, "usable"),
}


@pytest.mark.parametrize("path", PROVIDERS)
@pytest.mark.parametrize(("script", "state"), CASES.values(), ids=CASES)
def test_what_the_first_is_refused_the_second_answers(pair: Rig, path: str, script: dict[str, Any], state: str) -> None:
    provider, secret = PROVIDERS[path]
    pair.server.reset_credentials()
    pair.standin.control("DELETE", "/__requests", None)
    pair.standin.script_key(secret, **script)
    try:
        answer = pair.ask(path, prompt="hello")
        assert answer.status == 200, answer.body
        assert [each.key for each in pair.standin.generations] == [secret, SPARES[provider]]
        found = pair.server.admin("GET", f"/credentials/default?provider={provider}").json
        assert found["state"] == state
        row = pair.server.admin("GET", "/logs?limit=1").json["logs"][0]
        assert (row["code"], row["credential"]) == (None, f"spare-{provider}")
        assert row["tried"].startswith("default (")
        assert row["costUsd"] == answer.json["cost_usd"] > 0, "one charge"
    finally:
        pair.standin.script_key(secret)


@pytest.mark.parametrize("path", PROVIDERS)
def test_a_stream_begins_once(pair: Rig, path: str) -> None:
    _, secret = PROVIDERS[path]
    pair.server.reset_credentials()
    pair.standin.script_key(secret, status=429, retry_after=100)
    try:
        answer = pair.ask(path, prompt="hello", stream=True)
        names = [name for name, _ in answer.events]
        assert (names[0], names.count("start"), names[-1]) == ("start", 1, "done")
    finally:
        pair.standin.script_key(secret)


OF_A_MODEL = {
    "claude": (
        "This request would exceed your organization's rate limit of 30,000 input tokens per minute "
        "(org: 8d477a71-9399, model: claude-sonnet-5-5). For details, refer to the docs.",
        ("claude-sonnet-5-5", "claude-opus-5-5"),
    ),
    "codex": (
        "Rate limit reached for gpt-6-sol in organization org-uO on tokens per min (TPM): Limit 30000, Used 29937.",
        ("gpt-6-sol", "gpt-6.1-sol"),
    ),
}


@pytest.mark.parametrize("path", PROVIDERS)
def test_a_limit_that_names_its_model_leaves_the_credential_to_others(pair: Rig, path: str) -> None:
    provider, secret = PROVIDERS[path]
    says, (limited, other) = OF_A_MODEL[provider]
    pair.server.reset_credentials()
    pair.standin.control("DELETE", "/__requests", None)
    pair.standin.script_key(secret, status=429, retry_after=100, says=says)
    try:
        assert pair.ask(path, prompt="hello", model=limited).status == 200
    finally:
        pair.standin.script_key(secret)
    for model in (limited, other):
        assert pair.ask(path, prompt="hello", model=model).status == 200
    spare = SPARES[provider]
    assert [each.key for each in pair.standin.generations] == [secret, spare, spare, secret]
    found = pair.server.admin("GET", f"/credentials/default?provider={provider}").json
    assert (found["state"], [each["model"] for each in found["limitedModels"]]) == ("usable", [limited])
    assert says[:40] in found["limitedModels"][0]["reason"]
    assert pair.server.admin("POST", f"/credentials/default/reset?provider={provider}").status == 200
    assert pair.server.admin("GET", f"/credentials/default?provider={provider}").json["limitedModels"] == []


ACCOUNT_ERRORS = {
    "credit": {"status": 400, "says": "Your credit balance is too low to access the API."},
    "organization": {"status": 400, "says": "This organization has been disabled."},
    "limits": {
        "status": 400,
        "says": "You have reached your specified API usage limits. You will regain access on 2027-01-01.",
    },
    "402": {"status": 402},
}


@pytest.mark.parametrize("path", PROVIDERS)
@pytest.mark.parametrize("script", ACCOUNT_ERRORS.values(), ids=ACCOUNT_ERRORS)
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "all"])
def test_an_account_error_is_never_told_as_the_designer_s_mistake(
    pair: Rig, path: str, script: dict[str, Any], alone: bool
) -> None:
    provider, secret = PROVIDERS[path]
    pair.server.reset_credentials()
    spare = f"/credentials/spare-{provider}"
    if alone:
        assert pair.server.admin("POST", f"{spare}/disable").status == 200
    for key in (secret, SPARES[provider]):
        pair.standin.script_key(key, **script)
    try:
        answer = pair.ask(path, prompt="hello")
        assert (answer.status, answer.json["code"]) == (503, "no_credentials")
        said = answer.body.decode().lower()
        assert not any(word in said for word in ("credit balance", "organization", "images", "default", "spare", "sk-"))
        assert pair.server.admin("GET", f"/credentials/default?provider={provider}").json["state"] == "blocked"
    finally:
        for key in (secret, SPARES[provider]):
            pair.standin.script_key(key)
        assert pair.server.admin("POST", f"{spare}/enable").status == 200
        pair.server.reset_credentials()


@pytest.mark.parametrize("path", PROVIDERS)
def test_a_connection_that_is_refused_is_tried_elsewhere_and_is_nobody_s_fault(pair: Rig, path: str) -> None:
    provider, _ = PROVIDERS[path]
    name = f"dead-{provider}"
    body = {"name": name, "provider": provider, "apiKey": f"sk-of-the-{name}", "baseUrl": "http://127.0.0.1:9"}
    assert pair.server.admin("POST", "/credentials", {**body, "priority": 9}).status == 201
    pair.server.reset_credentials()
    try:
        assert pair.ask(path, prompt="hello").status == 200
        row = pair.server.admin("GET", "/logs?limit=1").json["logs"][0]
        assert (row["credential"], row["tried"].startswith(f"{name} (")) == ("default", True)
        assert pair.server.admin("GET", f"/credentials/{name}").json["state"] == "usable"
    finally:
        assert pair.server.admin("DELETE", f"/credentials/{name}?force=1").status == 200


@pytest.mark.parametrize("path", PROVIDERS)
def test_where_all_are_limited_the_time_is_the_first_that_a_provider_named(pair: Rig, path: str) -> None:
    provider, secret = PROVIDERS[path]
    pair.server.reset_credentials()
    pair.standin.script_key(secret, status=429, retry_after=900)
    pair.standin.script_key(SPARES[provider], status=429, retry_after=300)
    try:
        for _ in range(2):
            answer = pair.ask(path, prompt="hello")
            assert (answer.status, answer.json["code"]) == (503, "provider_rate_limited")
            assert 100 < int(answer.headers["retry-after"]) <= 301, "of the one that comes back first"
    finally:
        for key in (secret, SPARES[provider]):
            pair.standin.script_key(key)
        pair.server.reset_credentials()
