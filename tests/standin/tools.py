"""Why the model APIs refuse tools, their choice, calls and results, in their own words, as far as they are documented.

Anthropic: the pages on tool use, structured outputs and extended thinking. OpenAI: the reference of the Responses API
and the guide to function calling.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from .schemas import anthropic_objection, format_objection, openai_objection

Json = dict[str, Any]

_NAME = {"anthropic": re.compile(r"[a-zA-Z0-9_-]{1,128}"), "openai": re.compile(r"[a-zA-Z0-9_-]{1,64}")}
#: Models that cannot be made to call a tool, that take no sampling, that have no structured output of their own, and
#: that do not think adaptively.
_UNFORCED = re.compile(r"(opus|sonnet|haiku)-5-5|(fable|mythos)-5-1")
_UNSAMPLED = re.compile(r"opus-4-[789]|(opus|sonnet|haiku|fable|mythos)-5")
_UNFORMATTED = re.compile(r"claude-3|-4(-[01])?(-\d{8})?$")


def messages_objection(body: Json) -> str | None:
    """What the Messages API says of the tools of a request; None where it takes them."""
    return _tools(body) or _choice(body) or _sampling(body) or _format(body) or _pairs(body.get("messages") or ())


def is_search(tool: Json) -> bool:
    """Whether a tool is the API's own search of the web."""
    return str(tool.get("type")).startswith("web_search")


def _search(where: str, tool: Json) -> str | None:
    if tool.get("name") != "web_search":
        return f"{where}.name: Input should be 'web_search'"
    if tool.get("type") != "web_search_20250305":
        return f"{where}: Input tag '{tool.get('type')}' is not one of those that are known"
    if type(tool.get("max_uses", 1)) is not int or tool.get("max_uses", 1) < 1:
        return f"{where}.max_uses: Input should be greater than 0"
    if tool.get("allowed_domains") and tool.get("blocked_domains"):
        return f"{where}: Only one of allowed_domains and blocked_domains can be set"
    if tool.get("user_location", {"type": "approximate"}).get("type") != "approximate":
        return f"{where}.user_location.type: Input should be 'approximate'"
    return None


def _tools(body: Json) -> str | None:
    names = []
    for number, tool in enumerate(body.get("tools") or ()):
        why = _search(f"tools.{number}", tool) if is_search(tool) else None
        if why is not None:
            return why
        if "input_schema" not in tool:
            continue
        where, name = f"tools.{number}.custom", str(tool.get("name"))
        if not _NAME["anthropic"].fullmatch(name):
            return f"{where}.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'"
        if name in names:
            return f"tools: Tool names must be unique. '{name}' is there twice"
        names.append(name)
        why = anthropic_objection(tool["input_schema"])
        if why is not None:
            return f"{where}.{why}"
        why = format_objection(tool["input_schema"]) if tool.get("strict") else None
        if why is not None:
            return f"{where}: {why}"
    return None


def _choice(body: Json) -> str | None:
    choice = body.get("tool_choice")
    if choice is None:
        return None
    if not body.get("tools"):
        return "tool_choice may only be specified while providing tools"
    if choice["type"] not in ("tool", "any"):
        return None
    if _UNFORCED.search(str(body.get("model"))):
        return 'tool_choice: type "tool" and "any" are not supported for this model.'
    if (body.get("thinking") or {}).get("type") == "enabled":
        return "Thinking may not be enabled when tool_choice forces tool use."
    if choice["type"] == "tool" and choice.get("name") not in [tool.get("name") for tool in body["tools"]]:
        return f"Tool '{choice.get('name')}' not found in provided tools"
    return None


def _sampling(body: Json) -> str | None:
    thinks = (body.get("thinking") or {}).get("type") in ("enabled", "adaptive")
    for name in ("temperature", "top_p", "top_k"):
        if name in body and _UNSAMPLED.search(str(body.get("model"))):
            return f"`{name}` is deprecated for this model."
    if thinks and body.get("temperature", 1) != 1:
        return "`temperature` may only be set to 1 when thinking is enabled"
    if not 0 <= body.get("temperature", 1) <= 1:
        return "temperature: range: 0..1"
    if not all(str(each).strip() for each in body.get("stop_sequences") or ()):
        return "stop_sequences: each stop sequence must contain non-whitespace"
    return None


def _format(body: Json) -> str | None:
    form = (body.get("output_config") or {}).get("format")
    if form is None:
        return None
    if _UNFORMATTED.search(str(body.get("model"))):
        return "output_config.format: structured outputs are not supported for this model"
    why = format_objection(form.get("schema") or {})
    return None if why is None else f"output_config.format.schema: {why}"


_THOUGHTS = ("thinking", "redacted_thinking")


def seal_of(body: Json, before: list[Json]) -> str:
    """What a thought in answer to these messages is known again by: anything else in them makes another of it."""
    turns = [(each.get("role"), _texts_and_others(each)) for each in before if each.get("content")]
    tools = [{name: tool[name] for name in tool if name != "cache_control"} for tool in body.get("tools") or ()]
    whole = json.dumps([_texts_and_others({"content": body.get("system")}), tools, turns], sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()


def _texts_and_others(message: Json) -> list[Any]:
    content = message.get("content") or []
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return [{name: block[name] for name in block if name != "cache_control"} for block in blocks]


def thinking_objection(body: Json) -> str | None:
    """What the Messages API says of thoughts that are not where, or as, they were; and of calls without them."""
    messages = body.get("messages") or []
    for number, message in enumerate(messages):
        thoughts = [block for block in _blocks(message) if block.get("type") in _THOUGHTS]
        seal = seal_of(body, messages[:number])
        if any(block.get("signature", block.get("data")) != seal for block in thoughts):
            return f"messages.{number}.content.0: Invalid `signature` in `thinking` block"
    if (body.get("thinking") or {}).get("type") != "enabled":
        return None
    said = [_blocks(message) for message in messages if message.get("role") == "assistant"]
    if said and any(b.get("type") == "tool_use" for b in said[-1]) and said[-1][0].get("type") not in _THOUGHTS:
        return (
            "messages: Expected `thinking` or `redacted_thinking`, but found `tool_use`. When `thinking` is enabled, "
            "a final `assistant` message must start with a thinking block"
        )
    return None


def _pairs(messages: Any) -> str | None:
    messages = [message for message in messages if message.get("role") in ("user", "assistant")]
    seen: set[str] = set()
    for number, message in enumerate(messages):
        blocks = _blocks(message)
        asked = [b["id"] for b in blocks if b.get("type") == "tool_use"]
        given = [b["tool_use_id"] for b in blocks if b.get("type") == "tool_result"]
        if seen & set(asked) or len(set(asked)) < len(asked):
            return f"messages.{number}: `tool_use` ids must be unique"
        seen |= set(asked)
        if not all(isinstance(b["input"], dict) for b in blocks if b.get("type") == "tool_use"):
            return f"messages.{number}.content: tool_use.input: Input should be a valid dictionary"
        kinds = [b.get("type") == "tool_result" for b in blocks]
        if kinds != sorted(kinds, reverse=True):
            return f"messages.{number}: `tool_result` blocks must come first"
        before = _blocks(messages[number - 1]) if number else []
        open_ids = [b["id"] for b in before if b.get("type") == "tool_use"]
        if set(given) - set(open_ids):
            return f"messages.{number}: unexpected `tool_use_id` found in `tool_result` blocks: {given[0]}"
        if set(open_ids) - set(given) or len(set(given)) < len(given):
            return f"messages.{number}: `tool_use` ids were found without `tool_result` blocks: {open_ids[0]}"
    return None


def _blocks(message: Json) -> list[Json]:
    content = message.get("content")
    return [b for b in content if isinstance(b, dict)] if isinstance(content, list) else []


def responses_objection(body: Json) -> Json | None:
    """The error of the Responses API on the tools of a request; None where it takes them."""
    if "max_tool_calls" in body and (type(body["max_tool_calls"]) is not int or body["max_tool_calls"] < 1):
        return _refusal("max_tool_calls", "Invalid 'max_tool_calls': expected a positive integer.")
    for tool in filter(is_search, body.get("tools") or ()):
        if (body.get("reasoning") or {}).get("effort") == "minimal":
            return _refusal("tools", "The following tools cannot be used with reasoning.effort 'minimal': web_search.")
        if not tool.keys() <= {"type", "filters", "user_location", "search_context_size"}:
            return _refusal("tools", f"Unknown parameter: 'tools[0].{max(tool)}'.")
    if "temperature" in body and str(body.get("model")).startswith(("gpt-5", "gpt-6", "o")):
        return _refusal("temperature", "Unsupported parameter: 'temperature' is not supported with this model.")
    names = []
    for number, tool in enumerate(body.get("tools") or ()):
        if tool.get("type") != "function":
            continue
        where, name = f"tools[{number}]", str(tool.get("name"))
        if not _NAME["openai"].fullmatch(name):
            return _refusal(f"{where}.name", f"Invalid '{where}.name': expected '^[a-zA-Z0-9_-]+$', up to 64 long.")
        names.append(name)
        why = openai_objection(tool.get("parameters") or {}) if tool.get("strict") else None
        if why is not None:
            return _refusal(f"{where}.parameters", f"Invalid schema for function '{name}': {why}.")
        if (tool.get("parameters") or {}).get("type", "object") != "object":
            return _refusal(f"{where}.parameters", f"Invalid schema for function '{name}': type must be 'object'.")
    choice = body.get("tool_choice", "auto")
    if choice != "auto" and not names:
        return _refusal("tool_choice", "Tool choice may only be specified with tools.")
    if isinstance(choice, dict) and choice.get("name") not in names:
        return _refusal("tool_choice", f"Tool choice '{choice.get('name')}' not found in 'tools' parameter.")
    items = [item for item in body.get("input") or () if isinstance(item, dict)]
    asked = [item["call_id"] for item in items if item.get("type") == "function_call"]
    given = [item["call_id"] for item in items if item.get("type") == "function_call_output"]
    for call_id in given:
        if call_id not in asked:
            return _refusal("input", f"No tool call found for function call output with call_id {call_id}.")
    for call_id in asked:
        if call_id not in given:
            return _refusal("input", f"No tool output found for function call {call_id}.")
    return None


def _refusal(where: str, message: str) -> Json:
    return {"error": {"message": message, "type": "invalid_request_error", "param": where, "code": None}}
