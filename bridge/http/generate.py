"""`POST /generate` and `POST /generate-codex`: the main job."""

from __future__ import annotations

import msgspec
from flask import Blueprint, Response, request

from bridge.errors import BridgeError
from bridge.http.context import require_key, service_of
from bridge.http.respond import repeat_of, respond
from bridge.types import GenerationRequest
from bridge.wire import native
from bridge.wire.native import API

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
    wanted = _by_alias(wanted)
    repeat = repeat_of(body)
    # With images it is large, and nobody needs it while the run goes on.
    del body
    return respond(key, wanted, API, repeat, stream=stream or "text/event-stream" in request.headers.get("Accept", ""))


def _by_alias(wanted: GenerationRequest) -> GenerationRequest:
    """The request with the model behind a name of the operator's own. Raises BridgeError."""
    choice = service_of().models.aliases.get(wanted.model)
    if choice is None:
        return wanted
    if choice.provider != wanted.provider:
        raise BridgeError("invalid_request", f"The model {wanted.model} is one of {choice.provider}; use its endpoint.")
    return msgspec.structs.replace(wanted, model=choice.model, alias=choice.alias)
