"""Retries with an Idempotency-Key: the second try gets the first answer and spends nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from tests.contract.sdk.conftest import CLAUDE, CODEX, HELLO, Clients, clients_of, eventually
from tests.support import server as servers

ONCE = {"Idempotency-Key": "once"}


def ask(clients: Clients, api: str, prompt: str = "hello", **options: Any) -> str:
    """One request with an Idempotency-Key; the text of its answer."""
    client = {"max_retries": options.pop("max_retries", 0), "timeout": options.pop("timeout", 60)}
    messages: list[Any] = [{"role": "user", "content": prompt}]
    if api == "messages":
        message = clients.anthropic(**client).messages.create(
            model=CLAUDE, max_tokens=300, messages=messages, extra_headers=ONCE
        )
        assert message.content[0].type == "text"
        return message.id + message.content[0].text
    if api == "chat":
        chat = clients.openai(**client).chat.completions.create(model=CODEX, messages=messages, extra_headers=ONCE)
        return chat.id + (chat.choices[0].message.content or "")
    response = clients.openai(**client).responses.create(model=CODEX, input=prompt, extra_headers=ONCE)
    return response.id + response.output_text


EVERY_API = pytest.mark.parametrize(
    ("api", "conflict"),
    [("chat", openai.ConflictError), ("responses", openai.ConflictError), ("messages", anthropic.ConflictError)],
)


@EVERY_API
def test_the_same_request_again_gets_the_first_answer_and_spends_nothing(
    clients: Clients, api: str, conflict: Any
) -> None:
    assert ask(clients, api) == ask(clients, api)
    assert len(clients.log()) == 1
    with pytest.raises(conflict) as caught:
        ask(clients, api, "something else", max_retries=3)
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert len(clients.log()) == 1


def test_a_stream_can_be_repeated_too(clients: Clients) -> None:
    client = clients.openai()
    texts = []
    for _ in range(2):
        stream = client.chat.completions.create(model=CODEX, messages=HELLO, stream=True, extra_headers=ONCE)
        texts.append("".join(choice.delta.content or "" for chunk in stream for choice in chunk.choices))
    assert texts[0] == texts[1]
    assert "hello" in texts[0]
    assert len(clients.log()) == 1


@pytest.fixture(scope="module")
def unhurried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    """One whose answers take about three seconds."""
    env = {"DEMO_PACE_SECONDS": "0.12", "DEMO_WARM": "2"}
    with servers.running(tmp_path_factory.mktemp("unhurried"), env, demo=True) as running:
        yield running


@EVERY_API
def test_an_sdk_that_gives_up_too_early_gets_the_answer_it_paid_for_by_its_retries(
    unhurried: servers.Server, api: str, conflict: Any
) -> None:
    clients = clients_of(unhurried)
    assert "hello" in ask(clients, api, timeout=1.5, max_retries=20)
    (row,) = [row for row in clients.log() if row["status"] == 200]
    usage = clients.server.call("GET", "/me", key=clients.key).json["usage"]
    assert usage["today"]["requests"] == 1
    assert usage["today"]["costUsd"] == pytest.approx(row["costUsd"])


def test_a_job_of_an_sdk_is_fetched_in_the_shape_of_its_api(clients: Clients) -> None:
    raw = clients.anthropic().messages.with_raw_response.create(
        model=CLAUDE, max_tokens=300, messages=HELLO, extra_headers={"Prefer": "respond-async"}
    )
    assert raw.status_code == 202
    place = raw.headers["location"]

    def job() -> Any:
        return clients.server.call("GET", f"{place}?wait=20", key=clients.key).json

    eventually(lambda: job()["status"] == "done")
    message = anthropic.types.Message.model_validate(job()["result"])
    assert message.content[0].type == "text"
    assert "hello" in message.content[0].text


@EVERY_API
def test_what_is_kept_survives_a_restart_in_the_shape_of_its_api(tmp_path: Path, api: str, conflict: Any) -> None:
    with servers.running(tmp_path, demo=True) as server:
        clients = clients_of(server)
        first = ask(clients, api)
    with servers.running(tmp_path, demo=True) as again:
        later = Clients(again, clients.key, clients.name)
        assert ask(later, api) == first
        assert len(later.log()) == 1


def test_a_repeated_request_is_told_what_was_passed_over_the_first_time(tmp_path: Path) -> None:
    turns: list[Any] = [{"role": "user", "content": "one"}, {}, {"role": "user", "content": "two"}]

    def ask_again(clients: Clients, name: str) -> tuple[str, str]:
        told = clients.openai().responses.with_raw_response.create(
            model=CODEX, input=turns, temperature=0.5, extra_headers={"Idempotency-Key": name}
        )
        return told.parse().id, told.headers["x-bridge-ignored"]

    with servers.running(tmp_path, demo=True) as server:
        clients = clients_of(server)
        earlier = clients.openai().responses.create(model=CODEX, input="one").output[0]
        turns[1] = {"type": "item_reference", "id": earlier.id}
        first = ask_again(clients, "once")
        assert ask_again(clients, "once") == first
    with servers.running(tmp_path, demo=True) as again:
        # The answer that it refers to is forgotten by now.
        later = Clients(again, clients.key, clients.name)
        assert ask_again(later, "once") == first
        assert (first[1], ask_again(later, "another")[1]) == ("temperature", "item_reference, temperature")
