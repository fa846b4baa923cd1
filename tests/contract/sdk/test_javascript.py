"""The official npm packages, and Vercel's AI SDK: each script runs once, and the tests look at what it saw."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.contract.sdk.conftest import CLAUDE, CODEX, PIXEL, Clients, clients_of, eventually
from tests.contract.sdk.install import run_script
from tests.support.server import Server


def run(script: str, clients: Clients, slow: Clients) -> dict[str, Any]:
    """What a script of js/ printed."""
    env = {
        "BASE": f"http://127.0.0.1:{clients.server.port}",
        "KEY": clients.key,
        "SLOW": f"http://127.0.0.1:{slow.server.port}",
        "SLOW_KEY": slow.key,
        "PIXEL": PIXEL,
    }
    return run_script(script, env)


@pytest.fixture(scope="module")
def openai_seen(server: Server, slow_server: Server) -> tuple[dict[str, Any], Clients, Clients]:
    clients, slow = clients_of(server), clients_of(slow_server)
    return run("openai.mjs", clients, slow), clients, slow


@pytest.fixture(scope="module")
def anthropic_seen(server: Server, slow_server: Server) -> tuple[dict[str, Any], Clients, Clients]:
    clients, slow = clients_of(server), clients_of(slow_server)
    return run("anthropic.mjs", clients, slow), clients, slow


Seen = tuple[dict[str, Any], Clients, Clients]


def test_openai_answers_streams_and_counts(openai_seen: Seen) -> None:
    seen, _, _ = openai_seen
    assert "hello" in seen["chat"]["text"]
    assert (seen["chat"]["reason"], seen["chat"]["usage"]["completion_tokens"] > 0) == ("stop", True)
    assert "hello" in seen["chatStream"]["text"]
    assert seen["chatStream"]["usage"]["total_tokens"] > 0
    assert "hello" in seen["response"]["text"]
    assert seen["response"]["status"] == "completed"
    assert seen["responseEvents"][0] == "response.created"
    assert seen["responseEvents"][-1] == "response.completed"
    assert "2 image" in seen["image"]
    assert {CLAUDE, CODEX} <= set(seen["models"])


def test_openai_parses_answers_with_a_schema(openai_seen: Seen) -> None:
    seen, _, _ = openai_seen
    for parsed in (seen["chatParsed"], seen["responseParsed"]):
        assert set(parsed) == {"city", "country"}


def test_openai_raises_its_own_errors_and_pays_once(openai_seen: Seen) -> None:
    seen, clients, _ = openai_seen
    errors = seen["errors"]
    assert {name: (error["name"], error["status"]) for name, error in errors.items() if name != "timeout"} == {
        "authentication": ("AuthenticationError", 401),
        "badRequest": ("BadRequestError", 400),
        "notFound": ("NotFoundError", 404),
        "server": ("BadRequestError", 400),
    }
    assert errors["server"]["code"] == "output_mismatch"
    assert "n: one answer" in errors["badRequest"]["message"]
    assert [row["code"] for row in clients.log()].count("output_mismatch") == 1
    assert errors["timeout"]["name"] == "APIConnectionTimeoutError"


def test_openai_stops_the_run_when_it_gives_up_or_closes_the_stream(openai_seen: Seen) -> None:
    _, _, slow = openai_seen
    eventually(lambda: slow.runs() == [])
    assert [row["code"] for row in slow.log()] == ["cancelled", "cancelled"]


def test_anthropic_answers_streams_and_counts(anthropic_seen: Seen) -> None:
    seen, _, _ = anthropic_seen
    assert "hello" in seen["message"]["text"]
    assert (seen["message"]["reason"], seen["message"]["usage"]["output_tokens"] > 0) == ("end_turn", True)
    assert "hello" in seen["stream"]["text"]
    assert seen["stream"]["events"][0] == "message_start"
    assert seen["stream"]["events"][-1] == "message_stop"
    assert seen["stream"]["usage"]["input_tokens"] > 0
    assert (seen["stopped"]["reason"], seen["stopped"]["sequence"]) == ("stop_sequence", "simulated")
    assert "2 image" in seen["image"]
    assert seen["tokens"] >= 1
    assert {CLAUDE, CODEX} <= set(seen["models"])


def test_anthropic_parses_answers_with_a_schema(anthropic_seen: Seen) -> None:
    assert set(anthropic_seen[0]["parsed"]) == {"city", "country"}


def test_anthropic_raises_its_own_errors_and_pays_once(anthropic_seen: Seen) -> None:
    seen, clients, _ = anthropic_seen
    errors = seen["errors"]
    assert {name: (error["name"], error["status"]) for name, error in errors.items() if name != "timeout"} == {
        "authentication": ("AuthenticationError", 401),
        "badRequest": ("BadRequestError", 400),
        "notFound": ("NotFoundError", 404),
        "server": ("BadRequestError", 400),
    }
    assert "output_mismatch" in errors["server"]["message"]
    assert [row["code"] for row in clients.log()].count("output_mismatch") == 1
    assert errors["timeout"]["name"] == "APIConnectionTimeoutError"


def test_anthropic_stops_the_run_when_it_gives_up_or_closes_the_stream(anthropic_seen: Seen) -> None:
    _, _, slow = anthropic_seen
    eventually(lambda: slow.runs() == [])
    assert [row["code"] for row in slow.log()] == ["cancelled", "cancelled"]


@pytest.fixture(scope="module")
def vercel_seen(server: Server, slow_server: Server) -> tuple[dict[str, Any], Clients]:
    clients = clients_of(server)
    return run("vercel.mjs", clients, clients_of(slow_server)), clients


def test_a_second_turn_of_vercels_ai_sdk_works(vercel_seen: tuple[dict[str, Any], Clients]) -> None:
    seen, _ = vercel_seen
    assert "item_reference" in json.dumps(seen["responsesAgain"]["sent"])
    for name in ("responsesAgain", "chatAgain"):
        assert "hello again" in seen[name]["text"]
        assert "x-bridge-ignored" not in seen[name]["headers"]


def test_vercels_ai_sdk_works_with_every_api(vercel_seen: tuple[dict[str, Any], Clients]) -> None:
    seen, clients = vercel_seen
    for api in ("responses", "chat", "messages"):
        assert "hello" in seen[api]["text"], api
        assert "hello" in seen[api]["streamed"], api
        assert (seen[api]["reason"], seen[api]["usage"]["outputTokens"] > 0) == ("stop", True)
        assert set(seen[api]["object"]) == {"city", "country"}
    assert (seen["error"]["name"], seen["error"]["status"]) == ("AI_APICallError", 404)
    assert {row["api"] for row in clients.log()} == {"openai-chat", "openai-responses", "anthropic"}


@pytest.fixture(scope="module")
def tools_seen(server: Server, slow_server: Server) -> dict[str, Any]:
    return run("tools.mjs", clients_of(server), clients_of(slow_server))


@pytest.mark.parametrize("model", [CLAUDE, CODEX])
def test_the_helpers_of_the_official_packages_run_tools(tools_seen: dict[str, Any], model: str) -> None:
    seen = tools_seen[model]
    for helper in ("runTools", "runToolsStream", "toolRunner", "toolRunnerStream"):
        assert seen[helper]["asked"] == ["demo"], helper
        assert "sunny" in seen[helper]["text"], helper
    assert seen["parsed"] == {"city": "demo"}


@pytest.mark.parametrize("way", ["responses", "responsesOfClaude", "chat", "messages", "messagesOfCodex"])
def test_vercels_ai_sdk_runs_tools_in_several_steps(tools_seen: dict[str, Any], way: str) -> None:
    seen = tools_seen[way]
    assert (seen["asked"], seen["steps"]) == (["demo", "demo"], 2)
    assert "sunny" in seen["text"]
    assert "sunny" in seen["streamed"]
    assert "hello again" in seen["again"]
    assert seen["object"] == {"city": "demo"}
    assert seen["must"] == ["get_weather"]


def test_a_custom_tool_of_vercels_ai_sdk_is_called_and_its_call_is_referred_to(tools_seen: dict[str, Any]) -> None:
    assert len(tools_seen["custom"]) == 4
    for each in tools_seen["custom"]:
        assert (each["input"], each["over"]) == ("demo", "")
        assert "it ran" in each["text"]
        kinds = [item.get("type") for item in each["sent"]["input"]]
        assert "item_reference" in kinds
        assert "custom_tool_call" not in kinds
