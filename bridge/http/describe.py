"""Routes that carry their own description, and what is made of it: `/openapi.json`, `/docs`, `cli-bridge openapi`.

A handler says what it answers by its return type, and what it does by the first line of its docstring:

    routes = Routes("Admin", who="admin")

    @routes.add("GET", "/admin/keys/<name>", errors=("not_found",))
    def show_key(name: str) -> KeyView:
        '''One key, also a revoked one.'''
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from flask import Response, g
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from bridge import __version__
from bridge.errors import CODES, Problem
from bridge.http.context import edge, require_admin, require_host, require_key
from bridge.wire import native
from bridge.wire.api import Api
from bridge.wire.apis import APIS
from bridge.wire.parameters import Parameter

Who = Literal["anybody", "key", "admin", "host"]
"""Who may call a route; `host` is the commands on the bridge's own host, for which nothing is described."""

Handler = TypeVar("Handler", bound=Callable[..., Any])

#: Codes that every route for somebody can answer with.
_USUAL: Mapping[Who, tuple[str, ...]] = {
    "anybody": ("internal",),
    "key": ("unauthorized", "key_disabled", "key_expired", "internal"),
    "admin": ("unauthorized", "invalid_request", "storage_failed", "payload_too_large", "internal"),
    "host": (),
}


class Query(msgspec.Struct, frozen=True):
    """A parameter of the address, or a header of the request. `schema` is JSON Schema."""

    name: str
    text: str
    schema: dict[str, Any] = msgspec.field(default_factory=lambda: {"type": "string"})
    where: Literal["query", "path", "header"] = "query"


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one path: its handler, and all that is to be said of it.

    A handler gets the key first where `who` is `key`, then the names in the rule. It returns a Struct, which becomes
    JSON, or a Response; or either of them with a status, headers or both, as Flask takes them.
    """

    method: str
    #: the path as Flask has it, with `<names>`
    rule: str
    handler: Callable[..., Any]
    group: str
    who: Who
    #: False where the handler itself looks who asks
    guarded: bool = True
    #: False where a request does not count against what one address may send
    counted: bool = True
    #: one sentence; of a handler without a docstring
    text: str = ""
    #: the type of the answer, where the handler's return type does not say it; a tuple for one of several
    answer: Any = None
    status: int = 200
    body: Any = None
    body_needed: bool = True
    example: Any = None
    query: Sequence[Query] = ()
    #: of other people's APIs: what becomes of each field of the body
    table: Sequence[Parameter] = ()
    #: codes of CODES, besides the usual ones
    errors: Sequence[str] = ()
    #: the type of an error; a tuple for one of several
    error_type: Any = native.NativeError
    #: media type -> text, of answers that are no JSON
    media: Mapping[str, str] = {}
    #: status -> text and type, of further answers that are no errors
    more: Mapping[int, tuple[str, Any]] = {}

    @property
    def path(self) -> str:
        """The path with `{names}`."""
        return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", self.rule)

    @property
    def id(self) -> str:
        """A name for it, such as `get_admin_keys`."""
        end = "_" if self.rule.endswith("/") else ""
        return re.sub(r"\W+", "_", f"{self.method}{self.path}").strip("_").lower() + end

    @property
    def summary(self) -> str:
        """What it does, in a sentence."""
        return self.text or (inspect.getdoc(self.handler) or "").partition("\n")[0]

    @property
    def codes(self) -> Sequence[str]:
        """The codes of all errors that it answers with."""
        counted = ("too_many_requests",) if self.counted else ()
        return list(dict.fromkeys((*self.errors, *_USUAL[self.who], *counted)))

    @property
    def answers(self) -> tuple[Any, ...]:
        """The types of its answer; none where that is no JSON."""
        type_ = self.answer
        if type_ is None:
            type_ = get_type_hints(self.handler)["return"]
            if get_origin(type_) is tuple:
                type_ = get_args(type_)[0]
        several = get_args(type_) if isinstance(type_, UnionType) else _several(type_)
        return tuple(each for each in several if each is not Response)

    def view(self, **names: Any) -> Any:
        """Answer a request: let in who may call this, ask the handler, and write its Struct as JSON."""
        if not self.guarded or self.who == "anybody":
            result = self.handler(**names)
        elif self.who == "key":
            result = self.handler(require_key(), **names)
        else:
            g.actor = require_admin() if self.who == "admin" else require_host()
            result = self.handler(**names)
        body, *rest = result if isinstance(result, tuple) else (result,)
        if not isinstance(body, Response):
            body = Response(msgspec.json.encode(body) + b"\n", self.status, mimetype="application/json")
        return (body, *rest) if rest else body


class Routes(list[Route]):
    """The routes of one part of the API: a heading of its description, and who may call them."""

    def __init__(self, group: str, who: Who = "anybody") -> None:
        super().__init__()
        self._usual = {"group": group, "who": who}

    def add(self, method: str, rule: str, **described: Any) -> Callable[[Handler], Handler]:
        """A decorator that adds its handler; `described` are further fields of Route."""

        def add(handler: Handler) -> Handler:
            self.append(Route(method=method, rule=rule, handler=handler, **{**self._usual, **described}))
            return handler

        return add


routes = Routes("Service")


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


def document(every: Iterable[Route]) -> dict[str, Any]:
    """The description of all these routes, but for those of the host."""
    shown = [route for route in every if route.who != "host"]
    types: list[Any] = []
    for route in shown:
        types += [*route.answers, *_several(route.error_type), *(type_ for _, type_ in route.more.values())]
        types += [] if route.body is None else [route.body]
    described, components = msgspec.json.schema_components(types, ref_template=_REF)
    schemas = {repr(type_): schema for type_, schema in zip(types, described, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for route in shown:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation_of(route, schemas, components)
    return {
        "openapi": "3.1.0",
        "info": {"title": "cli-bridge", "version": __version__, "description": _INTRODUCTION},
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in dict.fromkeys(route.group for route in shown)],
        "paths": paths,
        "components": {"schemas": components, "examples": _examples(), "securitySchemes": _SCHEMES},
    }


def _operation_of(route: Route, schemas: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    names = re.findall(r"{(\w+)}", route.path)
    found: dict[str, Any] = {
        "operationId": route.id,
        "summary": route.summary,
        "tags": [route.group],
        "security": _SECURITY[route.who],
        "parameters": [
            *(_parameter(Query(name, f"The {name}.", {"type": "string", "minLength": 1}, "path")) for name in names),
            *map(_parameter, route.query),
        ],
        "responses": _responses(route, schemas),
    }
    if route.body is not None:
        schema = schemas[repr(route.body)]
        if route.table:
            schema = _with_table(components[schema["$ref"].rpartition("/")[2]], route.table)
        media = {"schema": schema, "example": route.example}
        found["requestBody"] = {"required": route.body_needed, "content": {"application/json": media}}
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
    """The schema of a body with all parameters of its API. null counts as not given; others are passed over."""
    properties = {}
    for parameter in table:
        given = schema["properties"].get(parameter.name)
        if given is None:
            given = {} if parameter.what != "refused" else {"anyOf": [*map(_value, parameter.only), {"type": "null"}]}
        note = f"{parameter.what}: {parameter.note}" if parameter.what != "supported" else parameter.note
        properties[parameter.name] = {**given, "description": note}
    return {**schema, "properties": properties, "additionalProperties": True}


def _value(value: Any) -> dict[str, Any]:
    """The schema of a value that is taken, see `Parameter.only`."""
    if isinstance(value, dict) and value:
        fields = {name: {"const": wanted} for name, wanted in value.items()}
        return {"type": "object", "properties": fields, "required": list(value)}
    return {"const": value}


# --- answers -----------------------------------------------------------------------------------


def _responses(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if route.answers:
        content["application/json"] = {"schema": _any_of(route.answers, schemas)}
    for media, text in route.media.items():
        content[media] = {"schema": {"type": "string", "description": text}}
    found: dict[str, Any] = {str(route.status): {"description": route.summary, "content": content}}
    for status, (text, type_) in route.more.items():
        found[str(status)] = {"description": text, "content": {"application/json": {"schema": schemas[repr(type_)]}}}
    statuses = {code: _status(code, route.error_type) for code in route.codes}
    for status in sorted(set(statuses.values())):
        codes = [code for code in route.codes if statuses[code] == status]
        examples = {code: {"$ref": _EXAMPLE.format(name=_example_name(route.error_type, code))} for code in codes}
        error: dict[str, Any] = {
            "description": ", ".join(codes),
            "content": {"application/json": {"schema": _any_of(route.error_type, schemas), "examples": examples}},
        }
        if status in (409, 429, 503):
            error["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "string"}}}
        found[str(status)] = error
    return found


def _status(code: str, error_type: Any) -> int:
    problem = Problem(code, "")
    return problem.sdk_status if _APIS[_several(error_type)[0]].sdk else problem.status


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


# --- the routes that show it --------------------------------------------------------------------------------

#: The page needs its own style sheet, and nothing else from anywhere.
_POLICY = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


@routes.add("GET", "/openapi.json", answer=dict[str, Any])
def openapi() -> Response:
    """This description."""
    return Response(_encoded(edge().document), mimetype="application/json")


@routes.add("GET", "/docs", media={"text/html": "A page."})
def docs() -> Response:
    """This description, to read."""
    response = Response(_page(edge().document), mimetype="text/html")
    response.headers["Content-Security-Policy"] = _POLICY
    return response


@routes.add("GET", "/docs/style.css", media={"text/css": "A style sheet."})
def style() -> Response:
    """How that page looks."""
    return Response(_file("docs.css"), mimetype="text/css")


@functools.cache
def _encoded(document: Callable[[], dict[str, Any]]) -> bytes:
    return msgspec.json.encode(document())


@functools.cache
def _page(document: Callable[[], dict[str, Any]]) -> str:
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
