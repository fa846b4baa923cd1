"""The connections to the models: one pool of kept-alive, verified ones for all runs (urllib3).

HTTPS_PROXY, HTTP_PROXY, NO_PROXY, SSL_CERT_FILE and SSL_CERT_DIR of the settings are honoured. Redirects are never
followed.
"""

from __future__ import annotations

import base64
import ipaddress
import re
import ssl
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from typing import Any
from urllib.parse import unquote, urlsplit

import gevent.socket
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import NewConnectionError, ProxyError, SSLError

from bridge.errors import SettingsError

#: Longest time to a connection, in seconds.
CONNECT_S = 15.0
#: Connections to one host that are kept; more are opened where more runs go at once, and closed after use.
KEPT = 64
#: The status with which a proxy, and nothing behind it, asks who is there.
PROXY_LOGIN = 407
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

    def _tunnel(self) -> None:
        try:
            super()._tunnel()
        except (OSError, HTTPException) as error:
            raise ProxyError("it does not lead on", error) from error


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

    def __init__(self, network: Mapping[str, str]) -> None:
        """`network`: proxies and certificates, by the names of their variables. Raises SettingsError."""
        self._network = network
        try:
            self._context = ssl.create_default_context(
                cafile=network.get("SSL_CERT_FILE"), capath=network.get("SSL_CERT_DIR")
            )
        except OSError as error:
            problem = f"SSL_CERT_FILE has certificates that cannot be read ({error.strerror or type(error).__name__})"
            raise SettingsError([problem]) from None
        #: by the proxy, and None for the way without one
        self._managers: dict[str | None, urllib3.PoolManager] = {}

    def post(self, url: str, body: bytes, headers: Mapping[str, str], silence_s: float) -> Reply:
        """Send a request; its answer as soon as the headers are there. Raises UpstreamError."""
        return self._send("POST", url, body, headers, silence_s)

    def get(self, url: str, headers: Mapping[str, str], silence_s: float) -> Reply:
        """Ask for something that costs nothing, like `post`."""
        return self._send("GET", url, None, headers, silence_s)

    def _send(self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], silence_s: float) -> Reply:
        try:
            response = self._through(url).request(
                method,
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
            nothing_sent = isinstance(error, NewConnectionError | ProxyError | SSLError)
            raise UpstreamError(_words(error), unreachable=nothing_sent) from None
        if response.status == PROXY_LOGIN:
            response.close()
            raise UpstreamError("the proxy: it wants a user and a password", unreachable=True)
        return Reply(response)

    def close(self) -> None:
        """Close what is kept."""
        for manager in self._managers.values():
            manager.clear()

    def _through(self, url: str) -> urllib3.PoolManager:
        proxy = proxy_of(url, self._network)
        if proxy not in self._managers:
            self._managers[proxy] = self._manager(proxy)
        return self._managers[proxy]

    def _manager(self, proxy: str | None) -> urllib3.PoolManager:
        options: dict[str, Any] = {
            "num_pools": 32,
            "maxsize": KEPT,
            "block": False,
            "ssl_context": self._context,
            "retries": False,
        }
        if proxy is None:
            manager = urllib3.PoolManager(**options)
        else:
            scheme, _, rest = proxy.partition("://")
            login, _, place = rest.rpartition("@")
            headers = {}
            if login:
                words = base64.b64encode(":".join(map(unquote, login.partition(":")[::2])).encode()).decode()
                headers["proxy-authorization"] = f"Basic {words}"
            manager = urllib3.ProxyManager(
                f"{scheme}://{place}", proxy_headers=headers, proxy_ssl_context=self._context, **options
            )
        manager.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}
        return manager


def proxy_of(url: str, network: Mapping[str, str]) -> str | None:
    """The proxy on the way to a URL; None where there is none, or NO_PROXY names the host."""
    parts = urlsplit(url)
    proxy = network.get(f"{parts.scheme.upper()}_PROXY")
    if not proxy:
        return None
    host, port = (parts.hostname or "").rstrip("."), parts.port or {"http": 80, "https": 443}[parts.scheme]
    exceptions = network.get("NO_PROXY", "").split(",")
    return None if any(_names(each, host, port) for each in exceptions) else proxy


def _names(exception: str, host: str, port: int) -> bool:
    """Whether an entry of NO_PROXY is about a host: by its name or one above it, its address or its network."""
    if exception == "*":
        return True
    if with_port := re.fullmatch(r"\[?([^\[\]]+)\]:(\d+)|([^:]+):(\d+)", exception):
        if int(with_port[2] or with_port[4]) != port:
            return False
        exception = with_port[1] or with_port[3]
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(exception.strip("[]"), strict=False)
    except ValueError:
        name = exception.lower().lstrip("*").lstrip(".")
        return bool(name) and (host == name or host.endswith(f".{name}"))


def _words(error: BaseException) -> str:
    """What went wrong, without addresses of this host or parts of a request."""
    if isinstance(error, ProxyError):
        return f"the proxy: {_words(error.original_error)}"
    reason = getattr(error, "reason", None) or error
    return f"{type(reason).__name__}: {str(reason)[:200]}"
