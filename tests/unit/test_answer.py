"""An answer on its way back: stop sequences, the JSON that is read from it, and the second try."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.engine.answer import MAX_DEPTH, Attempt, StopFilter, parse, read, repaired, second_attempt, with_output
from bridge.errors import Problem
from bridge.ledger.pricing import Price, Rates, ceiling_cost
from bridge.ledger.tallies import Reservation
from bridge.providers.provider import text_ceiling
from bridge.types import (
    Answer,
    Charge,
    Completed,
    Failed,
    GenerationRequest,
    Message,
    PartDelta,
    Text,
    ToolCall,
    Usage,
    content_of,
    words,
)

SCHEMA = {"type": "object"}
#: $10 a million tokens, of either kind
PRICE = Price("m", Rates(10_000_000, 10_000_000, 10_000_000, 10_000_000))
REQUEST = GenerationRequest("claude", "m", (Message("user", (Text("hello"),)),), schema=SCHEMA)
MISS = Problem("output_mismatch", "The answer does not fit the schema: it is no object.", facts={"text": "[1]"})


# --- stop sequences ------------------------------------------------------------------------------


def run(sequences: list[str], pieces: list[str]) -> tuple[str, str | None]:
    """What is shown of the pieces, and which sequence ended them."""
    stops = StopFilter(sequences)
    deltas = [delta for piece in pieces for delta in stops.feed(PartDelta(0, Text(piece)))]
    deltas += [] if stops.found is not None else stops.rest()
    return "".join(words(delta.part) for delta in deltas), stops.found


def by_letter(sequences: list[str], text: str) -> tuple[str, str | None]:
    """The same by the plainest of ways."""
    for end in range(1, len(text) + 1):
        complete = [each for each in sequences if text[:end].endswith(each)]
        if complete:
            longest = max(complete, key=len)
            return text[: end - len(longest)], longest
    return text, None


@pytest.mark.parametrize(
    ("sequences", "pieces", "shown", "found"),
    [
        ([], ["a", "b"], "ab", None),
        (["END"], ["one END two"], "one ", "END"),
        (["END"], ["one E", "N", "D two"], "one ", "END"),
        (["END"], ["one EN", "TER"], "one ENTER", None),
        (["END"], ["one EN"], "one EN", None),
        (["END"], ["END"], "", "END"),
        (["\n\n", "END"], ["a\n", "\nb END"], "a", "\n\n"),
        (["abcd", "bc"], ["abcd"], "a", "bc"),
        (["abc", "bc"], ["abc"], "", "abc"),
        (["aab"], ["aaab"], "a", "aab"),
    ],
)
def test_the_text_ends_before_the_first_sequence(
    sequences: list[str], pieces: list[str], shown: str, found: str | None
) -> None:
    assert run(sequences, pieces) == (shown, found)


def test_what_may_still_become_a_sequence_is_held_back_and_no_more() -> None:
    stops = StopFilter(["<end>"])
    assert stops.feed(PartDelta(0, Text("one <e"))) == [PartDelta(0, Text("one "))]
    assert stops.feed(PartDelta(0, Text("at>"))) == [PartDelta(0, Text("<eat>"))]
    assert stops.rest() == []


def test_what_is_held_back_of_a_part_comes_before_the_next_part_and_never_ends_in_it() -> None:
    stops = StopFilter(["<end>"])
    call = PartDelta(1, ToolCall("call_1", "look_up", "<end>"))
    assert stops.feed(PartDelta(0, Text("<e"))) == []
    assert stops.feed(call) == [PartDelta(0, Text("<e")), call]
    assert stops.feed(PartDelta(2, Text("<e"))) == []
    assert stops.feed(PartDelta(3, Text("nd>"))) == [PartDelta(2, Text("<e")), PartDelta(3, Text("nd>"))]
    assert stops.found is None


@given(
    st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=4),
    st.lists(st.text("abc\n", max_size=6), max_size=8),
)
def test_how_the_text_is_cut_into_pieces_makes_no_difference(sequences: list[str], pieces: list[str]) -> None:
    assert run(sequences, pieces) == by_letter(sequences, "".join(pieces))


# --- JSON ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"a": 1}', '{"a": 1}'),
        (" \n[1, 2]\n", "[1, 2]"),
        ('"words"', '"words"'),
        ("7", "7"),
        ('```json\n{"a": 1}\n```', '{"a": 1}'),
        ('```\n{"a": 1}\n```\n', '{"a": 1}'),
        ('Here it is:\n```json\n{"a": [1]}\n```\nHave fun!', '{"a": [1]}'),
        ('Sure! {"a": "}"} Anything else?', '{"a": "}"}'),
        ("The list is [1, 2].", "[1, 2]"),
    ],
)
def test_json_is_found_in_what_surrounds_it(text: str, found: str) -> None:
    assert read(text) == (found, json.loads(found))


@pytest.mark.parametrize("text", ["", "  ", "no json", "{", '{"a": NaN}', "Infinity", "{a: 1}", "]{", "[" * 100_000])
def test_what_is_no_json_is_none(text: str) -> None:
    with pytest.raises(ValueError):
        read(text)
    with pytest.raises(ValueError):
        parse(text)


def test_a_second_attempt_shows_the_first_answer_and_what_is_wrong_with_it() -> None:
    again = repaired(REQUEST, '{"a": 1}', "The answer does not fit the schema: 'a' was unexpected at $.")
    assert [(message.role, message.text) for message in again.messages] == [
        ("user", "hello"),
        ("assistant", '{"a": 1}'),
        (
            "user",
            "The answer does not fit the schema: 'a' was unexpected at $. "
            "Answer again, with JSON only that fits the schema.",
        ),
    ]
    assert again.schema == SCHEMA
    silent = repaired(REQUEST, " ", "It said nothing.")
    assert [message.role for message in silent.messages] == ["user"]
    assert "It said nothing." in silent.messages[0].text


def test_an_answer_that_is_made_to_be_hard_to_read_is_read_quickly() -> None:
    # One that tries every way to match would take days.
    with pytest.raises(ValueError, match="malformed"):
        read("```" + "\n" * 400_000 + "x")
    assert read("```json\n\n{}\n\n```") == ("{}", {})


def test_an_answer_that_is_nested_too_deep_is_none() -> None:
    deep = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert read(deep[1:-1])[0] == deep[1:-1]
    for text in (f"[{deep}]", "[" * 950 + "]" * 950, '{"a":' * 300 + "1" + "}" * 300):
        with pytest.raises(ValueError, match="deep"):
            read(text)


def completed(text: str, stop_reason: str = "end_turn") -> Completed:
    return Completed(Answer(content_of(text), "m", stop_reason, Usage(5, output_tokens=2)))


def checked(end: Completed, problem: str | None = None) -> Completed | Failed:
    return with_output(end, SCHEMA, lambda schema, output: problem if schema == SCHEMA else "another schema")


def test_an_answer_that_fits_has_its_json_as_text_and_as_a_value() -> None:
    end = checked(completed('Sure: {"a": 1}'))
    assert isinstance(end, Completed)
    assert (end.answer.text, end.answer.output) == ('{"a": 1}', {"a": 1})


@pytest.mark.parametrize(
    ("text", "problem", "why"),
    [("[1]", "it is no object", "it is no object"), ("words", None, "it is not valid JSON"), ("", None, "not valid")],
)
def test_an_answer_that_misses_its_schema_is_a_failure_with_its_text_and_its_usage(
    text: str, problem: str | None, why: str
) -> None:
    end = checked(completed(text), problem)
    assert isinstance(end, Failed)
    assert (end.problem.code, end.problem.facts) == ("output_mismatch", {"text": text})
    assert end.usage == Usage(5, output_tokens=2)
    assert why in end.problem.message


def test_an_answer_that_was_cut_is_not_checked() -> None:
    end = completed('{"a":', "max_tokens")
    assert checked(end, "it is cut") == end


# --- the second try --------------------------------------------------------------------------------


def reserved(input_tokens: int, output_tokens: int, cost_micro: int | None = None) -> Reservation:
    cost = ceiling_cost(PRICE, input_tokens, output_tokens) if cost_micro is None else cost_micro
    return Reservation("run_1", "ada", "claude", "m", 0.0, "day", input_tokens, output_tokens, cost)


def attempt(reservation: Reservation, usage: Usage, cost_micro: int | None = None, **asked: Any) -> Attempt | None:
    request = GenerationRequest(**{**{f: getattr(REQUEST, f) for f in REQUEST.__struct_fields__}, **asked})
    charge = Charge(usage, usage.total * 10 if cost_micro is None else cost_micro)
    return second_attempt(request, MISS, reservation, charge, PRICE, lambda r: text_ceiling(r, 0))


def test_it_may_use_what_is_left_and_no_more() -> None:
    spent = Usage(input_tokens=20, output_tokens=10)
    again = attempt(reserved(100, 1000), spent, max_output_tokens=1000)
    assert again is not None
    assert again.spent == Charge(spent, 300)
    assert again.request.messages[1] == Message("assistant", (Text("[1]"),))
    most = again.input_tokens + again.request.max_output_tokens + spent.total
    assert most <= 1100
    assert ceiling_cost(PRICE, again.input_tokens, again.request.max_output_tokens) + 300 <= 11_000


def test_it_never_asks_for_more_than_the_first_did() -> None:
    again = attempt(reserved(100_000, 1000), Usage(input_tokens=20, output_tokens=10), max_output_tokens=1000)
    assert again is not None
    assert again.request.max_output_tokens == 1000


def test_without_room_there_is_none() -> None:
    little = Usage(input_tokens=20, output_tokens=10)
    assert attempt(reserved(100, 300), little, max_output_tokens=300) is None, "too few tokens are left"
    assert attempt(reserved(100, 1000, 3000), little, max_output_tokens=1000) is None, "too little money is left"
    assert attempt(reserved(100, 1000), little, 9000, max_output_tokens=1000) is None, "the first one was dear"
    long = Usage(input_tokens=20, output_tokens=400)
    assert attempt(reserved(100, 1000), long, max_output_tokens=1000) is None, "another of that length would not fit"


def test_a_short_maximum_is_enough_where_it_was_asked_for() -> None:
    again = attempt(reserved(2000, 50), Usage(input_tokens=20, output_tokens=5), max_output_tokens=50)
    assert again is not None
    assert again.request.max_output_tokens == 50
