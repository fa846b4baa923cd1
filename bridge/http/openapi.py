"""The API description: OpenAPI 3.1, from the types of the bodies, the table of errors, and operations.py."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from bridge import __version__
from bridge.errors import CODES, BridgeError
from bridge.http import views as shapes
from bridge.http.operations import OPERATIONS, Operation, Query
from bridge.wire import anthropic, native, openai, openai_chat
from bridge.wire.api import Api
from bridge.wire.parameters import Parameter

_INTRODUCTION = (
    "The Claude Code and Codex command lines as one HTTP service, with a key for each person and caps that hold. "
    "Send the key as `Authorization: Bearer KEY` or `x-api-key: KEY`. Bodies are read as JSON whatever their "
    "content type says."
)
_SECURITY: dict[str, list[dict[str, list[str]]]] = {
    "anybody": [],
    "key": [{"key": []}, {"apiKey": []}],
    "admin": [{"admin": []}],
}
_SCHEMES = {
    "key": {"type": "http", "scheme": "bearer", "description": "A key of the bridge (cb_...)."},
    "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "The same."},
    "admin": {"type": "http", "scheme": "bearer", "description": "The admin key."},
}
_REF, _EXAMPLE = "#/components/schemas/{name}", "#/components/examples/{name}"
#: type of an error -> the API that tells errors so
_APIS: dict[Any, Api] = {
    shapes.Error: native.API,
    openai.OpenAIErrorBody: openai_chat.API,
    anthropic.AnthropicErrorBody: anthropic.API,
}


def document() -> dict[str, Any]:
    """The whole description."""
    types = [shapes.Accepted]
    for operation in OPERATIONS:
        for given in (operation.body, operation.answer, operation.error_type):
            types += [type_ for type_ in _several(given) if type_ is not None]
    described, components = msgspec.json.schema_components(types, ref_template=_REF)
    schemas = {repr(type_): schema for type_, schema in zip(types, described, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, schemas, components)
    whole = {
        "openapi": "3.1.0",
        "info": {"title": "cli-bridge", "version": __version__, "description": _INTRODUCTION},
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in dict.fromkeys(operation.group for operation in OPERATIONS)],
        "paths": paths,
        "components": {"schemas": components, "examples": _examples(), "securitySchemes": _SCHEMES},
    }
    return _with_short_names(whole)


def _operation(operation: Operation, schemas: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    names = re.findall(r"{(\w+)}", operation.path)
    found: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{operation.method}{operation.path}").strip("_").lower(),
        "summary": operation.text,
        "tags": [operation.group],
        "security": _SECURITY[operation.who],
        "parameters": [
            *(_parameter(Query(name, f"The {name}.", {"type": "string", "minLength": 1}, "path")) for name in names),
            *map(_parameter, operation.parameters),
        ],
        "responses": _responses(operation, schemas),
    }
    if operation.body is not None:
        schema = schemas[repr(operation.body)]
        if operation.table:
            schema = _with_table(components[schema["$ref"].rpartition("/")[2]], operation.table)
        media = {"schema": schema, "example": operation.example}
        found["requestBody"] = {"required": operation.body_needed, "content": {"application/json": media}}
    return found


def _parameter(query: Query) -> dict[str, Any]:
    return {
        "name": query.name,
        "in": query.where,
        "required": query.where == "path",
        "description": query.text,
        "schema": query.schema,
    }


def _with_table(schema: dict[str, Any], table: Iterable[Parameter]) -> dict[str, Any]:
    """The schema of a body with all parameters of its API: null counts as not given, nothing else is known."""
    properties = {}
    for parameter in table:
        given = schema["properties"].get(parameter.name)
        if given is None:
            given = {} if parameter.what == "ignored" else {"anyOf": [*map(_value, parameter.only), {"type": "null"}]}
        note = f"{parameter.what}: {parameter.note}" if parameter.what != "supported" else parameter.note
        properties[parameter.name] = {**given, "description": note}
    return {**schema, "properties": properties, "additionalProperties": False}


def _value(value: Any) -> dict[str, Any]:
    """The schema of a value that is taken, see `Parameter.only`."""
    if isinstance(value, dict) and value:
        fields = {name: {"const": wanted} for name, wanted in value.items()}
        return {"type": "object", "properties": fields, "required": list(value)}
    return {"const": value}


# --- answers -----------------------------------------------------------------------------------


def _responses(operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if operation.answer is not None:
        content["application/json"] = {"schema": _any_of(operation.answer, schemas)}
    for media, text in operation.also.items():
        content[media] = {"schema": {"type": "string", "description": text}}
    found: dict[str, Any] = {str(operation.status): {"description": operation.text, "content": content}}
    if operation.method == "POST" and "conflict" in operation.errors and operation.who == "key":
        accepted = {"application/json": {"schema": schemas[repr(shapes.Accepted)]}}
        found["202"] = {"description": "It has become a job, at Location.", "content": accepted}
    if operation.path == "/ready":
        found["503"] = {"description": "No work can be done now.", "content": content}
    for status in sorted({CODES[code].status for code in operation.errors}):
        codes = [code for code in operation.errors if CODES[code].status == status]
        examples = {code: {"$ref": _EXAMPLE.format(name=_example_name(operation.error_type, code))} for code in codes}
        error: dict[str, Any] = {
            "description": ", ".join(codes),
            "content": {"application/json": {"schema": _any_of(operation.error_type, schemas), "examples": examples}},
        }
        if status in (409, 429, 503):
            error["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "string"}}}
        found[str(status)] = error
    return found


def _examples() -> dict[str, Any]:
    """An error of every code, as each API tells it."""
    return {
        _example_name(type_, code): {"value": api.error(BridgeError(code, "One plain sentence."), "req_0123456789ab")}
        for type_, api in _APIS.items()
        for code in CODES
    }


def _example_name(error_type: Any, code: str) -> str:
    return f"{_APIS[_several(error_type)[0]].name}.{code}"


def _any_of(types: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    found = [schemas[repr(type_)] for type_ in _several(types)]
    return found[0] if len(found) == 1 else {"anyOf": found}


def _several(types: Any) -> tuple[Any, ...]:
    return types if isinstance(types, tuple) else (types,)


def _with_short_names(whole: dict[str, Any]) -> dict[str, Any]:
    """Types of the same name have their module before it; here it becomes a part of the name."""
    text = json.dumps(whole)
    for name in whole["components"]["schemas"]:
        if "." in name:
            module, _, short = name.rpartition(".")
            prefix = "".join(word.capitalize() for word in module.rpartition(".")[2].split("_"))
            text = text.replace(f'"{name}"', f'"{prefix}{short}"').replace(f'/{name}"', f'/{prefix}{short}"')
    found: dict[str, Any] = json.loads(text)
    return found
