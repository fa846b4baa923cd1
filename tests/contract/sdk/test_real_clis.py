"""Both SDKs through the real CLIs to the loopback stand-in of the model APIs: what was asked for arrives there."""

from __future__ import annotations

from typing import Any

import anthropic
import openai
import pytest

from tests.contract.sdk.conftest import BOTH_CLIS, CLAUDE, CODEX, PIXEL, City, Clients, clients_of, eventually
from tests.contract.sdk.test_shapes import check, stream_of
from tests.real_cli.conftest import everything, system_texts, texts
from tests.standin import StandIn, encode_calls, encode_text
from tests.standin.links import links_in
from tests.support.server import Server

IMAGE = f"data:image/png;base64,{PIXEL}"


@BOTH_CLIS
def test_a_conversation_with_an_image_arrives_as_it_was_sent(real: Clients, standin: StandIn, model: str) -> None:
    answer = real.openai().chat.completions.create(
        model=model,
        reasoning_effort="low",
        messages=[
            {"role": "system", "content": "SYSTEM-4711"},
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "two"},
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": IMAGE}}, {"type": "text", "text": "three"}],
            },
        ],
    )
    assert answer.choices[0].message.content == "ECHO<three>"
    (sent,) = standin.generations
    assert texts(sent) == [("user", "one"), ("assistant", "two"), ("user", "three")]
    assert sum("SYSTEM-4711" in text for text in system_texts(sent)) == 1
    assert PIXEL in everything(sent)
    assert sent.body["model"] == model
    assert not sent.body.get("tools")


@BOTH_CLIS
@pytest.mark.parametrize("stream", [False, True])
def test_a_reference_stands_for_what_the_model_said(real: Clients, standin: StandIn, model: str, stream: bool) -> None:
    client = real.openai()
    if stream:
        with client.responses.stream(model=model, input="one") as events:
            first = events.get_final_response()
    else:
        first = client.responses.create(model=model, input="one")
    turns: list[Any] = [
        {"role": "user", "content": "one"},
        {"type": "item_reference", "id": first.output[-1].id},
        {"role": "user", "content": "two"},
    ]
    counted = client.responses.input_tokens.count(model=model, input=turns)
    told = client.responses.with_raw_response.create(model=model, input=turns)
    assert "x-bridge-ignored" not in told.headers
    assert texts(standin.generations[-1]) == [("user", "one"), ("assistant", "ECHO<one>"), ("user", "two")]
    # What another key got, and what was not to be kept, is nobody's to refer to.
    kept_by_nobody = client.responses.create(model=model, input="one", store=False)
    for asking, id in ((clients_of(real.server).openai(), turns[1]["id"]), (client, kept_by_nobody.output[-1].id)):
        others = [turns[0], {"type": "item_reference", "id": id}, turns[2]]
        refused = asking.responses.with_raw_response.create(model=model, input=others)
        assert refused.headers["x-bridge-ignored"] == "item_reference"
        assert texts(standin.generations[-1]) == [("user", "one"), ("user", "two")]
        assert asking.responses.input_tokens.count(model=model, input=others).input_tokens < counted.input_tokens


@BOTH_CLIS
def test_a_link_to_an_image_arrives_from_every_api(real: Clients, standin: StandIn, model: str) -> None:
    """As the README of openai-python and Anthropic's page on vision have it."""
    link, text = "https://images.example.com/boardwalk.jpg?w=2560", "What is in this image?"
    chat: Any = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": link}}]
    items: Any = [{"type": "input_text", "text": text}, {"type": "input_image", "image_url": link}]
    blocks: Any = [{"type": "image", "source": {"type": "url", "url": link}}, {"type": "text", "text": text}]
    answer = real.openai().chat.completions.create(model=model, messages=[{"role": "user", "content": chat}])
    assert answer.choices[0].message.content == f"ECHO<{text}>"
    response = real.openai().responses.create(model=model, input=[{"role": "user", "content": items}])
    assert response.output_text == f"ECHO<{text}>"
    message = real.anthropic().messages.create(
        model=model, max_tokens=1024, messages=[{"role": "user", "content": blocks}]
    )
    assert message.content[0].type == "text"
    assert message.content[0].text == f"ECHO<{text}>"
    assert [list(links_in(sent.body)) for sent in standin.generations] == [[link]] * 3


NOTHING = {"type": "object", "properties": {}}
CALLS = encode_calls(("find", '{"n": 1}'), ("note", '{"input": "x"}'))
#: what an answer has -> what makes the model give it
ANSWERS = {
    "thoughts": "thinking=1",
    "redacted": "thinking=1 redacted=1",
    "searches": "searches=2",
    "refusal": "mode=refusal deltas=5",
    "limit": "mode=max_tokens",
    "nothing": "mode=empty",
    "everything": f"thinking=1 searches=1 text={encode_text('Look:')} calls={CALLS}",
}


@BOTH_CLIS
@pytest.mark.parametrize("answer", ANSWERS)
def test_whatever_a_model_answers_is_what_the_sdks_know(real_server: Server, model: str, answer: str) -> None:
    clients = clients_of(real_server, webSearch=True)
    turns = [{"role": "user", "content": f"hi [[standin {ANSWERS[answer]}]]"}]
    for path, whole, event, body in (
        (
            "/v1/responses",
            openai.types.responses.Response,
            openai.types.responses.ResponseStreamEvent,
            {
                "input": turns,
                "reasoning": {"effort": "low", "summary": "auto"},
                "tools": [
                    {"type": "function", "name": "find", "parameters": NOTHING},
                    {"type": "custom", "name": "note"},
                    {"type": "web_search"},
                ],
            },
        ),
        (
            "/v1/chat/completions",
            openai.types.chat.ChatCompletion,
            openai.types.chat.ChatCompletionChunk,
            {
                "messages": turns,
                "web_search_options": {},
                "tools": [
                    {"type": "function", "function": {"name": name, "parameters": NOTHING}} for name in ("find", "note")
                ],
            },
        ),
        (
            "/v1/messages",
            anthropic.types.Message,
            anthropic.types.RawMessageStreamEvent,
            {
                "max_tokens": 3000,
                "messages": turns,
                "thinking": {"type": "adaptive", "display": "summarized"},
                "tools": [
                    *({"name": name, "input_schema": NOTHING} for name in ("find", "note")),
                    {"type": "web_search_20250305", "name": "web_search"},
                ],
            },
        ),
    ):
        got = real_server.call("POST", path, {**body, "model": model}, key=clients.key)
        assert got.status == 200, got.body
        check(whole, got.body)
        for _, data in stream_of(clients, path, {**body, "model": model}):
            if data != "[DONE]":
                check(event, data)


@BOTH_CLIS
def test_every_api_streams_and_tells_the_usage_of_the_cli(real: Clients, standin: StandIn, model: str) -> None:
    prompt = "[[standin deltas=5 input=100 output=20 cached=40 reasoning=8 thinking=1]] hi"
    # OpenAI counts what is cached as a part of the input, Anthropic does not.
    fresh = 100 if model == CLAUDE else 60
    chat = list(
        real.openai().chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": prompt}],
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert "".join(c.delta.content or "" for chunk in chat for c in chunk.choices).startswith("ECHO<hi>")
    usage = chat[-1].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (fresh + 40, 20)
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens == 40
    with real.openai().responses.stream(model=model, input=prompt) as stream:
        response = stream.get_final_response()
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens) == (fresh + 40, 20)
    with real.anthropic().messages.stream(
        model=model, max_tokens=500, messages=[{"role": "user", "content": prompt}]
    ) as messages:
        final = messages.get_final_message()
    assert (final.usage.input_tokens, final.usage.cache_read_input_tokens) == (fresh, 40)
    assert final.usage.output_tokens == 20
    assert len(standin.generations) == 3


@BOTH_CLIS
def test_answers_with_a_schema_are_parsed_by_every_helper(real: Clients, model: str) -> None:
    messages: list[Any] = [{"role": "user", "content": "which city?"}]
    chat = real.openai().chat.completions.parse(model=model, messages=messages, response_format=City)
    assert isinstance(chat.choices[0].message.parsed, City)
    response = real.openai().responses.parse(model=model, input="which city?", text_format=City)
    assert isinstance(response.output_parsed, City)
    message = real.anthropic().messages.parse(model=model, max_tokens=500, messages=messages, output_format=City)
    assert isinstance(message.parsed_output, City)


@BOTH_CLIS
def test_a_stop_sequence_stops_the_model_itself(real: Clients, standin: StandIn, model: str) -> None:
    prompt = "[[standin words=400 deltas=400 delay=0.02]] go on"
    message = real.anthropic().messages.create(
        model=model,
        max_tokens=2000,
        messages=[{"role": "user", "content": prompt}],
        stop_sequences=["word word word word word "],
    )
    assert (message.stop_reason, message.content) == ("stop_sequence", [])
    (sent,) = standin.wait(lambda records: all(record.outcome != "open" for record in records))
    # Anthropic's API stops by itself; OpenAI's has no such field, so the bridge ends the call.
    own = sent.body.get("stop_sequences") == ["word word word word word "]
    assert (own, sent.closed_early) in ((True, False), (False, True))
    assert own == model.startswith("claude")
    assert sent.deltas < 400


@BOTH_CLIS
def test_closing_a_stream_stops_the_model_itself(real: Clients, standin: StandIn, model: str) -> None:
    stream = real.openai().chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "[[standin words=400 deltas=400 delay=0.05]] go on"}],
        stream=True,
    )
    for chunk in stream:
        if chunk.choices[0].delta.content:
            break
    stream.close()
    eventually(lambda: real.runs() == [])
    (sent,) = standin.wait(lambda records: all(record.outcome != "open" for record in records))
    assert sent.closed_early


@pytest.mark.parametrize(
    ("directive", "ends"),
    [
        ("status=429 retry_after=100", {(503, "provider_rate_limited")}),
        ("status=401", {(503, "no_credentials")}),
        # claude tells a broken connection now and then as one that fell silent.
        ("mode=cut", {(502, "cli_failed"), (504, "timeout")}),
    ],
)
@BOTH_CLIS
def test_what_goes_wrong_upstream_is_a_server_error(
    real: Clients, model: str, directive: str, ends: set[tuple[int, str]]
) -> None:
    messages: list[Any] = [{"role": "user", "content": f"[[standin {directive}]] x"}]
    with pytest.raises(openai.InternalServerError) as caught:
        real.openai().chat.completions.create(model=model, messages=messages)
    assert (caught.value.status_code, caught.value.code) in ends
    real.server.reset_credentials()
    with pytest.raises(anthropic.InternalServerError) as other:
        real.anthropic().messages.create(model=model, max_tokens=300, messages=messages)
    assert other.value.status_code in {status for status, _ in ends}


def test_claude_is_given_the_longest_answer_and_the_effort(real: Clients, standin: StandIn) -> None:
    real.anthropic().messages.create(
        model=CLAUDE,
        max_tokens=321,
        messages=[{"role": "user", "content": "x"}],
        output_config={"effort": "low"},
    )
    (sent,) = standin.generations
    assert sent.body["max_tokens"] == 321
    assert "low" in everything(sent)


def test_the_other_clis_model_works_in_each_api(real: Clients, standin: StandIn) -> None:
    real.anthropic().messages.create(model=CODEX, max_tokens=300, messages=[{"role": "user", "content": "x"}])
    real.openai().responses.create(model=CLAUDE, input="x")
    assert [record.api for record in standin.generations] == ["openai", "anthropic"]
