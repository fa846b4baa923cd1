"""The playground as a place to work in: conversations, several models at once, and nothing that was written is lost."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, Request, Route, expect

from tests.browser.conftest import Visit, profile
from tests.browser.test_safety import stream_of
from tests.support import server as servers
from tests.support.server import Server

NewKey = Callable[..., tuple[str, str]]
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def prompt(page: Page, text: str) -> None:
    page.get_by_label("Prompt", exact=True).fill(text)


def send(page: Page, text: str) -> None:
    prompt(page, text)
    page.get_by_role("button", name="Send", exact=True).click()


def answered(page: Page, question: str) -> None:
    """The newest answer is there, and it answers that."""
    expect(page.get_by_role("region", name="Answer", exact=True)).to_contain_text(question)
    expect(page.get_by_label("Go on", exact=True)).to_be_visible()


def reply(page: Page, text: str) -> None:
    page.get_by_label("Go on", exact=True).fill(text)
    page.get_by_role("button", name="Reply", exact=True).click()


def told(messages: list[dict[str, object]]) -> list[tuple[str, str]]:
    """The texts of messages, with who said each."""
    return [
        (str(each["role"]), "".join(part.get("text", "") for part in each["content"]))  # type: ignore[attr-defined]
        for each in messages
    ]


def sent_by(page: Page, path: str, action: Callable[[], None]) -> dict[str, object]:
    with page.expect_request(path) as caught:
        action()
    body = caught.value.post_data_json
    assert isinstance(body, dict)
    return body


# --- a conversation ---------------------------------------------------------------------------------------


def test_a_second_turn_has_all_that_was_said_before(visit: Visit, new_key: NewKey) -> None:
    page = visit.holder(new_key()[1])
    send(page, "The first thing")
    answered(page, "The first thing")
    first = page.get_by_role("region", name="Answer", exact=True).inner_text()
    body = sent_by(page, "**/generate", lambda: reply(page, "The second thing"))
    assert "userPrompt" not in body
    assert told(body["messages"]) == [  # type: ignore[arg-type]
        ("user", "The first thing"),
        ("assistant", first),
        ("user", "The second thing"),
    ]
    answered(page, "The second thing")
    page.get_by_label("Go on", exact=True).fill("The third thing")
    body = sent_by(page, "**/generate", lambda: page.keyboard.press("Control+Enter"))
    assert len(body["messages"]) == 5  # type: ignore[arg-type]
    answered(page, "The third thing")
    expect(page.locator(".turn")).to_have_count(3)
    expect(page.locator(".turn").first).to_contain_text("The first thing")
    # A new prompt begins anew.
    send(page, "Something else")
    answered(page, "Something else")
    expect(page.locator(".turn")).to_have_count(1)


def test_a_question_can_be_asked_differently(visit: Visit, new_key: NewKey) -> None:
    page = visit.holder(new_key()[1])
    send(page, "Begin")
    answered(page, "Begin")
    reply(page, "Wrong turn")
    answered(page, "Wrong turn")
    reply(page, "Further on")
    answered(page, "Further on")
    page.get_by_role("button", name="Edit").nth(1).click()
    field = page.get_by_label("Ask it differently")
    expect(field).to_be_focused()
    expect(field).to_have_value("Wrong turn")
    field.fill("Right turn")
    body = sent_by(page, "**/generate", lambda: page.get_by_role("button", name="Ask again").click())
    assert [text for who, text in told(body["messages"]) if who == "user"] == ["Begin", "Right turn"]  # type: ignore[arg-type]
    answered(page, "Right turn")
    expect(page.locator(".turn")).to_have_count(2)
    # The way that was left can be taken again.
    page.get_by_text("Last prompts (2)").click()
    page.get_by_role("button", name=re.compile("^Begin")).nth(1).click()
    expect(page.locator(".turn")).to_have_count(3)
    answered(page, "Further on")
    page.get_by_role("button", name="Edit").first.click()
    expect(page.get_by_label("Prompt", exact=True)).to_be_focused()


def test_a_conversation_goes_on_by_keyboard_alone(visit: Visit, new_key: NewKey) -> None:
    page = visit.holder(new_key()[1])
    words = page.get_by_label("Go on", exact=True)
    page.keyboard.type("Begin")
    page.keyboard.press("Control+Enter")
    answered(page, "Begin")
    words.focus()
    page.keyboard.type("Second")
    page.keyboard.press("Control+Enter")
    answered(page, "Second")
    # Whoever has replied goes on where the next words are written.
    expect(words).to_be_focused()
    edit = page.get_by_role("button", name="Edit").last
    edit.focus()
    page.keyboard.press("Enter")
    for key in ("Tab", "Tab", "Enter"):  # Ask again, Cancel
        page.keyboard.press(key)
    expect(edit).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Control+A")
    page.keyboard.type("Second, differently")
    page.keyboard.press("Control+Enter")
    answered(page, "Second, differently")
    expect(words).to_be_focused()


def test_an_answer_that_is_stopped_leaves_the_focus_where_one_goes_on(slow: Visit) -> None:
    page = slow.holder(slow.server.new_key("stops-by-keyboard"))
    page.keyboard.type("Never ends [[long]]")
    send_button = page.get_by_role("button", name="Send", exact=True)
    send_button.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Stop", exact=True)).to_be_focused()
    page.keyboard.press("Enter")
    expect(send_button).to_be_focused()
    compare(page, "codex gpt-6-luna")
    send_button.focus()
    page.keyboard.press("Enter")
    for model in ("claude-sonnet-5-5", "gpt-6-luna"):
        page.get_by_role("button", name=f"Stop: {model}").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name=f"Stop: {model}")).to_have_count(0)
        assert page.evaluate("document.activeElement.tagName") != "BODY"


def test_an_answer_that_a_reload_ends_has_not_failed(slow: Visit) -> None:
    page = slow.holder(slow.server.new_key("reloads"))
    send(page, "Never ends")
    expect(page.locator(".answer-text")).to_contain_text("[demo")
    page.reload()
    expect(page.get_by_text("The page was left before its end; what was used is charged.")).to_be_visible()
    expect(page.locator(".answer-text")).to_contain_text("[demo")


def test_images_of_the_first_words_go_along(visit: Visit, new_key: NewKey) -> None:
    page = visit.holder(new_key()[1])
    page.get_by_label("Add images").set_input_files([{"name": "a.png", "mimeType": "image/png", "buffer": PIXEL}])  # type: ignore[list-item]
    expect(page.get_by_role("img", name="a.png")).to_be_visible()
    send(page, "Look")
    answered(page, "Look")
    page.reload()
    answered(page, "Look")
    expect(page.get_by_role("img", name="a.png")).to_be_visible()
    body = sent_by(page, "**/generate", lambda: reply(page, "And now?"))
    first = body["messages"][0]["content"]  # type: ignore[index]
    assert [part["type"] for part in first] == ["image", "text"]
    assert first[0]["data"] == base64.b64encode(PIXEL).decode()


def test_what_a_reply_may_cost_stands_beside_it(visit: Visit, new_key: NewKey) -> None:
    page = visit.holder(new_key(maxCostPerDay=4)[1])
    send(page, "Begin")
    answered(page, "Begin")
    with page.expect_request("**/generate/estimate") as caught:
        page.get_by_label("Go on", exact=True).fill("And then?")
        page.get_by_label("Go on", exact=True).press("End")
    assert caught.value.post_data_json is not None
    expect(page.locator(".reply").get_by_text("left today · up to")).to_be_visible()


# --- nothing is lost --------------------------------------------------------------------------------------


def options(page: Page) -> None:
    page.get_by_text("System prompt, length, schema, tools").click()


def kept(page: Page, text: str) -> None:
    """Wait until the browser has kept a text."""
    page.wait_for_function("(text) => Object.values(localStorage).some((each) => each.includes(text))", arg=text)


def test_a_reload_loses_nothing(visit: Visit, new_key: NewKey) -> None:
    page = visit.holder(new_key()[1])
    options(page)
    page.get_by_label("System prompt").fill("Be brief")
    page.get_by_label("Effort").select_option("low")
    page.get_by_role("button", name="Codex").click()
    page.get_by_label("Model").fill("gpt-6-luna")
    send(page, "Asked before")
    answered(page, "Asked before")
    meta = page.locator(".meta").inner_text()
    page.get_by_label("Go on", exact=True).fill("half a reply")
    prompt(page, "half a prompt")
    page.reload()
    answered(page, "Asked before")
    expect(page.locator(".meta")).to_have_text(meta.replace("\n", ""))
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("half a prompt")
    expect(page.get_by_label("Go on", exact=True)).to_have_value("half a reply")
    expect(page.get_by_role("button", name="Codex")).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_label("Model")).to_have_value("gpt-6-luna")
    # What is made of it is that of the draft, too: its code, and what it may cost.
    for part in ("/generate-codex", "half a prompt"):
        expect(page.get_by_role("region", name="Code")).to_contain_text(part)
    expect(page.get_by_text(re.compile(r"up to .* for this one"))).to_have_count(2)
    options(page)
    expect(page.get_by_label("System prompt")).to_have_value("Be brief")
    expect(page.get_by_label("Effort")).to_have_value("low")


def test_a_closed_tab_loses_nothing(visit: Visit, new_key: NewKey) -> None:
    _, secret = new_key()
    page = visit.holder(secret)
    send(page, "Before the tab was closed")
    answered(page, "Before the tab was closed")
    page.close(run_before_unload=False)
    page = visit.holder(secret)
    answered(page, "Before the tab was closed")
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("Before the tab was closed")


def test_a_key_that_ends_loses_nothing_and_the_next_one_goes_on(visit: Visit, server: Server, new_key: NewKey) -> None:
    name, secret = new_key()
    page = visit.holder(secret)
    send(page, "Said before")
    answered(page, "Said before")
    rotated = server.admin("POST", f"/keys/{name}/rotate", {"graceSeconds": 0}).json["key"]
    page.get_by_label("Go on", exact=True).fill("Said when it had ended")
    page.get_by_role("button", name="Reply", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("This key is not valid.")
    expect(page.get_by_text("What you wrote is still there")).to_be_visible()
    visit.expect_refusals()
    page.get_by_label("Your key").fill(rotated)
    page.keyboard.press("Enter")
    answered(page, "Said before")
    expect(page.get_by_label("Go on", exact=True)).to_have_value("Said when it had ended")
    expect(page.get_by_text("Last prompts (1)")).to_be_visible()
    page.get_by_role("button", name="Reply", exact=True).click()
    answered(page, "Said when it had ended")


def test_two_tabs_with_two_keys_do_not_mix(visit: Visit, new_key: NewKey) -> None:
    (_, ours), (_, theirs) = new_key(), new_key()
    one, other = visit.holder(ours), visit.holder(theirs)
    for page, text in ((one, "Of the one"), (other, "Of the other")):
        send(page, text)
        answered(page, text)
        kept(page, text)
    one.reload()
    answered(one, "Of the one")
    one.get_by_role("button", name="Forget key").click()
    one.get_by_label("Your key").fill(theirs)
    one.keyboard.press("Enter")
    answered(one, "Of the other")
    expect(one.get_by_text("Of the one")).to_have_count(0)


def test_no_key_is_ever_kept_beyond_its_tab(visit: Visit, new_key: NewKey) -> None:
    _, secret = new_key()
    page = visit.holder(secret)
    send(page, "Kept")
    answered(page, "Kept")
    kept(page, "Kept")
    assert page.evaluate("(key) => JSON.stringify(localStorage).includes(key)", secret) is False
    assert page.evaluate("document.cookie") == ""


def test_earlier_prompts_come_back_at_one_press_and_can_be_forgotten(visit: Visit, new_key: NewKey) -> None:
    _, secret = new_key()
    page = visit.holder(secret)
    send(page, "The first prompt")
    answered(page, "The first prompt")
    page.get_by_role("button", name="Codex").click()
    send(page, "The second prompt")
    answered(page, "The second prompt")
    page.get_by_text("Last prompts (2)").click()
    page.get_by_role("button", name=re.compile("^The first prompt")).click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("The first prompt")
    expect(page.get_by_role("button", name="Claude")).to_have_attribute("aria-pressed", "true")
    answered(page, "The first prompt")
    page.get_by_role("button", name="Forget them all").click()
    page.get_by_role("button", name="Forget it").click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("")
    expect(page.get_by_text("Last prompts")).to_be_hidden()
    page.reload()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("")
    assert page.evaluate("Object.keys(localStorage)") == []


def test_the_last_fifty_prompts_are_remembered(visit: Visit, new_key: NewKey) -> None:
    page = visit.holder(new_key()[1])
    send(page, "Number 0")
    answered(page, "Number 0")
    page.evaluate(
        """() => {
          const name = Object.keys(localStorage).find((each) => each.endsWith(" past"));
          const [entry] = JSON.parse(localStorage[name]);
          const all = Array.from({ length: 60 }, (_, place) => ({ ...entry, at: entry.at - place }));
          localStorage[name] = JSON.stringify(all);
        }"""
    )
    send(page, "One more")
    answered(page, "One more")
    expect(page.get_by_text("Last prompts (50)")).to_be_visible()


def test_a_gate_offers_to_forget_what_is_kept(visit: Visit, new_key: NewKey) -> None:
    _, secret = new_key()
    page = visit.open("/")
    button = page.get_by_role("button", name="Forget the prompts and answers that this browser keeps")
    expect(page.get_by_label("Your key")).to_be_visible()
    expect(button).to_have_count(0)
    page = visit.holder(secret)
    send(page, "Secret plans")
    answered(page, "Secret plans")
    page.get_by_role("button", name="Forget key").click()
    button = page.get_by_role("button", name="Forget the prompts and answers that this browser keeps")
    button.click()
    expect(button).to_have_count(0)
    assert page.evaluate("[Object.keys(localStorage), Object.keys(sessionStorage)]") == [[], []]


@pytest.mark.parametrize("how", ["none", "full"])
def test_without_storage_or_room_it_is_said_and_nothing_is_lost(visit: Visit, new_key: NewKey, how: str) -> None:
    scripts = {
        "none": """for (const name of ["localStorage", "sessionStorage"])
          Object.defineProperty(window, name, { get() { throw new DOMException("no", "SecurityError"); } });""",
        "full": """Storage.prototype.setItem = () => { throw new DOMException("full", "QuotaExceededError"); };""",
    }
    visit.context.add_init_script(scripts[how])
    page = visit.holder(new_key()[1])
    send(page, "Still works")
    answered(page, "Still works")
    expect(page.get_by_text("This browser has no room left, or keeps nothing")).to_be_visible()
    reply(page, "And goes on")
    answered(page, "And goes on")
    page.get_by_text("Last prompts (1)").click()
    page.get_by_role("link", name="My usage").click()
    page.get_by_role("link", name="Playground", exact=True).click()
    answered(page, "And goes on")


def test_where_there_is_little_room_the_oldest_answers_go_first(visit: Visit, new_key: NewKey) -> None:
    visit.context.add_init_script(
        """const set = Storage.prototype.setItem;
        Storage.prototype.setItem = function (name, text) {
          if (text.length > 9000) throw new DOMException("full", "QuotaExceededError");
          set.call(this, name, text);
        };"""
    )
    page = visit.holder(new_key()[1])
    for number in range(4):
        send(page, f"{number} " + "x" * 700)
        answered(page, f"{number} x")
    page.get_by_text("Last prompts (4)").click()
    page.get_by_role("button", name=re.compile("^0 x")).click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value(re.compile("^0 x"))
    expect(page.locator(".turn")).to_have_count(0)
    page.get_by_role("button", name=re.compile("^3 x")).click()
    expect(page.locator(".turn")).to_have_count(1)


def test_what_is_on_the_bench_has_room_before_old_prompts(visit: Visit, new_key: NewKey) -> None:
    visit.context.add_init_script(
        """const set = Storage.prototype.setItem;
        Storage.prototype.setItem = function (name, text) {
          const others = Object.keys(this).filter((each) => each !== name).map((each) => this[each].length);
          const all = others.reduce((a, b) => a + b, text.length);
          if (all > 12000) throw new DOMException("full", "QuotaExceededError");
          set.call(this, name, text);
        };"""
    )
    page = visit.holder(new_key()[1])
    for number in range(3):
        send(page, f"{number} " + "x" * 700)
        answered(page, f"{number} x")
    prompt(page, "y" * 7000)
    kept(page, "y" * 7000)
    expect(page.get_by_text("This browser has no room left")).to_be_hidden()
    prompt(page, "z" * 20_000)
    expect(page.get_by_text("This browser has no room left")).to_be_visible()
    kept(page, "y" * 7000)


def put_on_the_bench(page: Page, secret: str, text: str) -> None:
    """Come back with the key to what another version kept; while the key is away, no page writes over it."""
    page.get_by_role("button", name="Forget key").click()
    expect(page.get_by_label("Your key")).to_be_visible()
    page.evaluate(
        """(text) => {
          const benches = Object.keys(localStorage).filter((name) => name.endsWith(" bench"));
          if (benches.length !== 1) throw new Error(`${benches.length} benches`);
          localStorage[benches[0]] = text;
        }""",
        text,
    )
    page.get_by_label("Your key").fill(secret)
    page.keyboard.press("Enter")
    expect(page.get_by_label("Prompt", exact=True)).to_be_visible()


def test_what_another_version_kept_does_no_harm(visit: Visit, new_key: NewKey) -> None:
    _, secret = new_key()
    page = visit.holder(secret)
    send(page, "Of now")
    answered(page, "Of now")
    kept(page, "Of now")
    for broken in ("{", '{"form": 1}', "[]", '{"form": {"rivals": []}, "talk": {"turns": [{}]}}'):
        put_on_the_bench(page, secret, broken)
        send(page, "Goes on")
        answered(page, "Goes on")


@pytest.mark.parametrize("broken", ["5", '{"at": 1}', '[null, 1, {"at": 1}, {"at": "x", "form": {}, "turns": []}]'])
def test_last_prompts_of_another_version_do_no_harm(visit: Visit, new_key: NewKey, broken: str) -> None:
    page = visit.holder(new_key()[1])
    send(page, "Of now")
    answered(page, "Of now")
    page.evaluate(
        """(broken) => {
          for (const name of Object.keys(localStorage)) if (name.endsWith(" past")) localStorage[name] = broken;
        }""",
        broken,
    )
    send(page, "Goes on")
    answered(page, "Goes on")
    page.get_by_text("Last prompts (1)").click()
    expect(page.get_by_role("button", name=re.compile("^Goes on"))).to_be_visible()


def test_a_bench_that_lacks_something_is_shown_as_far_as_it_goes(visit: Visit, new_key: NewKey) -> None:
    _, secret = new_key()
    page = visit.holder(secret)
    prompt(page, "Of now")
    kept(page, "Of now")
    put_on_the_bench(page, secret, '{"form": {"prompt": "From before", "rivals": []}, "talk": {"turns": [{}]}}')
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("From before")
    options(page)
    expect(page.get_by_label("Tools to offer, as JSON")).to_have_value("")
    page.get_by_role("button", name="Send", exact=True).click()
    answered(page, "From before")


def test_a_connection_that_is_lost_in_the_middle_loses_nothing_that_was_said(visit: Visit, new_key: NewKey) -> None:
    page = visit.holder(new_key()[1])
    send(page, "Begin")
    answered(page, "Begin")
    page.evaluate(
        """(text) => {
          const ask = window.fetch;
          const start = (stream) => {
            stream.enqueue(new TextEncoder().encode(text));
            window.lose = () => stream.error(new TypeError("network error"));
          };
          window.fetch = (path, options) =>
            path === "/generate" ? Promise.resolve(new Response(new ReadableStream({ start }))) : ask(path, options);
        }""",
        stream_of(("start", {"id": "run_1", "model": "m"}), ("delta", {"text": "the first half"})),
    )
    reply(page, "And then?")
    expect(page.get_by_role("region", name="Answer", exact=True)).to_have_text("the first half")
    page.evaluate("window.lose()")
    expect(page.get_by_role("alert")).to_contain_text("The answer broke off before its end.")
    expect(page.get_by_label("Go on", exact=True)).to_be_visible()
    page.reload()
    expect(page.locator(".turn")).to_have_count(2)
    expect(page.get_by_role("alert")).to_contain_text("The answer broke off before its end.")
    answered(page, "the first half")


def test_the_first_steps_do_not_write_over_what_was_typed_since(visit: Visit, new_key: NewKey) -> None:
    page = visit.open("/#/first")
    page.get_by_label("Your key").fill(new_key()[1])
    page.keyboard.press("Enter")
    expect(page.get_by_label("Prompt", exact=True)).to_have_value(re.compile("^Say hello to"))
    prompt(page, "Something of my own")
    page.reload()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("Something of my own")


def test_the_first_text_is_never_later_than_all_of_it(visit: Visit, new_key: NewKey) -> None:
    page = visit.holder(new_key()[1])
    done = {
        "id": "run_1",
        "model": "m",
        "content": [{"type": "text", "text": "Here"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 1, "output_tokens": 1},
        "cost_usd": 0.5,
        "duration_ms": 0,
    }
    body = stream_of(("start", {"id": "run_1", "model": "m"}), ("delta", {"text": "Here"}), ("done", done))
    page.route("**/generate", lambda route: route.fulfill(status=200, content_type="text/event-stream", body=body))
    send(page, "Where?")
    answered(page, "Here")
    for _ in range(2):
        text = page.locator(".meta").text_content() or ""
        first, whole = (re.search(rf"{name} ([\d.]+) (m?s)", text) for name in ("First text", "Time"))
        assert first is not None
        assert whole is not None
        units = {"ms": 1, "s": 1000}
        assert 0 < float(first[1]) * units[first[2]] <= float(whole[1]) * units[whole[2]]
        page.reload()
        answered(page, "Here")


def test_prompt_and_answer_can_be_copied_and_saved_with_model_and_price(visit: Visit, new_key: NewKey) -> None:
    visit.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = visit.holder(new_key()[1])
    options(page)
    page.get_by_label("System prompt").fill("Be brief")
    send(page, "What is it?")
    answered(page, "What is it?")
    said = page.get_by_role("region", name="Answer", exact=True).inner_text()
    page.get_by_role("button", name="Copy prompt and answer").click()
    expect(page.locator(".answer-tools").get_by_role("button", name="Copied")).to_be_visible()
    text = page.evaluate("navigator.clipboard.readText()")
    assert re.fullmatch(
        r"System prompt:\nBe brief\n\nPrompt:\nWhat is it\?\n\nAnswer \(claude-sonnet-5-5, \S*\$0\.\d+, [^)]+\):\n"
        + re.escape(said),
        text,
    )
    with page.expect_download() as caught:
        page.get_by_role("button", name="Save as a file").click()
    assert re.fullmatch(r"answer-[\d-]+\.md", caught.value.suggested_filename)
    assert caught.value.path().read_text() == f"{text}\n"


def test_printing_shows_all_of_prompt_and_answer(visit: Visit, new_key: NewKey) -> None:
    page = visit.holder(new_key()[1])
    send(page, "Line of the prompt\n" * 200)
    answered(page, "Line of the prompt")
    page.emulate_media(media="print")
    for part in (".asked-text", ".answer-text"):
        box = page.locator(part)
        expect(box).to_be_visible()
        assert box.evaluate("(e) => e.scrollHeight <= e.clientHeight + 1")
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_hidden()
    expect(page.locator(".meta")).to_be_visible()


# --- models -----------------------------------------------------------------------------------------------


def test_the_models_that_a_key_may_use_are_offered_with_prices(visit: Visit, server: Server, new_key: NewKey) -> None:
    _, secret = new_key()
    listed = {each["id"]: each for each in server.call("GET", "/v1/models", key=secret).json["data"]}
    page = visit.holder(secret)
    offered = page.locator("datalist#models option")
    expect(offered).to_have_count(sum(each["provider"] == "claude" for each in listed.values()))
    expect(page.locator("datalist#models option[value='claude-sonnet-5-5']")).to_contain_text("out per million tokens")
    price = listed["claude-sonnet-5-5"]["pricing"]
    expect(page.locator("#model-hint")).to_contain_text(f"${price['input']:.2f} in, ")
    page.get_by_label("Model").fill("claude-made-up")
    expect(page.locator("#model-hint")).to_have_text("Not among the models with a known price: the dearest is counted.")
    page.get_by_label("Model").fill("gpt-6-luna")
    expect(page.locator("#model-hint")).to_contain_text("That is a model of Codex.")


def test_a_model_does_not_follow_to_the_other_cli(visit: Visit, new_key: NewKey) -> None:
    page = visit.holder(new_key()[1])
    page.get_by_label("Model").fill("claude-haiku-5-5")
    page.get_by_role("button", name="Codex").click()
    expect(page.get_by_label("Model")).to_have_value("")
    body = sent_by(page, "**/generate-codex", lambda: send(page, "Hello"))
    assert body["model"] == "gpt-6-sol"
    answered(page, "Hello")
    page.get_by_role("button", name="Claude").click()
    expect(page.get_by_label("Model")).to_have_value("claude-haiku-5-5")


def test_a_key_with_few_models_is_offered_these_and_told_of_others(visit: Visit, new_key: NewKey) -> None:
    page = visit.holder(new_key(models=["claude-haiku-5-5", "gpt-6-luna"])[1])
    expect(page.locator("datalist#models option")).to_have_count(1)
    page.get_by_label("Model").fill("claude-sonnet-5-5")
    expect(page.locator("#model-hint")).to_have_text("Your key may not use this one.")


# --- side by side -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """So slow that no answer ends by itself while a test looks at it."""
    with servers.running(tmp_path_factory.mktemp("paced"), {"DEMO_PACE_SECONDS": "1"}, demo=True) as running:
        yield running


@pytest.fixture
def slow(chromium: Browser, slow_server: Server) -> Iterator[Visit]:
    with profile(chromium, slow_server) as fresh:
        yield fresh


def compare(page: Page, *models: str) -> None:
    for place, model in enumerate(models):
        page.get_by_role("button", name="Compare", exact=True).click()
        page.get_by_label("Compared with").nth(place).select_option(model)


def test_one_prompt_goes_to_three_models_and_one_of_them_goes_on(visit: Visit, new_key: NewKey) -> None:
    name, secret = new_key(maxCostPerDay=4)
    page = visit.holder(secret)
    compare(page, "codex gpt-6-luna", "claude claude-haiku-5-5")
    expect(page.get_by_role("button", name="Compare", exact=True)).to_be_hidden()
    # Their prices are seen whole, also where the box of the choice is narrow.
    prices = {each["id"]: each["pricing"] for each in visit.server.call("GET", "/v1/models", key=secret).json["data"]}
    for place, model in enumerate(("gpt-6-luna", "claude-haiku-5-5")):
        told_ = re.compile(rf"^\S*\${prices[model]['input']:.2f} in, .* out per million tokens")
        expect(page.locator(".rivals .hint").nth(place)).to_have_text(told_)
    prompt(page, "Which is best?")
    expect(page.get_by_text(re.compile(r"left today · up to .* for all of them"))).to_be_visible()
    page.get_by_role("button", name="Send", exact=True).click()
    for model in ("claude-sonnet-5-5", "gpt-6-luna", "claude-haiku-5-5"):
        box = page.locator(".answer").filter(has=page.get_by_role("heading", name=model))
        expect(box.get_by_role("region", name=f"Answer of {model}")).to_contain_text("Which is best?")
        for part in ("Cost", "Time", "First text", "Tokens"):
            expect(box.locator(".meta")).to_contain_text(part)
        expect(box.get_by_role("button", name=f"Use this one: {model}")).to_be_visible()
    lines = visit.server.admin("GET", f"/logs?key={name}").json["logs"]
    assert {line["model"] for line in lines} == {"claude-sonnet-5-5", "gpt-6-luna", "claude-haiku-5-5"}
    page.reload()
    expect(page.locator(".answers.abreast .answer")).to_have_count(3)
    # Those that it was compared with are as they were, beside all others.
    expect(page.locator(".rivals .hint")).to_have_text([re.compile("per million tokens")] * 2)
    expect(page.get_by_label("Compared with").first.locator("optgroup")).to_have_count(2)
    page.get_by_role("button", name="Use this one: gpt-6-luna").click()
    expect(page.locator(".answer")).to_have_count(1)
    expect(page.get_by_label("Go on", exact=True)).to_be_focused()
    expect(page.get_by_label("Compared with")).to_have_count(0)
    expect(page.get_by_role("button", name="Compare", exact=True)).to_be_visible()
    body = sent_by(page, "**/generate-codex", lambda: reply(page, "Go on, then"))
    assert body["model"] == "gpt-6-luna"
    assert len(body["messages"]) == 3  # type: ignore[arg-type]
    answered(page, "Go on, then")


def test_no_more_models_are_compared_than_the_key_may_run_at_once(visit: Visit, new_key: NewKey) -> None:
    page = visit.holder(new_key(maxConcurrent=2)[1])
    compare(page, "codex gpt-6-luna")
    expect(page.get_by_role("button", name="Compare", exact=True)).to_be_hidden()
    send(page, "Both of you")
    expect(page.get_by_role("button", name="Use this one")).to_have_count(2)
    alone = visit.holder(new_key(maxConcurrent=1)[1])
    expect(alone.locator("datalist#models option")).not_to_have_count(0)
    expect(alone.get_by_role("button", name="Compare", exact=True)).to_be_hidden()


def test_each_of_several_answers_is_stopped_alone(slow: Visit) -> None:
    page = slow.holder(slow.server.new_key("compares"))
    compare(page, "codex gpt-6-luna")
    send(page, "A long one")
    ours = page.locator(".answer").filter(has=page.get_by_role("heading", name="claude-sonnet-5-5"))
    other = page.locator(".answer").filter(has=page.get_by_role("heading", name="gpt-6-luna"))
    for box in (ours, other):
        expect(box.get_by_role("region")).to_contain_text("[demo")
    page.get_by_role("button", name="Stop: gpt-6-luna").click()
    expect(other.get_by_text("Stopped", exact=True)).to_be_visible()
    expect(ours.get_by_role("region")).to_have_attribute("aria-busy", "true")
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(ours.get_by_text("Stopped", exact=True)).to_be_visible()
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_enabled()


def test_one_of_several_may_fail_and_the_other_is_there(visit: Visit, new_key: NewKey) -> None:
    page = visit.holder(new_key()[1])
    failing = {"error": "It did not work.", "code": "cli_failed", "hint": "Try again.", "request_id": "run_x"}

    def fail(route: Route, request: Request) -> None:
        route.fulfill(status=502, content_type="application/json", body=json.dumps(failing))

    page.route("**/generate-codex", fail)
    compare(page, "codex gpt-6-luna")
    send(page, "Both of you")
    expect(page.get_by_role("alert")).to_contain_text("It did not work.")
    page.get_by_role("button", name="Use this one: claude-sonnet-5-5").click()
    visit.expect_refusals()
    answered(page, "Both of you")
