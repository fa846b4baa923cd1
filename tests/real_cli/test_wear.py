"""Hundreds of hot runs leave nothing behind, and a claude process stays within its bound."""

from __future__ import annotations

import pytest

from benchmarks.wear import wear


@pytest.mark.timeout(300)
def test_runs_leave_nothing_behind() -> None:
    result = wear(runs=250, every=50)
    assert result.wrong == []
    assert result.rows[-1]["runs"] == 250
    assert len(result.claudes) <= 10, "they were hot"
