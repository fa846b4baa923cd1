"""What one key may use: the table of all limits, and of the windows over which usage adds up.

    Limits()                               nothing named: the server's defaults
    Limits.parse({"maxCostPerDay": 2.5})   2.50 dollars a day, defaults for the rest
    Limits.parse({"maxCostPerDay": 0})     no limit a day, on purpose

A row of LIMITS is all that a limit needs: the settings, the commands, the API and its description, the errors, the
checks, the alerts and the pages read it. Costs are dollars on the wire and on disk, integer micro-dollars inside.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Mapping
from datetime import date, timedelta, tzinfo
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import msgspec

from bridge.clock import day_of, first_moment

MICRO = 1_000_000
"""Micro-dollars in a dollar."""

#: The largest amount of a limit: a count, and dollars.
MOST, MOST_DOLLARS = 10**12, 10**9


# --- the windows ---------------------------------------------------------------------------------


class Window(msgspec.Struct, frozen=True):
    """A kind of stretch of calendar days, in the bridge's time zone, over which usage adds up."""

    #: as limits, errors and headers name it
    name: str
    #: the field with the running one in answers of the API
    field: str
    #: the running one in a sentence
    text: str
    #: how one is called: a format for strftime, different from those of the others
    format: str
    #: the first day of the one that a day lies in
    first: Callable[[date], date]


WINDOWS = (
    Window("day", "today", "today", "%Y-%m-%d", lambda day: day),
    Window("month", "thisMonth", "this month", "%Y-%m", lambda day: day.replace(day=1)),
)
"""Every window, the shortest first."""


class Span(msgspec.Struct, frozen=True):
    """One of a window's stretches, such as `2026-11`: its days (`YYYY-MM-DD`), and the day after them."""

    window: Window
    key: str
    days: frozenset[str]
    end: date


class Moment(msgspec.Struct, frozen=True):
    """A time in UTC seconds, the day it lies on in the bridge's time zone, and the windows, by their names."""

    at: float
    zone: tzinfo
    day: str
    spans: Mapping[str, Span]

    @classmethod
    def of(cls, at: float, zone: tzinfo) -> Moment:
        """The moment `at`, with days and months as they are in `zone`."""
        day = day_of(at, zone)
        return cls(at, zone, day, spans_of(day))

    def ends_at(self, window: str) -> float:
        """When a window ends, in UTC seconds."""
        return first_moment(self.spans[window].end, self.zone)

    def elapsed(self, window: str) -> float:
        """The part of a window that is over, from 0 to 1."""
        span = self.spans[window]
        began_at, ends_at = first_moment(date.fromisoformat(min(span.days)), self.zone), self.ends_at(window)
        return min(1.0, max(0.0, (self.at - began_at) / (ends_at - began_at)))


@functools.lru_cache(maxsize=64)
def spans_of(day: str) -> Mapping[str, Span]:
    """What a day (`YYYY-MM-DD`) lies in, by the names of the windows."""
    spans = {}
    for window in WINDOWS:
        end = first = window.first(date.fromisoformat(day))
        days = []
        while window.first(end) == first:
            days.append(end.isoformat())
            end += timedelta(days=1)
        spans[window.name] = Span(window, first.strftime(window.format), frozenset(days), end)
    return spans


# --- the limits ----------------------------------------------------------------------------------

#: What is limited -> (its unit, the group in which the pages show it, its field in usage as the API shows it).
_WHATS: dict[str, tuple[str, str, str]] = {
    "cost": ("dollars", "Money, in dollars", "costUsd"),
    "requests": ("requests", "Requests", "requests"),
    "concurrent": ("requests", "Requests", ""),
    "tokens": ("tokens", "Tokens", "tokens"),
    "output": ("output tokens", "Tokens", ""),
}


class Limit(msgspec.Struct, frozen=True):
    """A row of the table. `default`: dollars or a count, for keys that do not name it; 0 means no limit.

    `what` with the name of a window is checked against what was used in it, with "request" against what one request
    may use. "minute", "concurrent" and "output" have rules of their own (ledger/caps.py).
    """

    #: on the wire, on disk and in settings
    name: str
    what: str
    window: str
    #: after its unit, it says what is limited
    label: str
    default: float = 0
    #: what to do after a refusal
    hint: str = ""
    #: whether a program may send the same request again a little later
    again: bool = False

    @property
    def unit(self) -> str:
        """`dollars`, `requests`, `tokens`, `output tokens`."""
        return _WHATS[self.what][0]

    @property
    def group(self) -> str:
        """The heading below which the pages show it."""
        return _WHATS[self.what][1]

    @property
    def text(self) -> str:
        """What it limits, such as `dollars per day`."""
        return f"{self.unit} {self.label}"

    @property
    def is_cost(self) -> bool:
        """Whether it is an amount of money."""
        return self.what == "cost"

    @property
    def field(self) -> str:
        """The figure that it bounds, in usage as the API shows it; empty where there is none."""
        return _WHATS[self.what][2]

    @property
    def code(self) -> str:
        """The error that it refuses with; empty for the length of answers, which is only cut."""
        if self.what == "output":
            return ""
        return "concurrent_requests" if self.what == "concurrent" else f"{self.what}_per_{self.window}"

    @property
    def header(self) -> str:
        """The header of answers with what is left of it, for limits on what adds up in a window."""
        return f"X-Bridge-Remaining-{self.what}-{self.window}".title()

    @property
    def words(self) -> list[str]:
        """Its name in words: max, cost, per, day."""
        return [word.lower() for word in re.findall("^[a-z]+|[A-Z][a-z]*", self.name)]

    def amount(self, value: Any) -> int:
        """A value of it from the wire as a count or in micro-dollars. Raises WrongLimit."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise WrongLimit(self.name, "must be a number; 0 means no limit")
        if isinstance(value, float) and not math.isfinite(value):
            raise WrongLimit(self.name, "must be a finite number")
        if value < 0:
            raise WrongLimit(self.name, "must not be negative; 0 means no limit")
        if value > (MOST_DOLLARS if self.is_cost else MOST):
            raise WrongLimit(self.name, "is too large; use 0 for no limit")
        if self.is_cost:
            # Decimal(repr) and not value * 1e6: 0.29 dollars are 290,000 micro-dollars, not 289,999.
            micro = int((Decimal(repr(value)) * MICRO).to_integral_value(ROUND_HALF_UP))
            # 0 would mean no limit.
            return max(micro, 1) if value > 0 else 0
        if value != int(value):
            raise WrongLimit(self.name, "must be a whole number")
        return int(value)

    def shown(self, amount: int) -> int | float:
        """An amount as the API shows it: a count, or dollars."""
        return dollars(amount) if self.is_cost else amount


_CHEAPER = "Wait for the reset, choose a cheaper model, or ask your admin for more."
_FEWER = "Wait for the reset, or ask your admin for a higher limit."
_SHORTER = "Wait for the reset, or send a shorter prompt or a lower maxOutputTokens."
_SMALLER = "Shorten the prompt, lower maxOutputTokens, or choose a cheaper model."
_MOMENT = "Wait a moment, then send the request again."
_UNTIL_ONE_ENDS = "Wait until one of your running requests has ended."

LIMITS = (
    Limit("maxCostPerDay", "cost", "day", "per day", 5, hint=_CHEAPER),
    Limit("maxCostPerMonth", "cost", "month", "per month", hint=_CHEAPER),
    Limit("maxCostPerRequest", "cost", "request", "for one request", hint=_SMALLER),
    Limit("maxRequestsPerMinute", "requests", "minute", "per minute", 30, hint=_MOMENT, again=True),
    Limit("maxRequestsPerDay", "requests", "day", "per day", hint=_FEWER),
    Limit("maxRequestsPerMonth", "requests", "month", "per month", hint=_FEWER),
    Limit("maxConcurrent", "concurrent", "", "running at once", 4, hint=_UNTIL_ONE_ENDS, again=True),
    Limit("maxTokensPerDay", "tokens", "day", "per day", hint=_SHORTER),
    Limit("maxTokensPerMonth", "tokens", "month", "per month", hint=_SHORTER),
    Limit("maxOutputTokens", "output", "request", "in one answer"),
)
"""Every limit, in the order in which they are shown."""

BY_NAME = {limit.name: limit for limit in LIMITS}
_WINDOWS = {window.name: window for window in WINDOWS}
DEFAULTS: Mapping[str, float] = {limit.name: limit.default for limit in LIMITS}


def summed(caps: Mapping[str, int]) -> list[tuple[Limit, Window, int]]:
    """The limits on what adds up in a window that hold in `caps`, with their windows and amounts."""
    return [
        (limit, _WINDOWS[limit.window], caps[limit.name])
        for limit in LIMITS
        if limit.window in _WINDOWS and caps[limit.name]
    ]


def per_request(caps: Mapping[str, int]) -> list[tuple[Limit, int]]:
    """The limits on what one request may use that hold in `caps`, with their amounts."""
    return [
        (limit, caps[limit.name])
        for limit in LIMITS
        if limit.window == "request" and limit.what != "output" and caps[limit.name]
    ]


class WrongLimit(ValueError):
    """A limit that cannot be: which, and why."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name} {why}.")
        self.name = name


class Limits(dict[str, int]):
    """Limits of a key, by name: counts, or micro-dollars. Not named: the server's default; 0: no limit."""

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Limits:
        """Limits from their wire form, with dollars for costs. Raises WrongLimit."""
        if unknown := given.keys() - BY_NAME.keys():
            raise WrongLimit(f"{min(unknown)[:60]!r}", f"is not a limit; the limits are {', '.join(BY_NAME)}")
        return cls({name: BY_NAME[name].amount(value) for name, value in given.items()})

    def merge(self, changes: Limits) -> Limits:
        """These limits with those named in `changes` in their place."""
        return Limits({**self, **changes})

    def to_wire(self) -> dict[str, int | float]:
        """Those that are named, in the order of the table; costs in dollars."""
        return {limit.name: limit.shown(self[limit.name]) for limit in LIMITS if limit.name in self}


class Caps(Limits):
    """What holds for a key: all limits, each resolved; 0 means none."""


@functools.lru_cache(maxsize=256)
def _default(name: str, value: float) -> int:
    return BY_NAME[name].amount(value)


def effective(limits: Limits, defaults: Mapping[str, float]) -> Caps:
    """What holds for a key with `limits` on a server with `defaults` (dollars)."""
    return Caps({name: limits[name] if name in limits else _default(name, defaults.get(name) or 0) for name in BY_NAME})


def rows() -> list[dict[str, str]]:
    """The table for the pages. `usage[window][field]` is what counts against a limit, `title` says what that is; all
    three are empty for a limit on what does not add up."""
    found = []
    for limit in LIMITS:
        row = {"name": limit.name, "group": limit.group, "unit": limit.unit, "label": limit.label}
        if window := _WINDOWS.get(limit.window):
            row |= {"window": window.field, "field": limit.field, "title": f"{limit.what} {window.text}".capitalize()}
        elif limit.what == "concurrent":
            row |= {"window": "reserved", "field": "requests", "title": "Running now"}
        else:
            row |= {"window": "", "field": "", "title": ""}
        found.append(row)
    return found


# --- money ---------------------------------------------------------------------------------------


def dollars(micro: int) -> float:
    """Micro-dollars as dollars, for showing."""
    return micro / MICRO


def money(dollars: float) -> str:
    """Dollars for people: cents, and as many further digits as a small amount needs."""
    if 0 < dollars < 0.0001:
        return "<$0.0001"
    return f"${dollars:,.2f}" if dollars == 0 or dollars >= 0.1 else f"${dollars:.4f}"
