"""One alert, and the rules by which there is one. Values in, values out; who sends them is in alerts.py."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from bridge.ops.table import money
from bridge.settings import LIMIT_DEFAULTS

#: Shares of a limit at which there is an alert, in percent; the last one means: used up.
LEVELS = (80, 100)
#: Runs of a provider that fail one after the other before it counts as down.
FAILURES_IN_A_ROW = 5
#: Free disk space below which there is an alert, in bytes. `doctor` warns at the same.
LOW_DISK_BYTES = 512 * 2**20
#: A backup that was made once should be made again within this time, in seconds.
BACKUP_OVERDUE_S = 50 * 3600.0

_HOUR_S = 3600.0
#: Kind of an alert -> how long the same one is not raised again, in seconds. Those about a day or a month
#: have it in their mark, so that once is once.
WINDOWS_S: dict[str, float] = {
    "key_limit": math.inf,
    "spend": math.inf,
    "provider_down": 6 * _HOUR_S,
    "provider_rate_limited": _HOUR_S,
    "disk": 12 * _HOUR_S,
    "loop_suspected": _HOUR_S,
    "backup_failed": 24 * _HOUR_S,
}


class Alert(msgspec.Struct, frozen=True):
    """Something that the operator should know. `mark` is what two alerts about the same thing share."""

    kind: str
    subject: str
    message: str
    mark: str


_PER_WINDOW = {
    name: ("today" if name.endswith("Day") else "thisMonth", field)
    for name in LIMIT_DEFAULTS
    for what, field in (("Requests", "requests"), ("Tokens", "tokens"), ("Cost", "costUsd"))
    if name in (f"max{what}PerDay", f"max{what}PerMonth")
}
"""Limit -> (window, field) of the usage that counts against it."""


def refusal_of(limit: str) -> str:
    """The error code of a limit per day or month: maxCostPerDay -> cost_per_day."""
    what, window = limit.removeprefix("max").split("Per")
    return f"{what}_per_{window}".lower()


def key_alerts(
    name: str,
    limits: Mapping[str, float],
    usage: Mapping[str, Any],
    windows: Mapping[str, str],
    refused: frozenset[str],
) -> Iterator[Alert]:
    """Alerts about how much of its limits per day and month a key has used.

    `limits` and `usage` are as the API shows them, `windows` names the running day and month (`today`,
    `thisMonth`), and `refused` has the codes of limits that refused a request of this key: a limit of which
    nothing more can be had is used up, also where a few cents of it are left.
    """
    for limit, (window, field) in _PER_WINDOW.items():
        most = limits[limit]
        if not most:
            continue
        used = usage[window][field]
        percent = 100 * used / most
        if percent >= LEVELS[0] and refusal_of(limit) in refused:
            percent = 100
        reached = [level for level in LEVELS if percent >= level]
        if not reached:
            continue
        amounts = f"{money(used)} of {money(most)}" if field == "costUsd" else f"{used:,} of {most:,}"
        share = "used up its" if reached[-1] == 100 else f"used {reached[-1]} % of its"
        yield Alert(
            "key_limit",
            name,
            f"The key {name} has {share} {LIMIT_DEFAULTS[limit][1]}: {amounts}.",
            f"key_limit:{name}:{limit}:{windows[window]}:{most:g}:{reached[-1]}",
        )


def spend_alerts(totals: Mapping[str, Any], windows: Mapping[str, str], most: Mapping[str, float]) -> Iterator[Alert]:
    """Alerts about what all keys together have spent; `most` has dollars for `today` and `thisMonth`, 0 for none."""
    for window, text in (("today", "today"), ("thisMonth", "this month")):
        spent = totals[window]["costUsd"]
        if most[window] and spent >= most[window]:
            message = f"All keys together have spent {money(spent)} {text}; the alert is set to {money(most[window])}."
            yield Alert("spend", "all keys", message, f"spend:{windows[window]}")


def provider_down(name: str, problem: str) -> Alert:
    """A CLI that worked before cannot be used."""
    return Alert("provider_down", name, f"{name} is not available: {problem}", f"provider_down:{name}")


def provider_failing(name: str, count: int, problem: str) -> Alert:
    """Every run on a CLI fails."""
    message = f"The last {count} runs on {name} failed. The latest said: {problem}"
    return Alert("provider_down", name, message, f"provider_down:{name}")


def provider_limited(name: str, problem: str) -> Alert:
    """The provider limits the account."""
    message = f"The provider of {name} limits the bridge's account. It said: {problem}"
    return Alert("provider_rate_limited", name, message, f"provider_rate_limited:{name}")


def loop_suspected(key_name: str, problem: str) -> Alert:
    """The loop breaker has paused a key."""
    return Alert("loop_suspected", key_name, f"The key {key_name}: {problem}", f"loop_suspected:{key_name}")


def disk_alerts(free_bytes: int, *, writable: bool) -> Iterator[Alert]:
    """Alerts about the disk of the data folder."""
    if not writable:
        message = "The bridge cannot write to its data folder, so it takes no requests."
        yield Alert("disk", "data folder", message, "disk:write")
    if free_bytes < LOW_DISK_BYTES:
        message = f"Only {free_bytes / 2**20:.0f} MiB are free on the disk of the data folder."
        yield Alert("disk", "data folder", message, "disk:space")


def backup_alerts(notes: Mapping[str, Any], good_age_s: float | None) -> Iterator[Alert]:
    """Alerts about backups: `notes` as `Service.backups` has them, and how old the last good one is."""
    failure = notes["lastFailure"]
    if failure is not None:
        message = f"A backup failed: {failure['error']}"
        yield Alert("backup_failed", "backup", message, "backup_failed:failure")
    elif good_age_s is not None and good_age_s > BACKUP_OVERDUE_S:
        message = f"The last good backup is {good_age_s / 3600:.0f} hours old."
        yield Alert("backup_failed", "backup", message, "backup_failed:overdue")
