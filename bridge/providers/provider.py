"""What a provider is: the seam between a run and the CLI that does its work."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from bridge.errors import BridgeError
from bridge.gate.ticket import Way
from bridge.providers.pool import Breaker
from bridge.types import Event, GenerationRequest, Image, Part, Receipt, Tap, Thought, Tool, ToolCall, ToolResult, words

Emit = Callable[[Event], None]
"""Where a conversation puts its events; never blocks."""

#: Frame of one message in a conversation, in tokens.
MESSAGE_OVERHEAD_TOKENS = 16
#: What an API writes around the tools, and around each, at most, in tokens: Anthropic's pricing page names up to 804.
TOOLS_OVERHEAD_TOKENS, TOOL_OVERHEAD_TOKENS = 1000, 32
#: What one search of the web brings in at most, in tokens. No provider says; what is beyond it counts all the same.
SEARCH_TOKENS = 10_000
#: What the frame of a message usually counts, and an image of a usual size, in tokens.
FRAME_TOKENS, USUAL_IMAGE_TOKENS = 4, 1600


class ProviderStatus(msgspec.Struct, frozen=True):
    """What is known of a provider. `problem` and `hint` are sentences for the operator, with settings and paths; None
    when well. `said` is the end of what the CLI printed on stderr, secrets masked. `drift` says why what is in its
    program's place does not serve, while what was there before does. `unknown`: what its processes said that the bridge
    does not know, and how often. A client is told `refusal`, and none of these."""

    name: str
    available: bool
    version: str | None = None
    credentials: str = "api-key"
    problem: str | None = None
    hint: str | None = None
    said: str | None = None
    drift: str | None = None
    #: when the program that serves began to, in UTC seconds
    since: float | None = None
    unknown: dict[str, int] = {}
    warm: int = 0
    #: processes that could not be started, or ended while they started, since the bridge began
    boot_failures: int = 0
    #: seconds until it is worth trying again, where that is known
    retry_after: float | None = None

    def with_starts(self, breaker: Breaker, said: str | None = None) -> ProviderStatus:
        """This state with its failed starts; unavailable where there were several in a row, with what the last of
        them `said`."""
        status = msgspec.structs.replace(self, boot_failures=breaker.total)
        if not self.available or not breaker.retry_in_s:
            return status
        return msgspec.structs.replace(
            status,
            available=False,
            problem=f"The {self.name} CLI does not start.",
            hint="It is tried again by itself. If it stays so, run 'cli-bridge doctor'.",
            said=said,
            retry_after=breaker.retry_in_s,
        )

    def refusal(self) -> BridgeError:
        """What a client is told who asks for it now: whatever the reason, it is for the operator to mend."""
        return BridgeError("cli_unavailable", f"The {self.name} CLI is not available.", retry_after=self.retry_after)


class Conversation(Protocol):
    """One generation as the CLI sees it."""

    @property
    def receipt(self) -> Receipt | None:
        """What the provider has said by now besides the answer; None where its call did not go through the gate."""

    def cancel(self) -> None:
        """Stop the work upstream and release what it holds. Returns at once; safe to call again."""


class Provider(Protocol):
    """A CLI that turns a request into events."""

    name: str
    default_model: str
    #: whether the CLI can be given a maximum of output tokens that the model then keeps
    enforces_output_limit: bool
    #: whether its models are asked with a credential of the bridge
    needs_credential: bool
    #: whether its models can search the web for a request
    searches: bool
    #: whether a request for them may have links to images
    takes_links: bool
    #: the smallest maximum that the provider's API takes: what is asked for below it may still become so long
    least_output_tokens: int

    def open(self) -> None:
        """Get ready: look at the CLI, start what is kept warm. Problems go into `status`, and are looked at again
        until there are none. Raises nothing."""

    def check(self) -> ProviderStatus:
        """Look at the CLI: is it there, new enough, logged in. Starts short commands only; spends nothing."""

    def close(self) -> None:
        """Stop every process of this provider and wait for them to be gone."""

    def status(self) -> ProviderStatus:
        """The state as last seen; cheap."""

    def input_ceiling(self, request: GenerationRequest) -> int:
        """The most input tokens that this request can be billed for."""

    def unchecked(self, request: GenerationRequest) -> Sequence[Tool]:
        """The strict tools of a request whose calls the API of its model does not hold against their schemas."""

    def start(
        self, request: GenerationRequest, emit: Emit, owner: str, tap: Tap | None = None, way: Way | None = None
    ) -> Conversation:
        """Begin a generation for `owner`, whose words no process ever shows to another; returns at once. Events go to
        `emit`: Submitted before the CLI may spend anything, at the end exactly one Completed or Failed (none after
        a cancel). `tap` hears all that is said. `way` leads to the model, for a
        provider that needs a credential. Raises BridgeError."""


# --- how many tokens a text can be at most, and how many it probably is -------------------------


def text_ceiling(request: GenerationRequest, image_tokens: int) -> int:
    """The most tokens that the client's part of a prompt can be.

    Every tokenizer in use is a byte-level one, in which a token stands for one byte or more: the number
    of UTF-8 bytes is a bound that no prompt can break, at about four times the usual count of English.
    An image counts `image_tokens`, whatever it shows.
    """
    total = len(request.system.encode()) + MESSAGE_OVERHEAD_TOKENS
    total += MESSAGE_OVERHEAD_TOKENS * len(request.messages) + image_tokens * len(request.images)
    for message in request.messages:
        total += sum(
            [len(words(part).encode()) + _frame(part) for part in message.content if not isinstance(part, Image)]
        )
    if request.schema is not None:
        total += len(json.dumps(request.schema))
    if request.tools or request.web_search is not None:
        total += request.tools_size + TOOLS_OVERHEAD_TOKENS + TOOL_OVERHEAD_TOKENS * len(request.tools)
        total += TOOLS_OVERHEAD_TOKENS * sum(bool(tool.vendor) for tool in request.tools)
    return total


def with_searches(ceiling: int, request: GenerationRequest) -> int:
    """The most input tokens of a request whose prompt is at most `ceiling`: a model that searches the web reads all of
    it again after each search, with what it wrote and what was found by then."""
    search = request.web_search
    return ceiling if search is None else after_searches(ceiling, request.max_output_tokens, search.most)


def after_searches(prompt: int, output: int, searches: int) -> int:
    """The most input tokens that so many searches make of a prompt, where so much was written in between."""
    return (searches + 1) * prompt + searches * output + SEARCH_TOKENS * searches * (searches + 1) // 2


def _frame(part: Part) -> int:
    """The most tokens of a part besides its words."""
    match part:
        case ToolCall(id, _, arguments):
            # What is no JSON goes up as a text in JSON, whose marks take more than one byte there.
            return MESSAGE_OVERHEAD_TOKENS + len(id) + len(msgspec.json.encode(arguments)) - len(arguments.encode())
        case ToolResult(id):
            return MESSAGE_OVERHEAD_TOKENS + len(id)
        case Thought(_, signature, redacted):
            # They hold all that was thought, of which the text may be a summary.
            return MESSAGE_OVERHEAD_TOKENS + len(signature) + len(redacted)
    return 4


def estimate(text_bytes: int, deltas: int) -> int:
    """About how many tokens a streamed text is: a quarter of its bytes, or its pieces if those are more."""
    return max(math.ceil(text_bytes / 4), deltas)


def prompt_estimate(request: GenerationRequest) -> int:
    """About how many tokens a prompt is, without what a CLI adds: a quarter of its bytes, and a usual image."""
    size = len(request.system.encode()) + sum(len(message.text.encode()) for message in request.messages)
    size += request.tools_size
    if request.schema is not None:
        size += len(json.dumps(request.schema))
    return math.ceil(size / 4) + len(request.messages) * FRAME_TOKENS + len(request.images) * USUAL_IMAGE_TOKENS
