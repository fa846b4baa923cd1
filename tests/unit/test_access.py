"""Log-in by Cloudflare Access, against a key server on this host: who is let in, and that nothing fails open."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from flask.testing import FlaskClient

from bridge.errors import BridgeError
from bridge.http.access import LONGEST_S, PAUSE_S, REFRESH_S, Access
from bridge.http.app import create_app
from bridge.http.session import TOKEN_HEADER
from bridge.service import Service
from bridge.settings import Settings
from tests.support import server as servers
from tests.support.ledger import FrozenClock

AUDIENCE = "0123456789abcdef-application"
PERSON = "designer@example.com"
HEADER = "Cf-Access-Jwt-Assertion"


@pytest.fixture(scope="module")
def private_keys() -> list[rsa.RSAPrivateKey]:
    """Two, because making them takes a while: one of the team, and one of somebody else."""
    return [rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2)]


class Team:
    """A Cloudflare team: its key server, and the tokens that it signs."""

    def __init__(self, private: rsa.RSAPrivateKey, stranger: rsa.RSAPrivateKey) -> None:
        self.private, self.stranger = private, stranger
        self.kids = ["first"]
        self.asked = 0
        self.broken: bytes | None = None
        self.moved_to: str | None = None
        #: the key server answers once this is set
        self.awake = threading.Event()
        self.awake.set()
        team = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                team.asked += 1
                team.awake.wait(30)
                assert self.path == "/cdn-cgi/access/certs"
                if team.moved_to is not None:
                    self.send_response(302)
                    self.send_header("Location", team.moved_to + self.path)
                else:
                    self.send_response(200)
                self.end_headers()
                self.wfile.write(team.certs())

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        self.origin = f"http://127.0.0.1:{self.server.server_port}"

    def certs(self) -> bytes:
        if self.broken is not None:
            return self.broken
        jwk = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.private.public_key()))
        return json.dumps({"keys": [{**jwk, "kid": kid, "alg": "RS256", "use": "sig"} for kid in self.kids]}).encode()

    def close(self) -> None:
        if self.thread.is_alive():
            self.server.shutdown()
            self.thread.join()
            self.server.server_close()

    def token(self, *, kid: str = "first", private: Any = None, algorithm: str = "RS256", **claims: Any) -> str:
        now = int(time.time())
        values = {"aud": [AUDIENCE], "iss": self.origin, "email": PERSON, "iat": now, "exp": now + 600, **claims}
        given = {name: value for name, value in values.items() if value is not None}
        return jwt.encode(given, private or self.private, algorithm, headers={"kid": kid})


@pytest.fixture
def team(private_keys: list[rsa.RSAPrivateKey]) -> Iterator[Team]:
    team = Team(*private_keys)
    yield team
    team.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FrozenClock:
    """The time of the bridge, and of PyJWT, which keeps the keys."""
    clock = FrozenClock()
    for module in (jwt.api_jwk, jwt.jwk_set_cache, jwt.jwks_client):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


@pytest.fixture
def access(team: Team, clock: FrozenClock) -> Access:
    return Access(team.origin, AUDIENCE, clock)


def test_a_person_whom_the_team_has_let_in_is_known_by_address(team: Team, access: Access) -> None:
    assert access.identity(team.token()) == PERSON


def _unsigned(team: Team) -> str:
    return jwt.encode({"aud": AUDIENCE, "iss": team.origin, "email": PERSON, "exp": time.time() + 600}, None, "none")


def _signed_with_the_public_key(team: Team) -> str:
    # The classic confusion: the public key as the secret of an HMAC. The library refuses to make one.
    public = team.private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )

    def part(value: dict[str, Any]) -> bytes:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    now = int(time.time())
    claims = {"aud": AUDIENCE, "iss": team.origin, "email": PERSON, "iat": now, "exp": now + 600}
    signed = part({"alg": "HS256", "kid": "first"}) + b"." + part(claims)
    mac = hmac.new(public, signed, hashlib.sha256).digest()
    return (signed + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")).decode()


WRONG: dict[str, Callable[[Team], str]] = {
    "none at all": lambda team: "",
    "no token": lambda team: "x.y.z",
    "letters of elsewhere": lambda team: "é.é.é",
    "a part too few": lambda team: team.token().rpartition(".")[0],
    "another application": lambda team: team.token(aud=["another-application"]),
    "no application": lambda team: team.token(aud=None),
    "another team": lambda team: team.token(iss="https://evil.cloudflareaccess.com"),
    "no issuer": lambda team: team.token(iss=None),
    "expired": lambda team: team.token(exp=int(time.time()) - 120),
    "without an end": lambda team: team.token(exp=None),
    "not valid yet": lambda team: team.token(nbf=int(time.time()) + 600),
    "signed by a stranger": lambda team: team.token(private=team.stranger),
    "a key that does not exist": lambda team: team.token(kid="second"),
    "unsigned": _unsigned,
    "signed with the public key": _signed_with_the_public_key,
    "a service token": lambda team: team.token(email=None, common_name="robot"),
    "an empty address": lambda team: team.token(email=""),
    "an address that is none": lambda team: team.token(email=["a@example.com"]),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_nobody_else_gets_in(team: Team, access: Access, wrong: str) -> None:
    with pytest.raises(BridgeError) as caught:
        access.identity(WRONG[wrong](team))
    assert caught.value.code == "unauthorized"


def test_keys_are_fetched_once_for_many(team: Team, access: Access) -> None:
    for _ in range(20):
        access.identity(team.token())
    assert team.asked == 1


def test_unknown_key_ids_do_not_make_us_a_load_for_the_key_server(
    team: Team, access: Access, clock: FrozenClock
) -> None:
    for number in range(20):
        with pytest.raises(BridgeError):
            access.identity(team.token(kid=f"made-up-{number}"))
    assert team.asked == 1
    team.kids = ["first", "second"]
    clock.pass_s(PAUSE_S)
    assert access.identity(team.token(kid="second")) == PERSON
    assert team.asked == 2


def test_keys_are_refreshed_beside_the_requests(team: Team, access: Access, clock: FrozenClock) -> None:
    access.identity(team.token())
    clock.pass_s(REFRESH_S + 1)
    assert access.identity(team.token()) == PERSON
    assert team.asked == 1
    gevent.idle()
    gevent.sleep(0)
    assert team.asked == 2


def test_a_key_that_the_team_has_withdrawn_opens_nothing_after_the_refresh(
    team: Team, access: Access, clock: FrozenClock
) -> None:
    access.identity(team.token())
    team.kids = ["second"]
    clock.pass_s(REFRESH_S + 1)
    access.identity(team.token(kid="first"))
    gevent.sleep(0)
    with pytest.raises(BridgeError):
        access.identity(team.token(kid="first"))


def test_old_keys_do_while_the_key_server_is_down_but_not_for_ever(
    team: Team, access: Access, clock: FrozenClock
) -> None:
    token = team.token()
    access.identity(token)
    team.close()
    clock.pass_s(LONGEST_S - 1)
    assert access.identity(token) == PERSON
    gevent.sleep(0)
    clock.pass_s(PAUSE_S + 1)
    with pytest.raises(BridgeError) as caught:
        access.identity(token)
    assert caught.value.code == "overloaded"


NONSENSE = [
    b"",
    b"nonsense",
    b"[]",
    b"{}",
    b'{"keys": null}',
    b'{"keys": []}',
    b'{"keys": ["first"]}',
    b'{"keys": [{"kty": "oct", "kid": "first"}]}',
    b'{"keys": [{"kty": "RSA", "kid": "first"}]}',
    b'{"keys": [{"kty": "RSA", "kid": "first", "n": 5, "e": "AQAB"}]}',
]


@pytest.mark.parametrize("answer", NONSENSE)
def test_a_key_server_that_talks_nonsense_lets_nobody_in(team: Team, access: Access, answer: bytes) -> None:
    team.broken = answer
    with pytest.raises(BridgeError):
        access.identity(team.token())


def test_a_key_server_that_does_not_answer_is_asked_again_only_after_a_pause(
    team: Team, access: Access, clock: FrozenClock
) -> None:
    team.broken = b""
    for _ in range(5):
        with pytest.raises(BridgeError) as caught:
            access.identity(team.token())
        assert caught.value.code == "overloaded"
    assert team.asked == 1
    team.broken = None
    clock.pass_s(PAUSE_S)
    assert access.identity(team.token()) == PERSON


def test_a_key_server_that_sends_us_elsewhere_is_not_followed(
    team: Team, access: Access, private_keys: list[rsa.RSAPrivateKey]
) -> None:
    other = Team(*reversed(private_keys))
    try:
        team.moved_to = other.origin
        with pytest.raises(BridgeError) as caught:
            access.identity(team.token(private=team.stranger))
        assert caught.value.code == "overloaded"
        assert other.asked == 0
    finally:
        other.close()


# --- in the application ----------------------------------------------------------------------------


@pytest.fixture
def client(team: Team, tmp_path: Path) -> Iterator[FlaskClient]:
    env = {
        "BRIDGE_DATA_DIR": str(tmp_path / "data"),
        "BRIDGE_ADMIN_KEY": "access-admin-key-0123456789",
        "BRIDGE_ACCESS_TEAM_DOMAIN": team.origin,
        "BRIDGE_ACCESS_AUDIENCE": AUDIENCE,
    }
    service = Service(Settings.load(env))
    service.admin.ensure()
    yield create_app(service).test_client()
    service.close()


def _log_in(client: FlaskClient, token: str) -> Any:
    return client.post("/admin/session", headers={HEADER: token})


def test_whom_access_has_let_in_is_logged_in_and_named_in_the_audit(team: Team, client: FlaskClient) -> None:
    assert client.get("/admin/session").json == {"session": None, "access": True}
    token = team.token()
    answer = _log_in(client, token)
    assert answer.status_code == 200
    headers = {HEADER: token, TOKEN_HEADER: answer.json["session"]["token"]}
    assert client.post("/admin/keys", json={"name": "ada"}, headers=headers).status_code == 201
    rows = client.get("/admin/audit", headers=headers).json["audit"]
    assert [(row["action"], row["actor"]) for row in rows] == [("key_created", PERSON), ("logged_in", PERSON)]


def test_the_token_of_access_alone_makes_no_change(team: Team, client: FlaskClient) -> None:
    assert client.post("/admin/keys", json={"name": "ada"}, headers={HEADER: team.token()}).status_code == 401


def test_such_a_session_is_over_once_access_does_not_vouch_for_it(team: Team, client: FlaskClient) -> None:
    token = team.token()
    _log_in(client, token)
    assert client.get("/admin/keys", headers={HEADER: token}).status_code == 200
    for other in ("", team.token(email="somebody-else@example.com"), team.token(exp=int(time.time()) - 120)):
        assert client.get("/admin/keys", headers={HEADER: other} if other else {}).status_code == 401


def test_a_wrong_token_opens_no_session(team: Team, client: FlaskClient) -> None:
    answer = _log_in(client, team.token(private=team.stranger))
    assert answer.status_code == 401
    assert "Set-Cookie" not in answer.headers


def test_without_access_being_configured_its_header_means_nothing(team: Team, tmp_path: Path) -> None:
    service = Service(Settings.load({"BRIDGE_DATA_DIR": str(tmp_path / "plain"), "BRIDGE_ADMIN_KEY": "x" * 20}))
    service.admin.ensure()
    try:
        assert _log_in(create_app(service).test_client(), team.token()).status_code == 401
    finally:
        service.close()
    assert team.asked == 0


def test_the_admin_key_works_beside_access(client: FlaskClient) -> None:
    answer = client.post("/admin/session", headers={"Authorization": "Bearer access-admin-key-0123456789"})
    assert answer.status_code == 200
    assert client.get("/admin/keys").status_code == 200


def test_in_the_server_a_slow_key_server_holds_up_nobody_else(team: Team, tmp_path: Path) -> None:
    settings = {"BRIDGE_ACCESS_TEAM_DOMAIN": team.origin, "BRIDGE_ACCESS_AUDIENCE": AUDIENCE}
    with servers.running(tmp_path, settings, demo=True) as server, ThreadPoolExecutor(1) as pool:
        team.awake.clear()
        log_in = pool.submit(server.call, "POST", "/admin/session", headers={HEADER: team.token()})
        while not team.asked:
            assert server.call("GET", "/health").status == 200
        assert server.call("GET", "/health").status == 200
        assert not log_in.done()
        team.awake.set()
        assert log_in.result(30).status == 200
