"""The program of a CLI is replaced, removed or written into while it serves: the one before goes on, and another serves
only once it was checked."""

from __future__ import annotations

import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gevent
import gevent.event
import pytest

from bridge.errors import BridgeError
from bridge.providers import cli
from bridge.providers.programs import stamp_of
from bridge.registry import PROVIDERS
from tests.engine import harness
from tests.engine.harness import complete, fail, install_fake

Make = Callable[..., Any]

until = partial(harness.until, timeout_s=30.0)
SAYS = {"claude": "{} (Claude Code)", "codex": "codex-cli {}"}


@pytest.fixture(params=list(PROVIDERS))
def name(request: pytest.FixtureRequest) -> str:
    """Each CLI."""
    return str(request.param)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "PROGRAM_LOOK_S", 0.1)
    monkeypatch.setattr(cli, "LOOK_AGAIN_S", 0.1)
    monkeypatch.setattr(cli, "VERSION_LOOK_S", 0.5)


class Vet:
    """Stands in for the check: what it finds of each program, by its version; and which it was asked about."""

    def __init__(self, **problems: str) -> None:
        self.problems = problems
        self.asked: list[str] = []

    def __call__(self, path: str) -> str | None:
        text = Path(path).read_text()
        self.asked.append(path)
        return next((problem for mark, problem in self.problems.items() if mark in text), None)


@pytest.fixture
def serve(make_provider: Make, name: str, tmp_path: Path) -> Callable[..., Any]:
    """An opened provider, whose program is the tested one, and a check of what comes after it."""

    def opened(vet: Vet, version: str = PROVIDERS[name].tested, **more: Any) -> Any:
        settings = {"BRIDGE_DATA_DIR": str(tmp_path)}
        return make_provider(name, settings, version=SAYS[name].format(version), vet=vet, **more)

    return opened


@pytest.fixture
def put(tmp_path: Path, name: str) -> Callable[..., Path]:
    """Puts another program into its place, as installers do: written beside, and moved."""

    def replace(version: str, **options: Any) -> Path:
        beside = tmp_path / "beside"
        beside.mkdir(exist_ok=True)
        path = install_fake(beside, f"fake_{name}", version=SAYS[name].format(version), **options)
        return path.replace(tmp_path / name)

    return replace


def refusal(provider: Any) -> str:
    """The code of what a run ends with now; it may be refused before it begins."""
    try:
        return fail(provider, "hello").problem.code
    except BridgeError as error:
        return error.code


def test_one_that_does_not_pass_is_refused_and_the_one_before_goes_on(serve: Make, put: Make, name: str) -> None:
    vet = Vet(**{"9.1.0": "it offered a tool"})
    provider = serve(vet)
    complete(provider, "hello")
    put("9.1.0")
    assert until(lambda: provider.status().drift)
    tested = PROVIDERS[name].tested
    assert provider.status().drift == (
        f"The {name} CLI 9.1.0 does not do what the bridge relies on: it offered a tool "
        f"Version {tested}, which was in its place before, goes on serving."
    )
    assert (provider.status().available, provider.status().version) == (True, tested)
    for child in list(provider._children):
        child.stop()  # so that another process of the one before is needed
    assert until(lambda: not provider._children)
    assert complete(provider, "again").answer.text == "echo: again"
    put("9.2.0")
    assert until(lambda: provider.status().version == "9.2.0")
    assert provider.status().drift is None
    assert complete(provider, "and again").answer.text == "echo: and again"
    assert len(vet.asked) == 2


def test_another_program_behind_a_script_is_noticed_by_its_version(
    serve: Make, put: Make, name: str, tmp_path: Path
) -> None:
    behind, tested = tmp_path / name, PROVIDERS[name].tested

    def vet(path: str) -> str | None:
        assert path == str(script)
        asked.append(behind.read_text())
        return "it offered a tool" if "9.1.0" in asked[-1] else None

    asked: list[str] = []
    install_fake(tmp_path, f"fake_{name}", version=SAYS[name].format(tested))
    script = tmp_path / "script"
    script.write_text(f'#!/bin/sh\nexec {behind} "$@"\n')
    script.chmod(0o755)
    stamp = stamp_of(str(script))
    provider = serve(vet, command=str(script))
    complete(provider, "hello")
    put("9.1.0")
    assert until(lambda: not provider.status().available)
    assert provider.status().problem == (
        f"The {name} CLI 9.1.0 does not do what the bridge relies on: it offered a tool"
    )
    assert refusal(provider) == "cli_unavailable"
    put("9.2.0")
    assert until(lambda: provider.status().available)
    assert provider.status().version == "9.2.0"
    assert complete(provider, "again").answer.text == "echo: again"
    # What was found of each version is known.
    put("9.1.0")
    assert until(lambda: not provider.status().available)
    put(tested)
    assert until(lambda: provider.status().version == tested and provider.status().available)
    assert (len(asked), stamp_of(str(script))) == (2, stamp)


@pytest.mark.parametrize("what", ["removed", "half of it"])
def test_without_a_program_that_starts_the_one_before_goes_on(
    serve: Make, name: str, tmp_path: Path, what: str
) -> None:
    provider = serve(Vet())
    path = tmp_path / name
    if what == "removed":
        path.unlink()
    else:
        half = tmp_path / "half"
        half.write_bytes(b"\x7fELF\x02\x01\x01")
        half.chmod(half.stat().st_mode | stat.S_IXUSR)
        half.replace(path)
    assert until(lambda: provider.status().drift)
    assert "goes on serving" in provider.status().drift
    for child in list(provider._children):
        child.stop()
    assert complete(provider, "hello").answer.text == "echo: hello"


def test_what_was_written_into_its_file_serves_only_once_it_was_checked(serve: Make, name: str, tmp_path: Path) -> None:
    vet = Vet(**{"9.1.0": "it crashed"})
    provider = serve(vet)
    install_fake(tmp_path, f"fake_{name}", version=SAYS[name].format("9.1.0"))
    for child in list(provider._children):
        child.stop()
    assert until(lambda: not provider._children)
    assert refusal(provider) == "cli_unavailable"
    assert until(lambda: "it crashed" in (provider.status().problem or ""))
    install_fake(tmp_path, f"fake_{name}", version=SAYS[name].format("9.2.0"))
    assert until(lambda: provider.status().available)
    assert complete(provider, "hello").answer.text == "echo: hello"


def test_a_version_that_is_new_here_is_checked_before_it_serves_and_only_once(serve: Make, name: str) -> None:
    vet = Vet()
    provider = serve(vet, "9.1.0")
    assert "is checked before it serves" in (provider.status().problem or "")
    assert until(lambda: provider.status().available)
    path = Path(provider._path)
    path.write_bytes(path.read_bytes())  # installed once more
    second = serve(Vet(), "9.1.0", command=str(path))
    assert until(lambda: second.status().available)
    assert complete(second, "hello").answer.text == "echo: hello"
    assert len(vet.asked) == 1
    assert second.vet.asked == []


def test_of_two_looks_at_once_the_second_waits(serve: Make, put: Make, name: str, monkeypatch: Any) -> None:
    provider = serve(Vet())
    first, going, go_on = [True], gevent.event.Event(), gevent.event.Event()
    version = provider._version

    def slow(home: Path) -> str:
        found: str = version(home)
        if first.pop() if first else False:
            going.set()
            go_on.wait()
        return found

    monkeypatch.setattr(provider, "_version", slow)
    put("9.1.0")  # the watcher looks at it
    assert going.wait(20)
    opening = gevent.spawn(provider.open)  # and so does what takes an upgrade back
    gevent.sleep(0.5)
    go_on.set()
    opening.join(20)
    assert until(lambda: provider.status().version == "9.1.0")
    assert provider._program.stamp == stamp_of(str(provider._path))
    assert complete(provider, "hello").answer.text == "echo: hello"
