"""`POST /generate` and `POST /generate-codex`: the main job."""

from __future__ import annotations

from collections.abc import Iterator

from flask import Blueprint, Response, g, jsonify, request

from bridge.engine.run import Finished, Run
from bridge.errors import BridgeError
from bridge.http.context import engine_of, require_key, service_of
from bridge.http.disconnect import watch
from bridge.ledger.keys import Key
from bridge.ledger.ledger import Ledger
from bridge.wire import native, sse

blueprint = Blueprint("generate", __name__)

#: Longest silence on a stream, in seconds; proxies cut idle connections.
KEEP_ALIVE_S = 15.0


@blueprint.post("/generate")
def generate() -> Response:
    """Generate with the claude CLI."""
    return _generate("claude")


@blueprint.post("/generate-codex")
def generate_codex() -> Response:
    """Generate with the codex CLI."""
    return _generate("codex")


def _generate(provider: str) -> Response:
    key = require_key()
    service, engine = service_of(), engine_of()
    wanted, stream = native.parse(
        request.get_data(cache=False),
        provider=provider,
        default_model=getattr(service.settings, f"{provider}_default_model"),
        settings=service.settings,
    )
    stream = stream or "text/event-stream" in request.headers.get("Accept", "")
    run = engine.submit(key, wanted, stream=stream)
    if stream:
        return _stream(run, key)
    with watch(request.environ, lambda: run.cancel(client_gone())):
        finished = run.wait()
    assert finished is not None
    return answer(run, finished, key)


def answer(run: Run, finished: Finished, key: Key) -> Response:
    """A finished run as a JSON answer. Raises its BridgeError where it failed."""
    if isinstance(finished.result, BridgeError):
        raise finished.result
    response = jsonify(
        native.answer_object(run.id, run.request, finished.result, finished.charge, finished.duration_ms)
    )
    response.headers["X-Bridge-Cost-Usd"] = f"{finished.charge.cost_micro / 1e6:.6f}"
    response.headers.update(remaining_headers(service_of().ledger, key))
    return response


def client_gone() -> BridgeError:
    """Why a run ends whose client has left; only the log sees it."""
    return BridgeError("cancelled", "The client closed the connection before the answer was complete.")


def remaining_headers(ledger: Ledger, key: Key) -> dict[str, str]:
    """`X-Bridge-Remaining-…` for the limits that the key has."""
    headers = {}
    for (what, window), left in ledger.remaining(key).items():
        shown = f"{left / 1e6:.6f}" if what == "cost" else str(left)
        headers[f"X-Bridge-Remaining-{what.capitalize()}-{window.capitalize()}"] = shown
    return headers


def _stream(run: Run, key: Key) -> Response:
    response = Response(_events(run, request.environ, g.request_id), mimetype="text/event-stream")
    # Proxies must not collect the events.
    response.headers["X-Accel-Buffering"] = "no"
    response.headers.update(remaining_headers(service_of().ledger, key))
    return response


def _events(run: Run, environ: dict[str, object], request_id: str) -> Iterator[bytes]:
    try:
        with watch(environ, lambda: run.cancel(client_gone())):
            yield sse.event("start", {"id": run.id, "model": run.request.model})
            for text in run.follow(KEEP_ALIVE_S):
                yield sse.KEEP_ALIVE if text is None else sse.event("delta", {"text": text})
        finished = run.wait()
        assert finished is not None
        if isinstance(finished.result, BridgeError):
            yield sse.event("error", native.error_object(finished.result, request_id))
        else:
            yield sse.event(
                "done",
                native.answer_object(run.id, run.request, finished.result, finished.charge, finished.duration_ms),
            )
    finally:
        # Also when the server drops the response in the middle.
        run.cancel(client_gone())
