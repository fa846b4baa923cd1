"""OpenAI's chat completions, answers: bodies, errors, and chunks. Pure.

The order of the chunks: one with the role, those with the text, one with the finish reason, with
`include_usage` one with the usage, then `[DONE]`. An error in the middle takes the place of all the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from bridge.errors import BridgeError
from bridge.types import Answer, Finished
from bridge.wire import sse
from bridge.wire.api import KEEP_ALIVE_S, Generation
from bridge.wire.dropin import run_number
from bridge.wire.openai import ChatUsage, FinishReason, error_body, finish_reason
from bridge.wire.openai_chat import API_NAME

_DONE = b"data: [DONE]\n\n"


class AnswerMessage(msgspec.Struct):
    """What the model said."""

    content: str
    role: Literal["assistant"] = "assistant"
    refusal: None = None
    annotations: list[Any] = []


class Choice(msgspec.Struct):
    """The one answer."""

    message: AnswerMessage
    finish_reason: FinishReason
    index: int = 0
    logprobs: None = None


class ChatCompletion(msgspec.Struct):
    """The body of an answer. `id` ends like the run's id in the request log; `created` is in UTC seconds."""

    id: str
    created: int
    model: str
    choices: list[Choice]
    usage: ChatUsage
    object: Literal["chat.completion"] = "chat.completion"
    service_tier: Literal["default"] = "default"
    system_fingerprint: None = None


class Delta(msgspec.Struct, omit_defaults=True):
    """A further piece of the answer."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(msgspec.Struct):
    """A further piece of the one answer, or its end."""

    delta: Delta
    finish_reason: FinishReason | None = None
    index: int = 0
    logprobs: None = None


class Chunk(msgspec.Struct):
    """An event of a stream. `usage` only where it was asked for: null until the last chunk."""

    id: str
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: ChatUsage | UnsetType | None = UNSET
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    service_tier: Literal["default"] = "default"
    system_fingerprint: None = None


class OpenAIChatApi:
    """The answers of `/v1/chat/completions`."""

    name = API_NAME

    def answer(self, generation: Generation, finished: Finished) -> dict[str, Any]:
        """The body of a 200."""
        answer = finished.result
        assert isinstance(answer, Answer)
        body: dict[str, Any] = msgspec.to_builtins(
            ChatCompletion(
                id=_id(generation),
                created=int(generation.started_at),
                model=answer.model,
                choices=[Choice(AnswerMessage(answer.text), finish_reason(answer.stop_reason))],
                usage=ChatUsage.of(finished.charge.usage),
            )
        )
        return body

    def error(self, error: BridgeError, request_id: str) -> dict[str, Any]:
        """The body of an error, and the data of one in a stream."""
        return error_body(error, request_id)

    def events(self, generation: Generation, request_id: str) -> Iterator[bytes]:
        """The chunks, in the order that is said above."""
        with_usage = generation.request.include_usage
        frame = Chunk(
            _id(generation), int(generation.started_at), generation.request.model, [], None if with_usage else UNSET
        )

        def chunk(delta: Delta, reason: FinishReason | None = None) -> bytes:
            return sse.unnamed(msgspec.structs.replace(frame, choices=[ChunkChoice(delta, reason)]))

        yield chunk(Delta("assistant", ""))
        for text in generation.follow(KEEP_ALIVE_S):
            yield sse.keep_alive(generation.queue_position) if text is None else chunk(Delta(content=text))
        finished = generation.wait()
        assert finished is not None
        if isinstance(finished.result, BridgeError):
            yield sse.unnamed(self.error(finished.result, request_id))
            return
        yield chunk(Delta(), finish_reason(finished.result.stop_reason))
        if with_usage:
            yield sse.unnamed(msgspec.structs.replace(frame, usage=ChatUsage.of(finished.charge.usage)))
        yield _DONE


API = OpenAIChatApi()


def _id(generation: Generation) -> str:
    return "chatcmpl-" + run_number(generation.id)
