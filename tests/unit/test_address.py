"""Whose request it is: by the connection, or by what a trusted proxy says, and never by what a client says."""

from __future__ import annotations

import pytest

from bridge.errors import BridgeError
from bridge.http.address import GUESSES_PER_MINUTE, MOST_TOLD, AddressLimiter, client_address, is_secure
from tests.support.ledger import FrozenClock

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


def test_a_minute_begins_with_the_first_request_and_each_address_has_its_own() -> None:
    clock = FrozenClock()
    limiter = AddressLimiter(2, clock)
    for address in ("1.2.3.4", "1.2.3.4", "5.6.7.8"):
        limiter.hit(address)
        clock.pass_s(10)
    with pytest.raises(BridgeError) as refused:
        limiter.hit("1.2.3.4")
    assert (refused.value.code, refused.value.problem.retry_after) == ("too_many_requests", 30.0)
    limiter.hit("5.6.7.8")
    limiter.hit("1.2.3.4", foreign=True)
    clock.pass_s(30)
    limiter.hit("1.2.3.4")


@pytest.mark.parametrize("jump", ["2026-11-20T10:00:00Z", "2086-11-20T12:00:00Z"])
def test_a_clock_that_is_set_locks_no_address_out(jump: str) -> None:
    clock = FrozenClock()
    limiter = AddressLimiter(1, clock)
    limiter.hit("1.2.3.4")
    for _ in range(GUESSES_PER_MINUTE):
        with limiter.guess("1.2.3.4"):
            pass
    clock.set(jump)
    for ask in (limiter.hit, lambda address: limiter.guess(address).__enter__()):
        with pytest.raises(BridgeError) as refused:
            ask("1.2.3.4")
        assert refused.value.problem.retry_after == 60.0
    clock.pass_s(60)
    limiter.hit("1.2.3.4")
    with limiter.guess("1.2.3.4"):
        pass


def test_looks_at_keys_that_are_under_way_count_as_guesses_and_right_ones_do_not() -> None:
    limiter = AddressLimiter(0, FrozenClock())
    for _ in range(3 * GUESSES_PER_MINUTE):
        with limiter.guess("1.2.3.4") as was_right:
            was_right()
    looks = [limiter.guess("1.2.3.4") for _ in range(GUESSES_PER_MINUTE + 1)]
    for look in looks[:-1]:
        look.__enter__()
    with pytest.raises(BridgeError):
        looks[-1].__enter__()


def test_addresses_that_asked_once_are_forgotten() -> None:
    clock = FrozenClock()
    limiter = AddressLimiter(1, clock)
    for number in range(1000):
        limiter.hit(f"10.0.{number // 250}.{number % 250}")
        clock.pass_s(1)
    assert len(limiter._minutes) < 130


def test_several_hosts_count_an_address_together() -> None:
    clock = FrozenClock()
    a, b = AddressLimiter(10, clock), AddressLimiter(10, clock)
    for _ in range(6):
        a.hit("1.2.3.4")
    for _ in range(3):
        b.hear(a.told())
    for _ in range(4):
        b.hit("1.2.3.4")
    a.hear(b.told())
    for each in (a, b):
        with pytest.raises(BridgeError) as refused:
            each.hit("1.2.3.4")
        assert refused.value.problem.retry_after == 60.0
        each.hit("1.2.3.5")
    clock.pass_s(60)
    for each in (a, b):
        each.hit("1.2.3.4")


@pytest.mark.parametrize("drawn", [False, True])
def test_wrong_admin_keys_count_on_whatever_host_they_are_tried(drawn: bool) -> None:
    clock = FrozenClock()
    hosts = [AddressLimiter(0, clock) for _ in range(3)]
    for number in range(GUESSES_PER_MINUTE):
        with hosts[number % 2].guess("1.2.3.4", drawn=drawn):
            pass
    hosts[2].hear([*hosts[0].told(), *hosts[1].told()])
    with pytest.raises(BridgeError), hosts[2].guess("1.2.3.4", drawn=drawn):
        pass
    hosts[2].hear([])
    with hosts[2].guess("1.2.3.4", drawn=drawn):
        pass
    hosts[2].hear([*hosts[0].told(), *hosts[1].told()])
    with hosts[2].guess("1.2.3.4", drawn=not drawn):
        pass


def test_what_a_host_tells_of_addresses_has_a_bound() -> None:
    limiter = AddressLimiter(10, FrozenClock())
    for number in range(2 * MOST_TOLD):
        limiter.hit(f"10.1.{number // 250}.{number % 250}")
    with limiter.guess("1.2.3.4"):
        pass
    told = limiter.told()
    assert len(told) == MOST_TOLD
    assert told[0] == ("guess", "1.2.3.4", 60.0, 1)


def ask(limiter: AddressLimiter, key: str, code: str | None = None) -> str | None:
    """What becomes of a request of a key in which `code` is wrong."""
    try:
        with limiter.work(key):
            if code is not None:
                raise BridgeError(code, "No.")
    except BridgeError as error:
        return error.code
    return None


def test_who_sends_too_much_that_is_wrong_is_not_looked_at_for_a_while() -> None:
    limiter = AddressLimiter(20, FrozenClock())
    assert [ask(limiter, "a key", "invalid_request") for _ in range(10)] == ["invalid_request"] * 10
    assert ask(limiter, "a key") == "too_many_requests"
    assert ask(limiter, "another") is None


@pytest.mark.parametrize("code", ["requests_per_minute", "cost_per_day", None])
def test_only_what_is_wrong_counts(code: str | None) -> None:
    limiter = AddressLimiter(20, FrozenClock())
    assert [ask(limiter, "a key", code) for _ in range(50)] == [code] * 50


def test_without_a_limit_nothing_is_counted() -> None:
    limiter = AddressLimiter(0, FrozenClock())
    assert {ask(limiter, "a key", "invalid_request") for _ in range(50)} == {"invalid_request"}
