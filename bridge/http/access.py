"""Log-in by Cloudflare Access: who it says is there, after its signature was checked.

Access puts a signed token into the header Cf-Access-Jwt-Assertion of every request that it lets through.
It is worth something only with the signature of the team's keys and for our own audience:
https://developers.cloudflare.com/cloudflare-one/identity/authorization-cookie/validating-json/
Imported only where it is configured: the library for it takes 8 MiB.
"""

from __future__ import annotations

import logging
from typing import Any

import gevent
import jwt

from bridge.clock import Clock
from bridge.errors import BridgeError

log = logging.getLogger("bridge")

_CERTS_PATH = "/cdn-cgi/access/certs"
#: Keys are fetched anew in the background after the first, and not believed any more after the second, in seconds.
REFRESH_S, LONGEST_S = 3600.0, 24 * 3600.0
#: Shortest time between two fetches, in seconds: an unknown key id must not make us a load for others.
PAUSE_S = 30.0
_TIMEOUT_S = 5.0
#: For clocks that do not agree, in seconds.
_LEEWAY_S = 30


class Access:
    """One team's Access application. Whatever goes wrong, it lets nobody in."""

    def __init__(self, team: str, audience: str, clock: Clock) -> None:
        """`team` is its origin, such as https://example.cloudflareaccess.com; `audience` the application's tag."""
        self._team = team
        self._audience = audience
        self._keys = _TeamKeys(team, clock)

    def identity(self, assertion: str) -> str:
        """The e-mail address of a person whom Access has let in. Raises BridgeError (unauthorized, overloaded)."""
        if not assertion:
            raise _refused("This request did not come through Cloudflare Access.")
        try:
            claims = jwt.decode(
                assertion,
                self._keys.get_signing_key(str(jwt.get_unverified_header(assertion).get("kid"))),
                algorithms=["RS256"],
                audience=self._audience,
                issuer=self._team,
                leeway=_LEEWAY_S,
                options={"require": ["exp", "iat", "aud", "iss"]},
            )
        except jwt.PyJWKClientConnectionError:
            raise BridgeError(
                "overloaded", "The keys of Cloudflare Access cannot be fetched.", retry_after=PAUSE_S
            ) from None
        except (jwt.PyJWTError, ValueError) as error:
            log.warning("a token of Cloudflare Access was refused: %s", error)
            raise _refused("The token of Cloudflare Access is not valid.") from None
        email = claims.get("email")
        if not isinstance(email, str) or not email or len(email) > 320:
            # A service token is no person; it can send the admin key besides.
            raise _refused("The token of Cloudflare Access names no person.")
        return email


class _TeamKeys(jwt.PyJWKClient):
    """The public keys of a team, kept for LONGEST_S. PyJWT itself follows no redirect, and after a good fetch
    looks for an unknown id at the earliest PAUSE_S later; here that holds after a bad one as well."""

    def __init__(self, team: str, clock: Clock) -> None:
        super().__init__(team + _CERTS_PATH, lifespan=LONGEST_S, timeout=_TIMEOUT_S, cooldown_duration=PAUSE_S)
        self._clock = clock
        self._tried_at = float("-inf")

    def get_signing_key(self, kid: str) -> jwt.PyJWK:
        """The key of that id; one that is known waits for no fetch. Raises PyJWKClientError, among them
        PyJWKClientConnectionError where there are no keys that may be believed."""
        known = self.jwk_set_cache.get() if self.jwk_set_cache is not None else None
        if known is not None:
            if self._clock.monotonic() > self._tried_at + REFRESH_S:
                gevent.spawn(self._refresh)
            if (key := self.match_kid(known.keys, kid)) is not None:
                return key
        return super().get_signing_key(kid)

    def fetch_data(self) -> Any:
        """Fetch the keys. What cannot be read leaves them as they are, and raises PyJWKClientConnectionError."""
        now = self._clock.monotonic()
        if now < self._tried_at + PAUSE_S:
            raise jwt.PyJWKClientConnectionError("that was tried just now")
        self._tried_at = now
        try:
            return super().fetch_data()
        except (OSError, ValueError, KeyError, TypeError, AttributeError, jwt.PyJWTError) as error:
            log.warning("the keys of Cloudflare Access could not be fetched: %s", error)
            raise jwt.PyJWKClientConnectionError(str(error)) from None

    def _refresh(self) -> None:
        try:
            self.fetch_data()
        except jwt.PyJWKClientConnectionError:
            pass  # it is in the log; the keys that there are do for a while


def _refused(message: str) -> BridgeError:
    return BridgeError("unauthorized", message, "Log in with the admin key instead, or ask whoever runs Access.")
