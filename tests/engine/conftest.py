"""Fixtures of the engine's tests: scratch folders, fake CLIs, and a check that nothing is left behind."""

from __future__ import annotations

import os
import pkgutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gevent
import pytest

from bridge.clock import Clock
from bridge.gate.server import Gate
from bridge.providers import codex as codex_module
from bridge.providers.claude import ClaudeProvider
from bridge.providers.codex import CodexProvider
from bridge.providers.demo import DemoProvider
from bridge.registry import PROVIDERS
from bridge.sandbox.scratch import Scratch
from bridge.settings import Settings
from tests.engine.harness import children, install_fake, processes_of, until


@pytest.fixture(autouse=True)
def _bounded() -> Iterator[None]:
    """A test that waits for ever fails, in the greenlet that waits, and the next one begins."""
    with gevent.Timeout(60):
        yield


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Scratch]:
    """A scratch folder; at the end no process that lived in it is left, and nobody's zombie."""
    scratch = Scratch(tmp_path)
    yield scratch
    left = until(lambda: not processes_of(str(scratch.path)) and not children())
    problem = f"left behind: {processes_of(str(scratch.path))} {children()}"
    for pid in processes_of(str(scratch.path)):
        os.kill(pid, 9)
    scratch.clear()
    assert left, problem


@pytest.fixture
def raised() -> Iterator[list[Any]]:
    """Exceptions that ended a greenlet and that nobody saw."""
    seen: list[Any] = []
    hub = gevent.get_hub()
    original = hub.print_exception
    hub.print_exception = lambda context, kind, value, tb: seen.append(value)
    yield seen
    hub.print_exception = original


Make = Callable[..., Any]

#: The fakes speak to no model, so they are used as with a log-in: what goes through the gate is in tests/gate.
KEYS = {"BRIDGE_CLAUDE_CREDENTIALS": "login", "BRIDGE_CODEX_CREDENTIALS": "login"}


@pytest.fixture
def make_provider(
    tmp_path: Path, scratch: Scratch, raised: list[Any], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Make]:
    """Opened providers, each on its fake CLI, or "demo"; closed at the end, with no greenlet of theirs having crashed.

    `runs`: after how many runs a codex process is replaced; `pace_s`: the pauses of the demo.
    """
    made: list[Any] = []

    def make(
        name: str,
        settings: dict[str, str] | None = None,
        *,
        warm: int = 0,
        runs: int = codex_module.RUNS_PER_PROCESS,
        pace_s: float = 0,
        command: str | None = None,
        vet: Callable[[str], str | None] | None = None,
        **options: Any,
    ) -> Any:
        monkeypatch.setattr(codex_module, "RUNS_PER_PROCESS", runs)
        row = PROVIDERS["claude" if name == "demo" else name]
        path = command or str(tmp_path / name if name == "demo" else install_fake(tmp_path, f"fake_{name}", **options))
        env = {row.variable("COMMAND"): path, "BRIDGE_WARM_PROCESSES": str(warm), **KEYS, **(settings or {})}
        parts = (row, Settings.load(env), scratch, Clock(), Gate(Clock()))
        if name == "demo":
            provider = DemoProvider(*parts, warm=warm, pace_s=pace_s)
        else:
            provider = pkgutil.resolve_name(row.run_by)(*parts)
        made.append(provider)
        provider.vet = vet
        provider.open()
        return provider

    yield make
    for provider in made:
        provider.close()
    assert raised == []


@pytest.fixture
def make_claude(make_provider: Make) -> Make:
    """Opened providers on a fake claude."""
    return partial(make_provider, "claude")


@pytest.fixture
def claude(make_claude: Callable[..., ClaudeProvider]) -> ClaudeProvider:
    """A provider on a well-behaved fake claude, nothing kept warm."""
    return make_claude()


@pytest.fixture
def make_codex(make_provider: Make) -> Make:
    """Opened providers on a fake codex."""
    return partial(make_provider, "codex")


@pytest.fixture
def codex(make_codex: Callable[..., CodexProvider]) -> CodexProvider:
    """A provider on a well-behaved fake codex."""
    return make_codex()
