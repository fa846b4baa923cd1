"""Conversations as real clients send them reach the model through each API, on both CLIs: every word once."""

from __future__ import annotations

from typing import Any

import pytest

from tests.real_cli.conftest import Rig, everything, system_texts, texts
from tests.server.test_generate import PNG

#: API -> path, the field of its conversation, and what else its body needs
APIS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", "messages", {}),
    "responses": ("/v1/responses", "input", {}),
    "messages": ("/v1/messages", "messages", {"max_tokens": 2000}),
}
EVERY_WAY = pytest.mark.parametrize(
    ("api", "model"), [(api, model) for api in APIS for model in ("claude-sonnet-5-5", "gpt-6-sol")]
)
Turns = list[dict[str, Any]]
ADA: Turns = [
    {"role": "user", "content": "I am Ada."},
    {"role": "assistant", "content": "Hello Ada."},
    {"role": "user", "content": "Who am I?"},
]


def ask(rig: Rig, api: str, model: str, turns: Turns, **more: Any) -> Any:
    path, field, needed = APIS[api]
    answer = rig.ask(path, model=model, **{field: turns}, **needed, **more)
    assert answer.status == 200, answer.body
    (sent,) = rig.standin.generations
    return sent


@EVERY_WAY
@pytest.mark.parametrize("stream", [False, True])
def test_a_system_message_stands_anywhere(rig: Rig, api: str, model: str, stream: bool) -> None:
    sent = ask(rig, api, model, [*ADA, {"role": "system", "content": "SYSTEM-4711"}], stream=stream)
    assert texts(sent) == [(turn["role"], turn["content"]) for turn in ADA]
    assert sum("SYSTEM-4711" in text for text in system_texts(sent)) == everything(sent).count("SYSTEM-4711") == 1


@EVERY_WAY
def test_a_system_message_alone_is_the_prompt(rig: Rig, api: str, model: str) -> None:
    sent = ask(rig, api, model, [{"role": "system", "content": "Write a haiku."}])
    assert (texts(sent), everything(sent).count("haiku")) == ([("user", "Write a haiku.")], 1)


@EVERY_WAY
@pytest.mark.parametrize("empty", ["", []])
def test_an_empty_answer_in_a_conversation_is_left_out(rig: Rig, api: str, model: str, empty: Any) -> None:
    sent = ask(rig, api, model, [ADA[0], {"role": "assistant", "content": empty}, ADA[2]])
    assert texts(sent) == [("user", "I am Ada."), ("user", "Who am I?")]


@pytest.mark.parametrize("model", ["claude-sonnet-5-5", "gpt-6-sol"])
@pytest.mark.parametrize("api", ["chat", "responses"])
def test_a_conversation_that_ends_with_the_model_goes_on(rig: Rig, api: str, model: str) -> None:
    sent = ask(rig, api, model, ADA[:2])
    assert texts(sent) == [("user", "I am Ada."), ("assistant", "Hello Ada."), ("user", "Continue.")]


@pytest.mark.parametrize("path", ["/generate", "/generate-codex"])
def test_turns_of_one_role_that_follow_each_other_are_one(rig: Rig, path: str) -> None:
    answer = rig.ask(path, messages=[ADA[0], {"role": "assistant", "content": ""}, ADA[2]])
    assert answer.status == 200, answer.body
    (sent,) = rig.standin.generations
    assert texts(sent) == [("user", "I am Ada."), ("user", "Who am I?")]


@EVERY_WAY
def test_a_picture_with_a_wrong_label_arrives_as_what_it_is(rig: Rig, api: str, model: str) -> None:
    data = PNG.partition(",")[2]
    url = f"data:image/jpeg;base64,{data.rstrip('=')}"
    part = {
        "chat": {"type": "image_url", "image_url": url},
        "responses": {"type": "input_image", "image_url": url},
        "messages": {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": data}},
    }[api]
    sent = ask(rig, api, model, [{"role": "user", "content": [part]}])
    said = everything(sent)
    assert (data in said, "image/png" in said, "jpeg" in said) == (True, True, False)
