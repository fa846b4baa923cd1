"""Processes that stand ready, so that a run does not wait for a CLI to boot.

Warm ones were started ahead, and belong to nobody. Kept ones have served runs of one owner, and serve that owner
again, and no other. Any of them can take any request: the model is told to the process with the prompt. The breaker
stops trying a CLI that does not start, and tries it again now and then.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable

import gevent
import gevent.event
from gevent.lock import BoundedSemaphore

from bridge.clock import Clock
from bridge.errors import BridgeError
from bridge.sandbox import host
from bridge.sandbox.child import Child, ChildError
from bridge.settings import Settings

#: A process that stands ready is ended after this long, in seconds, or above this many bytes; it holds no
#: connection that could go stale, but a CLI is not made to sit for days.
MAX_IDLE_S, MAX_IDLE_BYTES = 1800.0, 400 * 2**20
#: How long a kept process waits for its owner's next run, in seconds.
KEPT_S = 600.0
#: Longest wait of a run for a process of its owner that is just being rewound, in seconds: it takes 6 ms, and without
#: it everybody who asks again at once would need two processes.
RETURN_S = 0.1
#: Pause between two starts of the refill, in seconds: a boot takes 0.6 s of CPU from live runs.
REFILL_PAUSE_S = 0.3
#: Longest time for which a start waits for a quiet moment, in seconds.
LONGEST_DELAY_S = 1.0
#: How long a process must have stood before it counts as one that starts, in seconds, once one has not.
PROOF_S = 2.0
#: Seconds between two looks at what stands ready.
LOOK_S = 2.0
#: Longest wait of a run for the memory that its process needs, and the pause between two looks, in seconds.
ROOM_WAIT_S, ROOM_LOOK_S = 10.0, 0.2
#: Seconds after which a client may come again where there was no memory.
COME_AGAIN_S = 20.0
#: After this long the next process may boot, whatever has become of the one before, in seconds.
BOOT_S = 3.0
#: Failed starts, one after the other, after which the CLI counts as unavailable.
THRESHOLD = 3
#: First pause after a failure, in seconds; doubles up to the maximum.
PAUSE_S, MAX_PAUSE_S = 1.0, 60.0

#: Memory that is left to the bridge, to codex and to the rest of the host, in bytes.
RESERVED_BYTES = 256 * 2**20
#: Slots for each core: a run mostly waits for the network.
SLOTS_PER_CORE = 8


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


class _Standing:
    """A process that stands ready, or will in a moment."""

    __slots__ = ("child", "owner", "prepared", "since")

    def __init__(self, child: Child, since: float, owner: str | None = None) -> None:
        self.child = child
        #: whose runs it has served; None for one that has served nobody
        self.owner = owner
        self.since = since
        #: set once it can be used
        self.prepared = gevent.event.Event()


class Pool:
    """Keeps up to `size` processes warm, and up to `most_kept` that have served an owner."""

    def __init__(
        self,
        spawn: Callable[[], Child],
        size: int,
        clock: Clock,
        breaker: Breaker,
        *,
        at_once: int | None = None,
        quiet: Callable[[], bool] = lambda: True,
        room: Callable[[int], bool] = lambda processes: True,
        short: Callable[[], bool] = lambda: False,
        prepare: Callable[[Child], None] = lambda child: None,
        most_kept: int = 0,
    ) -> None:
        """`spawn` starts a process (raises ChildError). `at_once` is how many may boot at a time: more than
        there are cores only take longer, all of them, and more work. A process has booted when it prints.
        `quiet` says whether a refill may start now, `room` whether there is memory for so many more,
        `short` whether those that stand ready should go. `prepare` makes a started one ready, ahead of need; raises
        ChildError."""
        self._spawn = spawn
        self.size = size
        self._clock = clock
        self._breaker = breaker
        self._quiet = quiet
        self._room = room
        self._short = short
        self._turns = None if at_once is None else BoundedSemaphore(at_once)
        self._prepare = prepare
        self._most_kept = most_kept
        self._warm: deque[_Standing] = deque()
        #: the one that was used last comes last
        self._kept: deque[_Standing] = deque()
        #: owner -> how many processes are about to be given back; the event is set when that changes
        self._due: Counter[str] = Counter()
        self._returned = gevent.event.Event()
        self._closed = False
        self._wanted = gevent.event.Event()
        self._keepers: list[gevent.Greenlet[[], None]] = []

    @property
    def warm(self) -> int:
        """How many processes stand ready."""
        return sum([each.child.fit for each in (*self._warm, *self._kept)])

    def open(self) -> None:
        """Begin to keep processes warm."""
        if self.size and not self._keepers:
            self._keepers = [gevent.spawn(self._keep), gevent.spawn(self._look)]
            self._wanted.set()

    def take(self, wanted: Callable[[], bool] = lambda: True, owner: str | None = None) -> tuple[Child, bool]:
        """A process that `owner` has used, or a warm one, or a fresh one where none is ready; and whether it stood
        ready. Runs that wait for their turn to boot one get it in the order in which they came, unless they are not
        `wanted` any more.

        Raises ChildError, or BridgeError overloaded where there is no memory for one.
        """
        short_since: float | None = None
        while wanted():
            child = self._stands_ready(owner)
            if child is not None:
                return child, True
            if self._room(1) or self._give_up_kept():
                short_since = None
                child = self._new(wanted)
                if child is not None:
                    return child, False
                continue
            now = self._clock.monotonic()
            short_since = now if short_since is None else short_since
            if now >= short_since + ROOM_WAIT_S:
                message = "The bridge's host is short of memory."
                raise BridgeError("overloaded", message, retry_after=COME_AGAIN_S)
            gevent.sleep(ROOM_LOOK_S)
        raise ChildError("it is not wanted any more")

    def give_back(self, child: Child, owner: str) -> None:
        """Keep a process for the next run of its owner; one that nothing odd has happened to."""
        if self._closed or not child.alive or not self._most_kept or self._short():
            child.stop()
            return
        self._kept.append(_Standing(child, self._clock.monotonic(), owner))
        while len(self._kept) > self._most_kept:
            self._kept.popleft().child.stop()

    def expect(self, owner: str) -> None:
        """A run of that owner has its answer, and its process will be given back, or ended, in a moment."""
        self._due[owner] += 1

    def expect_no_more(self, owner: str) -> None:
        """What was expected has happened."""
        self._due[owner] -= 1
        if not self._due[owner]:
            del self._due[owner]
        self._returned.set()

    def _own(self, owner: str) -> Child | None:
        """A kept process of that owner, or one that is given back within a moment."""
        until = self._clock.monotonic() + RETURN_S
        while True:
            for each in [each for each in reversed(self._kept) if each.owner == owner]:
                self._kept.remove(each)
                if each.child.fit:
                    return each.child
                each.child.stop()
            left = until - self._clock.monotonic()
            if owner not in self._due or left <= 0:
                return None
            self._returned.clear()
            self._returned.wait(left)

    def _stands_ready(self, owner: str | None) -> Child | None:
        own = None if owner is None else self._own(owner)
        if own is not None:
            return own
        while self._warm:
            each = self._warm.popleft()
            self._wanted.set()
            if each.child.fit:
                each.child.step_forward()
                each.prepared.wait()
                if each.child.fit:
                    return each.child
            each.child.stop()
        return None

    def _give_up_kept(self) -> bool:
        """End the kept process that was used longest ago, for another that needs its place; whether there was one."""
        if not self._kept:
            return False
        child = self._kept.popleft().child
        child.stop()
        child.wait(2)
        return True

    def _new(self, wanted: Callable[[], bool]) -> Child | None:
        """A new process when it is its turn; None where by then it is not needed, or there is no room any more."""
        if self._turns is None:
            return self._spawn()
        self._turns.acquire()
        new = None
        try:
            if wanted() and not self._warm and self._room(1):
                new = self._spawn()
            return new
        finally:
            self._end_turn(new)

    def _end_turn(self, booting: Child | None) -> None:
        """Let the next one boot: now, or when this process has."""
        assert self._turns is not None
        if booting is None:
            self._turns.release()
        else:
            gevent.spawn(self._end_turn_later, booting)

    def _end_turn_later(self, booting: Child) -> None:
        booting.await_word(BOOT_S)
        self._end_turn(None)

    def shed(self) -> bool:
        """Give one process up that stands ready, to free its memory; whether there was one."""
        for standing in (self._kept, self._warm):
            if standing:
                (standing.popleft() if standing is self._kept else standing.pop()).child.stop()
                return True
        return False

    def renew(self) -> None:
        """Put others in the place of those that stand ready: what they are processes of has changed."""
        standing = [each.child for each in (*self._warm, *self._kept)]
        self._warm.clear()
        self._kept.clear()
        for child in standing:
            child.stop()
        self._wanted.set()

    def close(self) -> None:
        """Stop what stands ready; nothing is started or kept any more."""
        self._closed = True
        gevent.killall(self._keepers)
        standing = [each.child for each in (*self._warm, *self._kept)]
        self._warm.clear()
        self._kept.clear()
        for child in standing:
            child.stop()
        for child in standing:
            child.wait(2)

    def _keep(self) -> None:
        """The refill: one start at a time, with a pause between them, and longer ones after failures."""
        while True:
            self._wanted.wait()
            self._wanted.clear()
            # A run should find room for a process of its own before one is kept that may not be needed.
            while len(self._warm) < self.size and self._room(2):
                gevent.sleep(self._breaker.pause_s)
                if self._warm:
                    # First a pause: the run that has just taken a process is in its most urgent moment. But
                    # where none is left, the next run would have to boot one anyway.
                    gevent.sleep(REFILL_PAUSE_S)
                    self._await_quiet()
                self._start_one()

    def _look(self) -> None:
        """Every now and then, let go of what should stand there no longer, and see whether there is room for more."""
        while True:
            gevent.sleep(LOOK_S)
            self._discard()
            self._wanted.set()

    def _start_one(self) -> None:
        if self._turns is not None:
            self._turns.acquire()
        child = None
        try:
            child = self._spawn()
        except ChildError:
            self._breaker.failed()
            return
        finally:
            if self._turns is not None:
                self._end_turn(child)
        child.step_back()
        entry = _Standing(child, self._clock.monotonic())
        self._warm.append(entry)
        try:
            self._prepare(child)
        except ChildError:
            child.stop()
        finally:
            entry.prepared.set()
        if child.wait(PROOF_S if self._breaker.failures else REFILL_PAUSE_S) is None:
            self._breaker.succeeded()
        else:
            self._lose(entry)

    def _lose(self, entry: _Standing) -> None:
        """One ended although no run had used it."""
        if entry in self._warm:
            self._warm.remove(entry)
            entry.child.stop()
            self._breaker.failed()

    def _await_quiet(self) -> None:
        """Not beside a run that is just starting: a boot would slow it. But under steady load, anyway."""
        deadline = self._clock.monotonic() + LONGEST_DELAY_S
        while not self._quiet() and self._clock.monotonic() < deadline:
            gevent.sleep(0.02)

    def _discard(self) -> None:
        """Let go of what has died, is old, has grown, or is in the way of something that matters more."""
        now = self._clock.monotonic()
        for entry in list(self._warm):
            if not entry.child.alive:
                self._lose(entry)
            elif not entry.child.fit or _is_past(entry, now, MAX_IDLE_S):
                self._warm.remove(entry)
                entry.child.stop()
        for entry in [each for each in self._kept if not each.child.fit or _is_past(each, now, KEPT_S)]:
            self._kept.remove(entry)
            entry.child.stop()
        if self._short():
            self.shed()


def _is_past(entry: _Standing, now: float, most_s: float) -> bool:
    return now - entry.since > most_s or host.resident_bytes(entry.child.pid) > MAX_IDLE_BYTES


def slots(settings: Settings) -> int:
    """Runs at once: as set, or what memory and cores of this host bear."""
    if settings.max_concurrent is not None:
        return settings.max_concurrent
    by_memory = (host.total_bytes() - RESERVED_BYTES) // host.CLAUDE_PROCESS_BYTES
    return max(1, min(by_memory, SLOTS_PER_CORE * (os.cpu_count() or 1)))


def warm_processes(settings: Settings) -> int:
    """claude processes kept ready: as set, or a quarter of the slots, at least 1 and at most 4."""
    if settings.warm_processes is not None:
        return settings.warm_processes
    return max(1, min(4, slots(settings) // 4))
