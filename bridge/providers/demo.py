"""The demo provider: a simulated CLI of our own, so that everything can be tried without an account.

It stands in the place of claude and codex in `cli-bridge demo`, and nowhere else: it is never a
fall-back for a missing CLI. Its answers say that they are made up.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gevent
import msgspec

from bridge.clock import Clock
from bridge.errors import Problem
from bridge.gate.ticket import Way
from bridge.providers.cli import CliProvider
from bridge.providers.pool import Pool
from bridge.providers.provider import Emit, ProviderStatus, text_ceiling
from bridge.registry import ProviderRow
from bridge.sandbox.child import Child, ChildError
from bridge.sandbox.scratch import Scratch
from bridge.settings import Settings
from bridge.types import (
    Answer,
    Completed,
    Event,
    Failed,
    GenerationRequest,
    Message,
    Part,
    PartDelta,
    Receipt,
    Submitted,
    Tap,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    Usage,
    whole,
    words,
)

if TYPE_CHECKING:
    from bridge.gate.server import Gate

#: What an image counts in the simulation, in tokens.
IMAGE_TOKENS = 1600

#: Python's own modules first: what else lies in the folder of the bridge is not to take their place.
_START = (
    "import json, os, re, sys, time; sys.path.insert(0, sys.argv[1]); import bridge.providers.demo_cli as c; c.main()"
)


class DemoProvider(CliProvider):
    """Runs requests on the simulated CLI, one warm process each, as the claude provider does."""

    enforces_output_limit = True
    needs_credential = False
    searches = False
    least_output_tokens = 1

    def __init__(
        self,
        row: ProviderRow,
        settings: Settings,
        scratch: Scratch,
        clock: Clock,
        gate: Gate,
        *,
        warm: int = 2,
        pace_s: float = 0.02,
    ) -> None:
        """`row` is of the provider that it stands for; `pace_s` the pause between two pieces of an answer."""
        super().__init__(row, settings, scratch, clock, gate)
        self.takes_links = True
        self._pace_s = pace_s
        self._pool = Pool(self._spawn, warm, clock, self._breaker)

    def close(self) -> None:
        self._pool.close()
        super().close()

    def check(self, *, patient: bool = False) -> ProviderStatus:
        return ProviderStatus(self.name, True, "demo", "demo")

    def unchecked(self, request: GenerationRequest) -> list[Tool]:
        return []

    def input_ceiling(self, request: GenerationRequest) -> int:
        return text_ceiling(request, IMAGE_TOKENS)

    def start(
        self, request: GenerationRequest, emit: Emit, owner: str, tap: Tap | None = None, way: Way | None = None
    ) -> _Conversation:
        return _Conversation(self._pool.take, request, emit, self._pace_s, tap)

    def _begin(self, *, renewed: bool) -> None:
        self._pool.open()

    def _ready(self) -> int:
        return self._pool.warm

    def _spawn(self) -> Child:
        root = str(Path(__file__).resolve().parents[2])
        # Of the bridge's own Python, which the CLIs' user need not be able to read.
        return self._launch([sys.executable, "-I", "-c", _START, root], {"PATH": os.defpath, "LANG": "C.UTF-8"})


def question_of(request: GenerationRequest, pace_s: float) -> dict[str, Any]:
    """What the simulated CLI is told of a request; `pace_s` is its pause between two pieces, in seconds."""
    return {
        "prompt": "\n\n".join(part.text for part in request.messages[-1].content if isinstance(part, Text)),
        "turns": len(request.messages),
        "images": len(request.images),
        "inputTokens": text_ceiling(request, IMAGE_TOKENS) // 4 + 1,
        "maxOutputTokens": request.max_output_tokens,
        "schema": request.schema,
        "tools": [] if request.tool_choice.mode == "none" else msgspec.to_builtins(request.tools),
        "toolChoice": msgspec.to_builtins(request.tool_choice),
        "toolsCalled": [
            part.name for message in request.messages for part in message.content if isinstance(part, ToolCall)
        ],
        "toolResults": _results(request.messages[-1]),
        "paceSeconds": pace_s,
    }


def _results(message: Message) -> list[str]:
    """What tools gave, where nothing else was said since."""
    results = [words(part) for part in message.content if isinstance(part, ToolResult)]
    return results if len(results) == len(message.content) else []


class _Conversation:
    """One prompt on one process, which ends with it."""

    def __init__(
        self,
        take: Callable[[], tuple[Child, bool]],
        request: GenerationRequest,
        emit: Emit,
        pace_s: float,
        tap: Tap | None,
    ) -> None:
        self._take = take
        self._request = request
        self._emit = emit
        self._pace_s = pace_s
        self._tap = tap
        self._child: Child | None = None
        self._warm = False
        self._cancelled = False
        gevent.spawn(self._converse)

    receipt: Receipt | None = None

    def cancel(self) -> None:
        self._cancelled = True
        if self._child is not None:
            self._child.stop()

    def _converse(self) -> None:
        try:
            self._child, self._warm = self._take()
            self._child.tap = self._tap
            if not self._cancelled:
                self._emit_until_end(self._child)
        except ChildError as error:
            self._say(Failed(Problem("cli_failed", f"The demo CLI failed: {error}.")))
        finally:
            if self._child is not None:
                self._child.stop()

    def _emit_until_end(self, child: Child) -> None:
        request = self._request
        self._emit(Submitted(self._warm))
        child.write(msgspec.json.encode(question_of(request, self._pace_s)) + b"\n")
        pieces: list[PartDelta] = []
        for line in child.lines():
            if self._cancelled:
                return
            message = msgspec.json.decode(line)
            if message["type"] == "done":
                self._emit(self._end(pieces, message))
                return
            part: Part = Text(message["text"])
            if message["type"] == "call":
                part = ToolCall(message["id"], message["name"], message["text"])
            pieces.append(PartDelta(message["index"], part))
            self._emit(pieces[-1])
        self._say(Failed(Problem("cli_failed", "The demo CLI ended before the answer was complete.")))

    def _end(self, pieces: list[PartDelta], message: dict[str, Any]) -> Event:
        usage = Usage(message["inputTokens"], output_tokens=message["outputTokens"])
        return Completed(Answer(whole(pieces), self._request.model, message["stopReason"], usage))

    def _say(self, event: Event) -> None:
        if not self._cancelled:
            self._emit(event)
