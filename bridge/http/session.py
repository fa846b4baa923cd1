"""The dashboard's session: a signed cookie that says who has logged in, and when.

Nothing of it is kept on the server but the ids of sessions that were ended early. The cookie is signed
with the secrets of admin.json (itsdangerous, HMAC-SHA-256); a new epoch or another admin key ends every
session. It holds no secret that opens anything without the signature.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping

import msgspec
from flask import Request, Response, g
from itsdangerous import BadSignature, URLSafeSerializer

from bridge.clock import Clock
from bridge.errors import BridgeError
from bridge.http.address import is_secure
from bridge.keys.admin import AdminCredentials
from bridge.settings import Settings

COOKIE, PATH = "bridge_session", "/admin"
#: The header in which a page sends the session's token with every change.
TOKEN_HEADER = "X-CSRF-Token"
#: The header of a request that nobody made by hand: it does not count as activity.
BACKGROUND_HEADER = "X-Bridge-Background"
#: Longest without activity, and longest at all, in seconds.
IDLE_S, LONGEST_S = 3600, 12 * 3600
#: How old the cookie's time of the last activity may become before it is renewed, in seconds.
RENEW_S = 60
#: Cookies of that name that are looked at.
_MOST_COOKIES = 10
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


class Session(msgspec.Struct, frozen=True):
    """Somebody who has logged in. Times are UTC seconds."""

    id: str
    #: for the audit: "dashboard", or the address that Cloudflare Access has checked
    actor: str
    #: opened by Cloudflare Access, which then has to vouch for every request
    by_access: bool
    epoch: int
    began: int
    seen: int
    #: what a change has to bring besides the cookie
    token: str

    @property
    def ends_at(self) -> int:
        """When it is over if nothing more happens."""
        return min(self.seen + IDLE_S, self.began + LONGEST_S)


class Sessions:
    """Opens, recognises and ends sessions."""

    def __init__(self, admin: AdminCredentials, clock: Clock, settings: Settings) -> None:
        self._admin = admin
        self._clock = clock
        self._trusted_proxy = settings.trusted_proxy
        # Whoever changes the admin key in the settings ends what was opened with the old one.
        digest = hashlib.sha256((settings.admin_key or "").encode("utf-8", "surrogatepass")).hexdigest()
        self._salt = f"bridge session {digest}"
        #: id -> when it would have ended anyway, of sessions that were logged out
        self._ended: dict[str, int] = {}

    def open(self, request: Request, response: Response, actor: str, *, by_access: bool = False) -> Session:
        """A new session, whose cookie goes with `response`."""
        now = int(self._clock.now())
        session = Session(
            id=secrets.token_urlsafe(16),
            actor=actor,
            by_access=by_access,
            epoch=self._admin.epoch,
            began=now,
            seen=now,
            token=secrets.token_urlsafe(32),
        )
        self._send(session, request, response)
        return session

    def of(self, request: Request) -> Session | None:
        """The session of a request; None where it has none, or only such as are over or not ours."""
        # Several of that name may come: another host of the same domain can set one, and its may be the first.
        found = (self._read(each) for each in request.cookies.getlist(COOKIE)[:_MOST_COOKIES])
        return next((session for session in found if session is not None), None)

    def _read(self, cookie: str) -> Session | None:
        if not cookie or not self._admin.cookie_secrets:
            return None
        try:
            session = msgspec.convert(self._signer().loads(cookie), Session)
        except (BadSignature, msgspec.ValidationError):
            return None
        # A clock that was set back must not keep a session alive.
        alive = session.began - RENEW_S <= self._clock.now() < session.ends_at
        return session if alive and session.epoch == self._admin.epoch and session.id not in self._ended else None

    def check_token(self, request: Request, session: Session) -> None:
        """Raise BridgeError (csrf_failed) where a change does not bring the session's token."""
        given = request.headers.get(TOKEN_HEADER, "")
        if request.method not in SAFE_METHODS and not hmac.compare_digest(given.encode(), session.token.encode()):
            raise BridgeError("csrf_failed", "This change did not come from a page of the dashboard.")

    def keep(self, request: Request, response: Response) -> None:
        """Note that the session of this request is in use, unless a timer of the page made it."""
        session: Session | None = g.get("session")
        now = int(self._clock.now())
        if session is not None and now >= session.seen + RENEW_S and BACKGROUND_HEADER not in request.headers:
            self._send(msgspec.structs.replace(session, seen=now), request, response)

    def end(self, session: Session, response: Response) -> None:
        """Log one session out; its cookie is worth nothing from now on, until a restart even if it was copied."""
        self.hear({session.id: session.began + LONGEST_S})
        self.forget(response)

    @property
    def ended(self) -> dict[str, int]:
        """Sessions that were logged out, each with the time at which it would have ended anyway."""
        return self._ended

    def hear(self, ended: Mapping[str, int]) -> None:
        """Take note of sessions that were logged out, perhaps on another host."""
        now = self._clock.now()
        self._ended = {each: until for each, until in {**self._ended, **ended}.items() if until > now}

    def end_all(self) -> None:
        """Log everybody out. Raises BridgeError storage_failed."""
        self._admin.end_sessions()

    def forget(self, response: Response) -> None:
        """Tell the browser to throw the cookie away."""
        g.pop("session", None)
        response.delete_cookie(COOKIE, path=PATH, httponly=True, samesite="Strict")

    def _send(self, session: Session, request: Request, response: Response) -> None:
        response.set_cookie(
            COOKIE,
            self._signer().dumps(msgspec.to_builtins(session)),
            path=PATH,
            httponly=True,
            samesite="Strict",
            secure=is_secure(request.environ, self._trusted_proxy),
        )

    def _signer(self) -> URLSafeSerializer:
        return URLSafeSerializer(
            self._admin.cookie_secrets,
            salt=self._salt,
            signer_kwargs={"digest_method": hashlib.sha256, "key_derivation": "hmac"},
        )
