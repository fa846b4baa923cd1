"""Answers of the last hour, in memory: a later request of the same key may refer to one instead of sending it again.

Nothing relies on them. They are gone after a restart, and other hosts do not have them.
"""

from __future__ import annotations

from collections import Counter, OrderedDict

import msgspec

from bridge.clock import Clock
from bridge.types import Answer

#: Seconds that an answer is known, and the most that all of them take, in bytes. The oldest of whoever has the most go
#: first, so that nobody drives out all of another's.
KNOWN_S, MOST_BYTES = 3600.0, 8 * 2**20
#: What each takes besides its words, in bytes.
OVERHEAD_BYTES = 500

_decode = msgspec.json.Decoder(Answer).decode


class _Kept(msgspec.Struct, frozen=True):
    until: float
    data: bytes


class RecentAnswers:
    """The answers, by their owners and the ids of their runs."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        #: of each owner, the oldest first
        self._kept: dict[str, OrderedDict[str, _Kept]] = {}
        self._bytes: Counter[str] = Counter()

    def add(self, owner: str, run_id: str, answer: Answer) -> None:
        """Know an answer from now on."""
        data = msgspec.json.encode(answer)
        self._kept.setdefault(owner, OrderedDict())[run_id] = _Kept(self._clock.monotonic() + KNOWN_S, data)
        self._bytes[owner] += OVERHEAD_BYTES + len(data)
        self.prune()

    def get(self, owner: str, run_id: str) -> Answer | None:
        """The answer that this owner got; None where it is not known, or that of another. Large bodies are read in a
        thread, which may ask."""
        own = self._kept.get(owner)
        found = None if own is None else own.get(run_id)
        if found is None or found.until < self._clock.monotonic():
            return None
        return _decode(found.data)

    def prune(self) -> None:
        """Forget what is too old, or too much."""
        now = self._clock.monotonic()
        for owner in list(self._kept):
            while owner in self._kept and next(iter(self._kept[owner].values())).until < now:
                self._forget_oldest(owner)
        while self._bytes.total() > MOST_BYTES:
            self._forget_oldest(max(self._bytes, key=self._bytes.__getitem__))

    def _forget_oldest(self, owner: str) -> None:
        _, oldest = self._kept[owner].popitem(last=False)
        self._bytes[owner] -= OVERHEAD_BYTES + len(oldest.data)
        if not self._kept[owner]:
            del self._kept[owner], self._bytes[owner]
