"""The body of a call, held against what its run vouches for, and what is put into it. Pure.

Shapes: Anthropic's Messages API as claude 2.1.332 sends it, OpenAI's Responses API as codex 0.171.0 sends it; both
seen by tests/real_cli.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from bridge.gate.ticket import Mark, Vouched, Wire
from bridge.types import Image, Message, Text

#: System texts that claude puts before the run's own: what it is, and a line for the provider's books.
_CLAUDES_OWN = ("x-anthropic-billing-header:", "You are a Claude agent, built on Anthropic's Claude Agent SDK.")
#: The keys of a Responses body that may be put in; see `put`.
_MERGED = ("text", "reasoning")


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
    if system.strip() != vouched.system.strip():
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
    """A Responses body with what its CLI cannot carry. Objects of `_MERGED` are completed, everything else is
    replaced; None takes a field away."""
    merged = {
        name: _without_none({**(body.get(name) or {}), **put_in[name]}) or None for name in _MERGED if name in put_in
    }
    return _without_none({**body, **put_in, **merged})


def illustrate(wire: Wire, body: dict[str, Any], pictures: Mapping[str, Image]) -> dict[str, Any]:
    """A body, of which `check` has said that it is the run's, with the images in the place of those that stand for
    them."""

    def shown(part: Any) -> Any:
        if not isinstance(part, dict) or part.get("type") not in ("input_image", "image"):
            return part
        image = pictures.get((_mark_of_part if wire == "responses" else _mark_of_block)(part)[1])
        if image is None:
            return part
        if wire == "responses":
            return {**part, "image_url": f"data:{image.media_type};base64,{image.data}"}
        return {**part, "source": {**part["source"], "media_type": image.media_type, "data": image.data}}

    field = "input" if wire == "responses" else "messages"
    turns = [
        turn if isinstance(turn["content"], str) else {**turn, "content": [shown(part) for part in turn["content"]]}
        for turn in body[field]
    ]
    return {**body, field: turns}


def _without_none(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _read_messages(body: dict[str, Any]) -> tuple[str, Sequence[Any], int | None, frozenset[str]]:
    given = body.get("system") or []
    blocks = [given] if isinstance(given, str) else [block["text"] for block in given]
    system = "\n\n".join(text for text in blocks if not text.startswith(_CLAUDES_OWN))
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
    if block["type"] == "text":
        return "text", block["text"]
    if block["type"] == "image" and block["source"]["type"] == "base64":
        return "image", block["source"]["data"]
    raise Refused(f"a part of the kind {str(block['type'])[:40]}")


def _read_responses(body: dict[str, Any]) -> tuple[str, Sequence[Any], int | None, frozenset[str]]:
    system = [body["instructions"]] if body.get("instructions") else []
    tools = {str(tool.get("name") or tool.get("type")) for tool in body.get("tools") or ()}
    turns: list[tuple[str, list[Mark]]] = []
    for item in body["input"]:
        if item.get("type", "message") != "message":
            raise Refused(f"an item of the kind {str(item.get('type'))[:40]}")
        if item["role"] in ("developer", "system"):
            system += [part["text"] for part in item["content"]]
        else:
            _add(turns, item["role"], [_mark_of_part(part) for part in item["content"]])
    return "\n\n".join(system), _merged(turns), body.get("max_output_tokens"), frozenset(tools)


def _mark_of_part(part: dict[str, Any]) -> Mark:
    if part["type"] in ("input_text", "output_text"):
        return "text", part["text"]
    if part["type"] == "input_image":
        return "image", part["image_url"].partition(";base64,")[2]
    raise Refused(f"a part of the kind {str(part['type'])[:40]}")


def _mark(part: Any, exact: Collection[str]) -> Mark:
    if isinstance(part, Text):
        return "text", part.text
    if isinstance(part, Image):
        return "image", part.data if part.data in exact else ANY_IMAGE
    raise TypeError(f"{type(part).__name__} has no mark")


def _add(turns: list[tuple[str, list[Mark]]], role: str, parts: list[Mark]) -> None:
    if turns and turns[-1][0] == role:
        turns[-1][1].extend(parts)
    else:
        turns.append((role, parts))


def _merged(turns: list[tuple[str, list[Mark]]]) -> tuple[tuple[str, tuple[Mark, ...]], ...]:
    return tuple((role, tuple(parts)) for role, parts in turns)
