"""`POST /generate/estimate` and its siblings: what a request may cost at most, without sending it."""

from __future__ import annotations

from functools import partial

from flask import request

from bridge.http.body import beside
from bridge.http.context import edge, engine_of, service_of
from bridge.http.describe import Routes
from bridge.http.generate import model_of
from bridge.http.me import remaining
from bridge.http.views import Estimate
from bridge.keys.keys import Key
from bridge.limits import LIMITS, dollars
from bridge.registry import PROVIDERS
from bridge.wire import native

routes = Routes("Generate", who="key")


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
