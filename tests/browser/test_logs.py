"""The request log and the audit: filters, pages, one line in full, exports."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from bridge.errors import CODES
from tests.browser.conftest import Visit, count_rows_made, profile
from tests.support import server as servers
from tests.support.server import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose log has 60 requests of two keys, on both providers, and a refused one."""
    with servers.running(tmp_path_factory.mktemp("logs"), demo=True) as running:
        ada, bob = running.new_key("ada"), running.new_key("bob", maxRequestsPerDay=1)
        for number in range(58):
            running.call("POST", "/generate", {"userPrompt": f"prompt number {number}"}, key=ada)
        body = {"userPrompt": "a needle in the hay", "systemPrompt": "system text", "model": "gpt-6-sol"}
        running.call("POST", "/generate-codex", body, key=bob)
        running.call("POST", "/generate", {"userPrompt": "one too many"}, key=bob)
        yield running


def rows(page: Page) -> list[str]:
    return page.locator("tbody tr").all_inner_texts()


def show(page: Page) -> None:
    page.get_by_role("button", name="Show", exact=True).click()


def test_the_log_is_newest_first_in_pages(visit: Visit) -> None:
    page = visit.admin("logs")
    expect(page.locator("tbody tr")).to_have_count(50)
    assert "one too many" in rows(page)[0]
    assert "requests_per_day" in rows(page)[0]
    page.get_by_role("button", name="Show older").click()
    expect(page.locator("tbody tr")).to_have_count(60)
    assert "prompt number 0" in rows(page)[-1]
    expect(page.get_by_role("button", name="Show older")).to_be_hidden()


@pytest.mark.parametrize(
    ("label", "value", "found"),
    [
        ("Text", "NEEDLE", ["a needle in the hay"]),
        ("Key", "bob", ["one too many", "a needle in the hay"]),
        ("Text", "run_nothing", []),
    ],
)
def test_a_filter_leaves_what_fits(visit: Visit, label: str, value: str, found: list[str]) -> None:
    page = visit.admin("logs")
    expect(page.locator("tbody tr")).to_have_count(50)
    page.get_by_label(label, exact=True).fill(value)
    show(page)
    expect(page.locator("tbody tr")).to_have_count(len(found))
    assert [prompt in row for prompt, row in zip(found, rows(page), strict=True)] == [True] * len(found)
    if not found:
        expect(page.get_by_text("Nothing matches")).to_be_visible()
        expect(page.locator(".sums")).to_be_hidden()


def test_provider_and_status_filter_at_once_and_the_address_keeps_them(visit: Visit) -> None:
    page = visit.admin("logs")
    page.get_by_label("Provider").select_option("Codex")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_label("Provider").select_option("Any")
    page.get_by_label("Status").select_option("Not answered")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.reload()
    expect(page.get_by_label("Status")).to_have_value("error")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.go_back()
    expect(page.get_by_label("Provider")).to_have_value("")
    page.get_by_role("button", name="Clear", exact=True).click()
    expect(page.locator("tbody tr")).to_have_count(50)


def test_the_status_can_be_any_code_of_an_error(visit: Visit) -> None:
    page = visit.admin("logs")
    status = page.get_by_label("Status")
    offered = status.locator("optgroup option").evaluate_all("all => all.map((each) => each.value)")
    assert sorted(offered) == sorted(CODES)
    caps = status.locator("optgroup").first
    assert caps.locator("option").all_inner_texts() == [name for name, code in CODES.items() if code.status == 429]
    status.select_option("requests_per_day")
    expect(page.locator("tbody tr")).to_have_count(1)
    assert "one too many" in rows(page)[0]
    status.select_option("cli_bad_output")
    expect(page.get_by_text("Nothing matches")).to_be_visible()
    page.reload()
    expect(page.get_by_label("Status")).to_have_value("cli_bad_output")
    # A number is no code, but the address may have one.
    visit.go(page, "logs?status=429")
    expect(page.get_by_label("Status")).to_have_value("429")
    expect(page.locator("tbody tr")).to_have_count(1)


def test_days_are_those_of_the_viewer(visit: Visit) -> None:
    page = visit.admin("logs")
    expect(page.locator("tbody tr")).to_have_count(50)
    today: str = page.evaluate(
        "new Date(Date.now() - new Date().getTimezoneOffset() * 60000).toISOString().slice(0, 10)"
    )
    page.get_by_label("Until").fill("2020-01-01")
    show(page)
    expect(page.get_by_text("Nothing matches")).to_be_visible()
    page.get_by_label("From").fill(today)
    page.get_by_label("Until").fill(today)
    with page.expect_request("**/admin/logs?*since=*") as caught:
        show(page)
    expect(page.locator("tbody tr").first).to_be_visible()
    # Midnight in Berlin, which is not midnight in UTC.
    assert f"{today}T00" not in caught.value.url


def test_a_line_is_shown_in_full_with_what_to_do_about_its_error(visit: Visit) -> None:
    page = visit.admin("logs?key=bob")
    page.locator("tbody tr").nth(1).get_by_role("button").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("gpt-6-sol (codex)")
    expect(dialog.get_by_role("region", name="System prompt")).to_have_text("system text")
    expect(dialog.get_by_role("region", name="Prompt", exact=True)).to_have_text("a needle in the hay")
    expect(dialog).to_contain_text("to the first text")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    page.locator("tbody tr").first.click()
    expect(dialog.get_by_role("alert")).to_contain_text("This key has used its 1 requests for today")
    expect(dialog.get_by_role("alert")).not_to_contain_text(re.compile(r"\d-\d\dT\d"))
    expect(dialog.get_by_role("alert")).to_contain_text("Wait for the reset, or ask your admin for a higher limit.")
    dialog.get_by_role("button", name="Close").last.click()
    expect(dialog).to_have_count(0)


def test_a_line_says_that_its_answer_had_to_be_asked_for_again(visit: Visit) -> None:
    # The simulated CLI never misses a schema, so the line is made here.
    repairs = 0

    def repaired(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json={**answer.json(), "repairs": repairs})

    page = visit.admin("logs?key=bob")
    page.route("**/admin/logs/run_*", repaired)
    dialog = page.get_by_role("dialog")
    for repairs in (0, 1):
        page.locator("tbody tr").nth(1).get_by_role("button").click()
        expect(dialog).to_contain_text("gpt-6-sol (codex)")
        if repairs:
            expect(dialog).to_contain_text("Asked again1 time, because the answer missed its schema")
        else:
            expect(dialog).not_to_contain_text("Asked again")
        page.keyboard.press("Escape")
        expect(dialog).to_have_count(0)


def test_a_line_says_what_was_asked_for_and_what_the_provider_said(visit: Visit) -> None:
    # The simulated CLI has no provider, so the line is made here.
    seen = {
        "alias": "quick\u202eone",
        "calls": "get_weather, now\u202e ×2",
        "upstreamStatus": 429,
        "upstreamMessage": "<b>Slow down</b>, please.",
        "upstreamRequestId": "req_up_4711",
        "modelMs": 120,
        "overheadMs": 34,
    }

    def completed(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json={**answer.json(), **seen})

    page = visit.admin("logs?key=bob")
    dialog = page.get_by_role("dialog")
    page.locator("tbody tr").nth(1).get_by_role("button").click()
    expect(dialog).to_contain_text("gpt-6-sol (codex)")
    expect(dialog).not_to_contain_text("asked for as")
    expect(dialog).not_to_contain_text("Calls")
    expect(dialog).not_to_contain_text("Provider's")
    page.keyboard.press("Escape")
    page.route("**/admin/logs/run_*", completed)
    page.locator("tbody tr").nth(1).get_by_role("button").click()
    expect(dialog).to_contain_text("gpt-6-sol (codex), asked for as quick")
    expect(dialog).not_to_contain_text("\u202e")
    expect(dialog).to_contain_text("Callsget_weather, now")
    expect(dialog).to_contain_text("Provider's status429")
    expect(dialog).to_contain_text("Provider said<b>Slow down</b>, please.")
    expect(dialog).to_contain_text("Provider's idreq_up_4711")
    expect(dialog).to_contain_text("the model 120 ms, added by CLI and bridge 34 ms")


def test_exports_hold_what_the_filters_leave(visit: Visit, tmp_path: Path) -> None:
    page = visit.admin("logs?key=bob")
    expect(page.locator("tbody tr")).to_have_count(2)
    for label, name in (("Export CSV", "log.csv"), ("Export JSONL", "log.jsonl")):
        with page.expect_download() as caught:
            page.get_by_role("link", name=label).click()
        caught.value.save_as(tmp_path / name)
    with (tmp_path / "log.csv").open(newline="", encoding="utf-8-sig") as file:
        table = list(csv.DictReader(file))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["userPrompt"] for row in table] == ["a needle in the hay", "one too many"]
    assert [line["id"] for line in lines] == [row["id"] for row in table]
    visit.go(page, "audit")
    expect(page.get_by_role("table")).to_contain_text("exported the log as jsonl")


def test_the_audit_says_who_changed_what(visit: Visit, server: Server) -> None:
    server.admin("PATCH", "/keys/ada", {"maxCostPerDay": 7, "note": "raised"})
    page = visit.admin("audit")
    row = page.get_by_role("row").filter(has_text="changed the key ada")
    expect(row).to_contain_text("maxCostPerDay: 0 → 7")
    expect(row).to_contain_text("note: raised")
    expect(row).to_contain_text("127.0.0.1")
    expect(page.get_by_role("row").nth(1)).to_contain_text("logged in")


def test_the_log_of_a_key_is_one_click_away(visit: Visit) -> None:
    page = visit.admin("keys/bob")
    page.get_by_role("link", name="All of them").click()
    expect(page.get_by_label("Key", exact=True)).to_have_value("bob")
    expect(page.locator("tbody tr")).to_have_count(2)


def test_a_filter_is_gone_through_with_the_arrow_keys_and_keeps_the_focus(visit: Visit) -> None:
    page = visit.admin("logs")
    expect(page.locator("tbody tr")).to_have_count(50)
    status = page.get_by_label("Status")
    status.focus()
    for number in range(1, 5):
        page.keyboard.press("ArrowDown")
        expect(status).to_be_focused()
        chosen = status.evaluate("(select) => select.selectedIndex")
        assert chosen == number
    value = status.input_value()
    expect(page).to_have_url(re.compile(f"status={value}"))
    page.get_by_label("Key", exact=True).focus()
    page.keyboard.type("bob")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Key", exact=True)).to_be_focused()


def test_older_lines_take_the_focus_along_and_are_there_when_one_comes_back(visit: Visit) -> None:
    page = visit.admin("logs")
    rows_ = page.locator("tbody tr")
    expect(rows_).to_have_count(50)
    more = page.get_by_role("button", name="Show older")
    more.focus()
    page.keyboard.press("Enter")
    expect(rows_.nth(50).get_by_role("button")).to_be_focused()
    shown = rows_.count()
    assert shown > 50
    rows_.nth(52).locator("a.key-name").click()
    expect(page.get_by_role("heading", level=1)).not_to_have_text("Logs")
    page.go_back()
    expect(rows_).to_have_count(shown)


def test_filters_that_leave_nothing_are_cleared_by_keyboard(visit: Visit) -> None:
    page = visit.admin("logs?text=no-such-thing")
    page.get_by_role("button", name="Clear the filters").focus()
    page.keyboard.press("Enter")
    expect(page.locator("tbody tr")).to_have_count(50)
    expect(page.get_by_label("Text", exact=True)).to_be_focused()


def test_exports_follow_what_is_typed(visit: Visit) -> None:
    page = visit.admin("logs")
    page.get_by_label("Key", exact=True).fill("bob")
    expect(page.get_by_role("link", name="Export CSV")).to_have_attribute("href", re.compile("key=bob"))


def test_the_sums_of_the_filter_stand_above_its_lines(visit: Visit) -> None:
    page = visit.admin("logs?key=bob")
    expect(page.locator(".sums")).to_have_text(
        re.compile(r"^2 requests, 1 of them not answered, .*\$0\.\d+, \d+ tokens$")
    )
    page.get_by_label("Text").fill("no such thing")
    show(page)
    expect(page.get_by_text("Nothing matches")).to_be_visible()
    expect(page.locator(".sums")).to_have_text("")


def test_a_part_of_a_name_leads_to_the_keys_that_have_it(visit: Visit) -> None:
    page = visit.admin("logs?key=bo")
    expect(page.get_by_text("No key is named bo")).to_be_visible()
    page.get_by_role("button", name="bob").click()
    expect(page.locator("tbody tr")).to_have_count(2)


def test_days_in_the_wrong_order_are_said(visit: Visit) -> None:
    page = visit.admin("logs?from=2026-02-02&to=2026-02-01")
    expect(page.get_by_role("alert")).to_contain_text("The first day lies after the last one.")


def test_following_shows_new_lines_on_top(visit: Visit, server: Server) -> None:
    key = server.new_key("comes-in")
    page = visit.admin("logs?key=comes-in")
    expect(page.get_by_text("Nothing matches")).to_be_visible()
    page.get_by_role("button", name="Follow").click()
    for number in (1, 2):
        server.call("POST", "/generate", {"userPrompt": f"number {number}"}, key=key)
        expect(page.locator("tbody tr")).to_have_count(number)
        expect(page.locator("tbody tr").first).to_contain_text(f"number {number}")
    page.get_by_role("button", name="Follow").click()
    server.call("POST", "/generate", {"userPrompt": "not seen"}, key=key)
    page.wait_for_timeout(2500)
    expect(page.locator("tbody tr")).to_have_count(2)


def test_older_lines_come_without_making_anew_what_is_there(visit: Visit) -> None:
    page = visit.admin("logs?key=ada")
    lines = page.locator("tbody tr")
    expect(lines).to_have_count(50)
    rows_made = count_rows_made(page)
    page.get_by_role("button", name="Show older").click()
    expect(lines).to_have_count(58)
    assert rows_made() == 8


def test_what_is_typed_and_not_shown_yet_leaves_nothing_out(visit: Visit, server: Server) -> None:
    page = visit.admin("logs?key=ada")
    lines = page.locator("tbody tr")
    expect(lines).to_have_count(50)
    page.get_by_label("Text", exact=True).fill("needle")
    page.get_by_role("button", name="Show older").click()
    expect(lines).to_have_count(58)

    key = server.new_key("comes-late")
    visit.go(page, "logs?key=comes-late")
    expect(page.get_by_text("Nothing matches")).to_be_visible()
    page.get_by_role("button", name="Follow").click()
    page.get_by_label("Text", exact=True).fill("needle")
    server.call("POST", "/generate", {"userPrompt": "hay"}, key=key)
    expect(lines).to_contain_text("hay")


def test_lines_that_come_after_other_filters_were_chosen_are_not_put_among_theirs(visit: Visit) -> None:
    page = visit.admin("logs?key=bob")
    lines = page.locator("tbody tr")
    expect(lines).to_have_count(2)
    held: list[Route] = []
    page.route(re.compile(r"/admin/logs\?.*key=bob.*limit=50"), lambda route: held.append(route), times=1)
    with page.expect_request(re.compile(r"/admin/logs\?.*limit=50")):
        page.get_by_role("button", name="Follow").click()
    page.get_by_label("Provider").select_option("Codex")
    expect(lines).to_have_count(1)
    with page.expect_request(re.compile(r"/admin/logs\?.*limit=50")):
        held[0].continue_()
    expect(lines).to_have_count(1)


def test_on_a_phone_the_first_line_is_seen_at_once(chromium: Browser, server: Server) -> None:
    with profile(chromium, server, viewport={"width": 390, "height": 780}) as visit:
        page = visit.admin("logs")
        expect(page.locator("tbody tr")).to_have_count(50)
        box = page.locator("tbody tr").first.bounding_box()
        assert box is not None
        assert box["y"] < 500
        page.get_by_text("Filters").click()
        expect(page.get_by_label("Status")).to_be_visible()


def test_the_audit_is_searched_saved_and_leads_to_its_keys(visit: Visit, server: Server, tmp_path: Path) -> None:
    server.new_key("audited")
    server.admin("PATCH", "/keys/audited", {"note": "for the audit"})
    page = visit.admin("audit")
    page.get_by_label("Search the audit").fill("AUDITED")
    page.keyboard.press("Enter")
    expect(page.locator("tbody tr")).to_have_count(2)
    with page.expect_download() as caught:
        page.get_by_role("button", name="Save as JSONL").click()
    caught.value.save_as(tmp_path / "audit.jsonl")
    entries = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [entry["action"] for entry in entries] == ["key_changed", "key_created"]
    page.get_by_role("link", name="audited").first.click()
    expect(page.get_by_role("heading", name="audited", level=1)).to_be_visible()


def test_what_an_older_look_at_the_audit_brings_is_not_shown(visit: Visit, server: Server) -> None:
    server.new_key("looked-for")
    page = visit.admin()
    slow: list[Route] = []
    page.route(re.compile(r"/admin/audit\?limit=50$"), lambda route: slow.append(route))
    visit.go(page, "audit")
    page.get_by_label("Search the audit").fill("looked-for")
    page.keyboard.press("Enter")
    expect(page.locator("tbody tr")).to_have_count(1)
    with page.expect_response(re.compile(r"/admin/audit\?limit=50$")) as answer:
        slow[0].continue_()
    answer.value.finished()
    page.evaluate("() => new Promise((done) => setTimeout(done, 50))")
    expect(page.locator("tbody tr")).to_have_count(1)
