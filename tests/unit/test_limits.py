from __future__ import annotations

import math

import pytest

from bridge.errors import BridgeError
from bridge.limits import Limits, effective
from bridge.settings import LIMIT_DEFAULTS


def test_the_fields_stand_in_the_order_of_the_wire_names():
    for name, field in zip(LIMIT_DEFAULTS, Limits.__struct_fields__, strict=True):
        assert name.lower() == field.replace("_", "")


def test_every_limit_can_be_named_and_comes_back_as_given():
    given = {name: 7 for name in LIMIT_DEFAULTS}
    assert Limits.parse(given).to_wire() == given


def test_costs_are_kept_to_the_micro_dollar():
    assert Limits.parse({"maxCostPerDay": 0.29}).max_cost_per_day == 290_000
    assert Limits.parse({"maxCostPerDay": 0.1234565}).max_cost_per_day == 123_457
    assert Limits.parse({"maxCostPerDay": 0.29}).to_wire() == {"maxCostPerDay": 0.29}


@pytest.mark.parametrize("name", list(LIMIT_DEFAULTS))
@pytest.mark.parametrize("value", [-1, -0.01, math.nan, math.inf, -math.inf, True, "5", None, [], {}, 2e12, 10**400])
def test_what_is_not_a_sensible_number_is_refused_by_name(name, value):
    with pytest.raises(BridgeError) as refused:
        Limits.parse({name: value})
    assert refused.value.code == "invalid_request"
    assert name in refused.value.message


@pytest.mark.parametrize("name", [name for name in LIMIT_DEFAULTS if "Cost" not in name])
def test_counts_are_whole(name):
    assert Limits.parse({name: 5.0}).to_wire() == {name: 5}
    with pytest.raises(BridgeError, match="whole number"):
        Limits.parse({name: 1.5})


def test_a_cost_too_small_to_count_is_not_taken_for_no_limit():
    with pytest.raises(BridgeError, match="millionth"):
        Limits.parse({"maxCostPerDay": 1e-9})


def test_an_unknown_name_is_refused_and_the_known_ones_are_listed():
    with pytest.raises(BridgeError, match="maxCostPerYear") as refused:
        Limits.parse({"maxCostPerYear": 1})
    assert "maxCostPerDay" in refused.value.hint


def test_zero_lifts_a_default_and_not_naming_it_keeps_it():
    defaults = {"maxCostPerDay": 5, "maxConcurrent": 4}
    assert effective(Limits(), defaults).max_cost_per_day == 5_000_000
    assert effective(Limits.parse({"maxCostPerDay": 0}), defaults).max_cost_per_day == 0
    assert effective(Limits.parse({"maxCostPerDay": 0}), defaults).max_concurrent == 4


def test_merging_changes_only_what_is_named():
    limits = Limits.parse({"maxCostPerDay": 2, "maxConcurrent": 3})
    assert limits.merge(Limits.parse({"maxConcurrent": 0})).to_wire() == {"maxCostPerDay": 2, "maxConcurrent": 0}
