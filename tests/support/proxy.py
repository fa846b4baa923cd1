"""An HTTP proxy on loopback that leads every host to one port, certificates for made-up hosts, and TLS in front of a
server."""

from __future__ import annotations

import base64
import datetime
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


@dataclass
class Proxy:
    """What it was asked for: the first line of each request, and who it said it is."""

    port: int
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    @property
    def lines(self) -> set[str]:
        return {line for line, _ in self.asked}


@contextmanager
def proxy_to(target: int, *, login: str | None = None, tls: ssl.SSLContext | None = None) -> Iterator[Proxy]:
    """A proxy whose every host is 127.0.0.1:`target`. With `login` ("user:password") it turns others away."""
    wanted = None if login is None else "Basic " + base64.b64encode(login.encode()).decode()
    with _serving(lambda connection: _lead_on(connection, target, wanted, proxy), tls) as port:
        proxy = Proxy(port)
        yield proxy


@contextmanager
def tls_before(target: int, context: ssl.SSLContext) -> Iterator[int]:
    """The port of a server that takes TLS off and passes everything on to 127.0.0.1:`target`."""
    with _serving(
        lambda connection: _join(connection, socket.create_connection(("127.0.0.1", target))), context
    ) as port:
        yield port


def certificate(folder: Path, *hosts: str) -> tuple[Path, ssl.SSLContext]:
    """A file with the certificate of an authority, and what a server shows for these hosts."""
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = _signed("An authority of tests", authority_key, "An authority of tests", authority_key)
    made = _signed(hosts[0], key, "An authority of tests", authority_key, hosts)
    trusted, shown = folder / "authority.pem", folder / "server.pem"
    trusted.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    shown.write_bytes(key.private_bytes(*form) + made.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shown)
    return trusted, context


def _signed(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    hosts: Sequence[str] = (),
) -> x509.Certificate:
    """A certificate: for these hosts, or of an authority where there are none."""
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=not hosts, path_length=None), critical=True)
    )
    if hosts:
        names = x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


@contextmanager
def _serving(handle: Any, tls: ssl.SSLContext | None) -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))

    def one(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            if tls is None:
                handle(connection)
            else:
                with tls.wrap_socket(connection, server_side=True) as wrapped:
                    handle(wrapped)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=one, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _lead_on(connection: socket.socket, target: int, wanted: str | None, proxy: Proxy) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        chunk = connection.recv(65536)
        if not chunk:
            return
        head += chunk
    head, _, rest = head.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    said = headers.get("proxy-authorization")
    proxy.asked.append((first, said))
    if wanted is not None and said != wanted:
        connection.sendall(
            b"HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: Basic\r\n"
            b"content-length: 0\r\nconnection: close\r\n\r\n"
        )
        return
    onward = socket.create_connection(("127.0.0.1", target))
    if first.startswith("CONNECT "):
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    else:
        method, url, version = first.split(" ")
        path = "/" + url.split("://", 1)[1].partition("/")[2]
        kept = [line for line in lines if not line.lower().startswith("proxy-")]
        onward.sendall("\r\n".join([f"{method} {path} {version}", *kept, "", ""]).encode() + rest)
    _join(connection, onward)


def _join(one: socket.socket, other: socket.socket) -> None:
    """Pass on what comes, in both directions, until one side ends."""

    def pass_on(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while chunk := source.recv(65536):
                sink.sendall(chunk)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    back = threading.Thread(target=pass_on, args=(other, one), daemon=True)
    back.start()
    pass_on(one, other)
    back.join()
    other.close()
