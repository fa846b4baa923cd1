"""OpenAI's chat completions: `POST /v1/chat/completions`. Bytes in, types out, and back. Pure.

The order of the chunks: one with the role, those with the text, of a refusal one with its words, one with the finish
reason, with `include_usage` one with the usage, then `[DONE]`. An error in the middle takes the place of all the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from bridge.errors import Problem
from bridge.settings import Settings
from bridge.types import Answer, Finished, GenerationRequest, Image
from bridge.wire import content
from bridge.wire.api import KEEP_ALIVE_S, Api, Events, Generation, Resolve, keep_alive, sse_data, texts
from bridge.wire.content import invalid
from bridge.wire.conversation import ANY_OBJECT, PlainText, Turns, Verbosity, generation, run_number
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
from bridge.wire.parameters import CACHED, NO_TOOLS, SAMPLING, ignored, passed_over, read, refused, supported, table

#: as the log shows it
API_NAME = "openai-chat"

_NOT_KEPT = "nothing is kept to be fetched later"

PARAMETERS = table(
    supported("messages", "system, developer, user, assistant; text and images as data URLs"),
    supported("model", "its name picks the CLI; aliases work"),
    supported("max_completion_tokens", "more than the bridge allows counts as what it allows"),
    supported("max_tokens", "the same, older name"),
    supported("reasoning_effort", "none counts as minimal; a model may know fewer steps"),
    supported("response_format", "text, json_object, json_schema; any JSON Schema, strict or not"),
    supported("stop", "a text or a list; applied by the bridge; not together with a JSON format"),
    supported("stream", "server-sent events"),
    supported("stream_options", "include_usage"),
    supported("verbosity", "low, medium, high; claude passes it over"),
    refused("audio", "the CLIs have no audio"),
    passed_over("frequency_penalty", SAMPLING, 0),
    refused("function_call", NO_TOOLS, "none", "auto"),
    refused("functions", NO_TOOLS, []),
    passed_over("logit_bias", SAMPLING, {}),
    passed_over("logprobs", "the CLIs do not tell them", False),
    ignored("metadata", "not kept"),
    refused("modalities", "only text", ["text"]),
    refused("moderation", "there is none here"),
    refused("n", "one answer for each request; only 1 is taken", 1),
    ignored("parallel_tool_calls", NO_TOOLS),
    ignored("prediction", "the answer is the same, not quicker"),
    passed_over("presence_penalty", SAMPLING, 0),
    ignored("prompt_cache_key", CACHED),
    ignored("prompt_cache_options", CACHED),
    ignored("prompt_cache_retention", CACHED),
    ignored("safety_identifier", "the key says who asks"),
    passed_over("seed", "it never promised the same answer; here it does nothing"),
    refused("service_tier", "only the ordinary one", "auto", "default"),
    ignored("store", _NOT_KEPT),
    passed_over("temperature", SAMPLING, 1),
    refused("tool_choice", NO_TOOLS, "none", "auto"),
    refused("tools", NO_TOOLS, []),
    passed_over("top_logprobs", "the CLIs do not tell them", 0),
    passed_over("top_p", SAMPLING, 1),
    ignored("user", "the key says who asks"),
    refused("web_search_options", NO_TOOLS),
)


class ChatText(PlainText, tag="text", tag_field="type"):
    """A piece of text of a message."""


class ChatImage(msgspec.Struct, tag="image_url", tag_field="type"):
    """An image of a user's message."""

    image_url: ImageUrl | str

    def part(self, at: str, role: str) -> Image:
        """See WirePart."""
        if isinstance(self.image_url, str):
            return content.image_of_url(self.image_url, f"{at}.image_url")
        return content.image_of_url(self.image_url.url, f"{at}.image_url.url")


class ChatMessage(msgspec.Struct):
    """A turn of the conversation. `name` is not passed on."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[ChatText | ChatImage | RefusalPart] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    function_call: dict[str, Any] | None = None


class ChatSchemaFormat(msgspec.Struct, tag="json_schema", tag_field="type"):
    """JSON that fits a schema."""

    json_schema: NamedSchema


class StreamOptions(msgspec.Struct):
    """`include_usage`: a last chunk with the usage."""

    include_usage: bool | None = None


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


def parse(body: bytes, *, settings: Settings, resolve: Resolve) -> tuple[GenerationRequest, Events | None]:
    """The request, and how its stream is told where it asks for one. Raises BridgeError."""
    wire, ignored = read(body, PARAMETERS, ChatBody)
    stop = [wire.stop] if isinstance(wire.stop, str) else wire.stop or []
    request = generation(
        settings,
        resolve(content.model_name(wire.model)),
        _turns(wire.messages),
        api=API_NAME,
        max_output_tokens=wire.max_completion_tokens or wire.max_tokens,
        effort=wire.reasoning_effort,
        schema=_schema(wire),
        stop=stop,
        verbosity=wire.verbosity,
        ignored=ignored,
    )
    if not wire.stream:
        return request, None
    with_usage = bool(wire.stream_options and wire.stream_options.include_usage)
    return request, partial(render_events, with_usage=with_usage)


def _schema(wire: ChatBody) -> dict[str, Any] | None:
    if isinstance(wire.response_format, JsonObjectFormat):
        return ANY_OBJECT
    if isinstance(wire.response_format, ChatSchemaFormat):
        return wire.response_format.json_schema.schema or ANY_OBJECT
    return None


def _turns(messages: list[ChatMessage]) -> Turns:
    turns = Turns("messages", goes_on=True)
    for number, message in enumerate(messages):
        if message.tool_calls or message.function_call:
            raise invalid(f"messages[{number}].tool_calls: {NO_TOOLS}.", "messages")
        said = message.content if message.content is not None else message.refusal or ""
        turns.add(message.role, said, f"messages[{number}].content")
    return turns


# --- answers ----------------------------------------------------------------------------------

_DONE = b"data: [DONE]\n\n"


class AnswerMessage(msgspec.Struct):
    """What the model said. `content` is null where it said nothing but its `refusal`."""

    content: str | None
    role: Literal["assistant"] = "assistant"
    refusal: str | None = None
    annotations: list[Any] = []


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


class Delta(msgspec.Struct, omit_defaults=True):
    """A further piece of the answer."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    refusal: str | None = None


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


def render_answer(generation: Generation, finished: Finished) -> dict[str, Any]:
    """The body of a 200."""
    answer = finished.result
    assert isinstance(answer, Answer)
    message = AnswerMessage(answer.text if answer.refusal is None else answer.text or None, refusal=answer.refusal)
    body: dict[str, Any] = msgspec.to_builtins(
        ChatCompletion(
            id=_id(generation),
            created=int(generation.started_at),
            model=answer.model,
            choices=[Choice(message, finish_reason(answer.stop_reason))],
            usage=ChatUsage.of(finished.charge.usage),
        )
    )
    return body


def render_events(generation: Generation, request_id: str, *, with_usage: bool = False) -> Iterator[bytes]:
    """The chunks, in the order that is said above."""
    frame = Chunk(
        _id(generation), int(generation.started_at), generation.request.model, [], None if with_usage else UNSET
    )

    def chunk(delta: Delta, reason: FinishReason | None = None) -> bytes:
        return sse_data(msgspec.structs.replace(frame, choices=[ChunkChoice(delta, reason)]))

    yield chunk(Delta("assistant", ""))
    for text in texts(generation, KEEP_ALIVE_S):
        yield keep_alive(generation.queue_position) if text is None else chunk(Delta(content=text))
    finished = generation.wait()
    assert finished is not None
    if isinstance(finished.result, Problem):
        yield sse_data(render_error(finished.result, request_id))
        return
    if finished.result.refusal is not None:
        yield chunk(Delta(refusal=finished.result.refusal))
    yield chunk(Delta(), finish_reason(finished.result.stop_reason))
    if with_usage:
        yield sse_data(msgspec.structs.replace(frame, usage=ChatUsage.of(finished.charge.usage)))
    yield _DONE


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
