"""Connections that are meant to hurt: half requests, slow ones, resets, floods. Others are served meanwhile, and
afterwards nothing is left of it."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from bridge.errors import CODES
from bridge.ops import connections
from tests.server.test_leaving import eventually, runs
from tests.support import server as servers
from tests.support.server import ADMIN_KEY, Server
from tests.support.wire import Wire, head

BODY = b'{"userPrompt": "hello"}'
LENGTH = f"Content-Length: {len(BODY)}"
MIB = 2**20


def worker_of(server: Server) -> psutil.Process:
    (worker,) = psutil.Process(server.process.pid).children()
    return worker


@pytest.fixture
def intact(server: Server) -> Iterator[Server]:
    """A server that is as it was before, after whatever a test has done to it."""
    eventually(lambda: runs(server) == [])
    key = server.new_key(f"intact-{len(server.admin('GET', '/keys').json['keys'])}")
    assert server.call("POST", "/generate", BODY, key=key).status == 200
    worker, before = worker_of(server), descriptors(server)
    yield server
    assert worker_of(server) == worker, "it was not started again"
    assert server.call("POST", "/generate", BODY, key=key).status == 200
    eventually(lambda: runs(server) == [])
    assert server.admin("GET", "/overview").json["totals"]["reserved"]["requests"] == 0
    eventually(lambda: descriptors(server) <= before, within_s=10)


def descriptors(server: Server) -> int:
    """Open descriptors of the server, but for the three of each CLI that stands ready."""
    ready = sum(status["warm"] for status in server.admin("GET", "/overview").json["providers"])
    return worker_of(server).num_fds() - 3 * ready


# --- what is no request ---------------------------------------------------------------------------

HEALTH = b"GET /health HTTP/1.1\r\n"
BROKEN = {
    "noise": b"\x16\x03\x01\x02\0\x01\0\r\n\r\n",
    "one word": b"hello\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/9.9": b"GET /health HTTP/9.9\r\n\r\n",
    "PROXY": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + HEALTH + b"\r\n",
    "small letters": b"get /health HTTP/1.1\r\n\r\n",
    "no target": b"GET  HTTP/1.1\r\n\r\n",
    "bytes in the target": b"GET /\xc3\xa9 HTTP/1.1\r\n\r\n",
    "an endless line": b"GET /" + b"a" * 9000,
    "line feeds": b"GET /health HTTP/1.1\nHost: x\n\n",
    "NUL": HEALTH + b"X: a\0b\r\n\r\n",
    "a folded header": HEALTH + b"X: a\r\n b\r\n\r\n",
    "a header without a name": HEALTH + b": x\r\n\r\n",
    "a blank in a name": HEALTH + b"Host : x\r\n\r\n",
    "two hosts": HEALTH + b"Host: a\r\nHost: b\r\n\r\n",
    "many headers": HEALTH + b"A: b\r\n" * 65 + b"\r\n",
    "a long header": HEALTH + b"A: " + b"b" * 5000 + b"\r\n\r\n",
    "a bomb of a header": HEALTH + b"A: " + b"b" * 3_000_000,
    "an expectation": HEALTH + b"Expect: miracles\r\n\r\n",
    "both lengths": HEALTH + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": HEALTH + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "a list of lengths": HEALTH + b"Content-Length: 5, 5\r\n\r\nhello",
    "a signed length": HEALTH + b"Content-Length: +5\r\n\r\nhello",
    "a negative length": HEALTH + b"Content-Length: -1\r\n\r\n",
    "a length in hex": HEALTH + b"Content-Length: 0x5\r\n\r\nhello",
    "a length of superscripts": HEALTH + b"Content-Length: \xb2\r\n\r\n",
    "unknown coding": HEALTH + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "no coding": HEALTH + b"Transfer-Encoding: identity\r\n\r\n",
    "coded twice": HEALTH + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "a hidden coding": HEALTH + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"GET /health HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("raw", BROKEN.values(), ids=list(BROKEN))
def test_what_is_no_request_gets_an_error_of_ours_and_the_connection_ends(server: Server, raw: bytes) -> None:
    with Wire(server) as wire:
        with contextlib.suppress(ConnectionError):
            wire.send(raw, HEALTH + b"\r\n")
        answer = wire.answer()
        assert answer.status == 400
        assert answer.json.keys() == {"error", "code", "hint", "request_id"}
        assert CODES[answer.json["code"]].status == 400
        assert answer.json["request_id"] == answer.headers["x-request-id"]
        assert wire.rest() == b"", "what follows is not read as a request"


@pytest.mark.parametrize("raw", [b"", b"\r\n", b"G", HEALTH, HEALTH + b"Content-Le"])
def test_half_a_request_is_no_request(server: Server, raw: bytes) -> None:
    with Wire(server) as wire:
        wire.send(raw)
        wire.socket.shutdown(socket.SHUT_WR)
        assert wire.rest() == b""


def test_requests_that_come_all_at_once_are_answered_one_after_the_other(server: Server, key: str) -> None:
    with Wire(server) as wire:
        wire.send(
            head("GET", "/health"),
            head("POST", "/generate", LENGTH, key=key) + BODY,
            head("POST", "/nowhere", "Content-Length: 5") + b"hello",
            head("GET", "/me", key=key),
        )
        assert [wire.answer().status for _ in range(4)] == [200, 200, 404, 200]


@pytest.mark.parametrize("path", ["/health", "/static/app.css", "/me"])
def test_thousands_of_requests_at_once_hold_up_nobody_and_are_not_all_answered(intact: Server, path: str) -> None:
    with ExitStack() as stack:
        for _ in range(4):
            wire = stack.enter_context(Wire(intact))
            with contextlib.suppress(OSError):
                wire.send(head("GET", path) * 3000)
        waits = []
        for _ in range(10):
            began = time.monotonic()
            assert intact.call("GET", "/ready").status == 200
            waits.append(time.monotonic() - began)
        assert sorted(waits)[5] < 0.5
    with Wire(intact) as wire:
        wire.send(head("GET", "/health") * 200)
        answered = 0
        with contextlib.suppress(OSError, http.client.HTTPException):
            while wire.answer().status == 200:
                answered += 1
        assert connections.MOST_PIPELINED <= answered <= connections.MOST_PIPELINED + 1


def test_a_connection_whose_client_waits_for_each_answer_is_kept(server: Server, key: str) -> None:
    with Wire(server) as wire:
        for _ in range(2 * connections.MOST_PIPELINED):
            wire.send(head("GET", "/health"))
            assert wire.answer().status == 200


def test_a_request_behind_one_that_runs_does_not_stop_it(intact: Server, key: str) -> None:
    with Wire(intact) as wire:
        wire.send(head("POST", "/generate", LENGTH, key=key) + BODY)
        wire.send(head("GET", "/health"))
        assert wire.answer().json["stop_reason"] == "end_turn"
        assert wire.answer().json == {"status": "ok"}


@contextlib.contextmanager
def on_a_unix_socket(folder: Path, extra: dict[str, str] | None = None) -> Iterator[Callable[[], socket.socket]]:
    """A server on a unix socket, and a way to connect to it."""
    path = folder / "bridge.sock"
    env = servers.environment(folder / "data", {"BRIDGE_SOCKET": str(path), **(extra or {})})
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.demo_server"],
        env=env,
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )

    def connect() -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(10)
        connection.connect(str(path))
        return connection

    try:
        assert process.stderr is not None
        while "listens on" not in process.stderr.readline():
            assert process.poll() is None
        yield connect
    finally:
        process.terminate()
        process.wait(30)
        process.stderr.close()


def is_well(connection: socket.socket) -> bool:
    """Ask for a sign of life, and read it to its end."""
    connection.sendall(head("GET", "/health"))
    answer = b""
    while not answer.endswith(b'{"status":"ok"}\n') and (piece := connection.recv(65536)):
        answer += piece
    return answer.startswith(b"HTTP/1.1 200")


def test_a_unix_socket_is_for_the_services_user_and_group(tmp_path: Path) -> None:
    with on_a_unix_socket(tmp_path):
        assert stat.S_IMODE((tmp_path / "bridge.sock").stat().st_mode) == 0o660


def test_on_a_unix_socket_no_client_can_move_the_path_that_its_proxy_saw(tmp_path: Path) -> None:
    with on_a_unix_socket(tmp_path) as connect:
        for header in (
            "SCRIPT_NAME: /public",
            "PATH_INFO: /admin/keys",
            "X-Forwarded-Proto: https\r\nX-Forwarded-Ssl: off",
        ):
            with connect() as connection:
                connection.sendall(head("GET", "/public/admin/keys", header, key=ADMIN_KEY))
                assert b" 404 " in connection.recv(65536).split(b"\r\n")[0]


def test_on_a_unix_socket_who_reads_nothing_is_let_go_and_who_asks_nothing_is_kept(tmp_path: Path) -> None:
    with on_a_unix_socket(tmp_path, {"DEMO_STALLED_SECONDS": "1"}) as connect, connect() as idle, connect() as stalled:
        assert is_well(idle)
        # What it asks for is more than fits into any buffer, and it never reads.
        stalled.sendall(head("GET", "/openapi.json") * (connections.MOST_PIPELINED - 1))

        def is_closed() -> bool:
            try:
                return not stalled.send(b"\r")
            except ConnectionError:
                return True

        eventually(is_closed, within_s=30)
        # A proxy keeps its connections for longer than anybody may take to read, and uses them again.
        assert is_well(idle)


# --- many, slow, and rude -------------------------------------------------------------------------


def trickle(wires: list[Wire], over: threading.Event, piece: Callable[[int], bytes]) -> None:
    """Send a little on each connection, again and again."""
    turn = 0
    while not over.wait(0.05):
        turn += 1
        for wire in wires:
            with contextlib.suppress(OSError):
                wire.send(piece(turn))


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"", lambda turn: HEALTH[turn % 20 : turn % 20 + 1]),
        (HEALTH, lambda turn: b"A%d: b\r\n" % turn),
        (head("POST", "/generate", "Content-Length: 1000000"), lambda turn: b"{"),
        (head("POST", "/generate", "Transfer-Encoding: chunked"), lambda turn: b"1\r\n{\r\n"),
    ],
    ids=["line", "headers", "body", "chunks"],
)
def test_slow_clients_hold_up_nobody(intact: Server, key: str, start: bytes, piece: Callable[[int], bytes]) -> None:
    over = threading.Event()
    with ExitStack() as stack:
        wires = [stack.enter_context(Wire(intact)) for _ in range(100)]
        for wire in wires:
            wire.send(start)
        trickling = threading.Thread(target=trickle, args=(wires, over, piece))
        trickling.start()
        try:
            for _ in range(10):
                assert intact.call("POST", "/generate", BODY, key=key, timeout_s=20).status == 200
        finally:
            over.set()
            trickling.join()


def test_idle_connections_hold_up_nobody_and_are_kept(intact: Server, key: str) -> None:
    with ExitStack() as stack:
        wires = [stack.enter_context(Wire(intact)) for _ in range(300)]
        assert intact.call("POST", "/generate", BODY, key=key).status == 200
        assert {wire.ask(head("GET", "/health")).status for wire in wires} == {200}


def test_where_no_more_fit_the_one_that_has_waited_longest_makes_room(tmp_path: Path) -> None:
    with servers.running(tmp_path, {"DEMO_MOST_CONNECTIONS": "40", "DEMO_PACE_SECONDS": "0.05"}, demo=True) as server:
        key = server.new_key()
        with ExitStack() as stack:
            busy = stack.enter_context(Wire(server))
            busy.send(head("POST", "/generate", LENGTH, key=key) + BODY)
            eventually(lambda: bool(runs(server)))
            wires = [stack.enter_context(Wire(server)) for _ in range(20)]
            for wire in wires:
                assert wire.ask(head("GET", "/health")).status == 200
            for _ in range(100):
                stack.enter_context(Wire(server)).send(b"GET /hea")
                assert server.call("GET", "/health", timeout_s=20).status == 200
            assert {wire.rest() for wire in wires} == {b""}
            assert busy.answer().status == 200, "one that has a request is not touched"
        assert server.call("POST", "/generate", BODY, key=key).status == 200


def test_resets_in_every_phase_leave_nothing_behind(intact: Server, key: str) -> None:
    request = head("POST", "/generate", LENGTH, key=key) + BODY
    stream = json.dumps({"userPrompt": "hello", "stream": True}).encode()
    streamed = head("POST", "/generate", f"Content-Length: {len(stream)}", key=key) + stream
    for raw in (request, streamed):
        for end in (0, 1, 20, len(raw) - len(BODY) - 2, len(raw) - len(BODY), len(raw) - 1, len(raw)):
            wire = Wire(intact)
            wire.send(raw[:end])
            wire.reset()
    for raw in (request, streamed):
        wire = Wire(intact)
        wire.send(raw)
        assert wire.socket.recv(9)
        wire.reset()


def test_a_client_that_reads_nothing_is_let_go_in_the_end(tmp_path: Path) -> None:
    env = {"DEMO_STALLED_SECONDS": "1", "DEMO_PACE_SECONDS": "0"}
    with servers.running(tmp_path, env, demo=True) as server:
        key = server.new_key("silent")
        for _ in range(40):  # the log is now more than fits into any buffer
            assert (
                server.call("POST", "/generate", {"userPrompt": "x" * 200, "systemPrompt": "y" * 200}, key=key).status
                == 200
            )
        with ExitStack() as stack:
            before = descriptors(server)
            for _ in range(10):
                wire = stack.enter_context(Wire(server, buffer=2048))
                wire.send(head("GET", "/admin/logs?limit=1000", key=ADMIN_KEY) * 60)
            eventually(lambda: descriptors(server) >= before + 8, within_s=20)
            eventually(lambda: descriptors(server) <= before, within_s=30)


# --- strangers ------------------------------------------------------------------------------------


def test_a_flood_without_a_key_is_answered_before_its_bodies_are_read(intact: Server, key: str) -> None:
    with ExitStack() as stack:
        wires = [stack.enter_context(Wire(intact)) for _ in range(50)]
        for wire in wires:
            # Nothing of the body is sent: who waited for it would wait for ever.
            wire.send(head("POST", "/generate", "Content-Length: 30000000", key="cb_unknown"))
        assert {wire.answer().status for wire in wires} == {401}
        assert intact.call("POST", "/generate", BODY, key=key, timeout_s=20).status == 200


def test_who_sends_a_large_body_without_a_key_reads_the_refusal_all_the_same(intact: Server) -> None:
    for framing in ("Content-Length: 20000000", "Transfer-Encoding: chunked"):
        with Wire(intact) as wire:
            wire.send(head("POST", "/generate", framing))
            wire.send(b"1312d00\r\n" if "chunked" in framing else b"", b" " * 20_000_000)
            assert wire.answer().json["code"] == "unauthorized"


def test_an_address_is_counted_for_itself_and_refused_before_its_body_is_read(tmp_path: Path) -> None:
    with servers.running(tmp_path, {"BRIDGE_RATE_LIMIT_PER_MINUTE": "10"}, demo=True) as server:
        key = server.new_key()  # the first of this address's requests
        forged = ["X-Forwarded-For: 203.0.113.%d", "CF-Connecting-IP: 203.0.113.%d", "Forwarded: for=203.0.113.%d"]
        statuses = []
        for number in range(20):
            headers = [header % number for header in forged]
            with Wire(server, "127.0.0.2") as wire:
                wire.send(head("POST", "/generate", "Content-Length: 30000000", *headers, key="cb_unknown"))
                refused = wire.answer()
                statuses.append(refused.status)
        assert statuses == [401] * 10 + [429] * 10
        assert refused.json["code"] == "too_many_requests"
        assert 1 <= int(refused.headers["retry-after"]) <= 61
        assert server.call("POST", "/generate", BODY, key=key).status == 200
        with Wire(server, "127.0.0.3") as wire:
            assert wire.ask(head("GET", "/me", key=key)).status == 200


def test_bodies_that_never_come_after_a_refusal_do_not_hold_their_places(tmp_path: Path) -> None:
    env = {"DEMO_MOST_CONNECTIONS": "40", "DEMO_DISCARD_SECONDS": "300"}
    with servers.running(tmp_path, env, demo=True) as server, ExitStack() as stack:
        for _ in range(100):
            wire = stack.enter_context(Wire(server))
            wire.send(head("POST", "/generate", "Content-Length: 1000"))
            assert wire.answer().status == 401
        assert server.call("GET", "/health", timeout_s=20).status == 200
