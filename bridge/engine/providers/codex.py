"""The codex provider: one long-lived `codex app-server`, one throw-away thread per run."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import gevent.event
import gevent.lock
import gevent.queue
import msgspec

from bridge import __version__
from bridge.clock import Clock
from bridge.engine.process import Child, ChildError, capture, program
from bridge.engine.provider import Emit, ProviderStatus
from bridge.engine.providers import codex_protocol as protocol
from bridge.engine.providers.app_server import AppServer, RpcError
from bridge.engine.scratch import Scratch
from bridge.engine.tokens import estimate, text_ceiling
from bridge.errors import BridgeError
from bridge.settings import Settings
from bridge.types import (
    Activity,
    Answer,
    Completed,
    Event,
    Failed,
    GenerationRequest,
    Submitted,
    TextDelta,
    Usage,
)

#: Oldest version whose protocol is known to be the one spoken here.
OLDEST_VERSION = (0, 169, 0)
#: What the CLI adds to every prompt, in tokens: the frame of the request (1.8 kB measured).
OVERHEAD_TOKENS = 1200
#: The most that one image counts, in tokens: the largest budget of patches that a model takes.
IMAGE_TOKENS = 12000
#: Runs after which a process is replaced, because it keeps a log that grows.
RUNS_PER_PROCESS = 1000
#: Time for an interrupted turn to end before the whole process is thought to hang, in seconds.
INTERRUPT_TIMEOUT_S = 5.0


class CodexProvider:
    """Runs requests on the Codex CLI."""

    name = "codex"
    enforces_output_limit = False

    def __init__(
        self,
        settings: Settings,
        scratch: Scratch,
        clock: Clock,
        *,
        matches: Callable[[dict[str, Any], Any], str | None],
        runs_per_process: int = RUNS_PER_PROCESS,
    ) -> None:
        """`matches(schema, output)` checks structured output."""
        self.default_model = settings.codex_default_model
        self._settings = settings
        self._scratch = scratch
        self._clock = clock
        self._matches = matches
        self._runs_per_process = runs_per_process
        self._login = settings.codex_credentials == "login"
        self._command: str | None = None
        self._catalog: str = ""
        self._server: AppServer | None = None
        self._starting = gevent.lock.RLock()
        self._children: set[Child] = set()
        self._status = ProviderStatus("codex", False, None, settings.codex_credentials, "not checked yet")

    def open(self) -> None:
        self._status = self.check()
        if self._status.available:
            try:
                self._connect()
            except (ChildError, RpcError):
                self._status = ProviderStatus(
                    "codex",
                    False,
                    self._status.version,
                    self._status.credentials,
                    "The codex CLI does not start.",
                    "Install the tested version from deploy/clis.",
                )

    def close(self) -> None:
        self._status = ProviderStatus("codex", False, None, self._status.credentials, "The bridge is stopping.")
        children = list(self._children)
        for child in children:
            child.stop(grace_s=0.5)
        for child in children:
            child.wait(2)

    def status(self) -> ProviderStatus:
        return msgspec.structs.replace(self._status, warm=int(self._server is not None and self._server.alive))

    def input_ceiling(self, request: GenerationRequest) -> int:
        return OVERHEAD_TOKENS + text_ceiling(request, IMAGE_TOKENS)

    def start(self, request: GenerationRequest, emit: Emit) -> _Conversation:
        if not self._status.available:
            raise BridgeError("cli_unavailable", self._status.problem or "", self._status.hint)
        return _Conversation(self._connect, str(self._scratch.empty), request, emit, self._matches)

    # --- the process ---------------------------------------------------------------------------

    def _connect(self) -> AppServer:
        """The running server; a new one where there is none, or where it has done its share.

        A server that is replaced finishes the runs that it has. Raises ChildError, RpcError.
        """
        with self._starting:
            old = self._server
            if old is not None and old.alive and old.runs < self._runs_per_process:
                old.runs += 1
                return old
            home = self._scratch.folder("codex")
            try:
                child = Child(
                    [self._command or "codex", *self._arguments(home)],
                    env=self._environment(home),
                    cwd=self._scratch.empty,
                )
            except ChildError:
                self._scratch.remove(home)
                raise
            self._children.add(child)
            gevent.spawn(self._clean_up_after, child, home)
            server = AppServer(child)
            try:
                server.call("initialize", protocol.initialize(__version__))
                server.notify("initialized")
            except (ChildError, RpcError):
                child.stop()
                raise
            self._server = server
            if old is not None:
                gevent.spawn(_retire, old)
            server.runs += 1
            return server

    def _clean_up_after(self, child: Child, home: Path) -> None:
        child.wait()
        child.stop()
        self._children.discard(child)
        self._scratch.remove(home)

    def _arguments(self, home: Path) -> list[str]:
        return protocol.arguments(
            base_url=None if self._login else self._settings.openai_base_url,
            idle_timeout_s=self._settings.idle_timeout_s,
            catalog=self._catalog,
            sqlite_home=str(home),
        )

    def _environment(self, home: Path) -> dict[str, str]:
        """All that the CLI gets to know of the host; nothing of the bridge's own environment."""
        env = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(home),
            "CODEX_HOME": str(home),
        }
        if self._login:
            # Only the log-in: an AGENTS.md or config.toml beside it would be read as well.
            config = Path(os.environ.get("CODEX_HOME") or Path.home() / ".codex")
            self._scratch.link(config / "auth.json", home)
        elif self._settings.openai_api_key:
            env[protocol.KEY_VARIABLE] = self._settings.openai_api_key
        return env

    # --- is it there, new enough, and logged in ------------------------------------------------

    def check(self) -> ProviderStatus:
        kind = self._settings.codex_credentials
        self._command = program(self._settings.codex_command)
        if self._command is None:
            return ProviderStatus(
                "codex",
                False,
                None,
                kind,
                "The codex CLI is not installed on the bridge.",
                "Install it from deploy/clis and set BRIDGE_CODEX_COMMAND to its path.",
            )
        home = self._scratch.folder("codex-check")
        try:
            version = self._version(home)
            problem, hint = self._trouble(version, home)
            if problem is None:
                self._write_catalog(home)
        except (ChildError, ValueError, KeyError, TypeError) as error:
            version, problem, hint = None, f"The codex CLI cannot be run: {error}.", None
        finally:
            self._scratch.remove(home)
        return ProviderStatus("codex", problem is None, version, kind, problem, hint)

    def _run(self, home: Path, *argv: str) -> tuple[int | None, str]:
        return capture(
            [str(self._command), *argv],
            env=self._environment(home),
            cwd=self._scratch.empty,
            timeout_s=30,
        )

    def _version(self, home: Path) -> str | None:
        found = re.search(r"codex\S* (\d+\.\d+\.\d+)", self._run(home, "--version")[1])
        return found.group(1) if found else None

    def _trouble(self, version: str | None, home: Path) -> tuple[str | None, str | None]:
        oldest = ".".join(map(str, OLDEST_VERSION))
        if version is None:
            return (
                "BRIDGE_CODEX_COMMAND does not run the Codex CLI.",
                "Set it to the path of the codex program.",
            )
        if tuple(map(int, version.split("."))) < OLDEST_VERSION:
            return (
                f"The codex CLI is too old ({version}; {oldest} or newer is needed).",
                "Install the tested version from deploy/clis.",
            )
        if not self._login and not self._settings.openai_api_key:
            return (
                "No OpenAI API key is set on the bridge.",
                "Set OPENAI_API_KEY, or BRIDGE_CODEX_CREDENTIALS=login to use the CLI's own log-in.",
            )
        if self._login and self._run(home, "login", "status")[0] != 0:
            return "The codex CLI is not logged in.", "Run 'codex login' as the bridge's user."
        return None, None

    def _write_catalog(self, home: Path) -> None:
        code, text = self._run(home, "debug", "models")
        if code != 0:
            raise ValueError("it does not list its models")
        path = self._scratch.path / "codex-models.json"
        path.write_text(json.dumps(protocol.catalog_without_tools(json.loads(text))))
        self._catalog = str(path)


def _retire(server: AppServer) -> None:
    """Let a replaced server finish its runs, then stop it."""
    while server.alive and server.busy:
        gevent.sleep(0.5)
    server.child.stop(grace_s=2)


class _Conversation:
    """One turn on one thread of an app-server."""

    def __init__(
        self,
        connect: Callable[[], AppServer],
        cwd: str,
        request: GenerationRequest,
        emit: Emit,
        matches: Callable[[dict[str, Any], Any], str | None],
    ) -> None:
        self._connect = connect
        self._cwd = cwd
        self._request = request
        self._emit = emit
        self._matches = matches
        self._inbox: gevent.queue.Queue[tuple[str, dict[str, Any]]] = gevent.queue.Queue()
        self._text: list[str] = []
        self._text_bytes = 0
        self._usage: Usage | None = None
        self._full = False
        self._cancelled = False
        gevent.spawn(self._converse)

    def cancel(self) -> None:
        self._cancelled = True
        self._inbox.put(("cancel", {}))

    def _converse(self) -> None:
        try:
            server = self._connect()
            thread = server.call("thread/start", protocol.thread_start(self._request, self._cwd))["thread"]["id"]
        except (ChildError, RpcError, KeyError, TypeError) as error:
            self._emit(Failed(BridgeError("cli_failed", "The codex CLI did not start the request.")))
            if isinstance(error, ChildError):
                gevent.sleep(0)
            return
        server.listen(thread, lambda method, params: self._inbox.put((method, params)))
        try:
            self._take_turn(server, thread)
        except (ChildError, RpcError, KeyError, TypeError):
            self._emit(Failed(BridgeError("cli_failed", "The codex CLI failed during the request.")))
        finally:
            server.forget(thread)
            if server.alive:
                try:
                    server.post("thread/unsubscribe", {"threadId": thread})
                except ChildError:
                    pass

    def _take_turn(self, server: AppServer, thread: str) -> None:
        items = protocol.history(self._request, thread)
        if items is not None:
            server.call("thread/inject_items", items)
        if self._cancelled:
            return
        self._emit(Submitted())
        turn = server.call("turn/start", protocol.turn_start(self._request, thread))["turn"]["id"]
        while True:
            method, params = self._inbox.get()
            if method == "cancel":
                self._interrupt(server, thread, turn)
                return
            if method == "gone":
                error = BridgeError("cli_failed", "The codex process ended in the middle of the answer.")
                self._emit(Failed(error))
                return
            if method == "turn/completed":
                self._emit(self._end(_mapping(params.get("turn"))))
                return
            self._note(method, params)
            if self._full:
                # The CLI knows no maximum of output tokens: the stream is watched and stopped instead.
                self._interrupt(server, thread, turn)
                self._emit(Completed(self._answer("max_tokens")))
                return

    def _note(self, method: str, params: dict[str, Any]) -> None:
        event: Event = Activity()
        if method == "item/agentMessage/delta":
            text = params.get("delta")
            if isinstance(text, str):
                self._text.append(text)
                self._text_bytes += len(text.encode("utf-8", "replace"))
                event = TextDelta(text)
                self._full = estimate(self._text_bytes, len(self._text)) > self._request.max_output_tokens
        elif method == "item/completed":
            item = _mapping(params.get("item"))
            if item.get("type") == "agentMessage" and not self._text and item.get("text"):
                self._text.append(str(item["text"]))
                event = TextDelta(str(item["text"]))
        elif method == "thread/tokenUsage/updated":
            usage = protocol.usage_of(_mapping(params.get("tokenUsage")).get("last"))
            self._usage = usage or self._usage
            event = Activity(self._usage)
        self._emit(event)

    def _interrupt(self, server: AppServer, thread: str, turn: str) -> None:
        """Stop the turn upstream; a server that does not obey is ended, with all that runs on it."""
        try:
            server.post("turn/interrupt", {"threadId": thread, "turnId": turn})
            with gevent.Timeout(INTERRUPT_TIMEOUT_S):
                while self._inbox.get()[0] not in ("turn/completed", "gone"):
                    pass
        except (ChildError, gevent.Timeout):
            server.child.stop()

    def _end(self, turn: dict[str, Any]) -> Event:
        error = turn.get("error")
        if turn.get("status") != "completed":
            if protocol.hit_max_tokens(error) and self._text:
                return Completed(self._answer("max_tokens"))
            usage = Usage() if protocol.costs_nothing(error) and self._usage is None else self._usage
            return Failed(protocol.turn_error(error), usage)
        text = "".join(self._text)
        if not text.strip():
            return Failed(BridgeError("cli_bad_output", "The model gave an empty answer."), self._usage)
        if self._request.schema is None:
            return Completed(self._answer("end_turn"))
        try:
            # Stricter than Python's own reader: no NaN, no halves of characters.
            output = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            problem: str | None = "it is not valid JSON"
        else:
            problem = self._matches(self._request.schema, output)
        if problem is not None:
            message = f"The answer does not fit the schema: {problem}"
            return Failed(BridgeError("output_mismatch", message, text=text), self._usage)
        return Completed(self._answer("end_turn", output))

    def _answer(self, stop_reason: str, output: Any = None) -> Answer:
        return Answer(
            text="".join(self._text),
            model=self._request.model,
            stop_reason=stop_reason,
            usage=self._usage,
            output=output,
        )


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
