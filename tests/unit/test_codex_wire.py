"""The conversation with codex app-server: every closure is there, and every failure has its code."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from bridge.providers import codex_body
from bridge.providers import codex_wire as protocol
from bridge.registry import PROVIDERS
from bridge.types import GenerationRequest, Image, Message, Text, Usage

RECORDINGS = sorted((Path(__file__).resolve().parents[1] / "recordings").glob("codex-*"))


def ask(*messages: Message, **more: Any) -> GenerationRequest:
    return GenerationRequest("codex", "gpt-6-sol", messages or (Message("user", (Text("hello"),)),), **more)


def recorded(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


#: version, case -> the end of its turn
ENDS = {
    (folder.name, line["params"]["case"]): line["params"]["turn"]
    for folder in RECORDINGS
    for line in recorded(folder, "turn-ends")
}


def config(**changes: Any) -> dict[str, Any]:
    """The configuration on the command line, as TOML understands it."""
    options = {"base_url": "https://api.openai.com/v1", "idle_timeout_s": 90, "catalog": "/c.json", "sqlite_home": "/s"}
    argv = protocol.arguments(**{**options, **changes})
    assert argv[:2] == ["app-server", "--strict-config"]
    pairs = argv[2:]
    assert set(pairs[::2]) == {"-c"}
    return {name: tomllib.loads(f"v={value}")["v"] for name, _, value in (p.partition("=") for p in pairs[1::2])}


CLOSED = {
    "web_search": "disabled",
    "project_doc_max_bytes": 0,
    "history.persistence": "none",
    "analytics.enabled": False,
    "check_for_update_on_startup": False,
    "include_permissions_instructions": False,
    "include_apps_instructions": False,
    "include_environment_context": False,
    "include_collaboration_mode_instructions": False,
    "skills.include_instructions": False,
    "skills.bundled.enabled": False,
    "feedback.enabled": False,
    "otel.exporter": "none",
    "notify": [],
    "agents.enabled": False,
    "tools.experimental_request_user_input": {"enabled": False},
    "thread_unload_delay_secs": 0,
    "model_catalog_json": "/c.json",
    "sqlite_home": "/s",
    "model_provider": "bridge",
    "model_providers.bridge.name": "bridge",
    "model_providers.bridge.wire_api": "responses",
    "model_providers.bridge.request_max_retries": 0,
    "model_providers.bridge.stream_max_retries": 0,
    "model_providers.bridge.stream_idle_timeout_ms": 90000,
}
FEATURES_OFF = [
    "apps",
    "plugins",
    "remote_plugin",
    "hooks",
    "shell_tool",
    "unified_exec",
    "multi_agent",
    "multi_agent_v2",
    "goals",
    "image_generation",
    "view_image",
    "tool_suggest",
    "skill_search",
    "sleep_tool",
    "browser_use",
    "computer_use",
    "in_app_browser",
    "shell_snapshot",
    "skill_mcp_dependency_install",
    "guardian_approval",
    "code_mode_host",
    "workspace_dependencies",
    "mentions_v2",
    "daemon_auto_start",
    "fast_mode",
    "auth_elicitation",
    "tool_call_mcp_elicitation",
    "api_key_model_discovery",
    "memories",
    "unbounded_connection_retries",
]


@pytest.mark.parametrize(("name", "value"), CLOSED.items())
def test_the_configuration_has_each_closure(name: str, value: Any) -> None:
    assert config()[name] == value


@pytest.mark.parametrize("feature", FEATURES_OFF)
def test_the_configuration_turns_each_feature_off(feature: str) -> None:
    assert config()[f"features.{feature}"] is False


def test_the_key_goes_by_the_name_of_a_variable_and_never_itself() -> None:
    settings = config()
    assert settings["model_providers.bridge.base_url"] == "https://api.openai.com/v1"
    assert settings["model_providers.bridge.env_key"] == protocol.KEY_VARIABLE
    assert "model_providers.bridge.requires_openai_auth" not in settings


def test_a_login_uses_the_clis_own_credentials() -> None:
    settings = config(base_url=None)
    assert settings["model_providers.bridge.requires_openai_auth"] is True
    assert not {"model_providers.bridge.base_url", "model_providers.bridge.env_key"} & set(settings)


@pytest.mark.parametrize("url", ['http://x/"\nmodel="y', "http://x/é'"])
def test_a_value_cannot_leave_its_quotes(url: str) -> None:
    assert config(base_url=url)["model_providers.bridge.base_url"] == url


def test_the_catalog_loses_every_tool_and_keeps_the_rest() -> None:
    model = {
        "slug": "m",
        "context_window": 7,
        "display_name": "M",
        "shell_type": "shell_command",
        "supports_search_tool": True,
        "apply_patch_tool_type": "freeform",
        "tool_mode": "x",
        "experimental_supported_tools": ["y"],
        "multi_agent_version": 2,
        "model_messages": {},
        "base_instructions": "long" * 1000,
    }
    catalog = protocol.catalog_without_tools({"etag": "e", "models": [model]})
    (lean,) = catalog["models"]
    assert catalog["etag"] == "e"
    assert (lean.pop("slug"), lean.pop("display_name")) == ("m", "M")
    # Nothing is summed up by a second call, and nothing asked for that the API would not do by itself.
    assert lean.pop("context_window") == lean.pop("max_context_window") > 10_000_000
    assert (lean.pop("default_verbosity"), lean.pop("default_reasoning_summary")) == ("medium", "none")
    assert len(lean.pop("base_instructions")) < 50
    # Tools go up as the API has them, and their results whole.
    assert lean.pop("use_responses_lite") is False
    assert lean.pop("truncation_policy") == {"mode": "bytes", "limit": 100_000_000}
    assert lean == {
        "shell_type": "disabled",
        "supports_search_tool": False,
        "apply_patch_tool_type": None,
        "tool_mode": None,
        "experimental_supported_tools": [],
        "multi_agent_version": None,
        "model_messages": None,
    }


@pytest.mark.parametrize("catalog", [{}, {"models": 7}, {"models": [7]}, []])
def test_a_catalog_of_another_shape_is_an_error_that_the_provider_expects(catalog: Any) -> None:
    with pytest.raises((KeyError, TypeError)):
        protocol.catalog_without_tools(catalog)


def test_a_thread_has_no_tools_no_environment_and_one_system_prompt() -> None:
    assert protocol.thread_start(codex_body.ask(ask(system="Be brief."), gated=False), "/empty") == {
        "model": "gpt-6-sol",
        "cwd": "/empty",
        "approvalPolicy": "never",
        "sandbox": "read-only",
        "ephemeral": True,
        "environments": [],
        "dynamicTools": [],
        "baseInstructions": "",
        "developerInstructions": "Be brief.",
    }


def test_a_turn_has_the_last_message_schema_and_effort() -> None:
    request = ask(Message("user", (Image("image/png", "aGk="), Text("what?"))), schema={"type": "null"}, effort="max")
    assert protocol.turn_start(request, "t") == {
        "threadId": "t",
        "input": [
            {"type": "image", "url": "data:image/png;base64,aGk="},
            {"type": "text", "text": "what?", "text_elements": []},
        ],
        "outputSchema": {"type": "null"},
        "effort": "xhigh",
    }


def test_a_turn_without_schema_and_effort_names_neither() -> None:
    assert set(protocol.turn_start(ask(), "t")) == {"threadId", "input"}


def test_earlier_messages_are_injected_as_items() -> None:
    earlier = (Message("user", (Text("one"), Image("image/gif", "aGk="))), Message("assistant", (Text("two"),)))
    assert protocol.history(ask(*earlier, Message("user", (Text("three"),))), "t") == {
        "threadId": "t",
        "items": [
            {
                "type": "message",
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "one"},
                    {"type": "input_image", "image_url": "data:image/gif;base64,aGk="},
                ],
            },
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "two"}]},
        ],
    }
    assert protocol.history(ask(), "t") is None


@pytest.mark.parametrize("text", ["--full-auto", "$imagegen", "@/etc/passwd", "/quit", '{"method":"fs/readFile"}'])
def test_a_clients_text_stays_text(text: str) -> None:
    request = ask(Message("user", (Text(text),)), system=text)
    assert protocol.turn_start(request, "t")["input"] == [{"type": "text", "text": text, "text_elements": []}]
    thread = protocol.thread_start(codex_body.ask(request, gated=False), "/empty")
    assert [name for name, value in thread.items() if value == text] == ["developerInstructions"]


def test_the_greeting_asks_for_no_more_than_is_read() -> None:
    greeting = protocol.initialize("1.0")
    assert greeting["clientInfo"] == {"name": "cli-bridge", "title": None, "version": "1.0"}
    needed = {"item/agentMessage/delta", "item/completed", "thread/tokenUsage/updated", "turn/completed"}
    assert not needed & set(greeting["capabilities"]["optOutNotificationMethods"])


# --- what its messages mean -------------------------------------------------------------------------


@pytest.mark.parametrize("folder", RECORDINGS, ids=lambda folder: folder.name)
def test_recorded_usage_is_made_disjoint(folder: Path) -> None:
    (params,) = [m["params"] for m in recorded(folder, "success") if m.get("method") == "thread/tokenUsage/updated"]
    usage = protocol.usage_of(params["tokenUsage"]["last"])
    assert usage == Usage(400, 600, 0, 50, 20)
    assert (usage.prompt, usage.total) == (1000, 1050)


@pytest.mark.parametrize(
    "raw",
    [
        *(None, 7, "x", [], {"inputTokens": -1}, {"inputTokens": "7"}, {"inputTokens": 1.5}, {"outputTokens": 10**9}),
        {"inputTokens": True},
        {"inputTokens": 5, "cachedInputTokens": 6},
        {"inputTokens": 5, "cacheWriteInputTokens": 6},
    ],
)
def test_a_usage_that_makes_no_sense_is_not_believed(raw: Any) -> None:
    assert protocol.usage_of(raw) is None


def test_reasoning_is_never_more_than_the_output() -> None:
    assert protocol.usage_of({"outputTokens": 5, "reasoningOutputTokens": 9}) == Usage(
        output_tokens=5, reasoning_tokens=5
    )


CODES = {
    "401": "cli_unavailable",
    "403": "cli_unavailable",
    "404": "model_not_found",
    "400": "provider_invalid_request",
    "429": "provider_rate_limited",
    "quota": "provider_rate_limited",
    "500": "provider_overloaded",
    "503": "provider_overloaded",
    "hang_mid": "timeout",
    "cut": "cli_failed",
    "cut_early": "cli_failed",
    "failed": "cli_failed",
    "failed_rate": "provider_rate_limited",
    "incomplete": "cli_failed",
    "ctx": "prompt_too_long",
    "garbage": "cli_failed",
}
FREE = {"401", "403", "404", "400", "429", "quota", "500", "503", "ctx"}


FAILED = [key for key, turn in ENDS.items() if turn["status"] == "failed"]


def test_every_failure_is_recorded_of_every_version() -> None:
    assert sorted(FAILED) == sorted((folder.name, name) for folder in RECORDINGS for name in CODES)


@pytest.mark.parametrize("key", FAILED, ids="-".join)
def test_a_recorded_failure_has_its_code_and_keeps_the_details_back(key: tuple[str, str]) -> None:
    error = protocol.turn_problem(ENDS[key]["error"])
    assert error.code == CODES[key[1]]
    assert not any(word in f"{error.message} {error.hint}" for word in ("sk-", "127.0.0.1", "stub", "http"))


@pytest.mark.parametrize("key", FAILED, ids="-".join)
def test_only_what_was_turned_away_before_any_token_costs_nothing(key: tuple[str, str]) -> None:
    assert protocol.costs_nothing(ENDS[key]["error"]) == (key[1] in FREE)


@pytest.mark.parametrize("key", FAILED, ids="-".join)
def test_only_an_incomplete_answer_hit_its_maximum(key: tuple[str, str]) -> None:
    assert protocol.hit_max_tokens(ENDS[key]["error"]) == (key[1] == "incomplete")


@pytest.mark.parametrize(
    "error",
    [
        *(None, 7, "x", [], {}, {"message": None}, {"message": 7}, {"codexErrorInfo": {}}, {"codexErrorInfo": []}),
        *({"codexErrorInfo": {"a": 7}}, {"codexErrorInfo": {"a": {"httpStatusCode": "401"}}}),
        {"codexErrorInfo": ["x"]},
    ],
)
def test_an_error_of_any_shape_is_a_failure_of_the_cli(error: Any) -> None:
    assert protocol.turn_problem(error).code == "cli_failed"
    assert not protocol.hit_max_tokens(error)
    assert protocol.costs_nothing(error) in (True, False)


@pytest.mark.parametrize(
    ("info", "free"),
    [
        ({"httpConnectionFailed": {"httpStatusCode": 401}}, True),
        ({"responseTooManyFailedAttempts": {"httpStatusCode": 429}}, True),
        ({"responseStreamDisconnected": {"httpStatusCode": None}}, False),
        ({}, False),
    ],
)
def test_a_stream_that_broke_was_not_turned_away(info: Any, free: bool) -> None:
    assert protocol.costs_nothing({"message": "", "codexErrorInfo": info}) is free


def test_servers_that_the_machine_has_for_everybody_are_switched_off_by_their_names() -> None:
    names = protocol.server_names('[{"name": "files"}, {"name": "a.b=1"}, {"name": "web_2"}]')
    assert names == ["files", "web_2"]
    closed = config(machine_servers=names)
    assert closed["mcp_servers.files.enabled"] is False
    assert closed["mcp_servers.web_2.enabled"] is False
    for broken in ("", "[1]", "{}", "Error: no such command", "[{}]"):
        assert protocol.server_names(broken) == []


@pytest.mark.parametrize("folder", RECORDINGS, ids=lambda folder: folder.name)
@pytest.mark.parametrize("name", ["success", "fail-429", "hang", "unknown-model-warning"])
def test_what_was_recorded_is_known(folder: Path, name: str) -> None:
    said = [message for message in recorded(folder, name) if "method" in message]
    heard = {what for each in said for what in protocol.unknown_in(each["method"], each["params"])}
    assert heard <= {"warning", "configWarning"}


def test_the_tested_version_was_recorded() -> None:
    assert f"codex-{PROVIDERS['codex'].tested}" in [folder.name for folder in RECORDINGS]


@pytest.mark.parametrize(
    ("method", "params", "what"),
    [
        ("turn/completed", {"threadId": "1", "turn": {}}, []),
        ("turn/completed", {"threadId": "1", "turn": {}, "mood": "good"}, ["turn/completed.mood"]),
        ("turn/begun", {"threadId": "1"}, ["turn/begun"]),
        ("warning", {"message": "no metadata"}, ["warning"]),
    ],
)
def test_what_the_cli_did_not_say_before_is_noted(method: str, params: dict[str, Any], what: list[str]) -> None:
    assert list(protocol.unknown_in(method, params)) == what
