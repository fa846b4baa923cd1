"""The claude provider: `claude -p` processes started ahead, one run each, then thrown away."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import msgspec

from bridge.clock import Clock
from bridge.errors import BridgeError
from bridge.providers import claude_wire as protocol
from bridge.providers.pool import Breaker, Pool
from bridge.providers.provider import Emit, ProviderStatus
from bridge.providers.structured import adapt
from bridge.providers.tokens import text_ceiling
from bridge.sandbox import host
from bridge.sandbox.child import Child, ChildError, capture, program
from bridge.sandbox.scratch import Scratch
from bridge.settings import Settings
from bridge.types import Completed, Event, Failed, GenerationRequest, Submitted, TextDelta

#: Oldest version whose protocol is known to be the one spoken here.
OLDEST_VERSION = (2, 1, 329)
#: What the CLI adds to every prompt, in tokens: two small system blocks and the frame (0.9 kB measured).
OVERHEAD_TOKENS = 1200
#: The most that one image counts, in tokens: the largest size that a model reads without scaling down.
IMAGE_TOKENS = 5000
#: Longest start of a process, until it has taken its settings, in seconds.
BOOT_TIMEOUT_S = 30.0
#: With a schema, the tool's frame comes on top, in tokens.
SCHEMA_OVERHEAD_TOKENS = 1000


class ClaudeProvider:
    """Runs requests on the Claude Code CLI."""

    name = "claude"
    enforces_output_limit = True

    def __init__(self, settings: Settings, scratch: Scratch, clock: Clock, *, warm: int) -> None:
        """`warm` processes are kept ready."""
        self.default_model = settings.claude_default_model
        self._settings = settings
        self._scratch = scratch
        self._clock = clock
        self._login = settings.claude_credentials == "login"
        self._breaker = Breaker(clock)
        self._pool = Pool(
            self._spawn,
            warm,
            clock,
            self._breaker,
            at_once=os.cpu_count() or 1,
            quiet=lambda: not self._starting,
            room=host.has_room,
            short=host.is_short,
        )
        self._command: str | None = None
        self._children: set[Child] = set()
        #: conversations whose model has not said anything yet
        self._starting: set[_Conversation] = set()
        self._status = ProviderStatus("claude", False, None, settings.claude_credentials, "not checked yet")

    def open(self) -> None:
        self._status = self.check()
        if self._status.available:
            self._pool.open()

    def close(self) -> None:
        self._pool.close()
        children = list(self._children)
        for child in children:
            child.stop()
        for child in children:
            child.wait(2)

    def status(self) -> ProviderStatus:
        return msgspec.structs.replace(self._status, warm=self._pool.warm).with_starts(self._breaker)

    def input_ceiling(self, request: GenerationRequest) -> int:
        ceiling = OVERHEAD_TOKENS + text_ceiling(request, IMAGE_TOKENS)
        return ceiling + SCHEMA_OVERHEAD_TOKENS if request.schema is not None else ceiling

    def start(self, request: GenerationRequest, emit: Emit) -> _Conversation:
        if not self._status.available or not self._breaker.may_try():
            raise self.status().refusal()
        told, in_words = adapt(request, protocol.for_claude)
        parser = protocol.AnswerParser(request, self._clock.now, in_words=in_words)
        return _Conversation(self._pool.take, told, emit, parser, self._starting, self._breaker)

    # --- the process ---------------------------------------------------------------------------

    def _spawn(self) -> Child:
        home = self._scratch.folder("claude", {".claude.json": protocol.FIRST_START})
        argv = [self._command or "claude", *protocol.arguments(self.default_model, bare=not self._login)]
        try:
            child = Child(argv, env=self._environment(home), cwd=self._scratch.empty, user=self._scratch.user)
        except ChildError:
            self._scratch.remove(home)
            raise
        self._children.add(child)
        gevent.spawn(self._clean_up_after, child, home)
        return child

    def _clean_up_after(self, child: Child, home: Path) -> None:
        child.wait()
        child.stop()
        self._children.discard(child)
        self._scratch.remove(home)

    def _environment(self, home: Path) -> dict[str, str]:
        """All that the CLI gets to know of the host; nothing of the bridge's own environment."""
        settings = self._settings
        env = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(home),
            "CLAUDE_CONFIG_DIR": str(home),
            **protocol.environment(
                timeout_s=settings.timeout_s,
                idle_timeout_s=settings.idle_timeout_s,
                max_output_tokens=settings.max_output_tokens,
            ),
        }
        if self._login:
            # A token made for this, or the operator's log-in; only that one file of their config, so
            # that their own instructions stay out and parallel processes do not write into it.
            if settings.claude_oauth_token:
                env["CLAUDE_CODE_OAUTH_TOKEN"] = settings.claude_oauth_token
            config = self._scratch.login_folder("CLAUDE_CONFIG_DIR", ".claude")
            self._scratch.link(config / ".credentials.json", home)
        elif settings.anthropic_api_key:
            env["ANTHROPIC_API_KEY"] = settings.anthropic_api_key
        if settings.anthropic_base_url:
            env["ANTHROPIC_BASE_URL"] = settings.anthropic_base_url
        return env

    # --- is it there, new enough, and logged in ------------------------------------------------

    def check(self) -> ProviderStatus:
        kind = self._settings.claude_credentials
        self._command = program(self._settings.claude_command)
        if self._command is None:
            return ProviderStatus(
                "claude",
                False,
                None,
                kind,
                "The claude CLI is not installed on the bridge.",
                "Install it from deploy/clis and set BRIDGE_CLAUDE_COMMAND to its path.",
            )
        home = self._scratch.folder("claude-check")
        try:
            version = self._version(home)
            problem, hint = self._trouble(version, home)
        except ChildError as error:
            version, problem, hint = None, f"The claude CLI cannot be run: {error}.", None
        finally:
            self._scratch.remove(home)
        return ProviderStatus("claude", problem is None, version, kind, problem, hint)

    def _version(self, home: Path) -> str | None:
        _, text = capture(
            [str(self._command), "--version"],
            env=self._environment(home),
            cwd=self._scratch.empty,
            timeout_s=30,
            user=self._scratch.user,
        )
        found = re.search(r"(\d+\.\d+\.\d+) \(Claude Code\)", text)
        return found.group(1) if found else None

    def _trouble(self, version: str | None, home: Path) -> tuple[str | None, str | None]:
        oldest = ".".join(map(str, OLDEST_VERSION))
        if version is None:
            return (
                "BRIDGE_CLAUDE_COMMAND does not run the Claude Code CLI.",
                "Set it to the path of the claude program.",
            )
        if tuple(map(int, version.split("."))) < OLDEST_VERSION:
            return (
                f"The claude CLI is too old ({version}; {oldest} or newer is needed).",
                "Install the tested version from deploy/clis.",
            )
        if not self._login:
            if not self._settings.anthropic_api_key:
                return (
                    "No Anthropic API key is set on the bridge.",
                    "Set ANTHROPIC_API_KEY, or BRIDGE_CLAUDE_CREDENTIALS=login to use the CLI's own log-in.",
                )
            return None, None
        code, text = capture(
            [str(self._command), "auth", "status", "--json"],
            env=self._environment(home),
            cwd=self._scratch.empty,
            timeout_s=30,
            user=self._scratch.user,
        )
        try:
            logged_in = code == 0 and json.loads(text)["loggedIn"] is True
        except (ValueError, KeyError, TypeError):
            logged_in = False
        if not logged_in:
            return "The claude CLI is not logged in.", "Run 'claude auth login' as the user that the CLIs run as."
        return None, None


class _Conversation:
    """One prompt on one process, which ends with it."""

    def __init__(
        self,
        take: Callable[[Callable[[], bool]], tuple[Child, bool]],
        request: GenerationRequest,
        emit: Emit,
        parser: protocol.AnswerParser,
        starting: set[_Conversation],
        breaker: Breaker,
    ) -> None:
        """`starting` holds this conversation until the model's first word, or the end."""
        self._starting = starting
        self._breaker = breaker
        starting.add(self)
        self._take = take
        self._request = request
        self._emit = emit
        self._parser = parser
        self._child: Child | None = None
        self._warm = False
        self._cancelled = False
        gevent.spawn(self._converse)

    def cancel(self) -> None:
        self._cancelled = True
        if self._child is not None:
            self._child.stop()

    def _converse(self) -> None:
        try:
            self._child, self._warm = self._take(lambda: not self._cancelled)
            if not self._cancelled:
                self._emit_until_end(self._child)
        except ChildError as error:
            self._say(Failed(BridgeError("cli_failed", f"The claude CLI failed: {error}.")))
        except BridgeError as error:
            self._say(Failed(error))
        finally:
            self._starting.discard(self)
            if self._child is not None:
                self._child.stop()

    def _emit_until_end(self, child: Child) -> None:
        request = self._request
        lines = child.lines()
        self._boot(child, lines)
        for line, acknowledged in protocol.history(request):
            child.write(line)
            if acknowledged and not any(protocol.is_result(answer) for answer in lines):
                self._say(Failed(BridgeError("cli_failed", "The claude CLI did not take the history.")))
                return
        self._say(Submitted(self._warm))
        child.write(protocol.prompt(request))
        for line in lines:
            for event in self._parser.feed(line):
                self._say(event)
                if isinstance(event, Completed | Failed):
                    return
        why = child.trouble or "it ended before the answer was complete"
        self._say(Failed(BridgeError("cli_failed", f"The claude CLI failed: {why}.")))

    def _boot(self, child: Child, lines: Iterator[bytes]) -> None:
        """The prompt goes only once the model and the output limit are known to hold. Raises ChildError."""
        try:
            with gevent.Timeout(BOOT_TIMEOUT_S, ChildError("it did not start in time")):
                child.write(protocol.opening(self._request))
                if not _settled(lines):
                    raise ChildError("it did not take its settings")
        except ChildError:
            if not self._cancelled:
                self._breaker.failed()
            raise
        self._breaker.succeeded()

    def _say(self, event: Event) -> None:
        if isinstance(event, TextDelta):
            self._starting.discard(self)
        if not self._cancelled:
            self._emit(event)


def _settled(lines: Iterator[bytes]) -> bool:
    """Read until the settings are answered; whether they, and all before them, were accepted."""
    for line in lines:
        answer = protocol.control_answer(line)
        if answer is not None:
            request_id, accepted = answer
            if not accepted:
                return False
            if request_id == protocol.SETTINGS_REQUEST:
                return True
    return False
