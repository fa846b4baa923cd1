"""The choice of a credential: a pure function of how each stands."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from bridge.engine.roster import BAND, Candidate, choose
from bridge.keys.credentials import Credential, State
from bridge.ledger.caps import Purse

DAY_S, MONTH_S = 86400.0, 30 * 86400.0


def candidate(name: str, *budgets: tuple[float, float, float], **fields: Any) -> Candidate:
    own = {each: fields.pop(each) for each in ("weight", "priority", "max_concurrent") if each in fields}
    credential = Credential(id=name, name=name, provider="claude", **own)
    running = fields.pop("running", 0)
    purse = Purse(running, fields.pop("output", 8192), budgets, keys=frozenset(fields.pop("keys", ["ada"][:running])))
    given = {"state": State("usable"), "proven": True, "key_name": "ada", **fields}
    return Candidate(credential=credential, purse=purse, **given)


def chosen(*candidates: Candidate, routing: str = "pace", output: int = 1000, **more: Any) -> str | None:
    found = choose(candidates, routing, output, **more)
    return None if found is None else found.credential.name


def day(used: float, elapsed: float) -> tuple[float, float, float]:
    return used, elapsed, DAY_S * (1 - elapsed)


@pytest.mark.parametrize("routing", ["pace", "spread", "fill-first"])
def test_whoever_cannot_be_used_is_not_chosen(routing: str) -> None:
    out = [
        candidate("a", state=State("benched", until=9e9)),
        candidate("b", state=State("blocked")),
        candidate("c", state=State("disabled")),
        candidate("d", output=999),
        candidate("e", max_concurrent=2, running=2),
        candidate("f", proven=False, running=1),
        candidate("g", state=State("probing"), proven=False, running=1),
    ]
    assert chosen(*out, routing=routing) is None
    assert chosen(*out, candidate("h"), routing=routing) == "h"
    assert chosen(*out, candidate("h", proven=False), routing=routing) == "h"
    assert chosen(*out, routing=routing, own="a") is None


def test_a_try_of_another_key_keeps_nobody_out() -> None:
    assert chosen(candidate("a", proven=False, running=1, keys=["bob"])) == "a"
    assert chosen(candidate("a", proven=False, running=2, keys=["bob", "ada"])) is None
    assert chosen(candidate("a", proven=False, running=1, keys=["bob"], max_concurrent=1)) is None


def test_pace_takes_the_one_that_is_furthest_behind_its_line() -> None:
    assert chosen(candidate("a", day(0.5, 0.6)), candidate("b", day(0.2, 0.6)), candidate("c", day(0.65, 0.6))) == "b"


def test_within_the_band_the_least_busy_comes_first() -> None:
    near = candidate("a", day(0.45, 0.5), sessions=2), candidate("b", day(0.41, 0.5), sessions=3)
    assert chosen(*near, session=True) == "a"
    assert chosen(*near) == "b", "what is no conversation goes by what is left"
    assert chosen(candidate("a", running=3), candidate("b", running=2)) == "b"
    assert chosen(candidate("a", running=3, weight=4), candidate("b", running=2)) == "a"


def test_without_a_budget_one_is_neutral() -> None:
    assert chosen(candidate("a"), candidate("b", day(0.2, 0.6))) == "b"
    assert chosen(candidate("a"), candidate("b", day(0.8, 0.6))) == "a"


def test_the_tightest_budget_counts() -> None:
    month = (0.9, 0.5, MONTH_S / 2)
    assert chosen(candidate("a", day(0.1, 0.5), month), candidate("b", day(0.45, 0.5))) == "b"


def test_what_is_left_of_a_month_is_used_up_on_its_last_day() -> None:
    late = (0.80, 0.99, 0.01 * MONTH_S)
    assert candidate("a", late).headroom > candidate("b", (0.80, 0.99, MONTH_S)).headroom
    assert chosen(candidate("a", late), candidate("b", day(0.5, 0.8))) == "a"


def test_a_conversation_stays_until_its_credential_is_a_tenth_beyond_its_line() -> None:
    other = candidate("b", day(0.1, 0.5))
    assert chosen(candidate("a", day(0.5 + BAND - 0.01, 0.5)), other, own="a") == "a"
    assert chosen(candidate("a", day(0.5 + BAND + 0.01, 0.5)), other, own="a") == "b"


def test_spread_takes_turns_by_weight() -> None:
    assert chosen(candidate("a", turns=3), candidate("b", turns=2), routing="spread") == "b"


def test_fill_first_takes_the_highest_priority_and_the_first_of_equals() -> None:
    row = candidate("a"), candidate("b", priority=2, running=50), candidate("c", priority=2)
    assert chosen(*row, routing="fill-first") == "b"


@pytest.mark.parametrize("seed", range(5))
def test_pace_keeps_each_near_its_line_over_a_thousand_runs(seed: int) -> None:
    """Three budgets of 10, 30 and 60; the day's demand is what all of them together may spend."""
    budgets, chance = {"a": 10.0, "b": 30.0, "c": 60.0}, random.Random(seed)
    used = dict.fromkeys(budgets, 0.0)
    served = dict.fromkeys(budgets, 0)
    for number in range(1000):
        elapsed = (number + 0.5) / 1000
        row = [candidate(name, day(used[name] / budgets[name], elapsed)) for name in budgets]
        name = chosen(*row)
        assert name is not None
        used[name] += chance.uniform(0.05, 0.15)
        served[name] += 1
    elapsed = 1.0
    for name, budget in budgets.items():
        assert abs(used[name] / budget - elapsed) <= 0.05, (name, used[name], served)


@pytest.mark.parametrize(("routing", "weights"), [("pace", (1, 1, 1)), ("spread", (1, 1, 1)), ("spread", (1, 2, 3))])
def test_equal_ones_get_equal_shares_and_others_by_their_weight(routing: str, weights: tuple[int, ...]) -> None:
    turns, served = dict.fromkeys("abc", 0.0), dict.fromkeys("abc", 0)
    weight = dict(zip("abc", weights, strict=True))
    for _ in range(600):
        name = chosen(*(candidate(each, turns=turns[each], weight=weight[each]) for each in "abc"), routing=routing)
        assert name is not None
        turns[name] += 1 / weight[name]
        served[name] += 1
    whole = sum(weights)
    assert served == {name: 600 * weight[name] // whole for name in "abc"}


def test_a_choice_among_a_thousand_takes_no_time() -> None:
    row = [candidate(f"c{n}", day(n / 2000, 0.5)) for n in range(1000)]
    assert chosen(*row) == "c0"
    assert msgspec.structs.replace(row[0]).has_room(8192)
