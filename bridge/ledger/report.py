"""Figures of the tallies in the forms in which the API shows them. Dollars, and camelCase."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta
from typing import Any

from bridge.clock import iso
from bridge.ledger.caps import Moment
from bridge.ledger.tallies import Counts, Tallies, Tally, Totals
from bridge.limits import Caps, dollars

Remaining = dict[tuple[str, str], int]
"""("requests" | "tokens" | "cost", "day" | "month") -> what is left: a count, or micro-dollars."""


_NOTHING = Counts()


def usage(tally: Tally, now: Moment) -> dict[str, Any]:
    """`today`, `thisMonth`, `reserved` and `lastUsedAt` of a key."""
    return {
        "today": _window(tally, now.day, tally.days),
        "thisMonth": _window(tally, now.month, tally.months),
        "reserved": _totals(tally.held()),
        "lastUsedAt": iso(tally.last_used_at) if tally.last_used_at else None,
    }


def remaining(caps: Caps, tally: Tally, now: Moment) -> Remaining:
    """What is left of each cap per day and month that there is; never below 0."""
    left = {}
    for window, name in (("day", now.day), ("month", now.month)):
        used, held = tally.used(name), tally.held(name)
        for what, limit, taken in (
            ("requests", getattr(caps, f"max_requests_per_{window}"), used.requests + held.requests),
            ("tokens", getattr(caps, f"max_tokens_per_{window}"), used.tokens + held.tokens),
            ("cost", getattr(caps, f"max_cost_per_{window}"), used.cost_micro + held.cost_micro),
        ):
            if limit:
                left[what, window] = max(0, limit - taken)
    return left


def history(tallies: Tallies, days: int) -> list[dict[str, Any]]:
    """One row per day and key that used something, of the last `days` days on which anything was used;
    oldest first. An admin's resets do not show here."""
    by_name = tallies.by_name
    every = sorted({day for tally in by_name.values() for day in tally.days})
    return [
        {"day": day, "key": name, **row(by_name[name].days[day])}
        for day in every[max(0, len(every) - days) :]
        for name in sorted(by_name)
        if day in by_name[name].days
    ]


def daily(tallies: Tallies, today: str, days: int, most: int, only: str | None = None) -> dict[str, Any]:
    """Columns for a chart: the last `days` calendar days up to `today`, and for each of the `most` keys that
    cost most in them (or for `only` one key) what it used on each. All others together are the key None."""
    end = date.fromisoformat(today)
    every = [(end - timedelta(days=back)).isoformat() for back in range(days - 1, -1, -1)]
    used = {
        name: [tally.days.get(day, _NOTHING) for day in every]
        for name, tally in tallies.by_name.items()
        if (only is None or name == only) and any(day in tally.days for day in every)
    }
    ranked = sorted(used, key=lambda name: (-sum(counts.cost_micro for counts in used[name]), name))
    columns: list[tuple[str | None, list[Counts]]] = [(name, used[name]) for name in ranked[:most]]
    if rest := [used[name] for name in ranked[most:]]:
        columns.append((None, [_sum(counts) for counts in zip(*rest, strict=True)]))
    return {"days": every, "series": [_column(name, counts) for name, counts in columns]}


def _sum(several: Iterable[Counts]) -> Counts:
    total = Counts()
    for counts in several:
        total.add(counts)
    return total


def _column(name: str | None, counts: list[Counts]) -> dict[str, Any]:
    return {
        "key": name,
        "costUsd": [dollars(each.cost_micro) for each in counts],
        "requests": [each.requests for each in counts],
        "tokens": [each.tokens for each in counts],
        "errors": [each.errors for each in counts],
    }


def nearest_cap(caps: Caps, tally: Tally, now: Moment) -> dict[str, Any] | None:
    """The cap per day or month of which most is used or held: its name, figures and share. None without one."""
    found = []
    for window, name in (("day", now.day), ("month", now.month)):
        used, held = tally.used(name), tally.held(name)
        for what, field in (("requests", "requests"), ("tokens", "tokens"), ("cost", "cost_micro")):
            limit = getattr(caps, f"max_{what}_per_{window}")
            if limit:
                show = dollars if what == "cost" else int
                found.append(
                    {
                        "limit": f"max{what.capitalize()}Per{window.capitalize()}",
                        "used": show(getattr(used, field)),
                        "reserved": show(getattr(held, field)),
                        "most": show(limit),
                        "share": (getattr(used, field) + getattr(held, field)) / limit,
                    }
                )
    return max(found, key=lambda row: row["share"], default=None)


def totals(tallies: Tallies, now: Moment) -> dict[str, Any]:
    """All keys together: `today` and `thisMonth` as booked, resets aside, and `reserved`."""
    today, month = Counts(), Counts()
    requests = tokens = cost_micro = 0
    for tally in tallies.by_name.values():
        today.add(tally.days.get(now.day, Counts()))
        month.add(tally.months.get(now.month, Counts()))
        held = tally.held()
        requests, tokens = requests + held.requests, tokens + held.tokens
        cost_micro += held.cost_micro
    reserved = _totals(Totals(requests, tokens, cost_micro))
    return {"today": row(today), "thisMonth": row(month), "reserved": reserved}


def row(counts: Counts) -> dict[str, Any]:
    """All that is counted."""
    return {
        "requests": counts.requests,
        "errors": counts.errors,
        "tokens": counts.tokens,
        "inputTokens": counts.input_tokens,
        "cacheReadTokens": counts.cache_read_tokens,
        "cacheWriteTokens": counts.cache_write_tokens,
        "outputTokens": counts.output_tokens,
        "reasoningTokens": counts.reasoning_tokens,
        "costUsd": dollars(counts.cost_micro),
        "assumedUsd": dollars(counts.assumed_micro),
    }


def _window(tally: Tally, window: str, windows: dict[str, Counts]) -> dict[str, Any]:
    counts = windows.get(window, Counts())
    return {
        **_totals(tally.used(window)),
        "errors": counts.errors,
        "assumedUsd": dollars(counts.assumed_micro),
    }


def _totals(totals: Totals) -> dict[str, Any]:
    return {"requests": totals.requests, "tokens": totals.tokens, "costUsd": dollars(totals.cost_micro)}
