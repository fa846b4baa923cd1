"""For those who watch, in memory: the last half hour (counts by the minute, and the newest lines of the log), and the
keys that are closest to a cap."""

from __future__ import annotations

import heapq
import logging
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import TypeVar

import gevent
import msgspec

from bridge.clock import Clock, parse_iso
from bridge.keys.keys import KeyBook
from bridge.ledger.ledger import Ledger
from bridge.records.runlog import RunLog
from bridge.records.statistics import kind_of
from bridge.types import RunRecord

#: Minutes that are kept.
MINUTES = 30
#: Lines that are kept, and characters of what went wrong in them.
LINES, ERROR_CHARACTERS = 50, 160
#: Most that is read of the log at the start.
MOST_LINES, MOST_BYTES = 2000, 8 * 2**20
#: Keys that are counted in one minute; those that come after them are not.
MOST_KEYS = 500
#: Seconds for which the closest keys that were found are good enough: with ten thousand a look takes 0.2 s of a core.
FRESH_S = 10.0
#: Keys that are looked at in one turn; others come between two turns.
TURN = 200

T = TypeVar("T")

log = logging.getLogger("bridge")


class LatelyLine(msgspec.Struct, frozen=True, rename="camel"):
    """A line of the request log in a few words. `times`: requests that it stands for; `credential`: its name."""

    id: str
    timestamp: str
    key_name: str
    provider: str
    model: str
    status: int
    code: str | None
    error: str | None
    tokens: int
    cost_usd: float
    duration_ms: int
    times: int
    credential: str | None


Source = tuple[str, str | None]
"""A provider, and the name of one of its credentials."""


class Minute:
    """What ended in one minute. `limited`: by the provider, `refused`: by a cap of the key."""

    __slots__ = ("answered", "failed", "limited", "refused", "requests", "tokens")

    def __init__(self) -> None:
        self.answered = self.failed = self.tokens = 0
        self.requests: Counter[Source] = Counter()
        self.limited: Counter[Source] = Counter()
        #: by the name of the key
        self.refused: Counter[str] = Counter()

    def add(self, line: LatelyLine, kind: str) -> None:
        """Count one line of a kind."""
        self.answered += kind == "ok"
        self.failed += kind == "failed"
        self.tokens += line.tokens
        if kind == "refused":
            if line.status == 429 and (line.key_name in self.refused or len(self.refused) < MOST_KEYS):
                self.refused[line.key_name] += line.times
            return
        source = (line.provider, line.credential)
        self.requests[source] += 1
        self.limited[source] += line.code == "provider_rate_limited"


class Lately:
    """Fed with each line of the log as it is written, and at the start with the newest of the files."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._minutes: dict[int, Minute] = {}
        self._lines: deque[LatelyLine] = deque(maxlen=LINES)
        #: the last line of each that was taken on
        self._last: dict[Source, LatelyLine] = {}
        self._since = clock.now()

    def observe(self, record: RunRecord) -> None:
        """Take note of a line that was just written."""
        line, kind = _in_few_words(record), kind_of(record)
        self._count(line, kind)
        self._lines.append(line)
        if kind != "refused":
            self._last[record.provider, record.credential] = line

    def fill(self, log_: RunLog) -> None:
        """Take what the log has from before this start. Never raises."""
        try:
            for record in log_.newest(MOST_LINES, MOST_BYTES):
                at = parse_iso(record.timestamp)
                if at >= self._since:
                    continue  # this process has written it
                line, kind = _in_few_words(record), kind_of(record)
                self._count(line, kind)
                if len(self._lines) < LINES:
                    self._lines.appendleft(line)
                if kind != "refused":
                    self._last.setdefault((record.provider, record.credential), line)
                if len(self._lines) == LINES and at < self._since - 60 * MINUTES:
                    return
        except OSError as error:
            log.warning("the last half hour could not be read from the log: %s", error.strerror)

    def lines(self, since: str | None = None) -> list[LatelyLine]:
        """The newest lines, newest last; only those behind the one with the id `since`, where that is still known."""
        every = list(self._lines)
        known = next((place for place, line in enumerate(every) if line.id == since), -1)
        return every[known + 1 :]

    def last(self, source: Source) -> LatelyLine | None:
        """The last line of a credential whose request was taken on."""
        return self._last.get(source)

    def answered_and_failed(self, minutes: int) -> tuple[int, int]:
        """How many runs were answered and failed within so many minutes."""
        last = self._newest(minutes)
        return sum(each.answered for each in last), sum(each.failed for each in last)

    def requests(self, minutes: int) -> Counter[Source]:
        """Runs of each credential within so many minutes."""
        return _sum(self._newest(minutes), lambda each: each.requests)

    def limited(self, minutes: int) -> Counter[Source]:
        """Runs of each credential that the provider's rate limit ended, within so many minutes."""
        return _sum(self._newest(minutes), lambda each: each.limited)

    def refused(self, minutes: int) -> Counter[str]:
        """Requests of each key that one of its caps refused, within so many minutes."""
        return _sum(self._newest(minutes), lambda each: each.refused)

    def tokens(self) -> list[int]:
        """Tokens in each of the minutes, the running one last."""
        return [each.tokens for each in self._newest(MINUTES)]

    def _newest(self, minutes: int) -> list[Minute]:
        """Those minutes, the running one last."""
        now = int(self._clock.now() // 60)
        return [self._minutes.get(number, _NOTHING) for number in range(now - minutes + 1, now + 1)]

    def _count(self, line: LatelyLine, kind: str) -> None:
        now = int(self._clock.now() // 60)
        ended = parse_iso(line.timestamp) + line.duration_ms / 1000
        number = min(now, int(ended // 60))
        if number <= now - MINUTES:
            return
        if number not in self._minutes:
            for old in [each for each in self._minutes if each <= now - MINUTES]:
                del self._minutes[old]
        self._minutes.setdefault(number, Minute()).add(line, kind)


_NOTHING = Minute()


def _sum(minutes: Iterable[Minute], part: Callable[[Minute], Counter[T]]) -> Counter[T]:
    found: Counter[T] = Counter()
    for each in minutes:
        found.update(part(each))
    return found


def _in_few_words(record: RunRecord) -> LatelyLine:
    return LatelyLine(
        id=record.id,
        timestamp=record.timestamp,
        key_name=record.key_name,
        provider=record.provider,
        model=record.model,
        status=record.status,
        code=record.code,
        error=None if record.error is None else record.error[:ERROR_CHARACTERS],
        tokens=record.usage.total,
        cost_usd=record.cost_usd,
        duration_ms=record.duration_ms,
        times=record.times,
        credential=record.credential,
    )


class Closest:
    """Names of the keys that are closest to a cap, looked for now and then."""

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
