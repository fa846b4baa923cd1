"""JSON Schemas of clients: checked in processes of their own.

A schema is a program in disguise: `pattern` can backtrack for hours and `$ref` can multiply. So it is
looked at by a small child process (schema_child.py) that gives up after some time, and is killed where it does not;
the server never runs it, and the validator's memory is not the server's. The child has the least rights that there
are: the CLIs' user where there is one, no capabilities, no files and no network.
"""

from __future__ import annotations

import hashlib
import math
import os
import sys
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import gevent
import msgspec
from gevent.lock import BoundedSemaphore

from bridge.clock import Clock
from bridge.errors import BridgeError
from bridge.sandbox import host
from bridge.sandbox.child import Child, ChildError
from bridge.sandbox.host import User
from bridge.sandbox.scratch import Scratch

#: Largest schema, in bytes of JSON.
MAX_SCHEMA_BYTES = 100_000
#: Longest check of a schema alone, which costs its sender nothing, and of an answer: at first, and where it is tried
#: again behind all others, in seconds of processor time. A sane one takes a few milliseconds.
SCHEMA_TIMEOUT_S, QUICK_S, CHECK_TIMEOUT_S = 1.0, 0.25, 2.0
#: Longest start of the child, in seconds; what it may take by the clock: for each second of processor time, and
#: besides; and at most where a busy host does not let it have its processor time.
START_TIMEOUT_S, PATIENCE, PATIENCE_S, LONGEST_S = 20.0, 3.0, 1.0, 30.0
#: Schemas whose verdict is remembered: programs send the same one again and again. But that one took too long may
#: have been the host's fault, which passes; that is remembered for so many seconds only.
REMEMBERED, TOO_LONG_S = 500, 60.0
#: How long a schema is remembered whose answers took too long at first, in seconds.
SLOW_S = 600.0
_PROGRAM = Path(__file__).resolve().with_name("schema_child.py")
_TOO_LONG = "it takes too long to check"


class SchemaChecker:
    """Checks schemas, and answers against them: each in a process of its own, so that new schemas do not hold up
    answers. An answer that takes long is looked at in a third one, so that it holds up none but such."""

    def __init__(self, scratch: Scratch) -> None:
        self._schemas = _Process(scratch)
        self._answers = _Process(scratch)
        self._slow_answers = _Process(scratch)
        self._clock = Clock()
        #: by digest: what is wrong, and until when that counts
        self._verdicts: OrderedDict[bytes, tuple[str | None, float]] = OrderedDict()
        #: by digest: until when answers are looked at behind all others
        self._slow: OrderedDict[bytes, float] = OrderedDict()
        self._turns: WeakValueDictionary[tuple[str, str], BoundedSemaphore] = WeakValueDictionary()

    def check(self, schema: dict[str, Any], owner: str = "") -> None:
        """Raise BridgeError (invalid_request) where `schema` is not a JSON Schema that can be used.

        One schema of each `owner` is looked at, at a time: an owner who sends many waits for no one else's.
        """
        try:
            encoded = msgspec.json.encode(schema)
        except (RecursionError, UnicodeEncodeError, msgspec.MsgspecError):
            raise BridgeError("invalid_request", "schema cannot be used: it is nested too deep.") from None
        if len(encoded) > MAX_SCHEMA_BYTES:
            raise BridgeError("invalid_request", f"schema is larger than {MAX_SCHEMA_BYTES} bytes.")
        problem = self._verdict(hashlib.sha256(encoded).digest(), schema, owner)
        if problem is not None:
            raise BridgeError("invalid_request", f"schema cannot be used: {problem}.")

    def mismatch(self, schema: dict[str, Any], output: Any, owner: str = "") -> str | None:
        """Why `output` does not fit `schema`, in words; None where it does.

        One answer of each `owner` is looked at, at a time. One that takes long goes behind those of others, and so do
        the next ones of its schema.
        """
        question = {"schema": schema, "output": output}
        digest = hashlib.sha256(msgspec.json.encode(schema)).digest()
        turn = self._turns.setdefault(("answer", owner), BoundedSemaphore(1))
        with turn:
            if self._clock.monotonic() >= self._slow.get(digest, -math.inf):
                problem = self._answers.ask(question, QUICK_S)
                if problem != _TOO_LONG:
                    return problem
                self._slow[digest] = self._clock.monotonic() + SLOW_S
                if len(self._slow) > REMEMBERED:
                    self._slow.popitem(last=False)
            return self._slow_answers.ask(question, CHECK_TIMEOUT_S)

    def close(self) -> None:
        """Stop the processes."""
        for process in (self._schemas, self._answers, self._slow_answers):
            process.close()

    def _verdict(self, digest: bytes, schema: dict[str, Any], owner: str) -> str | None:
        turn = self._turns.setdefault(("schema", owner), BoundedSemaphore(1))
        if not self._knows(digest):
            with turn:
                if not self._knows(digest):
                    problem = self._schemas.ask({"schema": schema}, SCHEMA_TIMEOUT_S)
                    until = self._clock.monotonic() + TOO_LONG_S if problem == _TOO_LONG else math.inf
                    self._verdicts[digest] = problem, until
        self._verdicts.move_to_end(digest)
        while len(self._verdicts) > REMEMBERED:
            self._verdicts.popitem(last=False)
        return self._verdicts[digest][0]

    def _knows(self, digest: bytes) -> bool:
        return digest in self._verdicts and self._clock.monotonic() < self._verdicts[digest][1]


class _Process:
    """The child that looks at one question at a time, replaced when it does not give up in time."""

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch
        self._child: Child | None = None
        self._lines: Iterator[bytes] = iter(())
        self._turn = BoundedSemaphore(1)

    def close(self) -> None:
        """Stop the child, if there is one."""
        child, self._child = self._child, None
        if child is not None:
            child.stop()

    def ask(self, question: dict[str, Any], timeout_s: float) -> str | None:
        """The problem that it finds, or None. `timeout_s`: of processor time."""
        try:
            line = msgspec.json.encode({**question, "seconds": timeout_s}) + b"\n"
        except (RecursionError, UnicodeEncodeError, msgspec.MsgspecError):
            return "it is no text that can be checked"
        with self._turn:
            try:
                child = self._ready()
                child.write(line)
                answer = self._answer_of(child, timeout_s)
            except ChildError:
                answer = None
            except BaseException:
                # The asker gives up; the answer that is still to come must not become another's.
                self.close()
                raise
            if answer is None:
                self.close()
                return _TOO_LONG
            problem: str | None = msgspec.json.decode(answer)
            return problem

    def _answer_of(self, child: Child, timeout_s: float) -> bytes | None:
        """Its line; None where it ended, or does not give up although its time is over. On a busy host it has had less
        than its time, and starting another one would take longer."""
        used_s, until = host.processor_s(child.pid), Clock().monotonic() + LONGEST_S
        # In a greenlet of its own: reading that is broken off cannot be taken up again.
        reading = gevent.spawn(_read_line, self._lines)
        while True:
            reading.join(PATIENCE * timeout_s + PATIENCE_S)
            used_up = host.processor_s(child.pid) - used_s > timeout_s or Clock().monotonic() >= until
            if reading.ready() or used_up:
                line: bytes | None = reading.value
                return line

    def _ready(self) -> Child:
        """The child, started and listening. Raises ChildError."""
        if self._child is None or not self._child.alive:
            self.close()
            self._scratch.make()
            user = self._scratch.user
            if not self._start(user) and (user is None or not self._start(None)):
                raise ChildError("the checker does not start")
        assert self._child is not None
        return self._child

    def _start(self, user: User | None) -> bool:
        """Start the child; whether it listens. The CLIs' user may not be able to read the program."""
        self._child = Child(
            [sys.executable, "-I", str(_PROGRAM)],
            env={"PATH": os.defpath, "LANG": "C.UTF-8"},
            cwd=self._scratch.empty,
            user=user,
            powerless=True,
        )
        self._lines = self._child.lines()
        return self._next_line(START_TIMEOUT_S) is not None

    def _next_line(self, timeout_s: float) -> bytes | None:
        """What the child says next; None where it ends, or says nothing in time."""
        with gevent.Timeout(timeout_s) as timeout:
            try:
                return next(self._lines, None)
            except gevent.Timeout as expired:
                if expired is not timeout:
                    raise
                return None


def _read_line(lines: Iterator[bytes]) -> bytes | None:
    try:
        return next(lines, None)
    except ChildError:
        return None
