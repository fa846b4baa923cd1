"""Pictures of every page, with made-up data: `.venv/bin/python -m docs.screenshots.make`, in the checkout.

Each page at 1280 and 360 pixels, light and dark. Needs what `./run test` installs; Debian's package fonts-inter
makes them look as on a computer with good fonts.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from bridge.cli.screen import TopApp
from bridge.errors import BridgeError
from tests.browser.conftest import CHROMIUM, Visit, flags, profile
from tests.support import history
from tests.support import server as servers
from tests.support.server import Server

FOLDER = Path(__file__).parent
WIDTHS, SCHEMES = (1280, 360), ("light", "dark")
#: Tallest picture, in pixels: what is below repeats itself.
TALLEST = {1280: 1700, 360: 1500}
FONTS = """<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig>
<include ignore_missing="yes">/etc/fonts/fonts.conf</include>{families}</fontconfig>"""
FAMILY = """<match target="pattern"><test name="family"><string>{name}</string></test>
<edit name="family" mode="assign" binding="strong"><string>Inter</string></edit></match>"""
PROMPT = "Three friendlier variants of this error message: Invalid input in field 7"


def picture(page: Page, name: str, width: int, scheme: str, *, whole: bool = True) -> None:
    """Save what a page shows; `whole`: as tall as it is."""
    size = {"width": width, "height": 900 if width > 500 else 740}
    if whole:
        page.set_viewport_size(size)
        height: int = page.evaluate("document.documentElement.scrollHeight")
        size["height"] = max(size["height"], min(height, TALLEST[width]))
    page.set_viewport_size(size)
    page.wait_for_timeout(400)  # charts are drawn anew
    save(page.screenshot(animations="disabled", caret="hide"), f"{name}-{width}-{scheme}")


def save(raw: bytes, name: str) -> None:
    """Save a picture."""
    # 256 colours are a third of the size of all of them, and nobody sees it.
    method, dither = Image.Quantize.MAXCOVERAGE, Image.Dither.NONE
    image = Image.open(io.BytesIO(raw)).convert("RGB").quantize(256, method=method, kmeans=2, dither=dither)
    image.save(FOLDER / f"{name}.png", optimize=True)


def admin_pages(visit: Visit, width: int, scheme: str) -> None:
    """All of the dashboard."""
    page = visit.open("/admin/")
    page.get_by_label("Admin key").wait_for()
    picture(page, "login", width, scheme, whole=False)
    page.close()
    page = visit.admin()
    for view, name in (
        ("", "overview"),
        ("usage", "spending"),
        ("keys", "keys"),
        ("keys/design-team", "key"),
        ("credentials", "credentials"),
        ("live", "live"),
        ("logs", "logs"),
        ("audit", "audit"),
    ):
        visit.go(page, view)
        page.locator("h1").wait_for()
        page.wait_for_timeout(1500)  # everything is there, and a second poll has come
        picture(page, name, width, scheme)
    visit.go(page, "logs?status=error")
    page.locator("tbody tr").first.get_by_role("button").click()
    page.get_by_text("Asked by").wait_for()
    picture(page, "request", width, scheme, whole=False)
    page.keyboard.press("Escape")
    visit.go(page, "keys")
    page.get_by_role("button", name="New key").click()
    page.get_by_label("Name").fill(f"onboarding-{width}-{scheme}")
    page.get_by_label("Start from").select_option(index=1)
    picture(page, "new-key", width, scheme, whole=False)
    page.get_by_role("button", name="Make the key").click()
    page.locator("#new-key").wait_for()
    picture(page, "key-made", width, scheme, whole=False)
    page.get_by_role("button", name="I have copied the key").click()
    page.get_by_role("heading", name="onboarding").wait_for()
    visit.server.admin("DELETE", f"/keys/onboarding-{width}-{scheme}")
    page.close()


def first_steps(chromium: Browser, folder: Path) -> None:
    """What the link leads to, on a bridge that nobody has set up."""
    for width in WIDTHS:
        for scheme in SCHEMES:
            size = {"width": width, "height": 900 if width > 500 else 740}
            empty = folder / f"{width}-{scheme}"
            empty.mkdir()
            with (
                servers.running(empty, demo=True) as server,
                profile(chromium, server, viewport=size, color_scheme=scheme) as visit,
            ):
                page = visit.admin("start")
                page.get_by_label("API key").wait_for()
                picture(page, "first-steps", width, scheme, whole=False)


def holder_pages(visit: Visit, width: int, scheme: str) -> None:
    """All of the playground."""
    visit.expect_refusals()  # an estimate of what a key near its cap cannot pay
    page = visit.open("/")
    page.get_by_label("Your key").wait_for()
    picture(page, "gate", width, scheme, whole=False)
    page.close()
    page = visit.holder(history.TEAM[1].raw)
    page.get_by_label("Prompt", exact=True).fill(PROMPT)
    page.get_by_role("button", name="Send").click()
    page.get_by_text("Done", exact=True).wait_for(timeout=60_000)
    picture(page, "playground", width, scheme)
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_role("button", name="Send", exact=True).click()
    page.get_by_role("button", name="Use this one").nth(1).wait_for(timeout=60_000)
    picture(page, "side-by-side", width, scheme)
    page.get_by_role("link", name="My usage").click()
    page.wait_for_timeout(1000)
    picture(page, "usage", width, scheme)
    page.close()


class Terminal:
    """What `cli-bridge top` asks, with an address that is nobody's."""

    address = "https://bridge.example.com"

    def __init__(self, server: Server) -> None:
        self._server = server

    def top(self, query: str = "") -> Any:
        """The answer of `GET /admin/top`. Raises BridgeError once the server is gone, which the screen outlives."""
        try:
            return self._server.admin("GET", f"/top{query}").json
        except OSError as gone:
            raise BridgeError("cli_unavailable", "The server is gone.") from gone


def terminal(server: Server, page: Page) -> None:
    """`cli-bridge top` as it looks in a large terminal."""

    async def draw() -> str:
        app = TopApp(lambda: Terminal(server), 1)  # type: ignore[arg-type,return-value]
        async with app.run_test(size=(150, 40)) as pilot:
            await pilot.pause(4)
            return app.export_screenshot(title="cli-bridge top")

    with ThreadPoolExecutor(1) as pool:
        svg = pool.submit(asyncio.run, draw()).result()
    # The picture names a font of another host, which nobody shall fetch.
    page.set_content(re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL))
    save(page.locator("svg").screenshot(), "top")


def set_the_scene(server: Server) -> None:
    """Caps that fit to what was used today, so that some are close; and entries for the audit."""
    shares = {"design-team": 0.93, "pm-prototypes": 0.4, "support-macros": 0.84, "qa-edge-cases": 0.45}
    for key in server.admin("GET", "/keys").json["keys"]:
        used, share = key["usage"]["today"]["costUsd"], shares.get(key["name"], 0.25)
        server.admin("PATCH", f"/keys/{key['name']}", {"maxCostPerDay": max(0.5, round(used / share, 1))})
    server.admin("POST", "/keys/release-notes/rotate", {"graceSeconds": 86400})
    for name, provider, more in (
        (
            "design-budget",
            "claude",
            {"limits": {"maxCostPerDay": 1, "maxCostPerMonth": 30}, "note": "cost centre 4711"},
        ),
        ("spare", "claude", {"group": "second organization", "priority": -1}),
        ("openai", "codex", {"limits": {"maxCostPerMonth": 80}}),
    ):
        body = {"name": name, "provider": provider, "apiKey": f"sk-ant-made-up-for-pictures-{name}", **more}
        server.admin("POST", "/credentials", body)
    server.admin("POST", "/credentials/spare/disable")
    server.admin("POST", "/keys", {"name": "intern-spring", "maxCostPerDay": 1})
    server.admin("DELETE", "/keys/intern-spring")


@contextmanager
def busy(server: Server) -> Iterator[None]:
    """Requests that run and wait for the length of a block."""
    stop = False

    def ask(number: int) -> None:
        time.sleep(0.7 * number)
        person = history.TEAM[number % 7]
        while not stop:
            path = "/generate-codex" if number % 3 == 2 else "/generate"
            answer = server.call("POST", path, {"userPrompt": history.PROMPTS[number]}, key=person.raw)
            time.sleep(0.1 if answer.status == 200 else 1)

    with ThreadPoolExecutor(6) as pool:
        for number in range(6):
            pool.submit(ask, number)
        try:
            time.sleep(3)
            yield
        finally:
            stop = True


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Chromium, with good fonts in the place of the system's where there are any."""
    families = "".join(FAMILY.format(name=name) for name in ("system-ui", "sans", "sans-serif"))
    (folder / "fonts.conf").write_text(FONTS.format(families=families))
    env = {**os.environ, "FONTCONFIG_FILE": str(folder / "fonts.conf")}
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=flags(), env=env)
        yield chromium
        chromium.close()


def main() -> None:
    """Make them all."""
    for old in FOLDER.glob("*.png"):
        old.unlink()
    pace = {"DEMO_PACE_SECONDS": "0.35", "BRIDGE_MAX_CONCURRENT": "4", "BRIDGE_TIMEZONE": "Europe/Berlin"}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        history.write(folder / "data", history.TEAM, days=90, lines=20_000)
        with servers.running(folder, pace, demo=True) as server, browser(folder) as chromium, busy(server):
            set_the_scene(server)
            # After some answers of today, which the terminal shows.
            time.sleep(20)
            terminal(server, chromium.new_page(viewport={"width": 1500, "height": 1000}))
            for width in WIDTHS:
                for scheme in SCHEMES:
                    size = {"width": width, "height": 900}
                    with profile(chromium, server, viewport=size, color_scheme=scheme) as visit:
                        admin_pages(visit, width, scheme)
                        holder_pages(visit, width, scheme)
        with browser(folder) as chromium:
            first_steps(chromium, folder)
    sizes = [path.stat().st_size for path in FOLDER.glob("*.png")]
    print(f"{len(sizes)} pictures, {sum(sizes) / 2**20:.1f} MiB together, {max(sizes) / 2**10:.0f} KiB at most")


if __name__ == "__main__":
    main()
