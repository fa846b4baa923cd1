"""From a parsed request to its HTTP answer, the same way for every API: submitted, watched, rendered."""

from __future__ import annotations

from collections.abc import Iterator

from flask import Response, g, jsonify, request

from bridge.engine.run import Run
from bridge.errors import BridgeError
from bridge.http.context import engine_of, service_of
from bridge.http.disconnect import watch
from bridge.ledger.keys import Key
from bridge.ledger.ledger import Ledger
from bridge.types import Finished, GenerationRequest
from bridge.wire.api import Api, Generation


def respond(key: Key, wanted: GenerationRequest, api: Api, *, stream: bool) -> Response:
    """Generate `wanted` for `key` and answer in the shape of `api`. Raises BridgeError."""
    run = engine_of().submit(key, wanted, stream=stream)
    if stream:
        return _streamed(run, api, key)
    with watch(request.environ, lambda: run.cancel(client_gone())):
        finished = run.wait()
    assert finished is not None
    return _answered(run, finished, api, key)


def _answered(generation: Generation, finished: Finished, api: Api, key: Key) -> Response:
    """A finished generation as a JSON answer. Raises its BridgeError where it failed."""
    if isinstance(finished.result, BridgeError):
        raise finished.result
    response = jsonify(api.answer(generation, finished))
    response.headers["X-Bridge-Cost-Usd"] = f"{finished.charge.cost_micro / 1e6:.6f}"
    response.headers.update(remaining_headers(service_of().ledger, key))
    return response


def _streamed(run: Run, api: Api, key: Key) -> Response:
    response = Response(_events(run, api, request.environ, g.request_id), mimetype="text/event-stream")
    # Proxies must not collect the events.
    response.headers["X-Accel-Buffering"] = "no"
    response.headers.update(remaining_headers(service_of().ledger, key))
    return response


def _events(run: Run, api: Api, environ: dict[str, object], request_id: str) -> Iterator[bytes]:
    try:
        with watch(environ, lambda: run.cancel(client_gone())):
            yield from api.events(run, request_id)
    finally:
        # Also when the server drops the response in the middle.
        run.cancel(client_gone())


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
