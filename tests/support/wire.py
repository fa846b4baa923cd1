"""Requests byte by byte, for what a well-behaved client would not send."""

from __future__ import annotations

import http.client
import socket
from types import TracebackType
from typing import Any, Self

from tests.support.server import Answer, Server

#: For an answer, in seconds.
PATIENCE_S = 30


def head(method: str, path: str, *headers: str, key: str | None = None) -> bytes:
    """The head of a request, to its empty line."""
    lines = [f"{method} {path} HTTP/1.1", "Host: bridge", *headers]
    if key is not None:
        lines.append(f"Authorization: Bearer {key}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


class _Kept:
    """What is read from a connection, kept from one answer to the next: in the place of a socket, and of its file."""

    def __init__(self, connection: socket.socket) -> None:
        self.file = connection.makefile("rb")

    def makefile(self, mode: str) -> Self:
        return self

    def close(self) -> None:
        """Not yet: the next answer may be in its buffer."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


class Wire:
    """A connection that sends what it is told to, and reads one answer after the other."""

    def __init__(self, server: Server, source: str = "127.0.0.1", *, buffer: int | None = None) -> None:
        """`source` is the address that it comes from; `buffer` how much the kernel keeps unread, in bytes."""
        self.socket = socket.socket()
        if buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.settimeout(PATIENCE_S)
        self.socket.bind((source, 0))
        self.socket.connect(("127.0.0.1", server.port))
        self._kept = _Kept(self.socket)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def send(self, *pieces: bytes) -> None:
        """Send these bytes."""
        for piece in pieces:
            self.socket.sendall(piece)

    def answer(self, method: str = "GET") -> Answer:
        """The next answer, whole. Raises OSError or HTTPException where there is none."""
        response = http.client.HTTPResponse(self._kept, method=method)  # type: ignore[arg-type]
        response.begin()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())

    def ask(self, *pieces: bytes) -> Answer:
        """Send, and read the answer."""
        self.send(*pieces)
        return self.answer()

    def rest(self) -> bytes:
        """All that still comes until the server ends the connection. Raises TimeoutError where it does not."""
        try:
            return self._kept.file.read()
        except ConnectionError:
            return b""

    def reset(self) -> None:
        """Go away in the rudest way: with a reset instead of an end."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._kept.file.close()
        self.socket.close()
