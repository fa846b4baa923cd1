"""The last two days in memory: counted as lines are written, and filled from the log at the start."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bridge.clock import iso
from bridge.errors import CODES
from bridge.records import statistics
from bridge.records.statistics import HOUR_S, HOURS, RECENT, CredentialDay, Statistics
from tests.support.ledger import FrozenClock, open_log, record, write


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock("2026-11-20T12:30:00Z")


def line(clock: FrozenClock, number: int = 0, ago_s: float = 0, **fields: Any) -> Any:
    return record(f"run_{number}", clock.wall - ago_s, **fields)


def observed(clock: FrozenClock, *lines: Any) -> dict[str, Any]:
    statistics = Statistics(clock)
    for each in lines:
        statistics.observe(each)
    return statistics.view()


def test_a_line_counts_for_the_hour_in_which_it_began(clock: FrozenClock) -> None:
    view = observed(clock, line(clock), line(clock, ago_s=HOUR_S), line(clock, ago_s=HOUR_S))
    assert len(view["hours"]) == HOURS
    assert [hour["ok"] for hour in view["hours"]][-3:] == [0, 2, 1]
    assert view["hours"][-1]["at"] == "2026-11-20T12:00:00.000Z"


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (200, None, "ok"),
        (429, "cost_per_day", "refused"),
        (400, "invalid_request", "refused"),
        (502, "cli_failed", "failed"),
        (400, "output_mismatch", "failed"),
        (422, "cli_bad_output", "failed"),
        (403, "model_not_allowed", "refused"),
    ],
)
def test_what_became_of_a_request(clock: FrozenClock, status: int, code: str | None, kind: str) -> None:
    day = observed(clock, line(clock, status=status, code=code))["lastDay"]
    assert {name: day[name] for name in ("ok", "failed", "refused", "stopped")} == {
        **dict.fromkeys(("ok", "failed", "refused", "stopped"), 0),
        kind: 1,
    }


def test_a_request_that_its_client_left_is_no_failure_of_ours(clock: FrozenClock) -> None:
    day = observed(clock, line(clock, status=403, code="cancelled"))["lastDay"]
    assert (day["stopped"], day["failed"]) == (1, 0)


def test_times_are_right_within_five_percent(clock: FrozenClock) -> None:
    lines = [line(clock, n, duration_ms=100 * n, first_token_ms=10 * n) for n in range(1, 101)]
    day = observed(clock, *lines)["lastDay"]
    assert day["durationMs"]["p50"] == pytest.approx(5000, rel=0.05)
    assert day["durationMs"]["p95"] == pytest.approx(9500, rel=0.05)
    assert day["firstTokenMs"]["p50"] == pytest.approx(500, rel=0.05)


def test_times_of_failed_requests_do_not_count_and_without_any_there_is_none(clock: FrozenClock) -> None:
    view = observed(clock, line(clock, status=502, code="timeout", duration_ms=300_000))
    assert view["lastDay"]["durationMs"] == {"p50": None, "p95": None}
    assert view["providers"] == {}


def test_providers_have_times_of_their_own(clock: FrozenClock) -> None:
    lines = [line(clock, 1, provider="claude", duration_ms=100), line(clock, 2, provider="codex", duration_ms=9000)]
    providers = observed(clock, *lines)["providers"]
    assert providers["claude"]["durationMs"]["p50"] == pytest.approx(100, rel=0.05)
    assert providers["codex"]["durationMs"]["p50"] == pytest.approx(9000, rel=0.05)


def test_the_summary_is_of_a_day_and_what_is_older_than_the_window_is_forgotten(clock: FrozenClock) -> None:
    statistics = Statistics(clock)
    statistics.observe(line(clock))
    clock.pass_s(24 * HOUR_S)
    view = statistics.view()
    assert (view["lastDay"]["ok"], sum(hour["ok"] for hour in view["hours"])) == (0, 1)
    clock.pass_s(24 * HOUR_S)
    statistics.observe(line(clock))
    assert sum(hour["ok"] for hour in statistics.view()["hours"]) == 1
    assert len(statistics._hours) == 1


def test_the_last_requests_of_a_key_are_kept_newest_first_and_only_so_many(clock: FrozenClock) -> None:
    statistics = Statistics(clock)
    for number in range(RECENT + 5):
        statistics.observe(line(clock, number, user_prompt="x" * 5000))
        statistics.observe(line(clock, 1000 + number, key_name="bob"))
    recent = statistics.recent("alice")
    assert [row.id for row in recent] == [f"run_{number}" for number in range(RECENT + 4, 4, -1)]
    assert max(len(row.user_prompt or "") for row in recent) <= 120
    assert statistics.recent("nobody") == []


def test_keys_that_were_not_used_for_long_make_room_for_others(
    clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "MOST_KEYS", 2)
    figures = Statistics(clock)
    for name in ("alice", "bob", "alice", "carol"):
        figures.observe(line(clock, key_name=name))
    assert [bool(figures.recent(name)) for name in ("alice", "bob", "carol")] == [True, False, True]


# --- from the log ------------------------------------------------------------------------------------


def test_a_restart_remembers(tmp_path: Path, clock: FrozenClock) -> None:
    log, before = open_log(tmp_path, clock), Statistics(clock)
    for number in range(30):
        clock.pass_s(600)
        written = line(clock, number, key_name="alice" if number % 3 else "bob")
        write(log, written)
        before.observe(written)
    clock.pass_s(60)
    after = Statistics(clock)
    after.fill(log)
    assert after.view()["hours"] == before.view()["hours"]
    assert after.recent("alice") == before.recent("alice")
    assert after.recent("bob") == before.recent("bob")
    assert after.view()["since"] == iso(clock.wall - 60 - 29 * 600)


def test_what_comes_while_the_log_is_read_counts_once(tmp_path: Path, clock: FrozenClock) -> None:
    log = open_log(tmp_path, clock)
    write(log, line(clock, 1))
    clock.pass_s(1)
    statistics = Statistics(clock)
    clock.pass_s(1)
    new = line(clock, 2)
    write(log, new)
    statistics.observe(new)
    statistics.fill(log)
    assert statistics.view()["lastDay"]["ok"] == 2
    assert [row.id for row in statistics.recent("alice")] == ["run_2", "run_1"]


@pytest.mark.parametrize("bounds", [{"MOST_LINES": 10}, {"MOST_BYTES": 10 * 650}])
def test_no_more_is_read_of_the_log_than_the_bounds_allow(
    tmp_path: Path, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch, bounds: dict[str, int]
) -> None:
    log = open_log(tmp_path, clock)
    for number in range(100):
        write(log, line(clock, number))
    clock.pass_s(1)
    for name, value in bounds.items():
        monkeypatch.setattr(statistics, name, value)
    figures = Statistics(clock)
    figures.fill(log)
    assert 5 <= figures.view()["lastDay"]["ok"] <= 15
    assert figures.recent("alice")[0].id == "run_99"


def test_lines_of_another_version_and_damaged_ones_are_passed_over(tmp_path: Path, clock: FrozenClock) -> None:
    log = open_log(tmp_path, clock)
    write(log, line(clock, 1))
    (path,) = (tmp_path / "logs").iterdir()
    with path.open("ab") as file:
        file.write(b"no json at all\n")
        file.write(path.read_bytes().replace(b'"status":200', b'"status":"odd"'))
    clock.pass_s(1)
    figures = Statistics(clock)
    figures.fill(log)
    assert figures.view()["lastDay"]["ok"] == 1


def test_a_log_that_cannot_be_read_is_no_reason_not_to_start(tmp_path: Path, clock: FrozenClock) -> None:
    log = open_log(tmp_path, clock)
    shutil.rmtree(tmp_path / "logs")
    figures = Statistics(clock)
    figures.fill(log)
    assert figures.view()["lastDay"]["ok"] == 0


@pytest.mark.parametrize(
    ("fields", "end"),
    [
        ({"upstream_status": 200}, "ok"),
        ({"upstream_status": 200, "status": 422, "code": "output_mismatch"}, "ok"),
        ({}, "ok"),
        ({"upstream_status": 429, "status": 503, "code": "provider_rate_limited"}, "limited"),
        ({"upstream_status": 401, "status": 503, "code": "no_credentials"}, "rejected"),
        ({"upstream_status": 402, "status": 503, "code": "no_credentials"}, "rejected"),
        ({"upstream_status": 529, "status": 503, "code": "provider_overloaded"}, "overloaded"),
        ({"upstream_status": 500, "status": 502, "code": "cli_failed"}, "failed"),
        ({"status": 504, "code": "timeout"}, "failed"),
        ({"upstream_status": 200, "status": 403, "code": "cancelled"}, "stopped"),
    ],
)
def test_what_a_run_says_of_its_credential(clock: FrozenClock, fields: dict[str, Any], end: str) -> None:
    statistics = Statistics(clock)
    statistics.observe(line(clock, provider="claude", credential="team", **fields))
    statistics.observe(line(clock, status=429, code="cost_per_day"))
    assert statistics.of_credentials()("claude", "team") == CredentialDay(**{end: 1})
    assert (
        statistics.of_credentials()("codex", "team")
        == statistics.of_credentials()("claude", "other")
        == CredentialDay()
    )


def test_those_that_a_run_tried_before_are_counted_too(clock: FrozenClock) -> None:
    tried = "one (429 rate_limit_error slow down (please)); two (400 no credit); three (no answer); four (529)"
    statistics = Statistics(clock)
    statistics.observe(line(clock, provider="claude", credential="five", upstream_status=200, tried=tried))
    ends = {"one": "limited", "two": "rejected", "three": "failed", "four": "overloaded", "five": "ok"}
    for name, end in ends.items():
        assert statistics.of_credentials()("claude", name) == CredentialDay(**{end: 1}), name


def test_the_day_of_a_credential_is_over_after_24_hours(clock: FrozenClock) -> None:
    statistics = Statistics(clock)
    statistics.observe(line(clock, provider="claude", credential="team"))
    clock.pass_s(23 * HOUR_S)
    assert statistics.of_credentials()("claude", "team").ok == 1
    clock.pass_s(HOUR_S)
    assert statistics.of_credentials()("claude", "team") == CredentialDay()


def test_a_holder_reads_why_it_failed_in_the_words_of_the_answer_and_no_others(clock: FrozenClock) -> None:
    statistics = Statistics(clock)
    statistics.observe(
        line(
            clock,
            request_id="req_1",
            status=400,
            code="provider_invalid_request",
            error="Anthropic did not accept the request.",
            hint="Send a smaller image.",
            upstream_message="organization acme-internal: image exceeds 5 MB",
            upstream_request_id="req_upstream",
            credential="team-key",
        )
    )
    (shown,) = statistics.recent("alice")
    assert (shown.request_id, shown.error) == ("req_1", "Anthropic did not accept the request.")
    assert shown.hint == "Send a smaller image."
    said = msgspec.json.encode(shown).decode()
    assert not [word for word in ("acme", "upstream", "team-key") if word in said]


def test_a_line_of_an_older_version_has_the_usual_hint(clock: FrozenClock) -> None:
    statistics = Statistics(clock)
    statistics.observe(line(clock, status=502, code="cli_failed", error="It broke off."))
    assert statistics.recent("alice")[0].hint == CODES["cli_failed"].hint


def test_requests_are_listed_by_when_they_came_and_not_by_when_they_ended(clock: FrozenClock) -> None:
    statistics = Statistics(clock)
    for number, ago_s in ((1, 10), (2, 30), (3, 20)):
        statistics.observe(line(clock, number, ago_s=ago_s))
    assert [each.id for each in statistics.recent("alice")] == ["run_1", "run_3", "run_2"]
