"""The endpoints that generate, made from the registry of APIs: `POST /generate`, `/v1/messages` and the others; and
those that say what a request may cost at most, without sending it: `POST /generate/estimate` and its siblings.

`Prefer` is RFC 7240: `respond-async` answers with a job at once, `wait=N` after N seconds.
"""

from __future__ import annotations

import hashlib
import re
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import gevent
import gevent.socket
import msgspec
from flask import Response, g, jsonify, request
from gevent.monkey import get_original

from bridge.engine.run import Run
from bridge.errors import CODES, BridgeError, Problem
from bridge.http.body import beside
from bridge.http.context import edge, engine_of, known_to, service_of
from bridge.http.describe import Query, Routes
from bridge.http.me import remaining
from bridge.http.views import Accepted, Estimate
from bridge.keys.keys import Key
from bridge.limits import LIMITS, dollars
from bridge.providers.models import heeded
from bridge.records.jobs import Repeat
from bridge.registry import PROVIDERS
from bridge.service import Service
from bridge.types import Finished, GenerationRequest, ModelChoice
from bridge.wire import native
from bridge.wire.api import Api, Events, Generation, Known, Render
from bridge.wire.apis import APIS
from bridge.wire.conversation import session_of

#: Cloudflare gives an origin 100 seconds to begin its answer; after this many the answer is a job.
CLOUDFLARE_PATIENCE_S = 90.0
_LONGEST_IDEMPOTENCY_KEY = 255
#: Seconds between looks at a connection that has unread data on it.
RECHECK_S = 0.5

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
        wanted, answer, events = beside(body, partial(_parse, api, body, *about, known_to(key, resolve)))
        may_search = key.web_search and engine_of().providers[wanted.provider].searches
        wanted = heeded(wanted, may_search=may_search)
        if not api.sdk and "text/event-stream" in request.headers.get("Accept", ""):
            events = api.events
        g.ignored = wanted.ignored
        repeat = _repeat_of(body)
        # With images it is large, and nothing needs it while the run goes on.
        del body
        return _respond(key, wanted, api, repeat, answer, events)


def _parse(
    api: Api, body: bytes, session: str | None, request_id: str, known: Known
) -> tuple[GenerationRequest, Render, Events | None]:
    """A body as `Api.parse` reads it, with what its client calls the conversation, and its request id."""
    wanted, answer, events = api.parse(body, known)
    wanted = msgspec.structs.replace(wanted, session=session_of(session, body), request_id=request_id)
    return wanted, answer, events


def _check_before_body(api: Api, provider: str | None, key: Key) -> None:
    """Refuse a large body that is not read yet, where it would be refused whatever it says. Raises BridgeError."""
    given = request.headers.get("Idempotency-Key")
    # Where there is an answer already, it is given whatever the caps say.
    if given is None or not engine_of().has_earlier(key, _digest_of_repeat(given)):
        engine_of().check_before_body(key, api.name, provider, g.request_id)


def model_of(service: Service, provider: str, name: str) -> ModelChoice:
    """The model behind a name at the endpoint of one provider. Raises BridgeError."""
    name = name or service.settings.providers[provider].default_model
    choice = service.models.of_provider(provider, name)
    if choice.provider != provider:
        raise BridgeError("invalid_request", f"The model {name} is one of {choice.provider}; use its endpoint.")
    return choice


# --- from a request to its answer, the same way for every API ------------------------------------------


class _Preference(msgspec.Struct, frozen=True):
    """`Prefer`: after how many seconds the answer is to be a job; None for never."""

    job_after_s: float | None = None
    applied: str | None = None


def _respond(
    key: Key,
    wanted: GenerationRequest,
    api: Api,
    repeat: Repeat | None,
    answer: Render,
    events: Events | None,
) -> Response:
    """Generate `wanted` for `key`, as a client of `api` expects it; `repeat` is `_repeat_of` the body that it came as,
    `answer` renders the answer, or `events` the stream where one is asked for. Raises BridgeError."""
    if repeat is not None:
        earlier = engine_of().earlier(key, repeat)
        if earlier is not None and earlier.finished is not None:
            g.ignored = earlier.request.ignored
            response = _streamed(earlier, events) if events else _answered(earlier, earlier.finished, answer)
            response.headers["Idempotent-Replayed"] = "true"
            return response
    prefer = _Preference() if events else _preference()
    run = engine_of().submit(key, wanted, stream=events is not None, keep=prefer.job_after_s == 0, repeat=repeat)
    if events:
        return _streamed(run, events)
    with _watch(request.environ, run.leave):
        finished = run.wait(prefer.job_after_s)
        if finished is None:
            engine_of().keep(run)
            finished = run.finished
    response = _accepted(run, api, prefer) if finished is None else _answered(run, finished, answer)
    if prefer.applied:
        response.headers["Preference-Applied"] = prefer.applied
    return response


def _answered(generation: Generation, finished: Finished, answer: Render) -> Response:
    """A finished generation as a JSON answer. Raises BridgeError where it failed."""
    if isinstance(finished.result, Problem):
        raise BridgeError.of(finished.result)
    response = jsonify(answer(generation, finished))
    response.headers["X-Bridge-Cost-Usd"] = f"{finished.charge.cost_micro / 1e6:.6f}"
    return response


def _accepted(run: Run, api: Api, prefer: _Preference) -> Response:
    """202: the run goes on as a job. Raises BridgeError where an SDK has not asked for that: it would take it for
    an answer without a text."""
    if prefer.applied is None and api.sdk:
        raise BridgeError(
            "timeout",
            f"The answer takes longer than the tunnel waits. It goes on, as the job {run.id}.",
            f"Use streaming for long answers. GET /jobs/{run.id} has this one when it is done.",
        )
    response = jsonify({"id": run.id, "status": "queued" if run.queue_position else "running"})
    response.status_code = 202
    response.headers["Location"] = f"/jobs/{run.id}"
    return response


def _streamed(generation: Generation, events: Events) -> Response:
    stream = events(generation, g.request_id)
    if isinstance(generation, Run):
        stream = _watched(generation, stream, request.environ)
    response = Response(stream, mimetype="text/event-stream")
    if isinstance(generation, Run):
        # Also where the client leaves before the first byte, or the server drops the response half-way.
        response.call_on_close(generation.leave)
    # Proxies must not collect the events.
    response.headers["X-Accel-Buffering"] = "no"
    return response


def _watched(run: Run, events: Iterator[bytes], environ: dict[str, object]) -> Iterator[bytes]:
    with _watch(environ, run.leave):
        yield from events


def _repeat_of(body: bytes) -> Repeat | None:
    """The Idempotency-Key of the request, if it has one. Raises BridgeError invalid_request."""
    given = request.headers.get("Idempotency-Key")
    if given is None:
        return None
    if not given or len(given) > _LONGEST_IDEMPOTENCY_KEY:
        raise BridgeError("invalid_request", f"Idempotency-Key must have 1 to {_LONGEST_IDEMPOTENCY_KEY} characters.")
    path = request.path.encode("utf-8", "replace")
    return Repeat(_digest_of_repeat(given), _digest(path + b"\n" + body))


def _digest_of_repeat(given: str) -> str:
    """What is kept of an Idempotency-Key; see `Repeat.key`."""
    return _digest(given.encode("utf-8", "replace"))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _preference() -> _Preference:
    """What the client, or the proxy that it came through, can wait for."""
    given = ",".join(request.headers.getlist("Prefer")).lower()
    names = [part.split(";")[0].strip() for part in given.split(",")]
    waits = [int(found[1]) for name in names if (found := re.fullmatch(r"wait\s*=\s*\"?(\d{1,6})\"?", name))]
    most = CLOUDFLARE_PATIENCE_S if "CF-Ray" in request.headers else None
    if waits:
        return _Preference(waits[0] if most is None else min(waits[0], most), f"wait={waits[0]}")
    if "respond-async" in names:
        return _Preference(0.0, "respond-async")
    return _Preference(most)


@contextmanager
def _watch(environ: dict[str, Any], gone: Callable[[], None]) -> Iterator[None]:
    """Call `gone()` once if the client closes its connection within the block.

    A WSGI server sees that only when it writes, and a silent answer never writes; so a greenlet waits
    for the socket to become readable, which it does at once when the other side hangs up.
    """
    connection = environ.get("gunicorn.socket")
    if connection is None:
        yield
        return
    watcher = gevent.spawn(_wait_until_gone, connection, gone)
    try:
        yield
    finally:
        watcher.kill(block=False)


def _wait_until_gone(connection: socket.socket, gone: Callable[[], None]) -> None:
    try:
        fd = connection.fileno()
        poller = get_original("select", "poll")()
        poller.register(fd, select.POLLRDHUP)
        while True:
            gevent.socket.wait_read(fd)
            if poller.poll(0) or not connection.recv(1, socket.MSG_PEEK):
                break
            # The next request of an impatient client lies there: the end may come behind it.
            gevent.sleep(RECHECK_S)
    except OSError:
        pass
    gone()


# --- what a request may cost -----------------------------------------------------------------------


def _estimate(provider: str, key: Key) -> Estimate:
    service = service_of()
    with edge().limiter.work(key.name):
        body = request.get_data(cache=False)
        resolve = partial(model_of, service, provider)
        wanted, *_ = beside(body, partial(native.API.parse, body, known_to(key, resolve)))
        held = engine_of().quote(key, wanted)
    return Estimate(
        provider=held.provider,
        model=held.model,
        cost_usd=dollars(held.cost_micro),
        input_tokens=held.input_tokens,
        max_output_tokens=held.output_tokens,
        remaining=remaining(key),
    )


# --- the routes ------------------------------------------------------------------------------------


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
