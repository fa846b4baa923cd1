"""Runs on a codex app-server: the process, which serves many, and one throw-away thread for each."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

import gevent
import gevent.event
import gevent.queue
import msgspec

from bridge.errors import BridgeError, Problem
from bridge.gate.answer import asks_for_tool
from bridge.providers import codex_wire as protocol
from bridge.providers.assembly import Assembly
from bridge.providers.codex_body import CodexAsked
from bridge.providers.gated import Passage
from bridge.providers.provider import Emit, estimate
from bridge.providers.structured import ForcedCall
from bridge.providers.websearch import citation, openai_search
from bridge.sandbox.child import LAST_WORDS_S, Child, ChildError
from bridge.types import (
    DECLINED,
    Activity,
    Answer,
    Completed,
    Event,
    Failed,
    PartDelta,
    Receipt,
    Submitted,
    Tap,
    Thought,
    Usage,
)

#: How long a request of the protocol itself may take, in seconds; model time is not in it.
RPC_TIMEOUT_S = 20.0
#: Pixels that a CLI decodes in a second at the least, on a busy host: before it has, it answers nothing.
PIXELS_PER_SECOND = 2_000_000
#: Time for an interrupted turn to end before the whole process is thought to hang, in seconds.
INTERRUPT_TIMEOUT_S = 5.0


#: The thread in a message; within a text of the message, its quotation marks would be escaped.
_THREAD = re.compile(rb'"threadId":\s*"([\w-]{1,100})"')
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class RpcError(Exception):
    """The app-server refused a request; the text is its own and not for clients."""


class AppServer:
    """A codex process that serves many threads at once. Messages are lines of JSON both ways."""

    def __init__(self, child: Child, note: Callable[[str], None] = lambda what: None) -> None:
        """`note` gets what the process says that is not known here."""
        self.child = child
        self._note = note
        # A long line is about one of its threads: the end of that one is heard of all the same.
        child.pass_over = self._note_long_line
        #: runs begun on this process, and runs that have ended
        self.runs = self.ended = 0
        #: whether no more should begin on it
        self.worn = False
        self._listeners: dict[str, Callable[[str, dict[str, Any]], None]] = {}
        self._answers: dict[int, gevent.event.AsyncResult[Any]] = {}
        self._numbers = itertools.count(1)
        self._reader = gevent.spawn(self._read)

    @property
    def alive(self) -> bool:
        """Whether requests can be sent."""
        return not self._reader.dead and self.child.alive

    @property
    def busy(self) -> int:
        """Threads with a listener."""
        return len(self._listeners)

    def call(self, method: str, params: dict[str, Any], timeout_s: float = RPC_TIMEOUT_S) -> Any:
        """Send a request and wait for its result. Raises RpcError, or ChildError when the process is
        gone or does not answer in time."""
        number = next(self._numbers)
        answer: gevent.event.AsyncResult[Any] = gevent.event.AsyncResult()
        self._answers[number] = answer
        try:
            self.child.write(_encode({"id": number, "method": method, "params": params}) + b"\n")
            return answer.get(timeout=timeout_s)
        except gevent.Timeout:
            raise ChildError("the process does not answer") from None
        finally:
            self._answers.pop(number, None)

    def notify(self, method: str) -> None:
        """Send a message that has no answer."""
        self.child.write(_encode({"method": method}) + b"\n")

    def post(self, method: str, params: dict[str, Any]) -> None:
        """Send a request without waiting for its answer."""
        self.child.write(_encode({"id": next(self._numbers), "method": method, "params": params}) + b"\n")

    def listen(self, thread_id: str, listener: Callable[[str, dict[str, Any]], None]) -> None:
        """`listener(method, params)` gets every message about the thread, `("long", {})` for one that is too long
        to be read, and `("gone", {})` when the process has ended. It must not block."""
        self._listeners[thread_id] = listener

    def forget(self, thread_id: str) -> None:
        """No more messages about the thread: its run has ended."""
        if self._listeners.pop(thread_id, None) is not None:
            self.ended += 1

    def _read(self) -> None:
        try:
            for line in self.child.lines():
                try:
                    message = _decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                    continue
                if isinstance(message, dict):
                    self._sort(message)
        except ChildError:
            pass
        finally:
            # One that ends by itself is seen to end so: what it printed last says why.
            self.child.wait(LAST_WORDS_S)
            self.child.stop()
            for answer in list(self._answers.values()):
                answer.set_exception(ChildError("the process ended"))
            for listener in list(self._listeners.values()):
                listener("gone", {})

    def _note_long_line(self, head: bytes, tail: bytes) -> None:
        """Tell the listener of a thread that something of its answer came which nobody can read. What the CLI repeats
        of a prompt is not missed."""
        found = _THREAD.search(head) or _THREAD.search(tail)
        if found is not None and b'"userMessage"' not in head:
            listener = self._listeners.get(found[1].decode())
            if listener is not None:
                listener("long", {})

    def _sort(self, message: dict[str, Any]) -> None:
        number, method = message.get("id"), message.get("method")
        if method is None:
            answer = self._answers.get(number) if isinstance(number, int) else None
            if answer is not None and "error" in message:
                error = message["error"]
                answer.set_exception(RpcError(str(error.get("message") if isinstance(error, dict) else error)))
            elif answer is not None:
                answer.set(message.get("result"))
        elif method == "item/tool/call":
            # Whatever the answer, a refusal too, the CLI would ask the model again: the run ends instead.
            pass
        elif number is not None:
            # The server asks something, such as an approval: nothing is ever approved.
            refusal = {"code": -32601, "message": "not supported"}
            gevent.spawn(self._refuse, number, refusal)
        else:
            params = message.get("params")
            if isinstance(params, dict):
                for what in protocol.unknown_in(str(method), params):
                    self._note(what)
                listener = self._listeners.get(str(params.get("threadId")))
                if listener is not None:
                    listener(str(method), params)

    def _refuse(self, number: Any, refusal: dict[str, Any]) -> None:
        try:
            self.child.write(_encode({"id": number, "error": refusal}) + b"\n")
        except ChildError:
            pass


class CodexTurn:
    """One turn on one thread of an app-server."""

    def __init__(
        self,
        connect: Callable[[], AppServer],
        cwd: str,
        asked: CodexAsked,
        emit: Emit,
        make_passage: Callable[[Callable[[], None]], Passage] | None,
        tap: Tap | None,
    ) -> None:
        """`make_passage(alive)` is the run's way through the gate; None with a log-in. `tap` hears what the
        process is told and says of this thread."""
        self._connect = connect
        self._cwd = cwd
        self._asked = asked
        self._told = asked.request
        self._forced = ForcedCall(asked.forced, "call_") if asked.forced else None
        self._emit_to = emit
        self._tap = tap
        alive = Activity()
        self._passage = None if make_passage is None else make_passage(lambda: emit(alive))
        self._inbox: gevent.queue.Queue[tuple[str, dict[str, Any]]] = gevent.queue.Queue()
        self._assembly = Assembly()
        self._text_bytes = self._text_pieces = 0
        #: whether a tool was asked for, and one that nobody offered
        self._called = self._foreign = False
        #: whether the model's answer has come to its end while the CLI waits for what tools give
        self._whole = False
        self._usage: Usage | None = None
        #: of the model, as far as the CLI has told their usage
        self._calls = 0
        self._full = False
        self._cancelled = False
        gevent.spawn(self._converse)

    @property
    def receipt(self) -> Receipt | None:
        return None if self._passage is None else self._passage.receipt

    def cancel(self) -> None:
        self._cancelled = True
        if self._passage is not None:
            self._passage.close()
        self._inbox.put(("cancel", {}))

    def _converse(self) -> None:
        try:
            server = self._connect()
            thread = self._call(server, "thread/start", protocol.thread_start(self._asked, self._cwd))["thread"]["id"]
        except BridgeError as error:
            self._emit(Failed(error.problem))
            return
        except (ChildError, RpcError, KeyError, TypeError) as error:
            self._emit(Failed(Problem("cli_failed", "The codex CLI did not start the request.")))
            if isinstance(error, ChildError):
                gevent.sleep(0)
            return
        server.listen(thread, self._hear)
        try:
            self._take_turn(server, thread)
        except (ChildError, RpcError, KeyError, TypeError):
            self._emit(Failed(Problem("cli_failed", "The codex CLI failed during the request.")))
        finally:
            server.forget(thread)
            if self._passage is not None:
                self._passage.close()
            if server.alive:
                try:
                    server.post("thread/unsubscribe", {"threadId": thread})
                except ChildError:
                    pass

    def _emit(self, event: Event) -> None:
        for each in (event,) if self._forced is None else self._forced.read(event):
            self._emit_to(each)

    def _call(self, server: AppServer, method: str, params: dict[str, Any], timeout_s: float = RPC_TIMEOUT_S) -> Any:
        if self._tap is None:
            return server.call(method, params, timeout_s)
        self._tap("bridge", "cli", _encode({"method": method, "params": params}))
        try:
            result = server.call(method, params, timeout_s)
        except RpcError as error:
            self._tap("cli", "bridge", _encode({"error": str(error)}))
            raise
        self._tap("cli", "bridge", _encode({"result": result}))
        return result

    def _hear(self, method: str, params: dict[str, Any]) -> None:
        if self._tap is not None:
            self._tap("cli", "bridge", _encode({"method": method, "params": params}))
        self._inbox.put((method, params))

    def _take_turn(self, server: AppServer, thread: str) -> None:
        timeout_s = RPC_TIMEOUT_S + self._told.pixels / PIXELS_PER_SECOND
        items = protocol.history(self._told, thread)
        if items is not None:
            self._call(server, "thread/inject_items", items, timeout_s)
        if self._cancelled:
            return
        if self._passage is not None:
            self._passage.open(thread)
        self._emit(Submitted())
        turn = self._call(server, "turn/start", protocol.turn_start(self._told, thread), timeout_s)["turn"]["id"]
        while True:
            method, params = self._inbox.get()
            if method == "cancel":
                self._interrupt(server, thread, turn)
                return
            if method == "gone":
                why = f": {server.child.trouble}" if server.child.trouble else ""
                self._emit(Failed(Problem("cli_failed", f"The codex process ended in the middle of the answer{why}.")))
                return
            if method == "long":
                self._interrupt(server, thread, turn)
                self._emit(Failed(Problem("cli_bad_output", "The answer grew beyond all bounds and was stopped.")))
                return
            if method == "turn/completed":
                self._emit(self._end(_mapping(params.get("turn"))))
                return
            self._note(method, params, turn)
            if self._whole:
                # Nothing more comes from the model, and what its tools give comes with another request.
                self._emit(self._end({"status": "completed"}))
                self._interrupt(server, thread, turn)
                return
            if self._foreign and self._passage is None:
                # The CLI answers the model by itself, and asks it again as soon as it can; no gate stops that.
                self._interrupt(server, thread, turn)
                self._emit(self._bad_call())
                return
            if self._calls > 1 and self._passage is None:
                # Only one call was reserved; the gate lets no other pass.
                self._interrupt(server, thread, turn)
                self._emit(Failed(Problem("cli_bad_output", "The CLI asked the model a second time."), self._usage))
                return
            if self._full and self._passage is None:
                # The CLI knows no maximum of output tokens: the stream is watched and stopped instead.
                self._interrupt(server, thread, turn)
                self._emit(Completed(self._answer("max_tokens")))
                return

    def _note(self, method: str, params: dict[str, Any], turn: str) -> None:
        event: Event = Activity()
        if method == "item/agentMessage/delta":
            text = params.get("delta")
            if isinstance(text, str):
                event = self._add_text(text)
                self._full = estimate(self._text_bytes, self._text_pieces) > self._told.max_output_tokens
        elif method == "item/completed":
            item = _mapping(params.get("item"))
            if item.get("type") == "agentMessage" and not self._text_pieces and item.get("text"):
                event = self._add_text(str(item["text"]))
        elif method == "item/reasoning/summaryTextDelta" and self._told.thoughts is not None:
            event = self._add_thought(params, str(params.get("delta") or ""))
        elif method == "item/reasoning/summaryPartAdded" and params.get("summaryIndex") and self._told.thoughts:
            event = self._add_thought(params, "\n\n")
        elif method == "rawResponseItem/completed" and params.get("turnId") == turn:
            # What was injected comes back here, too, with a turn id of its own.
            event = self._note_item(_mapping(params.get("item")))
        elif method == "rawResponse/completed" and params.get("turnId") == turn:
            self._usage = protocol.usage_of(params.get("usage")) or self._usage
            self._whole = self._called
        elif method == "thread/tokenUsage/updated":
            # The thread is this run's alone, so its total is what the run has used, over all calls of the model.
            usage = protocol.usage_of(_mapping(params.get("tokenUsage")).get("total"))
            if usage is not None and usage != self._usage:
                self._calls += 1
                self._usage = usage
            event = Activity(self._usage)
        self._emit(event)

    def _add_text(self, text: str) -> PartDelta:
        self._text_bytes += len(text.encode("utf-8", "replace"))
        self._text_pieces += 1
        return self._assembly.add_text(text)

    def _add_thought(self, params: dict[str, Any], text: str) -> PartDelta:
        return self._assembly.add_thought(str(params.get("itemId")), Thought(text))

    def _note_item(self, item: dict[str, Any]) -> Event:
        """A part of the model's answer, as its API has it."""
        if self._told.web_search is not None and item.get("type") == "web_search_call":
            search = openai_search(item)
            return Activity() if search is None else self._assembly.add_search(search)
        if self._told.web_search is not None and item.get("type") == "message":
            return self._cite(item)
        if not asks_for_tool(item):
            return Activity()
        self._called = True
        name, arguments = self._asked.names.get(str(item.get("name"))), item.get("arguments")
        if name is None or item["type"] != "function_call" or not isinstance(arguments, str):
            self._foreign = True
            return Activity()
        if self._passage is None and self._assembly.calls and not self._told.tool_choice.parallel:
            # The CLI cannot say that one call is enough.
            return Activity()
        return self._assembly.add_call(str(item.get("call_id")), name, arguments or "{}")

    def _cite(self, item: dict[str, Any]) -> Event:
        """What a text that has been told cites."""
        event: Event = Activity()
        for part in item.get("content") or ():
            for raw in _mapping(part).get("annotations") or ():
                cited = citation(raw)
                if cited is not None:
                    if isinstance(event, PartDelta):
                        self._emit(event)
                    event = self._assembly.cite(cited)
        return event

    def _interrupt(self, server: AppServer, thread: str, turn: str) -> None:
        """Stop the turn upstream. A server that does not obey gets no more runs, and those of others end as they may:
        this one's call has been ended by the gate. Without a gate only its own end stops it."""
        try:
            server.post("turn/interrupt", {"threadId": thread, "turnId": turn})
            with gevent.Timeout(INTERRUPT_TIMEOUT_S):
                while self._inbox.get()[0] not in ("turn/completed", "gone"):
                    pass
        except (ChildError, gevent.Timeout):
            server.worn = True
            if self._passage is None:
                server.child.stop()

    def _end(self, turn: dict[str, Any]) -> Completed | Failed:
        if self._passage is None:
            return self._end_as_told(turn)
        call = self._passage.call
        if not call.complete:
            return Failed(self._passage.problem(), self._passage.usage)
        if call.stop_reason == "max_output_tokens":
            # The CLI takes that for a failure; what it has passed on is the answer.
            return self._passage.correct(Completed(self._answer("max_tokens")))
        if call.refusal is not None or call.stop_reason == "content_filter":
            # The CLI passes over the one, and takes the other for a failure.
            declined = msgspec.structs.replace(self._answer("refusal"), refusal=call.refusal or DECLINED)
            return self._passage.correct(Completed(declined))
        # Where no tools were offered, the CLI itself says nothing of a call.
        self._foreign = self._foreign or (call.called and not self._asked.calls)
        return self._passage.correct(self._end_as_told({**turn, "status": "completed"}))

    def _end_as_told(self, turn: dict[str, Any]) -> Completed | Failed:
        error = turn.get("error")
        if turn.get("status") != "completed":
            if protocol.hit_max_tokens(error) and self._assembly.content:
                return Completed(self._answer("max_tokens"))
            usage = Usage() if protocol.costs_nothing(error) and self._usage is None else self._usage
            return Failed(protocol.turn_problem(error), usage)
        if self._foreign:
            return self._bad_call()
        return Completed(self._answer("tool_use" if self._assembly.calls else "end_turn"))

    def _bad_call(self) -> Failed:
        return Failed(Problem("cli_bad_output", "The model asked for a tool that it was not given."), self._usage)

    def _answer(self, stop_reason: str) -> Answer:
        return Answer(self._assembly.content, self._told.model, stop_reason, self._usage)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
