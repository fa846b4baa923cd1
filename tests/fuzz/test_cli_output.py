"""What the CLIs print, spoilt: recorded conversations with bytes, values and lines that should not be there."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import gevent
import gevent.event
import gevent.queue
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.providers import claude_wire, codex_body
from bridge.providers.codex_turn import AppServer, CodexTurn
from bridge.sandbox.child import ChildError
from bridge.types import Completed, Event, Failed, GenerationRequest, Message, Text, Usage

RECORDINGS = Path(__file__).resolve().parents[1] / "recordings"
CLAUDE = sorted(RECORDINGS.glob("claude-*/*.jsonl"))
CODEX = sorted(path for path in RECORDINGS.glob("codex-*/*.jsonl") if path.stem != "turn-ends")
SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}}
VALUES = [None, True, -1, 0, 1e308, float("nan"), 10**400, "", "\ud800", "x" * 5000, [], {}, [[]], {"type": "text"}]
many = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))


def spoilt(lines: list[bytes], chance: random.Random) -> list[bytes]:
    """The lines with a few of them changed, doubled, cut, lost or in another order."""
    lines = list(lines)
    for _ in range(chance.randrange(1, 5)):
        if not lines:
            break
        at = chance.randrange(len(lines))
        way = chance.randrange(6)
        if way == 0:
            del lines[at]
        elif way == 1:
            lines.insert(at, chance.choice(lines))
        elif way == 2:
            other = chance.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
        elif way == 3:
            lines[at] = lines[at][: chance.randrange(len(lines[at]) + 1)]
        elif way == 4:
            changed = bytearray(lines[at] or b"x")
            changed[chance.randrange(len(changed))] = chance.randrange(256)
            lines[at] = bytes(changed)
        else:
            lines[at] = with_another_value(lines[at], chance)
    return lines


def with_another_value(line: bytes, chance: random.Random) -> bytes:
    """The line with one of its values, wherever in it, replaced."""
    try:
        whole = json.loads(line)
    except ValueError:
        return line
    value = whole
    while isinstance(value, dict | list) and value:
        place: Any = chance.choice(list(value)) if isinstance(value, dict) else chance.randrange(len(value))
        if not isinstance(value[place], dict | list) or not value[place] or chance.random() < 0.2:
            value[place] = chance.choice(VALUES)
            break
        value = value[place]
    return json.dumps(whole).encode()


def request(provider: str, schema: bool) -> GenerationRequest:
    model = "claude-sonnet-5-5" if provider == "claude" else "gpt-6-sol"
    return GenerationRequest(
        provider, model, (Message("user", (Text("hello"),)),), schema=SCHEMA if schema else None, max_output_tokens=500
    )


def check(events: Iterable[Event]) -> None:
    """At most one end, nothing after it, and figures that can be charged."""
    events = list(events)
    ends = [event for event in events if isinstance(event, Completed | Failed)]
    assert ends in ([], events[-1:])
    for end in ends:
        usage = end.answer.usage if isinstance(end, Completed) else end.usage
        check_usage(usage)


def check_usage(usage: Usage | None) -> None:
    """Numbers of tokens: whole, and not below none."""
    for name in Usage.__struct_fields__ if usage is not None else ():
        number = getattr(usage, name)
        assert isinstance(number, int), usage
        assert 0 <= number < 2**63, usage


@many
@given(st.sampled_from(CLAUDE), st.randoms(use_true_random=False), st.booleans())
def test_claude_may_print_anything(recording: Path, chance: random.Random, schema: bool) -> None:
    parser = claude_wire.AnswerParser(request("claude", schema), lambda: 1_790_000_000.0, by_tool=schema)
    events: list[Event] = []
    for line in spoilt(recording.read_bytes().splitlines(), chance):
        for event in parser.feed(line):
            events.append(event)
            if isinstance(event, Completed | Failed):
                check(events)
                return
    check(events)


class Printer:
    """In the place of a codex process: prints what it is told, whatever it is asked."""

    def __init__(self, lines: list[bytes]) -> None:
        self.alive = True
        self.trouble: str | None = None
        self._lines = lines
        self._asked: gevent.queue.Queue[Any] = gevent.queue.Queue()

    def write(self, data: bytes) -> None:
        if not self.alive:
            raise ChildError("the process does not read its input any more")
        self._asked.put(json.loads(data))

    def lines(self) -> Iterator[bytes]:
        """The lines, with the number of the request that is answered; then the process is gone."""
        for line in self._lines:
            if b'"result"' in line:
                with gevent.Timeout(0.05, False):
                    asked = self._asked.get()
                    line = renumbered(line, asked.get("id"))
            gevent.sleep(0)
            yield line

    def stop(self) -> None:
        self.alive = False

    def wait(self, timeout_s: float | None = None) -> int | None:
        """It is gone at once."""
        return None


def renumbered(line: bytes, number: Any) -> bytes:
    try:
        message = json.loads(line)
    except ValueError:
        return line
    return json.dumps({**message, "id": number}).encode() if isinstance(message, dict) else line


@pytest.fixture(scope="module")
def unhandled() -> Iterator[list[Any]]:
    """Exceptions that ended a greenlet and that nobody saw."""
    seen: list[Any] = []
    hub = gevent.get_hub()
    original: Callable[..., None] = hub.print_exception
    hub.print_exception = lambda context, kind, value, tb: seen.append(value)
    yield seen
    hub.print_exception = original


@many
@given(recording=st.sampled_from(CODEX), chance=st.randoms(use_true_random=False), schema=st.booleans())
def test_codex_may_print_anything(unhandled: list[Any], recording: Path, chance: random.Random, schema: bool) -> None:
    # Without the answer to a greeting, which a turn does not send.
    lines = [line for line in recording.read_bytes().splitlines() if b'"userAgent"' not in line]
    printer = Printer(spoilt(lines, chance))
    server = AppServer(printer)  # type: ignore[arg-type]
    events: list[Event] = []
    ended = gevent.event.Event()

    def emit(event: Event) -> None:
        events.append(event)
        if isinstance(event, Completed | Failed):
            ended.set()

    asked = codex_body.ask(request("codex", schema), gated=False)
    CodexTurn(lambda: server, "/nowhere", asked, emit, None, None)
    assert ended.wait(5), "a run that never ends"
    gevent.sleep(0)
    check(events)
    assert unhandled == []
