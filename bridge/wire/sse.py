"""Server-sent events. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

KEEP_ALIVE = b": keep-alive\n\n"


def keep_alive(queue_position: int) -> bytes:
    """What nobody has to read, with the place of a request that waits (0: it runs), for people who look."""
    return b": queued, place %d\n\n" % queue_position if queue_position else KEEP_ALIVE


def event(name: str, data: Any) -> bytes:
    """One event: JSON never holds a line break, so one `data:` line is enough."""
    return b"event: " + name.encode() + b"\n" + unnamed(data)


def unnamed(data: Any) -> bytes:
    """An event without a name."""
    return b"data: " + msgspec.json.encode(data) + b"\n\n"
