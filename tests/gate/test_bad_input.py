"""The gate is a server, too: what nobody's CLI sends is refused at once, and never has an effect on runs."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from typing import Any

import gevent
import pytest

from bridge.gate import server as module
from bridge.gate.server import Gate
from bridge.gate.ticket import Ticket
from tests.gate.conftest import ask, messages_body
from tests.standin import StandIn

#: nobody has to wait longer for a no
AT_ONCE_S = 5.0


def in_thread(call: Callable[[], Any]) -> Any:
    """What a blocking call brings, while the gate goes on serving."""
    return gevent.get_hub().threadpool.apply(call)


def send(gate: Gate, *pieces: bytes, pause_s: float = 0.0, end: bool = False) -> tuple[bytes, float]:
    """What the gate answers to these bytes until it hangs up, and after how many seconds. `end`: nothing follows."""

    def talk() -> tuple[bytes, float]:
        began, said = time.monotonic(), b""
        with socket.create_connection(("127.0.0.1", int(gate.url.rpartition(":")[2])), timeout=20) as connection:
            try:
                for piece in pieces:
                    connection.sendall(piece)
                    time.sleep(pause_s)
                if end:
                    connection.shutdown(socket.SHUT_WR)
                while chunk := connection.recv(65536):
                    said += chunk
            except OSError:
                pass  # it hung up while this was still sending
        return said, time.monotonic() - began

    found: tuple[bytes, float] = in_thread(talk)
    return found


def head(path: str = "/v1/messages", *more: str, method: str = "POST", token: str = "cbt_wrong") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: x", f"x-api-key: {token}", "connection: close", *more]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@pytest.mark.parametrize(
    "method", ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "CONNECT", "TRACE", "X"]
)
@pytest.mark.parametrize("path", ["/", "/v1/messages", "/v1/responses", "/admin/keys", "/%2e%2e/etc/passwd", "*", "x"])
def test_without_a_token_every_method_and_path_is_a_401(gate: Gate, standin: StandIn, method: str, path: str) -> None:
    said, seconds = send(gate, head(path, method=method))
    assert said.startswith(b"HTTP/1.1 401 "), said[:200]
    assert seconds < AT_ONCE_S
    assert standin.requests == []


def test_without_a_token_no_body_is_waited_for_or_taken(gate: Gate) -> None:
    said, seconds = send(gate, head("/v1/messages", "content-length: 50000000"), end=True)
    assert said.startswith(b"HTTP/1.1 401 ")
    assert seconds < AT_ONCE_S


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\r\n" * 1000,
        b"\x16\x03\x01\x02\x00\x01\x00" * 100,
        b"GET\r\n\r\n",
        b"POST /v1/messages\r\n\r\n",
        b"POST /v1/messages HTTP/9.9\r\n\r\n",
        b"POST " + b"/" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\n" + b"x: " + b"y" * 1_000_000 + b"\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\n" + b"x: y\r\n" * 100_000 + b"\r\n",
        b"POST /v1/messages HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        b"POST /v1/messages HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\nzz\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_is_no_request_gets_no_answer_but_a_no(gate: Gate, ticket: Ticket, standin: StandIn, said: bytes) -> None:
    answer, seconds = send(gate, said, end=True)
    assert answer == b"" or answer.split(b" ", 2)[1] in (b"400", b"401", b"411", b"414", b"431", b"501", b"505")
    assert len(answer) < 1000
    assert seconds < AT_ONCE_S
    assert standin.requests == []
    assert ask(gate, ticket.token, messages_body()).status == 200


def test_a_head_that_comes_too_slowly_is_given_up(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STRANGER_S", 0.5)
    for begun in (b"", b"POST /v1/mess", b"POST /v1/messages HTTP/1.1\r\nx-api-key: "):
        answer, seconds = send(gate, begun)
        assert answer == b""
        assert seconds < AT_ONCE_S


def test_a_head_that_trickles_is_given_up_too(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STRANGER_S", 0.5)
    answer, seconds = send(gate, *[b"POST /v1/messages HTTP/1.1\r\n", *[b"x: y\r\n"] * 40], pause_s=0.05)
    assert answer == b""
    assert seconds < AT_ONCE_S


def test_a_body_that_comes_too_slowly_is_given_up_and_costs_its_ticket(
    gate: Gate, ticket: Ticket, standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BODY_S", 0.5)
    said, seconds = send(gate, head("/v1/messages", "content-length: 1000", token=ticket.token), b"{", pause_s=0.1)
    assert said.startswith(b"HTTP/1.1 400 ")
    assert seconds < AT_ONCE_S
    assert standin.requests == []
    assert ask(gate, ticket.token, messages_body()).status == 401


def test_a_body_without_end_is_given_up(gate: Gate, ticket: Ticket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BODY_BYTES", 100_000)
    begin = head("/v1/messages", "transfer-encoding: chunked", token=ticket.token)
    said, seconds = send(gate, begin, *[b"2710\r\n" + b"x" * 10_000 + b"\r\n"] * 50)
    assert said.startswith(b"HTTP/1.1 400 ") or said == b""
    assert seconds < AT_ONCE_S


def test_many_that_say_nothing_keep_no_run_from_its_call(
    gate: Gate, ticket: Ticket, standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STRANGER_S", 1.0)
    port = int(gate.url.rpartition(":")[2])
    silent = in_thread(lambda: [socket.create_connection(("127.0.0.1", port)) for _ in range(module.MOST_CONNECTIONS)])
    began = time.monotonic()
    assert ask(gate, ticket.token, messages_body()).status == 200
    assert time.monotonic() - began < AT_ONCE_S
    for connection in silent:
        connection.close()


def test_those_that_make_room_for_others_leave_nothing_behind(
    gate: Gate, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "STRANGER_S", 0.3)
    monkeypatch.setattr(module, "MOST_STRANGERS", 2)
    port = int(gate.url.rpartition(":")[2])
    silent = in_thread(lambda: [socket.create_connection(("127.0.0.1", port)) for _ in range(8)])
    gevent.sleep(0.6)
    for connection in silent:
        connection.close()
    assert "Traceback" not in capfd.readouterr().err


def test_a_pipelined_request_with_anothers_token_gets_its_own_answer(
    gate: Gate, ticket: Ticket, standin: StandIn
) -> None:
    body = json.dumps(messages_body()).encode()
    first = head("/v1/messages", f"content-length: {len(body)}", token=ticket.token).replace(
        b"connection: close\r\n", b""
    )
    said, _ = send(gate, first + body + head("/v1/messages"))
    assert [line.split(b" ")[1] for line in said.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")] == [b"200", b"401"]
    assert len(standin.requests) == 1
