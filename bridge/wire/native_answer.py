"""The native API, answers: JSON bodies, errors, and server-sent events. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bridge.errors import BridgeError
from bridge.types import Answer, Finished, Usage
from bridge.wire import sse
from bridge.wire.api import KEEP_ALIVE_S, Generation

#: How often somebody who waits in the queue hears of a new place, in seconds.
QUEUE_NEWS_S = 1.0


class NativeApi:
    """The answers of `/generate` and `/generate-codex`."""

    name = "native"

    def answer(self, generation: Generation, finished: Finished) -> dict[str, Any]:
        """The body of a 200, and the data of `event: done`."""
        answer, charge, request = finished.result, finished.charge, generation.request
        assert isinstance(answer, Answer)
        body: dict[str, Any] = {
            "id": generation.id,
            "model": answer.model,
            "content": [{"type": "text", "text": answer.text}],
            "stop_reason": answer.stop_reason,
            "usage": usage_object(request.provider, charge.usage),
            "cost_usd": charge.cost_micro / 1e6,
            "duration_ms": finished.duration_ms,
        }
        if charge.assumed:
            # The CLI was stopped before it said what it used; these are the bridge's own figures.
            body["usage_assumed"] = True
        if request.schema is not None:
            body["output"] = answer.output
        return body

    def error(self, error: BridgeError, request_id: str) -> dict[str, Any]:
        """The body of an error, and the data of `event: error`."""
        return {
            "error": error.message,
            "code": error.code,
            "hint": error.hint,
            "request_id": request_id,
            **error.facts,
        }

    def events(self, generation: Generation, request_id: str) -> Iterator[bytes]:
        """`start`, `queued` with each new place while it waits, `delta`, and at the end `done` or `error`."""
        yield sse.event("start", {"id": generation.id, "model": generation.request.model})
        told, silent_s = 0, 0.0
        if position := generation.queue_position:
            told = position
            yield sse.event("queued", {"position": position})
        beat_s = QUEUE_NEWS_S if told else KEEP_ALIVE_S
        for text in generation.follow(beat_s):
            silent_s = 0.0 if text is not None else silent_s + beat_s
            position = generation.queue_position
            if text is not None:
                yield sse.event("delta", {"text": text})
            elif position and position != told:
                told, silent_s = position, 0.0
                yield sse.event("queued", {"position": position})
            elif silent_s >= KEEP_ALIVE_S:
                silent_s = 0.0
                yield sse.KEEP_ALIVE
        finished = generation.wait()
        assert finished is not None
        if isinstance(finished.result, BridgeError):
            yield sse.event("error", self.error(finished.result, request_id))
        else:
            yield sse.event("done", self.answer(generation, finished))


API = NativeApi()


def usage_object(provider: str, usage: Usage) -> dict[str, int]:
    """Usage in the words of the provider's own API."""
    if provider == "codex":
        return {
            "input_tokens": usage.prompt,
            "output_tokens": usage.output_tokens,
            "cached_input_tokens": usage.cache_read_tokens,
            "reasoning_output_tokens": usage.reasoning_tokens,
        }
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
    }
