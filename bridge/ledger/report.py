"""Figures of the tallies in the forms in which the API shows them. Dollars, and camelCase."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from itertools import chain
from typing import Any

from bridge.clock import iso
from bridge.ledger.caps import bounds_of
from bridge.ledger.tallies import Counts, Tally, sum_of
from bridge.limits import Caps, Moment, dollars

_NOTHING = Counts()


def usage(tally: Tally, now: Moment) -> dict[str, Any]:
    """What a key used in each window, `reserved` and `lastUsedAt`."""
    return {
        **{span.window.field: _window(tally.used(span)) for span in now.spans.values()},
        "reserved": _three(tally.held()),
        "lastUsedAt": iso(tally.last_used_at) if tally.last_used_at else None,
    }


def history(tallies: Mapping[str, Tally], days: int) -> list[dict[str, Any]]:
    """One row per day and key that used something, of the last `days` days on which anything was used;
    oldest first. An admin's resets do not show here."""
    every = sorted({day for tally in tallies.values() for day in tally.days})
    return [
        {"day": day, "key": name, **row(tallies[name].days[day])}
        for day in every[max(0, len(every) - days) :]
        for name in sorted(tallies)
        if day in tallies[name].days
    ]


def daily(tallies: Mapping[str, Tally], today: str, days: int, most: int, only: str | None = None) -> dict[str, Any]:
    """Columns for a chart: the last `days` calendar days up to `today`, and for each of the `most` keys that
    cost most in them (or for `only` one key) what it used on each. All others together are the key None."""
    end = date.fromisoformat(today)
    every = [(end - timedelta(days=back)).isoformat() for back in range(days - 1, -1, -1)]
    used = {
        name: [tally.days.get(day, _NOTHING) for day in every]
        for name, tally in tallies.items()
        if (only is None or name == only) and any(day in tally.days for day in every)
    }
    ranked = sorted(used, key=lambda name: (-sum(counts.cost_micro for counts in used[name]), name))
    columns: list[tuple[str | None, list[Counts]]] = [(name, used[name]) for name in ranked[:most]]
    if rest := [used[name] for name in ranked[most:]]:
        columns.append((None, [sum_of(counts) for counts in zip(*rest, strict=True)]))
    return {"days": every, "series": [_column(name, counts) for name, counts in columns]}


def _column(name: str | None, counts: list[Counts]) -> dict[str, Any]:
    return {
        "key": name,
        "costUsd": [dollars(each.cost_micro) for each in counts],
        "requests": [each.requests for each in counts],
        "tokens": [each.tokens for each in counts],
        "errors": [each.errors for each in counts],
    }


def nearest_cap(caps: Caps, tally: Tally, now: Moment) -> dict[str, Any] | None:
    """The cap that adds up in a window and of which most is used or held: its name, figures and share."""
    bounds = bounds_of(caps, tally, now)
    nearest = max(bounds, key=lambda bound: bound.share, default=None)
    if nearest is None:
        return None
    shown = nearest.limit.shown
    return {
        "limit": nearest.limit.name,
        "used": shown(nearest.used),
        "reserved": shown(nearest.held),
        "most": shown(nearest.amount),
        "share": nearest.share,
    }


def totals(tallies: Mapping[str, Tally], now: Moment) -> dict[str, Any]:
    """All keys together: each window as booked, resets aside, and `reserved`."""
    every = tallies.values()
    windows = {}
    for span in now.spans.values():
        # One sum of all days, and not one for each key: of those there may be ten thousand.
        booked = (map(tally.days.__getitem__, span.days & tally.days.keys()) for tally in every)
        windows[span.window.field] = row(sum_of(chain.from_iterable(booked)))
    return {**windows, "reserved": _three(sum_of(tally.held() for tally in every if tally.open))}


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


def _window(used: Counts) -> dict[str, Any]:
    return {**_three(used), "errors": used.errors, "assumedUsd": dollars(used.assumed_micro)}


def _three(counts: Counts) -> dict[str, Any]:
    return {"requests": counts.requests, "tokens": counts.tokens, "costUsd": dollars(counts.cost_micro)}
