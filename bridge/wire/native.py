"""The native API, requests: the bodies of `POST /generate` and `/generate-codex`. Bytes in, types out. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from bridge.errors import BridgeError
from bridge.settings import Settings
from bridge.types import MODEL_PATTERN, GenerationRequest, Image, Message, Text

#: Longest prompt, in characters.
MAX_PROMPT_CHARACTERS = 500_000
#: Most messages of one conversation, and most images of one request.
MAX_MESSAGES, MAX_IMAGES = 1000, 50

MediaType = Literal["image/png", "image/jpeg", "image/gif", "image/webp"]
Effort = Literal["minimal", "low", "medium", "high", "xhigh", "max"]


class TextPart(msgspec.Struct, tag="text", tag_field="type", forbid_unknown_fields=True):
    """A piece of text of a message."""

    text: str


class ImagePart(msgspec.Struct, tag="image", tag_field="type", rename="camel", forbid_unknown_fields=True):
    """An image of a message, base64."""

    media_type: MediaType
    data: str


class WireMessage(msgspec.Struct, forbid_unknown_fields=True):
    """A turn of the conversation."""

    role: Literal["user", "assistant"]
    content: str | list[TextPart | ImagePart]


class GenerateBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """The body of a request. docs/api.md describes each field."""

    user_prompt: str | None = None
    system_prompt: str | None = None
    messages: list[WireMessage] | None = None
    images: list[str] | None = None
    model: str | None = None
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    effort: Effort | None = None
    timeout_seconds: Annotated[float, Meta(gt=0)] | None = None
    schema: dict[str, Any] | None = None
    stream: bool | None = None


_decoder = msgspec.json.Decoder(GenerateBody)
_DATA_URL = re.compile(r"data:(image/(?:png|jpeg|gif|webp));base64,([A-Za-z0-9+/=\s]+)\Z")


def parse(body: bytes, *, provider: str, default_model: str, settings: Settings) -> tuple[GenerationRequest, bool]:
    """The request, and whether it asks for a stream. Raises BridgeError (invalid_request)."""
    try:
        wire = _decoder.decode(body)
    except msgspec.ValidationError as error:
        raise BridgeError("invalid_request", _sentence(str(error))) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BridgeError("invalid_request", "The body is not valid JSON.") from None
    messages = _conversation(wire)
    model = wire.model if wire.model is not None else default_model
    if not re.fullmatch(MODEL_PATTERN, model):
        raise BridgeError("invalid_request", "model is not a well-formed model name.")
    limit = settings.max_output_tokens_limit
    if wire.max_output_tokens is not None and wire.max_output_tokens > limit:
        raise BridgeError("invalid_request", f"maxOutputTokens must be at most {limit}.")
    if wire.timeout_seconds is not None and wire.timeout_seconds > settings.timeout_s:
        raise BridgeError("invalid_request", f"timeoutSeconds must be at most {settings.timeout_s:g}.")
    request = GenerationRequest(
        provider=provider,
        model=model,
        messages=messages,
        system=_prompt("systemPrompt", wire.system_prompt or ""),
        max_output_tokens=wire.max_output_tokens or settings.max_output_tokens,
        timeout_s=wire.timeout_seconds or settings.timeout_s,
        effort=wire.effort,
        schema=wire.schema,
    )
    return request, bool(wire.stream)


def _conversation(wire: GenerateBody) -> tuple[Message, ...]:
    if wire.messages is not None and wire.user_prompt is not None:
        raise BridgeError("invalid_request", "Give userPrompt or messages, not both.")
    if wire.messages is None:
        if wire.user_prompt is None:
            raise BridgeError("invalid_request", "userPrompt is missing.")
        if not wire.user_prompt.strip():
            raise BridgeError("invalid_request", "userPrompt is empty.")
        messages = [Message("user", (Text(_prompt("userPrompt", wire.user_prompt)),))]
    else:
        messages = _messages(wire.messages)
    if wire.images:
        pictures = tuple(_image(url, f"images[{i}]") for i, url in enumerate(wire.images))
        last = messages[-1]
        messages[-1] = Message(last.role, (*pictures, *last.content))
    if sum(isinstance(part, Image) for message in messages for part in message.content) > MAX_IMAGES:
        raise BridgeError("invalid_request", f"A request may have at most {MAX_IMAGES} images.")
    if sum(len(message.text) for message in messages) > MAX_PROMPT_CHARACTERS:
        raise BridgeError(
            "invalid_request", f"The messages are longer than {MAX_PROMPT_CHARACTERS} characters together."
        )
    return tuple(messages)


def _messages(wire: list[WireMessage]) -> list[Message]:
    if not wire:
        raise BridgeError("invalid_request", "messages is empty.")
    if len(wire) > MAX_MESSAGES:
        raise BridgeError("invalid_request", f"messages has more than {MAX_MESSAGES} entries.")
    if wire[-1].role != "user":
        raise BridgeError("invalid_request", "The last of messages must be from the user.")
    messages = []
    for number, message in enumerate(wire):
        where = f"messages[{number}].content"
        parts: list[Text | Image] = []
        if isinstance(message.content, str):
            parts.append(Text(_prompt(where, message.content)))
        else:
            for position, part in enumerate(message.content):
                at = f"{where}[{position}]"
                if isinstance(part, TextPart):
                    parts.append(Text(_prompt(f"{at}.text", part.text)))
                elif message.role == "assistant":
                    raise BridgeError("invalid_request", f"{at}: only a user's message may have images.")
                else:
                    parts.append(_picture(part.media_type, part.data, at))
        # Empty text blocks are refused upstream; they carry nothing.
        kept = tuple(p for p in parts if not (isinstance(p, Text) and not p.text.strip()))
        if not kept:
            raise BridgeError("invalid_request", f"{where} is empty.")
        messages.append(Message(message.role, kept))
    return messages


def _prompt(field: str, text: str) -> str:
    """`text`, if it is something that a CLI can be given."""
    if len(text) > MAX_PROMPT_CHARACTERS:
        raise BridgeError("invalid_request", f"{field} is longer than {MAX_PROMPT_CHARACTERS} characters.")
    if "\0" in text:
        raise BridgeError("invalid_request", f"{field} contains a NUL character.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BridgeError("invalid_request", f"{field} contains half a character (a lone surrogate).") from None
    return text


def _image(url: str, where: str) -> Image:
    match = _DATA_URL.match(url)
    if match is None:
        raise BridgeError(
            "invalid_request",
            f"{where} is not a data URL of a png, jpeg, gif or webp image (data:image/png;base64,...).",
        )
    return _picture(match.group(1), match.group(2), where)


_MAGIC = {
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/gif": (b"GIF87a", b"GIF89a"),
    "image/webp": (b"RIFF",),
}


def _picture(media_type: str, data: str, where: str) -> Image:
    try:
        raw = base64.b64decode(re.sub(r"\s+", "", data), validate=True)
    except (binascii.Error, ValueError):
        raise BridgeError("invalid_request", f"{where} is not valid base64.") from None
    if not raw.startswith(_MAGIC[media_type]) or (media_type == "image/webp" and raw[8:12] != b"WEBP"):
        raise BridgeError("invalid_request", f"{where} is not a {media_type} image.")
    return Image(media_type, base64.b64encode(raw).decode())


def _sentence(message: str) -> str:
    """msgspec's message with the field's name first: ``Expected `str`, got `int` - at `$.userPrompt` ``."""
    text, _, path = message.partition(" - at ")
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", text, re.DOTALL)
    place = path.strip("`").removeprefix("$").removeprefix(".")
    if unknown:
        field = f"{place}.{unknown.group(1)}" if place else unknown.group(1)
        return f"Unknown field {field[:100]!r}."
    text = text.replace("`", "")
    return f"{place[:200]}: {text[:300]}." if place else f"{text[:300]}."
