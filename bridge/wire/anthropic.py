"""Anthropic's Messages API: `POST /v1/messages`, and the body of `/v1/messages/count_tokens`. Pure.

The order of the events: message_start, for each block of the answer content_block_start, content_block_delta (often),
content_block_stop, then message_delta, message_stop; ping in between; error at any point, and nothing after it.
Source of the shapes: Anthropic's API reference, and the types of its Python package, which tests/contract
holds them against.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from bridge.errors import Problem
from bridge.registry import PROVIDERS
from bridge.types import (
    ANTHROPIC,
    Answer,
    Citation,
    Finished,
    GenerationRequest,
    Image,
    Part,
    Sampling,
    Search,
    Text,
    Thinking,
    Thought,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Usage,
    WebSearch,
)
from bridge.wire import content, conversation, tools, websearch
from bridge.wire.api import (
    KEEP_ALIVE_S,
    Api,
    Asked,
    Count,
    Generation,
    Known,
    all_parts,
    keep_alive,
    pieces,
    sse_event,
)
from bridge.wire.content import invalid
from bridge.wire.conversation import PlainText, Turns, generation, run_number, sampling
from bridge.wire.parameters import SAMPLED, ignored, passed_over, read, refused, supported, table

#: as the log shows it
API_NAME = ANTHROPIC

_NO_SERVERS = "the bridge asks no MCP servers"
PARAMETERS = table(
    supported("max_tokens", "more than the bridge allows counts as what it allows"),
    supported("messages", "user, assistant, system; text, images (base64, https), tool calls, results; the last: user"),
    supported("model", "its name picks the CLI; aliases work"),
    supported("output_config", "effort; format: json_schema, any JSON Schema"),
    supported("output_format", "the older name of output_config.format"),
    supported("stop_sequences", "passed over where the answer must be JSON"),
    supported("stream", "server-sent events"),
    supported("system", "a text, or text blocks"),
    supported("temperature", SAMPLED),
    supported("thinking", "enabled, adaptive, between_tools, disabled; display; see Thinking below"),
    supported("tool_choice", "auto, any, tool, none; disable_parallel_tool_use"),
    supported("tools", "your own, which the client runs, and web_search for keys that may; see Tools below"),
    supported("top_k", SAMPLED),
    supported("top_p", SAMPLED),
    refused("billing_policy", "the key has its own caps"),
    ignored("cache_control", "the CLIs decide what is cached, also where a block has it"),
    refused("compaction", "the bridge changes no prompts"),
    refused("container", "there are none here"),
    passed_over("context_management", "the bridge changes no prompts"),
    ignored("diagnostics", "there are none"),
    refused("fallback_credit_token", "there are none here"),
    refused("fallbacks", "one model for each request", []),
    refused("inference_geo", "the bridge cannot choose where a model runs"),
    refused("mcp_servers", _NO_SERVERS, []),
    ignored("metadata", "the key says who asks; `user_id` keeps a conversation on one credential"),
    refused("service_tier", "only the ordinary one", "auto", "standard_only"),
    refused("speed", "only the ordinary one", "standard"),
    refused(
        "thread",
        "the bridge keeps no conversations; send the earlier messages in messages",
        # By this, Anthropic's SDKs know that they have to send all of them.
        details={"error_code": "thread_unsupported_request"},
    ),
    ignored("user_profile_id", "the key says who asks"),
)
#: what `count_tokens` does not need
_NOT_COUNTED = ("max_tokens", "stop_sequences", "stream", "temperature", "top_k", "top_p")
COUNT_PARAMETERS = {name: parameter for name, parameter in PARAMETERS.items() if name not in _NOT_COUNTED}


class TextBlock(PlainText, tag="text", tag_field="type"):
    """A piece of text, of a message or of an answer; with what it cites, where the web was searched."""

    citations: Any = UNSET


class Base64Source(msgspec.Struct, tag="base64", tag_field="type"):
    """An image, as data."""

    media_type: content.MediaType
    data: str


class UrlSource(msgspec.Struct, tag="url", tag_field="type"):
    """A link to an image, with https; the provider follows it."""

    url: str


class ImageBlock(msgspec.Struct, tag="image", tag_field="type"):
    """An image of a user's message."""

    source: Base64Source | UrlSource

    def part(self, at: str, role: str) -> Image:
        """See WirePart."""
        if isinstance(self.source, UrlSource):
            return content.linked_image(self.source.url, f"{at}.source.url")
        return content.image(self.source.data, f"{at}.source.data")


def _thought(at: str, role: str, thought: Thought) -> Thought:
    if role == "user":
        raise invalid(f"{at}: only an assistant's message may have thinking.", "messages")
    for field in msgspec.structs.astuple(thought):
        content.prompt(at, field)
    return thought


class ThinkingBlock(msgspec.Struct, tag="thinking", tag_field="type"):
    """What a model thought, in an answer or before one."""

    thinking: str
    signature: str = ""

    def part(self, at: str, role: str) -> Thought:
        """See WirePart."""
        return _thought(at, role, Thought(self.thinking, self.signature))


class RedactedThinkingBlock(msgspec.Struct, tag="redacted_thinking", tag_field="type"):
    """The same, unreadable."""

    data: str

    def part(self, at: str, role: str) -> Thought:
        """See WirePart."""
        return _thought(at, role, Thought(redacted=self.data))


class ToolUseBlock(msgspec.Struct, tag="tool_use", tag_field="type"):
    """A tool call, of an answer or in a message."""

    id: str
    name: str
    input: dict[str, Any]

    def part(self, at: str, role: str) -> ToolCall:
        """See WirePart."""
        return conversation.call(self.id, self.name, content.encode(self.input, f"{at}.input"), at)


class ToolResultBlock(msgspec.Struct, tag="tool_result", tag_field="type"):
    """What a tool gave for a call of the message before."""

    tool_use_id: str
    content: str | list[TextBlock | ImageBlock] | None = None
    is_error: bool | None = None

    def part(self, at: str, role: str) -> ToolResult:
        """See WirePart."""
        given = self.content or ""
        return conversation.result(self.tool_use_id, given, f"{at}.content", is_error=bool(self.is_error))


class ServerToolUseBlock(msgspec.Struct, tag="server_tool_use", tag_field="type"):
    """A search of the web that the model has made; of an earlier answer, it is skipped."""

    id: str
    name: str = "web_search"
    input: Any = {}

    def part(self, at: str, role: str) -> Search:
        """See WirePart."""
        return Search(self.id, "")


class SearchResultBlock(msgspec.Struct, tag="web_search_tool_result", tag_field="type"):
    """What a search has found, or why nothing; of an earlier answer, it is skipped."""

    tool_use_id: str
    content: Any

    def part(self, at: str, role: str) -> None:
        """See WirePart."""


Block = (
    TextBlock
    | ImageBlock
    | ThinkingBlock
    | RedactedThinkingBlock
    | ToolUseBlock
    | ToolResultBlock
    | ServerToolUseBlock
    | SearchResultBlock
)


class AnthropicMessage(msgspec.Struct):
    """A turn of the conversation. A system turn adds to the system prompt, wherever it stands."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block] | None = None


class SystemBlock(PlainText, kw_only=True):
    """A piece of the system prompt. msgspec asks for no tag where there is but one kind, so `type` is a field."""

    type: Literal["text"]


class SchemaFormat(msgspec.Struct):
    """JSON that fits a schema."""

    type: Literal["json_schema"]
    schema: content.Schema


class OutputConfig(msgspec.Struct):
    """What the answer shall look like, and how much to think about it."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: SchemaFormat | None = None


class MessagesTool(msgspec.Struct):
    """A tool that the model may call, and the client runs; those with a `type` are Anthropic's."""

    name: str = ""
    type: str | None = None
    description: str | None = None
    input_schema: content.Schema | None = None
    strict: bool | None = None
    max_uses: int | None = None
    allowed_domains: list[str] | None = None
    blocked_domains: list[str] | None = None
    user_location: dict[str, Any] | None = None
    max_characters: int | None = None

    def vendors_own(self, at: str) -> Tool:
        """A tool of Anthropic's kind, which the client runs."""
        fields: dict[str, Any] = {"type": self.type}
        if self.max_characters is not None:
            fields["max_characters"] = self.max_characters
        return msgspec.structs.replace(tools.tool(at, self.name, None, None, None), schema={}, vendor=fields)

    def search(self, at: str) -> WebSearch:
        """The search of the web that it stands for."""
        domains, blocked = self.allowed_domains, self.blocked_domains
        return websearch.asked(at, self.max_uses, domains=domains, blocked=blocked, place=self.user_location)


class MessagesToolChoice(msgspec.Struct):
    """Whether a tool may or must be called."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class ThinkingOption(msgspec.Struct):
    """Whether and how much to think, and how that is shown."""

    type: Literal["enabled", "adaptive", "between_tools", "disabled"]
    budget_tokens: Annotated[int, Meta(ge=1024)] | None = None
    display: Annotated[str, Meta(max_length=50)] | None = None


class CountBody(msgspec.Struct):
    """What is counted."""

    model: content.ModelName
    messages: list[AnthropicMessage]
    system: str | list[SystemBlock] | None = None
    output_config: OutputConfig | None = None
    output_format: SchemaFormat | None = None
    thinking: ThinkingOption | None = None
    tools: list[MessagesTool] | None = None
    tool_choice: MessagesToolChoice | None = None


class MessagesBody(CountBody, kw_only=True):
    """The body of a request, as far as it is passed on."""

    max_tokens: Annotated[int, Meta(ge=1)]
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    temperature: conversation.Temperature | None = None
    top_k: conversation.TopK | None = None
    top_p: conversation.TopP | None = None


def parse(body: bytes, known: Known) -> Asked:
    """What a body asks for. Raises BridgeError."""
    wire, ignored = read(body, PARAMETERS, MessagesBody)
    request = _generation(wire, wire.max_tokens, wire.stop_sequences or [], ignored, known)
    picked = sampling(wire.temperature, wire.top_p, wire.top_k)
    asked, thinking, thoughts = wire.thinking, None, None
    if asked is not None:
        thinking = Thinking(asked.type, asked.budget_tokens, asked.display)
        thoughts = None if asked.type == "disabled" else asked.display or "summarized"
    request = msgspec.structs.replace(request, sampling=picked, thinking=thinking, thoughts=thoughts)
    return Asked(request, render_answer, render_events if wire.stream else None)


def parse_count(body: bytes, known: Known) -> Asked:
    """What a body asks for whose tokens are to be counted. Raises like `parse`."""
    wire, ignored = read(body, COUNT_PARAMETERS, CountBody)
    return Asked(_generation(wire, None, [], ignored, known), render_answer, None)


def _generation(
    wire: CountBody, max_tokens: int | None, stop: list[str], ignored: list[str], known: Known
) -> GenerationRequest:
    config = wire.output_config or OutputConfig()
    form = config.format or wire.output_format
    model = known.resolve(content.model_name(wire.model))
    vendors = PROVIDERS[model.provider].usage_words == "anthropic"
    offered, choice, search = _tools(wire, ignored, vendors=vendors)
    request = generation(
        known.settings,
        model,
        _turns(wire),
        api=API_NAME,
        max_output_tokens=max_tokens,
        effort=config.effort,
        schema=None if form is None else form.schema,
        tools=offered,
        tool_choice=choice,
        sampling=Sampling(),
        stop=stop,
        stop_field="stop_sequences",
        ignored=ignored,
    )
    return msgspec.structs.replace(request, web_search=search)


#: Tools of Anthropic's that the client runs, and its API takes without being told of a beta.
_CLIENTS = re.compile(r"(bash|text_editor|memory)_\d{8}")


def _tools(
    wire: CountBody, ignored: list[str], *, vendors: bool
) -> tuple[tuple[Tool, ...], ToolChoice, WebSearch | None]:
    """The tools, which of them may or must be called, and the search of the web. `vendors`: whether the model knows
    tools of Anthropic's."""
    own, others = [], []
    search: WebSearch | None = None
    for number, each in enumerate(wire.tools or ()):
        at = f"tools[{number}]"
        if each.type in (None, "custom"):
            own.append(tools.tool(at, each.name, each.description, each.input_schema, each.strict))
        elif websearch.is_search(each.type or ""):
            search = each.search(at)
        elif vendors and _CLIENTS.fullmatch(each.type or ""):
            own.append(each.vendors_own(at))
        else:
            others.append((at, each.type or ""))
    tools.pass_over(others, own, ignored)
    offered, given = tools.offered(own), wire.tool_choice or MessagesToolChoice("auto")
    parallel = not given.disable_parallel_tool_use
    search = None if given.type == "none" else search
    if search is not None and given.type != "auto" and (not own or given.name == "web_search"):
        # The model searches where it finds that of use.
        ignored.append("tool_choice")
        given = MessagesToolChoice("auto")
    if given.type == "tool":
        return offered, tools.choice("tool_choice", offered, name=given.name or "", parallel=parallel), search
    mode: tools.Mode = "required" if given.type == "any" else given.type
    return offered, tools.choice("tool_choice", offered, mode, parallel=parallel), search


def _turns(wire: CountBody) -> Turns:
    turns = Turns("messages")
    turns.add("system", wire.system or "", "system")
    for number, message in enumerate(wire.messages):
        turns.add(message.role, message.content or "", f"messages[{number}].content")
    return turns


# --- answers ----------------------------------------------------------------------------------

#: HTTP status -> `type` of an error, as Anthropic names them
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    502: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
}
StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal", "model_context_window_exceeded"]


class AnthropicErrorDetails(msgspec.Struct):
    """What went wrong: `code` is one of the bridge's own; `hint` says what to do. 429 adds `limit`, `used`,
    `resets_at`; mismatching answers their `text`."""

    type: str
    message: str
    code: str
    hint: str


class AnthropicErrorBody(msgspec.Struct):
    """An error, as Anthropic's SDKs read it."""

    type: Literal["error"]
    error: AnthropicErrorDetails
    request_id: str


class TokenDetails(msgspec.Struct):
    """What `output_tokens` has in it."""

    thinking_tokens: int


class ServerToolUsage(msgspec.Struct):
    """Calls of tools that the provider ran."""

    web_search_requests: int
    #: SDKs want it beside the others
    web_fetch_requests: int = 0


class MessageUsage(msgspec.Struct):
    """Tokens of a message; the three kinds of input add up."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int
    output_tokens_details: TokenDetails
    server_tool_use: ServerToolUsage | UnsetType = UNSET

    @classmethod
    def of(cls, usage: Usage) -> MessageUsage:
        """Usage in these words."""
        return cls(
            usage.input_tokens,
            usage.cache_write_tokens,
            usage.cache_read_tokens,
            usage.output_tokens,
            TokenDetails(usage.reasoning_tokens),
            ServerToolUsage(usage.searches) if usage.searches else UNSET,
        )


class StopDetails(msgspec.Struct):
    """Why a model declined. The CLIs do not tell the category."""

    explanation: str
    type: Literal["refusal"] = "refusal"
    category: None = None


AnswerBlock = TextBlock | ToolUseBlock | ThinkingBlock | RedactedThinkingBlock | ServerToolUseBlock | SearchResultBlock


class MessageBody(msgspec.Struct):
    """The body of an answer. `id` ends like the run's id in the request log."""

    id: str
    model: str
    content: list[AnswerBlock]
    stop_reason: StopReason | None
    usage: MessageUsage
    stop_sequence: str | None = None
    stop_details: StopDetails | None = None
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"


class TokenCount(msgspec.Struct):
    """About how many tokens a request has."""

    input_tokens: int


def render_answer(generation: Generation, finished: Finished) -> dict[str, Any]:
    """The body of a 200."""
    answer = finished.result
    assert isinstance(answer, Answer)
    body: dict[str, Any] = msgspec.to_builtins(
        MessageBody(
            id=_id(generation),
            model=answer.model,
            content=[block for part in all_parts(answer) for block in _blocks(part)],
            stop_reason=stop_reason(answer.stop_reason),
            stop_sequence=answer.stop_sequence,
            stop_details=_stop_details(answer),
            usage=MessageUsage.of(finished.charge.usage),
        )
    )
    return body


def _blocks(part: Text | ToolCall | Thought | Search) -> list[AnswerBlock]:
    """The blocks that a part of an answer is."""
    match part:
        case Text(text, cited):
            return [TextBlock(text, [_cited(each) for each in cited] if cited else UNSET)]
        case ToolCall(id, name, arguments):
            return [ToolUseBlock(id, name, tools.object_of(arguments))]
        case Thought(text, signature, redacted):
            return [RedactedThinkingBlock(redacted) if redacted else ThinkingBlock(text, signature)]
        case Search(id, query):
            return [ServerToolUseBlock(id, input={"query": query}), _found(part)]


def _found(search: Search) -> SearchResultBlock:
    if search.error is not None:
        return SearchResultBlock(search.id, {"type": "web_search_tool_result_error", "error_code": search.error})
    return SearchResultBlock(
        search.id,
        [
            {
                "type": "web_search_result",
                "url": each.url,
                "title": each.title,
                "page_age": each.age,
                "encrypted_content": each.content,
            }
            for each in search.found
        ],
    )


def _cited(cited: Citation) -> dict[str, Any]:
    return {
        "type": "web_search_result_location",
        "url": cited.url,
        "title": cited.title,
        "cited_text": cited.quote,
        "encrypted_index": cited.mark,
    }


def render_error(problem: Problem, request_id: str) -> dict[str, Any]:
    """The body of an error, and the data of `event: error`. Beside Anthropic's fields it has the bridge's."""
    details = {
        "type": _TYPES.get(problem.sdk_status, "invalid_request_error"),
        "message": problem.message,
        "code": problem.code,
        "hint": problem.hint,
    }
    return {"type": "error", "error": {**problem.facts, **details}, "request_id": request_id}


def render_events(generation: Generation, request_id: str) -> Iterator[bytes]:
    """The events, in the order that is said above."""

    def event(kind: str, **data: Any) -> bytes:
        return sse_event(kind, {"type": kind, **data})

    # What the prompt counted is known at the end; message_delta then says it.
    empty = MessageBody(_id(generation), generation.request.model, [], None, MessageUsage.of(Usage()))
    yield event("message_start", message=empty)
    #: the part of the answer that is being told, and the number of its block
    told, number = -1, -1
    for delta in pieces(generation, KEEP_ALIVE_S):
        if delta is None:
            yield keep_alive(generation.queue_position) + event("ping")
            continue
        if delta.index != told:
            if told >= 0:
                yield event("content_block_stop", index=number)
            told, number = delta.index, number + 1
            if isinstance(delta.part, Search):
                # It comes as a whole, and is two blocks.
                asked, found = ServerToolUseBlock(delta.part.id), _found(delta.part)
                query = msgspec.json.encode({"query": delta.part.query}).decode()
                yield event("content_block_start", index=number, content_block=asked)
                piece = {"type": "input_json_delta", "partial_json": query}
                yield event("content_block_delta", index=number, delta=piece)
                yield event("content_block_stop", index=number)
                number += 1
                yield event("content_block_start", index=number, content_block=found)
                continue
            yield event("content_block_start", index=number, content_block=_begun(delta.part))
        for piece in _pieces(delta.part):
            yield event("content_block_delta", index=number, delta=piece)
    finished = generation.wait()
    assert finished is not None
    if isinstance(finished.result, Problem):
        yield sse_event("error", render_error(finished.result, request_id))
        return
    if told >= 0:
        yield event("content_block_stop", index=number)
    answer = finished.result
    end = {
        "stop_reason": stop_reason(answer.stop_reason),
        "stop_sequence": answer.stop_sequence,
        "stop_details": _stop_details(answer),
    }
    yield event("message_delta", delta=end, usage=MessageUsage.of(finished.charge.usage))
    yield event("message_stop")


def _begun(part: Part) -> AnswerBlock:
    """A block before anything is in it; what nobody may read comes whole."""
    match part:
        case ToolCall(id, name):
            return ToolUseBlock(id, name, {})
        case Thought(redacted=redacted):
            return RedactedThinkingBlock(redacted) if redacted else ThinkingBlock("")
    return TextBlock("")


def _pieces(part: Part) -> Iterator[dict[str, Any]]:
    """What a piece adds to its block."""
    match part:
        case Text(text, cited):
            if text:
                yield {"type": "text_delta", "text": text}
            for each in cited:
                yield {"type": "citations_delta", "citation": _cited(each)}
        case ToolCall(_, _, arguments) if arguments:
            yield {"type": "input_json_delta", "partial_json": arguments}
        case Thought(text, signature):
            if text:
                yield {"type": "thinking_delta", "thinking": text}
            if signature:
                yield {"type": "signature_delta", "signature": signature}


def stop_reason(reason: str) -> StopReason:
    """Why an answer ended, in Anthropic's words."""
    if reason in ("max_tokens", "stop_sequence", "tool_use", "refusal", "model_context_window_exceeded"):
        return reason  # type: ignore[return-value]
    return "end_turn"


def _stop_details(answer: Answer) -> StopDetails | None:
    return None if answer.refusal is None else StopDetails(answer.refusal)


def _id(generation: Generation) -> str:
    return "msg_" + run_number(generation.id)


_EXAMPLE = {"model": "claude-sonnet-5-5", "messages": [{"role": "user", "content": "Hello"}]}
API = Api(
    name=API_NAME,
    text="Anthropic's messages.",
    paths={"/v1/messages": None},
    header="Anthropic-Version",
    request_id_header="Request-Id",
    parse=parse,
    answer=render_answer,
    error=render_error,
    events=render_events,
    parameters=PARAMETERS,
    count=Count(
        path="/v1/messages/count_tokens",
        parse=parse_count,
        parameters=COUNT_PARAMETERS,
        body_type=CountBody,
        answer_type=TokenCount,
        example=_EXAMPLE,
    ),
    body_type=MessagesBody,
    answer_type=MessageBody,
    error_type=AnthropicErrorBody,
    example={**_EXAMPLE, "max_tokens": 500},
)
