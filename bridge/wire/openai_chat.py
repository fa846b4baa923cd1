"""OpenAI's chat completions: `POST /v1/chat/completions`. Bytes in, types out, and back. Pure.

The order of the chunks: one with the role, those with the text, for each tool call one with its id and name and those
with its arguments, of a refusal one with its words, one with the finish reason, with `include_usage` one with the
usage, then `[DONE]`. An error in the middle takes the place of all the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from bridge.errors import Problem
from bridge.types import Answer, Finished, Image, Text, Tool, ToolCall, ToolChoice, WebSearch
from bridge.wire import content, conversation, tools, websearch
from bridge.wire.api import KEEP_ALIVE_S, Api, Asked, Generation, Known, keep_alive, parts, pieces, sse_data
from bridge.wire.content import invalid
from bridge.wire.conversation import ANY_OBJECT, PlainText, Turns, Verbosity, generation, run_number, sampling
from bridge.wire.openai import (
    ChatUsage,
    FinishReason,
    ImageUrl,
    JsonObjectFormat,
    NamedSchema,
    OpenAIEffort,
    OpenAIErrorBody,
    RefusalPart,
    TextFormat,
    finish_reason,
    render_error,
)
from bridge.wire.parameters import (
    CACHED,
    SAMPLED,
    SAMPLING,
    ignored,
    passed_over,
    read,
    refused,
    supported,
    table,
)

#: as the log shows it
API_NAME = "openai-chat"

_NOT_KEPT = "nothing is kept to be fetched later"

PARAMETERS = table(
    supported("messages", "system, developer, user, assistant, tool, function; text, images (data URL, https)"),
    supported("model", "its name picks the CLI; aliases work"),
    supported("max_completion_tokens", "more than the bridge allows counts as what it allows"),
    supported("max_tokens", "the same, older name"),
    supported("reasoning_effort", "none for no thinking; a model may know fewer steps"),
    supported("response_format", "text, json_object, json_schema; any JSON Schema, strict or not"),
    supported("stop", "a text or a list; passed over where the answer must be JSON"),
    supported("stream", "server-sent events"),
    supported("stream_options", "include_usage"),
    supported("temperature", SAMPLED),
    supported("tool_choice", "auto, none, required, one function, allowed_tools"),
    supported("tools", "functions, which the client runs; see Tools below"),
    supported("parallel_tool_calls", "false: at most one call in an answer"),
    supported("functions", "the older form of tools"),
    supported("function_call", "the older form of tool_choice"),
    supported("top_p", SAMPLED),
    supported("verbosity", "low, medium, high; claude passes it over"),
    refused("audio", "the CLIs have no audio"),
    passed_over("frequency_penalty", SAMPLING, 0),
    passed_over("logit_bias", SAMPLING, {}),
    passed_over("logprobs", "the CLIs do not tell them", False),
    ignored("metadata", "not kept"),
    refused("modalities", "only text", ["text"]),
    refused("moderation", "there is none here"),
    refused("n", "one answer for each request; only 1 is taken", 1),
    ignored("prediction", "the answer is the same, not quicker"),
    passed_over("presence_penalty", SAMPLING, 0),
    ignored("prompt_cache_key", CACHED),
    ignored("prompt_cache_options", CACHED),
    ignored("prompt_cache_retention", CACHED),
    ignored("safety_identifier", "the key says who asks"),
    passed_over("seed", "it never promised the same answer; here it does nothing"),
    refused("service_tier", "only the ordinary one", "auto", "default"),
    ignored("store", _NOT_KEPT),
    passed_over("top_logprobs", "the CLIs do not tell them", 0),
    ignored("user", "the key says who asks"),
    supported("web_search_options", "a search of the web, for keys that may; user_location, search_context_size"),
)


class ChatText(PlainText, tag="text", tag_field="type"):
    """A piece of text of a message."""


class ChatImage(msgspec.Struct, tag="image_url", tag_field="type"):
    """An image of a user's message."""

    image_url: ImageUrl | str

    def part(self, at: str, role: str) -> Image:
        """See WirePart."""
        if isinstance(self.image_url, str):
            return content.image_at(self.image_url, f"{at}.image_url")
        return content.image_at(self.image_url.url, f"{at}.image_url.url")


class ChatFunction(msgspec.Struct):
    """The function of a tool call; `arguments` is JSON."""

    name: str
    arguments: str = ""


class ChatToolCall(msgspec.Struct):
    """A tool call of an earlier answer."""

    function: ChatFunction
    id: str = ""

    def call(self, at: str) -> ToolCall:
        """What it is to a model."""
        return conversation.call(self.id, self.function.name, self.function.arguments, f"{at}.function")


class ChatMessage(msgspec.Struct):
    """A turn of the conversation, or the result of a tool. `name` is not passed on."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ChatText | ChatImage | RefusalPart] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[ChatToolCall] | None = None
    tool_call_id: str | None = None
    function_call: ChatFunction | None = None


class ChatFunctionOffer(msgspec.Struct):
    """A function that the model may call; `parameters` is a JSON Schema."""

    name: str
    description: str | None = None
    parameters: content.Schema | None = None
    strict: bool | None = None

    def tool(self, at: str) -> Tool:
        """What it is to a model."""
        return tools.tool(at, self.name, self.description, self.parameters, self.strict)


class ChatTool(msgspec.Struct):
    """A tool that the model may call, and the client runs."""

    type: str = "function"
    function: ChatFunctionOffer | None = None


class ChatToolName(msgspec.Struct):
    """One tool by its name."""

    name: str


class ChatNamedTool(msgspec.Struct):
    """One tool, as a choice names it."""

    function: ChatToolName


class ChatAllowedTools(msgspec.Struct):
    """The tools that may be called, of all that are offered."""

    mode: Literal["auto", "required"]
    tools: list[ChatNamedTool]


class ChatToolChoice(msgspec.Struct):
    """The tool that must be called, or those that may be."""

    function: ChatToolName | None = None
    allowed_tools: ChatAllowedTools | None = None


class ChatSchemaFormat(msgspec.Struct, tag="json_schema", tag_field="type"):
    """JSON that fits a schema."""

    json_schema: NamedSchema


class StreamOptions(msgspec.Struct):
    """`include_usage`: a last chunk with the usage."""

    include_usage: bool | None = None


class SearchOptions(msgspec.Struct):
    """That the model may search the web."""

    search_context_size: Literal["low", "medium", "high"] | None = None
    user_location: dict[str, Any] | None = None

    def search(self) -> WebSearch:
        """The search of the web that it stands for."""
        place = (self.user_location or {}).get("approximate")
        given = place if isinstance(place, dict) else None
        return websearch.asked("web_search_options", None, place=given, context=self.search_context_size)


class ChatBody(msgspec.Struct):
    """The body of a request, as far as it is passed on."""

    model: content.ModelName
    messages: list[ChatMessage]
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    reasoning_effort: OpenAIEffort | None = None
    response_format: TextFormat | JsonObjectFormat | ChatSchemaFormat | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    verbosity: Verbosity | None = None
    temperature: conversation.Temperature | None = None
    top_p: conversation.TopP | None = None
    tools: list[ChatTool] | None = None
    tool_choice: Literal["auto", "none", "required"] | ChatToolChoice | None = None
    parallel_tool_calls: bool | None = None
    functions: list[ChatFunctionOffer] | None = None
    function_call: Literal["auto", "none"] | ChatToolName | None = None
    web_search_options: SearchOptions | None = None


def parse(body: bytes, known: Known) -> Asked:
    """What a body asks for. Raises BridgeError."""
    wire, ignored = read(body, PARAMETERS, ChatBody)
    stop = [wire.stop] if isinstance(wire.stop, str) else wire.stop or []
    offered, choice = _tools(wire, ignored)
    request = generation(
        known.settings,
        known.resolve(content.model_name(wire.model)),
        _turns(wire.messages),
        api=API_NAME,
        max_output_tokens=wire.max_completion_tokens or wire.max_tokens,
        effort=wire.reasoning_effort,
        schema=_schema(wire),
        stop=stop,
        verbosity=wire.verbosity,
        tools=offered,
        tool_choice=choice,
        sampling=sampling(wire.temperature, wire.top_p),
        ignored=ignored,
    )
    if wire.web_search_options is not None and choice.mode != "none":
        request = msgspec.structs.replace(request, web_search=wire.web_search_options.search())
    older = bool(wire.functions and not wire.tools)
    with_usage = bool(wire.stream_options and wire.stream_options.include_usage)
    events = partial(render_events, with_usage=with_usage, older=older) if wire.stream else None
    return Asked(request, partial(render_answer, older=older), events)


def _tools(wire: ChatBody, ignored: list[str]) -> tuple[tuple[Tool, ...], ToolChoice]:
    """The tools, and which of them may or must be called."""
    if wire.functions and not wire.tools:
        offered = tools.offered([each.tool(f"functions[{number}]") for number, each in enumerate(wire.functions)])
        older = wire.function_call or "auto"
        # A program that knows only these knows of one call in an answer.
        if isinstance(older, ChatToolName):
            return offered, tools.choice("function_call", offered, name=older.name, parallel=False)
        return offered, tools.choice("function_call", offered, older, parallel=False)
    own, others = [], []
    for number, each in enumerate(wire.tools or ()):
        at = f"tools[{number}]"
        if each.function is not None:
            own.append(each.function.tool(f"{at}.function"))
        elif each.type == "function":
            raise invalid(f"{at}.function is missing.", "tools")
        else:
            others.append((at, each.type))
    tools.pass_over(others, own, ignored)
    offered, given = tools.offered(own), wire.tool_choice or "auto"
    parallel = wire.parallel_tool_calls is not False
    if not isinstance(given, ChatToolChoice):
        return offered, tools.choice("tool_choice", offered, given, parallel=parallel)
    if given.allowed_tools is not None:
        offered = tools.allowed("tool_choice", offered, [each.function.name for each in given.allowed_tools.tools])
        return offered, tools.choice("tool_choice", offered, given.allowed_tools.mode, parallel=parallel)
    if given.function is None:
        raise invalid("tool_choice names no function.", "tool_choice")
    return offered, tools.choice("tool_choice", offered, name=given.function.name, parallel=parallel)


def _schema(wire: ChatBody) -> dict[str, Any] | None:
    if isinstance(wire.response_format, JsonObjectFormat):
        return ANY_OBJECT
    if isinstance(wire.response_format, ChatSchemaFormat):
        return wire.response_format.json_schema.schema or ANY_OBJECT
    return None


#: The id of calls in the older form, which has none.
_OLDER_ID = "function_call"


def _turns(messages: list[ChatMessage]) -> Turns:
    turns = Turns("messages", goes_on=True)
    for number, message in enumerate(messages):
        at, said = f"messages[{number}]", message.content
        if message.role in ("tool", "function"):
            call_id = _OLDER_ID if message.role == "function" else message.tool_call_id or ""
            turns.answer_call(call_id, said or "", f"{at}.content")
            continue
        calls = [each.call(f"{at}.tool_calls[{i}]") for i, each in enumerate(message.tool_calls or ())]
        if message.function_call is not None and not calls:
            older = message.function_call
            calls = [conversation.call(_OLDER_ID, older.name, older.arguments, f"{at}.function_call")]
        turns.add(message.role, said if said is not None else message.refusal or "", f"{at}.content", calls)
    return turns


# --- answers ----------------------------------------------------------------------------------

_DONE = b"data: [DONE]\n\n"


class CalledFunction(msgspec.Struct):
    """A call of a function; its id goes with the result."""

    id: str
    function: ChatFunction
    type: Literal["function"] = "function"


class ChatCited(msgspec.Struct):
    """A source of the text, from a character of it to another."""

    start_index: int
    end_index: int
    url: str
    title: str


class ChatCitation(msgspec.Struct, tag="url_citation", tag_field="type"):
    """What the text cites, where the web was searched."""

    url_citation: ChatCited


class AnswerMessage(msgspec.Struct):
    """What the model said. `content` is null where it said nothing but its `refusal`, or calls tools without a word."""

    content: str | None
    role: Literal["assistant"] = "assistant"
    refusal: str | None = None
    annotations: list[ChatCitation] = []
    tool_calls: list[CalledFunction] | UnsetType = UNSET
    function_call: ChatFunction | UnsetType = UNSET


class Choice(msgspec.Struct):
    """The one answer."""

    message: AnswerMessage
    finish_reason: FinishReason
    index: int = 0
    logprobs: None = None


class ChatCompletion(msgspec.Struct):
    """The body of an answer. `id` ends like the run's id in the request log; `created` is in UTC seconds."""

    id: str
    created: int
    model: str
    choices: list[Choice]
    usage: ChatUsage
    object: Literal["chat.completion"] = "chat.completion"
    service_tier: Literal["default"] = "default"
    system_fingerprint: None = None


class FunctionPiece(msgspec.Struct, omit_defaults=True):
    """A piece of a function's call: its name, or more of its arguments."""

    name: str | None = None
    arguments: str | None = None


class ToolCallPiece(msgspec.Struct, omit_defaults=True):
    """A piece of the call number `index`; `id` and `type` come with the first."""

    index: int
    function: FunctionPiece
    id: str | None = None
    type: Literal["function"] | None = None


class Delta(msgspec.Struct, omit_defaults=True):
    """A further piece of the answer."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    refusal: str | None = None
    annotations: list[ChatCitation] | None = None
    tool_calls: list[ToolCallPiece] | None = None
    function_call: FunctionPiece | None = None


class ChunkChoice(msgspec.Struct):
    """A further piece of the one answer, or its end."""

    delta: Delta
    finish_reason: FinishReason | None = None
    index: int = 0
    logprobs: None = None


class Chunk(msgspec.Struct):
    """An event of a stream. `usage` only where it was asked for: null until the last chunk."""

    id: str
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: ChatUsage | UnsetType | None = UNSET
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    service_tier: Literal["default"] = "default"
    system_fingerprint: None = None


def render_answer(generation: Generation, finished: Finished, *, older: bool = False) -> dict[str, Any]:
    """The body of a 200; with `older`, a call is told as `function_call`."""
    answer = finished.result
    assert isinstance(answer, Answer)
    calls = [part for part in parts(answer) if isinstance(part, ToolCall)]
    bare = answer.refusal is not None or bool(calls)
    text = answer.text or None if bare else answer.text
    message = AnswerMessage(text, refusal=answer.refusal, annotations=_cited(answer))
    if calls and older:
        message.function_call = ChatFunction(calls[0].name, calls[0].arguments)
    elif calls:
        message.tool_calls = [CalledFunction(each.id, ChatFunction(each.name, each.arguments)) for each in calls]
    body: dict[str, Any] = msgspec.to_builtins(
        ChatCompletion(
            id=_id(generation),
            created=int(generation.started_at),
            model=answer.model,
            choices=[Choice(message, _reason(answer, older))],
            usage=ChatUsage.of(finished.charge.usage),
        )
    )
    return body


def _cited(answer: Answer) -> list[ChatCitation]:
    found = websearch.all_citations(answer.content)
    return [ChatCitation(ChatCited(each.start_index, each.end_index, each.url, each.title)) for each in found]


def _reason(answer: Answer, older: bool) -> FinishReason:
    reason = finish_reason(answer.stop_reason)
    return "function_call" if older and reason == "tool_calls" else reason


def render_events(
    generation: Generation, request_id: str, *, with_usage: bool = False, older: bool = False
) -> Iterator[bytes]:
    """The chunks, in the order that is said above."""
    frame = Chunk(
        _id(generation), int(generation.started_at), generation.request.model, [], None if with_usage else UNSET
    )

    def chunk(delta: Delta, reason: FinishReason | None = None) -> bytes:
        return sse_data(msgspec.structs.replace(frame, choices=[ChunkChoice(delta, reason)]))

    yield chunk(Delta("assistant", ""))
    calls = _CallPieces(older)
    for delta in pieces(generation, KEEP_ALIVE_S):
        if delta is None:
            yield keep_alive(generation.queue_position)
        elif isinstance(delta.part, Text) and delta.part.text:
            yield chunk(Delta(content=delta.part.text))
        elif isinstance(delta.part, ToolCall):
            for piece in calls.of(delta.index, delta.part):
                yield chunk(piece)
    finished = generation.wait()
    assert finished is not None
    if isinstance(finished.result, Problem):
        yield sse_data(render_error(finished.result, request_id))
        return
    if finished.result.refusal is not None:
        yield chunk(Delta(refusal=finished.result.refusal))
    if cited := _cited(finished.result):
        yield chunk(Delta(annotations=cited))
    yield chunk(Delta(), _reason(finished.result, older))
    if with_usage:
        yield sse_data(msgspec.structs.replace(frame, usage=ChatUsage.of(finished.charge.usage)))
    yield _DONE


class _CallPieces:
    """Tells the calls of a stream in pieces."""

    def __init__(self, older: bool) -> None:
        self._older = older
        #: part of the answer -> number of the call
        self._numbers: dict[int, int] = {}

    def of(self, index: int, call: ToolCall) -> Iterator[Delta]:
        """The next piece of the call that is the part `index` of the answer; the first with its name before it."""
        first = index not in self._numbers
        number = self._numbers.setdefault(index, len(self._numbers))
        if self._older and number:
            return
        if first:
            named = FunctionPiece(call.name, "")
            yield (
                Delta(function_call=named)
                if self._older
                else Delta(tool_calls=[ToolCallPiece(number, named, call.id, "function")])
            )
        if call.arguments:
            more = FunctionPiece(arguments=call.arguments)
            yield Delta(function_call=more) if self._older else Delta(tool_calls=[ToolCallPiece(number, more)])


def _id(generation: Generation) -> str:
    return "chatcmpl-" + run_number(generation.id)


API = Api(
    name=API_NAME,
    text="OpenAI's chat completions.",
    paths={"/v1/chat/completions": None},
    parse=parse,
    answer=render_answer,
    error=render_error,
    events=render_events,
    parameters=PARAMETERS,
    body_type=ChatBody,
    answer_type=ChatCompletion,
    error_type=OpenAIErrorBody,
    example={"model": "gpt-6-sol", "messages": [{"role": "user", "content": "Hello"}]},
)
