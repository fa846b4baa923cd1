"""Bodies that break off, lie about themselves, come slowly, or come in large numbers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from bridge.http.body import SMALL_BYTES, beside
from tests.server.test_leaving import eventually
from tests.support import server as servers
from tests.support.server import Server
from tests.support.wire import Wire, head

BODY = b'{"userPrompt": "hello"}'
HELLO = b'{"role": "user", "content": "hello"}'
CHUNKED = "Transfer-Encoding: chunked"
MIB = 2**20


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server without patience."""
    env = {"DEMO_BODY_SECONDS": "0.5", "DEMO_TURN_SECONDS": "0.3"}
    with servers.running(tmp_path_factory.mktemp("hasty"), env, demo=True) as server:
        yield server


def length(size: int) -> str:
    return f"Content-Length: {size}"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def test_a_body_in_chunks_is_a_body(server: Server, key: str) -> None:
    with Wire(server) as wire:
        answer = wire.ask(head("POST", "/generate", CHUNKED, key=key), chunk(BODY[:5]), chunk(BODY[5:]), b"0\r\n\r\n")
        assert answer.status == 200
        assert wire.ask(head("GET", "/health")).status == 200


@pytest.mark.parametrize(
    "chunks",
    [
        b"zz\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhelloXX0\r\n\r\n",
        b"\r\n\r\n",
        b"17;=;\r\n" + BODY + b"\r\n0\r\n\r\n",
        chunk(BODY) + b"0\r\nAuthorization: Bearer x\r\n\r\n",
        chunk(BODY) + b"0\r\n half a trailer\r\n\r\n",
        b"0" * 9000,
    ],
)
def test_chunks_that_are_none_are_refused_and_end_the_connection(server: Server, key: str, chunks: bytes) -> None:
    with Wire(server) as wire:
        answer = wire.ask(head("POST", "/generate", CHUNKED, key=key), chunks, head("GET", "/health"))
        assert (answer.status, answer.json["code"]) == (400, "invalid_request")
        assert wire.rest() == b"", "what follows such a body is not read as a request"


def test_a_body_that_breaks_off_changes_nothing(server: Server) -> None:
    server.new_key("kept")
    for headers, part in ((length(23), b""), (length(23), b"{}"), (CHUNKED, b""), (CHUNKED, b"2\r\n{}")):
        with Wire(server) as wire:
            wire.send(head("POST", "/admin/keys/kept/rotate", headers, key=servers.ADMIN_KEY), part)
            wire.socket.shutdown(1)
            assert wire.answer().status == 400
    assert server.admin("GET", "/audit").json["audit"][0]["action"] == "key_created"


@pytest.mark.parametrize("framing", [length(20), CHUNKED])
def test_a_body_that_does_not_come_is_not_waited_for(hasty: Server, framing: str) -> None:
    key = hasty.new_key(f"slow-{framing[:1]}")
    with Wire(hasty) as wire:
        answer = wire.ask(head("POST", "/generate", framing, key=key), b"1")
        assert (answer.status, answer.json["code"]) == (400, "invalid_request")
        assert "too slowly" in answer.json["error"]
        assert wire.rest() == b""


def test_a_body_in_chunks_that_is_too_large_is_refused(tmp_path: Path) -> None:
    with servers.running(tmp_path, {"BRIDGE_MAX_BODY_BYTES": str(MIB)}, demo=True) as server:
        key = server.new_key()
        for size, status in ((MIB // 2, 400), (MIB - 1, 400), (MIB + 1, 413), (3 * MIB, 413)):
            with Wire(server) as wire:
                answer = wire.ask(head("POST", "/generate", CHUNKED, key=key), chunk(b" " * size), b"0\r\n\r\n")
                assert answer.status == status, size


def test_large_bodies_that_never_end_do_not_fill_the_memory_or_hold_up_others(server: Server) -> None:
    greedy, other = server.new_key("greedy"), server.new_key("other")
    worker = psutil.Process(server.process.pid).children()[0]
    before = worker.memory_info().rss
    with ExitStack() as stack:
        for _ in range(8):
            wire = stack.enter_context(Wire(server))
            wire.socket.settimeout(0.2)
            wire.send(head("POST", "/generate", length(32 * MIB), key=greedy))
            try:
                wire.send(b" " * (32 * MIB - 1))
            except TimeoutError:
                pass  # nobody takes it, as it should be
        assert worker.memory_info().rss - before < 100 * MIB
        assert server.call("POST", "/generate", BODY, key=greedy).status == 200
        assert server.call("POST", "/generate", BODY + b" " * 20 * MIB, key=other).status == 200


def test_who_waits_too_long_for_room_is_told_so(hasty: Server) -> None:
    key = hasty.new_key("impatient")
    with Wire(hasty) as first, Wire(hasty) as second:
        first.send(head("POST", "/generate", length(32 * MIB), key=key), b" " * MIB)
        second.send(head("POST", "/generate", length(20 * MIB), key=key), b" " * MIB)
        answer = second.answer()
        assert (answer.status, answer.json["code"]) == (503, "overloaded")
        assert int(answer.headers["retry-after"]) >= 1


def test_large_requests_that_run_do_not_fill_the_memory_and_leave_nothing_in_it(tmp_path: Path) -> None:
    env = {"DEMO_PACE_SECONDS": "0.02", "BRIDGE_MAX_CONCURRENT": "2"}
    # Of one pixel, by its header.
    image = b"data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAAA" + b"A" * (30 * MIB)
    body = b'{"userPrompt": "what?", "images": ["' + image + b'"]}'
    with servers.running(tmp_path, env, demo=True) as server, ThreadPoolExecutor(6) as pool:
        key = server.new_key()
        worker = psutil.Process(server.process.pid).children()[0]
        before = worker.memory_info().rss
        answers = list(pool.map(lambda _: server.call("POST", "/generate", body, key=key), range(6)))
        assert {answer.status for answer in answers} <= {200, 503}
        assert [answer.status for answer in answers].count(200) >= 2
        assert all(answer.json["code"] == "overloaded" for answer in answers if answer.status == 503)
        eventually(lambda: worker.memory_info().rss - before < 30 * MIB)


@pytest.mark.parametrize(
    ("change", "refusal"),
    [(("DELETE", ""), (401, "unauthorized")), (("POST", "/disable"), (403, "key_disabled"))],
)
def test_a_key_that_ends_while_its_body_comes_gets_no_run(
    server: Server, change: tuple[str, str], refusal: tuple[int, str]
) -> None:
    name = f"leaver{change[1][1:]}"
    key = server.new_key(name)
    body = b'{"userPrompt": "hello"}'
    with Wire(server) as wire:
        wire.send(head("POST", "/generate", f"Content-Length: {len(body)}", key=key) + body[:5])
        # So that the server has read the key, and waits for the rest.
        assert server.call("GET", "/me", key=key).status == 200
        time.sleep(0.2)
        assert server.admin(change[0], f"/keys/{name}{change[1]}").status == 200
        wire.send(body[5:])
        answer = wire.answer()
    assert (answer.status, answer.json["code"]) == refusal


LARGE = b'{"userPrompt": "hello"}' + b" " * 20 * MIB


@pytest.mark.parametrize("framing", [length(len(LARGE)), CHUNKED])
def test_a_key_that_is_at_a_cap_is_told_so_before_its_large_body_is_taken(tmp_path: Path, framing: str) -> None:
    with servers.running(tmp_path, {"DEMO_PACE_SECONDS": "0.5"}, demo=True) as server:
        key = server.new_key("busy", maxConcurrent=1)
        with Wire(server) as running, Wire(server) as other:
            running.send(head("POST", "/generate", length(len(BODY)), key=key) + BODY)
            eventually(lambda: len(server.admin("GET", "/runs").json["runs"]) == 1)
            # Only a part of it: who waits for the rest does not answer.
            sent = LARGE[:MIB] if framing != CHUNKED else chunk(LARGE[:MIB])
            other.send(head("POST", "/generate-codex", framing, key=key) + sent)
            answer = other.answer()
        assert (answer.status, answer.json["code"]) == (429, "concurrent_requests")
        (line,) = [each for each in server.admin("GET", "/logs").json["logs"] if each["code"] == "concurrent_requests"]
        assert (line["keyName"], line["provider"], line["status"]) == ("busy", "codex", 429)
        assert line["requestId"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    "path", ["/generate", "/v1/messages", "/v1/chat/completions", "/v1/responses", "/v1/completions"]
)
def test_a_large_body_of_a_key_without_money_is_refused_in_its_api_s_shape_and_the_log_bears_it(
    server: Server, path: str
) -> None:
    key = server.new_key(f"spent{path.replace('/', '-')}", maxRequestsPerDay=1)
    assert server.call("POST", "/generate", BODY, key=key).status == 200
    answer = server.call("POST", path, LARGE, key=key)
    assert answer.status == 429
    told = answer.json["error"]
    assert "used its 1 requests" in (told if isinstance(told, str) else told["message"])
    lines = server.admin("GET", f"/logs?key=spent{path.replace('/', '-')}").json["logs"]
    assert [line["code"] for line in lines] == ["requests_per_day", None]


def test_an_answer_that_is_there_is_given_again_at_a_cap_however_large_its_request_is(server: Server) -> None:
    key = server.new_key("again", maxRequestsPerDay=1)
    first = server.call("POST", "/generate", LARGE, key=key, headers={"Idempotency-Key": "mine"})
    again = server.call("POST", "/generate", LARGE, key=key, headers={"Idempotency-Key": "mine"})
    other = server.call("POST", "/generate", LARGE, key=key, headers={"Idempotency-Key": "another"})
    assert (first.status, again.status, other.status) == (200, 200, 429)
    assert again.json["id"] == first.json["id"]


@pytest.mark.parametrize(
    "path", ["/generate", "/generate-codex/estimate", "/v1/messages/count_tokens", "/v1/responses/input_tokens"]
)
def test_bodies_that_are_wrong_have_a_pace_also_where_nothing_is_asked_for(tmp_path: Path, path: str) -> None:
    with servers.running(tmp_path, {"BRIDGE_RATE_LIMIT_PER_MINUTE": "10"}, demo=True) as server:
        key = server.new_key()
        answers = [server.call("POST", path, b'{"wrong": ', key=key) for _ in range(6)]
    assert [answer.status for answer in answers] == [400] * 5 + [429]


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/generate-codex/estimate", b'"userPrompt": "hello", "schema": %s'),
        (
            "/v1/messages/count_tokens",
            b'"messages": [%s], "output_format": {"type": "json_schema", "schema": %%s}' % HELLO,
        ),
        (
            "/v1/responses/input_tokens",
            b'"input": [%s], "text": {"format": {"type": "json_schema", "name": "a", "schema": %%s}}' % HELLO,
        ),
    ],
)
def test_a_schema_that_can_be_read_but_not_written_again_is_wrong(server: Server, path: str, form: bytes) -> None:
    # A large body is read in a thread, where little lies below: deeper ones can be read there than elsewhere.
    schema = b'{"a": ' * 960 + b'"%s"' % (b"x" * SMALL_BYTES) + b"}" * 960
    body = b'{"model": "gpt-6-sol", %s}' % (form % schema)
    answer = server.call("POST", path, body, key=server.new_key(f"deep{path.replace('/', '-')}"))
    assert answer.status == 400
    assert b"nested more than 100 deep" in answer.body


def test_a_large_body_is_read_beside_everybody_else_s_requests() -> None:
    assert beside(b" " * SMALL_BYTES, threading.get_ident) == threading.get_ident()
    assert beside(b" " * (SMALL_BYTES + 1), threading.get_ident) != threading.get_ident()
