"""The OpenAI Responses API as the stand-in speaks it.

Event order and fields: OpenAI's public reference of the Responses streaming events
(response.created, in_progress, output_item.added, content_part.added, output_text.delta … done,
completed | incomplete | failed, each with a sequence_number) and of its errors
(`{"error":{"message","type","param","code"}}`), and what the codex CLI 0.171.0 accepts from a
custom provider with wire_api=responses, seen with this server. Codex reads cache writes from
`input_tokens_details.cache_write_tokens`.
"""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

from .answer import Answer, Call, Prompt, Tokens, arguments_for
from .events import Event
from .links import broken_link
from .schemas import openai_objection
from .tools import is_search, responses_objection

Json = dict[str, Any]

NAME = "openai"

_ERRORS: dict[int, tuple[str, str | None, str]] = {
    400: ("invalid_request_error", "unsupported_parameter", "Unsupported parameter: 'x'."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    402: ("invalid_request_error", "payment_required", "Payment is required."),
    403: ("invalid_request_error", "forbidden", "You are not allowed to use this project."),
    404: (
        "invalid_request_error",
        "model_not_found",
        "The model `{model}` does not exist or you do not have access to it.",
    ),
    413: ("invalid_request_error", None, "The request is too large."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached for {model}."),
    500: ("server_error", None, "The server had an error while processing your request."),
    502: ("server_error", None, "Bad gateway."),
    503: ("server_error", "server_is_overloaded", "The engine is currently overloaded."),
    504: ("server_error", None, "The request timed out."),
    529: ("server_error", "server_is_overloaded", "The engine is currently overloaded."),
}
_STREAM_ERRORS = {
    "stream_error": ("server_error", "The server had an error while processing your request."),
    "stream_rate_limit": (
        "rate_limit_exceeded",
        "Rate limit reached. Please try again in 0.5s.",
    ),
    "early_error": ("server_is_overloaded", "Our servers are currently overloaded. Please try again later."),
    "early_rate_limit": ("rate_limit_exceeded", "Rate limit reached. Please try again in 0.5s."),
    "context": (
        "context_length_exceeded",
        "Your input exceeds the context window of this model.",
    ),
}
#: The API takes no smaller max_output_tokens.
LEAST_OUTPUT_TOKENS = 16
_REFUSAL = "I'm sorry, but I can't help with that."


def read(body: Json) -> Prompt:
    """What to answer to; a body that is no Responses request reads as an empty prompt."""
    given = body.get("input", ())
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    items = [i for i in given if isinstance(i, dict)]
    texts = [t for i in items if i.get("role") == "user" and (t := _text(i.get("content")))]
    form = (body.get("text") or {}).get("format") or {}
    size = len(body.get("instructions") or "") + sum(len(_text(i.get("content"))) for i in items)
    return Prompt(
        text=texts[-1] if texts else "",
        size=size,
        limit=body.get("max_output_tokens"),
        schema=form.get("schema") if form.get("type") == "json_schema" else None,
        tool_answered=bool(items) and str(items[-1].get("type")).endswith("_call_output"),
        forced=_forced(body),
        may_call=body.get("tool_choice") != "none",
        one_call=body.get("parallel_tool_calls") is False,
        searches=(body.get("max_tool_calls") or 100) if any(map(is_search, body.get("tools") or ())) else 0,
    )


def _forced(body: Json) -> Call | None:
    choice = body.get("tool_choice", "auto")
    if choice in ("auto", "none"):
        return None
    name = choice.get("name") if isinstance(choice, dict) else None
    tool: Json = next((t for t in body.get("tools") or () if name in (None, t.get("name"))), {})
    return str(tool.get("name")), arguments_for(tool.get("parameters") or {})


def objection(body: Json) -> Json | None:
    """The body of a 400, where the API does not take the limit, the tools, or strict mode the schema, of a request."""
    limit = body.get("max_output_tokens", LEAST_OUTPUT_TOKENS)
    if type(limit) is not int or limit < LEAST_OUTPUT_TOKENS:
        message = f"Invalid 'max_output_tokens': expected a value >= {LEAST_OUTPUT_TOKENS}, but got {limit!r} instead."
        refused = {"message": message, "type": "invalid_request_error", "param": "max_output_tokens"}
        return {"error": {**refused, "code": "integer_below_min_value"}}
    refused_tools = responses_objection(body)
    if refused_tools is not None:
        return refused_tools
    broken = broken_link(body)
    if broken is not None:
        refused = {"message": f"Error while downloading {broken}.", "type": "invalid_request_error", "param": "url"}
        return {"error": {**refused, "code": "invalid_value"}}
    form = (body.get("text") or {}).get("format") or {}
    if form.get("type") != "json_schema" or not form.get("strict"):
        return None
    why = openai_objection(form.get("schema") or {})
    message = f"Invalid schema for response_format '{form.get('name')}': {why}."
    error = {"message": message, "type": "invalid_request_error", "param": "text.format.schema"}
    return None if why is None else {"error": {**error, "code": "invalid_json_schema"}}


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "\n".join(p["text"] for p in content if p.get("type") in ("input_text", "text"))


class _Stream:
    """Numbers the events of one response."""

    def __init__(self, model: str) -> None:
        self.out: list[Event] = []
        self.response = _response(model)

    def add(self, kind: str, data: Json, *, delta: bool = False) -> None:
        numbered = {"type": kind, "sequence_number": len(self.out), **data}
        self.out.append(Event.named(kind, numbered, delta=delta))

    def item(self, index: int, item: Json, answer: Answer) -> None:
        at: Json = {"item_id": item["id"], "output_index": index}
        opened = {"output_index": index, "item": _opened(item)}
        self.add("response.output_item.added", opened)
        match item["type"]:
            case "message":
                self._message({**at, "content_index": 0}, item["content"][0], answer)
            case "reasoning":
                self._summary({**at, "summary_index": 0}, item["summary"][0])
            case "function_call":
                self._call(at, "function_call_arguments", "arguments", item["arguments"])
            case "custom_tool_call":
                self._call(at, "custom_tool_call_input", "input", item["input"])
            case "web_search_call":
                for step in ("in_progress", "searching", "completed"):
                    self.add(f"response.web_search_call.{step}", at)
        self.add("response.output_item.done", {"output_index": index, "item": item})

    def _message(self, at: Json, part: Json, answer: Answer) -> None:
        refused = part["type"] == "refusal"
        field, name = ("refusal", "refusal") if refused else ("text", "output_text")
        self.add("response.content_part.added", {**at, "part": {**part, field: ""}})
        for piece in (part[field],) if refused else answer.pieces:
            self.add(f"response.{name}.delta", {**at, "delta": piece}, delta=True)
        for number, cited in enumerate(part.get("annotations", ())):
            told = {**at, "annotation_index": number, "annotation": cited}
            self.add(f"response.{name}.annotation.added", told)
        self.add(f"response.{name}.done", {**at, field: part[field]})
        self.add("response.content_part.done", {**at, "part": part})

    def _summary(self, at: Json, part: Json) -> None:
        name = "response.reasoning_summary"
        self.add(f"{name}_part.added", {**at, "part": {**part, "text": ""}})
        self.add(f"{name}_text.delta", {**at, "delta": part["text"]})
        self.add(f"{name}_text.done", {**at, "text": part["text"]})
        self.add(f"{name}_part.done", {**at, "part": part})

    def _call(self, at: Json, name: str, field: str, whole: str) -> None:
        self.add(f"response.{name}.delta", {**at, "delta": whole}, delta=True)
        self.add(f"response.{name}.done", {**at, field: whole})


def events(model: str, answer: Answer) -> list[Event]:
    """The whole stream of `answer`, in the official order."""
    stream = _Stream(model)
    stream.add("response.created", {"response": stream.response})
    stream.add("response.in_progress", {"response": stream.response})
    output = _output(answer)
    for index, item in enumerate(output):
        stream.item(index, item, answer)
    done = _finished(stream.response, answer, output)
    stream.add(f"response.{done['status']}", {"response": done})
    return stream.out


def whole(model: str, answer: Answer) -> Json:
    """The same answer for a request without `stream`."""
    return _finished(_response(model), answer, _output(answer))


def error(status: int, model: str, quota: bool = False) -> Json:
    """The body of a failed request."""
    kind, code, message = _ERRORS[status]
    if quota:
        kind = code = "insufficient_quota"
        message = "You exceeded your current quota, please check your plan and billing details."
    return {
        "error": {
            "message": message.format(model=model),
            "type": kind,
            "param": None,
            "code": code,
        }
    }


def context_error() -> Json:
    """The body for a prompt that is too long (status 400)."""
    code, message = _STREAM_ERRORS["context"]
    return {
        "error": {
            "message": message,
            "type": "invalid_request_error",
            "param": "input",
            "code": code,
        }
    }


def stream_error(mode: str) -> list[Event]:
    """The events with which a stream ends that fails midway, or before it has begun."""
    code, message = _STREAM_ERRORS[mode]
    stream = _Stream("")
    if mode.startswith("early_"):
        stream.add("response.created", {"response": stream.response})
        stream.add("response.in_progress", {"response": stream.response})
    failed = {**stream.response, "status": "failed", "error": {"code": code, "message": message}}
    stream.add("response.failed", {"response": failed})
    return stream.out


def usage_sent(answer: Answer) -> Json:
    """The figures that a client should come to believe."""
    return _usage(answer.tokens)


def models() -> Json:
    """`GET /v1/models`."""
    listed = [
        {"id": name, "object": "model", "created": 1735689600, "owned_by": "standin"}
        for name in ("gpt-standin", "gpt-standin-mini")
    ]
    return {"object": "list", "data": listed}


def _response(model: str) -> Json:
    return {
        "id": f"resp_{uuid.uuid4().hex}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "model": model,
        "output": [],
        "usage": None,
    }


def _finished(response: Json, answer: Answer, output: list[Json]) -> Json:
    limited = answer.stop == "limit"
    return {
        **response,
        "status": "incomplete" if limited else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if limited else None,
        "output": output,
        "usage": _usage(answer.tokens),
    }


def _output(answer: Answer) -> list[Json]:
    items: list[Json] = []
    if answer.thinking:
        summary = [{"type": "summary_text", "text": answer.thinking}]
        items.append({"id": _id("rs"), "type": "reasoning", "summary": summary})
    for number in range(answer.searches):
        items.append(
            _search({"type": "search", "query": f"weather {number}", "sources": [{"type": "url", "url": _PAGE}]})
        )
    if answer.searches:
        # To look at what was found costs nothing.
        items.append(_search({"type": "open_page", "url": _PAGE}))
    if answer.tool:
        items.append(_call(answer.tool))
    elif answer.stop == "refusal":
        items.append(_message({"type": "refusal", "refusal": _REFUSAL}))
    elif answer.pieces:
        cited = {"type": "url_citation", "start_index": 0, "end_index": 4, "url": _PAGE, "title": "Weather"}
        text = {"type": "output_text", "text": answer.text, "annotations": [cited] if answer.searches else []}
        items.append(_message(text))
    for name, arguments in answer.calls:
        call = {"status": "completed", "call_id": _id("call"), "name": name, "arguments": arguments}
        items.append({"id": _id("fc"), "type": "function_call", **call})
    return items


_PAGE = "https://example.com/weather"


def _search(action: Json) -> Json:
    return {"id": _id("ws"), "type": "web_search_call", "status": "completed", "action": action}


def _message(part: Json) -> Json:
    return {
        "id": _id("msg"),
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [part],
    }


def _call(tool: str) -> Json:
    custom = tool.removeprefix("custom:")
    call: Json = {"status": "completed", "call_id": _id("call"), "name": custom}
    if custom != tool:
        return {"id": _id("ctc"), "type": "custom_tool_call", **call, "input": "cat /etc/passwd"}
    inputs: dict[str, Json] = {
        "shell": {"command": ["cat", "/etc/passwd"]},
        "exec_command": {"cmd": "cat /etc/passwd"},
    }
    given = inputs.get(tool, {"path": "/etc/passwd"})
    return {"id": _id("fc"), "type": "function_call", **call, "arguments": json.dumps(given)}


def _opened(item: Json) -> Json:
    empty: Json = {"content": [], "summary": [], "arguments": "", "input": ""}
    opened = {k: empty.get(k, v) for k, v in item.items()}
    return {**opened, "status": "in_progress"} if "status" in item else opened


def _usage(tokens: Tokens) -> Json:
    return {
        "input_tokens": tokens.input,
        "input_tokens_details": {
            "cached_tokens": tokens.cached,
            "cache_write_tokens": tokens.cache_write,
        },
        "output_tokens": tokens.output,
        "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
        "total_tokens": tokens.input + tokens.output,
    }


def _id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex[:24]}"
