"""The roster: which credential a run gets, and another one where the provider turns the first away.

pace        the one that is furthest behind its budget's line; new conversations to the least busy within a band
spread      equal shares, by weight
fill-first  the one of the highest priority, until it cannot be used

The choice is a pure function of values, made in one step with the reservation, so that no two runs see the same money.
A conversation stays with its credential for the time of the provider's prompt cache.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence

import msgspec

from bridge.clock import Clock
from bridge.errors import BridgeError, Problem
from bridge.gate.ticket import Call, RateLimits, Upstream
from bridge.keys.credentials import Credential, CredentialBook, State, may_serve
from bridge.keys.keys import Key
from bridge.ledger.caps import Purse
from bridge.ledger.ledger import Ledger, Pick, PurseOf
from bridge.ledger.tallies import Reservation
from bridge.providers.gated import Failure, failure_of, is_of_a_model
from bridge.registry import PROVIDERS
from bridge.types import GenerationRequest

#: Credentials whose distances to their lines differ by less count as equal, as a share of the budget; a conversation
#: leaves its own when that is further beyond its line.
BAND = 0.10
#: In the last part of a longer window what is left is used up sooner: how long that is, in seconds, and how strongly.
RAMP_S, RAMP = 86400.0, 3.0
#: How long a conversation stays with its credential, in seconds, and how many are remembered.
CONVERSATION_S, MOST_CONVERSATIONS = 300.0, 10_000
#: When it is worth coming back where all are in use, in seconds.
SOON_S = 5.0
#: The most credentials that one call tries.
MOST_TRIES = 8
#: Failures after which another credential is tried once; after those of a credential itself, as many as there are.
_ONCE: tuple[Failure, ...] = ("limited", "overloaded", "unreachable", "silent")


class Candidate(msgspec.Struct, frozen=True):
    """A credential as it is at the moment of a choice."""

    credential: Credential
    state: State
    #: whether it has worked since the start, and since its last failure
    proven: bool
    purse: Purse
    #: conversations that have used it in the last minutes
    sessions: int = 0
    #: what it was given so far in its turns, for equal shares
    turns: float = 0.0
    #: the name of the key that asks
    key_name: str = ""
    #: whether it is another key's turn, which waits for it
    of_others: bool = False

    @property
    def full(self) -> bool:
        """Whether it has as many runs as it may. One that is not proven has one of each key at a time: a key whose
        runs hang must not keep all others from trying."""
        most = self.credential.max_concurrent
        tries = not self.proven and self.key_name in self.purse.keys
        return tries or (bool(most) and self.purse.running >= most)

    def has_room(self, output: int, *, mine: bool = False) -> bool:
        """Whether it may take a run now that may write so many tokens. `mine`: the run holds some of it already."""
        turn = mine or not self.of_others
        return self.state.open and not self.full and turn and self.purse.output >= output

    @property
    def headroom(self) -> float:
        """How far its use lies behind the line of its tightest budget, as a share of that; without one it is neutral:
        0. Below 0 it is beyond the line."""
        found = []
        for used, elapsed, left_s in self.purse.budgets:
            behind = elapsed - used
            whole_s = left_s / (1 - elapsed) if elapsed < 1 else math.inf
            if behind > 0 and left_s < RAMP_S < whole_s / 2:
                behind *= 1 + RAMP * (1 - left_s / RAMP_S)
            found.append(behind)
        return min(found, default=0.0)


def choose(
    candidates: Sequence[Candidate], routing: str, output: int, own: str | None = None, *, session: bool = False
) -> Candidate | None:
    """The credential for a run that may write `output` tokens; None where none has room. `own`: the id of the one that
    its conversation had last; `session`: whether it is a conversation."""
    found = [each for each in candidates if each.has_room(output)]
    if not found:
        return None
    if routing == "fill-first":
        return max(found, key=lambda each: each.credential.priority)
    best = max(each.headroom for each in found)
    mine = next((each for each in found if each.credential.id == own), None)
    if mine is not None and (mine.headroom >= -BAND or mine.headroom >= best - BAND):
        return mine
    if routing == "spread":
        return min(found, key=lambda each: (each.turns, each.purse.running))

    def busy(each: Candidate) -> tuple[float, ...]:
        sessions, weight = each.sessions if session else 0, each.credential.weight
        return sessions / weight, each.purse.running / weight, -each.headroom, each.turns

    return min((each for each in found if each.headroom >= best - BAND), key=busy)


class _Waiter(msgspec.Struct, frozen=True):
    """A run that waits for a credential."""

    key: Key
    provider: str
    model: str
    held: Reservation
    #: called when it may find one
    tell: Callable[[], None]


class Outlook(msgspec.Struct, frozen=True):
    """When a provider's credentials can take a run that none of them takes now."""

    #: whether one is only busy: it may be free at any moment
    busy: bool
    #: seconds until one is tried again; None where no time is known, or waiting for it is of no use
    wait_s: float | None
    problem: Problem

    def check(self, within_s: float) -> None:
        """Raise BridgeError where waiting so many seconds is of no use."""
        if within_s <= 0 or not (self.busy or (self.wait_s is not None and self.wait_s <= within_s)):
            raise BridgeError.of(self.problem)


class Roster:
    """The credentials at work, of one server."""

    def __init__(self, book: CredentialBook, ledger: Ledger, clock: Clock, routing: str) -> None:
        self._book = book
        self._ledger = ledger
        self._clock = clock
        self._routing = routing
        #: id -> the limits that its provider named last
        self.rate_limits: dict[str, RateLimits] = {}
        #: those that wait for a credential
        self._waiting: dict[object, _Waiter] = {}
        #: the name of a key -> the number of the turn in which it last got a credential that has only so many
        self._served: OrderedDict[str, int] = OrderedDict()
        self._turn = 0
        #: conversation -> the id of its credential, when it was used, and whether it counts as a session
        self._conversations: OrderedDict[str, tuple[str, float, bool]] = OrderedDict()
        #: id -> how many of those are sessions
        self._sessions: Counter[str] = Counter()
        self._turns: dict[str, float] = {}
        self._now_served = 0.0
        book.on_change.append(self.changed)

    # --- a run gets one --------------------------------------------------------------------------

    def pick(
        self,
        key: Key,
        request: GenerationRequest,
        without: Collection[Credential] = (),
        without_groups: Collection[str] = (),
    ) -> Pick:
        """What chooses for a request; it counts as chosen when that is called. `without`: those that were tried."""
        mark, tried = _mark_of(key, request), {each.id for each in without}
        is_session = len(request.messages) > 1 or request.session is not None

        def pick(purse_of: PurseOf, output: int) -> str | None:
            candidates = [
                each
                for each in self._candidates(key, request, purse_of)
                if each.credential.id not in tried and each.credential.group not in without_groups
            ]
            own = self._own(mark) if is_session else None
            chosen = choose(candidates, self._routing, output, own, session=is_session)
            if chosen is None:
                return None
            self._note_turn(chosen)
            self._note_served(key, chosen)
            self._forget(mark)
            self._conversations[mark] = (chosen.credential.id, self._clock.monotonic(), is_session)
            self._sessions[chosen.credential.id] += is_session
            if len(self._conversations) > MOST_CONVERSATIONS:
                self._forget(next(iter(self._conversations)))
            return chosen.credential.id

        return pick

    def way(self, key: Key, request: GenerationRequest, held: Reservation, tried: list[str]) -> CredentialWay | None:
        """The way of a run, with a credential that may be used now; None where there is none. On the disk when this
        returns. `tried` gets those that it gives up, each with what the provider said. Raises BridgeError
        storage_failed."""
        purse_of = self._ledger.purses(held)
        for each in self._candidates(key, request, purse_of):
            if each.credential.id == held.credential and each.has_room(held.output_tokens, mine=True):
                return CredentialWay(self, key, request, held, each.credential, tried)
        moved = self._ledger.move(held, self.pick(key, request))
        found = None if moved is None else self._book.find(moved.credential or "")
        return None if moved is None or found is None else CredentialWay(self, key, request, moved, found, tried)

    def has_room(self, key: Key, request: GenerationRequest, held: Reservation) -> bool:
        """Whether `way` would find one; changes nothing."""
        purses = self._ledger.purses(held)
        return any(
            each.has_room(held.output_tokens, mine=each.credential.id == held.credential)
            for each in self._candidates(key, request, purses)
        )

    def outlook(self, key: Key, request: GenerationRequest, held: Reservation | None = None) -> Outlook:
        """When a request can have one that no credential takes now."""
        row, now = PROVIDERS[request.provider], self._clock.now()
        times, later, busy = [], [], False
        for each in self._candidates(key, request, self._ledger.purses(held)):
            if each.state.name in ("disabled", "blocked") or math.isinf(each.purse.room_at):
                continue
            if each.purse.room_at:
                # For a request that comes then: what waits counts for the day on which it came.
                later.append(max(each.state.until or 0.0, each.purse.room_at))
            elif each.state.open:
                busy = True
            else:
                times.append(each.state.until or 0.0)
        if not times and not later and not busy:
            if not any(each.provider == row.name and each.enabled for each in self._book.list()):
                message = f"The bridge has no API key of {row.vendor} yet."
                hint = "Tell your admin, who can add one on the page Credentials; the other provider may work."
                return Outlook(False, None, Problem("no_credentials", message, hint))
            message = f"The bridge has no credential with which {row.vendor} can answer this now."
            return Outlook(False, None, Problem("no_credentials", message))
        wait_s = max(1.0, min(times) - now) if times else None
        if wait_s is None and busy:
            message = "All credentials of the bridge are in use."
            return Outlook(busy, None, Problem("queue_timeout", message, retry_after=SOON_S))
        message = f"{row.vendor} limits the rate of this bridge now."
        again_s = max(1.0, min(times + later) - now)
        return Outlook(busy, wait_s, Problem("provider_rate_limited", message, retry_after=again_s))

    # --- how things stand ------------------------------------------------------------------------

    def usable(self, provider: str) -> bool:
        """Whether a provider has a credential that may be used."""
        return any(self._book.state(each).open for each in self._book.list() if each.provider == provider)

    def is_out(self, provider: str) -> bool:
        """Whether a provider has credentials, and none of them may be used now."""
        found = [self._book.state(each) for each in self._book.list() if each.provider == provider and each.enabled]
        return bool(found) and not any(state.open for state in found)

    def soonest_s(self, provider: str | None = None) -> float | None:
        """Seconds until the next of the benched ones is tried again; None where none is benched."""
        now = self._clock.now()
        states = [self._book.state(each) for each in self._book.list() if provider in (None, each.provider)]
        times = [state.until - now for state in states if state.name == "benched" and state.until is not None]
        return max(1.0, min(times)) if times else None

    def wait(
        self, waiter: object, key: Key, request: GenerationRequest, held: Reservation, tell: Callable[[], None]
    ) -> None:
        """Have `tell` called whenever a credential may have become free, until `stop_waiting`. It must not block."""
        self._waiting[waiter] = _Waiter(key, request.provider, request.model, held, tell)

    def stop_waiting(self, waiter: object) -> None:
        """The waiter has one, or has given up."""
        self._waiting.pop(waiter, None)

    def changed(self) -> None:
        """A run has ended, or something has happened to a credential: those that wait look again."""
        for waiter in list(self._waiting.values()):
            waiter.tell()

    # --- inside ----------------------------------------------------------------------------------

    def _candidates(self, key: Key, request: GenerationRequest, purse_of: PurseOf) -> Iterator[Candidate]:
        """All credentials that may serve a request of a key, whatever their state."""
        self._forget_the_old()
        for each in self._book.list():
            if each.provider == request.provider and may_serve(each, request.model, key.name, key.credentials):
                yield Candidate(
                    each,
                    self._book.state(each, request.model),
                    self._book.is_proven(each),
                    purse_of(each.id, each.limits),
                    self._sessions[each.id],
                    # One that joins, or comes back, has no turns to catch up on.
                    max(self._turns.get(each.id, 0.0), self._now_served),
                    key.name,
                    self._comes_first(key, each),
                )

    def _comes_first(self, key: Key, credential: Credential) -> bool:
        """Whether another key waits for a credential whose turn it is: keys that want one that has only so many runs
        take turns, however many requests each of them has."""
        if not credential.max_concurrent:
            return False
        own = self._served.get(key.name, 0)
        return any(
            each.key.name != key.name
            and self._served.get(each.key.name, 0) < own
            and each.provider == credential.provider
            and may_serve(credential, each.model, each.key.name, each.key.credentials)
            and self._could_use(each, credential)
            for each in self._waiting.values()
        )

    def _could_use(self, waiter: _Waiter, credential: Credential) -> bool:
        """Whether a credential would do for a run that waits, if nobody else had it."""
        purse = self._ledger.purses(waiter.held)(credential.id, credential.limits)
        tries = not self._book.is_proven(credential) and waiter.key.name in purse.keys
        return not tries and purse.output >= waiter.held.output_tokens

    def _note_served(self, key: Key, chosen: Candidate) -> None:
        if chosen.credential.max_concurrent:
            self._turn += 1
            self._served.pop(key.name, None)
            self._served[key.name] = self._turn
            if len(self._served) > MOST_CONVERSATIONS:
                self._served.popitem(last=False)

    def _note_turn(self, chosen: Candidate) -> None:
        self._now_served = chosen.turns
        self._turns[chosen.credential.id] = chosen.turns + 1 / chosen.credential.weight

    def _own(self, mark: str) -> str | None:
        found = self._conversations.get(mark)
        if found is None or self._clock.monotonic() - found[1] > CONVERSATION_S:
            return None
        return found[0]

    def _forget(self, mark: str) -> None:
        if (found := self._conversations.pop(mark, None)) is not None:
            self._sessions[found[0]] -= found[2]

    def _forget_the_old(self) -> None:
        since = self._clock.monotonic() - CONVERSATION_S
        while self._conversations and next(iter(self._conversations.values()))[1] < since:
            self._forget(next(iter(self._conversations)))


def _mark_of(key: Key, request: GenerationRequest) -> str:
    """What the requests of one conversation share, and of no other key: what its client calls it, or its beginning."""
    first = request.messages[0] if request.messages else None
    said = (request.model, request.system, request.session or (None if first is None else first.text))
    return hashlib.sha256(repr((key.owner, *said)).encode("utf-8", "replace")).hexdigest()


class CredentialWay:
    """The way of one run to its model: the credential that it uses, and others where the provider turns that away,
    within the same reservation."""

    def __init__(
        self,
        roster: Roster,
        key: Key,
        request: GenerationRequest,
        held: Reservation,
        credential: Credential,
        said: list[str],
    ) -> None:
        self._roster = roster
        self._key = key
        self._request = request
        #: what it holds, and of which credential
        self.held = held
        self._credential = credential
        self._tried: list[Credential] = []
        self._hops: Counter[Failure] = Counter()
        self._said = said
        #: how the last call failed, where that speaks against its credential; None where it does not
        self.turned_away: Failure | None = None

    @property
    def name(self) -> str:
        """The name of the credential that it uses, as it is by now."""
        return (self._roster._book.find(self._credential.id) or self._credential).name

    @property
    def upstream(self) -> Upstream:
        """Where a call goes now, with the secret as it is by now."""
        book = self._roster._book
        credential = self._credential = book.find(self._credential.id) or self._credential
        return Upstream(PROVIDERS[credential.provider].wire, book.endpoint(credential), credential.secret)

    @property
    def spare(self) -> bool:
        """Whether another could be tried, should this one fail."""
        tried = {self._credential.id, *(each.id for each in self._tried)}
        candidates = self._roster._candidates(self._key, self._request, self._roster._ledger.purses(self.held))
        return any(each.has_room(self.held.output_tokens) for each in candidates if each.credential.id not in tried)

    def next(self, call: Call) -> Upstream | None:
        """Where to try again after a call that brought nothing; None where nowhere. Raises BridgeError."""
        failure = self._note(call)
        before = self._credential
        self._tried.append(before)
        if failure in ("request", "other") or len(self._tried) >= MOST_TRIES:
            return None
        if failure in _ONCE and self._hops[failure]:
            return None
        self._hops[failure] += 1
        # The limits of a rate are an organization's: another credential of the same would be limited, too.
        groups = {each.group for each in self._tried if each.group} if failure == "limited" else set()
        pick = self._roster.pick(self._key, self._request, self._tried, groups)
        moved = self._roster._ledger.move(self.held, pick)
        found = None if moved is None else self._roster._book.find(moved.credential or "")
        if moved is None or found is None:
            return None
        self._said.append(f"{before.name} ({_reason(call)})")
        self.held, self._credential = moved, found
        return self.upstream

    def accept(self, call: Call) -> None:
        """The provider has begun to answer."""
        self.turned_away = None
        self._note_limits(call)
        self._roster._book.note_success(self._credential, self._request.model)

    def close(self, call: Call) -> None:
        """The call has ended: what it said in the middle of an answer counts, too."""
        if call.status == 200 and call.error_type is not None and not call.turned_away:
            self._note(call)

    def _note(self, call: Call) -> Failure:
        """What a failed call says of its credential."""
        self._note_limits(call)
        book, failure = self._roster._book, failure_of(call)
        self.turned_away = failure if failure in ("limited", "rejected") else None
        if failure == "rejected":
            book.note_rejected(self._credential, _reason(call))
        elif failure == "limited":
            model = self._request.model if is_of_a_model(call) else None
            book.note_limited(self._credential, call.retry_after_s, _reason(call), random.random(), model)
        elif failure in ("request", "model"):
            # Whoever finds fault with the request has taken the credential.
            book.note_success(self._credential, self._request.model)
        return failure

    def _note_limits(self, call: Call) -> None:
        if call.rate_limits:
            self._roster.rate_limits[self._credential.id] = RateLimits(call.rate_limits, self._roster._clock.now())


def _reason(call: Call) -> str:
    """What a provider said when it turned a call away, for the admin."""
    if call.status is None:
        return call.error_message or "no answer"
    return " ".join(filter(None, (str(call.status), call.error_type, call.error_message)))[:300]
