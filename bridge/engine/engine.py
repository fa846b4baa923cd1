"""The engine: takes requests on, runs them, and sees every one of them to its settlement."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import gevent
import msgspec

from bridge.clock import Clock
from bridge.engine.admission import Admission, check_load
from bridge.engine.answer import Attempt, second_attempt
from bridge.engine.bill import Charges, log_line, new_run_id
from bridge.engine.jobs import Jobs
from bridge.engine.run import Run
from bridge.engine.schema import SchemaChecker
from bridge.errors import BridgeError, Problem
from bridge.keys.keys import Key, may_use
from bridge.keys.loops import LoopGuard
from bridge.ledger.ledger import Ledger
from bridge.ledger.pricing import PriceTable
from bridge.ledger.tallies import Reservation
from bridge.providers.provider import Provider, ProviderStatus
from bridge.records.jobs import JobBook, Repeat, owner_of
from bridge.settings import Settings
from bridge.types import Charge, Completed, Failed, Finished, GenerationRequest, RunRecord, Usage

#: How much of a prompt the log keeps by default, in characters.
PREVIEW_CHARACTERS = 200
#: How often is looked for a CLI that is not available, in seconds.
RECHECK_S = 60.0
#: For stopped runs to be settled at the end, in seconds.
LAST_SECONDS = 5.0


log = logging.getLogger("bridge")


class AuditLike(Protocol):
    """The part of the audit that the engine writes to."""

    def write(
        self, action: str, subject: str, *, actor: str, address: str, before: Any = None, after: Any = None
    ) -> None: ...


class Engine:
    """All runs of one server."""

    def __init__(
        self,
        settings: Settings,
        *,
        providers: Mapping[str, Provider],
        ledger: Ledger,
        prices: PriceTable,
        jobs: JobBook,
        audit: AuditLike,
        schemas: SchemaChecker,
        admission: Admission,
        current_key: Callable[[Key], Key],
        clock: Clock,
    ) -> None:
        """`current_key` is a key as it is by now. It raises BridgeError for one that may not be used any more."""
        self.providers = providers
        self.admission = admission
        self.runs: dict[str, Run] = {}
        self.jobs = Jobs(jobs, self.runs)
        self.draining = False
        #: called with each line of the request log, once it is written; must not block or raise
        self.observers: list[Callable[[RunRecord], None]] = []
        self._settings = settings
        self._ledger = ledger
        self._prices = prices
        self._charges = Charges(prices, ledger, settings)
        self._audit = audit
        self._schemas = schemas
        self._current_key = current_key
        self._clock = clock
        self._loops = LoopGuard(clock, settings.loop_repeats, settings.loop_window_s)

    # --- life --------------------------------------------------------------------------------------

    def open(self) -> None:
        """Get the providers ready, at the same time; returns when each is ready or known not to be."""
        gevent.joinall([gevent.spawn(provider.open) for provider in self.providers.values()])
        self._recheck = gevent.spawn(self._look_again)

    def _look_again(self) -> None:
        """A CLI that was missing, or not logged in, may have come meanwhile."""
        while True:
            gevent.sleep(RECHECK_S)
            for provider in self.providers.values():
                if not provider.status().available:
                    provider.open()

    def close(self, drain_s: float = 0.0) -> None:
        """Take nothing on any more, give running ones `drain_s` to end, end the rest, stop the CLIs."""
        self.draining = True
        self._recheck.kill()
        waiting = list(self.runs.values())
        _wait_for(waiting, drain_s)
        for run in waiting:
            run.cancel(Problem("draining", "The bridge was restarted before the answer was complete."))
        _wait_for(waiting, LAST_SECONDS)
        for provider in self.providers.values():
            provider.close()
        self._schemas.close()

    # --- requests ------------------------------------------------------------------------------------

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
            return self._submit(key, request, stream=stream, keep=keep, repeat=repeat)
        except BridgeError as error:
            line = self._refused(key, request, error.problem, stream=stream)
            self._ledger.note(line)
            self._announce(line)
            raise

    def _submit(self, key: Key, request: GenerationRequest, *, stream: bool, keep: bool, repeat: Repeat | None) -> Run:
        self._check(key, request)
        self._guard_against_loops(key, request)
        if request.schema is not None:
            self._schemas.check(request.schema, key.name)
        # The body came slowly, perhaps, and what is above may have waited: the key may be another by now.
        key = self._current_key(key)
        provider = self._check(key, request)
        check_load(
            ((run.key_name, run.request) for run in self.runs.values()),
            key.name,
            request,
            self._settings.max_body_bytes,
        )
        self.admission.check_room()
        reservation = self._ledger.reserve(
            key.name,
            key.limits,
            new_run_id(self._clock),
            request.provider,
            request.model,
            provider.input_ceiling(request),
            request.max_output_tokens,
        )
        try:
            if keep or repeat is not None:
                self.jobs.begin(key, reservation, request, repeat)
            # All of it may have changed while the disk was waited for.
            if self.draining:
                raise _draining()
            self.admission.check_room()
            self._current_key(key)
        except BaseException:
            self.jobs.drop(reservation.id)
            self._ledger.release(reservation)
            raise
        run = Run(
            reservation,
            _clamped(request, reservation),
            provider=provider,
            admission=self.admission,
            close=self._close_run,
            overdrawn=None if provider.enforces_output_limit else lambda run: self._charges.overdrawn(key, run),
            repair=self._repair,
            mismatch=self._schemas.mismatch,
            clock=self._clock,
            idle_timeout_s=self._settings.idle_timeout_s,
            queue_timeout_s=self._settings.queue_timeout_s,
            stream=stream,
            owner=owner_of(key),
            kept=keep or repeat is not None,
            repeat=repeat,
        )
        self.runs[run.id] = run
        return run

    def statuses(self) -> list[ProviderStatus]:
        """What is known of each provider."""
        return [provider.status() for provider in self.providers.values()]

    def allowed_models(self, provider: str) -> tuple[str, ...]:
        """The server's allow-list of a provider; empty for any well-formed name."""
        return self._settings.providers[provider].models

    def resume(self, key_name: str) -> None:
        """Let a key go on that was paused as a suspected loop."""
        self._loops.clear(key_name)

    def _check(self, key: Key, request: GenerationRequest) -> Provider:
        if self.draining:
            raise _draining()
        provider = self.providers.get(request.provider)
        if provider is None:
            raise BridgeError("cli_unavailable", f"This bridge does not run {request.provider}.")
        if key.providers is not None and request.provider not in key.providers:
            raise BridgeError("provider_not_allowed", f"This key may not use {request.provider}.")
        allowed = self.allowed_models(request.provider)
        if (allowed and request.model not in allowed) or not may_use(key, request.model, request.alias):
            raise BridgeError("model_not_allowed", f"This key may not use the model {request.model}.")
        status = provider.status()
        if not status.available:
            raise status.refusal()
        return provider

    def _guard_against_loops(self, key: Key, request: GenerationRequest) -> None:
        digest = hashlib.sha256(repr((request.provider, request.model, request.system)).encode())
        for message in request.messages:
            digest.update(repr(message).encode("utf-8", "replace"))
        verdict = self._loops.check(key.name, digest.hexdigest())
        if verdict.newly_paused:
            try:
                self._audit.write("loop_suspected", key.name, actor="bridge", address="")
            except BridgeError as error:
                log.warning("the audit of %s could not be written: %s", key.name, error.message)
        if verdict.delay_s:
            gevent.sleep(verdict.delay_s)

    # --- the end of a run ----------------------------------------------------------------------------

    def _close_run(self, run: Run, end: Completed | Failed) -> Finished:
        """Charge and settle: the line of the log is the settlement. Then keep the answer of a job: whoever can get
        it has paid for it."""
        charge = self._charges.of(run, end)
        finished = Finished(end.answer if isinstance(end, Completed) else end.problem, charge, round(1000 * run.age_s))
        line = self._record(run, finished)
        try:
            if self._reached_the_cli(run):
                self._ledger.settle(line)
            else:
                self._ledger.release(run.reservation, line)
        except BridgeError as error:
            finished = Finished(error.problem, charge, finished.duration_ms)
        self._announce(line)
        self.jobs.finish(run, finished)
        self.runs.pop(run.id, None)
        return finished

    @staticmethod
    def _reached_the_cli(run: Run) -> bool:
        return run.submitted_s is not None or run.attempt.spent is not None

    def _repair(self, run: Run, end: Failed) -> Attempt | None:
        """What to try after an answer that missed its schema, once, and where the reservation has room for it."""
        if (
            not self._settings.schema_repair
            or run.repairs
            or end.problem.code != "output_mismatch"
            or end.usage is None
        ):
            return None
        ceiling = self.providers[run.request.provider].input_ceiling
        price = self._prices.price_of(run.request.provider, run.request.model)
        return second_attempt(run.request, end.problem, run.reservation, self._charges.of(run, end), price, ceiling)

    def _announce(self, line: RunRecord) -> None:
        for observe in self.observers:
            observe(line)

    def _record(self, run: Run, finished: Finished) -> RunRecord:
        line = log_line(run.id, run.started_at, run.key_name, run.request, finished.result, finished.charge)
        # Never the whole prompt of what cost nothing: a key must not be able to fill the disk with it.
        most = None if self._reached_the_cli(run) else PREVIEW_CHARACTERS
        return msgspec.structs.replace(
            line,
            stream=run.stream,
            reserved_usd=run.reservation.cost_micro / 1e6,
            duration_ms=finished.duration_ms,
            queued_ms=run.queued_ms,
            first_token_ms=run.first_token_ms,
            warm=run.warm,
            repairs=run.repairs,
            system_prompt=self._kept(run.request.system[:most]),
            user_prompt=self._kept(run.request.messages[-1].text[:most]),
        )

    def _refused(self, key: Key, request: GenerationRequest, problem: Problem, *, stream: bool) -> RunRecord:
        """The line of a request that was not taken on: it used and cost nothing."""
        line = log_line(new_run_id(self._clock), self._clock.now(), key.name, request, problem, Charge(Usage(), 0))
        return msgspec.structs.replace(
            line,
            stream=stream,
            system_prompt=self._kept(request.system[:PREVIEW_CHARACTERS]) or None,
            user_prompt=self._kept(request.messages[-1].text[:PREVIEW_CHARACTERS]) or None,
        )

    def _kept(self, prompt: str) -> str | None:
        """What the log keeps of a prompt, by the setting."""
        if self._settings.log_prompts == "off":
            return None
        return prompt if self._settings.log_prompts == "full" else prompt[:PREVIEW_CHARACTERS]


def _clamped(request: GenerationRequest, reservation: Reservation) -> GenerationRequest:
    """The request with the output ceiling that was reserved for it."""
    return msgspec.structs.replace(request, max_output_tokens=reservation.output_tokens)


def _wait_for(runs: list[Run], seconds: float) -> None:
    gevent.joinall([gevent.spawn(run.wait) for run in runs], timeout=seconds)


def _draining() -> BridgeError:
    return BridgeError("draining", "The bridge is about to restart.", retry_after=10)
