"""`python -m tests.support.planted_server`: a server that tells the real CLIs wrong things, where a prompt asks for it.

Words of a prompt plant a fault in its own run: PLANT-MODEL, -SYSTEM, -EXTRA, -LIMIT and -TOOL. PLANT-REWIND leaves the
words of its run in the process. PLANT_CLAUDE_MD in the environment lets claude read a CLAUDE.md of its home.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from bridge.ops import serve
from bridge.providers import claude, claude_wire, codex_wire
from bridge.providers.cli import CliProvider
from bridge.settings import Settings
from bridge.types import GenerationRequest, Message, Text

EXTRA = "PLANTED-4711"
OTHER_MODELS = {"claude": "claude-opus-5-5", "codex": "gpt-5.5"}


def wants(request: GenerationRequest, fault: str) -> bool:
    return f"PLANT-{fault}" in request.messages[-1].text


def spoilt(request: GenerationRequest) -> GenerationRequest:
    """The request as a CLI is told it."""
    change = msgspec.structs.replace
    if wants(request, "MODEL"):
        request = change(request, model=OTHER_MODELS[request.provider])
    if wants(request, "SYSTEM"):
        request = change(request, system=f"{request.system} {EXTRA}")
    if wants(request, "EXTRA"):
        turns = (Message("user", (Text(EXTRA),)), Message("assistant", (Text("ok"),)))
        request = change(request, messages=(*turns, *request.messages))
    if wants(request, "LIMIT"):
        request = change(request, max_output_tokens=request.max_output_tokens + 1)
    return request


def spoil(module: Any, name: str) -> None:
    """Let a function of a wire module see what is planted instead of its request."""
    real: Callable[..., Any] = getattr(module, name)

    def wrong(told: Any, *rest: Any, **named: Any) -> Any:
        if isinstance(told, GenerationRequest):
            return real(spoilt(told), *rest, **named)
        return real(msgspec.structs.replace(told, request=spoilt(told.request)), *rest, **named)

    setattr(module, name, wrong)


def history_of_claude(request: GenerationRequest, marks: Sequence[str]) -> list[tuple[bytes, bool]]:
    # What is planted has no mark: the marks are those of the run's own messages.
    planted, own = told_before(spoilt(request)), told_before(request, marks)
    return [*planted[: len(planted) - len(own)], *own]


def with_tool_of_claude(asked: Any, **named: Any) -> bytes:
    said: bytes = settings_of_claude(asked, **named)
    if wants(asked.request, "TOOL"):
        tool = json.dumps({"name": "Bash", "description": EXTRA, "input_schema": {"type": "object"}})
        said = said.replace(rb"\"tools\":[]", rb"\"tools\":[%b]" % tool.replace('"', '\\"').encode())
    return said


def with_tool_of_codex(asked: Any, cwd: str) -> dict[str, Any]:
    params: dict[str, Any] = thread_of_codex(asked, cwd)
    if wants(asked.request, "TOOL"):
        tool = {"name": "shell", "description": EXTRA, "inputSchema": {"type": "object", "properties": {}}}
        params["dynamicTools"] = [tool]
    return params


def rewind(conversation: Any, child: Any, marks: list[str]) -> bool:
    return wants(conversation._asked.request, "REWIND") or really_rewind(conversation, child, marks)


def with_claude_md() -> None:
    """Take away what keeps claude from the instructions of its home, and put some there."""
    arguments, environment, make_home = claude_wire.arguments, claude_wire.environment, CliProvider._make_home
    closed = ("--bare", "--setting-sources", "")
    claude_wire.arguments = lambda *given, **named: [each for each in arguments(*given, **named) if each not in closed]
    claude_wire.environment = lambda **named: {
        name: value for name, value in environment(**named).items() if not name.endswith("_CLAUDE_MDS")
    }
    CliProvider._make_home = lambda self, files=None: make_home(self, {**(files or {}), "CLAUDE.md": EXTRA.encode()})


if __name__ == "__main__":
    settings_of_claude, thread_of_codex = claude_wire.gated_settings, codex_wire.thread_start
    told_before = claude_wire.history
    really_rewind = claude._Conversation._rewind
    claude_wire.gated_settings, codex_wire.thread_start = with_tool_of_claude, with_tool_of_codex
    claude._Conversation._rewind = rewind
    claude_wire.history = history_of_claude
    spoil(claude_wire, "gated_settings")
    spoil(codex_wire, "thread_start")
    spoil(codex_wire, "history")
    if os.environ.get("PLANT_CLAUDE_MD"):
        with_claude_md()
    serve.run(Settings.load(dict(os.environ)))
