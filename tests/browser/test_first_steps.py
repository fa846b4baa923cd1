"""The first minute: a link, an API key, a key with a cap, and the first answer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from bridge.http.session import COOKIE
from tests.browser import axe_core
from tests.browser.conftest import Visit, profile
from tests.browser.test_looks import SIZES, too_wide
from tests.standin import StandIn
from tests.support import server as servers
from tests.support.server import ADMIN_KEY, Server

SECRET = "sk-ant-made-up-for-the-first-minute"


@pytest.fixture(scope="module")
def standin() -> Iterator[StandIn]:
    with StandIn() as running:
        yield running


@pytest.fixture
def fresh(tmp_path_factory: pytest.TempPathFactory, standin: StandIn) -> Iterator[Server]:
    """A server on its first day: no API key, and nobody has a key."""
    endpoints = {"ANTHROPIC_BASE_URL": standin.url, "OPENAI_BASE_URL": standin.openai_url}
    with servers.running(tmp_path_factory.mktemp("fresh"), endpoints, demo=True) as running:
        yield running


def link(server: Server) -> str:
    """A new link, as the command prints it; the path of it."""
    done = server.command("link")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().removeprefix(f"http://127.0.0.1:{server.port}")


def steps(page: Page) -> list[str | None]:
    return [step.get_attribute("data-state") for step in page.locator(".step").all()]


def barriers(page: Page) -> tuple[list[str], list[str]]:
    return axe_core.findings(page), too_wide(page)


@pytest.mark.parametrize(("size", "scheme"), [("desktop", "light"), ("phone", "dark")])
def test_a_link_leads_from_nothing_to_the_first_answer(
    chromium: Browser, fresh: Server, size: str, scheme: str
) -> None:
    with profile(chromium, fresh, viewport=SIZES[size], color_scheme=scheme, reduced_motion="reduce") as visit:
        path = link(fresh)
        token = path.rpartition("/")[2]
        page = visit.open(path)
        expect(page.get_by_role("heading", name="First steps", level=1)).to_be_visible()
        expect(page.get_by_label("API key")).to_be_focused()
        assert (steps(page), barriers(page)) == (["now", "later", "later"], ([], []))
        assert token not in page.evaluate("location.href + JSON.stringify(history.state) + document.referrer")

        page.keyboard.type(SECRET)
        page.keyboard.press("Enter")
        expect(page.get_by_label("Who is it for?")).to_be_focused()
        expect(page.locator(".step").first).to_contain_text("Anthropic: anthropic, ends with")
        assert (steps(page), barriers(page)) == (["done", "now", "later"], ([], []))

        page.keyboard.type("Ada Müller")
        page.get_by_label("Dollars a day, at most").fill("2")
        page.keyboard.press("Enter")
        key = page.locator("#new-key").inner_text()
        assert (steps(page), barriers(page)) == (["done", "done", "now"], ([], []))
        made = fresh.admin("GET", "/keys/Ada-Muller").json
        assert (made["limits"]["maxCostPerDay"], made["note"]) == (2, "Ada Müller")

        page.get_by_role("button", name="Open the playground").click()
        expect(page.get_by_label("Prompt", exact=True)).to_have_value("Say hello to Ada-Muller in one sentence.")
        assert barriers(page) == ([], [])
        assert key not in page.url
        page.get_by_role("button", name="Send").click()
        expect(page.get_by_text("Done", exact=True)).to_be_visible()
        expect(page.get_by_role("region", name="Answer", exact=True)).to_contain_text("Say hello to Ada-Muller")
        page.get_by_role("link", name="Back to the dashboard").click()
        expect(page.get_by_role("heading", name="Overview", level=1)).to_be_visible()
    (credential,) = fresh.admin("GET", "/credentials").json["credentials"]
    assert (credential["name"], credential["provider"], credential["state"]) == ("anthropic", "claude", "usable")


def test_a_link_that_was_used_says_so_and_the_admin_key_still_lets_in(chromium: Browser, fresh: Server) -> None:
    path = link(fresh)
    with profile(chromium, fresh) as first:
        expect(first.open(path).get_by_role("heading", name="First steps")).to_be_visible()
    with profile(chromium, fresh) as second:
        page = second.open(path)
        expect(page.get_by_role("alert")).to_contain_text("This link has been used; each one logs in once.")
        expect(page.get_by_role("alert")).to_contain_text("cli-bridge link")
        assert barriers(page) == ([], [])
        assert path.rpartition("/")[2] not in page.url
        page.get_by_label("Admin key").fill(ADMIN_KEY)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        second.expect_refusals()


def test_a_link_opened_where_the_dashboard_is_open_is_used_as_well(chromium: Browser, fresh: Server) -> None:
    path = link(fresh)
    with profile(chromium, fresh) as visit:
        page = visit.admin("keys")
        page.evaluate("(hash) => { location.hash = hash; }", path.partition("#")[2])
        expect(page.get_by_role("heading", name="First steps")).to_be_visible()
        (cookie,) = [each for each in visit.context.cookies(f"{visit.address}/admin/") if each["name"] == COOKIE]
        assert cookie["value"]
    assert fresh.call("POST", "/admin/session", key=path.rpartition("/")[2]).status == 401


def test_an_api_key_that_the_provider_refuses_can_be_pasted_again(chromium: Browser, fresh: Server) -> None:
    answers = [{"ok": False, "message": "Anthropic did not take it (401): invalid x-api-key", "status": 401}]

    def test(route: Route) -> None:
        if answers:
            route.fulfill(status=200, content_type="application/json", body=json.dumps(answers.pop()))
        else:
            route.continue_()

    with profile(chromium, fresh) as visit:
        page = visit.admin("start")
        page.route("**/admin/credentials/*/test*", test)
        page.get_by_label("API key").fill("sk-ant-typed-wrong")
        page.get_by_role("button", name="Save and test").click()
        expect(page.get_by_role("alert")).to_contain_text("Anthropic did not take it (401)")
        expect(page.get_by_label("API key")).to_be_focused()
        expect(page.get_by_role("button", name="Go on all the same")).to_be_visible()
        page.get_by_label("API key").fill(SECRET)
        page.get_by_role("button", name="Save and test").click()
        expect(page.get_by_label("Who is it for?")).to_be_visible()
    (credential,) = fresh.admin("GET", "/credentials").json["credentials"]
    assert credential["last4"] == SECRET[-4:]


def test_the_other_provider_can_be_chosen_after_a_first_try(chromium: Browser, fresh: Server) -> None:
    with profile(chromium, fresh) as visit:
        page = visit.admin("start")
        page.get_by_label("API key").fill("two words")
        page.get_by_role("button", name="Save and test").click()
        expect(page.get_by_role("alert")).to_contain_text("without spaces")
        visit.expect_refusals()
        page.get_by_role("button", name="OpenAI (Codex)").click()
        expect(page.get_by_text("where it begins with sk-.")).to_be_visible()
        page.get_by_label("API key").fill("sk-made-up-for-openai")
        page.get_by_role("button", name="Save and test").click()
        expect(page.get_by_label("Who is it for?")).to_be_visible()
    (credential,) = fresh.admin("GET", "/credentials").json["credentials"]
    assert (credential["name"], credential["provider"]) == ("openai", "codex")


def test_where_all_is_set_up_a_link_leads_to_the_overview(visit: Visit, server: Server) -> None:
    body = {"name": "there-already", "provider": "codex", "apiKey": "sk-there-already-0001"}
    assert server.admin("POST", "/credentials", body).status == 201
    server.new_key("somebody")
    page = visit.open(link(server))
    expect(page.get_by_role("heading", name="Overview", level=1)).to_be_visible()
    expect(page).to_have_url(re.compile(r"/admin/#/$"))


def test_a_reload_goes_on_where_it_was(chromium: Browser, fresh: Server) -> None:
    body = {"name": "mine", "provider": "claude", "apiKey": SECRET}
    assert fresh.admin("POST", "/credentials", body).status == 201
    with profile(chromium, fresh) as visit:
        page = visit.open(link(fresh))
        expect(page.get_by_label("Who is it for?")).to_be_visible()
        page.reload()
        expect(page.get_by_label("Who is it for?")).to_be_visible()
        assert steps(page) == ["done", "now", "later"]
