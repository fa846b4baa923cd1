"""Connections around their requests: those that wait for one, and those that bring something else."""

from __future__ import annotations

import logging
import resource
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import gevent
import msgspec
from gunicorn.http.body import LengthReader
from gunicorn.http.errors import InvalidResponseHeader, InvalidResponseHeaderName, ParseException

from bridge.errors import Problem
from bridge.wire import native

#: The most connections, and the descriptors that are left for everything else: CLIs have three each.
MOST, DESCRIPTORS_FOR_OTHERS = 1000, 400
#: With fewer free places than this, idle connections make room.
SPARE = 16
#: Seconds after which a client that reads nothing counts as gone.
STALLED_S = 60.0
#: Grace, and bytes, for the rest of what is no request to arrive, so that its sender can read the answer.
LINGER_S, LINGER_BYTES = 1.0, 2**20

#: Requests of a connection after which it is closed where the next one has come before its answer: no client and no
#: proxy that is known does that.
MOST_PIPELINED = 20

_MOST_DESCRIPTORS = 65536

log = logging.getLogger("bridge")


def limit() -> int:
    """How many connections there may be. Raises the soft limit on descriptors as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, _MOST_DESCRIPTORS) if hard != resource.RLIM_INFINITY else _MOST_DESCRIPTORS
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(SPARE, min(MOST, max(soft, wanted) - DESCRIPTORS_FOR_OTHERS))


def is_pipelined(request: Any) -> bool:
    """Whether more has come of a connection than this request of it, as gunicorn has read it, can be."""
    reader = request.body.reader
    return isinstance(reader, LengthReader) and request.unreader.buf.getbuffer().nbytes > reader.length


def expect_a_reader(connection: socket.socket) -> None:
    """Let the kernel end a connection whose client is gone, or reads nothing: see TCP_USER_TIMEOUT, tcp(7)."""
    if connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * STALLED_S))


@contextmanager
def reader_expected(connection: socket.socket) -> Iterator[None]:
    """The same for a unix socket, where the kernel has no such option: a write that stalls is an error.

    Only around a request: a proxy keeps a connection without one for longer, and then uses it again.
    """
    if connection.family != socket.AF_UNIX:
        yield
        return
    connection.settimeout(STALLED_S)
    try:
        yield
    finally:
        connection.settimeout(None)


class Waiting:
    """The connections that wait for their next request, or for the rest of one."""

    def __init__(self, seconds: float) -> None:
        """`seconds` is the longest wait."""
        self._seconds = seconds
        self._waits: dict[Wait, None] = {}

    def wait(self) -> Wait:
        """A block in which a connection waits. It ends silently when the wait is too long or the place is needed."""
        return Wait(self._waits, self._seconds)

    def make_room(self) -> None:
        """End the longest wait."""
        oldest = next(iter(self._waits), None)
        if oldest is not None:
            oldest.end()


class Wait:
    """One wait of one connection."""

    def __init__(self, waits: dict[Wait, None], seconds: float) -> None:
        self._waits = waits
        self._seconds = seconds
        self._over = gevent.Timeout()

    def __enter__(self) -> None:
        self._greenlet = gevent.getcurrent()
        self._waits[self] = None
        self._start(self._seconds)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> bool:
        # From here on nothing can interrupt: a request has come.
        self._stop()
        self._waits.pop(self, None)
        return error is self._over

    def end(self) -> None:
        """End it now."""
        self._waits.pop(self, None)
        self._stop()
        self._start(0)

    def _start(self, seconds: float) -> None:
        self._timer = gevent.get_hub().loop.timer(seconds)
        self._timer.start(self._greenlet.throw, self._over)

    def _stop(self) -> None:
        self._timer.stop()
        self._timer.close()


def refuse(connection: socket.socket, error: BaseException) -> None:
    """Answer what is no request, or failed in the server, in the shape of all errors."""
    if isinstance(error, gevent.GreenletExit | SystemExit):
        return
    if isinstance(error, ParseException) and not isinstance(error, InvalidResponseHeader | InvalidResponseHeaderName):
        hint = "Speak HTTP/1.1; the request line may have 8,190 bytes, 64 headers 4,094 each."
        refusal = Problem("invalid_request", "This is no HTTP request that can be read.", hint)
    else:
        log.error("a request failed in the server", exc_info=error)
        refusal = Problem("internal", "Something went wrong inside the bridge.")
    try:
        connection.sendall(_answer(refusal))
        connection.shutdown(socket.SHUT_WR)
        with gevent.Timeout(LINGER_S):
            left = LINGER_BYTES
            while left > 0 and (chunk := connection.recv(65536)):
                left -= len(chunk)
    except (OSError, gevent.Timeout):
        pass


def _answer(problem: Problem) -> bytes:
    request_id = "req_" + secrets.token_hex(12)
    body = msgspec.json.encode(native.API.error(problem, request_id)) + b"\n"
    headers: dict[str, Any] = {
        "Connection": "close",
        "Content-Type": "application/json",
        "Content-Length": len(body),
        "X-Request-Id": request_id,
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
    }
    lines = [f"HTTP/1.1 {problem.status} Error", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body
