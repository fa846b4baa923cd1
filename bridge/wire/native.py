"""The bridge's own API: `POST /generate` and `/generate-codex`. Bytes in, types out, and back. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from bridge.errors import Problem
from bridge.registry import PROVIDERS
from bridge.types import (
    NATIVE,
    Answer,
    Finished,
    Image,
    PartDelta,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Usage,
    whole,
)
from bridge.wire import content, conversation, tools, websearch
from bridge.wire.api import KEEP_ALIVE, KEEP_ALIVE_S, Api, Asked, Generation, Known, parts, pieces, sse_event
from bridge.wire.content import invalid
from bridge.wire.conversation import MAX_IMAGES, PlainText, Turns, generation, sampling, too_many_images

#: as the log shows it
API_NAME = NATIVE

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class NativeText(PlainText, tag="text", tag_field="type", forbid_unknown_fields=True):
    """A piece of text, of a message or of an answer; `citations` where the web was searched."""

    citations: list[websearch.UrlCitation] | UnsetType = UNSET


class NativeImage(msgspec.Struct, tag="image", tag_field="type", rename="camel", forbid_unknown_fields=True):
    """An image of a message, base64."""

    media_type: content.MediaType
    data: str

    def part(self, at: str, role: str) -> Image:
        """See WirePart."""
        return content.image(self.data, at)


class NativeToolUse(msgspec.Struct, tag="tool_use", tag_field="type", forbid_unknown_fields=True):
    """A tool call, of an answer or of an earlier one: your program runs the tool, and sends its result with the id."""

    id: str
    name: str
    input: dict[str, Any]

    def part(self, at: str, role: str) -> ToolCall:
        """See WirePart."""
        return conversation.call(self.id, self.name, content.encode(self.input, f"{at}.input"), at)


class NativeToolResult(msgspec.Struct, tag="tool_result", tag_field="type", rename="camel", forbid_unknown_fields=True):
    """What a tool gave for a call of the message before."""

    tool_use_id: str
    content: str | list[NativeText | NativeImage] = ""
    is_error: bool = False

    def part(self, at: str, role: str) -> ToolResult:
        """See WirePart."""
        return conversation.result(self.tool_use_id, self.content, f"{at}.content", is_error=self.is_error)


class NativeTool(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """A function that the model may call, and your program runs; `inputSchema` is a JSON Schema of its input."""

    name: Annotated[str, Meta(extra_json_schema={"pattern": f"^{tools.NAME_PATTERN}$"})]
    description: str = ""
    input_schema: content.Schema | None = None


class NativeToolName(msgspec.Struct, forbid_unknown_fields=True):
    """The tool that must be called."""

    name: str


class NativeTurn(msgspec.Struct, forbid_unknown_fields=True):
    """A turn of the conversation. A system turn adds to the system prompt, wherever it stands."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[NativeText | NativeImage | NativeToolUse | NativeToolResult] | None = None


class NativeSearch(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """A search of the web, and how often it may be made."""

    max_uses: int | None = None


class GenerateBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """The body of a request. docs/api.md describes each field."""

    user_prompt: Annotated[content.Prompt | None, Meta(description="the prompt; or `messages`")] = None
    system_prompt: Annotated[str | None, Meta(description="instructions")] = None
    messages: Annotated[list[NativeTurn] | None, Meta(description="a conversation; the last is from the user")] = None
    images: Annotated[list[content.ImageUrl] | None, Meta(description="data URLs, put before the last text")] = None
    model: Annotated[content.ModelName | None, Meta(description="default: the server's, see `GET /me`")] = None
    max_output_tokens: Annotated[
        Annotated[int, Meta(ge=1)] | None, Meta(description="longest answer; up to the server's limit")
    ] = None
    effort: Annotated[Effort | None, Meta(description="how much to think; default: the model's own")] = None
    timeout_seconds: Annotated[
        Annotated[float, Meta(gt=0)] | None, Meta(description="most time; up to the server's own")
    ] = None
    schema: Annotated[content.Schema | None, Meta(description="a JSON Schema that the answer must fit")] = None
    tools: Annotated[list[NativeTool] | None, Meta(description="functions that the model may call")] = None
    tool_choice: Annotated[
        Literal["auto", "none", "required"] | NativeToolName | None, Meta(description="default: auto")
    ] = None
    temperature: Annotated[conversation.Temperature | None, Meta(description="where the model takes it")] = None
    top_p: Annotated[conversation.TopP | None, Meta(description="where the model takes it")] = None
    top_k: Annotated[conversation.TopK | None, Meta(description="where the model takes it")] = None
    web_search: Annotated[
        bool | NativeSearch | None, Meta(description="whether the model may search the web; for keys that may")
    ] = None
    stop: Annotated[str | list[str] | None, Meta(description="texts at the first of which the answer ends")] = None
    stream: Annotated[bool | None, Meta(description="server-sent events; so does `Accept: text/event-stream`")] = None


_decoder = msgspec.json.Decoder(GenerateBody)


def parse(body: bytes, known: Known) -> Asked:
    """What a body asks for. Raises BridgeError."""
    wire = content.decode(body, _decoder)
    turns = _turns(wire)
    choice = known.resolve("" if wire.model is None else content.model_name(wire.model))
    limit = known.settings.max_output_tokens_limit
    if wire.max_output_tokens is not None and wire.max_output_tokens > limit:
        raise invalid(f"maxOutputTokens must be at most {limit}.")
    if wire.timeout_seconds is not None and wire.timeout_seconds > known.settings.timeout_s:
        raise invalid(f"timeoutSeconds must be at most {known.settings.timeout_s:g}.")
    offered, tool_choice = _tools(wire)
    request = generation(
        known.settings,
        choice,
        turns,
        api=API_NAME,
        max_output_tokens=wire.max_output_tokens,
        timeout_s=wire.timeout_seconds,
        effort=wire.effort,
        schema=wire.schema,
        tools=offered,
        tool_choice=tool_choice,
        sampling=sampling(wire.temperature, wire.top_p, wire.top_k),
        stop=[wire.stop] if isinstance(wire.stop, str) else wire.stop or [],
    )
    if wire.web_search and tool_choice.mode != "none":
        most = None if wire.web_search is True else wire.web_search.max_uses
        request = msgspec.structs.replace(request, web_search=websearch.asked("webSearch", most))
    return Asked(request, render_answer, render_events if wire.stream else None)


def _tools(wire: GenerateBody) -> tuple[tuple[Tool, ...], ToolChoice]:
    """The tools, and which of them may or must be called."""
    own = [
        tools.tool(f"tools[{number}]", each.name, each.description, each.input_schema, None)
        for number, each in enumerate(wire.tools or ())
    ]
    offered, given = tools.offered(own), wire.tool_choice or "auto"
    if isinstance(given, NativeToolName):
        return offered, tools.choice("toolChoice", offered, name=given.name)
    return offered, tools.choice("toolChoice", offered, given)


def _turns(wire: GenerateBody) -> Turns:
    if wire.messages is not None and wire.user_prompt is not None:
        raise invalid("Give userPrompt or messages, not both.")
    if wire.messages is not None and not wire.messages:
        raise invalid("messages is empty.")
    turns = Turns("messages")
    turns.add("system", wire.system_prompt or "", "systemPrompt")
    for number, message in enumerate(wire.messages or ()):
        turns.add(message.role, message.content or "", f"messages[{number}].content")
    if wire.messages is None:
        if wire.user_prompt is None:
            raise invalid("userPrompt is missing.")
        turns.add("user", wire.user_prompt, "userPrompt")
    if wire.images:
        if len(wire.images) > MAX_IMAGES:
            raise too_many_images()
        turns.illustrate([content.image_of_url(url, f"images[{i}]") for i, url in enumerate(wire.images)])
    return turns


# --- answers ----------------------------------------------------------------------------------

#: How often somebody who waits in the queue hears of a new place, in seconds.
QUEUE_NEWS_S = 1.0


class NativeError(msgspec.Struct):
    """An error: one plain sentence, a code for programs, and what to do. 429 adds `limit`, `used`, `resets_at`;
    mismatching answers their `text`."""

    error: str
    code: str
    hint: str
    request_id: str


class Tokens(msgspec.Struct):
    """Tokens of an answer, in the words of the vendor's own API. Anthropic: the three kinds of input add up. OpenAI:
    cached is a part of input, reasoning of output."""

    input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: int | UnsetType = UNSET
    cache_read_input_tokens: int | UnsetType = UNSET
    cached_input_tokens: int | UnsetType = UNSET
    reasoning_output_tokens: int | UnsetType = UNSET
    #: of the web
    searches: int | UnsetType = UNSET

    @classmethod
    def of(cls, provider: str, usage: Usage) -> Tokens:
        """Usage in these words."""
        if PROVIDERS[provider].usage_words == "openai":
            return cls(
                usage.prompt,
                usage.output_tokens,
                cached_input_tokens=usage.cache_read_tokens,
                reasoning_output_tokens=usage.reasoning_tokens,
                searches=usage.searches or UNSET,
            )
        return cls(
            usage.input_tokens,
            usage.output_tokens,
            usage.cache_write_tokens,
            usage.cache_read_tokens,
            searches=usage.searches or UNSET,
        )


class Generated(msgspec.Struct):
    """An answer. Where `stop_reason` is `tool_use`, it ends with calls of tools. `output` with a schema only;
    `usage_assumed` where the CLI was stopped before it said what it used: the figures are the bridge's own."""

    id: str
    model: str
    content: list[NativeText | NativeToolUse]
    stop_reason: str
    usage: Tokens
    cost_usd: float
    duration_ms: int
    usage_assumed: bool | UnsetType = UNSET
    output: Any = UNSET


def render_answer(generation: Generation, finished: Finished) -> dict[str, Any]:
    """The body of a 200, and the data of `event: done`."""
    answer, charge, request = finished.result, finished.charge, generation.request
    assert isinstance(answer, Answer)
    body: dict[str, Any] = msgspec.to_builtins(
        Generated(
            id=generation.id,
            model=answer.model,
            content=_content(answer),
            stop_reason=answer.stop_reason,
            usage=Tokens.of(request.provider, charge.usage),
            cost_usd=charge.cost_micro / 1e6,
            duration_ms=finished.duration_ms,
            usage_assumed=True if charge.assumed else UNSET,
            output=UNSET if request.schema is None else answer.output,
        )
    )
    return body


def _content(answer: Answer) -> list[NativeText | NativeToolUse]:
    """The content of an answer; texts that follow each other are one."""
    found: list[NativeText | NativeToolUse] = []
    for part in parts(answer):
        if isinstance(part, ToolCall):
            found.append(_call(part))
            continue
        last = found[-1] if found else None
        if not isinstance(last, NativeText):
            last = NativeText("")
            found.append(last)
        cited = websearch.citations(part, len(last.text))
        if cited:
            last.citations = [*(last.citations or []), *cited]
        last.text += part.text
    return found or [NativeText(answer.refusal or "")]


def _call(part: ToolCall) -> NativeToolUse:
    return NativeToolUse(part.id, part.name, tools.object_of(part.arguments))


def render_error(problem: Problem, request_id: str) -> dict[str, Any]:
    """The body of an error, and the data of `event: error`."""
    return {
        "error": problem.message,
        "code": problem.code,
        "hint": problem.hint,
        "request_id": request_id,
        **{name: fact for name, fact in problem.facts.items() if name != "param"},
    }


def render_events(generation: Generation, request_id: str) -> Iterator[bytes]:
    """`start`, `queued` with each new place while it waits, `delta` for pieces of text, `tool_use` for each whole call,
    and at the end `done` or `error`."""
    yield sse_event("start", {"id": generation.id, "model": generation.request.model})
    told, silent_s = 0, 0.0
    if position := generation.queue_position:
        told = position
        yield sse_event("queued", {"position": position})
    beat_s = QUEUE_NEWS_S if told else KEEP_ALIVE_S
    calls: list[PartDelta] = []
    for delta in pieces(generation, beat_s):
        silent_s = 0.0 if delta is not None else silent_s + beat_s
        position = generation.queue_position
        if delta is not None:
            if calls and calls[0].index != delta.index:
                yield _told(calls)
                calls = []
            if isinstance(delta.part, Text) and delta.part.text:
                yield sse_event("delta", {"text": delta.part.text})
            elif isinstance(delta.part, ToolCall):
                calls.append(delta)
        elif position and position != told:
            told, silent_s = position, 0.0
            yield sse_event("queued", {"position": position})
        elif silent_s >= KEEP_ALIVE_S:
            silent_s = 0.0
            yield KEEP_ALIVE
    finished = generation.wait()
    assert finished is not None
    if isinstance(finished.result, Problem):
        # What was cut off in the middle of a call is no call.
        yield sse_event("error", render_error(finished.result, request_id))
    else:
        if calls:
            yield _told(calls)
        yield sse_event("done", render_answer(generation, finished))


def _told(pieces: list[PartDelta]) -> bytes:
    """The event of a whole call."""
    (part,) = whole(pieces)
    assert isinstance(part, ToolCall)
    return sse_event("tool_use", _call(part))


API = Api(
    name=API_NAME,
    text="Generate with {provider}.",
    paths={row.path: name for name, row in PROVIDERS.items()},
    sdk=False,
    parse=parse,
    answer=render_answer,
    error=render_error,
    events=render_events,
    body_type=GenerateBody,
    answer_type=Generated,
    error_type=NativeError,
    example={"userPrompt": "Hello", "systemPrompt": "Answer in one sentence."},
)
