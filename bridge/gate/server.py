"""The gate: a server on loopback between the CLIs and their models.

A CLI's base URL is this server, and its API key a token that is worth nothing anywhere else. For each request the
gate looks up the ticket, holds the body against what the run vouches for, puts the credential in, and passes the
bytes on as they come. One ticket lets one call pass; everything else that a CLI asks for is answered here.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any

import gevent
import msgspec
from gevent.pywsgi import WSGIHandler, WSGIServer
from gevent.socket import IPPROTO_TCP, SHUT_RDWR, TCP_NODELAY

from bridge.clock import Clock, parse_iso
from bridge.errors import BridgeError
from bridge.gate.answer import Bounds, Reader, note_headers
from bridge.gate.body import Refused, check, complete, put
from bridge.gate.ticket import Call, Oddity, Ticket, Tickets, Upstream, Wire
from bridge.gate.upstream import Connections, Reply, UpstreamError
from bridge.types import Tap

#: The largest body of a call, in bytes: more than any request may have, and what a CLI makes of it.
MOST_BODY_BYTES = 96 * 2**20
#: Bytes of an answer that are passed on before everybody else gets their turn: what a quick one sends is always there.
TURN_BYTES = 64 * 1024
#: The most of a list of models that is read, in bytes.
MOST_LIST_BYTES = 4 * 2**20
#: The most of an error that is passed on, in bytes.
MOST_ERROR_BYTES = 2**20
#: The share of the longest silence after which another way is taken, where there is one and nothing has come yet.
FIRST_SHARE = 0.5
#: Longest time for a CLI to send its body, and to hear that it was refused, in seconds.
BODY_S, LINGER_S = 30.0, 1.0
#: Connections at once; the CLIs of one server need far fewer. Of those that have not shown a ticket yet only so many
#: are kept, the newest: a CLI shows its own with its first bytes.
MOST_CONNECTIONS, MOST_STRANGERS = 1024, 64
#: Longest time for a stranger to show a ticket, in seconds.
STRANGER_S = 10.0

#: path of a call -> the API that is spoken there
_CALLS: dict[str, Wire] = {"/v1/messages": "messages", "/v1/responses": "responses"}
#: Headers of a request that are this connection's own, or are put in anew.
_OWN_HEADERS = frozenset(
    {
        *("HTTP_HOST", "HTTP_CONNECTION", "HTTP_KEEP_ALIVE", "HTTP_TRANSFER_ENCODING", "HTTP_TE", "HTTP_TRAILER"),
        *("HTTP_UPGRADE", "HTTP_PROXY_CONNECTION", "HTTP_EXPECT", "HTTP_ACCEPT_ENCODING", "HTTP_COOKIE"),
        *("HTTP_X_API_KEY", "HTTP_AUTHORIZATION"),
    }
)
#: Headers of an answer that are not the CLI's business: they belong to one connection, or to nobody here, or would send
#: it elsewhere, past the gate.
_NOT_PASSED = frozenset(
    {
        *("connection", "keep-alive", "content-length", "transfer-encoding", "te", "trailer", "upgrade", "set-cookie"),
        *("location", "alt-svc", "refresh"),
    }
)

_CODING = "content-encoding"
#: Headers that a trace shows without their values.
_CREDENTIALS = frozenset({"authorization", "x-api-key", "cookie", "set-cookie", "proxy-authorization"})
#: A line of an answer that grows longer than this, in bytes, is heard in pieces.
MOST_REST_BYTES = 2**20

#: The version of Anthropic's API, which each request has to name.
_ANTHROPIC_VERSION = "2023-06-01"

_encode = msgspec.json.Encoder().encode

log = logging.getLogger("bridge")

StartResponse = Callable[[str, list[tuple[str, str]]], Any]

Refusal = Callable[[StartResponse, "Wire | None"], list[bytes]]
"""Tells a CLI that there is no answer, in the API that it speaks."""


class _Handler(WSGIHandler):
    """A connection of a CLI, or of a stranger: whoever has not shown a ticket."""

    server: _Server

    def handle(self) -> None:
        # Without this, 40 ms are lost to Nagle's algorithm and delayed acknowledgements.
        self.socket.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        strangers = self.server.strangers
        if len(strangers) >= MOST_STRANGERS:
            next(iter(strangers)).hang_up()
        strangers[self] = gevent.spawn_later(STRANGER_S, self.hang_up)
        try:
            super().handle()
        finally:
            self.introduce()

    def introduce(self) -> None:
        """It has shown a ticket, or has gone: it is no stranger. Safe to call again."""
        patience = self.server.strangers.pop(self, None)
        if patience is not None:
            patience.kill(block=False)

    def hang_up(self) -> None:
        """End the connection; who waits for its bytes sees their end. Safe to call late: of one that has ended by
        itself, gevent has taken the socket away."""
        self.server.strangers.pop(self, None)
        try:
            self.socket.shutdown(SHUT_RDWR)
        except (AttributeError, OSError):
            pass

    def get_environ(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environ()
        return {**environ, "bridge.connection": self}

    def log_request(self) -> None:
        """Nothing: a run's own line says what there is to say."""

    def handle_error(self, t: Any, v: Any, tb: Any) -> None:
        """The provider broke off, or the run has ended: the CLI must see no orderly end."""
        self.close_connection = True

    def log_error(self, msg: str, *arguments: Any) -> None:
        """Nothing: what is no request is answered, and is nobody's run."""


class _Server(WSGIServer):
    """The listener, with those who have not shown a ticket yet, oldest first, and when their time is up."""

    def __init__(self, answer: Any) -> None:
        self.strangers: dict[_Handler, Any] = {}
        super().__init__(
            ("127.0.0.1", 0), answer, handler_class=_Handler, log=None, error_log=None, spawn=MOST_CONNECTIONS
        )


class Gate:
    """One server's gate. `open` it before a CLI is started."""

    def __init__(self, clock: Clock, connections: Connections | None = None) -> None:
        self.tickets = Tickets()
        #: requests that were turned away, by reason
        self.refused: Counter[str] = Counter()
        #: calls of which a CLI told other figures than its provider, by the CLI's name
        self.misreported: Counter[str] = Counter()
        #: called with each call that was not as it should be; must not block or raise
        self.watchers: list[Callable[[Oddity], None]] = []
        self._clock = clock
        self._connections = connections or Connections({})
        self._server: _Server | None = None

    @property
    def url(self) -> str:
        """Where the CLIs find it, without a slash at the end."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.server_port}"

    def report(self, oddity: Oddity) -> None:
        """Tell those who watch."""
        for watch in self.watchers:
            watch(oddity)

    def open(self) -> None:
        """Listen, on a port that the kernel chooses. Raises OSError."""
        self._server = _Server(self._answer)
        self._server.start()

    def close(self) -> None:
        """Stop listening, end every call, and close all connections."""
        if self._server is not None:
            self._server.stop(timeout=0.2)
            self._server = None
        self._connections.close()

    def list_models(self, upstream: Upstream, path: str, silence_s: float) -> tuple[Call, dict[str, float] | None]:
        """Ask a provider for its list of models, which costs nothing: what came of it, and each model with when it was
        made, in UTC seconds, 0 where that is not told; None where there is no list."""
        call = Call(sent_at=self._clock.monotonic())
        headers = {"accept-encoding": "identity", "user-agent": "cli-bridge", **_credential(upstream)}
        if upstream.wire == "messages":
            headers["anthropic-version"] = _ANTHROPIC_VERSION
        found: dict[str, float] | None = None
        # Anthropic would tell twenty; OpenAI tells all.
        query = "?limit=1000" if upstream.wire == "messages" else ""
        try:
            answer = self._connections.get(f"{upstream.base_url}{path}{query}", headers, silence_s)
            try:
                note_headers(call, answer.status, answer.headers)
                content = b""
                for chunk in answer.chunks():
                    content += chunk
                    if len(content) > MOST_LIST_BYTES:
                        raise UpstreamError("the answer does not end")
            finally:
                answer.close()
            if answer.status == 200:
                found = _listed(content)
            else:
                reader = Reader(call, upstream.wire, {}, Bounds.of(0, 0), upstream.secret)
                reader.feed(content)
                reader.end()
        except UpstreamError as error:
            call.error_message, call.unreachable = str(error), error.unreachable
        call.ended_at = self._clock.monotonic()
        return call, found

    # --- one request -------------------------------------------------------------------------------

    def _answer(self, environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        wire = _CALLS.get(environ["PATH_INFO"])
        ticket = self.tickets.find(_token(environ), environ.get("HTTP_THREAD_ID"))
        if ticket is None or ticket.closed:
            return self._turn_away(start, "unknown token", 401, wire)
        connection: _Handler = environ["bridge.connection"]
        connection.introduce()
        if wire is None or environ["REQUEST_METHOD"] != "POST":
            # What a CLI asks for besides: lists of models, counts of tokens, telemetry.
            return self._turn_away(start, "side call", 404, wire, ticket)
        if ticket.used:
            return self._turn_away(start, "second call", 401, wire, ticket)
        ticket.used = True
        body = _body(environ)
        if body is None:
            # What else of it comes is nobody's business; but the answer should arrive.
            gevent.spawn_later(LINGER_S, connection.hang_up)
            return self._turn_away(start, "body", 400, wire, ticket)
        if ticket.upstream is None:
            return _warm_up(start)
        upstream = ticket.upstream if ticket.way is None else ticket.way.upstream
        return self._pass_on(environ, start, ticket, upstream, wire, body)

    def _turn_away(
        self, start: StartResponse, why: str, status: int, wire: Wire | None, ticket: Ticket | None = None
    ) -> list[bytes]:
        self.refused[why] += 1
        if ticket is not None and ticket.tap is not None:
            what = ticket.call.refused
            ticket.tap("gate", "cli", f"{status}: {why}{f', {what} differs' if what else ''}".encode())
        log.info("the gate refused a request: %s", why)
        return _error(start, status, wire, "invalid_request_error", f"cli-bridge: {why}")

    def _pass_on(
        self,
        environ: dict[str, Any],
        start: StartResponse,
        ticket: Ticket,
        upstream: Upstream,
        wire: Wire,
        body: bytes,
    ) -> Iterable[bytes]:
        call = ticket.call
        # Of the body as the CLI has it, without pictures: nobody repeats those.
        bounds = Bounds.of(0 if ticket.vouched is None else ticket.vouched.output_tokens, len(body))
        if ticket.tap is not None:
            ticket.tap("cli", "gate", body)
        try:
            if upstream.wire != wire:
                raise Refused("the API")
            wanted = msgspec.json.decode(body)
            if ticket.vouched is not None:
                check(wire, wanted, ticket.vouched)
            if ticket.pictures or ticket.tool_parts:
                wanted = complete(wire, wanted, ticket.pictures, ticket.tool_parts)
            if ticket.put_in or ticket.pictures or ticket.tool_parts:
                body = _encode(put(wanted, ticket.put_in))
        except (Refused, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            call.refused = str(error) if isinstance(error, Refused) else "the body is no JSON"
            return self._turn_away(start, "not the run's body", 400, wire, ticket)
        while True:
            ticket.abort = _killer(gevent.getcurrent())
            found = self._ask(environ, ticket, upstream, body)
            if isinstance(found, Reply):
                reader = Reader(ticket.call, wire, found.headers, bounds, upstream.secret, linked=ticket.linked)
                passing = self._begin(ticket, found, reader)
                another = self._next(ticket) if ticket.call.turned_away else None
                if another is None:
                    return passing.tell(start)
                passing.close()
            else:
                another = self._next(ticket)
                if another is None:
                    ticket.abort = None
                    return found(start, wire)
            # Nothing was passed on to the CLI, which need not know of a second try.
            upstream = another
            ticket.call = Call(sent_at=ticket.call.sent_at)
            ticket.on_bytes()

    def _begin(self, ticket: Ticket, answer: Reply, reader: Reader) -> _Passing:
        """An answer on its way to the CLI. Where there may be another way, its beginning is held back until it is
        known that it is one: both APIs can say in a stream, too, that they are overloaded."""
        passing = _Passing(answer, self._bytes(ticket, answer, reader))
        if ticket.way is not None:
            passing.hold(reader)
            if not ticket.call.turned_away:
                ticket.way.accept(ticket.call)
        return passing

    def _next(self, ticket: Ticket) -> Upstream | None:
        """Where to try again after a call that brought nothing."""
        if ticket.way is None or ticket.closed:
            return None
        try:
            return ticket.way.next(ticket.call)
        except BridgeError as error:
            log.warning("no other credential could be tried: %s", error.message)
            return None

    def _ask(self, environ: dict[str, Any], ticket: Ticket, upstream: Upstream, body: bytes) -> Reply | Refusal:
        """Ask the provider once: an answer that has begun, or what tells the CLI that there is none."""
        call, url, headers = ticket.call, _url(environ, upstream), _headers(environ, upstream)
        if ticket.tap is not None:
            put_in = _encode({**ticket.put_in, "pictures": len(ticket.pictures), **ticket.tool_parts})
            ticket.tap("gate", "provider", _head(f"POST {url}", headers) + b"\nput in: " + put_in)
        if call.sent_at is None:
            call.sent_at = self._clock.monotonic()
        spare = ticket.way is not None and ticket.way.spare
        try:
            # Where there is another way, it is taken before the run has been silent for too long.
            with gevent.Timeout(ticket.silence_s * FIRST_SHARE if spare else None, UpstreamError("timed out")):
                answer = self._connections.post(url, body, headers, ticket.silence_s)
        except UpstreamError as error:
            call.ended_at = self._clock.monotonic()
            call.error_message, call.unreachable = str(error), error.unreachable
            if ticket.tap is not None:
                ticket.tap("provider", "gate", str(error).encode())
            return _unreachable
        call.first_byte_at = self._clock.monotonic()
        note_headers(call, answer.status, answer.headers)
        if ticket.tap is not None:
            ticket.tap("provider", "gate", _head(str(answer.status), answer.headers))
        if 300 <= answer.status < 400:
            # Both CLIs would follow it, past the gate, and take the prompt along.
            call.ended_at = self._clock.monotonic()
            call.error_message = "The provider sent the call elsewhere, which is not followed."
            answer.close()
            return _elsewhere
        ticket.on_bytes()
        return answer if answer.status == 200 else self._turned_away(ticket, answer, upstream)

    def _turned_away(self, ticket: Ticket, answer: Reply, upstream: Upstream) -> Refusal:
        """Read an error to its end, and keep it for the CLI, without the secret, which a provider may repeat."""
        call, passed, said = ticket.call, 0, b""
        reader = Reader(call, upstream.wire, answer.headers, Bounds.of(0, 0), upstream.secret, linked=ticket.linked)
        try:
            for chunk in answer.chunks():
                said += reader.feed(chunk)
                passed += len(chunk)
                if passed > MOST_ERROR_BYTES:
                    raise UpstreamError("the answer does not end")
        except UpstreamError as error:
            call.error_message = call.error_message or str(error)
        finally:
            answer.close()
        reader.end()
        call.ended_at = self._clock.monotonic()
        if ticket.tap is not None and said:
            ticket.tap("provider", "cli", said)
        content = said.replace(upstream.secret.encode(), b"***") if upstream.secret else said
        shown = [(name, value) for name, value in answer.headers.items() if name not in (*_NOT_PASSED, _CODING)]

        def tell(start: StartResponse, wire: Wire | None) -> list[bytes]:
            start(f"{answer.status} .", [*shown, ("content-length", str(len(content)))])
            return [content]

        return tell

    def _bytes(self, ticket: Ticket, answer: Reply, reader: Reader) -> Generator[bytes]:
        rest, passed = b"", 0
        try:
            for chunk in answer.chunks():
                plain = reader.feed(chunk)
                if ticket.call.endless:
                    raise UpstreamError("the answer does not end")
                if ticket.tap is not None:
                    rest = _tap_lines(ticket.tap, rest + plain)
                ticket.on_bytes()
                yield chunk
                passed += len(chunk)
                if passed >= TURN_BYTES:
                    passed = 0
                    gevent.sleep(0)
            reader.end()
        except UpstreamError as error:
            reader.end()
            ticket.call.error_message = ticket.call.error_message or str(error)
            # The CLI has to see that it broke off, and not an end.
            raise
        finally:
            if ticket.tap is not None and rest:
                ticket.tap("provider", "cli", rest)
            ticket.abort = None
            ticket.call.ended_at = self._clock.monotonic()
            answer.close()


class _Passing:
    """An answer on its way to a CLI, which hears nothing of it before `tell`."""

    def __init__(self, answer: Reply, chunks: Generator[bytes]) -> None:
        self._status = answer.status
        self._headers = [(name, value) for name, value in answer.headers.items() if name not in _NOT_PASSED]
        self._chunks = chunks
        self._held: list[bytes] = []
        self._broken: UpstreamError | None = None

    def hold(self, reader: Reader) -> None:
        """Let it come, and keep it, as long as that is no part of an answer."""
        try:
            while reader.waits:
                self._held.append(next(self._chunks))
        except StopIteration:
            pass
        except UpstreamError as error:
            self._broken = error

    def tell(self, start: StartResponse) -> Iterator[bytes]:
        """Pass on what was kept, and then what comes."""
        start(f"{self._status} .", self._headers)
        return self._all()

    def close(self) -> None:
        """Hear no more of it."""
        self._chunks.close()

    def _all(self) -> Iterator[bytes]:
        try:
            yield from self._held
            if self._broken is not None:
                raise self._broken
            yield from self._chunks
        finally:
            self.close()


def _unreachable(start: StartResponse, wire: Wire | None) -> list[bytes]:
    """Tell a CLI that its provider cannot be reached."""
    return _error(start, 502, wire, "api_error", "cli-bridge: the provider cannot be reached")


def _elsewhere(start: StartResponse, wire: Wire | None) -> list[bytes]:
    """Tell a CLI that its provider sends it elsewhere, and not where to."""
    return _error(start, 502, wire, "api_error", "cli-bridge: the provider sent the call elsewhere")


def _killer(greenlet: Any) -> Callable[[], None]:
    def abort() -> None:
        if gevent.getcurrent() is not greenlet:
            greenlet.kill(block=False)

    return abort


def _token(environ: dict[str, Any]) -> str:
    scheme, _, token = str(environ.get("HTTP_AUTHORIZATION") or "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return token.strip()
    return str(environ.get("HTTP_X_API_KEY") or "").strip()


def _body(environ: dict[str, Any]) -> bytes | None:
    """The whole body; None where it is too large, or does not come."""
    length = environ.get("CONTENT_LENGTH") or ""
    if length and (not str(length).isdigit() or int(length) > MOST_BODY_BYTES):
        return None
    found = bytearray()
    try:
        with gevent.Timeout(BODY_S):
            while chunk := environ["wsgi.input"].read(65536):
                found += chunk
                if len(found) > MOST_BODY_BYTES:
                    return None
    except (gevent.Timeout, OSError):
        return None
    return bytes(found)


def _url(environ: dict[str, Any], upstream: Upstream) -> str:
    path = environ["PATH_INFO"]
    if upstream.wire == "responses":
        # The operator's base URL of OpenAI ends in /v1, Anthropic's does not.
        path = path.removeprefix("/v1")
    query = environ.get("QUERY_STRING")
    return f"{upstream.base_url}{path}?{query}" if query else f"{upstream.base_url}{path}"


def _headers(environ: dict[str, Any], upstream: Upstream) -> dict[str, str]:
    """The CLI's headers, with the credential in the place of its token."""
    headers = {
        name[5:].replace("_", "-").lower(): value
        for name, value in environ.items()
        if name.startswith("HTTP_") and name not in _OWN_HEADERS
    }
    headers["content-type"] = environ.get("CONTENT_TYPE") or "application/json"
    # What is compressed otherwise could not be read here.
    headers["accept-encoding"] = "gzip" if "gzip" in str(environ.get("HTTP_ACCEPT_ENCODING")) else "identity"
    return {**headers, **_credential(upstream)}


def _credential(upstream: Upstream) -> dict[str, str]:
    """The header that opens a provider's API."""
    if upstream.wire == "messages":
        return {"x-api-key": upstream.secret}
    return {"authorization": f"Bearer {upstream.secret}"}


def _listed(content: bytes) -> dict[str, float] | None:
    """The models of a list; None for what is no list."""
    try:
        rows = msgspec.json.decode(content)["data"]
        return {str(row["id"]): _made_at(row) for row in rows}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError):
        return None


def _made_at(row: dict[str, Any]) -> float:
    """When a model was made: `created` of OpenAI, `created_at` of Anthropic."""
    made = row.get("created")
    try:
        return float(made) if isinstance(made, int) else parse_iso(str(row["created_at"]))
    except (KeyError, ValueError, OverflowError):
        return 0.0


def _head(first: str, headers: Mapping[str, str]) -> bytes:
    """The head of a message, for a trace."""
    shown = [f"{name}: {'***' if name in _CREDENTIALS else value}" for name, value in headers.items()]
    return "\n".join([first, *shown]).encode("utf-8", "replace")


def _tap_lines(tap: Tap, data: bytes) -> bytes:
    """Let the whole lines of an answer be heard, so that no secret comes in two halves; the rest of it."""
    end = data.rfind(b"\n") + 1
    if not end and len(data) > MOST_REST_BYTES:
        end = len(data)
    if end:
        tap("provider", "cli", data[:end])
    return data[end:]


def _error(start: StartResponse, status: int, wire: Wire | None, kind: str, message: str) -> list[bytes]:
    error = {"type": kind, "message": message}
    body = _encode({"type": "error", "error": error} if wire == "messages" else {"error": error})
    start(f"{status} .", [("content-type", "application/json"), ("content-length", str(len(body)))])
    return [body]


def _warm_up(start: StartResponse) -> list[bytes]:
    """One word, as a model would say it."""
    usage = {"input_tokens": 1, "output_tokens": 1}
    message = {"id": "msg_warm", "type": "message", "role": "assistant", "model": "warm", "content": []}
    events: tuple[dict[str, Any], ...] = (
        {"type": "message_start", "message": {**message, "stop_reason": None, "usage": usage}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "ok"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": usage},
        {"type": "message_stop"},
    )
    start("200 .", [("content-type", "text/event-stream")])
    return [b"".join(b"event: %b\ndata: %b\n\n" % (event["type"].encode(), _encode(event)) for event in events)]
