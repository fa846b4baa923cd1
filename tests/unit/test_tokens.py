"""How many tokens a text can be at most, and how many it probably is."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from bridge.providers.provider import MESSAGE_OVERHEAD_TOKENS, estimate, text_ceiling
from bridge.types import GenerationRequest, Image, Message, Text


def ask(*messages: Message, **more: object) -> GenerationRequest:
    return GenerationRequest("claude", "m", messages, **more)  # type: ignore[arg-type]


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])))
def test_the_ceiling_is_never_below_the_bytes(system: str, text: str) -> None:
    ceiling = text_ceiling(ask(Message("user", (Text(text),)), system=system), 1000)
    assert ceiling >= len(system.encode()) + len(text.encode()) + MESSAGE_OVERHEAD_TOKENS


def test_every_message_image_and_schema_counts() -> None:
    message = Message("user", (Text("hello"),))
    one = text_ceiling(ask(message), 1000)
    assert text_ceiling(ask(message, message), 1000) >= one + 5 + MESSAGE_OVERHEAD_TOKENS
    picture = Message("user", (Image("image/png", "x" * 10_000), Text("hello")))
    assert text_ceiling(ask(picture), 1000) == one + 1000
    schema = {"type": "object", "description": "é" * 100}
    assert text_ceiling(ask(message, schema=schema), 1000) >= one + len(json.dumps(schema, ensure_ascii=False).encode())


def test_an_estimate_is_a_quarter_of_the_bytes_or_the_pieces() -> None:
    assert estimate(0, 0) == 0
    assert estimate(1, 1) == 1
    assert estimate(400, 3) == 100
    assert estimate(401, 3) == 101
    assert estimate(40, 30) == 30


@given(st.integers(0, 10**7), st.integers(0, 10**5), st.integers(0, 1000))
def test_an_estimate_never_shrinks_as_text_comes(size: int, deltas: int, more: int) -> None:
    assert estimate(size + more, deltas + 1) >= estimate(size, deltas)
