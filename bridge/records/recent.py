"""Answers of the last hour, in memory: a later request of the same key may refer to one instead of sending it again.

Nothing relies on them. They are gone after a restart, and other hosts do not have them.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from bridge.clock import Clock
from bridge.types import Answer

#: Seconds that an answer is known, and the most that all of them take, in bytes. The oldest go first.
KNOWN_S, MOST_BYTES = 3600.0, 8 * 2**20
#: What each takes besides its words, in bytes.
OVERHEAD_BYTES = 500

_decode = msgspec.json.Decoder(Answer).decode


class _Kept(msgspec.Struct, frozen=True):
    owner: str
    until: float
    data: bytes


class RecentAnswers:
    """The answers, by the ids of their runs."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        #: oldest first
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._bytes = 0

    def add(self, run_id: str, owner: str, answer: Answer) -> None:
        """Know an answer from now on."""
        data = msgspec.json.encode(answer)
        self._kept[run_id] = _Kept(owner, self._clock.monotonic() + KNOWN_S, data)
        self._bytes += OVERHEAD_BYTES + len(data)
        self.prune()

    def get(self, run_id: str, owner: str) -> Answer | None:
        """The answer that this owner got; None where it is not known, or that of another."""
        found = self._kept.get(run_id)
        if found is None or found.owner != owner or found.until < self._clock.monotonic():
            return None
        return _decode(found.data)

    def prune(self) -> None:
        """Forget what is too old, or too much."""
        now = self._clock.monotonic()
        while self._kept:
            run_id, oldest = next(iter(self._kept.items()))
            if oldest.until >= now and self._bytes <= MOST_BYTES:
                return
            del self._kept[run_id]
            self._bytes -= OVERHEAD_BYTES + len(oldest.data)
