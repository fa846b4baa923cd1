"""The loop breaker: slows down and then pauses a key whose script seems to run in circles.

Two signs of it, each counted for itself. Repeats: the same request again and again within a window. Pace: so many
requests in a minute that most of them were beyond the key's own cap, and refused; a key is never paused for a pace
that its cap allows. Kept in memory only: a restart forgets everything.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque

import msgspec

from bridge.clock import Clock, iso
from bridge.errors import BridgeError

PACE_FACTOR = 10
"""So many times its own cap for each minute is what pauses a key for its pace."""

_SLOWEST_S = 5.0
_STEP_S = 0.5
_MOST_FINGERPRINTS = 256
_MOST_KEYS = 10_000
_OTHERWISE = "or ask your admin to resume the key."


class Verdict(msgspec.Struct, frozen=True):
    """Go on after `delay_s` seconds. `newly_paused`: this was the last one; the next are refused."""

    delay_s: float = 0.0
    newly_paused: bool = False


class _Watch:
    """What is remembered of one key. Times are monotonic seconds."""

    def __init__(self) -> None:
        self.seen: OrderedDict[str, deque[float]] = OrderedDict()
        self.paused_until = -math.inf
        self.why = self.hint = ""
        #: the limit that was reached
        self.limit = 0
        self.minute = -1
        self.in_minute = 0


class LoopGuard:
    """Watches the requests of every key."""

    def __init__(self, clock: Clock, window_s: float) -> None:
        """Requests are equal within `window_s` seconds; a key is paused for as long."""
        self._clock = clock
        self._window_s = window_s
        self._watches: OrderedDict[str, _Watch] = OrderedDict()

    def check(self, key_name: str, fingerprint: str, *, repeats: int, per_minute: int) -> Verdict:
        """Count one request; `fingerprint` stands for what it asks.

        `repeats`: so many equal requests within the window pause the key. From half of them on, each is to wait a
        little longer. `per_minute`: what the key may send in a minute. 0, of either: this sign is not looked at. The
        request that reaches a number still passes; after it the key is paused, for all its requests, until the
        window has passed, or `clear`. Raises BridgeError loop_suspected while it is paused; such attempts do not
        make the pause longer.
        """
        now = self._clock.monotonic()
        watch = self._watch(key_name)
        if now < watch.paused_until:
            raise self._refusal(watch, now)
        in_minute = _in_minute(watch, now)
        if per_minute and in_minute >= PACE_FACTOR * per_minute:
            watch.why = f"sent {in_minute} requests in a minute, of which it may send {per_minute}"
            watch.hint = f"Wait between requests, {_OTHERWISE}"
            return self._pause(watch, now, per_minute)
        if not repeats:
            return Verdict()
        same = self._count(watch, fingerprint, repeats, now)
        if same >= repeats:
            watch.why = f"sent the same request {same} times within {self._window_s:g} seconds"
            watch.hint = f"Vary the prompt, {_OTHERWISE}"
            return self._pause(watch, now, repeats)
        beyond = same - math.ceil(repeats / 2)
        return Verdict(min(_SLOWEST_S, _STEP_S * (beyond + 1)) if beyond >= 0 else 0.0)

    def clear(self, key_name: str) -> None:
        """Let a key go on, with nothing counted against it."""
        self._watches.pop(key_name, None)

    def paused(self) -> dict[str, float]:
        """The keys that are paused now, and for how many seconds more."""
        now = self._clock.monotonic()
        return {name: watch.paused_until - now for name, watch in self._watches.items() if watch.paused_until > now}

    def _watch(self, key_name: str) -> _Watch:
        watch = self._watches.setdefault(key_name, _Watch())
        self._watches.move_to_end(key_name)
        if len(self._watches) > _MOST_KEYS:
            self._watches.popitem(last=False)
        return watch

    def _count(self, watch: _Watch, fingerprint: str, most: int, now: float) -> int:
        """How often the same was asked within the window, this time included; no more than `most` are remembered."""
        times = watch.seen.setdefault(fingerprint, deque())
        watch.seen.move_to_end(fingerprint)
        if len(watch.seen) > _MOST_FINGERPRINTS:
            watch.seen.popitem(last=False)
        while times and (now - times[0] >= self._window_s or len(times) >= most):
            times.popleft()
        times.append(now)
        return len(times)

    def _pause(self, watch: _Watch, now: float, limit: int) -> Verdict:
        watch.paused_until = now + self._window_s
        watch.limit = limit
        watch.seen.clear()
        watch.in_minute = 0
        return Verdict(newly_paused=True)

    def _refusal(self, watch: _Watch, now: float) -> BridgeError:
        wait_s = watch.paused_until - now
        return BridgeError(
            "loop_suspected",
            f"This key is paused because it {watch.why}; it goes on by itself in {math.ceil(wait_s)} seconds.",
            watch.hint,
            retry_after=wait_s,
            limit=watch.limit,
            resets_at=iso(self._clock.now() + wait_s),
        )


def _in_minute(watch: _Watch, now: float) -> int:
    """Count the request in its minute; how many those are by now."""
    minute = int(now // 60)
    if minute != watch.minute:
        watch.minute, watch.in_minute = minute, 0
    watch.in_minute += 1
    return watch.in_minute
