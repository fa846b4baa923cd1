"""The Anthropic Messages API as the stand-in speaks it.

Event order and fields: Anthropic's public streaming documentation (message_start,
content_block_start, ping, content_block_delta, content_block_stop, message_delta, message_stop)
and error documentation (`{"type":"error","error":{"type","message"}}`), and what the claude CLI
2.1.332 reads and sends back, seen with this server. The CLI asks for structured output with a
tool of the name StructuredOutput; it sends `POST /v1/messages?beta=true`.
"""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

from .answer import Answer, Call, Prompt, Tokens, arguments_for
from .events import Event
from .links import broken_link, links_in
from .tools import is_search, messages_objection, seal_of, thinking_objection

Json = dict[str, Any]

NAME = "anthropic"
STRUCTURED_OUTPUT = "StructuredOutput"

_ERRORS: dict[int, tuple[str, str]] = {
    400: ("invalid_request_error", "messages: the request is not valid"),
    401: ("authentication_error", "invalid x-api-key"),
    402: ("billing_error", "There is an issue with your billing or payment information"),
    403: ("permission_error", "Your API key does not have permission to use this resource"),
    404: ("not_found_error", "model: {model}"),
    413: ("request_too_large", "Request exceeds the maximum size"),
    429: ("rate_limit_error", "This request would exceed your organization's rate limit"),
    500: ("api_error", "Internal server error"),
    502: ("api_error", "Bad gateway"),
    503: ("api_error", "Service unavailable"),
    504: ("timeout_error", "The request timed out while processing"),
    529: ("overloaded_error", "Overloaded"),
}
_STREAM_ERRORS = {
    "stream_error": ("overloaded_error", "Overloaded"),
    "stream_rate_limit": ("rate_limit_error", "This request would exceed your rate limit"),
    "early_error": ("overloaded_error", "Overloaded"),
    "early_rate_limit": ("rate_limit_error", "This request would exceed your rate limit"),
}
# The CLI itself writes these as the user's when an answer ended at the limit, had no text, or was
# not structured: they are not the prompt, and its directives go on.
_CLI_WRITES = (
    "Output token limit hit. Resume directly",
    "[Your previous response had no visible output.",
    "[structured-output-enforce]",
)
_STOPS = {
    "end": "end_turn",
    "limit": "max_tokens",
    "refusal": "refusal",
    "tool": "tool_use",
    "sequence": "stop_sequence",
}


def read(body: Json) -> Prompt:
    """What to answer to; a body that is no Messages request reads as an empty prompt."""
    messages = [m for m in body.get("messages", ()) if isinstance(m, dict)]
    texts = [t for m in messages if m.get("role") == "user" and (t := _text(m.get("content")))]
    last = messages[-1].get("content") if messages else None
    answered = isinstance(last, list) and any(b.get("type") == "tool_result" for b in last)
    tools = [t for t in body.get("tools") or () if isinstance(t, dict)]
    tool = next((t.get("input_schema") for t in tools if t.get("name") == STRUCTURED_OUTPUT), None)
    form = ((body.get("output_config") or {}).get("format") or {}).get("schema")
    choice = body.get("tool_choice") or {}
    size = len(_text(body.get("system"))) + sum(len(_text(m.get("content"))) for m in messages)
    return Prompt(
        text=texts[-1] if texts else "",
        size=size,
        limit=body.get("max_tokens"),
        schema=tool or form,
        tool_answered=answered,
        by_tool=tool is not None,
        stops=tuple(body.get("stop_sequences") or ()),
        forced=_forced(tools, choice),
        may_call=choice.get("type") != "none",
        one_call=bool(choice.get("disable_parallel_tool_use")),
        searches=next((t.get("max_uses") or 5 for t in tools if is_search(t)), 0),
        seal=seal_of(body, messages),
    )


def _forced(tools: list[Json], choice: Json) -> Call | None:
    if choice.get("type") not in ("any", "tool"):
        return None
    tool = next((t for t in tools if t.get("name") == choice.get("name", t.get("name"))), {})
    return str(tool.get("name")), arguments_for(tool.get("input_schema") or {})


_NO_ADAPTIVE = re.compile(r"-(?:3|4|4-0|4-1|4-5)(?:-\d{8})?$|claude-3")
#: Models that cannot be told not to think; and those that think, but not within a budget.
_ALWAYS = re.compile(r"(opus|sonnet|haiku)-5-5|(fable|mythos)-5")
_NO_BUDGET = re.compile(r"opus-4-[789]|(opus|sonnet|haiku|fable|mythos)-5")
#: Those that must think at the highest efforts.
_THINKS = re.compile(r"(opus|sonnet)-5")


def objection(body: Json) -> Json | None:
    """The body of a 400, where the API does not take the limits, the thinking, or the tools of a request.

    Sources: the reference of the Messages API, and its page on extended thinking.
    """
    why = _limits_objection(body) if "max_tokens" in body or "thinking" in body else None
    why = why or messages_objection(body) or thinking_objection(body) or _links_objection(body)
    return None if why is None else _error_body("invalid_request_error", why)


def _links_objection(body: Json) -> str | None:
    if not all(url.startswith("https://") for url in links_in(body)):
        return "Only HTTPS URLs are supported."
    return "Unable to download the file. Please verify the URL and try again." if broken_link(body) else None


def _limits_objection(body: Json) -> str | None:
    limit, thinking = body.get("max_tokens"), body.get("thinking") or {}
    if type(limit) is not int or limit < 1:
        return "max_tokens: must be at least 1"
    if thinking.get("type") == "adaptive" and _NO_ADAPTIVE.search(str(body.get("model"))):
        return "adaptive thinking is not supported on this model"
    if thinking.get("type") == "disabled" and _ALWAYS.search(str(body.get("model"))):
        return '"thinking.type.disabled" is not supported for this model.'
    effort = (body.get("output_config") or {}).get("effort")
    rests = thinking.get("type") in ("disabled", "between_tools")
    if rests and effort in ("xhigh", "max") and _THINKS.search(str(body.get("model"))):
        return f'thinking: "{thinking["type"]}" is not supported at the effort "{effort}"'
    if thinking.get("type") == "between_tools" and not re.search("sonnet-5-5", str(body.get("model"))):
        return '"thinking.type.between_tools" is not supported for this model.'
    if thinking.get("display", "summarized") not in ("summarized", "omitted", "updates"):
        return "thinking.display: Input should be 'summarized' or 'omitted'"
    if thinking.get("type") == "enabled" and _NO_BUDGET.search(str(body.get("model"))):
        return '"thinking.type.enabled" is not supported for this model. Use "thinking.type.adaptive".'
    if thinking.get("type") == "enabled":
        budget = thinking.get("budget_tokens")
        if type(budget) is not int or budget < 1024:
            return "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024"
        if budget >= limit:
            return "`max_tokens` must be greater than `thinking.budget_tokens`"
    return None


def _text(content: Any) -> str:
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
    texts = [b["text"] for b in blocks if b.get("type") == "text"]
    return "\n".join(t for t in texts if not t.startswith(_CLI_WRITES))


def events(model: str, answer: Answer) -> list[Event]:
    """The whole stream of `answer`, in the official order."""
    usage = _usage(answer.tokens)
    start = _message(model, [], None, {**usage, "output_tokens": 1})
    out = [_event("message_start", message=start)]
    for index, block in enumerate(_content(answer)):
        out += _block(index, block, answer, ping=index == 0)
    delta = {"stop_reason": _STOPS[_stop(answer)], "stop_sequence": answer.stop_sequence}
    out.append(_event("message_delta", delta=delta, usage=usage))
    out.append(_event("message_stop"))
    return out


def whole(model: str, answer: Answer) -> Json:
    """The same answer for a request without `stream`."""
    content = [_without_pieces(block) for block in _content(answer)]
    return _message(model, content, _STOPS[_stop(answer)], _usage(answer.tokens))


def error(status: int, model: str, quota: bool = False) -> Json:
    """The body of a failed request."""
    kind, message = _ERRORS[status]
    if quota:
        message = "Your credit balance is too low to access the Anthropic API."
    return _error_body(kind, message.format(model=model))


def context_error() -> Json:
    """The body for a prompt that is too long (status 400)."""
    return _error_body("invalid_request_error", "prompt is too long: 250000 tokens > 200000 maximum")


def stream_error(mode: str) -> list[Event]:
    """The events with which a stream ends that fails midway, or before it has begun."""
    kind, message = _STREAM_ERRORS[mode]
    before = [_event("ping")] if mode.startswith("early_") else []
    return [*before, _event("error", error={"type": kind, "message": message})]


def usage_sent(answer: Answer) -> Json:
    """The figures that a client should come to believe."""
    return _usage(answer.tokens)


def models() -> Json:
    """`GET /v1/models`."""
    listed = [
        {
            "type": "model",
            "id": name,
            "display_name": name,
            "created_at": "2025-01-01T00:00:00Z",
        }
        for name in ("claude-standin", "claude-standin-mini")
    ]
    return {"data": listed, "has_more": False, "first_id": None, "last_id": None}


def _stop(answer: Answer) -> str:
    return "tool" if answer.by_tool else answer.stop


def _content(answer: Answer) -> list[Json]:
    blocks: list[Json] = []
    if answer.thinking and answer.redacted:
        blocks.append({"type": "redacted_thinking", "data": answer.seal})
    elif answer.thinking:
        blocks.append({"type": "thinking", "thinking": answer.thinking, "signature": answer.seal})
    for number in range(answer.searches + answer.barred):
        blocks += _search(number, answer)
    if answer.tool:
        blocks.append(_tool_use(answer.tool, _tool_input(answer.tool)))
    elif answer.by_tool:
        blocks.append(_tool_use(STRUCTURED_OUTPUT, json.loads(answer.text)))
    elif answer.pieces and answer.stop != "refusal":
        if answer.searches:
            blocks.append({"type": "text", "text": "I looked it up. "})
        cited = {"citations": [_CITED]} if answer.searches else {}
        blocks.append({"type": "text", "text": answer.text, **cited})
    for name, arguments in answer.calls:
        blocks.append({**_tool_use(name, {}), "partial": arguments})
    return blocks


_PAGE = {"url": "https://example.com/weather", "title": "Weather"}
_CITED = {"type": "web_search_result_location", **_PAGE, "cited_text": "Rain.", "encrypted_index": "aW5kZXg="}


def _search(number: int, answer: Answer) -> list[Json]:
    """A search of the web, and what it found."""
    own = f"srvtoolu_{uuid.uuid4().hex[:20]}"
    asked = {"type": "server_tool_use", "id": own, "name": "web_search", "input": {"query": f"weather {number}"}}
    found: Any = [{"type": "web_search_result", **_PAGE, "page_age": "2 days", "encrypted_content": "Y29udGVudA=="}]
    if number == answer.searches:
        found = {"type": "web_search_tool_result_error", "error_code": "max_uses_exceeded"}
    return [asked, {"type": "web_search_tool_result", "tool_use_id": own, "content": found}]


def _without_pieces(block: Json) -> Json:
    """A block as it stands in a whole answer: what a model broke off or misspelt is an input of nothing."""
    if "partial" not in block:
        return block
    try:
        given = json.loads(block["partial"] or "{}")
    except ValueError:
        given = {}
    return {**{k: v for k, v in block.items() if k != "partial"}, "input": given}


def _tool_use(name: str, given: Json) -> Json:
    return {
        "type": "tool_use",
        "id": f"toolu_{uuid.uuid4().hex[:20]}",
        "name": name,
        "input": given,
    }


def _tool_input(name: str) -> Json:
    if name == "Bash":
        return {"command": "cat /etc/passwd", "description": "Show the users"}
    return {"file_path": "/etc/passwd"}


def _block(index: int, block: Json, answer: Answer, *, ping: bool) -> list[Event]:
    pieces: tuple[str, ...]
    match block["type"]:
        case "redacted_thinking" | "web_search_tool_result":
            empty, kind, field, pieces = block, "", "", ()
        case "server_tool_use":
            empty, kind, field = {**block, "input": {}}, "input_json_delta", "partial_json"
            given = json.dumps(block["input"])
            pieces = (given[:5], given[5:])
        case "thinking":
            empty = {**block, "thinking": "", "signature": ""}
            kind, field, pieces = "thinking_delta", "thinking", (block["thinking"],)
        case "tool_use":
            empty = {**_without_pieces(block), "input": {}}
            kind, field = "input_json_delta", "partial_json"
            given = block.get("partial", json.dumps(block["input"]))
            pieces = answer.pieces if answer.by_tool else (given[:7], given[7:12], given[12:])
        case _:
            empty, kind, field = {"type": "text", "text": ""}, "text_delta", "text"
            pieces = answer.pieces if block["text"] == answer.text else (block["text"],)
    out = [_event("content_block_start", index=index, content_block=empty)]
    if ping:
        out.append(_event("ping"))
    counts = block["type"] != "thinking"
    for piece in pieces:
        delta = {"type": kind, field: piece}
        out.append(_event("content_block_delta", counts, index=index, delta=delta))
    if block["type"] == "thinking":
        signature = {"type": "signature_delta", "signature": block["signature"]}
        out.append(_event("content_block_delta", index=index, delta=signature))
    for citation in block.get("citations", ()):
        out.append(_event("content_block_delta", index=index, delta={"type": "citations_delta", "citation": citation}))
    out.append(_event("content_block_stop", index=index))
    return out


def _message(model: str, content: list[Json], stop: str | None, usage: Json) -> Json:
    return {
        "id": f"msg_{uuid.uuid4().hex[:24]}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": usage,
    }


def _usage(tokens: Tokens) -> Json:
    return {
        "input_tokens": tokens.input,
        "cache_creation_input_tokens": tokens.cache_write,
        "cache_read_input_tokens": tokens.cached,
        "output_tokens": tokens.output,
        **({"server_tool_use": {"web_search_requests": tokens.searches}} if tokens.searches else {}),
        **({"output_tokens_details": {"thinking_tokens": tokens.reasoning}} if tokens.reasoning else {}),
    }


def _error_body(kind: str, message: str) -> Json:
    return {
        "type": "error",
        "error": {"type": kind, "message": message},
        "request_id": f"req_{uuid.uuid4().hex[:20]}",
    }


def _event(kind: str, delta_event: bool = False, /, **data: Any) -> Event:
    return Event.named(kind, {"type": kind, **data}, delta=delta_event)
