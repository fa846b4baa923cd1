"""Processes started ahead of their one run, so that a run does not wait for a CLI to boot."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import gevent
import gevent.event

from bridge.clock import Clock
from bridge.engine.process import Child, ChildError

#: A warm process is thrown away after this long, in seconds; it holds no connection that could go stale,
#: but a CLI is not made to sit for days.
MAX_IDLE_S = 1800.0
#: Pause between two starts of the refill, in seconds: a boot takes 0.6 s of CPU from live runs.
REFILL_PAUSE_S = 0.3
#: Longest time for which a start waits for a quiet moment, in seconds.
LONGEST_DELAY_S = 1.0
#: First pause after a process that died while warm, in seconds; doubles up to the maximum.
BACKOFF_S, MAX_BACKOFF_S = 1.0, 60.0


class Pool:
    """Keeps up to `size` processes warm. Each is handed out once and never comes back."""

    def __init__(
        self,
        spawn: Callable[[], Child],
        size: int,
        clock: Clock,
        *,
        quiet: Callable[[], bool] = lambda: True,
    ) -> None:
        """`spawn` starts a process (raises ChildError); `quiet` says whether a refill may start now."""
        self._spawn = spawn
        self.size = size
        self._clock = clock
        self._quiet = quiet
        self._warm: deque[tuple[Child, float]] = deque()
        self._wanted = gevent.event.Event()
        self._failures = 0
        self._keeper: gevent.Greenlet[[], None] | None = None

    @property
    def warm(self) -> int:
        """How many processes stand ready."""
        return sum(child.alive for child, _ in self._warm)

    @property
    def failures(self) -> int:
        """Starts that failed, one after the other, up to now."""
        return self._failures

    def open(self) -> None:
        """Begin to keep processes warm."""
        if self.size:
            self._keeper = gevent.spawn(self._keep)
            self._wanted.set()

    def take(self) -> tuple[Child, bool]:
        """A warm process, or a fresh one where none is ready; and whether it is warm. Raises ChildError."""
        while self._warm:
            child, _ = self._warm.popleft()
            self._wanted.set()
            if child.alive:
                child.step_forward()
                return child, True
            child.stop()
        return self._spawn(), False

    def shed(self) -> bool:
        """Give one warm process up, to free its memory; whether there was one."""
        if not self._warm:
            return False
        child, _ = self._warm.pop()
        child.stop()
        return True

    def close(self) -> None:
        """Stop what is warm; nothing is started any more."""
        if self._keeper is not None:
            self._keeper.kill()
        while self._warm:
            child, _ = self._warm.popleft()
            child.stop()
            child.wait(2)

    def _keep(self) -> None:
        """The refill: one start at a time, with a pause between them, and longer ones after failures."""
        while True:
            self._wanted.wait(timeout=5)
            self._wanted.clear()
            self._discard_old()
            while len(self._warm) < self.size:
                # First the pause: the run that has just taken a process is in its most urgent moment.
                gevent.sleep(self._pause())
                self._await_quiet()
                self._start_one()

    def _start_one(self) -> None:
        try:
            child = self._spawn()
        except ChildError:
            self._failures += 1
            return
        child.step_back()
        entry = (child, self._clock.monotonic())
        self._warm.append(entry)
        if child.wait(REFILL_PAUSE_S) is not None and entry in self._warm:
            # It ended although nobody had used it.
            self._warm.remove(entry)
            child.stop()
            self._failures += 1
        else:
            self._failures = 0

    def _await_quiet(self) -> None:
        """Not beside a run that is just starting: a boot would slow it. But under steady load, anyway."""
        deadline = self._clock.monotonic() + LONGEST_DELAY_S
        while not self._quiet() and self._clock.monotonic() < deadline:
            gevent.sleep(0.02)

    def _pause(self) -> float:
        if not self._failures:
            return REFILL_PAUSE_S
        return min(BACKOFF_S * 2.0 ** (self._failures - 1), MAX_BACKOFF_S)

    def _discard_dead(self) -> None:
        for entry in [entry for entry in self._warm if not entry[0].alive]:
            self._warm.remove(entry)
            entry[0].stop()

    def _discard_old(self) -> None:
        self._discard_dead()
        while self._warm and self._clock.monotonic() - self._warm[0][1] > MAX_IDLE_S:
            self._warm.popleft()[0].stop()
