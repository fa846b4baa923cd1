"""Live: what runs is seen while it runs, and stopped with one click."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser import axe_core
from tests.browser.conftest import Visit, profile
from tests.standin import StandIn
from tests.support import server as servers
from tests.support.server import Answer, Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two runs at a time, at a pace at which one can watch them."""
    pace = {"DEMO_PACE_SECONDS": "3", "BRIDGE_MAX_CONCURRENT": "2"}
    with servers.running(tmp_path_factory.mktemp("live"), pace, demo=True) as running:
        yield running


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def ask(server: Server, key: str) -> Answer:
    return server.call("POST", "/generate", {"userPrompt": "x"}, key=key)


def stop(page: Page, name: str) -> None:
    """By key: a click is ignored while rows have just moved, as they do when one that has ended goes."""
    page.get_by_role("button", name=f"Stop the request of {name}").press("Enter")


def test_nothing_running_says_so(visit: Visit) -> None:
    page = visit.admin("live")
    expect(page.get_by_text("Nothing is running")).to_be_visible()


def test_runs_appear_by_themselves_with_what_they_use_and_stop_with_one_click(
    visit: Visit, server: Server, pool: ThreadPoolExecutor
) -> None:
    page = visit.admin("live")
    expect(page.get_by_text("Nothing is running")).to_be_visible()
    first = pool.submit(ask, server, server.new_key("runs-first"))
    row = page.get_by_role("row").filter(has_text="runs-first")
    expect(row).to_contain_text("running")
    expect(row).to_contain_text("claude-sonnet-5-5 (claude)")
    expect(row.get_by_role("cell").nth(4)).not_to_have_text("0")
    expect(row.get_by_role("cell").nth(5)).not_to_have_text("$0.00")

    second = pool.submit(ask, server, server.new_key("runs-second"))
    expect(page.get_by_role("row").filter(has_text="runs-second")).to_contain_text("running")
    third = pool.submit(ask, server, server.new_key("runs-third"))
    expect(page.get_by_role("row").filter(has_text="runs-third")).to_contain_text("waiting, place 1")
    expect(page.get_by_text("2 running, 1 waiting")).to_be_visible()

    order = page.locator("tbody .key-name").all_inner_texts()
    page.get_by_role("button", name="Stop the request of runs-first").click()
    stopped = first.result(30)
    assert (stopped.status, stopped.json["code"]) == (403, "cancelled")
    expect(row).to_contain_text("ended")
    # It stays in its place for a moment: the button of another must not slip under the pointer.
    assert page.locator("tbody .key-name").all_inner_texts() == order
    expect(page.get_by_role("row").filter(has_text="runs-third")).to_contain_text("running")
    assert axe_core.findings(page) == []

    for name in ("runs-second", "runs-third"):
        stop(page, name)
    assert [each.result(30).status for each in (second, third)] == [403, 403]
    visit.go(page, "audit")
    expect(page.get_by_role("row").nth(1)).to_contain_text("stopped the request")
    expect(page.get_by_role("row").nth(1)).to_contain_text("dashboard")
    expect(page.get_by_role("row").nth(1)).to_contain_text(re.compile("of the key runs-(second|third)"))
    expect(page.get_by_role("row").nth(1)).not_to_contain_text("keyName")


def test_what_runs_stands_above_what_has_ended_unless_a_pointer_is_there(
    visit: Visit, server: Server, pool: ThreadPoolExecutor
) -> None:
    page = visit.admin("live")
    expect(page.get_by_text("Nothing is running")).to_be_visible()
    runs = [pool.submit(ask, server, server.new_key("ends-early"))]
    names = page.locator("tbody .key-name")
    expect(names).to_have_text(["ends-early"])
    runs.append(pool.submit(ask, server, server.new_key("goes-on")))
    expect(names).to_have_text(["ends-early", "goes-on"])
    page.mouse.move(2, 2)
    (first,) = [run for run in server.admin("GET", "/runs").json["runs"] if run["keyName"] == "ends-early"]
    server.admin("DELETE", f"/runs/{first['id']}")
    expect(names).to_have_text(["goes-on", "ends-early"])
    expect(page.locator("tbody tr").last).to_contain_text("ended")

    # With a pointer over the rows, nothing moves under it.
    page.locator("tbody tr").first.hover()
    runs.append(pool.submit(ask, server, server.new_key("comes-last")))
    expect(names).to_have_text(["goes-on", "ends-early", "comes-last"])
    for name in ("goes-on", "comes-last"):
        stop(page, name)
    for each in runs:
        each.result(30)


def test_what_runs_can_be_searched_by_what_was_asked(visit: Visit, server: Server, pool: ThreadPoolExecutor) -> None:
    def asks(name: str, prompt: str) -> None:
        server.call("POST", "/generate", {"userPrompt": prompt}, key=server.new_key(name))

    runs = [pool.submit(asks, "asks-a", "Haiku about tea"), pool.submit(asks, "asks-b", "Essay about coffee")]
    page = visit.admin("live")
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.filter(has_text="asks-a")).to_contain_text("Haiku about tea")
    page.get_by_label("Search what runs").fill("COFFEE")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("asks-b")
    page.get_by_label("Search what runs").fill("nothing")
    expect(page.get_by_text("Nothing that runs matches")).to_be_visible()
    page.get_by_label("Search what runs").fill("")
    for name in ("asks-a", "asks-b"):
        stop(page, name)
    for each in runs:
        each.result(30)


def test_what_has_ended_stands_in_the_log_by_when_it_began(
    visit: Visit, server: Server, pool: ThreadPoolExecutor
) -> None:
    page = visit.admin("live")
    runs = {}
    for name in ("began-first", "began-second"):
        runs[name] = pool.submit(ask, server, server.new_key(name))
        expect(page.get_by_role("row").filter(has_text=name)).to_contain_text("running")
    ids = {run["keyName"]: run["id"] for run in server.admin("GET", "/runs").json["runs"]}
    for name in ("began-second", "began-first"):
        server.admin("DELETE", f"/runs/{ids[name]}")
        runs[name].result(30)
    visit.go(page, "logs")
    shown = page.locator("tbody tr .key-name")
    expect(shown.first).to_have_text("began-second")
    assert shown.nth(1).text_content() == "began-first"


def test_what_waits_stands_in_the_order_of_its_places(visit: Visit, server: Server, pool: ThreadPoolExecutor) -> None:
    """Turns go round between keys: whoever has asked once is before the second wish of others."""
    first, second = server.new_key("waits-often"), server.new_key("waits-once")
    runs = [pool.submit(ask, server, first) for _ in range(4)]
    page = visit.admin("live")
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(4)
    runs.append(pool.submit(ask, server, second))
    expect(rows).to_have_count(5)
    expect(rows.locator(".badge.warn")).to_have_text([f"waiting, place {place}" for place in (1, 2, 3)])
    for each in server.admin("GET", "/runs").json["runs"]:
        server.admin("DELETE", f"/runs/{each['id']}")
    for each in runs:
        each.result(30)


def test_the_focus_stays_on_a_stop_button_while_the_list_changes(
    visit: Visit, server: Server, pool: ThreadPoolExecutor
) -> None:
    key = server.new_key("keeps-focus")
    running = pool.submit(ask, server, key)
    page = visit.admin("live")
    button = page.get_by_role("button", name="Stop the request of keeps-focus")
    button.focus()
    other = pool.submit(ask, server, server.new_key("comes-later"))
    expect(page.get_by_role("row").filter(has_text="comes-later")).to_be_visible()
    expect(button).to_be_focused()
    page.keyboard.press("Enter")
    assert running.result(30).json["code"] == "cancelled"
    stop(page, "comes-later")
    other.result(30)


def test_the_overview_counts_what_runs_and_what_it_holds(
    visit: Visit, server: Server, pool: ThreadPoolExecutor
) -> None:
    running = pool.submit(ask, server, server.new_key("is-counted"))
    page = visit.admin("live")
    expect(page.get_by_role("row").filter(has_text="is-counted")).to_be_visible()
    visit.go(page, "")
    expect(page.get_by_text("1 running, 0 waiting", exact=True)).to_be_visible()
    expect(page.get_by_text("1 running, 0 waiting, ")).to_be_visible()
    expect(page.get_by_text("reserved now")).to_be_visible()
    expect(page.get_by_text("Ready: 1 of 2 slots in use")).to_be_visible()
    visit.go(page, "live")
    stop(page, "is-counted")
    running.result(30)


def test_the_page_of_a_key_has_a_bar_for_what_it_runs_now(
    visit: Visit, server: Server, pool: ThreadPoolExecutor
) -> None:
    running = pool.submit(ask, server, server.new_key("has-a-bar", maxConcurrent=2))
    page = visit.admin("keys/has-a-bar")
    meter = page.get_by_role("meter", name="Running now")
    expect(meter).to_have_attribute("aria-valuetext", "1 used, 0 reserved, 1 left of 2 (50%)")
    expect(page.get_by_text("Those that wait for a slot count, too")).to_be_visible()
    expect(page.get_by_text("This key has no cap per day or month.")).to_be_visible()
    visit.go(page, "live")
    stop(page, "has-a-bar")
    running.result(30)
    visit.go(page, "keys/has-a-bar")
    expect(meter).to_have_attribute("aria-valuenow", "0")
    server.admin("PATCH", "/keys/has-a-bar", {"maxConcurrent": 0})
    expect(meter).to_have_count(0)


def test_the_error_rate_is_that_of_the_day_and_of_the_month(
    visit: Visit, server: Server, pool: ThreadPoolExecutor
) -> None:
    running = pool.submit(ask, server, server.new_key("is-stopped"))
    page = visit.admin("live")
    stop(page, "is-stopped")
    running.result(30)
    visit.go(page, "")
    month = server.admin("GET", "/overview").json["totals"]["thisMonth"]
    assert month["errors"] > 0
    tile = page.locator(".tile").filter(has_text="Error rate")
    expect(tile).to_contain_text(re.compile(r"failed in 24 h, and \d+ refused"))
    expect(tile).to_contain_text(re.compile(r"[\d.]+% this month, stopped ones included"))


def test_a_hidden_tab_asks_nothing_and_goes_on_when_it_is_seen_again(visit: Visit) -> None:
    visit.context.clock.install()
    page = visit.admin("live")
    expect(page.get_by_text("Nothing is running")).to_be_visible()
    page.evaluate("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.clock.run_for(60_000)
    assert asked == []
    with page.expect_request("**/admin/runs"):
        page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")


def test_a_session_that_only_watches_is_marked_as_such(visit: Visit) -> None:
    page = visit.admin("live")
    with page.expect_request("**/admin/runs") as caught:
        pass
    assert caught.value.headers["x-bridge-background"] == "1"


def test_a_server_that_does_not_answer_is_noted_without_moving_anything(
    chromium: Browser, server: Server, pool: ThreadPoolExecutor
) -> None:
    with profile(chromium, server) as visit:
        running = pool.submit(ask, server, server.new_key("stays-put"))
        page = visit.admin("live")
        row = page.get_by_role("row").filter(has_text="stays-put")
        expect(row).to_be_visible()
        before = row.bounding_box()
        visit.context.set_offline(True)
        expect(page.get_by_text("The bridge does not answer. Trying again.")).to_be_visible()
        assert row.bounding_box() == before
        visit.context.set_offline(False)
        expect(page.get_by_text("The bridge does not answer.")).to_be_hidden(timeout=20_000)
        stop(page, "stays-put")
        running.result(30)
        visit.expect_refusals()


def test_a_run_says_with_which_credential_it_goes_and_is_found_by_that(
    chromium: Browser, tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    env = {"DEMO_GATED": "1", "BRIDGE_ROUTING": "fill-first"}
    with StandIn() as standin, ExitStack() as stack:
        env["ANTHROPIC_BASE_URL"] = standin.url
        server = stack.enter_context(servers.running(tmp_path, env, demo=True))
        for name, priority in (("first", 1), ("second", 0)):
            body = {"name": name, "provider": "claude", "apiKey": f"sk-of-the-{name}", "priority": priority}
            assert server.admin("POST", "/credentials", body).status == 201
        standin.script_key("sk-of-the-first", status=429)
        standin.script_key("sk-of-the-second", mode="hang_mid", after=1)
        page = stack.enter_context(profile(chromium, server)).admin("live")
        asked = pool.submit(ask, server, server.new_key("goes-on"))
        expect(page.get_by_role("row").filter(has_text="goes-on")).to_contain_text("with second")
        search = page.get_by_label("Search what runs")
        search.fill("first")
        expect(page.get_by_text("Nothing that runs matches")).to_be_visible()
        search.fill("SECOND")
        stop(page, "goes-on")
        assert asked.result(30).status == 403
