"""Parts, and the pieces that they come in."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from bridge.types import Answer, Image, Message, PartDelta, Text, ToolCall, ToolResult, joined, whole, words

CALL = ToolCall("call_1", "look_up", '{"city": "Bern"}')
PICTURE = Image("image/png", "aGk=")


def pieces_of(index: int, part: Text | ToolCall, cuts: list[int]) -> list[PartDelta]:
    """A part as it may come: cut at some places."""
    text = part.text if isinstance(part, Text) else part.arguments
    places = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    texts = [text[start:end] for start, end in itertools.pairwise(places)] or [text]
    made = [Text(each) if isinstance(part, Text) else ToolCall(part.id, part.name, each) for each in texts]
    return [PartDelta(index, each) for each in made]


@given(st.lists(st.integers(0, 16), max_size=4), st.lists(st.integers(0, 16), max_size=4))
def test_pieces_add_up_to_the_parts_however_they_were_cut(first: list[int], second: list[int]) -> None:
    deltas = pieces_of(0, Text("Let me look."), first) + pieces_of(1, CALL, second)
    assert whole(deltas) == (Text("Let me look."), CALL)
    assert list(joined(deltas)) == [PartDelta(0, Text("Let me look.")), PartDelta(1, CALL)]


def test_pieces_of_two_parts_that_come_by_turns_add_up_too() -> None:
    other = ToolCall("call_2", "look_up", '{"city": "Rome"}')
    turns = [delta for pair in zip(pieces_of(0, CALL, [5]), pieces_of(1, other, [5]), strict=True) for delta in pair]
    assert [delta.index for delta in turns] == [0, 1, 0, 1]
    assert whole(turns) == (CALL, other)


def test_an_answer_as_pieces_adds_up_to_itself() -> None:
    content = (Text("a"), CALL, Text("b"))
    answer = Answer(content, "m", "end_turn", None)
    assert whole(answer.deltas()) == content
    assert answer.text == "ab"


def test_a_message_has_the_words_and_the_images_of_all_its_parts() -> None:
    result = ToolResult("call_1", (Text("sunny"), PICTURE))
    message = Message("user", (Text("and?"), PICTURE, result))
    assert message.text == "and?\n\nsunny"
    assert message.images == [PICTURE, PICTURE]
    assert words(CALL) == 'look_up {"city": "Bern"}'
    assert words(PICTURE) == ""
