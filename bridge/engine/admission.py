"""Who is taken on, and who runs next: room for large prompts, slots, and a queue that is fair between keys."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable

from bridge.clock import Clock
from bridge.errors import BridgeError
from bridge.types import GenerationRequest

#: Seconds that a run is thought to take before any has ended.
FIRST_GUESS_S = 10.0
#: A request up to this size, in bytes, is not counted: texts are no danger.
SMALL_BYTES = 256 * 1024
#: Requests of the largest size that wait or run at the same time: of one key, and of all. One with as many pixels as
#: a request may have is nearly as large as two.
LARGEST_OF_KEY, LARGEST_OF_ALL = 2, 4
#: Retry-After where too many large requests run, in seconds.
COME_AGAIN_S = 10.0
#: What others wanted at once is left free for as long as a key's own runs last, within these bounds in seconds: a slot
#: that is taken now is gone for that time.
SHORTEST_MEMORY_S, LONGEST_MEMORY_S = 10.0, 600.0
#: One of so many slots is a key's whatever others have wanted.
SLOTS_TO_ONE = 4


class Place:
    """A run's place: in the queue until `granted`, then a slot until it is left."""

    __slots__ = ("grant", "granted", "key_name")

    def __init__(self, key_name: str, grant: Callable[[], None]) -> None:
        self.key_name = key_name
        self.grant = grant
        self.granted = False


class _Caller:
    """A key that has asked lately."""

    __slots__ = ("asked_at", "hold_s", "others_wanted")

    def __init__(self) -> None:
        self.asked_at = 0.0
        #: how long its runs hold their slots, on average
        self.hold_s = SHORTEST_MEMORY_S
        #: how many slots all others wanted at once, and when last
        self.others_wanted: dict[int, float] = {}


class Admission:
    """Hands slots to runs. Of those who wait, the key that holds the fewest is next, and keys that hold as many take
    turns: a hundred runs of one key do not delay the first one of another. Where others may come, the key that holds
    the most leaves room for them: as many free slots as they wanted at once lately, and the last one in any case.
    All in memory, never blocking."""

    def __init__(self, slots: int, queue_limit: int, others: Callable[[], bool], clock: Clock) -> None:
        """`others()`: whether there is more than one key."""
        self._clock = clock
        #: by key, in the order in which they asked last
        self._callers: OrderedDict[str, _Caller] = OrderedDict()
        #: slots that each key holds or waits for
        self._wanted: Counter[str] = Counter()
        self.slots = slots
        self._others = others
        self._held: Counter[str] = Counter()
        self.queue_limit = queue_limit
        self.running = 0
        self._queues: OrderedDict[str, deque[Place]] = OrderedDict()
        self._average_s = FIRST_GUESS_S
        #: runs that wait outside of the queue
        self._aside = 0

    @property
    def queued(self) -> int:
        """Runs that wait."""
        return self._aside + sum(len(queue) for queue in self._queues.values())

    @property
    def free(self) -> int:
        """Slots that are free."""
        return max(0, self.slots - self.running)

    def retry_after_s(self) -> float:
        """Seconds until a slot is likely to be free for a run that comes now."""
        return max(1.0, self._average_s * (self.queued + 1) / max(1, self.slots))

    def check_room(self) -> None:
        """Raise BridgeError (overloaded) where a new run would find neither slot nor place."""
        if not self.free and self.queued >= self.queue_limit:
            raise BridgeError("overloaded", "Too many requests are waiting already.", retry_after=self.retry_after_s())

    def enter(self, key_name: str, grant: Callable[[], None]) -> Place:
        """Take a slot, or queue up; `grant()` is called once when the slot is there."""
        place = Place(key_name, grant)
        self._queues.setdefault(key_name, deque()).append(place)
        self._wanted[key_name] += 1
        self._remember(key_name)
        self.hand_out()
        return place

    def _remember(self, key_name: str) -> None:
        """Note for everybody how many slots the others want now."""
        now, total = self._clock.monotonic(), self._wanted.total()
        caller = self._callers.pop(key_name, None) or _Caller()
        caller.asked_at = now
        self._callers[key_name] = caller
        while now - next(iter(self._callers.values())).asked_at > LONGEST_MEMORY_S:
            self._callers.popitem(last=False)
        for name, each in self._callers.items():
            each.others_wanted[min(self.slots, total - self._wanted[name])] = now

    def leave(self, place: Place, took_s: float | None = None) -> None:
        """Give a slot back, or leave the queue. `took_s` says how long the slot was held."""
        name = place.key_name
        if place.granted:
            place.granted = False
            self.running -= 1
            _take_one(self._held, name)
            _take_one(self._wanted, name)
            if took_s is not None:
                self._average_s += 0.2 * (took_s - self._average_s)
                if (caller := self._callers.get(name)) is not None:
                    caller.hold_s += 0.2 * (took_s - caller.hold_s)
        else:
            queue = self._queues.get(name)
            if queue is not None and place in queue:
                queue.remove(place)
                _take_one(self._wanted, name)
                if not queue:
                    del self._queues[name]
        self.hand_out()

    def step_aside(self, place: Place) -> None:
        """Give a slot back, and wait outside of the queue for something else than a slot."""
        self.leave(place)
        self._aside += 1

    def come_back(self, place: Place) -> None:
        """After `step_aside`: wait for a slot again, as the next one of its key."""
        self._aside -= 1
        self._queues.setdefault(place.key_name, deque()).appendleft(place)
        self._wanted[place.key_name] += 1
        self.hand_out()

    def go_home(self) -> None:
        """After `step_aside`: wait no longer."""
        self._aside -= 1

    def position(self, place: Place) -> int:
        """How many will be served before this one, plus one; 0 for one that does not wait."""
        if place not in self._queues.get(place.key_name, ()):
            return 0
        ahead = list(self._queues).index(place.key_name)
        depth = self._queues[place.key_name].index(place)
        before = 0
        for number, queue in enumerate(self._queues.values()):
            rounds = depth + 1 if number < ahead else depth
            before += min(len(queue), rounds)
        return before + 1

    def hand_out(self) -> None:
        """Give away what is free. Time alone may make a slot one for a key that waits: to be called now and then."""
        while self.running < self.slots and (key_name := self._next()) is not None:
            queue = self._queues.pop(key_name)
            place = queue.popleft()
            if queue:
                # To the end of the round: every other key with a waiting run comes first.
                self._queues[key_name] = queue
            self.running += 1
            self._held[key_name] += 1
            place.granted = True
            place.grant()

    def _next(self) -> str | None:
        """The key whose turn it is and that may hold one more slot."""
        may = (name for name in self._queues if self._may_hold_more(name))
        return min(may, key=lambda name: self._held[name], default=None)

    def _may_hold_more(self, name: str) -> bool:
        """Whether a key may take one of the slots that are free: one that holds less than another always may."""
        if self.slots == 1 or not self._others():
            return True
        held, free = self._held[name], self.slots - self.running
        if held >= self.slots - 1:
            return False
        share = max(self.slots // SLOTS_TO_ONE, *self._held.values(), 1)
        return held < share or free > self._to_come(name)

    def _to_come(self, name: str) -> int:
        """How many more slots others may want soon than they do now, as far as they did lately."""
        caller = self._callers.get(name)
        if caller is None:
            return 0
        since = self._clock.monotonic() - min(LONGEST_MEMORY_S, max(SHORTEST_MEMORY_S, caller.hold_s))
        lately = max((wanted for wanted, at in caller.others_wanted.items() if at >= since), default=0)
        return lately - min(self.slots, self._wanted.total() - self._wanted[name])


def _take_one(counter: Counter[str], name: str) -> None:
    counter[name] -= 1
    if not counter[name]:
        del counter[name]


def check_load(
    live: Iterable[tuple[str, GenerationRequest]], key_name: str, request: GenerationRequest, largest: int
) -> None:
    """Raise BridgeError overloaded where a large request would be one too many beside those that are `live`.

    `live`: key name and request of each run. `largest`: the most that a body may have, in bytes.
    """
    size = request.size
    if size <= SMALL_BYTES:
        return
    large = [(name, held) for name, each in live if (held := each.size) > SMALL_BYTES]
    own = sum(held for name, held in large if name == key_name)
    if own + size > LARGEST_OF_KEY * largest or sum(held for _, held in large) + size > LARGEST_OF_ALL * largest:
        raise BridgeError("overloaded", "Too many large requests are running already.", retry_after=COME_AGAIN_S)
