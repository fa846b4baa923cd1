"""Who gets into the dashboard, and how one gets out of it."""

from __future__ import annotations

import time
from collections.abc import Callable

from playwright.sync_api import Browser, Page, expect
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request, Response

from bridge.http.session import COOKIE, IDLE_S, PATH, Sessions
from bridge.keys.admin import AdminCredentials
from bridge.settings import Settings
from bridge.store.document import Document
from tests.browser.conftest import Visit, profile
from tests.support.ledger import FrozenClock
from tests.support.server import ADMIN_KEY, Server


def log_in(page: Page, key: str) -> None:
    page.get_by_label("Admin key").fill(key)
    page.get_by_role("button", name="Log in").click()


def test_a_wrong_key_is_refused_with_what_to_do_and_the_right_one_lets_in(visit: Visit) -> None:
    page = visit.open("/admin/")
    log_in(page, "not-the-admin-key-at-all")
    expect(page.get_by_role("alert")).to_contain_text("This is not the admin key.")
    expect(page.get_by_role("alert")).to_contain_text("Check that you have copied all of it")
    expect(page.get_by_role("alert")).not_to_contain_text("Authorization")
    expect(page.get_by_label("Admin key")).to_have_attribute("aria-invalid", "true")
    visit.expect_refusals()
    page.get_by_label("Admin key").fill(ADMIN_KEY)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()


def test_a_persons_key_does_not_open_the_dashboard(visit: Visit, new_key: Callable[..., tuple[str, str]]) -> None:
    page = visit.open("/admin/")
    log_in(page, new_key()[1])
    expect(page.get_by_role("alert")).to_contain_text("This is not the admin key.")
    expect(page.get_by_role("navigation")).to_be_hidden()
    visit.expect_refusals()


def test_a_key_that_cannot_even_be_sent_is_wrong_too(visit: Visit) -> None:
    page = visit.open("/admin/")
    log_in(page, "kein Schlüssel 🔑 sondern ein Bild")
    expect(page.get_by_role("alert")).to_contain_text("This is not the admin key.")


def test_a_session_lasts_over_a_reload_and_in_another_tab(visit: Visit) -> None:
    page = visit.admin("keys")
    page.reload()
    expect(page.get_by_role("heading", name="Keys", level=1)).to_be_visible()
    expect(visit.open("/admin/#/logs").get_by_role("heading", name="Logs", level=1)).to_be_visible()


def test_the_cookie_is_out_of_reach_of_scripts(visit: Visit) -> None:
    page = visit.admin()
    (cookie,) = [each for each in visit.context.cookies(f"{visit.address}/admin/") if each["name"] == COOKIE]
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", PATH)
    assert page.evaluate("document.cookie") == ""
    assert page.evaluate("JSON.stringify({...localStorage, ...sessionStorage})") == "{}"


def test_an_expired_session_asks_for_the_key_again_and_goes_on_where_it_was(visit: Visit, server: Server) -> None:
    page = visit.admin("logs?status=ok")
    expect(page.get_by_role("heading", name="Logs", level=1)).to_be_visible()
    page.wait_for_load_state("networkidle")
    put_cookie(visit, cookie_of(server, idle_s=IDLE_S + 1))
    # The page finds out by itself, too, and may be quicker than the click.
    page.evaluate("document.querySelectorAll('button').forEach(each => each.textContent === 'Refresh' && each.click())")
    expect(page.get_by_role("status").filter(has_text="Your session has ended.")).to_be_visible()
    expect(page.get_by_role("navigation")).to_be_hidden()
    visit.expect_refusals()
    log_in(page, ADMIN_KEY)
    expect(page.get_by_role("heading", name="Logs", level=1)).to_be_visible()
    expect(page.get_by_label("Status")).to_have_value("ok")


def test_that_expired_cookie_would_be_good_if_it_were_fresh(visit: Visit, server: Server) -> None:
    put_cookie(visit, cookie_of(server, idle_s=5))
    expect(visit.open("/admin/").get_by_role("heading", name="Overview")).to_be_visible()


def put_cookie(visit: Visit, value: str) -> None:
    visit.context.add_cookies([{"name": COOKIE, "value": value, "domain": "127.0.0.1", "path": PATH}])


def cookie_of(server: Server, *, idle_s: float) -> str:
    """The cookie of a session that was used so long ago, signed with the server's own secret."""
    admin = AdminCredentials(Document(server.data_dir / "admin.json"), ADMIN_KEY)

    sessions = Sessions(admin, FrozenClock(time.time() - idle_s), Settings.load({"BRIDGE_ADMIN_KEY": ADMIN_KEY}))
    response = Response()
    sessions.open(Request(EnvironBuilder().get_environ()), response, "dashboard")  # type: ignore[arg-type]
    return response.headers["Set-Cookie"].split(";")[0].partition("=")[2]


def test_logging_out_ends_it(visit: Visit) -> None:
    page = visit.admin()
    page.get_by_role("button", name="Log out", exact=True).click()
    expect(page.get_by_text("You are logged out.")).to_be_visible()
    page.reload()
    expect(page.get_by_label("Admin key")).to_be_visible()


def test_logging_out_everywhere_ends_the_sessions_of_other_devices(
    visit: Visit, chromium: Browser, server: Server
) -> None:
    with profile(chromium, server) as phone:
        other = phone.admin("audit")
        expect(other.get_by_role("table")).to_contain_text("logged in")
        page = visit.admin()
        page.get_by_role("button", name="Log out everywhere").click()
        page.get_by_role("dialog").get_by_role("button", name="Log out everywhere").click()
        expect(page.get_by_text("Every session on every device is ended.")).to_be_visible()
        other.get_by_role("button", name="Refresh").click()
        expect(other.get_by_text("Your session has ended.")).to_be_visible()
        phone.expect_refusals()


def test_a_change_from_elsewhere_is_refused_although_the_cookie_goes_with_it(
    visit: Visit, server: Server, new_key: Callable[..., tuple[str, str]]
) -> None:
    name, _ = new_key()
    page = visit.admin()
    for headers in ("{}", "{'X-CSRF-Token': 'guessed'}"):
        answer = page.evaluate(
            f"fetch('/admin/keys/{name}', {{method: 'DELETE', headers: {headers}}})"
            ".then(async (answer) => [answer.status, (await answer.json()).code])"
        )
        assert answer == [403, "csrf_failed"]
    visit.expect_refusals()
    assert server.admin("GET", f"/keys/{name}").json["status"] == "active"


def test_another_site_cannot_use_the_session_at_all(visit: Visit, server: Server) -> None:
    visit.admin()
    # Another host that leads to the same server is another site to the browser.
    stranger = visit.context.new_page()
    stranger.goto(f"http://localhost:{server.port}/health")
    form = f"<form method=post action='{visit.address}/admin/keys'><input name=name value=x></form>"
    stranger.set_content(form)
    with stranger.expect_response(f"{visit.address}/admin/keys") as caught:
        stranger.evaluate("document.forms[0].submit()")
    assert caught.value.status == 401
    assert "cookie" not in caught.value.request.all_headers()


def test_a_page_goes_on_when_another_tab_has_logged_in_anew(
    visit: Visit, server: Server, new_key: Callable[..., tuple[str, str]]
) -> None:
    name, _ = new_key()
    page = visit.admin(f"keys/{name}")
    expect(page.get_by_role("button", name="Disable")).to_be_visible()
    visit.context.clear_cookies()
    visit.admin()
    page.get_by_role("button", name="Disable").click()
    expect(page.get_by_role("button", name="Enable")).to_be_visible()
    visit.expect_refusals()
    assert server.admin("GET", f"/keys/{name}").json["status"] == "disabled"


def test_too_many_wrong_keys_have_to_wait(chromium: Browser, server: Server) -> None:
    # The last test here: from then on this address has to wait. A log-in counts by address, not by browser.
    with profile(chromium, server) as visit:
        page = visit.open("/admin/")
        for _ in range(11):
            log_in(page, "not-the-admin-key-at-all")
            expect(page.get_by_role("button", name="Log in")).to_be_enabled()
        expect(page.get_by_role("alert")).to_contain_text("Too many wrong admin keys")
        visit.expect_refusals()
