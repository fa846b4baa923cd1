"""Which models a key sees and may use, under the operator's own names as well."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.harness import install_fake
from tests.standin import StandIn
from tests.support import server as servers
from tests.support.server import Answer, Server

ALIASES = {"default-fast": "gpt-6-luna", "default-good": {"provider": "claude", "model": "claude-opus-5-5"}}
HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("models")
    (folder / "data").mkdir()
    (folder / "data" / "models.json").write_text(json.dumps({"aliases": ALIASES}))
    with servers.running(folder, demo=True) as running:
        yield running


def chat(server: Server, key: str, model: str) -> Answer:
    return server.call("POST", "/v1/chat/completions", {"model": model, "messages": HELLO}, key=key)


def listed(server: Server, key: str) -> dict[str, dict[str, Any]]:
    answer = server.call("GET", "/v1/models", key=key)
    assert answer.status == 200
    return {row["id"]: row for row in answer.json["data"]}


def test_an_alias_works_in_every_api_and_the_log_has_the_model(server: Server) -> None:
    key = server.new_key("everywhere")
    assert chat(server, key, "default-fast").json["model"] == "gpt-6-luna"
    ask = {"model": "default-fast", "input": "hello"}
    assert server.call("POST", "/v1/responses", ask, key=key).json["model"] == "gpt-6-luna"
    ask = {"model": "default-good", "max_tokens": 100, "messages": HELLO}
    assert server.call("POST", "/v1/messages", ask, key=key).json["model"] == "claude-opus-5-5"
    native = {"userPrompt": "hello", "model": "default-fast"}
    assert server.call("POST", "/generate-codex", native, key=key).json["model"] == "gpt-6-luna"
    wrong = server.call("POST", "/generate", native, key=key)
    assert (wrong.status, "codex" in wrong.json["error"]) == (400, True)
    rows = server.admin("GET", "/logs?key=everywhere").json["logs"]
    assert [row["model"] for row in rows] == ["gpt-6-luna", "claude-opus-5-5", "gpt-6-luna", "gpt-6-luna"]
    assert [row["api"] for row in rows] == ["native", "anthropic", "openai-responses", "openai-chat"]


def test_the_command_that_shows_the_log_says_which_api_a_request_came_by(server: Server) -> None:
    key = server.new_key("shown")
    assert chat(server, key, "default-fast").status == 200
    shown = server.command("logs", "--key", "shown").stdout
    assert "API" in shown.splitlines()[0]
    assert "openai-chat" in shown


def test_a_web_page_may_use_an_sdk_where_its_origin_is_allowed(tmp_path: Path) -> None:
    page = {"Origin": "https://app.example.com", "Access-Control-Request-Method": "POST"}
    sdk = "authorization, content-type, x-stainless-lang, anthropic-version, anthropic-dangerous-direct-browser-access"
    sdk += ", openai-beta, openai-organization, x-title, http-referer, x-client-request-id"
    with servers.running(tmp_path, {"BRIDGE_CORS_ORIGINS": page["Origin"]}, demo=True) as server:
        asked = {**page, "Access-Control-Request-Headers": sdk}
        answer = server.call("OPTIONS", "/v1/messages", headers=asked)
        assert answer.headers["access-control-allow-origin"] == page["Origin"]
        allowed = answer.headers["access-control-allow-headers"].lower().split(", ")
        assert set(sdk.split(", ")) <= set(allowed)
        refused = server.call("GET", "/v1/models", headers={"Origin": page["Origin"]})
        assert "X-Should-Retry" in refused.headers["access-control-expose-headers"]
        other = server.call("OPTIONS", "/v1/messages", headers={**asked, "Origin": "https://elsewhere.example"})
        assert "access-control-allow-origin" not in other.headers
        # A browser hides from a page what is said at a path where it may not ask.
        before = server.call("OPTIONS", "/v1/embeddings", headers=asked)
        told = server.call("POST", "/v1/embeddings", {}, headers={"Origin": page["Origin"]})
        assert (before.status, told.status) == (204, 404)
        assert {each.headers["access-control-allow-origin"] for each in (before, told)} == {page["Origin"]}
        assert before.headers["access-control-allow-headers"].lower().split(", ") == allowed


@pytest.mark.parametrize(
    ("origin", "other"),
    [
        ("https://app.example.com", "https://appxexample.com"),
        ("https://app.example.com", "https://app.example.com.evil.example"),
        ("http://[::1]:3000", "http://1"),
    ],
)
def test_an_origin_is_that_one_and_no_pattern(tmp_path: Path, origin: str, other: str) -> None:
    with servers.running(tmp_path, {"BRIDGE_CORS_ORIGINS": origin}, demo=True) as server:
        answers = [server.call("GET", "/v1/models", headers={"Origin": each}) for each in (origin, other)]
        assert [answer.headers.get("access-control-allow-origin") for answer in answers] == [origin, None]


def test_a_key_may_be_given_the_alias_alone_or_the_model_behind_it(server: Server) -> None:
    alias = server.new_key("alias-only", models=["default-fast"])
    assert chat(server, alias, "default-fast").status == 200
    assert chat(server, alias, "gpt-6-luna").json["error"]["code"] == "model_not_allowed"
    assert set(listed(server, alias)) == {"default-fast"}
    model = server.new_key("model-only", models=["gpt-6-luna", "gpt-99-new"])
    assert chat(server, model, "default-fast").status == 200
    assert chat(server, model, "default-good").json["error"]["code"] == "model_not_allowed"
    assert set(listed(server, model)) == {"default-fast", "gpt-6-luna", "gpt-99-new"}


def test_the_list_shows_what_a_key_may_use_with_prices(server: Server) -> None:
    rows = listed(server, server.new_key("anything"))
    assert {"default-fast", "default-good", "claude-sonnet-5-5", "gpt-6-sol", "sonnet"} <= set(rows)
    fast = rows["default-fast"]
    assert (fast["alias_of"], fast["provider"], fast["object"]) == ("gpt-6-luna", "codex", "model")
    assert fast["pricing"] == {
        "input": 0.1,
        "cached": 0.01,
        "cache_write": 0.125,
        "output": 0.5,
        "assumed": False,
        "long_prompt": {"input": 0.2, "cached": 0.02, "cache_write": 0.25, "output": 0.75, "above_tokens": 272000},
    }
    unknown = listed(server, server.new_key("new-model", models=["gpt-99-new"]))["gpt-99-new"]
    assert unknown["pricing"]["assumed"] is True
    claude = listed(server, server.new_key("claude-only", providers=["claude"]))
    assert {row["provider"] for row in claude.values()} == {"claude"}
    assert listed(server, server.new_key("nothing", models=[])) == {}


def own_models(server: Server, key: str) -> dict[str, tuple[Any, Any]]:
    """The models of GET /me: provider -> (default, allowed)."""
    models = server.call("GET", "/me", key=key).json["models"]
    return {provider: (each["default"], each["allowed"]) for provider, each in models.items()}


def test_a_key_sees_its_models_at_the_cli_that_their_names_pick(server: Server) -> None:
    anything = server.new_key("sees-anything")
    assert own_models(server, anything) == {"claude": ("claude-sonnet-5-5", "any"), "codex": ("gpt-6-sol", "any")}
    one = server.new_key("sees-one", models=["gpt-6-luna"])
    assert own_models(server, one) == {"claude": (None, []), "codex": ("gpt-6-luna", ["gpt-6-luna", "default-fast"])}
    alias = server.new_key("sees-alias", models=["default-good"], providers=["claude"])
    assert own_models(server, alias) == {"claude": ("default-good", ["default-good"])}
    several = server.new_key("sees-several", models=["claude-haiku-5-5", "gpt-6-luna", "claude-sonnet-5-5"])
    assert own_models(server, several)["claude"] == ("claude-sonnet-5-5", ["claude-haiku-5-5", "claude-sonnet-5-5"])
    unknown = server.new_key("sees-unknown", models=["nobody-knows"])
    assert own_models(server, unknown) == dict.fromkeys(("claude", "codex"), ("nobody-knows", ["nobody-knows"]))
    assert own_models(server, server.new_key("sees-none", models=[])) == dict.fromkeys(("claude", "codex"), (None, []))


def test_a_new_secret_comes_with_a_model_that_the_key_may_use(server: Server) -> None:
    made = {
        "example-any": {},
        "example-alias": {"models": ["default-fast"]},
        "example-codex": {"providers": ["codex"]},
        "example-none": {"models": []},
    }
    examples = [server.admin("POST", "/keys", {"name": name, **given}).json["example"] for name, given in made.items()]
    assert examples == [
        {"provider": "claude", "model": "claude-sonnet-5-5"},
        {"provider": "codex", "model": "default-fast"},
        {"provider": "codex", "model": "gpt-6-sol"},
        None,
    ]
    assert server.admin("POST", "/keys/example-alias/rotate").json["example"] == examples[1]


def test_one_model_is_shown_only_to_a_key_that_may_use_it(server: Server) -> None:
    key = server.new_key("one", models=["default-fast"])
    assert server.call("GET", "/v1/models/default-fast", key=key).json["id"] == "default-fast"
    for name in ("gpt-6-luna", "x/y", "%2e%2e"):
        assert server.call("GET", f"/v1/models/{name}", key=key).status == 404
    assert server.call("GET", "/v1/models/default-fast").status == 401


def test_the_servers_own_list_holds_for_aliases_and_keys(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "models.json").write_text(json.dumps({"aliases": ALIASES}))
    env = {"BRIDGE_CODEX_MODELS": "gpt-6-sol", "BRIDGE_CLAUDE_MODELS": "claude-sonnet-5-5,claude-opus-5-5"}
    with servers.running(tmp_path, env, demo=True) as server:
        key = server.new_key()
        assert set(listed(server, key)) == {"default-good", "gpt-6-sol", "claude-sonnet-5-5", "claude-opus-5-5"}
        assert chat(server, key, "default-fast").json["error"]["code"] == "model_not_allowed"
        assert own_models(server, key) == {
            "claude": ("claude-sonnet-5-5", ["claude-sonnet-5-5", "claude-opus-5-5", "default-good"]),
            "codex": ("gpt-6-sol", ["gpt-6-sol"]),
        }
        other = server.new_key("other", models=["gpt-6-luna", "claude-opus-5-5"])
        assert own_models(server, other) == {
            "claude": ("claude-opus-5-5", ["claude-opus-5-5", "default-good"]),
            "codex": (None, []),
        }


def test_a_damaged_file_of_models_refuses_to_start(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "models.json").write_text("{")
    env = servers.environment(tmp_path / "data", {"BRIDGE_PORT": "0"})
    done = Server(None, tmp_path / "data", 0, env).command("serve")  # type: ignore[arg-type]
    assert done.returncode == 1
    assert "models.json cannot be used" in done.stderr
    assert "Correct or remove models.json" in done.stderr


def test_the_admin_is_told_the_names_of_models_that_a_key_may_be_bound_to(server: Server) -> None:
    named = {each["id"]: each["provider"] for each in server.admin("GET", "/models").json["models"]}
    assert named["claude-sonnet-5-5"] == "claude"
    assert named["gpt-6-luna"] == "codex"
    listed = server.call("GET", "/v1/models", key=server.new_key("reads-models")).json["data"]
    assert {each["id"]: each["provider"] for each in listed} == named
    assert server.call("GET", "/admin/models", key=server.new_key("no-admin")).status == 401


def test_once_a_day_the_providers_are_asked_what_they_have(tmp_path: Path) -> None:
    with StandIn() as standin:
        env = {
            "BRIDGE_CLAUDE_COMMAND": str(install_fake(tmp_path, "fake_claude")),
            "BRIDGE_WARM_PROCESSES": "0",
            "ANTHROPIC_API_KEY": "sk-ant-made-up",
            "ANTHROPIC_BASE_URL": standin.url,
        }
        with servers.running(tmp_path, env, module="tests.support.quick_server") as server:
            key = server.new_key()
            deadline = time.monotonic() + 30
            while "claude-standin" not in listed(server, key):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            rows = listed(server, key)
            assert rows["claude-standin"]["pricing"]["assumed"] is True
            assert [rows[name]["listed"] for name in ("claude-standin", "claude-sonnet-5-5")] == [True, False]
            assert [each.path for each in standin.requests] == ["/v1/models?limit=1000"]
