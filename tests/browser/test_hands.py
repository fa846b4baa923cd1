"""The dashboard by keyboard, by finger, on small screens, in strong contrast, and with many rows."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Route, expect

from tests.browser import axe_core
from tests.browser.conftest import Visit, count_rows_made, profile
from tests.browser.test_looks import settled
from tests.support import history
from tests.support import server as servers
from tests.support.history import Person
from tests.support.server import Server

MANY = 300
FINGER = {"has_touch": True, "is_mobile": True, "viewport": {"width": 390, "height": 780}}
FORCED = {"forced_colors": "active"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the keys of a team and three hundred others."""
    folder = tmp_path_factory.mktemp("hands")
    others = [Person(f"guest-{number:03}", {"maxCostPerDay": 5}, 0.01) for number in range(MANY)]
    history.write(folder / "data", [*history.TEAM, *others], days=90, lines=1500)
    with servers.running(folder, demo=True) as running:
        yield running


# --- keyboard ------------------------------------------------------------------------------------


def test_the_focus_is_never_on_nothing_after_an_action(visit: Visit, server: Server) -> None:
    page = visit.open("/admin/")
    expect(page.get_by_label("Admin key")).to_be_focused()
    page.keyboard.type(servers.ADMIN_KEY)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Overview", level=1)).to_be_focused()

    visit.go(page, "keys")
    toggle = page.get_by_role("button", name="Disable design-team")
    toggle.focus()
    page.keyboard.press("Enter")
    enable = page.get_by_role("button", name="Enable design-team")
    expect(enable).to_be_focused()
    page.get_by_role("button", name="Undo").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Disable design-team")).to_be_focused()

    more = page.get_by_role("button", name=re.compile("^Show 50 more keys"))
    more.focus()
    page.keyboard.press("Enter")
    expect(page.locator("tbody tr").nth(50).locator("a.key-name")).to_be_focused()

    visit.go(page, "keys/design-team")
    for name, then in (("Disable", "Enable"), ("Enable", "Disable")):
        page.get_by_role("button", name=name, exact=True).focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name=then, exact=True)).to_be_focused()

    visit.go(page, "audit")
    expect(page.locator("tbody tr").first).to_be_visible()
    refresh = page.get_by_role("button", name="Refresh")
    refresh.focus()
    with page.expect_response("**/admin/audit?*"):
        page.keyboard.press("Enter")
    # Until it has what it asked for, it takes no other press.
    expect(refresh).not_to_have_attribute("aria-disabled", "true")
    expect(refresh).to_be_focused()
    for number in range(60):
        server.admin("PATCH", "/keys/design-team", {"note": f"number {number}"})
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Show older").focus()
    page.keyboard.press("Enter")
    expect(page.locator("tbody tr").nth(50)).to_be_focused()


def test_dialogs_begin_at_their_first_field_and_give_the_focus_back(visit: Visit) -> None:
    page = visit.admin("keys/design-team")
    for name, first in (("Edit", "Note"), ("Rotate", "The old secret stops working")):
        button = page.get_by_role("button", name=name, exact=True)
        button.focus()
        page.keyboard.press("Enter")
        expect(page.get_by_label(first)).to_be_focused()
        page.keyboard.press("Escape")
        expect(button).to_be_focused()
    button = page.get_by_role("button", name="Revoke")
    button.focus()
    page.keyboard.press("Enter")
    # What cannot be taken back is not what Enter does.
    expect(page.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Enter")
    expect(button).to_be_focused()


def test_logging_out_everywhere_asks_first(visit: Visit) -> None:
    page = visit.admin()
    page.get_by_role("button", name="Log out everywhere").click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("heading", name="Overview", level=1)).to_be_visible()
    page.get_by_role("button", name="Log out everywhere").click()
    page.get_by_role("dialog").get_by_role("button", name="Log out everywhere").click()
    expect(page.get_by_text("Every session on every device is ended.")).to_be_visible()


# --- messages ------------------------------------------------------------------------------------


def test_a_revocation_takes_back_the_offer_to_undo(visit: Visit, server: Server) -> None:
    server.new_key("to-be-revoked")
    page = visit.admin("keys/to-be-revoked")
    page.get_by_role("button", name="Disable").click()
    expect(page.get_by_role("button", name="Undo")).to_be_visible()
    page.get_by_role("button", name="Revoke").click()
    page.get_by_role("button", name="Revoke the key").click()
    expect(page.get_by_text("to-be-revoked is revoked.")).to_be_visible()
    expect(page.get_by_role("button", name="Undo")).to_have_count(0)


def test_a_message_stays_under_the_pointer_and_is_there_once(visit: Visit, server: Server) -> None:
    visit.context.clock.install()
    page = visit.admin("keys")
    for name in ("Disable design-team", "Enable design-team"):
        page.get_by_role("button", name=name).click()
        expect(page.locator(".toast")).to_have_count(1)
    expect(page.locator(".toast")).to_contain_text("design-team is enabled")
    page.locator(".toast").hover()
    page.clock.run_for(20_000)
    expect(page.locator(".toast")).to_have_count(1)
    page.mouse.move(5, 5)
    page.clock.run_for(9_000)
    expect(page.locator(".toast")).to_have_count(0)


def test_a_bridge_that_is_away_is_not_called_ready(chromium: Browser, server: Server) -> None:
    with profile(chromium, server) as visit:
        page = visit.admin()
        expect(page.locator(".pill").first).to_contain_text("Ready")
        visit.context.set_offline(True)
        expect(page.get_by_text("Not known: the bridge does not answer")).to_be_visible()
        visit.context.set_offline(False)
        expect(page.locator(".page-head .pill")).to_contain_text("Ready", timeout=20_000)
        visit.expect_refusals()


# --- fingers and small screens -------------------------------------------------------------------


def test_a_finger_on_a_chart_shows_the_figures_until_it_is_somewhere_else(chromium: Browser, server: Server) -> None:
    with profile(chromium, server, **FINGER) as visit:
        page = visit.admin()
        settled(page)
        card = page.locator(".card").filter(has=page.get_by_role("heading", name="Cost per day"))
        expect(card.locator(".legend li").first).to_be_visible()
        card.scroll_into_view_if_needed()
        box = card.locator(".chart svg").bounding_box()
        assert box is not None
        page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + 60)
        tip = card.locator(".chart-tip")
        expect(tip).to_contain_text("Total $")
        page.wait_for_timeout(500)
        expect(tip).to_be_visible()
        page.get_by_role("heading", name="Overview").tap()
        expect(tip).to_be_hidden()


def test_the_figures_of_a_chart_can_be_read_on_a_phone(chromium: Browser, server: Server) -> None:
    with profile(chromium, server, **FINGER) as visit:
        page = visit.admin()
        settled(page)
        page.get_by_text("Show as a table").first.tap()
        figures = page.get_by_role("group", name="Figures of the chart").first
        top = "(e) => Math.round(e.getBoundingClientRect().top)"
        left = "(e) => Math.round(e.getBoundingClientRect().left)"
        head, day = figures.locator("thead th").nth(1), figures.locator("tbody th").first
        before = head.evaluate(top), day.evaluate(left)
        assert day.evaluate("(e) => e.clientHeight") < 40
        figures.evaluate("(e) => e.scrollTo(200, 200)")
        page.wait_for_function("(e) => e.scrollTop === 200 && e.scrollLeft === 200", arg=figures.element_handle())
        assert (head.evaluate(top), figures.locator("tbody th").first.evaluate(left)) == before


def test_a_message_with_a_button_fits_on_a_phone(chromium: Browser, server: Server) -> None:
    with profile(chromium, server, **FINGER) as visit:
        page = visit.admin("keys")
        page.get_by_role("button", name="Disable release-notes").tap()
        undo = page.get_by_role("button", name="Undo")
        box = undo.bounding_box()
        assert box is not None
        assert box["height"] < 40
        undo.tap()
        expect(page.get_by_role("button", name="Disable release-notes")).to_be_visible()
        for name in ("Playground", "API reference"):
            expect(page.get_by_role("link", name=name)).to_be_visible()


def test_every_view_of_the_dashboard_is_seen_in_the_navigation_of_a_phone(chromium: Browser, server: Server) -> None:
    with profile(chromium, server, **FINGER) as visit:
        page = visit.admin("audit")
        links = page.locator(".side nav a")
        expect(links.last).to_have_attribute("aria-current", "page")
        edges = links.evaluate_all("(all) => all.map((each) => each.getBoundingClientRect().right)")
        assert len(edges) == 7
        assert max(edges) <= 390


# --- contrast ------------------------------------------------------------------------------------


def test_which_choice_is_taken_is_seen_without_colours(chromium: Browser, server: Server) -> None:
    with profile(chromium, server, **FORCED) as visit:
        page = visit.admin("usage")
        pressed = page.get_by_role("button", name="7 days")
        expect(pressed).to_have_attribute("aria-pressed", "true")
        outlines = "(all) => all.map((each) => getComputedStyle(each).outlineStyle)"
        shown = page.locator(".segmented button").evaluate_all(outlines)
        assert shown.count("solid") == 2  # one for the days, one for what they are by
        share = page.locator(".share-bar > span").first
        colour = share.evaluate("(each) => getComputedStyle(each).backgroundColor")
        track = page.locator(".share-bar").first.evaluate("(each) => getComputedStyle(each).backgroundColor")
        assert colour != track
        visit.go(page, "")
        swatches = page.locator(".legend").first.locator(".swatch")
        expect(swatches.nth(1)).to_be_visible()
        colours = swatches.evaluate_all("(all) => all.map((each) => getComputedStyle(each).backgroundColor)")
        assert len(set(colours)) == len(colours) > 1


@pytest.mark.parametrize("width", [1280, 390])
def test_the_api_reference_has_no_barriers_and_leads_back(chromium: Browser, server: Server, width: int) -> None:
    with profile(chromium, server, viewport={"width": width, "height": 800}) as visit:
        page = visit.open("/docs")
        assert axe_core.findings(page) == []
        page.get_by_role("link", name="OneKey", exact=True).first.click()
        expect(page.get_by_role("heading", name="OneKey", exact=True)).to_be_visible()
        page.get_by_role("link", name="Playground").click()
        expect(page.get_by_label("Your key")).to_be_visible()


@pytest.mark.parametrize(("known", "said"), [(0, "not set up"), (1, "no usable credential")])
def test_a_provider_that_nobody_has_set_up_is_no_trouble(visit: Visit, known: int, said: str) -> None:
    def unpaid(route: Route) -> None:
        overview = route.fetch().json()
        codex = next(each for each in overview["providers"] if each["name"] == "codex")
        codex |= {"credentials": "api-key", "credentials_known": known, "credentials_open": 0, "available": False}
        codex |= {
            "problem": "No credential of OpenAI can be used now.",
            "hint": "'cli-bridge credentials list' says why.",
        }
        route.fulfill(json=overview)

    visit.context.route("**/admin/overview", unpaid)
    page = visit.admin()
    codex = page.locator(".provider").filter(has_text="Codex")
    expect(codex.locator(".badge")).to_have_text(said)
    expect(codex.get_by_role("alert")).to_have_count(known)
    expect(codex).not_to_contain_text("cli-bridge")
    expect(codex.get_by_role("link")).to_have_text("See why" if known else "Add an API key")


# --- the first day -------------------------------------------------------------------------------


def test_the_axes_of_a_first_day_say_something(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> None:
    with servers.running(tmp_path_factory.mktemp("first-day"), demo=True) as fresh, profile(chromium, fresh) as visit:
        key = fresh.new_key("first")
        for _ in range(3):
            fresh.call("POST", "/generate", {"userPrompt": "Hello"}, key=key)
        page = visit.admin()
        settled(page)
        card = page.locator(".card").filter(has=page.get_by_role("heading", name="Cost per day"))
        expect(card.locator(".chart-label").first).to_be_visible()
        labels = card.locator(".chart-label[text-anchor=end]").all_text_contents()
        assert labels[0].endswith("$0.00")
        assert len(labels) >= 2
        assert len(set(labels)) == len(labels)
        # What is counted has no halves, and each number stands where it belongs.
        pace = page.locator(".card").filter(has=page.get_by_role("heading", name="Requests per hour"))
        counted = pace.locator(".chart-label[text-anchor=end]")
        assert counted.all_text_contents() == [str(number) for number in range(counted.count())]
        # A line with one point is seen as one.
        expect(page.locator(".chart-line.alone").first).to_be_attached()


# --- many rows -----------------------------------------------------------------------------------


def test_three_hundred_keys_are_shown_in_parts_and_searched(chromium: Browser, server: Server) -> None:
    with profile(chromium, server, viewport={"width": 390, "height": 780}) as visit:
        page = visit.admin()
        settled(page)
        visit.go(page, "keys")
        expect(page.locator("tbody tr")).to_have_count(50)
        assert page.evaluate("document.documentElement.scrollHeight") < 20_000
        page.get_by_label("Search keys").press_sequentially("guest-27", delay=30)
        expect(page.locator("tbody tr")).to_have_count(10)
        expect(page.get_by_text("10 of")).to_be_visible()
        page.get_by_label("Search keys").fill("")
        expect(page.locator("tbody tr")).to_have_count(50)


def test_more_keys_come_without_making_anew_those_that_are_there(visit: Visit, server: Server) -> None:
    page = visit.admin("keys")
    rows = page.locator("tbody tr")
    more = page.get_by_role("button", name=re.compile("^Show 50 more keys"))
    more.click()
    expect(rows).to_have_count(100)
    rows_made = count_rows_made(page)
    more.click()
    expect(rows).to_have_count(150)
    name = rows.nth(120).locator(".key-name").inner_text()
    for note in ("one", "two"):
        server.admin("PATCH", f"/keys/{name}", {"note": note})
        expect(rows.nth(120)).to_contain_text(note)
    # Fifty that are new, the one that changed, and perhaps some that were used a minute longer ago.
    assert rows_made() < 100
