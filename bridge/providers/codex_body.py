"""A request as codex is asked it, and what of it OpenAI's Responses API gets that the CLI has no words for. Pure.

Behind the gate the CLI is told names of tools and ids of calls alone; tools, their choice, calls and results are put
in there, to the character. With a log-in it is told all, and what it cannot carry is said in words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from bridge.providers.structured import (
    PLAIN_PATTERN,
    SHARED_KEYWORDS,
    adapt,
    fitting,
    forced_tools,
    is_strict,
    parts_of,
    schema_of_call,
    told_of_call,
    told_to_call,
    without_dialect,
)
from bridge.providers.websearch import openai_tool
from bridge.types import GenerationRequest, Image, Message, Part, Text, Tool, ToolCall, ToolResult

#: OpenAI's formats of strings, and its limits.
_OPENAI_FORMATS = {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
_OPENAI_DEPTH, _OPENAI_PROPERTIES, _OPENAI_ENUM = 10, 5000, 1000

#: Names of tools that the CLI takes, and how those begin that it keeps for itself.
_NAME, _RESERVED = re.compile(r"[a-zA-Z0-9_-]{1,128}"), re.compile(r"mcp(__|$)")
#: What a name that the CLI would not take is told with.
_OTHER = "tool_"
#: What the CLI keeps of a tool's schema, and up to how many bytes it keeps the descriptions in it.
_KEPT = frozenset(
    {
        *("type", "properties", "required", "enum", "description", "items", "minItems", "additionalProperties"),
        *("anyOf", "oneOf", "allOf", "$ref", "$defs", "definitions"),
    }
)
_MOST_DESCRIBED = 4000


class CodexAsked(msgspec.Struct, frozen=True):
    """A request as it is asked of codex."""

    #: with what is said in words
    request: GenerationRequest
    #: what the CLI is told of tools
    dynamic_tools: list[dict[str, Any]] = []
    #: a tool's name as the CLI knows it -> as the client does
    names: Mapping[str, str] = {}
    #: where the answer stands for a call: of one of these
    forced: tuple[Tool, ...] = ()

    @property
    def calls(self) -> bool:
        """Whether the model may call tools."""
        return bool(self.names)


def ask(request: GenerationRequest, *, gated: bool) -> CodexAsked:
    """How a request is asked of codex."""
    names = {} if request.tool_choice.mode == "none" else {tool.name: tool.name for tool in request.tools}
    if gated:
        # One with another name is called all the same; the CLI then says that it does not know it, to nobody.
        stubs = [_dynamic(name, "", {}) for name in names if _is_taken(name)]
        return CodexAsked(adapt(request, for_openai)[0], stubs, names)
    forced = forced_tools(request)
    if forced:
        schema = fitting(for_openai, schema_of_call(forced))
        if schema is not None:
            told = msgspec.structs.replace(told_of_call(request, forced), schema=schema)
            return CodexAsked(told, forced=forced)
        request = told_to_call(request)
    others = {name: name if _is_taken(name) else _OTHER + re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:100] for name in names}
    tools = [_dynamic(others[tool.name], _told_description(tool), tool.schema) for tool in request.tools if names]
    told = _renamed(adapt(request, for_openai)[0], others)
    return CodexAsked(told, tools, {other: name for name, other in others.items()})


def _is_taken(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and not _RESERVED.match(name)


def _dynamic(name: str, description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "function", "name": name, "description": description, "inputSchema": schema}


def _told_description(tool: Tool) -> str:
    """A tool's description, with its schema where the CLI would not pass on all of that."""
    written = msgspec.json.encode(tool.schema).decode()
    whole = len(written) <= _MOST_DESCRIBED and all(part.keys() <= _KEPT for part, _ in parts_of(tool.schema))
    return tool.description if whole else f"{tool.description}\n\nArguments: JSON Schema {written}".strip()


def _renamed(request: GenerationRequest, others: Mapping[str, str]) -> GenerationRequest:
    def renamed(part: Part) -> Part:
        return (
            ToolCall(part.id, others.get(part.name, part.name), part.arguments) if isinstance(part, ToolCall) else part
        )

    messages = tuple(Message(each.role, tuple(map(renamed, each.content))) for each in request.messages)
    return msgspec.structs.replace(request, messages=messages)


def tools_body(request: GenerationRequest) -> dict[str, Any]:
    """The fields of the body for the tools of a request; none without any."""
    search = request.web_search
    if search is not None and not request.tools:
        return {"tools": [openai_tool(search)], "max_tool_calls": search.most}
    if not request.tools:
        return {}
    choice: Any = request.tool_choice.mode
    if request.tool_choice.name is not None:
        choice = {"type": "function", "name": request.tool_choice.name}
    tools = [_function(tool, request) for tool in request.tools]
    fields = {"tools": tools, "tool_choice": choice, "parallel_tool_calls": request.tool_choice.parallel}
    return (
        fields if search is None else {**fields, "tools": [*tools, openai_tool(search)], "max_tool_calls": search.most}
    )


def _function(tool: Tool, request: GenerationRequest) -> dict[str, Any]:
    fields = {"type": "function", "name": tool.name, "strict": is_strict(for_openai, tool, request)}
    if tool.description:
        fields["description"] = tool.description
    return {**fields, "parameters": tool.schema or {"type": "object", "properties": {}}}


# --- the conversation ---------------------------------------------------------------------------


def items(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """A conversation as the API has it."""
    return [item for message in messages for item in _items(message)]


def tool_parts(messages: Iterable[Message]) -> dict[str, dict[str, Any]]:
    """Each call and each result of a conversation as the API has it, by its kind and id."""
    return {f"{item['type']} {item['call_id']}": item for item in items(messages) if "call_id" in item}


def _items(message: Message) -> Iterator[dict[str, Any]]:
    kind = "output_text" if message.role == "assistant" else "input_text"
    said: list[dict[str, Any]] = []
    for part in message.content:
        if isinstance(part, Text | Image):
            said.append(_content(part, kind))
            continue
        if said:
            yield {"type": "message", "role": message.role, "content": said}
            said = []
        if isinstance(part, ToolCall):
            call = {"call_id": part.id, "name": part.name, "arguments": part.arguments or "{}"}
            yield {"type": "function_call", **call}
        elif isinstance(part, ToolResult):
            yield {"type": "function_call_output", "call_id": part.tool_call_id, "output": _output(part.content)}
    if said:
        yield {"type": "message", "role": message.role, "content": said}


def _output(content: Sequence[Text | Image]) -> Any:
    match content:
        case ():
            return ""
        case (Text(text),):
            return text
    return [_content(part, "input_text") for part in content]


def _content(part: Text | Image, kind: str) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": kind, "text": part.text}
    return {"type": "input_image", "image_url": part.address}


# --- schemas ------------------------------------------------------------------------------------


def for_openai(schema: dict[str, Any]) -> dict[str, Any] | None:
    """The schema as OpenAI's strict mode takes it, or None where it does not."""
    plain = without_dialect(schema)
    if plain.get("type") != "object" or plain.keys() & {"anyOf", "$ref"}:
        return None
    properties = choices = 0
    for part, depth in parts_of(plain):
        if depth > _OPENAI_DEPTH or not _openai_takes(part):
            return None
        properties += len(part.get("properties", ()))
        choices += len(part.get("enum", ()))
    return plain if properties <= _OPENAI_PROPERTIES and choices <= _OPENAI_ENUM else None


def _openai_takes(part: dict[str, Any]) -> bool:
    if not part.keys() <= SHARED_KEYWORDS or ("$ref" in part and len(part) > 1):
        return False
    if part.get("format", "date") not in _OPENAI_FORMATS or not PLAIN_PATTERN.fullmatch(part.get("pattern", "")):
        return False
    inner = [*part.get("properties", {}).values(), *part.get("anyOf", ()), *part.get("$defs", {}).values()]
    if not part.keys() & {"type", "anyOf", "enum", "const", "$ref"} or not all(isinstance(p, dict) for p in inner):
        return False
    kinds = part.get("type", [])
    if "object" in (kinds if isinstance(kinds, list) else [kinds]) or "properties" in part:
        wanted = set(part.get("properties", ()))
        return part.get("additionalProperties") is False and set(part.get("required", ())) == wanted
    return kinds != "array" or isinstance(part.get("items"), dict)
