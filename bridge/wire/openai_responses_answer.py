"""OpenAI's Responses API, answers: bodies, errors, and events. Pure.

The order of the events: response.created, in_progress, output_item.added, content_part.added,
output_text.delta (often), output_text.done, content_part.done, output_item.done, and then completed or
incomplete; or failed at any point after the second. Each has the next sequence_number.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from bridge.errors import BridgeError
from bridge.types import Answer, Finished
from bridge.wire import sse
from bridge.wire.api import KEEP_ALIVE_S, Generation
from bridge.wire.dropin import run_number
from bridge.wire.openai import ResponseUsage, error_body, error_type, finish_reason, json_format
from bridge.wire.openai_responses import API_NAME

Status = Literal["in_progress", "completed", "incomplete", "failed"]


class OutputTextPart(msgspec.Struct):
    """The text of an answer."""

    text: str
    type: Literal["output_text"] = "output_text"
    annotations: list[Any] = []
    logprobs: list[Any] = []


class OutputMessage(msgspec.Struct):
    """The answer of the model."""

    id: str
    status: Literal["in_progress", "completed", "incomplete"]
    content: list[OutputTextPart]
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"


class IncompleteDetails(msgspec.Struct):
    """Why an answer was cut."""

    reason: Literal["max_output_tokens"] = "max_output_tokens"


class ResponseError(msgspec.Struct):
    """Why there is no answer: `code` is one that OpenAI knows, `type` the bridge's own code."""

    code: Literal["server_error", "rate_limit_exceeded"]
    message: str
    type: str
    param: None = None


class ReasoningShown(msgspec.Struct):
    """How much the model was asked to think."""

    effort: str | None
    summary: None = None


class Response(msgspec.Struct):
    """The body of an answer. `id` ends like the run's id in the request log; times are UTC seconds."""

    id: str
    created_at: int
    model: str
    status: Status
    output: list[OutputMessage]
    text: dict[str, Any]
    reasoning: ReasoningShown
    max_output_tokens: int
    completed_at: int | None = None
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    usage: ResponseUsage | None = None
    object: Literal["response"] = "response"
    background: Literal[False] = False
    instructions: None = None
    metadata: dict[str, str] = {}
    parallel_tool_calls: bool = True
    previous_response_id: None = None
    service_tier: Literal["default"] = "default"
    temperature: float = 1.0
    tool_choice: Literal["auto"] = "auto"
    tools: list[Any] = []
    top_logprobs: int = 0
    top_p: float = 1.0
    truncation: Literal["disabled"] = "disabled"


class OpenAIResponsesApi:
    """The answers of `/v1/responses`."""

    name = API_NAME

    def answer(self, generation: Generation, finished: Finished) -> dict[str, Any]:
        """The body of a 200."""
        body: dict[str, Any] = msgspec.to_builtins(_complete(generation, finished))
        return body

    def error(self, error: BridgeError, request_id: str) -> dict[str, Any]:
        """The body of an error."""
        return error_body(error, request_id)

    def events(self, generation: Generation, request_id: str) -> Iterator[bytes]:
        """The events, in the order that is said above."""
        number = 0

        def event(kind: str, **data: Any) -> bytes:
            nonlocal number
            number += 1
            return sse.event(kind, {"type": kind, "sequence_number": number - 1, **data})

        begun = _begun(generation)
        yield event("response.created", response=begun)
        yield event("response.in_progress", response=begun)
        pieces: list[str] = []
        at = {"item_id": _item_id(generation), "output_index": 0, "content_index": 0}
        for text in generation.follow(KEEP_ALIVE_S):
            if text is None:
                yield sse.keep_alive(generation.queue_position)
                continue
            if not pieces:
                item = OutputMessage(_item_id(generation), "in_progress", [])
                yield event("response.output_item.added", output_index=0, item=item)
                yield event("response.content_part.added", **at, part=OutputTextPart(""))
            pieces.append(text)
            yield event("response.output_text.delta", **at, delta=text, logprobs=[])
        finished = generation.wait()
        assert finished is not None
        if isinstance(finished.result, BridgeError):
            yield event("response.failed", response=_failed(generation, finished.result))
            return
        response = _complete(generation, finished)
        if pieces:
            item = response.output[0]
            yield event("response.output_text.done", **at, text=item.content[0].text, logprobs=[])
            yield event("response.content_part.done", **at, part=item.content[0])
            yield event("response.output_item.done", output_index=0, item=item)
        yield event(f"response.{response.status}", response=response)


API = OpenAIResponsesApi()


def _begun(generation: Generation) -> Response:
    request = generation.request
    return Response(
        id="resp_" + run_number(generation.id),
        created_at=int(generation.started_at),
        model=request.model,
        status="in_progress",
        output=[],
        text={"format": json_format(request), "verbosity": "medium"},
        reasoning=ReasoningShown(request.effort),
        max_output_tokens=request.max_output_tokens,
    )


def _complete(generation: Generation, finished: Finished) -> Response:
    answer = finished.result
    assert isinstance(answer, Answer)
    cut = finish_reason(answer.stop_reason) == "length"
    status: Literal["incomplete", "completed"] = "incomplete" if cut else "completed"
    item = OutputMessage(_item_id(generation), status, [OutputTextPart(answer.text)])
    return msgspec.structs.replace(
        _begun(generation),
        model=answer.model,
        status=status,
        completed_at=None if cut else int(generation.started_at + finished.duration_ms / 1000),
        output=[item] if answer.text else [],
        incomplete_details=IncompleteDetails() if cut else None,
        usage=ResponseUsage.of(finished.charge.usage),
    )


def _failed(generation: Generation, error: BridgeError) -> Response:
    code: Literal["server_error", "rate_limit_exceeded"] = "server_error"
    if error_type(error) in ("rate_limit_error", "insufficient_quota") or error.code == "provider_rate_limited":
        code = "rate_limit_exceeded"
    shown = ResponseError(code, f"{error.message} {error.hint}", error.code)
    return msgspec.structs.replace(_begun(generation), status="failed", error=shown)


def _item_id(generation: Generation) -> str:
    return "msg_" + run_number(generation.id)
