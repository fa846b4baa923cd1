"""The loop breaker: slows down and then pauses a key whose script seems to run in circles.

Two signs of it, each counted for itself. Repeats: the same request again and again within a window. Pace: so many
requests in a minute that most of them were beyond the key's own cap, and refused; a key is never paused for a pace
that its cap allows. Kept in memory only: a restart forgets everything. Several hosts tell each other what they have
counted and paused, a second or two later.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Iterable

import msgspec

from bridge.clock import Clock, iso
from bridge.errors import BridgeError

PACE_FACTOR = 10
"""So many times its own cap for each minute is what pauses a key for its pace."""

_SLOWEST_S = 5.0
_STEP_S = 0.5
_MOST_FINGERPRINTS = 256
_MOST_KEYS = 10_000
#: Counts that a host tells the others.
MOST_TOLD = 200
#: In the place of a fingerprint: all requests of a key, by their pace.
_PACE = ""
_OTHERWISE = "or ask your admin to resume the key."


class Verdict(msgspec.Struct, frozen=True):
    """Go on after `delay_s` seconds. `newly_paused`: this was the last one; the next are refused."""

    delay_s: float = 0.0
    newly_paused: bool = False


class Pause(msgspec.Struct, frozen=True):
    """Why a key is paused, and until when: in monotonic seconds of this host; as it is told, in seconds from then."""

    until: float
    why: str
    hint: str
    #: the limit that was reached
    limit: int


class Signs(msgspec.Struct, frozen=True):
    """What one host tells the others of loops."""

    #: key, fingerprint, for how many seconds more, how often
    counts: list[tuple[str, str, float, int]] = []
    pauses: dict[str, Pause] = {}


class _Watch:
    """What is remembered of one key. Times are monotonic seconds."""

    def __init__(self) -> None:
        self.seen: OrderedDict[str, deque[float]] = OrderedDict()
        self.pause: Pause | None = None
        self.minute = -1
        self.in_minute = 0


class LoopGuard:
    """Watches the requests of every key."""

    def __init__(self, clock: Clock, window_s: float) -> None:
        """Requests are equal within `window_s` seconds; a key is paused for as long."""
        self._clock = clock
        self._window_s = window_s
        self._watches: OrderedDict[str, _Watch] = OrderedDict()
        #: what other hosts may have to know: key, fingerprint; the latest last
        self._repeated: OrderedDict[tuple[str, str], None] = OrderedDict()
        #: what the others have counted together, and until when it holds; and what they have paused
        self._elsewhere: dict[tuple[str, str], tuple[float, int]] = {}
        self._paused_elsewhere: dict[str, Pause] = {}

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
        pause = self._pause_of(key_name, now)
        if pause is not None:
            raise self._refusal(pause, now)
        own = _in_minute(watch, now)
        if per_minute and own >= per_minute:
            self._mark(key_name, _PACE)
        in_minute = own + self._counted_elsewhere(key_name, _PACE, now)
        if per_minute and in_minute >= PACE_FACTOR * per_minute:
            why = f"sent {in_minute} requests in a minute, of which it may send {per_minute}"
            return self._pause(
                watch, Pause(now + self._window_s, why, f"Wait between requests, {_OTHERWISE}", per_minute)
            )
        if not repeats:
            return Verdict()
        own = self._count(watch, fingerprint, repeats, now)
        if own > 1:
            self._mark(key_name, fingerprint)
        same = own + self._counted_elsewhere(key_name, fingerprint, now)
        if same >= repeats:
            why = f"sent the same request {same} times within {self._window_s:g} seconds"
            return self._pause(watch, Pause(now + self._window_s, why, f"Vary the prompt, {_OTHERWISE}", repeats))
        beyond = same - math.ceil(repeats / 2)
        return Verdict(min(_SLOWEST_S, _STEP_S * (beyond + 1)) if beyond >= 0 else 0.0)

    def clear(self, key_name: str) -> None:
        """Let a key go on, with nothing counted against it."""
        self._watches.pop(key_name, None)
        self._paused_elsewhere.pop(key_name, None)
        self._elsewhere = {what: count for what, count in self._elsewhere.items() if what[0] != key_name}

    def paused(self) -> dict[str, float]:
        """The keys that are paused now, and for how many seconds more."""
        now = self._clock.monotonic()
        pauses = {name: self._pause_of(name, now) for name in (*self._watches, *self._paused_elsewhere)}
        return {name: pause.until - now for name, pause in pauses.items() if pause is not None}

    # --- several hosts ---------------------------------------------------------------------------------------

    def told(self) -> Signs:
        """What other hosts should know."""
        now, counts = self._clock.monotonic(), []
        for name, fingerprint in self._repeated:
            watch = self._watches.get(name)
            if watch is None:
                continue
            # Told again each second: what becomes old between two requests of the key is told no more.
            times = [at for at in watch.seen.get(fingerprint, ()) if now - at < self._window_s]
            if fingerprint == _PACE:
                left_s, count = 60 * (watch.minute + 1) - now, watch.in_minute
            else:
                left_s, count = (times[-1] + self._window_s - now, len(times)) if times else (0.0, 0)
            if left_s > 0 and count:
                counts.append((name, fingerprint, left_s, count))
        own = {name: watch.pause for name, watch in self._watches.items() if watch.pause is not None}
        pauses = {name: _from(pause, -now) for name, pause in own.items() if pause.until > now}
        return Signs(counts, pauses)

    def hear(self, told: Iterable[Signs]) -> None:
        """Take what other hosts tell, in the place of what they told before."""
        now = self._clock.monotonic()
        self._elsewhere, self._paused_elsewhere = {}, {}
        for signs in told:
            for name, fingerprint, left_s, count in signs.counts:
                until, before = self._elsewhere.get((name, fingerprint), (0.0, 0))
                self._elsewhere[name, fingerprint] = max(until, now + left_s), before + count
            self._paused_elsewhere |= {name: _from(pause, now) for name, pause in signs.pauses.items()}

    def _mark(self, key_name: str, fingerprint: str) -> None:
        self._repeated[key_name, fingerprint] = None
        self._repeated.move_to_end((key_name, fingerprint))
        if len(self._repeated) > MOST_TOLD:
            self._repeated.popitem(last=False)

    def _counted_elsewhere(self, key_name: str, fingerprint: str, now: float) -> int:
        until, count = self._elsewhere.get((key_name, fingerprint), (0.0, 0))
        return count if now < until else 0

    # --- one key ---------------------------------------------------------------------------------------------

    def _pause_of(self, key_name: str, now: float) -> Pause | None:
        watch = self._watches.get(key_name)
        own = None if watch is None else watch.pause
        for pause in (own, self._paused_elsewhere.get(key_name)):
            if pause is not None and now < pause.until:
                return pause
        return None

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

    def _pause(self, watch: _Watch, pause: Pause) -> Verdict:
        watch.pause = pause
        watch.seen.clear()
        watch.in_minute = 0
        return Verdict(newly_paused=True)

    def _refusal(self, pause: Pause, now: float) -> BridgeError:
        wait_s = pause.until - now
        return BridgeError(
            "loop_suspected",
            f"This key is paused because it {pause.why}; it goes on by itself in {math.ceil(wait_s)} seconds.",
            pause.hint,
            retry_after=wait_s,
            limit=pause.limit,
            resets_at=iso(self._clock.now() + wait_s),
        )


def _from(pause: Pause, seconds: float) -> Pause:
    return msgspec.structs.replace(pause, until=pause.until + seconds)


def _in_minute(watch: _Watch, now: float) -> int:
    """Count the request in its minute; how many those are by now."""
    minute = int(now // 60)
    if minute != watch.minute:
        watch.minute, watch.in_minute = minute, 0
    watch.in_minute += 1
    return watch.in_minute
