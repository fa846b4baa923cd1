"""What a run costs, and its line in the log: what was counted, at the operator's prices, or what is likely."""

from __future__ import annotations

import base64
import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from bridge.clock import Clock, iso
from bridge.engine.answer import Attempt, second_attempt
from bridge.engine.run import Run
from bridge.errors import Problem
from bridge.ledger.ledger import Ledger
from bridge.ledger.pricing import PriceTable, cost
from bridge.limits import effective, per_request
from bridge.providers.provider import Provider, after_searches
from bridge.settings import Settings
from bridge.types import (
    NATIVE,
    Answer,
    Charge,
    Completed,
    Failed,
    Finished,
    GenerationRequest,
    Message,
    Receipt,
    RunRecord,
    ToolCall,
    Usage,
)

#: Tokens a second that a model is assumed to have written where a run ended without any usage.
ASSUMED_TOKENS_PER_SECOND = 150
#: No model writes faster, in tokens a second.
FASTEST_TOKENS_PER_SECOND = 2000
#: A count that is so many times the most that was possible is a mistake.
MISTAKEN = 2
#: What a provider says of itself, and SDKs take for a reason to ask again.
_TROUBLE = ("provider_overloaded", "provider_rate_limited")
#: How much of a prompt the log keeps by default, in characters.
PREVIEW_CHARACTERS = 200

log = logging.getLogger("bridge")


class Charges:
    """The charges of the runs of one server."""

    def __init__(self, prices: PriceTable, ledger: Ledger, settings: Settings) -> None:
        self._prices = prices
        self._ledger = ledger
        self._settings = settings

    def of(self, run: Run, end: Completed | Failed) -> Charge:
        """What a run is charged, over all its attempts."""
        spent, last = run.attempt.spent, self._of_attempt(run, end)
        return last if spent is None else spent.plus(last)

    def _of_attempt(self, run: Run, end: Completed | Failed) -> Charge:
        """What was counted, at the operator's prices; else what the stream showed or the time makes likely, and
        never nothing by default. A guess stays within the reservation, unless the CLI keeps no maximum."""
        if run.submitted_s is None:
            return Charge(Usage(), 0)
        price = self._prices.price_of(run.request.provider, run.request.model)
        usage = end.answer.usage if isinstance(end, Completed) else end.usage
        if isinstance(end, Completed) and usage is not None and not usage.total:
            # Nothing is answered for nothing.
            usage = None
        attempt = run.attempt
        most = Usage(attempt.input_tokens, 0, 0, attempt.request.max_output_tokens, 0, run.reservation.searches)
        spent = attempt.spent.cost_micro if attempt.spent is not None else 0
        if usage is not None and _beyond_belief(run, usage, most):
            log.warning("%s: %s counts %s, far beyond what was asked for", run.id, run.request.provider, usage)
            return Charge(most, min(cost(price, most), run.reservation.cost_micro - spent), assumed=True)
        if usage is not None:
            return Charge(usage, cost(price, usage))
        written = _assumed_output(run)
        known = run.usage or Usage(input_tokens=attempt.input_tokens)
        if run.reservation.searches:
            known = _with_searches(run, known, most)
        if run.keeps_maximum:
            written = min(written, most.output_tokens)
        assumed = msgspec.structs.replace(known, output_tokens=max(known.output_tokens, written))
        micro = cost(price, assumed)
        if run.keeps_maximum:
            micro = min(micro, run.reservation.cost_micro - spent)
        return Charge(assumed, micro, assumed=True)

    def overdrawn(self, run: Run, live: Iterable[Run]) -> Problem | None:
        """Whether a run has by now used up what it reserved and all that its key has left besides; `live` are the
        runs of its key, this one among them, since what they use beyond their reservations is the same money.

        For CLIs that keep no maximum: how much a model thinks is not seen, so the time counts.
        """
        beyond, micro = self._excess(run)
        if beyond <= 0:
            return None
        caps = effective(run.key.limits, self._settings.default_limits)
        for limit, amount in per_request(caps):
            taken = run.reservation.cost_micro + micro if limit.is_cost else run.reservation.tokens + beyond
            if taken > amount:
                return Problem("stopped_at_cap", "Stopped: the answer may already cost more than one may.")
        excesses = [self._excess(each) for each in live]
        beyond, micro = sum(tokens for tokens, _ in excesses), sum(money for _, money in excesses)
        for limit, _, left in self._ledger.remaining(run.key.name, run.key.limits):
            if limit.what != "requests" and (micro if limit.is_cost else beyond) > left:
                return Problem("stopped_at_cap", "Stopped: the answer may already have used up what this key had left.")
        return None

    def _excess(self, run: Run) -> tuple[int, int]:
        """Output tokens, and micro-dollars, that a run has probably used beyond its reservation."""
        if run.keeps_maximum:
            return 0, 0
        before = run.attempt.spent.usage.output_tokens if run.attempt.spent is not None else 0
        beyond = max(0, before + _assumed_output(run) - run.reservation.output_tokens)
        price = self._prices.price_of(run.request.provider, run.request.model)
        return beyond, cost(price, Usage(output_tokens=beyond))

    def second_attempt(self, run: Run, end: Completed | Failed, provider: Provider) -> Attempt | None:
        """What to ask after an answer that missed its schema, where the reservation has room for it."""
        if isinstance(end, Completed) or end.problem.code != "output_mismatch" or end.usage is None:
            return None
        if not self._settings.schema_repair or "tool" in end.problem.facts:
            return None
        price = self._prices.price_of(run.request.provider, run.request.model)
        spent = self._of_attempt(run, end)
        return second_attempt(run.request, end.problem, run.reservation, spent, price, provider.input_ceiling)


def _with_searches(run: Run, known: Usage, most: Usage) -> Usage:
    """What is known of a run that may have searched the web, with the searches that were seen, and one that was not."""
    searches = min(run.searches + 1, most.searches)
    read = after_searches(known.prompt, run.output_estimate, searches) if run.usage is not None else most.prompt
    fresh = max(known.input_tokens, min(read, most.prompt) - known.cache_read_tokens - known.cache_write_tokens)
    return msgspec.structs.replace(known, input_tokens=fresh, searches=searches)


def _assumed_output(run: Run) -> int:
    """Output tokens that a run has probably used: what was streamed, or what the time allows."""
    return max(run.output_estimate, round((run.submitted_s or 0) * ASSUMED_TOKENS_PER_SECOND))


def _beyond_belief(run: Run, usage: Usage, most: Usage) -> bool:
    """Whether a figure is so far above the most that was possible that it is a mistake, and no reason to lock a key
    out for a month. Where a CLI keeps no maximum, the time says how much output is possible."""
    output = most.output_tokens
    if not run.keeps_maximum:
        output = max(output, round((run.submitted_s or 0) * FASTEST_TOKENS_PER_SECOND))
    return usage.prompt > MISTAKEN * most.prompt or usage.output_tokens > MISTAKEN * output


def once_paid(problem: Problem, charge: Charge) -> Problem:
    """Why there is no answer: a provider's trouble that came in the middle of one, and so has cost something, has a
    code of its own, whose status no SDK repeats by itself."""
    if problem.code not in _TROUBLE or not charge.cost_micro:
        return problem
    return Problem("provider_broke_off", f"The answer was broken off: {problem.message}")


def new_run_id(clock: Clock) -> str:
    """`run_` and 26 characters that sort by time: 48 bits of milliseconds, 80 of chance, base32hex."""
    raw = int(clock.now() * 1000).to_bytes(6, "big") + os.urandom(10)
    return "run_" + base64.b32hexencode(raw).decode().rstrip("=").lower()


def line_of_run(run: Run, finished: Finished, prompts: str) -> RunRecord:
    """The line of a run that has ended. `prompts`: what the log keeps of prompts, as the setting says."""
    line = log_line(run.id, run.started_at, run.key.name, run.request, finished.result, finished.charge)
    # Never the whole prompt of what cost nothing: a key must not be able to fill the disk with it.
    most = None if run.reached_the_cli else PREVIEW_CHARACTERS
    receipt = run.receipt or Receipt()
    model_ms = None if run.receipt is None else run.receipt.model_ms
    return msgspec.structs.replace(
        line,
        stream=run.stream,
        reserved_usd=run.reservation.cost_micro / 1e6,
        duration_ms=finished.duration_ms,
        queued_ms=run.queued_ms,
        first_token_ms=run.first_token_ms,
        warm=run.warm,
        repairs=run.repairs,
        upstream_status=receipt.status,
        upstream_message=receipt.message,
        upstream_request_id=receipt.request_id,
        model_ms=model_ms,
        credential=run.credential,
        tried="; ".join(run.tried) or None,
        overhead_ms=None if model_ms is None else max(0, finished.duration_ms - run.queued_ms - model_ms),
        system_prompt=_kept(run.request.system[:most], prompts),
        user_prompt=_kept(run.request.messages[-1].text[:most], prompts),
    )


def line_of_refusal(
    clock: Clock, key_name: str, request: GenerationRequest, problem: Problem, stream: bool, prompts: str
) -> RunRecord:
    """The line of a request that was not taken on: it used and cost nothing."""
    line = log_line(new_run_id(clock), clock.now(), key_name, request, problem, Charge(Usage(), 0))
    return msgspec.structs.replace(
        line,
        stream=stream,
        system_prompt=_kept(request.system[:PREVIEW_CHARACTERS], prompts) or None,
        user_prompt=_kept(request.messages[-1].text[:PREVIEW_CHARACTERS], prompts) or None,
    )


def preview(messages: Sequence[Message], prompts: str) -> str | None:
    """The beginning of what is asked, for those who watch, as far as the log may keep it."""
    return _kept(messages[-1].text[:PREVIEW_CHARACTERS], prompts) if messages else None


def _kept(prompt: str, prompts: str) -> str | None:
    if prompts == "off":
        return None
    return prompt if prompts == "full" else prompt[:PREVIEW_CHARACTERS]


def _calls(answer: Answer) -> str | None:
    """The tools that an answer calls, as the log has them; no longer than a preview."""
    names = Counter(part.name for part in answer.content if isinstance(part, ToolCall))
    told = ", ".join(name if times == 1 else f"{name} ×{times}" for name, times in names.items())
    return told[:PREVIEW_CHARACTERS] or None


def log_line(
    run_id: str,
    at: float,
    key_name: str,
    request: GenerationRequest,
    result: Answer | Problem,
    charge: Charge,
) -> RunRecord:
    """A line of the log with what every line has."""
    problem = result if isinstance(result, Problem) else None
    status = 200
    if problem is not None:
        status = problem.status if request.api == NATIVE else problem.sdk_status
    return RunRecord(
        id=run_id,
        timestamp=iso(at),
        key_name=key_name,
        provider=request.provider,
        model=request.model,
        alias=request.alias,
        api=request.api,
        status=status,
        code=problem.code if problem else None,
        error=problem.message if problem else None,
        hint=problem.hint if problem else None,
        **msgspec.structs.asdict(charge.usage),
        cost_usd=charge.cost_micro / 1e6,
        assumed=charge.assumed,
        stop_reason=result.stop_reason if isinstance(result, Answer) else None,
        calls=_calls(result) if isinstance(result, Answer) else None,
        request_id=request.request_id,
    )
