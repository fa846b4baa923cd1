"""Anthropic's Messages API, answers: bodies, errors, and events. Pure.

The order of the events: message_start, content_block_start, content_block_delta (often),
content_block_stop, message_delta, message_stop; ping in between; error at any point, and nothing after it.
Source of the shapes: Anthropic's API reference, and the types of its Python package, which tests/contract
holds them against.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from bridge.errors import BridgeError
from bridge.types import Answer, Finished, Usage
from bridge.wire import sse
from bridge.wire.anthropic import API_NAME
from bridge.wire.api import KEEP_ALIVE_S, Generation
from bridge.wire.dropin import run_number

#: HTTP status -> `type` of an error, as Anthropic names them
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    502: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
}
StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "model_context_window_exceeded"]


class ErrorDetails(msgspec.Struct):
    """What went wrong: `code` is one of the bridge's own; `hint` says what to do. 429 adds `limit`, `used`,
    `resets_at`; refused and mismatching answers their `text`."""

    type: str
    message: str
    code: str
    hint: str


class ErrorBody(msgspec.Struct):
    """An error, as Anthropic's SDKs read it."""

    type: Literal["error"]
    error: ErrorDetails
    request_id: str


class TokenDetails(msgspec.Struct):
    """What `output_tokens` has in it."""

    thinking_tokens: int


class MessageUsage(msgspec.Struct):
    """Tokens of a message; the three kinds of input add up."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int
    output_tokens_details: TokenDetails

    @classmethod
    def of(cls, usage: Usage) -> MessageUsage:
        """Usage in these words."""
        return cls(
            usage.input_tokens,
            usage.cache_write_tokens,
            usage.cache_read_tokens,
            usage.output_tokens,
            TokenDetails(usage.reasoning_tokens),
        )


class TextBlock(msgspec.Struct):
    """The text of an answer."""

    text: str
    type: Literal["text"] = "text"


class MessageBody(msgspec.Struct):
    """The body of an answer. `id` ends like the run's id in the request log."""

    id: str
    model: str
    content: list[TextBlock]
    stop_reason: StopReason | None
    usage: MessageUsage
    stop_sequence: str | None = None
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"


class TokenCount(msgspec.Struct):
    """About how many tokens a request has."""

    input_tokens: int


class AnthropicApi:
    """The answers of `/v1/messages`."""

    name = API_NAME

    def answer(self, generation: Generation, finished: Finished) -> dict[str, Any]:
        """The body of a 200."""
        answer = finished.result
        assert isinstance(answer, Answer)
        body: dict[str, Any] = msgspec.to_builtins(
            MessageBody(
                id=_id(generation),
                model=answer.model,
                content=[TextBlock(answer.text)] if answer.text else [],
                stop_reason=stop_reason(answer.stop_reason),
                stop_sequence=answer.stop_sequence,
                usage=MessageUsage.of(finished.charge.usage),
            )
        )
        return body

    def error(self, error: BridgeError, request_id: str) -> dict[str, Any]:
        """The body of an error, and the data of `event: error`. Beside Anthropic's fields it has the bridge's."""
        details = {
            "type": _TYPES.get(error.status, "invalid_request_error"),
            "message": error.message,
            "code": error.code,
            "hint": error.hint,
        }
        return {"type": "error", "error": {**error.facts, **details}, "request_id": request_id}

    def events(self, generation: Generation, request_id: str) -> Iterator[bytes]:
        """The events, in the order that is said above."""

        def event(kind: str, **data: Any) -> bytes:
            return sse.event(kind, {"type": kind, **data})

        # What the prompt counted is known at the end; message_delta then says it.
        empty = MessageBody(_id(generation), generation.request.model, [], None, MessageUsage.of(Usage()))
        yield event("message_start", message=empty)
        begun = False
        for text in generation.follow(KEEP_ALIVE_S):
            if text is None:
                yield sse.keep_alive(generation.queue_position) + event("ping")
                continue
            if not begun:
                begun = True
                yield event("content_block_start", index=0, content_block=TextBlock(""))
            yield event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})
        finished = generation.wait()
        assert finished is not None
        if isinstance(finished.result, BridgeError):
            yield sse.event("error", self.error(finished.result, request_id))
            return
        if begun:
            yield event("content_block_stop", index=0)
        answer = finished.result
        delta = {"stop_reason": stop_reason(answer.stop_reason), "stop_sequence": answer.stop_sequence}
        yield event("message_delta", delta=delta, usage=MessageUsage.of(finished.charge.usage))
        yield event("message_stop")


API = AnthropicApi()


def stop_reason(reason: str) -> StopReason:
    """Why an answer ended, in Anthropic's words."""
    if reason in ("max_tokens", "stop_sequence", "model_context_window_exceeded"):
        return reason  # type: ignore[return-value]
    return "end_turn"


def _id(generation: Generation) -> str:
    return "msg_" + run_number(generation.id)
