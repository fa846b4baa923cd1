"""OpenAI's Python SDK: what a script does with it works here by changing base URL and key."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest

from tests.contract.sdk.conftest import BOTH_CLIS, CLAUDE, CODEX, HELLO, PIXEL, City, Clients

IMAGE = f"data:image/png;base64,{PIXEL}"
SCHEMA = City.model_json_schema()


@BOTH_CLIS
def test_a_chat_completion_answers_and_counts(clients: Clients, model: str) -> None:
    answer = clients.openai().chat.completions.create(
        model=model,
        messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}],
        max_completion_tokens=500,
        reasoning_effort="low",
        user="ada",
        metadata={"for": "a test"},
    )
    assert "hello" in (answer.choices[0].message.content or "")
    assert (answer.choices[0].finish_reason, answer.model) == ("stop", model)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 0
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.completion_tokens_details is not None
    (row,) = clients.log()
    assert (row["api"], row["model"], row["systemPrompt"]) == ("openai-chat", model, "Be brief.")
    assert row["provider"] == ("claude" if model == CLAUDE else "codex")
    assert row["id"].removeprefix("run_") == answer.id.removeprefix("chatcmpl-")


def test_the_headers_say_what_it_cost_and_what_is_left(clients: Clients) -> None:
    raw = clients.openai().chat.completions.with_raw_response.create(model=CODEX, messages=HELLO)
    assert float(raw.headers["x-bridge-cost-usd"]) == clients.log()[0]["costUsd"] > 0
    assert raw.request_id == raw.headers["x-request-id"]


@pytest.mark.parametrize("with_usage", [False, True])
def test_a_chat_stream_brings_pieces_a_reason_and_the_usage_if_it_is_wanted(clients: Clients, with_usage: bool) -> None:
    options = {"stream_options": {"include_usage": True}} if with_usage else {}
    stream = clients.openai().chat.completions.create(model=CLAUDE, messages=HELLO, stream=True, **options)  # type: ignore[call-overload]
    chunks = list(stream)
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert choices[0].delta.role == "assistant"
    assert "hello" in "".join(choice.delta.content or "" for choice in choices)
    assert [choice.finish_reason for choice in choices if choice.finish_reason] == ["stop"]
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [with_usage]
    assert len({chunk.id for chunk in chunks}) == 1
    assert clients.log()[0]["stream"] is True


def test_the_stream_helper_of_chat_folds_to_the_same_answer(clients: Clients) -> None:
    with clients.openai().chat.completions.stream(model=CODEX, messages=HELLO) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert "hello" in (final.choices[0].message.content or "")


def test_an_answer_that_is_cut_says_length(clients: Clients) -> None:
    client = clients.openai()
    for limit in ({"max_tokens": 5}, {"max_completion_tokens": 5}):
        chat = client.chat.completions.create(model=CLAUDE, messages=HELLO, **limit)  # type: ignore[call-overload]
        assert chat.choices[0].finish_reason == "length"
        assert chat.usage.completion_tokens == 5
    response = client.responses.create(model=CLAUDE, input="hello", max_output_tokens=5)
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"


def test_images_and_a_whole_conversation_arrive(clients: Clients) -> None:
    client = clients.openai()
    chat = client.chat.completions.create(
        model=CLAUDE,
        messages=[
            {"role": "developer", "content": [{"type": "text", "text": "Look closely."}]},
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "two"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "three"},
                    {"type": "image_url", "image_url": {"url": IMAGE, "detail": "low"}},
                ],
            },
        ],
    )
    assert "1 image" in (chat.choices[0].message.content or "")
    response = client.responses.create(
        model=CLAUDE,
        input=[
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "two"},
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "three"},
                    {"type": "input_image", "image_url": IMAGE, "detail": "auto"},
                ],
            },
        ],
    )
    assert "1 image" in response.output_text
    assert [row["userPrompt"] for row in clients.log()] == ["three", "three"]


def test_an_earlier_answer_can_be_sent_back_as_it_came(clients: Clients) -> None:
    client = clients.openai()
    chat = client.chat.completions.create(model=CODEX, messages=HELLO)
    said = chat.choices[0].message
    again = client.chat.completions.create(
        model=CODEX,
        messages=[*HELLO, said, {"role": "user", "content": "and now?"}],  # type: ignore[list-item]
    )
    assert "and now?" in (again.choices[0].message.content or "")
    response = client.responses.create(model=CODEX, input="hello")
    items = [*HELLO, *response.output, {"role": "user", "content": "and now?"}]
    assert "and now?" in client.responses.create(model=CODEX, input=items).output_text


@BOTH_CLIS
def test_answers_with_a_schema_are_parsed(clients: Clients, model: str) -> None:
    client = clients.openai()
    chat = client.chat.completions.parse(model=model, messages=HELLO, response_format=City)
    assert isinstance(chat.choices[0].message.parsed, City)
    response = client.responses.parse(model=model, input="hello", text_format=City)
    assert isinstance(response.output_parsed, City)
    with client.responses.stream(model=model, input="hello", text_format=City) as stream:
        assert [event.type for event in stream][-1] == "response.completed"
        assert isinstance(stream.get_final_response().output_parsed, City)


def test_an_answer_can_be_asked_to_be_json_without_a_schema(clients: Clients) -> None:
    client = clients.openai()
    chat = client.chat.completions.create(model=CODEX, messages=HELLO, response_format={"type": "json_object"})
    assert isinstance(json.loads(chat.choices[0].message.content or ""), dict)
    response = client.responses.create(model=CODEX, input="hello", text={"format": {"type": "json_object"}})
    assert isinstance(json.loads(response.output_text), dict)


@BOTH_CLIS
def test_a_response_answers_and_counts(clients: Clients, model: str) -> None:
    response = clients.openai().responses.create(
        model=model, input="hello", instructions="Be brief.", reasoning={"effort": "none"}, store=False
    )
    assert "hello" in response.output_text
    assert (response.status, response.model) == ("completed", model)
    assert response.usage is not None
    assert response.usage.input_tokens > 0
    (row,) = clients.log()
    assert (row["api"], row["systemPrompt"]) == ("openai-responses", "Be brief.")


def test_a_response_streams(clients: Clients) -> None:
    events = list(clients.openai().responses.create(model=CLAUDE, input="hello", stream=True))
    kinds = [event.type for event in events]
    deltas = kinds.count("response.output_text.delta")
    assert deltas >= 1
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * deltas,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))


def test_everything_works_asynchronously_too(clients: Clients) -> None:
    async def ask() -> tuple[str, str, str]:
        async with clients.openai_async() as client:
            chat = client.chat.completions.create(model=CLAUDE, messages=HELLO)
            response = client.responses.create(model=CODEX, input="hello")
            answers = await asyncio.gather(chat, response)
            pieces = []
            async for chunk in await client.chat.completions.create(model=CLAUDE, messages=HELLO, stream=True):
                pieces += [choice.delta.content or "" for choice in chunk.choices]
        return answers[0].choices[0].message.content or "", answers[1].output_text, "".join(pieces)

    assert all("hello" in text for text in asyncio.run(ask()))


def test_models_are_listed_with_their_prices_and_found(clients: Clients) -> None:
    client = clients.openai()
    listed = {model.id: model for model in client.models.list()}
    assert {CLAUDE, CODEX, "o3", "sonnet"} <= set(listed)
    assert listed[CODEX].model_extra is not None
    assert listed[CODEX].model_extra["pricing"]["output"] == 10
    assert client.models.retrieve(CODEX) == listed[CODEX]
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no-such-model")


@BOTH_CLIS
def test_the_older_completions_answer_and_stream(clients: Clients, model: str) -> None:
    client = clients.openai()
    answer = client.completions.create(model=model, prompt="hello")
    assert "hello" in answer.choices[0].text
    assert (answer.choices[0].finish_reason, answer.object) == ("stop", "text_completion")
    chunks = list(client.completions.create(model=model, prompt="hello", stream=True, max_tokens=5))
    assert "".join(chunk.choices[0].text for chunk in chunks).startswith("[demo answer")
    assert chunks[-1].choices[0].finish_reason == "length"


def test_tokens_are_estimated_without_a_run(clients: Clients) -> None:
    count = clients.openai().responses.input_tokens.count
    short = count(model=CODEX, input="hello")
    long = count(model=CLAUDE, input=[{"role": "user", "content": "word " * 1000}], instructions="Be brief.")
    tools = count(
        model=CODEX, input="hello", tools=[{"type": "function", "name": "see", "parameters": SCHEMA, "strict": False}]
    )
    form = count(model=CODEX, input="hello", text={"format": {"type": "json_schema", "name": "city", "schema": SCHEMA}})
    assert short.object == "response.input_tokens"
    assert 1 <= short.input_tokens < 20
    assert 800 < long.input_tokens < 2000
    assert short.input_tokens < min(tools.input_tokens, form.input_tokens)
    assert clients.log() == []


def test_what_a_count_of_tokens_cannot_take_is_told_as_for_a_response(clients: Clients) -> None:
    count = clients.openai().responses.input_tokens.with_raw_response.count
    assert count(model=CODEX, input="hello", personality="friendly").headers["x-bridge-ignored"] == "personality"
    with pytest.raises(openai.NotFoundError, match="nobodys-model"):
        count(model="nobodys-model", input="hello")
    with pytest.raises(openai.BadRequestError, match="resp_1") as refused:
        count(model=CODEX, input="hello", previous_response_id="resp_1")
    assert refused.value.code == "previous_response_not_found"


def test_an_earlier_answer_belongs_to_a_key_and_not_to_its_name(clients: Clients) -> None:
    server, path = clients.server, f"/keys/{clients.name}"
    earlier = clients.openai().responses.create(model=CODEX, input="one").output[0]
    turns: list[Any] = [{"role": "user", "content": "one"}, {"id": earlier.id}, {"role": "user", "content": "two"}]

    def unknown(key: str) -> bool:
        client = Clients(server, key, clients.name).openai()
        told = client.responses.with_raw_response.create(model=CODEX, input=turns)
        return told.headers.get("x-bridge-ignored") == "item_reference"

    rotated = server.admin("POST", f"{path}/rotate", {"graceSeconds": 60}).json["key"]
    assert [unknown(clients.key), unknown(rotated)] == [False, False]
    assert server.admin("DELETE", path).status == 200
    assert unknown(server.new_key(clients.name))
