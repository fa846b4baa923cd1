"""Figures of the tallies as the dashboard asks for them."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from bridge.clock import parse_iso
from bridge.ledger.report import breakdown, daily, forecast, nearest_cap
from bridge.ledger.tallies import MOST_BOOKS, Counts, Figures, Import, Reservation, Reserve, Settle, Tally, apply
from bridge.limits import Limits, Moment, effective
from tests.support.ledger import record

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


# --- who spent what on what ----------------------------------------------------------------------


def settle(
    tallies: dict[str, Tally], key: str, day: str, model: str, usd: float, code: str | None = None, **more: str
) -> None:
    """A run of a key that has ended, with 10 tokens."""
    number = sum(len(tally.days) for tally in tallies.values()) + round(usd * 1000)
    held = Reservation(f"run_{number}_{model}", key, "claude", model, NOW.at, day, 10, 10, 0)
    line = record(
        held.id,
        key_name=key,
        provider="claude",
        model=model,
        cost_usd=usd,
        code=code,
        input_tokens=0,
        output_tokens=10,
        **more,
    )
    apply(Figures(tallies), Reserve(held))
    apply(Figures(tallies), Settle(*msgspec.structs.astuple(line), day=day))


@pytest.fixture
def books() -> dict[str, Tally]:
    """Two keys: one with a day from another program, and runs of two models."""
    tallies = tallies_of(("ada", "2026-11-02", 5))
    settle(tallies, "ada", TODAY, "sonnet", 1, credential="team")
    settle(tallies, "ada", TODAY, "haiku", 0.25, "cli_failed")
    settle(tallies, "bob", TODAY, "sonnet", 3)
    return tallies


def rows(found: dict[str, Any], *names: str) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in names) for row in found["rows"]]


def test_rows_are_dearest_first_and_old_days_have_no_model(books: dict[str, Tally]) -> None:
    found = breakdown(books.items(), "2026-11-01", TODAY, "model", {})
    assert rows(found, "provider", "model", "costUsd", "requests", "errors") == [
        (None, None, 5.0, 1, 0),
        ("claude", "sonnet", 4.0, 2, 0),
        ("claude", "haiku", 0.25, 1, 1),
    ]
    assert found["total"] == {"requests": 4, "tokens": 40, "costUsd": 9.25, "errors": 1}


@pytest.mark.parametrize(
    ("by", "only", "expected"),
    [
        ("key", {}, [("ada", 6.25), ("bob", 3.0)]),
        ("provider", {}, [(None, 5.0), ("claude", 4.25)]),
        ("credential", {}, [(None, 8.25), ("team", 1.0)]),
        ("key", {"model": "sonnet"}, [("bob", 3.0), ("ada", 1.0)]),
        ("key", {"credential": "team"}, [("ada", 1.0)]),
        ("model", {"key": "ada"}, [(None, 5.0), ("sonnet", 1.0), ("haiku", 0.25)]),
        ("model", {"key": "nobody"}, []),
    ],
)
def test_every_figure_can_be_seen_from_each_side(
    books: dict[str, Tally], by: str, only: dict[str, str], expected: list[tuple[str | None, float]]
) -> None:
    found = breakdown(books.items(), "2026-11-01", TODAY, by, only)
    assert rows(found, by, "costUsd") == expected
    assert found["total"]["costUsd"] == sum(usd for _, usd in expected)


def test_only_the_days_that_are_asked_for_count_both_of_them_included(books: dict[str, Tally]) -> None:
    assert breakdown(books.items(), TODAY, TODAY, "key", {})["total"]["costUsd"] == 4.25
    assert breakdown(books.items(), "2026-11-02", "2026-11-02", "key", {})["total"]["costUsd"] == 5.0
    assert breakdown(books.items(), "2026-11-03", "2026-11-19", "model", {}) == {
        "rows": [],
        "total": {"requests": 0, "tokens": 0, "costUsd": 0.0, "errors": 0},
    }


def test_a_key_that_names_ever_new_models_fills_no_memory_and_loses_no_cent() -> None:
    tallies: dict[str, Tally] = {}
    for number in range(MOST_BOOKS + 20):
        settle(tallies, "mallory", TODAY, f"model-{number}", 0.01)
    assert len(tallies["mallory"].books[TODAY]) == MOST_BOOKS
    found = breakdown(tallies.items(), TODAY, TODAY, "model", {})
    assert rows(found, "model", "requests")[0] == (None, 20)
    assert found["total"]["requests"] == MOST_BOOKS + 20


def test_a_forecast_goes_on_as_the_last_week_was() -> None:
    # 2 dollars in each of the 7 days before today: half of today and 10 days of the month are left.
    days = [("ada", f"2026-11-{day}", 2.0) for day in range(13, 20)]
    tallies = tallies_of(*days, ("ada", TODAY, 9), ("bob", "2026-11-19", 1))
    assert forecast([tallies["ada"]], NOW) == {"requests": 18, "tokens": 185, "costUsd": 44.0}
    assert forecast(tallies.values(), NOW)["costUsd"] == 24 + 10.5 * 15 / 7


def test_a_forecast_of_a_key_that_is_two_days_old_takes_two_days() -> None:
    tallies = tallies_of(("ada", "2026-11-18", 1), ("ada", "2026-11-19", 3))
    assert forecast([tallies["ada"]], NOW)["costUsd"] == 4 + 10.5 * 2


def test_on_the_first_day_it_is_too_early_for_a_forecast() -> None:
    assert forecast([tallies_of(("ada", TODAY, 1))["ada"]], NOW) is None
    assert forecast([Tally()], NOW) is None
