"""Log-in by Cloudflare Access: who it says is there, after its signature was checked.

Access puts a signed token into the header Cf-Access-Jwt-Assertion of every request that it lets through.
It is worth something only with the signature of the team's keys and for our own audience:
https://developers.cloudflare.com/cloudflare-one/identity/authorization-cookie/validating-json/
Imported only where it is configured: the library for it takes 8 MiB.
"""

from __future__ import annotations

import json
import logging
import urllib.request
from http.client import HTTPException
from typing import Any

import gevent
import jwt
from gevent.lock import BoundedSemaphore

from bridge.clock import Clock
from bridge.errors import BridgeError

log = logging.getLogger("bridge")

_CERTS_PATH = "/cdn-cgi/access/certs"
#: Keys are fetched anew in the background after the first, and not believed any more after the second, in seconds.
REFRESH_S, LONGEST_S = 3600.0, 24 * 3600.0
#: Shortest time between two fetches, in seconds: an unknown key id must not make us a load for others.
PAUSE_S = 30.0
_TIMEOUT_S = 5.0
_MOST_BYTES = 256 * 1024
#: For clocks that do not agree, in seconds.
_LEEWAY_S = 30


class Access:
    """One team's Access application. Whatever goes wrong, nobody gets in."""

    def __init__(self, team: str, audience: str, clock: Clock) -> None:
        """`team` is its origin, such as https://example.cloudflareaccess.com; `audience` the application's tag."""
        self._team = team
        self._audience = audience
        self._clock = clock
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at = self._tried_at = float("-inf")
        self._turn = BoundedSemaphore(1)

    def identity(self, assertion: str) -> str:
        """The e-mail address of a person whom Access has let in. Raises BridgeError (unauthorized, overloaded)."""
        if not assertion:
            raise _refused("This request did not come through Cloudflare Access.")
        try:
            kid = str(jwt.get_unverified_header(assertion).get("kid"))
            claims = jwt.decode(
                assertion,
                self._key(kid),
                algorithms=["RS256"],
                audience=self._audience,
                issuer=self._team,
                leeway=_LEEWAY_S,
                options={"require": ["exp", "iat", "aud", "iss"]},
            )
        except (jwt.PyJWTError, ValueError) as error:
            log.warning("a token of Cloudflare Access was refused: %s", error)
            raise _refused("The token of Cloudflare Access is not valid.") from None
        email = claims.get("email")
        if not isinstance(email, str) or not email or len(email) > 320:
            # A service token is no person; it can send the admin key besides.
            raise _refused("The token of Cloudflare Access names no person.")
        return email

    def _key(self, kid: str) -> jwt.PyJWK:
        """The public key of that id. Fetched here only where it is not known; else refreshed in the background."""
        age_s = self._clock.monotonic() - self._fetched_at
        if kid not in self._keys or age_s > LONGEST_S:
            self._refresh()
            age_s = self._clock.monotonic() - self._fetched_at
        elif age_s > REFRESH_S:
            gevent.spawn(self._refresh)
        if age_s > LONGEST_S:
            raise BridgeError("overloaded", "The keys of Cloudflare Access cannot be fetched.", retry_after=PAUSE_S)
        if kid not in self._keys:
            raise _refused("The token of Cloudflare Access is signed by nobody we know.")
        return self._keys[kid]

    def _refresh(self) -> None:
        """Fetch the keys, unless that was tried just now. What cannot be read leaves the keys as they are."""
        with self._turn:
            now = self._clock.monotonic()
            if now < self._tried_at + PAUSE_S:
                return
            self._tried_at = now
            try:
                self._keys = _keys_of(self._fetch())
                self._fetched_at = self._clock.monotonic()
            except (OSError, HTTPException, ValueError, KeyError, TypeError, AttributeError, jwt.PyJWTError) as error:
                log.warning("the keys of Cloudflare Access could not be fetched: %s", error)

    def _fetch(self) -> Any:
        with urllib.request.urlopen(self._team + _CERTS_PATH, timeout=_TIMEOUT_S) as answer:
            return json.loads(answer.read(_MOST_BYTES))


def _keys_of(answer: Any) -> dict[str, jwt.PyJWK]:
    """The RSA keys in the answer of the key server, by id. Raises ValueError, KeyError, TypeError or PyJWTError."""
    if not isinstance(answer, dict):
        raise ValueError("the answer is not an object")
    keys = [key for key in answer["keys"] if key.get("kty") == "RSA" and isinstance(key.get("kid"), str)]
    return {key["kid"]: jwt.PyJWK(key, algorithm="RS256") for key in keys}


def _refused(message: str) -> BridgeError:
    return BridgeError("unauthorized", message, "Log in with the admin key instead, or ask whoever runs Access.")
