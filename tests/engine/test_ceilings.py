"""The most that is reserved for a prompt covers all that a client may write into it, wherever it stands in a body."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import msgspec
import pytest

from bridge.clock import Clock
from bridge.errors import BridgeError
from bridge.gate.server import Gate
from bridge.gate.upstream import Connections
from bridge.providers import claude_body, codex_body
from bridge.providers.claude import ClaudeProvider
from bridge.providers.codex import CodexProvider
from bridge.providers.models import heeded
from bridge.registry import PROVIDERS
from bridge.sandbox.scratch import Scratch
from bridge.settings import Settings
from bridge.types import GenerationRequest, Image, Message, ModelChoice, Text
from bridge.wire.api import Known
from bridge.wire.apis import APIS

Json = dict[str, Any]
#: Far more than what is reserved besides, and with marks that JSON writes with more bytes than they have.
LONG = 'Zürich "57" \\ ' * 1200
MODELS = {"claude": "claude-sonnet-4-5", "claude-5-5": "claude-sonnet-5-5", "codex": "gpt-6-sol"}
SCHEMA: Json = {
    "type": "object",
    "title": "T",
    "description": "D",
    "properties": {
        "a": {"type": "string", "pattern": "x", "enum": ["x"], "default": "x", "description": "d"},
        "b": {"type": "array", "items": {"$ref": "#/$defs/c"}, "minItems": 3},
    },
    "required": ["a"],
    "$defs": {"c": {"const": "x", "title": "x"}},
}
CALLS = [{"id": "call_1", "type": "function", "function": {"name": "one", "arguments": '{"a": "x"}'}}]
PLACE = {"type": "approximate", "city": "a", "region": "b", "country": "CH", "timezone": "d"}
DOMAINS = [f"{number:0>250}.ch" for number in range(100)]

CHAT: Json = {
    "messages": [
        {"role": "system", "content": "s"},
        {"role": "developer", "content": [{"type": "text", "text": "s"}]},
        {"role": "user", "name": "n", "content": [{"type": "text", "text": "u"}]},
        {"role": "assistant", "content": "a", "refusal": "r", "tool_calls": CALLS},
        {"role": "tool", "tool_call_id": "call_1", "content": "t"},
        {"role": "user", "content": "u"},
    ],
    "tools": [{"type": "function", "function": {"name": "one", "description": "d", "parameters": SCHEMA}}],
    "stop": ["x"],
}
RESPONSES: Json = {
    "instructions": "i",
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "u"}]},
        {"type": "reasoning", "id": "rs_1", "content": "x", "name": "n"},
        {"role": "assistant", "content": [{"type": "output_text", "text": "a"}, {"type": "refusal", "refusal": "r"}]},
        {"type": "function_call", "call_id": "call_1", "name": "one", "arguments": '{"a": "x"}'},
        {"type": "custom_tool_call", "call_id": "call_2", "name": "two", "input": "x"},
        {"type": "function_call_output", "call_id": "call_1", "output": "o"},
        {"type": "custom_tool_call_output", "call_id": "call_2", "output": [{"type": "input_text", "text": "o"}]},
    ],
    "tools": [
        {"type": "function", "name": "one", "description": "d", "parameters": SCHEMA},
        {"type": "custom", "name": "two", "description": "d", "format": {"definition": "g", "syntax": "lark"}},
    ],
    "reasoning": {"effort": "low", "summary": "auto"},
}
MESSAGES: Json = {
    "max_tokens": 4000,
    "system": [{"type": "text", "text": "s"}],
    "messages": [
        {"role": "user", "content": "u"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "t", "signature": "s"},
                {"type": "redacted_thinking", "data": "r"},
                {"type": "text", "text": "a"},
                {"type": "tool_use", "id": "toolu_1", "name": "one", "input": {"a": "x"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "t"}]},
                {"type": "text", "text": "u"},
            ],
        },
    ],
    "tools": [
        {"name": "one", "description": "d", "input_schema": SCHEMA},
        {"type": "bash_20250124", "name": "bash"},
    ],
    "thinking": {"type": "enabled", "budget_tokens": 1024, "display": "summarized"},
    "stop_sequences": ["x"],
}
NATIVE: Json = {
    "systemPrompt": "s",
    "messages": [
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "call_1", "name": "one", "input": {"a": "x"}}]},
        {"role": "user", "content": [{"type": "tool_result", "toolUseId": "call_1", "content": "t"}]},
    ],
    "tools": [{"name": "one", "description": "d", "inputSchema": SCHEMA}],
    "stop": "x",
}
#: By API: bodies that together have all that it takes.
BODIES: Mapping[str, list[Json]] = {
    "openai-chat": [
        CHAT,
        {**CHAT, "tool_choice": "required"},
        {**CHAT, "tool_choice": {"type": "function", "function": {"name": "one"}}},
        {
            "messages": CHAT["messages"][:3],
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}},
            "web_search_options": {"user_location": {"type": "approximate", "approximate": PLACE}},
        },
    ],
    "openai-responses": [
        RESPONSES,
        {**RESPONSES, "tool_choice": "required"},
        {
            "input": "u",
            "tools": [{"type": "web_search", "filters": {"allowed_domains": DOMAINS}, "user_location": PLACE}],
            "text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA, "description": "d"}},
        },
    ],
    "anthropic": [
        MESSAGES,
        {**MESSAGES, "tool_choice": {"type": "tool", "name": "one"}},
        {
            "max_tokens": 4000,
            "messages": [{"role": "user", "content": "u"}],
            "tools": [
                {
                    "type": "web_search_20250305",
                    "name": "web_search",
                    "allowed_domains": DOMAINS,
                    "user_location": PLACE,
                }
            ],
            "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
        },
        {
            "max_tokens": 4000,
            "messages": [{"role": "user", "content": "u"}],
            "tools": [{"type": "web_search_20250305", "name": "web_search", "blocked_domains": DOMAINS}],
        },
    ],
    "native": [NATIVE, {**NATIVE, "toolChoice": {"name": "one"}}, {"userPrompt": "u", "schema": SCHEMA}],
    "openai-completions": [{"prompt": "u", "stop": "x"}],
}


def places(value: Any) -> Iterator[Callable[[Any], Any]]:
    """For each text in a body, a name of a field included: the body with another text there."""
    if isinstance(value, str):
        yield lambda text: text
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield lambda text, name=name: {
                **{key: each for key, each in value.items() if key != name},
                text: value[name],
            }
            for put in places(inner):
                yield lambda text, name=name, put=put: {**value, name: put(text)}
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            for put in places(inner):
                yield lambda text, number=number, put=put: [*value[:number], put(text), *value[number + 1 :]]


def variants(api: str, body: Json) -> Iterator[Json]:
    """The body itself, with a long text in the place of each of its texts, and with one in each field that it might
    have."""
    yield body
    for put in places(body):
        yield put(LONG)
    for name in [*APIS[api].parameters, "user", "metadata", "prompt_cache_key", "anything"]:
        if name not in body:
            yield {**body, name: LONG}
            yield {**body, name: {"user_id": LONG}}


def read(api: str, body: Json, model: str) -> GenerationRequest | None:
    """What a body asks for; None for one that is refused."""
    provider = "codex" if model.startswith("gpt") else "claude"
    resolve = partial(lambda name, chosen: ModelChoice(provider, chosen), chosen=model)
    try:
        wanted = APIS[api].parse(json.dumps({"model": model, **body}).encode(), Known(SETTINGS, resolve))
    except BridgeError:
        return None
    return heeded(wanted.request, may_search=True)


SETTINGS = Settings.load({"BRIDGE_ADMIN_KEY": "x" * 20})
#: Ways to a model, and whether its CLI has a log-in: claude is then asked the same.
WAYS = [("claude", False), ("claude-5-5", False), ("codex", False), ("codex", True)]


def conversation(request: GenerationRequest) -> int:
    """The bytes of what is said: each text as it is, and what is in JSON as that."""
    said = request.system.encode()
    for message in request.messages:
        for block in (
            claude_body.blocks(message.content) if request.provider == "claude" else codex_body.items([message])
        ):
            said += b"".join(texts(block))
    return len(said)


def texts(block: Any) -> Iterator[bytes]:
    """What the model reads of a part of a conversation."""
    if block.get("type") in ("image", "input_image"):
        return
    for name, value in block.items():
        if name in ("content", "output") and isinstance(value, list):
            for each in value:
                yield from texts(each)
        elif isinstance(value, str):
            yield value.encode()
        elif name == "input":
            yield msgspec.json.encode(value)


def sent(request: GenerationRequest, *, login: bool) -> int:
    """The bytes of all that goes to the model's API for its model to read."""
    if request.provider == "claude":
        claude = claude_body.ask(request)
        body = {name: each for name, each in claude.body.items() if name in ("tools", "tool_choice", "output_config")}
        return conversation(claude.request) + len(msgspec.json.encode(body))
    codex = codex_body.ask(request, gated=not login)
    told: Any = (
        [{**each, "description": ""} for each in codex.dynamic_tools] if login else codex_body.tools_body(request)
    )
    words = sum(len(each["description"].encode()) for each in codex.dynamic_tools)
    return conversation(codex.request) + words + len(msgspec.json.encode([told, codex.request.schema]))


Ceiling = Callable[[GenerationRequest], int]


@pytest.fixture
def ceiling_of(tmp_path: Any) -> Callable[[str, bool], Ceiling]:
    """What each CLI's provider says a request can be at most; with searches as if none was made."""
    made: dict[tuple[str, bool], Any] = {}
    scratch, gate = Scratch(tmp_path), Gate(Clock(), Connections({}))

    def of(name: str, login: bool) -> Ceiling:
        kind = CodexProvider if name == "codex" else ClaudeProvider
        key = (kind.__name__, login)
        if key not in made:
            env = {"BRIDGE_ADMIN_KEY": "x" * 20}
            if login:
                env |= {"BRIDGE_CLAUDE_CREDENTIALS": "login", "BRIDGE_CODEX_CREDENTIALS": "login"}
            row = PROVIDERS["codex" if name == "codex" else "claude"]
            made[key] = kind(row, Settings.load(env), scratch, Clock(), gate)
        ceiling: Ceiling = made[key].input_ceiling
        return ceiling

    return of


@pytest.mark.parametrize(("name", "login"), WAYS)
@pytest.mark.parametrize("api", BODIES)
def test_whatever_a_client_writes_is_reserved(
    ceiling_of: Callable[[str, bool], Ceiling], api: str, name: str, login: bool
) -> None:
    ceiling, long = ceiling_of(name, login), 0
    for plain in BODIES[api]:
        assert read(api, plain, MODELS[name]) is not None, plain
        for body in variants(api, plain):
            request = read(api, body, MODELS[name])
            if request is not None:
                assert sent(request, login=login) <= ceiling(request), body
                long += sent(request, login=login) > len(LONG)
    assert long


@pytest.mark.parametrize(("name", "login"), WAYS)
def test_what_a_schema_becomes_is_reserved(ceiling_of: Callable[[str, bool], Ceiling], name: str, login: bool) -> None:
    inner: Json = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}, "required": ["a"]}
    names = [f"p{number}" for number in range(400)]
    part: Json = {"type": "object", "properties": dict.fromkeys(names, inner), "required": names}
    tool = {"type": "function", "function": {"name": "one", "parameters": part}}
    form = {"type": "json_schema", "json_schema": {"schema": part}}
    ask = {"messages": CHAT["messages"]}
    for more in ({"response_format": form}, {"tools": [tool]}, {"tools": [tool], "tool_choice": "required"}):
        request = read("openai-chat", {**ask, **more}, MODELS[name])
        assert request is not None
        assert sent(request, login=login) <= ceiling_of(name, login)(request), more


@pytest.mark.parametrize(("name", "login"), WAYS)
def test_a_link_is_reserved_like_an_image(ceiling_of: Callable[[str, bool], Ceiling], name: str, login: bool) -> None:
    def reserved(*images: Image) -> int:
        asked = GenerationRequest(name, MODELS[name], (Message("user", (Text("look"), *images)),))
        return ceiling_of(name, login)(asked)

    link, picture = Image(url="https://images.example.com/cat.png"), Image("image/png", "aGk=", 1)
    assert reserved(link) == reserved(picture) > reserved() + 4999


#: What OpenAI's guide on images says that the largest one counts, at the detail that the CLI asks for.
DEAREST = {
    **dict.fromkeys(("gpt-6.2-astra", "gpt-6-sol", "gpt-5.6", "gpt-5.6-luna", "gpt-5.10", "gpt-50"), 30_000 * 1.2),
    **dict.fromkeys(("ft:gpt-6-sol:ada:like-gpt-4:1", "ft:gpt-6-sol:ada:o1:1", "o1/gpt-6-sol"), 30_000 * 1.2),
    **dict.fromkeys(("gpt-5.5", "gpt-5.5-pro", "gpt-5.4-mini", "gpt-5.4-2026-03-05"), 10_000 * 1.2),
    "gpt-5.2": 6144 * 1.2,
    "gpt-4.1-mini": 6144 * 1.62,
    "gpt-4.1-nano": 6144 * 2.46,
    "o4-mini": 6144 * 1.72,
    "gpt-5": 70 + 8 * 140,
    "gpt-5.1-codex-mini": 6144 * 1.2,
    "gpt-4o": 85 + 8 * 170,
    "o3": 75 + 8 * 150,
    **dict.fromkeys(
        ("gpt-4o-mini", "gpt-4o-mini-2024-07-18", "openai/gpt-4o-mini", "ft:gpt-4o-mini:ada::1"), 2833 + 8 * 5667
    ),
}


@pytest.mark.parametrize("model", DEAREST)
def test_the_largest_image_that_a_model_of_openai_reads_is_reserved(
    ceiling_of: Callable[[str, bool], Ceiling], model: str
) -> None:
    ceiling = ceiling_of("codex", False)
    plain = GenerationRequest("codex", model, (Message("user", (Text("look"),)),))
    shown = GenerationRequest("codex", model, (Message("user", (Text("look"), Image(url="https://a.example/b"))),))
    reserved = ceiling(shown) - ceiling(plain)
    assert DEAREST[model] <= reserved <= max(12_000, DEAREST[model] * 1.01)
