"""Whose request it is: by the connection, or by what a trusted proxy says, and never by what a client says."""

from __future__ import annotations

import pytest

from bridge.http.address import client_address, is_secure

CF, FORWARDED = "HTTP_CF_CONNECTING_IP", "HTTP_X_FORWARDED_FOR"


@pytest.mark.parametrize(
    ("trusted", "environ", "address"),
    [
        ("none", {"REMOTE_ADDR": "127.0.0.1", CF: "1.2.3.4", FORWARDED: "5.6.7.8"}, "127.0.0.1"),
        ("cloudflare", {"REMOTE_ADDR": "127.0.0.1", CF: "1.2.3.4", FORWARDED: "5.6.7.8"}, "1.2.3.4"),
        ("cloudflare", {"REMOTE_ADDR": "", CF: "1.2.3.4"}, "1.2.3.4"),  # a unix socket
        ("cloudflare", {"REMOTE_ADDR": "::1", CF: "2001:db8::1"}, "2001:db8::1"),
        ("cloudflare", {"REMOTE_ADDR": "9.9.9.9", CF: "1.2.3.4"}, "9.9.9.9"),
        ("cloudflare", {"REMOTE_ADDR": "127.0.0.1"}, "127.0.0.1"),
        ("cloudflare", {"REMOTE_ADDR": "127.0.0.1", CF: "nonsense"}, "127.0.0.1"),
        ("forwarded", {"REMOTE_ADDR": "127.0.0.1", FORWARDED: "1.1.1.1, 2.2.2.2, 3.3.3.3"}, "3.3.3.3"),
        ("forwarded", {"REMOTE_ADDR": "127.0.0.1", CF: "1.2.3.4"}, "127.0.0.1"),
        ("forwarded", {"REMOTE_ADDR": "9.9.9.9", FORWARDED: "1.1.1.1"}, "9.9.9.9"),
        ("forwarded", {"REMOTE_ADDR": "127.0.0.1", FORWARDED: "1.1.1.1,"}, "127.0.0.1"),
    ],
)
def test_the_address_of_a_client(trusted: str, environ: dict[str, str], address: str) -> None:
    assert client_address(environ, trusted) == address


@pytest.mark.parametrize(
    ("trusted", "peer", "proto", "secure"),
    [
        ("none", "127.0.0.1", "https", False),
        ("cloudflare", "127.0.0.1", "https", True),
        ("forwarded", "127.0.0.1", "http, https", True),
        ("forwarded", "127.0.0.1", "https, http", False),
        ("forwarded", "9.9.9.9", "https", False),
    ],
)
def test_whether_its_connection_is_encrypted(trusted: str, peer: str, proto: str, secure: bool) -> None:
    environ = {"REMOTE_ADDR": peer, "HTTP_X_FORWARDED_PROTO": proto, "wsgi.url_scheme": "http"}
    assert is_secure(environ, trusted) is secure
