"""The only module that starts processes.

A `Child` is a CLI (or a helper of our own) with pipes: its own session and process group, killed by
the kernel when the bridge dies (PR_SET_PDEATHSIG through util-linux' setpriv, so that no Python runs
between fork and exec), an environment that the caller spells out in full, and no inherited
descriptors. Arguments are a list; there is no shell anywhere.
"""

from __future__ import annotations

import functools
import os
import resource
import shutil
import signal
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import gevent
import gevent.os
from gevent.subprocess import PIPE, Popen

#: Longest line that a CLI may print, in bytes; an answer with its bookkeeping is far below.
MAX_LINE_BYTES = 16 * 2**20
#: How much of stderr is kept for the error message, in bytes.
STDERR_KEPT_BYTES = 4096

_CHUNK = 65536
_LOWEST = 19


@functools.cache
def _may_raise_priority() -> bool:
    soft, _ = resource.getrlimit(resource.RLIMIT_NICE)
    return os.geteuid() == 0 or soft >= 20


class ChildError(Exception):
    """The child could not be started, went away, or printed what nobody should read."""


class Child:
    """A running process with line-oriented pipes. Belongs to one owner, who must `stop` it."""

    def __init__(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> None:
        """Start `argv[0]` (a name on PATH or a path). Raises ChildError."""
        setpriv = shutil.which("setpriv")
        guard = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
        try:
            self._popen = Popen(
                [*guard, *argv],
                env=dict(env),
                cwd=str(cwd),
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                bufsize=0,
                close_fds=True,
                start_new_session=True,
            )
        except OSError as error:
            raise ChildError(f"cannot start {argv[0]}: {error.strerror}") from error
        self.pid: int = self._popen.pid
        self._stderr: deque[bytes] = deque()
        self._stopped = False
        self._stderr_reader = gevent.spawn(self._keep_stderr)

    @property
    def alive(self) -> bool:
        """Whether the process itself still runs."""
        return self._popen.poll() is None

    @property
    def returncode(self) -> int | None:
        """Exit status; negative for a signal; None while it runs."""
        code: int | None = self._popen.poll()
        return code

    def stderr_tail(self) -> str:
        """The end of what it printed on stderr."""
        return b"".join(self._stderr)[-STDERR_KEPT_BYTES:].decode("utf-8", "replace").strip()

    def write(self, data: bytes) -> None:
        """Write all of `data`; waits (this greenlet only) while the pipe is full. Raises ChildError."""
        view = memoryview(data)
        try:
            assert self._popen.stdin is not None
            fd = self._popen.stdin.fileno()
            while view:
                view = view[gevent.os.nb_write(fd, view[:_CHUNK]) :]
        except (OSError, ValueError) as error:
            raise ChildError("the process does not read its input any more") from error

    def lines(self) -> Iterator[bytes]:
        """Each line of stdout without its newline, until the end of file.

        An unfinished last line is not a line. Raises ChildError for one above MAX_LINE_BYTES.
        Yields to other greenlets after every chunk, so that a flood cannot hold the loop.
        """
        buffer = bytearray()
        searched = 0
        while True:
            chunk = self._read(self._popen.stdout)
            if not chunk:
                return
            buffer += chunk
            start = 0
            while (end := buffer.find(b"\n", max(start, searched))) >= 0:
                yield bytes(buffer[start:end])
                start = end + 1
            del buffer[:start]
            searched = len(buffer)
            if searched > MAX_LINE_BYTES:
                raise ChildError("the process printed a line without end")
            gevent.sleep(0)

    def stop(self, grace_s: float = 0.0) -> None:
        """End the whole process group, with SIGTERM and up to `grace_s` of patience before SIGKILL.

        Returns at once; the killing, the reaping and the closing of the pipes go on behind it.
        Safe to call again.
        """
        if not self._stopped:
            self._stopped = True
            if grace_s <= 0:
                self._signal(signal.SIGKILL)
            gevent.spawn(self._finish, grace_s)

    def step_back(self) -> None:
        """Let everything else on the host go first, while it boots ahead of need.

        Only where it can be taken back: a process may always be slowed, but not always sped up again.
        """
        if _may_raise_priority():
            self._set_nice(_LOWEST)

    def step_forward(self) -> None:
        """Undo `step_back`: it has work to do now."""
        if _may_raise_priority():
            self._set_nice(0)

    def _set_nice(self, nice: int) -> None:
        try:
            # The group, so that it goes for all of its threads.
            os.setpriority(os.PRIO_PGRP, self.pid, nice)
        except OSError:
            pass

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait for the process to end; its exit status, or None after `timeout_s`."""
        try:
            code: int | None = self._popen.wait(timeout=timeout_s)
            return code
        except gevent.subprocess.TimeoutExpired:
            return None

    def _finish(self, grace_s: float) -> None:
        if grace_s > 0:
            self._signal(signal.SIGTERM)
            self.wait(grace_s)
        # Also when the leader has gone: its group may still hold children of its own.
        self._signal(signal.SIGKILL)
        self.wait()
        self._stderr_reader.kill()
        for pipe in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            try:
                if pipe is not None:
                    pipe.close()
            except OSError:
                pass

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            pass

    def _keep_stderr(self) -> None:
        kept = 0
        while chunk := self._read(self._popen.stderr):
            self._stderr.append(chunk)
            kept += len(chunk)
            while kept - len(self._stderr[0]) > STDERR_KEPT_BYTES:
                kept -= len(self._stderr.popleft())
            gevent.sleep(0)

    @staticmethod
    def _read(pipe: object) -> bytes:
        try:
            data: bytes = gevent.os.nb_read(pipe.fileno(), _CHUNK)  # type: ignore[attr-defined]
            return data
        except (OSError, ValueError):
            return b""


def program(name: str) -> str | None:
    """The absolute path of a program, given by name or path; None where there is none that can be run.

    Absolute, because a child starts in a folder of its own.
    """
    found = shutil.which(name)
    return None if found is None else os.path.abspath(found)


def capture(argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, timeout_s: float) -> tuple[int | None, str]:
    """Run a short command to its end; (exit status or None after `timeout_s`, its stdout).

    For version and log-in checks only. Raises ChildError where it cannot be started.
    """
    child = Child(argv, env=env, cwd=cwd)
    output: list[bytes] = []
    reader = gevent.spawn(lambda: output.extend(child.lines()))
    code = child.wait(timeout_s)
    reader.join(1)
    reader.kill()
    child.stop()
    return code, b"\n".join(output).decode("utf-8", "replace")
