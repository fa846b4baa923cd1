"""Clients' schemas: useful ones work, bombs go off in a child that is then replaced."""

from __future__ import annotations

import contextlib
import http.server
import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from bridge.engine import schema as module
from bridge.engine.schema import MAX_SCHEMA_BYTES, PATIENCE, PATIENCE_S, QUICK_S, SchemaChecker
from bridge.errors import BridgeError
from bridge.sandbox.scratch import Scratch
from tests.engine.harness import children, until

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}
#: A bound that proves an order: a bomb costs one check, by the processor's time, not the start-up's patience.
SOON_S = 20.0


@pytest.fixture
def checker(tmp_path: Path) -> Iterator[SchemaChecker]:
    scratch = Scratch(tmp_path)
    checker = SchemaChecker(scratch)
    yield checker
    checker.close()
    assert until(lambda: not children())
    scratch.clear()


def refusal(checker: SchemaChecker, schema: Any) -> str:
    with gevent.Timeout(SOON_S), pytest.raises(BridgeError) as caught:
        checker.check(schema)
    assert caught.value.code == "invalid_request"
    assert "Traceback" not in caught.value.message
    assert str(Path(module.__file__).parent) not in caught.value.message
    return caught.value.message


def mismatch(checker: SchemaChecker, schema: Any, output: Any) -> str | None:
    with gevent.Timeout(SOON_S):
        return checker.mismatch(schema, output)


@pytest.mark.parametrize("schema", [PERSON, {}, {"type": "array", "items": {"$ref": "#/$defs/a"}, "$defs": {"a": {}}}])
def test_a_good_schema_is_taken(checker: SchemaChecker, schema: dict[str, Any]) -> None:
    checker.check(schema)


def test_a_recursive_schema_is_taken_and_used(checker: SchemaChecker) -> None:
    tree = {"type": "object", "properties": {"kids": {"type": "array", "items": {"$ref": "#"}}}}
    checker.check(tree)
    assert mismatch(checker, tree, {"kids": [{"kids": []}]}) is None
    assert mismatch(checker, tree, {"kids": [{"kids": [1]}]}) is not None


@pytest.mark.parametrize(
    "schema", [{"type": "strin"}, {"properties": []}, {"required": "name"}, {"minimum": "1"}, {"pattern": "("}]
)
def test_what_is_no_schema_is_refused(checker: SchemaChecker, schema: dict[str, Any]) -> None:
    assert "schema cannot be used" in refusal(checker, schema)


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        ({"name": "Bob", "age": 4}, None),
        ({"age": 4}, "'name' is a required property"),
        ({"name": 1}, "$.name"),
        ({"name": "Bob", "age": -1}, "$.age"),
        ({"name": "Bob", "x": 1}, "'x' was unexpected"),
        ([], "array"),
        (None, "None"),
    ],
)
def test_an_output_is_compared_with_its_schema(checker: SchemaChecker, output: Any, problem: str | None) -> None:
    found = mismatch(checker, PERSON, output)
    assert (found is None) == (problem is None)
    assert problem is None or problem in (found or "") or "not of type" in (found or "")


def test_a_schema_above_the_limit_is_refused_before_anything_looks_at_it(checker: SchemaChecker) -> None:
    assert str(MAX_SCHEMA_BYTES) in refusal(checker, {"description": "x" * MAX_SCHEMA_BYTES})
    assert children() == []


def test_a_schema_just_below_the_limit_is_taken(checker: SchemaChecker) -> None:
    checker.check({"description": "x" * (MAX_SCHEMA_BYTES - 100)})


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


def exponential(depth: int) -> dict[str, Any]:
    steps = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(depth)}
    return {"$ref": "#/$defs/d0", "$defs": {**steps, f"d{depth}": {"type": ["object", "string"]}}}


REFUSED_BOMBS = {
    "refers to itself": {"$ref": "#"},
    "refers to each other": {
        "$ref": "#/$defs/a",
        "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}},
    },
    "multiplies": exponential(40),
    "refers to nothing": {"$ref": "#/$defs/nobody"},
    "is nested without end": nested(5000),
    "is nested deeply": nested(600),
}


@pytest.mark.parametrize("name", REFUSED_BOMBS)
def test_a_bomb_is_refused_soon_and_the_next_check_works(checker: SchemaChecker, name: str) -> None:
    refusal(checker, REFUSED_BOMBS[name])
    checker.check(PERSON)
    assert mismatch(checker, PERSON, {"name": "Bob"}) is None


OUTPUT_BOMBS: dict[str, tuple[dict[str, Any], Any]] = {
    "backtracking": ({"pattern": "^(a+)+$"}, "a" * 60 + "!"),
    "memory": ({"uniqueItems": True, "items": {"pattern": "(x{1,9999}){1,9999}"}}, ["x" * 1000] * 1000),
    "half a character": ({"type": "integer"}, "\ud800"),
}


@pytest.mark.parametrize("name", OUTPUT_BOMBS)
def test_an_output_bomb_is_a_mismatch_soon_and_the_next_check_works(checker: SchemaChecker, name: str) -> None:
    schema, output = OUTPUT_BOMBS[name]
    assert mismatch(checker, schema, output) is not None
    assert mismatch(checker, PERSON, {"name": "Bob"}) is None


def test_an_answer_that_takes_long_holds_up_no_other(checker: SchemaChecker) -> None:
    assert mismatch(checker, PERSON, {"name": "warm"}) is None
    order: list[str] = []

    def ask(owner: str, schema: dict[str, Any], output: Any) -> None:
        checker.mismatch(schema, output, owner)
        order.append(owner)

    bombs = [gevent.spawn(ask, "hostile", {"pattern": "^(a+)+$", "title": str(n)}, "a" * 60 + "!") for n in range(3)]
    gevent.sleep(0)
    good = [gevent.spawn(ask, "good", PERSON, {"name": str(n)}) for n in range(5)]
    gevent.joinall(good, timeout=SOON_S, raise_error=True)
    assert order == ["good"] * 5, "none of the hostile ones has ended"
    assert len(children()) >= 2
    gevent.joinall(bombs, timeout=4 * SOON_S, raise_error=True)


def test_a_schema_whose_answers_take_long_is_remembered_and_checked_behind_the_others(checker: SchemaChecker) -> None:
    slow, output = OUTPUT_BOMBS["backtracking"]
    asked: list[str] = []
    for name in ("_answers", "_slow_answers"):
        process = getattr(checker, name)
        process.ask = lambda question, timeout_s, name=name, ask=process.ask: (
            asked.append(name) or ask(question, timeout_s)
        )
    assert "too long" in str(mismatch(checker, slow, output))
    assert mismatch(checker, slow, "aaaa") is None, "a sane answer is still found to fit"
    assert asked == ["_answers", "_slow_answers", "_slow_answers"]


def test_a_child_that_gives_a_question_up_goes_on_with_the_next(checker: SchemaChecker) -> None:
    assert mismatch(checker, PERSON, {"name": "Bob"}) is None
    before = children()
    checker._slow_answers = checker._answers
    assert mismatch(checker, *OUTPUT_BOMBS["backtracking"]) is not None
    assert mismatch(checker, PERSON, {"name": "Bob"}) is None
    assert children() == before


def test_a_child_that_a_busy_host_lets_wait_keeps_its_place(checker: SchemaChecker) -> None:
    assert checker.mismatch(PERSON, {"name": "Ada"}) is None
    child = checker._answers._child
    assert child is not None
    os.kill(child.pid, signal.SIGSTOP)
    waiting = gevent.spawn(checker.mismatch, PERSON, {"name": "Bob"})
    # Longer than it may take by the clock; of its processor time it has had nothing.
    gevent.sleep(PATIENCE * QUICK_S + PATIENCE_S + 0.5)
    assert not waiting.ready()
    os.kill(child.pid, signal.SIGCONT)
    assert waiting.get(timeout=30) is None
    assert checker._answers._child is child


def test_the_child_has_no_rights_no_files_and_no_network(checker: SchemaChecker) -> None:
    checker.check(PERSON)
    (child,) = children()
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{child.pid}/status").read_text().splitlines())
    assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {0}
    assert status["NoNewPrivs"] == "1"
    limits = Path(f"/proc/{child.pid}/limits").read_text()
    assert re.search(r"Max open files\s+0\s+0", limits)
    assert re.search(r"Max processes\s+0\s+0", limits)


@pytest.mark.parametrize("draft", ["draft/2020-12", "draft/2019-09", "draft-07", "draft-06", "draft-04", "draft-03"])
def test_every_dialect_works_without_opening_a_file(checker: SchemaChecker, draft: str) -> None:
    scheme = "https" if "/" in draft else "http"
    dialect = {"$schema": f"{scheme}://json-schema.org/{draft}/schema" + ("" if "/" in draft else "#")}
    formats = {"type": "string", "format": "date-time"}
    schema = {
        **dialect,
        "type": "object",
        "properties": {"a": formats, "b": {"uniqueItems": True}},
        "not": {"type": "null"},
    }
    checker.check(schema)
    assert mismatch(checker, schema, {"a": "x", "b": [1, 2]}) is None
    assert "is not of type" in str(mismatch(checker, schema, {"a": 1}))
    assert "schema cannot be used" in refusal(checker, {**dialect, "type": "strin"})


def test_a_remote_reference_is_an_error_and_never_a_fetch(checker: SchemaChecker) -> None:
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(404)
            self.end_headers()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/schema.json"
    try:
        refusal(checker, {"$ref": url})
        for schema in ({"properties": {"a": {"$ref": url}}}, {"$schema": url}, {"$id": url, "$ref": "other.json"}):
            mismatch(checker, schema, {"a": 1})
        assert mismatch(checker, {"properties": {"a": {"$ref": "file:///etc/passwd"}}}, {"a": 1}) is not None
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert asked == []


def test_a_reference_that_cannot_be_resolved_is_refused_before_it_is_paid_for(checker: SchemaChecker) -> None:
    refusal(checker, {"type": "object", "properties": {"a": {"$ref": "https://example.invalid/schema.json"}}})
    refusal(checker, {"type": "object", "properties": {"a": {"$ref": "#/$defs/nobody"}}})


def test_a_killed_child_is_replaced(checker: SchemaChecker) -> None:
    checker.check(PERSON)
    (child,) = children()
    child.kill()
    assert until(lambda: not children())
    checker.check(PERSON)


def test_an_asker_that_gives_up_does_not_leave_its_answer_to_the_next(checker: SchemaChecker) -> None:
    checker.check(PERSON)
    impatient = gevent.spawn(checker.mismatch, PERSON, {"name": 1})
    gevent.sleep(0)
    impatient.kill()
    assert mismatch(checker, PERSON, {"name": "Bob"}) is None


def test_close_ends_the_child_and_the_next_check_starts_another(checker: SchemaChecker) -> None:
    checker.check(PERSON)
    checker.close()
    assert until(lambda: not children())
    checker.check(PERSON)


def test_the_child_gets_nothing_of_the_environment(checker: SchemaChecker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-secret")
    checker.check(PERSON)
    (child,) = children()
    assert "ANTHROPIC_API_KEY" not in child.environ()
    assert module.START_TIMEOUT_S > module.CHECK_TIMEOUT_S


def test_a_verdict_is_remembered(checker: SchemaChecker) -> None:
    bomb = REFUSED_BOMBS["multiplies"]
    first = refusal(checker, bomb)
    checker.close()
    assert until(lambda: not children())
    assert refusal(checker, bomb) == first
    assert children() == [], "nobody was asked again"


def test_who_sends_many_schemas_waits_for_oneself_and_not_the_others(checker: SchemaChecker) -> None:
    order: list[str] = []

    def ask(owner: str, schema: dict[str, Any]) -> None:
        with contextlib.suppress(BridgeError):
            checker.check(schema, owner)
        order.append(owner)

    bombs = [gevent.spawn(ask, "hostile", {**exponential(40), "title": str(n)}) for n in range(4)]
    gevent.sleep(0)
    good = gevent.spawn(ask, "good", PERSON)
    gevent.joinall([good, *bombs], timeout=3 * SOON_S, raise_error=True)
    assert order == ["hostile", "good", "hostile", "hostile", "hostile"]


def test_an_answer_is_looked_at_while_a_schema_still_is(checker: SchemaChecker) -> None:
    bomb = gevent.spawn(checker.check, exponential(40), "hostile")
    gevent.sleep(0)
    assert mismatch(checker, PERSON, {"name": "Bob"}) is None
    bomb.join(SOON_S)
    assert isinstance(bomb.exception, BridgeError)


def test_a_schema_that_took_too_long_once_is_looked_at_again_later(
    checker: SchemaChecker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TOO_LONG_S", 0.2)
    with monkeypatch.context() as busy:
        # As on a host that is busy with something else.
        busy.setattr(checker._schemas, "ask", lambda question, timeout_s: "it takes too long to check")
        assert "too long" in refusal(checker, PERSON)
    assert "too long" in refusal(checker, PERSON)
    gevent.sleep(0.3)
    checker.check(PERSON)
