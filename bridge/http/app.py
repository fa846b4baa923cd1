"""The Flask application: routes, and what every request and every answer goes through."""

from __future__ import annotations

import functools
import logging
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, g, jsonify, request
from flask_cors import CORS
from werkzeug.exceptions import HTTPException

from bridge.engine.nodes import NodeState
from bridge.errors import BridgeError, Problem
from bridge.http import (
    admin_credentials,
    admin_keys,
    admin_logs,
    admin_runs,
    admin_top,
    describe,
    generate,
    host_only,
    jobs,
    login,
    me,
    metrics,
    pages,
    v1,
)
from bridge.http.address import AddressLimiter, client_address
from bridge.http.body import EXTENSION, Intake, Request, Waiting
from bridge.http.context import Edge, presented_secret, service_of, sessions_of
from bridge.http.session import Sessions
from bridge.limits import DEFAULTS, summed
from bridge.service import Service
from bridge.wire.absent import absent
from bridge.wire.apis import APIS, api_at, respelled

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger("bridge")

#: What a client of an SDK needs to know whose path is wrong.
_BASE_URL = (
    "Set the base URL to this bridge's address: with /v1 at its end for OpenAI's SDKs (http://127.0.0.1:3456/v1), "
    "without it for Anthropic's (http://127.0.0.1:3456). docs/api.md lists every endpoint."
)

_SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
#: Headers of answers that a web page may read.
_SHOWN_HEADERS = (
    "X-Request-Id",
    "Request-Id",
    "Retry-After",
    "X-Should-Retry",
    "Location",
    "Preference-Applied",
    "Idempotent-Replayed",
    "X-Bridge-Cost-Usd",
    "X-Bridge-Ignored",
    *(limit.header for limit, _, _ in summed(dict.fromkeys(DEFAULTS, 1))),
)
#: Paths that a web page may ask where something is generated.
_GENERATING = tuple(rf"{path}(/.*)?" for api in APIS.values() for path in api.paths)

PARTS = (
    generate,
    jobs,
    v1,
    me,
    describe,
    admin_keys,
    admin_credentials,
    admin_runs,
    admin_top,
    admin_logs,
    login,
    host_only,
    metrics,
    pages,
)
ROUTES = tuple(route for part in PARTS for route in part.routes)
_UNCOUNTED = {route.id for route in ROUTES if not route.counted}


def create_app(service: Service, *, waiting: Waiting = nullcontext) -> Flask:
    """The WSGI application of one opened service. `waiting` is for its `Intake`."""
    settings = service.settings
    app = Flask("bridge", static_folder=None, template_folder="http/templates")
    app.request_class = Request
    # A redirect would lose the body of a POST, in most clients without a word.
    app.url_map.merge_slashes = False
    app.url_map.redirect_defaults = False
    app.wsgi_app = _Respelled(app.wsgi_app)  # type: ignore[method-assign]
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.json.ensure_ascii = False  # type: ignore[attr-defined]
    counted = metrics.Metrics(service)
    shared = app.extensions[EXTENSION] = Edge(
        service=service,
        sessions=Sessions(service.admin, service.clock, settings),
        limiter=AddressLimiter(settings.rate_limit_per_minute, service.clock),
        intake=Intake(settings.max_body_bytes, service.clock, waiting),
        access=_access(service),
        metrics=counted.registry,
        waiting=Counter(),
        document=document,
    )
    for route in ROUTES:
        app.add_url_rule(route.rule, route.id, route.view, methods=[route.method])

    @app.before_request
    def _begin() -> None:
        g.request_id = "req_" + secrets.token_hex(12)
        g.began = time.monotonic()
        g.api = api_at(request.path, request.headers.get)
        g.address = client_address(request.environ, settings.trusted_proxy)
        if not (request.endpoint in _UNCOUNTED or _is_admin_at_work()):
            foreign = request.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site")
            shared.limiter.hit(g.address, foreign=foreign)

    @app.after_request
    def _end(response: Response) -> Response:
        shared.sessions.keep(request, response)
        response.headers["X-Request-Id"] = g.request_id
        if g.api.request_id_header is not None:
            response.headers[g.api.request_id_header] = g.request_id
        if "ignored" in g and g.ignored:
            response.headers["X-Bridge-Ignored"] = ", ".join(g.ignored)
        key = g.get("key")
        if key is not None:
            response.headers.update(me.remaining_headers(key))
        for name, value in _SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
        if request.environ.get("wsgi.input") is not None:
            response.call_on_close(functools.partial(shared.intake.discard_rest, request.environ))
        counted.responses.labels(str(response.status_code)).inc()
        return response

    if service.nodes is not None:
        service.nodes.tell = functools.partial(_told, shared)
        service.nodes.hear = functools.partial(_hear, shared)
    app.register_error_handler(BridgeError, _refusal)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _bug)
    if settings.cors_origins:
        CORS(
            app,
            # Exactly these: a text with brackets, such as an IPv6 address, would be read as a pattern.
            origins=[each if each == "*" else re.compile(rf"{re.escape(each)}\Z") for each in settings.cors_origins],
            # Whatever a page of these origins asks for: each SDK has headers of its own, and more come.
            allow_headers="*",
            expose_headers=_SHOWN_HEADERS,
            resources=[*_GENERATING, r"/jobs/.*", r"/me(/.*)?", r"/v1/.*", r"/capacity"],
        )
    return app


class _Respelled:
    """Lets paths of other people's APIs be spelled as their clients do where a base URL has one part too many or too
    few, so that they are served instead of redirected."""

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = respelled(environ.get("PATH_INFO", ""))
        if path is not None:
            environ["PATH_INFO"] = path
        return self._app(environ, start_response)


@functools.cache
def document() -> dict[str, Any]:
    """The description of the API, as OpenAPI has it."""
    return describe.document(ROUTES)


def _is_admin_at_work() -> bool:
    """Whether a request comes from a dashboard, or brings an admin key that cannot be a guess: the admin has to get in
    when a script of the same office runs wild, or strangers behind the same tunnel do."""
    if not request.path.startswith("/admin/"):
        return False
    return sessions_of().of(request) is not None or service_of().admin.recognises(presented_secret())


def _told(shared: Edge) -> NodeState | None:
    """What the other hosts are to know of this one; None where it does not run."""
    state = admin_runs.state_of_node(shared.service)
    if state is not None:
        state.counts, state.ended = shared.limiter.told(), shared.sessions.ended
    return state


def _hear(shared: Edge, states: Collection[NodeState]) -> None:
    """Take note of what the other hosts have counted and ended."""
    if shared.service.engine is not None:
        shared.service.engine.loops.hear(state.loops for state in states)
    shared.limiter.hear(count for state in states for count in state.counts)
    for state in states:
        if state.ended:
            shared.sessions.hear(state.ended)


def _access(service: Service) -> Callable[[str], str] | None:
    """Who a token of Cloudflare Access vouches for, where that is configured."""
    settings = service.settings
    if settings.access_team_domain is None or settings.access_audience is None:
        return None
    from bridge.http.access import Access

    return Access(settings.access_team_domain, settings.access_audience, service.clock).identity


def error_response(problem: Problem) -> Response:
    """An error as an HTTP answer."""
    response = jsonify(g.api.error(problem, g.get("request_id", "")))
    status = problem.sdk_status if g.api.sdk else problem.status
    response.status_code = status
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="cli-bridge"'
    if problem.retry_after is not None:
        response.headers["Retry-After"] = str(max(1, round(problem.retry_after + 0.5)))
    if g.api.sdk:
        # SDKs try again by themselves after 409, 429 and 5xx, and would pay again, unless told not to.
        response.headers["X-Should-Retry"] = "true" if problem.again else "false"
    return response


def _refusal(error: Exception) -> Response:
    assert isinstance(error, BridgeError)
    return error_response(error.problem)


def _http_error(error: Exception) -> Response:
    """What Flask itself refuses: unknown paths, wrong methods, bodies that are too large."""
    assert isinstance(error, HTTPException)
    if error.code == 404:
        told = absent(request.path)
        if told is not None and request.method == "OPTIONS":
            # A browser asks so first. Unless this goes well, it sends no request, and no page hears what is missing.
            return Response(status=204)
        hint = _BASE_URL if g.api.sdk else ""
        return error_response(told or Problem("not_found", "There is nothing at this path.", hint))
    if error.code == 405:
        response = error_response(Problem("method_not_allowed", f"{request.method} is not possible at this path."))
        response.headers["Allow"] = ", ".join(sorted(getattr(error, "valid_methods", None) or []))
        return response
    if error.code == 413:
        most = service_of().settings.max_body_bytes
        return error_response(Problem("payload_too_large", f"The body is larger than {most} bytes."))
    if error.code is not None and error.code < 400 and error.response is not None:
        return error.response  # type: ignore[return-value]
    return error_response(Problem("invalid_request", "The request could not be read."))


def _bug(error: Exception) -> Response:
    """Nobody foresaw this: the trace goes to the server's log, the request id to the client."""
    log.exception("request %s failed", g.get("request_id", ""), exc_info=error)
    return error_response(Problem("internal", "Something went wrong inside the bridge."))
