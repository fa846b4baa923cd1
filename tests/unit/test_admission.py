"""Who runs next: slots that are never exceeded, and a queue that is fair between keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.engine.admission import LONGEST_MEMORY_S, SHORTEST_MEMORY_S, Admission, Place
from bridge.errors import BridgeError
from tests.support.ledger import FrozenClock


class Desk:
    """An Admission with the order in which it granted."""

    def __init__(self, slots: int, queue_limit: int = 1000, *, others: bool = False) -> None:
        self.clock = FrozenClock()
        self.admission = Admission(slots, queue_limit, lambda: others, self.clock)
        self.order: list[str] = []

    def enter(self, key: str, label: str | None = None) -> Place:
        return self.admission.enter(key, lambda: self.order.append(label or key))


def test_a_free_slot_is_given_at_once() -> None:
    desk = Desk(2)
    places = [desk.enter("a"), desk.enter("a"), desk.enter("a")]
    assert [place.granted for place in places] == [True, True, False]
    assert (desk.admission.running, desk.admission.queued, desk.admission.free) == (2, 1, 0)


def test_a_slot_given_back_goes_to_the_next() -> None:
    desk = Desk(1)
    first, second = desk.enter("a"), desk.enter("a")
    desk.admission.leave(first)
    assert second.granted
    desk.admission.leave(second)
    assert (desk.admission.running, desk.admission.queued) == (0, 0)


def test_a_hundred_of_one_key_do_not_delay_the_first_of_another() -> None:
    desk = Desk(1)
    running = desk.enter("busy")
    for _ in range(100):
        desk.enter("busy")
    newcomer = desk.enter("quiet")
    assert desk.admission.position(newcomer) <= 2
    granted_before = len(desk.order)
    desk.admission.leave(running)
    holder = "busy" if desk.order[-1] == "busy" else "quiet"
    assert holder == "quiet" or desk.admission.position(newcomer) == 1
    assert len(desk.order) == granted_before + 1


def test_keys_take_turns() -> None:
    desk = Desk(1)
    places = [desk.enter("x", "x")]
    for key in ("a", "b", "c"):
        places += [desk.enter(key, f"{key}{n}") for n in range(3)]
    while desk.admission.running:
        desk.admission.leave(next(place for place in places if place.granted))
    assert desk.order == ["x", "a0", "b0", "c0", "a1", "b1", "c1", "a2", "b2", "c2"]


def test_one_that_leaves_the_queue_is_never_granted() -> None:
    desk = Desk(1)
    running, waiting, last = desk.enter("a", "1"), desk.enter("a", "2"), desk.enter("a", "3")
    desk.admission.leave(waiting)
    desk.admission.leave(running)
    assert last.granted
    assert desk.order == ["1", "3"]


def test_leaving_twice_gives_nothing_back_twice() -> None:
    desk = Desk(1)
    place = desk.enter("a")
    desk.admission.leave(place)
    desk.admission.leave(place)
    assert desk.admission.running == 0


def test_one_that_has_left_has_no_position() -> None:
    desk = Desk(1)
    desk.enter("a")
    alone, with_others, _ = desk.enter("b"), desk.enter("c"), desk.enter("c")
    for place in (alone, with_others):
        desk.admission.leave(place)
        assert desk.admission.position(place) == 0


def test_room_runs_out_with_the_queue() -> None:
    desk = Desk(1, queue_limit=2)
    for _ in range(3):
        desk.admission.check_room()
        desk.enter("a")
    with pytest.raises(BridgeError) as refusal:
        desk.admission.check_room()
    assert refusal.value.code == "overloaded"
    assert refusal.value.problem.retry_after is not None
    assert refusal.value.problem.retry_after >= 1


def test_without_a_queue_only_free_slots_count() -> None:
    desk = Desk(1, queue_limit=0)
    desk.admission.check_room()
    desk.enter("a")
    with pytest.raises(BridgeError):
        desk.admission.check_room()


def test_the_expected_wait_follows_what_runs_really_take() -> None:
    desk = Desk(1)
    guess = desk.admission.retry_after_s()
    for _ in range(30):
        desk.admission.leave(desk.enter("a"), took_s=100.0)
    assert desk.admission.retry_after_s() > 5 * guess
    for _ in range(60):
        desk.admission.leave(desk.enter("a"), took_s=0.001)
    assert desk.admission.retry_after_s() == 1.0


@pytest.mark.parametrize(("slots", "most"), [(1, 1), (2, 1), (4, 3), (10, 9)])
def test_where_others_may_come_one_slot_is_not_for_a_key_that_holds_the_rest(slots: int, most: int) -> None:
    desk = Desk(slots, others=True)
    greedy = [desk.enter("greedy") for _ in range(slots + 3)]
    assert desk.admission.running == most
    newcomer = desk.enter("newcomer")
    assert newcomer.granted == (slots > 1)
    desk.admission.leave(newcomer)
    assert desk.admission.running == most, "what it gave back is not for the greedy one either"
    for place in greedy:
        desk.admission.leave(place)
    assert (desk.admission.running, desk.admission.queued) == (0, 0)


def test_who_waits_behind_a_key_that_has_all_it_may_does_not_wait_with_it() -> None:
    desk = Desk(3, others=True)
    for key in ("greedy", "greedy", "greedy", "greedy"):
        desk.enter(key)
    assert desk.enter("other").granted


def held(desk: Desk, places: list[Place], key: str) -> int:
    return sum(place.granted for place in places if place.key_name == key)


@pytest.mark.parametrize(
    ("slots", "others_at_once", "most"),
    [
        (4, 0, 3),
        (4, 1, 3),
        (4, 2, 2),
        (4, 3, 1),
        (4, 4, 1),
        (2, 1, 1),
        (16, 1, 15),
        (16, 5, 11),
        (16, 16, 4),
        (1, 1, 1),
    ],
)
def test_a_key_leaves_free_what_others_wanted_at_once_lately(slots: int, others_at_once: int, most: int) -> None:
    desk = Desk(slots, others=True)
    desk.admission.leave(desk.enter("greedy"))
    for place in [desk.enter(f"other-{n}") for n in range(others_at_once)]:
        desk.admission.leave(place)
    places = [desk.enter("greedy") for _ in range(slots + 3)]
    assert held(desk, places, "greedy") == most
    assert all(desk.enter(f"other-{n}").granted for n in range(others_at_once) if slots >= others_at_once + most)


@pytest.mark.parametrize(
    ("took_s", "after_s", "most"),
    [
        # A key whose runs are short has its slots back soon, and leaves less for less long.
        (1.0, SHORTEST_MEMORY_S - 1, 1),
        (1.0, SHORTEST_MEMORY_S + 1, 3),
        (60.0, 45, 1),
        (60.0, 61, 3),
        (300.0, 250, 1),
        (300.0, 301, 3),
        (9000.0, LONGEST_MEMORY_S - 1, 1),
    ],
)
def test_how_long_it_leaves_that_free_goes_by_how_long_its_own_runs_last(
    took_s: float, after_s: float, most: int
) -> None:
    desk = Desk(4, others=True)
    for _ in range(40):
        desk.admission.leave(desk.enter("greedy"), took_s)
    for place in [desk.enter(f"other-{n}") for n in range(3)]:
        desk.admission.leave(place)
    desk.clock.pass_s(after_s)
    places = [desk.enter("greedy") for _ in range(4)]
    assert held(desk, places, "greedy") == most


def test_time_alone_gives_a_waiting_key_what_others_left() -> None:
    desk = Desk(4, others=True)
    desk.admission.leave(desk.enter("busy"))
    for place in [desk.enter(f"other-{n}") for n in range(3)]:
        desk.admission.leave(place)
    places = [desk.enter("busy") for _ in range(4)]
    assert held(desk, places, "busy") == 1
    desk.clock.pass_s(SHORTEST_MEMORY_S + 1)
    desk.admission.hand_out()
    assert held(desk, places, "busy") == 3


def test_one_request_of_a_colleague_takes_nothing_from_a_busy_key() -> None:
    desk = Desk(8, others=True)
    desk.admission.leave(desk.enter("busy"), 60.0)
    desk.admission.leave(desk.enter("colleague"))
    places = [desk.enter("busy") for _ in range(8)]
    assert held(desk, places, "busy") == 7


def test_two_busy_keys_use_all_slots_half_each() -> None:
    desk = Desk(8, others=True)
    places = [desk.enter("a" if n % 2 else "b") for n in range(40)]
    for _ in range(100):
        assert (held(desk, places, "a"), held(desk, places, "b")) == (4, 4)
        # One of them has runs that end soon, the other's hang.
        done = next(place for place in places if place.granted and place.key_name == "a")
        desk.admission.leave(done, 0.5)
        places.remove(done)
        places.append(desk.enter("a"))
        desk.clock.pass_s(0.5)


def test_of_those_who_wait_the_one_that_holds_least_is_next() -> None:
    desk = Desk(4, others=True)
    greedy = [desk.enter("greedy") for _ in range(4)]
    small = [desk.enter("small"), desk.enter("small")]
    assert [place.granted for place in small] == [True, False]
    desk.admission.leave(greedy[0])
    assert small[1].granted
    assert held(desk, greedy, "greedy") == 2


def test_who_has_not_asked_for_long_is_forgotten() -> None:
    desk = Desk(4, others=True)
    for n in range(50):
        desk.admission.leave(desk.enter(f"visitor-{n}"))
    desk.clock.pass_s(LONGEST_MEMORY_S + 1)
    desk.admission.leave(desk.enter("last"))
    assert list(desk.admission._callers) == ["last"]


def test_the_only_key_has_all_slots() -> None:
    desk = Desk(4)
    assert [desk.enter("only").granted for _ in range(5)] == [True] * 4 + [False]


STEPS = st.lists(
    st.tuples(st.sampled_from(["enter", "leave"]), st.integers(0, 30), st.sampled_from("abc")), max_size=80
)


@given(st.integers(1, 4), STEPS)
def test_slots_are_never_exceeded_and_never_idle_while_somebody_waits(
    slots: int, steps: list[tuple[str, int, str]]
) -> None:
    desk = Desk(slots)
    places: list[Place] = []
    for action, number, key in steps:
        if action == "enter":
            places.append(desk.enter(key))
        elif places:
            desk.admission.leave(places.pop(number % len(places)))
        granted = sum(place.granted for place in places)
        assert desk.admission.running == granted <= slots
        assert desk.admission.queued == len(places) - granted
        assert not desk.admission.queued or granted == slots
        waiting = sorted(desk.admission.position(place) for place in places if not place.granted)
        assert waiting == list(range(1, len(waiting) + 1))


@given(st.lists(st.sampled_from("abcd"), max_size=30))
def test_positions_tell_the_order_in_which_slots_come(keys: list[str]) -> None:
    desk = Desk(1)
    holder = desk.enter("first", "first")
    places = {f"{key}{n}": desk.enter(key, f"{key}{n}") for n, key in enumerate(keys)}
    told = sorted(places, key=lambda label: desk.admission.position(places[label]))
    for label in told:
        desk.admission.leave(holder)
        holder = places[label]
        assert holder.granted
    assert desk.order == ["first", *told]


@given(st.integers(1, 6), STEPS, st.lists(st.floats(0, 400), min_size=80, max_size=80))
def test_where_others_may_come_somebody_who_waits_always_gets_on(
    slots: int, steps: list[tuple[str, int, str]], pauses: list[float]
) -> None:
    desk = Desk(slots, others=True)
    places: list[Place] = []
    for (action, number, key), pause_s in zip(steps, pauses, strict=False):
        if action == "enter":
            places.append(desk.enter(key))
        elif places:
            desk.admission.leave(places.pop(number % len(places)), pause_s)
        desk.clock.pass_s(pause_s)
        running = [place.key_name for place in places if place.granted]
        waiting = {place.key_name for place in places if not place.granted}
        assert desk.admission.running == len(running) <= slots
        # A key that waits holds its share, or there is no slot free for it.
        assert all(name in running or len(running) == slots for name in waiting)
    while desk.admission.running:
        place = next(place for place in places if place.granted)
        places.remove(place)
        desk.admission.leave(place, 1.0)
    assert not places
