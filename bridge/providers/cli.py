"""What all providers share whose work a CLI does: find it, check it, start it, clean up after it, say what is wrong."""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import gevent
import gevent.event
import msgspec
from gevent.lock import BoundedSemaphore

from bridge.clock import Clock
from bridge.errors import BridgeError, Problem
from bridge.gate.ticket import Way
from bridge.masks import masked
from bridge.providers.pool import Breaker
from bridge.providers.programs import Program, ProgramBook, ProgramCheck, Stamp, digest_of, stamp_of
from bridge.providers.provider import ProviderStatus
from bridge.registry import ProviderRow
from bridge.sandbox.child import LAST_WORDS_S, Captured, Child, ChildError, capture, program
from bridge.sandbox.host import User
from bridge.sandbox.scratch import NoPlace, Scratch
from bridge.settings import Settings
from bridge.store.files import in_thread

if TYPE_CHECKING:
    from bridge.gate.server import Gate

#: Longest that a version or log-in check may take, in seconds.
CHECK_S = 30.0
#: First pause before a CLI that stopped working is looked at again, in seconds; doubles up to the maximum.
LOOK_AGAIN_S, MAX_LOOK_AGAIN_S = 1.0, 60.0
#: How often is looked whether its program was replaced, in seconds. What is the same at two looks is checked.
PROGRAM_LOOK_S = 10.0
#: How often a script that starts the CLI is asked which version that is by now, in seconds.
VERSION_LOOK_S = 60.0
#: Seconds after which a program that did not pass its check is checked once more: the host may have been the reason.
CHECK_AGAIN_S = 3600.0
#: Lines of a CLI's stderr that are logged in a minute, and characters of each that are shown.
LINES_PER_MINUTE, LINE_CHARACTERS = 20, 300
#: Kinds of things that a CLI says and nobody here knows, of which each is counted by itself; others are "other".
MOST_UNKNOWN = 30
#: How many of its last lines say why it does not work.
LAST_LINES = 3

#: Longest that a run waits for a program that is just being put in its place, in seconds.
OPEN_S = 10.0
#: What may be the name of a message or a field.
_WORDS = re.compile(r"[\w./-]{1,80}")
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


class Replaced(ChildError):
    """A program was written into, and what it is now was not checked yet."""


def problem_of_start(name: str, error: ChildError) -> Problem:
    """Why a run came to nothing whose CLI did not begin."""
    if isinstance(error, Replaced):
        message = f"The {name} CLI is being replaced."
        return Problem("cli_unavailable", message, retry_after=MAX_LOOK_AGAIN_S)
    if isinstance(error, NoPlace):
        message = "The bridge's host has no room for the files of a CLI."
        return Problem("overloaded", message, retry_after=MAX_LOOK_AGAIN_S)
    return Problem("cli_failed", f"The {name} CLI failed: {error}.")


class CliProvider:
    """The base of the providers: one CLI, in processes of its own. What they are given is up to each."""

    needs_credential = True
    searches = True
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
        # Without the gate nobody counts them.
        self.searches = self.searches and not self._login
        # Nor is there anything that a CLI, which might follow a link, could be kept in the dark by.
        self.takes_links = not self._login
        self._scratch = scratch
        self._clock = clock
        self._breaker = Breaker(clock)
        self._stderr = Stderr(row.name, (self._own.api_key, self._own.token), clock)
        self._book = ProgramBook(settings.data_dir)
        #: what serves, and what is being looked at
        self._program: Program | None = None
        self._candidate: Program | None = None
        #: one look at a time: after an upgrade that fails, two want to
        self._looking = BoundedSemaphore(1)
        #: says of the program at a path what is wrong with it; None where it may serve. Unset: whatever starts may.
        self.vet: Callable[[str], str | None] | None = None
        #: when that began to serve, in UTC seconds
        self._since = 0.0
        #: what was found of programs since the start, by stamp and version
        self._checks: dict[tuple[Stamp, str], ProgramCheck] = {}
        self._children: set[Child] = set()
        #: those that run a program which no new run should get
        self._outdated: set[Child] = set()
        #: the last lines of the last process that failed
        self._said: str | None = None
        self._recovery: gevent.Greenlet[[], None] | None = None
        self._watcher: gevent.Greenlet[[], None] | None = None
        #: what its processes said that is not known here -> how often
        self._unknown: Counter[str] = Counter()
        #: what was in the place of the program when it was looked at last, and when that is looked at once more
        self._seen: Stamp | None = None
        self._check_again_at = math.inf
        self._closed = False
        self._opened = gevent.event.Event()
        self._opened.set()
        self._status = self._unavailable("not checked yet")

    # --- what each CLI has of its own ------------------------------------------------------------

    def _begin(self, *, renewed: bool) -> None:
        """Start what is kept ready; called again after each check that went well. `renewed`: with another program than
        before; what stands ready is replaced, and what has a run ends after it. Raises Unfit."""

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
        self._opened.clear()
        try:
            if not self._is_well(patient=False):
                self._look_again()
        finally:
            self._opened.set()
        if self._watcher is None:
            self._watcher = gevent.spawn(self._watch_program)

    def _watch_program(self) -> None:
        """Look again where another program has come into its place, or none is there any more."""
        before, ask_at = self._seen, self._clock.monotonic() + VERSION_LOOK_S
        while True:
            gevent.sleep(PROGRAM_LOOK_S)
            now = stamp_of(self._path)
            # What is still being written is left alone.
            due = (now == before and now != self._seen) or self._clock.monotonic() >= self._check_again_at
            if not due and self._clock.monotonic() >= ask_at:
                due, ask_at = self._starts_another(), self._clock.monotonic() + VERSION_LOOK_S
            if due:
                self._look_again()
            before = now

    def _starts_another(self) -> bool:
        """Whether what serves is a script that starts another version by now: of the program behind it nobody knows.
        What does not start at all, the next run finds out."""
        with self._looking:
            if self._program is None or not self._program.is_script:
                return False
            try:
                home = self._scratch.folder(f"{self.name}-check")
                try:
                    said = self._run(home, "--version").output
                finally:
                    self._scratch.remove(home)
            except (ChildError, OSError):
                return False
            found = re.search(self.version_pattern, said)
            return found is not None and found.group(1) != self._program.version

    @property
    def _path(self) -> str:
        """Where its program is, or should be."""
        chosen = self._book.choice(self.name, self._own.command, self._row.tested)
        return chosen.program if chosen is not None else program(self._own.command) or self._own.command

    def _is_well(self, *, patient: bool) -> bool:
        """Look at it now. `patient`: there is time to check a program that is new here."""
        try:
            with self._looking:
                self._look(patient=patient)
        except Exception:
            log.exception("%s could not be looked at", self.name)
        return self._status.available

    def _look(self, *, patient: bool) -> None:
        self._seen, self._check_again_at = stamp_of(self._path), math.inf
        before, serving = self._status, self._program
        status = self.check(patient=patient)
        if status.available:
            if not before.available:
                # Whatever was wrong with it is mended.
                self._breaker.succeeded()
            self._status = status
            try:
                self._begin(renewed=self._program is not serving)
            except Unfit as unfit:
                self._status = self._unavailable(unfit.problem, unfit.hint, unfit.said or self._said, status.version)
        elif before.available and serving is not None and serving.stamp != self._seen and serving.whole:
            found = f" It printed: {status.said}" if status.said else ""
            drift = f"{status.problem}{found} Version {before.version}, which was in its place before, goes on serving."
            self._status = msgspec.structs.replace(before, drift=drift)
            if not patient:
                self._look_again()
            self._check_again_at = self._clock.monotonic() + CHECK_AGAIN_S
            if drift != before.drift:
                log.warning("%s: %s", self.name, drift)
        else:
            self._status = status
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
        if self._program is not None:
            self._program.close()
            self._program = None

    def status(self) -> ProviderStatus:
        now = msgspec.structs.replace(self._status, warm=self._ready(), unknown=dict(self._unknown))
        return now.with_starts(self._breaker, self._said)

    def _note_unknown(self, what: str) -> None:
        """Count something that a process said and that is not known here; it harms no run by itself."""
        known = what in self._unknown or len(self._unknown) < MOST_UNKNOWN
        self._unknown[what if known and _WORDS.fullmatch(what) else "other"] += 1

    def _refuse_if_unavailable(self) -> None:
        """Raises BridgeError cli_unavailable. Waits where another program is just put in the place of a bad one."""
        self._opened.wait(OPEN_S)
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

    def check(self, *, patient: bool = False) -> ProviderStatus:
        """As every provider does; where all is well, what was looked at serves from now on. `patient`: a program that
        is new here is checked for as long as that takes."""
        version = None
        try:
            self._candidate = Program(self._find())
            home = self._scratch.folder(f"{self.name}-check")
            try:
                version = self._candidate.version = self._version(home)
                self._admit(self._candidate, version, patient=patient)
                self._check_credentials(home)
                self._prepare(home)
            finally:
                self._scratch.remove(home)
            self._take(self._candidate, version)
            self._candidate = None
        except Unfit as unfit:
            return self._unavailable(unfit.problem, unfit.hint, unfit.said, version)
        except (ChildError, OSError, ValueError, KeyError, TypeError) as error:
            return self._unavailable(f"The {self.name} CLI cannot be run: {error}.", version=version)
        finally:
            if self._candidate is not None:
                self._candidate.close()
                self._candidate = None
        return ProviderStatus(self.name, True, version, self._own.credentials, since=self._since)

    def _take(self, program: Program, version: str) -> None:
        """Serve with that program from now on."""
        before, self._program = self._program, program
        since, self._since = self._since, self._clock.now()
        if before is not None:
            if before.is_same(program):
                self._program, self._since = before, since
                program.close()
                return
            self._outdated |= self._children
            before.close()
            # What the one before did says nothing about this one.
            self._breaker.succeeded()
        if self.vet is not None and self._known(program) is None:
            gevent.spawn(self._remember, program.stamp, version)

    def _admit(self, candidate: Program, version: str, *, patient: bool) -> None:
        """Let a program pass that is the tested one, serves already, or does what is relied on. Raises Unfit, OSError,
        ValueError."""
        serving = self._program
        if self.vet is None or (serving is not None and serving.is_same(candidate)):
            return
        known = self._known(candidate)
        if known is None and serving is None and version == self._row.tested:
            return
        if known is None or (known.problem and self._clock.now() - known.at > CHECK_AGAIN_S):
            if not patient:
                problem = f"The {self.name} CLI {version} is new here, so it is checked before it serves."
                raise Unfit(problem, "Wait for half a minute.")
            log.warning("%s %s is new here, and is checked before it serves", self.name, version)
            digest = in_thread(digest_of, candidate.path)
            found = None if self._book.passed(self.name, digest, version) else self.vet(candidate.path)
            if not candidate.in_place:
                raise Unfit(f"The {self.name} CLI is being replaced.", "It is looked at again by itself.")
            known = self._note(ProgramCheck(self.name, version, self._clock.now(), digest, candidate.stamp, found))
        if known.problem:
            problem = f"The {self.name} CLI {version} does not do what the bridge relies on: {known.problem}"
            raise Unfit(problem, "Install the tested version from deploy/clis.")

    def _known(self, program: Program) -> ProgramCheck | None:
        """What was found of a program."""
        key = (program.stamp, program.version)
        return self._checks.get(key) or self._book.checked(self.name, *key)

    def _note(self, check: ProgramCheck) -> ProgramCheck:
        self._checks[check.stamp, check.version] = check
        try:
            self._book.note(check)
        except (BridgeError, OSError):
            log.warning("what was found of %s %s could not be written to clis.json", self.name, check.version)
        return check

    def _remember(self, stamp: Stamp, version: str) -> None:
        """Note that the tested version serves, to know it again where it is installed once more."""
        try:
            digest = in_thread(digest_of, self._path)
        except OSError:
            return
        if stamp_of(self._path) == stamp:
            self._note(ProgramCheck(self.name, version, self._clock.now(), digest, stamp))

    def _find(self) -> str:
        found = program(self._path)
        if found is None:
            raise Unfit(
                f"The {self.name} CLI is not installed on the bridge.",
                f"Install it from deploy/clis and set {self._row.variable('COMMAND')} to its path.",
            )
        return found

    def _run(self, home: Path, *arguments: str) -> Captured:
        """Run a short command of the program that is being looked at, or else of the one that serves."""
        looked_at = self._candidate or self._program
        assert looked_at is not None
        return capture(
            [looked_at.path, *arguments],
            env=self._environment(home),
            cwd=self._scratch.empty,
            timeout_s=CHECK_S,
            user=self._scratch.user,
            file=looked_at.file if self._is_out_of_reach(looked_at) else None,
        )

    def _is_out_of_reach(self, program: Program) -> bool:
        """Whether the CLIs' user finds no way to a program, and has to be handed it."""
        return program.hidden and self._scratch.user is not None

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
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        *,
        home: Path | None = None,
        user: User | None = None,
        file: int | None = None,
    ) -> Child:
        """Start a process, whose `home` goes with it; `file` as for a Child. Raises ChildError."""
        try:
            child = Child(argv, env=env, cwd=self._scratch.empty, user=user, file=file, hear=self._stderr.hear)
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
        path, file = self._own.command, None
        if self._program is not None:
            path = self._program.path
            in_place = self._program.in_place
            if self._program.whole and (not in_place or self._is_out_of_reach(self._program)):
                file = self._program.file
            elif not in_place and self.vet is not None:
                self._scratch.remove(home)
                self._look_again()
                raise Replaced("its program was written into")
        env = {**self._environment(home), **(more or {})}
        return self._launch([path, *arguments], env, home=home, user=self._scratch.user, file=file)

    def _clean_up_after(self, child: Child, home: Path | None) -> None:
        child.wait()
        words = child.last_words()
        child.stop()
        self._children.discard(child)
        self._outdated.discard(child)
        if home is not None:
            self._scratch.remove(home)
        if child.left:
            self._said = self._stderr.summary(words)
            if not child.printed:
                log.warning("%s ended before it had begun, with exit status %d", self.name, child.left)
                self._look_again()

    def _failed_start(self, child: Child, error: ChildError) -> ChildError | BridgeError:
        """What a start is called that came to nothing: cli_unavailable where the process ended by itself."""
        if child not in self._outdated:
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
        while not self._is_well(patient=True):
            gevent.sleep(pause_s)
            pause_s = min(2 * pause_s, MAX_LOOK_AGAIN_S)
