"""OpenAI's Responses API: `POST /v1/responses`. Bytes in, types out, and back. Pure.

The order of the events: response.created, in_progress, output_item.added, content_part.added,
output_text.delta (often), output_text.done, content_part.done, output_item.done, and then completed or
incomplete; or failed at any point after the second. A refusal is one more content part, with refusal.delta and
refusal.done. Each has the next sequence_number.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from bridge.errors import Problem
from bridge.settings import Settings
from bridge.types import Answer, Finished, GenerationRequest, Image
from bridge.wire import content
from bridge.wire.api import KEEP_ALIVE_S, Api, Events, Generation, Resolve, keep_alive, sse_event, texts
from bridge.wire.content import invalid
from bridge.wire.conversation import ANY_OBJECT, PlainText, Turns, Verbosity, generation, run_number
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
from bridge.wire.parameters import CACHED, NO_TOOLS, SAMPLING, ignored, passed_over, read, refused, supported, table

#: as the log shows it
API_NAME = "openai-responses"

_NO_STATE = "the bridge keeps no conversations; send the earlier messages in input"

PARAMETERS = table(
    supported("input", "a text, or messages with text and images as data URLs; reasoning and references are skipped"),
    supported("instructions", "the system prompt; system and developer messages are added to it"),
    supported("max_output_tokens", "more than the bridge allows counts as what it allows"),
    supported("model", "its name picks the CLI; aliases work"),
    supported("reasoning", "effort; none counts as minimal; a summary is passed over"),
    supported("stream", "server-sent events"),
    supported("text", "format: text, json_object, json_schema (any JSON Schema, strict or not); verbosity (codex)"),
    refused("access_programs", "there are none here"),
    refused("background", "send the header Prefer: respond-async instead", False),
    passed_over("context_management", "the bridge changes no prompts", []),
    refused("conversation", _NO_STATE),
    ignored("image", "images are passed on as they are"),
    ignored("include", "there is nothing to include; no log probabilities, no encrypted reasoning"),
    ignored("max_tool_calls", NO_TOOLS),
    ignored("metadata", "not kept, and not given back"),
    refused("moderation", "there is none here"),
    ignored("parallel_tool_calls", NO_TOOLS),
    refused("previous_response_id", _NO_STATE),
    refused("prompt", "the bridge keeps no prompt templates"),
    ignored("prompt_cache_key", CACHED),
    ignored("prompt_cache_options", CACHED),
    ignored("prompt_cache_retention", CACHED),
    ignored("safety_identifier", "the key says who asks"),
    refused("service_tier", "only the ordinary one", "auto", "default"),
    ignored("store", "nothing is kept to be fetched later"),
    ignored("stream_options", "nothing is obfuscated"),
    passed_over("temperature", SAMPLING, 1),
    refused("tool_choice", NO_TOOLS, "none", "auto"),
    refused("tools", NO_TOOLS, []),
    passed_over("top_logprobs", "the CLIs do not tell them", 0),
    passed_over("top_p", SAMPLING, 1),
    ignored("truncation", "a prompt that is too long is an error"),
    ignored("user", "the key says who asks"),
)


class InputText(PlainText, tag="input_text", tag_field="type"):
    """A piece of text of a message."""


class OutputText(PlainText, tag="output_text", tag_field="type"):
    """A piece of an earlier answer."""


class InputImage(msgspec.Struct, tag="input_image", tag_field="type"):
    """An image: always a data URL. `detail` is not passed on."""

    image_url: str | ImageUrl | None = None
    file_id: str | None = None
    detail: str | None = None

    def part(self, at: str, role: str) -> Image:
        """See WirePart."""
        if self.image_url is None:
            raise invalid(f"{at} has no image_url; the bridge keeps no files.", "input")
        url = self.image_url if isinstance(self.image_url, str) else self.image_url.url
        return content.image_of_url(url, f"{at}.image_url")


class InputItem(msgspec.Struct):
    """A message, with or without its type; or a reasoning item of an earlier answer, or a reference to an item, which
    are skipped: the bridge keeps no items, and those that were sent along stand in the input already."""

    type: Literal["message", "reasoning", "item_reference"] | None = None
    id: str | None = None
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: str | list[InputText | OutputText | RefusalPart | InputImage] | None = None


class ResponsesSchemaFormat(NamedSchema, tag="json_schema", tag_field="type"):
    """JSON that fits a schema."""


class TextOptions(msgspec.Struct):
    """What the answer shall look like."""

    format: TextFormat | JsonObjectFormat | ResponsesSchemaFormat | None = None
    verbosity: Verbosity | None = None


class Reasoning(msgspec.Struct):
    """How much to think. A summary is passed over: the CLIs give none. `generate_summary` is its older name."""

    effort: OpenAIEffort | None = None
    summary: str | None = None
    generate_summary: str | None = None


class ResponsesBody(msgspec.Struct):
    """The body of a request, as far as it is passed on."""

    model: content.ModelName
    input: str | list[InputItem]
    instructions: str | None = None
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    reasoning: Reasoning | None = None
    stream: bool | None = None
    text: TextOptions | None = None


def parse(body: bytes, *, settings: Settings, resolve: Resolve) -> tuple[GenerationRequest, Events | None]:
    """The request, and how its stream is told where it asks for one. Raises BridgeError."""
    wire, ignored = read(body, PARAMETERS, ResponsesBody)
    reasoning = wire.reasoning or Reasoning()
    if reasoning.summary or reasoning.generate_summary:
        ignored.append("reasoning.summary")
    request = generation(
        settings,
        resolve(content.model_name(wire.model)),
        _turns(wire, ignored),
        api=API_NAME,
        max_output_tokens=wire.max_output_tokens,
        effort=reasoning.effort,
        schema=_schema(wire.text),
        verbosity=wire.text.verbosity if wire.text is not None else None,
        ignored=ignored,
    )
    return request, render_events if wire.stream else None


def _schema(text: TextOptions | None) -> dict[str, Any] | None:
    if text is None or text.format is None or isinstance(text.format, TextFormat):
        return None
    return (text.format.schema if isinstance(text.format, ResponsesSchemaFormat) else None) or ANY_OBJECT


def _turns(wire: ResponsesBody, ignored: list[str]) -> Turns:
    """The conversation. References to what was not sent along are added to `ignored`."""
    turns = Turns("input", goes_on=True)
    turns.add("system", wire.instructions or "", "instructions")
    if isinstance(wire.input, str):
        turns.add("user", wire.input, "input")
        return turns
    sent = {item.id for item in wire.input if not _is_reference(item)}
    for number, item in enumerate(wire.input):
        if _is_reference(item):
            if item.id not in sent and "item_reference" not in ignored:
                ignored.append("item_reference")
            continue
        if item.type == "reasoning":
            continue
        if item.role is None:
            raise invalid(f"input[{number}] has no role.", "input")
        turns.add(item.role, item.content or "", f"input[{number}].content")
    return turns


def _is_reference(item: InputItem) -> bool:
    """Whether an item only names another one; then its type may be missing."""
    bare = item.type is None and item.role is None and item.content is None and item.id is not None
    return bare or item.type == "item_reference"


# --- answers ----------------------------------------------------------------------------------

Status = Literal["in_progress", "completed", "incomplete", "failed"]


class OutputTextPart(msgspec.Struct, tag="output_text", tag_field="type"):
    """The text of an answer."""

    text: str
    annotations: list[Any] = []
    logprobs: list[Any] = []


class OutputMessage(msgspec.Struct):
    """The answer of the model."""

    id: str
    status: Literal["in_progress", "completed", "incomplete"]
    content: list[OutputTextPart | RefusalPart]
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"


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
    summary: None = None


class Response(msgspec.Struct):
    """The body of an answer. `id` ends like the run's id in the request log; times are UTC seconds."""

    id: str
    created_at: int
    model: str
    status: Status
    output: list[OutputMessage]
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
    tool_choice: Literal["auto"] = "auto"
    tools: list[Any] = []
    top_logprobs: int = 0
    top_p: float = 1.0
    truncation: Literal["disabled"] = "disabled"


def render_answer(generation: Generation, finished: Finished) -> dict[str, Any]:
    """The body of a 200."""
    body: dict[str, Any] = msgspec.to_builtins(_complete(generation, finished))
    return body


def render_events(generation: Generation, request_id: str) -> Iterator[bytes]:
    """The events, in the order that is said above."""
    number = 0

    def event(kind: str, **data: Any) -> bytes:
        nonlocal number
        number += 1
        return sse_event(kind, {"type": kind, "sequence_number": number - 1, **data})

    begun = _begun(generation)
    yield event("response.created", response=begun)
    yield event("response.in_progress", response=begun)
    pieces: list[str] = []
    begun_item = OutputMessage(_item_id(generation), "in_progress", [])
    at: dict[str, Any] = {"item_id": _item_id(generation), "output_index": 0, "content_index": 0}
    for text in texts(generation, KEEP_ALIVE_S):
        if text is None:
            yield keep_alive(generation.queue_position)
            continue
        if not pieces:
            yield event("response.output_item.added", output_index=0, item=begun_item)
            yield event("response.content_part.added", **at, part=OutputTextPart(""))
        pieces.append(text)
        yield event("response.output_text.delta", **at, delta=text, logprobs=[])
    finished = generation.wait()
    assert finished is not None
    if isinstance(finished.result, Problem):
        yield event("response.failed", response=_failed(generation, finished.result))
        return
    response = _complete(generation, finished)
    answer = finished.result
    if pieces:
        yield event("response.output_text.done", **at, text=answer.text, logprobs=[])
        yield event("response.content_part.done", **at, part=OutputTextPart(answer.text))
    if answer.refusal is not None:
        if not pieces:
            yield event("response.output_item.added", output_index=0, item=begun_item)
        at["content_index"] = 1 if pieces else 0
        yield event("response.content_part.added", **at, part=RefusalPart(""))
        yield event("response.refusal.delta", **at, delta=answer.refusal)
        yield event("response.refusal.done", **at, refusal=answer.refusal)
        yield event("response.content_part.done", **at, part=RefusalPart(answer.refusal))
    for item in response.output:
        yield event("response.output_item.done", output_index=0, item=item)
    yield event(f"response.{response.status}", response=response)


def _begun(generation: Generation) -> Response:
    request = generation.request
    return Response(
        id="resp_" + run_number(generation.id),
        created_at=int(generation.started_at),
        model=request.model,
        status="in_progress",
        output=[],
        text={"format": json_format(request), "verbosity": request.verbosity or "medium"},
        reasoning=ReasoningShown(request.effort),
        max_output_tokens=request.max_output_tokens,
    )


def _complete(generation: Generation, finished: Finished) -> Response:
    answer = finished.result
    assert isinstance(answer, Answer)
    cut = finish_reason(answer.stop_reason) == "length"
    status: Literal["incomplete", "completed"] = "incomplete" if cut else "completed"
    parts: list[OutputTextPart | RefusalPart] = [OutputTextPart(answer.text)] if answer.text else []
    if answer.refusal is not None:
        parts.append(RefusalPart(answer.refusal))
    return msgspec.structs.replace(
        _begun(generation),
        model=answer.model,
        status=status,
        completed_at=None if cut else int(generation.started_at + finished.duration_ms / 1000),
        output=[OutputMessage(_item_id(generation), status, parts)] if parts else [],
        incomplete_details=IncompleteDetails() if cut else None,
        usage=ResponseUsage.of(finished.charge.usage),
    )


def _failed(generation: Generation, problem: Problem) -> Response:
    code: Literal["server_error", "rate_limit_exceeded", "invalid_prompt"] = "invalid_prompt"
    if problem.sdk_status >= 500:
        code = "server_error"
    if error_type(problem) in ("rate_limit_error", "insufficient_quota") or problem.code == "provider_rate_limited":
        code = "rate_limit_exceeded"
    shown = ResponseError(code, f"{problem.message} {problem.hint}", problem.code)
    return msgspec.structs.replace(_begun(generation), status="failed", error=shown)


def _item_id(generation: Generation) -> str:
    return "msg_" + run_number(generation.id)


API = Api(
    name=API_NAME,
    text="OpenAI's responses.",
    paths={"/v1/responses": None},
    parse=parse,
    answer=render_answer,
    error=render_error,
    events=render_events,
    parameters=PARAMETERS,
    body_type=ResponsesBody,
    answer_type=Response,
    error_type=OpenAIErrorBody,
    example={"model": "gpt-6-sol", "input": "Hello"},
)
