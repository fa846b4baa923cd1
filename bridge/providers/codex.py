"""The codex provider: one long-lived `codex app-server`, one throw-away thread per run.

With API keys every call goes through the gate, which knows the run by its thread, and puts in what the CLI cannot
carry: the output limit, and a key of the provider's cache that stays the same for an owner and its system prompt.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gevent
import gevent.lock

from bridge import __version__
from bridge.clock import Clock
from bridge.errors import BridgeError
from bridge.gate.ticket import Upstream
from bridge.providers import codex_wire as protocol
from bridge.providers.cli import CliProvider, Unfit
from bridge.providers.codex_turn import AppServer, CodexTurn, RpcError
from bridge.providers.gated import Passage
from bridge.providers.provider import Emit
from bridge.providers.tokens import text_ceiling
from bridge.registry import ProviderRow
from bridge.sandbox.child import Child, ChildError
from bridge.sandbox.scratch import Scratch
from bridge.settings import Settings
from bridge.types import GenerationRequest

if TYPE_CHECKING:
    from bridge.gate.server import Gate

#: What the CLI adds to every prompt, in tokens: the frame of the request (1.8 kB measured).
OVERHEAD_TOKENS = 1200
#: The most that one image counts, in tokens: the largest budget of patches that a model takes.
IMAGE_TOKENS = 12000
#: Runs after which a process is replaced, because it keeps a log that grows.
RUNS_PER_PROCESS = 1000
#: The API takes no smaller max_output_tokens.
LEAST_OUTPUT_TOKENS = 16


class CodexProvider(CliProvider):
    """Runs requests on the Codex CLI."""

    oldest_version = (0, 169, 0)
    version_pattern = r"codex\S* (\d+\.\d+\.\d+)"
    login_command = "codex login"
    grace_s = 0.5

    def __init__(self, row: ProviderRow, settings: Settings, scratch: Scratch, clock: Clock, gate: Gate) -> None:
        super().__init__(row, settings, scratch, clock, gate)
        #: the CLI itself knows no maximum; the gate puts it in
        self.enforces_output_limit = not self._login
        self._catalog = self._certificate = ""
        self._server: AppServer | None = None
        #: what each process shows to the gate
        self._tokens: dict[Child, str] = {}
        self._starting = gevent.lock.RLock()

    def input_ceiling(self, request: GenerationRequest) -> int:
        return OVERHEAD_TOKENS + text_ceiling(request, IMAGE_TOKENS)

    def start(self, request: GenerationRequest, emit: Emit, owner: str) -> CodexTurn:
        self._refuse_if_unavailable()
        make = None if self._login else lambda told, alive: self._passage(told, alive, owner)
        return CodexTurn(self._connect, str(self._scratch.empty), request, emit, make)

    def _passage(self, request: GenerationRequest, alive: Callable[[], None], owner: str) -> Passage:
        """The way of a run through the gate; `request` is as the CLI is told it."""
        put_in: dict[str, Any] = {
            "max_output_tokens": max(request.max_output_tokens, LEAST_OUTPUT_TOKENS),
            "prompt_cache_key": hashlib.sha256(f"{owner}\n{request.system}".encode()).hexdigest()[:32],
            # For models that are not in its catalog the CLI asks for a summary by itself, which some refuse.
            "reasoning": {"summary": None},
        }
        upstream = Upstream("responses", self._own.base_url or "", self._own.api_key or "")
        silence_s = self._settings.idle_timeout_s
        return Passage(
            self._gate,
            upstream,
            request,
            self._clock,
            alive,
            vendor=self._row.vendor,
            put_in=put_in,
            silence_s=silence_s,
        )

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
        token = self._gate.tickets.admit_process()
        try:
            home = self._make_home()
            environment = {} if self._login else {protocol.KEY_VARIABLE: token}
            child = self._launch_program(self._arguments(home), home, environment)
        except ChildError:
            self._gate.tickets.dismiss_process(token)
            self._breaker.failed()
            raise
        self._tokens[child] = token
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

    def _clean_up_after(self, child: Child, home: Path | None) -> None:
        super()._clean_up_after(child, home)
        self._gate.tickets.dismiss_process(self._tokens.pop(child, ""))

    def _arguments(self, home: Path) -> list[str]:
        return protocol.arguments(
            base_url=None if self._login else f"{self._gate.url}/v1",
            # The gate listens for the provider's silence; a CLI behind it is never quicker.
            idle_timeout_s=self._settings.idle_timeout_s if self._login else self._settings.timeout_s,
            catalog=self._catalog,
            sqlite_home=str(home),
        )

    def _environment(self, home: Path) -> dict[str, str]:
        env = {**super()._environment(home), "CODEX_HOME": str(home)}
        if self._login:
            # Only the log-in: an AGENTS.md or config.toml beside it would be read as well.
            self._scratch.link(self._scratch.login_folder("CODEX_HOME", ".codex") / "auth.json", home)
        elif self._certificate:
            env["SSL_CERT_FILE"] = self._certificate
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
        self._certificate = str(self._scratch.shared_file("codex-certificate.pem", protocol.ONE_CERTIFICATE))


def _retire(server: AppServer) -> None:
    """Let a replaced server finish its runs, then stop it."""
    while server.alive and server.busy:
        gevent.sleep(0.5)
    server.child.stop(grace_s=2)
