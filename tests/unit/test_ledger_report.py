"""Figures of the tallies as the dashboard asks for them."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest

from bridge.clock import parse_iso
from bridge.ledger.report import daily, nearest_cap
from bridge.ledger.tallies import Counts, Figures, Import, Reservation, Reserve, Tally, apply
from bridge.limits import Limits, Moment, effective

TODAY = "2026-11-20"
NOW = Moment.of(parse_iso("2026-11-20T12:00:00Z"), ZoneInfo("UTC"))


def tallies_of(*used: tuple[str, str, float]) -> dict[str, Tally]:
    """(key, day, dollars), one request of 10 tokens each."""
    tallies: dict[str, Tally] = {}
    for name, day, usd in used:
        apply(Figures(tallies), Import(name, day, Counts(requests=1, output_tokens=10, cost_micro=round(usd * 1e6))))
    return tallies


def test_a_chart_has_every_calendar_day_also_those_without_use() -> None:
    tallies = tallies_of(("ada", "2026-11-18", 1), ("ada", TODAY, 2), ("ada", "2026-11-01", 9))
    chart = daily(tallies, TODAY, 4, 8)
    assert chart["days"] == ["2026-11-17", "2026-11-18", "2026-11-19", "2026-11-20"]
    assert chart["series"] == [
        {
            "key": "ada",
            "costUsd": [0.0, 1.0, 0.0, 2.0],
            "requests": [0, 1, 0, 1],
            "tokens": [0, 10, 0, 10],
            "errors": [0, 0, 0, 0],
        }
    ]


def test_the_dearest_keys_come_first_and_the_rest_is_one_sum() -> None:
    tallies = tallies_of(*((f"key-{n}", TODAY, n) for n in range(1, 6)))
    series = daily(tallies, TODAY, 1, 2)["series"]
    assert [(each["key"], each["costUsd"]) for each in series] == [("key-5", [5.0]), ("key-4", [4.0]), (None, [6.0])]


def test_one_key_alone_and_one_that_nobody_knows() -> None:
    tallies = tallies_of(("ada", TODAY, 1), ("bob", TODAY, 2))
    assert [each["key"] for each in daily(tallies, TODAY, 3, 8, "ada")["series"]] == ["ada"]
    assert daily(tallies, TODAY, 3, 8, "nobody")["series"] == []


def test_the_nearest_cap_is_the_one_of_which_most_is_used_or_held() -> None:
    tallies = tallies_of(("ada", TODAY, 1), ("ada", "2026-11-02", 7))
    held = Reservation("run_1", "ada", "claude", "m", NOW.at, NOW.day, 10, 10, 500_000)
    apply(Figures(tallies), Reserve(held))
    caps = effective(Limits.parse({"maxCostPerDay": 2, "maxCostPerMonth": 100, "maxRequestsPerDay": 10}), {})
    nearest = nearest_cap(caps, tallies["ada"], NOW)
    assert nearest == {"limit": "maxCostPerDay", "used": 1.0, "reserved": 0.5, "most": 2.0, "share": 0.75}


@pytest.mark.parametrize("limits", [{}, {"maxRequestsPerMinute": 3, "maxConcurrent": 1, "maxCostPerRequest": 1}])
def test_a_key_without_a_cap_per_day_or_month_is_near_to_none(limits: dict[str, float]) -> None:
    assert nearest_cap(effective(Limits.parse(limits), {}), tallies_of(("ada", TODAY, 1))["ada"], NOW) is None
