"""What the requests of the OpenAI and Anthropic APIs have in common, on their way to a GenerationRequest. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from bridge.settings import Settings
from bridge.types import GenerationRequest, Image, Message, ModelChoice, Text
from bridge.wire import content
from bridge.wire.content import MAX_MESSAGES, MAX_PARTS, invalid

#: Most stop sequences of a request, and their characters together: each piece of text is held against all of them.
MAX_STOPS, MAX_STOP_CHARACTERS = 16, 1000

#: effort as the APIs say it -> effort of a request
EFFORTS = {"none": "minimal", **{name: name for name in ("minimal", "low", "medium", "high", "xhigh", "max")}}

#: What is asked for where only "some JSON" is: the APIs promise an object.
ANY_OBJECT = {"type": "object"}


class Turns:
    """Collects a conversation. Turns of one role that follow each other become one, as both APIs do it."""

    def __init__(self) -> None:
        self._system: list[str] = []
        #: role and parts; made into messages only at the end, so that many small turns cost no more than few
        self._turns: list[tuple[Literal["user", "assistant"], list[Text | Image]]] = []
        self._parts = 0

    def instruct(self, text: str, where: str) -> None:
        """Add to the system prompt, wherever in the conversation it stands."""
        if text.strip():
            self._system.append(content.prompt(where, text))

    def say(self, role: str, parts: Sequence[Text | Image], where: str) -> None:
        """Add a turn. Raises BridgeError where it is empty."""
        message = content.message(role, parts, where)
        if message.role == "assistant" and any(isinstance(part, Image) for part in parts):
            raise invalid(f"{where}: only a user's message may have images.")
        self._parts += len(message.content)
        if self._parts > MAX_PARTS:
            raise content.too_many_parts()
        if not self._turns or self._turns[-1][0] != message.role:
            self._turns.append((message.role, []))
        self._turns[-1][1].extend(message.content)

    @property
    def system(self) -> str:
        """The whole system prompt."""
        return content.prompt("The system prompt", "\n\n".join(self._system))

    def messages(self, field: str) -> tuple[Message, ...]:
        """The conversation. `field` is its name in the body. Raises BridgeError."""
        if not self._turns:
            raise invalid(f"{field} has no message of a user.", field)
        if len(self._turns) > MAX_MESSAGES:
            raise invalid(f"{field} has more than {MAX_MESSAGES} entries.", field)
        if self._turns[-1][0] != "user":
            raise invalid(f"The last of {field} must be from the user; an answer cannot be begun for the model.", field)
        return content.conversation([Message(role, tuple(parts)) for role, parts in self._turns])


def generation(
    settings: Settings,
    choice: ModelChoice,
    turns: Turns,
    field: str,
    *,
    api: str,
    max_output_tokens: int | None,
    effort: str | None,
    schema: dict[str, Any] | None,
    stop: Sequence[str] = (),
) -> GenerationRequest:
    """The request. More output tokens than the bridge allows are no error here: SDKs send the most that a
    model can write where nobody asked for less. Raises BridgeError."""
    if len(stop) > MAX_STOPS or not all(stop) or sum(map(len, stop)) > MAX_STOP_CHARACTERS:
        raise invalid(
            f"There may be up to {MAX_STOPS} stop sequences, none empty, of {MAX_STOP_CHARACTERS} characters together."
        )
    if stop and schema is not None:
        raise invalid("Stop sequences cannot be used where the answer must be JSON: they would cut it.")
    most = settings.max_output_tokens_limit
    return GenerationRequest(
        provider=choice.provider,
        model=choice.model,
        messages=turns.messages(field),
        system=turns.system,
        max_output_tokens=min(max_output_tokens or settings.max_output_tokens, most),
        timeout_s=settings.timeout_s,
        effort=None if effort is None else EFFORTS[effort],
        schema=schema,
        api=api,
        alias=choice.alias,
        stop=tuple(stop),
    )


def run_number(run_id: str) -> str:
    """What is left of a run's id without its prefix: the ids of the answers have prefixes of their own."""
    return run_id.removeprefix("run_")
