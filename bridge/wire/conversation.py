"""The one walk from the messages of a body to a GenerationRequest, whatever API they came by. Pure.

`where` and `at` are places in the body, as the sentence of a refusal names them. Everything here raises
BridgeError (invalid_request).
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal, Protocol

import msgspec
from msgspec import Meta

from bridge.errors import BridgeError
from bridge.registry import PROVIDERS
from bridge.settings import Settings
from bridge.types import (
    GenerationRequest,
    Image,
    Message,
    ModelChoice,
    Part,
    Sampling,
    Search,
    Text,
    Thought,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from bridge.wire import content
from bridge.wire.content import invalid
from bridge.wire.parameters import shown
from bridge.wire.tools import MAX_SCHEMA_DEPTH, NAME_PATTERN, too_deep

#: Most messages of one conversation, parts of all its messages, and images of one request.
MAX_MESSAGES, MAX_PARTS, MAX_IMAGES = 1000, 2000, 50
#: Most stop sequences of a request, and their characters together: each piece of text is held against all of them.
MAX_STOPS, MAX_STOP_CHARACTERS = 16, 1000


#: The longest name of a conversation that counts, in characters.
MOST_SESSION_CHARACTERS = 500
#: Ids of tool calls that every API takes; others, which some programs make up, get new ones.
_CALL_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

#: What the CLIs, which only answer a user, are told where a conversation ends with the model's own words.
_GO_ON = "Continue."

Verbosity = Literal["low", "medium", "high"]

#: What is asked for where only "some JSON" is: the APIs promise an object.
ANY_OBJECT = {"type": "object"}


class WirePart(Protocol):
    """A part of a message, as the bodies of an API have it."""

    def part(self, at: str, role: str) -> Part | None:
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
        self._turns: list[tuple[Literal["user", "assistant"], list[Part]]] = []
        self._parts = 0
        #: so many turns stood before what was last said for the system prompt
        self.before_system = 0

    def add(self, role: str, given: str | Iterable[WirePart], where: str, calls: Iterable[ToolCall] = ()) -> None:
        """Add a turn, which may end with tool calls; system and developer add to the system prompt, wherever in the
        conversation they stand."""
        parts = [part for part in parts_of(given, where, role) if not isinstance(part, Text) or part.text.strip()]
        parts += calls
        kinds = set(map(type, parts))
        if role != "user" and Image in kinds:
            raise invalid(f"{where}: only a user's message may have images.", self._field)
        if role != "user" and ToolResult in kinds:
            raise invalid(f"{where}: only a user's message may have results of tools.", self._field)
        if role != "assistant" and ToolCall in kinds:
            raise invalid(f"{where}: only an assistant's message may call tools.", self._field)
        if role in ("system", "developer"):
            self._system += (part.text for part in parts if isinstance(part, Text))
            self.before_system = len(self._turns)
            return
        if role == "assistant" and kinds <= {Thought, Search}:
            # An answer that was stopped, or that was empty.
            return
        if not parts:
            raise invalid(f"{where} is empty.", self._field)
        self._append("assistant" if role == "assistant" else "user", parts)

    def answer_call(self, call_id: str, given: str | Iterable[WirePart], where: str, *, is_error: bool = False) -> None:
        """Add what a tool gave for an earlier call."""
        self._append("user", [result(call_id, given, where, is_error=is_error)])

    def _append(self, role: Literal["user", "assistant"], parts: list[Part]) -> None:
        self._parts += sum(1 + len(part.content) if isinstance(part, ToolResult) else 1 for part in parts)
        if self._parts > MAX_PARTS:
            raise invalid(f"The messages have more than {MAX_PARTS} parts together.", self._field)
        if not self._turns or self._turns[-1][0] != role:
            self._turns.append((role, []))
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
        turns = list(paired(self._turns, field))
        if turns[-1][0] != "user":
            if not self._goes_on:
                raise invalid(
                    f"The last of {field} must be from the user: the CLIs cannot begin an answer for the model.", field
                )
            turns.append(("user", [Text(_GO_ON)]))
        if self._parts > MAX_PARTS:
            raise invalid(f"The messages have more than {MAX_PARTS} parts together.", field)
        messages = tuple(Message(role, tuple(parts)) for role, parts in turns)
        images = [image for each in messages for image in each.images]
        if len(images) > MAX_IMAGES:
            raise too_many_images()
        pixels = sum([image.pixels for image in images])
        if pixels > content.MAX_PIXELS_TOGETHER:
            most = content.MAX_PIXELS_TOGETHER // 10**6
            raise invalid(f"The images have {pixels / 1e6:.1f} million pixels together; they may have {most}.", field)
        if sum([len(each.text) for each in messages]) > content.MAX_CONVERSATION_CHARACTERS:
            most = content.MAX_CONVERSATION_CHARACTERS
            raise invalid(f"The messages are longer than {most} characters together.", field)
        return messages


def parts_of(given: str | Iterable[WirePart], where: str, role: str) -> list[Part]:
    """The parts of what a message says."""
    if isinstance(given, str):
        return [Text(content.prompt(where, given))]
    found = (each.part(f"{where}[{number}]", role) for number, each in enumerate(given))
    return [part for part in found if part is not None]


def result(call_id: str, given: str | Iterable[WirePart], where: str, *, is_error: bool = False) -> ToolResult:
    """What a tool gave for a call: texts and images, or nothing."""
    parts = parts_of(given, where, "user")
    return ToolResult(
        call_id,
        tuple(part for part in parts if isinstance(part, Image) or (isinstance(part, Text) and part.text)),
        is_error,
    )


def call(call_id: str, name: str, arguments: str, where: str) -> ToolCall:
    """A tool call of an earlier answer, with its arguments as JSON."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise invalid(f"{where}.name is not the name of a tool: {name[:100]!r}.")
    return ToolCall(call_id, name, content.prompt(f"{where}.arguments", arguments) if arguments.strip() else "{}")


def paired(
    turns: Iterable[tuple[Literal["user", "assistant"], list[Part]]], field: str
) -> Iterator[tuple[Literal["user", "assistant"], list[Part]]]:
    """The turns with every tool call answered in the turn after it, by as many results, which stand first there. An id
    that was used before, or that not every API takes, is another one from then on, in call and result."""
    used: dict[str, int] = {}
    waiting: defaultdict[str, deque[str]] = defaultdict(deque)
    for role, parts in turns:
        results = [part for part in parts if isinstance(part, ToolResult)]
        for number, each in enumerate(results):
            given = each.tool_call_id
            if not waiting.get(given):
                raise invalid(f"{field}: there is no tool call {given[:100]!r} right before its result.", field)
            results[number] = ToolResult(waiting[given].popleft(), each.content, each.is_error)
        _refuse_unanswered(waiting, field)
        waiting = defaultdict(deque)
        others = [part for part in parts if not isinstance(part, ToolResult)]
        for number, part in enumerate(others):
            if isinstance(part, ToolCall):
                own = _own_id(part.id, used)
                waiting[part.id].append(own)
                others[number] = ToolCall(own, part.name, part.arguments)
        yield role, [*results, *others]
    _refuse_unanswered(waiting, field)


def _refuse_unanswered(waiting: dict[str, deque[str]], field: str) -> None:
    for given, calls in waiting.items():
        if calls:
            raise invalid(f"{field}: the tool call {given[:100]!r} has no result in the turn after it.", field)


def _own_id(given: str, used: dict[str, int]) -> str:
    """The id itself where it is the first of its kind; else one that nobody has. `used`: id -> its last number."""
    plain = given if _CALL_ID.fullmatch(given) else "call"
    own = plain
    while own in used:
        used[plain] += 1
        own = f"{plain[:50]}_{used[plain]}"
    used[own] = 1
    return own


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
    tools: tuple[Tool, ...],
    tool_choice: ToolChoice,
    sampling: Sampling,
    stop: Sequence[str] = (),
    stop_field: str = "stop",
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
    if too_deep(schema):
        # Said here, for whoever asks only for its tokens or its price, too: a model and the log would write it again.
        raise invalid(f"The schema is nested more than {MAX_SCHEMA_DEPTH} deep.")
    if stop and schema is not None:
        # They would cut the JSON. Programs send them all the same, as a part of what they send with every request.
        ignored, stop = [*ignored, stop_field], ()
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
        effort=effort,
        schema=schema,
        api=api,
        alias=choice.alias,
        stop=tuple(stop),
        verbosity=verbosity,
        tools=tools,
        tool_choice=tool_choice,
        sampling=sampling,
        ignored=shown(ignored),
        before_system=turns.before_system,
    )


#: Fields of a body that say how a model picks its words.
Temperature = Annotated[float, Meta(ge=0, le=2)]
TopP = Annotated[float, Meta(ge=0, le=1)]
TopK = Annotated[int, Meta(ge=0)]


def sampling(temperature: float | None, top_p: float | None, top_k: int | None = None) -> Sampling:
    """How the model is to pick its words; what the APIs do anyway counts as not asked for."""
    return Sampling(None if temperature == 1 else temperature, None if top_p == 1 else top_p, top_k)


def run_number(run_id: str) -> str:
    """What is left of a run's id without its prefix: the ids of the answers have prefixes of their own."""
    return run_id.removeprefix("run_")


def id_of_run(number: str) -> str:
    """The id of the run with this number."""
    return "run_" + number


# --- what a client calls it, in each API's own word --------------------------------------------------


class _Words(msgspec.Struct):
    """Where APIs have it; all else is passed over unread."""

    metadata: Any = None
    prompt_cache_key: Any = None
    user: Any = None


_decoder = msgspec.json.Decoder(_Words)


def session_of(header: str | None, body: bytes) -> str | None:
    """The name of a conversation: X-Session-Id, Anthropic's `metadata.user_id`, OpenAI's `prompt_cache_key` or
    `user`; None where there is none."""
    found: list[Any] = [header]
    if not header:
        try:
            words = content.decode(body, _decoder)
        except BridgeError:
            return None
        metadata = words.metadata if isinstance(words.metadata, dict) else {}
        found += [metadata.get("user_id"), words.prompt_cache_key, words.user]
    return next((each[:MOST_SESSION_CHARACTERS] for each in found if isinstance(each, str) and each), None)
