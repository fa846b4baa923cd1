"""The dashboard's session: who gets one, what it may do, and when it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from bridge.http.app import create_app
from bridge.http.session import BACKGROUND_HEADER, COOKIE, IDLE_S, LONGEST_S, RENEW_S, TOKEN_HEADER
from bridge.limits import Limits
from bridge.service import Service
from bridge.settings import Settings
from tests.support.ledger import FrozenClock

ADMIN_KEY = "unit-admin-key-0123456789"
STRANGER = {"REMOTE_ADDR": "203.0.113.9"}


class Desk:
    """An application without a network, and time that goes on only when told."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.clock = FrozenClock()
        env = {"BRIDGE_DATA_DIR": str(folder / "data"), "BRIDGE_ADMIN_KEY": ADMIN_KEY, **settings}
        self.service = Service(Settings.load(env), clock=self.clock)
        self.service.admin.ensure()
        self.app = create_app(self.service)
        #: the secret of a person's key
        self.ada = ""

    def browser(self) -> Browser:
        """A fresh browser."""
        return Browser(self.app.test_client())


class Browser:
    """Cookies, and the token that the page would hold."""

    def __init__(self, client: FlaskClient) -> None:
        self.client = client
        self.token = ""

    def log_in(self, key: str = ADMIN_KEY, **environ: Any) -> TestResponse:
        answer = self.client.post(
            "/admin/session", headers={"Authorization": f"Bearer {key}"}, environ_overrides=environ
        )
        if answer.status_code == 200:
            self.token = answer.json["session"]["token"]
        return answer

    def look(self, path: str = "/admin/keys", **headers: str) -> int:
        return self.client.get(path, headers=headers).status_code

    def change(
        self, token: str | None = None, method: str = "POST", path: str = "/admin/keys/ada/disable"
    ) -> TestResponse:
        given = self.token if token is None else token
        return self.client.open(path, method=method, headers={TOKEN_HEADER: given} if given else {})

    @property
    def cookie(self) -> str:
        found = self.client.get_cookie(COOKIE, path="/admin")
        return "" if found is None else found.value

    @cookie.setter
    def cookie(self, value: str) -> None:
        self.client.set_cookie(COOKIE, value, path="/admin")


@pytest.fixture
def desk_with(tmp_path: Path) -> Iterator[Callable[..., Desk]]:
    made: list[Desk] = []

    def make(**settings: str) -> Desk:
        while made:
            made.pop().service.close()
        made.append(Desk(tmp_path, **settings))
        return made[-1]

    yield make
    made[-1].service.close()


@pytest.fixture
def desk(desk_with: Callable[..., Desk]) -> Desk:
    desk = desk_with(BRIDGE_RATE_LIMIT_PER_MINUTE="0")
    _, desk.ada = desk.service.keys.create("ada", Limits())
    return desk


def test_the_admin_key_opens_a_session_that_scripts_and_other_sites_cannot_use(desk: Desk) -> None:
    browser = desk.browser()
    answer = browser.log_in()
    (cookie,) = answer.headers.getlist("Set-Cookie")
    assert {part.strip() for part in cookie.split(";")[1:]} == {"HttpOnly", "Path=/admin", "SameSite=Strict"}
    assert browser.look() == 200
    assert desk.browser().look() == 401


@pytest.mark.parametrize(
    ("proxy", "peer", "secure"),
    [
        ("none", "127.0.0.1", False),
        ("forwarded", "127.0.0.1", True),
        ("cloudflare", "127.0.0.1", True),
        ("forwarded", "203.0.113.9", False),
    ],
)
def test_the_cookie_is_secure_where_a_proxy_that_is_believed_says_tls(
    desk_with: Callable[..., Desk], proxy: str, peer: str, secure: bool
) -> None:
    desk = desk_with(BRIDGE_TRUSTED_PROXY=proxy)
    answer = desk.browser().log_in(HTTP_X_FORWARDED_PROTO="https", REMOTE_ADDR=peer)
    assert ("Secure" in answer.headers["Set-Cookie"]) == secure


def test_a_change_needs_the_token_of_its_own_session(desk: Desk) -> None:
    browser, other = desk.browser(), desk.browser()
    browser.log_in()
    other.log_in()
    for wrong in ("", "wrong", other.token, "ünïcode"):
        answer = browser.change(wrong)
        assert (answer.status_code, answer.json["code"]) == (403, "csrf_failed")
    assert desk.service.keys.get("ada").disabled is False
    assert browser.change().status_code == 200
    assert desk.service.keys.get("ada").disabled is True


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/admin/keys"),
        ("PATCH", "/admin/keys/ada"),
        ("DELETE", "/admin/keys/ada"),
        ("POST", "/admin/keys/ada/rotate"),
        ("POST", "/admin/keys/ada/reset-usage"),
        ("POST", "/admin/keys/ada/enable"),
        ("DELETE", "/admin/runs/run_1"),
        ("DELETE", "/admin/session"),
        ("DELETE", "/admin/sessions"),
    ],
)
def test_no_change_is_made_without_the_token(desk: Desk, method: str, path: str) -> None:
    browser = desk.browser()
    browser.log_in()
    before = list(desk.service.keys.list())
    assert browser.change("", method, path).json["code"] == "csrf_failed"
    assert desk.service.keys.list() == before
    assert browser.look() == 200


def test_every_route_of_the_admin_is_closed_without_a_session_and_with_a_key_of_a_person(desk: Desk) -> None:
    open_to_all = {"/admin", "/admin/", "/admin/session"}
    rules = [rule for rule in desk.app.url_map.iter_rules() if rule.rule.startswith("/admin")]
    checked = 0
    for rule in rules:
        path = rule.rule.replace("<name>", "ada").replace("<run_id>", "run_1")
        for method in set(rule.methods or ()) - {"HEAD", "OPTIONS"}:
            if path in open_to_all and method == "GET":
                continue
            for headers in ({}, {"Authorization": f"Bearer {desk.ada}"}, {"X-Api-Key": desk.ada}):
                # Each from an address of its own: too many guesses would answer 429 and hide the rest.
                checked += 1
                peer = {"REMOTE_ADDR": f"198.51.100.{checked}"}
                answer = desk.app.test_client().open(path, method=method, headers=headers, environ_overrides=peer)
                assert answer.status_code == 401, f"{method} {path} {headers}"
    assert checked > 50


def test_it_ends_when_nothing_was_done_for_a_while(desk: Desk) -> None:
    browser = desk.browser()
    browser.log_in()
    desk.clock.pass_s(IDLE_S - 1)
    assert browser.look() == 200
    desk.clock.pass_s(IDLE_S - 1)
    assert browser.look() == 200
    desk.clock.pass_s(IDLE_S)
    assert browser.look() == 401


def test_what_a_timer_of_the_page_asks_does_not_keep_it_alive(desk: Desk) -> None:
    browser = desk.browser()
    browser.log_in()
    for _ in range(int(IDLE_S / 600) - 1):
        desk.clock.pass_s(600)
        assert browser.look(**{BACKGROUND_HEADER: "1"}) == 200
    desk.clock.pass_s(600)
    assert browser.look(**{BACKGROUND_HEADER: "1"}) == 401


def test_it_ends_after_half_a_day_however_busy_it_is(desk: Desk) -> None:
    browser = desk.browser()
    browser.log_in()
    passed = 0
    while passed + 1800 < LONGEST_S:
        desk.clock.pass_s(1800)
        passed += 1800
        assert browser.look() == 200
    desk.clock.pass_s(1800)
    assert browser.look() == 401


def test_its_cookie_is_renewed_only_now_and_then(desk: Desk) -> None:
    browser = desk.browser()
    browser.log_in()
    first = browser.cookie
    desk.clock.pass_s(RENEW_S - 1)
    browser.look()
    assert browser.cookie == first
    desk.clock.pass_s(1)
    browser.look()
    assert browser.cookie != first


def test_a_copied_cookie_is_worth_nothing_after_the_log_out(desk: Desk) -> None:
    browser, thief = desk.browser(), desk.browser()
    browser.log_in()
    thief.cookie = browser.cookie
    assert thief.look() == 200
    assert browser.change(method="DELETE", path="/admin/session").status_code == 200
    assert browser.cookie == ""
    assert (browser.look(), thief.look()) == (401, 401)


def test_a_log_out_everywhere_ends_every_session_and_only_those_before_it(desk: Desk) -> None:
    browser, phone = desk.browser(), desk.browser()
    browser.log_in()
    phone.log_in()
    assert browser.change(method="DELETE", path="/admin/sessions").status_code == 200
    assert (browser.look(), phone.look()) == (401, 401)
    phone.log_in()
    assert phone.look() == 200


def test_another_admin_key_ends_the_sessions_of_the_old_one(desk_with: Callable[..., Desk]) -> None:
    desk = desk_with()
    browser = desk.browser()
    browser.log_in()
    kept = browser.cookie
    same = desk_with().browser()
    same.cookie = kept
    assert same.look() == 200
    changed = desk_with(BRIDGE_ADMIN_KEY="another-admin-key-0123456789").browser()
    changed.cookie = kept
    assert changed.look() == 401


def test_a_reset_of_a_stored_admin_key_ends_the_sessions(desk_with: Callable[..., Desk]) -> None:
    desk = desk_with(BRIDGE_ADMIN_KEY="")
    browser = desk.browser()
    assert browser.log_in(desk.service.admin.reset()).status_code == 200
    assert browser.look() == 200
    desk.service.admin.reset()
    assert browser.look() == 401


def test_a_cookie_that_is_not_as_it_was_signed_opens_nothing(desk: Desk, tmp_path: Path) -> None:
    browser = desk.browser()
    browser.log_in()
    good = browser.cookie
    payload, _, signature = good.rpartition(".")
    stranger = Desk(tmp_path / "other")
    elsewhere = stranger.browser()
    elsewhere.log_in()
    stranger.service.close()
    for wrong in (good[:-1], good + "A", f"{payload}x.{signature}", payload, "", "x" * 4000, "é", elsewhere.cookie):
        browser.cookie = wrong
        assert browser.look() == 401, wrong
    browser.cookie = good
    assert browser.look() == 200


def test_a_cookie_from_before_the_log_in_is_not_taken_over(desk: Desk) -> None:
    attacker, victim = desk.browser(), desk.browser()
    attacker.log_in()
    victim.cookie = attacker.cookie
    victim.log_in()
    assert victim.cookie != attacker.cookie
    assert victim.token != attacker.token


def test_a_session_cannot_prolong_itself_by_a_new_log_in(desk: Desk) -> None:
    browser = desk.browser()
    browser.log_in()
    answer = browser.change(path="/admin/session")
    assert answer.status_code == 401


def test_a_clock_that_was_set_back_does_not_prolong_a_session(desk: Desk) -> None:
    browser = desk.browser()
    browser.log_in()
    desk.clock.wall -= 3600
    assert browser.look() == 401


@pytest.mark.parametrize("header", ["Authorization", "X-Api-Key"])
def test_a_persons_key_opens_no_session(desk: Desk, header: str) -> None:
    value = f"Bearer {desk.ada}" if header == "Authorization" else desk.ada
    answer = desk.app.test_client().post("/admin/session", headers={header: value})
    assert answer.status_code == 401
    assert "Set-Cookie" not in answer.headers


def test_wrong_log_ins_are_counted_and_then_refused_but_a_session_goes_on(desk: Desk) -> None:
    browser, guesser = desk.browser(), desk.browser()
    browser.log_in(**STRANGER)
    answers = [guesser.log_in("wrong-admin-key-0123456789", **STRANGER).status_code for _ in range(11)]
    assert answers == [401] * 10 + [429]
    refused = guesser.log_in(**STRANGER)
    assert (refused.status_code, refused.json["code"]) == (429, "too_many_requests")
    assert int(refused.headers["Retry-After"]) >= 1
    assert browser.client.get("/admin/keys", environ_overrides=STRANGER).status_code == 200


DRAWN = ["cba_" + "aB3-_xYz90" * 4 + "abc", "0123456789abcdef" * 4]


@pytest.mark.parametrize("key", DRAWN)
def test_a_right_key_that_was_drawn_by_chance_opens_whatever_its_address_has_guessed(
    desk_with: Callable[..., Desk], key: str
) -> None:
    desk = desk_with(BRIDGE_ADMIN_KEY=key, BRIDGE_RATE_LIMIT_PER_MINUTE="40")
    browser = desk.browser()
    lookalike = key[:-1] + ("0" if key[-1] != "0" else "1")
    assert [browser.log_in("wrong-admin-key-0123456789").status_code for _ in range(12)] == [401] * 10 + [429] * 2
    assert [browser.log_in(lookalike).status_code for _ in range(12)] == [401] * 10 + [429] * 2
    assert [browser.log_in(key).status_code for _ in range(3)] == [200] * 3
    stranger = desk.browser()
    # Nor does a flood keep it out, which the wrong ones take part in.
    assert [stranger.look("/capacity") for _ in range(20)][-1] == 429
    assert stranger.look(Authorization=f"Bearer {lookalike}") == 429
    assert stranger.look(Authorization=f"Bearer {key}") == 200


def test_a_key_that_the_bridge_made_opens_an_address_that_has_guessed_also_after_a_restart(
    desk_with: Callable[..., Desk],
) -> None:
    desk = desk_with(BRIDGE_ADMIN_KEY="")
    key = desk.service.admin.reset()
    browser = desk.browser()
    assert [browser.log_in("wrong-admin-key-0123456789").status_code for _ in range(11)] == [401] * 10 + [429]
    assert browser.log_in(key).status_code == 200
    lookalikes = ["cba_" + f"{number:043d}" for number in range(11)]
    assert [browser.log_in(each).status_code for each in lookalikes] == [401] * 10 + [429]
    assert browser.log_in(key).status_code == 200, "it is known by now"


def test_a_link_opens_an_address_that_has_guessed_and_a_wrong_one_is_a_guess(desk: Desk) -> None:
    browser = desk.browser()
    token = desk.service.link.make()
    wrong = token[:-1] + ("A" if token[-1] != "A" else "B")
    assert [browser.log_in(wrong).status_code for _ in range(11)] == [401] * 10 + [429]
    assert browser.log_in().status_code == 429, "this one could be a guess"
    assert browser.log_in(token).status_code == 200


def test_a_page_whose_session_has_ended_does_not_count_as_guessing(desk: Desk) -> None:
    browser = desk.browser()
    browser.log_in()
    desk.clock.pass_s(IDLE_S)
    assert [browser.look() for _ in range(30)] == [401] * 30
    assert browser.log_in().status_code == 200


def test_asking_without_any_key_is_no_guess_and_locks_nobody_out(desk: Desk) -> None:
    browser = desk.browser()
    assert [browser.look() for _ in range(30)] == [401] * 30
    assert [browser.client.post("/admin/session").status_code for _ in range(30)] == [401] * 30
    assert browser.log_in().status_code == 200


def test_a_page_of_another_site_uses_up_nothing_of_what_its_reader_may_send(desk_with: Callable[..., Desk]) -> None:
    desk = desk_with(BRIDGE_RATE_LIMIT_PER_MINUTE="5")
    browser = desk.browser()
    images = [browser.look(**{"Sec-Fetch-Site": site}) for site in ("cross-site", "same-site") for _ in range(5)]
    assert images == [401] * 5 + [429] * 5
    assert browser.look(Authorization=f"Bearer {ADMIN_KEY}") == 200


@pytest.mark.parametrize("first", ["evil", "", "{cookie}x"])
def test_of_several_cookies_the_one_that_is_ours_counts(desk: Desk, first: str) -> None:
    browser = desk.browser()
    browser.log_in()
    cookies = f"{COOKIE}={first.format(cookie=browser.cookie)}; {COOKIE}={browser.cookie}"
    stranger = desk.app.test_client(use_cookies=False)
    assert stranger.get("/admin/keys", headers={"Cookie": cookies}).status_code == 200
    many = "; ".join([f"{COOKIE}=evil"] * 2000)
    assert stranger.get("/admin/keys", headers={"Cookie": many}).status_code == 401


def test_a_session_is_not_slowed_down_by_what_else_its_address_sends(desk_with: Callable[..., Desk]) -> None:
    desk = desk_with(BRIDGE_RATE_LIMIT_PER_MINUTE="5")
    browser, other = desk.browser(), desk.browser()
    browser.log_in()
    assert 429 in [other.look("/capacity") for _ in range(10)]
    assert [browser.look() for _ in range(20)] == [200] * 20
    other.cookie = browser.cookie + "x"
    assert other.look() == 429


def test_the_audit_says_that_it_was_the_dashboard(desk: Desk) -> None:
    browser = desk.browser()
    browser.log_in()
    browser.change()
    browser.change(method="DELETE", path="/admin/session")
    rows, _ = desk.service.audit.page()
    assert [(row["action"], row["actor"]) for row in rows[:3]] == [
        ("logged_out", "dashboard"),
        ("key_disabled", "dashboard"),
        ("logged_in", "dashboard"),
    ]
    assert rows[0]["address"] == "127.0.0.1"


def test_who_is_logged_in_can_be_asked_without_an_error(desk: Desk) -> None:
    browser = desk.browser()
    assert browser.client.get("/admin/session").json == {"session": None, "access": False}
    browser.log_in()
    session = browser.client.get("/admin/session").json["session"]
    assert session["token"] == browser.token
    assert session["actor"] == "dashboard"


def test_a_bearer_key_needs_no_token_even_beside_a_session(desk: Desk) -> None:
    browser = desk.browser()
    browser.log_in()
    answer = browser.client.post("/admin/keys/ada/disable", headers={"Authorization": f"Bearer {ADMIN_KEY}"})
    assert answer.status_code == 200
    assert desk.service.audit.page()[0][0]["actor"] == "admin"
