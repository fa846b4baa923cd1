"""The last half hour, and the keys that are closest to a cap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gevent
import pytest

from bridge.ledger.tallies import Counts
from bridge.limits import Limits
from bridge.records import lately as module
from bridge.records.lately import LINES, MINUTES, MOST_KEYS, Closest, Lately
from tests.support.ledger import Desk, FrozenClock, open_log, record, write


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock("2026-11-20T12:30:30Z")


@pytest.fixture
def lately(clock: FrozenClock) -> Lately:
    return Lately(clock)


def line(clock: FrozenClock, number: int = 0, ago_s: float = 0, **fields: Any) -> Any:
    return record(f"run_{number}", clock.wall - ago_s, **{"duration_ms": 0, **fields})


def test_a_run_counts_in_the_minute_in_which_it_ended(clock: FrozenClock, lately: Lately) -> None:
    lately.observe(line(clock, ago_s=200, duration_ms=200_000, output_tokens=7))
    assert lately.tokens()[-2:] == [0, lately.tokens()[-1]]
    assert lately.answered_and_failed(1) == (1, 0)


def test_what_is_older_is_forgotten(clock: FrozenClock, lately: Lately) -> None:
    lately.observe(line(clock))
    clock.pass_s(60 * 4)
    lately.observe(line(clock, status=502, code="cli_failed"))
    assert lately.answered_and_failed(5) == (1, 1)
    assert lately.answered_and_failed(4) == (0, 1)
    clock.pass_s(60 * MINUTES)
    assert (lately.answered_and_failed(MINUTES), sum(lately.tokens())) == ((0, 0), 0)
    lately.observe(line(clock))
    assert len(lately._minutes) == 1


def test_refusals_count_for_the_key_and_limits_of_the_account_for_the_provider(
    clock: FrozenClock, lately: Lately
) -> None:
    lately.observe(line(clock, key_name="ada", provider="claude", status=429, code="cost_per_day", times=3))
    lately.observe(line(clock, key_name="ada", provider="claude", status=400, code="invalid_request"))
    lately.observe(
        line(clock, key_name="ada", provider="codex", credential="team", status=503, code="provider_rate_limited")
    )
    lately.observe(line(clock, 7, key_name="bob", provider="codex"))
    assert lately.refused(15) == {"ada": 3}
    assert lately.requests(15) == {("codex", "team"): 1, ("codex", None): 1}
    assert +lately.limited(15) == {("codex", "team"): 1}
    assert lately.last(("claude", None)) is None
    last = lately.last(("codex", None))
    assert last is not None
    assert last.id == "run_7"


def test_the_newest_lines_are_kept_and_given_out_once(clock: FrozenClock, lately: Lately) -> None:
    for number in range(LINES + 5):
        lately.observe(line(clock, number, error="x" * 1000, status=502, code="cli_failed"))
    lines = lately.lines()
    assert [each.id for each in lines] == [f"run_{number}" for number in range(5, LINES + 5)]
    assert [each.id for each in lately.lines("run_52")] == ["run_53", "run_54"]
    assert len(lately.lines("run_2")) == LINES, "it is not known any more"
    assert len(lines[0].error or "") < 200


def test_many_keys_do_not_fill_the_memory(clock: FrozenClock, lately: Lately) -> None:
    for number in range(MOST_KEYS + 100):
        lately.observe(line(clock, key_name=f"key-{number}", status=429, code="cost_per_day"))
    assert len(lately.refused(15)) == MOST_KEYS


def test_a_start_finds_what_was_before(tmp_path: Path, clock: FrozenClock) -> None:
    log = open_log(tmp_path, clock)
    for number in range(3):
        write(log, line(clock, number, ago_s=60, provider="codex"))
    lately = Lately(clock)
    lately.observe(line(clock, 9))
    lately.fill(log)
    assert [each.id for each in lately.lines()] == ["run_0", "run_1", "run_2", "run_9"]
    last = lately.last(("codex", None))
    assert last is not None
    assert last.id == "run_2"
    assert lately.answered_and_failed(5) == (4, 0)


class _Keys:
    """As much of a key book as is looked at."""

    def __init__(self, count: int) -> None:
        self.looks = 0
        self._count = count

    def list(self) -> list[Any]:
        self.looks += 1
        return [_Key(f"key-{number}") for number in range(self._count)]


class _Key:
    limits = Limits.parse({"maxRequestsPerDay": 100})

    def __init__(self, name: str) -> None:
        self.name = name


def test_the_closest_keys_are_looked_for_in_turns_and_not_by_everybody(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    for number in range(5):
        desk.ledger.import_usage(f"key-{number}", "2026-11-20", Counts(requests=10 * number))
    keys = _Keys(3 * module.TURN)
    found = Closest(keys, desk.ledger, desk.clock)  # type: ignore[arg-type]
    looks = [gevent.spawn(found.names, 3) for _ in range(4)]
    gevent.joinall(looks)
    assert looks[0].value == ["key-4", "key-3", "key-2"]
    assert [look.value for look in looks[1:]] == [[]] * 3, "the others did not wait for it"
    assert keys.looks == 1
    assert found.names(3) == ["key-4", "key-3", "key-2"]
    desk.clock.pass_s(module.FRESH_S)
    found.names(3)
    assert keys.looks == 2
