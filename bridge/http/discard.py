"""What happens to a body that nobody read: it is taken off the line, within bounds.

A refusal that is sent before the body was read (a bad key, too large a body) would be lost if the
connection were closed with data still coming: the kernel would answer that with a reset. So the rest is
read and thrown away after the answer is out, up to a number of bytes and seconds.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import gevent

#: Most that is thrown away, in bytes and in seconds; past either, the connection is closed.
MOST_BYTES, MOST_SECONDS = 64 * 2**20, 5.0


#: Around the wait for what nobody wants: the server puts something in here that ends it where its place is needed.
waiting: Callable[[], AbstractContextManager[object]] = nullcontext


def discard_rest(environ: dict[str, Any]) -> Callable[[], None]:
    """A function that takes the unread rest of the request's body off the connection."""

    def discard() -> None:
        with waiting():
            if _read(environ.get("wsgi.input")):
                return
        connection = environ.get("gunicorn.socket")
        if connection is not None:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    return discard


def _read(stream: Any) -> bool:
    """Read to the end of the body; whether it has come."""
    left = MOST_BYTES
    try:
        with gevent.Timeout(MOST_SECONDS):
            while left > 0 and stream is not None and (chunk := stream.read(65536)):
                left -= len(chunk)
                gevent.sleep(0)
        return left > 0
    except (gevent.Timeout, OSError, ValueError):
        return False
    except Exception:
        # The server's parser has errors of its own for a body that breaks off.
        return False
