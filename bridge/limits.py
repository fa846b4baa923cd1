"""What one key may use. `Limits` is what somebody asked for, `Caps` what holds.

    Limits()                          nothing named: the server's defaults
    Limits(max_cost_per_day=2_500_000)   2.50 dollars a day, defaults for the rest
    Limits(max_cost_per_day=0)        no limit a day, on purpose

Costs are dollars on the wire and on disk, integer micro-dollars inside.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import msgspec

from bridge.errors import BridgeError
from bridge.settings import LIMIT_DEFAULTS

MICRO = 1_000_000
"""Micro-dollars in a dollar."""

_MOST = 10**12


class Limits(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The limits named for a key. None: not named, so the server's default; 0: no limit."""

    max_requests_per_minute: int | None = None
    max_requests_per_day: int | None = None
    max_requests_per_month: int | None = None
    max_tokens_per_day: int | None = None
    max_tokens_per_month: int | None = None
    max_cost_per_day: int | None = None
    max_cost_per_month: int | None = None
    max_cost_per_request: int | None = None
    max_output_tokens: int | None = None
    max_concurrent: int | None = None

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Limits:
        """Limits from their wire form: camelCase names, dollars for costs.

        Raises BridgeError invalid_request that names the field which is wrong.
        """
        return cls(**{_FIELDS[_known(name)]: _amount(name, value) for name, value in given.items()})

    def merge(self, changes: Limits) -> Limits:
        """These limits with those named in `changes` in their place."""
        named = {f: v for f in self.__struct_fields__ if (v := getattr(changes, f)) is not None}
        return msgspec.structs.replace(self, **named)

    def to_wire(self) -> dict[str, int | float]:
        """The limits that are named, under their wire names; costs in dollars."""
        given = {name: getattr(self, field) for name, field in _FIELDS.items()}
        return {name: _wire(name, value) for name, value in given.items() if value is not None}


class Caps(msgspec.Struct, frozen=True):
    """The limits that hold for a key, each resolved; 0 means none. Costs in micro-dollars."""

    max_requests_per_minute: int = 0
    max_requests_per_day: int = 0
    max_requests_per_month: int = 0
    max_tokens_per_day: int = 0
    max_tokens_per_month: int = 0
    max_cost_per_day: int = 0
    max_cost_per_month: int = 0
    max_cost_per_request: int = 0
    max_output_tokens: int = 0
    max_concurrent: int = 0

    def to_wire(self) -> dict[str, int | float]:
        """All ten under their wire names; costs in dollars."""
        return {name: _wire(name, getattr(self, field)) for name, field in _FIELDS.items()}


def effective(limits: Limits, defaults: Mapping[str, float]) -> Caps:
    """What holds for a key with `limits` on a server with `defaults` (wire names, dollars)."""
    resolved = {}
    for name, field in _FIELDS.items():
        named = getattr(limits, field)
        resolved[field] = _amount(name, defaults.get(name, 0)) if named is None else named
    return Caps(**resolved)


def dollars(micro: int) -> float:
    """Micro-dollars as dollars, for showing."""
    return micro / MICRO


def money(dollars: float) -> str:
    """Dollars for people: cents, and as many further digits as a small amount needs."""
    if 0 < dollars < 0.0001:
        return "<$0.0001"
    return f"${dollars:,.2f}" if dollars == 0 or dollars >= 0.1 else f"${dollars:.4f}"


def is_cost(name: str) -> bool:
    """Whether a limit (wire name) is an amount of money."""
    return name.startswith("maxCost")


_FIELDS = dict(zip(LIMIT_DEFAULTS, Limits.__struct_fields__, strict=True))
"""Wire name -> field. Both tables list the ten in the same order; a test holds them to it."""


def _known(name: str) -> str:
    if name not in _FIELDS:
        raise BridgeError(
            "invalid_request",
            f"{name[:60]!r} is not a limit.",
            f"The limits are {', '.join(_FIELDS)}.",
        )
    return name


def _amount(name: str, value: Any) -> int:
    """A limit's value as a count or in micro-dollars."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(name, "must be a number; 0 means no limit")
    if isinstance(value, float) and not math.isfinite(value):
        raise _wrong(name, "must be a finite number")
    if value < 0:
        raise _wrong(name, "must not be negative; 0 means no limit")
    if value > _MOST:
        raise _wrong(name, "is too large; use 0 for no limit")
    if is_cost(name):
        return _micro(name, value)
    if value != int(value):
        raise _wrong(name, "must be a whole number")
    return int(value)


def _micro(name: str, value: int | float) -> int:
    # Decimal(repr) and not value * 1e6: 0.29 dollars are 290,000 micro-dollars, not 289,999.
    micro = int((Decimal(repr(value)) * MICRO).to_integral_value(ROUND_HALF_UP))
    if micro == 0 and value > 0:
        raise _wrong(name, "is less than a millionth of a dollar; 0 would mean no limit")
    return micro


def _wire(name: str, value: int) -> int | float:
    return dollars(value) if is_cost(name) else value


def _wrong(name: str, what: str) -> BridgeError:
    return BridgeError("invalid_request", f"{name} {what}.", field=name)
