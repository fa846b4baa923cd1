"""What the engine's tests share: requests, collecting a run's events, and looking for what was left behind."""

from __future__ import annotations

import gc
import json
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import gevent.queue
import jsonschema
import psutil

from bridge.engine.answer import with_output
from bridge.types import (
    Completed,
    Event,
    Failed,
    GenerationRequest,
    Message,
    PartDelta,
    Text,
    words,
)

FAKES = Path(__file__).resolve().parents[1] / "fakes"
#: One that both CLIs take in their own way.
SCHEMA = {
    "type": "object",
    "properties": {"echo": {"type": "string"}},
    "required": ["echo"],
    "additionalProperties": False,
}


def install_fake(folder: Path, module: str, **options: Any) -> Path:
    """An executable that runs a fake CLI. Its environment will be empty, so the options are written into it."""
    path = folder / module.removeprefix("fake_")
    path.write_text(
        f"#!{sys.executable} -IS\n"
        "import sys\n"
        f"sys.path.insert(0, {str(FAKES)!r})\n"
        f"import {module}\n"
        f"sys.exit({module}.main(**{options!r}))\n"
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def ask(prompt: str, *, provider: str = "claude", **more: Any) -> GenerationRequest:
    """A request of one user message."""
    model = "claude-sonnet-5-5" if provider == "claude" else "gpt-6-sol"
    fields = {"model": model, "messages": (Message("user", (Text(prompt),)),), **more}
    return GenerationRequest(provider=provider, **fields)


def mismatch(schema: dict[str, Any], output: Any) -> str | None:
    """The engine's check of an output, without a process of its own."""
    error = next(jsonschema.Draft202012Validator(schema).iter_errors(output), None)
    return None if error is None else error.message


class Running:
    """A run under way, with its events."""

    def __init__(self, provider: Any, request: GenerationRequest) -> None:
        self.queue: gevent.queue.Queue[Event] = gevent.queue.Queue()
        self.events: list[Event] = []
        self.schema = request.schema
        self.conversation = provider.start(request, self.queue.put, "a key")

    def until(self, wanted: Callable[[Event], bool], timeout_s: float = 10.0) -> Event:
        """The first event that is wanted; what comes before it is kept as well."""
        with gevent.Timeout(timeout_s):
            while True:
                event = self.queue.get()
                self.events.append(event)
                if wanted(event):
                    return event

    def end(self, timeout_s: float = 10.0) -> Completed | Failed:
        """The end of the run, read and given back what it holds, as the engine does it."""
        try:
            event = self.until(lambda event: isinstance(event, Completed | Failed), timeout_s)
        finally:
            self.conversation.cancel()
        if isinstance(event, Completed) and self.schema is not None:
            return with_output(event, self.schema, mismatch)
        assert isinstance(event, Completed | Failed)
        return event

    @property
    def streamed(self) -> str:
        """The text of the deltas so far."""
        return "".join(words(event.part) for event in self.events if isinstance(event, PartDelta))

    @property
    def ends(self) -> list[Event]:
        """Every end that was ever announced; there must be one."""
        seen = [*self.events, *list(self.queue.queue)]
        return [event for event in seen if isinstance(event, Completed | Failed)]


def complete(provider: Any, prompt: str, **more: Any) -> Completed:
    """The answer to a prompt that must work."""
    end = Running(provider, ask(prompt, provider=provider.name, **more)).end()
    assert isinstance(end, Completed), end
    return end


def fail(provider: Any, prompt: str, **more: Any) -> Failed:
    """The failure of a prompt that must not work."""
    end = Running(provider, ask(prompt, provider=provider.name, **more)).end()
    assert isinstance(end, Failed), end
    return end


def until(condition: Callable[[], Any], timeout_s: float = 10.0) -> bool:
    """Let the loop turn until `condition()` holds; whether it came to hold. For ends that nobody announces."""
    deadline = gevent.get_hub().loop.now() + timeout_s
    while not condition():
        if gevent.get_hub().loop.now() > deadline:
            return False
        gevent.sleep(0.01)
    return True


def children() -> list[psutil.Process]:
    """Every descendant of this process that still exists, zombies too."""
    return psutil.Process().children(recursive=True)


def processes_of(marker: str) -> list[int]:
    """Process ids, wherever they hang in the tree, whose environment names `marker` (a scratch folder)."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                environment = Path(f"/proc/{entry}/environ").read_bytes()
            except OSError:
                continue
            if marker.encode() in environment:
                found.append(int(entry))
    return found


def descriptors() -> int:
    """Open descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


def talking(conversation: Any) -> bool:
    """Whether a conversation's greenlet still lives."""
    found = (thing for thing in gc.get_objects() if isinstance(thing, gevent.Greenlet))
    return any(getattr(thing._run, "__self__", None) is conversation and not thing.dead for thing in found)


def told(end: Completed | Failed) -> dict[str, Any]:
    """The JSON that a fake gave as its answer."""
    assert isinstance(end, Completed), end
    answer: dict[str, Any] = json.loads(end.answer.text)
    return answer
