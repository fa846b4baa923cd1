"""The full screen of `cli-bridge top` at a terminal of its own, against a real server."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import server as servers
from tests.support.server import Server

ASK = {"userPrompt": "Hello"}


class Terminal:
    """A command as the leader of a session with a terminal of its own."""

    def __init__(self, server: Server, *arguments: str, size: tuple[int, int] = (100, 30), **env: str) -> None:
        self.ours, theirs = pty.openpty()
        self.resize(*size)
        #: kept open, so that the settings can be read after its end
        self.theirs = theirs
        self.before = termios.tcgetattr(theirs)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bridge", *arguments],
            env={**server.env, "TERM": "xterm-256color", **env},
            cwd=server.data_dir.parent,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            preexec_fn=lambda: (os.setsid(), fcntl.ioctl(0, termios.TIOCSCTTY, 0)),
        )
        self.shown = ""

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def press(self, keys: bytes) -> None:
        os.write(self.ours, keys)

    def wait_for(self, text: str, timeout_s: float = 60) -> None:
        """Until it has been written, since the last call."""
        deadline = time.monotonic() + timeout_s
        while text not in _words(self.shown):
            assert time.monotonic() < deadline, f"no {text!r} in {_words(self.shown)[-3000:]!r}"
            self._read(0.2)
        self.shown = ""

    def end(self, timeout_s: float = 30) -> int:
        """The exit status; what is written meanwhile is read."""
        deadline = time.monotonic() + timeout_s
        while self.process.poll() is None:
            assert time.monotonic() < deadline, "it does not end"
            self._read(0.02)
        self._read(0.1)
        return self.process.returncode

    def _read(self, wait_s: float) -> None:
        while select.select([self.ours], [], [], wait_s)[0]:
            self.shown += os.read(self.ours, 65536).decode(errors="replace")
            wait_s = 0

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(30)
        for end in (self.ours, self.theirs):
            with contextlib.suppress(OSError):
                os.close(end)


def _words(written: str) -> str:
    """What was written without what moves the cursor and colours."""
    return re.sub(r"\x1b\[[0-9;:?<>=]*[a-zA-Z]|\x1b[()][A-Z0-9]|\x1b.", "", written)


@pytest.fixture
def terminal(server: Server) -> Iterator[Terminal]:
    found = Terminal(server, "top", "-d", "0.5")
    found.wait_for("GREEN")
    yield found
    found.close()


def restored(terminal: Terminal) -> bool:
    """Whether the terminal is as it was: its settings, its cursor, its first screen, no mouse, no pasting."""
    last = {mode: terminal.shown.rfind(f"\x1b[?{mode}") for mode in ("25h", "1049l", "1000l", "2004l")}
    return termios.tcgetattr(terminal.theirs) == terminal.before and min(last.values()) >= 0


@pytest.mark.parametrize(("keys", "status"), [(b"q", 0), (b"\x03", 0)], ids=["q", "ctrl-c"])
def test_it_ends_and_leaves_the_terminal_as_it_was(terminal: Terminal, keys: bytes, status: int) -> None:
    terminal.press(keys)
    assert terminal.end() == status
    assert restored(terminal)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM], ids=str)
def test_a_signal_ends_it_in_order(terminal: Terminal, number: int) -> None:
    terminal.process.send_signal(number)
    assert terminal.end() == 128 + number
    assert restored(terminal)


def test_it_goes_with_its_terminal(server: Server) -> None:
    terminal = Terminal(server, "top")
    try:
        terminal.wait_for("GREEN")
        os.close(terminal.theirs)
        os.close(terminal.ours)
        assert terminal.process.wait(5) != 0
    finally:
        terminal.close()


def test_it_follows_what_happens_and_the_size(server: Server, terminal: Terminal) -> None:
    key = server.new_key("late-comer")
    terminal.press(b"4")
    terminal.wait_for("4 Log")
    server.call("POST", "/generate", ASK, key=key)
    terminal.wait_for("late-comer")
    terminal.resize(140, 40)
    terminal.wait_for("3 Keys")
    terminal.resize(50, 10)
    terminal.wait_for("too small")
    terminal.press(b"q")
    assert terminal.end() == 0


def test_a_run_is_stopped_from_it_and_that_is_in_the_audit(tmp_path: Path) -> None:
    import threading

    with servers.running(tmp_path, {"DEMO_PACE_SECONDS": "0.5"}, demo=True) as server:
        key = server.new_key("ada")
        asked = threading.Thread(target=server.call, args=("POST", "/generate", ASK), kwargs={"key": key})
        asked.start()
        terminal = Terminal(server, "top", "-d", "0.5")
        try:
            terminal.wait_for("running")
            terminal.press(b"x")
            terminal.wait_for("of ada?")
            terminal.press(b"y")
            asked.join(30)
            assert server.admin("GET", "/logs").json["logs"][0]["code"] == "cancelled"
            last = server.admin("GET", "/audit").json["audit"][0]
            assert (last["action"], last["actor"]) == ("run_stopped", "command line")
            terminal.press(b"q")
            assert terminal.end() == 0
        finally:
            terminal.close()


def test_from_elsewhere_with_a_key_that_is_no_longer_right_it_says_so_and_ends(tmp_path: Path) -> None:
    first = servers.start(tmp_path, demo=True)
    file = tmp_path / "key"
    file.write_text(servers.ADMIN_KEY)
    url = f"http://127.0.0.1:{first.port}"
    terminal = Terminal(first, "top", "-d", "0.5", "--url", url, "--key-file", str(file), BRIDGE_DATA_DIR="/none")
    try:
        terminal.wait_for("GREEN")
        first.stop()
        terminal.wait_for("cannot be reached")
        env = {"BRIDGE_ADMIN_KEY": "another-admin-key-0123", "BRIDGE_PORT": str(first.port)}
        with servers.running(tmp_path, env, demo=True):
            assert terminal.end(60) == 1
        assert "This is not the admin key." in terminal.shown
        assert restored(terminal)
    finally:
        terminal.close()


def test_without_the_library_it_says_what_to_install_and_prints_once(server: Server, tmp_path: Path) -> None:
    (tmp_path / "textual.py").write_text("raise ModuleNotFoundError('no textual', name='textual')\n")
    terminal = Terminal(server, "top", PYTHONPATH=f"{tmp_path}:{servers.ROOT}")
    try:
        assert terminal.end() == 0
        assert "pip install 'cli-bridge[top]'" in terminal.shown
        assert "Runs (0 running, 0 queued)" in terminal.shown
    finally:
        terminal.close()
