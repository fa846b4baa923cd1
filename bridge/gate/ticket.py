"""Tickets: what a run may send to a model, once, and what came of it.

A claude process gets a ticket's token as its API key, for one run. A codex process has a token of its own, and names
the run by the thread that `thread/start` answered with. Neither is worth anything outside of the gate.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import msgspec

from bridge.types import Image, Tap, Usage

Wire = Literal["messages", "responses"]
"""The API that a CLI speaks to its model: Anthropic's Messages, or OpenAI's Responses."""

#: A mark of one part of a message: its kind, and the text or the data itself.
Mark = tuple[str, str]


class Vouched(msgspec.Struct, frozen=True):
    """What the body of the call must be. `messages` has each turn's role and parts, turns of one role merged."""

    model: str
    system: str
    messages: tuple[tuple[str, tuple[Mark, ...]], ...]
    #: the most output tokens that the body may ask for
    output_tokens: int
    #: the names of the tools that may be offered
    tools: frozenset[str] = frozenset()


class Upstream(msgspec.Struct, frozen=True):
    """Where a call goes, and the secret that opens it. `base_url` is what the operator set, without a slash."""

    wire: Wire
    base_url: str
    secret: str

    def __repr__(self) -> str:
        return f"Upstream({self.wire}, {self.base_url})"


class Call(msgspec.Struct):
    """What the gate saw of a call. Times are monotonic seconds; None for what has not happened. After a call that was
    turned away and tried again, only the last one counts, from the time of the first."""

    sent_at: float | None = None
    first_byte_at: float | None = None
    ended_at: float | None = None
    #: the provider's HTTP status
    status: int | None = None
    #: seconds, as the provider's header says
    retry_after_s: float | None = None
    request_id: str | None = None
    #: the provider's own limits, by the names of its headers
    rate_limits: Mapping[str, str] = {}
    model: str | None = None
    usage: Usage | None = None
    stop_reason: str | None = None
    #: the model's words where it declined, in the Responses API; Anthropic's API has a stop reason for that
    refusal: str | None = None
    #: whether the model asked for a tool, in the Responses API
    called: bool = False
    #: whether a part of an answer had come: an error before that is none, though the status says 200
    begun: bool = False
    #: whether the answer came to its end
    complete: bool = False
    #: whether it was broken off here, because it was longer than an answer can be
    endless: bool = False
    #: whether no connection came about, so that nothing was sent
    unreachable: bool = False
    error_type: str | None = None
    #: the provider's own words, for the admin
    error_message: str | None = None
    #: why the gate let nothing pass: what differed from what the run vouches for
    refused: str | None = None

    @property
    def turned_away(self) -> bool:
        """Whether an error came in the place of an answer, which then has cost nothing: also after a status of 200."""
        if self.status is None or self.status != 200:
            return self.status is not None
        return self.error_type is not None and self.usage is None and not self.begun


class Way(Protocol):
    """Which credential the call of a run uses, and what comes next where its provider turns it away. The gate calls
    all of this; nothing of it is called for a call that the gate itself refuses."""

    @property
    def upstream(self) -> Upstream:
        """Where a call goes now."""

    @property
    def spare(self) -> bool:
        """Whether there is another way, should the present one fail."""

    def next(self, call: Call) -> Upstream | None:
        """Where to try again after a call that brought nothing, and of which nothing was passed on; None where
        nowhere. May wait for the disk. Raises BridgeError."""

    def accept(self, call: Call) -> None:
        """The provider has begun to answer, and not with an error. Must not block or raise."""

    def close(self, call: Call) -> None:
        """The call has ended, however it did."""


class OneWay(msgspec.Struct, frozen=True):
    """A way with no other."""

    upstream: Upstream
    spare: bool = False

    def next(self, call: Call) -> Upstream | None:
        """Nowhere."""
        return None

    def accept(self, call: Call) -> None:
        """Nobody asks."""

    def close(self, call: Call) -> None:
        """Nobody asks."""


class Oddity(msgspec.Struct, frozen=True):
    """A call that was not as it should be. `kind`: its body was "refused", or the CLI "misreported" its figures.
    `what` says what differed, and never the text."""

    kind: Literal["refused", "misreported"]
    provider: str
    what: str


class RateLimits(msgspec.Struct, frozen=True):
    """The limits of a provider's account, by the names of its headers, and when they came, in UTC seconds."""

    limits: Mapping[str, str]
    at: float


class Ticket:
    """One call of one run. It is good for a single request, until it is closed."""

    def __init__(
        self,
        upstream: Upstream | None,
        vouched: Vouched | None,
        *,
        way: Way | None = None,
        put_in: Mapping[str, Any] | None = None,
        pictures: Mapping[str, Image] | None = None,
        tool_parts: Mapping[str, Mapping[str, Any]] | None = None,
        linked: bool = False,
        on_bytes: Callable[[], None] = lambda: None,
        silence_s: float = 90.0,
        tap: Tap | None = None,
    ) -> None:
        """`upstream` None: the gate answers by itself, as a warm-up. `way` knows where to try again. `put_in`: fields
        of the body that the CLI cannot carry. `pictures`: the images that belong in the place of those, by their data,
        that the CLI was given. `tool_parts`: what belongs in the place of each call and result of the conversation, as
        the API has it: by the text that stands for it (claude), or by kind and id ("function_call call_1", codex).
        `linked`: whether there are links among them, which what is noted of the call never has.
        `on_bytes` is called when the provider sends something; it must not block or raise.
        `silence_s`: the longest time that the provider may send nothing. `tap` hears what passes."""
        self.token = "cbt_" + secrets.token_urlsafe(24)
        self.upstream = upstream
        self.vouched = vouched
        self.way = way
        self.put_in = put_in or {}
        self.pictures = pictures or {}
        self.tool_parts = tool_parts or {}
        self.linked = linked
        self.on_bytes = on_bytes
        self.silence_s = silence_s
        self.tap = tap
        self.call = Call()
        self.used = False
        self.closed = False
        #: ends what is under way upstream; set by the server while there is something
        self.abort: Callable[[], None] | None = None

    def close(self) -> None:
        """End the call, if one is under way, at once; nothing is sent any more. Safe to call again."""
        self.closed = True
        abort, self.abort = self.abort, None
        if abort is not None:
            abort()


class Tickets:
    """All tickets that are good, found by digests: a look-up takes the same time however much of a guess is right."""

    def __init__(self) -> None:
        self._by_digest: dict[bytes, Ticket] = {}
        self._processes: set[bytes] = set()

    def add(self, ticket: Ticket, thread: str | None = None) -> None:
        """Let a ticket be used: by its token, or as what that thread of codex sends."""
        self._by_digest[_digest(ticket.token if thread is None else f"thread {thread}")] = ticket

    def drop(self, ticket: Ticket, thread: str | None = None) -> None:
        """Close a ticket and forget it."""
        self._by_digest.pop(_digest(ticket.token if thread is None else f"thread {thread}"), None)
        ticket.close()

    def admit_process(self) -> str:
        """A token for a process that names its runs by threads. It opens nothing without a thread."""
        token = "cbp_" + secrets.token_urlsafe(24)
        self._processes.add(_digest(token))
        return token

    def dismiss_process(self, token: str) -> None:
        """The process has ended; its token is worth nothing any more."""
        self._processes.discard(_digest(token))

    def find(self, token: str, thread: str | None) -> Ticket | None:
        """The ticket that a request brings; None where it brings none that is good."""
        digest = _digest(token)
        if digest in self._processes:
            return None if thread is None else self._by_digest.get(_digest(f"thread {thread}"))
        return self._by_digest.get(digest)

    def __len__(self) -> int:
        return len(self._by_digest)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()
