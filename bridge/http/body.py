"""The bodies of requests: read whole, in a bounded time, and not too many large ones at once.

A body lies in memory while it arrives: neither slow nor many large ones may fill it.

A refusal that is sent before its body was read (a bad key, too large a body) would be lost if the
connection were closed with data still coming: the kernel would answer that with a reset. So the rest is
read and thrown away after the answer is out, up to a number of bytes and seconds.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import IO, Any, TypeVar

import flask
import gevent
from flask import current_app, g
from gunicorn.http.errors import ParseException

from bridge.clock import Clock
from bridge.errors import BridgeError
from bridge.http.coding import as_utf8, inflated
from bridge.store.files import in_thread

#: Time for any body, in seconds, and the slowest pace of a long one: 32 MiB may take five minutes.
BODY_S, BYTES_PER_SECOND = 30.0, 128 * 1024
#: Up to this size, in bytes, a body is read without asking for room.
SMALL_BYTES = 256 * 1024
#: Bodies of the largest size that are read at the same time: of one key, and of all.
LARGEST_OF_KEY, LARGEST_OF_ALL = 1, 4
#: How long a large body waits for its turn, and how often it looks, in seconds.
TURN_S, LOOK_S = 20.0, 0.05
#: The most that is thrown away of a body, in bytes and in seconds; past either, the connection is closed.
MOST_BYTES, MOST_SECONDS = 64 * 2**20, 5.0

_CHUNK = 65536

T = TypeVar("T")
Waiting = Callable[[], AbstractContextManager[object]]

#: Where an application keeps what its routes share, see `context.Edge`.
EXTENSION = "bridge"


class Intake:
    """The bodies of one application that are on their way in. Counts the bytes of the large ones, by key."""

    def __init__(self, largest: int, clock: Clock, waiting: Waiting = nullcontext) -> None:
        """`largest` is the most that one body may have, in bytes. `waiting()` is entered around the wait for what
        is thrown away, and may end that where its place is needed."""
        self._largest = largest
        self._clock = clock
        self._waiting = waiting
        self._taken: Counter[str] = Counter()

    def fill(self, body: bytearray, stream: IO[bytes], size: int) -> None:
        """Read until `body` has `size` bytes, or nothing more comes. Raises BridgeError where that is too slow."""
        until = self._clock.monotonic() + BODY_S
        while len(body) < size:
            with gevent.Timeout(max(0.0, until - self._clock.monotonic()), _broken("The body came too slowly.")):
                chunk = stream.read(min(_CHUNK, size - len(body)))
            if not chunk:
                return
            body += chunk
            until += len(chunk) / BYTES_PER_SECOND
            # A quick client's data is always there, so reading it alone gives nobody a turn.
            gevent.sleep(0)

    @contextmanager
    def room(self, key_name: str, size: int) -> Iterator[None]:
        """Room for `size` bytes for the length of a block. Raises BridgeError overloaded."""
        for _ in range(round(TURN_S / LOOK_S)):
            if self._fits(key_name, size):
                break
            gevent.sleep(LOOK_S)
        else:
            raise BridgeError("overloaded", "Too many large requests are coming in already.", retry_after=TURN_S)
        self._taken[key_name] += size
        try:
            yield
        finally:
            self._taken[key_name] -= size
            if not self._taken[key_name]:
                del self._taken[key_name]

    def _fits(self, key_name: str, size: int) -> bool:
        return (
            self._taken[key_name] + size <= LARGEST_OF_KEY * self._largest
            and self._taken.total() + size <= LARGEST_OF_ALL * self._largest
        )

    def discard_rest(self, environ: dict[str, Any]) -> None:
        """Take the unread rest of a request's body off its connection, or close that where it is too much."""
        with self._waiting():
            if _read_off(environ.get("wsgi.input")):
                return
        connection = environ.get("gunicorn.socket")
        if connection is not None:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Request(flask.Request):
    """A request whose body is read by these rules, whoever asks for it. `g.before_large_body()`, where it is set, is
    called before the rest of a large one is taken, and may raise."""

    def get_data(self, cache: bool = False, as_text: bool = False, parse_form_data: bool = False) -> Any:
        """The whole body, read once: inflated, and as UTF-8 where it is a text. Raises BridgeError invalid_request
        where it breaks off, is not what its headers say, or comes too slowly, payload_too_large, and overloaded; and
        HTTPException for one that is too large."""
        try:
            body = self._read()
        except ParseException:
            raise _broken("The body cannot be read; its chunks are not as HTTP says.") from None
        if self.content_length is not None and len(body) < self.content_length:
            raise _broken("The body broke off.")
        coding = self.headers.get("Content-Encoding", "")
        return as_utf8(inflated(body, coding, self.max_content_length or 0, lambda: gevent.sleep(0)))

    def _read(self) -> bytes:
        intake: Intake = current_app.extensions[EXTENSION].intake
        stream, body, largest = self.stream, bytearray(), self.max_content_length or 0
        # Of unknown length: one byte more than there may be, which the stream refuses.
        size = largest + 1 if self.content_length is None else self.content_length
        intake.fill(body, stream, min(size, SMALL_BYTES))
        if len(body) == SMALL_BYTES:
            key = g.get("key")
            with intake.room("" if key is None else key.name, min(size, largest)):
                g.get("before_large_body", _nothing)()
                intake.fill(body, stream, size)
        return bytes(body)


def beside(body: bytes, read: Callable[[], T]) -> T:
    """What `read()` makes of a body. Everybody else would wait for a large one: its texts and images are decoded in a
    thread. Raises what `read` raises."""
    return read() if len(body) <= SMALL_BYTES else in_thread(read)


def _nothing() -> None:
    """Nothing speaks against any body."""


def _broken(message: str) -> BridgeError:
    return BridgeError("invalid_request", message, "Send the whole body again.")


def _read_off(stream: Any) -> bool:
    """Read to the end of the body; whether it has come."""
    left = MOST_BYTES
    try:
        with gevent.Timeout(MOST_SECONDS):
            while left > 0 and stream is not None and (chunk := stream.read(_CHUNK)):
                left -= len(chunk)
                gevent.sleep(0)
        return left > 0
    except (gevent.Timeout, OSError, ValueError):
        return False
    except Exception:
        # The server's parser has errors of its own for a body that breaks off.
        return False
