"""One running `codex app-server`: requests with answers, and messages sorted to their threads."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import gevent
import gevent.event
import msgspec

from bridge.sandbox.child import Child, ChildError

#: How long a request of the protocol itself may take, in seconds; model time is not in it.
RPC_TIMEOUT_S = 20.0

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class RpcError(Exception):
    """The app-server refused a request; the text is its own and not for clients."""


class AppServer:
    """A codex process that serves many threads at once. Messages are lines of JSON both ways."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.runs = 0
        """Runs begun on this process."""
        self._listeners: dict[str, Callable[[str, dict[str, Any]], None]] = {}
        self._answers: dict[int, gevent.event.AsyncResult[Any]] = {}
        self._numbers = itertools.count(1)
        self._reader = gevent.spawn(self._read)

    @property
    def alive(self) -> bool:
        """Whether requests can be sent."""
        return not self._reader.dead and self.child.alive

    @property
    def busy(self) -> int:
        """Threads that somebody listens to."""
        return len(self._listeners)

    def call(self, method: str, params: dict[str, Any], timeout_s: float = RPC_TIMEOUT_S) -> Any:
        """Send a request and wait for its result. Raises RpcError, or ChildError when the process is
        gone or does not answer in time."""
        number = next(self._numbers)
        answer: gevent.event.AsyncResult[Any] = gevent.event.AsyncResult()
        self._answers[number] = answer
        try:
            self.child.write(_encode({"id": number, "method": method, "params": params}) + b"\n")
            return answer.get(timeout=timeout_s)
        except gevent.Timeout:
            raise ChildError("the process does not answer") from None
        finally:
            self._answers.pop(number, None)

    def notify(self, method: str) -> None:
        """Send a message that has no answer."""
        self.child.write(_encode({"method": method}) + b"\n")

    def post(self, method: str, params: dict[str, Any]) -> None:
        """Send a request whose answer nobody waits for."""
        self.child.write(_encode({"id": next(self._numbers), "method": method, "params": params}) + b"\n")

    def listen(self, thread_id: str, listener: Callable[[str, dict[str, Any]], None]) -> None:
        """`listener(method, params)` gets every message about the thread, and `("gone", {})` when the
        process has ended. It must not block."""
        self._listeners[thread_id] = listener

    def forget(self, thread_id: str) -> None:
        """No more messages about the thread."""
        self._listeners.pop(thread_id, None)

    def _read(self) -> None:
        try:
            for line in self.child.lines():
                try:
                    message = _decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                    continue
                if isinstance(message, dict):
                    self._sort(message)
        except ChildError:
            pass
        finally:
            self.child.stop()
            for answer in list(self._answers.values()):
                answer.set_exception(ChildError("the process ended"))
            for listener in list(self._listeners.values()):
                listener("gone", {})

    def _sort(self, message: dict[str, Any]) -> None:
        number, method = message.get("id"), message.get("method")
        if method is None:
            answer = self._answers.get(number) if isinstance(number, int) else None
            if answer is not None and "error" in message:
                error = message["error"]
                answer.set_exception(RpcError(str(error.get("message") if isinstance(error, dict) else error)))
            elif answer is not None:
                answer.set(message.get("result"))
        elif number is not None:
            # The server asks something, such as an approval: nothing is ever approved.
            refusal = {"code": -32601, "message": "not supported"}
            gevent.spawn(self._refuse, number, refusal)
        else:
            params = message.get("params")
            if isinstance(params, dict):
                listener = self._listeners.get(str(params.get("threadId")))
                if listener is not None:
                    listener(str(method), params)

    def _refuse(self, number: Any, refusal: dict[str, Any]) -> None:
        try:
            self.child.write(_encode({"id": number, "error": refusal}) + b"\n")
        except ChildError:
            pass
