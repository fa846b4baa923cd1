"""One connection: reads requests, plays the answers and the faults that their scripts ask for.

HTTP/1.1 with keep-alive, chunked event streams and TCP_NODELAY. While it waits, it watches for a
client that closes the connection.
"""

from __future__ import annotations

import json
import select
import socket
import threading
import time
import uuid
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from . import anthropic, openai
from .answer import Answer, compose
from .events import GARBAGE, Event
from .record import Recorded
from .script import Script, ScriptError, read_prompt

if TYPE_CHECKING:
    from .server import StandIn

_GENERATE: dict[str, ModuleType] = {"/v1/messages": anthropic, "/v1/responses": openai}
_FAULTS = ("hang_mid", "cut", "stream_error", "stream_rate_limit")
_AT_ONCE = ("context", "early_error", "early_rate_limit")


class _ClientLeft(Exception):
    """The client closed the connection before the answer was complete."""


class _Cut(Exception):
    """The connection is to be closed without an orderly end."""


class Handler(BaseHTTPRequestHandler):
    """One connection of a CLI, or of a test."""

    server: StandIn
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    record: Recorded

    def setup(self) -> None:
        """Let the server know of the connection, so that it can end it when it stops."""
        super().setup()
        self.server.connections[threading.current_thread()] = self.connection

    def finish(self) -> None:
        """The counterpart of setup."""
        self.server.connections.pop(threading.current_thread(), None)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: the journal has it all."""

    def _serve(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        try:
            body = json.loads(raw) if raw else None
        except ValueError:
            body = None
        path = urlsplit(self.path).path
        if path.startswith("/__"):
            status, shown = self.server.control(self.command, path, body)
            self._send(status, shown)
            return
        self.record = self._open(path, raw, body)
        try:
            self._answer(path, body if isinstance(body, dict) else {})
            self.server.journal.close(self.record, "complete" if self.record.status == 200 else "failed")
        except _Cut:
            self.server.journal.close(self.record, "failed")
            self.close_connection = True
        except (_ClientLeft, ConnectionError):
            stopped = self.server.stopping.is_set()
            self.server.journal.close(self.record, "stopped" if stopped else "client_closed")
            self.close_connection = True

    do_GET = do_POST = do_HEAD = do_PUT = do_DELETE = do_OPTIONS = do_PATCH = _serve  # noqa: N815

    def _open(self, path: str, raw: bytes, body: Any) -> Recorded:
        headers = {k.lower(): v for k, v in self.headers.items()}
        api = _GENERATE.get(path)
        generates = api is not None and self.command == "POST"
        name = api.NAME if api else "other"
        if path in ("/v1/models", "/v1/messages/count_tokens"):
            name = anthropic.NAME if "anthropic-version" in headers else openai.NAME
        asked = body if isinstance(body, dict) else {}
        return self.server.journal.open(
            method=self.command,
            path=self.path,
            api=name,
            headers=headers,
            bytes_in=len(raw),
            body=body,
            model=str(asked.get("model", "")),
            text=api.read(asked).text if api and generates else "",
            generates=generates,
        )

    def _answer(self, path: str, body: dict[str, Any]) -> None:
        record = self.record
        if record.generates:
            self._generate(_GENERATE[path], body)
        elif self.command == "GET" and path == "/v1/models":
            self._reply(200, (anthropic if record.api == "anthropic" else openai).models())
        elif self.command == "POST" and path == "/v1/messages/count_tokens":
            self._reply(200, {"input_tokens": max(1, anthropic.read(body).size // 4)})
        else:
            self._reply(404, {"error": {"message": f"stand-in: no {self.command} {path}"}})

    def _generate(self, api: ModuleType, body: dict[str, Any]) -> None:
        record = self.record
        prompt = api.read(body)
        try:
            script, rest = read_prompt(prompt.text, self.server.script_of(record.key))
        except ScriptError as error:
            self._reply(400, {"error": {"type": "invalid_request_error", "message": str(error)}})
            return
        if not {"x-api-key", "authorization"} & record.headers.keys():
            self._reply(401, api.error(401, record.model))
            return
        self._wait(script.header_delay)
        if script.mode == "hang":
            self._wait(None)
        if script.status != 200 or script.mode == "quota":
            status = 429 if script.mode == "quota" else script.status
            extra = {"retry-after": str(script.retry_after)} if status == 429 and script.retry_after >= 0 else {}
            extra |= _limits(script)
            shown = api.error(status, record.model, script.mode == "quota")
            if script.says:
                shown["error"]["message"] = script.says
            self._reply(status, shown, extra)
            return
        objection = api.objection(body)
        if objection is not None:
            self._reply(400, objection)
            return
        if script.mode == "context" and (api is anthropic or not body.get("stream")):
            self._reply(400, api.context_error())
            return
        answer = compose(script, prompt, rest)
        record.usage = api.usage_sent(answer)
        if not body.get("stream"):
            self._whole(api, script, answer)
            return
        self._stream(api, script, answer)

    def _whole(self, api: ModuleType, script: Script, answer: Answer) -> None:
        deltas = max(0, len(answer.pieces) - 1)
        self._wait(script.first_delay + script.delay * deltas)
        if script.mode in ("hang_headers", "hang_mid"):
            self._wait(None)
        if script.mode in ("cut", "cut_early"):
            raise _Cut
        if script.mode.startswith(("stream_", "early_")):
            status = 429 if script.mode.endswith("_rate_limit") else 500
            self._reply(status, api.error(status, self.record.model))
            return
        if script.mode == "garbage":
            self._reply_bytes(200, b"{this is not JSON", {})
            return
        self._reply(200, api.whole(self.record.model, answer))

    def _stream(self, api: ModuleType, script: Script, answer: Answer) -> None:
        self._headers(
            200,
            {"content-type": "text/event-stream; charset=utf-8", "transfer-encoding": "chunked", **_limits(script)},
        )
        if script.mode == "hang_headers":
            self._wait(None)
        if script.mode == "cut_early":
            raise _Cut
        if script.mode == "garbage":
            events: Sequence[Event] = GARBAGE
        elif script.mode in _AT_ONCE:
            events = api.stream_error(script.mode)
        else:
            events = api.events(self.record.model, answer)
        fault_at = self._fault_at(script, events)
        for event in events:
            if event.delta:
                if self.record.deltas == fault_at:
                    self._fault(api, script)
                    return
                self._wait(script.delay if self.record.deltas else script.first_delay)
            self._chunk(event.data)
            self.record.deltas += event.delta
        if fault_at >= 0:
            self._fault(api, script)
            return
        self.wfile.write(b"0\r\n\r\n")
        if script.mode in ("garbage", *_AT_ONCE):
            self.server.journal.close(self.record, "failed")

    def _fault_at(self, script: Script, events: Sequence[Event]) -> int:
        """The number of deltas before the fault; -1: the answer is played to its end."""
        if script.mode not in _FAULTS:
            return -1
        deltas = sum(e.delta for e in events)
        return min(script.after, deltas) if script.after >= 0 else deltas // 2

    def _fault(self, api: ModuleType, script: Script) -> None:
        if script.mode == "hang_mid":
            self._wait(None)
        if script.mode == "cut":
            raise _Cut
        for event in api.stream_error(script.mode):
            self._chunk(event.data)
        self.wfile.write(b"0\r\n\r\n")
        self.server.journal.close(self.record, "failed")

    def _wait(self, seconds: float | None) -> None:
        """Let time pass (None: for ever) while watching for a client that leaves."""
        if seconds == 0:
            return
        deadline = None if seconds is None else time.monotonic() + seconds
        poll = select.poll()
        poll.register(self.connection, select.POLLIN)
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not poll.poll(None if left is None else left * 1000):
                return
            if not self.connection.recv(1, socket.MSG_PEEK):
                raise _ClientLeft
            poll.modify(self.connection, 0)  # it sent more, so it is there; POLLHUP still comes

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.record.bytes_out += len(data)

    def _headers(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        identity = f"req_{uuid.uuid4().hex[:20]}"
        for name, value in {"request-id": identity, "x-request-id": identity, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.record.status = status

    def _reply(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        self._reply_bytes(status, json.dumps(body).encode(), headers or {})

    def _reply_bytes(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        described = {"content-type": "application/json", "content-length": str(len(data))}
        self._headers(status, {**described, **headers})
        if self.command != "HEAD":
            self.wfile.write(data)
            self.record.bytes_out += len(data)

    def _send(self, status: int, body: Any) -> None:
        """An answer of the control API, which leaves no record."""
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _limits(script: Script) -> dict[str, str]:
    return dict(each.split(":", 1) for each in script.limits.split(",") if each)
