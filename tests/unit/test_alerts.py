"""When there is an alert, and what is posted for it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from bridge.gate.ticket import Oddity
from bridge.keys.credentials import Credential
from bridge.limits import DEFAULTS, Caps, Limits, effective, spans_of, summed
from bridge.ops import alerts as rules
from bridge.ops.alerts import LEVELS, WINDOWS_S, body_of, format_of, key_alerts, spend_alerts
from bridge.providers.programs import Outcome

TODAY = {span.window.field: span.key for span in spans_of("2026-11-20").values()}
POST = {"kind": "disk", "subject": "data folder", "message": "a <b> & @everyone", "at": "2026-11-20T12:00:00.000Z"}


def caps(**limits: float) -> Caps:
    return effective(Limits.parse(limits), {})


def alerts_at(cost: float, *, limit: float = 10, refused: frozenset[str] = frozenset()) -> list[rules.Alert]:
    usage: dict[str, Any] = {window: {"requests": 1, "tokens": 5, "costUsd": cost} for window in TODAY}
    return list(key_alerts("ada", caps(maxCostPerDay=limit), usage, TODAY, refused))


@pytest.mark.parametrize(("cost", "level"), [(0, None), (7.99, None), (8, 80), (9.99, 80), (10, 100), (12, 100)])
def test_a_key_is_told_of_at_80_and_at_100_percent(cost: float, level: int | None) -> None:
    found = alerts_at(cost)
    assert [alert.mark.rsplit(":", 1)[1] for alert in found] == ([] if level is None else [str(level)])


def test_a_limit_that_refuses_the_rest_counts_as_used_up() -> None:
    (alert,) = alerts_at(9.7, refused=frozenset({"cost_per_day"}))
    assert alert.message == "The key ada has used up its dollars per day: $9.70 of $10.00."
    assert not alerts_at(4, refused=frozenset({"cost_per_day"})), "a single large request says nothing"
    (other,) = alerts_at(9.7, refused=frozenset({"requests_per_minute"}))
    assert "80 %" in other.message


def test_a_key_without_limits_raises_nothing() -> None:
    assert not alerts_at(1e6, limit=0)


def test_another_day_another_limit_and_another_level_are_other_alerts() -> None:
    usage: dict[str, Any] = {window: {"requests": 9, "tokens": 9, "costUsd": 9} for window in TODAY}
    limits = caps(maxCostPerDay=10, maxRequestsPerMonth=9, maxTokensPerDay=10)
    marks = {
        alert.mark
        for day in ("2026-11-20", "2026-11-21")
        for alert in key_alerts("ada", limits, usage, {**TODAY, "today": day}, frozenset())
    }
    assert len(marks) == 5, "cost and tokens for each day, requests once for the month"


def test_a_higher_limit_warns_again() -> None:
    assert alerts_at(9, limit=10)[0].mark != alerts_at(9, limit=11)[0].mark


@pytest.mark.parametrize("limit", [limit.name for limit, _, _ in summed(dict.fromkeys(DEFAULTS, 1))])
def test_every_limit_that_adds_up_in_a_window_is_watched(limit: str) -> None:
    usage: dict[str, Any] = {window: {"requests": 9, "tokens": 9, "costUsd": 9} for window in TODAY}
    (alert,) = key_alerts("ada", caps(**{limit: 9}), usage, TODAY, frozenset())
    assert alert.mark.endswith(":100")


def test_the_spend_of_the_whole_service_has_an_alert_of_its_own() -> None:
    totals = {"today": {"costUsd": 5.0}, "thisMonth": {"costUsd": 80.0}}
    assert not list(spend_alerts(totals, TODAY, {"today": 0, "thisMonth": 0}))
    (day,) = spend_alerts(totals, TODAY, {"today": 5, "thisMonth": 100})
    assert (day.mark, "$5.00" in day.message) == ("spend:2026-11-20", True)
    (month,) = spend_alerts(totals, TODAY, {"today": 6, "thisMonth": 80})
    assert month.mark == "spend:2026-11"


def test_the_disk_and_the_backup() -> None:
    assert not list(rules.disk_alerts(10**10, writable=True))
    assert [a.mark for a in rules.disk_alerts(10**6, writable=False)] == ["disk:write", "disk:space"]
    [shared] = rules.disk_alerts(10**10, writable=False, trouble="The store is full.")
    assert shared.message == "The store is full. It takes no requests."
    good = {"lastGoodAt": "x", "lastFailure": None}
    assert not list(rules.backup_alerts({"lastGoodAt": None, "lastFailure": None}, None)), "none was ever wanted"
    assert not list(rules.backup_alerts(good, 3600))
    (overdue,) = rules.backup_alerts(good, 60 * 3600)
    assert "60 hours" in overdue.message
    (failed,) = rules.backup_alerts({**good, "lastFailure": {"at": "x", "error": "No space left."}}, 60 * 3600)
    assert "No space left." in failed.message


def test_every_kind_has_a_window() -> None:
    made = [
        *alerts_at(10),
        rules.provider_down("claude", "gone"),
        rules.cli_drift("claude", "It was removed."),
        rules.cli_upgrade("claude", Outcome("9.1.0", 1.0, True, "It stays.")),
        rules.provider_failing("claude", 5, "no"),
        rules.provider_limited("codex", "slow down"),
        rules.credential_blocked(Credential(id="team", name="team", provider="claude"), "402 pay"),
        rules.loop_suspected("ada", "paused"),
        rules.gate_oddity(Oddity("refused", "claude", "the model")),
        rules.gate_oddity(Oddity("misreported", "claude", "input_tokens 1 instead of 2")),
        *rules.disk_alerts(0, writable=False),
        *rules.backup_alerts({"lastGoodAt": None, "lastFailure": {"at": "", "error": ""}}, None),
        *spend_alerts({"today": {"costUsd": 1}, "thisMonth": {"costUsd": 1}}, TODAY, {"today": 1, "thisMonth": 1}),
    ]
    assert {alert.kind for alert in made} == set(WINDOWS_S)
    assert all(window > 0 for window in WINDOWS_S.values())
    assert math.inf in WINDOWS_S.values()
    assert LEVELS == (80, 100)


@pytest.mark.parametrize(
    ("url", "setting", "shape"),
    [
        ("https://hooks.slack.com/services/T/B/X", "auto", "slack"),
        ("https://discord.com/api/webhooks/1/x", "auto", "discord"),
        ("https://discordapp.com/api/webhooks/1/x", "auto", "discord"),
        ("https://hooks.slack.com.example.org/x", "auto", "json"),
        ("https://example.org/hooks.slack.com", "auto", "json"),
        ("https://chat.example.org/hooks/1", "slack", "slack"),
        ("https://hooks.slack.com/services/T/B/X", "json", "json"),
    ],
)
def test_the_shape_goes_by_the_host_unless_it_is_set(url: str, setting: str, shape: str) -> None:
    assert format_of(url, setting) == shape


def test_the_three_shapes() -> None:
    assert {**POST, "source": "cli-bridge"}.items() <= body_of(POST, "json").items()
    assert "a &lt;b&gt; &amp; @everyone" in body_of(POST, "slack")["text"]
    discord = body_of({**POST, "message": "x" * 5000}, "discord")
    assert len(discord["content"]) == 2000
    assert discord["allowed_mentions"] == {"parse": []}, "nobody is called by what a message holds"
