"""The claude provider: `claude -p` processes that stand ready, and the conversation of a run with one of them.

With API keys every call goes through the gate: a process serves many runs of one key, and is rewound after each. With
a log-in, or BRIDGE_CLAUDE_REUSE=off, a process serves one run and is thrown away.
"""

from __future__ import annotations

import json
import logging
import os
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import gevent
import msgspec

from bridge.clock import Clock
from bridge.errors import BridgeError, Problem
from bridge.gate.body import with_stand_ins, with_texts_for_parts
from bridge.gate.ticket import Ticket, Way
from bridge.providers import claude_body
from bridge.providers import claude_wire as protocol
from bridge.providers.claude_body import ClaudeAsked
from bridge.providers.cli import CliProvider, problem_of_start
from bridge.providers.gated import Passage
from bridge.providers.pool import Pool, slots, warm_processes
from bridge.providers.provider import Emit, text_ceiling
from bridge.providers.structured import ForcedCall, forced_tools
from bridge.registry import ProviderRow
from bridge.sandbox import host
from bridge.sandbox.child import Child, ChildError
from bridge.sandbox.scratch import Scratch
from bridge.settings import Settings
from bridge.types import (
    Activity,
    Completed,
    Event,
    Failed,
    GenerationRequest,
    Message,
    PartDelta,
    Receipt,
    Submitted,
    Tap,
    Text,
    Tool,
)

if TYPE_CHECKING:
    from bridge.gate.server import Gate

#: What the CLI adds to every prompt, in tokens: two small system blocks and the frame (0.9 kB measured).
OVERHEAD_TOKENS = 1200
#: The most that one image counts, in tokens: the largest size that a model reads without scaling down.
IMAGE_TOKENS = 5000
#: What the API takes as it is: an image of so many bytes in base64, and so many in a request with no further bound on
#: their sides. Others are left to the CLI, which makes them smaller.
MOST_IMAGE_BYTES, MANY_IMAGES = 5 * 2**20, 20
#: Longest start of a process, until it has taken its settings, in seconds.
BOOT_TIMEOUT_S = 30.0
#: With a schema, the tool's frame comes on top, in tokens; and for each of its parts, that it is closed, and the frame
#: of what is told in words.
SCHEMA_OVERHEAD_TOKENS, SCHEMA_PART_TOKENS = 1000, 60
#: Longest time for a process to end its turn and to be rewound, in seconds.
REWIND_S = 5.0
#: After so many runs, and so many seconds, a process is replaced: each run leaves 0.8 MB in it.
RUNS_PER_PROCESS, LONGEST_LIFE_S = 200, 1800.0
#: How long the provider keeps a prompt in its cache, in seconds, and how many system prompts are remembered.
CACHE_S, REMEMBERED = 300.0, 1000

log = logging.getLogger("bridge")


class ClaudeProvider(CliProvider):
    """Runs requests on the Claude Code CLI."""

    enforces_output_limit = True
    least_output_tokens = 1
    oldest_version = (2, 1, 329)
    version_pattern = r"(\d+\.\d+\.\d+) \(Claude Code\)"
    login_command = "claude auth login"

    def __init__(self, row: ProviderRow, settings: Settings, scratch: Scratch, clock: Clock, gate: Gate) -> None:
        super().__init__(row, settings, scratch, clock, gate)
        self._reused = not self._login and settings.claude_reuse == "key"
        self._pool = Pool(
            self._spawn,
            warm_processes(settings),
            clock,
            self._breaker,
            at_once=os.cpu_count() or 1,
            quiet=lambda: not self._starting,
            room=host.has_room,
            short=host.is_short,
            prepare=self._warm_up if not self._login else lambda child: None,
            most_kept=slots(settings) if self._reused else 0,
        )
        #: conversations whose model has not said anything yet
        self._starting: set[_Conversation] = set()
        #: processes that were told what a gated process is told once -> how many runs they have served, since when
        self._initialized: dict[Child, tuple[int, float]] = {}
        #: (owner, system prompt) -> when it was sent last
        self._sent: OrderedDict[tuple[str, str], float] = OrderedDict()

    def close(self) -> None:
        self._pool.close()
        super().close()

    def input_ceiling(self, request: GenerationRequest) -> int:
        ceiling = OVERHEAD_TOKENS + text_ceiling(request, IMAGE_TOKENS)
        forced = forced_tools(request)
        if forced:
            # They may stand there twice: as themselves, and as the schema of the answer.
            ceiling += request.tools_size + SCHEMA_PART_TOKENS * claude_body.most_parts(forced)
        if request.schema is not None:
            ceiling += SCHEMA_OVERHEAD_TOKENS + SCHEMA_PART_TOKENS * claude_body.most_parts(request.schema)
        return ceiling

    def unchecked(self, request: GenerationRequest) -> list[Tool]:
        return [tool for tool in request.tools if tool.strict and not claude_body.is_strict(tool, request)]

    def start(
        self, request: GenerationRequest, emit: Emit, owner: str, tap: Tap | None = None, way: Way | None = None
    ) -> _Conversation:
        self._refuse_if_unavailable()
        return _Conversation(self, request, emit, owner, tap, None if self._login else self._way(way))

    def _begin(self, *, renewed: bool) -> None:
        self._pool.open()
        if renewed:
            self._pool.renew()

    def _ready(self) -> int:
        return self._pool.warm

    def _spawn(self) -> Child:
        home = self._make_home({".claude.json": protocol.FIRST_START})
        return self._launch_program(protocol.arguments(self.default_model, gated=not self._login), home)

    def _environment(self, home: Path) -> dict[str, str]:
        settings, own = self._settings, self._own
        env = {
            **super()._environment(home),
            "CLAUDE_CONFIG_DIR": str(home),
            # With a log-in it leaves a folder there for each run, and a socket: they go with its home.
            "TMPDIR": str(home),
            **protocol.environment(
                timeout_s=settings.timeout_s,
                # The gate listens for the provider's silence; a CLI behind it is never quicker.
                idle_timeout_s=settings.idle_timeout_s if self._login else settings.timeout_s,
                max_output_tokens=settings.max_output_tokens,
            ),
        }
        if self._login:
            env.update(settings.network)
            if settings.certificates:
                env["NODE_EXTRA_CA_CERTS"] = settings.certificates
            # A token made for this, or the operator's log-in: only the place where the CLI keeps secrets, so that their
            # own instructions stay out. There it writes what it renews, in turns with the operator's own claude.
            if own.token:
                env["CLAUDE_CODE_OAUTH_TOKEN"] = own.token
            else:
                config = self._scratch.login_folder("CLAUDE_CONFIG_DIR", ".claude")
                env["CLAUDE_SECURESTORAGE_CONFIG_DIR"] = str(config)
            if own.base_url:
                env["ANTHROPIC_BASE_URL"] = own.base_url
        return env

    def _is_logged_in(self, home: Path) -> bool:
        done = self._run(home, "auth", "status", "--json")
        try:
            return done.status == 0 and json.loads(done.output)["loggedIn"] is True
        except (ValueError, KeyError, TypeError):
            return False

    # --- gated processes -------------------------------------------------------------------------

    def _tell_settings(self, child: Child, asked: ClaudeAsked, token: str, *, cached: bool) -> None:
        """Get a gated process ready for one request; it has taken the settings when this returns. Raises ChildError."""
        opening = b"" if child in self._initialized else protocol.gated_opening()
        child.write(opening + protocol.gated_settings(asked, token=token, url=self._gate.url, cached=cached))
        if not _settled(child.lines()):
            raise ChildError("it did not take its settings")
        self._initialized.setdefault(child, (0, self._clock.monotonic()))

    def _warm_up(self, child: Child) -> None:
        """One turn that the gate answers, so that what only a first turn does is done. Raises ChildError."""
        request = GenerationRequest("claude", self.default_model, (Message("user", (Text("ok"),)),), "ok")
        ticket, mark = Ticket(None, None), str(uuid.uuid4())
        self._gate.tickets.add(ticket)
        try:
            with gevent.Timeout(BOOT_TIMEOUT_S, ChildError("it did not start in time")):
                self._tell_settings(child, claude_body.ask(request), ticket.token, cached=False)
                child.write(protocol.prompt(request, mark))
                if not any(map(protocol.is_result, child.lines())) or not _rewound(child, mark):
                    raise ChildError("it did not take a first turn")
        finally:
            self._gate.tickets.drop(ticket)

    def _give_back(self, child: Child, owner: str) -> None:
        """Keep a process that was rewound, unless it has done its share."""
        runs, since = self._initialized[child]
        self._initialized[child] = (runs + 1, since)
        fresh = child not in self._outdated
        if fresh and self._reused and runs + 1 < RUNS_PER_PROCESS and self._clock.monotonic() < since + LONGEST_LIFE_S:
            self._pool.give_back(child, owner)
        else:
            child.stop()

    def _clean_up_after(self, child: Child, home: Path | None) -> None:
        super()._clean_up_after(child, home)
        self._initialized.pop(child, None)

    def _pays_to_cache(self, owner: str, request: GenerationRequest) -> bool:
        """Whether a prompt is likely to be sent again while the provider's cache has it: a conversation, or a system
        prompt that this owner has just sent. Writing a cache costs a quarter more than the prompt."""
        now, key = self._clock.monotonic(), (owner, request.system)
        sent_at = self._sent.pop(key, None)
        self._sent[key] = now
        if len(self._sent) > REMEMBERED:
            self._sent.popitem(last=False)
        recent = bool(request.system) and sent_at is not None and now - sent_at < CACHE_S
        return recent or len(request.messages) > 1


class _Conversation:
    """One run on one process."""

    def __init__(
        self,
        provider: ClaudeProvider,
        request: GenerationRequest,
        emit: Emit,
        owner: str,
        tap: Tap | None,
        way: Way | None,
    ) -> None:
        """`way` None: with a log-in, the CLI asks its model by itself."""
        self._provider = provider
        asked = claude_body.ask(request)
        self._parser = protocol.AnswerParser(
            asked.request,
            provider._clock.now,
            by_tool=asked.by_tool,
            gated=not provider._login,
            note=provider._note_unknown,
        )
        self._forced = ForcedCall(asked.forced, "toolu_") if asked.forced else None
        self._emit = emit
        self._owner = owner
        self._tap = tap
        self._passage: Passage | None = None
        if way is not None:
            asked = self._open_passage(asked, way)
        self._asked = asked
        self._child: Child | None = None
        self._warm = False
        self._cancelled = False
        self._ended = False
        # Until the model's first word, or the end.
        provider._starting.add(self)
        gevent.spawn(self._converse)

    @property
    def receipt(self) -> Receipt | None:
        return None if self._passage is None else self._passage.receipt

    def _open_passage(self, asked: ClaudeAsked, way: Way) -> ClaudeAsked:
        """Make the run's way through the gate; what its CLI is told, with stand-ins for what the gate puts in."""
        provider = self._provider
        told, parts = with_texts_for_parts(asked.request)
        few = len(told.images) <= MANY_IMAGES
        told, pictures = with_stand_ins(told, lambda image: few and len(image.data) <= MOST_IMAGE_BYTES)
        put_in = asked.body
        if "top_p" in put_in and "temperature" not in put_in:
            # Where it does not think, the CLI says 1, and not every model takes both.
            put_in = {**put_in, "temperature": None}
        if told.effort in (None, "none"):
            # The CLI says one of its own, which is not that of the API for every model.
            put_in = {**put_in, "output_config": {**put_in.get("output_config", {}), "effort": None}}
        self._passage = Passage(
            provider._gate,
            way.upstream,
            told,
            provider._clock,
            lambda: self._say(Activity()),
            row=provider._row,
            way=way,
            put_in=put_in,
            pictures=pictures,
            tool_parts={text: claude_body.block(part) for text, part in parts.items()},
            silence_s=provider._settings.idle_timeout_s,
            makes_smaller=len(pictures) < len(told.images),
            linked=asked.request.linked,
            tap=self._tap,
        )
        return msgspec.structs.replace(asked, request=told)

    def cancel(self) -> None:
        self._cancelled = True
        if self._passage is not None:
            self._passage.close()
        # One that has ended is being rewound, for the next run.
        if self._child is not None and not self._ended:
            self._child.stop()

    def _converse(self) -> None:
        clean = False
        try:
            self._child, self._warm = self._provider._pool.take(lambda: not self._cancelled, self._owner)
            self._child.tap = self._tap
            if not self._cancelled:
                clean = self._take_turn(self._child)
                # One that asked for something else may hold what belongs to another run.
                clean = clean and (self._passage is None or self._passage.call.refused is None)
        except ChildError as error:
            self._say(Failed(problem_of_start("claude", error)))
        except BridgeError as error:
            self._say(Failed(error.problem))
        finally:
            self._provider._starting.discard(self)
            if self._passage is not None:
                self._passage.close()
            if self._child is not None:
                self._child.tap = None
            if self._child is not None and clean:
                self._provider._give_back(self._child, self._owner)
            elif self._child is not None:
                self._child.stop()
            if self._ended and self._provider._reused:
                self._provider._pool.expect_no_more(self._owner)

    def _take_turn(self, child: Child) -> bool:
        """Hand the prompt over and pass the answer on; whether the process is as it was before."""
        request, lines = self._asked.request, child.lines()
        marks = [str(uuid.uuid4()) for message in request.messages if message.role == "user"]
        self._boot(child)
        for line, acknowledged in protocol.history(request, marks[:-1]):
            child.write(line)
            if acknowledged and not any(map(protocol.is_result, lines)):
                self._say(Failed(Problem("cli_failed", "The claude CLI did not take the history.")))
                return False
        if self._passage is not None:
            self._passage.open()
        self._say(Submitted(self._warm))
        child.write(protocol.prompt(request, marks[-1]))
        for line in lines:
            if self._passage is not None and protocol.is_result(line):
                self._say(Failed(self._passage.problem(), self._passage.usage))
                return self._provider._reused and self._rewind(child, marks)
            for event in self._parser.feed(line):
                self._show(self._as_seen(event))
                if isinstance(event, Completed | Failed):
                    return self._ends_well(child, lines, marks)
        why = child.trouble or "it ended before the answer was complete"
        self._say(Failed(Problem("cli_failed", f"The claude CLI failed: {why}.")))
        return False

    def _boot(self, child: Child) -> None:
        """The prompt goes only once the model and the output limit are known to hold. Raises ChildError, and
        BridgeError cli_unavailable where the CLI does not start."""
        provider, asked = self._provider, self._asked
        try:
            with gevent.Timeout(BOOT_TIMEOUT_S, ChildError("it did not start in time")):
                if self._passage is not None:
                    cached = provider._pays_to_cache(self._owner, asked.request)
                    provider._tell_settings(child, asked, self._passage.ticket.token, cached=cached)
                else:
                    child.write(protocol.opening(asked))
                    if not _settled(child.lines()):
                        raise ChildError("it did not take its settings")
        except ChildError as error:
            if self._cancelled:
                raise
            raise provider._failed_start(child, error) from None
        provider._breaker.succeeded()

    def _as_seen(self, event: Event) -> Event:
        """An event with what the gate has seen in the place of what the CLI says."""
        if self._passage is None or not isinstance(event, Completed | Failed):
            return event
        return self._passage.correct(event)

    def _show(self, event: Event) -> None:
        for each in (event,) if self._forced is None else self._forced.read(event):
            self._say(each)

    def _ends_well(self, child: Child, lines: Iterator[bytes], marks: list[str]) -> bool:
        """Let the CLI end its turn, and rewind it. The answer has gone out before."""
        if not self._provider._reused or (self._cancelled and not self._ended):
            return False
        try:
            with gevent.Timeout(REWIND_S, ChildError("it did not end its turn")):
                return any(map(protocol.is_result, lines)) and self._rewind(child, marks)
        except ChildError:
            return False

    def _rewind(self, child: Child, marks: list[str]) -> bool:
        """Take the run out of the process, from its prompt back to its first message: each rewind takes one message of
        the user away, with what followed it."""
        if self._asked.request.messages[0].role != "user":
            # Nothing takes it away.
            return False
        try:
            with gevent.Timeout(REWIND_S, ChildError("it was not rewound in time")):
                return all(_rewound(child, mark) for mark in reversed(marks))
        except ChildError:
            return False

    def _say(self, event: Event) -> None:
        if isinstance(event, PartDelta):
            self._provider._starting.discard(self)
        if isinstance(event, Completed | Failed) and not self._ended:
            self._ended = True
            if self._provider._reused:
                self._provider._pool.expect(self._owner)
        if not self._cancelled:
            self._emit(event)


def _settled(lines: Iterator[bytes]) -> bool:
    """Read until the settings are answered; whether they, and all before them, were accepted."""
    return _accepted(lines, protocol.SETTINGS_REQUEST)


def _rewound(child: Child, mark: str) -> bool:
    """Rewind a process; whether it did. Raises ChildError."""
    child.write(protocol.rewind(mark))
    return _accepted(child.lines(), protocol.REWIND_REQUEST)


def _accepted(lines: Iterator[bytes], wanted: str) -> bool:
    """Read until a control request is answered; whether it, and all before it, were accepted."""
    for line in lines:
        answer = protocol.control_answer(line)
        if answer is not None:
            request_id, accepted = answer
            if not accepted or request_id == wanted:
                return accepted
    return False
