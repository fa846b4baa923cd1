"""A provider whose CLI is a greenlet: it asks the gate as claude does, and reports what comes. No processes."""

from __future__ import annotations

import json
from typing import Any

import gevent
import gevent.socket

from bridge.clock import Clock
from bridge.errors import Problem
from bridge.gate.server import Gate
from bridge.gate.ticket import Way
from bridge.providers.gated import Passage
from bridge.providers.provider import Emit, ProviderStatus
from bridge.registry import PROVIDERS
from bridge.types import (
    Activity,
    Answer,
    Completed,
    Failed,
    GenerationRequest,
    PartDelta,
    Receipt,
    Submitted,
    Tap,
    Text,
    Tool,
    Usage,
    content_of,
)


class Caller:
    """A provider of few words, with the real gate between it and its model."""

    default_model = "claude-sonnet-5-5"
    enforces_output_limit = True
    least_output_tokens = 1
    needs_credential = True
    searches = True
    takes_links = True
    name = "claude"

    def __init__(self, gate: Gate, silence_s: float = 30.0) -> None:
        self.gate = gate
        self.silence_s = silence_s
        #: runs that were handed to a CLI
        self.started = 0

    def open(self) -> None: ...

    def close(self) -> None: ...

    def check(self) -> ProviderStatus:
        return self.status()

    def status(self) -> ProviderStatus:
        return ProviderStatus("claude", True)

    def unchecked(self, request: GenerationRequest) -> list[Tool]:
        return [tool for tool in request.tools if tool.strict]

    def input_ceiling(self, request: GenerationRequest) -> int:
        return 100

    def start(
        self, request: GenerationRequest, emit: Emit, owner: str, tap: Tap | None = None, way: Way | None = None
    ) -> _Call:
        assert way is not None
        self.started += 1
        return _Call(self, request, emit, tap, way)


class _Call:
    """One run."""

    def __init__(self, provider: Caller, request: GenerationRequest, emit: Emit, tap: Tap | None, way: Way) -> None:
        self._emit = emit
        self._request = request
        self._gate = provider.gate
        self._passage = Passage(
            provider.gate,
            way.upstream,
            request,
            Clock(),
            lambda: emit(Activity()),
            row=PROVIDERS["claude"],
            way=way,
            silence_s=provider.silence_s,
            tap=tap,
        )
        self._greenlet = gevent.spawn(self._converse)

    @property
    def receipt(self) -> Receipt | None:
        return self._passage.receipt

    def cancel(self) -> None:
        self._passage.close()
        self._greenlet.kill(block=False)

    def _converse(self) -> None:
        self._passage.open()
        self._emit(Submitted())
        status, content = post(self._gate.url, self._passage.ticket.token, body_of(self._request))
        if status != 200:
            self._emit(self._passage.correct(Failed(self._passage.problem())))
            return
        text = "".join(_texts(content))
        if text:
            self._emit(PartDelta(0, Text(text)))
        answer = Answer(content_of(text), self._request.model, "end_turn", Usage())
        end = self._passage.correct(Completed(answer))
        self._emit(end if isinstance(end, Completed | Failed) else Failed(Problem("internal", "no end")))


def body_of(request: GenerationRequest) -> dict[str, Any]:
    """A body as claude sends it."""
    messages = [{"role": each.role, "content": [{"type": "text", "text": each.text}]} for each in request.messages]
    system = [{"type": "text", "text": request.system}] if request.system else []
    limit = request.max_output_tokens
    return {"model": request.model, "messages": messages, "system": system, "max_tokens": limit, "stream": True}


def post(url: str, token: str, body: Any) -> tuple[int, bytes]:
    """(status, body) of one request to the gate. It waits as a greenlet."""
    host, _, port = url.removeprefix("http://").partition(":")
    data = json.dumps(body).encode()
    head = f"POST /v1/messages HTTP/1.0\r\nhost: {host}\r\nx-api-key: {token}\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    connection = gevent.socket.create_connection((host, int(port)))
    try:
        connection.sendall(head.encode() + data)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    finally:
        connection.close()
    top, _, content = answer.partition(b"\r\n\r\n")
    return int(top.split(b" ", 2)[1]), content


def _texts(content: bytes) -> list[str]:
    """The pieces of text in a stream of events."""
    found = []
    for line in content.split(b"\n"):
        if line.startswith(b"data:") and b"text_delta" in line:
            found.append(json.loads(line[5:])["delta"]["text"])
    return found
