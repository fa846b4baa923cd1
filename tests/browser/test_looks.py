"""The pages for everybody: small screens, both schemes, keyboards, screen readers, figures for people."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.browser import axe_core
from tests.browser.conftest import Visit, profile
from tests.browser.test_safety import send, stream_of
from tests.support import history
from tests.support import server as servers
from tests.support.server import Server

#: How many rows the elements stand in.
MIDDLES = """all => new Set(all.map((e) => {
  const { top, height } = e.getBoundingClientRect();
  return Math.round(top + height / 2);
})).size"""
#: The fields whose placeholder or choice has no room; a browser draws an arrow of 20 pixels into one with a list.
CUT = """all => {
  const pen = document.createElement("canvas").getContext("2d");
  return all.map((e) => {
    const style = getComputedStyle(e);
    pen.font = style.font;
    const text = e.selectedOptions ? e.selectedOptions[0].textContent : e.placeholder;
    const room = e.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    return [text, room - pen.measureText(text).width - (e.list ? 20 : 0)];
  }).filter(([, left]) => left < 0);
}"""
SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 360, "height": 740}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with three months of a team's use behind it."""
    folder = tmp_path_factory.mktemp("looks")
    history.write(folder / "data", history.TEAM, days=90, lines=3000)
    with servers.running(folder, demo=True) as running:
        yield running


def settled(page: Page) -> None:
    """Wait until nothing is loading any more."""
    expect(page.get_by_role("heading", level=1)).to_have_count(1)
    expect(page.locator(".skeleton")).to_have_count(0)


def too_wide(page: Page) -> list[str]:
    """What makes a page scroll sideways; tables and code scroll in boxes of their own."""
    return page.evaluate(
        """() => document.documentElement.scrollWidth <= innerWidth ? [] :
          [...document.querySelectorAll("main *")].filter((e) => e.getBoundingClientRect().right > innerWidth + 1)
            .map((e) => `${e.tagName}.${e.className}`)"""
    )


def test_the_keyboard_alone_logs_in_makes_a_key_and_finds_the_focus_again(visit: Visit) -> None:
    page = visit.open("/admin/")
    expect(page.get_by_label("Admin key")).to_be_focused()
    page.keyboard.type(servers.ADMIN_KEY)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    page.get_by_role("link", name="Keys", exact=True).focus()
    page.keyboard.press("Enter")
    # The new page's title is what is read out, and where Tab goes on.
    expect(page.get_by_role("heading", name="Keys", level=1)).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="New key")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    expect(page.get_by_label("Name", exact=True)).to_be_focused()
    page.keyboard.type("by-keyboard")
    page.keyboard.press("Enter")
    expect(page.locator("#new-key")).to_be_visible()
    page.get_by_role("button", name="I have copied the key").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="by-keyboard")).to_be_focused()


def test_on_a_phone_the_link_of_the_page_that_is_shown_can_be_seen(chromium: Browser, server: Server) -> None:
    with profile(chromium, server, viewport=SIZES["phone"]) as visit:
        page = visit.admin()
        for view in ("audit", "credentials", "logs", ""):
            visit.go(page, view)
            link = page.locator(".nav-link[aria-current]")
            expect(link).to_have_attribute("href", f"#/{view}")
            expect(link).to_be_in_viewport(ratio=1)


def assert_no_sideways_scroll(visit: Visit, page: Page, views: tuple[str, ...]) -> None:
    """On a tablet, and on a phone on its side."""
    for view in views:
        visit.go(page, view)
        settled(page)
        for width in (1024, 844, 768, 700):
            page.set_viewport_size({"width": width, "height": 600})
            # Charts are drawn anew.
            page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
            assert (view, width, too_wide(page)) == (view, width, [])


def test_nothing_scrolls_sideways_on_a_tablet_or_a_phone_on_its_side(visit: Visit) -> None:
    admin = ("", "usage", "keys", "keys/design-team", "credentials", "live", "logs", "audit")
    assert_no_sideways_scroll(visit, visit.admin(), admin)
    assert_no_sideways_scroll(visit, visit.holder(history.TEAM[0].raw), ("", "usage"))


def test_what_stands_side_by_side_is_in_line_and_not_cut_off(visit: Visit) -> None:
    page = visit.admin("keys")
    settled(page)
    cut = "all => all.filter((e) => e.scrollWidth > e.clientWidth).map((e) => e.textContent)"
    expect(page.locator(".bar-label").first).to_be_visible()
    assert page.locator(".bar-label").evaluate_all(cut) == []
    visit.go(page, "usage?range=90")
    expect(page.locator("tr.total")).to_be_visible()
    left = "all => new Set(all.map((e) => Math.round(e.getBoundingClientRect().left))).size"
    assert page.locator("tr:not(.inner) .share-bar").evaluate_all(left) == 1
    visit.go(page, "logs")
    page.locator("tbody tr").first.get_by_role("button").click()
    expect(page.get_by_role("dialog").get_by_text("Asked by")).to_be_visible()
    # At this width and on a narrow phone.
    for size in SIZES.values():
        page.set_viewport_size(size)  # type: ignore[arg-type]
        assert page.locator(".dialog-foot .button").evaluate_all(MIDDLES) == 1


def test_what_is_read_in_the_log_and_its_filters_is_not_cut_off(visit: Visit) -> None:
    page = visit.admin("logs")
    settled(page)
    prompt = page.locator("td.prompt .truncate").first
    # More than thirty letters.
    assert prompt.evaluate("(e) => e.clientWidth") > 200
    page.get_by_label("Status").select_option("Not answered")
    assert page.locator(".filters :is(select, input:not([type=date]))").evaluate_all(CUT) == []


def test_the_name_of_the_usual_model_is_seen_whole_on_a_narrow_phone(chromium: Browser, server: Server) -> None:
    with profile(chromium, server, viewport=SIZES["phone"]) as visit:
        page = visit.holder(history.TEAM[0].raw)
        expect(page.get_by_role("button", name="Compare")).to_be_visible()
        model = page.get_by_label("Model", exact=True)
        expect(model).to_have_attribute("placeholder", "claude-sonnet-5-5")
        assert model.evaluate_all(CUT) == []


def test_the_first_tab_leads_past_the_navigation(visit: Visit) -> None:
    page = visit.admin("keys")
    page.reload()
    settled(page)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    expect(page.get_by_role("heading", name="Keys", level=1)).to_be_visible()


def test_nothing_moves_when_figures_are_refreshed(visit: Visit, server: Server) -> None:
    visit.context.clock.install()
    page = visit.admin()
    settled(page)
    for chart in page.locator(".chart").all():
        expect(chart.locator("svg")).to_be_visible()
    places = "() => [...document.querySelectorAll('main .card, main h2')].map((e) => e.getBoundingClientRect().top)"
    before = page.evaluate(places)
    requests = page.locator(".tile-value").nth(1)
    shown = requests.inner_text()
    for person in history.TEAM[:3]:
        server.call("POST", "/generate", {"userPrompt": "more"}, key=person.raw)
    page.clock.run_for(6000)
    expect(requests).not_to_have_text(shown)
    assert page.evaluate(places) == before


def test_charts_can_be_read_without_seeing_them(visit: Visit) -> None:
    page = visit.admin()
    settled(page)
    chart = page.get_by_role("img", name="Cost per day and key over 30 days")
    expect(chart).to_be_visible()
    page.get_by_text("Show as a table").first.click()
    table = page.locator("details[open] table")
    expect(table.get_by_role("row")).to_have_count(32)
    expect(table.get_by_role("rowheader", name="Total")).to_be_visible()
    expect(table.get_by_role("columnheader", name="design-team")).to_be_visible()
    page.get_by_role("button", name="90 days").click()
    expect(table.get_by_role("row")).to_have_count(92)
    expect(page.get_by_role("img", name="Cost per day and key over 90 days")).to_be_visible()


def test_the_pointer_on_a_chart_shows_the_figures_of_that_day(visit: Visit) -> None:
    page = visit.admin()
    settled(page)
    card = page.locator(".card").filter(has=page.get_by_role("heading", name="Cost per day"))
    expect(card.locator(".legend li").first).to_be_visible()
    card.locator(".chart svg").hover(position={"x": 500, "y": 60})
    tip = card.locator(".chart-tip")
    expect(tip).to_contain_text("Total $")
    expect(tip).to_contain_text("design-team")


def test_a_dashboard_without_any_keys_says_how_to_begin(
    chromium: Browser, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with servers.running(tmp_path_factory.mktemp("empty"), demo=True) as empty, profile(chromium, empty) as visit:
        page = visit.admin()
        expect(page.get_by_text("No key has a cap yet")).to_be_visible()
        expect(page.get_by_text("Nothing has happened that you should know of.")).to_be_visible()
        visit.go(page, "keys")
        expect(page.get_by_text("There are no keys yet")).to_be_visible()
        visit.go(page, "logs")
        expect(page.get_by_text("The log is empty")).to_be_visible()
        visit.go(page, "live")
        expect(page.get_by_text("Nothing is running")).to_be_visible()
        assert axe_core.findings(page) == []


def test_a_first_look_that_fails_says_so_and_can_be_tried_again(visit: Visit) -> None:
    page = visit.admin("live")
    settled(page)
    visit.context.route("**/admin/overview", lambda route: route.abort())
    visit.go(page, "")
    expect(page.get_by_role("alert")).to_contain_text("The bridge does not answer.")
    visit.context.unroute("**/admin/overview")
    page.get_by_role("button", name="Try again").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Providers")).to_be_visible()
    expect(page.get_by_role("heading", name="Overview", level=1)).to_be_focused()
    visit.expect_refusals()


# --- figures, money and times ------------------------------------------------------------------------

FORMATS: list[tuple[str, Any]] = [
    ("money(0)", "US$0.00"),
    ("money(0.0004)", "<US$0.01"),
    ("money(1234.5)", "US$1,234.50"),
    ("cost(0.000732)", "US$0.0007"),
    ("cost(0.00001)", "<US$0.0001"),
    ("cost(12.3456)", "US$12.35"),
    ("count(1234567)", "1,234,567"),
    ("compact(99999)", "99,999"),
    ("plural(1, 'request')", "1 request"),
    ("plural(2, 'request')", "2 requests"),
    ("percent(0.1234)", "12.3%"),
    ("duration(494)", "494 ms"),
    ("duration(1234)", "1.2 s"),
    ("duration(59999)", "1 min 0 s"),
    ("duration(185000)", "3 min 5 s"),
    ("duration(3725000)", "1 h 2 min"),
    ("day('2026-11-21')", "21 Nov"),
    ("when('2019-01-01T00:30:00Z')", "1 Jan 2019, 01:30"),
    ("whenFull('2026-07-01T12:00:00Z')", "Wednesday, 1 July 2026 at 14:00:00 CEST"),
    ("ago('2026-01-01T00:00:00Z', Date.parse('2026-01-01T00:00:20Z'))", "just now"),
    ("ago('2026-01-01T00:00:00Z', Date.parse('2026-01-01T00:03:10Z'))", "3 min ago"),
    ("ago('2026-01-01T13:00:00Z', Date.parse('2026-01-01T00:00:00Z'))", "in 13 hr"),
    ("ago('2026-01-11T00:00:00Z', Date.parse('2026-01-01T00:00:00Z'))", "in 10 days"),
    ("visible('a\\u001b[1m\\u202eb\\u0000\\u007f')", "a␛[1m⟨202E⟩b␀␡"),
    ("visible('line\\n\\ttab')", "line\n\ttab"),
]


@pytest.fixture(scope="module")
def formats(chromium: Browser, server: Server) -> Iterator[Page]:
    with profile(chromium, server) as visit:
        page = visit.open("/")
        page.evaluate(
            "import(document.querySelector('[href$=\"lib/format.js\"]').href).then((all) => { window.formats = all; })"
        )
        yield page


@pytest.mark.parametrize(("expression", "shown"), FORMATS)
def test_figures_are_written_for_people(formats: Page, expression: str, shown: str) -> None:
    # Digits and words; which spaces are used between them is up to the browser's tables.
    given = formats.evaluate(f"window.formats.{expression.replace('count', 'count', 1)}")
    assert " ".join(given.replace("US$", "$").split(" ")).replace("\u202f", " ") == shown.replace("US$", "$")


# --- a device or a server that is not as the page expects ------------------------------------------------------------


@pytest.mark.parametrize("days", [-3, 400])
def test_a_device_whose_clock_is_wrong_goes_by_the_clock_of_the_server(visit: Visit, server: Server, days: int) -> None:
    secret = server.new_key(f"by-its-clock{days}")
    server.call("POST", "/generate", {"userPrompt": "x"}, key=secret)
    visit.context.clock.install(time=datetime.now(UTC) + timedelta(days=days))
    page = visit.admin("usage?range=today")
    expect(page.locator("tbody")).to_contain_text(f"by-its-clock{days}")
    visit.go(page, "keys")
    expect(page.get_by_role("row").filter(has_text=f"by-its-clock{days}")).to_contain_text("just now")
    page.get_by_role("button", name="New key").click()
    page.get_by_label("Name", exact=True).fill(f"ends-in-a-day{days}")
    page.get_by_label("Expires", exact=True).select_option("In a day")
    page.get_by_role("button", name="Make the key").click()
    page.get_by_role("button", name="I have copied the key").click()
    expires = datetime.fromisoformat(server.admin("GET", f"/keys/ends-in-a-day{days}").json["expiresAt"])
    assert timedelta(hours=23) < expires - datetime.now(UTC) < timedelta(hours=25)


@pytest.mark.parametrize(
    ("path", "lacks", "view"),
    [("/admin/runs", "runs", "live"), ("/admin/overview", "capacity", ""), ("/admin/logs?*", "sums", "logs")],
)
def test_a_server_of_another_version_is_told_in_words(visit: Visit, path: str, lacks: str, view: str) -> None:
    def older(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json={name: value for name, value in answer.json().items() if name != lacks})

    page = visit.admin("keys")
    visit.context.route(f"**{path}", older)
    visit.go(page, view)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("This page does not understand the bridge's answer.")
    expect(alert).to_contain_text("Reload the page: the bridge may be of another version now.")
    page.close()
    assert any("undefined" in text for text in visit.complaints)
    visit.complaints.clear()


def test_a_key_at_a_server_of_another_version_is_not_lost(visit: Visit, server: Server) -> None:
    def older(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json={name: value for name, value in answer.json().items() if name != "models"})

    visit.context.route("**/me", older)
    page = visit.open("/")
    page.get_by_label("Your key").fill(history.TEAM[0].raw)
    page.keyboard.press("Enter")
    expect(page.get_by_text("This page does not understand the bridge's answer. Reload the page")).to_be_visible()
    visit.context.unroute("**/me")
    page.reload()
    expect(page.get_by_label("Prompt", exact=True)).to_be_visible()
    page.close()
    visit.complaints.clear()


def test_an_answer_of_another_version_is_an_error_and_what_came_stays(visit: Visit, server: Server) -> None:
    page = visit.holder(history.TEAM[0].raw)
    done = {"id": "run_1", "content": [{"type": "text", "text": "all of it"}]}
    body = stream_of(("start", {"id": "run_1"}), ("delta", {"text": "all of it"}), ("done", done))
    page.route("**/generate", lambda route: route.fulfill(status=200, content_type="text/event-stream", body=body))
    send(page, "x")
    expect(page.get_by_role("alert")).to_contain_text("This page does not understand the bridge's answer.")
    expect(page.get_by_role("region", name="Answer", exact=True)).to_have_text("all of it")
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_enabled()
    page.close()
    visit.complaints.clear()
