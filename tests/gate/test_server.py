"""The gate lets one call of one run pass, with the real key, and nothing else."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Callable
from typing import Any

import gevent
import pytest

from bridge.gate.answer import ANSWER_BYTES, LINE_BYTES, Bounds, Reader
from bridge.gate.server import MOST_BODY_BYTES, Gate
from bridge.gate.ticket import Call, Ticket, Upstream, Wire
from bridge.providers.gated import problem_of
from bridge.types import Usage
from tests.gate.conftest import SECRET, ask, messages_body, responses_body, vouched
from tests.standin import StandIn


def test_a_call_goes_up_with_the_real_key(gate: Gate, ticket: Ticket, standin: StandIn) -> None:
    reply = ask(gate, ticket.token, messages_body())
    assert (reply.status, reply.whole) == (200, True)
    [seen] = standin.generations
    assert seen.headers["x-api-key"] == SECRET
    assert ticket.token not in str(seen.headers)
    assert seen.path == "/v1/messages?beta=true"
    assert seen.body == messages_body()


def test_the_answer_comes_back_byte_for_byte(gate: Gate, upstream_that_says: Callable[..., str]) -> None:
    packed = gzip.compress(b'data: {"type":"message_delta","usage":{"output_tokens":7}}\n\n' * 50)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\n"
    url = upstream_that_says(head + b"content-length: %d\r\n\r\n" % len(packed), packed[:20], packed[20:], pause_s=0.05)
    made = Ticket(Upstream("messages", url, SECRET), vouched())
    gate.tickets.add(made)
    reply = ask(gate, made.token, messages_body(), headers={"accept-encoding": "gzip, br"})
    assert reply.body == packed
    assert made.call.usage == Usage(output_tokens=7)


@pytest.mark.parametrize("coding", ["identity", "gzip"])
def test_a_cli_hears_an_error_without_the_secret_that_it_repeats(
    gate: Gate, upstream_that_says: Callable[..., str], coding: str
) -> None:
    said = json.dumps({"error": {"type": "authentication_error", "message": f"What is {SECRET}?"}}).encode()
    packed = gzip.compress(said) if coding == "gzip" else said
    head = f"HTTP/1.1 401 No\r\ncontent-encoding: {coding}\r\nretry-after: 7\r\ncontent-length: {len(packed)}\r\n\r\n"
    made = Ticket(Upstream("messages", upstream_that_says(head.encode(), packed), SECRET), vouched())
    gate.tickets.add(made)
    reply = ask(gate, made.token, messages_body(), headers={"accept-encoding": "gzip"})
    assert (reply.status, reply.headers["retry-after"], reply.whole) == (401, "7", True)
    assert reply.body == said.replace(SECRET.encode(), b"***")
    assert made.call.error_message == "What is ***?"


def test_what_passed_is_known(gate: Gate, ticket: Ticket) -> None:
    ask(gate, ticket.token, messages_body())
    call = ticket.call
    assert (call.status, call.complete, call.stop_reason) == (200, True, "end_turn")
    assert call.usage == Usage(3, output_tokens=3)
    assert call.request_id is not None
    assert call.request_id.startswith("req_")
    assert call.sent_at is not None
    assert call.first_byte_at is not None
    assert call.ended_at is not None
    assert call.sent_at <= call.first_byte_at <= call.ended_at


@pytest.mark.parametrize("token", [None, "", "cbt_wrong", "sk-ant-whatever", "x" * 5000])
def test_no_ticket_is_401_and_nothing_goes_up(gate: Gate, standin: StandIn, token: str | None) -> None:
    assert ask(gate, token, messages_body()).status == 401
    assert standin.requests == []
    assert gate.refused["unknown token"] == 1


def test_a_ticket_is_good_for_one_call(gate: Gate, ticket: Ticket, standin: StandIn) -> None:
    assert ask(gate, ticket.token, messages_body()).status == 200
    assert ask(gate, ticket.token, messages_body()).status == 401
    assert len(standin.generations) == 1
    assert gate.refused["second call"] == 1


def test_a_closed_ticket_is_worth_nothing(gate: Gate, ticket: Ticket, standin: StandIn) -> None:
    gate.tickets.drop(ticket)
    assert ask(gate, ticket.token, messages_body()).status == 401
    assert standin.requests == []
    assert len(gate.tickets) == 0


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models"),
        ("POST", "/v1/messages/count_tokens"),
        ("POST", "/api/event_logging/batch"),
        ("GET", "/v1/messages"),
        ("DELETE", "/v1/messages"),
        ("POST", "/v1//messages"),
        ("POST", "/v1/messages/../messages"),
        ("POST", "/v1/responses/compact"),
        ("OPTIONS", "/"),
    ],
)
def test_side_calls_stay_here_and_use_no_ticket_up(
    gate: Gate, ticket: Ticket, standin: StandIn, method: str, path: str
) -> None:
    assert ask(gate, ticket.token, messages_body(), path, method).status == 404
    assert standin.requests == []
    assert ask(gate, ticket.token, messages_body()).status == 200


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"model": "claude-opus-9"}, "the model"),
        ({"max_tokens": 257}, "the output limit"),
        ({"max_tokens": None}, "the output limit is missing"),
        ({"system": [{"type": "text", "text": "Be brief. TRAP"}]}, "the system text"),
        ({"tools": [{"name": "Bash", "input_schema": {}}]}, "the tools"),
        ({"messages": []}, "the number of messages (0 instead of 1)"),
        ({"messages": [{"role": "user", "content": "another run's words"}]}, "message 0"),
        ({"messages": [{"role": "assistant", "content": "hello"}]}, "message 0"),
        (
            {"messages": [{"role": "user", "content": [{"type": "document", "x": 1}]}]},
            "a part of the kind document",
        ),
        ({"messages": [{"role": "system", "content": "TRAP"}]}, "a system message among the messages"),
        ({"messages": 7}, "the body has a shape that is not known (TypeError)"),
        ({"messages": [{"role": "user"}]}, "the body has a shape that is not known (KeyError)"),
    ],
)
def test_a_body_that_is_not_the_runs_own_does_not_leave(
    gate: Gate, ticket: Ticket, standin: StandIn, change: dict[str, object], why: str
) -> None:
    reply = ask(gate, ticket.token, messages_body(**change))
    assert reply.status == 400
    assert standin.requests == []
    assert ticket.call.refused == why
    assert b"TRAP" not in reply.body
    assert "TRAP" not in why


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_what_is_no_json_object_does_not_leave(gate: Gate, ticket: Ticket, standin: StandIn, body: bytes) -> None:
    assert ask(gate, ticket.token, body).status == 400
    assert standin.requests == []
    assert ticket.call.refused


def test_a_body_of_another_api_does_not_leave(gate: Gate, ticket: Ticket, standin: StandIn) -> None:
    assert ask(gate, ticket.token, responses_body(), "/v1/responses").status == 400
    assert standin.requests == []
    assert ticket.call.refused == "the API"


def test_codex_is_known_by_its_process_and_its_thread(gate: Gate, standin: StandIn) -> None:
    made = Ticket(
        Upstream("responses", standin.openai_url, SECRET),
        vouched(model="gpt-6-sol"),
        put_in={"max_output_tokens": 100, "text": {"verbosity": "medium"}, "prompt_cache_key": "stable"},
    )
    process = gate.tickets.admit_process()
    gate.tickets.add(made, thread="T-1")
    bearer = {"authorization": f"Bearer {process}"}
    assert ask(gate, None, responses_body(), "/v1/responses", headers=bearer).status == 401
    assert ask(gate, None, responses_body(), "/v1/responses", headers={**bearer, "thread-id": "T-2"}).status == 401
    assert ask(gate, None, responses_body(), "/v1/responses", headers={"thread-id": "T-1"}).status == 401
    assert ask(gate, "T-1", responses_body(), "/v1/responses", headers={"thread-id": "T-1"}).status == 401
    assert standin.requests == []
    reply = ask(gate, None, responses_body(), "/v1/responses", headers={**bearer, "thread-id": "T-1"})
    assert reply.status == 200
    [seen] = standin.generations
    assert seen.headers["authorization"] == f"Bearer {SECRET}"
    assert (seen.path, seen.body["max_output_tokens"]) == ("/v1/responses", 100)
    assert seen.body["text"] == {"verbosity": "medium"}
    assert seen.body["prompt_cache_key"] == "stable"
    assert made.call.usage == Usage(3, output_tokens=3)
    gate.tickets.dismiss_process(process)
    gate.tickets.add(Ticket(made.upstream, None), thread="T-3")
    assert ask(gate, None, responses_body(), "/v1/responses", headers={**bearer, "thread-id": "T-3"}).status == 401


def test_a_warm_up_turn_is_answered_here(gate: Gate, standin: StandIn) -> None:
    warm = Ticket(None, None)
    gate.tickets.add(warm)
    reply = ask(gate, warm.token, messages_body("anything"))
    assert reply.status == 200
    assert b"message_stop" in reply.body
    assert standin.requests == []
    assert ask(gate, warm.token, messages_body("anything")).status == 401


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 429, 500, 503, 529])
def test_the_providers_own_status_and_words_are_known(
    gate: Gate, ticket: Ticket, standin: StandIn, status: int
) -> None:
    standin.script(status=status)
    reply = ask(gate, ticket.token, messages_body())
    assert reply.status == status
    assert ticket.call.status == status
    assert ticket.call.error_message
    assert ticket.call.usage is None
    assert not ticket.call.complete
    if status == 429:
        assert ticket.call.retry_after_s is not None


@pytest.mark.parametrize("mode", ["cut", "cut_early"])
def test_a_stream_that_breaks_off_is_no_end(gate: Gate, ticket: Ticket, standin: StandIn, mode: str) -> None:
    standin.script(mode=mode)
    reply = ask(gate, ticket.token, messages_body())
    assert not reply.whole
    assert not ticket.call.complete
    assert (ticket.call.usage is not None) == (mode == "cut")


def test_a_provider_that_falls_silent_is_given_up(gate: Gate, standin: StandIn) -> None:
    for mode in ("hang", "hang_mid"):
        standin.script(mode=mode)
        made = Ticket(Upstream("messages", standin.url, SECRET), vouched(), silence_s=0.3)
        gate.tickets.add(made)
        reply = ask(gate, made.token, messages_body())
        assert (reply.status, reply.whole) == ((502, True) if mode == "hang" else (200, False))
        assert "timed out" in str(made.call.error_message).lower()


def test_closing_a_ticket_ends_the_call_upstream_at_once(gate: Gate, ticket: Ticket, standin: StandIn) -> None:
    standin.script(mode="hang_mid")
    asking = gevent.spawn(ask, gate, ticket.token, messages_body())
    while not standin.generations or not standin.generations[0].deltas:
        gevent.sleep(0.01)
    gate.tickets.drop(ticket)
    reply = asking.get(timeout=5)
    assert not reply.whole
    gevent.get_hub().threadpool.apply(standin.wait, (lambda seen: seen[0].closed_early,))
    assert ticket.call.ended_at is not None


def test_signs_of_life_are_told(gate: Gate, standin: StandIn) -> None:
    signs: list[None] = []
    made = Ticket(Upstream("messages", standin.url, SECRET), vouched(), on_bytes=lambda: signs.append(None))
    gate.tickets.add(made)
    ask(gate, made.token, messages_body())
    assert signs


def test_connections_are_kept(gate: Gate, standin: StandIn) -> None:
    for _ in range(5):
        made = Ticket(Upstream("messages", standin.url, SECRET), vouched())
        gate.tickets.add(made)
        assert ask(gate, made.token, messages_body()).status == 200
    assert len(standin.connections) == 1


# --- upstreams that do not behave -------------------------------------------------------------------


def through(gate: Gate, url: str, **options: float) -> tuple[Ticket, int, bool]:
    made = Ticket(Upstream("messages", url, SECRET), vouched(), silence_s=options.get("silence_s", 5.0))
    gate.tickets.add(made)
    reply = ask(gate, made.token, messages_body())
    return made, reply.status, reply.whole


@pytest.mark.parametrize("code", [300, 301, 302, 303, 304, 307, 308])
def test_a_redirect_is_not_followed_and_not_passed_on(
    gate: Gate, standin: StandIn, upstream_that_says: Callable[..., str], code: int
) -> None:
    location = f"{standin.url}/v1/messages".encode()
    url = upstream_that_says(b"HTTP/1.1 %d x\r\nlocation: %b\r\ncontent-length: 0\r\n\r\n" % (code, location))
    made = Ticket(Upstream("messages", url, SECRET), vouched())
    gate.tickets.add(made)
    reply = ask(gate, made.token, messages_body())
    assert (reply.status, made.call.status) == (502, code)
    assert "location" not in reply.headers
    assert standin.requests == []


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 1_000_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 5000 + b"\r\n",
        b"HTTP/1.1 999 ?\r\ncontent-length: 0\r\n\r\n",
    ],
)
def test_an_upstream_that_is_no_http_server_is_an_error_of_its_own(
    gate: Gate, upstream_that_says: Callable[..., str], said: bytes
) -> None:
    made, status, _ = through(gate, upstream_that_says(said))
    assert status in (502, 200, 999)
    assert not made.call.complete
    assert made.call.usage is None


@pytest.mark.parametrize(
    "said",
    [
        b'data: {not json with "message_delta"\n\n',
        b'data: {"type":"message_delta","usage":{"output_tokens":-1}}\n\n',
        b'data: {"type":"message_delta","usage":{"output_tokens":1e99}}\n\n',
        b'data: {"type":"message_delta","usage":"many"}\n\n',
        b'data: ["message_delta"]\n\n',
        b"\xff\xfe\x00" * 1000,
        b"x" * 1_000_000,
    ],
)
def test_an_answer_that_makes_no_sense_passes_and_says_nothing(
    gate: Gate, upstream_that_says: Callable[..., str], said: bytes
) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(said)
    made, status, whole = through(gate, upstream_that_says(head + said))
    assert (status, whole) == (200, True)
    assert made.call.usage is None
    assert not made.call.complete


EVENT = b'data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"%b"}}\n\n'
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"


def fullest(tokens: int) -> bytes:
    """An answer as long as there is one: its tokens are as long as any, each in an event of its own, and the last line
    has them all."""
    return b"".join(EVENT % (b" " * 128) for _ in range(tokens)) + EVENT % (b" " * 128 * tokens)


@pytest.mark.parametrize("coding", ["identity", "gzip"])
@pytest.mark.parametrize(
    ("said", "whole"),
    [
        pytest.param(fullest(256), True, id="as long as a token can be"),
        pytest.param(EVENT % (b"x" * 20_000_000), False, id="one line"),
        pytest.param(EVENT % (b"x" * 1000) * 20_000, False, id="many lines"),
        pytest.param(b"\n" * 20_000_000, False, id="nothing but lines"),
    ],
)
def test_an_answer_that_is_longer_than_its_tokens_can_be_is_broken_off(
    gate: Gate, upstream_that_says: Callable[..., str], said: bytes, whole: bool, coding: str
) -> None:
    if coding == "gzip":
        said = gzip.compress(said, 1)
    head = STREAM + b"content-encoding: %b\r\ncontent-length: %d\r\n\r\n" % (coding.encode(), len(said))
    made = Ticket(Upstream("messages", upstream_that_says(head + said), SECRET), vouched())
    gate.tickets.add(made)
    reply = ask(gate, made.token, messages_body(), headers={"accept-encoding": "gzip"})
    # Of a whole one that is packed into a few bytes nothing is passed on, not even its head.
    assert reply.status == (0 if coding == "gzip" and not whole and not reply.body else 200)
    assert (reply.whole, made.call.endless) == (whole, not whole)
    most = Bounds.of(256, 0)
    assert (most.line, most.whole) == (LINE_BYTES + 160 * 256, ANSWER_BYTES + 1024 * 256)
    assert len(reply.body) <= most.whole
    assert problem_of(made.call, "Anthropic").code == ("cli_failed" if whole else "cli_bad_output")


def test_what_the_provider_repeats_of_the_request_is_no_answer_without_end() -> None:
    small, large = Bounds.of(8192, 10_000), Bounds.of(8192, 3_000_000)
    # response.created, in_progress and completed have instructions and tools again.
    assert large.line - small.line >= 2_900_000
    assert large.whole - small.whole >= 3 * 2_900_000
    assert Bounds.of(8192, 10**9) == Bounds.of(8192, 4 * 2**20)


def test_no_connection_is_told_without_addresses(gate: Gate) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made, status, _ = through(gate, f"http://127.0.0.1:{port}")
    assert status == 502
    assert made.call.sent_at is not None
    assert made.call.status is None
    assert "refused" in str(made.call.error_message)


# --- it is a server, too -----------------------------------------------------------------------------


def test_a_body_that_is_too_large_is_refused_before_it_is_read(gate: Gate, ticket: Ticket) -> None:
    with socket.create_connection(("127.0.0.1", int(gate.url.rpartition(":")[2]))) as connection:
        head = f"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {ticket.token}\r\n"
        connection.sendall(f"{head}content-length: {MOST_BODY_BYTES + 1}\r\n\r\n".encode())
        answer = gevent.get_hub().threadpool.apply(connection.recv, (4096,))
    assert b" 400 " in answer.split(b"\r\n")[0]


def test_huge_headers_and_odd_requests_do_no_harm(gate: Gate, ticket: Ticket) -> None:
    port = int(gate.url.rpartition(":")[2])
    for said in (
        b"GET / HTTP/1.1\r\n" + b"x: " + b"y" * 200_000 + b"\r\n\r\n",
        b"GET " + b"/" * 200_000 + b" HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"POST /v1/messages HTTP/1.1\r\ncontent-length: many\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ):

        def talk(said: bytes = said) -> None:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                try:
                    connection.sendall(said)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65536):
                        pass
                except OSError:
                    pass

        gevent.get_hub().threadpool.apply(talk)
    assert ask(gate, ticket.token, messages_body()).status == 200


def test_a_tap_hears_the_way_to_the_provider_and_back_with_whole_lines(
    gate: Gate, upstream_that_says: Callable[..., str]
) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nset-cookie: a=b\r\n\r\n"
    url = upstream_that_says(head, b"data: on", b"e\ndata: two\nda", b"ta: three", pause_s=0.05)
    heard: list[tuple[str, str, bytes]] = []
    ticket = Ticket(Upstream("messages", url, SECRET), vouched(), tap=lambda *said: heard.append(said))
    gate.tickets.add(ticket)
    ask(gate, ticket.token, messages_body())
    ask(gate, ticket.token, messages_body())
    ways = [(source, target) for source, target, _ in heard]
    assert ways[:3] == [("cli", "gate"), ("gate", "provider"), ("provider", "gate")]
    assert json.loads(heard[0][2]) == messages_body()
    assert b"x-api-key: ***" in heard[1][2]
    assert b"set-cookie: ***" in heard[2][2]
    assert SECRET.encode() not in b"".join(said for _, _, said in heard)
    lines = [said for source, target, said in heard if (source, target) == ("provider", "cli")]
    assert all(said.endswith(b"\n") for said in lines[:-1])
    assert b"".join(lines) == b"data: one\ndata: two\ndata: three"
    assert heard[-1] == ("gate", "cli", b"401: second call")


def test_a_tap_hears_why_nothing_left(gate: Gate, standin: StandIn) -> None:
    heard: list[tuple[str, str, bytes]] = []
    ticket = Ticket(Upstream("messages", standin.url, SECRET), vouched(), tap=lambda *said: heard.append(said))
    gate.tickets.add(ticket)
    ask(gate, ticket.token, messages_body(model="claude-opus-5-5"))
    assert heard[-1] == ("gate", "cli", b"400: not the run's body, the model differs")
    assert len(heard) == 2


@pytest.mark.parametrize(
    ("wire", "events", "begun"),
    [
        ("messages", [{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}], False),
        ("messages", [{"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 5}}}], True),
        ("messages", [{"type": "ping"}], False),
        ("messages", [{"type": "content_block_delta"}], True),
        ("responses", [{"type": "response.created", "response": {}}], False),
        ("responses", [{"type": "response.in_progress"}, {"type": "response.queued"}], False),
        ("responses", [{"type": "response.failed", "response": {"error": {"code": "server_error"}}}], False),
        ("responses", [{"type": "error", "code": "rate_limit_exceeded", "message": "Slower."}], False),
        ("responses", [{"type": "response.output_text.delta", "delta": "H"}], True),
        ("responses", [{"type": "response.output_item.added", "item": {"type": "reasoning"}}], True),
    ],
)
def test_it_is_known_whether_the_model_had_begun(wire: Wire, events: list[dict[str, Any]], begun: bool) -> None:
    assert streamed(wire, events).begun is begun


def streamed(wire: Wire, events: list[dict[str, Any]]) -> Call:
    """What is noted of a call whose answer is these events."""
    seen = Call(status=200)
    reader = Reader(seen, wire, {"content-type": "text/event-stream"}, Bounds.of(256, 0))
    for event in events:
        reader.feed(b"data: " + json.dumps(event).encode() + b"\n\n")
    return seen


def _call(kind: str, **action: Any) -> dict[str, Any]:
    item = {"type": kind, "action": action} if action else {"type": kind}
    return {"type": "response.output_item.done", "item": item}


USAGE = {"input_tokens": 50, "output_tokens": 7}
ITEMS = [
    _call("web_search_call", type="search", query="a"),
    _call("web_search_call", type="open_page", url="b"),
    _call("web_search_call"),
    _call("message"),
]


@pytest.mark.parametrize(
    ("wire", "events", "searches"),
    [
        ("messages", [{"type": "message_delta", "usage": {**USAGE, "server_tool_use": {"web_search_requests": 3}}}], 3),
        ("messages", [{"type": "message_delta", "usage": {**USAGE, "server_tool_use": None}}], 0),
        (
            "messages",
            [{"type": "message_delta", "usage": {**USAGE, "server_tool_use": {"web_search_requests": -1}}}],
            0,
        ),
        ("responses", [*ITEMS, {"type": "response.completed", "response": {"status": "completed", "usage": USAGE}}], 2),
        (
            "responses",
            [
                {
                    "type": "response.completed",
                    "response": {"usage": USAGE, "output": [each["item"] for each in ITEMS], "status": "completed"},
                }
            ],
            2,
        ),
    ],
)
def test_searches_are_counted_on_the_wire(wire: Wire, events: list[dict[str, Any]], searches: int) -> None:
    usage = streamed(wire, events).usage
    assert usage is not None
    assert (usage.output_tokens, usage.searches) == (7, searches)


@pytest.mark.parametrize(("kind", "called"), [("function_call", True), ("custom_tool_call", True), ("message", False)])
@pytest.mark.parametrize("told", ["as it comes", "at the end"])
def test_a_call_of_a_tool_is_seen_on_the_wire(kind: str, called: bool, told: str) -> None:
    item = {"type": kind, "content": []}
    at_once, at_end = ([item], []) if told == "as it comes" else ([], [item])
    done = {"status": "completed", "usage": USAGE, "output": at_end}
    items = [{"type": "response.output_item.done", "item": each} for each in at_once]
    seen = streamed("responses", [*items, {"type": "response.completed", "response": done}])
    assert seen.complete
    assert seen.called is called
