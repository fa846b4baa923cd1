"""JSON Schemas of clients: checked in processes of their own.

A schema is a program in disguise: `pattern` can backtrack for hours and `$ref` can multiply. So it is
looked at by a small child process (schema_child.py) that is killed when it takes too long; the server
never runs it, and the validator's memory is not the server's.
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
from bridge.sandbox.child import Child, ChildError
from bridge.sandbox.scratch import Scratch

#: Largest schema, in bytes of JSON.
MAX_SCHEMA_BYTES = 100_000
#: Longest check of an answer, and of a schema alone, which costs its sender nothing, in seconds; a sane one takes
#: a few milliseconds.
CHECK_TIMEOUT_S, SCHEMA_TIMEOUT_S = 3.0, 1.0
#: Longest start of the child, in seconds.
START_TIMEOUT_S = 20.0
#: Schemas whose verdict is remembered: programs send the same one again and again. But that one took too long may
#: have been the host's fault, which passes; that is remembered for so many seconds only.
REMEMBERED, TOO_LONG_S = 500, 60.0
_TOO_LONG = "it takes too long to check"


class SchemaChecker:
    """Checks schemas, and answers against them: each in a process of its own, so that new schemas do not hold up
    answers."""

    def __init__(self, scratch: Scratch) -> None:
        self._schemas = _Process(scratch)
        self._answers = _Process(scratch)
        self._clock = Clock()
        #: by digest: what is wrong, and until when that counts
        self._verdicts: OrderedDict[bytes, tuple[str | None, float]] = OrderedDict()
        self._turns: WeakValueDictionary[str, BoundedSemaphore] = WeakValueDictionary()

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

    def mismatch(self, schema: dict[str, Any], output: Any) -> str | None:
        """Why `output` does not fit `schema`, in words; None where it does."""
        return self._answers.ask({"schema": schema, "output": output}, CHECK_TIMEOUT_S)

    def close(self) -> None:
        """Stop the processes."""
        self._schemas.close()
        self._answers.close()

    def _verdict(self, digest: bytes, schema: dict[str, Any], owner: str) -> str | None:
        turn = self._turns.setdefault(owner, BoundedSemaphore(1))
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
    """The child that looks at one question at a time, replaced when it takes too long."""

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
        """The problem that it finds, or None."""
        try:
            line = msgspec.json.encode(question) + b"\n"
        except (RecursionError, UnicodeEncodeError, msgspec.MsgspecError):
            return "it is no text that can be checked"
        with self._turn:
            try:
                child = self._ready()
                child.write(line)
                answer = self._next_line(timeout_s)
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

    def _ready(self) -> Child:
        """The child, started and listening. Raises ChildError."""
        if self._child is None or not self._child.alive:
            self.close()
            self._scratch.make()
            self._child = Child(
                [sys.executable, "-I", "-c", _START, str(Path(__file__).resolve().parents[2])],
                env={"PATH": os.defpath, "LANG": "C.UTF-8"},
                cwd=self._scratch.empty,
            )
            self._lines = self._child.lines()
            if self._next_line(START_TIMEOUT_S) is None:
                raise ChildError("the checker does not start")
        return self._child

    def _next_line(self, timeout_s: float) -> bytes | None:
        """What the child says next; None where it ends, or says nothing in time."""
        with gevent.Timeout(timeout_s) as timeout:
            try:
                return next(self._lines, None)
            except gevent.Timeout as expired:
                if expired is not timeout:
                    raise
                return None


# The package may not be installed where a checkout is run in place; its folder goes in by hand.
_START = "import sys; sys.path.append(sys.argv[1]); import bridge.engine.schema_child as child; child.main()"
