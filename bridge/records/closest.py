"""The keys that are closest to a cap, looked for now and then."""

from __future__ import annotations

import heapq
import math

import gevent

from bridge.clock import Clock
from bridge.keys.keys import KeyBook
from bridge.ledger.ledger import Ledger

#: Seconds for which what was found is good enough: with ten thousand keys a look takes 0.2 seconds of a core.
FRESH_S = 10.0
#: Keys that are looked at in one turn; others come between two turns.
TURN = 200


class Closest:
    """Names of keys, for those who watch and must not hold others up."""

    def __init__(self, keys: KeyBook, ledger: Ledger, clock: Clock) -> None:
        self._keys = keys
        self._ledger = ledger
        self._clock = clock
        self._names: list[str] = []
        self._at = -math.inf

    def names(self, most: int) -> list[str]:
        """At most so many, the closest first; none of those that have used nothing."""
        now = self._clock.monotonic()
        if now - self._at >= FRESH_S:
            # Noted before the look: those who come in the middle of it take what is there.
            self._at = now
            self._names = self._look(most)
        return self._names

    def _look(self, most: int) -> list[str]:
        found: list[tuple[float, str]] = []
        for number, key in enumerate(self._keys.list(), start=1):
            nearest = self._ledger.nearest_cap(key.name, key.limits)
            if nearest is not None and nearest["share"]:
                found.append((nearest["share"], key.name))
            if number % TURN == 0:
                gevent.sleep(0)
        return [name for _, name in heapq.nlargest(most, found)]
