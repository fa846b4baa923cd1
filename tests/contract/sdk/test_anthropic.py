"""Anthropic's Python SDK: what a script does with it works here by changing base URL and key."""

from __future__ import annotations

import asyncio
from typing import Any

import anthropic
import pytest

from tests.contract.sdk.conftest import BOTH_CLIS, CLAUDE, CODEX, HELLO, PIXEL, City, Clients

ASK: dict[str, Any] = {"model": CLAUDE, "max_tokens": 500, "messages": HELLO}


@BOTH_CLIS
def test_a_message_answers_and_counts(clients: Clients, model: str) -> None:
    answer = clients.anthropic().messages.create(
        model=model,
        max_tokens=500,
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        messages=[{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
        metadata={"user_id": "ada"},
        output_config={"effort": "low"},
    )
    assert answer.content[0].type == "text"
    assert "hello" in answer.content[0].text
    assert (answer.stop_reason, answer.stop_sequence, answer.model) == ("end_turn", None, model)
    assert answer.usage.input_tokens > 0
    assert answer.usage.cache_read_input_tokens == answer.usage.cache_creation_input_tokens == 0
    (row,) = clients.log()
    assert (row["api"], row["model"], row["systemPrompt"]) == ("anthropic", model, "Be brief.")
    assert row["id"].removeprefix("run_") == answer.id.removeprefix("msg_")


@pytest.mark.parametrize("sent_as", ["api_key", "auth_token"])
def test_both_ways_of_sending_a_key_work(clients: Clients, sent_as: str) -> None:
    client = clients.anthropic(**{"api_key": None, sent_as: clients.key})
    assert client.messages.create(**ASK).content


def test_a_stream_has_the_official_events_and_folds_to_the_answer(clients: Clients) -> None:
    events = list(clients.anthropic().messages.create(**ASK, stream=True))
    kinds = [event.type for event in events]
    deltas = kinds.count("content_block_delta")
    assert deltas >= 1
    assert kinds == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * deltas,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    with clients.anthropic().messages.stream(**ASK) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert "hello" in text
    assert final.content[0].type == "text"
    assert final.content[0].text == text
    assert final.stop_reason == "end_turn"
    assert final.usage.input_tokens > 0
    assert final.usage.output_tokens > 1


def test_an_answer_that_is_cut_says_max_tokens(clients: Clients) -> None:
    answer = clients.anthropic().messages.create(**{**ASK, "max_tokens": 5})
    assert (answer.stop_reason, answer.usage.output_tokens) == ("max_tokens", 5)


def test_asking_for_more_than_the_bridge_allows_is_no_error(clients: Clients) -> None:
    assert clients.anthropic(timeout=60).messages.create(**{**ASK, "max_tokens": 128_000}).stop_reason == "end_turn"


def test_images_and_a_whole_conversation_arrive(clients: Clients) -> None:
    source: Any = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    answer = clients.anthropic().messages.create(
        model=CODEX,
        max_tokens=500,
        messages=[
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "two"},
            {"role": "user", "content": [{"type": "image", "source": source}, {"type": "text", "text": "three"}]},
        ],
    )
    assert answer.content[0].type == "text"
    assert "1 image" in answer.content[0].text
    assert clients.log()[0]["userPrompt"] == "three"


def test_an_earlier_answer_can_be_sent_back_as_it_came(clients: Clients) -> None:
    client = clients.anthropic()
    first = client.messages.create(**ASK)
    turns: list[Any] = [*HELLO, {"role": "assistant", "content": first.content}, {"role": "user", "content": "now?"}]
    again = client.messages.create(**{**ASK, "messages": turns})
    assert again.content[0].type == "text"
    assert "now?" in again.content[0].text


@BOTH_CLIS
def test_answers_with_a_schema_are_parsed(clients: Clients, model: str) -> None:
    client = clients.anthropic()
    ask = {**ASK, "model": model}
    assert isinstance(client.messages.parse(**ask, output_format=City).parsed_output, City)
    form: Any = {"type": "json_schema", "schema": City.model_json_schema()}
    raw = client.messages.create(**ask, output_config={"format": form})
    assert raw.content[0].type == "text"
    City.model_validate_json(raw.content[0].text)
    assert isinstance(client.beta.messages.parse(**ask, output_format=City).parsed_output, City)
    with client.messages.stream(**ask, output_format=City) as stream:
        assert isinstance(stream.get_final_message().parsed_output, City)


def test_everything_works_asynchronously_too(clients: Clients) -> None:
    async def ask() -> tuple[str, str]:
        async with clients.anthropic_async() as client:
            answer = await client.messages.create(**ASK)
            async with client.messages.stream(**{**ASK, "model": CODEX}) as stream:
                streamed = "".join([text async for text in stream.text_stream])
        assert answer.content[0].type == "text"
        return answer.content[0].text, streamed

    assert all("hello" in text for text in asyncio.run(ask()))


def test_tokens_are_estimated_without_a_run(clients: Clients) -> None:
    client = clients.anthropic()
    short = client.messages.count_tokens(model=CLAUDE, messages=HELLO)
    long = client.messages.count_tokens(
        model=CODEX, messages=[{"role": "user", "content": "word " * 1000}], system="Be brief."
    )
    assert 1 <= short.input_tokens < 20
    assert 800 < long.input_tokens < 2000
    assert clients.log() == []


def test_models_are_listed_in_its_own_shape_and_found(clients: Clients) -> None:
    client = clients.anthropic()
    listed = {model.id: model for model in client.models.list()}
    assert {CLAUDE, CODEX} <= set(listed)
    assert client.models.retrieve(CLAUDE) == listed[CLAUDE]
    with pytest.raises(anthropic.NotFoundError):
        client.models.retrieve("no-such-model")
