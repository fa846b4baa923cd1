"""How a command does the admin's work: on this host, whether the server runs or not, or with a server elsewhere.

There is one implementation of it, the admin API. Where a server has the data folder, the command asks
that server, with the token from the lock file. Where none has, the command opens the folder itself and
asks the same application without a network in between. Who asks again and again (`RemoteAdmin`) keeps its connection.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import msgspec

from bridge.clock import Clock
from bridge.errors import CODES, BridgeError, StoreLocked
from bridge.settings import Settings
from bridge.store.folder import Store

#: Longest that a running server may take for an answer, in seconds: to a command, and to one that asks again.
TIMEOUT_S, PATIENCE_S = 60.0, 10.0
#: How long a command waits for a server that is just starting, in seconds.
STARTING_S = 20.0
#: Most that is read of an answer over a connection that is kept.
MOST_BYTES = 16 * 2**20
_HINT = "Look whether it runs, and whether its address is right."
_PIECE = 65536


class AdminClient:
    """Calls of the admin API. Raises BridgeError for every answer that is an error."""

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """The JSON of the answer."""
        status, raw = self.send(method, path, body)
        try:
            answer = json.loads(raw or b"null")
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or (status >= 300 and not {"code", "error", "hint"} <= answer.keys()):
            message = f"What answers there is no cli-bridge (status {status})."
            raise BridgeError("overloaded", message, "Look at the address, and at what lies between.")
        if status >= 400:
            known = {k: v for k, v in answer.items() if k not in ("error", "code", "hint")}
            # A newer server may have codes that this command does not know.
            code = answer["code"] if answer["code"] in CODES else "internal"
            raise BridgeError(code, answer["error"], answer["hint"], **known)
        return answer

    def send(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, bytes]:
        """(HTTP status, body of the answer)."""
        raise NotImplementedError

    def stream(self, path: str) -> Iterator[bytes]:
        """The body of a GET, piece by piece."""
        raise NotImplementedError


@contextmanager
def admin_client(settings: Settings) -> Iterator[AdminClient]:
    """A client of the running server, or of the data folder itself. Raises StoreError."""
    holder = _holder(settings)
    if holder is not None:
        yield _Online(holder["address"], holder["token"])
        return
    from bridge.http.app import create_app
    from bridge.service import Service

    service = Service(settings)
    try:
        yield _Offline(create_app(service), service.local_token)
    finally:
        service.close()


def _holder(settings: Settings) -> dict[str, Any] | None:
    """Who has the data folder. A server that is just starting does not say its address yet, and another command
    is soon done: both are waited for. Raises StoreLocked."""
    deadline = Clock().monotonic() + STARTING_S
    while (holder := Store.holder(settings.data_dir)) is not None and "address" not in holder:
        if Clock().monotonic() > deadline:
            raise StoreLocked(holder.get("pid"))
        time.sleep(0.1)
    return holder


class _Online(AdminClient):
    def __init__(self, address: str, token: str) -> None:
        self._address = address
        self._token = token

    def send(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, bytes]:
        connection = _unix_or_plain(self._address, TIMEOUT_S)
        try:
            headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except OSError as error:
            raise BridgeError(
                "overloaded", f"The running server does not answer ({error.strerror or error})."
            ) from None
        finally:
            connection.close()

    def stream(self, path: str) -> Iterator[bytes]:
        connection = _unix_or_plain(self._address, TIMEOUT_S)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {self._token}"})
            answer = connection.getresponse()
            if answer.status != 200:
                raise BridgeError("overloaded", f"The running server refuses this (status {answer.status}).")
            while piece := answer.read(_PIECE):
                yield piece
        except (OSError, http.client.HTTPException) as error:
            raise BridgeError("overloaded", f"The running server broke off ({error}).") from None
        finally:
            connection.close()


class _Offline(AdminClient):
    def __init__(self, app: Any, token: str) -> None:
        self._client = app.test_client()
        self._token = token

    def send(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, bytes]:
        answer = self._client.open(
            path,
            method=method,
            data=None if body is None else json.dumps(body),
            headers={"Authorization": f"Bearer {self._token}"},
        )
        return answer.status_code, answer.data

    def stream(self, path: str) -> Iterator[bytes]:
        answer = self._client.get(path, headers={"Authorization": f"Bearer {self._token}"}, buffered=False)
        yield from answer.iter_encoded()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _unix_or_plain(address: str, timeout_s: float) -> http.client.HTTPConnection:
    """A connection to a server without TLS, at `unix:PATH` or a URL."""
    if address.startswith("unix:"):
        return _UnixConnection(address.removeprefix("unix:"), timeout_s)
    parts = urlsplit(address)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(parts.hostname or "", parts.hostname or "127.0.0.1")
    return http.client.HTTPConnection(host, parts.port, timeout=timeout_s)


# --- over one connection that is kept --------------------------------------------------------------


class AdminAddress(msgspec.Struct, frozen=True):
    """Where a server is, and what opens its admin API. `address`: a URL, or `unix:PATH`."""

    address: str
    secret: str


def elsewhere(url: str, secret: str) -> AdminAddress:
    """The server at a URL. Raises ValueError, with a sentence, for a URL that cannot be meant."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{url} is no address: {error}.") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError("The address must look like https://bridge.example.com.")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("The address may have neither a password nor anything behind '?' or '#'.")
    if not (secret.isascii() and secret.isprintable() and secret):
        raise ValueError("The admin key must be one line of plain characters.")
    return AdminAddress(url.rstrip("/"), secret)


def here(settings: Settings) -> AdminAddress:
    """The server that has this data folder now. Raises BridgeError where there is none."""
    holder = Store.holder(settings.data_dir)
    if holder is None:
        raise BridgeError("draining", "No server has this data folder.", "Start it: cli-bridge serve")
    if "address" not in holder:
        raise BridgeError("draining", "The server is just starting.", "Wait a moment.")
    return AdminAddress(holder["address"], holder["token"])


class RemoteAdmin(AdminClient):
    """Calls of the admin API. Not for several threads at once."""

    def __init__(self, find: Callable[[], AdminAddress], timeout_s: float = PATIENCE_S) -> None:
        """`find` is asked before each new connection: after a restart the server may be at another address."""
        self._find = find
        self._timeout_s = timeout_s
        self._connection: http.client.HTTPConnection | None = None
        self._access = AdminAddress("", "")

    def top(self, query: str = "") -> Any:
        """An answer of `/admin/top`. Raises BridgeError."""
        try:
            return self.call("GET", f"/admin/top{query}")
        except BridgeError as error:
            if error.code != "not_found":
                raise
            message = "The server is of an older version, which has nothing for `top`."
            raise BridgeError("not_found", message, "Upgrade the server, or use its dashboard.") from None

    def send(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, bytes]:
        """One call, on the connection that is open, or on a new one where there is none or it was closed meanwhile:
        what is asked here may come twice. Raises BridgeError."""
        kept = self._connection
        for connection in (kept, None) if kept is not None else (None,):
            try:
                return self._exchange(connection or self._open(), method, path, body)
            except TimeoutError:
                self.close()
                message = f"The server has not answered for {self._timeout_s:g} seconds."
                raise BridgeError("overloaded", message, _HINT) from None
            except (OSError, http.client.HTTPException) as error:
                self.close()
                why = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else _words(error)
        raise BridgeError("overloaded", f"The server cannot be reached: {why}.", _HINT)

    @property
    def address(self) -> str:
        """Where the server was that answered last."""
        return self._access.address

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> http.client.HTTPConnection:
        self._access = self._find()
        self._connection = _connect(self._access.address, self._timeout_s)
        return self._connection

    def _exchange(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: dict[str, Any] | None
    ) -> tuple[int, bytes]:
        base = "" if self._access.address.startswith("unix:") else urlsplit(self._access.address).path
        headers = {"Authorization": f"Bearer {self._access.secret}", "Content-Type": "application/json"}
        connection.request(method, base + path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, answer.read(MOST_BYTES)


def _connect(address: str, timeout_s: float) -> http.client.HTTPConnection:
    if address.startswith("https:"):
        parts = urlsplit(address)
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=timeout_s, context=context)
    return _unix_or_plain(address, timeout_s)


def _words(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")
