"""One run on a codex app-server: a throw-away thread, its history, one turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
import gevent.queue

from bridge.engine import structured
from bridge.errors import BridgeError
from bridge.providers import codex_protocol as protocol
from bridge.providers.app_server import AppServer, RpcError
from bridge.providers.provider import Emit
from bridge.providers.tokens import estimate
from bridge.sandbox.child import ChildError
from bridge.types import (
    Activity,
    Answer,
    Completed,
    Event,
    Failed,
    GenerationRequest,
    Submitted,
    TextDelta,
    Usage,
)

#: Time for an interrupted turn to end before the whole process is thought to hang, in seconds.
INTERRUPT_TIMEOUT_S = 5.0


class CodexTurn:
    """One turn on one thread of an app-server."""

    def __init__(
        self,
        connect: Callable[[], AppServer],
        cwd: str,
        request: GenerationRequest,
        emit: Emit,
        matches: Callable[[dict[str, Any], Any], str | None],
    ) -> None:
        self._connect = connect
        self._cwd = cwd
        self._request = request
        self._told, _ = structured.told(request, structured.for_openai)
        self._emit = emit
        self._matches = matches
        self._inbox: gevent.queue.Queue[tuple[str, dict[str, Any]]] = gevent.queue.Queue()
        self._text: list[str] = []
        self._text_bytes = 0
        self._usage: Usage | None = None
        self._full = False
        self._cancelled = False
        gevent.spawn(self._converse)

    def cancel(self) -> None:
        self._cancelled = True
        self._inbox.put(("cancel", {}))

    def _converse(self) -> None:
        try:
            server = self._connect()
            thread = server.call("thread/start", protocol.thread_start(self._told, self._cwd))["thread"]["id"]
        except (ChildError, RpcError, KeyError, TypeError) as error:
            self._emit(Failed(BridgeError("cli_failed", "The codex CLI did not start the request.")))
            if isinstance(error, ChildError):
                gevent.sleep(0)
            return
        server.listen(thread, lambda method, params: self._inbox.put((method, params)))
        try:
            self._take_turn(server, thread)
        except (ChildError, RpcError, KeyError, TypeError):
            self._emit(Failed(BridgeError("cli_failed", "The codex CLI failed during the request.")))
        finally:
            server.forget(thread)
            if server.alive:
                try:
                    server.post("thread/unsubscribe", {"threadId": thread})
                except ChildError:
                    pass

    def _take_turn(self, server: AppServer, thread: str) -> None:
        items = protocol.history(self._told, thread)
        if items is not None:
            server.call("thread/inject_items", items)
        if self._cancelled:
            return
        self._emit(Submitted())
        turn = server.call("turn/start", protocol.turn_start(self._told, thread))["turn"]["id"]
        while True:
            method, params = self._inbox.get()
            if method == "cancel":
                self._interrupt(server, thread, turn)
                return
            if method == "gone":
                error = BridgeError("cli_failed", "The codex process ended in the middle of the answer.")
                self._emit(Failed(error))
                return
            if method == "turn/completed":
                self._emit(self._end(_mapping(params.get("turn"))))
                return
            self._note(method, params)
            if self._full:
                # The CLI knows no maximum of output tokens: the stream is watched and stopped instead.
                self._interrupt(server, thread, turn)
                self._emit(Completed(self._answer("max_tokens")))
                return

    def _note(self, method: str, params: dict[str, Any]) -> None:
        event: Event = Activity()
        if method == "item/agentMessage/delta":
            text = params.get("delta")
            if isinstance(text, str):
                self._text.append(text)
                self._text_bytes += len(text.encode("utf-8", "replace"))
                event = TextDelta(text)
                self._full = estimate(self._text_bytes, len(self._text)) > self._request.max_output_tokens
        elif method == "item/completed":
            item = _mapping(params.get("item"))
            if item.get("type") == "agentMessage" and not self._text and item.get("text"):
                self._text.append(str(item["text"]))
                event = TextDelta(str(item["text"]))
        elif method == "thread/tokenUsage/updated":
            usage = protocol.usage_of(_mapping(params.get("tokenUsage")).get("last"))
            self._usage = usage or self._usage
            event = Activity(self._usage)
        self._emit(event)

    def _interrupt(self, server: AppServer, thread: str, turn: str) -> None:
        """Stop the turn upstream; a server that does not obey is ended, with all that runs on it."""
        try:
            server.post("turn/interrupt", {"threadId": thread, "turnId": turn})
            with gevent.Timeout(INTERRUPT_TIMEOUT_S):
                while self._inbox.get()[0] not in ("turn/completed", "gone"):
                    pass
        except (ChildError, gevent.Timeout):
            server.child.stop()

    def _end(self, turn: dict[str, Any]) -> Event:
        error = turn.get("error")
        if turn.get("status") != "completed":
            if protocol.hit_max_tokens(error) and self._text:
                return Completed(self._answer("max_tokens"))
            usage = Usage() if protocol.costs_nothing(error) and self._usage is None else self._usage
            return Failed(protocol.turn_error(error), usage)
        text = "".join(self._text)
        if not text.strip():
            return Failed(BridgeError("cli_bad_output", "The model gave an empty answer."), self._usage)
        if self._request.schema is None:
            return Completed(self._answer("end_turn"))
        try:
            found, output = structured.read(text)
            problem = self._matches(self._request.schema, output)
        except ValueError:
            problem = "it is not valid JSON"
        if problem is None:
            return Completed(self._answer("end_turn", output, found))
        error = BridgeError("output_mismatch", f"The answer does not fit the schema: {problem}.", text=text)
        return Failed(error, self._usage)

    def _answer(self, stop_reason: str, output: Any = None, text: str | None = None) -> Answer:
        return Answer(
            text="".join(self._text) if text is None else text,
            model=self._request.model,
            stop_reason=stop_reason,
            usage=self._usage,
            output=output,
        )


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
