"""The codex provider: one long-lived `codex app-server`, one throw-away thread per run."""

from __future__ import annotations

import json
from pathlib import Path

import gevent
import gevent.lock

from bridge import __version__
from bridge.clock import Clock
from bridge.errors import BridgeError
from bridge.providers import codex_wire as protocol
from bridge.providers.cli import CliProvider, Unfit
from bridge.providers.codex_turn import AppServer, CodexTurn, RpcError
from bridge.providers.provider import Emit
from bridge.providers.tokens import text_ceiling
from bridge.registry import ProviderRow
from bridge.sandbox.child import ChildError
from bridge.sandbox.scratch import Scratch
from bridge.settings import Settings
from bridge.types import GenerationRequest

#: What the CLI adds to every prompt, in tokens: the frame of the request (1.8 kB measured).
OVERHEAD_TOKENS = 1200
#: The most that one image counts, in tokens: the largest budget of patches that a model takes.
IMAGE_TOKENS = 12000
#: Runs after which a process is replaced, because it keeps a log that grows.
RUNS_PER_PROCESS = 1000


class CodexProvider(CliProvider):
    """Runs requests on the Codex CLI."""

    enforces_output_limit = False
    oldest_version = (0, 169, 0)
    version_pattern = r"codex\S* (\d+\.\d+\.\d+)"
    login_command = "codex login"
    grace_s = 0.5

    def __init__(self, row: ProviderRow, settings: Settings, scratch: Scratch, clock: Clock) -> None:
        super().__init__(row, settings, scratch, clock)
        self._catalog = ""
        self._server: AppServer | None = None
        self._starting = gevent.lock.RLock()

    def input_ceiling(self, request: GenerationRequest) -> int:
        return OVERHEAD_TOKENS + text_ceiling(request, IMAGE_TOKENS)

    def start(self, request: GenerationRequest, emit: Emit) -> CodexTurn:
        self._refuse_if_unavailable()
        return CodexTurn(self._connect, str(self._scratch.empty), request, emit)

    def _begin(self) -> None:
        try:
            self._connect()
        except (ChildError, RpcError, BridgeError):
            raise Unfit("The codex CLI does not start.", "Install the tested version from deploy/clis.") from None

    def _ready(self) -> int:
        return int(self._server is not None and self._server.alive)

    def _connect(self) -> AppServer:
        """The running server; a new one where there is none, or where it has done its share.

        A server that is replaced finishes the runs that it has. Raises ChildError, RpcError, and BridgeError
        cli_unavailable where the CLI does not start.
        """
        with self._starting:
            old = self._server
            if old is None or not old.alive or old.runs >= RUNS_PER_PROCESS:
                self._server = self._start_server()
                self._breaker.succeeded()
                if old is not None:
                    gevent.spawn(_retire, old)
            assert self._server is not None
            self._server.runs += 1
            return self._server

    def _start_server(self) -> AppServer:
        try:
            home = self._make_home()
            child = self._launch_program(self._arguments(home), home)
        except ChildError:
            self._breaker.failed()
            raise
        server = AppServer(child)
        try:
            server.call("initialize", protocol.initialize(__version__))
            server.notify("initialized")
        except RpcError:
            child.stop()
            self._breaker.failed()
            raise
        except ChildError as error:
            problem = self._failed_start(child, error)
            child.stop()
            raise problem from None
        return server

    def _arguments(self, home: Path) -> list[str]:
        return protocol.arguments(
            base_url=None if self._login else self._own.base_url,
            idle_timeout_s=self._settings.idle_timeout_s,
            catalog=self._catalog,
            sqlite_home=str(home),
        )

    def _environment(self, home: Path) -> dict[str, str]:
        env = {**super()._environment(home), "CODEX_HOME": str(home)}
        if self._login:
            # Only the log-in: an AGENTS.md or config.toml beside it would be read as well.
            self._scratch.link(self._scratch.login_folder("CODEX_HOME", ".codex") / "auth.json", home)
        elif self._own.api_key:
            env[protocol.KEY_VARIABLE] = self._own.api_key
        return env

    def _is_logged_in(self, home: Path) -> bool:
        return self._run(home, "login", "status").status == 0

    def _prepare(self, home: Path) -> None:
        """Write its catalog of models, without their tools, for its processes to read."""
        done = self._run(home, "debug", "models")
        if done.status != 0:
            said = self._stderr.summary(done.last_words)
            raise Unfit("The codex CLI cannot be run: it does not list its models.", None, said)
        catalog = json.dumps(protocol.catalog_without_tools(json.loads(done.output))).encode()
        self._catalog = str(self._scratch.shared_file("codex-models.json", catalog))


def _retire(server: AppServer) -> None:
    """Let a replaced server finish its runs, then stop it."""
    while server.alive and server.busy:
        gevent.sleep(0.5)
    server.child.stop(grace_s=2)
