"""Schemas on their way to a model."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from bridge.providers.claude_body import for_claude
from bridge.providers.codex_body import for_openai
from bridge.providers.structured import adapt, in_words
from bridge.types import GenerationRequest, Message, Text
from tests.standin.schemas import anthropic_objection, openai_objection

STRICT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "description": "who", "pattern": "^[A-Z]"},
        "age": {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]},
        "born": {"type": ["string", "null"], "format": "date"},
        "kids": {"type": "array", "items": {"$ref": "#/$defs/kid"}, "maxItems": 9},
        "kind": {"enum": ["a", "b"]},
    },
    "required": ["name", "age", "born", "kids", "kind"],
    "additionalProperties": False,
    "$defs": {
        "kid": {
            "type": "object",
            "properties": {"name": {"type": "string"}},
            "required": ["name"],
            "additionalProperties": False,
        }
    },
}


def changed(**fields: Any) -> dict[str, Any]:
    return {**STRICT, **fields}


def with_property(schema: Any, *, name: str = "x", required: bool = True) -> dict[str, Any]:
    wanted = [*STRICT["required"], name] if required else STRICT["required"]
    return changed(properties={**STRICT["properties"], name: schema}, required=wanted)


#: schema, whether OpenAI's strict mode takes it, whether the claude CLI and Anthropic do
SCHEMAS: list[tuple[dict[str, Any], bool, bool]] = [
    (STRICT, True, True),
    (changed(title="T", description="D"), True, True),
    (changed(**{"$schema": "https://json-schema.org/draft/2020-12/schema"}), True, True),
    (changed(**{"$schema": "http://json-schema.org/draft-07/schema#"}), True, True),
    (changed(**{"$schema": "http://json-schema.org/draft-03/schema#"}), False, False),
    (changed(additionalProperties=True), False, True),
    ({k: v for k, v in STRICT.items() if k != "additionalProperties"}, False, True),
    (with_property({"type": "string"}, required=False), False, True),
    (with_property({"type": "string", "minLength": 1}), False, True),
    (with_property({"type": "string", "default": "x"}), False, True),
    (with_property({"type": "string", "format": "uri"}), False, True),
    (with_property({"type": "string", "pattern": "(?P<x>a)"}), False, False),
    (with_property({"type": "string", "pattern": "^(?:a|(?=b)c)$"}), True, True),
    *(
        (with_property({"type": "string", "pattern": pattern}), True, True)
        for pattern in (
            r"^[a-z0-9_.+\-]+@[^\s@]{2,5}?\.\w*$",
            r"^\d{4}-\d{2}$",
            r"(a|b)\1",
            "é+",
            r"^\$\{x\}$",
            r"\/",
            "[(*?]",
        )
    ),
    # What Python takes, and JavaScript refuses or understands otherwise.
    *(
        (with_property({"type": "string", "pattern": pattern}), False, False)
        for pattern in (
            *(
                r"\Aa\Z",
                "a++",
                "a*+",
                "a{2}+",
                "a{,5}",
                "[[:alpha:]]",
                "[]a]",
                "(?i)a",
                "(?>a)",
                r"\N{BULLET}",
                r"\a",
                "a{",
                "a}",
            ),
            *("(?#x)a", "(?(1)a|b)", r"\-", r"\U0001F600", r"\0"),
        )
    ),
    # What the claude CLI would work on for long before it starts.
    (with_property({"enum": [{"": n} for n in range(501)]}), True, False),
    (with_property({"type": "string", "enum": [str(n) for n in range(490)]}), True, True),
    (with_property({"anyOf": [{"type": "string", "pattern": f"^{n}$"} for n in range(1001)]}), True, False),
    (with_property({"$ref": "#/$defs/kid", "description": "x"}), False, True),
    (with_property({"oneOf": [{"type": "string"}]}), False, True),
    (with_property({}), False, True),
    (with_property(True), False, True),
    (with_property({"type": "array"}), False, True),
    (with_property({"type": "array", "prefixItems": [{"type": "string"}]}), False, False),
    (with_property({"type": "object", "properties": {"a": {"x-mine": 1}}}), False, False),
    (with_property({"type": "string"}, name="with space"), True, False),
    (changed(allOf=[{"required": ["name"]}]), False, False),
    (changed(dependentRequired={"name": ["age"]}), False, False),
    (changed(unevaluatedProperties=False), False, False),
    ({"type": "object"}, False, False),
    ({"type": "object", "properties": {}, "required": [], "additionalProperties": False}, True, False),
    ({"type": "array", "items": {"type": "string"}}, False, False),
    ({"type": "string"}, False, False),
    ({"anyOf": [STRICT, {"type": "null"}]}, False, False),
    ({"$ref": "#/$defs/kid", "$defs": STRICT["$defs"]}, False, False),
    ({}, False, False),
]


@pytest.mark.parametrize(("schema", "openai", "claude"), SCHEMAS)
def test_only_what_is_taken_goes_by_the_clis_own_way(schema: dict[str, Any], openai: bool, claude: bool) -> None:
    assert (for_openai(schema) is not None) is openai
    assert (for_claude(schema) is not None) is claude


@pytest.mark.parametrize("schema", [schema for schema, _, _ in SCHEMAS])
def test_what_goes_that_way_is_not_objected_to(schema: dict[str, Any]) -> None:
    strict, tool = for_openai(schema), for_claude(schema)
    assert strict is None or openai_objection(strict) is None
    assert tool is None or anthropic_objection(tool) is None
    assert "$schema" not in (strict or {})
    assert "$schema" not in (tool or {})


def test_a_schema_that_is_too_deep_or_too_large_for_strict_mode_goes_in_words() -> None:
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(12):
        deep = {"type": "object", "properties": {"a": deep}, "required": ["a"], "additionalProperties": False}
    assert for_openai(deep) is None
    many = {f"p{n}": {"type": "string"} for n in range(5001)}
    wide = {"type": "object", "properties": many, "required": list(many), "additionalProperties": False}
    assert for_openai(wide) is None
    assert for_openai(with_property({"enum": list(range(1001))})) is None


def ask(system: str = "", *messages: Message, schema: Any = STRICT) -> GenerationRequest:
    return GenerationRequest("codex", "m", messages or (Message("user", (Text("hello"),)),), system, schema=schema)


def test_in_words_the_schema_is_the_end_of_the_system_prompt() -> None:
    told = in_words(ask("Be brief."))
    assert told.schema is None
    assert told.system.startswith("Be brief.\n\nAnswer with JSON only")
    assert told.system.endswith(json.dumps(STRICT))
    assert in_words(ask()).system.startswith("Answer with JSON only")


@pytest.mark.parametrize("defs", [[1], {"a": {"properties": 5}}, 3, {"a": {"anyOf": 1}}])
@pytest.mark.parametrize("takes", [for_claude, for_openai])
def test_what_no_rule_of_a_dialect_looks_at_is_told_in_words(takes: Any, defs: Any) -> None:
    shape = {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", **shape, "$defs": defs}
    request = GenerationRequest("claude", "m", (Message("user", (Text("hi"),)),), schema=schema)
    told, _ = adapt(request, takes)
    assert told.schema is None or told.schema["type"] == "object"


@pytest.mark.parametrize(
    "pattern", ["[^a]" * 22 + r"\Z", "[^^]" * 22 + r"\Z", "a{1,2}?" * 40 + r"\Z", "(?:" * 40 + r"\Z"]
)
def test_a_look_at_a_pattern_takes_no_time(pattern: str) -> None:
    began = time.thread_time()
    assert for_claude(with_property({"type": "string", "pattern": pattern})) is None
    assert for_openai(with_property({"type": "string", "pattern": pattern})) is None
    assert time.thread_time() - began < 1
