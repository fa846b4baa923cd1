"""`/jobs/ID`: come back for a long answer, or stop it. Only the key that asked sees its jobs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from flask import g, request

from bridge.clock import iso
from bridge.engine.run import Run
from bridge.errors import BridgeError, Problem
from bridge.http.context import edge, engine_of
from bridge.http.describe import Query, Routes
from bridge.http.generate import CLOUDFLARE_PATIENCE_S
from bridge.http.views import JobView
from bridge.keys.keys import Key
from bridge.records.jobs import Job
from bridge.wire.apis import APIS

routes = Routes("Generate", who="key")

_WAIT = Query("wait", "Seconds to wait for the end, up to 90.", {"type": "integer", "minimum": 0, "maximum": 999999})

#: Retry-After of a job that still runs, in seconds.
LOOK_AGAIN_S = 2
#: How many requests of one key may wait for jobs at a time; more are answered at once.
MOST_WAITING = 20
#: Grace for a stopped run to be settled, in seconds.
STOP_S = 5.0


@routes.add("GET", "/jobs/<id>", query=(_WAIT,), errors=("invalid_request", "not_found", "draining"))
def job(key: Key, id: str) -> tuple[JobView, dict[str, str]]:
    """A job as it is now, or as soon as it has ended but at most `wait` seconds from now."""
    found = engine_of().find(key, id)
    if isinstance(found, Run) or found.finished is None:
        with _waiting(key) as may_wait:
            found = engine_of().await_end(found, _wait_s() if may_wait else 0)
    return _shown(found)


@routes.add("DELETE", "/jobs/<id>", errors=("not_found", "draining"))
def cancel(key: Key, id: str) -> tuple[JobView, dict[str, str]]:
    """Stop a job that runs; it is charged what it has used. One that has ended stays as it is."""
    found = engine_of().find(key, id)
    if isinstance(found, Run) or found.finished is None:
        found = engine_of().cancel(found, STOP_S)
    return _shown(found)


@contextmanager
def _waiting(key: Key) -> Iterator[bool]:
    """While a request waits for a job of this key; whether no more than MOST_WAITING do."""
    waiting = edge().waiting
    waiting[key.name] += 1
    try:
        yield waiting[key.name] <= MOST_WAITING
    finally:
        waiting[key.name] -= 1
        if not waiting[key.name]:
            del waiting[key.name]


def _shown(found: Run | Job) -> tuple[JobView, dict[str, str]]:
    """A job, and the headers that go with it."""
    request, finished = found.request, found.finished
    view = JobView(found.id, "running", request.provider, request.model, iso(found.started_at))
    if finished is None:
        view.queue_position, view.output_tokens_so_far = _so_far(found)
        view.status = "queued" if view.queue_position else "running"
        return view, {"Retry-After": str(LOOK_AGAIN_S)}
    api = APIS[request.api]
    if isinstance(finished.result, Problem):
        view.status, view.error = "failed", api.error(finished.result, g.request_id)
        return view, {}
    view.status = "done"
    view.result = api.answer(found, finished)
    return view, {"X-Bridge-Cost-Usd": f"{finished.charge.cost_micro / 1e6:.6f}"}


def _so_far(found: Run | Job) -> tuple[int, int]:
    """Its place in the queue, and the tokens of its output; of a job on another node, as of the last look at that."""
    if isinstance(found, Run):
        return found.queue_position, found.usage_so_far.output_tokens
    nodes = engine_of().nodes
    told = None if nodes is None else nodes.run(found.id)
    return (0, 0) if told is None else (told["queuePosition"], told["outputTokensSoFar"])


def _wait_s() -> float:
    text = request.args.get("wait", "0")
    most = int(CLOUDFLARE_PATIENCE_S)
    if not text.isascii() or not text.isdigit() or len(text) > 6:
        raise BridgeError(
            "invalid_request", f"wait must be a whole number of seconds; more than {most} count as {most}."
        )
    return min(float(text), CLOUDFLARE_PATIENCE_S)
