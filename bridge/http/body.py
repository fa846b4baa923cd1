"""The bodies of requests: read whole, in a bounded time, and not too many large ones at once; and what their bytes
stand for.

A body lies in memory while it arrives: neither slow nor many large ones may fill it.

A refusal that is sent before its body was read (a bad key, too large a body) would be lost if the
connection were closed with data still coming: the kernel would answer that with a reset. So the rest is
read and thrown away after the answer is out, up to a number of bytes and seconds.

`Content-Encoding` is that of RFC 9110; "deflate" comes with and without zlib's frame. Byte order marks are Unicode's.
Windows writes UTF-16 and marks by default, and some HTTP clients compress what they send.
"""

from __future__ import annotations

import codecs
import socket
import zlib
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

#: A body may be this many times as large as what came, and this many bytes besides: texts are 3 to 20 times as large.
MOST_TIMES, MOST_BESIDES = 100, 65536
#: Bytes that are inflated at a time, before others get a turn.
_STEP = 2**20

#: coding -> zlib's window bits: any frame, or none
_CODINGS = {"gzip": zlib.MAX_WBITS | 32, "x-gzip": zlib.MAX_WBITS | 32, "deflate": zlib.MAX_WBITS | 32}
#: The longest mark first: that of UTF-32 begins like the one of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

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


# --- what the bytes stand for: pure ----------------------------------------------------------------


def inflated(body: bytes, coding: str, most: int, turn: Callable[[], None]) -> bytes:
    """A body without its coding, of at most `most` bytes; `turn` is called now and then, to let others go on.

    Raises BridgeError invalid_request for another coding or broken data, payload_too_large.
    """
    coding = coding.strip().lower()
    if coding in ("", "identity"):
        return body
    if coding not in _CODINGS:
        raise _unreadable(f"Content-Encoding {coding[:40]!r} cannot be read.")
    bits = _CODINGS[coding]
    if coding == "deflate" and body[:1] and (body[0] & 15 != 8 or int.from_bytes(body[:2], "big") % 31):
        # No frame of zlib around it.
        bits = -zlib.MAX_WBITS
    allowed = min(most, MOST_TIMES * len(body) + MOST_BESIDES)
    found, rest = bytearray(), body
    try:
        while rest:
            member = zlib.decompressobj(bits)
            while rest and not member.eof:
                found += member.decompress(rest, _STEP)
                rest = member.unconsumed_tail
                if len(found) > allowed:
                    raise BridgeError("payload_too_large", f"The body is larger than {allowed} bytes when inflated.")
                turn()
            if not member.eof:
                raise _unreadable(f"The body breaks off; it is no whole {coding}.")
            rest = member.unused_data
    except zlib.error:
        raise _unreadable(f"The body is no {coding}, which its Content-Encoding says.") from None
    return bytes(found)


def as_utf8(body: bytes) -> bytes:
    """A text in UTF-8, without a byte order mark. What has no mark is left as it is, and what is not what its mark
    says, too: the readers of JSON say what is wrong with it."""
    for mark, encoding in _MARKS:
        if body.startswith(mark):
            rest = body[len(mark) :]
            try:
                return rest if encoding == "utf-8" else rest.decode(encoding).encode()
            except UnicodeError:
                return body
    return body


def _unreadable(message: str) -> BridgeError:
    return BridgeError("invalid_request", message, "Send the body as it is, or compressed with gzip or deflate.")
