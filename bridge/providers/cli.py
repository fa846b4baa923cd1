"""What all providers share whose work a CLI does: find it, check it, start it, clean up after it, say what is wrong."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import gevent
import msgspec

from bridge.clock import Clock
from bridge.errors import BridgeError, Problem
from bridge.gate.ticket import Way
from bridge.masks import masked
from bridge.providers.pool import Breaker
from bridge.providers.provider import ProviderStatus
from bridge.registry import ProviderRow
from bridge.sandbox.child import LAST_WORDS_S, Captured, Child, ChildError, capture, program
from bridge.sandbox.host import User
from bridge.sandbox.scratch import NoPlace, Scratch
from bridge.settings import Settings

if TYPE_CHECKING:
    from bridge.gate.server import Gate

#: Longest that a version or log-in check may take, in seconds.
CHECK_S = 30.0
#: First pause before a CLI that stopped working is looked at again, in seconds; doubles up to the maximum.
LOOK_AGAIN_S, MAX_LOOK_AGAIN_S = 1.0, 60.0
#: How often is looked whether its program was replaced, in seconds.
PROGRAM_LOOK_S = 20.0
#: Lines of a CLI's stderr that are logged in a minute, and characters of each that are shown.
LINES_PER_MINUTE, LINE_CHARACTERS = 20, 300
#: How many of its last lines say why it does not work.
LAST_LINES = 3

_DOCTOR = "The bridge's log shows what it printed; 'cli-bridge doctor' looks at it again."
#: Colours and the like.
_TERMINAL = re.compile(r"\x1b\[[\d;?]*[A-Za-z]")

log = logging.getLogger("bridge")


class Unfit(Exception):
    """The CLI cannot serve as it is. `problem` and `hint` are sentences for people; `said` is what it printed."""

    def __init__(self, problem: str, hint: str | None, said: str | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint
        self.said = said


class Stderr:
    """What the processes of one CLI print on stderr: for the log and the operator, never for a client.

    Secrets are masked, and of a flood only the beginning of each minute is logged.
    """

    def __init__(self, name: str, secrets: Sequence[str | None], clock: Clock) -> None:
        self._name = name
        self._secrets = secrets
        self._clock = clock
        self._minute = self._logged = self._left_out = 0

    def hear(self, line: str) -> None:
        """Log a line."""
        minute = int(self._clock.monotonic() // 60)
        if minute != self._minute:
            if self._left_out:
                log.warning("%s printed %d more lines on stderr", self._name, self._left_out)
            self._minute, self._logged, self._left_out = minute, 0, 0
        if self._logged < LINES_PER_MINUTE:
            self._logged += 1
            log.warning("%s printed: %s", self._name, self.mask(line))
        else:
            self._left_out += 1

    def mask(self, line: str) -> str:
        """A line as it may be shown: without secrets and control characters, and not too long."""
        line = _TERMINAL.sub("", line)
        line = masked(line, *self._secrets)
        plain = "".join(each if each.isprintable() else " " for each in line)
        return plain if len(plain) <= LINE_CHARACTERS else plain[:LINE_CHARACTERS] + "..."

    def summary(self, lines: Sequence[str]) -> str | None:
        """The last of some lines in one; None where there are none."""
        return " | ".join(map(self.mask, lines[-LAST_LINES:])) or None


def problem_of_start(name: str, error: ChildError) -> Problem:
    """Why a run came to nothing whose CLI did not begin."""
    if isinstance(error, NoPlace):
        message = "The bridge's host has no room for the files of a CLI."
        return Problem("overloaded", message, retry_after=MAX_LOOK_AGAIN_S)
    return Problem("cli_failed", f"The {name} CLI failed: {error}.")


class CliProvider:
    """The base of the providers: one CLI, in processes of its own. What they are given is up to each."""

    needs_credential = True
    #: the oldest version whose protocol is known to be the one spoken, and where `--version` says it
    oldest_version: tuple[int, ...] = ()
    version_pattern = ""
    #: how a person logs the CLI in
    login_command = ""
    #: how long a process is asked to end before it is killed, in seconds
    grace_s = 0.0

    def __init__(self, row: ProviderRow, settings: Settings, scratch: Scratch, clock: Clock, gate: Gate) -> None:
        """`gate` is what the calls of API keys go through; with a log-in the CLI calls its provider itself."""
        self.name = row.name
        self._gate = gate
        self._row = row
        self._settings = settings
        self._own = settings.providers[row.name]
        self.default_model = self._own.default_model
        self._login = self._own.credentials == "login"
        self._scratch = scratch
        self._clock = clock
        self._breaker = Breaker(clock)
        self._stderr = Stderr(row.name, (self._own.api_key, self._own.token), clock)
        self._command: str | None = None
        self._children: set[Child] = set()
        #: the last lines of the last process that failed
        self._said: str | None = None
        self._recovery: gevent.Greenlet[[], None] | None = None
        self._watcher: gevent.Greenlet[[], None] | None = None
        #: what its program was when it was looked at last
        self._program: tuple[int, ...] | None = None
        self._closed = False
        self._status = self._unavailable("not checked yet")

    # --- what each CLI has of its own ------------------------------------------------------------

    def _begin(self) -> None:
        """Start what is kept ready; called again after each check that went well. Raises Unfit."""

    def _ready(self) -> int:
        """How many processes stand ready."""
        return 0

    def _environment(self, home: Path) -> dict[str, str]:
        """All that the CLI gets to know of the host; nothing of the bridge's own environment."""
        return {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": str(home)}

    def _is_logged_in(self, home: Path) -> bool:
        """Whether the CLI has credentials of its own. Raises ChildError."""
        return False

    def _prepare(self, home: Path) -> None:
        """The last part of a check. Raises Unfit, ChildError, ValueError, KeyError, TypeError."""

    # --- life ------------------------------------------------------------------------------------

    def open(self) -> None:
        if not self._is_well():
            self._look_again()
        if self._watcher is None:
            self._watcher = gevent.spawn(self._watch_program)

    def _watch_program(self) -> None:
        """Look again where another program has come into its place: its version may be another."""
        while True:
            gevent.sleep(PROGRAM_LOOK_S)
            if self._stamp() != self._program:
                self._look_again()

    def _stamp(self) -> tuple[int, ...] | None:
        """By which a program that was replaced is known; None where there is none."""
        try:
            status = os.stat(program(self._own.command) or "")
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _is_well(self) -> bool:
        """Look at it now."""
        try:
            self._look()
        except Exception:
            log.exception("%s could not be looked at", self.name)
        return self._status.available

    def _look(self) -> None:
        self._program = self._stamp()
        before, status = self._status, self.check()
        if status.available and not before.available:
            # Whatever was wrong with it is mended.
            self._breaker.succeeded()
        self._status = status
        if status.available:
            try:
                self._begin()
            except Unfit as unfit:
                self._status = self._unavailable(unfit.problem, unfit.hint, unfit.said or self._said, status.version)
        if self._status.problem not in (None, before.problem):
            said = f"It printed: {self._status.said}" if self._status.said else None
            parts = (self._status.problem, said, self._status.hint)
            log.warning("%s is not available: %s", self.name, " ".join(filter(None, parts)))

    def close(self) -> None:
        self._closed = True
        self._status = self._unavailable("The bridge is stopping.")
        for greenlet in filter(None, (self._recovery, self._watcher)):
            greenlet.kill()
        children = list(self._children)
        for child in children:
            child.stop(self.grace_s)
        for child in children:
            child.wait(2)

    def status(self) -> ProviderStatus:
        return msgspec.structs.replace(self._status, warm=self._ready()).with_starts(self._breaker, self._said)

    def _refuse_if_unavailable(self) -> None:
        """Raises BridgeError cli_unavailable."""
        if not self._status.available or not self._breaker.may_try():
            raise self.status().refusal()

    def _way(self, way: Way | None) -> Way:
        """The way of a run to its model. Raises BridgeError no_credentials where it has none."""
        if way is None:
            raise BridgeError("no_credentials", f"The bridge has no credential for {self._row.vendor}.")
        return way

    def _unavailable(
        self, problem: str, hint: str | None = None, said: str | None = None, version: str | None = None
    ) -> ProviderStatus:
        return ProviderStatus(self.name, False, version, self._own.credentials, problem, hint, said)

    # --- is it there, new enough, and logged in --------------------------------------------------

    def check(self) -> ProviderStatus:
        version = None
        try:
            self._command = self._find()
            home = self._scratch.folder(f"{self.name}-check")
            try:
                version = self._version(home)
                self._check_credentials(home)
                self._prepare(home)
            finally:
                self._scratch.remove(home)
        except Unfit as unfit:
            return self._unavailable(unfit.problem, unfit.hint, unfit.said, version)
        except (ChildError, OSError, ValueError, KeyError, TypeError) as error:
            return self._unavailable(f"The {self.name} CLI cannot be run: {error}.", version=version)
        return ProviderStatus(self.name, True, version, self._own.credentials)

    def _find(self) -> str:
        found = program(self._own.command)
        if found is None:
            raise Unfit(
                f"The {self.name} CLI is not installed on the bridge.",
                f"Install it from deploy/clis and set {self._row.variable('COMMAND')} to its path.",
            )
        return found

    def _run(self, home: Path, *arguments: str) -> Captured:
        return capture(
            [str(self._command), *arguments],
            env=self._environment(home),
            cwd=self._scratch.empty,
            timeout_s=CHECK_S,
            user=self._scratch.user,
        )

    def _version(self, home: Path) -> str:
        done = self._run(home, "--version")
        found = re.search(self.version_pattern, done.output)
        if found is None and done.status != 0:
            said = self._stderr.summary(done.last_words)
            raise Unfit(f"The {self.name} CLI does not start.", "Install the tested version from deploy/clis.", said)
        if found is None:
            raise Unfit(
                f"{self._row.variable('COMMAND')} does not run the {self._row.program} CLI.",
                f"Set it to the path of the {self.name} program.",
            )
        version = found.group(1)
        if tuple(map(int, version.split("."))) < self.oldest_version:
            oldest = ".".join(map(str, self.oldest_version))
            raise Unfit(
                f"The {self.name} CLI is too old ({version}; {oldest} or newer is needed).",
                "Install the tested version from deploy/clis.",
            )
        return version

    def _check_credentials(self, home: Path) -> None:
        if self._login and not self._is_logged_in(home):
            raise Unfit(
                f"The {self.name} CLI is not logged in.",
                f"Run '{self.login_command}' as the user that the CLIs run as.",
            )

    # --- its processes ---------------------------------------------------------------------------

    def _make_home(self, files: Mapping[str, bytes] | None = None) -> Path:
        """A home for one process. Raises ChildError."""
        try:
            return self._scratch.folder(self.name, files)
        except ChildError as error:
            self._said = str(error)
            raise

    def _launch(
        self, argv: Sequence[str], env: Mapping[str, str], *, home: Path | None = None, user: User | None = None
    ) -> Child:
        """Start a process, whose `home` goes with it. Raises ChildError."""
        try:
            child = Child(argv, env=env, cwd=self._scratch.empty, user=user, hear=self._stderr.hear)
        except ChildError:
            if home is not None:
                self._scratch.remove(home)
            raise
        child.home = home
        self._children.add(child)
        gevent.spawn(self._clean_up_after, child, home)
        return child

    def _launch_program(self, arguments: Sequence[str], home: Path, more: Mapping[str, str] | None = None) -> Child:
        """Start the CLI itself in its `home`, with `more` in its environment. Raises ChildError."""
        argv = [self._command or self._own.command, *arguments]
        return self._launch(argv, {**self._environment(home), **(more or {})}, home=home, user=self._scratch.user)

    def _clean_up_after(self, child: Child, home: Path | None) -> None:
        child.wait()
        words = child.last_words()
        child.stop()
        self._children.discard(child)
        if home is not None:
            self._scratch.remove(home)
        if child.left:
            self._said = self._stderr.summary(words)
            if not child.printed:
                log.warning("%s ended before it had begun, with exit status %d", self.name, child.left)
                self._look_again()

    def _failed_start(self, child: Child, error: ChildError) -> ChildError | BridgeError:
        """What a start is called that came to nothing: cli_unavailable where the process ended by itself."""
        self._breaker.failed()
        if child.trouble is not None:
            return ChildError(child.trouble)
        child.wait(LAST_WORDS_S)
        if child.left is None:
            return error
        message = f"The {self.name} CLI does not start."
        return BridgeError("cli_unavailable", message, retry_after=self._breaker.pause_s)

    def _look_again(self) -> None:
        """It may be missing, not logged in, replaced, or the host too busy just now: look until it is well."""
        if not self._closed and (self._recovery is None or self._recovery.dead):
            self._recovery = gevent.spawn(self._recover)

    def _recover(self) -> None:
        pause_s = LOOK_AGAIN_S
        gevent.sleep(pause_s)
        while not self._is_well():
            gevent.sleep(pause_s)
            pause_s = min(2 * pause_s, MAX_LOOK_AGAIN_S)
