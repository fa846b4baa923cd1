"""Stand-ins for the images of a run and the words of its tools: what its CLI is given, and the gate replaces. Pure."""

from __future__ import annotations

import base64
import secrets
import struct
import zlib
from collections.abc import Callable

import msgspec

from bridge.types import GenerationRequest, Image, Message, Part, Text, Thought, ToolCall, ToolResult


def with_stand_ins(
    request: GenerationRequest, wanted: Callable[[Image], bool] = lambda image: True
) -> tuple[GenerationRequest, dict[str, Image]]:
    """The request with a picture of one pixel in the place of each image that is `wanted` so; and the images, by the
    data of those. The gate puts them in.

    The CLIs decode a large image and make it smaller, which costs them time and memory; one of this size they pass on
    as it is (seen in tests/real_cli).
    """
    images: dict[str, Image] = {}

    def stand_in(part: Part) -> Part:
        if not isinstance(part, Image) or not wanted(part):
            return part
        data = _pixel(len(images))
        images[data] = part
        return Image("image/png", data, 1)

    messages = tuple(
        Message(message.role, tuple(map(stand_in, message.content))) if message.images else message
        for message in request.messages
    )
    return msgspec.structs.replace(request, messages=messages), images


def without_tool_words(request: GenerationRequest) -> GenerationRequest:
    """The request with nothing but ids and names in its calls, and "ok" in each result.

    What tools are told and give can be long, and the CLIs change it: they read numbers as JavaScript does, cut what is
    long, and drop images beside errors.
    """

    def brief(part: Part) -> Part:
        match part:
            case ToolCall(id, name):
                return ToolCall(id, name, "{}")
            case ToolResult(id):
                return ToolResult(id, (Text("ok"),))
        return part

    messages = tuple(Message(message.role, tuple(map(brief, message.content))) for message in request.messages)
    return msgspec.structs.replace(request, messages=messages)


def with_texts_for_parts(request: GenerationRequest) -> tuple[GenerationRequest, dict[str, Part]]:
    """The request with a short text in the place of each call, each result and each thought; and these, by those
    texts.

    claude cannot be rewound to a message that is nothing but results, so a process that had seen one would serve no
    other run. Thoughts it leaves out.
    """
    nonce = secrets.token_hex(8)
    parts: dict[str, Part] = {}

    def as_text(part: Part) -> Part:
        if not isinstance(part, ToolCall | ToolResult | Thought):
            return part
        text = f"{nonce} {len(parts)}"
        parts[text] = part
        return Text(text)

    messages = tuple(Message(message.role, tuple(map(as_text, message.content))) for message in request.messages)
    return msgspec.structs.replace(request, messages=messages), parts


def _pixel(number: int) -> str:
    """A PNG of one pixel whose colour is a number, in base64."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"\0" + number.to_bytes(3, "big")))
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b"")).decode()
