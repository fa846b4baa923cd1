"""What a CLI may use, who it runs as, and what happens to one that does not start."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bridge.errors import SettingsError
from bridge.providers.claude import ClaudeProvider
from bridge.sandbox import child as child_module
from bridge.sandbox import host, keeper
from bridge.sandbox.child import Child, capture
from bridge.sandbox.host import User
from bridge.sandbox.scratch import Scratch
from tests.engine.harness import complete, fail, until

ENV = {"PATH": "/usr/bin:/bin"}


# --- memory and processes -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "why"),
    [("memory megabytes=120", "too much memory"), ("forks count=100]][[fake hang", "too many processes")],
)
def test_a_cli_that_takes_too_much_is_ended_and_the_error_says_why(
    claude: ClaudeProvider, monkeypatch: pytest.MonkeyPatch, order: str, why: str
) -> None:
    monkeypatch.setattr(keeper, "MOST_BYTES", 100 * 2**20)
    assert why in fail(claude, f"[[fake {order}]]").problem.message
    assert complete(claude, "hello").answer.text == "echo: hello"


def test_the_kernel_keeps_the_bounds_that_it_can() -> None:
    code, text, _ = capture(
        ["cat", "/proc/self/limits", "/proc/self/oom_score_adj"], env=ENV, cwd=Path("/"), timeout_s=10
    )
    assert code == 0
    limits = {line[:26].strip(): line[26:].split()[:2] for line in text.splitlines()}
    assert limits["Max core file size"] == ["0", "0"]
    assert limits["Max file size"] == [str(child_module.FILE_BYTES)] * 2
    assert limits["Max open files"] == [str(child_module.OPEN_FILES)] * 2
    assert text.splitlines()[-1] == str(child_module.OOM_SCORE)
    code, text, _ = capture(["cat", "/proc/self/status"], env=ENV, cwd=Path("/"), timeout_s=10)
    assert "NoNewPrivs:\t1" in text


def test_memory_is_read_from_the_host_and_from_its_control_group() -> None:
    assert 0 < host.available_bytes() <= host.total_bytes() * 1.01
    assert not host.has_room(10**6)


@pytest.mark.parametrize(
    ("line", "folder", "limit", "used", "prefix"),
    [
        ("0::/bridge", "", "memory.max", "memory.current", ""),
        ("4:memory:/bridge", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    ],
    ids=["version 2", "version 1"],
)
def test_a_control_groups_limit_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, folder: str, limit: str, used: str, prefix: str
) -> None:
    (tmp_path / "own").write_text(f"2:cpu:/elsewhere\n{line}\n")
    monkeypatch.setattr(host, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(host, "_CGROUP", tmp_path)
    own = tmp_path / folder / "bridge"
    own.mkdir(parents=True)
    (own / limit).write_text("300000000\n")
    (own / used).write_text("250000000\n")
    (own / "memory.stat").write_text(f"anon 1\n{prefix}active_file 10000000\n{prefix}inactive_file 20000000\n")
    assert host.total_bytes() == 300_000_000
    assert host.available_bytes() == 80_000_000
    assert not host.has_room()
    assert not host.is_short()
    # A limit of the group above holds as well; one that is as good as none is none.
    (own / limit).write_text("max\n" if line.startswith("0") else "9223372036854771712\n")
    assert host.total_bytes() > 300_000_000
    for name in (limit, used):
        (own.parent / name).write_text("200000000\n")
    (own.parent / "memory.stat").write_text("")
    assert host.total_bytes() == 200_000_000
    assert host.available_bytes() == 0
    assert host.is_short()


# --- another user -------------------------------------------------------------------------------


@pytest.fixture
def nobody() -> User:
    """A user that exists everywhere."""
    entry = pwd.getpwnam("nobody")
    return User("nobody", entry.pw_uid, entry.pw_gid, Path(entry.pw_dir))


@pytest.fixture
def theirs(nobody: User) -> Iterator[Scratch]:
    # As the unit of systemd sets it.
    before = os.umask(0o077)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Scratch(Path(folder), nobody if os.geteuid() == 0 else None)
        yield scratch
        scratch.clear()
        assert not scratch.path.exists()
    os.umask(before)


def test_who_the_clis_run_as_is_known_at_the_start(monkeypatch: pytest.MonkeyPatch, nobody: User) -> None:
    with pytest.raises(SettingsError, match="does not exist"):
        host.find_user("nobody-has-this-name")
    assert host.find_user(pwd.getpwuid(os.geteuid()).pw_name) is None
    if os.geteuid() == 0:
        assert host.find_user("nobody") == nobody
        assert "run as root" in (host.user_warning(None) or "")
    monkeypatch.setattr(host, "capabilities", lambda: 0)
    if os.geteuid() != nobody.uid:
        with pytest.raises(SettingsError, match="may change users"):
            host.find_user("nobody")


def test_without_a_user_of_their_own_the_clis_run_as_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "DEFAULT_USER", "nobody-has-this-name")
    assert host.find_user(None) is None


def test_a_cli_runs_as_its_user_with_a_home_of_its_own_and_nothing_else(theirs: Scratch) -> None:
    home = theirs.folder("claude")
    uid = theirs.user.uid if theirs.user else os.geteuid()
    assert home.stat().st_uid == uid
    script = [
        "sh",
        "-c",
        'umask; id -u; mkdir -p "$HOME/a/b"; echo x > "$HOME/a/b/c"; cat /proc/self/status; touch new',
    ]
    code, text, _ = capture(script, env={**ENV, "HOME": str(home)}, cwd=theirs.empty, timeout_s=10, user=theirs.user)
    assert text.splitlines()[1] == str(uid)
    assert (home / "a/b/c").read_text() == "x\n"
    if theirs.user is not None:
        assert code != 0  # it may not write where it stands
        assert f"Groups:\t{theirs.user.gid}" in text or "Groups:\t \n" in text or "Groups:\t\n" in text
        for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            assert f"{kind}:\t0000000000000000" in text
    theirs.remove(home)
    assert not home.exists()


def test_a_cli_reads_the_files_that_are_for_all_and_its_own(theirs: Scratch) -> None:
    for content in (b"first\n", b"second\n"):  # codex is looked at again when it was not well
        shared = theirs.shared_file("models.json", content)
    home = theirs.folder("claude", {".claude.json": b"own\n"})
    script = ["sh", "-c", f'cat {shared} "$HOME/.claude.json"; echo more > "$HOME/.claude.json"; ls ..']
    code, text, _ = capture(script, env={**ENV, "HOME": str(home)}, cwd=theirs.empty, timeout_s=10, user=theirs.user)
    assert text.splitlines()[:2] == ["second", "own"]
    assert (home / ".claude.json").read_text() == "more\n"
    if theirs.user is not None:
        assert code != 0  # it may walk through the folder, and not look at it


def test_another_users_process_is_stopped_with_all_that_it_started(theirs: Scratch) -> None:
    child = Child(["sh", "-c", "setsid sleep 300 & sleep 300 & wait"], env=ENV, cwd=theirs.empty, user=theirs.user)
    assert until(lambda: len(psutil.Process(child.pid).children(recursive=True)) == 2)
    family = psutil.Process(child.pid).children(recursive=True)
    child.stop()
    child.wait()
    assert until(lambda: not any(process.is_running() for process in family))


def test_another_users_process_dies_with_the_server(theirs: Scratch, tmp_path: Path) -> None:
    who = theirs.user
    script = (
        "import gevent.monkey; gevent.monkey.patch_all()\n"
        "import os, signal\nfrom pathlib import Path\n"
        "from bridge.sandbox.child import Child\nfrom bridge.sandbox.host import User\n"
        f"who = {None if who is None else (who.name, who.uid, who.gid)!r}\n"
        "user = who and User(*who, Path('/'))\n"
        "child = Child(['sleep', '300'], env={'PATH': '/usr/bin:/bin'}, cwd=Path('/'), user=user)\n"
        "import gevent; gevent.sleep(0.5)\n"
        "print(child.pid, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, timeout=30)
    pid = int(done.stdout)
    deadline = time.monotonic() + 5
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- leavings of a killed server ----------------------------------------------------------------


def test_what_a_killed_server_left_running_is_ended_by_the_next(tmp_path: Path) -> None:
    path = Scratch(tmp_path).path
    marked = {**ENV, "CLI_BRIDGE_CHILD_OF": "1", "HOME": str(path / "claude-x")}
    left = subprocess.Popen(["sleep", "300"], env=marked, start_new_session=True)
    other = subprocess.Popen(["sleep", "300"], env={**marked, "HOME": "/elsewhere"}, start_new_session=True)
    try:
        Scratch(tmp_path).clear()
        assert left.wait(5) == -9
        assert other.poll() is None
    finally:
        for process in (left, other):
            process.kill()
            process.wait()


@pytest.mark.parametrize("kind", ["folder", "link", "file"])
def test_what_somebody_else_put_in_its_place_does_not_keep_the_service_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    mine = Scratch(tmp_path).path
    Scratch(tmp_path).clear()
    if kind == "folder":
        mine.mkdir()
    elif kind == "link":
        mine.symlink_to("/etc")
    else:
        mine.touch()
    if os.geteuid() == 0:
        os.chown(mine, 54321, 54321, follow_symlinks=False)
    else:
        pytest.fail("the tests of other users' files are run as root")
    try:
        other = Scratch(tmp_path)
        assert other.path != mine
        assert other.path.name.startswith(mine.name)
        assert other.path.stat().st_mode & 0o777 == 0o700
        assert other.folder("claude").is_dir()
        again = Scratch(tmp_path)
        assert not other.path.exists(), "and the next server clears it away"
        again.clear()
        assert os.path.lexists(mine), "what is not ours is left alone"
    finally:
        mine.rmdir() if kind == "folder" else mine.unlink()
