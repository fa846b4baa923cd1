"""The loop breaker: slows down and then pauses a key whose script seems to run in circles.

Two signs of it. Repeats: the same request again and again within a window. A burst: more than ten times
as many requests in a minute as the key's habit is. Kept in memory only: a restart forgets everything.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque

import msgspec

from bridge.clock import Clock, iso
from bridge.errors import BridgeError

BURST_FACTOR = 10
BURST_MINIMUM = 60
"""Fewer requests in a minute than this are never a burst."""
BURST_HISTORY = 5
"""Minutes with requests that a key must have had before its habit means anything."""

_SLOWEST_S = 5.0
_STEP_S = 0.5
_MOST_FINGERPRINTS = 256
_MOST_KEYS = 10_000
_HABIT_WEIGHT = 0.2


class Verdict(msgspec.Struct, frozen=True):
    """Go on after `delay_s` seconds. `newly_paused`: this was the last one; the next are refused."""

    delay_s: float = 0.0
    newly_paused: bool = False


class _Watch:
    """What is remembered of one key. Times are monotonic seconds."""

    def __init__(self) -> None:
        self.seen: OrderedDict[str, deque[float]] = OrderedDict()
        self.paused_until = -math.inf
        self.why = ""
        self.minute = -1
        self.in_minute = 0
        self.minutes = 0
        self.habit = 0.0


class LoopGuard:
    """Watches the requests of every key."""

    def __init__(self, clock: Clock, repeats: int, window_s: float) -> None:
        """`repeats` equal requests within `window_s` seconds pause a key for as long; 0: never, and no
        burst does either."""
        self._clock = clock
        self._repeats = repeats
        self._window_s = window_s
        self._watches: OrderedDict[str, _Watch] = OrderedDict()

    def check(self, key_name: str, fingerprint: str) -> Verdict:
        """Count one request; `fingerprint` stands for what it asks.

        From half of the allowed repeats on, each is to wait a little longer. The one that reaches the
        number still passes; after it the key is paused, for all its requests, until the window has
        passed, or `clear`. Raises BridgeError loop_suspected while it is paused; such attempts do not
        make the pause longer.
        """
        if not self._repeats:
            return Verdict()
        now = self._clock.monotonic()
        watch = self._watch(key_name)
        if now < watch.paused_until:
            raise self._refusal(watch, now)
        repeats = self._count(watch, fingerprint, now)
        if repeats >= self._repeats:
            self._pause(watch, now, f"sent the same request {repeats} times in a short while")
            return Verdict(newly_paused=True)
        if _is_burst(watch, now):
            self._pause(watch, now, f"sent {watch.in_minute} requests in a minute, far beyond its habit")
            return Verdict(newly_paused=True)
        beyond = repeats - math.ceil(self._repeats / 2)
        return Verdict(min(_SLOWEST_S, _STEP_S * (beyond + 1)) if beyond >= 0 else 0.0)

    def clear(self, key_name: str) -> None:
        """Let a key go on, with nothing counted against it."""
        self._watches.pop(key_name, None)

    def _watch(self, key_name: str) -> _Watch:
        watch = self._watches.setdefault(key_name, _Watch())
        self._watches.move_to_end(key_name)
        if len(self._watches) > _MOST_KEYS:
            self._watches.popitem(last=False)
        return watch

    def _count(self, watch: _Watch, fingerprint: str, now: float) -> int:
        """How often the same was asked within the window, this time included."""
        times = watch.seen.setdefault(fingerprint, deque(maxlen=self._repeats))
        watch.seen.move_to_end(fingerprint)
        if len(watch.seen) > _MOST_FINGERPRINTS:
            watch.seen.popitem(last=False)
        while times and now - times[0] >= self._window_s:
            times.popleft()
        times.append(now)
        return len(times)

    def _pause(self, watch: _Watch, now: float, why: str) -> None:
        watch.paused_until = now + self._window_s
        watch.why = why
        watch.seen.clear()
        watch.in_minute = 0

    def _refusal(self, watch: _Watch, now: float) -> BridgeError:
        wait_s = watch.paused_until - now
        return BridgeError(
            "loop_suspected",
            f"This key is paused because it {watch.why}; it goes on by itself in {math.ceil(wait_s)} seconds.",
            retry_after=wait_s,
            limit=self._repeats,
            resets_at=iso(self._clock.now() + wait_s),
        )


def _is_burst(watch: _Watch, now: float) -> bool:
    """Count the request in its minute. The habit is a moving average over minutes with any requests."""
    minute = int(now // 60)
    if minute != watch.minute:
        if watch.in_minute:
            watch.minutes += 1
            weight = max(_HABIT_WEIGHT, 1 / watch.minutes)
            watch.habit += weight * (watch.in_minute - watch.habit)
        watch.minute, watch.in_minute = minute, 0
    watch.in_minute += 1
    return (
        watch.minutes >= BURST_HISTORY
        and watch.in_minute > BURST_MINIMUM
        and watch.in_minute > BURST_FACTOR * watch.habit
    )
