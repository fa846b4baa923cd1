"""`/v1/…`: what the SDKs of OpenAI and Anthropic ask for besides generations."""

from __future__ import annotations

from functools import partial

import msgspec
from flask import g, request

from bridge.errors import BridgeError
from bridge.http.body import beside
from bridge.http.context import edge, engine_of, known_to, service_of
from bridge.http.describe import Query, Routes
from bridge.http.me import usable
from bridge.keys.keys import Key
from bridge.ledger.pricing import PICO, Rates
from bridge.providers.provider import prompt_estimate
from bridge.types import ModelChoice
from bridge.wire import anthropic, models, openai_chat
from bridge.wire.api import Count
from bridge.wire.apis import APIS

routes = Routes("Drop-in", who="key")

_SHAPE = Query("anthropic-version", "Where it is sent, the answer has Anthropic's shape.", where="header")
_EITHER = (openai_chat.API.error_type, anthropic.API.error_type)


def _count(count: Count, key: Key) -> msgspec.Struct:
    service = service_of()
    with edge().limiter.work(key.name):
        body = request.get_data(cache=False)
        known = known_to(key, service.models.resolve)
        wanted = beside(body, partial(count.parse, body, known)).request
        g.ignored = wanted.ignored
        return count.answer_type(prompt_estimate(wanted))


for _api in APIS.values():
    if _api.count is not None:
        routes.add(
            "POST",
            _api.count.path,
            text="About how many tokens a request would have. Asks no model, and costs nothing.",
            answer=_api.count.answer_type,
            body=_api.count.body_type,
            example=_api.count.example,
            table=tuple(_api.count.parameters.values()),
            errors=("invalid_request", "not_found", "payload_too_large"),
            error_type=_api.error_type,
        )(partial(_count, _api.count))


@routes.add("GET", "/v1/models", query=(_SHAPE,), errors=("draining",), error_type=_EITHER)
def list_models(key: Key) -> models.OpenAIModels | models.AnthropicModels:
    """The models that the key may use, with their prices; in Anthropic's shape for Anthropic's SDK."""
    return models.listing([_listed(choice) for choice in _choices(key)], anthropic=g.api is anthropic.API)


@routes.add("GET", "/v1/models/<path:id>", query=(_SHAPE,), errors=("not_found", "draining"), error_type=_EITHER)
def show_model(key: Key, id: str) -> models.OpenAIModel | models.AnthropicModel:
    """One of the models that the key may use."""
    for choice in _choices(key):
        if id == (choice.alias or choice.model):
            return models.entry(_listed(choice), anthropic=g.api is anthropic.API)
    raise BridgeError("not_found", f"This key has no model {id[:100]}.", "GET /v1/models lists what it may use.")


def _choices(key: Key) -> list[ModelChoice]:
    """What a key may name, of the CLIs that are there."""
    return usable(
        key,
        [
            status.name
            for status in engine_of().statuses()
            if status.available and (key.providers is None or status.name in key.providers)
        ],
    )


def _listed(choice: ModelChoice) -> models.Listed:
    service = service_of()
    price = service.prices.price_of(choice.provider, choice.model)
    long = None
    if price.long_prompt is not None:
        long = models.LongPrompt(*_dollars(price.long_prompt), above_tokens=price.above_tokens)
    pricing = models.Pricing(*_dollars(price.rates), assumed=not price.known, long_prompt=long)
    listed = service.models.offers.has(choice.provider, choice.model)
    return models.Listed(choice, pricing, service.settings.max_output_tokens_limit, listed)


def _dollars(rates: Rates) -> tuple[float, float, float, float]:
    """Pico-dollars per token are millionths of a dollar per million tokens."""
    return rates.input / PICO, rates.cached / PICO, rates.cache_write / PICO, rates.output / PICO
