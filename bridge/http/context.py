"""What the routes get at: the service, and who is asking."""

from __future__ import annotations

import hmac

from flask import current_app, g, request

from bridge.engine.engine import Engine
from bridge.errors import BridgeError
from bridge.ledger.keys import Key
from bridge.service import Service


def service_of() -> Service:
    """The service behind this application."""
    service: Service = current_app.config["SERVICE"]
    return service


def engine_of() -> Engine:
    """The engine; where none runs (a command works on the data folder), nothing can be generated."""
    engine = service_of().engine
    if engine is None:
        raise BridgeError("draining", "The bridge is not running.", retry_after=10)
    return engine


def presented_secret() -> str:
    """The secret that the request brings: `Authorization: Bearer …` or `x-api-key`. Empty for none."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return request.headers.get("X-Api-Key", "").strip()


def require_key() -> Key:
    """The key of the request. Raises BridgeError (401, 403), before anything of the body is looked at."""
    secret = presented_secret()
    if not secret:
        raise BridgeError("unauthorized", "This request has no key.")
    key = service_of().keys.find(secret)
    g.key = key
    return key


def is_admin() -> bool:
    """Whether the request brings the admin key, where others may ask as well."""
    secret = presented_secret()
    try:
        if secret:
            service_of().keys.find(secret)
    except BridgeError:
        # No key of a person: only then it is a guess at the admin key.
        try:
            require_admin()
        except BridgeError:
            return False
        return True
    return False


def require_admin() -> str:
    """Let the admin pass; who it is, for the audit. Raises BridgeError (401, 429)."""
    service = service_of()
    secret = presented_secret()
    if secret and hmac.compare_digest(secret.encode(), service.local_token.encode()):
        return "command line"
    limiter = current_app.config["LIMITER"]
    limiter.check_guesses(g.address)
    if secret and service.admin.verify(secret):
        return "admin"
    limiter.count_guess(g.address)
    raise BridgeError("unauthorized", "This needs the admin key.", "Send it as 'Authorization: Bearer ADMIN_KEY'.")
