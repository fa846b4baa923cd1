"""`/admin/credentials…`: the secrets of the providers that runs are paid with, for the admin and for the commands.

No answer and no line of the audit ever has a secret: only its last four characters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
import msgspec
from flask import request

from bridge.errors import BridgeError
from bridge.gate.ticket import Call
from bridge.http.context import audit, json_body, service_of
from bridge.http.describe import Query, Routes
from bridge.http.views import (
    CredentialChange,
    CredentialLimits,
    CredentialList,
    CredentialOrder,
    CredentialTest,
    CredentialView,
    Done,
    KeyUsage,
    LimitedModel,
    OneCredential,
    RateLimitsView,
    Resets,
    show_rate_limits,
    show_time,
)
from bridge.keys.credentials import Credential
from bridge.records.statistics import CredentialDay
from bridge.registry import PROVIDERS

routes = Routes("Admin", who="admin")

#: Credentials that are looked at before everybody else gets their turn.
TURN = 50
#: field of a body -> of a Credential
_FIELDS = {
    "apiKey": "secret",
    "baseUrl": "base_url",
    "group": "group",
    "priority": "priority",
    "weight": "weight",
    "maxConcurrent": "max_concurrent",
    "limits": "limits",
    "models": "models",
    "keys": "keys",
    "enabled": "enabled",
    "note": "note",
}
_EXAMPLE = {"name": "team", "provider": "claude", "apiKey": "sk-ant-...", "limits": {"maxCostPerMonth": 200}}
#: Both providers can have one from the environment, of the same name.
_PROVIDER = Query("provider", "Which one, where both providers have one of that name: `default`.")
_FORCE = Query("force", "`1`: also while runs use it, which go on; and where keys name it, which then have none.")


@routes.add("GET", "/admin/credentials", query=(Query("provider", "Only those of this provider."),))
def list_credentials() -> CredentialList:
    """All credentials, how each is doing, and what was used with it."""
    service, only = service_of(), request.args.get("provider")
    day_of, found = service.statistics.of_credentials(), []
    for number, each in enumerate(service.credentials.list()):
        if not number % TURN:
            gevent.sleep(0)
        if only in (None, each.provider):
            found.append(_view(each, day_of))
    resets = Resets(**service.ledger.resets_at())
    return CredentialList(found, service.credentials.problem, resets, service.settings.routing)


@routes.add("POST", "/admin/credentials", status=201, body=CredentialOrder, example=_EXAMPLE, errors=("conflict",))
def add_credential() -> tuple[OneCredential, dict[str, str]]:
    """Add a credential; runs use it from now on."""
    body = json_body(("name", "provider", *_FIELDS))
    fields = _fields(body)
    secret = fields.pop("secret", None)
    made = service_of().credentials.create(body.get("name"), body.get("provider"), secret, **fields)
    audit("credential_added", made.name, after=_audited(made))
    message = f"Credential {made.name} added."
    return OneCredential(message, _view(made)), {"Location": f"/admin/credentials/{made.name}"}


@routes.add("GET", "/admin/credentials/<name>", query=(_PROVIDER,), errors=("not_found", "conflict"))
def show_credential(name: str) -> CredentialView:
    """One credential."""
    return _view(_named(name))


@routes.add(
    "PATCH",
    "/admin/credentials/<name>",
    body=CredentialChange,
    body_needed=False,
    query=(_PROVIDER,),
    example={"limits": {"maxCostPerDay": 10}},
    errors=("not_found", "conflict"),
)
def change_credential(name: str) -> OneCredential:
    """Change fields, the name, or the secret; what is not named stays. Acts on the next request."""
    body = json_body(("name", *_FIELDS))
    if body.get("name", name) is None:
        raise BridgeError("invalid_request", "name must be a text.", field="name")
    service = service_of()
    before, after = service.credentials.update(_named(name), name=body.get("name"), **_fields(body))
    if before.name != after.name:
        service.keys.rename_credential(before.name, after.name)
    changed = _audited(after) | ({"apiKey": "replaced"} if before.secret != after.secret else {})
    audit("credential_changed", before.name, before=_audited(before), after=changed)
    return OneCredential(f"Credential {after.name} changed.", _view(after))


@routes.add("DELETE", "/admin/credentials/<name>", query=(_PROVIDER, _FORCE), errors=("not_found", "conflict"))
def remove_credential(name: str) -> Done:
    """Forget a credential and its secret; what was used with it stays in the log."""
    service, found = service_of(), _named(name)
    if request.args.get("force") != "1":
        running = _running(found)
        if running:
            raise BridgeError(
                "conflict",
                f"{running} running requests use the credential {name}.",
                "Disable it and wait for them, or remove it all the same with ?force=1; they go on.",
            )
        bound = [key.name for key in service.keys.list() if key.credentials is not None and name in key.credentials]
        if bound:
            names = ", ".join(bound[:5]) + (" …" if len(bound) > 5 else "")
            raise BridgeError(
                "conflict",
                f"Keys are bound to the credential {name}: {names}.",
                "Change their credentials first, or remove it all the same with ?force=1; they then have one less.",
            )
    service.credentials.remove(found)
    audit("credential_removed", name, before=_audited(found))
    return Done(f"Credential {name} removed.")


@routes.add("POST", "/admin/credentials/<name>/enable", query=(_PROVIDER,), errors=("not_found", "conflict"))
def enable_credential(name: str) -> OneCredential:
    """Let runs use it again."""
    return _switched(name, True)


@routes.add("POST", "/admin/credentials/<name>/disable", query=(_PROVIDER,), errors=("not_found", "conflict"))
def disable_credential(name: str) -> OneCredential:
    """Let no run use it until it is enabled again; those that do go on."""
    return _switched(name, False)


def _switched(name: str, on: bool) -> OneCredential:
    found, done = _named(name), "enabled" if on else "disabled"
    service_of().credentials.enable(found, on)
    audit(f"credential_{done}", name, after={"provider": found.provider})
    return OneCredential(f"Credential {name} {done}.", _again(found))


@routes.add("POST", "/admin/credentials/<name>/reset", query=(_PROVIDER,), errors=("not_found", "conflict"))
def reset_credential(name: str) -> OneCredential:
    """Forget its failures: it is tried again at once."""
    found = _named(name)
    before = service_of().credentials.state(found)
    service_of().credentials.reset(found)
    audit("credential_reset", name, before={"state": before.name, "reason": before.reason})
    return OneCredential(f"Credential {name} is tried again.", _again(found))


@routes.add("POST", "/admin/credentials/<name>/test", query=(_PROVIDER,), errors=("not_found", "conflict"))
def try_credential(name: str) -> CredentialTest:
    """Ask its provider for the list of models, which costs nothing: whether it takes the credential."""
    service, found = service_of(), _named(name)
    row = PROVIDERS[found.provider]
    if not found.secret:
        why = (
            "It is a log-in of the CLI: cli-bridge doctor tests that." if found.kind == "login" else "It has no secret."
        )
        return CredentialTest(False, why, None, None)
    call, listed = service.list_models(found)
    ok, models = call.status == 200 and listed is not None, None if listed is None else len(listed)
    return CredentialTest(ok, _verdict(call, models, row.vendor), call.status, models)


def _verdict(call: Call, models: int | None, vendor: str) -> str:
    """What a test has found, for the admin."""
    if call.status is None:
        return f"{vendor} cannot be reached: {call.error_message}"
    if call.status == 200:
        listed = f"{vendor} took it, and lists {models} models."
        return listed if models is not None else "Something answers there, but with no list of models."
    said = f": {call.error_message}" if call.error_message else ""
    what = "did not take it" if call.status in (401, 403) else "answered otherwise"
    return f"{vendor} {what} ({call.status}){said}"


# --- a credential in answers and in the audit --------------------------------------------------------------


def _named(name: str) -> Credential:
    return service_of().credentials.get(name, request.args.get("provider"))


def _again(credential: Credential) -> CredentialView:
    """A credential as it is after a change."""
    return _view(service_of().credentials.find(credential.id) or credential)


def _running(credential: Credential) -> int:
    """Live runs that use it."""
    return service_of().ledger.purses()(credential.id, credential.limits).running


def _view(credential: Credential, day_of: Callable[[str, str], CredentialDay] | None = None) -> CredentialView:
    """`day_of`: what was looked up once for many of them."""
    service = service_of()
    day_of = day_of or service.statistics.of_credentials()
    state = service.credentials.state(credential)
    usage = service.ledger.credential_usage(credential.id)
    last_used_at = usage.pop("lastUsedAt")
    return CredentialView(
        **_told(credential),
        base_url=credential.base_url,
        endpoint=None if credential.kind == "login" else service.credentials.endpoint(credential),
        limits=CredentialLimits(**_limits(credential)),
        state=state.name,
        reason=state.reason,
        until=show_time(state.until),
        estimated=state.guessed,
        limited_models=[
            LimitedModel(model, each.reason, show_time(each.until), each.guessed)
            for model, each in service.credentials.limited_models(credential).items()
        ],
        running=_running(credential),
        usage=msgspec.convert(usage, KeyUsage),
        last_used_at=last_used_at,
        last_day=day_of(credential.provider, credential.name),
        rate_limits=_rate_limits(credential),
    )


def _rate_limits(credential: Credential) -> RateLimitsView | None:
    """What its provider last said of its limits, since the start."""
    engine = service_of().engine
    found = None if engine is None else engine.roster.rate_limits.get(credential.id)
    return None if found is None else show_rate_limits(found)


def _told(credential: Credential) -> dict[str, Any]:
    """What can be told as it is."""
    names = ("name", "provider", "kind", "source", "last4", "group", "priority", "weight", "max_concurrent")
    told = {name: getattr(credential, name) for name in (*names, "enabled", "note")}
    lists = {name: None if (found := getattr(credential, name)) is None else list(found) for name in ("models", "keys")}
    return {**told, **lists}


def _limits(credential: Credential) -> dict[str, float]:
    wire = credential.limits.to_wire()
    return {"max_cost_per_day": wire.get("maxCostPerDay", 0), "max_cost_per_month": wire.get("maxCostPerMonth", 0)}


def _audited(credential: Credential) -> dict[str, Any]:
    """A credential in the audit: all that can be changed, and no secret."""
    own = {"base_url": credential.base_url, "limits": credential.limits.to_wire()}
    return {_camel(name): value for name, value in {**_told(credential), **own}.items()}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _fields(body: dict[str, Any]) -> dict[str, Any]:
    """The fields of a body by the names that a Credential has for them."""
    return {_FIELDS[name]: value for name, value in body.items() if name in _FIELDS}
