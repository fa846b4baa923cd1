"""`/v1/…`: what the SDKs of OpenAI and Anthropic ask for besides generations."""

from __future__ import annotations

from flask import Blueprint, Response, g, jsonify, request

from bridge.errors import BridgeError
from bridge.http.context import engine_of, require_key, service_of
from bridge.http.me import usable
from bridge.keys.keys import Key
from bridge.ledger.pricing import PICO, Rates
from bridge.providers.tokens import prompt_estimate
from bridge.types import ModelChoice
from bridge.wire import anthropic, models

blueprint = Blueprint("v1", __name__, url_prefix="/v1")


@blueprint.post("/messages/count_tokens")
def count_tokens() -> Response:
    """About how many tokens a message would have. Asks no model, and costs nothing."""
    require_key()
    wanted = anthropic.parse_count(
        request.get_data(cache=False), settings=service_of().settings, resolve=service_of().models.resolve
    )
    return jsonify({"input_tokens": prompt_estimate(wanted)})


@blueprint.get("/models")
def list_models() -> Response:
    """The models that the key may use, with their prices; in Anthropic's shape for Anthropic's SDK."""
    key = require_key()
    return jsonify(models.listing([_listed(choice) for choice in _choices(key)], anthropic=g.api is anthropic.API))


@blueprint.get("/models/<path:model>")
def show_model(model: str) -> Response:
    """One of them."""
    key = require_key()
    for choice in _choices(key):
        if model == (choice.alias or choice.model):
            return jsonify(models.entry(_listed(choice), anthropic=g.api is anthropic.API))
    raise BridgeError("not_found", f"This key has no model {model[:100]}.", "GET /v1/models lists what it may use.")


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
    return models.Listed(choice, pricing, service.settings.max_output_tokens_limit)


def _dollars(rates: Rates) -> tuple[float, float, float, float]:
    """Pico-dollars per token are millionths of a dollar per million tokens."""
    return rates.input / PICO, rates.cached / PICO, rates.cache_write / PICO, rates.output / PICO
