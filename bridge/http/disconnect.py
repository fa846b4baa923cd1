"""Notices that a client has left while it waits for its answer."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import gevent.socket
from gevent.monkey import get_original

#: Seconds between looks at a connection that has unread data on it.
RECHECK_S = 0.5


@contextmanager
def watch(environ: dict[str, Any], gone: Callable[[], None]) -> Iterator[None]:
    """Call `gone()` once if the client closes its connection within the block.

    A WSGI server sees that only when it writes, and a silent answer never writes; so a greenlet waits
    for the socket to become readable, which it does at once when the other side hangs up.
    """
    connection = environ.get("gunicorn.socket")
    if connection is None:
        yield
        return
    watcher = gevent.spawn(_wait_until_gone, connection, gone)
    try:
        yield
    finally:
        watcher.kill(block=False)


def _wait_until_gone(connection: socket.socket, gone: Callable[[], None]) -> None:
    try:
        fd = connection.fileno()
        poller = get_original("select", "poll")()
        poller.register(fd, select.POLLRDHUP)
        while True:
            gevent.socket.wait_read(fd)
            if poller.poll(0) or not connection.recv(1, socket.MSG_PEEK):
                break
            # The next request of an impatient client lies there: the end may come behind it.
            gevent.sleep(RECHECK_S)
    except OSError:
        pass
    gone()
