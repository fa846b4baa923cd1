"""What a request asks of Anthropic's Messages API that the claude CLI has no words for. Pure.

Behind the gate it is put into the body there; with a log-in it goes through CLAUDE_CODE_EXTRA_BODY. It is built from
what is known here alone: never from a client's JSON as a whole, of which that variable would take `model`, `system`
and `max_tokens`, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from bridge.providers import structured
from bridge.providers.models import may_think, takes, thinks, with_thoughts
from bridge.providers.structured import (
    MANY,
    PLAIN_PATTERN,
    SHARED_KEYWORDS,
    fitting,
    forced_tools,
    in_words,
    parts_of,
    schema_of_call,
    told_of_call,
    told_to_call,
    without_dialect,
)
from bridge.providers.websearch import claude_tool
from bridge.types import GenerationRequest, Image, Part, Search, Text, Thought, Tool, ToolCall, ToolResult

#: The CLI's tool for structured output, and how it describes it.
OUTPUT_TOOL, _OUTPUT_TOOL_TEXT = "StructuredOutput", "return the final response as structured JSON"

#: What the schema of the output tool may have (JSON Schema draft 7); others are told in words.
_CLAUDE = frozenset(
    {
        *SHARED_KEYWORDS,
        *("$id", "$comment", "$anchor", "definitions", "default", "examples", "deprecated", "readOnly", "writeOnly"),
        *("contentEncoding", "contentMediaType", "nullable", "minLength", "maxLength", "uniqueItems"),
        *("minProperties", "maxProperties", "patternProperties", "propertyNames", "dependencies"),
        *("allOf", "oneOf", "not", "if", "then", "else", "contains"),
    }
)
#: Names of properties that Anthropic takes in a tool.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
#: Most values of all `enum`s together, and most schemas within a schema, that are worth a tool.
_MOST_CHOICES, _MOST_PARTS = 500, 1000

#: What the API's own structured output takes, its formats of strings, and its limits. Source: Anthropic's page on
#: structured outputs.
_FORMAT_KEYWORDS = frozenset(
    {
        *("title", "description", "default", "type", "enum", "const", "format", "$defs", "definitions", "$ref"),
        *("properties", "required", "additionalProperties", "items", "minItems", "anyOf"),
    }
)
#: What only makes the choice smaller: the model is told it in words, as the provider's own SDKs do, and the bridge
#: checks it.
_BOUNDS = frozenset(
    {
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength"),
        *("pattern", "maxItems", "uniqueItems"),
    }
)
_FORMATS = {"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"}
_MOST_OPTIONAL, _MOST_UNIONS = 24, 16


class ClaudeAsked(msgspec.Struct, frozen=True):
    """A request as it is asked of claude."""

    #: with what is said in words, and without a schema
    request: GenerationRequest
    #: the fields that the API gets besides
    body: dict[str, Any]
    #: whether the answer is what the output tool is given
    by_tool: bool = False
    #: where the answer stands for a call: of one of these
    forced: tuple[Tool, ...] = ()
    #: what `set_max_thinking_tokens` is told: 0 for no thinking, None for the CLI's own way
    thinking_tokens: int | None = 0


def ask(request: GenerationRequest) -> ClaudeAsked:
    """How a request is asked of claude."""
    forced, schema = forced_tools(request), request.schema
    output: dict[str, Any] | None = None
    by_tool = False
    if forced and not takes("claude", request.model, "forced_tool"):
        # What a tool of the vendor's own is told only its API knows.
        output = None if any(tool.vendor for tool in forced) else fitting(for_output_format, schema_of_call(forced))
        told = told_to_call(request) if output is None else told_of_call(request, forced)
        forced = () if output is None else forced
    else:
        # Where a tool must be called, the answer is the call and nothing that has a schema.
        told, schema, forced = request, None if forced else schema, ()
        if schema is not None:
            native = takes("claude", request.model, "output_format")
            output = fitting(for_output_format, schema) if native else None
            # Beside tools that must not be called, neither may the output tool be; nor can there be two of its name.
            barred = any(request.tool_choice.mode == "none" or each.name == OUTPUT_TOOL for each in request.tools)
            own = None if output is not None or barred else fitting(for_claude, schema)
            by_tool = own is not None
            told = request if output is not None or by_tool else in_words(request)
            schema = own
    thinking = _thinking(request)
    # Whether there is room to think is known only now.
    told = with_thoughts(told if thinking is not None else msgspec.structs.replace(told, thinking=None))
    told = msgspec.structs.replace(told, schema=None)
    body = _body(told, output, with_tools=not forced or _has_calls(request), choose=not forced)
    if thinking is not None:
        body["thinking"] = thinking
    if request.web_search is not None:
        body["tools"] = [*body.get("tools", ()), claude_tool(request.web_search)]
    if by_tool:
        body["tools"] = [
            *body.get("tools", ()),
            {"name": OUTPUT_TOOL, "description": _OUTPUT_TOOL_TEXT, "input_schema": schema},
        ]
    return ClaudeAsked(told, body, by_tool, forced, _thinking_tokens(request, thinking))


def _body(
    request: GenerationRequest, output: dict[str, Any] | None, *, with_tools: bool, choose: bool
) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if request.tools and with_tools:
        body["tools"] = [_tool(tool, request) for tool in request.tools]
        choice = _tool_choice(request) if choose else {"type": "none"}
        if choice != {"type": "auto"}:
            body["tool_choice"] = choice
    sampling = request.sampling
    if takes("claude", request.model, "temperature"):
        given = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
        body.update({name: value for name, value in given.items() if value is not None})
    # Of white space alone the API takes none; the bridge cuts there by itself.
    stop = [each for each in request.stop if each.strip()]
    if stop and output is None:
        body["stop_sequences"] = stop
    if output is not None:
        body["output_config"] = {"format": {"type": "json_schema", "schema": output}}
    return body


def is_strict(tool: Tool, request: GenerationRequest) -> bool:
    """Whether the API of its model takes the word of a request's tool, see `structured.is_strict`."""
    return takes("claude", request.model, "output_format") and structured.is_strict(for_output_format, tool, request)


def _tool(tool: Tool, request: GenerationRequest) -> dict[str, Any]:
    if tool.vendor:
        return {**tool.vendor, "name": tool.name}
    # The API wants an object, and an OpenAI client may leave out what a function without parameters would say.
    fields: dict[str, Any] = {"name": tool.name, "input_schema": {"type": "object", **tool.schema}}
    if not tool.schema:
        fields["input_schema"]["properties"] = {}
    if tool.description:
        fields["description"] = tool.description
    if is_strict(tool, request):
        fields["strict"] = True
    return fields


def _tool_choice(request: GenerationRequest) -> dict[str, Any]:
    choice = request.tool_choice
    if choice.mode == "none":
        return {"type": "none"}
    alone = {} if choice.parallel else {"disable_parallel_tool_use": True}
    if choice.mode == "auto":
        return {"type": "auto", **alone}
    return {"type": "tool", "name": choice.name, **alone} if choice.name else {"type": "any", **alone}


def _thinking(request: GenerationRequest) -> dict[str, Any] | None:
    """`thinking` where the client asked for it, or for none, and may have that: in the one way that the model knows, if
    it is one. None where the CLI has words for it, see `_thinking_tokens`."""
    asked = request.thinking
    if request.effort == "none" if asked is None else asked.mode == "disabled":
        return {"type": "between_tools"} if takes("claude", request.model, "between_tools") else None
    if asked is None or not may_think(request):
        return None
    mode = asked.mode
    if mode == "enabled" and not takes("claude", request.model, "thinking_budget"):
        mode = "adaptive"
    elif mode == "adaptive" and not takes("claude", request.model, "adaptive_thinking"):
        mode = "enabled"
    thinking: dict[str, Any] = {"type": mode}
    display = asked.display
    if mode == "enabled":
        most = request.max_output_tokens - 1
        thinking["budget_tokens"] = most if asked.budget is None else min(asked.budget, most)
    elif asked.mode == "enabled":
        # Models that know no budget show nothing by themselves; whoever sets one is used to see something.
        display = display or "summarized"
    return thinking if display is None else {**thinking, "display": display}


def _thinking_tokens(request: GenerationRequest, thinking: dict[str, Any] | None) -> int | None:
    if thinking is not None:
        budget: int | None = thinking.get("budget_tokens")
        return budget
    # The CLI switches thinking on by itself where the API would not. With 0 it says "disabled" of every model that can
    # be told so.
    return None if request.thinking is None and thinks(request) and may_think(request) else 0


def _has_calls(request: GenerationRequest) -> bool:
    return any(isinstance(part, ToolCall) for message in request.messages for part in message.content)


# --- the conversation ---------------------------------------------------------------------------


def blocks(parts: Iterable[Part]) -> list[dict[str, Any]]:
    """Parts of a message as the API has them."""
    return [block(part) for part in parts]


def block(part: Part) -> dict[str, Any]:
    """A part of a message as the API has it."""
    match part:
        case Text(text):
            return {"type": "text", "text": text}
        case Image(url=url) if url:
            return {"type": "image", "source": {"type": "url", "url": url}}
        case Image(media_type, data):
            return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}
        case ToolCall(id, name, arguments):
            return {"type": "tool_use", "id": id, "name": name, "input": _input(arguments)}
        case ToolResult(id, content, is_error):
            result: dict[str, Any] = {"type": "tool_result", "tool_use_id": id, "content": blocks(content)}
            return {**result, "is_error": True} if is_error else result
        case Thought(text, signature, redacted):
            if redacted:
                return {"type": "redacted_thinking", "data": redacted}
            return {"type": "thinking", "thinking": text, "signature": signature}
        case Search(_, query):
            # No conversation has one: they are left out.
            return {"type": "text", "text": query}


def _input(arguments: str) -> Any:
    """Arguments as an object, to the character; what is none stands in one, as Anthropic's page on tool use has it."""
    if not arguments.strip():
        return {}
    try:
        if isinstance(msgspec.json.decode(arguments), dict):
            return msgspec.Raw(arguments.encode())
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        pass
    return {"INVALID_JSON": arguments}


# --- schemas ------------------------------------------------------------------------------------


def for_output_format(schema: dict[str, Any]) -> dict[str, Any] | None:
    """The schema as the API's own structured output takes it, with its bounds in words; None where it does not."""
    plain = without_dialect(schema)
    if plain.get("type") != "object":
        return None
    optional = unions = 0
    for number, (part, _) in enumerate(parts_of(plain)):
        properties = part.get("properties", {})
        optional += len(set(properties) - set(part.get("required", ())))
        unions += isinstance(part.get("type"), list) or "anyOf" in part
        if number >= _MOST_PARTS or not _format_takes(part):
            return None
    if optional > _MOST_OPTIONAL or unions > _MOST_UNIONS or _is_recursive(plain):
        return None
    narrowed: dict[str, Any] = _narrowed(plain)
    return narrowed


def most_parts(value: Any) -> int:
    """How many schemas may lie in a value at most."""
    return msgspec.json.encode(value).count(b"{")


def _format_takes(part: dict[str, Any]) -> bool:
    kinds = part.get("type", ())
    if not part.keys() <= _FORMAT_KEYWORDS | _BOUNDS or part.get("format", "date") not in _FORMATS:
        return False
    # An object of anything cannot be written down by rules; one with names, and no word on others, can be closed.
    is_object = "object" in ([kinds] if isinstance(kinds, str) else kinds) or "properties" in part
    if is_object and part.get("additionalProperties", "properties" not in part) is not False:
        return False
    plain = all(value is None or isinstance(value, str | int | float) for value in part.get("enum", ()))
    return plain and part.get("minItems", 0) >= 0 and part.get("$ref", "#/").startswith("#/")


def _narrowed(schema: Any) -> Any:
    """A schema whose objects are closed, and whose bounds stand in its descriptions."""
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        # The API takes nothing beside it.
        return {"$ref": schema["$ref"]}
    part: dict[str, Any] = {}
    bounds: dict[str, Any] = {}
    for name, value in schema.items():
        if name in _BOUNDS or (name == "minItems" and value > 1):
            bounds[name] = value
        elif name in ("properties", "$defs", "definitions"):
            part[name] = {each: _narrowed(inner) for each, inner in value.items()}
        elif name == "items":
            part[name] = _narrowed(value)
        elif name == "anyOf":
            part[name] = [_narrowed(each) for each in value]
        else:
            part[name] = value
    if "properties" in part:
        part["additionalProperties"] = False
    if bounds:
        said = ", ".join(f"{name}: {value}" for name, value in bounds.items())
        part["description"] = f"{part['description']}\n\n{{{said}}}" if part.get("description") else f"{{{said}}}"
    return part


def _is_recursive(schema: dict[str, Any]) -> bool:
    """Whether a definition leads back to itself, or to one that is not there."""
    named = {
        f"#/{place}/{name}": part for place in ("$defs", "definitions") for name, part in schema.get(place, {}).items()
    }
    leads = {
        name: {part["$ref"] for part, _ in parts_of(definition) if "$ref" in part} for name, definition in named.items()
    }
    wanted = {part["$ref"] for part, _ in parts_of(schema) if "$ref" in part}
    if not wanted <= named.keys():
        return True
    while free := [name for name, needs in leads.items() if not needs & leads.keys()]:
        for name in free:
            del leads[name]
    return bool(leads)


def for_claude(schema: dict[str, Any]) -> dict[str, Any] | None:
    """The schema as the output tool takes it, or None where it does not."""
    plain = without_dialect(schema)
    if plain.get("type") != "object" or not plain.get("properties") or plain.keys() & {*MANY, "$ref"}:
        return None
    choices = 0
    for number, (part, _) in enumerate(parts_of(plain)):
        choices += len(part.get("enum", ()))
        if number >= _MOST_PARTS or choices > _MOST_CHOICES or not _claude_takes(part):
            return None
    return plain


def _claude_takes(part: dict[str, Any]) -> bool:
    patterns = [part["pattern"]] if "pattern" in part else []
    patterns += part.get("patternProperties", ())
    return (
        part.keys() <= _CLAUDE
        and all(_PLAIN_NAME.fullmatch(name) for name in part.get("properties", ()))
        and all(PLAIN_PATTERN.fullmatch(pattern) for pattern in patterns)
    )
