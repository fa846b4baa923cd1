"""The codex provider: one long-lived `codex app-server`, one throw-away thread per run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import gevent
import gevent.event
import gevent.lock
import gevent.queue
import msgspec

from bridge import __version__
from bridge.clock import Clock
from bridge.providers import codex_wire as protocol
from bridge.providers.codex_turn import AppServer, CodexTurn, RpcError
from bridge.providers.pool import Breaker
from bridge.providers.provider import Emit, ProviderStatus
from bridge.providers.tokens import text_ceiling
from bridge.sandbox.child import Child, ChildError, capture, program
from bridge.sandbox.scratch import Scratch
from bridge.settings import Settings
from bridge.types import GenerationRequest

#: Oldest version whose protocol is known to be the one spoken here.
OLDEST_VERSION = (0, 169, 0)
#: What the CLI adds to every prompt, in tokens: the frame of the request (1.8 kB measured).
OVERHEAD_TOKENS = 1200
#: The most that one image counts, in tokens: the largest budget of patches that a model takes.
IMAGE_TOKENS = 12000
#: Runs after which a process is replaced, because it keeps a log that grows.
RUNS_PER_PROCESS = 1000


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
        runs_per_process: int = RUNS_PER_PROCESS,
    ) -> None:
        self.default_model = settings.codex_default_model
        self._settings = settings
        self._scratch = scratch
        self._clock = clock
        self._runs_per_process = runs_per_process
        self._login = settings.codex_credentials == "login"
        self._command: str | None = None
        self._catalog: str = ""
        self._server: AppServer | None = None
        self._starting = gevent.lock.RLock()
        self._children: set[Child] = set()
        self._breaker = Breaker(clock)
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
        running = int(self._server is not None and self._server.alive)
        return msgspec.structs.replace(self._status, warm=running).with_starts(self._breaker)

    def input_ceiling(self, request: GenerationRequest) -> int:
        return OVERHEAD_TOKENS + text_ceiling(request, IMAGE_TOKENS)

    def start(self, request: GenerationRequest, emit: Emit) -> CodexTurn:
        if not self._status.available or not self._breaker.may_try():
            raise self.status().refusal()
        return CodexTurn(self._connect, str(self._scratch.empty), request, emit)

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
            try:
                server = self._start_server()
            except (ChildError, RpcError):
                self._breaker.failed()
                raise
            self._breaker.succeeded()
            self._server = server
            if old is not None:
                gevent.spawn(_retire, old)
            server.runs += 1
            return server

    def _start_server(self) -> AppServer:
        home = self._scratch.folder("codex")
        try:
            child = Child(
                [self._command or "codex", *self._arguments(home)],
                env=self._environment(home),
                cwd=self._scratch.empty,
                user=self._scratch.user,
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
            self._scratch.link(self._scratch.login_folder("CODEX_HOME", ".codex") / "auth.json", home)
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
            user=self._scratch.user,
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
            return "The codex CLI is not logged in.", "Run 'codex login' as the user that the CLIs run as."
        return None, None

    def _write_catalog(self, home: Path) -> None:
        code, text = self._run(home, "debug", "models")
        if code != 0:
            raise ValueError("it does not list its models")
        catalog = json.dumps(protocol.catalog_without_tools(json.loads(text))).encode()
        self._catalog = str(self._scratch.shared_file("codex-models.json", catalog))


def _retire(server: AppServer) -> None:
    """Let a replaced server finish its runs, then stop it."""
    while server.alive and server.busy:
        gevent.sleep(0.5)
    server.child.stop(grace_s=2)
