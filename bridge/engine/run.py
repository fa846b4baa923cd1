"""A run: one generation in flight. What is known of it, what its readers see, and the inbox that moves it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import gevent.event
import gevent.queue
import msgspec

from bridge.clock import Clock
from bridge.engine.admission import Admission, Place
from bridge.engine.answer import Attempt, StopFilter
from bridge.engine.roster import CredentialWay
from bridge.errors import BridgeError, Problem
from bridge.keys.keys import Key
from bridge.ledger.tallies import Reservation
from bridge.providers.provider import estimate
from bridge.records.jobs import Job, Repeat
from bridge.store.trace import Trace
from bridge.types import (
    Activity,
    Answer,
    Completed,
    Event,
    Failed,
    Finished,
    GenerationRequest,
    Part,
    PartDelta,
    Receipt,
    Search,
    Submitted,
    Text,
    Thought,
    ToolCall,
    Usage,
    joined,
    whole,
    without_prompts,
)

#: The most text that one answer may have, in bytes; far above any model's maximum of tokens.
MAX_ANSWER_BYTES = 4_000_000
#: How often a run that waits for a slot looks whether time has made one its own, in seconds.
LOOK_S = 1.0
#: How the error of a run begins whose CLI has said nothing for too long.
SILENT = "The CLI was silent for"


class _Granted(msgspec.Struct, frozen=True):
    """The run has its slot."""


class _News(msgspec.Struct, frozen=True):
    """A credential may have become free."""


class _Stop(msgspec.Struct, frozen=True):
    """The run is to end, for the reason that `problem` says."""

    problem: Problem


class Run:
    """One generation, from its reservation to its settlement.

    It belongs to itself, not to the HTTP response: any number of clients read it (none, for a job), each from the
    beginning. The engine drives it (`Engine._live`) by the methods below "for the engine"; everything that happens to
    it, and every wish to stop it, arrives in one inbox. `finished` is set after the settlement is on the disk.
    """

    def __init__(
        self,
        key: Key,
        reservation: Reservation,
        request: GenerationRequest,
        admission: Admission,
        clock: Clock,
        *,
        keeps_maximum: bool = True,
        stream: bool = False,
        kept: bool = False,
        repeat: Repeat | None = None,
    ) -> None:
        """It queues up for a slot at once. `keeps_maximum`: whether its CLI lets the model write no more than asked
        for; `kept`: it goes on when its client leaves, because its end is a job's; `repeat`: the Idempotency-Key that
        it came with."""
        self.id = reservation.id
        self.key = key
        self.reservation = reservation
        self.request = request
        self.keeps_maximum = keeps_maximum
        self.stream = stream
        self.kept = kept
        self.repeat = repeat
        self.started_at = clock.now()
        self.state = "queued"
        self.queued_ms = 0
        self.first_token_ms: int | None = None
        #: searches of the web that were seen in this attempt
        self.searches = 0
        #: whether its process stood ready; None before there is one
        self.warm: bool | None = None
        #: what the CLI has said so far of the usage of this attempt
        self.usage: Usage | None = None
        self.attempt = Attempt(request, reservation.input_tokens)
        #: attempts after the first
        self.repairs = 0
        #: times that it waited for a credential after its call had been turned away
        self.waits = 0
        #: its way to the model; None before there is one, and where its provider needs no credential
        self.way: CredentialWay | None = None
        #: the names of the credentials that it used before, each with what was said; for the log
        self.tried: list[str] = []
        #: what the provider said, over all attempts
        self.receipt: Receipt | None = None
        #: where all that is said in it is written, while that is asked for
        self.trace: Trace | None = None
        self.finished: Finished | None = None
        #: the provider's events, the slot, and every wish to stop
        self.inbox: gevent.queue.Queue[Event | _Granted | _News | _Stop] = gevent.queue.Queue()
        self._clock = clock
        self._admission = admission
        self._began = clock.monotonic()
        self._granted_at: float | None = None
        #: whether it waits for a credential, outside of the queue
        self._aside = False
        self._submitted_at: float | None = None
        self._heard_at = self._began
        self._deltas: list[PartDelta] = []
        self._pieces = self._bytes = 0
        self._stops = StopFilter(request.stop) if request.stop else None
        self._changed = gevent.event.Event()
        self._ended = gevent.event.Event()
        # Nothing here refers back to the run: with its prompt, and images, it is to be gone as soon as it has
        # ended, and not when Python comes to look for circles.
        inbox = self.inbox
        self._place: Place = admission.enter(key.name, lambda: inbox.put(_Granted()))

    # --- for those who watch ---------------------------------------------------------------------

    @property
    def age_s(self) -> float:
        """Seconds since it was taken on."""
        return self._clock.monotonic() - self._began

    @property
    def submitted_s(self) -> float | None:
        """Seconds since the CLI was handed the prompt of this attempt; None where it never was."""
        return None if self._submitted_at is None else self._clock.monotonic() - self._submitted_at

    @property
    def reached_the_cli(self) -> bool:
        """Whether any attempt was handed over, so that it may have cost money."""
        return self._submitted_at is not None or self.attempt.spent is not None

    @property
    def output_estimate(self) -> int:
        """About how many tokens have been streamed in this attempt."""
        return estimate(self._bytes, self._pieces)

    @property
    def usage_so_far(self) -> Usage:
        """What is known or estimated of the usage now, for the live list."""
        known = self.usage or Usage()
        known = msgspec.structs.replace(known, output_tokens=max(known.output_tokens, self.output_estimate))
        return known if self.attempt.spent is None else self.attempt.spent.usage.plus(known)

    @property
    def queue_position(self) -> int:
        """Place in the queue, from 1; 0 once it runs."""
        return self._admission.position(self._place) if self.state == "queued" else 0

    @property
    def job(self) -> Job:
        """What is kept of it as a job: without prompts, and with its end once that is there."""
        request = without_prompts(self.request)
        return Job(self.id, self.key.owner, self.started_at, request, self.repeat, self.finished)

    def follow(self, heartbeat_s: float) -> Iterator[PartDelta | None]:
        """The answer as it comes, in pieces; None after each `heartbeat_s` of silence. Ends when the run has ended.
        Any number of readers, each from the beginning; a slow one holds nothing up."""
        position = 0
        while True:
            if position < len(self._deltas):
                news = self._deltas[position:]
                position += len(news)
                yield from joined(news)
            elif self.finished is not None:
                return
            elif not self._changed.wait(heartbeat_s):
                yield None

    def wait(self, timeout_s: float | None = None) -> Finished | None:
        """The end of the run, or None where it has not come within `timeout_s`."""
        self._ended.wait(timeout_s)
        return self.finished

    def leave(self) -> None:
        """The client has gone: stop the run, unless its end is kept."""
        if not self.kept:
            self.cancel(Problem("cancelled", "The client closed the connection before the answer was complete."))

    def cancel(self, problem: Problem) -> None:
        """Stop the run, for the reason that `problem` says. Returns at once; safe to call again, or late."""
        self.inbox.put(_Stop(problem))

    # --- for the engine --------------------------------------------------------------------------

    def await_slot(self, timeout_s: float) -> None:
        """Wait for the slot. Raises BridgeError for a stop, or where none is free within `timeout_s`."""
        until = self._clock.monotonic() + timeout_s
        message: Any = _News()
        while isinstance(message, _News):
            left_s = until - self._clock.monotonic()
            try:
                message = self.inbox.get(timeout=max(0.0, min(left_s, LOOK_S)))
            except gevent.queue.Empty:
                if left_s > LOOK_S:
                    self._admission.hand_out()
                    continue
                raise BridgeError(
                    "queue_timeout",
                    f"No slot became free within {timeout_s:g} seconds.",
                    retry_after=self._admission.retry_after_s(),
                ) from None
        if isinstance(message, _Stop):
            raise BridgeError.of(message.problem)
        self.state = "running"
        self._granted_at = self._heard_at = self._clock.monotonic()
        self.queued_ms = round(1000 * (self._granted_at - self._began))

    def step_aside(self) -> None:
        """Leave the slot to others, and wait for a credential."""
        self.state = "queued"
        self._admission.step_aside(self._place)
        self._aside = True

    def await_news(self, timeout_s: float) -> None:
        """Wait until a credential may have become free, or that time is over. Raises BridgeError for a stop."""
        try:
            message = self.inbox.get(timeout=timeout_s)
        except gevent.queue.Empty:
            return
        if isinstance(message, _Stop):
            raise BridgeError.of(message.problem)

    def come_back(self) -> None:
        """Wait for a slot again, after `step_aside`."""
        self._aside = False
        self._admission.come_back(self._place)

    def nudge(self) -> None:
        """A credential may have become free."""
        self.inbox.put(_News())

    def await_end(self, idle_s: float, look_up_s: float | None = None) -> Completed | Failed | None:
        """Take what the provider says until its end; None where that has not come after `look_up_s`.

        Raises BridgeError for a stop, where the time of the request is up, after `idle_s` without a sign of life,
        and for an answer that grows beyond all bounds.
        """
        assert self._granted_at is not None
        deadline = self._granted_at + self.request.timeout_s
        look_up_at = math.inf if look_up_s is None else self._clock.monotonic() + look_up_s
        while True:
            until = min(deadline, self._heard_at + idle_s, look_up_at)
            try:
                message = self.inbox.get(timeout=max(0.0, until - self._clock.monotonic()))
            except gevent.queue.Empty:
                message = None
            now = self._clock.monotonic()
            if isinstance(message, Completed | Failed):
                if self._stops is not None:
                    self.show(self._stops.rest())
                return message
            if now >= deadline:
                # A CLI that never falls silent has no more time than another.
                seconds = self.request.timeout_s
                raise BridgeError("timeout", f"The answer was not complete within {seconds:g} seconds.")
            if message is not None:
                self._heard_at = now
                self._note(message)
                if self._stops is not None and self._stops.found is not None:
                    return self._stopped(self._stops.found)
            elif now >= self._heard_at + idle_s:
                raise BridgeError("timeout", f"{SILENT} {idle_s:g} seconds.")
            if now >= look_up_at:
                return None

    @property
    def credential(self) -> str | None:
        """The name of the credential that it uses, or used last."""
        return None if self.way is None else self.way.name

    def begin_again(self, attempt: Attempt) -> None:
        """Forget what belongs to the attempt before; what that has cost is in `attempt`."""
        self.attempt = attempt
        self.repairs += 1
        self.usage = None
        self._bytes = self._pieces = self.searches = 0
        self._submitted_at = None
        self._heard_at = self._clock.monotonic()

    def begin_anew(self, held: Reservation) -> None:
        """Forget an attempt whose call was turned away, so that nothing was used; what it holds is `held` by now."""
        self.reservation = held
        self.waits += 1
        self.usage = self.warm = None
        self._submitted_at = None
        self._heard_at = self._clock.monotonic()

    def note_receipt(self, receipt: Receipt | None) -> None:
        """What the provider said in this attempt; None where nobody listened."""
        if receipt is not None:
            self.receipt = receipt.after(self.receipt)

    def give_up_slot(self) -> None:
        """Leave the slot, or the queue, to others. What is still in the inbox is of no interest any more, but for one
        thing: a prompt that was handed over while a stop was on its way may cost money all the same."""
        while not self.inbox.empty():
            if isinstance(self.inbox.get_nowait(), Submitted) and self._submitted_at is None:
                self._submitted_at = self._clock.monotonic()
        took_s = None if self._granted_at is None else self._clock.monotonic() - self._granted_at
        if self._aside:
            self._admission.go_home()
        else:
            self._admission.leave(self._place, took_s)

    def end(self, finished: Finished) -> None:
        """Tell all readers how it ended. A slow one holds the answer from now on, but not its prompts."""
        self.finished = finished
        self.state = "failed" if isinstance(finished.result, Problem) else "done"
        self.request = without_prompts(self.request)
        self.attempt = msgspec.structs.replace(self.attempt, request=self.request)
        self._ended.set()
        self._announce()

    def show(self, deltas: Iterable[PartDelta]) -> None:
        """Hand pieces of the answer on to the readers."""
        before = len(self._deltas)
        self._deltas.extend(deltas)
        if len(self._deltas) > before:
            self._announce()

    def _note(self, message: Event | _Granted | _News | _Stop) -> None:
        if isinstance(message, _Stop):
            raise BridgeError.of(message.problem)
        if isinstance(message, PartDelta):
            self._add(message)
        elif isinstance(message, Submitted):
            self._submitted_at = self._clock.monotonic()
            self.warm = message.warm
        elif isinstance(message, Activity):
            self.usage = message.usage or self.usage

    def _add(self, delta: PartDelta) -> None:
        if self.first_token_ms is None:
            self.first_token_ms = round(1000 * self.age_s)
        self._pieces += 1
        self.searches += isinstance(delta.part, Search)
        said = _said(delta.part)
        self._bytes += len(said.encode("utf-8", "replace"))
        if self._bytes > MAX_ANSWER_BYTES:
            raise BridgeError("cli_bad_output", "The answer grew beyond all bounds and was stopped.")
        if self.request.schema is None:
            if self._stops is not None:
                self.show(self._stops.feed(delta))
            elif said or delta.part != Text(""):
                self.show([delta])

    def _stopped(self, sequence: str) -> Completed:
        """An answer that is complete because a stop sequence came. What it used is only estimated: its CLI is stopped
        before it could tell."""
        content, model = whole(self._deltas), self.request.model
        return Completed(Answer(content, model, "stop_sequence", None, stop_sequence=sequence))

    def _announce(self) -> None:
        self._changed.set()
        self._changed = gevent.event.Event()


def _said(part: Part) -> str:
    """What a piece of an answer adds to it: of a tool call its arguments, since every piece has the name."""
    if isinstance(part, Text | Thought):
        return part.text
    return part.arguments if isinstance(part, ToolCall) else ""
