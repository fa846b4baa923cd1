"""A run: one generation in flight, and the only place where a reservation, a CLI and a client meet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gevent
import gevent.event
import gevent.queue
import msgspec

from bridge.clock import Clock
from bridge.engine.admission import Admission, Place
from bridge.engine.answer import Attempt, StopFilter, with_output
from bridge.errors import BridgeError, Problem
from bridge.ledger.tallies import Reservation
from bridge.providers.provider import Conversation, Provider
from bridge.providers.tokens import estimate
from bridge.records.jobs import Repeat
from bridge.types import (
    Activity,
    Answer,
    Completed,
    Event,
    Failed,
    Finished,
    GenerationRequest,
    Submitted,
    TextDelta,
    Usage,
)

#: The most text that one answer may have, in characters; far above any model's maximum of tokens.
MAX_ANSWER_CHARACTERS = 4_000_000
#: How often a run is looked at whose CLI keeps no maximum of output tokens, in seconds.
WATCH_S = 0.5


class _Granted(msgspec.Struct, frozen=True):
    """The run has its slot."""


class _Stop(msgspec.Struct, frozen=True):
    """Somebody wants the run to end."""

    problem: Problem


class Run:
    """One generation, from its reservation to its settlement.

    It belongs to itself, not to the HTTP response. However many clients read it (none, for a job), the
    end of its own greenlet, and only that, stops the CLI's work and calls `close`, which settles the
    ledger and writes the log. `finished` is set after both are on disk.
    """

    def __init__(
        self,
        reservation: Reservation,
        request: GenerationRequest,
        *,
        provider: Provider,
        admission: Admission,
        close: Callable[[Run, Completed | Failed], Finished],
        overdrawn: Callable[[Run], Problem | None] | None,
        repair: Callable[[Run, Failed], Attempt | None],
        mismatch: Callable[[dict[str, Any], Any], str | None],
        clock: Clock,
        idle_timeout_s: float,
        queue_timeout_s: float,
        stream: bool,
        owner: str,
        kept: bool = False,
        repeat: Repeat | None = None,
    ) -> None:
        """`close(run, end)` decides what the run is charged, logs and settles it; it must not raise.
        `overdrawn(run)` is asked every now and then: a problem to stop the run with, or None.
        `repair(run, end)` is asked at a bad end: what to try instead of ending so, or None.
        `mismatch(schema, output)`: why an output does not fit the schema, or None."""
        self.id = reservation.id
        self.key_name = reservation.key_name
        self.reservation = reservation
        self.request = request
        self.stream = stream
        #: whose job it is; see records/jobs.py
        self.owner = owner
        #: whether it goes on when its client leaves, because somebody will come back for its end
        self.kept = kept
        #: its Idempotency-Key, if it came with one
        self.repeat = repeat
        self.started_at = clock.now()
        self.state = "queued"
        self.first_token_ms: int | None = None
        self.queued_ms = 0
        self.warm: bool | None = None
        self.usage: Usage | None = None
        self.text_bytes = 0
        self.repairs = 0
        self.attempt = Attempt(request, reservation.input_tokens)
        self.finished: Finished | None = None
        self._provider = provider
        self._admission = admission
        self._close = close
        self._overdrawn = overdrawn
        self._repair = repair
        self._mismatch = mismatch
        self._clock = clock
        self._idle_timeout_s = idle_timeout_s
        self._queue_timeout_s = queue_timeout_s
        self._began = clock.monotonic()
        self._inbox: gevent.queue.Queue[Event | _Granted | _Stop] = gevent.queue.Queue()
        self._deltas: list[str] = []
        self._pieces = 0
        self._stops = StopFilter(request.stop)
        self._changed = gevent.event.Event()
        self._submitted_at: float | None = None
        # Nothing here refers back to the run: with its prompt, and images, it is to be gone as soon as it has
        # ended, and not when Python comes to look for circles.
        inbox = self._inbox
        self._place: Place = admission.enter(self.key_name, lambda: inbox.put(_Granted()))
        self._greenlet = gevent.spawn(self._live)

    # --- for those who watch ---------------------------------------------------------------------

    @property
    def age_s(self) -> float:
        """Seconds since it was taken on."""
        return self._clock.monotonic() - self._began

    @property
    def submitted_s(self) -> float | None:
        """Seconds since the CLI was handed the prompt; None where it never was."""
        return None if self._submitted_at is None else self._clock.monotonic() - self._submitted_at

    @property
    def output_estimate(self) -> int:
        """About how many tokens have been streamed."""
        return estimate(self.text_bytes, self._pieces)

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

    def follow(self, heartbeat_s: float) -> Iterator[str | None]:
        """The text as it comes, in pieces; None after each `heartbeat_s` of silence. Ends when the run
        has ended. Any number of readers, each from the beginning; a slow one holds nothing up."""
        position = 0
        while True:
            if position < len(self._deltas):
                pieces = self._deltas[position:]
                position += len(pieces)
                yield "".join(pieces)
            elif self.finished is not None:
                return
            elif not self._changed.wait(heartbeat_s):
                yield None

    def wait(self, timeout_s: float | None = None) -> Finished | None:
        """The end of the run, or None where it has not come within `timeout_s`."""
        self._greenlet.join(timeout_s)
        return self.finished

    def leave(self) -> None:
        """The client has gone: stop the run, unless somebody will come back for its end."""
        if not self.kept:
            self.cancel(Problem("cancelled", "The client closed the connection before the answer was complete."))

    def cancel(self, problem: Problem) -> None:
        """Stop the run, for the reason that `problem` says. Returns at once; safe to call again, or late."""
        self._inbox.put(_Stop(problem))

    # --- its own life ----------------------------------------------------------------------------

    def _live(self) -> None:
        conversation: Conversation | None = None
        end: Completed | Failed = Failed(Problem("internal", "The request failed inside the bridge."))
        granted_at: float | None = None
        try:
            self._await_slot()
            granted_at = self._clock.monotonic()
            self.queued_ms = round(1000 * (granted_at - self._began))
            self.state = "running"
            deadline = granted_at + self.request.timeout_s
            while True:
                conversation = self._provider.start(self.attempt.request, self._inbox.put)
                end = self._await_end(deadline)
                if isinstance(end, Completed) and self.request.schema is not None:
                    # In a greenlet of its own: meanwhile the run hears of a stop, and of its deadline.
                    gevent.spawn(_check, end, self.request.schema, self._mismatch, self._inbox.put)
                    end = self._await_end(deadline)
                    # What was streamed cannot be taken back: only an answer that fits is shown.
                    self._show(end.answer.text if isinstance(end, Completed) else "")
                again = self._repair(self, end) if isinstance(end, Failed) else None
                if again is None:
                    break
                conversation.cancel()
                self._begin_again(again)
        except BridgeError as error:
            end = Failed(error.problem)
        finally:
            if conversation is not None:
                conversation.cancel()
                self._note_late_submission()
            took_s = None if granted_at is None else self._clock.monotonic() - granted_at
            self._admission.leave(self._place, took_s)
            self.finished = self._close(self, end)
            self.state = "failed" if isinstance(self.finished.result, Problem) else "done"
            # Whoever still reads, and slowly, holds the answer, but not prompts and images.
            self.request = without_prompts(self.request)
            self.attempt = msgspec.structs.replace(self.attempt, request=self.request)
            self._announce()

    def _await_slot(self) -> None:
        try:
            message = self._inbox.get(timeout=self._queue_timeout_s)
        except gevent.queue.Empty:
            raise BridgeError(
                "queue_timeout",
                f"No slot became free within {self._queue_timeout_s:g} seconds.",
                retry_after=self._admission.retry_after_s(),
            ) from None
        if isinstance(message, _Stop):
            raise BridgeError.of(message.problem)

    def _begin_again(self, attempt: Attempt) -> None:
        """Forget what belongs to the attempt before; what that has cost is in `attempt`."""
        self.attempt = attempt
        self.repairs += 1
        self.usage = None
        self.text_bytes = self._pieces = 0
        self._submitted_at = None

    def _await_end(self, deadline: float) -> Completed | Failed:
        """Take the provider's events until the end. Raises BridgeError for a stop or a timeout."""
        silent_since = watched_at = self._clock.monotonic()
        while True:
            now = self._clock.monotonic()
            if self._overdrawn is not None and now >= watched_at + WATCH_S:
                watched_at = now
                problem = self._overdrawn(self)
                if problem is not None:
                    raise BridgeError.of(problem)
            until = min(deadline, silent_since + self._idle_timeout_s)
            if self._overdrawn is not None:
                until = min(until, watched_at + WATCH_S)
            try:
                message = self._inbox.get(timeout=max(0.0, until - now))
            except gevent.queue.Empty:
                self._check_time(deadline, silent_since)
                continue
            silent_since = self._clock.monotonic()
            if silent_since >= deadline and not isinstance(message, Completed | Failed):
                # A CLI that never falls silent has no more time than another.
                self._check_time(deadline, silent_since)
            if isinstance(message, Completed | Failed):
                self._show(self._stops.rest())
                return message
            if isinstance(message, _Stop):
                raise BridgeError.of(message.problem)
            if isinstance(message, TextDelta):
                self._add(message.text)
                if self._stops.found is not None:
                    return self._stopped(self._stops.found)
            elif isinstance(message, Activity) and message.usage is not None:
                self.usage = message.usage
            elif isinstance(message, Submitted):
                self._submitted_at = self._clock.monotonic()
                self.warm = message.warm

    def _note_late_submission(self) -> None:
        """A prompt that was handed over while a stop was on its way may cost money all the same."""
        while not self._inbox.empty():
            if isinstance(self._inbox.get_nowait(), Submitted) and self._submitted_at is None:
                self._submitted_at = self._clock.monotonic()

    def _add(self, text: str) -> None:
        if not text:
            return
        if self.first_token_ms is None:
            self.first_token_ms = round(1000 * self.age_s)
        self._pieces += 1
        self.text_bytes += len(text.encode("utf-8", "replace"))
        if self.text_bytes > MAX_ANSWER_CHARACTERS:
            raise BridgeError("cli_bad_output", "The answer grew beyond all bounds and was stopped.")
        if self.request.schema is None:
            self._show(self._stops.feed(text))

    def _show(self, text: str) -> None:
        """Hand text on to the readers."""
        if text:
            self._deltas.append(text)
            self._announce()

    def _stopped(self, sequence: str) -> Completed:
        """An answer that is complete because a stop sequence came. What it used is only estimated: the CLI is
        stopped before it could tell."""
        text = "".join(self._deltas)
        return Completed(Answer(text, self.request.model, "stop_sequence", None, stop_sequence=sequence))

    def _announce(self) -> None:
        self._changed.set()
        self._changed = gevent.event.Event()

    def _check_time(self, deadline: float, silent_since: float) -> None:
        now = self._clock.monotonic()
        if now >= deadline:
            seconds = self.request.timeout_s
            raise BridgeError("timeout", f"The answer was not complete within {seconds:g} seconds.")
        if now >= silent_since + self._idle_timeout_s:
            raise BridgeError("timeout", f"The CLI was silent for {self._idle_timeout_s:g} seconds.")


def _check(
    end: Completed,
    schema: dict[str, Any],
    mismatch: Callable[[dict[str, Any], Any], str | None],
    emit: Callable[[Completed | Failed], None],
) -> None:
    emit(with_output(end, schema, mismatch))


def without_prompts(request: GenerationRequest) -> GenerationRequest:
    """What rendering an answer needs of a request."""
    return msgspec.structs.replace(request, messages=(), system="")
