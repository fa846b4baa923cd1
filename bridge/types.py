"""The values that flow between the layers. Frozen, plain, and without I/O.

Units: money is integer micro-dollars (`_micro`), durations carry `_s`, times are UTC seconds.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from msgspec.structs import astuple, replace

from bridge.errors import Problem

#: Takes down what was said in a run: who, to whom, what. Must not raise or wait.
Tap = Callable[[str, str, bytes], None]

#: `GenerationRequest.api` of the bridge's own API, and of Anthropic's
NATIVE, ANTHROPIC = "native", "anthropic"
#: What a refusal says where neither the model nor its provider gave words.
DECLINED = "The model declined to answer."

#: What a name of a model may look like; it is data for the CLIs, never a flag or a path.
MODEL_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._:/\[\]-]{0,99}"

#: The end of a model's name that asks the claude CLI for a long context; the provider never sees it.
LONG_CONTEXT = "[1m]"


class Tool(msgspec.Struct, frozen=True):
    """A function that the client offers to the model, and runs itself. `schema` is the JSON Schema of its arguments as
    the client wrote it; `strict` None where the client said nothing of it. `vendor`: the fields by which the API of the
    model knows a tool of its own kind, in the place of a schema."""

    name: str
    description: str = ""
    schema: dict[str, Any] = {}
    strict: bool | None = None
    vendor: dict[str, Any] = {}


class ToolChoice(msgspec.Struct, frozen=True):
    """Whether the model may, must not, or must call a tool; `name` is the one that it must call ("required")."""

    mode: Literal["auto", "none", "required"] = "auto"
    name: str | None = None
    #: whether one answer may have several calls
    parallel: bool = True


class Sampling(msgspec.Struct, frozen=True):
    """How the model picks its words; None for what the model does by itself."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None


class Thinking(msgspec.Struct, frozen=True):
    """Whether the model thinks before it answers, in the words of Anthropic's Messages API; `budget` is the most
    tokens of it ("enabled")."""

    mode: Literal["enabled", "adaptive", "between_tools", "disabled"]
    budget: int | None = None
    #: in which words it is shown; None for what the API does by itself
    display: str | None = None


class WebSearch(msgspec.Struct, frozen=True):
    """That the model may search the web, which its provider does for it: so often at most, and how."""

    most: int
    #: the only ones that are searched, and those that are not
    domains: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()
    #: where the user about is: city, region, country, timezone
    place: dict[str, str] = {}
    #: how much of what is found the model reads: low, medium or high; None for what it does by itself
    context: str | None = None


class Citation(msgspec.Struct, frozen=True):
    """What a text cites. `start` and `end` are characters of the text, 0 and None for all of it; `quote` are words of
    the source, and `mark` is for its provider alone."""

    url: str
    title: str
    start: int = 0
    end: int | None = None
    quote: str = ""
    mark: str = ""


class Text(msgspec.Struct, frozen=True, tag="text", omit_defaults=True):
    """A text, or a piece of one; with what it cites."""

    text: str
    citations: tuple[Citation, ...] = ()


class Found(msgspec.Struct, frozen=True):
    """One result of a search; `content` is for its provider alone."""

    url: str
    title: str
    age: str | None = None
    content: str = ""


class Search(msgspec.Struct, frozen=True, tag="search"):
    """A search of the web that the model has made, and what was found; `error` says why nothing was, in the words of
    the provider."""

    id: str
    query: str
    found: tuple[Found, ...] = ()
    error: str | None = None


class Image(msgspec.Struct, frozen=True, tag="image"):
    """An image: `data` is base64, `media_type` one of png, jpeg, gif, webp; `pixels` by its header. Or a link to one,
    which nobody but its provider follows: then it has nothing but a `url`, with https."""

    media_type: str = ""
    data: str = ""
    pixels: int = 0
    url: str = ""

    @property
    def address(self) -> str:
        """Where it is: its link, or a data URL."""
        return self.url or f"data:{self.media_type};base64,{self.data}"


class ToolCall(msgspec.Struct, frozen=True, tag="tool_call"):
    """What the model wants a tool to do; `arguments` is JSON as the model wrote it, or a piece of that."""

    id: str
    name: str
    arguments: str


class ToolResult(msgspec.Struct, frozen=True, tag="tool_result"):
    """What the tool of an earlier call gave."""

    tool_call_id: str
    content: tuple[Text | Image, ...]
    is_error: bool = False


class Thought(msgspec.Struct, frozen=True, tag="thought"):
    """What the model thought, or a piece of that. `signature`, at its end, and `redacted`, which stands in the place of
    words that nobody may read, are for its provider alone, which knows the thought again by them."""

    text: str = ""
    signature: str = ""
    redacted: str = ""


#: What messages and answers are made of.
Part = Text | Image | ToolCall | ToolResult | Thought | Search


def words(part: Part) -> str:
    """All that a part says in words: the text of a text or a thought, name and arguments of a tool call; nothing for
    an image."""
    match part:
        case Text() | Thought():
            return part.text
        case ToolCall(_, name, arguments):
            return f"{name} {arguments}"
        case ToolResult(_, content):
            return "\n\n".join(filter(None, map(words, content)))
    return ""


def content_of(text: str) -> tuple[Part, ...]:
    """The parts of an answer that is one text; none for an empty one."""
    return (Text(text),) if text else ()


class PartDelta(msgspec.Struct, frozen=True):
    """A further piece of an answer: of its part number `index`, from 0. The texts of its pieces add up, and so do the
    arguments of a tool call, whose every piece has the id and the name; and all of a thought."""

    index: int
    part: Part


def joined(deltas: Iterable[PartDelta]) -> Iterator[PartDelta]:
    """Pieces that follow each other in the same part, as one."""
    for index, group in itertools.groupby(deltas, lambda delta: delta.index):
        parts = [delta.part for delta in group]
        match parts[0]:
            case Text():
                texts = [part for part in parts if isinstance(part, Text)]
                cited = tuple(citation for part in texts for citation in part.citations)
                yield PartDelta(index, Text("".join(part.text for part in texts), cited))
            case ToolCall(id, name, _):
                pieces = (part.arguments for part in parts if isinstance(part, ToolCall))
                yield PartDelta(index, ToolCall(id, name, "".join(pieces)))
            case Thought():
                thoughts = [astuple(part) for part in parts if isinstance(part, Thought)]
                yield PartDelta(index, Thought(*map("".join, zip(*thoughts, strict=True))))
            case part:
                yield PartDelta(index, part)


def whole(deltas: Iterable[PartDelta]) -> tuple[Part, ...]:
    """The parts that all pieces of an answer add up to."""
    return tuple(delta.part for delta in joined(sorted(deltas, key=lambda delta: delta.index)))


class ModelChoice(msgspec.Struct, frozen=True):
    """The model that a name stands for. `alias` is that name where it is one of the operator's own."""

    provider: str
    model: str
    alias: str | None = None


class Message(msgspec.Struct, frozen=True):
    """One turn of a conversation."""

    role: Literal["user", "assistant"]
    content: tuple[Part, ...]

    @property
    def text(self) -> str:
        """What its parts say in words, joined by blank lines."""
        return "\n\n".join(words(part) for part in self.content if not isinstance(part, Image))

    @property
    def images(self) -> list[Image]:
        """Its images, also those that a tool gave."""
        found: list[Image] = []
        for part in self.content:
            if isinstance(part, Image):
                found.append(part)
            elif isinstance(part, ToolResult):
                found += [each for each in part.content if isinstance(each, Image)]
        return found


class GenerationRequest(msgspec.Struct, frozen=True, dict=True):
    """What is to be generated, whatever API it came by. The last message is from the user."""

    provider: str
    model: str
    messages: tuple[Message, ...]
    system: str = ""
    max_output_tokens: int = 8192
    timeout_s: float = 300.0
    effort: str | None = None
    schema: dict[str, Any] | None = None
    api: str = NATIVE
    #: the operator's name for the model, where it was asked for by that
    alias: str | None = None
    #: texts at the first of which the answer ends, without it
    stop: tuple[str, ...] = ()
    #: how many words to make: low, medium or high; None for what the model does by itself
    verbosity: str | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    sampling: Sampling = Sampling()
    #: None where nobody said; `effort` may say more then
    thinking: Thinking | None = None
    #: how what the model thinks is shown, in the words of its API; None for not at all
    thoughts: str | None = None
    web_search: WebSearch | None = None
    #: whether later requests of its key may refer to the answer instead of sending it
    referable: bool = False
    #: names of what the body asked for and nobody heeds; for X-Bridge-Ignored
    ignored: tuple[str, ...] = ()
    #: so many of the first messages stood before what was last said for the system prompt
    before_system: int = 0
    #: what its client calls the conversation that it belongs to
    session: str | None = None
    #: X-Request-Id of the HTTP answer, by which the admin finds it
    request_id: str | None = None

    @functools.cached_property
    def images(self) -> list[Image]:
        """The images of all its messages."""
        return [image for message in self.messages for image in message.images]

    @property
    def linked(self) -> bool:
        """Whether any of its images is a link."""
        return any(image.url for image in self.images)

    @property
    def pixels(self) -> int:
        """The pixels of all its images."""
        return sum([image.pixels for image in self.images])

    @functools.cached_property
    def size(self) -> int:
        """About how many bytes its prompts take. A picture is more than its file once it is decoded: a quarter of a
        byte for each pixel counts at least."""
        images = sum([max(len(image.data or image.url), image.pixels // 4) for image in self.images])
        return len(self.system) + self.tools_size + images + sum([len(message.text) for message in self.messages])

    @functools.cached_property
    def tools_size(self) -> int:
        """How many bytes its tools take as JSON, with what its search of the web is told; 0 for none."""
        given = [each for each in (self.tools, self.web_search) if each]
        return sum(len(msgspec.json.encode(each)) for each in given)


def without_prompts(request: GenerationRequest) -> GenerationRequest:
    """What rendering an answer needs of a request; its schema and its tools are told to the client again."""
    return msgspec.structs.replace(request, messages=(), system="")


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one run by kind, disjoint but for reasoning, which is part of output; and its searches.

    claude reports input without cache; codex reports cached as a part of input. Both are
    brought to this form, so that `total` means the same for every provider.
    """

    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    #: searches of the web, which cost money besides
    searches: int = 0

    @property
    def total(self) -> int:
        """Everything that counts against a token limit."""
        return self.input_tokens + self.cache_read_tokens + self.cache_write_tokens + self.output_tokens

    @property
    def prompt(self) -> int:
        """Everything on the input side."""
        return self.input_tokens + self.cache_read_tokens + self.cache_write_tokens

    def plus(self, other: Usage) -> Usage:
        """Both together."""
        return Usage(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


class Charge(msgspec.Struct, frozen=True):
    """What a run cost. `assumed` where the CLI never said, so that the figure is the bridge's own."""

    usage: Usage
    cost_micro: int
    assumed: bool = False

    def plus(self, other: Charge) -> Charge:
        """Both together."""
        return Charge(self.usage.plus(other.usage), self.cost_micro + other.cost_micro, self.assumed or other.assumed)


class Answer(msgspec.Struct, frozen=True, tag="answer"):
    """A finished generation. `usage` None: not known."""

    content: tuple[Part, ...]
    model: str
    stop_reason: str
    usage: Usage | None
    output: Any = None
    #: which of the request's `stop` ended it, where `stop_reason` is "stop_sequence"
    stop_sequence: str | None = None
    #: what was said instead, where `stop_reason` is "refusal"; `text` is what the model had written before it
    refusal: str | None = None

    @property
    def text(self) -> str:
        """Its texts, joined."""
        return "".join(part.text for part in self.content if isinstance(part, Text))

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """Its calls of tools."""
        return tuple(part for part in self.content if isinstance(part, ToolCall))

    @property
    def thoughts(self) -> tuple[Thought, ...]:
        """What the model thought, as far as that is shown."""
        return tuple(part for part in self.content if isinstance(part, Thought))

    def deltas(self) -> list[PartDelta]:
        """The whole answer as pieces, one for each part."""
        return [PartDelta(index, part) for index, part in enumerate(self.content)]


class Finished(msgspec.Struct, frozen=True):
    """How a run ended: an answer or an error, and what it cost. `result` is what the client gets."""

    result: Answer | Problem
    charge: Charge
    duration_ms: int


# --- events of a provider, in the order in which they come -------------------------------------


class Submitted(msgspec.Struct, frozen=True):
    """The CLI has been handed the prompt: from here on a failure may have cost money.

    `warm`: its process stood ready, and was not started for this prompt.
    """

    warm: bool = True


class Activity(msgspec.Struct, frozen=True):
    """A sign of life without text: thinking, or usage that is known so far."""

    usage: Usage | None = None


class Completed(msgspec.Struct, frozen=True):
    """The end of a generation that worked."""

    answer: Answer


class Failed(msgspec.Struct, frozen=True):
    """The end of one that did not. `usage` where it is known what was used all the same."""

    problem: Problem
    usage: Usage | None = None


Event = Submitted | PartDelta | Activity | Completed | Failed


class Receipt(msgspec.Struct, frozen=True):
    """What a provider said of a call besides its answer. `status`, `message` (its own words, bounded, secrets masked)
    and `request_id` are for the admin; `model_ms` is the time from the request to the last byte."""

    status: int | None = None
    message: str | None = None
    request_id: str | None = None
    model_ms: int = 0

    def after(self, earlier: Receipt | None) -> Receipt:
        """What stands in the log after both calls: the words of the last one, and the time of all."""
        return self if earlier is None else replace(self, model_ms=self.model_ms + earlier.model_ms)


#: Figures as they may stand in the log: a line that says less than nothing, or more than there is, is damaged.
Tokens = Annotated[int, Meta(ge=0, le=10**15)]
Dollars = Annotated[float, Meta(ge=0, le=10**9)]


class RunRecord(msgspec.Struct, frozen=True, rename="camel", omit_defaults=False):
    """One line of the request log: one run, whatever came of it."""

    id: str
    timestamp: str
    key_name: str
    provider: str
    model: str
    api: str
    status: int
    code: str | None
    error: str | None
    stream: bool = False
    input_tokens: Tokens = 0
    output_tokens: Tokens = 0
    cache_read_tokens: Tokens = 0
    cache_write_tokens: Tokens = 0
    reasoning_tokens: Tokens = 0
    searches: Tokens = 0
    cost_usd: Dollars = 0.0
    reserved_usd: Dollars = 0.0
    assumed: bool = False
    duration_ms: int = 0
    queued_ms: int = 0
    first_token_ms: int | None = None
    warm: bool | None = None
    stop_reason: str | None = None
    system_prompt: str | None = None
    user_prompt: str | None = None
    #: the tools that the answer calls, by name: "get_weather, now ×2"
    calls: str | None = None
    #: further attempts after an answer that missed its schema
    repairs: int = 0
    #: the name that was asked for, where it stands for `model`; None where they are the same
    alias: str | None = None
    #: refused requests that this line stands for
    times: int = 1
    #: X-Request-Id of the answer; None for a run that ended with the server
    request_id: str | None = None
    #: what the provider said, and the time that it took; None where the gate saw no call
    upstream_status: int | None = None
    upstream_message: str | None = None
    upstream_request_id: str | None = None
    model_ms: int | None = None
    #: what CLI and bridge added to the time of the model; waiting for a slot is not in it
    overhead_ms: int | None = None
    #: the name of the credential that it used; for the admin only
    credential: str | None = None
    #: those that were tried before, each with what the provider said
    tried: str | None = None
    #: what its error said to do next
    hint: str | None = None

    @property
    def usage(self) -> Usage:
        """Its tokens by kind."""
        return Usage(*_counted(self))


_counted = operator.attrgetter(*Usage.__struct_fields__)
