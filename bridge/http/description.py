"""`GET /openapi.json` and `GET /docs`: what the bridge can be asked, for programs and for people."""

from __future__ import annotations

import functools
import re
from importlib import resources
from typing import Any

import msgspec
from flask import Blueprint, Response
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from bridge.http.openapi import document

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
