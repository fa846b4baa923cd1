"""What the bytes of an answer say: usage, end and error, read off the wire as they pass. Pure.

Source of the shapes: Anthropic's streaming documentation (message_start, message_delta, message_stop, error) and
OpenAI's reference of the Responses events (response.completed, incomplete, failed, error).
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping
from typing import Any

import msgspec

from bridge.gate.ticket import Call, Wire
from bridge.masks import masked
from bridge.types import DECLINED, Usage

#: What a line of an answer may have whatever was asked for, in bytes, and further for each output token that the answer
#: may have. The last line of OpenAI's repeats the whole answer; a token has 4 bytes on average, and 128 at most.
LINE_BYTES, LINE_BYTES_PER_TOKEN = 2**20, 160
#: The same for all of an answer: each token may come in an event of its own, with 300 bytes around it.
ANSWER_BYTES, ANSWER_BYTES_PER_TOKEN = 4 * 2**20, 1024
#: OpenAI repeats instructions and tools in some of its lines. So much of the body of a call counts, in bytes.
MOST_REPEATED_BYTES = 4 * 2**20
#: The most of an error's body that is kept, in bytes, and of its words, in characters.
MOST_ERROR_BYTES, MOST_ERROR_CHARACTERS = 65536, 500
#: A link, in what is said of one: like a prompt, it is nobody's business but its client's.
_LINK, _SOME_LINK = re.compile(r"https?://\S*[^\s.,)\]'\"]", re.IGNORECASE), "[link]"
#: More tokens of a kind than this are a lie.
_MOST_TOKENS = 10**8

_LIMITS = ("anthropic-ratelimit-", "x-ratelimit-")
#: What the events have in them that are of interest; all others pass unread.
_MARKS: Mapping[Wire, tuple[bytes, ...]] = {
    "messages": (b'"message_start"', b'"message_delta"', b'"message_stop"', b'"error"'),
    "responses": (
        *(b'"response.completed"', b'"response.incomplete"', b'"response.failed"', b'"error"'),
        b'"response.output_item.done"',
    ),
}
#: Events that are no answer yet. Sources: both references of streams.
_BEFORE = frozenset({"ping", "error", "response.created", "response.in_progress", "response.queued", "response.failed"})
_decode = msgspec.json.Decoder().decode


class _Event(msgspec.Struct):
    """What an event is, and nothing else of it."""

    type: str = ""


_event_of = msgspec.json.Decoder(type=_Event).decode


class Bounds(msgspec.Struct, frozen=True):
    """How long an answer may be, in bytes: each of its lines, and all of it."""

    line: int
    whole: int

    @classmethod
    def of(cls, output_tokens: int, body_bytes: int) -> Bounds:
        """Far more than a model can say that may use so many tokens, to a body of that size."""
        repeated = min(body_bytes, MOST_REPEATED_BYTES)
        return cls(
            LINE_BYTES + LINE_BYTES_PER_TOKEN * output_tokens + 2 * repeated,
            ANSWER_BYTES + ANSWER_BYTES_PER_TOKEN * output_tokens + 4 * repeated,
        )


def note_headers(call: Call, status: int, headers: Mapping[str, str]) -> None:
    """What status and headers (names in lower case) say."""
    call.status = status
    call.request_id = headers.get("request-id") or headers.get("x-request-id")
    call.rate_limits = {name: value[:100] for name, value in headers.items() if name.startswith(_LIMITS)}
    try:
        seconds = float(headers.get("retry-after", ""))
        call.retry_after_s = seconds if math.isfinite(seconds) and seconds >= 0 else None
    except ValueError:
        call.retry_after_s = None


class Reader:
    """Reads one answer while its bytes pass. `feed` it as they come; it never raises."""

    def __init__(
        self,
        call: Call,
        wire: Wire,
        headers: Mapping[str, str],
        bounds: Bounds,
        secret: str = "",
        *,
        linked: bool = False,
    ) -> None:
        """`headers`: of the answer, names in lower case; `call` is what is noted in, without the `secret`, and where
        the request is `linked`, without links."""
        self._call = call
        self._bounds = bounds
        self._left = bounds.whole
        #: of the web, in the Responses API
        self._searches = 0
        self._secret = secret
        self._linked = linked
        self._wire = wire
        self._stream = "text/event-stream" in headers.get("content-type", "")
        self._buffer = bytearray()
        coding = headers.get("content-encoding", "identity").strip().lower()
        #: None for what is not compressed; where the coding is not known, nothing is read
        self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32) if coding in ("gzip", "deflate") else None
        self._readable = coding in ("", "identity", "gzip", "deflate")

    def feed(self, data: bytes) -> bytes:
        """Some more bytes, as they came; what they are without their coding, nothing where that is not known. Once
        they are beyond the bounds, the call is `endless`, and nothing more is read."""
        plain = self._plain(data)
        self._left -= max(len(data), len(plain))
        if self._left < 0:
            self._call.endless = True
        elif self._stream:
            self._lines(plain)
        elif self._call.status == 200 or len(self._buffer) < MOST_ERROR_BYTES:
            self._buffer += plain
        return plain

    def _plain(self, data: bytes) -> bytes:
        if self._inflate is None or not self._readable:
            return data if self._readable else b""
        try:
            # One byte more than there may be shows that it is too much.
            return self._inflate.decompress(data, max(0, self._left) + 1)
        except zlib.error:
            self._readable = False
            return b""

    @property
    def waits(self) -> bool:
        """Whether nothing has come yet that is an answer, an error, or an end: the CLI need not know of it yet."""
        call, read = self._call, self._bounds.whole - self._left
        return self._stream and not (call.begun or call.error_type or call.complete or read > self._bounds.line)

    def end(self) -> None:
        """All bytes have come."""
        if not self._stream and self._buffer:
            message = _object(bytes(self._buffer))
            if self._call.status != 200:
                self._error(message)
            elif message is not None:
                self._whole(message)

    def _lines(self, data: bytes) -> None:
        searched = len(self._buffer)
        self._buffer += data
        while (end := self._buffer.find(b"\n", searched)) >= 0:
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            searched = 0
            if not line.startswith(b"data:"):
                continue
            if not self._call.begun:
                self._call.begun = _begins(line[5:])
            if any(mark in line for mark in _MARKS[self._wire]):
                message = _object(line[5:])
                if message is not None:
                    self._event(message)
        if len(self._buffer) > self._bounds.line:
            self._call.endless = True
            self._buffer.clear()

    def _event(self, event: dict[str, Any]) -> None:
        call, kind = self._call, event.get("type")
        if kind == "message_start":
            body = _mapping(event.get("message"))
            call.model = _string(body.get("model"))
            call.usage = messages_usage(body.get("usage")) or call.usage
        elif kind == "message_delta":
            call.stop_reason = _string(_mapping(event.get("delta")).get("stop_reason")) or call.stop_reason
            call.usage = _larger(messages_usage(event.get("usage")), call.usage)
        elif kind == "message_stop":
            call.complete = True
        elif kind == "error":
            self._error(event)
        elif kind == "response.output_item.done":
            self._searches += _is_search(event.get("item"))
            call.called = call.called or asks_for_tool(event.get("item"))
        elif kind in ("response.completed", "response.incomplete", "response.failed"):
            self._whole(_mapping(event.get("response")))

    def _whole(self, body: dict[str, Any]) -> None:
        """A whole answer: one that did not come as a stream, or the last event of one that did."""
        call = self._call
        call.model = _string(body.get("model")) or call.model
        if self._wire == "messages":
            call.usage = messages_usage(body.get("usage"))
            call.stop_reason = _string(body.get("stop_reason"))
            call.complete = True
            return
        call.usage = responses_usage(body.get("usage"))
        output = body.get("output")
        items = output if isinstance(output, list) else []
        listed = sum(map(_is_search, items))
        call.called = call.called or any(map(asks_for_tool, items))
        if call.usage is not None:
            call.usage = msgspec.structs.replace(call.usage, searches=max(self._searches, listed))
        status = body.get("status")
        if status == "incomplete":
            call.stop_reason = _string(_mapping(body.get("incomplete_details")).get("reason"))
        elif status == "completed":
            call.stop_reason = "completed"
        if body.get("error"):
            self._error(body)
        call.refusal = _refusal(items)
        call.complete = status in ("completed", "incomplete")

    def _error(self, body: dict[str, Any] | None) -> None:
        error = _mapping((body or {}).get("error")) or (body or {})
        self._call.error_type = _string(error.get("code")) or _string(error.get("type"))
        message = _string(error.get("message")) or _string((body or {}).get("detail"))
        if message and self._linked:
            message = _LINK.sub(_SOME_LINK, message)
        self._call.error_message = message and masked(message, self._secret)[:MOST_ERROR_CHARACTERS]


def _begins(data: bytes) -> bool:
    """Whether an event is a part of an answer."""
    try:
        kind = _event_of(data).type
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return bool(kind) and kind not in _BEFORE


def _refusal(items: list[Any]) -> str | None:
    """What a model said instead of an answer: the refusals among the parts of its messages."""
    contents = [_mapping(item).get("content") for item in items]
    parts = [_mapping(part) for content in contents if isinstance(content, list) for part in content]
    said = [_string(part.get("refusal")) or "" for part in parts if part.get("type") == "refusal"]
    return "".join(said) or (DECLINED if said else None)


def _is_search(item: Any) -> bool:
    """Whether an item is a search of the web, which costs money; to open a page that was found costs none."""
    item = _mapping(item)
    kind = _mapping(item.get("action")).get("type", "search")
    return bool(item.get("type") == "web_search_call" and kind == "search")


def asks_for_tool(item: Any) -> bool:
    """Whether an item of the Responses API asks for a tool, of whichever kind; what searches the web is none."""
    kind = _string(_mapping(item).get("type")) or ""
    return kind.endswith("_call") and kind != "web_search_call"


def messages_usage(raw: Any) -> Usage | None:
    """Usage of the Messages API; None where it is missing, makes no sense, or is nothing at all."""
    names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens")
    counts = _counts(raw, names)
    if counts is None or not any(counts):
        return None
    fresh, read, written, output = counts
    thinking = _mapping(raw.get("output_tokens_details")).get("thinking_tokens")
    known = thinking if type(thinking) is int and 0 < thinking <= output else 0
    searches = (_counts(_mapping(raw.get("server_tool_use")), ("web_search_requests",)) or [0])[0]
    return Usage(fresh, read, written, output, known, searches)


def responses_usage(raw: Any) -> Usage | None:
    """Usage of the Responses API, in which cached is a part of input, and reasoning of output; None like above."""
    counts = _counts(raw, ("input_tokens", "output_tokens"))
    if counts is None or not any(counts):
        return None
    details = _mapping(raw.get("input_tokens_details"))
    inner = _counts(details, ("cached_tokens", "cache_write_tokens")) or [0, 0]
    reasoning = (_counts(_mapping(raw.get("output_tokens_details")), ("reasoning_tokens",)) or [0])[0]
    cached, written = inner
    if cached + written > counts[0]:
        return None
    return Usage(counts[0] - cached - written, cached, written, counts[1], min(reasoning, counts[1]))


def _counts(raw: Any, names: tuple[str, ...]) -> list[int] | None:
    if not isinstance(raw, dict):
        return None
    counts = [raw.get(name) or 0 for name in names]
    return counts if all(type(count) is int and 0 <= count <= _MOST_TOKENS for count in counts) else None


def _larger(new: Usage | None, old: Usage | None) -> Usage | None:
    """message_delta repeats the input only on newer models: what it leaves out stays as message_start had it."""
    if new is None or old is None:
        return new or old
    if new.prompt:
        return new
    return msgspec.structs.replace(old, output_tokens=new.output_tokens, searches=new.searches)


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        found = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) else None
