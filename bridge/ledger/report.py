"""Figures of the tallies in the forms in which the API shows them. Dollars, and camelCase."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from itertools import chain
from typing import Any

from bridge.clock import first_moment, iso
from bridge.ledger.caps import bounds_of
from bridge.ledger.tallies import Counts, Tally, sum_of
from bridge.limits import Caps, Moment, dollars

_NOTHING = Counts()
#: Full days before today whose pace the forecast takes for that of the days to come.
PACE_DAYS = 7
#: What a breakdown can be by: the fields that its rows have, and which of them can be None.
BY = {"key": ("key",), "model": ("provider", "model"), "provider": ("provider",), "credential": ("credential",)}


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


def breakdown(
    tallies: Iterable[tuple[str, Tally]], first: str, last: str, by: str, only: Mapping[str, str]
) -> dict[str, Any]:
    """What was used from one day to another, in rows for each key, model, provider or credential, dearest first, and
    their sum. `only`: fields of BY with the value that is wanted. Resets do not show here.

    Provider, model and credential are None for what is not known so finely: days of before they were kept, or of
    another program. They are never guessed.
    """
    wanted = [(name, value) for name, value in only.items() if name != "key"]
    #: key and book -> the names of the row to which they belong; None where it is not wanted
    rows: dict[tuple[str, str], tuple[str | None, ...] | None] = {}
    sums: dict[tuple[str | None, ...], list[int]] = {}
    for key, tally in tallies:
        if only.get("key", key) != key:
            continue
        for day, counts in tally.days.items():
            if not first <= day <= last:
                continue
            rest = [counts.cost_micro, counts.requests, counts.tokens, counts.errors]
            for book, part in tally.books.get(day, _NO_BOOKS).items() if by != "key" or wanted else ():
                if (key, book) not in rows:
                    rows[key, book] = _row_of(key, book, by, wanted)
                figures = (part.cost_micro, part.requests, part.tokens, part.errors)
                rest = [all_ - some for all_, some in zip(rest, figures, strict=True)]
                _add(sums, rows[key, book], figures)
            if rest[1]:
                if (key, "") not in rows:
                    rows[key, ""] = _row_of(key, "", by, wanted)
                _add(sums, rows[key, ""], rest)
    ranked = sorted(sums.items(), key=lambda each: ([-figure for figure in each[1]], [name or "" for name in each[0]]))
    total = [sum(column) for column in zip(*sums.values(), strict=True)] or [0, 0, 0, 0]
    return {
        "rows": [{**dict(zip(BY[by], names, strict=True)), **_spent(*figures)} for names, figures in ranked],
        "total": _spent(*total),
    }


_NO_BOOKS: Mapping[str, Counts] = {}


def _row_of(key: str, book: str, by: str, wanted: list[tuple[str, str]]) -> tuple[str | None, ...] | None:
    """The names of the row to which a book of a key belongs; None where it is not wanted. "" is what is in no book."""
    provider, model, credential, *_ = [*book.split(" "), None, None]
    place = {"key": key, "provider": provider or None, "model": model, "credential": credential}
    if any(place[name] != value for name, value in wanted):
        return None
    return tuple(place[name] for name in BY[by])


def _add(
    sums: dict[tuple[str | None, ...], list[int]], row: tuple[str | None, ...] | None, figures: Sequence[int]
) -> None:
    if row is not None:
        so_far = sums.setdefault(row, [0, 0, 0, 0])
        so_far[0] += figures[0]
        so_far[1] += figures[1]
        so_far[2] += figures[2]
        so_far[3] += figures[3]


def _spent(cost_micro: int, requests: int, tokens: int, errors: int) -> dict[str, Any]:
    return {"requests": requests, "tokens": tokens, "costUsd": dollars(cost_micro), "errors": errors}


def forecast(tallies: Iterable[Tally], now: Moment) -> dict[str, Any] | None:
    """What the running month comes to if the days to come are like the last week: what counts as used so far, and the
    mean of the last seven full days for what is left of the month. None where nothing was used before today."""
    every = list(tallies)
    today = date.fromisoformat(now.day)
    before = [(today - timedelta(days=back)).isoformat() for back in range(PACE_DAYS, 0, -1)]
    began = min((min(tally.days) for tally in every if tally.days), default=now.day)
    week = {day for day in before if day >= began}
    if not week:
        return None
    span = now.spans["month"]
    left = (first_moment(span.end, now.zone) - now.at) / 86400
    used, pace = sum_of(tally.used(span) for tally in every), sum_of(tally.booked(week) for tally in every)
    share = left / len(week)
    return {
        "requests": round(used.requests + share * pace.requests),
        "tokens": round(used.tokens + share * pace.tokens),
        "costUsd": dollars(round(used.cost_micro + share * pace.cost_micro)),
    }


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
    more = {"errors": used.errors, "searches": used.searches, "assumedUsd": dollars(used.assumed_micro)}
    return {**_three(used), **more}


def _three(counts: Counts) -> dict[str, Any]:
    return {"requests": counts.requests, "tokens": counts.tokens, "costUsd": dollars(counts.cost_micro)}
