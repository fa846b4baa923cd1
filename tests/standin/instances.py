"""Instances of a JSON Schema, good and bad; as much of the language as tests need."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]


def instance(schema: Schema) -> Any:
    """A value that fits `schema`: local $ref, const, enum, anyOf, oneOf, allOf, and the types."""
    return _make(schema, schema)


def violation(schema: Schema) -> Any:
    """A value that does not fit `schema`; an object where the schema wants one.

    The first property gets a value of the wrong type. An object without properties gets a
    property that additionalProperties=false forbids, which is the most that can be done.
    """
    schema = _resolve(schema, schema)
    made = instance(schema)
    if not isinstance(made, dict):
        return {"wrong": "type"} if not isinstance(made, list) else "not a list"
    if not made:
        return {"unexpected": True}
    first = next(iter(made))
    return {**made, first: 7 if isinstance(made[first], str | list | dict | None) else "wrong"}


def _resolve(schema: Schema, root: Schema) -> Schema:
    for _ in range(20):
        reference = schema.get("$ref")
        if not isinstance(reference, str):
            break
        found: Any = root
        for part in reference.removeprefix("#").strip("/").split("/"):
            if part:
                found = found[part.replace("~1", "/").replace("~0", "~")]
        schema = found
    return schema


def _make(schema: Schema, root: Schema) -> Any:
    schema = _resolve(schema, root)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for choice in ("anyOf", "oneOf"):
        if schema.get(choice):
            rest = {k: v for k, v in schema.items() if k != choice}
            return _make({**rest, **_resolve(schema[choice][0], root)}, root)
    for given in schema.get("allOf", ()):
        part = _resolve(given, root)
        properties = {**schema.get("properties", {}), **part.get("properties", {})}
        schema = {**schema, **part} | ({"properties": properties} if properties else {})
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = next((k for k in kind if k != "null"), "null")
    match kind:
        case "object":
            return {
                name: _make(_resolve(sub, root), root) if isinstance(sub, dict) else "value"
                for name, sub in schema.get("properties", {}).items()
            }
        case "array":
            items = schema.get("items", {})
            return [_make(items, root) for _ in range(schema.get("minItems", 1))]
        case "integer" | "number":
            low = schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
            return min(low, schema.get("maximum", low))
        case "boolean":
            return True
        case "null":
            return None
        case _:
            text = "value".ljust(schema.get("minLength", 0), "x")
            return text[: schema.get("maxLength", len(text))]
