"""The only module that starts processes.

A `Child` is a CLI (or a helper of our own) with pipes: its own session and process group, killed by
the kernel when the bridge dies (PR_SET_PDEATHSIG through util-linux' setpriv, so that no Python runs
between fork and exec), an environment that the caller spells out in full, and no inherited
descriptors. Arguments are a list; there is no shell anywhere.

It is started with posix_spawn, not with Popen: a fork copies the server's page tables, during which
every request stands still (5 to 14 ms measured, against less than 1 ms).
"""

from __future__ import annotations

import functools
import logging
import os
import resource
import shutil
import signal
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import gevent
import gevent.event
import gevent.os
import gevent.socket
from gevent.fileobject import FileObjectPosix
from gevent.lock import BoundedSemaphore

from bridge.sandbox import host, keeper
from bridge.sandbox.host import User
from bridge.types import Tap

#: Longest line that a CLI may print, in bytes; an answer with its bookkeeping is far below.
MAX_LINE_BYTES = 16 * 2**20
#: The most that a short command may print, in bytes: codex' list of its models has half a megabyte.
MOST_CAPTURED_BYTES = 8 * 2**20
#: How much is kept of the beginning and of the end of a line that is passed over, in bytes.
LINE_ENDS_BYTES = 2048
#: How many lines of stderr are kept, and the longest that one may be, in bytes.
STDERR_LINES, STDERR_LINE_BYTES = 10, 2000
#: Largest file that a CLI may write, in bytes: its home lies in memory.
FILE_BYTES = 256 * 2**20
#: Most open files of a CLI.
OPEN_FILES = 4096
#: Most processes and threads of the CLIs' own user; a CLI has about 30. (Where the CLIs share the service's
#: user, its other processes would count as well, so only the watch of keeper.py holds there.)
TASKS = 2000
#: If memory runs out, the kernel ends a CLI first, and not the service: see proc(5), oom_score_adj.
OOM_SCORE = 500
#: How long the pipes of an ended process are read for what is still in them, in seconds.
LAST_WORDS_S = 1.0

#: The descriptor by which a child finds a program that has no path any more.
_PROGRAM = 3
_CHUNK = 65536
_YIELD_BYTES = 4 * _CHUNK
#: How long a reader lets others go on, in seconds. Not 0: gevent's loop then looks at timers and sockets only once in
#: fifty times (seen with 26.9: a flood of short lines held it for ten seconds).
_YIELD_S = 0.001
_LOWEST = 19
_CAP_SYS_NICE = 1 << 23
_CAP_SETPCAP = 1 << 8
#: The processes that were started here and not reaped yet.
_started: dict[int, Child] = {}


@functools.cache
def _may_raise_priority() -> bool:
    soft, _ = resource.getrlimit(resource.RLIMIT_NICE)
    return soft >= 20 or bool(host.capabilities() & _CAP_SYS_NICE)


log = logging.getLogger("bridge")


class ChildError(Exception):
    """The child could not be started, went away, or printed more than can be read. Its text may reach a client: it
    names no path."""


class Child:
    """A running process with line-oriented pipes. Belongs to one owner, who must `stop` it."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        user: User | None = None,
        powerless: bool = False,
        file: int | None = None,
        file_bytes: int = FILE_BYTES,
        hear: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Start `argv[0]` (a name on PATH or a path), as `user` if one is given; `powerless`: without any
        capabilities, whoever that is. `file`: a descriptor of the program, which is started instead of what is at that
        path now. `file_bytes`: the largest file that it may write. `hear` gets each line of its stderr as it comes,
        bounded, and must not block. Raises ChildError."""
        try:
            outside, inside = _pipes()
        except OSError as error:
            raise ChildError(f"cannot start {os.path.basename(argv[0])}: {error.strerror}") from error
        try:
            keeper.adopt()
            _keep_watch()
            hub = gevent.get_hub()
            hub.loop.install_sigchld()
            at = argv if file is None else [f"/proc/self/fd/{_PROGRAM}", *argv[1:]]
            command = _guarded(at, cwd, user, file_bytes, powerless=powerless)
            self.pid = os.posix_spawn(
                command[0],
                command,
                {**env, keeper.MARK: str(os.getpid())},
                file_actions=[
                    *((os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(inside)),
                    *((os.POSIX_SPAWN_CLOSE, fd) for fd in _inheritable()),
                    *([] if file is None else [(os.POSIX_SPAWN_DUP2, file, _PROGRAM)]),
                ],
                setsid=True,
                # Python ignores these; a child would inherit that.
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
            )
        except OSError as error:
            for fd in outside:
                os.close(fd)
            raise ChildError(f"cannot start {os.path.basename(argv[0])}: {error.strerror}") from error
        finally:
            for fd in inside:
                os.close(fd)
        stdin, stdout, self._stderr_fd = outside
        # Objects, not numbers: closing them wakes who waits for room or for bytes. Who slept on through the close would
        # wake when the number is another process's, and write or read there.
        self._stdin = FileObjectPosix(stdin, "wb", bufsize=0)
        self._stdout = FileObjectPosix(stdout, "rb", bufsize=0)
        _started[self.pid] = self
        self.program = os.path.basename(argv[0])
        #: the folder that it cannot do without, if there is one
        self.home: Path | None = None
        #: why the watch has ended it
        self.trouble: str | None = None
        #: where set, a line above MAX_LINE_BYTES is no error, but passed over, and this gets its beginning and its end:
        #: of a process that serves many, it may be about one of them
        self.pass_over: Callable[[bytes, bytes], None] | None = None
        self._exit: gevent.event.AsyncResult[int] = gevent.event.AsyncResult()
        self._watcher = hub.loop.child(self.pid)
        self._watcher.start(self._note_exit)
        #: its exit status, once it has ended by itself; negative for a signal that was not ours
        self.left: int | None = None
        #: whether it has printed something that was read
        self.printed = False
        self._hear = hear
        #: hears all that it is told and says, while somebody wants that
        self.tap: Tap | None = None
        self._stderr: deque[str] = deque(maxlen=STDERR_LINES)
        self._stopped = False
        self._write_turn = BoundedSemaphore(1)
        #: whether somebody has begun to read its lines, and is at their end
        self._is_read = False
        self._read_out = gevent.event.Event()
        self._lines = self._split_lines()
        self._stderr_reader = gevent.spawn(self._keep_stderr)

    def _note_exit(self) -> None:
        # The loop has reaped it; its process id may be anybody's from now on.
        _started.pop(self.pid, None)
        status = os.waitstatus_to_exitcode(self._watcher.rstatus)
        # Its pipes may have closed, and it been stopped for that, a moment before this.
        if not self._stopped or status not in (-signal.SIGKILL, -signal.SIGTERM):
            self.left = status
        self._exit.set(status)
        self._watcher.stop()
        self._watcher.close()

    @property
    def alive(self) -> bool:
        """Whether the process itself still runs, and was not stopped from here."""
        return not self._stopped and not self._exit.ready()

    @property
    def fit(self) -> bool:
        """Whether it is alive, and has its home still: the host may clear that away."""
        return self.alive and (self.home is None or os.path.isdir(self.home))

    def last_words(self) -> list[str]:
        """The last lines that it printed on stderr; for one that has ended, all that is still in the pipe is read."""
        if self._exit.ready():
            self._stderr_reader.join(LAST_WORDS_S)
        return list(self._stderr)

    def write(self, data: bytes) -> None:
        """Write all of `data` in one piece, whatever else is written; waits (this greenlet only) while the
        pipe is full. Raises ChildError."""
        if self.tap is not None:
            self.tap("bridge", "cli", data)
        view = memoryview(data)
        try:
            with self._write_turn:
                while view:
                    view = view[self._stdin.write(view[:_CHUNK]) :]
        except (OSError, ValueError) as error:
            raise ChildError("the process does not read its input any more") from error

    def lines(self) -> Iterator[bytes]:
        """Each line of stdout without its newline, until the end of file. The same iterator at each call: a reader
        goes on where the one before it has stopped.

        An unfinished last line is not a line. Raises ChildError for one above MAX_LINE_BYTES, or passes it over.
        Yields to other greenlets now and then, so that a flood cannot hold the loop.
        """
        return self._lines

    def await_word(self, timeout_s: float) -> None:
        """Wait until it has printed something, or ended, at most `timeout_s`."""
        if not self.printed and not self._stdout.closed:
            try:
                gevent.socket.wait_read(self._stdout.fileno(), timeout_s)
            except OSError:
                pass  # the time is up, or it was stopped

    def _split_lines(self) -> Iterator[bytes]:
        self._is_read = True
        buffer = bytearray()
        searched = since_yield = 0
        #: beginning and end of the line that is passed over
        head = tail = b""
        while True:
            try:
                chunk = self._stdout.read(_CHUNK)
            except (OSError, ValueError):
                chunk = b""  # it was closed
            if not chunk:
                self._read_out.set()
                return
            self.printed = True
            buffer += chunk
            start = 0
            while (end := buffer.find(b"\n", max(start, searched))) >= 0:
                if head and self.pass_over is not None:
                    self.pass_over(head, (tail + buffer[:end])[-LINE_ENDS_BYTES:])
                else:
                    line = bytes(buffer[start:end])
                    if self.tap is not None:
                        self.tap("cli", "bridge", line)
                    yield line
                head = b""
                start = end + 1
            del buffer[:start]
            searched = len(buffer)
            if head or searched > MAX_LINE_BYTES:
                if self.pass_over is None:
                    raise ChildError("the process printed a line without end")
                head = head or bytes(buffer[:LINE_ENDS_BYTES])
                tail = (tail + buffer[-LINE_ENDS_BYTES:])[-LINE_ENDS_BYTES:]
                buffer.clear()
                searched = 0
            # Small pieces come one by one, with everybody's turn between them; a flood has to be told.
            since_yield += len(chunk)
            if since_yield > _YIELD_BYTES:
                since_yield = 0
                gevent.sleep(_YIELD_S)

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

    def step_back(self, *, for_good: bool = False) -> None:
        """Let everything else on the host go first: while it boots ahead of need, or for good.

        Only where it can be taken back: a process may always be slowed, but not always sped up again.
        """
        if for_good or _may_raise_priority():
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
            return self._exit.get(timeout=timeout_s)
        except gevent.Timeout:
            return None

    def _finish(self, grace_s: float) -> None:
        if grace_s > 0:
            self._signal(signal.SIGTERM)
            self.wait(grace_s)
        # Also when the leader has gone: its group may still hold children of its own.
        self._signal(signal.SIGKILL)
        self.wait()
        keeper.end_orphans(_started)
        # What it printed last is still read, but a daemon that it left may hold the pipes open for ever. Where it was
        # stopped, nobody wants more of its lines.
        self._stderr_reader.join(LAST_WORDS_S)
        if self._is_read and self.left is not None:
            self._read_out.wait(LAST_WORDS_S)
        self._stderr_reader.kill()
        stderr, self._stderr_fd = self._stderr_fd, -1
        os.close(stderr)
        for pipe in (self._stdin, self._stdout):
            try:
                pipe.close()
            except OSError:
                pass

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            pass

    def _keep_stderr(self) -> None:
        rest = b""
        while chunk := _read(self._stderr_fd):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._note(line)
            # More of a line than this is not kept, but it has to be known that there was more.
            rest = rest[: STDERR_LINE_BYTES + 1]
            gevent.sleep(_YIELD_S)
        self._note(rest)

    def _note(self, line: bytes) -> None:
        """Keep a line of stderr. One that is too long is cut between two words, so that no part of a secret is kept
        that would not be known as one."""
        text = line[:STDERR_LINE_BYTES].decode("utf-8", "replace")
        if len(line) > STDERR_LINE_BYTES:
            text = text.rpartition(" ")[0] + " ..."
        if text.strip():
            self._stderr.append(text.strip())
            self._hear(text.strip())
            if self.tap is not None:
                self.tap("cli", "stderr", line)


def _guarded(
    argv: Sequence[str], cwd: Path, user: User | None, file_bytes: int = FILE_BYTES, *, powerless: bool = False
) -> list[str]:
    """`argv` with everything that is set up before it, in the folder `cwd`: who it runs as, what it may use, and
    that it dies with the bridge.

    Small programs of util-linux and coreutils do it one after the other in the new process (each replaces itself
    by the next), so that no Python runs between fork and exec.
    """
    limits = ["--core=0:0", f"--fsize={file_bytes}", f"--nofile={OPEN_FILES}"]
    if user is not None:
        limits.append(f"--nproc={TASKS}")
    return [
        *_if_there("choom", "-n", str(OOM_SCORE), "--"),
        *_if_there("prlimit", *limits, "--"),
        *_if_there("setpriv", *_identity(user, powerless), "--no-new-privs", "--pdeathsig", "KILL", "--"),
        *("/usr/bin/env", "-C", os.fspath(cwd)),
        *argv,
    ]


def _identity(user: User | None, powerless: bool) -> list[str]:
    options = ["--inh-caps=-all", "--ambient-caps=-all"] if powerless or user is not None else []
    if powerless and host.capabilities() & _CAP_SETPCAP:
        # Root gets back at each exec what is in its bounding set.
        options.append("--bounding-set=-all")
    if user is not None:
        options += ["--reuid", str(user.uid), "--regid", str(user.gid), "--clear-groups"]
    return options


@functools.cache
def _installed(name: str) -> str | None:
    return shutil.which(name)


def _if_there(name: str, *arguments: str) -> list[str]:
    path = _installed(name)
    return [] if path is None else [path, *arguments]


def _inheritable() -> list[int]:
    """Descriptors that a child would get. There should be none, but a library may have opened one so."""
    found = []
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            if fd > 2 and os.get_inheritable(fd):
                found.append(fd)
        except OSError:
            continue
    return found


@functools.cache
def _keep_watch() -> None:
    gevent.spawn(keeper.keep_watch, lambda: _started, _end_for)


def _end_for(pid: int, why: str) -> None:
    child = _started.get(pid)
    if child is not None:
        log.warning("%s (process %d) was ended: %s", child.program, pid, why)
        child.trouble = why
        child.stop()


def _read(fd: int) -> bytes:
    try:
        data: bytes = gevent.os.nb_read(fd, _CHUNK)
        return data
    except OSError:
        return b""


def _pipes() -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Three pipes, as (our ends, the child's ends) of stdin, stdout and stderr. Ours do not block."""
    made: list[tuple[int, int]] = []
    try:
        for _ in range(3):
            made.append(os.pipe())
    except OSError:
        for fd in (fd for pair in made for fd in pair):
            os.close(fd)
        raise
    (stdin_in, stdin_out), (out_in, out_out), (err_in, err_out) = made
    ours = (stdin_out, out_in, err_in)
    for fd in ours:
        gevent.os.make_nonblocking(fd)
    return ours, (stdin_in, out_out, err_out)


def program(name: str) -> str | None:
    """The absolute path of a program, given by name or path; None where there is none that can be run.

    Absolute, because a child starts in a folder of its own.
    """
    found = shutil.which(name)
    return None if found is None else os.path.abspath(found)


class Captured(NamedTuple):
    """What came of a short command: its exit status (None if it took too long), its stdout, and the last lines of
    its stderr."""

    status: int | None
    output: str
    last_words: list[str]


def capture(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    timeout_s: float,
    user: User | None = None,
    file: int | None = None,
    file_bytes: int = FILE_BYTES,
) -> Captured:
    """Run a short command to its end, at most `timeout_s`: version and log-in checks, and what npm does.

    Raises ChildError where it cannot be started, or prints more than anything that is asked for.
    """
    child = Child(argv, env=env, cwd=cwd, user=user, file=file, file_bytes=file_bytes)
    output: list[bytes] = []

    def read() -> None:
        left = MOST_CAPTURED_BYTES
        try:
            for line in child.lines():
                left -= len(line) + 1
                if left < 0:
                    raise ChildError("it printed too much")
                output.append(line)
        except ChildError as error:
            child.trouble = str(error)
            child.stop()

    reader = gevent.spawn(read)
    try:
        status = child.wait(timeout_s)
        reader.join(1)
        if child.trouble is not None:
            raise ChildError(child.trouble)
        return Captured(status, b"\n".join(output).decode("utf-8", "replace"), child.last_words())
    finally:
        reader.kill()
        child.stop()
