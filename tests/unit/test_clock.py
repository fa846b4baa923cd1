"""Days, months and their ends, in every time zone; and times as text."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.clock import Clock, day_of, iso, parse_iso
from bridge.limits import Moment, spans_of

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = [ZoneInfo(name) for name in ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Pacific/Apia")]
ZONES += [ZoneInfo(name) for name in ("America/Sao_Paulo", "America/Havana", "Australia/Lord_Howe", "Africa/Cairo")]


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_a_day_begins_at_local_midnight() -> None:
    assert day_of(at("2026-07-01T21:59:59Z"), BERLIN) == "2026-07-01"
    assert day_of(at("2026-07-01T22:00:00Z"), BERLIN) == "2026-07-02"
    assert day_of(at("2026-07-01T22:00:00Z"), UTC) == "2026-07-01"
    assert spans_of("2026-07-01")["month"].key == "2026-07"


@pytest.mark.parametrize(
    ("moment", "zone", "end"),
    [
        ("2026-01-15T12:00:00Z", "UTC", "2026-01-16T00:00:00Z"),
        ("2026-12-31T23:59:59Z", "UTC", "2027-01-01T00:00:00Z"),
        ("2026-01-16T00:00:00Z", "UTC", "2026-01-17T00:00:00Z"),
        ("2026-03-29T00:30:00Z", "Europe/Berlin", "2026-03-29T22:00:00Z"),  # a day of 23 hours
        ("2026-10-25T00:30:00Z", "Europe/Berlin", "2026-10-25T23:00:00Z"),  # a day of 25 hours
        ("2018-11-03T12:00:00Z", "America/Sao_Paulo", "2018-11-04T03:00:00Z"),  # no midnight
        ("2011-12-29T12:00:00Z", "Pacific/Apia", "2011-12-30T10:00:00Z"),  # no next day at all
        ("2024-02-28T12:00:00Z", "UTC", "2024-02-29T00:00:00Z"),
    ],
)
def test_a_day_ends_at_the_next_local_midnight(moment: str, zone: str, end: str) -> None:
    assert iso(Moment.of(at(moment), ZoneInfo(zone)).ends_at("day")) == end.replace("Z", ".000Z")


@pytest.mark.parametrize(
    ("moment", "zone", "end"),
    [
        ("2026-01-31T23:00:00Z", "UTC", "2026-02-01T00:00:00Z"),
        ("2026-01-31T23:00:00Z", "Europe/Berlin", "2026-02-28T23:00:00Z"),
        ("2026-12-01T00:00:00Z", "UTC", "2027-01-01T00:00:00Z"),
        ("2026-10-10T00:00:00Z", "Europe/Berlin", "2026-10-31T23:00:00Z"),
    ],
)
def test_a_month_ends_at_local_midnight_too(moment: str, zone: str, end: str) -> None:
    assert iso(Moment.of(at(moment), ZoneInfo(zone)).ends_at("month")) == end.replace("Z", ".000Z")


@given(st.floats(min_value=0, max_value=4e9), st.sampled_from(ZONES))
def test_the_end_of_a_day_is_the_first_moment_of_another(moment: float, zone: ZoneInfo) -> None:
    end = Moment.of(moment, zone).ends_at("day")
    assert moment < end <= moment + 26 * 3600
    assert day_of(moment, zone) < day_of(end, zone)
    assert day_of(end - 1, zone) == day_of(moment, zone)


@given(st.floats(min_value=0, max_value=4e9), st.sampled_from(ZONES))
def test_the_end_of_a_month_is_the_first_moment_of_the_next(moment: float, zone: ZoneInfo) -> None:
    end = Moment.of(moment, zone).ends_at("month")
    assert moment < end <= moment + 32 * 86400
    assert spans_of(day_of(end - 1, zone))["month"] == spans_of(day_of(moment, zone))["month"]
    assert day_of(end, zone).endswith("-01")


@given(st.integers(min_value=0, max_value=4 * 10**12))
def test_a_time_survives_as_text(milliseconds: int) -> None:
    text = iso(milliseconds / 1000)
    assert len(text) == len("2026-01-01T00:00:00.000Z")
    assert abs(parse_iso(text) - milliseconds / 1000) <= 0.001


@pytest.mark.parametrize("text", ["2026-12-31T18:00:00Z", "2026-12-31T19:00:00+01:00", "20261231T180000Z"])
def test_a_time_with_a_zone_is_understood(text: str) -> None:
    assert iso(parse_iso(text)) == "2026-12-31T18:00:00.000Z"


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "soon",
            "2026-12-31",
            "2026-12-31T18:00:00",
            "2026-13-01T00:00:00Z",
            "1767225600",
            "2026-02-30T00:00:00Z",
        ),
        *("0001-01-01T00:00:00+14:00", "1969-12-31T23:59:59Z", "9999-12-31T23:59:59-00:01"),
    ],
)
def test_a_time_without_a_zone_or_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_iso(text)


def test_the_clock_goes_forward() -> None:
    clock = Clock()
    assert clock.monotonic() <= clock.monotonic()
    assert abs(clock.now() - datetime.now(UTC).timestamp()) < 60
