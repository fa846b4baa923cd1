"""OpenAI's Responses API: `POST /v1/responses` and `/v1/responses/input_tokens`. Bytes in, types out, and back. Pure.

The order of the events: response.created, in_progress, for each item of the answer output_item.added, its pieces,
output_item.done, and then completed or incomplete; or failed at any point after the second. The pieces of a message:
content_part.added, output_text.delta (often), output_text.done, content_part.done, and for a refusal one more content
part, with refusal.delta and refusal.done. Those of reasoning: reasoning_summary_part.added,
reasoning_summary_text.delta (often) and .done, reasoning_summary_part.done. Those of a call:
function_call_arguments.delta (often) and .done, or custom_tool_call_input.delta and .done. Each has the next
sequence_number.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from bridge.errors import Problem
from bridge.types import (
    Answer,
    Finished,
    Image,
    Part,
    PartDelta,
    Search,
    Text,
    Thought,
    Tool,
    ToolCall,
    ToolChoice,
    WebSearch,
    whole,
)
from bridge.wire import content, conversation, tools, websearch
from bridge.wire.api import (
    KEEP_ALIVE_S,
    Api,
    Asked,
    Count,
    Generation,
    Known,
    Recall,
    all_parts,
    keep_alive,
    pieces,
    sse_event,
)
from bridge.wire.content import invalid
from bridge.wire.conversation import (
    ANY_OBJECT,
    PlainText,
    Turns,
    Verbosity,
    generation,
    id_of_run,
    run_number,
    sampling,
)
from bridge.wire.openai import (
    ImageUrl,
    JsonObjectFormat,
    NamedSchema,
    OpenAIEffort,
    OpenAIErrorBody,
    RefusalPart,
    ResponseUsage,
    TextFormat,
    error_type,
    finish_reason,
    json_format,
    render_error,
)
from bridge.wire.parameters import CACHED, SAMPLED, SAMPLING, ignored, passed_over, read, refused, supported, table

#: as the log shows it
API_NAME = "openai-responses"

_NO_STATE = "the bridge keeps no conversations; send the earlier messages in input"

PARAMETERS = table(
    supported("input", "text, images (data, https), tool calls and outputs, references to them; reasoning is skipped"),
    supported("instructions", "the system prompt; system and developer messages are added to it"),
    supported("max_output_tokens", "more than the bridge allows counts as what it allows"),
    supported("model", "its name picks the CLI; aliases work"),
    supported("reasoning", "effort, none for no thinking; summary: auto, concise, detailed"),
    supported("store", "false: later requests cannot refer to the answer"),
    supported("stream", "server-sent events"),
    supported("temperature", SAMPLED),
    supported("tool_choice", "auto, none, required, one tool, allowed_tools"),
    supported("tools", "functions and custom tools, which the client runs, and web_search for keys that may"),
    supported("max_tool_calls", "the most searches of the web"),
    supported("parallel_tool_calls", "false: at most one call in an answer"),
    supported("top_p", SAMPLED),
    supported("text", "format: text, json_object, json_schema (any JSON Schema, strict or not); verbosity (codex)"),
    refused("access_programs", "there are none here"),
    refused("background", "send the header Prefer: respond-async instead", False),
    passed_over("context_management", "the bridge changes no prompts", []),
    refused("conversation", _NO_STATE),
    ignored("image", "images are passed on as they are"),
    ignored("include", "there is nothing to include; no log probabilities, no encrypted reasoning"),
    ignored("metadata", "not kept, and not given back"),
    refused("moderation", "there is none here"),
    passed_over("personality", SAMPLING),
    refused(
        "previous_response_id",
        _NO_STATE,
        # Programs that know these words send the earlier messages then.
        words="Previous response with id '{value}' not found.",
        openai_code="previous_response_not_found",
    ),
    refused("prompt", "the bridge keeps no prompt templates"),
    ignored("prompt_cache_key", CACHED),
    ignored("prompt_cache_options", CACHED),
    ignored("prompt_cache_retention", CACHED),
    ignored("safety_identifier", "the key says who asks"),
    refused("service_tier", "only the ordinary one", "auto", "default"),
    ignored("stream_options", "nothing is obfuscated"),
    passed_over("top_logprobs", "the CLIs do not tell them", 0),
    ignored("truncation", "a prompt that is too long is an error"),
    ignored("user", "the key says who asks"),
)


class InputText(PlainText, tag="input_text", tag_field="type"):
    """A piece of text of a message."""


class OutputText(PlainText, tag="output_text", tag_field="type"):
    """A piece of an earlier answer."""


class InputImage(msgspec.Struct, tag="input_image", tag_field="type"):
    """An image: a data URL, or an https link, which the provider follows. `detail` is not passed on."""

    image_url: str | ImageUrl | None = None
    file_id: str | None = None
    detail: str | None = None

    def part(self, at: str, role: str) -> Image:
        """See WirePart."""
        if self.image_url is None:
            raise invalid(f"{at} has no image_url; the bridge keeps no files.", "input")
        url = self.image_url if isinstance(self.image_url, str) else self.image_url.url
        return content.image_at(url, f"{at}.image_url")


#: Items of an earlier answer that say nothing to a model here.
_SKIPPED = ("reasoning", "web_search_call")
_CALLS = ("function_call", "custom_tool_call")
_OF_CALLS = (*_CALLS, "function_call_output", "custom_tool_call_output")


class InputItem(msgspec.Struct):
    """A message, with or without its type; a call of a tool or its output; something of an earlier answer that is
    skipped; or a reference to an item, by its id alone."""

    type: str | None = None
    id: str | None = None
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: str | list[InputText | OutputText | RefusalPart | InputImage] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str = ""
    input: str = ""
    output: str | list[InputText | OutputText | InputImage] | None = None

    def add_to(self, turns: Turns, at: str) -> None:
        """Add what it says to a conversation."""
        if self.type in _OF_CALLS and not self.call_id:
            raise invalid(f"{at} has no call_id, which every {self.type} needs.", "input")
        match self.type:
            case "message" | None:
                if self.role is None:
                    raise invalid(f"{at} has no role.", "input")
                turns.add(self.role, self.content or "", f"{at}.content")
            case "function_call" | "custom_tool_call":
                arguments = self.arguments if self.type == "function_call" else tools.arguments_of_text(self.input)
                call = conversation.call(self.call_id or "", self.name or "", arguments, at)
                turns.add("assistant", (), at, [call])
            case "function_call_output" | "custom_tool_call_output":
                turns.answer_call(self.call_id or "", self.output or "", f"{at}.output")
            case kind if kind not in _SKIPPED:
                raise invalid(f"{at}: the bridge knows no items of the type {kind[:100]!r}.", "input")


class SearchFilters(msgspec.Struct):
    """Where the web is searched."""

    allowed_domains: list[str] | None = None


class ResponsesTool(msgspec.Struct):
    """A tool that the model may call, and the client runs; `parameters` is a JSON Schema."""

    type: str
    name: str = ""
    description: str | None = None
    parameters: content.Schema | None = None
    strict: bool | None = None
    format: dict[str, Any] | None = None
    filters: SearchFilters | None = None
    user_location: dict[str, Any] | None = None
    search_context_size: Literal["low", "medium", "high"] | None = None

    def search(self, at: str, most: int | None) -> WebSearch:
        """The search of the web that it stands for."""
        domains = None if self.filters is None else self.filters.allowed_domains
        context, place = self.search_context_size, self.user_location
        return websearch.asked(at, most, domains=domains, place=place, context=context)


class ResponsesToolName(msgspec.Struct):
    """One tool, as a choice names it; those that OpenAI runs have no name, and are passed over like the tools."""

    type: str = "function"
    name: str = ""


class ResponsesToolChoice(msgspec.Struct):
    """The tool that must be called, or those that may be."""

    type: str
    name: str | None = None
    mode: Literal["auto", "required"] = "auto"
    tools: list[ResponsesToolName] | None = None


class ResponsesSchemaFormat(NamedSchema, tag="json_schema", tag_field="type"):
    """JSON that fits a schema."""


class TextOptions(msgspec.Struct):
    """What the answer shall look like."""

    format: TextFormat | JsonObjectFormat | ResponsesSchemaFormat | None = None
    verbosity: Verbosity | None = None


ReasoningSummary = Literal["auto", "concise", "detailed"]


class Reasoning(msgspec.Struct):
    """How much to think, and whether that is summed up. `generate_summary` is the older name of `summary`."""

    effort: OpenAIEffort | None = None
    summary: ReasoningSummary | None = None
    generate_summary: ReasoningSummary | None = None


class ResponsesBody(msgspec.Struct):
    """The body of a request, as far as it is passed on."""

    model: content.ModelName
    input: str | list[InputItem]
    instructions: str | None = None
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    reasoning: Reasoning | None = None
    stream: bool | None = None
    text: TextOptions | None = None
    temperature: conversation.Temperature | None = None
    top_p: conversation.TopP | None = None
    tools: list[ResponsesTool] | None = None
    tool_choice: Literal["auto", "none", "required"] | ResponsesToolChoice | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: int | None = None
    store: bool | None = None


def parse(body: bytes, known: Known) -> Asked:
    """What a body asks for. Raises BridgeError."""
    wire, ignored = read(body, PARAMETERS, ResponsesBody)
    reasoning = wire.reasoning or Reasoning()
    offered, choice, search = _tools(wire, ignored)
    request = generation(
        known.settings,
        known.resolve(content.model_name(wire.model)),
        _turns(wire, ignored, known.recall),
        api=API_NAME,
        max_output_tokens=wire.max_output_tokens,
        effort=reasoning.effort,
        schema=_schema(wire.text),
        verbosity=wire.text.verbosity if wire.text is not None else None,
        tools=offered,
        tool_choice=choice,
        sampling=sampling(wire.temperature, wire.top_p),
        ignored=ignored,
    )
    thoughts = reasoning.summary or reasoning.generate_summary
    referable = wire.store is not False
    request = msgspec.structs.replace(request, thoughts=thoughts, web_search=search, referable=referable)
    texts = frozenset(each.name for each in wire.tools or () if each.type == "custom")
    events = partial(render_events, texts=texts) if wire.stream else None
    return Asked(request, partial(render_answer, texts=texts), events)


def _tools(wire: ResponsesBody, ignored: list[str]) -> tuple[tuple[Tool, ...], ToolChoice, WebSearch | None]:
    """The tools, which of them may or must be called, and the search of the web."""
    own, others = [], []
    search: WebSearch | None = None
    for number, each in enumerate(wire.tools or ()):
        at = f"tools[{number}]"
        if each.type == "function":
            own.append(tools.tool(at, each.name, each.description, each.parameters, each.strict))
        elif each.type == "custom":
            own.append(tools.freeform(at, each.name, each.description, each.format))
        elif websearch.is_search(each.type):
            search = each.search(at, wire.max_tool_calls)
        else:
            others.append((at, each.type))
    tools.pass_over(others, own, ignored)
    offered, given = tools.offered(own), wire.tool_choice or "auto"
    parallel = wire.parallel_tool_calls is not False
    search = None if given == "none" else search
    named = isinstance(given, ResponsesToolChoice) and websearch.is_search(given.type)
    if search is not None and (named or (given == "required" and not own)):
        # The model searches where it finds that of use.
        ignored.append("tool_choice")
        given = "auto"
    if not isinstance(given, ResponsesToolChoice):
        return offered, tools.choice("tool_choice", offered, given, parallel=parallel), search
    if given.type == "allowed_tools":
        names = [each.name for each in given.tools or () if each.type in ("function", "custom")]
        search = search if any(websearch.is_search(each.type) for each in given.tools or ()) else None
        offered = tools.allowed("tool_choice", offered, names)
        return offered, tools.choice("tool_choice", offered, given.mode, parallel=parallel), search
    return offered, tools.choice("tool_choice", offered, name=given.name or given.type, parallel=parallel), search


def _schema(text: TextOptions | None) -> dict[str, Any] | None:
    if text is None or text.format is None or isinstance(text.format, TextFormat):
        return None
    return (text.format.schema if isinstance(text.format, ResponsesSchemaFormat) else None) or ANY_OBJECT


def _turns(wire: ResponsesBody, ignored: list[str], recall: Recall) -> Turns:
    """The conversation. A reference stands for an item of an earlier answer, unless that was sent along; what is not
    known any more is added to `ignored`, or refused where it is a call whose output was sent."""
    turns = Turns("input", goes_on=True)
    turns.add("system", wire.instructions or "", "instructions")
    if isinstance(wire.input, str):
        turns.add("user", wire.input, "input")
        return turns
    #: the items of each answer that was looked up, once, since a body may name thousands of one
    earlier: dict[str, dict[str | None, InputItem]] = {}
    told = {item.id for item in wire.input if not _is_reference(item)} - {None}
    called: set[str | None] = set()
    unknown: str | None = None
    for number, item in enumerate(wire.input):
        meant: InputItem | None = item
        at = f"input[{number}]"
        if _is_reference(item):
            if item.id in told:
                continue
            told.add(item.id)
            run = (item.id or "").partition("_")[2].partition("_")[0]
            if run not in earlier:
                earlier[run] = _earlier_items(run, recall)
            meant = earlier[run].get(item.id)
        if meant is None:
            ignored.append("item_reference")
            unknown = f"{at} refers to {(item.id or '')[:100]!r}, which the bridge does not know any more"
            continue
        if meant.type in _CALLS:
            called.add(meant.call_id)
        elif unknown is not None and meant.type in _OF_CALLS and meant.call_id not in called:
            raise invalid(f"{unknown}, and {at} is the output of a call that is not there; send the call.", "input")
        meant.add_to(turns, at)
    return turns


def _earlier_items(run: str, recall: Recall) -> dict[str | None, InputItem]:
    """The items of the answer of a run, by their ids, as a client would send them; none where it is not known."""
    answer = recall(id_of_run(run))
    items = [] if answer is None else _items(run, answer, "completed", frozenset())
    return {item.id: msgspec.convert(msgspec.to_builtins(item), InputItem) for item in items}


def _is_reference(item: InputItem) -> bool:
    """Whether an item only names another one; then its type may be missing."""
    bare = item.type is None and item.role is None and item.content is None and item.id is not None
    return bare or item.type == "item_reference"


# --- answers ----------------------------------------------------------------------------------

Status = Literal["in_progress", "completed", "incomplete", "failed"]


class OutputTextPart(msgspec.Struct, tag="output_text", tag_field="type"):
    """The text of an answer."""

    text: str
    annotations: list[websearch.UrlCitation] = []
    logprobs: list[Any] = []


ItemStatus = Literal["in_progress", "completed", "incomplete"]


class OutputMessage(msgspec.Struct, tag="message", tag_field="type"):
    """What the model says."""

    id: str
    status: ItemStatus
    content: list[OutputTextPart | RefusalPart]
    role: Literal["assistant"] = "assistant"


class FunctionCallItem(msgspec.Struct, tag="function_call", tag_field="type"):
    """A call of a function; `arguments` is JSON, `call_id` goes with the output."""

    id: str
    status: ItemStatus
    call_id: str
    name: str
    arguments: str


class CustomCallItem(msgspec.Struct, tag="custom_tool_call", tag_field="type"):
    """A call of a tool whose argument is a text."""

    id: str
    status: ItemStatus
    call_id: str
    name: str
    input: str


class SummaryText(msgspec.Struct, tag="summary_text", tag_field="type"):
    """What the model thought, in short."""

    text: str


class ReasoningItem(msgspec.Struct, tag="reasoning", tag_field="type"):
    """What the model thought before it went on; without a word where it is not to be read."""

    id: str
    summary: list[SummaryText]


class SearchCallItem(msgspec.Struct, tag="web_search_call", tag_field="type"):
    """A search of the web that the model has made; `action` says what for, and what was found."""

    id: str
    status: Literal["in_progress", "completed", "failed"]
    action: dict[str, Any]


OutputItem = OutputMessage | FunctionCallItem | CustomCallItem | ReasoningItem | SearchCallItem


class InputTokens(msgspec.Struct):
    """About how many tokens a request has."""

    input_tokens: int
    object: Literal["response.input_tokens"] = "response.input_tokens"


class FunctionShown(msgspec.Struct, tag="function", tag_field="type"):
    """A function that was offered."""

    name: str
    parameters: dict[str, Any]
    strict: bool | None
    description: str


class CustomShown(msgspec.Struct, tag="custom", tag_field="type"):
    """A tool that was offered, and whose argument is a text."""

    name: str
    description: str


class IncompleteDetails(msgspec.Struct):
    """Why an answer was cut."""

    reason: Literal["max_output_tokens"] = "max_output_tokens"


class ResponseError(msgspec.Struct):
    """Why there is no answer: `code` is one that OpenAI knows, `type` the bridge's own code."""

    code: Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]
    message: str
    type: str
    param: None = None


class ReasoningShown(msgspec.Struct):
    """How much the model was asked to think."""

    effort: str | None
    summary: str | None = None


class Response(msgspec.Struct):
    """The body of an answer. `id` ends like the run's id in the request log; times are UTC seconds."""

    id: str
    created_at: int
    model: str
    status: Status
    output: list[OutputItem]
    text: dict[str, Any]
    reasoning: ReasoningShown
    max_output_tokens: int
    completed_at: int | None = None
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    usage: ResponseUsage | None = None
    object: Literal["response"] = "response"
    background: Literal[False] = False
    instructions: None = None
    metadata: dict[str, str] = {}
    parallel_tool_calls: bool = True
    previous_response_id: None = None
    service_tier: Literal["default"] = "default"
    temperature: float = 1.0
    tool_choice: str | dict[str, str] = "auto"
    tools: list[FunctionShown | CustomShown] = []
    top_logprobs: int = 0
    top_p: float = 1.0
    truncation: Literal["disabled"] = "disabled"


def render_answer(generation: Generation, finished: Finished, *, texts: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The body of a 200. `texts`: the tools whose argument is a text."""
    body: dict[str, Any] = msgspec.to_builtins(_complete(generation, finished, texts))
    return body


def render_events(generation: Generation, request_id: str, *, texts: frozenset[str] = frozenset()) -> Iterator[bytes]:
    """The events, in the order that is said above. `texts`: the tools whose argument is a text."""
    stream = _Stream(run_number(generation.id), texts)
    begun = _begun(generation, texts)
    yield stream.event("response.created", response=begun)
    yield stream.event("response.in_progress", response=begun)
    for delta in pieces(generation, KEEP_ALIVE_S):
        if delta is None:
            yield keep_alive(generation.queue_position)
        else:
            yield from stream.piece(delta)
    finished = generation.wait()
    assert finished is not None
    if isinstance(finished.result, Problem):
        yield stream.event("response.failed", response=_failed(generation, finished.result, texts))
        return
    response = _complete(generation, finished, texts)
    if finished.result.refusal is not None:
        yield from stream.refuse(finished.result.refusal)
    yield from stream.close("incomplete" if response.status == "incomplete" else "completed")
    yield stream.event(f"response.{response.status}", response=response)


class _Stream:
    """The events of one stream: numbered, with one item open at a time."""

    def __init__(self, run: str, texts: frozenset[str]) -> None:
        self._run = run
        self._texts = texts
        self._number = 0
        #: the items so far; the last is open where `_open` says which part of the answer it tells
        self._items = 0
        self._open: PartDelta | None = None
        self._pieces: list[str] = []
        self._texts_told: list[PartDelta] = []
        self._content: list[OutputTextPart | RefusalPart] = []

    def event(self, kind: str, **data: Any) -> bytes:
        """An event with the next number."""
        self._number += 1
        return sse_event(kind, {"type": kind, "sequence_number": self._number - 1, **data})

    def piece(self, delta: PartDelta) -> Iterator[bytes]:
        """What a piece of the answer adds; texts that follow each other are one message."""
        match delta.part:
            case Text(text, cited):
                if self._open is None or not isinstance(self._open.part, Text):
                    yield from self._begin(delta)
                if not self._pieces:
                    yield self.event(
                        "response.content_part.added", **self._at, content_index=0, part=OutputTextPart("")
                    )
                self._pieces.append(text)
                self._texts_told.append(PartDelta(delta.index, Text(text, cited)))
                at = {**self._at, "content_index": 0}
                if text:
                    yield self.event("response.output_text.delta", **at, delta=text, logprobs=[])
            case ToolCall(_, name, arguments):
                if self._open is None or self._open.index != delta.index:
                    yield from self._begin(delta)
                if arguments:
                    self._pieces.append(arguments)
                    if name not in self._texts:
                        yield self.event("response.function_call_arguments.delta", **self._at, delta=arguments)
            case Search():
                yield from self._begin(delta)
                yield self.event("response.web_search_call.in_progress", **self._at)
                yield self.event("response.web_search_call.searching", **self._at)
                yield self.event("response.web_search_call.completed", **self._at)
            case Thought(text):
                if self._open is None or self._open.index != delta.index:
                    yield from self._begin(delta)
                if text and not self._pieces:
                    part = SummaryText("")
                    yield self.event("response.reasoning_summary_part.added", **self._at, summary_index=0, part=part)
                if text:
                    self._pieces.append(text)
                    at = {**self._at, "summary_index": 0}
                    yield self.event("response.reasoning_summary_text.delta", **at, delta=text)

    def refuse(self, refusal: str) -> Iterator[bytes]:
        """What the model said instead of an answer, or of the rest of one."""
        if self._open is None or not isinstance(self._open.part, Text):
            yield from self._begin(PartDelta(-1, Text("")))
        yield from self._end_text()
        at, part = {**self._at, "content_index": len(self._content)}, RefusalPart(refusal)
        yield self.event("response.content_part.added", **at, part=RefusalPart(""))
        yield self.event("response.refusal.delta", **at, delta=refusal)
        yield self.event("response.refusal.done", **at, refusal=refusal)
        yield self.event("response.content_part.done", **at, part=part)
        self._content.append(part)

    def close(self, status: ItemStatus = "completed") -> Iterator[bytes]:
        """The end of the item that is open, if one is."""
        if self._open is None:
            return
        said = "".join(self._pieces)
        match self._open.part:
            case ToolCall(id, name, _):
                call = ToolCall(id, name, said)
                item: OutputItem = _call_item(self._item_id, call, status, self._texts)
                if isinstance(item, CustomCallItem):
                    yield self.event("response.custom_tool_call_input.delta", **self._at, delta=item.input)
                    yield self.event("response.custom_tool_call_input.done", **self._at, input=item.input)
                else:
                    yield self.event("response.function_call_arguments.done", **self._at, arguments=call.arguments)
            case Search():
                item = _search_item(self._item_id, self._open.part)
            case Thought():
                item = _reasoning_item(self._item_id, said)
                at = {**self._at, "summary_index": 0}
                for part in item.summary:
                    yield self.event("response.reasoning_summary_text.done", **at, text=part.text)
                    yield self.event("response.reasoning_summary_part.done", **at, part=part)
            case _:
                yield from self._end_text()
                item = OutputMessage(self._item_id, status, self._content)
        yield self.event("response.output_item.done", output_index=self._items - 1, item=item)
        self._open = None

    def _begin(self, delta: PartDelta) -> Iterator[bytes]:
        yield from self.close()
        self._items += 1
        self._open, self._pieces, self._texts_told, self._content = delta, [], [], []
        item: OutputItem = OutputMessage(self._item_id, "in_progress", [])
        if isinstance(delta.part, ToolCall):
            begun = ToolCall(delta.part.id, delta.part.name, "")
            item = _call_item(self._item_id, begun, "in_progress", self._texts)
        elif isinstance(delta.part, Thought):
            item = _reasoning_item(self._item_id, "")
        elif isinstance(delta.part, Search):
            item = SearchCallItem(self._item_id, "in_progress", {"type": "search", "query": delta.part.query})
        yield self.event("response.output_item.added", output_index=self._items - 1, item=item)

    def _end_text(self) -> Iterator[bytes]:
        if self._pieces and not self._content:
            cited = websearch.all_citations(whole(self._texts_told))
            at, part = {**self._at, "content_index": 0}, OutputTextPart("".join(self._pieces), cited)
            for number, each in enumerate(cited):
                more = {**at, "annotation_index": number, "annotation": each}
                yield self.event("response.output_text.annotation.added", **more)
            yield self.event("response.output_text.done", **at, text=part.text, logprobs=[])
            yield self.event("response.content_part.done", **at, part=part)
            self._content.append(part)

    @property
    def _item_id(self) -> str:
        assert self._open is not None
        return _item_id(self._run, self._items - 1, self._open.part)

    @property
    def _at(self) -> dict[str, Any]:
        return {"item_id": self._item_id, "output_index": self._items - 1}


def _item_id(run: str, number: int, part: Part | None) -> str:
    """The id of the item `number` of an answer; of the first one it ends like the run's own."""
    kinds: dict[type, str] = {ToolCall: "fc_", Thought: "rs_", Search: "ws_"}
    kind = kinds.get(type(part), "msg_")
    return kind + run + (f"_{number}" if number else "")


def _search_item(id: str, search: Search) -> SearchCallItem:
    sources = [{"type": "url", "url": each.url} for each in search.found]
    action = {"type": "search", "query": search.query, "sources": sources}
    return SearchCallItem(id, "completed" if search.error is None else "failed", action)


def _reasoning_item(id: str, said: str) -> ReasoningItem:
    return ReasoningItem(id, [SummaryText(said)] if said else [])


def _call_item(id: str, call: ToolCall, status: ItemStatus, texts: frozenset[str]) -> OutputItem:
    if call.name in texts:
        text = tools.text_of_arguments(call.arguments) if call.arguments else ""
        return CustomCallItem(id, status, call.id, call.name, text)
    return FunctionCallItem(id, status, call.id, call.name, call.arguments)


def _items(run: str, answer: Answer, status: ItemStatus, texts: frozenset[str]) -> list[OutputItem]:
    """The whole answer as items; only the last one can be incomplete."""
    items: list[OutputItem] = []
    for part in all_parts(answer):
        last = items[-1] if items else None
        if isinstance(part, ToolCall):
            items.append(_call_item(_item_id(run, len(items), part), part, "completed", texts))
        elif isinstance(part, Thought):
            items.append(_reasoning_item(_item_id(run, len(items), part), part.text))
        elif isinstance(part, Search):
            items.append(_search_item(_item_id(run, len(items), part), part))
        elif isinstance(last, OutputMessage) and isinstance(last.content[0], OutputTextPart):
            said = last.content[0]
            said.annotations += websearch.citations(part, len(said.text))
            said.text += part.text
        else:
            told = OutputTextPart(part.text, websearch.citations(part))
            items.append(OutputMessage(_item_id(run, len(items), part), "completed", [told]))
    if answer.refusal is not None:
        refusal = RefusalPart(answer.refusal)
        if items and isinstance(items[-1], OutputMessage):
            items[-1].content.append(refusal)
        else:
            items.append(OutputMessage(_item_id(run, len(items), None), "completed", [refusal]))
    if items and isinstance(items[-1], OutputMessage | FunctionCallItem | CustomCallItem):
        items[-1].status = status
    return items


def _begun(generation: Generation, texts: frozenset[str]) -> Response:
    request = generation.request
    choice = request.tool_choice
    shown: str | dict[str, str] = choice.mode
    if choice.name is not None:
        shown = {"type": "custom" if choice.name in texts else "function", "name": choice.name}
    return Response(
        id="resp_" + run_number(generation.id),
        created_at=int(generation.started_at),
        model=request.model,
        status="in_progress",
        output=[],
        text={"format": json_format(request), "verbosity": request.verbosity or "medium"},
        reasoning=ReasoningShown(request.effort, request.thoughts),
        max_output_tokens=request.max_output_tokens,
        parallel_tool_calls=choice.parallel,
        temperature=1.0 if request.sampling.temperature is None else request.sampling.temperature,
        tool_choice=shown,
        tools=[
            CustomShown(each.name, each.description)
            if each.name in texts
            else FunctionShown(each.name, each.schema, each.strict, each.description)
            for each in request.tools
        ],
        top_p=1.0 if request.sampling.top_p is None else request.sampling.top_p,
    )


def _complete(generation: Generation, finished: Finished, texts: frozenset[str]) -> Response:
    answer = finished.result
    assert isinstance(answer, Answer)
    cut = finish_reason(answer.stop_reason) == "length"
    status: Literal["incomplete", "completed"] = "incomplete" if cut else "completed"
    return msgspec.structs.replace(
        _begun(generation, texts),
        model=answer.model,
        status=status,
        completed_at=None if cut else int(generation.started_at + finished.duration_ms / 1000),
        output=_items(run_number(generation.id), answer, status, texts),
        incomplete_details=IncompleteDetails() if cut else None,
        usage=ResponseUsage.of(finished.charge.usage),
    )


def _failed(generation: Generation, problem: Problem, texts: frozenset[str]) -> Response:
    code: Literal["server_error", "rate_limit_exceeded", "invalid_prompt"] = "invalid_prompt"
    if problem.sdk_status >= 500:
        code = "server_error"
    if error_type(problem) in ("rate_limit_error", "insufficient_quota") or problem.code == "provider_rate_limited":
        code = "rate_limit_exceeded"
    shown = ResponseError(code, f"{problem.message} {problem.hint}", problem.code)
    return msgspec.structs.replace(_begun(generation, texts), status="failed", error=shown)


_EXAMPLE = {"model": "gpt-6-sol", "input": "Hello"}
API = Api(
    name=API_NAME,
    text="OpenAI's responses.",
    paths={"/v1/responses": None},
    parse=parse,
    answer=render_answer,
    error=render_error,
    events=render_events,
    parameters=PARAMETERS,
    count=Count(
        path="/v1/responses/input_tokens",
        parse=parse,
        parameters=PARAMETERS,
        body_type=ResponsesBody,
        answer_type=InputTokens,
        example=_EXAMPLE,
    ),
    body_type=ResponsesBody,
    answer_type=Response,
    error_type=OpenAIErrorBody,
    example=_EXAMPLE,
)
