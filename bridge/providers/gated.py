"""A run's way through the gate, the same for every CLI: its ticket, and what the provider has said.

What a CLI says of a call is a hint; what went through the gate is the truth. Usage, status, the provider's own words
and the time of its limits come from there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec.structs import astuple

from bridge.clock import Clock
from bridge.errors import Problem
from bridge.gate.body import marks
from bridge.gate.ticket import Call, Oddity, Ticket, Upstream, Vouched, Way
from bridge.registry import ProviderRow
from bridge.types import LONG_CONTEXT, Completed, Failed, GenerationRequest, Image, Receipt, Tap, Usage

if TYPE_CHECKING:
    from bridge.gate.server import Gate

#: Signs of life of the provider are passed on this often at most, in seconds.
SIGN_S = 1.0

#: What a provider's 400 or 429 says of the account and not of the request. Only at the beginning: further on, a
#: sentence may repeat what a client has sent. Sources: the error pages of both API references, and texts that users
#: have reported.
_ACCOUNT_TYPES = ("billing_error", "billing_hard_limit_reached", "insufficient_quota", "account_deactivated")
_ACCOUNT = re.compile(
    r"(?:your )?credit balance is too low|(?:this|your) organization has been disabled"
    r"|(?:this|your) (?:api key|organization) belongs to a disabled organization"
    r"|you have reached your specified api usage limits|billing hard limit|you exceeded your current quota"
    r"|(?:this|your) account has been deactivated",
    re.IGNORECASE,
)
#: What a 429 says of one request, at its beginning: it is larger than the account may ever ask for, and will be so
#: tomorrow. Sources: reports of users of both APIs.
_TOO_LARGE = re.compile(r"request too large for|extra usage is required for long context", re.IGNORECASE)
#: How a 429 begins that is about a model: limits of a rate are a model's, and both APIs name it there. Sources: reports
#: of users of both APIs, of 2023 to 2026. Older sentences of Anthropic's name none.
_OF_A_MODEL = re.compile(
    r"rate limit reached for \S+ in organization"
    r"|this request would exceed your organization's rate limit of [\w, ]+\(org: [\w-]+, model: \S+\)",
    re.IGNORECASE,
)
#: What a 401 of a proxy such as LiteLLM says of a model, at its beginning.
_NO_MODEL = re.compile(r"(?:key|team|user|project) not allowed to access model", re.IGNORECASE)
#: Error types of a stream that had begun, and of which only the request is the reason: these, and all that are about an
#: image. Source: OpenAI's reference of the error of a response.
_REQUEST_TYPES = (
    *("invalid_request_error", "invalid_prompt", "invalid_value"),
    *("bio_policy", "misalignment_policy_violation"),
)
#: What a sentence on a request never says, in one that clients are shown.
_TELLING = re.compile(
    r"sk-|org-|proj_|req_|://|@|\b(?:accounts?|organi[sz]ation|workspace|project|api key)\b", re.IGNORECASE
)
#: How much of such a sentence a client is shown, in characters.
MOST_SAID = 300
_TOO_LONG = ("prompt is too long", "context_length_exceeded", "exceeds the context window", "maximum context length")


class Passage:
    """One run's ticket at the gate, from its start to its end."""

    def __init__(
        self,
        gate: Gate,
        upstream: Upstream,
        request: GenerationRequest,
        clock: Clock,
        alive: Callable[[], None],
        *,
        row: ProviderRow,
        way: Way | None = None,
        tools: frozenset[str] = frozenset(),
        put_in: Mapping[str, Any] | None = None,
        pictures: Mapping[str, Image] | None = None,
        tool_parts: Mapping[str, Mapping[str, Any]] | None = None,
        linked: bool = False,
        silence_s: float,
        makes_smaller: bool = False,
        tap: Tap | None = None,
    ) -> None:
        """`request` is as the CLI is told it; `alive` is called when the provider sends something; `tap` hears what
        passes."""
        self._gate = gate
        self._clock = clock
        self._alive = alive
        self._told_at = 0.0
        #: whether there are images that the CLI makes smaller
        self._makes_smaller = makes_smaller
        self._thread: str | None = None
        self._closed = False
        self._row = row
        self._way = way
        exact = marks(request.messages, pictures or ())
        vouched = Vouched(
            request.model.removesuffix(LONG_CONTEXT), request.system, exact, request.max_output_tokens, tools
        )
        self.ticket = Ticket(
            upstream,
            vouched,
            way=way,
            put_in=put_in,
            pictures=pictures,
            tool_parts=tool_parts,
            linked=linked,
            on_bytes=self._note_sign,
            silence_s=silence_s,
            tap=tap,
        )

    @property
    def call(self) -> Call:
        """What the gate has seen."""
        return self.ticket.call

    def open(self, thread: str | None = None) -> None:
        """From now on the CLI may make its call: with the token, or on that thread."""
        self._thread = thread
        self._gate.tickets.add(self.ticket, thread)

    def close(self) -> None:
        """End the call upstream, if one is under way; the ticket is worth nothing any more. Safe to call again."""
        self._gate.tickets.drop(self.ticket, self._thread)
        call = self.call
        if self._closed:
            return
        self._closed = True
        if self._way is not None and call.sent_at is not None:
            self._way.close(call)
        if call.refused is not None and not self._image_is_spoilt:
            self._gate.report(Oddity("refused", self._row.name, call.refused))

    @property
    def receipt(self) -> Receipt | None:
        """What stands in the log of it; None where nothing was sent."""
        call = self.call
        if call.sent_at is None:
            return None
        ended_at = self._clock.monotonic() if call.ended_at is None else call.ended_at
        return Receipt(call.status, call.error_message, call.request_id, round(1000 * (ended_at - call.sent_at)))

    @property
    def usage(self) -> Usage | None:
        """What the call has used: known where the answer came to its end, and nothing where it was turned away; None
        where only a part of it is known."""
        call = self.call
        if call.complete:
            return call.usage
        # OpenAI says of a prompt that is too long in a stream, before anything else in it.
        turned_away = call.turned_away or (call.usage is None and _is_too_long(call))
        nothing_sent = call.sent_at is None or (call.status is None and call.unreachable)
        return Usage() if turned_away or nothing_sent else None

    def correct(self, end: Completed | Failed) -> Completed | Failed:
        """The end of a run as the gate has seen it; what the CLI says of usage is compared with that."""
        told = end.answer.usage if isinstance(end, Completed) else end.usage
        if told is not None and self.call.usage is not None:
            # Of these the CLIs say nothing.
            told = msgspec.structs.replace(told, searches=self.call.usage.searches)
        if self.call.complete and told is not None and told != self.call.usage:
            self._gate.misreported[self._row.name] += 1
            self._gate.report(Oddity("misreported", self._row.name, _difference(told, self.call.usage or Usage())))
        if isinstance(end, Failed):
            problem = self.problem() if self._image_is_spoilt else end.problem
            return msgspec.structs.replace(end, problem=problem, usage=self.usage)
        if not self.call.complete:
            # An answer of which the provider knows nothing, or not the end, is none.
            return Failed(self.problem(), self.usage)
        return Completed(msgspec.structs.replace(end.answer, usage=self.usage))

    def problem(self) -> Problem:
        """Why there is no answer, in our words; the provider's own stay with the call, but for its words on a
        request that it did not take."""
        if self._image_is_spoilt:
            message = f"An image is larger than {self._row.vendor} takes, and cannot be read to make it smaller."
            return Problem(
                "provider_invalid_request", message, "Send it as a whole file of less than 3.9 MB.", unpaid=True
            )
        return problem_of(self.call, self._row.vendor)

    @property
    def _image_is_spoilt(self) -> bool:
        """Whether the CLI left out an image that it was to make smaller: the client's trouble, and no oddity."""
        return self._makes_smaller and (self.call.refused or "").startswith("message")

    def _note_sign(self) -> None:
        now = self._clock.monotonic()
        if now >= self._told_at + SIGN_S:
            self._told_at = now
            self._alive()


def _difference(told: Usage, seen: Usage) -> str:
    """Which figures of a CLI differ from its provider's."""
    both = zip(Usage.__struct_fields__, astuple(told), astuple(seen), strict=True)
    return ", ".join(f"{name} {ours} instead of {theirs}" for name, ours, theirs in both if ours != theirs)


Failure = Literal["limited", "rejected", "model", "overloaded", "unreachable", "silent", "request", "other"]
"""What a call failed by: its credential's rate is limited; it is not taken, or cannot pay; it is not for this model;
the provider is overloaded, cannot be reached, or says nothing; the request itself; or something else."""


def failure_of(call: Call) -> Failure:
    """What a call that brought nothing failed by: by the provider's status and its own words."""
    text, kind = (call.error_message or "").lower(), call.error_type or ""
    if call.status is None:
        return "unreachable" if call.unreachable else "silent"
    account = kind in _ACCOUNT_TYPES or _ACCOUNT.match(text.lstrip()) is not None
    if call.status == 403 and not account and "model" in f"{kind} {text}":
        # Whoever asks for such a model must not get the credential blocked for all others.
        return "model"
    if call.status == 401 and _NO_MODEL.match(text.lstrip()):
        return "model"
    if call.status == 429 and _TOO_LARGE.match(text.lstrip()):
        # Nor may whoever asks for too much get it benched: all others' requests are taken.
        return "model"
    if call.status == 403 and not kind and not text:
        # Both APIs say why. A page of HTML comes from a firewall in front of them, which looks at the words of a body.
        return "other"
    if call.status in (401, 402, 403) or (account and call.status in (200, 400, 429)):
        return "rejected"
    if call.status == 429 or "rate_limit" in kind:
        return "limited"
    of_request = kind in _REQUEST_TYPES or "image" in kind
    if _is_too_long(call) or call.status in (400, 404, 422) or of_request:
        return "request"
    busy = call.status in (503, 529) or "overloaded" in kind or kind == "slow_down"
    return "overloaded" if busy else "other"


def is_of_a_model(call: Call) -> bool:
    """Whether a limited rate is that of a model: other models may be asked for with the same credential."""
    return _OF_A_MODEL.match((call.error_message or "").lstrip()) is not None


def problem_of(call: Call, vendor: str) -> Problem:
    """What a call that brought no whole answer means for the client."""
    kind = call.error_type or ""
    if call.refused is not None:
        message = "The CLI asked for something else than this request, and was stopped."
        return Problem("cli_bad_output", message, unpaid=True)
    if call.endless and call.status == 200:
        return Problem("cli_bad_output", "The answer grew beyond all bounds and was stopped.")
    if call.sent_at is None:
        return Problem("cli_failed", "The CLI answered by itself instead of asking the model.")
    if call.status is None or (call.status == 200 and not kind):
        if "timed out" in (call.error_message or "").lower():
            return Problem("timeout", f"{vendor} stopped sending before the answer was complete.")
        where = "could not be reached" if call.status is None else "broke off in the middle of the answer"
        return Problem("cli_failed", f"{vendor} {where}.")
    if 300 <= call.status < 400:
        return Problem("cli_failed", f"{vendor} sent the call elsewhere, which is not followed.")
    failure = failure_of(call)
    if failure == "rejected":
        return Problem("no_credentials", f"The bridge has no credential that {vendor} accepts now.")
    if failure == "limited":
        return Problem(
            "provider_rate_limited", f"{vendor} limits the rate of this bridge now.", retry_after=call.retry_after_s
        )
    if _is_too_long(call) or call.status == 429:
        return Problem("prompt_too_long", "The prompt is too long for this model.")
    if failure == "model" or call.status == 404:
        return Problem("model_not_found", f"{vendor} does not know this model.")
    if failure == "request":
        why = _about_request(call.error_message)
        return Problem("provider_invalid_request", f"{vendor} did not accept the request{f': {why}' if why else '.'}")
    return Problem(
        "provider_overloaded", f"{vendor} is overloaded or in trouble at the moment.", retry_after=call.retry_after_s
    )


def _is_too_long(call: Call) -> bool:
    """Whether the model takes no prompt of this length."""
    said = ((call.error_message or "").lower(), call.error_type or "")
    return call.status == 413 or any(words in each for words in _TOO_LONG for each in said)


def _about_request(message: str | None) -> str | None:
    """A provider's sentence on a request that it did not take; None where it may tell more than the client knows:
    of the account, of the bridge's own requests, or of addresses."""
    said = " ".join((message or "").split())
    if not said or not said.isprintable() or _TELLING.search(said):
        return None
    return said if len(said) <= MOST_SAID else f"{said[: MOST_SAID - 1]}…"
