"""Answers in JSON: how a schema that one must fit gets to the model, and a call that the model must make where its API
takes no word for that. Such an answer has the schema of the arguments, and is read as the call.

Each CLI has a way of its own, which takes only some schemas (`for_claude`, `for_openai`; docs/clis.md has what was
measured). With all others the model is told in words. Pure.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from bridge.types import (
    Activity,
    Answer,
    Completed,
    Event,
    GenerationRequest,
    PartDelta,
    Text,
    Thought,
    Tool,
    ToolCall,
)

#: Keywords of JSON Schema that both CLIs take: all that OpenAI's strict mode knows, by its guide to structured outputs.
SHARED_KEYWORDS = frozenset(
    {
        *("title", "description"),
        *("type", "enum", "const", "properties", "required", "additionalProperties", "items", "anyOf", "$defs", "$ref"),
        *("pattern", "format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
        *("minItems", "maxItems"),
    }
)
_ESCAPE = r"\\(?:[dDwWsSnrtfv]|x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|[\^$\\.*+?()\[\]{}|/])"
#: Regular expressions that JavaScript, with its flag `u`, takes and understands as Python does. One that it does not
#: take would be found out only after the answer was paid. With one way to match only: it is held against what clients
#: send, in the server itself.
PLAIN_PATTERN = re.compile(
    rf"""(?: (?: [^\\\[\](){{}}*+?|^$] | {_ESCAPE} | \\[bB1-9] | \[(?:\^|(?!\^))(?:[^\\\[\]]|{_ESCAPE}|\\-)+\] | \) )
             (?: (?:[*+?]|\{{\d+(?:,\d*)?\}}) \?? )?
           | \( (?: \?(?:[:=!]|<[=!]) )?
           | [|^$]
         )*""",
    re.VERBOSE,
)
#: Whether an API takes the schemas of strict tools is found out in the server itself, each time they are sent: of tools
#: with more bytes together, as JSON, it takes none.
MOST_STRICT_BYTES = 100_000
#: Dialects in which what is known here means the same.
_DIALECT = re.compile(r"draft-0[67]|draft/2019-09|draft/2020-12")

_ONE = ("items", "additionalProperties", "propertyNames", "not", "if", "then", "else", "contains")
MANY = ("anyOf", "allOf", "oneOf")
_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependencies")

_MUST = "You must call {} now. Do not answer in words."
_IN_WORDS = (
    "Answer with JSON only: one value that fits the JSON Schema below. "
    "No words before or after it, and no code fence.\n\n"
)


def adapt(
    request: GenerationRequest, takes: Callable[[dict[str, Any]], dict[str, Any] | None]
) -> tuple[GenerationRequest, bool]:
    """The request as a CLI is given it, and whether its schema is in words; `takes` is the CLI's own `for_…`."""
    if request.schema is None:
        return request, False
    schema = fitting(takes, request.schema)
    if schema is None:
        return in_words(request), True
    return msgspec.structs.replace(request, schema=schema), False


def fitting(takes: Callable[[dict[str, Any]], dict[str, Any] | None], schema: dict[str, Any]) -> dict[str, Any] | None:
    """The schema as a CLI's own `for_…` makes it; None also where a part of it, that no rule of its dialect looks at,
    is none."""
    try:
        return takes(schema)
    except (TypeError, AttributeError, KeyError):
        return None


def is_strict(takes: Callable[[dict[str, Any]], dict[str, Any] | None], tool: Tool, request: GenerationRequest) -> bool:
    """Whether an API takes the word of a request's tool that its calls must fit its schema, and sees to it."""
    looked_at = tool.strict and request.tools_size <= MOST_STRICT_BYTES
    return bool(looked_at and fitting(takes, tool.schema) == tool.schema)


def in_words(request: GenerationRequest) -> GenerationRequest:
    """The request with its schema as a part of the system prompt."""
    told = with_words(request, _IN_WORDS + json.dumps(request.schema))
    return msgspec.structs.replace(told, schema=None)


def with_words(request: GenerationRequest, words: str) -> GenerationRequest:
    """The request with some more words at the end of its system prompt."""
    system = f"{request.system}\n\n{words}" if request.system.strip() else words
    return msgspec.structs.replace(request, system=system)


def without_dialect(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without its `$schema`; an empty one for a dialect that means other things by the same words."""
    if not _DIALECT.search(schema.get("$schema") or "draft-07"):
        return {}
    return {name: value for name, value in schema.items() if name != "$schema"}


def parts_of(schema: Any, depth: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
    """Every schema within a schema, with how deep it lies. What is no schema is left out."""
    waiting = [(schema, depth)]
    while waiting:
        part, depth = waiting.pop()
        if not isinstance(part, dict):
            continue
        yield part, depth
        waiting += [(part[name], depth + 1) for name in _ONE if name in part]
        for name in MANY:
            waiting += [(each, depth + 1) for each in part.get(name, ())]
        for name in _NAMED:
            named = part.get(name)
            waiting += [(each, depth + 1) for each in (named.values() if isinstance(named, dict) else ())]


# --- a call that must be made ----------------------------------------------------------------------


class _Choice(msgspec.Struct):
    name: str
    arguments: msgspec.Raw


class _Choices(msgspec.Struct):
    call: _Choice


def forced_tools(request: GenerationRequest) -> tuple[Tool, ...]:
    """The tools of which the model must call one; none where it need not."""
    choice = request.tool_choice
    if choice.mode != "required":
        return ()
    return tuple(tool for tool in request.tools if choice.name in (None, tool.name))


def schema_of_call(tools: Sequence[Tool]) -> dict[str, Any]:
    """The schema of an answer that stands for a call of one of them: its arguments, or which and its arguments."""
    if len(tools) == 1:
        return {"type": "object", "properties": {}, **tools[0].schema}
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"type": "string", "enum": [tool.name]},
                "arguments": {"type": "object", "properties": {}, **tool.schema},
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in tools
    ]
    properties = {"call": {"anyOf": calls}}
    return {"type": "object", "properties": properties, "required": ["call"], "additionalProperties": False}


def told_of_call(request: GenerationRequest, tools: Sequence[Tool]) -> GenerationRequest:
    """The request with what the schema stands for, in words."""
    described = [f"{tool.name}: {tool.description}" if tool.description else tool.name for tool in tools]
    if len(tools) == 1:
        return with_words(request, f"Answer with the arguments of a call of the function {described[0]}")
    functions = "\n\n".join(described)
    return with_words(request, f"Answer with a call of one of these functions, and its arguments.\n\n{functions}")


def told_to_call(request: GenerationRequest) -> GenerationRequest:
    """The request with its forced call in words: the tools stay, and nothing but that makes the model call one."""
    name = request.tool_choice.name
    free = msgspec.structs.replace(request.tool_choice, mode="auto", name=None)
    told = with_words(request, _MUST.format(f"the function {name}" if name else "one of the functions"))
    return msgspec.structs.replace(told, tool_choice=free)


class ForcedCall:
    """Reads an answer in JSON as a call of one of some tools; `read` it event by event."""

    def __init__(self, tools: Sequence[Tool], prefix: str) -> None:
        """`prefix`: how ids of calls begin."""
        self._name = tools[0].name if len(tools) == 1 else None
        self._id = prefix + secrets.token_hex(12)

    def read(self, event: Event) -> Iterator[Event]:
        """The events that an event of the answer stands for."""
        if isinstance(event, PartDelta) and isinstance(event.part, Text):
            # Of several, which one it is stands for sure only at the end.
            yield (
                Activity()
                if self._name is None
                else PartDelta(event.index, ToolCall(self._id, self._name, event.part.text))
            )
        elif isinstance(event, Completed):
            answer = self._as_call(event.answer)
            if self._name is None:
                yield from (delta for delta in answer.deltas() if not isinstance(delta.part, Thought))
            yield Completed(answer)
        else:
            yield event

    def _as_call(self, answer: Answer) -> Answer:
        if answer.stop_reason == "refusal" or not answer.text:
            return answer
        name, arguments = self._name, answer.text
        if name is None:
            try:
                call = msgspec.json.decode(answer.text, type=_Choices).call
                name, arguments = call.name, bytes(call.arguments).decode()
            except (msgspec.DecodeError, RecursionError):
                return answer
        stop_reason = "tool_use" if answer.stop_reason == "end_turn" else answer.stop_reason
        content = (*answer.thoughts, ToolCall(self._id, name, arguments))
        return msgspec.structs.replace(answer, content=content, stop_reason=stop_reason)
