"""Client addresses: who is at the other end, and how often an address may ask."""

from __future__ import annotations

import heapq
import ipaddress
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from bridge.clock import Clock
from bridge.errors import BridgeError

#: Wrong admin keys that an address may send in a minute.
GUESSES_PER_MINUTE = 10
MINUTE_S = 60.0
#: Counts that a host tells the others.
MOST_TOLD = 500

#: A count for other hosts: what is counted, of whom, for how many seconds more, and how often.
Told = tuple[str, str, float, int]


def client_address(environ: dict[str, Any], trusted_proxy: str) -> str:
    """The address of the client, as text.

    A header is believed only by the setting, and only from a loopback or unix-socket peer: our own
    tunnel. From anybody else it is what anybody can write.
    """
    peer = str(environ.get("REMOTE_ADDR") or "")
    if trusted_proxy == "none" or not _is_local(peer):
        return peer or "unix"
    if trusted_proxy == "cloudflare":
        claimed = str(environ.get("HTTP_CF_CONNECTING_IP") or "")
    else:
        claimed = str(environ.get("HTTP_X_FORWARDED_FOR") or "").rpartition(",")[2]
    try:
        return str(ipaddress.ip_address(claimed.strip()))
    except ValueError:
        return peer or "unix"


def is_secure(environ: dict[str, Any], trusted_proxy: str) -> bool:
    """Whether the client's own connection is encrypted; of a proxy in front only by the same rules."""
    if environ.get("wsgi.url_scheme") == "https":
        return True
    trusted = trusted_proxy != "none" and _is_local(str(environ.get("REMOTE_ADDR") or ""))
    claimed = str(environ.get("HTTP_X_FORWARDED_PROTO") or "").rpartition(",")[2]
    return trusted and claimed.strip().lower() == "https"


def _is_local(peer: str) -> bool:
    if not peer:
        return True
    try:
        return ipaddress.ip_address(peer).is_loopback
    except ValueError:
        return False


def _group(address: str) -> str:
    """What is counted together: an IPv4 address, or the /64 that one IPv6 client can roam in."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is None:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


class AddressLimiter:
    """Counts requests, and wrong admin keys, by address, and wrong requests by key. In memory; forgotten at a restart.
    Several hosts tell each other what they have counted, a second or two later.

    A minute begins with the first that is counted, and goes by the monotonic clock: one that is set back locks nobody
    out.
    """

    def __init__(self, per_minute: int, clock: Clock) -> None:
        """`per_minute` requests of one address, and half as many wrong ones of a key; 0 for no limit."""
        self._per_minute = per_minute
        self._clock = clock
        #: (what is counted, group of addresses) -> when its minute ends, and what came in it
        self._minutes: dict[tuple[str, str], tuple[float, int]] = {}
        #: the same of the other hosts together
        self._elsewhere: dict[tuple[str, str], tuple[float, int]] = {}
        self._sweep_at = clock.monotonic() + MINUTE_S
        #: (kind of guess, group of addresses) -> keys that are being looked at
        self._looking: Counter[tuple[str, str]] = Counter()

    def hit(self, address: str, *, foreign: bool = False) -> None:
        """Count a request. `foreign`: a page of another site had a browser send it; such are counted apart, so that no
        page can use up what its reader may send. Raises BridgeError (too_many_requests)."""
        if not self._per_minute:
            return
        what = ("foreign" if foreign else "request", _group(address))
        if self._count(what) >= self._per_minute:
            raise self._refusal(what, "This address sends too many requests.")
        self._add(what)

    @contextmanager
    def work(self, key_name: str) -> Iterator[None]:
        """Around a look at what a key asks for: no cap of a key counts what is wrong with it, but looking at it takes
        time, too. Raises BridgeError (too_many_requests) where too much of it was wrong lately."""
        what = ("refused", key_name)
        if self._per_minute and self._count(what) >= max(1, self._per_minute // 2):
            raise self._refusal(what, "This key sends too many requests that cannot be taken.")
        try:
            yield
        except BridgeError as error:
            if self._per_minute and error.code == "invalid_request":
                self._add(what)
            raise

    @contextmanager
    def guess(self, address: str, *, drawn: bool = False) -> Iterator[Callable[[], None]]:
        """Around a look at an admin key, which may take a moment, in which others come: those count as well.

        Every look is a wrong guess unless what this gives is called, since then the key was right. `drawn`: it looks
        like one that was drawn by chance; such are counted apart, so that who guesses words keeps no such key out.
        Raises BridgeError (too_many_requests) where an address has guessed too often already.
        """
        what, was_right = ("drawn" if drawn else "guess", _group(address)), []
        if self._count(what) + self._looking[what] >= GUESSES_PER_MINUTE:
            raise self._refusal(what, "Too many wrong admin keys came from this address.")
        self._looking[what] += 1
        try:
            yield lambda: was_right.append(True)
        finally:
            self._looking[what] -= 1
            if not self._looking[what]:
                del self._looking[what]
            if not was_right:
                self._add(what)

    def told(self) -> list[Told]:
        """What other hosts should know: the highest counts."""
        now = self._clock.monotonic()
        least = {"guess": 1, "drawn": 1, "refused": self._per_minute // 20}
        found = [
            (kind, group, ends_at - now, count)
            for (kind, group), (ends_at, count) in self._minutes.items()
            if now < ends_at and count >= least.get(kind, self._per_minute // 10)
        ]
        return heapq.nlargest(MOST_TOLD, found, key=lambda each: (each[0] in ("guess", "drawn"), each[3]))

    def hear(self, told: Iterable[Told]) -> None:
        """Count what other hosts tell, instead of what they told before."""
        now, elsewhere = self._clock.monotonic(), dict[tuple[str, str], tuple[float, int]]()
        for kind, group, left_s, count in told:
            ends_at, before = elsewhere.get((kind, group), (0.0, 0))
            elsewhere[kind, group] = max(ends_at, now + min(left_s, MINUTE_S)), before + count
        self._elsewhere = elsewhere

    def _count(self, what: tuple[str, str]) -> int:
        ends_at, count = self._elsewhere.get(what, (0.0, 0))
        return self._own(what) + (count if self._clock.monotonic() < ends_at else 0)

    def _own(self, what: tuple[str, str]) -> int:
        ends_at, count = self._minutes.get(what, (0.0, 0))
        return count if self._clock.monotonic() < ends_at else 0

    def _add(self, what: tuple[str, str]) -> None:
        now, count = self._clock.monotonic(), self._own(what)
        self._minutes[what] = (self._minutes[what][0] if count else now + MINUTE_S, count + 1)
        if now >= self._sweep_at:
            self._sweep_at = now + MINUTE_S
            self._minutes = {each: minute for each, minute in self._minutes.items() if now < minute[0]}

    def _refusal(self, what: tuple[str, str], message: str) -> BridgeError:
        ends_at = max(minutes.get(what, (0.0, 0))[0] for minutes in (self._minutes, self._elsewhere))
        wait_s = ends_at - self._clock.monotonic()
        return BridgeError("too_many_requests", message, retry_after=max(1.0, wait_s))
