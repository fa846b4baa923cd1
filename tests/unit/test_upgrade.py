"""`cli-bridge clis upgrade`, with an npm of our own: what it installs, and what it says where it cannot."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bridge.ops import conformance, upgrade
from bridge.ops.doctor import Finding, fail, ok
from bridge.ops.upgrade import NotInstalled, install, leaves_behind, newest
from bridge.providers.programs import ChosenProgram, ProgramBook
from bridge.registry import PROVIDERS
from bridge.service import Service, demo_providers
from bridge.settings import Settings
from tests.support.ledger import record

ROW = PROVIDERS["claude"]
#: Does what npm does with a registry that has one version of everything.
_NPM = """\
#!{python} -IS
import json, os, pathlib, sys
said = {said!r}
if said:
    sys.exit("npm error code E\\nnpm error " + said)
here, what = pathlib.Path.cwd(), sys.argv[1]
if what == "view":
    print({version!r})
elif what == "install":
    wanted = json.loads((here / "package.json").read_text())["dependencies"]
    packages = {{
        "node_modules/" + name: {{"version": each, "integrity": {integrity!r}}} for name, each in wanted.items()
    }}
    (here / "package-lock.json").write_text(json.dumps({{"packages": {{"": {{}}, **packages}}}}))
else:
    assert what == "ci" and "--ignore-scripts" in sys.argv
    path = here / "node_modules" / {inside!r}
    path.parent.mkdir(parents=True)
    path.write_text("the program")
    path.chmod(0o755)
"""

Npm = Callable[..., Path]


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Npm:
    """Puts an npm on the PATH."""

    def put(version: str = "9.1.0", integrity: str = "sha512-abc", said: str = "") -> Path:
        path = tmp_path / "bin" / "npm"
        path.parent.mkdir(exist_ok=True)
        inside = ROW.programs[os.uname().sysname, os.uname().machine]
        path.write_text(
            _NPM.format(python=sys.executable, version=version, integrity=integrity, inside=inside, said=said)
        )
        path.chmod(0o755)
        return path

    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return put


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "data").mkdir(mode=0o700)
    return Settings.load({"BRIDGE_DATA_DIR": str(tmp_path / "data"), "BRIDGE_CLAUDE_COMMAND": "/usr/bin/env"})


def checked(monkeypatch: pytest.MonkeyPatch, *findings: Finding) -> None:
    monkeypatch.setattr(conformance, "check", lambda settings, names, program: iter(findings))


def run(settings: Settings, version: str | None = None) -> list[Finding]:
    return list(upgrade.upgrade(settings, {"claude": version}))


def test_the_newest_is_installed_checked_and_chosen(
    npm: Npm, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    npm("9.1.0")
    checked(monkeypatch, ok("claude", "A prompt arrives."))
    assert [each.level for each in run(settings)] == ["ok", "ok", "ok"]
    book = ProgramBook(settings.data_dir)
    chosen = book.choice("claude", "/usr/bin/env", ROW.tested)
    assert chosen is not None
    assert (chosen.version, chosen.before, Path(chosen.program).read_text()) == ("9.1.0", None, "the program")
    assert book.read().newest["claude"].version == "9.1.0"
    assert [each.problem for each in book.read().checks] == [None]
    # Somebody who names another program, and a bridge with another tested version, have chosen otherwise.
    assert book.choice("claude", "/usr/bin/other", ROW.tested) is None
    assert book.choice("claude", "/usr/bin/env", "9.9.9") is None
    assert [each.found for each in run(settings)] == ["version 9.1.0 is chosen already"]
    (row,) = [each for each in upgrade.status(settings) if each["name"] == "claude"]
    assert (row["version"], row["newest"], row["watchedRuns"]) == ("9.1.0", "9.1.0", 0)
    assert row["lastCheck"].endswith("all holds")


def test_the_one_before_is_kept_to_go_back_to_and_older_ones_go(
    npm: Npm, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    npm()
    checked(monkeypatch)
    for version in ("9.1.0", "9.2.0", "9.3.0"):
        run(settings, version)
    chosen = ProgramBook(settings.data_dir).read().chosen["claude"]
    assert chosen.before is not None
    assert (chosen.version, chosen.before.version, chosen.before.before) == ("9.3.0", "9.2.0", None)
    assert sorted(each.name for each in (settings.data_dir / "clis").iterdir()) == ["claude-9.2.0", "claude-9.3.0"]


def test_one_that_does_not_pass_its_check_is_not_chosen(
    npm: Npm, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    npm()
    checked(monkeypatch, ok("claude", "One."), fail("claude", "A tool is offered: no.", "Keep it."))
    assert [each.level for each in run(settings, "9.1.0")] == ["ok", "ok", "fail", "fail"]
    record = ProgramBook(settings.data_dir).read()
    assert record.chosen == {}
    assert [each.problem for each in record.checks] == ["A tool is offered: no."]


@pytest.mark.parametrize(
    ("integrity", "said", "words"),
    [
        ("", "", "has no sums"),
        ("sha1-abc", "", "has no sums"),
        ("sha512-abc", "no match for @anthropic-ai/claude-code@9", "npm error no match for @anthropic-ai/claude-code"),
        ("sha512-abc", "ENOSPC: no space left on device, write", "no room on the disk"),
        ("sha512-abc", "network request failed, reason: ENOTFOUND", "npm cannot reach the registry .ENOTFOUND."),
    ],
)
def test_what_npm_cannot_bring_is_told_in_words(
    npm: Npm, settings: Settings, integrity: str, said: str, words: str
) -> None:
    npm(integrity=integrity, said=said)
    with pytest.raises(NotInstalled, match=words):
        install(ROW, "9.1.0", settings)
    assert list((settings.data_dir / "clis").iterdir()) == []
    (found,) = run(settings, "9.1.0")
    assert found.level == "fail"
    assert "What serves goes on." in found.found


def test_what_is_no_version_is_not_asked_for(npm: Npm, settings: Settings) -> None:
    npm()
    assert "../9.1.0 is no version." in run(settings, "../9.1.0")[0].found


def test_without_npm_or_room_nothing_changes(npm: Npm, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(settings.data_dir))
    with pytest.raises(NotInstalled, match="npm is not installed") as caught:
        newest(ROW, settings)
    assert "deploy/docker/README.md" in caught.value.todo, "nobody can install it in a container"
    npm()
    usage: Any = shutil.disk_usage(settings.data_dir)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2**20))
    assert "no room" in run(settings, "9.1.0")[0].found
    assert ProgramBook(settings.data_dir).read().chosen == {}


@pytest.mark.parametrize(
    ("failed", "runs", "usual", "worse"),
    [
        (1, 1, (0, 0), False),
        (2, 2, (0, 0), False),
        (3, 3, (0, 0), True),
        (3, 9, (0, 200), True),
        (3, 50, (0, 0), False),
        (3, 50, (0, 200), False),
        (4, 50, (0, 200), True),
        (3, 3, (100, 200), False),
        (25, 50, (100, 200), False),
        (40, 50, (60, 200), True),
        (0, 50, (0, 0), False),
    ],
)
def test_it_is_worse_only_where_that_is_hardly_chance(
    failed: int, runs: int, usual: tuple[int, int], worse: bool
) -> None:
    assert leaves_behind(failed, runs, *usual) is worse


def test_runs_of_other_hosts_say_nothing_about_the_cli_of_this_one(settings: Settings) -> None:
    service = Service(settings, make_providers=demo_providers)
    heard: list[str] = []
    try:
        engine = service.open()
        service.observers += [lambda line: heard.append("all"), (here := lambda line: heard.append("here"))]
        service.observers_of_this_host.append(here)
        service._note_line(engine, record("run_1"))
    finally:
        service.close()
    assert heard == ["all"]


@pytest.mark.parametrize(
    ("error", "taken_back"),
    [("The CLI was silent for 90 seconds.", True), ("The answer was not complete within 1 seconds.", False)],
)
def test_a_client_that_gives_little_time_has_no_version_taken_back(
    settings: Settings, error: str, taken_back: bool
) -> None:
    service = Service(settings, make_providers=demo_providers)
    try:
        engine = service.open()
        provider, book = engine.providers["claude"], ProgramBook(settings.data_dir)
        status = msgspec.structs.replace(provider.status(), since=1.0)
        service.closers.append((trials := upgrade.Trials(service)).close)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(provider, "status", lambda: status)
            with book.change() as kept:
                kept.chosen["claude"] = ChosenProgram("9.1.0", "/usr/bin/env", 0.0, "/usr/bin/env", ROW.tested)
            for number in range(5):
                line = record(f"run_{number}", provider="claude", code="timeout", error=error)
                trials._look_at(line)
        assert (book.choice("claude", "/usr/bin/env", ROW.tested) is None) is taken_back
    finally:
        service.close()
