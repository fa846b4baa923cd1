"""A gate on loopback, a client that speaks like a CLI, and upstreams that say whatever a test wants."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gevent
import pytest
from gevent.server import StreamServer

from bridge.clock import Clock
from bridge.gate.body import marks
from bridge.gate.server import Gate
from bridge.gate.ticket import Ticket, Upstream, Vouched
from bridge.gate.upstream import Connections
from bridge.types import Message, Text
from tests.standin import StandIn

SECRET = "sk-the-real-one"
HELLO = (Message("user", (Text("hello"),)),)


@dataclass
class Reply:
    """An answer of the gate, read as far as it came."""

    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool


@pytest.fixture(autouse=True)
def _bounded() -> Iterator[None]:
    with gevent.Timeout(60):
        yield


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate(Clock(), Connections({}))
    made.open()
    yield made
    made.close()


@pytest.fixture
def standin() -> Iterator[StandIn]:
    with StandIn() as standin:
        yield standin


@pytest.fixture
def ticket(gate: Gate, standin: StandIn) -> Ticket:
    """A ticket for `messages_body()`."""
    made = Ticket(Upstream("messages", standin.url, SECRET), vouched())
    gate.tickets.add(made)
    return made


def vouched(**changes: Any) -> Vouched:
    fields = {"model": "claude-sonnet-5-5", "system": "Be brief.", "messages": marks(HELLO), "output_tokens": 256}
    return Vouched(**{**fields, **changes})


def messages_body(text: str = "hello", **changes: Any) -> dict[str, Any]:
    """A body as claude sends it."""
    block = {"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}
    return {
        "model": "claude-sonnet-5-5",
        "messages": [{"role": "user", "content": [block]}, {"role": "system", "content": []}],
        "system": [{"type": "text", "text": "Be brief."}],
        "tools": [],
        "max_tokens": 256,
        "stream": True,
        **changes,
    }


def responses_body(text: str = "hello", **changes: Any) -> dict[str, Any]:
    """A body as codex sends it."""
    return {
        "model": "gpt-6-sol",
        "stream": True,
        "input": [
            {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]},
        ],
        "text": {"verbosity": "low"},
        "prompt_cache_key": "a-thread",
        **changes,
    }


def ask(
    gate: Gate,
    token: str | None,
    body: Any = None,
    path: str = "/v1/messages?beta=true",
    method: str = "POST",
    headers: dict[str, str] | None = None,
) -> Reply:
    """One request to the gate, from a thread of its own: this one goes on serving."""

    def call() -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", int(gate.url.rpartition(":")[2]), timeout=30)
        sent = {"content-type": "application/json", **({"x-api-key": token} if token else {}), **(headers or {})}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, data, sent)
        try:
            answer = connection.getresponse()
        except http.client.RemoteDisconnected:
            return Reply(0, {}, b"", False)
        try:
            content, whole = answer.read(), True
        except http.client.IncompleteRead as error:
            content, whole = error.partial, False
        connection.close()
        return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, content, whole)

    reply: Reply = gevent.get_hub().threadpool.apply(call)
    return reply


@pytest.fixture
def upstream_that_says() -> Iterator[Callable[..., str]]:
    """The base URL of a server that answers every request with these bytes, and then waits or hangs up."""
    servers: list[StreamServer] = []

    def make(*pieces: bytes, pause_s: float = 0.0, hang: bool = False) -> str:
        def serve(connection: Any, address: Any) -> None:
            connection.recv(65536)
            for piece in pieces:
                connection.sendall(piece)
                gevent.sleep(pause_s)
            if hang:
                connection.recv(1)
            connection.close()

        server = StreamServer(("127.0.0.1", 0), serve)
        server.start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield make
    for server in servers:
        server.stop(timeout=0.1)
