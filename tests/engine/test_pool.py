"""The pool: processes started ahead, handed out once, and never more than wanted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from bridge.clock import Clock
from bridge.engine import pool as module
from bridge.engine.pool import Pool
from bridge.engine.process import Child, ChildError
from tests.engine.harness import children, until


class FrozenClock(Clock):
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.at = 1000.0

    def monotonic(self) -> float:
        return self.at


class Spawner:
    """Starts `cat`, or something worse, and counts."""

    def __init__(self) -> None:
        self.count = 0
        self.command = ["cat"]
        self.fails = False
        self.times: list[float] = []

    def __call__(self) -> Child:
        self.count += 1
        self.times.append(gevent.get_hub().loop.now())
        if self.fails:
            raise ChildError("no")
        return Child(self.command, env={"PATH": "/usr/bin:/bin"}, cwd=Path("/"))


@pytest.fixture
def spawn() -> Spawner:
    return Spawner()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(module, "REFILL_PAUSE_S", 0.01)
    monkeypatch.setattr(module, "BACKOFF_S", 0.05)
    yield
    assert until(lambda: not children()), children()


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


def test_a_pool_keeps_its_size_and_refills_what_was_taken(spawn: Spawner, clock: FrozenClock) -> None:
    pool = Pool(spawn, 3, clock)
    pool.open()
    assert until(lambda: pool.warm == 3)
    taken, _ = pool.take()
    assert until(lambda: pool.warm == 3)
    assert spawn.count == 4
    taken.stop()
    pool.close()
    assert pool.warm == 0


def test_no_process_is_handed_out_twice(spawn: Spawner, clock: FrozenClock) -> None:
    pool = Pool(spawn, 2, clock)
    pool.open()
    assert until(lambda: pool.warm == 2)
    taken = [pool.take()[0] for _ in range(6)]
    assert len({child.pid for child in taken}) == 6
    for child in taken:
        child.stop()
    pool.close()


def test_an_empty_pool_starts_one_when_asked(spawn: Spawner, clock: FrozenClock) -> None:
    pool = Pool(spawn, 0, clock)
    pool.open()
    assert pool.warm == 0
    child, _ = pool.take()
    assert child.alive
    child.stop()
    pool.close()


def test_a_process_that_died_while_warm_is_not_handed_out(spawn: Spawner, clock: FrozenClock) -> None:
    pool = Pool(spawn, 1, clock)
    pool.open()
    assert until(lambda: pool.warm == 1)
    (dead,) = children()
    dead.kill()
    assert until(lambda: pool.warm == 0)
    child, _ = pool.take()
    assert child.alive
    assert child.pid != dead.pid
    child.stop()
    pool.close()


def test_an_old_process_is_replaced(spawn: Spawner, clock: FrozenClock) -> None:
    pool = Pool(spawn, 1, clock)
    pool.open()
    assert until(lambda: pool.warm == 1)
    (old,) = children()
    clock.at += module.MAX_IDLE_S + 1
    pool._wanted.set()
    assert until(lambda: pool.warm == 1 and children()[0].pid != old.pid)
    pool.close()


def test_a_warm_process_can_be_given_up(spawn: Spawner, clock: FrozenClock) -> None:
    pool = Pool(spawn, 1, clock)
    pool.open()
    assert until(lambda: pool.warm == 1)
    (given_up,) = children()
    assert pool.shed()
    assert until(lambda: not given_up.is_running())
    pool.close()
    assert not pool.shed()


def test_the_refill_waits_until_it_is_quiet(spawn: Spawner, clock: FrozenClock) -> None:
    quiet = False
    pool = Pool(spawn, 1, clock, quiet=lambda: quiet)
    pool.open()
    gevent.sleep(0.1)  # ten pauses of the refill, in which nothing may happen
    assert spawn.count == 0
    quiet = True
    assert until(lambda: pool.warm == 1)
    pool.close()


@pytest.mark.parametrize("how", ["cannot start", "dies at once"])
def test_starts_that_fail_are_tried_again_ever_more_slowly(spawn: Spawner, clock: FrozenClock, how: str) -> None:
    spawn.fails = how == "cannot start"
    spawn.command = ["false"]
    pool = Pool(spawn, 1, clock)
    pool.open()
    assert until(lambda: spawn.count >= 5)
    pauses = [later - earlier for earlier, later in zip(spawn.times, spawn.times[1:], strict=False)]
    assert pool.failures >= 4
    assert pauses[3] > 3 * module.BACKOFF_S > pauses[0]
    spawn.fails, spawn.command = False, ["cat"]
    assert until(lambda: pool.warm == 1)
    assert until(lambda: pool.failures == 0)
    pool.close()


def test_a_start_that_fails_on_demand_says_so(spawn: Spawner, clock: FrozenClock) -> None:
    spawn.fails = True
    with pytest.raises(ChildError):
        Pool(spawn, 0, clock).take()


def test_close_in_the_middle_of_a_refill_leaves_nothing(spawn: Spawner, clock: FrozenClock) -> None:
    for turns in range(20):
        pool = Pool(spawn, 4, clock)
        pool.open()
        for _ in range(turns):
            gevent.sleep(0)
        pool.close()
        assert until(lambda: not children()), turns
