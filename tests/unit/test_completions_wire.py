"""OpenAI's older completions: a prompt is a user's message, and the answer its text."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bridge.records.jobs import Job
from bridge.types import Answer, Charge, Finished, GenerationRequest, Message, Text, Usage, content_of
from bridge.wire import openai_completions
from tests.unit.test_parameters import parse, refusal

USAGE = Usage(10, output_tokens=3)


@pytest.mark.parametrize("prompt", ["hello", ["hello"]])
def test_the_prompt_is_a_users_message(prompt: Any) -> None:
    assert parse("completions", prompt=prompt, max_tokens=7, stop="x") == GenerationRequest(
        provider="codex",
        model="gpt-6-sol",
        messages=(Message("user", (Text("hello"),)),),
        max_output_tokens=7,
        stop=("x",),
        api="openai-completions",
    )
    assert parse("completions").max_output_tokens == 8192


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"prompt": ["a", "b"]}, "one text"),
        ({"prompt": [1, 2, 3]}, "one text"),
        ({"prompt": [[1, 2]]}, "one text"),
        ({"prompt": []}, "one text"),
        ({"prompt": " "}, "empty"),
        ({"echo": True}, "echo: "),
        ({"suffix": "x"}, "suffix: "),
        ({"n": 2}, "n: "),
        ({"best_of": 2}, "best_of: "),
        ({"max_tokens": 0}, "max_tokens"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_sentence(fields: dict[str, Any], says: str) -> None:
    assert says in refusal("completions", **fields).message


def ended(text: str, reason: str, refusal: str | None = None) -> Job:
    answer = Answer(content_of(text), "the-model", reason, USAGE, refusal=refusal)
    finished = Finished(answer, Charge(USAGE, 5), 10)
    return Job("run_0123", "ada", 1000.5, parse("completions"), finished=finished)


@pytest.mark.parametrize(("reason", "end"), [("end_turn", "stop"), ("stop_sequence", "stop"), ("max_tokens", "length")])
def test_an_answer_is_its_text_and_why_it_ended(reason: str, end: str) -> None:
    job = ended("hi", reason)
    assert job.finished is not None
    body = openai_completions.render_answer(job, job.finished)
    assert (body["id"], body["object"], body["created"]) == ("cmpl-0123", "text_completion", 1000)
    assert body["choices"] == [{"text": "hi", "finish_reason": end, "index": 0, "logprobs": None}]
    assert body["usage"]["total_tokens"] == 13


def test_a_refusal_is_told_in_its_place() -> None:
    job = ended("", "refusal", "I cannot.")
    assert job.finished is not None
    (choice,) = openai_completions.render_answer(job, job.finished)["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("I cannot.", "content_filter")
    assert '"text":"I cannot."' in b"".join(openai_completions.render_events(job, "req_1")).decode()


def test_a_stream_brings_the_text_the_reason_and_the_usage() -> None:
    events = list(openai_completions.render_events(ended("hi", "end_turn"), "req_1", with_usage=True))
    assert events.pop() == b"data: [DONE]\n\n"
    chunks = [json.loads(event.removeprefix(b"data: ")) for event in events]
    assert [chunk["choices"][0]["text"] for chunk in chunks[:-1]] == ["hi", ""]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None, "stop"]
    assert (chunks[-1]["choices"], chunks[-1]["usage"]["prompt_tokens"]) == ([], 10)
