"""Who spent what on what, and why a request failed: the page Usage, My usage, and a request's own page."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import Visit
from tests.support import history
from tests.support import server as servers
from tests.support.server import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with three months of a team's use behind it, a month of it without models."""
    folder = tmp_path_factory.mktemp("spending")
    history.write(folder / "data", history.TEAM, days=90, lines=1500)
    with servers.running(folder, demo=True) as running:
        yield running


def names(page: Page) -> list[str]:
    """The names in the rows of the table, without those below an opened one."""
    return page.locator("tbody tr.spent:not(.inner) td:first-child").all_inner_texts()


def test_keys_are_listed_dearest_first_and_each_opens_to_its_models(visit: Visit, server: Server) -> None:
    today = time.strftime("%Y-%m-%d", time.gmtime())
    start = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 29 * 86400))
    wanted = server.admin("GET", f"/usage/breakdown?by=key&from={start}&to={today}").json
    page = visit.admin("usage")
    page.get_by_role("button", name="30 days").click()
    expect(page.locator("tbody tr")).to_have_count(len(wanted["rows"]))
    assert names(page) == [row["key"] for row in wanted["rows"]]
    total = page.locator("tr.total")
    expect(total).to_contain_text(f"{wanted['total']['requests']:,}")

    first = wanted["rows"][0]["key"]
    page.get_by_role("button", name=f"What {first} is made of").click()
    models = server.admin("GET", f"/usage/breakdown?by=model&key={first}&from={start}&to={today}").json["rows"]
    expect(page.locator("tr.inner")).to_have_count(len(models))
    expect(page.locator("tr.inner").first).to_contain_text(models[0]["model"])
    expect(page.get_by_role("button", name=f"What {first} is made of")).to_be_focused()
    page.get_by_role("link", name=first).click()
    expect(page.get_by_role("heading", name=first, level=1)).to_be_visible()


def test_models_open_to_their_keys_and_days_without_models_say_so(visit: Visit, server: Server) -> None:
    page = visit.admin("usage?by=model&range=90")
    expect(page.locator("tbody")).to_contain_text("not known")
    page.get_by_role("button", name="What claude-haiku-5 is made of").click()
    expect(page.locator("tr.inner").first).to_contain_text(re.compile("design-team|pm-prototypes|support-macros"))
    page.get_by_role("button", name="By provider").click()
    expect(page.get_by_role("button", name="What codex is made of")).to_be_visible()
    assert "by=provider" in page.url
    assert "range=90" in page.url
    # The address leads back to the same figures.
    before = page.locator("tr.total").text_content() or ""
    page.reload()
    expect(page.get_by_role("button", name="By provider")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("tr.total")).to_have_text(before)


def test_days_can_be_chosen_one_by_one_and_a_wrong_order_is_said(visit: Visit, server: Server) -> None:
    page = visit.admin("usage")
    page.get_by_role("button", name="From – to").click()
    page.get_by_label("From").fill(time.strftime("%Y-%m-%d", time.gmtime(time.time() - 40 * 86400)))
    page.get_by_label("To", exact=True).fill(time.strftime("%Y-%m-%d", time.gmtime(time.time() - 39 * 86400)))
    expect(page.locator("tr.total")).to_be_visible()
    assert "from=" in page.url
    page.get_by_label("From").fill(time.strftime("%Y-%m-%d", time.gmtime()))
    expect(page.get_by_role("alert")).to_contain_text("The first day lies after the last one.")


def test_what_a_row_is_made_of_is_of_the_days_that_are_shown(visit: Visit, server: Server) -> None:
    page = visit.admin("usage")
    held: list[Route] = []
    inner = re.compile(r"/usage/breakdown\?.*by=model.*key=design-team")
    page.route(inner, lambda route: held.append(route), times=1)
    page.get_by_role("button", name="What design-team is made of").click()
    page.get_by_role("button", name="90 days").click()
    expect(page.locator("tr.inner").filter(has_text="not known")).to_be_visible()
    # What was asked about the seven days of before comes now.
    with page.expect_response(inner):
        held[0].continue_()
    page.get_by_role("button", name="What pm-prototypes is made of").click()
    expect(page.locator("tr.inner").filter(has_text="not known")).to_have_count(2)


def test_a_name_that_two_providers_had_is_two_rows(visit: Visit, server: Server) -> None:
    def doubled(route: Route) -> None:
        answer = route.fetch()
        found = answer.json()
        [first] = [row for row in found["rows"] if row["model"] == "claude-haiku-5"]
        route.fulfill(response=answer, json={**found, "rows": [first, {**first, "provider": "codex"}]})

    page = visit.admin()
    page.route(re.compile(r"/usage/breakdown\?.*by=model$"), doubled)
    visit.go(page, "usage?by=model")
    buttons = page.get_by_role("button", name="What claude-haiku-5 is made of")
    buttons.first.click()
    expect(buttons.first).to_have_attribute("aria-expanded", "true")
    expect(buttons.last).to_have_attribute("aria-expanded", "false")


def test_a_week_without_any_use_says_so(visit: Visit, server: Server) -> None:
    page = visit.admin("usage?range=days&from=2001-01-01&to=2001-01-07")
    expect(page.get_by_text("Nothing was used")).to_be_visible()


def test_every_control_of_the_page_is_reached_and_kept_by_the_keyboard(visit: Visit, server: Server) -> None:
    page = visit.admin("usage")
    for name in ("30 days", "By model", "What claude-haiku-5 is made of"):
        button = page.get_by_role("button", name=name)
        expect(button).to_be_visible()
        button.focus()
        page.keyboard.press("Enter")
        page.wait_for_timeout(100)
        expect(button).to_be_focused()


def test_the_focus_stays_in_the_table_when_its_figures_change(visit: Visit, server: Server) -> None:
    visit.context.clock.install()
    page = visit.admin("usage")
    button = page.get_by_role("button", name="What design-team is made of")
    button.focus()
    total = page.locator("tr.total")
    before = total.text_content() or ""
    server.call("POST", "/generate", {"userPrompt": "more"}, key=history.TEAM[0].raw)
    page.clock.run_for(16_000)
    expect(total).not_to_have_text(before)
    expect(button).to_be_focused()


# --- why it failed -------------------------------------------------------------------------------


def test_a_holder_sees_why_a_request_failed_and_copies_it_for_the_admin(visit: Visit, server: Server) -> None:
    visit.context.grant_permissions(["clipboard-read", "clipboard-write"])
    key = server.new_key("why-not", maxCostPerRequest=0.000001)
    refused = server.call("POST", "/generate", {"userPrompt": "A long question"}, key=key).json
    page = visit.holder(key)
    page.get_by_role("link", name="My usage").click()
    row = page.get_by_role("table", name="Your last requests").locator("tbody tr")
    expect(row).to_contain_text("cost_per_request")
    expect(row).to_contain_text("This key may spend")
    button = row.get_by_role("button")
    button.focus()
    page.keyboard.press("Enter")
    shown = page.get_by_role("dialog")
    expect(shown).to_contain_text(refused["request_id"])
    expect(shown).to_contain_text("This key may spend")
    expect(shown).to_contain_text("Waiting does not help")
    expect(shown).to_contain_text("$0.00")
    shown.get_by_role("button", name="Copy").click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert refused["request_id"] in copied
    assert refused["error"] in copied
    page.keyboard.press("Escape")
    expect(button).to_be_focused()


def test_a_request_has_an_address_of_its_own_in_the_log(visit: Visit, server: Server) -> None:
    visit.context.grant_permissions(["clipboard-read", "clipboard-write"])
    key = server.new_key("has-a-page", models=["claude-sonnet-5-5"])
    body = {"userPrompt": "Needle", "model": "claude-haiku-5"}
    refused = server.call("POST", "/generate", body, key=key).json
    page = visit.admin("logs?key=has-a-page")
    page.locator("tbody tr").first.click()
    shown = page.get_by_role("dialog")
    expect(shown).to_contain_text("The client was told")
    expect(shown).to_contain_text(refused["hint"])
    shown.get_by_role("button", name="Copy link").click()
    sent = page.evaluate("navigator.clipboard.readText()")
    shown.get_by_role("link", name="run_").click()
    expect(page.get_by_role("heading", name="Request", level=1)).to_be_focused()
    expect(page.locator("main")).to_contain_text(refused["request_id"])
    page.get_by_role("button", name="Copy link").click()
    link = page.evaluate("navigator.clipboard.readText()")
    page.get_by_role("button", name="Copy", exact=True).click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert link in copied
    assert sent == link
    assert "Error: This key may not use the model claude-haiku-5." in copied
    # A colleague opens the link; the request id alone leads there, too.
    colleague = visit.open(link.removeprefix(visit.address))
    expect(colleague.locator("main")).to_contain_text("Needle")
    visit.go(colleague, f"logs/{refused['request_id']}")
    expect(colleague.locator("main")).to_contain_text("Needle")
    visit.go(colleague, "logs/run_never")
    expect(colleague.get_by_text("The log has no such request.")).to_be_visible()
    visit.expect_refusals()


def test_what_was_spent_on_what_and_where_the_month_goes_is_on_my_usage(visit: Visit, server: Server) -> None:
    page = visit.holder(history.TEAM[0].raw)
    page.get_by_role("link", name="My usage").click()
    table = page.get_by_role("table", name="What you spent on what")
    expect(table.get_by_role("row").nth(1)).to_contain_text(re.compile("claude-|gpt-"))
    page.get_by_role("button", name="90 days").click()
    expect(table).to_contain_text("not known")
    expect(page.get_by_text(re.compile(r"At this pace about \$[\d.,]+ by the end of the month")).first).to_be_visible()
    admin = visit.admin("keys/design-team")
    expect(admin.get_by_text(re.compile(r"At this pace about \$[\d.,]+ by the end of the month")).first).to_be_visible()


def test_when_a_limit_resets_is_said_anew_on_the_next_day(visit: Visit, server: Server) -> None:
    page = visit.holder(server.new_key("sees-midnight", maxCostPerDay=5))
    page.get_by_role("link", name="My usage").click()
    expect(page.get_by_text(re.compile("^Resets .*midnight in UTC"))).to_be_visible()

    def later(route: Route) -> None:
        me = route.fetch().json()
        me["resetsAt"]["today"] = "2031-01-02T00:00:00Z"
        route.fulfill(json=me)

    page.route("**/me", later)
    expect(page.get_by_text(re.compile("^Resets .*2 Jan 2031"))).to_be_visible()


def test_a_key_that_expires_while_its_usage_is_shown_is_told_so(visit: Visit, server: Server) -> None:
    page = visit.holder(server.new_key("expires-soon"))
    page.get_by_role("link", name="My usage").click()
    expect(page.get_by_text("No requests yet")).to_be_visible()
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 5))
    assert server.admin("PATCH", "/keys/expires-soon", {"expiresAt": soon}).status == 200
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("This key has expired.")
    expect(alert).to_contain_text("Ask your admin for a new key")
    visit.expect_refusals()


def test_a_pace_that_is_reached_ends_at_no_midnight(visit: Visit, server: Server) -> None:
    page = visit.holder(server.new_key("in-a-hurry", maxRequestsPerMinute=1))
    for _ in range(2):
        page.get_by_label("Prompt", exact=True).fill("Hello")
        page.get_by_role("button", name="Send").click()
        expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    expect(page.get_by_role("alert")).to_contain_text("requests_per_minute")
    expect(page.locator(".meta")).to_contain_text("Resets")
    expect(page.locator(".meta")).not_to_contain_text("midnight")
    visit.expect_refusals()


def test_an_answer_that_missed_its_schema_is_shown_with_its_price(visit: Visit, server: Server) -> None:
    # The simulated CLI never misses a schema, so the answer is made here.
    key = server.new_key("misses")
    page = visit.holder(key)
    error = {"error": "It does not fit.", "code": "output_mismatch", "hint": "Simplify.", "request_id": "req_1"}
    event = f"event: error\ndata: {json.dumps({**error, 'text': 'Nearly <b>right</b>'})}\n\n"
    page.route("**/generate", lambda route: route.fulfill(status=200, content_type="text/event-stream", body=event))

    def with_cost(route: Route) -> None:
        line = {"requestId": "req_1", "costUsd": 0.0123, "durationMs": 2000}
        route.fulfill(json={"requests": [line]})

    page.route("**/me/requests", with_cost)
    page.get_by_label("Prompt", exact=True).fill("Hello")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("alert")).to_contain_text("It does not fit.")
    expect(page.get_by_role("region", name="Answer")).to_contain_text("Nearly <b>right</b>")
    expect(page.locator(".meta")).to_contain_text("Cost $0.0123")
