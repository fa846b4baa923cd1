"""The endpoints that generate, made from the registry of APIs: `POST /generate`, `/v1/messages` and the others; and
those that say what a request may cost at most, without sending it: `POST /generate/estimate` and its siblings."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec
from flask import Response, g, request

from bridge.errors import CODES, BridgeError
from bridge.http.body import beside
from bridge.http.context import edge, engine_of, service_of
from bridge.http.describe import Query, Routes
from bridge.http.me import remaining
from bridge.http.respond import digest_of_repeat, repeat_of, respond
from bridge.http.views import Accepted, Estimate
from bridge.keys.keys import Key
from bridge.limits import LIMITS, dollars
from bridge.providers.models import heeded
from bridge.registry import PROVIDERS
from bridge.service import Service
from bridge.types import GenerationRequest, ModelChoice
from bridge.wire import native
from bridge.wire.api import Api, Events, Render
from bridge.wire.apis import APIS
from bridge.wire.conversation import session_of

routes = Routes("Generate", who="key")

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


def _generate(api: Api, provider: str | None, key: Key) -> Response:
    service = service_of()
    with edge().limiter.work(key.name):
        g.before_large_body = partial(_check_before_body, api, provider, key)
        body = request.get_data(cache=False)
        resolve = service.models.resolve if provider is None else partial(model_of, service, provider)
        about = (request.headers.get("X-Session-Id"), g.request_id)
        parse = partial(_parse, api, body, *about, settings=service.settings, resolve=resolve)
        wanted, answer, events = beside(body, parse)
        may_search = key.web_search and engine_of().providers[wanted.provider].searches
        wanted = heeded(wanted, may_search=may_search)
        if not api.sdk and "text/event-stream" in request.headers.get("Accept", ""):
            events = api.events
        g.ignored = wanted.ignored
        repeat = repeat_of(body)
        # With images it is large, and nothing needs it while the run goes on.
        del body
        return respond(key, wanted, api, repeat, answer, events)


def _parse(
    api: Api, body: bytes, session: str | None, request_id: str, **more: Any
) -> tuple[GenerationRequest, Render, Events | None]:
    """A body as `Api.parse` reads it, with what its client calls the conversation, and its request id."""
    wanted, answer, events = api.parse(body, **more)
    wanted = msgspec.structs.replace(wanted, session=session_of(session, body), request_id=request_id)
    return wanted, answer, events


def _check_before_body(api: Api, provider: str | None, key: Key) -> None:
    """Refuse a large body that is not read yet, where it would be refused whatever it says. Raises BridgeError."""
    given = request.headers.get("Idempotency-Key")
    # Where there is an answer already, it is given whatever the caps say.
    if given is None or not engine_of().has_earlier(key, digest_of_repeat(given)):
        engine_of().check_before_body(key, api.name, provider, g.request_id)


def model_of(service: Service, provider: str, name: str) -> ModelChoice:
    """The model behind a name at the endpoint of one provider. Raises BridgeError."""
    name = name or service.settings.providers[provider].default_model
    choice = service.models.of_provider(provider, name)
    if choice.provider != provider:
        raise BridgeError("invalid_request", f"The model {name} is one of {choice.provider}; use its endpoint.")
    return choice


def _estimate(provider: str, key: Key) -> Estimate:
    service = service_of()
    with edge().limiter.work(key.name):
        body = request.get_data(cache=False)
        resolve = partial(model_of, service, provider)
        wanted, *_ = beside(body, partial(native.API.parse, body, settings=service.settings, resolve=resolve))
        held = engine_of().quote(key, wanted)
    return Estimate(
        provider=held.provider,
        model=held.model,
        cost_usd=dollars(held.cost_micro),
        input_tokens=held.input_tokens,
        max_output_tokens=held.output_tokens,
        remaining=remaining(key),
    )


for _api in APIS.values():
    for _path, _provider in _api.paths.items():
        routes.add(
            "POST",
            _path,
            group="Drop-in" if _api.sdk else "Generate",
            text=_api.text.format(provider=_provider),
            answer=_api.answer_type,
            body=_api.body_type,
            example=_api.example,
            table=tuple(_api.parameters.values()),
            query=(_PREFER, _AGAIN),
            media=_STREAM,
            more={202: ("It has become a job, at Location.", Accepted)},
            # A model that is not there is told so only where the name picks the CLI.
            errors=[code for code in CODES if code != "method_not_allowed" and (code != "not_found" or not _provider)],
            error_type=_api.error_type,
        )(partial(_generate, _api, _provider))

for _name, _row in PROVIDERS.items():
    routes.add(
        "POST",
        f"{_row.path}/estimate",
        text=f"What a request to {_row.path} may cost at most. Asks no model, reserves nothing, and costs nothing.",
        answer=Estimate,
        body=native.API.body_type,
        example=native.API.example,
        table=tuple(native.API.parameters.values()),
        errors=(
            *("invalid_request", "payload_too_large", "model_not_allowed", "provider_not_allowed", "cli_unavailable"),
            *("draining", "provider_rate_limited", "provider_overloaded"),
            *(limit.code for limit in LIMITS if limit.code),
        ),
    )(partial(_estimate, _name))
