"""A key on its way to the person: a message, a link, what people paste, several at once."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Visit
from tests.support.server import Server


def test_a_message_has_the_address_the_key_and_its_limits_in_plain_words(visit: Visit, server: Server) -> None:
    visit.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = visit.admin("keys")
    page.get_by_role("button", name="New key").click()
    expect(page.get_by_label("Name", exact=True)).to_be_focused()
    page.get_by_label("Name", exact=True).fill("for-jonas")
    page.get_by_label("Start from").select_option("Guest: $1 a day, for a week")
    page.get_by_label("Only these models").fill("claude-haiku-5")
    page.get_by_role("button", name="Make the key").click()
    secret = page.locator("#new-key").inner_text()
    message = page.get_by_role("region", name="Message")
    words = "at most $1.00 per day, 30 requests per minute, 100 requests per day, 1 request running at once."
    expect(message).to_contain_text(words)
    expect(message).to_contain_text("Models: claude-haiku-5.")
    expect(message).to_contain_text("It ends")
    expect(page.get_by_text("works on this computer only")).to_be_visible()
    page.get_by_role("button", name="Copy message").click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert secret in copied
    assert copied == message.inner_text()
    page.get_by_role("button", name="Copy link").click()
    link = page.evaluate("navigator.clipboard.readText()")
    assert link == f"{visit.address}/#key={secret}"
    assert link in copied

    # The link opens the playground. The key leaves the address before anything is asked, and is not sent in one.
    asked: list[str] = []
    play = visit.context.new_page()
    play.on("request", lambda request: asked.append(request.url))
    play.goto(link)
    expect(play.get_by_text("for-jonas")).to_be_visible()
    assert secret not in play.url
    assert not [url for url in asked if secret in url and not url.endswith(f"#key={secret}")]
    assert play.evaluate("performance.getEntries().filter((e) => e.name.includes('cb_')).length") <= 1
    play.reload()
    expect(play.get_by_text("for-jonas")).to_be_visible()


def test_a_link_works_in_a_tab_that_has_the_page_already(visit: Visit, server: Server) -> None:
    first, second = server.new_key("was-here"), server.new_key("came-later")
    page = visit.holder(first)
    expect(page.get_by_text("was-here")).to_be_visible()
    page.goto(f"{visit.address}/#key={second}")
    expect(page.get_by_text("came-later")).to_be_visible()
    assert second not in page.url


@pytest.mark.parametrize(
    "around",
    [
        "Bearer {}",
        "Authorization: Bearer {}",
        '-H "Authorization: Bearer {}"',
        "x-api-key: {}",
        '"{}"',
        "„{}“",
        "export KEY={}",
        "KEY='{}';",
        " {}\t\n",
        "Your key for Claude and Codex:\n{}\n\nTry it in the playground: https://example.org/",
        "https://example.org/#key={}",
    ],
)
def test_the_gate_takes_the_key_out_of_what_people_paste(visit: Visit, server: Server, around: str) -> None:
    name = f"pasted-{abs(hash(around))}"
    key = server.new_key(name)
    page = visit.open("/")
    page.get_by_label("Your key").fill(around.format(key).replace("\n", " "))
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_text(name)).to_be_visible()


def test_a_wrong_key_is_answered_in_words_for_people(visit: Visit) -> None:
    page = visit.open("/")
    for wrong, says in (
        ("cb_not-a-key-of-this-server-at-all", "Check that you have copied the whole key"),
        ("cba_an-admin-key-in-the-wrong-place", "It opens the dashboard, at /admin/."),
        ("schlüssel", "Check that you have copied the whole key"),
    ):
        page.get_by_label("Your key").fill(wrong)
        page.get_by_role("button", name="Go on").click()
        expect(page.get_by_role("alert")).to_contain_text(says)
        expect(page.get_by_label("Your key")).to_be_focused()
        expect(page.get_by_role("alert")).not_to_contain_text("Authorization")
    visit.expect_refusals()


def test_several_keys_are_made_from_a_list_of_names(visit: Visit, server: Server) -> None:
    visit.context.grant_permissions(["clipboard-read", "clipboard-write"])
    server.new_key("taken")
    page = visit.admin("keys")
    page.get_by_role("button", name="New key").click()
    page.get_by_label("Name", exact=True).fill("Who came first")
    page.get_by_label("Several keys at once").check()
    page.get_by_label("People or things, one in each line").fill("Zoë Müller\ntaken\nqa-2\nqa-2\n\n")
    page.get_by_label("Start from").select_option("Designer: $5 a day")
    page.get_by_role("button", name="Make the keys", exact=True).click()
    shown = page.get_by_role("dialog")
    expect(shown).to_contain_text("2 keys made")
    expect(shown.get_by_role("alert")).to_contain_text("taken: There is a key named")
    visit.expect_refusals()
    shown.get_by_role("button", name="Copy as table").click()
    lines = page.evaluate("navigator.clipboard.readText()").split("\n")
    assert [line.split("\t")[0] for line in lines] == ["Zoe-Muller", "qa-2"]
    for line in lines:
        name, key, link = line.split("\t")
        assert server.call("GET", "/me", key=key).json["name"] == name
        assert link == f"{visit.address}/#key={key}"
    assert server.admin("GET", "/keys/Zoe-Muller").json["note"] == "Zoë Müller"
    second = server.admin("GET", "/keys/qa-2").json
    assert (second["limits"]["maxCostPerDay"], second["note"]) == (5, "")
    shown.get_by_role("button", name="I have copied the keys").click()
    expect(page.get_by_role("link", name="Zoe-Muller")).to_be_visible()


def test_escape_leaves_a_form_that_was_filled_in_only_at_the_second_time(visit: Visit) -> None:
    page = visit.admin("keys")
    opener = page.get_by_role("button", name="New key")
    opener.click()
    page.get_by_label("Name", exact=True).fill("half")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_contain_text("Nothing of this is saved yet.")
    expect(page.get_by_label("Name", exact=True)).to_have_value("half")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(opener).to_be_focused()
