"""`/v1/…`: what the SDKs of OpenAI and Anthropic ask for besides generations."""

from __future__ import annotations

from functools import partial

from flask import g, request

from bridge.errors import BridgeError
from bridge.http.body import beside
from bridge.http.context import edge, engine_of, service_of
from bridge.http.describe import Query, Routes
from bridge.http.me import usable
from bridge.keys.keys import Key
from bridge.ledger.pricing import PICO, Rates
from bridge.providers.provider import prompt_estimate
from bridge.types import ModelChoice
from bridge.wire import anthropic, models, openai_chat

routes = Routes("Drop-in", who="key")

_SHAPE = Query("anthropic-version", "Where it is sent, the answer has Anthropic's shape.", where="header")
_EITHER = (openai_chat.API.error_type, anthropic.API.error_type)


@routes.add(
    "POST",
    "/v1/messages/count_tokens",
    body=anthropic.CountBody,
    example={name: value for name, value in anthropic.API.example.items() if name in anthropic.COUNT_PARAMETERS},
    table=tuple(anthropic.COUNT_PARAMETERS.values()),
    errors=("invalid_request", "not_found", "payload_too_large"),
    error_type=anthropic.API.error_type,
)
def count_tokens(key: Key) -> anthropic.TokenCount:
    """About how many tokens a message would have. Asks no model, and costs nothing."""
    service = service_of()
    with edge().limiter.work(key.name):
        body = request.get_data(cache=False)
        parse = partial(anthropic.parse_count, body, settings=service.settings, resolve=service.models.resolve)
        return anthropic.TokenCount(prompt_estimate(beside(body, parse)))


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
