"""The endpoints that generate, made from the registry of APIs: `POST /generate`, `/v1/messages` and the others."""

from __future__ import annotations

from functools import partial

from flask import Blueprint, Response, request

from bridge.errors import BridgeError
from bridge.http.context import require_key, service_of
from bridge.http.respond import repeat_of, respond
from bridge.types import ModelChoice
from bridge.wire.api import Api
from bridge.wire.apis import APIS

blueprint = Blueprint("generate", __name__)


def _generate(api: Api, provider: str | None) -> Response:
    key = require_key()
    service = service_of()
    body = request.get_data(cache=False)
    resolve = service.models.resolve if provider is None else partial(_model_of, provider)
    wanted, events = api.parse(body, settings=service.settings, resolve=resolve)
    if not api.sdk and "text/event-stream" in request.headers.get("Accept", ""):
        events = api.events
    repeat = repeat_of(body)
    # With images it is large, and nothing needs it while the run goes on.
    del body
    return respond(key, wanted, api, repeat, events)


def _model_of(provider: str, name: str) -> ModelChoice:
    """The model behind a name at the endpoint of one provider. Raises BridgeError."""
    service = service_of()
    name = name or service.settings.providers[provider].default_model
    choice = service.models.aliases.get(name) or ModelChoice(provider, name)
    if choice.provider != provider:
        raise BridgeError("invalid_request", f"The model {name} is one of {choice.provider}; use its endpoint.")
    return choice


for _api in APIS.values():
    for _path, _provider in _api.paths.items():
        blueprint.add_url_rule(_path, _path.replace("/", "_"), partial(_generate, _api, _provider), methods=["POST"])
