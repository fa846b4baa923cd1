from __future__ import annotations

import math
from datetime import date

import pytest

from bridge.errors import CODES
from bridge.limits import BY_NAME, LIMITS, WINDOWS, Limits, WrongLimit, effective, spans_of


def test_every_limit_that_refuses_has_an_error_with_a_hint():
    assert len(BY_NAME) == len(LIMITS)
    for limit in LIMITS:
        assert not limit.code or (CODES[limit.code].status, CODES[limit.code].hint) == (429, limit.hint)
    assert [limit.name for limit in LIMITS if not limit.code] == ["maxOutputTokens"]


def test_a_span_has_the_days_of_its_window_and_ends_after_them():
    spans = spans_of("2028-02-29")
    assert (spans["day"].key, spans["day"].days, spans["day"].end) == ("2028-02-29", {"2028-02-29"}, date(2028, 3, 1))
    month = spans["month"]
    assert (month.key, len(month.days), month.end) == ("2028-02", 29, date(2028, 3, 1))
    assert {"2028-02-01", "2028-02-29"} < month.days


def test_no_two_windows_have_a_name_in_common():
    for names in ([window.name for window in WINDOWS], [span.key for span in spans_of("2026-06-01").values()]):
        assert len(set(names)) == len(WINDOWS)


def test_every_limit_can_be_named_and_comes_back_as_given():
    given = {name: 7 for name in BY_NAME}
    assert Limits.parse(given).to_wire() == given


def test_costs_are_kept_to_the_micro_dollar():
    assert Limits.parse({"maxCostPerDay": 0.29})["maxCostPerDay"] == 290_000
    assert Limits.parse({"maxCostPerDay": 0.1234565})["maxCostPerDay"] == 123_457
    assert Limits.parse({"maxCostPerDay": 0.29}).to_wire() == {"maxCostPerDay": 0.29}


@pytest.mark.parametrize("name", list(BY_NAME))
@pytest.mark.parametrize("value", [-1, -0.01, math.nan, math.inf, -math.inf, True, "5", None, [], {}, 2e12, 10**400])
def test_what_is_not_a_sensible_number_is_refused_by_name(name, value):
    with pytest.raises(WrongLimit) as refused:
        Limits.parse({name: value})
    assert refused.value.name == name
    assert name in str(refused.value)


@pytest.mark.parametrize("name", [limit.name for limit in LIMITS if not limit.is_cost])
def test_counts_are_whole(name):
    assert Limits.parse({name: 5.0}).to_wire() == {name: 5}
    with pytest.raises(WrongLimit, match="whole number"):
        Limits.parse({name: 1.5})


def test_a_cost_too_small_to_count_is_not_taken_for_no_limit():
    assert Limits.parse({"maxCostPerDay": 1e-9})["maxCostPerDay"] == 1


def test_an_unknown_name_is_refused_and_the_known_ones_are_listed():
    with pytest.raises(WrongLimit, match="maxCostPerYear") as refused:
        Limits.parse({"maxCostPerYear": 1})
    assert "maxCostPerDay" in str(refused.value)


def test_zero_lifts_a_default_and_not_naming_it_keeps_it():
    defaults = {"maxCostPerDay": 5, "maxConcurrent": 4}
    assert effective(Limits(), defaults)["maxCostPerDay"] == 5_000_000
    assert effective(Limits.parse({"maxCostPerDay": 0}), defaults)["maxCostPerDay"] == 0
    assert effective(Limits.parse({"maxCostPerDay": 0}), defaults)["maxConcurrent"] == 4


def test_merging_changes_only_what_is_named():
    limits = Limits.parse({"maxCostPerDay": 2, "maxConcurrent": 3})
    assert limits.merge(Limits.parse({"maxConcurrent": 0})).to_wire() == {"maxCostPerDay": 2, "maxConcurrent": 0}


@pytest.mark.parametrize(("name", "most"), [("maxCostPerDay", 10**9), ("maxTokensPerDay", 10**12)])
def test_a_limit_has_a_largest_amount(name: str, most: int) -> None:
    assert Limits.parse({name: most})[name] > 0
    with pytest.raises(WrongLimit, match="too large"):
        Limits.parse({name: most + 1})
