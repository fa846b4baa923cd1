"""What both of OpenAI's APIs have in common: errors, usage, schemas. Pure.

Source of the shapes: OpenAI's API reference, and the types of its Python package, which tests/contract
holds them against.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from bridge.errors import Problem
from bridge.limits import LIMITS
from bridge.types import GenerationRequest, Text, Usage
from bridge.wire import content
from bridge.wire.conversation import ANY_OBJECT

OpenAIEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]

#: HTTP status -> `type` of an error, as OpenAI names them
_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
#: codes of what is used up for longer than a moment
_QUOTA = {limit.code for limit in LIMITS if not limit.again}


class ImageUrl(msgspec.Struct):
    """Where an image is: a data URL, or an https link, which the provider follows. `detail` is not passed on."""

    url: str
    detail: str | None = None


class RefusalPart(msgspec.Struct, tag="refusal", tag_field="type"):
    """What was said instead of an answer, by a model that declined: now, or earlier in the conversation."""

    refusal: str

    def part(self, at: str, role: str) -> Text:
        """See WirePart."""
        return Text(content.prompt(f"{at}.refusal", self.refusal))


class TextFormat(msgspec.Struct, tag="text", tag_field="type"):
    """No particular form."""


class JsonObjectFormat(msgspec.Struct, tag="json_object", tag_field="type"):
    """Some JSON object."""


class NamedSchema(msgspec.Struct):
    """A JSON Schema and what it is called. `strict` and `description` change nothing."""

    name: str = "answer"
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class OpenAIErrorDetails(msgspec.Struct):
    """What went wrong, and what to do: `code` is one of the bridge's own, `hint` the end of the message. 429 adds
    `limit`, `used`, `resets_at`; mismatching answers their `text`."""

    message: str
    type: str
    param: str | None
    code: str
    hint: str
    request_id: str


class OpenAIErrorBody(msgspec.Struct):
    """An error, as OpenAI's SDKs read it."""

    error: OpenAIErrorDetails


def render_error(problem: Problem, request_id: str) -> dict[str, Any]:
    """The body of an error. Beside OpenAI's own fields it has the bridge's."""
    facts = dict(problem.facts)
    details = {
        # All that OpenAI's SDKs show of an error by themselves.
        "message": f"{problem.message} {problem.hint}",
        "type": error_type(problem),
        "param": facts.pop("param", None),
        # Where clients act on one of OpenAI's own codes, it is among the facts.
        "code": facts.pop("openai_code", problem.code),
        "hint": problem.hint,
        "request_id": request_id,
    }
    return {"error": {**facts, **details}}


def error_type(problem: Problem) -> str:
    """The kind of an error in OpenAI's words."""
    status = problem.sdk_status
    if status == 429 and problem.code in _QUOTA:
        return "insufficient_quota"
    if status >= 500:
        return "server_error"
    return _TYPES.get(status, "invalid_request_error")


def json_format(request: GenerationRequest) -> dict[str, Any]:
    """The format of an answer, as the Responses API gives it back."""
    if request.schema is None:
        return {"type": "text"}
    if request.schema == ANY_OBJECT:
        return {"type": "json_object"}
    return {"type": "json_schema", "name": "answer", "schema": request.schema, "strict": True}


class PromptDetails(msgspec.Struct):
    """What `prompt_tokens` consists of."""

    cached_tokens: int
    cache_write_tokens: int
    audio_tokens: int = 0


class CompletionDetails(msgspec.Struct):
    """What `completion_tokens` consists of."""

    reasoning_tokens: int
    audio_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


class ChatUsage(msgspec.Struct):
    """Tokens of a chat completion."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails

    @classmethod
    def of(cls, usage: Usage) -> ChatUsage:
        """Usage in these words."""
        return cls(
            usage.prompt,
            usage.output_tokens,
            usage.total,
            PromptDetails(usage.cache_read_tokens, usage.cache_write_tokens),
            CompletionDetails(usage.reasoning_tokens),
        )


class InputDetails(msgspec.Struct):
    """What `input_tokens` consists of."""

    cached_tokens: int
    cache_write_tokens: int


class OutputDetails(msgspec.Struct):
    """What `output_tokens` consists of."""

    reasoning_tokens: int


class ResponseUsage(msgspec.Struct):
    """Tokens of a response."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int

    @classmethod
    def of(cls, usage: Usage) -> ResponseUsage:
        """Usage in these words."""
        return cls(
            usage.prompt,
            InputDetails(usage.cache_read_tokens, usage.cache_write_tokens),
            usage.output_tokens,
            OutputDetails(usage.reasoning_tokens),
            usage.total,
        )


FinishReason = Literal["stop", "length", "content_filter", "tool_calls", "function_call"]


def finish_reason(stop_reason: str) -> FinishReason:
    """Why an answer ended: at its end or at a stop sequence, where it had to, because the model declined, or because
    it calls tools."""
    if stop_reason == "refusal":
        return "content_filter"
    if stop_reason == "tool_use":
        return "tool_calls"
    return "length" if stop_reason in ("max_tokens", "model_context_window_exceeded") else "stop"
