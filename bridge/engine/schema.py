"""JSON Schemas of clients: checked in a process of their own.

A schema is a program in disguise: `pattern` can backtrack for hours and `$ref` can multiply. So it is
looked at by a small child process (schema_child.py) that is killed when it takes too long; the server
never runs it, and the validator's memory is not the server's.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import gevent
import gevent.lock
import gevent.queue
import msgspec

from bridge.engine.process import Child, ChildError
from bridge.engine.scratch import Scratch
from bridge.errors import BridgeError

#: Largest schema, in bytes of JSON.
MAX_SCHEMA_BYTES = 100_000
#: Longest check, in seconds; a sane one takes a few milliseconds.
CHECK_TIMEOUT_S = 3.0
#: Longest start of the child, in seconds.
START_TIMEOUT_S = 20.0


class SchemaChecker:
    """Checks schemas, and outputs against them, one at a time."""

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch
        self._child: Child | None = None
        self._answers: gevent.queue.Queue[bytes | None] = gevent.queue.Queue()
        self._turn = gevent.lock.BoundedSemaphore(1)

    def check(self, schema: dict[str, Any]) -> None:
        """Raise BridgeError (invalid_request) where `schema` is not a JSON Schema that can be used."""
        if len(msgspec.json.encode(schema)) > MAX_SCHEMA_BYTES:
            raise BridgeError("invalid_request", f"schema is larger than {MAX_SCHEMA_BYTES} bytes.")
        problem = self._ask({"schema": schema})
        if problem is not None:
            raise BridgeError("invalid_request", f"schema cannot be used: {problem}")

    def mismatch(self, schema: dict[str, Any], output: Any) -> str | None:
        """Why `output` does not fit `schema`, in words; None where it does."""
        return self._ask({"schema": schema, "output": output})

    def close(self) -> None:
        """Stop the child, if there is one."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    def _ask(self, question: dict[str, Any]) -> str | None:
        with self._turn:
            try:
                timeout_s = CHECK_TIMEOUT_S if self._ready() else START_TIMEOUT_S
                assert self._child is not None
                self._child.write(msgspec.json.encode(question) + b"\n")
                answer = self._answers.get(timeout=timeout_s)
            except (ChildError, gevent.queue.Empty):
                answer = None
            if answer is None:
                self.close()
                return "it takes too long to check"
            problem: str | None = msgspec.json.decode(answer)
            return problem

    def _ready(self) -> bool:
        if self._child is not None and self._child.alive:
            return True
        self._answers = gevent.queue.Queue()
        root = str(Path(__file__).resolve().parents[2])
        self._child = Child(
            [sys.executable, "-I", "-c", _START, root],
            env={"PATH": os.defpath, "LANG": "C.UTF-8"},
            cwd=self._scratch.empty,
        )
        gevent.spawn(_pump, self._child, self._answers)
        return False


# The package may not be installed where a checkout is run in place; its folder goes in by hand.
_START = "import sys; sys.path.append(sys.argv[1]); import bridge.engine.schema_child as child; child.main()"


def _pump(child: Child, answers: gevent.queue.Queue[bytes | None]) -> None:
    try:
        for line in child.lines():
            answers.put(line)
    except ChildError:
        pass
    answers.put(None)
