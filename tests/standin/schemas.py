"""Why the model APIs refuse a schema, in their own words, as far as their documentation tells.

OpenAI: the guide to structured outputs, "supported schemas" (strict mode). Anthropic: the reference of
tool definitions (`input_schema`), and the page on structured outputs (`output_config.format`, strict tools).
"""

from __future__ import annotations

import re
from typing import Any

Schema = dict[str, Any]

_OPENAI_KEYWORDS = {
    *("type", "description", "title", "enum", "const", "properties", "required", "additionalProperties"),
    *("items", "anyOf", "$ref", "$defs", "pattern", "format", "minimum", "maximum"),
    *("exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minItems", "maxItems"),
}
_ANTHROPIC_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")


def openai_objection(schema: Schema) -> str | None:
    """What strict mode says of a schema; None where it takes it."""
    if schema.get("type") != "object":
        return f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{schema.get('type')}\"'"
    if "anyOf" in schema:
        return "schema must not have 'anyOf' at the top level"
    return _objection(schema, ())


def _objection(schema: Any, context: tuple[str, ...]) -> str | None:
    if not isinstance(schema, dict):
        return f"In context={context}, schema must be an object"
    unknown = schema.keys() - _OPENAI_KEYWORDS
    if unknown:
        return f"In context={context}, '{min(unknown)}' is not permitted"
    if "$ref" in schema:
        rest = sorted(schema.keys() - {"$ref"})
        return f"In context={context}, $ref cannot have keywords {rest}" if rest else None
    if schema.get("type") == "object" or "properties" in schema:
        if schema.get("additionalProperties") is not False:
            return f"In context={context}, 'additionalProperties' is required to be supplied and to be false"
        names = set(schema.get("properties", {}))
        if set(schema.get("required", ())) != names:
            missing = min(names ^ set(schema.get("required", ())))
            return (
                f"In context={context}, 'required' is required to be supplied and to be an array including every key "
                f"in properties. Missing '{missing}'"
            )
    if schema.get("type") == "array" and "items" not in schema:
        return f"In context={context}, array schema missing items"
    if not schema.keys() & {"type", "anyOf", "enum", "const"}:
        return f"In context={context}, schema must have a 'type' key"
    inner = [("properties", name, part) for name, part in schema.get("properties", {}).items()]
    inner += [("$defs", name, part) for name, part in schema.get("$defs", {}).items()]
    inner += [("anyOf", str(number), part) for number, part in enumerate(schema.get("anyOf", ()))]
    if "items" in schema:
        inner.append(("items", "", schema["items"]))
    objections = (_objection(part, (*context, place, name)) for place, name, part in inner)
    return next((objection for objection in objections if objection), None)


_FORMAT_KEYWORDS = {
    *("type", "description", "title", "default", "enum", "const", "properties", "required", "additionalProperties"),
    *("items", "minItems", "anyOf", "$ref", "$defs", "definitions", "format"),
}


def format_objection(schema: Any) -> str | None:
    """What Anthropic's structured output says of a schema; None where it takes it."""
    if not isinstance(schema, dict):
        return "schema must be an object"
    unknown = schema.keys() - _FORMAT_KEYWORDS
    if unknown:
        return f"For '{schema.get('type')}' type, property '{min(unknown)}' is not supported"
    if schema.get("minItems", 0) > 1:
        return "'minItems' values other than 0 or 1 are not supported"
    if "$ref" in schema and schema.keys() - {"$ref"}:
        return "'$ref' cannot have other properties beside it"
    if (schema.get("type") == "object" or "properties" in schema) and schema.get("additionalProperties") is not False:
        return "For 'object' type, 'additionalProperties' must be explicitly set to false"
    inner = [*schema.get("properties", {}).values(), *schema.get("$defs", {}).values(), *schema.get("anyOf", ())]
    inner += schema.get("definitions", {}).values()
    if "items" in schema:
        inner.append(schema["items"])
    return next((why for part in inner if (why := format_objection(part))), None)


def anthropic_objection(schema: Schema) -> str | None:
    """What the Messages API says of a tool's schema; None where it takes it."""
    if schema.get("type") != "object":
        return "input_schema.type: Input should be 'object'"
    for keyword in ("oneOf", "allOf", "anyOf"):
        if keyword in schema:
            return "input_schema: input_schema does not support oneOf, allOf, or anyOf at the top level"
    for name in schema.get("properties", {}):
        if not _ANTHROPIC_NAME.fullmatch(name):
            return "input_schema.properties: Property keys should match pattern '^[a-zA-Z0-9_.-]{1,64}$'"
    return None
