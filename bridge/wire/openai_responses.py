"""OpenAI's Responses API, requests: the bodies of `POST /v1/responses`. Bytes in, types out. Pure."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from bridge.settings import Settings
from bridge.types import GenerationRequest, Image, Text
from bridge.wire import content
from bridge.wire.content import invalid
from bridge.wire.dropin import ANY_OBJECT, Resolve, Turns, generation
from bridge.wire.openai import JsonObjectFormat, TextFormat
from bridge.wire.parameters import ignored, read, refused, supported, table

#: as the log shows it
API_NAME = "openai-responses"

_NO_TOOLS = "the CLIs are given no tools"
_NO_STATE = "the bridge keeps no conversations; send the earlier messages in input"
_CACHE = "the CLIs decide what is cached"
_SAMPLING = "the CLIs cannot set it; only 1, the default, is taken"

PARAMETERS = table(
    supported("input", "a text, or messages with text and images as data URLs; reasoning items are skipped"),
    supported("instructions", "the system prompt; system and developer messages are added to it"),
    supported("max_output_tokens", "more than the bridge allows counts as what it allows"),
    supported("model", "its name picks the CLI; aliases work"),
    supported("reasoning", "effort; none counts as minimal; there are no summaries"),
    supported("stream", "server-sent events"),
    supported("text", "format: text, json_object, json_schema (any JSON Schema, strict or not); verbosity: medium"),
    refused("access_programs", "there are none here"),
    refused("background", "send the header Prefer: respond-async instead", False),
    refused("context_management", "the bridge changes no prompts", []),
    refused("conversation", _NO_STATE),
    ignored("image", "images are passed on as they are"),
    ignored("include", "there is nothing to include; no log probabilities, no encrypted reasoning"),
    ignored("max_tool_calls", _NO_TOOLS),
    ignored("metadata", "not kept, and not given back"),
    refused("moderation", "there is none here"),
    ignored("parallel_tool_calls", _NO_TOOLS),
    refused("previous_response_id", _NO_STATE),
    refused("prompt", "the bridge keeps no prompt templates"),
    ignored("prompt_cache_key", _CACHE),
    ignored("prompt_cache_options", _CACHE),
    ignored("prompt_cache_retention", _CACHE),
    ignored("safety_identifier", "the key says who asks"),
    refused("service_tier", "only the ordinary one", "auto", "default"),
    ignored("store", "nothing is kept to be fetched later"),
    ignored("stream_options", "nothing is obfuscated"),
    refused("temperature", _SAMPLING, 1),
    refused("tool_choice", _NO_TOOLS, "none", "auto"),
    refused("tools", _NO_TOOLS, []),
    refused("top_logprobs", "the CLIs do not tell them", 0),
    refused("top_p", _SAMPLING, 1),
    ignored("truncation", "a prompt that is too long is an error"),
    ignored("user", "the key says who asks"),
)


class InputText(msgspec.Struct, tag="input_text", tag_field="type"):
    """A piece of text of a message."""

    text: str


class OutputText(msgspec.Struct, tag="output_text", tag_field="type"):
    """A piece of an earlier answer."""

    text: str


class RefusalPart(msgspec.Struct, tag="refusal", tag_field="type"):
    """What a model said when it declined, in an earlier answer."""

    refusal: str


class InputImage(msgspec.Struct, tag="input_image", tag_field="type"):
    """An image: always a data URL. `detail` is not passed on."""

    image_url: str | None = None
    file_id: str | None = None
    detail: str | None = None


class InputItem(msgspec.Struct):
    """A message, with or without its type; or a reasoning item of an earlier answer, which is skipped."""

    type: Literal["message", "reasoning"] = "message"
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: str | list[InputText | OutputText | RefusalPart | InputImage] | None = None


class JsonSchemaFormat(msgspec.Struct, tag="json_schema", tag_field="type"):
    """JSON that fits a schema. `name`, `strict` and `description` change nothing."""

    schema: dict[str, Any] | None = None
    name: str = "answer"
    strict: bool | None = None
    description: str | None = None


class TextOptions(msgspec.Struct):
    """What the answer shall look like."""

    format: TextFormat | JsonObjectFormat | JsonSchemaFormat | None = None
    verbosity: Literal["medium"] | None = None


class Reasoning(msgspec.Struct):
    """How much to think. `summary` is not passed on: the CLIs give none."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: str | None = None


class ResponsesBody(msgspec.Struct):
    """The body of a request, as far as it is passed on."""

    model: content.ModelName
    input: str | list[InputItem]
    instructions: str | None = None
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    reasoning: Reasoning | None = None
    stream: bool | None = None
    text: TextOptions | None = None


def parse(body: bytes, *, settings: Settings, resolve: Resolve) -> tuple[GenerationRequest, bool]:
    """The request, and whether it asks for a stream. Raises BridgeError (invalid_request, not_found)."""
    wire = read(body, PARAMETERS, ResponsesBody)
    request = generation(
        settings,
        resolve(content.model_name(wire.model)),
        _turns(wire),
        "input",
        api=API_NAME,
        max_output_tokens=wire.max_output_tokens,
        effort=wire.reasoning.effort if wire.reasoning is not None else None,
        schema=_schema(wire.text),
    )
    return request, bool(wire.stream)


def _schema(text: TextOptions | None) -> dict[str, Any] | None:
    if text is None or text.format is None or isinstance(text.format, TextFormat):
        return None
    return (text.format.schema if isinstance(text.format, JsonSchemaFormat) else None) or ANY_OBJECT


def _turns(wire: ResponsesBody) -> Turns:
    turns = Turns()
    turns.instruct(wire.instructions or "", "instructions")
    if isinstance(wire.input, str):
        turns.say("user", [Text(content.prompt("input", wire.input))], "input")
        return turns
    for number, item in enumerate(wire.input):
        where = f"input[{number}].content"
        if item.type == "reasoning":
            continue
        if item.role is None or item.content is None:
            raise invalid(f"input[{number}] has no {'role' if item.role is None else 'content'}.", "input")
        parts = _parts(item.content, where)
        if item.role in ("system", "developer"):
            for part in parts:
                if isinstance(part, Image):
                    raise invalid(f"{where}: only a user's message may have images.", "input")
                turns.instruct(part.text, where)
        else:
            turns.say(item.role, parts, where)
    return turns


def _parts(given: str | list[InputText | OutputText | RefusalPart | InputImage], where: str) -> list[Text | Image]:
    if isinstance(given, str):
        return [Text(content.prompt(where, given))]
    parts: list[Text | Image] = []
    for position, part in enumerate(given):
        at = f"{where}[{position}]"
        if isinstance(part, InputImage):
            if part.image_url is None:
                raise invalid(f"{at} has no image_url; the bridge keeps no files.", "input")
            parts.append(content.image_of_url(part.image_url, f"{at}.image_url"))
        else:
            parts.append(Text(content.prompt(at, part.refusal if isinstance(part, RefusalPart) else part.text)))
    return parts
