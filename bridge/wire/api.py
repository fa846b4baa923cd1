"""What an API is to the rest: how a body becomes a request, and how a generation looks to its clients. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import msgspec

from bridge.errors import Problem
from bridge.settings import Settings
from bridge.types import Answer, Finished, GenerationRequest, ModelChoice, PartDelta, Search, Text, Thought, ToolCall
from bridge.wire.parameters import Parameter

#: Longest silence on a stream, in seconds; proxies cut idle connections.
KEEP_ALIVE_S = 15.0
KEEP_ALIVE = b": keep-alive\n\n"

Resolve = Callable[[str], ModelChoice]
"""The model behind a name; an empty one stands for the endpoint's default. Raises BridgeError (invalid_request,
not_found)."""

Recall = Callable[[str], Answer | None]
"""The answer of an earlier run, given the run's id; None where it is not known any more."""


class Known(NamedTuple):
    """What a body is read with: it names models, and perhaps earlier answers."""

    settings: Settings
    resolve: Resolve
    recall: Recall = lambda run_id: None


class Generation(Protocol):
    """One generation to be rendered: a run in flight, or the job that one left behind."""

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

    def follow(self, heartbeat_s: float) -> Iterator[PartDelta | None]:
        """The answer as it comes, in pieces; None after each `heartbeat_s` of silence."""

    def wait(self, timeout_s: float | None = None) -> Finished | None:
        """The end, or None where it has not come within `timeout_s`."""


#: What a call has for arguments where the model wrote none: programs read them as JSON.
_NONE = "{}"


def pieces(generation: Generation, heartbeat_s: float) -> Iterator[PartDelta | None]:
    """The answer as it comes, in pieces of its parts; None after each `heartbeat_s` of silence. The pieces
    of every call add up to JSON, also where the model wrote no arguments."""
    #: the part that is being told, and whether it is a call without arguments as yet
    index, bare = -1, None
    for delta in generation.follow(heartbeat_s):
        if delta is None:
            yield None
            continue
        part = delta.part
        if delta.index != index:
            if bare is not None:
                yield PartDelta(index, bare)
            index = delta.index
            bare = ToolCall(part.id, part.name, _NONE) if isinstance(part, ToolCall) else None
        if isinstance(part, ToolCall) and part.arguments:
            bare = None
        yield delta
    if bare is not None:
        yield PartDelta(index, bare)


def parts(answer: Answer) -> list[Text | ToolCall]:
    """The texts and tool calls of an answer."""
    return [part for part in all_parts(answer) if isinstance(part, Text | ToolCall)]


def all_parts(answer: Answer) -> list[Text | ToolCall | Thought | Search]:
    """The same with what the model thought, where that was asked for, and its searches."""
    return [
        msgspec.structs.replace(part, arguments=part.arguments or _NONE) if isinstance(part, ToolCall) else part
        for part in answer.content
        if isinstance(part, Text | ToolCall | Thought | Search)
    ]


Events = Callable[[Generation, str], Iterator[bytes]]
"""The whole stream of server-sent events of a generation, given the request id, with a sign of life at least every
KEEP_ALIVE_S. Closing it early stops nothing."""


Render = Callable[[Generation, Finished], dict[str, Any]]
"""The body of a 200. `finished.result` is an Answer."""


class Asked(NamedTuple):
    """What a body asks for: the request, how its answer is told, and its stream where it asks for one."""

    request: GenerationRequest
    answer: Render
    events: Events | None


class Parse(Protocol):
    """Reads the body of a request."""

    def __call__(self, body: bytes, known: Known) -> Asked:
        """What it asks for. Raises BridgeError (invalid_request, not_found)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Count:
    """Where an API says about how many tokens a request would have. No model is asked, and nothing is spent."""

    path: str
    #: reads a body into what would be asked for
    parse: Parse
    #: as those of Api
    parameters: Mapping[str, Parameter]
    body_type: type[msgspec.Struct]
    #: the answer, made of the tokens alone
    answer_type: Callable[[int], msgspec.Struct]
    example: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Api:
    """One API that is spoken here: a row of wire/apis.py. Its functions are pure."""

    #: as the log shows it, and `GenerationRequest.api`
    name: str
    #: one sentence for the description of the API; `{provider}` stands for that of the path
    text: str
    #: where a generation is asked for -> the provider that answers there; None where the model's name picks it
    paths: Mapping[str, str | None]
    #: whether its clients are SDKs for somebody else's service: they know nothing of jobs, and send requests again by
    #: themselves
    sdk: bool = True
    #: a header that only its clients send, which tells them apart on paths that several APIs have
    header: str | None = None
    #: what its SDK reads the request id from, besides X-Request-Id
    request_id_header: str | None = None
    parse: Parse
    #: The answer, where a request asks for nothing special.
    answer: Render
    #: The body of an error, given the request id.
    error: Callable[[Problem, str], dict[str, Any]]
    #: The stream, where a request asks for nothing special.
    events: Events
    #: what becomes of each field of the body; empty where the body's type says it all
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    count: Count | None = None
    #: Structs of what goes in and out, and a body that is taken: for the description of the API
    body_type: type[msgspec.Struct]
    answer_type: type[msgspec.Struct]
    error_type: type[msgspec.Struct]
    example: Mapping[str, Any]


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
