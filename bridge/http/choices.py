"""The models that a key may name: one list for /v1/models, GET /me and the code beside a new key."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from bridge.errors import BridgeError
from bridge.http.context import service_of
from bridge.keys.key import PROVIDERS, may_use
from bridge.keys.keys import Key
from bridge.types import ModelChoice


def usable(key: Key, providers: Collection[str]) -> list[ModelChoice]:
    """What a key may name of these CLIs, as far as it can be listed: aliases, then the models of each CLI."""
    models = service_of().models
    listed = list(models.aliases.values())
    for provider in providers:
        names = models.names(provider)
        # Those that only the key names count, too, where any well-formed name is allowed.
        own = [] if _server_list(provider) else [name for name in key.models or () if name not in names]
        listed += [ModelChoice(provider, name) for name in names]
        listed += [choice for choice in map(_resolved, own) if choice is not None and choice.provider == provider]
    found: dict[str, ModelChoice] = {}
    for choice in listed:
        if choice.provider in providers and _may_use(key, choice):
            found.setdefault(choice.alias or choice.model, choice)
    return list(found.values())


def allowed(key: Key, provider: str) -> list[str] | Literal["any"]:
    """The names that a key may send to a CLI, in the key's own order; aliases last."""
    if key.models is None and not _server_list(provider):
        return "any"
    choices = sorted(usable(key, (provider,)), key=lambda choice: choice.alias is not None)
    names = [choice.alias or choice.model for choice in choices]
    if not _server_list(provider):
        # The name says nothing of its CLI: the endpoint that it is sent to does.
        names += [name for name in key.models or () if _resolved(name) is None]
    places = {name: place for place, name in enumerate(key.models or ())}
    return sorted(names, key=lambda name: places.get(name, len(places)))


def usual(key: Key, provider: str) -> str | None:
    """The model to name where nothing speaks for another: the server's default, or the first that the key may use."""
    default: str = getattr(service_of().settings, f"{provider}_default_model")
    choice = service_of().models.aliases.get(default, ModelChoice(provider, default))
    if choice.provider == provider and _may_use(key, choice):
        return default
    names = allowed(key, provider)
    return names[0] if names and names != "any" else None


def example(key: Key) -> dict[str, str] | None:
    """A provider and a model of it that the key may use, or None where it may use nothing."""
    for provider in PROVIDERS:
        if key.providers is None or provider in key.providers:
            model = usual(key, provider)
            if model is not None:
                return {"provider": provider, "model": model}
    return None


def _may_use(key: Key, choice: ModelChoice) -> bool:
    server_list = _server_list(choice.provider)
    return (not server_list or choice.model in server_list) and may_use(key, choice.model, choice.alias)


def _server_list(provider: str) -> tuple[str, ...]:
    """The server's allow-list of a CLI; empty for any well-formed name. Known without an engine, too."""
    names: tuple[str, ...] = getattr(service_of().settings, f"{provider}_models", ())
    return names


def _resolved(name: str) -> ModelChoice | None:
    try:
        return service_of().models.resolve(name)
    except BridgeError:
        return None
