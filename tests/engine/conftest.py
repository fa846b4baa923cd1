"""Fixtures of the engine's tests: scratch folders, fake CLIs, and a check that nothing is left behind."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from bridge.clock import Clock
from bridge.providers.claude import ClaudeProvider
from bridge.providers.codex import CodexProvider
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


@pytest.fixture
def make_claude(tmp_path: Path, scratch: Scratch, raised: list[Any]) -> Iterator[Callable[..., ClaudeProvider]]:
    """Opened providers on a fake claude; closed at the end, with no greenlet of theirs having crashed."""
    made: list[ClaudeProvider] = []

    def make(
        settings: dict[str, str] | None = None, *, warm: int = 0, command: str | None = None, **options: Any
    ) -> ClaudeProvider:
        path = command or str(install_fake(tmp_path, "fake_claude", **options))
        env = {"BRIDGE_CLAUDE_COMMAND": path, "ANTHROPIC_API_KEY": "sk-ant-made-up", **(settings or {})}
        provider = ClaudeProvider(Settings.load(env), scratch, Clock(), warm=warm)
        made.append(provider)
        provider.open()
        return provider

    yield make
    for provider in made:
        provider.close()
    assert raised == []


@pytest.fixture
def claude(make_claude: Callable[..., ClaudeProvider]) -> ClaudeProvider:
    """A provider on a well-behaved fake claude, nothing kept warm."""
    return make_claude()


@pytest.fixture
def make_codex(tmp_path: Path, scratch: Scratch, raised: list[Any]) -> Iterator[Callable[..., CodexProvider]]:
    """Opened providers on a fake codex; closed at the end, with no greenlet of theirs having crashed."""
    made: list[CodexProvider] = []

    def make(
        settings: dict[str, str] | None = None, *, runs: int = 1000, command: str | None = None, **options: Any
    ) -> CodexProvider:
        path = command or str(install_fake(tmp_path, "fake_codex", **options))
        env = {"BRIDGE_CODEX_COMMAND": path, "OPENAI_API_KEY": "sk-made-up", **(settings or {})}
        provider = CodexProvider(Settings.load(env), scratch, Clock(), runs_per_process=runs)
        made.append(provider)
        provider.open()
        return provider

    yield make
    for provider in made:
        provider.close()
    assert raised == []


@pytest.fixture
def codex(make_codex: Callable[..., CodexProvider]) -> CodexProvider:
    """A provider on a well-behaved fake codex."""
    return make_codex()
