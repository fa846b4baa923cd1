"""Every route, described: `GET /openapi.json`, `GET /docs` and `cli-bridge openapi` are made from this.

A route that is not here fails a test, and so does one here that the server does not have.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any, Literal

import msgspec
from flask import Blueprint, Response
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from bridge import __version__
from bridge.errors import CODES, Problem
from bridge.http import views
from bridge.types import RunRecord
from bridge.wire import anthropic, models, native, openai_chat
from bridge.wire.api import Api
from bridge.wire.apis import APIS
from bridge.wire.parameters import Parameter

Who = Literal["anybody", "key", "admin"]
HELLO = [{"role": "user", "content": "Hello"}]


class Query(msgspec.Struct, frozen=True):
    """A parameter of the address, or a header of the request. `schema` is JSON Schema."""

    name: str
    text: str
    schema: dict[str, Any] = msgspec.field(default_factory=lambda: {"type": "string"})
    where: Literal["query", "path", "header"] = "query"


class Operation(msgspec.Struct, frozen=True):
    """One method of one path. `path` has `{names}`; types are those of the bodies, a tuple for one of several."""

    method: str
    path: str
    text: str
    who: Who
    group: str
    answer: Any = None
    status: int = 200
    body: Any = None
    body_needed: bool = True
    example: Any = None
    parameters: Sequence[Query] = ()
    #: of other people's APIs: what becomes of each field of the body
    table: Sequence[Parameter] = ()
    #: codes of CODES
    errors: Sequence[str] = ()
    error_type: Any = native.NativeError
    #: media type -> text, of answers that are no JSON
    also: dict[str, str] = {}


_EVERY = ("too_many_requests", "internal")
_KEY = ("unauthorized", "key_disabled", "key_expired", *_EVERY)
_NOT_WHEN_SPENDING = ("not_found", "method_not_allowed")
_SPENDING = tuple(code for code in CODES if code not in _NOT_WHEN_SPENDING)
_ADMIN = ("unauthorized", "invalid_request", "storage_failed", "payload_too_large", *_EVERY)

_SECONDS = {"type": "integer", "minimum": 0, "maximum": 999999}
_PREFER = Query(
    "Prefer", "`respond-async`: a job at once. `wait=N`: a job after N seconds. Not for streams.", where="header"
)
_AGAIN = Query(
    "Idempotency-Key",
    "The same key and body within 24 hours get the first answer again, and spend nothing.",
    {"type": "string", "minLength": 1, "maxLength": 255},
    "header",
)
_STREAM = {"text/event-stream": "With `stream`: server-sent events; see docs/api.md for their names and order."}
_CLAUDE = Query("anthropic-version", "Where it is sent, the answer has Anthropic's shape.", where="header")


_ANTHROPIC, _OPENAI = anthropic.API.error_type, openai_chat.API.error_type


def _generating(api: Api, path: str, provider: str | None) -> Operation:
    return Operation(
        "POST",
        path,
        api.text.format(provider=provider),
        "key",
        "Drop-in" if api.sdk else "Generate",
        api.answer_type,
        body=api.body_type,
        example=api.example,
        parameters=(_PREFER, _AGAIN),
        table=tuple(api.parameters.values()),
        errors=_SPENDING if provider else (*_SPENDING, "not_found"),
        error_type=api.error_type,
        also=_STREAM,
    )


_GENERATING = (
    *(_generating(api, path, provider) for api in APIS.values() for path, provider in api.paths.items()),
    Operation(
        "GET",
        "/jobs/{id}",
        "A job as it is now, or as soon as it has ended.",
        "key",
        "Generate",
        views.JobView,
        parameters=(Query("wait", "Seconds to wait for the end, up to 90.", _SECONDS),),
        errors=("invalid_request", "not_found", "draining", *_KEY),
    ),
    Operation(
        "DELETE",
        "/jobs/{id}",
        "Stop a job; it is charged what it has used.",
        "key",
        "Generate",
        views.JobView,
        errors=("not_found", "draining", *_KEY),
    ),
    Operation(
        "POST",
        "/v1/messages/count_tokens",
        "About how many tokens a message has: an estimate. Costs nothing.",
        "key",
        "Drop-in",
        anthropic.TokenCount,
        body=anthropic.CountBody,
        example={"model": "claude-sonnet-5-5", "messages": HELLO},
        table=tuple(anthropic.COUNT_PARAMETERS.values()),
        errors=("invalid_request", "not_found", "payload_too_large", *_KEY),
        error_type=_ANTHROPIC,
    ),
    Operation(
        "GET",
        "/v1/models",
        "The models that the key may use, with prices.",
        "key",
        "Drop-in",
        (models.OpenAIModels, models.AnthropicModels),
        parameters=(_CLAUDE,),
        errors=("draining", *_KEY),
        error_type=(_OPENAI, _ANTHROPIC),
    ),
    Operation(
        "GET",
        "/v1/models/{id}",
        "One of them.",
        "key",
        "Drop-in",
        (models.OpenAIModel, models.AnthropicModel),
        parameters=(_CLAUDE,),
        errors=("not_found", "draining", *_KEY),
        error_type=(_OPENAI, _ANTHROPIC),
    ),
)

_SERVICE = (
    Operation(
        "GET", "/me", "Your own limits, usage and models.", "key", "Service", views.Me, errors=("draining", *_KEY)
    ),
    Operation("GET", "/health", "The process answers.", "anybody", "Service", views.Health),
    Operation(
        "GET",
        "/ready",
        "Whether work can be done; 503 where not, with the same body.",
        "anybody",
        "Service",
        views.Ready,
        errors=_EVERY,
    ),
    Operation(
        "GET",
        "/capacity",
        "Whether work is welcome now.",
        "anybody",
        "Service",
        views.Capacity,
        errors=("draining", *_EVERY),
    ),
    Operation(
        "GET", "/openapi.json", "This description.", "anybody", "Service", dict[str, Any], errors=("too_many_requests",)
    ),
    Operation(
        "GET",
        "/docs",
        "This description, to read.",
        "anybody",
        "Service",
        errors=("too_many_requests",),
        also={"text/html": "A page."},
    ),
    Operation(
        "GET",
        "/docs/style.css",
        "How that page looks.",
        "anybody",
        "Service",
        errors=("too_many_requests",),
        also={"text/css": "A style sheet."},
    ),
)

_TIME = {"anyOf": [{"type": "string", "format": "date-time"}, {"const": ""}]}
_PAGE = (
    Query("limit", "Rows of a page.", {"type": "integer", "minimum": 1, "maximum": 1000}),
    Query("before", "The `next` of the page before."),
)
_FILTERS = (
    Query("key", "Only this key."),
    Query("provider", "Only this CLI."),
    Query("status", "A number, `ok`, `error`, or a code."),
    Query("text", "A part of a prompt or an error."),
    Query("since", "From then on.", _TIME),
    Query("until", "Before then.", _TIME),
)


def _admin(method: str, path: str, text: str, answer: Any, *more_errors: str, **more: Any) -> Operation:
    return Operation(method, f"/admin{path}", text, "admin", "Admin", answer, errors=(*_ADMIN, *more_errors), **more)


_ADMINS = (
    _admin(
        "GET",
        "/keys",
        "All keys with their usage.",
        views.Keys,
        parameters=(Query("revoked", "`1`: revoked ones, too."),),
    ),
    _admin(
        "POST",
        "/keys",
        "Make a key; the answer is the only one that shows it.",
        views.NewKey,
        "conflict",
        status=201,
        body=views.KeyOrder,
        example={"name": "ada", "maxCostPerDay": 2.5, "providers": ["claude"], "note": "prototype"},
    ),
    _admin("GET", "/keys/{name}", "One key, also a revoked one.", views.KeyView, "not_found"),
    _admin(
        "PATCH",
        "/keys/{name}",
        "Change limits or fields.",
        views.NamedKey,
        "not_found",
        body=views.KeyChange,
        body_needed=False,
        example={"maxConcurrent": 2},
    ),
    _admin("DELETE", "/keys/{name}", "Revoke a key for good; its history stays.", views.Done, "not_found"),
    _admin("POST", "/keys/{name}/reset-usage", "Count from zero again.", views.Done, "not_found"),
    _admin(
        "POST",
        "/keys/{name}/rotate",
        "A new secret.",
        views.NewKey,
        "not_found",
        body=views.Rotation,
        body_needed=False,
        example={"graceSeconds": 3600},
    ),
    _admin("POST", "/keys/{name}/disable", "Refuse the key until it is enabled again.", views.Done, "not_found"),
    _admin("POST", "/keys/{name}/enable", "Take a disabled or paused key again.", views.Done, "not_found", "draining"),
    _admin("GET", "/runs", "What is queued or runs now.", views.Runs, "draining"),
    _admin("DELETE", "/runs/{id}", "Stop a run; it is charged what it has used.", views.Done, "not_found", "draining"),
    _admin("GET", "/logs", "The request log, newest first.", views.Logs, parameters=(*_FILTERS, *_PAGE)),
    _admin("GET", "/logs/{id}", "One line of it.", RunRecord, "not_found"),
    _admin(
        "GET",
        "/logs/export",
        "All of it, oldest first.",
        None,
        parameters=(Query("format", "How.", {"enum": ["jsonl", "csv"]}), *_FILTERS),
        also={"application/x-ndjson": "Lines of JSON.", "text/csv": "A table."},
    ),
    _admin(
        "GET",
        "/usage",
        "Usage per day and key.",
        views.UsageView,
        parameters=(Query("days", "How many days.", {"type": "integer", "minimum": 1, "maximum": 400}),),
    ),
    _admin("GET", "/audit", "Who changed what, newest first.", views.AuditPage, parameters=_PAGE),
    _admin("GET", "/overview", "Totals, providers, queue and problems.", views.Overview, "draining"),
)

_ANY = dict[str, Any]
_HTML = {"text/html": "A page."}
_FEW = ("too_many_requests",)
_UPKEEP = (
    _admin(
        "GET",
        "/usage/daily",
        "Usage per day as columns for a chart.",
        _ANY,
        parameters=(
            Query("days", "How many days.", {"type": "integer", "minimum": 1, "maximum": 400}),
            Query("key", "Only this key."),
        ),
    ),
    Operation("GET", "/admin/session", "Who is logged in with this cookie.", "anybody", "Admin", _ANY, errors=_FEW),
    _admin("POST", "/session", "Log in; sets the cookie.", _ANY),
    _admin("DELETE", "/session", "Log out.", _ANY, "csrf_failed"),
    _admin("DELETE", "/sessions", "Log out everywhere.", _ANY, "csrf_failed"),
    Operation("GET", "/metrics", "For Prometheus.", "admin", "Admin", errors=_ADMIN, also={"text/plain": "Metrics."}),
)
_PAGES = (
    Operation("GET", "/", "The playground.", "anybody", "Pages", errors=_FEW, also=_HTML),
    Operation("GET", "/admin", "Leads to the dashboard.", "anybody", "Pages", status=302, errors=_FEW, also=_HTML),
    Operation("GET", "/admin/", "The dashboard.", "anybody", "Pages", errors=_FEW, also=_HTML),
    Operation(
        "GET", "/static/{id}/{name}", "Files of the pages.", "anybody", "Pages", errors=("not_found",), also=_HTML
    ),
    Operation("GET", "/me/requests", "Your last requests.", "key", "Service", _ANY, errors=("unauthorized", *_FEW)),
)

OPERATIONS: tuple[Operation, ...] = (*_GENERATING, *_SERVICE, *_ADMINS, *_UPKEEP, *_PAGES)


# --- the document: OpenAPI 3.1 ------------------------------------------------------------------------------

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
#: type of an error -> the first API that tells errors so
_APIS: dict[Any, Api] = {}
for _api in APIS.values():
    _APIS.setdefault(_api.error_type, _api)


def document() -> dict[str, Any]:
    """The whole description."""
    types = [views.Accepted]
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
        accepted = {"application/json": {"schema": schemas[repr(views.Accepted)]}}
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
        _example_name(type_, code): {"value": api.error(Problem(code, "One plain sentence."), "req_0123456789ab")}
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


# --- the routes that show it --------------------------------------------------------------------------------

blueprint = Blueprint("description", __name__)

#: The page needs its own style sheet, and nothing else from anywhere.
_POLICY = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


@blueprint.get("/openapi.json")
def openapi() -> Response:
    """The API description."""
    return Response(_encoded(), mimetype="application/json")


@blueprint.get("/docs")
def docs() -> Response:
    """The same, to read."""
    response = Response(_page(), mimetype="text/html")
    response.headers["Content-Security-Policy"] = _POLICY
    return response


@blueprint.get("/docs/style.css")
def style() -> Response:
    """How that page looks."""
    return Response(_file("docs.css"), mimetype="text/css")


@functools.cache
def _encoded() -> bytes:
    return msgspec.json.encode(document())


@functools.cache
def _page() -> str:
    """Everything on it comes from the description, and is escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["json"] = lambda value: msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    environment.filters["type"] = type_of
    environment.filters["words"] = words
    return environment.from_string(_file("docs.html")).render(doc=document())


def words(text: str) -> Markup:
    """A text with its `code` marked as such."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def type_of(schema: dict[str, Any]) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(type_of(part) for part in schema["anyOf"]))
    if "const" in schema:
        return msgspec.json.encode(schema["const"]).decode()
    if "enum" in schema:
        return " or ".join(msgspec.json.encode(value).decode() for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {type_of(schema.get('items', {}))}"
    return str(schema.get("type", "anything"))


def _file(name: str) -> str:
    return resources.files("bridge.http").joinpath(name).read_text()
