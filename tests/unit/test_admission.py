"""Who runs next: slots that are never exceeded, and a queue that is fair between keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.engine.admission import Admission, Place
from bridge.errors import BridgeError


class Desk:
    """An Admission with the order in which it granted."""

    def __init__(self, slots: int, queue_limit: int = 1000, *, others: bool = False) -> None:
        self.admission = Admission(slots, queue_limit, lambda: others)
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
