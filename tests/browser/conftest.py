"""Debian's Chromium, driven by playwright, on a real server with simulated CLIs."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from bridge.limits import rows
from tests.support.server import ADMIN_KEY, Server

CHROMIUM = "/usr/bin/chromium"
#: Nothing but the page: no first-run pages, no updates, no look-ups of other hosts.
FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
#: Longest that anything on a page may take, in milliseconds; far more than it does.
TIMEOUT_MS = 15_000

#: What Chromium notes of each answer that is an error.
REFUSED = "Failed to load resource"

expect.set_options(timeout=TIMEOUT_MS)
_numbers = itertools.count(1)


def flags() -> list[str]:
    """How the browser is started; root has no sandbox."""
    return [*FLAGS] if os.getuid() else [*FLAGS, "--no-sandbox"]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for all tests of a process; each test has a profile of its own in it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags())
        yield browser
        browser.close()


def count_rows_made(page: Page) -> Callable[[], int]:
    """From now on, how many rows of tables a page makes; what it returns says the number so far."""
    page.evaluate(
        """() => {
          const make = document.createElement.bind(document);
          window.made = [];
          document.createElement = (name) => (window.made.push(name), make(name));
        }"""
    )
    return lambda: int(page.evaluate("window.made.filter((name) => name === 'tr').length"))


def expect_every_limit(page: Page, *, running: bool = True) -> None:
    """The page shows each row of the table of limits: what adds up as a bar, everything else in words. `running`:
    whether the requests that run at once have a bar, too."""
    for row in rows():
        if row["window"] and (running or row["window"] != "reserved"):
            expect(page.get_by_role("meter", name=row["title"], exact=True)).to_have_count(1)
        else:
            expect(page.locator("main")).to_contain_text(row["label"])


@dataclass
class Visit:
    """A browser profile, and what its pages complained about."""

    context: BrowserContext
    server: Server
    complaints: list[str] = field(default_factory=list)
    refusals: bool = False

    @property
    def address(self) -> str:
        """The server's origin."""
        return f"http://127.0.0.1:{self.server.port}"

    def open(self, path: str) -> Page:
        """A page in a tab of its own."""
        page = self.context.new_page()
        page.set_default_timeout(TIMEOUT_MS)
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))
        # Violations of the content security policy go to the console, too; this says which rule it was.
        page.add_init_script(
            "addEventListener('securitypolicyviolation', (e) => console.error(e.violatedDirective, e.blockedURI))"
        )
        page.goto(self.address + path)
        return page

    def admin(self, view: str = "") -> Page:
        """The dashboard with somebody logged in."""
        page = self.open("/admin/")
        page.get_by_label("Admin key").fill(ADMIN_KEY)
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("link", name="Overview").wait_for()
        if view:
            self.go(page, view)
        return page

    def go(self, page: Page, view: str) -> None:
        """To another view of the dashboard, such as "keys/ada"."""
        page.evaluate("(hash) => { location.hash = hash; }", f"#/{view}")

    def holder(self, key: str) -> Page:
        """The playground with a key."""
        page = self.open("/")
        page.get_by_label("Your key").fill(key)
        page.get_by_role("button", name="Go on").click()
        page.get_by_role("link", name="My usage").wait_for()
        return page

    def expect_refusals(self) -> None:
        """Answers of 4xx are what is tested, up to the end of the test; the browser notes each of them on its
        console, some of them later: what a page asks by itself."""
        self.refusals = True
        self.complaints[:] = [text for text in self.complaints if REFUSED not in text]

    def _note(self, message: ConsoleMessage) -> None:
        if self.refusals and REFUSED in message.text:
            return
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text} {message.location['url']}")


@pytest.fixture
def visit(chromium: Browser, server: Server) -> Iterator[Visit]:
    """A fresh profile. At the end, nothing may have gone wrong on any of its pages."""
    with profile(chromium, server) as fresh:
        yield fresh


class profile:  # noqa: N801
    """A profile for the length of a block; its pages must not complain."""

    def __init__(self, chromium: Browser, server: Server, **options: object) -> None:
        given = {
            "viewport": {"width": 1280, "height": 900},
            "locale": "en-GB",
            "timezone_id": "Europe/Berlin",
            **options,
        }
        self._visit = Visit(chromium.new_context(**given), server)  # type: ignore[arg-type]

    def __enter__(self) -> Visit:
        return self._visit

    def __exit__(self, kind: object, *_: object) -> None:
        self._visit.context.close()
        if kind is None:
            assert self._visit.complaints == []


@pytest.fixture
def new_key(server: Server) -> Callable[..., tuple[str, str]]:
    """Makes keys with the given limits and otherwise none: (name, secret)."""

    def make(**limits: object) -> tuple[str, str]:
        name = f"key-{next(_numbers)}"
        return name, server.new_key(name, **limits)

    return make
