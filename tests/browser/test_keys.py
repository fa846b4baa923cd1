"""Keys in the dashboard: made with a preset, used, changed, rotated, disabled and revoked."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Route, expect

from bridge.limits import BY_NAME
from tests.browser.conftest import Visit, expect_every_limit
from tests.support.server import Server

NewKey = Callable[..., tuple[str, str]]


def make_key(page: Page, name: str, preset: str = "") -> str:
    """Make a key in the dialog; its secret, as it is shown."""
    page.get_by_role("button", name="New key").click()
    page.get_by_label("Name").fill(name)
    if preset:
        page.get_by_label("Start from").select_option(preset)
    page.get_by_role("button", name="Make the key").click()
    secret = page.locator("#new-key").inner_text()
    page.get_by_role("button", name="I have copied the key").click()
    return secret


def test_a_key_from_a_preset_is_shown_once_and_works_in_the_playground(visit: Visit, server: Server) -> None:
    page = visit.admin("keys")
    secret = make_key(page, "from-preset", "Designer: $5 a day")
    expect(page.get_by_role("heading", name="from-preset", level=1)).to_be_visible()
    assert server.admin("GET", "/keys/from-preset").json["limits"]["maxCostPerDay"] == 5
    assert secret not in page.content()

    play = visit.holder(secret)
    play.get_by_label("Prompt", exact=True).fill("Hello from the preset")
    play.get_by_role("button", name="Send").click()
    answer = play.get_by_role("region", name="Answer")
    expect(answer).to_contain_text("You wrote: “Hello from the preset”")
    expect(play.get_by_text(re.compile(r"Cost \$0\.\d+"))).to_be_visible()

    expect(page.get_by_role("table", name="Last requests of this key")).to_contain_text(
        "Hello from the preset", timeout=30_000
    )


def test_the_secret_can_be_copied_with_its_snippets(visit: Visit) -> None:
    visit.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = visit.admin("keys")
    page.get_by_role("button", name="New key").click()
    page.get_by_label("Name").fill("copied")
    page.get_by_role("button", name="Make the key").click()
    secret = page.locator("#new-key").inner_text()
    page.get_by_role("button", name="Copy key").click()
    expect(page.get_by_role("button", name="Copied", exact=True)).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == secret
    page.keyboard.press("Escape")
    expect(page.locator("#new-key")).to_be_visible()
    for language in ("curl", "Python", "JavaScript", "Google Sheets", "OpenAI SDK"):
        page.get_by_role("button", name=language, exact=True).click()
        expect(page.get_by_role("region", name="Code")).to_contain_text(secret)


@pytest.mark.parametrize(
    ("name", "models", "without", "path", "model"),
    [
        ("tells-luna", "gpt-6-luna", None, "/generate-codex", "gpt-6-luna"),
        ("tells-haiku", "claude-haiku-5-5, gpt-6-sol", "Codex", "/generate'", "claude-haiku-5-5"),
        ("tells-usual", "", "Claude", "/generate-codex", "gpt-6-sol"),
    ],
)
def test_the_code_beside_a_secret_names_what_the_key_may_use(
    visit: Visit, name: str, models: str, without: str | None, path: str, model: str
) -> None:
    page = visit.admin("keys")
    page.get_by_role("button", name="New key").click()
    page.get_by_label("Name").fill(name)
    page.get_by_label("Only these models").fill(models)
    if without:
        page.get_by_role("checkbox", name=without).uncheck()
    page.get_by_role("button", name="Make the key").click()
    code = page.get_by_role("region", name="Code")
    expect(code).to_contain_text(path)
    expect(code).to_contain_text(f'"model": "{model}"')
    page.get_by_role("button", name="I have copied the key").click()

    page.get_by_role("button", name="Rotate").click()
    page.get_by_role("dialog").get_by_role("button", name="Rotate").click()
    expect(code).to_contain_text(f'"model": "{model}"')


def test_what_is_wrong_with_a_new_key_is_said_in_the_dialog(visit: Visit, new_key: NewKey) -> None:
    name, _ = new_key()
    page = visit.admin("keys")
    page.get_by_role("button", name="New key").click()
    page.get_by_label("Name").fill(name)
    page.get_by_role("button", name="Make the key").click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("There is a key named")
    visit.expect_refusals()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_every_limit_and_detail_can_be_given_and_changed(visit: Visit, server: Server) -> None:
    page = visit.admin("keys")
    page.get_by_role("button", name="New key").click()
    page.get_by_label("Name").fill("detailed")
    page.get_by_label("Note").fill("for the workshop")
    page.get_by_label("Expires", exact=True).select_option("In a week")
    assert _limit_names(page) == list(BY_NAME), "the form offers every limit, in the order of the table"
    limits = {name: number for number, name in enumerate(BY_NAME, start=1)}
    for name, number in limits.items():
        page.locator(f"input[name={name}]").fill(str(number))
    page.get_by_label("Codex").uncheck()
    page.get_by_label("Web search").check()
    page.get_by_label("Only these models").fill("claude-sonnet-5-5, claude-haiku-5")
    page.get_by_role("button", name="Make the key").click()
    page.get_by_role("button", name="I have copied the key").click()
    key = server.admin("GET", "/keys/detailed").json
    assert key["ownLimits"] == limits
    assert (key["note"], key["providers"]) == ("for the workshop", ["claude"])
    assert key["models"] == ["claude-sonnet-5-5", "claude-haiku-5"]
    assert key["expiresAt"] is not None
    assert key["webSearch"] is True
    expect(page.locator("dt", has_text="Web search").locator("+ dd")).to_have_text("allowed")
    expect_every_limit(page)

    page.get_by_role("button", name="Edit").click()
    expect(page.locator("input[name=maxCostPerDay]")).to_have_value(str(limits["maxCostPerDay"]))
    page.locator("input[name=maxCostPerDay]").fill("0.25")
    page.get_by_label("Codex").check()
    page.get_by_label("Web search").uncheck()
    page.get_by_label("Expires", exact=True).select_option("Never")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("of $0.25")).to_be_visible()
    key = server.admin("GET", "/keys/detailed").json
    assert key["ownLimits"] == {**limits, "maxCostPerDay": 0.25}
    assert (key["providers"], key["expiresAt"], key["webSearch"]) == (None, None, False)


def _limit_names(page: Page) -> list[str]:
    return [name for name in page.locator("dialog input[type=number]").evaluate_all("all => all.map((i) => i.name)")]


def test_an_edit_that_changes_nothing_leaves_the_key_as_it_is(visit: Visit, server: Server) -> None:
    server.admin("POST", "/keys", {"name": "untouched", "maxCostPerDay": 3, "expiresAt": "2099-01-01T12:00:00Z"})
    before = server.admin("GET", "/keys/untouched").json
    page = visit.admin("keys/untouched")
    page.get_by_role("button", name="Edit").click()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert server.admin("GET", "/keys/untouched").json == before


def test_rotating_with_grace_gives_a_new_secret_and_the_old_one_goes_on(
    visit: Visit, server: Server, new_key: NewKey
) -> None:
    name, old = new_key()
    page = visit.admin(f"keys/{name}")
    page.get_by_role("button", name="Rotate").click()
    page.get_by_label("The old secret stops working").select_option("In an hour")
    page.get_by_role("dialog").get_by_role("button", name="Rotate").click()
    new = page.locator("#new-key").inner_text()
    page.get_by_role("button", name="I have copied the key").click()
    expect(page.get_by_text("works until")).to_be_visible()
    assert new != old
    assert [server.call("GET", "/me", key=each).status for each in (old, new)] == [200, 200]

    page.get_by_role("button", name="Rotate").click()
    page.get_by_role("dialog").get_by_role("button", name="Rotate").click()
    newest = page.locator("#new-key").inner_text()
    page.get_by_role("button", name="I have copied the key").click()
    assert [server.call("GET", "/me", key=each).status for each in (old, new, newest)] == [401, 401, 200]


def test_a_disabled_key_is_told_so_in_the_playground_and_can_be_enabled(visit: Visit, new_key: NewKey) -> None:
    name, secret = new_key()
    play = visit.holder(secret)
    page = visit.admin("keys")
    page.get_by_role("button", name=f"Disable {name}", exact=True).click()
    expect(page.get_by_role("button", name=f"Enable {name}", exact=True)).to_be_visible()
    # Under the pointer the message with its button stays, however long the playground takes.
    page.locator(".toast").hover()
    play.get_by_label("Prompt", exact=True).fill("Still there?")
    play.get_by_role("button", name="Send").click()
    expect(play.get_by_role("alert")).to_contain_text("This key is disabled.")
    expect(play.get_by_role("alert")).to_contain_text("Ask your admin to enable this key.")
    visit.expect_refusals()
    page.get_by_role("button", name="Undo").first.click()
    expect(page.get_by_role("button", name=f"Disable {name}", exact=True)).to_be_visible()
    play.get_by_role("button", name="Send").click()
    expect(play.get_by_role("region", name="Answer")).to_contain_text("Still there?")


def test_revoking_asks_first_and_ends_the_key_for_good(visit: Visit, server: Server, new_key: NewKey) -> None:
    name, secret = new_key()
    page = visit.admin(f"keys/{name}")
    page.get_by_role("button", name="Revoke").click()
    page.get_by_role("button", name="Cancel").click()
    assert server.call("GET", "/me", key=secret).status == 200
    page.get_by_role("button", name="Revoke").click()
    page.get_by_role("button", name="Revoke the key").click()
    expect(page.get_by_role("heading", name="Keys", level=1)).to_be_visible()
    expect(page.get_by_role("link", name=name, exact=True)).to_have_count(0)
    assert server.call("GET", "/me", key=secret).status == 401
    page.get_by_label("Show revoked keys").check()
    expect(page.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True))).to_contain_text(
        "revoked"
    )


def test_a_revoked_key_keeps_its_page_to_look_at(visit: Visit, server: Server, new_key: NewKey) -> None:
    name, secret = new_key()
    assert server.call("POST", "/generate", {"userPrompt": "before the end"}, key=secret).status == 200
    page = visit.admin(f"keys/{name}")
    expect(page.get_by_role("button", name="Rotate")).to_be_visible()
    # Somebody else revokes it while its page is open.
    server.admin("DELETE", f"/keys/{name}")
    expect(page.get_by_role("button", name="Rotate")).to_have_count(0)
    visit.go(page, "keys")
    page.get_by_label("Show revoked keys").check()
    page.get_by_role("link", name=name, exact=True).click()
    expect(page.locator(".page-head")).to_contain_text("revoked")
    expect(page.locator("main").get_by_role("button", name=re.compile("Edit|Rotate|able|Reset|Revoke"))).to_have_count(
        0
    )
    expect(page.get_by_text("opens nothing any more")).to_be_visible()
    expect(page.get_by_role("table", name="Last requests of this key")).to_contain_text("before the end")

    visit.go(page, "keys/never-was")
    expect(page.get_by_text("There is no such key")).to_be_visible()
    visit.expect_refusals()


def test_resetting_usage_gives_the_caps_their_room_back(visit: Visit, server: Server, new_key: NewKey) -> None:
    name, secret = new_key(maxRequestsPerDay=1)
    assert server.call("POST", "/generate", {"userPrompt": "x"}, key=secret).status == 200
    assert server.call("POST", "/generate", {"userPrompt": "x"}, key=secret).status == 429
    page = visit.admin(f"keys/{name}")
    expect(page.get_by_role("meter", name="Requests today")).to_have_attribute("aria-valuenow", "100")
    page.get_by_role("button", name="Reset usage").click()
    page.get_by_role("dialog").get_by_role("button", name="Reset usage").click()
    expect(page.get_by_role("meter", name="Requests today")).to_have_attribute("aria-valuenow", "0")
    assert server.call("POST", "/generate", {"userPrompt": "x"}, key=secret).status == 200


def test_keys_can_be_searched_and_sorted_and_stay_in_their_places_while_figures_change(
    visit: Visit, server: Server
) -> None:
    near = server.new_key("zz-near", maxRequestsPerDay=2, note="the one that is near")
    far = server.new_key("aa-far", maxRequestsPerDay=10)
    server.call("POST", "/generate", {"userPrompt": "x"}, key=near)
    page = visit.admin("keys")
    names = page.locator("tbody .key-name")
    expect(names.first).to_be_visible()
    order = names.all_inner_texts()
    assert order.index("zz-near") < order.index("aa-far")
    page.get_by_label("Sort keys").select_option("Sort: Name")
    assert names.all_inner_texts() == sorted(names.all_inner_texts())

    page.get_by_label("Sort keys").select_option("Sort: Closest to a cap")
    before = names.all_inner_texts()
    for _ in range(6):
        server.call("POST", "/generate", {"userPrompt": "x"}, key=far)
    expect(page.get_by_role("row").filter(has_text="aa-far").get_by_role("meter")).to_have_attribute(
        "aria-valuenow", "60"
    )
    assert names.all_inner_texts() == before

    page.get_by_label("Search keys").fill("ONE THAT IS NEAR")
    expect(names).to_have_text(["zz-near"])
    page.get_by_label("Search keys").fill("no such key")
    expect(page.get_by_text("No key matches")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_bar_says_in_words_what_it_shows(visit: Visit, server: Server, scheme: str) -> None:
    name = f"bars-{scheme}"
    server.new_key(name, maxCostPerDay=2.5, maxTokensPerMonth=1000)
    page = visit.admin(f"keys/{name}")
    expect(page.get_by_role("meter", name="Cost today")).to_have_attribute(
        "aria-valuetext", "$0.00 used, $0.00 reserved, $2.50 left of $2.50 (0%)"
    )
    expect(page.get_by_role("meter", name="Tokens this month")).to_have_attribute(
        "aria-valuetext", "0 used, 0 reserved, 1,000 left of 1,000 (0%)"
    )
    expect(page.get_by_text("midnight in UTC").first).to_be_visible()


def test_names_of_models_are_suggested_and_checked(visit: Visit) -> None:
    page = visit.admin("keys")
    page.get_by_role("button", name="New key").click()
    field = page.get_by_label("Only these models")
    field.fill("claude-sonet-5-5, lun")
    offers = page.get_by_role("group", name="Models to add")
    expect(page.get_by_text("No known model is called claude-sonet-5-5: claude-sonnet-5-5, perhaps?")).to_be_visible()
    offers.get_by_role("button", name="gpt-6-luna", exact=True).click()
    expect(field).to_have_value("claude-sonet-5-5, gpt-6-luna, ")
    expect(field).to_be_focused()
    field.fill("gpt-typo")
    page.get_by_label("Note").focus()
    expect(page.get_by_text("No known model is called gpt-typo")).to_be_visible()
    field.fill("claude-sonnet-5-5, gpt-6-luna")
    page.get_by_label("Note").focus()
    expect(page.get_by_text("No known model is called")).to_have_count(0)


def test_a_key_that_has_searched_the_web_says_how_often(visit: Visit, server: Server) -> None:
    server.new_key("searcher", webSearch=True)
    searched = server.admin("GET", "/keys/searcher").json
    searched["usage"]["thisMonth"]["searches"] = 2
    page = visit.admin()
    page.route("**/admin/keys/searcher", lambda route: route.fulfill(json=searched))
    visit.go(page, "keys/searcher")
    expect(page.locator("main")).to_contain_text("allowed, 2 searches this month")


#: What browsers have since some month of 2024, and not since its beginning.
OF_2024 = """
delete Map.groupBy; delete Object.groupBy; delete Array.fromAsync; delete Promise.withResolvers; delete Promise.try;
for (const name of ["union", "intersection", "difference", "isSubsetOf", "isSupersetOf"]) delete Set.prototype[name];
"""


def test_a_browser_of_the_beginning_of_2024_is_new_enough(visit: Visit, server: Server) -> None:
    key = server.new_key("old-browser", models=["claude-sonet-5-5"])
    visit.context.add_init_script(OF_2024)
    page = visit.admin("keys/old-browser")
    page.get_by_role("button", name="Edit").click()
    expect(page.get_by_text("claude-sonnet-5-5, perhaps?")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    play = visit.holder(key)
    play.get_by_role("link", name="My usage").click()
    expect(play.get_by_text("No requests yet")).to_be_visible()


def test_a_key_that_was_made_is_shown_also_where_its_dialog_was_left_meanwhile(visit: Visit) -> None:
    page = visit.admin("keys")
    held: list[Route] = []

    def hold(route: Route) -> None:
        if route.request.method == "POST":
            held.append(route)
        else:
            route.continue_()

    page.route("**/admin/keys", hold)
    page.get_by_role("button", name="New key").click()
    page.get_by_label("Name").fill("left-too-early")
    with page.expect_request(lambda request: request.method == "POST"):
        page.get_by_role("button", name="Make the key").click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    held[0].continue_()
    expect(page.locator("#new-key")).to_be_visible()
    page.get_by_role("button", name="I have copied the key").click()
