"""What the pages cost a browser: their first view, typing in a search, a long answer with its Markdown. One run.

    ./run bench pages [--rounds 7] [--json FILE]

In headless Chromium, on a server with 300 keys, 10,000 lines of the log and 50 requests that run. A task is what holds
up everything else on a page; the browser reports those of 50 ms and more.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Page, sync_playwright

from benchmarks import lab
from tests.browser.conftest import CHROMIUM, Visit, flags, profile
from tests.browser.test_markdown import LONG
from tests.browser.test_safety import answering, send
from tests.support import history
from tests.support import server as servers
from tests.support.server import Server

KEYS, LINES, RUNS = 300, 10_000, 50
WIDTHS = (1280, 390)
#: To reach, in milliseconds: from the address to the figures of the overview; the longest task while somebody types in
#: a search; the longest task of an answer of a hundred kilobytes, as text and formatted.
FIRST_VIEW_MS, SEARCH_MS, ANSWER_MS = 300, 100, 200
SLOW = {"DEMO_PACE_SECONDS": "30", "BRIDGE_MAX_CONCURRENT": str(RUNS), "DEMO_WARM": "4"}
WATCH = """
window.tasks = [];
new PerformanceObserver((list) => tasks.push(...list.getEntries().map((each) => each.duration)))
  .observe({ type: "longtask", buffered: true });
const look = () => {
  if (/\\d/.test(document.querySelector(".tile-value")?.textContent)) window.seenMs = performance.now();
  else requestAnimationFrame(look);
};
look();
"""


@contextmanager
def busy(server: Server, people: list[history.Person]) -> Iterator[None]:
    """As many requests as shall run."""
    with ThreadPoolExecutor(RUNS) as pool:
        for person in people[:RUNS]:
            pool.submit(server.call, "POST", "/generate", {"userPrompt": "x"}, key=person.raw, timeout_s=600)
        while len(server.admin("GET", "/runs").json["runs"]) < RUNS:
            time.sleep(0.1)
        try:
            yield
        finally:
            for run in server.admin("GET", "/runs").json["runs"]:
                server.admin("DELETE", f"/runs/{run['id']}")


def longest(page: Page) -> float:
    """The longest task since the last call, in milliseconds; 0 for none that the browser reports."""
    page.wait_for_timeout(500)
    found: float = page.evaluate("Math.max(0, ...window.tasks.splice(0))")
    return found


def first_views(page: Page, rounds: int) -> list[float]:
    """Milliseconds until the figures are there, of a browser that keeps the files."""
    found = []
    for _ in range(rounds):
        page.reload(wait_until="commit")
        page.wait_for_function("() => window.seenMs")
        found.append(page.evaluate("window.seenMs"))
        page.locator(".chart svg").first.wait_for()
    return found


def searches(visit: Visit, page: Page) -> Iterator[tuple[str, float]]:
    """What is searched, and the longest task while somebody types and deletes."""

    def typed(label: str, text: str) -> float:
        longest(page)
        page.get_by_label(label, exact=True).press_sequentially(text, delay=60)
        for _ in text:
            page.keyboard.press("Backspace", delay=60)
        return longest(page)

    for view, label, text in (("keys", "Search keys", "key-123"), ("live", "Search what runs", "key-02")):
        visit.go(page, view)
        page.locator("tbody tr").first.wait_for()
        yield view, typed(label, text)
    visit.go(page, "keys")
    page.locator("tbody tr").first.wait_for()
    while (more := page.get_by_role("button", name="more key")).count():
        more.click()
    yield f"keys, all {KEYS} shown", typed("Search keys", "key-123")


def answers(visit: Visit, key: str) -> Iterator[tuple[str, float]]:
    """What a hundred kilobytes are, and the longest task while they are shown in both ways."""
    page = visit.holder(key)
    for name in ("prose", "one line", "items", "rows", "a fence"):
        answering(page, LONG[name])
        longest(page)
        send(page, "x")
        page.get_by_text("Done", exact=True).wait_for()
        page.get_by_role("button", name="Formatted").click()
        page.locator(".answer-text[aria-busy=false]").wait_for()
        yield name, longest(page)
        page.get_by_role("button", name="Text", exact=True).click()


def measure(rounds: int) -> dict[str, Any]:
    """Run everything: {what: milliseconds} by width and by what is to be reached."""
    facts = lab.machine()
    limits = {"maxCostPerDay": 5, "maxCostPerMonth": 50}
    people = [history.Person(f"key-{number:03}", limits) for number in range(KEYS)]
    found: dict[str, dict[str, float]] = {"first view": {}, "search": {}, "answer": {}}
    with lab.folder() as folder, sync_playwright() as playwright:
        history.write(folder / "data", people, days=90, lines=LINES)
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=flags())
        with servers.running(folder, SLOW, demo=True) as server, busy(server, people):
            for width in WIDTHS:
                with profile(chromium, server, viewport={"width": width, "height": 800}) as visit:
                    visit.context.add_init_script(WATCH)
                    page = visit.admin()
                    views = lab.Figures.of("first view", first_views(page, rounds))
                    found["first view"][f"overview, {width} px"] = views.median
                    found["search"] |= {f"{name}, {width} px": ms for name, ms in searches(visit, page)}
                    page.close()
                    found["answer"] |= {f"{name}, {width} px": ms for name, ms in answers(visit, people[-1].raw)}
        chromium.close()
    return {"machine": facts, "figures": found}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    result = measure(options.rounds)
    targets = {"first view": FIRST_VIEW_MS, "search": SEARCH_MS, "answer": ANSWER_MS}
    rows = [
        [kind, name, f"{ms:.0f}", targets[kind], "yes" if ms <= targets[kind] else "NO"]
        for kind, figures in result["figures"].items()
        for name, ms in figures.items()
    ]
    print(lab.table(["what", "of", "ms (of tasks: the longest)", "at most", "reached"], rows), end="\n\n")
    print(f"{KEYS} keys, {LINES:,} log lines, {RUNS} runs; machine:", json.dumps(result["machine"]))
    lab.write_json(options.json, result)


if __name__ == "__main__":
    main()
