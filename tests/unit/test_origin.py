"""Where the bridge came from, and what is newer there: git, with a bare repository on this disk as the remote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import gevent
import pytest

import bridge
from bridge.clock import iso
from bridge.http.app import create_app
from bridge.ops import origin, upgrade
from bridge.ops.doctor import clis
from bridge.ops.origin import NotKnown, Origin
from bridge.providers.programs import BridgeNews, ProgramBook
from bridge.service import Service, demo_providers
from bridge.settings import Settings

#: Says who makes a commit, and keeps this machine's own settings of git out.
IDENTITY = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    **{f"GIT_{who}_{what}": "ada@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}
VERSION = bridge.__version__
#: Stands for git: notes how it was called, and does what the test says.
_GIT = """\
#!{python} -IS
import json, os, pathlib, sys, time
with pathlib.Path({calls!r}).open("a") as file:
    print(json.dumps({{"argv": sys.argv[1:], "env": dict(os.environ), "cwd": os.listdir()}}), file=file)
{does}
"""


@pytest.fixture(autouse=True)
def version(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is newer is the same in every release."""
    monkeypatch.setattr(bridge, "__version__", "0.1.0")


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env={**os.environ, **IDENTITY}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def commit(folder: Path, *tags: str) -> str:
    """A new commit, pushed with some tags; its id."""
    git(folder, "commit", "--allow-empty", "-qm", "x")
    for tag in tags:
        git(folder, "tag", "-am", "x", tag)
    git(folder, "push", "-q", "--tags", "origin", "HEAD:main")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Somebody's clone of a remote that is empty as yet. The bridge has no note of where it came from."""
    (tmp_path / "prefix").mkdir()
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefix"))
    for name, value in IDENTITY.items():
        monkeypatch.setenv(name, value)
    git(tmp_path, "init", "-q", "--bare", "-b", "main", "remote.git")
    git(tmp_path, "clone", "-q", "remote.git", "elsewhere")
    return tmp_path / "elsewhere"


@pytest.fixture
def checkout(elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkout that the bridge runs from, with the remote's first commit."""
    commit(elsewhere)
    git(tmp_path, "clone", "-q", "remote.git", "checkout")
    monkeypatch.setattr(bridge, "__file__", str(tmp_path / "checkout" / "bridge" / "__init__.py"))
    return tmp_path / "checkout"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "data").mkdir(mode=0o700)
    return Settings.load({"BRIDGE_DATA_DIR": str(tmp_path / "data"), "BRIDGE_UPDATE_CHECK": "on"})


def look(settings: Settings, before: BridgeNews | None = None) -> BridgeNews:
    return origin.look(settings, before, 1000.0)


# --- what is newer ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tags", "newest", "news"),
    [
        (["v0.1.0", "v0.9.0", "v0.10.0"], "0.10.0", True),
        (["v0.1.0"], "0.1.0", False),
        (["v0.0.9"], "0.0.9", False),
        (["v0.2.0", "v9.0.0-rc1", "v9", "9.0.0", "v9.0.0.0", "av9.0.0", "v9.0.12345678"], "0.2.0", True),
    ],
)
def test_a_release_that_is_newer_is_told_with_what_to_do(
    checkout: Path, elsewhere: Path, settings: Settings, tags: list[str], newest: str, news: bool
) -> None:
    commit(elsewhere, *tags)
    found = look(settings)
    assert (found.at, found.newest, found.problem) == (1000.0, newest, None)
    said = f"cli-bridge {newest} is out; 0.1.0 runs here. In its checkout: git pull, then start it again."
    assert found.news == (said if news else None)
    nothing = f"No newer cli-bridge was out at {iso(1000.0)}."
    assert origin.sentence(settings, found) == (said if news else nothing)


def test_without_releases_the_default_branch_counts(checkout: Path, elsewhere: Path, settings: Settings) -> None:
    here = git(checkout, "rev-parse", "HEAD")
    assert look(settings) == BridgeNews(1000.0, f"0.1.0 {here}", here[:10])
    there = commit(elsewhere, "not-a-release")
    news = look(settings).news
    assert news is not None
    assert news.startswith(
        f"The default branch of cli-bridge is at {there[:10]}; {here[:10]} runs here. In its checkout"
    )
    # It was asked, and nothing was fetched.
    assert subprocess.run(["git", "cat-file", "-e", there], cwd=checkout, capture_output=True).returncode != 0
    git(checkout, "pull", "-q")
    assert look(settings).news is None


def test_where_nothing_can_be_known_it_says_why(checkout: Path, elsewhere: Path, settings: Settings) -> None:
    commit(elsewhere, "v0.2.0")
    before = look(settings)
    (checkout.parent / "remote.git").rename(checkout.parent / "away.git")
    after = look(settings, before)
    assert (after.at, after.news, after.problem) == (
        before.at,
        before.news,
        "its remote does not answer, or wants a password",
    )
    assert origin.sentence(settings, after) == before.news
    # What was known of another commit says nothing about this one.
    git(checkout, "commit", "--allow-empty", "-qm", "x")
    assert look(settings, before).news is None
    git(checkout, "remote", "remove", "origin")
    assert look(settings, before).problem == "its checkout has no origin"
    (checkout / ".git").rename(checkout / "git")
    said = "Whether a newer cli-bridge is out, is not known: it did not come from a git checkout."
    assert origin.sentence(settings, look(settings)) == said


def test_an_empty_remote_has_nothing(elsewhere: Path, settings: Settings) -> None:
    with pytest.raises(NotKnown, match="neither a release nor a default branch"):
        origin._news(Origin("x", "0" * 40, "image"), origin._refs(str(elsewhere.parent / "remote.git"), settings))


# --- where it came from -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("remote", "asked"),
    [
        ("https://ada:secret@example.com:8443/team/bridge.git?t=1", "https://example.com:8443/team/bridge.git"),
        ("https://secret@example.com/bridge", "https://example.com/bridge"),
        ("ssh://git:secret@example.com:22/bridge.git", "ssh://git@example.com:22/bridge.git"),
        ("ssh://example.com/bridge.git", "ssh://example.com/bridge.git"),
        ("git@example.com:team/bridge.git", "git@example.com:team/bridge.git"),
        ("file:///srv/bridge.git", "file:///srv/bridge.git"),
        ("/srv/git/bridge.git", "/srv/git/bridge.git"),
        ("../bridge.git", "{folder}/../bridge.git"),
        ("http://example.com/bridge.git", None),
        ("git://example.com/bridge.git", None),
        ("ftp://example.com/bridge.git", None),
        ("ext::sh -c id", None),
        ("fd::17", None),
        ("https://[::1/bridge.git", None),
    ],
)
def test_only_https_ssh_and_files_are_asked_and_without_a_password(
    checkout: Path, remote: str, asked: str | None
) -> None:
    git(checkout, "config", "remote.origin.url", remote)
    if asked is None:
        with pytest.raises(NotKnown, match="begins with neither https:// nor ssh://"):
            origin.find()
    else:
        assert origin.find().remote == asked.format(folder=checkout)


def test_a_setting_of_git_does_not_lead_elsewhere(
    checkout: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "made"
    config = f'[url "ext::touch {made} "]\n    insteadOf = {checkout.parent}\n[protocol]\n    allow = always\n'
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".gitconfig").write_text(config)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert look(settings).problem == "its remote does not answer, or wants a password"
    assert not made.exists()


def test_the_note_of_the_installer_says_it_too(
    checkout: Path, elsewhere: Path, settings: Settings, tmp_path: Path
) -> None:
    python = [sys.executable, "-m", "bridge.ops.origin"]
    root = Path(origin.__file__).parents[2]
    written = subprocess.run([*python, checkout, "installer"], cwd=root, capture_output=True, text=True, check=True)
    note = tmp_path / "prefix" / "origin.json"
    note.write_text(written.stdout)
    (checkout / ".git").rename(checkout / "git")
    commit(elsewhere, "v1.0.0")
    news = look(settings).news
    assert news is not None
    assert news.endswith("In the checkout that it was installed from: git pull, then sudo deploy/install.sh.")
    nothing = subprocess.run([*python, checkout, "installer"], cwd=root, capture_output=True, text=True, check=True)
    assert nothing.stdout == ""
    assert "it did not come from a git checkout" in nothing.stderr
    note.write_text(nothing.stdout)
    assert look(settings).problem == "it did not come from a git checkout"


@pytest.mark.parametrize(
    "note", ["{}", "[" * 5000, '{"remote": "/x", "commit": "-x", "way": "image"}', '{"remote": 1}']
)
def test_a_spoilt_note_is_no_note(checkout: Path, settings: Settings, tmp_path: Path, note: str) -> None:
    (tmp_path / "prefix" / "origin.json").write_text(note)
    found = look(settings)
    assert found.problem is not None
    assert found.problem.startswith("the note of where it came from, origin.json,")


# --- how git is called --------------------------------------------------------------------------------

FakeGit = Callable[[str], Path]


@pytest.fixture
def fake_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGit:
    """Puts a git that does what the test says on the PATH, and no npm; returns the file of its calls."""
    note = {"remote": "https://example.com/bridge.git", "commit": "a" * 40, "way": "image"}
    (tmp_path / "prefix").mkdir()
    (tmp_path / "prefix" / "origin.json").write_text(json.dumps(note))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefix"))

    def put(does: str) -> Path:
        (tmp_path / "bin").mkdir()
        path = tmp_path / "bin" / "git"
        path.write_text(_GIT.format(python=sys.executable, calls=str(tmp_path / "calls"), does=does))
        path.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
        return tmp_path / "calls"

    return put


def test_git_gets_no_secret_asks_for_none_and_calls_no_helper(
    fake_git: FakeGit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates = tmp_path / "authority.pem"
    certificates.write_bytes(Path("/etc/ssl/certs/ca-certificates.crt").read_bytes())
    env = {"HTTPS_PROXY": "http://proxy.example:3128", "SSL_CERT_FILE": str(certificates)}
    settings = Settings.load({"BRIDGE_DATA_DIR": str(tmp_path), "BRIDGE_UPDATE_CHECK": "on", **env})
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-made-up")
    calls = fake_git(f"print({'b' * 40!r} + chr(9) + 'refs/tags/v1.3.0')")
    news = look(settings).news
    assert news == f"cli-bridge 1.3.0 is out; 0.1.0 runs here. {origin.WAYS['image']}"
    call = json.loads(calls.read_text())
    assert call["argv"][:3] == ["-c", "credential.helper=", "ls-remote"]
    assert call["argv"][3:] == ["--", "https://example.com/bridge.git", "HEAD", "refs/tags/v*"]
    assert call["cwd"] == []
    assert {name: value for name, value in call["env"].items() if name.startswith("GIT_")} == {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "",
        "GIT_ALLOW_PROTOCOL": "https:ssh:file",
        "GIT_CEILING_DIRECTORIES": call["env"]["GIT_CEILING_DIRECTORIES"],
        "GIT_SSL_CAINFO": str(certificates),
    }
    assert call["env"]["HTTPS_PROXY"] == "http://proxy.example:3128"
    assert "sk-ant-made-up" not in str(call)


@pytest.mark.parametrize(
    ("does", "why"),
    [
        ("time.sleep(600)", "git took longer than"),
        ("while True: print('x' * 100000)", "git cannot be run: it printed too much"),
        ("sys.exit(128)", "its remote does not answer, or wants a password"),
        ("print('<html>' * 1000)", "its remote has neither a release nor a default branch"),
    ],
)
def test_a_remote_that_hangs_floods_or_talks_nonsense_is_left(
    fake_git: FakeGit, settings: Settings, monkeypatch: pytest.MonkeyPatch, does: str, why: str
) -> None:
    monkeypatch.setattr(origin, "ASK_S", 3.0 if "sleep" in does else 60.0)
    fake_git(does)
    problem = look(settings).problem
    assert problem is not None
    assert why in problem


def test_without_git_it_says_so(fake_git: FakeGit, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert look(settings).problem == "git is not installed"


def test_without_a_folder_to_run_git_in_it_says_so(
    fake_git: FakeGit, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_git("")
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")
    assert look(settings).problem == "git cannot be run in a folder of its own: No such file or directory"


# --- who is told ----------------------------------------------------------------------------------------


def problems(service: Service) -> list[str]:
    """What the overview says that is to be mended."""
    headers = {"Authorization": f"Bearer {service.local_token}"}
    answer = create_app(service).test_client().get("/admin/overview", headers=headers)
    found: list[str] = answer.get_json()["problems"]
    return found


def test_the_service_asks_and_overview_doctor_and_status_tell(fake_git: FakeGit, settings: Settings) -> None:
    calls = fake_git(f"print({'b' * 40!r} + chr(9) + 'refs/tags/v1.3.0')")
    news = f"cli-bridge 1.3.0 is out; 0.1.0 runs here. {origin.WAYS['image']}"
    service = Service(settings, make_providers=demo_providers)
    book = ProgramBook(settings.data_dir)
    try:
        service.open()
        service.closers.append(upgrade.Trials(service).close)
        until = time.monotonic() + 60
        while book.read().bridge is None:
            assert time.monotonic() < until
            gevent.sleep(0.05)
        assert news in problems(service)
    finally:
        service.close()
    assert len(calls.read_text().splitlines()) == 1
    assert upgrade.bridge_status(settings)["note"] == news
    (finding,) = [each for each in clis.check(settings, probe=False) if each.what == "bridge"]
    assert (finding.level, finding.found) == ("warn", news)


def test_off_which_is_the_default_nobody_is_asked_and_nothing_is_told(
    fake_git: FakeGit, settings: Settings, tmp_path: Path
) -> None:
    calls = fake_git("")
    off = Settings.load({"BRIDGE_DATA_DIR": str(settings.data_dir)})
    with ProgramBook(settings.data_dir).change() as record:
        record.bridge = BridgeNews(1.0, "x", "1.3.0", "cli-bridge 1.3.0 is out.")
    service = Service(off, make_providers=demo_providers)
    try:
        service.open()
        service.closers.append((trials := upgrade.Trials(service)).close)
        assert len(trials._greenlets) == 1
        assert not any("1.3.0" in each for each in problems(service))
    finally:
        service.close()
    status = upgrade.bridge_status(off)
    assert (status["version"], status["newest"]) == (VERSION, None)
    assert status["note"] == "Nobody asks whether a newer cli-bridge is out: BRIDGE_UPDATE_CHECK is off."
    (finding,) = [each for each in clis.check(off, probe=False) if each.what == "bridge"]
    assert (finding.level, finding.found) == ("ok", f"version {VERSION}. {status['note']}")
    assert not calls.exists()
