"""`/jobs/ID`: come back for a long answer, or stop it. Only the key that asked sees its jobs."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, g, jsonify, request

from bridge.clock import iso
from bridge.engine.run import Run
from bridge.errors import BridgeError, Problem
from bridge.http.context import engine_of, require_key
from bridge.http.respond import CLOUDFLARE_PATIENCE_S
from bridge.records.jobs import Job
from bridge.types import Finished
from bridge.wire.api import Ended
from bridge.wire.apis import APIS

blueprint = Blueprint("jobs", __name__)

#: Retry-After of a job that still runs, in seconds.
LOOK_AGAIN_S = 2
#: How many requests of one key may wait for jobs at a time; more are answered at once.
MOST_WAITING = 20
#: Grace for a stopped run to be settled, in seconds.
STOP_S = 5.0


@blueprint.get("/jobs/<job_id>")
def job(job_id: str) -> Response:
    """A job as it is now, or as soon as it has ended but at most `wait` seconds from now."""
    key = require_key()
    found = engine_of().jobs.find(key, job_id)
    if isinstance(found, Run):
        with engine_of().jobs.waiting(key, MOST_WAITING) as may_wait:
            found.wait(_wait_s() if may_wait else 0)
    return _shown(found)


@blueprint.delete("/jobs/<job_id>")
def cancel(job_id: str) -> Response:
    """Stop a job that runs; it is charged what it has used. One that has ended stays as it is."""
    key = require_key()
    found = engine_of().jobs.find(key, job_id)
    if isinstance(found, Run):
        found.cancel(Problem("cancelled", "The request was cancelled."))
        found.wait(STOP_S)
    return _shown(found)


def _shown(found: Run | Job) -> Response:
    state, finished = "running", found.finished
    if isinstance(found, Run) and finished is None:
        state = "queued" if found.queue_position else "running"
    body: dict[str, Any] = {
        "id": found.id,
        "status": state,
        "provider": found.request.provider,
        "model": found.request.model,
        "created_at": iso(found.started_at),
    }
    if finished is not None:
        body |= _outcome(found, finished)
    elif isinstance(found, Run):
        body["queue_position"] = found.queue_position
        body["output_tokens_so_far"] = found.usage_so_far.output_tokens
    response = jsonify(body)
    if finished is None:
        response.headers["Retry-After"] = str(LOOK_AGAIN_S)
    elif not isinstance(finished.result, Problem):
        response.headers["X-Bridge-Cost-Usd"] = f"{finished.charge.cost_micro / 1e6:.6f}"
    return response


def _outcome(found: Run | Job, finished: Finished) -> dict[str, Any]:
    api = APIS[found.request.api]
    if isinstance(finished.result, Problem):
        return {"status": "failed", "error": api.error(finished.result, g.request_id)}
    ended = Ended(found.id, found.request, found.started_at, finished)
    return {"status": "done", "result": api.answer(ended, finished)}


def _wait_s() -> float:
    text = request.args.get("wait", "0")
    most = int(CLOUDFLARE_PATIENCE_S)
    if not text.isascii() or not text.isdigit() or len(text) > 6:
        raise BridgeError(
            "invalid_request", f"wait must be a whole number of seconds; more than {most} count as {most}."
        )
    return min(float(text), CLOUDFLARE_PATIENCE_S)
