"""The connections to the models: one pool of kept-alive, verified ones for all runs (urllib3).

HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE and SSL_CERT_DIR of the bridge's environment are honoured. Redirects are never
followed: an answer that asks for one is passed on as it is.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import gevent.socket
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

#: Longest time to a connection, in seconds.
CONNECT_S = 15.0
#: Connections to one host that are kept; more are opened where more runs go at once, and closed after use.
KEPT = 64
_CHUNK = 65536


class UpstreamError(Exception):
    """The provider could not be reached, or went away. The text is for the admin. `unreachable`: nothing was sent."""

    def __init__(self, message: str, *, unreachable: bool = False) -> None:
        super().__init__(message)
        self.unreachable = unreachable


def _connect(connection: HTTPConnection) -> Any:
    # gevent's own socket, so that other greenlets go on, whether the process is patched or not.
    try:
        found = gevent.socket.create_connection((connection._dns_host, connection.port), CONNECT_S)
    except OSError as error:
        raise urllib3.exceptions.NewConnectionError(connection, str(error.strerror or error)) from error
    found.setsockopt(gevent.socket.IPPROTO_TCP, gevent.socket.TCP_NODELAY, 1)
    return found


class _Plain(HTTPConnection):
    def _new_conn(self) -> Any:
        return _connect(self)


class _Secure(HTTPSConnection):
    def _new_conn(self) -> Any:
        return _connect(self)


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _Secure


class Reply:
    """An answer whose body is still to come."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self._response = response
        self._ended = False
        self.status = response.status
        #: names in lower case
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}

    def chunks(self) -> Iterator[bytes]:
        """The body in the pieces in which it comes, still compressed. Raises UpstreamError where it breaks off."""
        try:
            while chunk := self._response.read1(_CHUNK, decode_content=False):
                yield chunk
            self._ended = True
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise UpstreamError(_words(error)) from None

    def close(self) -> None:
        """Give the connection back where the answer has come to its end; else close it."""
        if self._ended:
            self._response.release_conn()
        else:
            self._response.close()


class Connections:
    """All connections of one server."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        """Proxies and certificates come from `environment` (the process's own)."""
        environment = os.environ if environment is None else environment
        context = ssl.create_default_context(
            cafile=environment.get("SSL_CERT_FILE") or None, capath=environment.get("SSL_CERT_DIR") or None
        )
        self._options: dict[str, Any] = {
            "num_pools": 32,
            "maxsize": KEPT,
            "block": False,
            "ssl_context": context,
            "retries": False,
        }
        self._direct = self._manager(None)
        self._by_proxy: dict[str, urllib3.PoolManager] = {}

    def post(self, url: str, body: bytes, headers: Mapping[str, str], silence_s: float) -> Reply:
        """Send a request; its answer as soon as the headers are there. Raises UpstreamError."""
        try:
            response = self._through(url).request(
                "POST",
                url,
                body=body,
                headers=dict(headers),
                preload_content=False,
                decode_content=False,
                redirect=False,
                retries=False,
                timeout=urllib3.Timeout(connect=CONNECT_S, read=silence_s),
            )
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            nothing_sent = isinstance(error, urllib3.exceptions.NewConnectionError | urllib3.exceptions.SSLError)
            raise UpstreamError(_words(error), unreachable=nothing_sent) from None
        return Reply(response)

    def close(self) -> None:
        """Close what is kept."""
        for manager in (self._direct, *self._by_proxy.values()):
            manager.clear()

    def _through(self, url: str) -> urllib3.PoolManager:
        parts = urlsplit(url)
        proxy = getproxies().get(parts.scheme)
        if not proxy or proxy_bypass(parts.hostname or ""):
            return self._direct
        if proxy not in self._by_proxy:
            self._by_proxy[proxy] = self._manager(proxy)
        return self._by_proxy[proxy]

    def _manager(self, proxy: str | None) -> urllib3.PoolManager:
        make: Callable[..., urllib3.PoolManager] = urllib3.PoolManager
        if proxy is not None:
            make = urllib3.ProxyManager
        manager = make(*([] if proxy is None else [proxy]), **self._options)
        manager.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}
        return manager


def _words(error: BaseException) -> str:
    """What went wrong, without addresses of this host or parts of a request."""
    reason = getattr(error, "reason", None) or error
    return f"{type(reason).__name__}: {str(reason)[:200]}"
