"""From a parsed request to its HTTP answer, the same way for every API: submitted, watched, rendered.

`Prefer` is RFC 7240: `respond-async` answers with a job at once, `wait=N` after N seconds.
"""

from __future__ import annotations

import hashlib
import re
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import gevent.socket
import msgspec
from flask import Response, g, jsonify, request
from gevent.monkey import get_original

from bridge.engine.run import Run
from bridge.errors import BridgeError, Problem
from bridge.http.context import engine_of
from bridge.keys.keys import Key
from bridge.ledger.ledger import Ledger
from bridge.limits import dollars
from bridge.records.jobs import Repeat
from bridge.types import Finished, GenerationRequest
from bridge.wire.api import Api, Events, Generation, Render

#: Cloudflare gives an origin 100 seconds to begin its answer; after this many the answer is a job.
CLOUDFLARE_PATIENCE_S = 90.0
_LONGEST_IDEMPOTENCY_KEY = 255
#: Seconds between looks at a connection that has unread data on it.
RECHECK_S = 0.5


class _Preference(msgspec.Struct, frozen=True):
    """`Prefer`: after how many seconds the answer is to be a job; None for never."""

    job_after_s: float | None = None
    applied: str | None = None


def respond(
    key: Key,
    wanted: GenerationRequest,
    api: Api,
    repeat: Repeat | None,
    answer: Render,
    events: Events | None,
) -> Response:
    """Generate `wanted` for `key`, as a client of `api` expects it; `repeat` is `repeat_of` the body that it came as,
    `answer` renders the answer, or `events` the stream where one is asked for. Raises BridgeError."""
    if repeat is not None:
        earlier = engine_of().earlier(key, repeat)
        if earlier is not None and earlier.finished is not None:
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


def repeat_of(body: bytes) -> Repeat | None:
    """The Idempotency-Key of the request, if it has one. Raises BridgeError invalid_request."""
    given = request.headers.get("Idempotency-Key")
    if given is None:
        return None
    if not given or len(given) > _LONGEST_IDEMPOTENCY_KEY:
        raise BridgeError("invalid_request", f"Idempotency-Key must have 1 to {_LONGEST_IDEMPOTENCY_KEY} characters.")
    path = request.path.encode("utf-8", "replace")
    return Repeat(digest_of_repeat(given), _digest(path + b"\n" + body))


def digest_of_repeat(given: str) -> str:
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


def remaining_headers(ledger: Ledger, key: Key) -> dict[str, str]:
    """`X-Bridge-Remaining-…` for the limits that the key has."""
    headers = {}
    for limit, _, left in ledger.remaining(key.name, key.limits):
        headers[limit.header] = f"{dollars(left):.6f}" if limit.is_cost else str(left)
    return headers


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
