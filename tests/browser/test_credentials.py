"""The page Credentials: how each is doing and why, what it may spend, and everything that can be done with one."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from bridge.keys.credentials import Credential
from bridge.service import credential_book
from bridge.settings import Settings
from bridge.store.folder import Store
from tests.browser import axe_core
from tests.browser.conftest import Visit, profile
from tests.browser.test_looks import SIZES, too_wide
from tests.standin import StandIn
from tests.support import server as servers
from tests.support.ledger import FrozenClock
from tests.support.server import Server

SECRET = "sk-ant-pasted-once-{}-0001"


def write_states(folder: Path) -> None:
    """A data folder whose credentials are in every state, as a server that ended has left it."""
    Store.open(folder).close()
    clock = FrozenClock(time.time() - 2000)
    book = credential_book(Settings.load({"BRIDGE_DATA_DIR": str(folder)}), clock)

    def make(name: str, provider: str = "claude", **fields: object) -> Credential:
        return book.create(name, provider, SECRET.format(name), **fields)

    make("well", limits={"maxCostPerDay": 10, "maxCostPerMonth": 200}, note="paid by Design", group="acme", priority=2)
    guessed = make("guessed")
    for _ in range(5):
        clock.pass_s(400)
        book.note_limited(guessed, None, "Anthropic limits its rate (429).", 1.0)
    book.note_limited(make("limited"), 900, "Anthropic limits its rate (429).", 0.5)
    book.note_limited(make("partly"), 900, "Rate limit reached for claude-opus-5-5 (429).", 0.5, "claude-opus-5-5")
    book.note_rejected(make("poor"), "Its account has no credit left (400).")
    book.enable(make("off", models=["claude-haiku-*"], keys=["ada"]), False)
    book.note_rejected(make("gone", "codex"), "401 invalid_api_key Incorrect API key")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("credentials")
    write_states(folder / "data")
    with StandIn() as standin:
        more = {
            "ANTHROPIC_API_KEY": "sk-ant-of-the-environment",
            "ANTHROPIC_BASE_URL": standin.url,
            "OPENAI_BASE_URL": standin.openai_url,
            "BRIDGE_ROUTING": "fill-first",
        }
        with servers.running(folder, more, demo=True) as running:
            yield running


def row_of(page: Page, name: str) -> Locator:
    """A credential on the page."""
    return page.locator(".credential").filter(has=page.get_by_role("heading", name=name, exact=True))


def press(page: Page, label: str, name: str) -> None:
    row_of(page, name).get_by_role("button", name=f"{label} {name}", exact=True).click()


def one(server: Server, name: str) -> dict[str, object]:
    found: dict[str, object] = server.admin("GET", f"/credentials/{name}").json
    return found


@pytest.mark.parametrize(("size", "scheme"), [("desktop", "light"), ("phone", "dark")])
def test_the_page_and_its_dialogs_have_no_barriers(chromium: Browser, server: Server, size: str, scheme: str) -> None:
    with profile(chromium, server, viewport=SIZES[size], color_scheme=scheme, reduced_motion="reduce") as visit:
        page = visit.admin("credentials")
        expect(row_of(page, "well")).to_be_visible()
        assert (axe_core.findings(page), too_wide(page)) == ([], [])
        page.get_by_role("button", name="Add an API key").click()
        expect(page.get_by_label("Provider")).to_be_focused()
        page.get_by_text("Organization, order, endpoint").click()
        assert (axe_core.findings(page), too_wide(page)) == ([], [])
        page.keyboard.press("Escape")
        press(page, "Remove", "off")
        assert (axe_core.findings(page), too_wide(page)) == ([], [])


def test_the_focus_stays_on_what_is_done_with_a_credential(visit: Visit, server: Server) -> None:
    body = {"name": "handled", "provider": "claude", "apiKey": SECRET.format("handled")}
    assert server.admin("POST", "/credentials", body).status == 201
    page = visit.admin("credentials")
    buttons = row_of(page, "handled").get_by_role("button")

    def press_and_expect(label: str, then: str) -> None:
        buttons.filter(has_text=label).focus()
        page.keyboard.press("Enter")
        expect(buttons.filter(has_text=then)).to_be_focused()

    press_and_expect("Disable", "Enable")
    press_and_expect("Enable", "Disable")
    press_and_expect("Prefer", "Test")  # It has gone, and what does no harm comes first.
    buttons.filter(has_text="Remove").focus()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Remove it").focus()
    page.keyboard.press("Enter")
    expect(row_of(page, "handled")).to_have_count(0)
    expect(page.get_by_role("heading", name="Credentials", level=1)).to_be_focused()


def test_each_says_in_words_how_it_is_why_and_when_it_is_tried_again(visit: Visit) -> None:
    page = visit.admin("credentials")
    for name, badge, sentence in (
        ("well", "usable", r"Takes requests\."),
        (
            "limited",
            "limited",
            r"Anthropic limits its rate \(429\)\. It is tried again in 1[0-5] min \(\d+ \w+, [\d:]+\)",
        ),
        ("guessed", "limited", r"It is tried again .* \(.*, by the bridge's own guess\)\."),
        ("partly", "usable", r"Limited for claude-opus-5-5: Rate limit reached .* It is tried again in 1[0-5] min"),
        ("poor", "blocked", r"Its account has no credit left \(400\)\. It is tried again in 1 hr"),
        ("gone", "blocked", r"401 invalid_api_key Incorrect API key\. It is tried again in 1 hr"),
        ("off", "disabled", r"An admin has disabled it; it gets no requests until it is enabled\."),
    ):
        row = row_of(page, name)
        expect(row.locator(".badge").first).to_have_text(badge)
        expect(row).to_contain_text(re.compile(sentence))
    expect(row_of(page, "well")).to_contain_text("…0001")
    expect(row_of(page, "well")).to_contain_text("preferred")
    expect(row_of(page, "partly").get_by_role("button", name="Try again now partly")).to_be_visible()
    expect(row_of(page, "off")).to_contain_text("models claude-haiku-*; keys ada")
    expect(row_of(page, "default")).to_contain_text("the environment (ANTHROPIC_API_KEY); it is changed there")
    expect(row_of(page, "default").get_by_role("button")).to_have_text(["Test", "Disable"])
    codex = page.get_by_role("region", name="Codex (OpenAI)")
    expect(codex).to_contain_text("none is usable: requests are refused")
    assert "sk-ant-" not in page.content()


def test_a_budget_has_a_bar_with_the_line_of_its_window(visit: Visit) -> None:
    page = visit.admin("credentials")
    row = row_of(page, "well")
    expect(row.get_by_role("meter", name="Cost today")).to_have_attribute("aria-valuetext", re.compile("left of \\$10"))
    # Nothing was used, so what is lacking is all of it.
    told = r"Spent evenly, it would be (\$\d+\.\d\d) by now \(the line\): it is \1 less\. Resets"
    expect(row).to_contain_text(re.compile(told))
    lines = row.locator(".bar-line")
    expect(lines).to_have_count(2)
    shares = lines.evaluate_all("all => all.map((line) => parseFloat(line.style.left))")
    assert all(0 <= share <= 100 for share in shares)
    day, month = (
        page.evaluate("new Date().getUTCHours() * 100 / 24"),
        page.evaluate(
            """() => {
              const now = new Date();
              const days = new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + 1, 0)).getUTCDate();
              return (now.getUTCDate() - 1) * 100 / days;
            }"""
        ),
    )
    assert shares[0] == pytest.approx(day, abs=5)
    assert shares[1] == pytest.approx(month, abs=8)


def test_one_is_pasted_once_tested_and_nowhere_on_the_page_again(visit: Visit, server: Server) -> None:
    secret = SECRET.format("added")
    page = visit.admin("credentials")
    page.get_by_role("button", name="Add an API key").click()
    expect(page.get_by_label("Name")).to_have_value("anthropic")
    page.get_by_label("Provider").select_option("OpenAI, for Codex")
    expect(page.get_by_label("Name")).to_have_value("openai")
    page.get_by_label("API key", exact=True).fill(f"  {secret} ")
    page.get_by_label("Name").fill("added")
    page.get_by_label("Dollars per month").fill("50")
    page.get_by_role("button", name="Add and test").click()
    expect(page.get_by_text("added works.")).to_be_visible()
    expect(row_of(page, "added")).to_contain_text("$0.00 of $50.00")
    assert secret not in page.content()
    made = one(server, "added")
    assert (made["provider"], made["last4"], made["limits"]) == (
        "codex",
        "0001",
        {"maxCostPerDay": 0, "maxCostPerMonth": 50},
    )
    visit.go(page, "audit")
    expect(page.get_by_role("table")).to_contain_text("added the credential added")
    assert secret not in page.content()


def test_what_cannot_be_taken_is_said_in_the_dialog_with_what_was_typed(visit: Visit) -> None:
    page = visit.admin("credentials")
    page.get_by_role("button", name="Add an API key").click()
    page.get_by_label("API key", exact=True).fill(SECRET.format("well"))
    page.get_by_label("Name").fill("twin")
    page.get_by_role("button", name="Add and test").click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("'well' of claude has this API key already")
    expect(page.get_by_label("Name")).to_have_value("twin")
    page.get_by_label("API key", exact=True).fill("sk-ant-another-one-0001")
    page.get_by_text("Organization, order, endpoint").click()
    page.get_by_label("Endpoint").fill("http://gateway.example.com")
    page.get_by_role("button", name="Add and test").click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("https://")
    visit.expect_refusals()


def test_one_is_changed_and_its_secret_stays_unless_another_is_pasted(visit: Visit, server: Server) -> None:
    page = visit.admin("credentials")
    press(page, "Edit", "limited")
    expect(page.get_by_role("dialog")).to_contain_text("ends with 0001")
    page.get_by_label("Name").fill("renamed")
    page.get_by_label("Note").fill("for the workshop")
    page.get_by_label("Dollars per day").fill("3")
    page.get_by_role("button", name="Save").click()
    expect(row_of(page, "renamed")).to_contain_text("for the workshop")
    expect(row_of(page, "renamed").locator(".badge").first).to_have_text("limited")
    press(page, "Edit", "renamed")
    page.get_by_label("New API key").fill("sk-ant-another-secret-9876")
    page.get_by_role("button", name="Save").click()
    expect(row_of(page, "renamed").locator(".badge").first).to_have_text("usable")
    changed = one(server, "renamed")
    assert (changed["last4"], changed["note"], changed["limits"]) == (
        "9876",
        "for the workshop",
        {"maxCostPerDay": 3, "maxCostPerMonth": 0},
    )


def test_each_button_does_what_it_says(visit: Visit, server: Server) -> None:
    page = visit.admin("credentials")
    press(page, "Test", "well")
    expect(row_of(page, "well").get_by_role("status")).to_contain_text("Anthropic took it, and lists")
    press(page, "Try again now", "poor")
    expect(row_of(page, "poor").locator(".badge").first).to_have_text("usable")
    press(page, "Disable", "poor")
    expect(row_of(page, "poor").locator(".badge").first).to_have_text("disabled")
    press(page, "Enable", "poor")
    expect(row_of(page, "poor").locator(".badge").first).to_have_text("usable")
    press(page, "Prefer", "poor")
    expect(row_of(page, "poor")).to_contain_text("preferred")
    assert one(server, "poor")["priority"] == 3
    press(page, "Remove", "guessed")
    expect(page.get_by_role("dialog")).to_contain_text("Nothing of it is running now.")
    page.get_by_role("button", name="Remove it").click()
    expect(row_of(page, "guessed")).to_have_count(0)
    assert server.admin("GET", "/credentials/guessed").status == 404


def test_one_that_a_key_is_bound_to_is_removed_only_after_a_second_look(visit: Visit, server: Server) -> None:
    body = {"name": "bound", "provider": "claude", "apiKey": SECRET.format("bound")}
    assert server.admin("POST", "/credentials", body).status == 201
    page = visit.admin("keys")
    page.get_by_role("button", name="New key").click()
    page.get_by_label("Name").fill("only-bound")
    expect(page.get_by_role("dialog")).to_contain_text(re.compile(r"of .*bound.*\. Empty: any\."))
    page.get_by_label("Only these credentials").fill("bound")
    page.get_by_role("button", name="Make the key").click()
    page.get_by_role("button", name="I have copied the key").click()
    expect(page.locator("dl.facts")).to_contain_text("bound")
    assert server.admin("GET", "/keys/only-bound").json["credentials"] == ["bound"]
    visit.go(page, "credentials")
    press(page, "Remove", "bound")
    page.get_by_role("button", name="Remove it").click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("Keys are bound to the credential bound")
    visit.expect_refusals()
    page.get_by_role("button", name="Remove it all the same").click()
    expect(row_of(page, "bound")).to_have_count(0)
    assert server.admin("GET", "/credentials/bound").status == 404


def test_bars_and_states_are_seen_without_the_pages_own_colours(chromium: Browser, server: Server) -> None:
    with profile(chromium, server, forced_colors="active") as visit:
        page = visit.admin("credentials")
        expect(row_of(page, "well")).to_be_visible()
        shown = "(e) => { const s = getComputedStyle(e); return [s.borderTopStyle, s.backgroundColor]; }"
        assert row_of(page, "well").locator(".bar-track").first.evaluate(shown)[0] == "solid"
        assert row_of(page, "well").locator(".badge").first.evaluate(shown)[0] == "solid"
        track, line = (row_of(page, "well").locator(each).first for each in (".bar-track", ".bar-line"))
        assert track.evaluate(shown)[1] != line.evaluate(shown)[1]
        press(page, "Test", "well")
        expect(row_of(page, "well").locator(".notice")).to_be_visible()
        assert row_of(page, "well").locator(".notice").evaluate(shown)[0] == "solid"


def test_a_thousand_are_shown_in_pages_searched_and_seen_by_their_state(chromium: Browser, tmp_path: Path) -> None:
    rows = [
        {
            "name": f"one-{number:04d}",
            "provider": "claude" if number < 600 else "codex",
            "apiKey": f"sk-ant-secret-{number:08d}",
            "enabled": number % 300 != 7,
            "priority": 5 if number == 0 else 0,
            "note": "pays for the lab" if number == 555 else "",
        }
        for number in range(1000)
    ]
    Store.open(tmp_path / "data").close()
    (tmp_path / "data" / "credentials.json").write_text(json.dumps({"schema": 1, "credentials": rows}))
    with servers.running(tmp_path, demo=True) as server, profile(chromium, server) as visit:
        page = visit.admin("credentials")
        expect(page.get_by_text("996 of 1,000 credentials usable")).to_be_visible()
        claude, codex = (page.get_by_role("region", name=re.compile(name)) for name in ("Anthropic", "OpenAI"))
        expect(claude.get_by_role("listitem")).to_have_count(50)
        expect(codex.get_by_role("listitem")).to_have_count(50)
        # With the usual routing no priority counts, so none is offered.
        expect(page.get_by_role("button", name=re.compile("^Prefer"))).to_have_count(0)
        expect(page.get_by_text("preferred")).to_have_count(0)
        claude.get_by_role("button", name="Show 50 more credentials").click()
        expect(claude.get_by_role("listitem")).to_have_count(100)
        expect(claude.get_by_role("button", name="Test one-0050")).to_be_focused()

        page.get_by_label("Search credentials").fill("the LAB")
        expect(claude.get_by_role("listitem")).to_have_count(1)
        expect(claude.get_by_role("heading", name="one-0555")).to_be_visible()
        expect(claude.get_by_text("1 of 600 credentials match.")).to_be_visible()
        expect(codex.get_by_text("0 of 400 credentials match.")).to_be_visible()
        claude.get_by_role("button", name="Disable one-0555").click()
        expect(claude.get_by_role("button", name="Enable one-0555")).to_be_visible()

        page.get_by_label("Search credentials").fill("")
        page.get_by_label("Only those in this state").select_option("disabled")
        expect(claude.get_by_role("heading", level=3)).to_have_text(["one-0007", "one-0307", "one-0555"])
        expect(codex.get_by_role("heading", level=3)).to_have_text(["one-0607", "one-0907"])


def test_what_a_test_has_found_is_not_said_of_what_came_afterwards(visit: Visit, server: Server) -> None:
    body = {"name": "again", "provider": "claude", "apiKey": SECRET.format("again")}
    assert server.admin("POST", "/credentials", body).status == 201
    page = visit.admin("credentials")
    found = row_of(page, "again").get_by_role("status")

    press(page, "Test", "again")
    expect(found).to_contain_text("Anthropic took it")
    press(page, "Edit", "again")
    page.get_by_label("New API key").fill(SECRET.format("another"))
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(row_of(page, "again")).not_to_contain_text("Anthropic took it")

    press(page, "Test", "again")
    expect(found).to_contain_text("Anthropic took it")
    press(page, "Remove", "again")
    page.get_by_role("button", name="Remove it").click()
    expect(row_of(page, "again")).to_have_count(0)
    assert server.admin("POST", "/credentials", body).status == 201
    expect(row_of(page, "again")).to_have_count(1)
    expect(row_of(page, "again")).not_to_contain_text("Anthropic took it")


def test_a_state_that_is_not_known_yet_is_shown_by_its_name(visit: Visit) -> None:
    """The page may be older than the server behind it, which was upgraded."""

    def newer(route: Route) -> None:
        answer = route.fetch()
        found = answer.json()
        found["credentials"][0]["state"] = "resting"
        route.fulfill(response=answer, json=found)

    page = visit.admin()
    page.route("**/admin/credentials", newer)
    visit.go(page, "credentials")
    expect(page.locator(".credential").first.locator(".badge").first).to_have_text("resting")
