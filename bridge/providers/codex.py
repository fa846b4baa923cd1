"""The codex provider: one long-lived `codex app-server`, one throw-away thread per run.

The CLI decodes the pictures that it is given, and repeats what it is told in one line. So it is given stand-ins of one
pixel, and the gate puts the pictures in. With a log-in there is no gate: then a run with much of either gets a process
of its own, which can take nobody else with it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gevent
import gevent.lock
import msgspec

from bridge import __version__
from bridge.clock import Clock
from bridge.errors import BridgeError
from bridge.gate.body import with_stand_ins, without_tool_words
from bridge.gate.ticket import Way
from bridge.providers import codex_body
from bridge.providers import codex_wire as protocol
from bridge.providers.cli import CliProvider, Replaced, Unfit, problem_of_start
from bridge.providers.codex_body import CodexAsked
from bridge.providers.codex_turn import RPC_TIMEOUT_S, AppServer, CodexTurn, RpcError
from bridge.providers.gated import Passage
from bridge.providers.provider import Emit, text_ceiling
from bridge.providers.structured import is_strict
from bridge.registry import ProviderRow
from bridge.sandbox import host
from bridge.sandbox.child import Child, ChildError
from bridge.sandbox.scratch import NoPlace, Scratch
from bridge.settings import Settings
from bridge.types import GenerationRequest, Image, Tap, Tool

if TYPE_CHECKING:
    from bridge.gate.server import Gate

#: What the CLI adds to every prompt, in tokens: the frame of the request (1.8 kB measured).
OVERHEAD_TOKENS = 1200
#: The most that one image counts, in tokens: 30,000 patches at 1.2. From gpt-5.6 on none is made smaller where the
#: original is asked for, as the CLI does; larger ones are refused. And of models before that. Source: OpenAI's guide on
#: images.
IMAGE_TOKENS = 36_000
_IMAGE_TOKENS_BEFORE = (
    # Eight tiles of 5,667, and 2,833.
    (re.compile(r"gpt-4o-mini"), 48_200),
    # 6,144 patches at 2.46.
    (re.compile(r"gpt-4\.1-nano"), 15_200),
    # 10,000 patches at 1.2; or fewer, or eight small tiles.
    (re.compile(r"gpt-4|gpt-5(?:\.[0-5])?(?![.\d])|o\d|codex-mini"), 12_000),
)
#: A process is replaced after so many runs, because it keeps a log that grows; or when it has grown to so many bytes.
RUNS_PER_PROCESS, MOST_SHARED_BYTES = 200, 700 * 2**20
#: A process that has had runs, and has had none for so long, is replaced, too, in seconds: what is left of them in its
#: memory goes. How often is looked.
IDLE_S, LOOK_S = 60.0, 5.0
#: With a log-in, a run with more than this, in pixels of its images together or in bytes, gets a process of its own.
LARGE_PIXELS, LARGE_BYTES = 4_000_000, 2**20
#: What such a process takes at most, in bytes: by itself, for each pixel of its largest image (16 bits a channel,
#: measured), and for each byte of its request.
OWN_BYTES, BYTES_PER_PIXEL, BYTES_PER_BYTE = 100 * 2**20, 18, 6
#: How long a run waits for memory for its own process, and how often it looks, in seconds.
ROOM_WAIT_S, ROOM_LOOK_S = 20.0, 0.2
#: The API takes no smaller max_output_tokens.
LEAST_OUTPUT_TOKENS = 16
#: Longest that its start may take, in seconds.
START_S = 30.0


class CodexProvider(CliProvider):
    """Runs requests on the Codex CLI."""

    oldest_version = (0, 169, 0)
    version_pattern = r"codex\S* (\d+\.\d+\.\d+)"
    login_command = "codex login"
    grace_s = 0.5
    least_output_tokens = LEAST_OUTPUT_TOKENS

    def __init__(self, row: ProviderRow, settings: Settings, scratch: Scratch, clock: Clock, gate: Gate) -> None:
        super().__init__(row, settings, scratch, clock, gate)
        #: the CLI itself knows no maximum; the gate puts it in
        self.enforces_output_limit = not self._login
        self._catalog = self._certificate = ""
        self._machine_servers: list[str] = []
        self._server: AppServer | None = None
        #: what each process shows to the gate
        self._tokens: dict[Child, str] = {}
        self._starting = gevent.lock.RLock()
        #: processes of one run each, and the bytes that each was promised
        self._own_servers: dict[AppServer, int] = {}
        self._fresh: gevent.Greenlet[[], None] | None = None

    def close(self) -> None:
        if self._fresh is not None:
            self._fresh.kill()
        super().close()

    def input_ceiling(self, request: GenerationRequest) -> int:
        ceiling = OVERHEAD_TOKENS + text_ceiling(request, _image_tokens(request.model))
        # What the CLI would not pass on of a schema stands in the description of its tool, too.
        return ceiling + request.tools_size if self._login else ceiling

    def unchecked(self, request: GenerationRequest) -> list[Tool]:
        return [
            tool
            for tool in request.tools
            if tool.strict and (self._login or not is_strict(codex_body.for_openai, tool, request))
        ]

    def start(
        self, request: GenerationRequest, emit: Emit, owner: str, tap: Tap | None = None, way: Way | None = None
    ) -> CodexTurn:
        self._refuse_if_unavailable()
        asked = codex_body.ask(request, gated=not self._login)
        if self._login:
            large = request.pixels > LARGE_PIXELS or request.size > LARGE_BYTES
            connect = partial(self._connect_alone, request) if large else self._connect
            return CodexTurn(connect, str(self._scratch.empty), asked, emit, None, tap)
        parts = codex_body.tool_parts(asked.request.messages)
        linked = asked.request.linked
        told, pictures = with_stand_ins(without_tool_words(asked.request) if parts else asked.request)
        asked = msgspec.structs.replace(asked, request=told)
        make = partial(
            self._passage,
            asked,
            way=self._way(way),
            owner=owner,
            pictures=pictures,
            tool_parts=parts,
            linked=linked,
            tap=tap,
        )
        return CodexTurn(self._connect, str(self._scratch.empty), asked, emit, make, tap)

    def _passage(
        self,
        asked: CodexAsked,
        alive: Callable[[], None],
        *,
        way: Way,
        owner: str,
        pictures: Mapping[str, Image],
        tool_parts: Mapping[str, Mapping[str, Any]],
        linked: bool,
        tap: Tap | None,
    ) -> Passage:
        """The way of a run through the gate."""
        request = asked.request
        put_in: dict[str, Any] = {
            **codex_body.tools_body(request),
            "max_output_tokens": max(request.max_output_tokens, LEAST_OUTPUT_TOKENS),
            "prompt_cache_key": hashlib.sha256(f"{owner}\n{request.system}".encode()).hexdigest()[:32],
            # For models that are not in its catalog the CLI asks for a summary by itself, which some refuse.
            "reasoning": {"summary": request.thoughts},
            # Where nobody asks for one, the provider's own.
            "text": {"verbosity": request.verbosity},
        }
        silence_s = self._settings.idle_timeout_s
        return Passage(
            self._gate,
            way.upstream,
            request,
            self._clock,
            alive,
            row=self._row,
            way=way,
            tools=frozenset(asked.names),
            put_in=put_in,
            pictures=pictures,
            tool_parts=tool_parts,
            linked=linked,
            silence_s=silence_s,
            tap=tap,
        )

    def _begin(self, *, renewed: bool) -> None:
        try:
            if renewed and self._server is not None:
                self._replace()
            else:
                self._connect()
        except (ChildError, RpcError, BridgeError) as error:
            problem, hint = "The codex CLI does not start.", "Install the tested version from deploy/clis."
            said = self._stderr.mask(str(error)) if isinstance(error, (ChildError, RpcError)) else None
            raise Unfit(problem, hint, said) from None
        if self._fresh is None:
            self._fresh = gevent.spawn(self._keep_fresh)

    def _ready(self) -> int:
        return int(self._server is not None and self._server.child.fit)

    def _connect(self) -> AppServer:
        """The running server; a new one where there is none, or where it has done its share.

        Raises ChildError, RpcError, and BridgeError cli_unavailable where the CLI does not start.
        """
        with self._starting:
            server = self._server
            if server is None or not server.child.fit or _is_worn(server):
                server = self._replace()
            server.runs += 1
            return server

    def _replace(self) -> AppServer:
        """Start another server; the one before it finishes the runs that it has. Raises like `_connect`."""
        with self._starting:
            old, self._server = self._server, self._start_server()
            self._breaker.succeeded()
            if old is not None:
                gevent.spawn(_retire, old)
            return self._server

    def _keep_fresh(self) -> None:
        """Replace the server when nobody uses it, so that what it remembers of one person's runs is gone before the
        next comes, or soon."""
        quiet_since = self._clock.monotonic()
        while True:
            gevent.sleep(LOOK_S)
            server, now = self._server, self._clock.monotonic()
            if server is None or not server.alive or server.busy or not server.ended:
                quiet_since = now
            elif server.worn or now - quiet_since >= IDLE_S:
                try:
                    self._replace()
                except (ChildError, RpcError, BridgeError):
                    quiet_since = now

    def _connect_alone(self, request: GenerationRequest) -> AppServer:
        """A server for this run alone, with its pictures or texts: it ends with it. Raises like `_connect`, and
        BridgeError overloaded where there is no memory for it."""
        largest = max((image.pixels for image in request.images), default=0)
        needed = OWN_BYTES + BYTES_PER_PIXEL * largest + BYTES_PER_BYTE * request.size
        for _ in range(round(ROOM_WAIT_S / ROOM_LOOK_S)):
            if self._has_room(needed):
                break
            gevent.sleep(ROOM_LOOK_S)
        else:
            message = "The bridge's host is short of memory for images of this size."
            raise BridgeError("overloaded", message, "Send it again later, or with smaller images.", retry_after=20)
        server = self._start_server()
        server.child.step_back(for_good=True)
        self._own_servers[server] = needed
        gevent.spawn(self._end_with_its_run, server)
        return server

    def _has_room(self, needed: int) -> bool:
        """Whether there is memory for one more, when all that run take what they may."""
        to_come = sum(
            max(0, promised - host.resident_bytes(server.child.pid)) for server, promised in self._own_servers.items()
        )
        return host.available_bytes() >= to_come + needed + host.MARGIN_BYTES

    def _end_with_its_run(self, server: AppServer) -> None:
        until = self._clock.monotonic() + 2 * RPC_TIMEOUT_S
        while server.alive and not server.ended and (server.busy or self._clock.monotonic() < until):
            gevent.sleep(0.1)
        server.child.stop(self.grace_s)
        del self._own_servers[server]

    def _start_server(self) -> AppServer:
        token = self._gate.tickets.admit_process()
        try:
            home = self._make_home()
            environment = {} if self._login else {protocol.KEY_VARIABLE: token}
            child = self._launch_program(self._arguments(home), home, environment)
        except ChildError as error:
            self._gate.tickets.dismiss_process(token)
            if isinstance(error, NoPlace | Replaced):
                raise BridgeError.of(problem_of_start("codex", error)) from None
            self._breaker.failed()
            raise
        self._tokens[child] = token
        server = AppServer(child, self._note_unknown)
        try:
            server.call("initialize", protocol.initialize(__version__), START_S)
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
            machine_servers=self._machine_servers,
        )

    def _environment(self, home: Path) -> dict[str, str]:
        # By itself it calls every call of a tool, which ends its run, an error.
        env = {**super()._environment(home), "CODEX_HOME": str(home), "RUST_LOG": "error,codex_core::tools=off"}
        if self._login:
            env.update(self._settings.network)
            # Only the log-in: an AGENTS.md or config.toml beside it would be read as well.
            self._scratch.link(self._scratch.login_folder("CODEX_HOME", ".codex") / "auth.json", home)
        elif self._certificate:
            env["SSL_CERT_FILE"] = self._certificate
        return env

    def _is_logged_in(self, home: Path) -> bool:
        return self._run(home, "login", "status").status == 0

    def _prepare(self, home: Path) -> None:
        """Write its catalog of models, without their tools, for its processes to read; and find out what the machine
        has for everybody."""
        done = self._run(home, "debug", "models")
        if done.status != 0:
            said = self._stderr.summary(done.last_words)
            raise Unfit("The codex CLI cannot be run: it does not list its models.", None, said)
        catalog = json.dumps(protocol.catalog_without_tools(json.loads(done.output))).encode()
        self._catalog = str(self._scratch.shared_file("codex-models.json", catalog))
        self._machine_servers = protocol.server_names(self._run(home, "mcp", "list", "--json").output)
        self._certificate = str(self._scratch.shared_file("codex-certificate.pem", protocol.ONE_CERTIFICATE))


def _image_tokens(model: str) -> int:
    # One that was trained further has any words after its base: `ft:gpt-6-sol:acme:like-gpt-4:1`.
    base = model.rpartition("/")[2].removeprefix("ft:")
    return next((tokens for name, tokens in _IMAGE_TOKENS_BEFORE if name.match(base)), IMAGE_TOKENS)


def _is_worn(server: AppServer) -> bool:
    used_up = server.worn or server.runs >= RUNS_PER_PROCESS
    return used_up or host.resident_bytes(server.child.pid) > MOST_SHARED_BYTES


def _retire(server: AppServer) -> None:
    """Let a replaced server finish its runs, then stop it."""
    while server.alive and server.busy:
        gevent.sleep(0.5)
    server.child.stop(grace_s=2)
