"""The pool: processes started ahead, handed out once, and never more than wanted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from bridge.clock import Clock
from bridge.errors import BridgeError
from bridge.providers import pool as module
from bridge.providers.pool import Breaker, Pool
from bridge.sandbox.child import Child, ChildError
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
    monkeypatch.setattr(module, "PROOF_S", 0.05)
    monkeypatch.setattr(module, "LOOK_S", 0.05)
    monkeypatch.setattr(module, "ROOM_WAIT_S", 0.3)
    monkeypatch.setattr(module, "ROOM_LOOK_S", 0.01)
    monkeypatch.setattr(module, "PAUSE_S", 0.05)
    yield
    assert until(lambda: not children()), children()


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


def test_a_pool_keeps_its_size_and_refills_what_was_taken(spawn: Spawner, clock: FrozenClock) -> None:
    pool = Pool(spawn, 3, clock, Breaker(clock))
    pool.open()
    assert until(lambda: pool.warm == 3)
    taken, _ = pool.take()
    assert until(lambda: pool.warm == 3)
    assert spawn.count == 4
    taken.stop()
    pool.close()
    assert pool.warm == 0


def test_no_process_is_handed_out_twice(spawn: Spawner, clock: FrozenClock) -> None:
    pool = Pool(spawn, 2, clock, Breaker(clock))
    pool.open()
    assert until(lambda: pool.warm == 2)
    taken = [pool.take()[0] for _ in range(6)]
    assert len({child.pid for child in taken}) == 6
    for child in taken:
        child.stop()
    pool.close()


def test_an_empty_pool_starts_one_when_asked(spawn: Spawner, clock: FrozenClock) -> None:
    pool = Pool(spawn, 0, clock, Breaker(clock))
    pool.open()
    assert pool.warm == 0
    child, _ = pool.take()
    assert child.alive
    child.stop()
    pool.close()


def test_a_process_that_died_while_warm_is_not_handed_out(spawn: Spawner, clock: FrozenClock) -> None:
    pool = Pool(spawn, 1, clock, Breaker(clock))
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
    pool = Pool(spawn, 1, clock, Breaker(clock))
    pool.open()
    assert until(lambda: pool.warm == 1)
    (old,) = children()
    clock.at += module.MAX_IDLE_S + 1
    pool._wanted.set()
    assert until(lambda: pool.warm == 1 and children()[0].pid != old.pid)
    pool.close()


def test_a_warm_process_can_be_given_up(spawn: Spawner, clock: FrozenClock) -> None:
    pool = Pool(spawn, 1, clock, Breaker(clock))
    pool.open()
    assert until(lambda: pool.warm == 1)
    (given_up,) = children()
    assert pool.shed()
    assert until(lambda: not given_up.is_running())
    pool.close()
    assert not pool.shed()


def test_the_refill_waits_until_it_is_quiet_but_not_where_none_is_left(spawn: Spawner, clock: FrozenClock) -> None:
    quiet = False
    pool = Pool(spawn, 2, clock, Breaker(clock), quiet=lambda: quiet)
    pool.open()
    gevent.sleep(0.1)  # ten pauses of the refill, in which nothing more may happen
    assert spawn.count == 1
    quiet = True
    assert until(lambda: pool.warm == 2)
    pool.close()


class Quiet(Spawner):
    """Starts what prints nothing until it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[Child] = []

    def __call__(self) -> Child:
        child = super().__call__()
        self.started.append(child)
        return child

    def speak(self, number: int) -> None:
        self.started[number].write(b"ready\n")


def test_no_more_boot_at_a_time_than_may_and_runs_get_their_turns_in_order(clock: FrozenClock) -> None:
    spawn = Quiet()
    pool = Pool(spawn, 0, clock, Breaker(clock), at_once=2)
    order: list[int] = []

    def run(number: int) -> None:
        pool.take()
        order.append(number)

    runs = [gevent.spawn(run, number) for number in range(5)]
    assert until(lambda: spawn.count == 2)
    gevent.sleep(0.05)
    assert spawn.count == 2, "the others wait"
    spawn.speak(1)
    assert until(lambda: spawn.count == 3)
    spawn.started[0].stop()  # one that ends is not waited for, either
    assert until(lambda: spawn.count == 4)
    gevent.sleep(0.05)
    assert spawn.count == 4
    spawn.speak(2)
    gevent.joinall(runs, timeout=5)
    assert order == [0, 1, 2, 3, 4]
    for child in spawn.started:
        child.stop()
    pool.close()


def test_a_process_that_never_says_anything_holds_the_others_up_only_for_a_while(
    clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BOOT_S", 0.1)
    spawn = Quiet()
    pool = Pool(spawn, 0, clock, Breaker(clock), at_once=1)
    first, second = gevent.spawn(pool.take), gevent.spawn(pool.take)
    gevent.joinall([first, second], timeout=5)
    assert spawn.count == 2
    for child in spawn.started:
        child.stop()


def test_a_run_that_nobody_wants_any_more_boots_nothing_when_its_turn_comes(clock: FrozenClock) -> None:
    spawn = Quiet()
    pool = Pool(spawn, 0, clock, Breaker(clock), at_once=1)
    pool.take()
    wanted = True
    left, stays = gevent.spawn(pool.take, lambda: wanted), gevent.spawn(pool.take)
    gevent.sleep(0.05)
    wanted = False
    spawn.speak(0)
    child, warm = stays.get(timeout=5)
    assert (spawn.count, warm) == (2, False)
    with pytest.raises(ChildError):
        left.get(timeout=5)
    for each in (spawn.started[0], child):
        each.stop()


def test_a_failed_start_gives_its_turn_back(clock: FrozenClock) -> None:
    spawn = Quiet()
    pool = Pool(spawn, 1, clock, Breaker(clock), at_once=1)
    spawn.fails = True
    for _ in range(3):
        with pytest.raises(ChildError):
            pool.take()
    spawn.fails = False
    pool.open()
    assert until(lambda: pool.warm == 1)
    child, warm = pool.take()
    assert warm
    child.stop()
    pool.close()


@pytest.mark.parametrize("how", ["cannot start", "dies at once"])
def test_starts_that_fail_are_tried_again_ever_more_slowly(spawn: Spawner, clock: FrozenClock, how: str) -> None:
    spawn.fails = how == "cannot start"
    spawn.command = ["false"]
    breaker = Breaker(clock)
    pool = Pool(spawn, 1, clock, breaker)
    pool.open()
    assert until(lambda: spawn.count >= 5)
    pauses = [later - earlier for earlier, later in zip(spawn.times, spawn.times[1:], strict=False)]
    assert until(lambda: breaker.failures >= 4)
    # On a busy machine they are longer.
    assert all(pause > 0.9 * module.PAUSE_S * 2**number for number, pause in enumerate(pauses[:4]))
    spawn.fails, spawn.command = False, ["cat"]
    assert until(lambda: pool.warm == 1)
    assert until(lambda: breaker.failures == 0)
    pool.close()


def test_a_start_that_fails_on_demand_says_so(spawn: Spawner, clock: FrozenClock) -> None:
    spawn.fails = True
    with pytest.raises(ChildError):
        Pool(spawn, 0, clock, Breaker(clock)).take()


def test_close_in_the_middle_of_a_refill_leaves_nothing(spawn: Spawner, clock: FrozenClock) -> None:
    for turns in range(20):
        pool = Pool(spawn, 4, clock, Breaker(clock))
        pool.open()
        for _ in range(turns):
            gevent.sleep(0)
        pool.close()
        assert until(lambda: not children()), turns


# --- memory -------------------------------------------------------------------------------------


def test_without_memory_nothing_is_started_ahead_and_what_stands_ready_is_given_up(
    spawn: Spawner, clock: FrozenClock
) -> None:
    free = 3
    pool = Pool(spawn, 4, clock, Breaker(clock), room=lambda n: free - pool.warm >= n, short=lambda: free < 0)
    pool.open()
    assert until(lambda: pool.warm == 2)  # room for one more is left to a run
    free = -1
    assert until(lambda: pool.warm == 0)
    assert spawn.count == 2
    free = 3
    assert until(lambda: pool.warm == 2)
    pool.close()


def test_a_run_waits_for_memory_and_takes_what_becomes_free(spawn: Spawner, clock: FrozenClock) -> None:
    free = 0
    pool = Pool(spawn, 0, clock, Breaker(clock), room=lambda n: free >= n)
    waiting = gevent.spawn(pool.take)
    gevent.sleep(0.05)
    assert spawn.count == 0
    free = 1
    child, warm = waiting.get(timeout=5)
    assert (child.alive, warm) == (True, False)
    child.stop()
    pool.close()


def test_a_run_that_finds_no_memory_for_long_is_told_when_to_come_again(spawn: Spawner) -> None:
    pool = Pool(spawn, 0, Clock(), Breaker(Clock()), room=lambda n: False)
    with pytest.raises(BridgeError) as refused:
        pool.take()
    assert refused.value.code == "overloaded"
    assert refused.value.problem.retry_after
    assert spawn.count == 0


def test_a_warm_process_that_has_grown_is_replaced(
    spawn: Spawner, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = Pool(spawn, 1, clock, Breaker(clock))
    pool.open()
    assert until(lambda: pool.warm == 1)
    (large,) = children()
    monkeypatch.setattr(module, "MAX_IDLE_BYTES", 0)
    assert until(lambda: not large.is_running())
    monkeypatch.setattr(module, "MAX_IDLE_BYTES", 2**30)
    assert until(lambda: pool.warm == 1)
    pool.close()


def test_runs_that_wait_for_memory_do_not_wait_for_each_other(spawn: Spawner) -> None:
    pool = Pool(spawn, 0, Clock(), Breaker(Clock()), at_once=1, room=lambda n: False)
    wanted = True
    left = gevent.spawn(pool.take, lambda: wanted)
    others = [gevent.spawn(pool.take) for _ in range(20)]
    gevent.sleep(0.05)
    wanted = False
    left.join(0.1)
    assert isinstance(left.exception, ChildError), "who is not wanted any more does not go on waiting"
    # One after the other they would wait twenty times as long.
    gevent.joinall(others, timeout=5 * module.ROOM_WAIT_S)
    assert {each.exception.code for each in others if isinstance(each.exception, BridgeError)} == {"overloaded"}
    assert all(each.ready() for each in others)
    assert spawn.count == 0


def test_a_run_waits_a_moment_for_the_process_of_its_owner_that_is_being_given_back(
    spawn: Spawner, clock: FrozenClock
) -> None:
    pool = Pool(spawn, 0, clock, Breaker(clock), most_kept=2)
    own, _ = pool.take(owner="ada")
    pool.expect("ada")
    again = gevent.spawn(pool.take, lambda: True, "ada")
    other = gevent.spawn(pool.take, lambda: True, "bob")
    assert other.get(timeout=5)[0] is not own
    assert not again.ready(), "it waits"
    pool.give_back(own, "ada")
    pool.expect_no_more("ada")
    assert again.get(timeout=5) == (own, True)
    assert spawn.count == 2
    for child in (own, other.get()[0]):
        child.stop()
    pool.close()


def test_a_run_whose_owner_gets_no_process_back_takes_another(spawn: Spawner, clock: FrozenClock) -> None:
    pool = Pool(spawn, 0, clock, Breaker(clock), most_kept=2)
    pool.expect("ada")
    run = gevent.spawn(pool.take, lambda: True, "ada")
    gevent.sleep(0)
    pool.expect_no_more("ada")
    child, ready = run.get(timeout=5)
    assert not ready
    child.stop()
    pool.close()
