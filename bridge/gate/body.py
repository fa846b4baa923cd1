"""The body of a call, held against what its run vouches for, and what is put into it: a CLI is given stand-ins for the
images of a run and the words of its tools, which are replaced here. Pure.

Shapes: Anthropic's Messages API as claude 2.1.332 sends it, OpenAI's Responses API as codex 0.171.0 sends it; both
seen by tests/real_cli.
"""

from __future__ import annotations

import base64
import re
import secrets
import struct
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from bridge.gate.ticket import Mark, Vouched, Wire
from bridge.types import GenerationRequest, Image, Message, Part, Search, Text, Thought, ToolCall, ToolResult

#: System texts that claude puts before the run's own: what it is, and a line for the provider's books.
_CLAUDES_OWN = ("x-anthropic-billing-header:", "You are a Claude agent, built on Anthropic's Claude Agent SDK.")
#: Objects of a body that are completed, and not replaced; see `put`.
_MERGED = ("text", "reasoning", "output_config")
_encode = msgspec.json.Encoder(order="sorted").encode


#: What claude says beside an image that it has made smaller.
_SMALLER = re.compile(
    r"\[Image: original \d+x\d+, displayed at \d+x\d+\. Multiply coordinates by [\d.]+ to map to original image\.\]"
)
#: In the place of an image's data: whatever the CLI has made of it.
ANY_IMAGE = ""


class Refused(Exception):
    """The body is not the run's own. The text says what differs, and never what stands there."""


def marks(messages: Iterable[Message], exact: Collection[str] = ()) -> tuple[tuple[str, tuple[Mark, ...]], ...]:
    """A conversation as `Vouched.messages` has it. Images with other data than those in `exact` may be made smaller by
    the CLI: at their place any image may stand."""
    turns: list[tuple[str, list[Mark]]] = []
    for message in messages:
        _add(turns, message.role, [_mark(part, exact) for part in message.content])
    return _merged(turns)


def check(wire: Wire, body: Any, vouched: Vouched) -> None:
    """Raise Refused where `body` is not what the run vouches for."""
    if not isinstance(body, dict):
        raise Refused("the body is no JSON object")
    read = _read_messages if wire == "messages" else _read_responses
    try:
        system, turns, limit, tools = read(body)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise Refused(f"the body has a shape that is not known ({type(error).__name__})") from None
    # The CLIs write names that they know in lower case.
    if str(body.get("model")).lower() != vouched.model.lower():
        raise Refused("the model")
    if limit is not None and limit > vouched.output_tokens:
        raise Refused("the output limit")
    if limit is None and wire == "messages":
        raise Refused("the output limit is missing")
    # A client may well be a claude itself, with the same lines before its own.
    others = [text for text in system if not text.startswith(_CLAUDES_OWN)]
    if vouched.system.strip() not in ("\n\n".join(system).strip(), "\n\n".join(others).strip()):
        raise Refused("the system text")
    if not tools <= vouched.tools:
        raise Refused("the tools")
    if len(turns) != len(vouched.messages):
        raise Refused(f"the number of messages ({len(turns)} instead of {len(vouched.messages)})")
    for number, (got, expected) in enumerate(zip(turns, vouched.messages, strict=True)):
        if got != expected and not _fits(got, expected):
            raise Refused(f"message {number}")


def _fits(got: tuple[str, tuple[Mark, ...]], expected: tuple[str, tuple[Mark, ...]]) -> bool:
    """Whether they are the same but for images that the CLI may have made smaller, of which claude says so."""
    (role, parts), (wanted_role, wanted) = got, expected
    said = [part for part in parts if not (part[0] == "text" and _SMALLER.fullmatch(part[1]))]
    return (
        ("image", ANY_IMAGE) in wanted
        and role == wanted_role
        and len(said) == len(wanted)
        # claude breaks the line before what it says of images.
        and all(
            part in (each, (each[0], each[1] + "\n")) or (part[0] == "image" and each[1] == ANY_IMAGE)
            for part, each in zip(said, wanted, strict=True)
        )
    )


def put(body: dict[str, Any], put_in: Mapping[str, Any]) -> dict[str, Any]:
    """A body with what its CLI cannot carry. Objects of `_MERGED` are completed, everything else is replaced; None
    takes a field away."""
    merged = {
        name: _without_none({**(body.get(name) or {}), **put_in[name]}) or None for name in _MERGED if name in put_in
    }
    return _without_none({**body, **put_in, **merged})


def complete(
    wire: Wire, body: dict[str, Any], pictures: Mapping[str, Image], tool_parts: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """A body, of which `check` has said that it is the run's, with images, calls and results in the place of those
    that stand for them; see `Ticket`."""
    if wire == "responses":
        items = [_complete_item(item, pictures, tool_parts) for item in body["input"]]
        return {**body, "input": items}
    turns = [
        turn
        if isinstance(turn["content"], str)
        else {**turn, "content": [_complete_block(block, pictures, tool_parts) for block in turn["content"]]}
        for turn in body["messages"]
    ]
    return {**body, "messages": turns}


def _complete_item(item: Any, pictures: Mapping[str, Image], tool_parts: Mapping[str, Mapping[str, Any]]) -> Any:
    if item.get("type", "message") != "message":
        return tool_parts.get(f"{item['type']} {item['call_id']}", item)

    def shown(part: Any) -> Any:
        image = pictures.get(_mark_of_part(part)[1]) if part["type"] == "input_image" else None
        return part if image is None else {**part, "image_url": image.address}

    return {**item, "content": [shown(part) for part in item["content"]]}


def _complete_block(block: Any, pictures: Mapping[str, Image], tool_parts: Mapping[str, Mapping[str, Any]]) -> Any:
    match block["type"]:
        case "image":
            image = pictures.get(_mark_of_block(block)[1])
            if image is not None and image.url:
                return {**block, "source": {"type": "url", "url": image.url}}
            if image is not None:
                return {**block, "source": {**block["source"], "media_type": image.media_type, "data": image.data}}
        case "text":
            own = tool_parts.get(block["text"])
            if own is not None:
                # The mark of what the provider is to cache stays where the CLI has set it.
                return {**own, **{name: block[name] for name in ("cache_control",) if name in block}}
    return block


def _without_none(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _read_messages(body: dict[str, Any]) -> tuple[list[str], Sequence[Any], int | None, frozenset[str]]:
    given = body.get("system") or []
    system = [given] if isinstance(given, str) else [block["text"] for block in given]
    turns: list[tuple[str, list[Mark]]] = []
    for message in body["messages"]:
        content = message["content"]
        if message["role"] == "system":
            if content:
                raise Refused("a system message among the messages")
            continue
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        _add(turns, message["role"], [_mark_of_block(part) for part in parts])
    tools = frozenset(str(tool.get("name")) for tool in body.get("tools") or ())
    return system, _merged(turns), body.get("max_tokens"), tools


def _mark_of_block(block: dict[str, Any]) -> Mark:
    match block["type"]:
        case "text":
            return "text", block["text"]
        case "image" if block["source"]["type"] == "base64":
            return "image", block["source"]["data"]
    raise Refused(f"a part of the kind {str(block['type'])[:40]}")


def _mark_of_call(id: str, name: str, arguments: str) -> Mark:
    return "tool_call", _encode([id, name, arguments]).decode()


def _mark_of_result(id: str, content: Sequence[Mark], *, is_error: bool) -> Mark:
    return "tool_result", _encode([id, content, is_error]).decode()


def _read_responses(body: dict[str, Any]) -> tuple[list[str], Sequence[Any], int | None, frozenset[str]]:
    system = [body["instructions"]] if body.get("instructions") else []
    tools = {str(tool.get("name") or tool.get("type")) for tool in body.get("tools") or ()}
    turns: list[tuple[str, list[Mark]]] = []
    for item in body["input"]:
        kind = item.get("type", "message")
        if kind == "function_call":
            _add(turns, "assistant", [_mark_of_call(item["call_id"], item["name"], item["arguments"])])
        elif kind == "function_call_output":
            output = item["output"]
            parts = [{"type": "input_text", "text": output}] if isinstance(output, str) else output
            content = [_mark_of_part(part) for part in parts]
            _add(turns, "user", [_mark_of_result(item["call_id"], content, is_error=False)])
        elif kind != "message":
            raise Refused(f"an item of the kind {str(kind)[:40]}")
        elif item["role"] in ("developer", "system"):
            system += [part["text"] for part in item["content"]]
        else:
            _add(turns, item["role"], [_mark_of_part(part) for part in item["content"]])
    return system, _merged(turns), body.get("max_output_tokens"), frozenset(tools)


def _mark_of_part(part: dict[str, Any]) -> Mark:
    if part["type"] in ("input_text", "output_text"):
        return "text", part["text"]
    if part["type"] == "input_image":
        return "image", part["image_url"].partition(";base64,")[2]
    raise Refused(f"a part of the kind {str(part['type'])[:40]}")


def _mark(part: Part, exact: Collection[str]) -> Mark:
    match part:
        case Text(text):
            return "text", text
        case Image():
            return "image", part.data if part.data in exact else ANY_IMAGE
        case ToolCall(id, name, arguments):
            return _mark_of_call(id, name, arguments)
        case ToolResult(id, content, is_error):
            return _mark_of_result(id, [_mark(each, exact) for each in content], is_error=is_error)
        case Thought(text) | Search(_, text):
            # No CLI is told one: the gate puts thoughts in, and searches are left out.
            return "thought", text


def _add(turns: list[tuple[str, list[Mark]]], role: str, parts: list[Mark]) -> None:
    if turns and turns[-1][0] == role:
        turns[-1][1].extend(parts)
    else:
        turns.append((role, parts))


def _merged(turns: list[tuple[str, list[Mark]]]) -> tuple[tuple[str, tuple[Mark, ...]], ...]:
    return tuple((role, tuple(parts)) for role, parts in turns)


# --- what a CLI is given in the place of images and of the words of tools --------------------------


def with_stand_ins(
    request: GenerationRequest, wanted: Callable[[Image], bool] = lambda image: True
) -> tuple[GenerationRequest, dict[str, Image]]:
    """The request with a picture of one pixel in the place of each link, and of each image that is `wanted` so; and
    what they stand for, by the data of those. The gate puts it in.

    The CLIs decode a large image and make it smaller, which costs them time and memory; one of this size they pass on
    as it is (seen in tests/real_cli). Of a link they are to know nothing, since whoever knows one can follow it.
    """
    images: dict[str, Image] = {}

    def stand_in(part: Part) -> Part:
        # An image that has no more than a pixel may be the very one that stands for another.
        if not isinstance(part, Image) or not (part.url or part.pixels == 1 or wanted(part)):
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
