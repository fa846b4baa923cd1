"""How a JSON Schema that an answer must fit gets to the model.

Each CLI has a way of its own, which takes only some schemas (`for_claude`, `for_openai`; docs/clis.md has what was
measured). With all others the model is told in words. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from bridge.types import GenerationRequest

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
#: Dialects in which what is known here means the same.
_DIALECT = re.compile(r"draft-0[67]|draft/2019-09|draft/2020-12")

_ONE = ("items", "additionalProperties", "propertyNames", "not", "if", "then", "else", "contains")
MANY = ("anyOf", "allOf", "oneOf")
_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependencies")

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
