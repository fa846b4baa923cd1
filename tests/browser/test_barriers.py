"""No barriers in any state of the pages, in no scheme, at no width, and nothing that scrolls sideways."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser import axe_core
from tests.browser.conftest import Visit, profile
from tests.browser.test_looks import settled, too_wide
from tests.browser.test_safety import answering
from tests.support import history
from tests.support import server as servers
from tests.support.server import Server

WIDTHS = (1280, 390, 320)
SCHEMES: dict[str, dict[str, str]] = {
    "light": {"color_scheme": "light", "forced_colors": "none"},
    "dark": {"color_scheme": "dark", "forced_colors": "none"},
    "forced colours": {"color_scheme": "dark", "forced_colors": "active"},
}
MARKDOWN = (
    "# Title\n\n- one\n- **two**\n\n| a | b |\n| - | -: |\n| `c` | [d](https://a.example) |\n\n```js\nlet a;\n```\n"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with three months of a team's use behind it."""
    folder = tmp_path_factory.mktemp("barriers")
    history.write(folder / "data", history.TEAM, days=90, lines=1500)
    with servers.running(folder, demo=True) as running:
        yield running


@pytest.fixture(scope="module")
def tab(chromium: Browser, server: Server) -> Iterator[Visit]:
    """One profile for all states: somebody is logged in, and has a key."""
    with profile(chromium, server, reduced_motion="reduce") as visit:
        yield visit


@pytest.fixture(scope="module")
def admin(tab: Visit) -> Page:
    return tab.admin()


@pytest.fixture(scope="module")
def holder(tab: Visit) -> Page:
    return tab.holder(history.TEAM[0].raw)


def assert_no_barriers(page: Page) -> None:
    """As the page is now, in each scheme, at each width."""
    found: dict[str, list[str]] = {}
    for width, (name, media) in product(WIDTHS, SCHEMES.items()):
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(reduced_motion="reduce", **media)  # type: ignore[arg-type]
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        if problems := axe_core.findings(page) + too_wide(page):
            found[f"{width} {name}"] = problems
    page.set_viewport_size({"width": 1280, "height": 900})
    assert found == {}


def first_row(page: Page) -> None:
    page.locator("tbody tr").first.get_by_role("button").first.click()
    expect(page.get_by_role("dialog")).to_be_visible()


def opened_share(page: Page) -> None:
    page.locator("button.expand").first.click()
    expect(page.locator("tr.inner").first).to_be_visible()


def new_key(page: Page) -> None:
    page.get_by_role("button", name="New key").click()
    page.get_by_label("Only these models").fill("claude-sonet-5-5, gpt")
    expect(page.get_by_text("perhaps?")).to_be_visible()


def with_tables(page: Page) -> None:
    page.locator("details.figures").evaluate_all("all => all.forEach((each) => (each.open = true))")


#: States of the dashboard: the view, and what is done there.
DASHBOARD: dict[str, tuple[str, Callable[[Page], None] | None]] = {
    "overview": ("", None),
    "overview with tables": ("", with_tables),
    "usage by key": ("usage?by=key&range=30", opened_share),
    "usage by model, from to": ("usage?by=model&range=days", opened_share),
    "keys": ("keys", None),
    "a key": ("keys/design-team", None),
    "a new key": ("keys", new_key),
    "credentials": ("credentials", None),
    "first steps": ("start", None),
    "live": ("live", None),
    "log": ("logs?status=error", None),
    "a line of the log": ("logs?status=error", first_row),
    "audit": ("audit", None),
}


@pytest.mark.parametrize("state", DASHBOARD)
def test_the_dashboard_has_no_barriers(tab: Visit, admin: Page, state: str) -> None:
    view, step = DASHBOARD[state]
    tab.go(admin, view)
    settled(admin)
    if step:
        step(admin)
    assert_no_barriers(admin)
    # A filled-in form is left at the second time.
    for _ in range(2):
        admin.keyboard.press("Escape")


@pytest.mark.parametrize("path", ["/admin/", "/"])
def test_what_asks_for_a_key_has_no_barriers(chromium: Browser, server: Server, path: str) -> None:
    with profile(chromium, server, reduced_motion="reduce") as visit:
        page = visit.open(path)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        assert_no_barriers(page)


def test_the_playground_has_no_barriers(holder: Page) -> None:
    holder.get_by_text("System prompt, length, schema, tools").click()
    answering(holder, MARKDOWN)
    for text in ("Begin", "Once more"):
        holder.get_by_label("Prompt", exact=True).fill(text)
        holder.get_by_role("button", name="Send", exact=True).click()
        expect(holder.get_by_text("Done", exact=True)).to_be_visible()
    holder.get_by_label("Go on", exact=True).fill("Further")
    holder.get_by_role("button", name="Reply", exact=True).click()
    expect(holder.locator(".turn")).to_have_count(2)
    expect(holder.get_by_text("Done", exact=True)).to_be_visible()
    holder.get_by_role("button", name="Formatted").click()
    expect(holder.locator(".formatted table").last).to_be_visible()
    holder.get_by_text("Last prompts (2)").click()
    assert_no_barriers(holder)


def test_answers_side_by_side_have_no_barriers(holder: Page) -> None:
    holder.get_by_label("Prompt", exact=True).fill("Which is best?")
    for _ in range(2):
        holder.get_by_role("button", name="Compare", exact=True).click()
    holder.get_by_role("button", name="Send", exact=True).click()
    expect(holder.get_by_role("button", name="Use this one")).to_have_count(3)
    assert_no_barriers(holder)


def test_ones_own_usage_has_no_barriers(holder: Page) -> None:
    holder.get_by_role("link", name="My usage").click()
    settled(holder)
    assert_no_barriers(holder)
    holder.get_by_role("table", name="Your last requests").get_by_role("button").first.click()
    expect(holder.get_by_role("dialog")).to_be_visible()
    assert_no_barriers(holder)
