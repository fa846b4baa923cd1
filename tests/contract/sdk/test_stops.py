"""Stop sequences through the SDKs: the answer ends there, the run is stopped, and what was used is charged."""

from __future__ import annotations

import pytest

from tests.contract.sdk.conftest import BOTH_CLIS, CLAUDE, HELLO, Clients, eventually

#: Words of the simulated CLI's answer, in the middle of it.
WORD = "simulated"


@BOTH_CLIS
def test_an_answer_ends_before_the_stop_sequence(clients: Clients, model: str) -> None:
    chat = clients.openai().chat.completions.create(model=model, messages=HELLO, stop=[WORD, "never"])
    text = chat.choices[0].message.content or ""
    assert text.endswith("a small ")
    assert chat.choices[0].finish_reason == "stop"
    assert chat.usage is not None
    assert chat.usage.completion_tokens > 0
    message = clients.anthropic().messages.create(
        model=model, max_tokens=500, messages=HELLO, stop_sequences=["never", WORD]
    )
    assert message.content[0].type == "text"
    assert message.content[0].text == text
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", WORD)
    for row in clients.log():
        assert (row["status"], row["stopReason"], row["assumed"]) == (200, "stop_sequence", True)
        assert row["costUsd"] > 0


def test_a_stream_ends_there_too_and_shows_nothing_of_it(clients: Clients) -> None:
    stream = clients.openai().chat.completions.create(model=CLAUDE, messages=HELLO, stop=WORD, stream=True)
    text = "".join(choice.delta.content or "" for chunk in stream for choice in chunk.choices)
    assert text.endswith("a small ")
    with clients.anthropic().messages.stream(
        model=CLAUDE, max_tokens=500, messages=HELLO, stop_sequences=[WORD]
    ) as messages:
        assert "".join(messages.text_stream) == text
        assert messages.get_final_message().stop_sequence == WORD


def test_a_sequence_that_does_not_come_changes_nothing(clients: Clients) -> None:
    client = clients.openai()
    plain, with_stop = (
        client.chat.completions.create(model=CLAUDE, messages=HELLO, stop=stop).choices[0]
        for stop in (None, "answers!")
    )
    assert with_stop.message.content == plain.message.content
    assert with_stop.finish_reason == "stop"
    assert not clients.log()[0]["assumed"]


@pytest.mark.parametrize("stop", ["You wrote", "[demo"])
def test_the_run_is_stopped_upstream_long_before_its_end(slow: Clients, stop: str) -> None:
    slow.openai(timeout=5).chat.completions.create(model=CLAUDE, messages=HELLO, stop=stop)
    eventually(lambda: slow.runs() == [])
    assert slow.log()[0]["durationMs"] < 5000
