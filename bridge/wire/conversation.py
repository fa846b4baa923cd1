"""The one walk from the messages of a body to a GenerationRequest, whatever API they came by. Pure.

`where` and `at` are places in the body, as the sentence of a refusal names them. Everything here raises
BridgeError (invalid_request).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, Protocol

import msgspec

from bridge.errors import BridgeError
from bridge.registry import PROVIDERS
from bridge.settings import Settings
from bridge.types import GenerationRequest, Image, Message, ModelChoice, Text
from bridge.wire import content
from bridge.wire.content import invalid

#: Most messages of one conversation, parts of all its messages, and images of one request.
MAX_MESSAGES, MAX_PARTS, MAX_IMAGES = 1000, 2000, 50
#: Most stop sequences of a request, and their characters together: each piece of text is held against all of them.
MAX_STOPS, MAX_STOP_CHARACTERS = 16, 1000

#: effort as the APIs say it -> effort of a request
EFFORTS = {"none": "minimal", **{name: name for name in ("minimal", "low", "medium", "high", "xhigh", "max")}}

#: What the CLIs, which only answer a user, are told where a conversation ends with the model's own words.
_GO_ON = "Continue."

Verbosity = Literal["low", "medium", "high"]

#: What is asked for where only "some JSON" is: the APIs promise an object.
ANY_OBJECT = {"type": "object"}


class WirePart(Protocol):
    """A part of a message, as the bodies of an API have it."""

    def part(self, at: str, role: str) -> Text | Image | None:
        """What it is to a model; None where it is passed over."""


class PlainText(msgspec.Struct):
    """A piece of text; the APIs differ in what they call it."""

    text: str

    def part(self, at: str, role: str) -> Text:
        """See WirePart."""
        return Text(content.prompt(f"{at}.text", self.text))


class Turns:
    """Collects a conversation and its system prompt. Empty texts are refused upstream and carry nothing, so they are
    left out. Turns of one role that follow each other become one, as OpenAI and Anthropic do it."""

    def __init__(self, field: str, *, goes_on: bool = False) -> None:
        """`field` is the conversation's name in the body. `goes_on`: the model goes on where the last turn is its
        own, as with OpenAI."""
        self._field = field
        self._goes_on = goes_on
        self._system: list[str] = []
        #: role and parts; made into messages only at the end, so that many small turns cost no more than few
        self._turns: list[tuple[Literal["user", "assistant"], list[Text | Image]]] = []
        self._parts = 0

    def add(self, role: str, given: str | Iterable[WirePart], where: str) -> None:
        """Add a turn; system and developer add to the system prompt, wherever in the conversation they stand."""
        parts = [part for part in _parts(given, where, role) if isinstance(part, Image) or part.text.strip()]
        if role != "user" and any(isinstance(part, Image) for part in parts):
            raise invalid(f"{where}: only a user's message may have images.", self._field)
        if role in ("system", "developer"):
            self._system += (part.text for part in parts if isinstance(part, Text))
            return
        if not parts and role == "assistant":
            # An answer that was stopped, or that was empty.
            return
        if not parts:
            raise invalid(f"{where} is empty.", self._field)
        self._parts += len(parts)
        if self._parts > MAX_PARTS:
            raise invalid(f"The messages have more than {MAX_PARTS} parts together.", self._field)
        speaker: Literal["user", "assistant"] = "assistant" if role == "assistant" else "user"
        if not self._turns or self._turns[-1][0] != speaker:
            self._turns.append((speaker, []))
        self._turns[-1][1].extend(parts)

    def illustrate(self, images: Sequence[Image]) -> None:
        """Put images before what the last turn says."""
        self._parts += len(images)
        if self._turns:
            self._turns[-1][1][:0] = images

    @property
    def system(self) -> str:
        """The whole system prompt; empty where it is all that was said, since it is the prompt then."""
        return self._instructions if self._turns else ""

    @property
    def _instructions(self) -> str:
        return content.prompt("The system prompt", "\n\n".join(self._system))

    def messages(self) -> tuple[Message, ...]:
        """The conversation, if it is one and not too large."""
        field = self._field
        if not self._turns and self._system:
            return (Message("user", (Text(self._instructions),)),)
        if not self._turns:
            raise invalid(f"{field} has no message of a user.", field)
        if len(self._turns) > MAX_MESSAGES:
            raise invalid(f"{field} has more than {MAX_MESSAGES} entries.", field)
        if self._turns[-1][0] != "user":
            if not self._goes_on:
                raise invalid(
                    f"The last of {field} must be from the user: the CLIs cannot begin an answer for the model.", field
                )
            self.add("user", _GO_ON, field)
        messages = tuple(Message(role, tuple(parts)) for role, parts in self._turns)
        if self._parts > MAX_PARTS:
            raise invalid(f"The messages have more than {MAX_PARTS} parts together.", field)
        if sum(isinstance(part, Image) for each in messages for part in each.content) > MAX_IMAGES:
            raise too_many_images()
        pixels = sum(image.pixels for each in messages for image in each.images)
        if pixels > content.MAX_PIXELS_TOGETHER:
            most = content.MAX_PIXELS_TOGETHER // 10**6
            raise invalid(f"The images have {pixels / 1e6:.1f} million pixels together; they may have {most}.", field)
        if sum(len(each.text) for each in messages) > content.MAX_PROMPT_CHARACTERS:
            raise invalid(f"The messages are longer than {content.MAX_PROMPT_CHARACTERS} characters together.", field)
        return messages


def _parts(given: str | Iterable[WirePart], where: str, role: str) -> list[Text | Image]:
    if isinstance(given, str):
        return [Text(content.prompt(where, given))]
    found = (each.part(f"{where}[{number}]", role) for number, each in enumerate(given))
    return [part for part in found if part is not None]


def too_many_images() -> BridgeError:
    """The refusal of more images than a request may have."""
    return invalid(f"A request may have at most {MAX_IMAGES} images.")


def generation(
    settings: Settings,
    choice: ModelChoice,
    turns: Turns,
    *,
    api: str,
    max_output_tokens: int | None,
    effort: str | None,
    schema: dict[str, Any] | None,
    stop: Sequence[str] = (),
    timeout_s: float | None = None,
    verbosity: Verbosity | None = None,
    ignored: Sequence[str] = (),
) -> GenerationRequest:
    """The request. More output tokens than the bridge allows are no error here: SDKs send the most that a
    model can write where the caller asks for no number."""
    if len(stop) > MAX_STOPS or not all(stop) or sum(map(len, stop)) > MAX_STOP_CHARACTERS:
        raise invalid(
            f"There may be up to {MAX_STOPS} stop sequences, none empty, of {MAX_STOP_CHARACTERS} characters together."
        )
    if stop and schema is not None:
        raise invalid("Stop sequences cannot be used where the answer must be JSON: they would cut it.")
    if verbosity is not None and not PROVIDERS[choice.provider].verbosity:
        ignored = [*ignored, "verbosity"] if verbosity != "medium" else ignored
        verbosity = None
    most = settings.max_output_tokens_limit
    return GenerationRequest(
        provider=choice.provider,
        model=choice.model,
        messages=turns.messages(),
        system=turns.system,
        max_output_tokens=min(max_output_tokens or settings.max_output_tokens, most),
        timeout_s=timeout_s or settings.timeout_s,
        effort=None if effort is None else EFFORTS[effort],
        schema=schema,
        api=api,
        alias=choice.alias,
        stop=tuple(stop),
        verbosity=verbosity,
        ignored=tuple(ignored),
    )


def run_number(run_id: str) -> str:
    """What is left of a run's id without its prefix: the ids of the answers have prefixes of their own."""
    return run_id.removeprefix("run_")
