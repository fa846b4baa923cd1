"""The engine: takes requests on, drives them as runs, and sees every one of them to its settlement."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import gevent
import msgspec

from bridge.clock import Clock
from bridge.engine.admission import Admission, check_load
from bridge.engine.answer import Mismatch, with_calls, with_output
from bridge.engine.bill import Charges, line_of_refusal, line_of_run, new_run_id, once_paid
from bridge.engine.nodes import Nodes
from bridge.engine.roster import CredentialWay, Roster
from bridge.engine.run import Run
from bridge.engine.schema import SchemaChecker
from bridge.errors import BridgeError, Problem
from bridge.keys.keys import Key, KeyBook, may_use
from bridge.keys.loops import LoopGuard
from bridge.ledger.ledger import Ceiling, Ledger, no_credential
from bridge.ledger.pricing import PriceTable
from bridge.ledger.tallies import Reservation
from bridge.limits import effective
from bridge.providers.provider import Emit, Provider, ProviderStatus, with_searches
from bridge.records.audit import Audit
from bridge.records.jobs import Job, KeptJobs, Repeat
from bridge.records.recent import RecentAnswers
from bridge.records.refusals import Refusals
from bridge.registry import PROVIDERS
from bridge.settings import Settings
from bridge.store.trace import TraceFolder
from bridge.types import (
    Answer,
    Completed,
    Failed,
    Finished,
    GenerationRequest,
    Image,
    Message,
    RunRecord,
    without_prompts,
    words,
)

#: Seconds between two looks at what a run may have used whose CLI keeps no maximum of output tokens.
WATCH_S = 0.5
#: Characters of both ends of an image by which the loop guard knows it again.
ENDS = 4096
#: Times that a run waits for a credential after its call was turned away, and the least time that it then waits for a
#: slot, in seconds.
MOST_WAITS, LEAST_WAIT_S = 3, 1.0
#: Seconds between two notes of the requests that were refused, and between two looks for answers that are too old.
TIDY_S = 60.0
#: Grace for runs that are stopped at the end to be settled, in seconds.
LAST_SECONDS = 5.0

#: Why a run was stopped.
REVOKED = "The key was revoked."
_STOPPED_BY = {"admin": "The admin stopped this request.", "holder": "The request was cancelled."}

log = logging.getLogger("bridge")


class Engine:
    """All runs of one server."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        *,
        providers: Mapping[str, Provider],
        admission: Admission,
        roster: Roster,
        schemas: SchemaChecker,
        keys: KeyBook,
        ledger: Ledger,
        prices: PriceTable,
        jobs: KeptJobs,
        audit: Audit,
        observers: Sequence[Callable[[RunRecord], None]] = (),
        traces: TraceFolder | None = None,
        nodes: Nodes | None = None,
        nearest: Callable[[str, str], str | None] = lambda provider, model: None,
    ) -> None:
        """`observers` are called with each line of the request log once it is written; they must not block or raise.
        `nodes`: the other hosts of the cluster, where there is one. `nearest`: provider, model -> the one that it has
        in the place of one that it does not have."""
        self.providers = providers
        self.admission = admission
        self.roster = roster
        self.runs: dict[str, Run] = {}
        self.draining = False
        self.recent = RecentAnswers(clock)
        self._settings = settings
        self._clock = clock
        self._schemas = schemas
        self._keys = keys
        self._ledger = ledger
        self._charges = Charges(prices, ledger, settings)
        self._jobs = jobs
        self._audit = audit
        self._traces = traces
        self.loops = LoopGuard(clock, settings.loop_window_s)
        self.nodes = nodes
        if nodes is not None:
            nodes.stop, nodes.resume = self.stop, self.loops.clear
        self._nearest = nearest
        self._observers = observers
        self._refusals = Refusals(clock, ledger.note)

    # --- its own life ------------------------------------------------------------------------------

    def open(self) -> None:
        """Get the providers ready, at the same time; returns when each is ready or known not to be."""
        gevent.joinall([gevent.spawn(provider.open) for provider in self.providers.values()])
        self._tidier = gevent.spawn(self._tidy)

    def _tidy(self) -> None:
        while True:
            gevent.sleep(TIDY_S)
            self._refusals.flush()
            self.recent.prune()

    def close(self, drain_s: float = 0.0) -> None:
        """Take nothing on any more, give running ones `drain_s` to end, end the rest, stop the CLIs."""
        self.draining = True
        self._tidier.kill()
        waiting = list(self.runs.values())
        _wait_for(waiting, drain_s)
        for run in waiting:
            run.cancel(Problem("draining", "The bridge was restarted before the answer was complete."))
        _wait_for(waiting, LAST_SECONDS)
        for provider in self.providers.values():
            provider.close()
        self._schemas.close()
        self._refusals.flush(all=True)

    def statuses(self) -> list[ProviderStatus]:
        """What is known of each provider; one that has no usable credential is not available."""
        return [self._status(provider) for provider in self.providers.values()]

    def _status(self, provider: Provider) -> ProviderStatus:
        status = provider.status()
        if not status.available or not provider.needs_credential or self.roster.usable(status.name):
            return status
        return msgspec.structs.replace(
            status,
            available=False,
            problem=f"No credential of {PROVIDERS[status.name].vendor} can be used now.",
            hint="'cli-bridge credentials list' says why; 'cli-bridge credentials add NAME' adds one.",
            retry_after=self.roster.soonest_s(status.name),
        )

    def resume(self, key_name: str) -> None:
        """Let a key go on that was paused as a suspected loop, on all hosts. Raises BridgeError storage_failed."""
        self.loops.clear(key_name)
        if self.nodes is not None:
            self.nodes.ask_to_resume(key_name)

    # --- a request becomes a run -------------------------------------------------------------------

    def submit(
        self,
        key: Key,
        request: GenerationRequest,
        *,
        stream: bool = False,
        keep: bool = False,
        repeat: Repeat | None = None,
    ) -> Run:
        """Take a request on: a Run that has begun, with its most possible cost reserved and durable.

        With `keep` or `repeat` it is a job from the start: on the disk before its CLI sees the prompt.
        Raises BridgeError for everything that speaks against it; nothing is spent or counted then.
        """
        try:
            provider, key = self._check_all(key, request)
            self._check_credentials(provider, key, request)
            key, reservation = self._hold(provider, key, request)
            request = msgspec.structs.replace(request, max_output_tokens=reservation.output_tokens)
            kept = keep or repeat is not None
            try:
                if kept:
                    begun = without_prompts(request)
                    self._jobs.add(Job(reservation.id, key.owner, reservation.at, begun, repeat))
                    self._keys.current(key)
                # All of it may have changed while the disk was waited for.
                self._check_draining()
                self.admission.check_room()
                if reservation.credential is None:
                    self._check_credentials(provider, key, request, reservation)
            except BaseException:
                self._jobs.drop(reservation.id)
                self._ledger.release(reservation)
                raise
        except BridgeError as error:
            self._note_refusal(key, request, error.problem, stream=stream)
            raise
        run = Run(
            key,
            reservation,
            request,
            self.admission,
            self._clock,
            keeps_maximum=provider.enforces_output_limit,
            stream=stream,
            kept=kept,
            repeat=repeat,
        )
        self.runs[run.id] = run
        if self._traces is not None:
            about = {"key": key.name, "provider": request.provider, "model": request.model, "api": request.api}
            run.trace = self._traces.begin(run.id, about)
        gevent.spawn(self._live, run, provider)
        return run

    def check_before_body(self, key: Key, api: str, provider: str | None, request_id: str) -> None:
        """Raise BridgeError where whatever `key` asks for would be refused now, so that a large body need not be read
        for that; the refusal has its line, without the model and the prompt, which nobody knows then. `provider` None:
        the body says which."""
        try:
            self._check_draining()
            self.admission.check_room()
            self._ledger.check(key.name, key.limits)
        except BridgeError as error:
            nothing = (Message("user", ()),)
            unread = GenerationRequest(provider or "", "", nothing, api=api, request_id=request_id)
            self._note_refusal(key, unread, error.problem, stream=False)
            raise

    def _note_refusal(self, key: Key, request: GenerationRequest, problem: Problem, *, stream: bool) -> None:
        line = line_of_refusal(self._clock, key.name, request, problem, stream, self._settings.log_prompts)
        self._refusals.note(line)
        self._announce(line)

    def quote(self, key: Key, request: GenerationRequest) -> Reservation:
        """What would be reserved for a request at this moment; nothing is. Raises BridgeError like `submit`, but for
        what only a request that is sent can come to: a loop, a full queue."""
        provider = self._check(key, request)
        return self._ledger.quote(key.name, key.limits, _ceiling(provider, request))

    def _check_all(self, key: Key, request: GenerationRequest) -> tuple[Provider, Key]:
        """The provider of a request that may run now, and its key as it is by now. Raises BridgeError."""
        provider = self._check(key, request)
        self._guard_against_loops(key, request)
        if request.schema is not None:
            self._schemas.check(request.schema, key.name)
        # What is above may have waited, and so may the body have: the key may be another by now.
        now = self._keys.current(key)
        if now != key:
            self._check(now, request)
        live = [(run.key.name, run.request) for run in self.runs.values()]
        check_load(live, now.name, request, max(self._settings.max_body_bytes, request.size))
        self.admission.check_room()
        return provider, now

    def _check(self, key: Key, request: GenerationRequest) -> Provider:
        self._check_draining()
        provider = self.providers.get(request.provider)
        if provider is None:
            raise BridgeError("cli_unavailable", f"This bridge does not run {request.provider}.")
        if key.providers is not None and request.provider not in key.providers:
            raise BridgeError("provider_not_allowed", f"This key may not use {request.provider}.")
        allowed = self._settings.providers[request.provider].models
        listed = not allowed or request.model in allowed or request.alias in allowed
        if not listed or not may_use(key, request.model, request.alias):
            raise BridgeError("model_not_allowed", f"This key may not use the model {request.model}.")
        if request.web_search is not None:
            self._check_search(provider, key)
        if request.linked and not provider.takes_links:
            message = f"This bridge asks {provider.name} with a log-in, and passes no links to images on then."
            raise BridgeError("invalid_request", message, "Send the image itself, as base64 or as a data URL.")
        status = provider.status()
        if not status.available:
            raise status.refusal()
        return provider

    def _check_search(self, provider: Provider, key: Key) -> None:
        if not key.web_search:
            raise BridgeError("web_search_not_allowed", "This key may not search the web.")
        if not provider.searches:
            message = f"This bridge does not search the web with {provider.name}."
            raise BridgeError("web_search_not_allowed", message, "Leave the search out, or ask another model.")

    def _check_credentials(
        self, provider: Provider, key: Key, request: GenerationRequest, held: Reservation | None = None
    ) -> None:
        """Raise BridgeError where a request would wait in vain for a credential."""
        if provider.needs_credential:
            outlook = self.roster.outlook(key, request, held)
            if not outlook.busy:
                outlook.check(self._settings.queue_timeout_s)

    def _check_draining(self) -> None:
        if self.draining:
            raise BridgeError("draining", "The bridge is about to restart.", retry_after=10)

    def _guard_against_loops(self, key: Key, request: GenerationRequest) -> None:
        digest = hashlib.sha256(repr((request.provider, request.model, request.system)).encode("utf-8", "replace"))
        for message in request.messages:
            texts = [words(part) for part in message.content if not isinstance(part, Image)]
            # Of an image both ends: all of a large one would take as long as everything else here together.
            images = [(image.url, len(image.data), image.data[:ENDS], image.data[-ENDS:]) for image in message.images]
            digest.update(repr((message.role, texts, images)).encode("utf-8", "replace"))
        repeats = self._settings.loop_repeats if key.loop_repeats is None else key.loop_repeats
        per_minute = effective(key.limits, self._settings.default_limits)["maxRequestsPerMinute"]
        verdict = self.loops.check(key.name, digest.hexdigest()[:16], repeats=repeats, per_minute=per_minute)
        if verdict.newly_paused:
            try:
                self._audit.write("loop_suspected", key.name, actor="bridge", address="")
            except BridgeError as error:
                log.warning("the audit of %s could not be written: %s", key.name, error.message)
        if verdict.delay_s:
            gevent.sleep(verdict.delay_s)

    def _hold(self, provider: Provider, key: Key, request: GenerationRequest) -> tuple[Key, Reservation]:
        """Reserve by what the key may do once that is durable: it may have changed meanwhile, here or on another host.
        The key as it is by then. Raises BridgeError."""
        while True:
            reservation = self._reserve(provider, key, request)
            try:
                now = self._keys.current(key)
                if now == key:
                    return now, reservation
                self._check(now, request)
            except BaseException:
                self._ledger.release(reservation)
                raise
            self._ledger.release(reservation)
            key = now

    def _reserve(self, provider: Provider, key: Key, request: GenerationRequest) -> Reservation:
        return self._ledger.reserve(
            key.name,
            key.limits,
            new_run_id(self._clock),
            _ceiling(provider, request),
            self.roster.pick(key, request) if provider.needs_credential else no_credential,
        )

    # --- the life of a run -------------------------------------------------------------------------

    def _live(self, run: Run, provider: Provider) -> None:
        """The life of a run, in a greenlet of its own: a slot, an answer, perhaps a second try, and the settlement.

        Nothing from outside ends it: a stop is a message in the run's inbox, which it takes at its next look.
        """
        end: Completed | Failed = Failed(Problem("internal", "The request failed inside the bridge."))
        try:
            run.await_slot(self._settings.queue_timeout_s)
            way = self._find_way(run, provider)
            end = self._attempt(run, provider, way)
            while way is not None and _was_turned_away(run, end, way):
                run.begin_anew(way.held)
                way = self._find_way(run, provider)
                end = self._attempt(run, provider, way)
            again = self._charges.second_attempt(run, end, provider)
            if again is not None:
                run.begin_again(again)
                end = self._attempt(run, provider, way)
        except BridgeError as error:
            end = Failed(error.problem)
        finally:
            run.give_up_slot()
            if run.trace is not None:
                run.trace.close()
            finished = self._close_run(run, end)
            del self.runs[run.id]
            run.end(finished)

    def _find_way(self, run: Run, provider: Provider) -> CredentialWay | None:
        """The way of a run, which has its slot, to its model; None for a provider that needs no credential. Where none
        can be used now, the run waits outside of the queue. Raises BridgeError."""
        if not provider.needs_credential:
            return None
        roster, asked = self.roster, (run.key, run.request)
        try:
            while (way := roster.way(*asked, run.reservation, run.tried)) is None:
                # Whoever waits is in nobody's way: one that is tried again takes one run of a key at a time.
                run.reservation = self._ledger.let_go(run.reservation)
                run.step_aside()
                roster.wait(run, *asked, run.reservation, run.nudge)
                while not roster.has_room(*asked, run.reservation):
                    left_s = self._settings.queue_timeout_s - run.age_s
                    outlook = roster.outlook(*asked, run.reservation)
                    outlook.check(left_s)
                    run.await_news(left_s if outlook.wait_s is None else min(left_s, outlook.wait_s))
                run.come_back()
                run.await_slot(max(LEAST_WAIT_S, self._settings.queue_timeout_s - run.age_s))
        finally:
            # Only now, so that nobody takes it while it waits for its slot.
            roster.stop_waiting(run)
        run.way = way
        return way

    def _attempt(self, run: Run, provider: Provider, way: CredentialWay | None) -> Completed | Failed:
        """Ask the CLI once. Raises BridgeError for a stop, a timeout, or money that is used up."""
        tap = None if run.trace is None else run.trace.note
        conversation = provider.start(run.attempt.request, run.inbox.put, run.key.owner, tap, way)
        try:
            end = self._await_end(run)
            schema = run.request.schema
            strict = {tool.name: tool.schema for tool in provider.unchecked(run.request)}
            if isinstance(end, Completed) and not any(part.name in strict for part in end.answer.calls):
                strict = {}
            if isinstance(end, Failed) or (schema is None and not strict):
                return end
            # In a greenlet of its own: meanwhile the run hears of a stop, and of its deadline.
            mismatch = partial(self._mismatch, run)
            gevent.spawn(_read, end, schema, strict, mismatch, run.inbox.put)
            end = self._await_end(run)
            if isinstance(end, Completed) and schema is not None:
                # What was streamed cannot be taken back: only an answer that fits its schema is shown.
                run.show(end.answer.deltas())
            return end
        finally:
            conversation.cancel()
            run.note_receipt(conversation.receipt)

    def _mismatch(self, run: Run, schema: dict[str, Any], output: Any) -> str | None:
        """Why an output does not fit a schema; None where it does, or where the schema of a tool is none. Nobody asks
        any more once the run has ended: an answer may have thousands of calls, each of which takes its time."""
        if run.finished is not None:
            raise gevent.GreenletExit
        owner = run.key.name
        try:
            self._schemas.check(schema, owner)
        except BridgeError:
            return None
        return self._schemas.mismatch(schema, output, owner=owner)

    def _await_end(self, run: Run) -> Completed | Failed:
        look_up_s = None if run.keeps_maximum else WATCH_S
        while (end := run.await_end(self._settings.idle_timeout_s, look_up_s)) is None:
            live = [each for each in self.runs.values() if each.key.name == run.key.name]
            problem = self._charges.overdrawn(run, live)
            if problem is not None:
                raise BridgeError.of(problem)
        return end

    def _close_run(self, run: Run, end: Completed | Failed) -> Finished:
        """Charge and settle: the line of the log is the settlement. Then keep the answer of a job, so that an answer
        that can be had is paid for."""
        charge = self._charges.of(run, end)
        result = end.answer if isinstance(end, Completed) else once_paid(self._with_nearest(run, end.problem), charge)
        finished = Finished(result, charge, round(1000 * run.age_s))
        line = line_of_run(run, finished, self._settings.log_prompts)
        try:
            if run.reached_the_cli:
                self._ledger.settle(line)
            else:
                self._ledger.release(run.reservation, line)
        except BridgeError as error:
            finished = Finished(error.problem, charge, finished.duration_ms)
        self.roster.changed()
        self._announce(line)
        if run.request.referable and isinstance(finished.result, Answer):
            self.recent.add(run.key.owner, run.id, finished.result)
        if run.kept:
            self._keep_end(run, finished)
        return finished

    def _with_nearest(self, run: Run, problem: Problem) -> Problem:
        """A problem with the model that the client could ask for instead, where it asked for one that is not there."""
        if problem.code != "model_not_found":
            return problem
        near = self._nearest(run.request.provider, run.request.model)
        if near is None or not may_use(run.key, near, None):
            return problem
        return msgspec.structs.replace(problem, hint=f"The nearest one that is there is {near}.")

    def _announce(self, line: RunRecord) -> None:
        for observe in self._observers:
            observe(line)

    # --- runs are stopped from outside -------------------------------------------------------------

    def stop(self, run_id: str, who: str) -> Run | None:
        """Stop a run of this process, for the "admin" or the "holder" of its key; None where there is none."""
        run = self.runs.get(run_id)
        if run is not None:
            run.cancel(Problem("cancelled", _STOPPED_BY[who]))
        return run

    def look_at_keys(self) -> None:
        """Keys have changed, perhaps on another host: stop what runs for one that was revoked."""
        for run in list(self.runs.values()):
            if not self._keys.is_there(run.key):
                run.cancel(Problem("cancelled", REVOKED))

    def cancel(self, found: Run | Job, seconds: float) -> Run | Job:
        """Stop a run or job that was found for its holder, wherever it runs; as it is when it has ended, or after so
        many seconds. Raises BridgeError storage_failed."""
        if isinstance(found, Run):
            self.stop(found.id, "holder")
        elif self.nodes is not None and (host := self._jobs.host_of(found)) is not None:
            self.nodes.ask_to_stop(host, found.id, "holder")
        return self.await_end(found, seconds)

    def await_end(self, found: Run | Job, seconds: float) -> Run | Job:
        """A run or job, as soon as it has ended, or as it is after so many seconds. Raises BridgeError
        storage_failed."""
        if isinstance(found, Run):
            found.wait(seconds)
            return found
        return self._jobs.await_end(found, seconds)

    # --- runs whose end is kept --------------------------------------------------------------------

    def find(self, key: Key, run_id: str) -> Run | Job:
        """A live run of this key, or the job that it left behind, or that runs on another host. Raises BridgeError
        not_found, storage_failed."""
        run = self.runs.get(run_id)
        if run is not None and run.key.owner == key.owner:
            return run
        job = self._jobs.get(run_id, key.owner)
        if job is None:
            raise BridgeError(
                "not_found", "You have no such job.", "Answers are kept for 24 hours, and only for the key that asked."
            )
        # It may have been kept on its way out of the list of runs.
        return self.runs.get(run_id) or job

    def has_earlier(self, key: Key, digest: str) -> bool:
        """Whether there may be a request of a key with an Idempotency-Key of this digest."""
        return self._jobs.knows(key.owner, digest)

    def earlier(self, key: Key, repeat: Repeat) -> Job | None:
        """The answer that the first request with an Idempotency-Key got. Raises BridgeError conflict."""
        return self._jobs.earlier(key.owner, repeat)

    def keep(self, run: Run) -> None:
        """Make a run a job: it goes on when its client leaves, and its end is kept. Raises BridgeError."""
        if not run.kept:
            self._jobs.add(run.job)
            run.kept = True
            if run.finished is not None:
                # It ended while the file was written.
                self._keep_end(run, run.finished)

    def _keep_end(self, run: Run, finished: Finished) -> None:
        """Keep the end of a job. It is lost where the disk refuses it: the charge is not."""
        try:
            self._jobs.finish(msgspec.structs.replace(run.job, finished=finished))
        except BridgeError as error:
            log.warning("the answer of %s could not be kept: %s", run.id, error.message)


def _ceiling(provider: Provider, request: GenerationRequest) -> Ceiling:
    """The most that a request may come to."""
    return Ceiling(
        request.provider,
        request.model,
        with_searches(provider.input_ceiling(request), request),
        max(request.max_output_tokens, provider.least_output_tokens),
        0 if request.web_search is None else request.web_search.most,
    )


def _was_turned_away(run: Run, end: Completed | Failed, way: CredentialWay) -> bool:
    """Whether a run may wait for a credential and ask again: nothing was shown, and nothing was used."""
    return (
        isinstance(end, Failed)
        and way.turned_away is not None
        and end.usage is not None
        and not end.usage.total
        and run.first_token_ms is None
        and run.waits < MOST_WAITS
    )


def _read(
    end: Completed, schema: dict[str, Any] | None, strict: Mapping[str, dict[str, Any]], mismatch: Mismatch, tell: Emit
) -> None:
    read = with_calls(end, strict, mismatch)
    tell(read if schema is None or isinstance(read, Failed) else with_output(read, schema, mismatch))


def _wait_for(runs: list[Run], seconds: float) -> None:
    gevent.joinall([gevent.spawn(run.wait) for run in runs], timeout=seconds)
