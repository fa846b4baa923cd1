"""What the pages' files lose on their way to a browser."""

from __future__ import annotations

import pytest

from bridge.http.pages import without_comments


@pytest.mark.parametrize(
    ("source", "served"),
    [
        ("a\n// b\nc\n", "a\n\nc\n"),
        ("a\n\t/** b */\nc", "a\n\nc"),
        ("/**\n * a\n * b */\nc\n", "\n\n\nc\n"),
        ("/* a */\nb\n/* c */\n", "\nb\n\n"),
        ("/* * / ** // */\na", "\na"),
    ],
)
def test_a_comment_leaves_its_lines_empty(source: str, served: str) -> None:
    assert without_comments(source.encode()).decode() == served


@pytest.mark.parametrize(
    "source",
    [
        "a; // b\n",
        "a /* b */\n",
        "/* a */ b\n",
        "/* a\n */ b /* c */\n",
        "url = 'https://a/*b*/'\n",
        "/\\/\\*a/.test(b)\n",
        "\ta\n\n",
        "/* never ends\n",
    ],
)
def test_a_line_that_has_anything_else_stays_as_it_is(source: str) -> None:
    assert without_comments(source.encode()).decode() == source
