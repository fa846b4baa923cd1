"""What the requests of the OpenAI and Anthropic APIs have in common, on their way to a GenerationRequest. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bridge.settings import Settings
from bridge.types import GenerationRequest, Image, Message, ModelChoice, Text
from bridge.wire import content
from bridge.wire.content import MAX_MESSAGES, invalid

Resolve = Callable[[str], ModelChoice]
"""The model behind a name. Raises BridgeError (not_found)."""

#: Most stop sequences of a request, and the longest one, in characters.
MAX_STOPS, MAX_STOP_CHARACTERS = 100, 1000

#: effort as the APIs say it -> effort of a request
EFFORTS = {"none": "minimal", **{name: name for name in ("minimal", "low", "medium", "high", "xhigh", "max")}}

#: What is asked for where only "some JSON" is: the APIs promise an object.
ANY_OBJECT = {"type": "object"}


class Turns:
    """Collects a conversation. Turns of one role that follow each other become one, as both APIs do it."""

    def __init__(self) -> None:
        self._system: list[str] = []
        self._messages: list[Message] = []

    def instruct(self, text: str, where: str) -> None:
        """Add to the system prompt, wherever in the conversation it stands."""
        if text.strip():
            self._system.append(content.prompt(where, text))

    def say(self, role: str, parts: Sequence[Text | Image], where: str) -> None:
        """Add a turn. Raises BridgeError where it is empty."""
        message = content.message(role, parts, where)
        if message.role == "assistant" and any(isinstance(part, Image) for part in parts):
            raise invalid(f"{where}: only a user's message may have images.")
        if self._messages and self._messages[-1].role == message.role:
            message = Message(message.role, (*self._messages.pop().content, *message.content))
        self._messages.append(message)

    @property
    def system(self) -> str:
        """The whole system prompt."""
        return content.prompt("The system prompt", "\n\n".join(self._system))

    def messages(self, field: str) -> tuple[Message, ...]:
        """The conversation. `field` is its name in the body. Raises BridgeError."""
        if not self._messages:
            raise invalid(f"{field} has no message of a user.", field)
        if len(self._messages) > MAX_MESSAGES:
            raise invalid(f"{field} has more than {MAX_MESSAGES} entries.", field)
        if self._messages[-1].role != "user":
            raise invalid(f"The last of {field} must be from the user; an answer cannot be begun for the model.", field)
        return content.conversation(self._messages)


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
    include_usage: bool = False,
) -> GenerationRequest:
    """The request. More output tokens than the bridge allows are no error here: SDKs send the most that a
    model can write where nobody asked for less. Raises BridgeError."""
    if len(stop) > MAX_STOPS or not all(0 < len(text) <= MAX_STOP_CHARACTERS for text in stop):
        raise invalid(f"There may be up to {MAX_STOPS} stop sequences of 1 to {MAX_STOP_CHARACTERS} characters.")
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
        include_usage=include_usage,
    )


def run_number(run_id: str) -> str:
    """What is left of a run's id without its prefix: the ids of the answers have prefixes of their own."""
    return run_id.removeprefix("run_")
