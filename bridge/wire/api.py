"""What an API is to the rest: how a generation, finished or under way, looks to its clients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import msgspec

from bridge.errors import BridgeError
from bridge.types import Answer, Finished, GenerationRequest

#: Longest silence on a stream, in seconds; proxies cut idle connections.
KEEP_ALIVE_S = 15.0
KEEP_ALIVE = b": keep-alive\n\n"


class Generation(Protocol):
    """One generation to be rendered: a run in flight, or the answer that one left behind."""

    @property
    def id(self) -> str:
        """The run's id."""

    @property
    def request(self) -> GenerationRequest:
        """What was asked; of a stored one without the messages."""

    @property
    def started_at(self) -> float:
        """When it was taken on, in UTC seconds."""

    @property
    def queue_position(self) -> int:
        """Place in the queue, from 1; 0 for one that runs or has run."""

    def follow(self, heartbeat_s: float) -> Iterator[str | None]:
        """The text as it comes, in pieces; None after each `heartbeat_s` of silence."""

    def wait(self, timeout_s: float | None = None) -> Finished | None:
        """The end, or None where it has not come within `timeout_s`."""


class Ended(msgspec.Struct, frozen=True):
    """A Generation that is over, rendered again: the answer of a job, or of a repeated request."""

    id: str
    request: GenerationRequest
    started_at: float
    finished: Finished

    @property
    def queue_position(self) -> int:
        """It waits for nothing."""
        return 0

    def follow(self, heartbeat_s: float) -> Iterator[str | None]:
        """The whole text at once."""
        if isinstance(self.finished.result, Answer) and self.finished.result.text:
            yield self.finished.result.text

    def wait(self, timeout_s: float | None = None) -> Finished | None:
        """Its end."""
        return self.finished


class Api(Protocol):
    """The answers of one API. Pure."""

    #: as the log shows it, and `GenerationRequest.api`
    name: str

    def answer(self, generation: Generation, finished: Finished) -> dict[str, Any]:
        """The body of a 200. `finished.result` is an Answer."""

    def error(self, error: BridgeError, request_id: str) -> dict[str, Any]:
        """The body of an error."""

    def events(self, generation: Generation, request_id: str) -> Iterator[bytes]:
        """The whole stream of server-sent events, to its end, with a sign of life at least every
        KEEP_ALIVE_S. Closing it early stops nothing."""


# --- server-sent events ------------------------------------------------------------------------


def keep_alive(queue_position: int) -> bytes:
    """A comment, which programs pass over, with the place of a request that waits (0: it runs)."""
    return b": queued, place %d\n\n" % queue_position if queue_position else KEEP_ALIVE


def sse_event(name: str, data: Any) -> bytes:
    """One event: JSON never holds a line break, so one `data:` line is enough."""
    return b"event: " + name.encode() + b"\n" + sse_data(data)


def sse_data(data: Any) -> bytes:
    """An event without a name."""
    return b"data: " + msgspec.json.encode(data) + b"\n\n"
