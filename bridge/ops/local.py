"""How a command on this host does the admin's work, whether the server runs or not.

There is one implementation of it, the admin API. Where a server has the data folder, the command asks
that server, with the token from the lock file. Where none has, the command opens the folder itself and
asks the same application without a network in between.
"""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from bridge.clock import Clock
from bridge.errors import CODES, BridgeError, StoreLocked
from bridge.settings import Settings
from bridge.store.folder import Store

#: Longest that a running server may take for an answer, in seconds.
TIMEOUT_S = 60.0
#: How long a command waits for a server that is just starting, in seconds.
STARTING_S = 20.0
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
        connection = unix_or_plain(self._address, TIMEOUT_S)
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
        connection = unix_or_plain(self._address, TIMEOUT_S)
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


def unix_or_plain(address: str, timeout_s: float) -> http.client.HTTPConnection:
    """A connection to a server without TLS, at `unix:PATH` or a URL."""
    if address.startswith("unix:"):
        return _UnixConnection(address.removeprefix("unix:"), timeout_s)
    parts = urlsplit(address)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(parts.hostname or "", parts.hostname or "127.0.0.1")
    return http.client.HTTPConnection(host, parts.port, timeout=timeout_s)
