"""OpenAI's older completions: `POST /v1/completions`. Bytes in, types out, and back. Pure.

The prompt is a user's message, since the models of today answer and do not go on. The order of the chunks: those with
the text, one with the finish reason, with `include_usage` one with the usage, then `[DONE]`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from bridge.errors import Problem
from bridge.types import Answer, Finished, Text, ToolChoice
from bridge.wire import content, conversation
from bridge.wire.api import KEEP_ALIVE_S, Api, Asked, Generation, Known, keep_alive, pieces, sse_data
from bridge.wire.content import invalid
from bridge.wire.conversation import Turns, generation, run_number, sampling
from bridge.wire.openai import ChatUsage, OpenAIErrorBody, finish_reason, render_error
from bridge.wire.openai_chat import StreamOptions
from bridge.wire.parameters import SAMPLED, SAMPLING, ignored, passed_over, read, refused, supported, table

#: as the log shows it
API_NAME = "openai-completions"

PARAMETERS = table(
    supported("model", "its name picks the CLI; aliases work"),
    supported("prompt", "a text, or a list of one; it is a user's message"),
    supported("max_tokens", "more than the bridge allows counts as what it allows; not 16 where nothing is said"),
    supported("stop", "a text or a list"),
    supported("stream", "server-sent events"),
    supported("stream_options", "include_usage"),
    supported("temperature", SAMPLED),
    supported("top_p", SAMPLED),
    refused("best_of", "one answer for each request; only 1 is taken", 1),
    refused("echo", "the models of today do not go on from the prompt", False),
    passed_over("frequency_penalty", SAMPLING, 0),
    passed_over("logit_bias", SAMPLING, {}),
    passed_over("logprobs", "the CLIs do not tell them", 0),
    refused("n", "one answer for each request; only 1 is taken", 1),
    passed_over("presence_penalty", SAMPLING, 0),
    passed_over("seed", "it never promised the same answer; here it does nothing"),
    refused("suffix", "the models of today do not fill in", ""),
    ignored("user", "the key says who asks"),
)


class CompletionsBody(msgspec.Struct):
    """The body of a request, as far as it is passed on."""

    model: content.ModelName
    prompt: str | list[Any]
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: conversation.Temperature | None = None
    top_p: conversation.TopP | None = None


def parse(body: bytes, known: Known) -> Asked:
    """What a body asks for. Raises BridgeError."""
    wire, ignored = read(body, PARAMETERS, CompletionsBody)
    prompt = wire.prompt[0] if isinstance(wire.prompt, list) and len(wire.prompt) == 1 else wire.prompt
    if not isinstance(prompt, str):
        raise invalid("prompt must be one text: several prompts, and prompts as tokens, are not taken.", "prompt")
    turns = Turns("prompt")
    turns.add("user", prompt, "prompt")
    request = generation(
        known.settings,
        known.resolve(content.model_name(wire.model)),
        turns,
        api=API_NAME,
        max_output_tokens=wire.max_tokens,
        effort=None,
        schema=None,
        tools=(),
        tool_choice=ToolChoice(),
        sampling=sampling(wire.temperature, wire.top_p),
        stop=[wire.stop] if isinstance(wire.stop, str) else wire.stop or [],
        ignored=ignored,
    )
    with_usage = bool(wire.stream_options and wire.stream_options.include_usage)
    return Asked(request, render_answer, partial(render_events, with_usage=with_usage) if wire.stream else None)


# --- answers ----------------------------------------------------------------------------------

CompletionEnd = Literal["stop", "length", "content_filter"]


class CompletionChoice(msgspec.Struct):
    """The one answer, or a piece of it."""

    text: str
    finish_reason: CompletionEnd | None
    index: int = 0
    logprobs: None = None


class Completion(msgspec.Struct):
    """The body of an answer, and an event of a stream. `id` ends like the run's id in the request log; `created` is in
    UTC seconds."""

    id: str
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: ChatUsage | UnsetType | None = UNSET
    object: Literal["text_completion"] = "text_completion"
    system_fingerprint: None = None


def render_answer(generation: Generation, finished: Finished) -> dict[str, Any]:
    """The body of a 200."""
    answer = finished.result
    assert isinstance(answer, Answer)
    whole = msgspec.structs.replace(
        _frame(generation),
        model=answer.model,
        choices=[CompletionChoice(answer.text or answer.refusal or "", _end(answer))],
        usage=ChatUsage.of(finished.charge.usage),
    )
    body: dict[str, Any] = msgspec.to_builtins(whole)
    return body


def render_events(generation: Generation, request_id: str, *, with_usage: bool = False) -> Iterator[bytes]:
    """The chunks, in the order that is said above."""
    frame = msgspec.structs.replace(_frame(generation), usage=None if with_usage else UNSET)

    def chunk(text: str, end: CompletionEnd | None = None) -> bytes:
        return sse_data(msgspec.structs.replace(frame, choices=[CompletionChoice(text, end)]))

    for delta in pieces(generation, KEEP_ALIVE_S):
        if delta is None:
            yield keep_alive(generation.queue_position)
        elif isinstance(delta.part, Text) and delta.part.text:
            yield chunk(delta.part.text)
    finished = generation.wait()
    assert finished is not None
    if isinstance(finished.result, Problem):
        yield sse_data(render_error(finished.result, request_id))
        return
    yield chunk("" if finished.result.text else finished.result.refusal or "", _end(finished.result))
    if with_usage:
        yield sse_data(msgspec.structs.replace(frame, usage=ChatUsage.of(finished.charge.usage)))
    yield b"data: [DONE]\n\n"


def _frame(generation: Generation) -> Completion:
    return Completion("cmpl-" + run_number(generation.id), int(generation.started_at), generation.request.model, [])


def _end(answer: Answer) -> CompletionEnd:
    reason = finish_reason(answer.stop_reason)
    return reason if reason == "length" or reason == "content_filter" else "stop"


API = Api(
    name=API_NAME,
    text="OpenAI's older completions.",
    paths={"/v1/completions": None},
    parse=parse,
    answer=render_answer,
    error=render_error,
    events=render_events,
    parameters=PARAMETERS,
    body_type=CompletionsBody,
    answer_type=Completion,
    error_type=OpenAIErrorBody,
    example={"model": "gpt-6-sol", "prompt": "Hello"},
)
