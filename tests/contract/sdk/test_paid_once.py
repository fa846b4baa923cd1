"""What was paid is not paid again: clients with the retries that they come with, and the calls that arrive upstream."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anthropic
import openai
import pytest

from tests.contract.sdk.conftest import BOTH_CLIS, CLAUDE, CODEX, City, Clients, eventually
from tests.contract.sdk.install import run_script
from tests.standin import StandIn

#: What the SDKs come with.
RETRIES = 2
SCHEMA = {**City.model_json_schema(), "additionalProperties": False}


def by_chat(clients: Clients, model: str, prompt: str, schema: bool = False) -> Any:
    form = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA}}
    client = clients.openai(max_retries=RETRIES)
    messages: Any = [{"role": "user", "content": prompt}]
    return client.chat.completions.create(
        model=model, messages=messages, extra_body={"response_format": form if schema else None}
    )


def by_responses(clients: Clients, model: str, prompt: str, schema: bool = False) -> Any:
    form = {"format": {"type": "json_schema", "name": "city", "schema": SCHEMA}}
    client = clients.openai(max_retries=RETRIES)
    return client.responses.create(model=model, input=prompt, extra_body={"text": form if schema else None})


def by_messages(clients: Clients, model: str, prompt: str, schema: bool = False) -> Any:
    form = {"format": {"type": "json_schema", "schema": SCHEMA}}
    client = clients.anthropic(max_retries=RETRIES)
    messages: Any = [{"role": "user", "content": prompt}]
    return client.messages.create(
        model=model, max_tokens=2000, messages=messages, extra_body={"output_config": form if schema else None}
    )


Ask = Callable[..., Any]
EVERY_API = pytest.mark.parametrize(
    ("ask", "sdk"), [(by_chat, openai), (by_responses, openai), (by_messages, anthropic)]
)


@BOTH_CLIS
@EVERY_API
def test_a_refusal_is_an_answer_in_the_words_of_each_api(
    real: Clients, standin: StandIn, model: str, ask: Ask, sdk: Any
) -> None:
    answer = ask(real, model, "[[standin mode=refusal]] x")
    if ask is by_chat:
        assert answer.choices[0].finish_reason == "content_filter"
        assert (answer.choices[0].message.content, bool(answer.choices[0].message.refusal)) == (None, True)
    elif ask is by_responses:
        assert (answer.status, answer.output[0].content[0].type, answer.output_text) == ("completed", "refusal", "")
    else:
        assert (answer.stop_reason, answer.content, answer.stop_details.type) == ("refusal", [], "refusal")
    assert len(standin.generations) == 1


@BOTH_CLIS
@EVERY_API
def test_an_empty_answer_is_an_answer(real: Clients, standin: StandIn, model: str, ask: Ask, sdk: Any) -> None:
    answer = ask(real, model, "[[standin mode=empty]] x")
    if ask is by_chat:
        assert (answer.choices[0].finish_reason, answer.choices[0].message.content) == ("stop", "")
    elif ask is by_responses:
        assert (answer.status, answer.output_text) == ("completed", "")
    else:
        assert (answer.stop_reason, answer.content) == ("end_turn", [])
    assert answer.usage is not None
    assert len(standin.generations) == 1


@BOTH_CLIS
@EVERY_API
def test_a_schema_that_is_missed_twice_is_two_calls(
    real: Clients, standin: StandIn, model: str, ask: Ask, sdk: Any
) -> None:
    standin.script(schema_bad=1)
    try:
        with pytest.raises(sdk.BadRequestError) as caught:
            ask(real, model, "x", schema=True)
    finally:
        standin.script()
    body = caught.value.body
    assert (body.get("error") or body)["code"] == "output_mismatch"
    assert (body.get("error") or body)["text"]
    assert len(standin.generations) == 2
    assert [row["status"] for row in real.log()] == [400]


@EVERY_API
def test_a_run_that_the_admin_stops_is_not_begun_again(real: Clients, standin: StandIn, ask: Ask, sdk: Any) -> None:
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, real, CODEX, "[[standin mode=hang_mid]] x")
        eventually(lambda: len(standin.generations) == 1)
        for run in real.runs():
            real.server.admin("DELETE", f"/runs/{run['id']}")
        with pytest.raises(sdk.PermissionDeniedError) as caught:
            asked.result(60)
    body = caught.value.body
    assert (body.get("error") or body)["code"] == "cancelled"
    assert len(standin.generations) == 1


@BOTH_CLIS
@EVERY_API
@pytest.mark.parametrize("mode", ["stream_error", "stream_rate_limit"])
def test_an_answer_that_the_provider_breaks_off_with_an_error_is_not_begun_again(
    real: Clients, standin: StandIn, model: str, ask: Ask, sdk: Any, mode: str
) -> None:
    with pytest.raises(sdk.BadRequestError) as caught:
        ask(real, model, f"[[standin mode={mode}]] x")
    body = caught.value.body
    assert (body.get("error") or body)["code"] == "provider_broke_off"
    assert len(standin.generations) == 1
    assert [(row["status"], row["costUsd"] > 0) for row in real.log()] == [(400, True)]


@pytest.mark.parametrize("what", ["refusal", "empty", "mismatch", "broken off"])
@pytest.mark.parametrize("client", ["openai", "anthropic", "vercel", "vercelAnthropic", "langchain"])
def test_no_client_in_javascript_pays_again(real: Clients, standin: StandIn, client: str, what: str) -> None:
    # Of another model than Claude's, the AI SDK asks Anthropic's API for JSON by a tool.
    model = CLAUDE if what == "refusal" or client == "vercelAnthropic" else CODEX
    if what == "mismatch":
        standin.script(schema_bad=1)
    try:
        mode = what.replace("broken off", "stream_error")
        prompt = "x" if what == "mismatch" else f"[[standin mode={mode}]] x"
        given = {"CLIENT": client, "MODEL": model, "PROMPT": prompt, "SCHEMA": json.dumps(SCHEMA)}
        given["WITH_SCHEMA"] = "1" if what == "mismatch" else ""
        seen = run_script("paid.mjs", {"BASE": f"http://127.0.0.1:{real.server.port}", "KEY": real.key, **given})
    finally:
        standin.script()
    assert (seen["status"] == 400) is (what in ("mismatch", "broken off")), seen
    assert len(standin.generations) == (2 if what == "mismatch" else 1)
