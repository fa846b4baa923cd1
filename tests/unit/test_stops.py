"""Stop sequences: the text ends before the first one, however it was cut into pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.engine.stops import StopFilter


def run(sequences: list[str], pieces: list[str]) -> tuple[str, str | None]:
    """What is shown of the pieces, and which sequence ended them."""
    stops = StopFilter(sequences)
    shown = "".join(stops.feed(piece) for piece in pieces)
    return (shown, stops.found) if stops.found is not None else (shown + stops.rest(), None)


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
    assert stops.feed("one <e") == "one "
    assert stops.feed("at>") == "<eat>"
    assert stops.rest() == ""


@given(
    st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=4),
    st.lists(st.text("abc\n", max_size=6), max_size=8),
)
def test_how_the_text_is_cut_into_pieces_makes_no_difference(sequences: list[str], pieces: list[str]) -> None:
    assert run(sequences, pieces) == by_letter(sequences, "".join(pieces))
