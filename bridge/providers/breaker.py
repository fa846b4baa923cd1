"""Stops trying a CLI that does not start, and tries it again now and then."""

from __future__ import annotations

from bridge.clock import Clock

#: Failed starts, one after the other, after which the CLI counts as unavailable.
THRESHOLD = 3
#: First pause after a failure, in seconds; doubles up to the maximum.
PAUSE_S, MAX_PAUSE_S = 1.0, 60.0


class Breaker:
    """A circuit breaker over starts: closed while they work, open after several failures, half-open
    (one try for each pause) until one works again."""

    def __init__(self, clock: Clock) -> None:
        #: failures in a row, and since the beginning
        self.failures = self.total = 0
        self._clock = clock
        self._next = 0.0

    @property
    def pause_s(self) -> float:
        """How long to leave it alone after the last failure, in seconds."""
        return min(PAUSE_S * 2.0 ** (self.failures - 1), MAX_PAUSE_S) if self.failures else 0.0

    @property
    def tripped(self) -> bool:
        """Whether it has failed so often that it counts as unavailable."""
        return self.failures >= THRESHOLD

    @property
    def retry_in_s(self) -> float:
        """Until the next try is allowed, in seconds; 0 for now."""
        return max(0.0, self._next - self._clock.monotonic()) if self.tripped else 0.0

    def may_try(self) -> bool:
        """Whether a start may be tried now. While tripped, the one who asks first in each pause may."""
        if not self.tripped:
            return True
        if self.retry_in_s:
            return False
        self._next = self._clock.monotonic() + self.pause_s
        return True

    def failed(self) -> None:
        """A start came to nothing."""
        self.failures += 1
        self.total += 1
        self._next = self._clock.monotonic() + self.pause_s

    def succeeded(self) -> None:
        """A start worked."""
        self.failures = 0
