"""The one place that knows what time it is."""

from __future__ import annotations

import functools
import math
import time
from datetime import UTC, date, datetime, tzinfo

#: The year 10000, in UTC seconds.
_END_OF_TIME = 253_402_300_800


class Clock:
    """Wall time in UTC seconds and a monotonic counter in seconds.

    Everything that needs the time is handed one of these, so that tests can freeze it.
    """

    #: seconds since the epoch, UTC; may jump when the host's clock is set
    now = staticmethod(time.time)
    #: seconds from an arbitrary start, which never go back; for durations and deadlines
    monotonic = staticmethod(time.monotonic)


#: A wall clock that goes further ahead than this, in seconds, without so much time having passed, is not believed for
#: as long.
JUMP_S = 86400.0


class JumpGuard:
    """Whether the wall clock may have been set ahead: then nothing should be removed because it is old."""

    def __init__(self, clock: Clock, last_sign: float | None = None) -> None:
        """`last_sign`: wall time of the last thing that is known to have happened, before this process."""
        self._clock = clock
        self._seen = (clock.now(), clock.monotonic())
        late = last_sign is not None and self._seen[0] - last_sign > JUMP_S
        #: until when (monotonic) the clock is not believed
        self._until = self._seen[1] + JUMP_S if late else -math.inf

    def in_doubt(self) -> bool:
        """To be asked before each round of removing."""
        wall, counter = self._seen
        self._seen = now, elapsed = self._clock.now(), self._clock.monotonic()
        if (now - wall) - (elapsed - counter) > JUMP_S:
            self._until = elapsed + JUMP_S
        return elapsed < self._until


def day_of(at: float, zone: tzinfo) -> str:
    """The calendar day of `at` (UTC seconds) in `zone`, as `YYYY-MM-DD`."""
    return datetime.fromtimestamp(at, zone).date().isoformat()


@functools.lru_cache(maxsize=256)
def first_moment(day: date, zone: tzinfo) -> float:
    """UTC seconds of the midnight in `zone` with which a day begins; where midnight is skipped, of the first moment
    that exists. Days are 23 or 25 hours long where daylight saving begins or ends."""
    return datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()


def iso(at: float) -> str:
    """`at` (UTC seconds) as ISO 8601 with milliseconds and a `Z`, as every answer shows times."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def parse_iso(text: str) -> float:
    """UTC seconds of an ISO 8601 text with a zone. Raises ValueError for anything else, also for a time that
    lies in no year from 1970 to 9999 in UTC, which nothing here could show."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time needs a zone, for example 2026-12-31T18:00:00Z")
    at = moment.timestamp()
    if not 0 <= at < _END_OF_TIME:
        raise ValueError("a time lies in a year from 1970 to 9999")
    return at
