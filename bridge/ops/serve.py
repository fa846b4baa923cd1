"""The server: gunicorn, embedded, with one gevent worker.

One worker is the design, not a default: it is the only writer of the data folder and holds the state
in memory. The worker takes the folder's lock; the arbiter above it only watches over it.
"""

from __future__ import annotations

import dataclasses
import errno
import gc
import logging
import mmap
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gevent
import gunicorn
from gevent.event import Event
from gevent.lock import RLock
from gevent.server import StreamServer
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter as GunicornArbiter
from gunicorn.errors import HaltServer
from gunicorn.workers.ggevent import GeventWorker

from bridge.clock import Clock
from bridge.errors import SettingsError, StoreError, StoreLocked
from bridge.ops import connections, rehearsal
from bridge.ops.alerts import Alerts
from bridge.providers.machine_files import machine_files
from bridge.sandbox import host
from bridge.service import MakeProviders, Service, announcement
from bridge.settings import Settings
from bridge.store.folder import Store

log = logging.getLogger("bridge")

#: Keep-alive of idle connections, in seconds: above the 90 s for which cloudflared keeps its own.
KEEP_ALIVE_S = 120
#: Grace for running requests after SIGTERM, in seconds.
DRAIN_S = 25.0
#: Grace for the last bytes of answers once all runs have ended, in seconds.
FLUSH_S = 1.0
#: Seconds after which the arbiter kills a worker that does not end.
GRACEFUL_TIMEOUT_S = 40
#: How long a worker waits for the data folder while its predecessor still drains, in seconds.
TAKE_OVER_S = GRACEFUL_TIMEOUT_S + 5.0
#: Pause before a worker is started again in the place of one that could not start, in seconds.
START_AGAIN_S = 5.0
#: How long a worker that hands over goes on taking on what comes on the connections that it has, in seconds.
TAKEN_ON_S = 0.5

Ready = Callable[[Service, str], None]


class Board:
    """What the arbiter and its workers tell each other, in memory that they share."""

    _FIELDS = struct.Struct("=?QI")

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 2**16)
        self.write(served=False, leaving=0, problems=())

    def write(
        self, *, served: bool | None = None, leaving: int | None = None, problems: Sequence[str] | None = None
    ) -> None:
        """Change what is given."""
        served = self.served if served is None else served
        leaving = self.leaving if leaving is None else leaving
        problems = self.problems if problems is None else problems
        text = "\n".join(problems).encode("utf-8", "replace")[: len(self._memory) - self._FIELDS.size]
        self._memory[: self._FIELDS.size + len(text)] = self._FIELDS.pack(served, leaving, len(text)) + text

    @property
    def served(self) -> bool:
        """Whether a worker has served with the settings that hold."""
        return bool(self._read()[0])

    @property
    def leaving(self) -> int:
        """The age up to which workers hand over."""
        return int(self._read()[1])

    @property
    def problems(self) -> list[str]:
        """Why the last SIGHUP changed nothing; empty where it did."""
        start, length = self._FIELDS.size, int(self._read()[2])
        return self._memory[start : start + length].decode("utf-8", "ignore").splitlines()

    def _read(self) -> tuple[Any, ...]:
        return self._FIELDS.unpack_from(self._memory)


class Worker(GeventWorker):  # type: ignore[misc]
    """gunicorn's gevent worker, which drains on SIGTERM instead of closing its listener at once.

    While it drains, it answers new requests with 503 draining instead of refusing their connections. After a SIGHUP
    (the arbiter sends SIGUSR2) it leaves new connections to the next worker.
    """

    #: set once the service is open: ends everything, and this process
    finish: Callable[[], None] = partial(os._exit, 0)
    ending = False
    #: requests that are being answered
    answering = 0

    #: where connections wait for their next request
    waiting = connections.Waiting(KEEP_ALIVE_S)

    def server_class(self, sock: Any, *, spawn: Any, **ignored: Any) -> StreamServer:
        """Make the server of one listening socket, as gunicorn would, and remember it."""
        self.pool = spawn
        server = StreamServer(sock, handle=partial(self.handle, sock), spawn=spawn)
        self.__dict__.setdefault("listeners", []).append(server)
        return server

    def init_signals(self) -> None:
        """As gunicorn's, and SIGUSR2. SIGHUP is the arbiter's, also where a terminal or systemd tells everybody."""
        super().init_signals()
        self.quiet = Event()
        self.quiet.set()
        signal.signal(signal.SIGUSR2, self.handle_hand_over)
        # A function, since CLIs would inherit that a signal is ignored.
        signal.signal(signal.SIGHUP, lambda number, frame: None)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM: end, once what runs has ended."""
        self.ending = True
        gevent.spawn(self.finish)

    def handle_hand_over(self, sig: int, frame: Any) -> None:
        """SIGUSR2: another worker is about to take over. From anybody but the arbiter it means nothing."""
        if self.age > self.app.board.leaving:
            return
        for server in self.__dict__.get("listeners", ()):
            server.stop_accepting()
        # Connections that it has taken on may not have been read yet: nobody else can answer those.
        self.ending = True
        gevent.spawn_later(TAKEN_ON_S, self.finish)

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """As gunicorn does, but only for a client that reads. Where connections run short, an idle one is closed."""
        if self.pool.free_count() < connections.SPARE:
            self.waiting.make_room()
        connections.expect_a_reader(client)
        super().handle(listener, client, addr)

    def timeout_ctx(self) -> connections.Wait:
        """The context around the wait for a request."""
        return self.waiting.wait()

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer what is no request with an error in JSON; gunicorn would send a page of HTML."""
        connections.refuse(client, exc)

    def handle_request(self, listener_name: str, req: Any, sock: Any, addr: Any) -> Any:
        """As gunicorn does; but at the end no connection is kept: the client's next one reaches the next server."""
        if self.ending or (req.req_number > connections.MOST_PIPELINED and connections.is_pipelined(req)):
            req.force_close()
        # Everybody's turn between two requests of one client, who may have sent thousands at once.
        gevent.sleep(0)
        self.answering += 1
        self.quiet.clear()
        try:
            with connections.reader_expected(sock):
                return super().handle_request(listener_name, req, sock, addr)
        finally:
            self.answering -= 1
            if not self.answering:
                self.quiet.set()


def _end_on_signal(arbiter: Any, worker: Any) -> None:
    """In a worker that has just been forked: a signal to end ends it at once. Until it has handlers of its own,
    the arbiter's would only note the signal; the arbiter sends it once, and then waits for 40 seconds."""
    signals = (signal.SIGTERM, signal.SIGUSR2)
    for number in signals:
        signal.signal(number, signal.SIG_DFL)
    while not arbiter.SIG_QUEUE.empty():
        if arbiter.SIG_QUEUE.get_nowait() in signals:
            os._exit(0)


def _hand_over(arbiter: Any) -> None:
    arbiter.app.board.write(served=False, leaving=arbiter.worker_age)
    for pid in list(arbiter.WORKERS):
        os.kill(pid, signal.SIGUSR2)


class Arbiter(GunicornArbiter):  # type: ignore[misc]
    """gunicorn's arbiter, which no signal but those to end makes end, and no mistake that comes after the start."""

    #: until when (monotonic) no worker is started
    pause_until = 0.0

    def handle_hup(self) -> None:
        """SIGHUP: hand over to a worker that reads everything again, but only where it will be able to."""
        if self.app.read_again():
            super().handle_hup()

    def handle_ttin(self) -> None:
        """SIGTTIN would be another worker, which waits in vain for the data folder."""

    def handle_ttou(self) -> None:
        """SIGTTOU would be a worker less."""

    def handle_usr2(self) -> None:
        """SIGUSR2 would be another arbiter."""

    def reap_workers(self) -> None:
        """As gunicorn does; but where there was a service, a worker that cannot start is followed by another."""
        try:
            super().reap_workers()
        except HaltServer as halt:
            # Half of another program does not become whole: whoever starts this one anew starts all of it.
            if not self.app.serves or halt.exit_status == _LOAD_ERROR:
                raise
            say(f"The new worker could not start. Another one is started in {START_AGAIN_S:g} seconds.")
            self.app.go_back()
            self.pause_until = Clock().monotonic() + START_AGAIN_S

    def manage_workers(self) -> None:
        """As gunicorn does, after the pause."""
        if Clock().monotonic() >= self.pause_until:
            super().manage_workers()


class Server(BaseApplication):  # type: ignore[misc]
    """gunicorn with our application and our configuration, and none of its own config files."""

    def __init__(
        self,
        settings: Settings,
        *,
        make_providers: MakeProviders | None = None,
        ready: Ready | None = None,
        reread: Callable[[], Settings] | None = None,
    ) -> None:
        """`ready(service, address)` is called in the worker once it serves, `reread()` on SIGHUP."""
        self._settings = self._settings_before = settings
        self._reread = reread
        self._program = rehearsal.program()
        self.board = Board()
        #: whether there was a service once
        self.serves = False
        self._make_providers = make_providers
        self._ready = ready
        self._service: Service | None = None
        self._stopping = RLock()
        self._systemd = _take_notify_socket()
        super().__init__()

    def run(self) -> None:
        """Serve until a signal."""
        # The collector's marks would make a copy of every page that the worker shares with its arbiter.
        gc.collect()
        gc.freeze()
        try:
            Arbiter(self).run()
        except RuntimeError as error:
            say(f"Error: {error}")
            raise SystemExit(1) from None

    def read_again(self) -> bool:
        """Before a new worker: read the settings again, and try all that it will read. Where there are mistakes, say
        so, and let everything stay as it is."""
        settings, problems = self._settings, list[str]()
        if self._reread is not None:
            try:
                settings = self._reread()
            except SettingsError as error:
                problems = error.problems
        held = {name: getattr(self._settings, name) for name in _HELD}
        if any(getattr(settings, name) != value for name, value in held.items()):
            say("A change of the address, the port, the socket or the data folder holds from the next start on.")
        settings = dataclasses.replace(settings, **held)
        if rehearsal.program() != self._program:
            problems = ["The program is not the one any more that was started. Restart the server."]
        problems = problems or rehearsal.problems(settings)
        self.board.write(problems=[f"SIGHUP changed nothing: {problem}" for problem in problems])
        if problems:
            say("SIGHUP changed nothing, and the service goes on as before:\n  " + "\n  ".join(problems))
            return False
        if self.board.served:
            self.serves, self._settings_before = True, self._settings
        self._settings = settings
        warn_of_unheeded(settings)
        return True

    def go_back(self) -> None:
        """Take the settings with which a worker has served."""
        self._settings = self._settings_before
        self.do_load_config()

    def load_config(self) -> None:
        settings = self._settings
        bind = f"unix:{settings.socket}" if settings.socket else f"{_bracketed(settings.host)}:{settings.port}"
        options: dict[str, Any] = {
            "bind": bind,
            "workers": 1,
            "worker_class": Worker,
            "worker_connections": connections.limit(),
            "keepalive": KEEP_ALIVE_S,
            "timeout": 60,
            "graceful_timeout": GRACEFUL_TIMEOUT_S,
            "worker_tmp_dir": "/dev/shm" if os.path.isdir("/dev/shm") else None,
            "limit_request_line": 8190,
            # A head that never ends is searched again with every byte: its size is what that costs.
            "limit_request_fields": 64,
            "limit_request_field_size": 4094,
            "proc_name": "cli-bridge",
            # The bridge reports its own errors; gunicorn would only repeat them.
            "loglevel": "critical",
            "control_socket_disable": True,
            # Of what gunicorn makes: a unix socket is for the service's user and its group, whatever the umask.
            "umask": 0o117,
            # gunicorn believes no header of a proxy; http/address.py decides.
            "forwarded_allow_ips": "",
            # Nor on a unix socket: a client could change the path after a proxy has checked it.
            "forwarder_headers": "",
            "secure_scheme_headers": {},
            "post_fork": _end_on_signal,
            "post_worker_init": self._serve,
            "worker_int": lambda worker: self._stop(),
            "worker_exit": lambda server, worker: self._stop(),
            "on_reload": _hand_over,
        }
        if unknown := options.keys() - self.cfg.settings.keys():
            # gunicorn prints this and ends. Each option guards something, so none is left out.
            raise RuntimeError(
                f"gunicorn {gunicorn.__version__} does not know {', '.join(sorted(unknown))}; "
                "install the version that cli-bridge was released with."
            )
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """Open the service, in the worker. A data folder that cannot be used ends the server."""
        # Imported here, in the worker: the arbiter has no use for them, and would keep their memory a second time. And
        # TLS must not be loaded before the server has made the process a gevent one.
        try:
            if rehearsal.program() != self._program:
                # This worker takes the place of one that has crashed.
                raise ImportError("the program was replaced where it lies")
            from bridge.http.app import create_app
            from bridge.ops.conformance import checked_providers
        except ImportError as error:
            say(f"cli-bridge cannot start: {error}.\n  {_NOT_WHOLE}")
            raise SystemExit(_LOAD_ERROR) from None
        try:
            make_providers = self._make_providers or checked_providers
            self._service = Service(self._settings, make_providers=make_providers, wait_s=TAKE_OVER_S)
        except StoreError as error:
            say(f"cli-bridge cannot start: {error.message}\n  {error.hint}")
            raise SystemExit(_BOOT_ERROR) from None
        return create_app(self._service, waiting=Worker.waiting.wait)

    def _serve(self, worker: Any) -> None:
        service = self._service
        assert service is not None
        made = service.admin.ensure()
        address = _address(worker.sockets[0])
        service.store.announce(announcement(service, address))
        if made is not None:
            say(
                "\nAn admin key was made. It is shown only this once and kept as a hash:\n"
                f"\n    {made}\n\nPut it into BRIDGE_ADMIN_KEY or a password manager.\n"
            )
        service.why_not_reread = lambda: self.board.problems
        from bridge.ops.upgrade import Trials

        service.open()
        self.board.write(served=True)
        Alerts(service)
        Trials(service)
        worker.finish = partial(self._finish, worker)
        if self._ready is not None:
            self._ready(service, address)
        _tell_systemd(self._systemd, "READY=1")

    def _finish(self, worker: Worker) -> None:
        """Drain, and end this process: gunicorn itself would cut running requests off, and then wait for
        idle keep-alive connections."""
        self._stop(DRAIN_S)
        worker.quiet.wait(FLUSH_S)
        os._exit(0)

    def _stop(self, drain_s: float = 0.0) -> None:
        """Close the service once, however many signals come; every caller waits until it is closed."""
        with self._stopping:
            service, self._service = self._service, None
            if service is not None:
                service.close(drain_s)


#: What a reload does not change: the arbiter's listener, and the folder whose lock tells who serves.
_HELD = ("host", "port", "socket", "data_dir")

_NOT_WHOLE = "A part of the program is missing, or of another version. Install it again, and restart the server."

#: gunicorn's exit status for "do not start this worker again", and for one whose program could not be loaded.
_BOOT_ERROR, _LOAD_ERROR = 3, 4


def run(
    settings: Settings,
    *,
    make_providers: MakeProviders | None = None,
    ready: Ready | None = None,
    reread: Callable[[], Settings] | None = None,
) -> None:
    """Serve until a signal.

    Raises StoreLocked where another server has the data folder, and SettingsError where the CLIs' user
    cannot be used.
    """
    holder = Store.holder(settings.data_dir)
    if holder is not None:
        raise StoreLocked(holder.get("pid"))
    warning = host.user_warning(host.find_user(settings.cli_user))
    if warning and make_providers is None:
        say(warning)
    for found in machine_files() if make_providers is None else ():
        say(f"Warning: {found.does}")
    if "*" in settings.cors_origins:
        say("Warning: BRIDGE_CORS_ORIGINS=* lets every web page call this bridge with a key it knows.")
    warn_of_unheeded(settings)
    _try_to_listen(settings)
    arbiter = os.getpid()
    try:
        Server(settings, make_providers=make_providers, ready=ready or announce, reread=reread).run()
    except SystemExit as end:
        # The worker, a fork, comes out here as well; its status tells the arbiter not to try again.
        if end.code in (_BOOT_ERROR, _LOAD_ERROR) and os.getpid() == arbiter:
            raise SystemExit(1) from None
        raise


def _try_to_listen(settings: Settings) -> None:
    """Try the address: gunicorn would retry for seconds and then end without a message. Raises SystemExit, with a
    sentence on stderr."""
    try:
        if settings.socket is not None:
            where = f"the unix socket {settings.socket}"
            folder = Path(settings.socket).resolve().parent
            if not os.access(folder, os.W_OK | os.X_OK):
                raise OSError(errno.EACCES if folder.exists() else errno.ENOENT, "its folder cannot be written to")
            return
        where = f"{_bracketed(settings.host)}:{settings.port}"
        kind, _, _, _, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(kind, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
            trial.listen(1)
    except OSError as error:
        hint = "Is another program listening there? Set BRIDGE_PORT, BRIDGE_HOST or BRIDGE_SOCKET."
        say(f"cli-bridge cannot listen on {where}: {error.strerror or error}.\n  {hint}")
        raise SystemExit(1) from None


def announce(service: Service, address: str) -> None:
    """Say where the service listens, and what to do first."""
    say(f"cli-bridge listens on {address}")
    base = browser_address(address)
    if address.startswith("http"):
        say(f"In a browser: {base}/admin/ for the admin, {base}/ for everybody with a key.")
    if not service.has_credentials:
        from bridge.http.login import link_address

        say(_SET_UP.format(link=link_address(base, service.link.make()), there=_way_there(base)))
    elif not service.keys.list():
        say("There are no keys yet, so no one can use it. Make one: cli-bridge keys create NAME")


_SET_UP = """
There is no API key of a provider yet. Open this link to set everything up:

    {link}

It logs the admin in, once, within ten minutes. Another one: cli-bridge link (in a checkout: ./run link).
{there}"""


def _way_there(base: str) -> str:
    """How the browser of somebody who is here by ssh gets to a service that only this host can reach; a line."""
    _, _, host, _ = (os.environ.get("SSH_CONNECTION", "").split() + [""] * 4)[:4]
    where = urlsplit(base)
    if not host or where.hostname not in ("127.0.0.1", "::1", "localhost"):
        return ""
    return f"Your browser is on another machine? First, there: ssh -L {where.port}:{where.netloc} {host}\n"


def browser_address(address: str) -> str:
    """Where a browser finds the service that listens on `address`: one that listens on every address is here, too,
    and of a unix socket only the operator knows the name that leads to it."""
    if address.startswith("unix:"):
        return "https://YOUR-HOST"
    return address.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")


def warn_of_unheeded(settings: Settings) -> None:
    """Say which variables somebody has set in vain."""
    for sentence in settings.unheeded:
        say(f"Warning: {sentence}")


def say(text: str) -> None:
    """A message to the operator; a terminal that has gone away must not keep the service from starting."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        pass


def _address(sock: Any) -> str:
    name = sock.getsockname()
    if isinstance(name, tuple):
        return f"http://{_bracketed(name[0])}:{name[1]}"
    return f"unix:{os.fsdecode(name)}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


# --- systemd (sd_notify(3)) --------------------------------------------------------------------------------


def _take_notify_socket() -> str | None:
    """Where systemd listens for a unit of `Type=notify`; None elsewhere. It leaves the environment: gunicorn would
    otherwise say READY as soon as its arbiter stands, long before anything is served."""
    return os.environ.pop("NOTIFY_SOCKET", None)


def _tell_systemd(address: str | None, state: str) -> None:
    """Tell `state`, such as READY=1. Silent where systemd does not listen."""
    if not address:
        return
    # An address that begins with @ is one of the kernel's abstract names.
    name = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.sendto(state.encode(), name)
    except OSError:
        pass
