"""Answers that must fit a JSON Schema: how the schema gets to the model, and how the answer is read.

Each CLI has a way of its own, which takes only some schemas; see docs/clis.md for what was measured.
With all others the model is told in words. Either way the bridge checks the answer itself, so that the
way makes no difference to a client. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from bridge.types import GenerationRequest, Message, Text

_ANNOTATIONS = {"title", "description"}
_BOTH = {
    *_ANNOTATIONS,
    *("type", "enum", "const", "properties", "required", "additionalProperties", "items", "anyOf", "$defs", "$ref"),
    *("pattern", "format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    *("minItems", "maxItems"),
}
#: What OpenAI's strict mode takes, by its guide to structured outputs.
_OPENAI = frozenset(_BOTH)
#: What the check inside the claude CLI knows (JSON Schema draft 7). With any other keyword, or another
#: `$schema`, the CLI leaves the whole schema out, silently.
_CLAUDE = frozenset(
    {
        *_BOTH,
        *("$id", "$comment", "$anchor", "definitions", "default", "examples", "deprecated", "readOnly", "writeOnly"),
        *("contentEncoding", "contentMediaType", "nullable", "minLength", "maxLength", "uniqueItems"),
        *("minProperties", "maxProperties", "patternProperties", "propertyNames", "dependencies"),
        *("allOf", "oneOf", "not", "if", "then", "else", "contains"),
    }
)
#: Regular expressions that JavaScript has no other idea of.
_PLAIN_PATTERN = re.compile(r"(?:[^(]|\((?!\?)|\(\?(?:[:=!]|<[=!]))*")
#: Names of properties that Anthropic takes in a tool.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
#: OpenAI's formats of strings, and its limits.
_OPENAI_FORMATS = {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
_OPENAI_DEPTH, _OPENAI_PROPERTIES, _OPENAI_ENUM = 10, 5000, 1000

#: Dialects in which what is known here means the same.
_DIALECT = re.compile(r"draft-0[67]|draft/2019-09|draft/2020-12")

_ONE = ("items", "additionalProperties", "propertyNames", "not", "if", "then", "else", "contains")
_MANY = ("anyOf", "allOf", "oneOf")
_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependencies")
#: With one way to match only: whatever a model writes is looked at in no more than linear time.
_FENCE = re.compile(r"```(?:json)?[^\S\n]*\n(.*?)```", re.DOTALL | re.IGNORECASE)
#: How deep an answer may be nested: far above what anybody means, far below what readers of JSON can take.
MAX_DEPTH = 200

_IN_WORDS = (
    "Answer with JSON only: one value that fits the JSON Schema below. "
    "No words before or after it, and no code fence.\n\n"
)
_AGAIN = "{problem} Answer again, with JSON only that fits the schema."


def for_claude(schema: dict[str, Any]) -> dict[str, Any] | None:
    """The schema as the claude CLI and Anthropic's tools take it, or None where they do not."""
    plain = _without_dialect(schema)
    if plain.get("type") != "object" or not plain.get("properties") or plain.keys() & {*_MANY, "$ref"}:
        return None
    return plain if all(_claude_takes(part) for part, _ in _parts(plain)) else None


def for_openai(schema: dict[str, Any]) -> dict[str, Any] | None:
    """The schema as OpenAI's strict mode takes it, or None where it does not."""
    plain = _without_dialect(schema)
    if plain.get("type") != "object" or plain.keys() & {"anyOf", "$ref"}:
        return None
    properties = choices = 0
    for part, depth in _parts(plain):
        if depth > _OPENAI_DEPTH or not _openai_takes(part):
            return None
        properties += len(part.get("properties", ()))
        choices += len(part.get("enum", ()))
    return plain if properties <= _OPENAI_PROPERTIES and choices <= _OPENAI_ENUM else None


def in_words(request: GenerationRequest) -> GenerationRequest:
    """The request with its schema as a part of the system prompt."""
    words = _IN_WORDS + json.dumps(request.schema)
    system = f"{request.system}\n\n{words}" if request.system.strip() else words
    return msgspec.structs.replace(request, system=system, schema=None)


def read(text: str) -> tuple[str, Any]:
    """The JSON of an answer, as text and as a value. A code fence or words around it do no harm.

    Raises ValueError where there is none.
    """
    found: ValueError | None = None
    for candidate in _candidates(text):
        try:
            return candidate, parse(candidate)
        except ValueError as error:
            found = found or error
    raise found or ValueError("it is empty")


def parse(text: str) -> Any:
    """The value of a JSON text. Raises ValueError."""
    try:
        # Stricter than Python's own reader: no NaN, no halves of characters.
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if _depth(value) > MAX_DEPTH:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
    return value


def repaired(request: GenerationRequest, text: str, problem: str) -> GenerationRequest:
    """The request for a second attempt: the conversation so far, the answer that missed, and why it did."""
    asked = Text(_AGAIN.format(problem=problem))
    last = request.messages[-1]
    if text.strip():
        messages = (*request.messages, Message("assistant", (Text(text),)), Message("user", (asked,)))
    else:
        messages = (*request.messages[:-1], Message(last.role, (*last.content, asked)))
    return msgspec.structs.replace(request, messages=messages)


def told(
    request: GenerationRequest, takes: Callable[[dict[str, Any]], dict[str, Any] | None]
) -> tuple[GenerationRequest, bool]:
    """The request as a CLI is to be given it, and whether its schema is in words. `takes`: one of the above."""
    if request.schema is None:
        return request, False
    try:
        schema = takes(request.schema)
    except (TypeError, AttributeError):
        # A part that no rule of its dialect looks at, and that is no schema.
        schema = None
    if schema is None:
        return in_words(request), True
    return msgspec.structs.replace(request, schema=schema), False


def _candidates(text: str) -> Iterator[str]:
    yield text.strip()
    fenced = _FENCE.search(text)
    if fenced is not None:
        yield fenced[1].strip()
    starts = [at for at in (text.find("{"), text.find("[")) if at >= 0]
    end = max(text.rfind("}"), text.rfind("]"))
    if starts and end > min(starts):
        yield text[min(starts) : end + 1]


def _depth(value: Any) -> int:
    """How deep lists and objects lie in each other; looks no deeper than is of interest."""
    level, depth = [value], 0
    while level and depth <= MAX_DEPTH:
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        depth += 1
    return depth


def _without_dialect(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without its `$schema`; an empty one for a dialect that means other things by the same words."""
    if not _DIALECT.search(schema.get("$schema") or "draft-07"):
        return {}
    return {name: value for name, value in schema.items() if name != "$schema"}


def _parts(schema: Any, depth: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
    """Every schema within a schema, with how deep it lies. What is no schema is left out."""
    waiting = [(schema, depth)]
    while waiting:
        part, depth = waiting.pop()
        if not isinstance(part, dict):
            continue
        yield part, depth
        waiting += [(part[name], depth + 1) for name in _ONE if name in part]
        for name in _MANY:
            waiting += [(each, depth + 1) for each in part.get(name, ())]
        for name in _NAMED:
            named = part.get(name)
            waiting += [(each, depth + 1) for each in (named.values() if isinstance(named, dict) else ())]


def _claude_takes(part: dict[str, Any]) -> bool:
    patterns = [part["pattern"]] if "pattern" in part else []
    patterns += part.get("patternProperties", ())
    return (
        part.keys() <= _CLAUDE
        and all(_PLAIN_NAME.fullmatch(name) for name in part.get("properties", ()))
        and all(_PLAIN_PATTERN.fullmatch(pattern) for pattern in patterns)
    )


def _openai_takes(part: dict[str, Any]) -> bool:
    if not part.keys() <= _OPENAI or ("$ref" in part and len(part) > 1):
        return False
    if part.get("format", "date") not in _OPENAI_FORMATS or not _PLAIN_PATTERN.fullmatch(part.get("pattern", "")):
        return False
    inner = [*part.get("properties", {}).values(), *part.get("anyOf", ()), *part.get("$defs", {}).values()]
    if not part.keys() & {"type", "anyOf", "enum", "const", "$ref"} or not all(isinstance(p, dict) for p in inner):
        return False
    kinds = part.get("type", [])
    if "object" in (kinds if isinstance(kinds, list) else [kinds]) or "properties" in part:
        wanted = set(part.get("properties", ()))
        return part.get("additionalProperties") is False and set(part.get("required", ())) == wanted
    return kinds != "array" or isinstance(part.get("items"), dict)
