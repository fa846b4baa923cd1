"""A small model of both APIs on loopback, for conversations that check a CLI: it says what it is told to say.

Shapes: the streaming pages of Anthropic's Messages API and of OpenAI's Responses API, as far as the CLIs read them.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import gevent
import msgspec
from gevent.pywsgi import WSGIHandler, WSGIServer

#: Tokens that each answer is said to have used.
INPUT_TOKENS, OUTPUT_TOKENS = 12, 3
#: The tool by which claude asks for structured output where it does not ask natively.
_OUTPUT_TOOL = "StructuredOutput"
#: Longest that an answer which does not end is held open, in seconds.
_HANG_S = 20.0

StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class Saying(msgspec.Struct, frozen=True):
    """What the model says to the next calls: `text`, a call of the tool `tool` with `text` as its arguments, or an
    error with `status` and `text` as its words. `ends`: "well", "cut" in the middle, or "never"."""

    text: str = "Fine."
    tool: str | None = None
    status: int = 200
    #: seconds
    retry_after: int | None = None
    ends: str = "well"

    @property
    def is_well(self) -> bool:
        """Whether it is a whole answer."""
        return self.status == 200 and self.ends == "well"


class _Handler(WSGIHandler):
    """A connection. What is cut off on purpose is not worth a line."""

    def handle_error(self, t: Any, v: Any, tb: Any) -> None:
        """The connection ends without an orderly end."""
        self.close_connection = True


class SmallModel:
    """The server; use it as a context. `bodies` holds what it was sent, oldest first, with the path."""

    def __init__(self) -> None:
        self.reply = Saying()
        self.bodies: list[tuple[str, dict[str, Any]]] = []
        #: answers without an end whose reader has gone
        self.left = 0
        self._server = WSGIServer(("127.0.0.1", 0), self._answer, handler_class=_Handler, log=None, error_log=None)

    def __enter__(self) -> SmallModel:
        self._server.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.stop(timeout=0.2)

    @property
    def url(self) -> str:
        """Its address, without a path."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def _answer(self, environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        path, raw = environ["PATH_INFO"], environ["wsgi.input"].read()
        talk = {"/v1/messages": _messages, "/v1/responses": _responses}.get(path)
        if environ["REQUEST_METHOD"] != "POST" or talk is None:
            start("404 Not Found", [("Content-Type", "application/json")])
            return [b'{"type":"error","error":{"type":"not_found_error","message":"There is nothing here."}}']
        body, reply = json.loads(raw), self.reply
        self.bodies.append((path, body))
        if reply.status != 200:
            headers = [("Content-Type", "application/json")]
            if reply.retry_after is not None:
                headers.append(("Retry-After", str(reply.retry_after)))
            start(f"{reply.status} Error", headers)
            kind = {429: "rate_limit_error", 529: "overloaded_error"}.get(reply.status, "invalid_request_error")
            return [msgspec.json.encode({"type": "error", "error": {"type": kind, "message": reply.text}})]
        start("200 OK", [("Content-Type", "text/event-stream")])
        return self._stream([*talk(body, reply)], reply)

    def _stream(self, events: list[dict[str, Any]], reply: Saying) -> Iterator[bytes]:
        said = (len(events) + 1) // 2 if reply.ends != "well" else len(events)
        try:
            for event in events[:said]:
                yield f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
            if reply.ends == "never":
                for _ in range(round(_HANG_S / 0.1)):
                    gevent.sleep(0.1)
                    yield b": still here\n\n"
        except GeneratorExit:
            self.left += 1
            raise
        if reply.ends == "cut":
            raise ConnectionAbortedError("the answer is cut off, as it was told to be")


def _messages(body: dict[str, Any], reply: Saying) -> Iterator[dict[str, Any]]:
    tool = reply.tool or next((t["name"] for t in body.get("tools") or () if t.get("name") == _OUTPUT_TOOL), None)
    usage = {"input_tokens": INPUT_TOKENS, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": body["model"], "content": []}
    message |= {"stop_reason": None, "stop_sequence": None, "usage": {**usage, "output_tokens": 1}}
    yield {"type": "message_start", "message": message}
    block: dict[str, Any] = {"type": "text", "text": ""}
    if tool is not None:
        block = {"type": "tool_use", "id": "toolu_1", "name": tool, "input": {}}
    yield {"type": "content_block_start", "index": 0, "content_block": block}
    for piece in _pieces(reply.text):
        delta = {"type": "text_delta", "text": piece}
        if tool is not None:
            delta = {"type": "input_json_delta", "partial_json": piece}
        yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    end = {"stop_reason": "end_turn" if tool is None else "tool_use", "stop_sequence": None}
    yield {"type": "message_delta", "delta": end, "usage": {**usage, "output_tokens": OUTPUT_TOKENS}}
    yield {"type": "message_stop"}


def _responses(body: dict[str, Any], reply: Saying) -> Iterator[dict[str, Any]]:
    number = itertools.count()

    def event(kind: str, **data: Any) -> dict[str, Any]:
        return {"type": kind, "sequence_number": next(number), **data}

    response = {"id": "resp_1", "object": "response", "created_at": 0, "model": body["model"], "output": []}
    yield event("response.created", response={**response, "status": "in_progress"})
    at = {"item_id": "msg_1", "output_index": 0}
    if reply.tool is None:
        part = {"type": "output_text", "text": reply.text, "annotations": []}
        item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
        opened, name, index = {**item, "content": [], "status": "in_progress"}, "output_text", {"content_index": 0}
    else:
        item = {"id": "fc_1", "type": "function_call", "status": "completed", "call_id": "call_1"}
        item |= {"name": reply.tool, "arguments": reply.text}
        opened, name, index = {**item, "arguments": "", "status": "in_progress"}, "function_call_arguments", {}
    yield event("response.output_item.added", output_index=0, item=opened)
    if reply.tool is None:
        yield event("response.content_part.added", **at, content_index=0, part={**part, "text": ""})
    for piece in _pieces(reply.text):
        yield event(f"response.{name}.delta", **at, **index, delta=piece)
    yield event("response.output_item.done", output_index=0, item=item)
    usage = {
        "input_tokens": INPUT_TOKENS,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": OUTPUT_TOKENS,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
    }
    yield event("response.completed", response={**response, "status": "completed", "output": [item], "usage": usage})


def _pieces(text: str) -> Iterator[str]:
    for begin in range(0, len(text), 4):
        yield text[begin : begin + 4]
