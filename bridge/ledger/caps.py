"""Whether a request fits into what its key has left, and how much of it. A pure function of figures."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import tzinfo
from typing import Any

import msgspec

from bridge.clock import day_of, iso, month_of, next_day_at, next_month_at
from bridge.errors import BridgeError
from bridge.ledger.pricing import Price, affordable_output, ceiling_cost
from bridge.ledger.tallies import MINUTE_S, Tally, Totals
from bridge.limits import Caps, dollars

MINIMUM_OUTPUT_TOKENS = 256
"""An answer that could only be shorter than this is not begun, unless no more was asked for."""

_SOON_S = 5.0


class Moment(msgspec.Struct, frozen=True):
    """Now, and the windows it lies in. Times are UTC seconds."""

    at: float
    day: str
    month: str
    day_ends_at: float
    month_ends_at: float

    @classmethod
    def of(cls, at: float, zone: tzinfo) -> Moment:
        """The moment `at`, with days and months as they are in `zone`."""
        day = day_of(at, zone)
        return cls(at, day, month_of(day), next_day_at(at, zone), next_month_at(at, zone))


class Ask(msgspec.Struct, frozen=True):
    """What a request wants: at most so many tokens of a model at that price."""

    price: Price
    input_tokens: int
    output_tokens: int


class _Bound(msgspec.Struct, frozen=True):
    """One cap on tokens or money, in the smallest unit of either. `output` is what it leaves room for."""

    code: str
    limit: int
    used: int
    held: int
    output: int
    ends_at: float | None
    window: str

    @property
    def left(self) -> int:
        return max(0, self.limit - self.used - self.held)


def fit(caps: Caps, tally: Tally, now: Moment, ask: Ask) -> tuple[int, int]:
    """Output tokens that the request may have, and what it can cost at most, in micro-dollars.

    For every cap, what was used, what is held, and this together stay within it. Raises BridgeError
    with the code of the tightest cap where that leaves less than a sensible answer.
    """
    day = (tally.used(now.day), tally.held(now.day))
    month = (tally.used(now.month), tally.held(now.month))
    _check_requests(caps, day, month, now)
    ages_s = tally.minute_ages_s(now.at) if caps.max_requests_per_minute else ()
    _check_pace(caps, ages_s, len(tally.open), now)

    wanted = min(ask.output_tokens, caps.max_output_tokens or ask.output_tokens)
    least = min(wanted, MINIMUM_OUTPUT_TOKENS)
    bounds = _bounds(caps, day, month, now, ask)
    tightest = min(bounds, key=lambda bound: (bound.output, -(bound.ends_at or 0)), default=None)
    if tightest is not None and tightest.output < least:
        raise _refusal(tightest, ask, least, now)
    output = wanted if tightest is None else min(wanted, tightest.output)
    return output, ceiling_cost(ask.price, ask.input_tokens, output)


def _check_requests(caps: Caps, day: tuple[Totals, Totals], month: tuple[Totals, Totals], now: Moment) -> None:
    # The month first: where both are used up, waiting for tomorrow would not help.
    for code, limit, (used, held), ends_at, window in (
        ("requests_per_month", caps.max_requests_per_month, month, now.month_ends_at, "this month"),
        ("requests_per_day", caps.max_requests_per_day, day, now.day_ends_at, "today"),
    ):
        if limit and used.requests + held.requests + 1 > limit:
            raise BridgeError(
                code,
                f"This key has used its {limit} requests for {window}; it resets at {iso(ends_at)}.",
                retry_after=_wait_s(ends_at, now, if_runs_end=used.requests < limit),
                limit=limit,
                used=used.requests,
                reserved=held.requests,
                remaining=max(0, limit - used.requests - held.requests),
                resets_at=iso(ends_at),
            )


def _check_pace(caps: Caps, minute_ages_s: Sequence[float], running: int, now: Moment) -> None:
    limit = caps.max_requests_per_minute
    if limit and len(minute_ages_s) + 1 > limit:
        # So many of the oldest must be a minute old before one more fits.
        wait_s = MINUTE_S - minute_ages_s[len(minute_ages_s) - limit]
        raise BridgeError(
            "requests_per_minute",
            f"This key may send {limit} requests a minute; try again in {wait_s:.0f} seconds.",
            retry_after=wait_s,
            limit=limit,
            used=len(minute_ages_s),
            remaining=0,
            resets_at=iso(now.at + wait_s),
        )
    limit = caps.max_concurrent
    if limit and running + 1 > limit:
        raise BridgeError(
            "concurrent_requests",
            f"This key may have {limit} requests running at once, and has {running}.",
            retry_after=_SOON_S,
            limit=limit,
            used=running,
            remaining=0,
            resets_at=None,
        )


def _bounds(
    caps: Caps, day: tuple[Totals, Totals], month: tuple[Totals, Totals], now: Moment, ask: Ask
) -> list[_Bound]:
    found = []
    nothing = (Totals(), Totals())
    for code, limit, (used, held), ends_at, window in (
        ("cost_per_request", caps.max_cost_per_request, nothing, None, "one request"),
        ("cost_per_day", caps.max_cost_per_day, day, now.day_ends_at, "today"),
        ("cost_per_month", caps.max_cost_per_month, month, now.month_ends_at, "this month"),
    ):
        if limit:
            left = limit - used.cost_micro - held.cost_micro
            output = affordable_output(ask.price, ask.input_tokens, left)
            found.append(_Bound(code, limit, used.cost_micro, held.cost_micro, output, ends_at, window))
    for code, limit, (used, held), ends_at, window in (
        ("tokens_per_day", caps.max_tokens_per_day, day, now.day_ends_at, "today"),
        ("tokens_per_month", caps.max_tokens_per_month, month, now.month_ends_at, "this month"),
    ):
        if limit:
            output = limit - used.tokens - held.tokens - ask.input_tokens
            found.append(_Bound(code, limit, used.tokens, held.tokens, output, ends_at, window))
    return found


def _refusal(bound: _Bound, ask: Ask, least: int, now: Moment) -> BridgeError:
    money = bound.code.startswith("cost")
    show = dollars if money else int
    needed = ceiling_cost(ask.price, ask.input_tokens, least) if money else ask.input_tokens + least
    parts = [
        f"This key has {_say(bound.left, money)} of {_say(bound.limit, money)} left for {bound.window}"
        if bound.ends_at
        else f"This key may spend {_say(bound.limit, money)} on {bound.window}",
        f", and this request may need {_say(needed, money)}",
        f"; it resets at {iso(bound.ends_at)}." if bound.ends_at else ".",
    ]
    facts: dict[str, Any] = {
        "limit": show(bound.limit),
        "used": show(bound.used),
        "reserved": show(bound.held),
        "remaining": show(bound.left),
        "needed": show(needed),
        "resets_at": iso(bound.ends_at) if bound.ends_at else None,
    }
    hint = retry_after = None
    if needed > bound.limit:
        hint = "Waiting does not help: this request is larger than the whole limit. Make it smaller, or ask your admin."
    if bound.ends_at:
        retry_after = _wait_s(bound.ends_at, now, if_runs_end=bound.used + needed <= bound.limit)
    return BridgeError(bound.code, "".join(parts), hint, retry_after=retry_after, **facts)


def _wait_s(ends_at: float, now: Moment, *, if_runs_end: bool) -> float:
    """Seconds until it is worth trying again: soon, where running requests hold what is missing."""
    until_reset_s = max(1.0, ends_at - now.at)
    return min(_SOON_S, until_reset_s) if if_runs_end else until_reset_s


def _say(amount: int, money: bool) -> str:
    if not money:
        return f"{amount} tokens"
    whole = f"{dollars(amount):.6f}".rstrip("0")
    cents = whole.index(".") + 3
    return "$" + (whole if len(whole) >= cents else whole.ljust(cents, "0"))
