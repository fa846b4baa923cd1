"""What a key holder, and anybody, can ask about the service itself."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any, Literal

import msgspec
from flask import request
from msgspec import UNSET

from bridge.clock import day_of, iso
from bridge.errors import BridgeError
from bridge.http.context import days, engine_of, is_admin, service_of
from bridge.http.describe import Query, Routes
from bridge.http.views import (
    Breakdown,
    Capacity,
    Example,
    Health,
    LimitsView,
    Me,
    NodeCapacity,
    OwnRequests,
    OwnUsage,
    ProviderDetails,
    ProviderModels,
    Ready,
    Remaining,
    Resets,
    TotalsView,
    show_time,
)
from bridge.keys.keys import Key, may_use
from bridge.limits import WINDOWS, dollars, effective
from bridge.registry import PROVIDERS
from bridge.sandbox import host
from bridge.types import ModelChoice

routes = Routes("Service")

_DAY = {"anyOf": [{"type": "string", "format": "date"}, {"const": ""}]}


@routes.add("GET", "/me", who="key", errors=("draining",))
def me(key: Key) -> Me:
    """Your own limits, usage and models."""
    service = service_of()
    ledger, settings = service.ledger, service.settings
    return Me(
        name=key.name,
        status="active",
        expires_at=show_time(key.expires_at),
        limits=LimitsView(**effective(key.limits, settings.default_limits).to_wire()),
        usage=msgspec.convert(ledger.usage(key.name), OwnUsage),
        remaining=remaining(key),
        resets_at=Resets(**ledger.resets_at()),
        forecast=msgspec.convert(ledger.forecast(key.name), TotalsView | None),
        timezone=str(settings.zone),
        models={
            status.name: ProviderModels(status.available, usual(key, status.name), allowed(key, status.name))
            for status in engine_of().statuses()
            if key.providers is None or status.name in key.providers
        },
    )


@routes.add("GET", "/me/requests", who="key")
def my_requests(key: Key) -> OwnRequests:
    """Your own last requests, newest first; not those of a revoked key that had the same name."""
    made = iso(key.created_at)
    return OwnRequests([row for row in service_of().statistics.recent(key.name) if row.timestamp >= made])


def remaining(key: Key) -> Any:
    """What is left of each limit of a key that adds up in a window."""
    found: dict[str, dict[str, float]] = {window.field: {} for window in WINDOWS}
    for limit, window, left in service_of().ledger.remaining(key.name, key.limits):
        found[window.field][limit.field] = limit.shown(left)
    return msgspec.convert(found, Remaining)


#: The days of a breakdown.
FROM_TO = (
    Query("from", "The first day; 30 days with the last one if it is not given.", _DAY),
    Query("to", "The last day; today if it is not given.", _DAY),
)
#: What a holder can have their usage broken down by.
_OWN = ("model", "provider")


@routes.add(
    "GET",
    "/me/usage",
    who="key",
    query=(*FROM_TO, Query("by", "What the rows are.", {"enum": list(_OWN)})),
    errors=("invalid_request",),
)
def my_usage(key: Key) -> Breakdown:
    """What your own key spent on what, dearest first; not what a key of before spent that had the same name."""
    made = day_of(key.created_at, service_of().settings.zone)
    return breakdown(_OWN, {"key": key.name}, since=made)


def breakdown(choices: Sequence[str], only: dict[str, str], since: str = "") -> Breakdown:
    """The answer to `?from=&to=&by=`; `by` is one of `choices`, and nothing counts from before `since`. Raises
    BridgeError."""
    by = request.args.get("by") or choices[0]
    if by not in choices:
        raise BridgeError("invalid_request", f"by must be {' or '.join(choices)}.")
    first, last = days(30)
    found = service_of().ledger.breakdown(max(first, since), last, by, only)
    return msgspec.convert({"from": first, "to": last, **found}, Breakdown)


@routes.add("GET", "/health", counted=False)
def health() -> Health:
    """The process answers. Says nothing about the CLIs; see /ready."""
    return Health("ok")


@routes.add("GET", "/ready", errors=("draining",), more={503: ("No work can be done now.", Ready)})
def ready() -> tuple[Ready, int]:
    """Whether work can be done: a provider can work, and the store can write; else 503. Details for the admin."""
    service, engine = service_of(), engine_of()
    statuses = engine.statuses()
    writes, can_work = service.ledger.open_for_business, any(status.available for status in statuses)
    well = writes and can_work and not engine.draining
    answer = Ready(
        status="ok" if well else "unavailable",
        store="ok" if writes else "failed",
        queue="draining" if engine.draining else "ok",
        **{status.name: "ok" if status.available else "unavailable" for status in statuses},
    )
    if is_admin():
        answer.details = {
            each.name: ProviderDetails(each.version, each.problem, each.hint, each.said) for each in statuses
        }
        answer.warning = service.store_warning or UNSET
    return answer, 200 if well else 503


@routes.add("GET", "/capacity", errors=("draining",))
def capacity() -> Capacity:
    """Whether work is welcome now."""
    engine = engine_of()
    admission, statuses = engine.admission, engine.statuses()
    verdict: Literal["green", "yellow", "red"]
    if engine.draining or not any(status.available for status in statuses):
        verdict = "red"
    elif not admission.free:
        verdict = "red" if admission.queued >= admission.queue_limit else "yellow"
    else:
        # One that is out for a while, and not one that was never set up.
        out = any(not status.available and status.retry_after is not None for status in statuses)
        out = out or any(engine.roster.is_out(status.name) for status in statuses)
        verdict = "green" if host.has_room() and not out else "yellow"
    soonest_s = engine.roster.soonest_s()
    wait_s = 0 if verdict == "green" else round(admission.retry_after_s())
    if verdict == "red" and soonest_s is not None and not any(status.available for status in statuses):
        wait_s = math.ceil(soonest_s)
    soonest = None if soonest_s is None else math.ceil(soonest_s)
    nodes = None
    if engine.nodes is not None:
        others = [engine.nodes.others[name] for name in sorted(engine.nodes.others)]
        nodes = [NodeCapacity(admission.free, admission.queued, engine.draining)]
        nodes += [NodeCapacity(max(0, each.slots - each.running), each.queued, each.draining) for each in others]
    return Capacity(verdict, admission.free, admission.queued, wait_s, soonest, UNSET if nodes is None else nodes)


# --- the models that a key may name -----------------------------------------------------------------------


def usable(key: Key, providers: Collection[str]) -> list[ModelChoice]:
    """What a key may name of these CLIs, as far as it can be listed: aliases, then the models of each CLI."""
    models = service_of().models
    listed = list(models.aliases.values())
    for provider in providers:
        names = models.names(provider)
        # Those that only the key names count, too, where any well-formed name is allowed.
        own = [] if _server_list(provider) else [name for name in key.models or () if name not in names]
        # A short name of the CLI's own is listed where a key names no models, or that one.
        choices = [models.of_provider(provider, name) for name in names]
        listed += [each for each in choices if each.alias is None or key.models is None or each.alias in key.models]
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
    default = service_of().settings.providers[provider].default_model
    choice = service_of().models.of_provider(provider, default)
    if choice.provider == provider and _may_use(key, choice):
        return default
    names = allowed(key, provider)
    return names[0] if names and names != "any" else None


def example(key: Key) -> Example | None:
    """A provider and a model of it that the key may use, or None where it may use nothing."""
    for provider in PROVIDERS:
        if key.providers is None or provider in key.providers:
            model = usual(key, provider)
            if model is not None:
                return Example(provider, model)
    return None


def _may_use(key: Key, choice: ModelChoice) -> bool:
    server_list = _server_list(choice.provider)
    listed = not server_list or choice.model in server_list or choice.alias in server_list
    return listed and may_use(key, choice.model, choice.alias)


def _server_list(provider: str) -> tuple[str, ...]:
    """The server's allow-list of a CLI; empty for any well-formed name. Known without an engine, too."""
    return service_of().settings.providers[provider].models


def _resolved(name: str) -> ModelChoice | None:
    try:
        return service_of().models.resolve(name)
    except BridgeError:
        return None


def remaining_headers(key: Key) -> dict[str, str]:
    """`X-Bridge-Remaining-…` for the limits that the key has."""
    headers = {}
    for limit, _, left in service_of().ledger.remaining(key.name, key.limits):
        headers[limit.header] = f"{dollars(left):.6f}" if limit.is_cost else str(left)
    return headers
