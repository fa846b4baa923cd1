"""Whether a request fits into what its key has left, and how much of it. A pure function of figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from bridge.clock import iso
from bridge.errors import BridgeError
from bridge.ledger.pricing import Price, affordable_output, ceiling_cost
from bridge.ledger.tallies import MINUTE_S, Tally
from bridge.limits import Caps, Limit, Moment, Window, dollars, per_request, summed

MINIMUM_OUTPUT_TOKENS = 256
"""An answer that could only be shorter than this is not begun, unless no more was asked for."""

_SOON_S = 5.0


class Ask(msgspec.Struct, frozen=True):
    """What a request wants: at most so many tokens, and searches of the web, of a model at that price."""

    price: Price
    input_tokens: int
    output_tokens: int
    searches: int = 0

    def cost(self, output_tokens: int | None = None) -> int:
        """The most that it can cost with so many output tokens, or with all, in micro-dollars."""
        output = self.output_tokens if output_tokens is None else output_tokens
        return ceiling_cost(self.price, self.input_tokens, output, self.searches)


class Bound(msgspec.Struct, frozen=True):
    """A limit that holds, in the smallest unit of what it limits. `window` is None for what one request may use."""

    limit: Limit
    amount: int
    window: Window | None = None
    used: int = 0
    held: int = 0
    ends_at: float = 0.0

    @property
    def left(self) -> int:
        """What is neither used nor held."""
        return max(0, self.amount - self.used - self.held)

    @property
    def share(self) -> float:
        """The part that is used or held: above 1 where a limit was lowered."""
        return (self.used + self.held) / self.amount

    def output(self, ask: Ask) -> int:
        """Output tokens that it leaves room for; below 0 where not even the input fits."""
        room = self.amount - self.used - self.held
        if self.limit.is_cost:
            return affordable_output(ask.price, ask.input_tokens, room, ask.searches)
        return room - ask.input_tokens


def fit(caps: Caps, tally: Tally, now: Moment, ask: Ask) -> tuple[int, int]:
    """Output tokens that the request may have, and what it can cost at most, in micro-dollars.

    For every cap, what was used, what is held, and this together stay within it. Raises BridgeError
    with the code of the tightest cap where that leaves less than a sensible answer.
    """
    bounds = [*(Bound(limit, amount) for limit, amount in per_request(caps)), *bounds_of(caps, tally, now)]
    _check_requests([bound for bound in bounds if bound.limit.what == "requests"], now)
    ages_s = tally.minute_ages_s(now.at) if caps["maxRequestsPerMinute"] else ()
    _check_pace(caps, ages_s, len(tally.open), now)

    wanted = min(ask.output_tokens, caps["maxOutputTokens"] or ask.output_tokens)
    least = min(wanted, MINIMUM_OUTPUT_TOKENS)
    rooms = [(bound.output(ask), -bound.ends_at, bound) for bound in bounds if bound.limit.what in ("cost", "tokens")]
    output, _, tightest = min(rooms, key=lambda room: room[:2], default=(wanted, 0.0, None))
    if tightest is not None and output < least:
        raise _refusal(tightest, ask, least, now)
    output = min(wanted, output)
    return output, ask.cost(output)


def bounds_of(caps: Caps, tally: Tally, now: Moment) -> list[Bound]:
    """What holds for what adds up in the windows."""
    found, sums = [], {}
    for limit, window, amount in summed(caps):
        if window.name not in sums:
            span = now.spans[window.name]
            sums[window.name] = (tally.used(span), tally.held(span))
        used, held = sums[window.name]
        found.append(Bound(limit, amount, window, used.of(limit.what), held.of(limit.what), now.ends_at(window.name)))
    return found


class Purse(msgspec.Struct, frozen=True):
    """What a credential can bear at one moment, besides a run that may hold some of it already."""

    #: runs that hold some of it
    running: int
    #: output tokens that its budgets leave room for, in the answer that is asked for; below 0 where there is none
    output: int
    #: of each budget: its used and held share, the elapsed share of its window, and the seconds that are left of that
    budgets: tuple[tuple[float, float, float], ...] = ()
    #: when a budget ends that is used up, in UTC seconds; infinite where the request is larger than all of it
    room_at: float = 0.0
    #: the names of the keys whose runs these are
    keys: frozenset[str] = frozenset()


def purse_of(caps: Caps, tally: Tally, now: Moment, ask: Ask, run_id: str = "") -> Purse:
    """The purse of a credential with these caps and this tally, for what a run asks."""
    bounds = bounds_of(caps, tally, now)
    own = run_id in tally.open
    output = ask.output_tokens if own else min((bound.output(ask) for bound in bounds), default=ask.output_tokens)
    needed = ask.cost()
    full = [math.inf if needed > each.amount else each.ends_at for each in bounds if each.used + needed > each.amount]
    shares = [(bound.share, now.elapsed(bound.window.name), bound.ends_at - now.at) for bound in bounds if bound.window]
    keys = frozenset(each.key_name for id, each in tally.open.items() if id != run_id)
    return Purse(len(tally.open) - own, output, tuple(shares), 0.0 if own else max(full, default=0.0), keys)


def _check_requests(bounds: list[Bound], now: Moment) -> None:
    # The longest window first: where several are used up, waiting for the next day would not help.
    for bound in sorted(bounds, key=lambda bound: -bound.ends_at):
        if bound.window and bound.left < 1:
            raise BridgeError(
                bound.limit.code,
                f"This key has used its {bound.amount} requests for {bound.window.text}; "
                f"it resets at {iso(bound.ends_at)}.",
                retry_after=_wait_s(bound.ends_at, now, if_runs_end=bound.used < bound.amount),
                limit=bound.amount,
                used=bound.used,
                reserved=bound.held,
                remaining=bound.left,
                resets_at=iso(bound.ends_at),
            )


def _check_pace(caps: Caps, minute_ages_s: Sequence[float], running: int, now: Moment) -> None:
    limit = caps["maxRequestsPerMinute"]
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
    limit = caps["maxConcurrent"]
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


def _refusal(bound: Bound, ask: Ask, least: int, now: Moment) -> BridgeError:
    money, show = bound.limit.is_cost, bound.limit.shown
    needed = ask.cost(least) if money else ask.input_tokens + least
    # Money is told to the hundredth of a cent, so that what is left is never told to be enough.
    step = 100 if money else 1
    left, most = _say(bound.left // step * step, money), _say(bound.amount, money)
    parts = [
        f"This key has {left} of {most} left for {bound.window.text}"
        if bound.window
        else f"This key may {'spend' if money else 'use'} {most} on one request",
        f", and this request may need {_say(-(-needed // step) * step, money)}",
        f"; it resets at {iso(bound.ends_at)}." if bound.window else ".",
    ]
    facts: dict[str, Any] = {
        "limit": show(bound.amount),
        "used": show(bound.used),
        "reserved": show(bound.held),
        "remaining": show(bound.left),
        "needed": show(needed),
        "resets_at": iso(bound.ends_at) if bound.window else None,
    }
    hint = retry_after = None
    if needed > bound.amount:
        hint = "Waiting does not help: this request is larger than the whole limit. Make it smaller, or ask your admin."
    if bound.window:
        retry_after = _wait_s(bound.ends_at, now, if_runs_end=bound.used + needed <= bound.amount)
    return BridgeError(bound.limit.code, "".join(parts), hint, retry_after=retry_after, **facts)


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
