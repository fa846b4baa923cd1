"""One server-sent event, as bytes, with what the player has to know of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """`delta` marks a piece of the answer: delays and faults are counted in these."""

    data: bytes
    delta: bool = False

    @classmethod
    def named(cls, name: str, data: dict[str, Any], *, delta: bool = False) -> Event:
        """An event with a name, as both APIs send it (WHATWG HTML, server-sent events)."""
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        return cls(f"event: {name}\ndata: {text}\n\n".encode(), delta)


GARBAGE = (
    Event(b"event: message\ndata: {this is not JSON\n\n"),
    Event(b"data: <html>neither is this</html>\n\n"),
)
