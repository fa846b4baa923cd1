"""The admin API of a server that runs, here or elsewhere, over one connection that is kept."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec

from bridge.errors import BridgeError
from bridge.ops.local import AdminClient, unix_or_plain
from bridge.settings import Settings
from bridge.store.folder import Store

#: Longest that an answer may take, in seconds.
PATIENCE_S = 10.0
#: Most that is read of an answer.
MOST_BYTES = 16 * 2**20
_HINT = "Look whether it runs, and whether its address is right."


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
    return unix_or_plain(address, timeout_s)


def _words(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")
