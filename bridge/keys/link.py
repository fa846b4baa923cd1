"""The link that logs the admin in: its token opens one session, once, within ten minutes."""

from __future__ import annotations

import hashlib
import hmac
import secrets

import msgspec

from bridge.clock import Clock
from bridge.errors import BridgeError

PREFIX = "cbl_"
#: How long a link can be used, in seconds.
LASTS_S = 600

_HINT = "Make another one on the bridge's host: cli-bridge link (in a checkout: ./run link)."


class _Made(msgspec.Struct):
    sha256: bytes
    #: UTC seconds
    at: float
    used: bool = False


class LogInLink:
    """The one link that holds. Only the hash of its token is kept, in memory: a restart ends it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._made: _Made | None = None

    def make(self) -> str:
        """The token of a new link, which takes the place of the last one."""
        token = PREFIX + secrets.token_urlsafe(32)
        self._made = _Made(_sha256(token), self._clock.now())
        return token

    def use(self, token: str) -> None:
        """Use the link up. Raises BridgeError unauthorized where it is not the one, used already, or too old."""
        made = self._made
        if made is None or not hmac.compare_digest(_sha256(token), made.sha256):
            raise BridgeError(
                "unauthorized", "This link does not work: a newer one was made, or the bridge was started anew.", _HINT
            )
        if made.used:
            raise BridgeError("unauthorized", "This link has been used; each one logs in once.", _HINT)
        # A clock that was set back must not keep it alive.
        if not made.at <= self._clock.now() < made.at + LASTS_S:
            raise BridgeError("unauthorized", "This link is too old; each one lasts ten minutes.", _HINT)
        made.used = True


def _sha256(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
