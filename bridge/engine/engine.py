"""The engine: takes requests on, runs them, and sees every one of them to its settlement."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping
from typing import Any, Protocol

import gevent
import msgspec

from bridge.clock import Clock, iso
from bridge.engine.admission import Admission
from bridge.engine.provider import Provider, ProviderStatus
from bridge.engine.run import Finished, Run
from bridge.engine.schema import SchemaChecker
from bridge.errors import BridgeError
from bridge.ledger.keys import Key
from bridge.ledger.ledger import Ledger, Reservation
from bridge.ledger.loops import LoopGuard
from bridge.ledger.pricing import PriceTable
from bridge.ledger.pricing import cost as cost_of
from bridge.ledger.requestlog import RequestLog
from bridge.settings import Settings
from bridge.types import Charge, Completed, Failed, GenerationRequest, RunRecord, Usage

#: How much of a prompt the log keeps by default, in characters.
PREVIEW_CHARACTERS = 200
#: Tokens a second that a model is assumed to have written where a run ended without any usage.
ASSUMED_TOKENS_PER_SECOND = 150
#: For stopped runs to be settled at the end, in seconds.
LAST_SECONDS = 5.0


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
        log: RequestLog,
        audit: AuditLike,
        schemas: SchemaChecker,
        admission: Admission,
        clock: Clock,
    ) -> None:
        self.providers = providers
        self.admission = admission
        self.runs: dict[str, Run] = {}
        self.draining = False
        self._settings = settings
        self._ledger = ledger
        self._prices = prices
        self._log = log
        self._audit = audit
        self._schemas = schemas
        self._clock = clock
        self._loops = LoopGuard(clock, settings.loop_repeats, settings.loop_window_s)

    # --- life --------------------------------------------------------------------------------------

    def open(self) -> None:
        """Get the providers ready, at the same time; returns when each is ready or known not to be."""
        gevent.joinall([gevent.spawn(provider.open) for provider in self.providers.values()])

    def close(self, drain_s: float = 0.0) -> None:
        """Take nothing on any more, give running ones `drain_s` to end, end the rest, stop the CLIs."""
        self.draining = True
        waiting = list(self.runs.values())
        _wait_for(waiting, drain_s)
        for run in waiting:
            run.cancel(BridgeError("draining", "The bridge was restarted before the answer was complete."))
        _wait_for(waiting, LAST_SECONDS)
        for provider in self.providers.values():
            provider.close()
        self._schemas.close()

    # --- requests ------------------------------------------------------------------------------------

    def submit(self, key: Key, request: GenerationRequest, *, stream: bool) -> Run:
        """Take a request on: a Run that has begun, with its most possible cost reserved and durable.

        Raises BridgeError for everything that speaks against it; nothing is spent or counted then.
        """
        provider = self._check(key, request)
        if request.schema is not None:
            self._schemas.check(request.schema)
        self._guard_against_loops(key, request)
        self.admission.check_room()
        reservation = self._ledger.reserve(
            key,
            new_run_id(self._clock),
            request.provider,
            request.model,
            provider.input_ceiling(request),
            request.max_output_tokens,
        )
        if self.draining:
            self._ledger.release(reservation)
            raise _draining()
        run = Run(
            reservation,
            _clamped(request, reservation),
            provider=provider,
            admission=self.admission,
            close=self._close_run,
            clock=self._clock,
            idle_timeout_s=self._settings.idle_timeout_s,
            queue_timeout_s=self._settings.queue_timeout_s,
            stream=stream,
        )
        self.runs[run.id] = run
        return run

    def statuses(self) -> list[ProviderStatus]:
        """What is known of each provider."""
        return [provider.status() for provider in self.providers.values()]

    def allowed_models(self, provider: str) -> tuple[str, ...]:
        """The server's allow-list of a provider; empty for any well-formed name."""
        models: tuple[str, ...] = getattr(self._settings, f"{provider}_models", ())
        return models

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
        if (allowed and request.model not in allowed) or (key.models is not None and request.model not in key.models):
            raise BridgeError("model_not_allowed", f"This key may not use the model {request.model}.")
        status = provider.status()
        if not status.available:
            raise BridgeError("cli_unavailable", status.problem or f"{request.provider} is not available.", status.hint)
        return provider

    def _guard_against_loops(self, key: Key, request: GenerationRequest) -> None:
        digest = hashlib.sha256(repr((request.provider, request.model, request.system)).encode())
        for message in request.messages:
            digest.update(repr(message).encode("utf-8", "replace"))
        verdict = self._loops.check(key.name, digest.hexdigest())
        if verdict.newly_paused:
            self._audit.write("loop_suspected", key.name, actor="bridge", address="")
        if verdict.delay_s:
            gevent.sleep(verdict.delay_s)

    # --- the end of a run ----------------------------------------------------------------------------

    def _close_run(self, run: Run, end: Completed | Failed) -> Finished:
        """Charge, log, settle, in this order: what is settled is in the log, also after a crash."""
        charge = self._charge(run, end)
        finished = Finished(end.answer if isinstance(end, Completed) else end.error, charge, round(1000 * run.age_s))
        try:
            self._log.write(self._record(run, finished))
        except BridgeError as error:
            finished = Finished(error, charge, finished.duration_ms)
        try:
            if run.submitted_s is None:
                self._ledger.release(run.reservation)
            else:
                self._ledger.settle(run.reservation, charge, error=isinstance(finished.result, BridgeError))
        except BridgeError as error:
            finished = Finished(error, charge, finished.duration_ms)
        self.runs.pop(run.id, None)
        return finished

    def _charge(self, run: Run, end: Completed | Failed) -> Charge:
        """What a run is charged: the CLI's own figures, else what the stream showed, else what the time
        makes likely; never more than was reserved where it is a guess, and never nothing by default."""
        if run.submitted_s is None:
            return Charge(Usage(), 0)
        usage, cost = _reported(end)
        price = self._prices.price_of(run.request.provider, run.request.model)
        if usage is not None:
            by_table = cost_of(price, usage)
            return Charge(usage, cost or by_table)
        reserved = run.reservation
        written = max(run.output_estimate, round(run.submitted_s * ASSUMED_TOKENS_PER_SECOND))
        known = run.usage or Usage(input_tokens=reserved.input_tokens)
        assumed = Usage(
            known.input_tokens,
            known.cache_read_tokens,
            known.cache_write_tokens,
            max(known.output_tokens, min(written, reserved.output_tokens)),
        )
        return Charge(assumed, min(cost_of(price, assumed), reserved.cost_micro), assumed=True)

    def _record(self, run: Run, finished: Finished) -> RunRecord:
        result, usage = finished.result, finished.charge.usage
        error = result if isinstance(result, BridgeError) else None
        request = run.request
        return RunRecord(
            id=run.id,
            timestamp=iso(run.started_at),
            key_name=run.key_name,
            provider=request.provider,
            model=request.model,
            api=request.api,
            status=error.status if error else 200,
            code=error.code if error else None,
            error=error.message if error else None,
            stream=run.stream,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read_tokens=usage.cache_read_tokens,
            cache_write_tokens=usage.cache_write_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            cost_usd=finished.charge.cost_micro / 1e6,
            assumed=finished.charge.assumed,
            duration_ms=finished.duration_ms,
            queued_ms=run.queued_ms,
            first_token_ms=run.first_token_ms,
            stop_reason=None if isinstance(result, BridgeError) else result.stop_reason,
            system_prompt=self._kept(request.system),
            user_prompt=self._kept(request.messages[-1].text),
        )

    def _kept(self, prompt: str) -> str | None:
        """What the log keeps of a prompt, by the setting."""
        if self._settings.log_prompts == "off":
            return None
        return prompt if self._settings.log_prompts == "full" else prompt[:PREVIEW_CHARACTERS]


def new_run_id(clock: Clock) -> str:
    """`run_` and 26 characters that sort by time: 48 bits of milliseconds, 80 of chance, base32hex."""
    raw = int(clock.now() * 1000).to_bytes(6, "big") + os.urandom(10)
    return "run_" + base64.b32hexencode(raw).decode().rstrip("=").lower()


def cut_off(reservation: Reservation) -> RunRecord:
    """The log line of a run that ended with the server, charged what it had reserved."""
    charge = reservation.as_charge()
    error = BridgeError("cli_failed", "The bridge stopped in the middle of this request.")
    return RunRecord(
        id=reservation.id,
        timestamp=iso(reservation.at),
        key_name=reservation.key_name,
        provider=reservation.provider,
        model=reservation.model,
        api="native",
        status=error.status,
        code=error.code,
        error=error.message,
        stream=False,
        input_tokens=charge.usage.input_tokens,
        output_tokens=charge.usage.output_tokens,
        cache_read_tokens=0,
        cache_write_tokens=0,
        reasoning_tokens=0,
        cost_usd=charge.cost_micro / 1e6,
        assumed=True,
        duration_ms=0,
        queued_ms=0,
        first_token_ms=None,
        stop_reason=None,
        system_prompt=None,
        user_prompt=None,
    )


def _reported(end: Completed | Failed) -> tuple[Usage | None, int | None]:
    if isinstance(end, Completed):
        return end.answer.usage, end.answer.cost_micro
    return end.usage, end.cost_micro


def _clamped(request: GenerationRequest, reservation: Reservation) -> GenerationRequest:
    """The request with the output ceiling that was reserved for it."""
    return msgspec.structs.replace(request, max_output_tokens=reservation.output_tokens)


def _wait_for(runs: list[Run], seconds: float) -> None:
    gevent.joinall([gevent.spawn(run.wait) for run in runs], timeout=seconds)


def _draining() -> BridgeError:
    return BridgeError("draining", "The bridge is about to restart.", retry_after=10)
