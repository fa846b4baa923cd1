"""`POST /generate` and `POST /generate-codex`: the main job."""

from __future__ import annotations

from flask import Blueprint, Response, request

from bridge.http.context import require_key, service_of
from bridge.http.respond import respond
from bridge.wire import native
from bridge.wire.native_answer import API

blueprint = Blueprint("generate", __name__)


@blueprint.post("/generate")
def generate() -> Response:
    """Generate with the claude CLI."""
    return _generate("claude")


@blueprint.post("/generate-codex")
def generate_codex() -> Response:
    """Generate with the codex CLI."""
    return _generate("codex")


def _generate(provider: str) -> Response:
    key = require_key()
    settings = service_of().settings
    body = request.get_data(cache=False)
    wanted, stream = native.parse(
        body,
        provider=provider,
        default_model=getattr(settings, f"{provider}_default_model"),
        settings=settings,
    )
    return respond(key, wanted, API, body, stream=stream or "text/event-stream" in request.headers.get("Accept", ""))
