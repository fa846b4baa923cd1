"""The CLIs' folder in memory: whatever the host does to it, it is made anew, and the CLIs are looked for again."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge.registry import PROVIDERS
from bridge.sandbox.child import ChildError
from bridge.sandbox.scratch import Scratch
from bridge.types import Failed
from tests.engine.harness import Running, ask, complete, until

Make = Callable[..., Any]


@pytest.mark.parametrize("warm", [0, 1])
@pytest.mark.parametrize("name", PROVIDERS)
def test_a_folder_that_is_removed_costs_no_request(make_provider: Make, scratch: Scratch, name: str, warm: int) -> None:
    provider = make_provider(name, warm=warm)
    assert complete(provider, "before").answer.text == "echo: before"
    assert until(lambda: provider.status().warm >= warm)
    shutil.rmtree(scratch.path)
    assert provider.status().warm == 0
    assert complete(provider, "after").answer.text == "echo: after"
    assert complete(provider, "again").answer.text == "echo: again"
    assert provider.status().available


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_folder_without_room_is_said_and_found_again(
    make_provider: Make, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with monkeypatch.context() as full:
        full.setattr(tempfile, "mkdtemp", _no_room)
        provider = make_provider(name)
        problem = provider.status().problem
        assert problem == f"The {name} CLI cannot be run: there is no place for its files (No space left on device)."
    provider.open()
    assert complete(provider, "hello").answer.text == "echo: hello"


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_run_that_finds_no_room_is_told_that_the_host_is_full(
    make_provider: Make, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    provider = make_provider(name)
    for child in list(provider._children):
        child.stop()
    with monkeypatch.context() as full:
        full.setattr(tempfile, "mkdtemp", _no_room)
        end = Running(provider, ask("hello", provider=name)).end()
        assert isinstance(end, Failed)
        assert (end.problem.code, end.problem.status) == ("overloaded", 503)
    assert complete(provider, "hello").answer.text == "echo: hello"


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_shared_file_without_room_is_said_and_found_again(
    make_provider: Make, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with monkeypatch.context() as full:
        full.setattr(Path, "write_bytes", _no_room)
        provider = make_provider(name)
    provider.open()
    assert complete(provider, "hello").answer.text == "echo: hello"


def test_what_lies_in_its_place_and_is_not_ours_is_not_used(tmp_path: Path, scratch: Scratch) -> None:
    shutil.rmtree(scratch.path)
    (tmp_path / "elsewhere").mkdir()
    scratch.path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ChildError):
        scratch.folder("claude")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def _no_room(*parts: object, **names: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")
