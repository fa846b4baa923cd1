"""The claude provider: `claude -p` processes started ahead, one run each, then thrown away."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import gevent

from bridge.clock import Clock
from bridge.errors import BridgeError, Problem
from bridge.providers import claude_wire as protocol
from bridge.providers.cli import CliProvider
from bridge.providers.pool import Pool, warm_processes
from bridge.providers.provider import Emit
from bridge.providers.structured import adapt
from bridge.providers.tokens import text_ceiling
from bridge.registry import ProviderRow
from bridge.sandbox import host
from bridge.sandbox.child import Child, ChildError
from bridge.sandbox.scratch import Scratch
from bridge.settings import Settings
from bridge.types import Completed, Event, Failed, GenerationRequest, PartDelta, Submitted

#: What the CLI adds to every prompt, in tokens: two small system blocks and the frame (0.9 kB measured).
OVERHEAD_TOKENS = 1200
#: The most that one image counts, in tokens: the largest size that a model reads without scaling down.
IMAGE_TOKENS = 5000
#: Longest start of a process, until it has taken its settings, in seconds.
BOOT_TIMEOUT_S = 30.0
#: With a schema, the tool's frame comes on top, in tokens.
SCHEMA_OVERHEAD_TOKENS = 1000


class ClaudeProvider(CliProvider):
    """Runs requests on the Claude Code CLI."""

    enforces_output_limit = True
    oldest_version = (2, 1, 329)
    version_pattern = r"(\d+\.\d+\.\d+) \(Claude Code\)"
    login_command = "claude auth login"

    def __init__(self, row: ProviderRow, settings: Settings, scratch: Scratch, clock: Clock) -> None:
        super().__init__(row, settings, scratch, clock)
        self._pool = Pool(
            self._spawn,
            warm_processes(settings),
            clock,
            self._breaker,
            at_once=os.cpu_count() or 1,
            quiet=lambda: not self._starting,
            room=host.has_room,
            short=host.is_short,
        )
        #: conversations whose model has not said anything yet
        self._starting: set[_Conversation] = set()

    def close(self) -> None:
        self._pool.close()
        super().close()

    def input_ceiling(self, request: GenerationRequest) -> int:
        ceiling = OVERHEAD_TOKENS + text_ceiling(request, IMAGE_TOKENS)
        return ceiling + SCHEMA_OVERHEAD_TOKENS if request.schema is not None else ceiling

    def start(self, request: GenerationRequest, emit: Emit) -> _Conversation:
        self._refuse_if_unavailable()
        told, in_words = adapt(request, protocol.for_claude)
        parser = protocol.AnswerParser(request, self._clock.now, in_words=in_words)
        return _Conversation(self, told, emit, parser)

    def _begin(self) -> None:
        self._pool.open()

    def _ready(self) -> int:
        return self._pool.warm

    def _spawn(self) -> Child:
        home = self._make_home({".claude.json": protocol.FIRST_START})
        return self._launch_program(protocol.arguments(self.default_model, bare=not self._login), home)

    def _environment(self, home: Path) -> dict[str, str]:
        settings, own = self._settings, self._own
        env = {
            **super()._environment(home),
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
            if own.token:
                env["CLAUDE_CODE_OAUTH_TOKEN"] = own.token
            config = self._scratch.login_folder("CLAUDE_CONFIG_DIR", ".claude")
            self._scratch.link(config / ".credentials.json", home)
        elif own.api_key:
            env["ANTHROPIC_API_KEY"] = own.api_key
        if own.base_url:
            env["ANTHROPIC_BASE_URL"] = own.base_url
        return env

    def _is_logged_in(self, home: Path) -> bool:
        done = self._run(home, "auth", "status", "--json")
        try:
            return done.status == 0 and json.loads(done.output)["loggedIn"] is True
        except (ValueError, KeyError, TypeError):
            return False


class _Conversation:
    """One prompt on one process, which ends with it."""

    def __init__(
        self, provider: ClaudeProvider, request: GenerationRequest, emit: Emit, parser: protocol.AnswerParser
    ) -> None:
        self._provider = provider
        self._request = request
        self._emit = emit
        self._parser = parser
        self._child: Child | None = None
        self._warm = False
        self._cancelled = False
        # Until the model's first word, or the end.
        provider._starting.add(self)
        gevent.spawn(self._converse)

    def cancel(self) -> None:
        self._cancelled = True
        if self._child is not None:
            self._child.stop()

    def _converse(self) -> None:
        try:
            self._child, self._warm = self._provider._pool.take(lambda: not self._cancelled)
            if not self._cancelled:
                self._emit_until_end(self._child)
        except ChildError as error:
            self._say(Failed(Problem("cli_failed", f"The claude CLI failed: {error}.")))
        except BridgeError as error:
            self._say(Failed(error.problem))
        finally:
            self._provider._starting.discard(self)
            if self._child is not None:
                self._child.stop()

    def _emit_until_end(self, child: Child) -> None:
        request = self._request
        lines = child.lines()
        self._boot(child, lines)
        for line, acknowledged in protocol.history(request):
            child.write(line)
            if acknowledged and not any(protocol.is_result(answer) for answer in lines):
                self._say(Failed(Problem("cli_failed", "The claude CLI did not take the history.")))
                return
        self._say(Submitted(self._warm))
        child.write(protocol.prompt(request))
        for line in lines:
            for event in self._parser.feed(line):
                self._say(event)
                if isinstance(event, Completed | Failed):
                    return
        why = child.trouble or "it ended before the answer was complete"
        self._say(Failed(Problem("cli_failed", f"The claude CLI failed: {why}.")))

    def _boot(self, child: Child, lines: Iterator[bytes]) -> None:
        """The prompt goes only once the model and the output limit are known to hold. Raises ChildError, and
        BridgeError cli_unavailable where the CLI does not start."""
        try:
            with gevent.Timeout(BOOT_TIMEOUT_S, ChildError("it did not start in time")):
                child.write(protocol.opening(self._request))
                if not _settled(lines):
                    raise ChildError("it did not take its settings")
        except ChildError as error:
            if self._cancelled:
                raise
            raise self._provider._failed_start(child, error) from None
        self._provider._breaker.succeeded()

    def _say(self, event: Event) -> None:
        if isinstance(event, PartDelta):
            self._provider._starting.discard(self)
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
