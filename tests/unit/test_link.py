"""The link that logs the admin in: once, for ten minutes, and only the newest one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from werkzeug.test import TestResponse

from bridge.http.address import GUESSES_PER_MINUTE
from bridge.keys.link import LASTS_S, PREFIX
from tests.unit.test_session import ADMIN_KEY, Desk


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path, BRIDGE_RATE_LIMIT_PER_MINUTE="0")
    yield desk
    desk.service.close()


def error(answer: TestResponse) -> str:
    assert answer.status_code == 401
    assert "cli-bridge link" in answer.json["hint"]
    text: str = answer.json["error"]
    return text


def test_a_link_logs_in_once(desk: Desk) -> None:
    token = desk.service.link.make()
    browser = desk.browser()
    assert browser.log_in(token).status_code == 200
    assert browser.look() == 200
    assert error(desk.browser().log_in(token)) == "This link has been used; each one logs in once."
    assert browser.look() == 200, "the session goes on"
    entries, _ = desk.service.audit.page()
    assert [(entry["action"], entry["after"]) for entry in entries] == [("logged_in", {"by": "link"})]
    assert token not in desk.service.audit._file.path.read_text()


def test_a_link_ends_after_ten_minutes(desk: Desk) -> None:
    token = desk.service.link.make()
    desk.clock.pass_s(LASTS_S)
    assert error(desk.browser().log_in(token)) == "This link is too old; each one lasts ten minutes."


def test_a_clock_that_was_set_back_keeps_no_link_alive(desk: Desk) -> None:
    token = desk.service.link.make()
    desk.clock.wall -= 60
    assert "too old" in error(desk.browser().log_in(token))


def test_only_the_newest_link_works(desk: Desk) -> None:
    old, new = desk.service.link.make(), desk.service.link.make()
    assert "a newer one was made" in error(desk.browser().log_in(old))
    assert desk.browser().log_in(new).status_code == 200


def test_a_link_opens_nothing_but_a_session(desk: Desk) -> None:
    token = desk.service.link.make()
    answer = desk.browser().client.get("/admin/keys", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 401
    assert desk.browser().log_in(token).status_code == 200, "it was not used up"


def test_guessing_at_links_is_guessing_at_the_admin_key(desk: Desk) -> None:
    desk.service.link.make()
    for _ in range(GUESSES_PER_MINUTE):
        assert "a newer one was made" in error(desk.browser().log_in(PREFIX + "guess"))
    assert desk.browser().log_in(ADMIN_KEY).status_code == 429


def test_no_link_opens_anything_where_none_was_made(desk: Desk) -> None:
    assert desk.browser().log_in(PREFIX).status_code == 401
