"""A short soak: whatever clients, models and admins do, the books agree and nothing is left running."""

from __future__ import annotations

import pytest

from benchmarks.soak import soak


@pytest.mark.timeout(300)
def test_a_mixed_load_leaves_nothing_behind_and_the_books_agree_with_the_models() -> None:
    result = soak(seconds=15, number=8, interval_s=5)
    assert result.wrong == []
    assert {done.provider for done in result.done if done.code == "ok"} == {"claude", "codex"}
    assert {done.code for done in result.done} >= {"ok", "left"}
    assert result.books.rows
    assert result.books.broken_off["runs"] > 0
    assert result.after_end == {"processes": 0, "folders of files": 0}
