"""What a provider is: the seam between a run and the CLI that does its work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from bridge.errors import BridgeError
from bridge.providers.pool import Breaker
from bridge.types import Event, GenerationRequest, Receipt, Tap

Emit = Callable[[Event], None]
"""Where a conversation puts its events; never blocks."""


class ProviderStatus(msgspec.Struct, frozen=True):
    """What is known of a provider. `problem` and `hint` are sentences for people; None when well. `said` is the end of
    what the CLI printed on stderr, secrets masked: for the operator, never for a client."""

    name: str
    available: bool
    version: str | None = None
    credentials: str = "api-key"
    problem: str | None = None
    hint: str | None = None
    said: str | None = None
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
        """What a client is told who asks for it now."""
        problem = self.problem or f"The {self.name} CLI is not available."
        return BridgeError("cli_unavailable", problem, self.hint, retry_after=self.retry_after)


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
    #: the smallest maximum that the provider's API takes: what is asked for below it may still become so long
    least_output_tokens: int

    def open(self) -> None:
        """Get ready: look at the CLI, start what is kept warm. Problems go into `status`; called again
        now and then while there are any."""

    def check(self) -> ProviderStatus:
        """Look at the CLI: is it there, new enough, logged in. Starts short commands only; spends nothing."""

    def close(self) -> None:
        """Stop every process of this provider and wait for them to be gone."""

    def status(self) -> ProviderStatus:
        """The state as last seen; cheap."""

    def input_ceiling(self, request: GenerationRequest) -> int:
        """The most input tokens that this request can be billed for."""

    def start(self, request: GenerationRequest, emit: Emit, owner: str, tap: Tap | None = None) -> Conversation:
        """Begin a generation for `owner`, whose words no process ever shows to another; returns at once. Events go to
        `emit`: Submitted before the CLI may spend anything, at the end exactly one Completed or Failed (none after
        a cancel). `tap` hears all that is said."""
