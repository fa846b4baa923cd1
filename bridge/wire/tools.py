"""Tools in the bodies of every API: which may be offered, and which of them must be called. Pure.

Everything here raises BridgeError (invalid_request). `at` is a place in the body, as the sentence of a refusal names
it. Source of the rules for names: what Anthropic and OpenAI document, and what the CLIs take (docs/clis.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

from bridge.types import Tool, ToolChoice
from bridge.wire import content
from bridge.wire.content import invalid

#: Most tools of a request, bytes of JSON of all together, and how deep one's schema may be nested.
MAX_TOOLS, MAX_TOOL_BYTES, MAX_SCHEMA_DEPTH = 512, 1_000_000, 100
#: What a tool may be called.
NAME_PATTERN = r"[A-Za-z0-9_-]{1,128}"
#: What the arguments of a tool look like that names no schema.
NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}}


def tool(at: str, name: str, description: str | None, schema: dict[str, Any] | None, strict: bool | None) -> Tool:
    """A tool that is offered."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise invalid(f"{at}.name must be 1 to 128 letters, digits, underscores and hyphens; it is {name[:100]!r}.")
    if too_deep(schema):
        raise invalid(f"The schema of the tool {name} is nested more than {MAX_SCHEMA_DEPTH} deep.")
    return Tool(name, content.prompt(f"{at}.description", description or ""), schema or NO_ARGUMENTS, strict)


def offered(tools: Sequence[Tool]) -> tuple[Tool, ...]:
    """All the tools of a request, if they are not too many, too large, or several of one name."""
    seen: set[str] = set()
    for each in tools:
        if each.name in seen:
            raise invalid(f"Two tools have the name {each.name}.", "tools")
        seen.add(each.name)
    if len(tools) > MAX_TOOLS:
        raise invalid(f"A request may offer at most {MAX_TOOLS} tools; it offers {len(tools)}.", "tools")
    try:
        size = len(msgspec.json.encode(tools)) if tools else 0
    except (UnicodeEncodeError, msgspec.MsgspecError):
        raise invalid(
            "A tool has half a character (a lone surrogate), or a number that is too large.", "tools"
        ) from None
    if size > MAX_TOOL_BYTES:
        raise invalid(f"The tools have {size} bytes as JSON together; they may have {MAX_TOOL_BYTES}.", "tools")
    return tuple(tools)


Mode = Literal["auto", "none", "required"]


def choice(
    field: str, tools: Sequence[Tool], mode: Mode = "auto", name: str | None = None, *, parallel: bool = True
) -> ToolChoice:
    """Which of the tools may or must be called; `name` is the one that must be. `field` is its name in the body."""
    if name is not None and all(each.name != name for each in tools):
        raise invalid(f"{field} names the tool {name[:100]!r}, which is not among the tools of the request.", field)
    if mode == "required" and not tools:
        raise invalid(f"{field} asks for a call, but the request offers no tools.", field)
    return ToolChoice("required" if name is not None else mode, name, parallel)


def allowed(field: str, tools: Sequence[Tool], names: Iterable[str]) -> tuple[Tool, ...]:
    """Those of the tools that may be called, by OpenAI's `allowed_tools`."""
    wanted = set(names)
    missing = sorted(wanted - {each.name for each in tools})
    if missing:
        raise invalid(
            f"{field} names the tool {missing[0][:100]!r}, which is not among the tools of the request.", field
        )
    return tuple(each for each in tools if each.name in wanted)


def pass_over(given: Iterable[tuple[str, str]], own: Sequence[Tool], ignored: list[str]) -> None:
    """What becomes of tools that their vendor would run, and nobody does here; they are given as (place, type). A
    program that brings tools of its `own` goes on without them, and finds them in `ignored`."""
    for at, kind in given:
        if not own:
            raise invalid(f"{at}.type: the bridge has no tools of the type {kind[:100]!r}; offer functions.", "tools")
        ignored.append(kind)


def object_of(arguments: str) -> dict[str, Any]:
    """The arguments of a call for the APIs that tell them as an object. Where a model wrote none that can be read, they
    are wrapped in the way that Anthropic's documentation of broken JSON asks for."""
    try:
        value = msgspec.json.decode(arguments or "{}")
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {"INVALID_JSON": arguments}


def too_deep(schema: Any) -> bool:
    """Whether lists and objects lie in each other too deep."""
    level = [schema]
    for _ in range(MAX_SCHEMA_DEPTH):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return False
    return True


# --- tools whose argument is a text ---------------------------------------------------------------

#: How a tool that takes a text is offered to a model that only knows functions.
_ONE_TEXT: dict[str, Any] = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
    "additionalProperties": False,
}


def freeform(at: str, name: str, description: str | None, form: dict[str, Any] | None) -> Tool:
    """A tool of OpenAI's type `custom`, whose argument is a text and no JSON: a function with one text. `form` may have
    a grammar, which the model is told in words."""
    words = [description or ""]
    if form is not None and isinstance(form.get("definition"), str):
        words.append(f"The input must follow this grammar ({form.get('syntax', 'any')}):\n{form['definition']}")
    return tool(at, name, "\n\n".join(filter(None, words)), _ONE_TEXT, None)


def arguments_of_text(text: str) -> str:
    """The arguments of a call whose argument is a text."""
    return msgspec.json.encode({"input": text}).decode()


def text_of_arguments(arguments: str) -> str:
    """The text of such a call; the arguments themselves where a model wrote them another way."""
    try:
        value = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return arguments
    text = value.get("input") if isinstance(value, dict) else value
    return text if isinstance(text, str) else arguments
