"""The playground of key holders: streaming, stopping, caps, images, schemas, code to copy, own usage."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from bridge.errors import CODES
from bridge.limits import BY_NAME
from tests.browser.conftest import Visit, expect_every_limit, profile
from tests.support import server as servers
from tests.support.server import Server

NewKey = Callable[..., tuple[str, str]]
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
#: Everything that a language could take for its own.
TRICKY = "It's \"quoted\" `ticked` $HOME $(id) ${x} \\n \\ %s {{}} </script> 'END'\nEND\n\tnew line 🫖 \u2028 ünï"


def prompt(page: Page, text: str) -> None:
    page.get_by_label("Prompt", exact=True).fill(text)


def send(page: Page, text: str) -> None:
    prompt(page, text)
    page.get_by_role("button", name="Send").click()


def options(page: Page) -> None:
    page.get_by_text("System prompt, length, schema, tools").click()


def answer(page: Page) -> str:
    return page.get_by_role("region", name="Answer").inner_text()


@pytest.fixture(scope="module")
def slow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One run at a time, and so slow that no answer ends by itself while a test looks at it."""
    pace = {"DEMO_PACE_SECONDS": "1", "BRIDGE_MAX_CONCURRENT": "1"}
    with servers.running(tmp_path_factory.mktemp("slow"), pace, demo=True) as running:
        yield running


@pytest.fixture
def slow(chromium: Browser, slow_server: Server) -> Iterator[Visit]:
    with profile(chromium, slow_server) as fresh:
        yield fresh


def test_a_wrong_key_is_told_so_and_the_right_one_is_kept_in_this_tab_only(visit: Visit, new_key: NewKey) -> None:
    name, secret = new_key()
    page = visit.open("/")
    page.get_by_label("Your key").fill("cb_not-a-key")
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_role("alert")).to_contain_text("This key is not valid.")
    visit.expect_refusals()
    page.get_by_label("Your key").fill(secret)
    page.keyboard.press("Enter")
    expect(page.get_by_text(name)).to_be_visible()
    assert page.evaluate("[Object.values(sessionStorage), Object.keys(localStorage), document.cookie]") == [
        [secret],
        [],
        "",
    ]
    page.reload()
    expect(page.get_by_text(name)).to_be_visible()
    expect(visit.open("/").get_by_label("Your key")).to_be_visible()
    page.get_by_role("button", name="Forget key").click()
    expect(page.get_by_label("Your key")).to_be_visible()
    assert page.evaluate("Object.values(sessionStorage)") == []


def test_the_answer_grows_while_it_is_written_and_ends_with_cost_and_time(slow: Visit) -> None:
    page = slow.holder(slow.server.new_key("streams"))
    send(page, "Hello")
    expect(page.get_by_role("region", name="Answer")).to_contain_text("[demo answer")
    first = answer(page)
    expect(page.get_by_role("region", name="Answer")).to_have_attribute("aria-busy", "true")
    expect(page.get_by_text("Answering")).to_be_visible()
    page.wait_for_function(
        "(before) => document.querySelector('.answer-text').textContent.length > before", arg=len(first)
    )
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("Stopped", exact=True)).to_be_visible()


def test_stopping_ends_the_run_on_the_server(slow: Visit) -> None:
    page = slow.holder(slow.server.new_key("stops"))
    send(page, "Something long")
    expect(page.get_by_role("region", name="Answer")).to_contain_text("[demo")
    # What another test has stopped may still be on its way to the log.
    assert [run["keyName"] for run in slow.server.admin("GET", "/runs").json["runs"]].count("stops") == 1
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Send")).to_be_enabled()
    rows: list[dict[str, object]] = []
    while not rows:
        rows = slow.server.admin("GET", "/logs?key=stops").json["logs"]
    assert rows[0]["code"] == "cancelled"


def test_escape_stops_an_answer_which_says_what_it_has_cost(slow: Visit) -> None:
    page = slow.holder(slow.server.new_key("escapes"))
    expect(page.get_by_text("Ctrl+Enter sends")).to_be_visible()
    send(page, "Something long")
    expect(page.get_by_role("region", name="Answer")).to_contain_text("[demo")
    expect(page.get_by_text("Esc stops")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_text("Stopped", exact=True)).to_be_visible()
    expect(page.get_by_text("Ctrl+Enter sends")).to_be_visible()
    expect(page.locator(".meta")).to_contain_text(re.compile(r"Stopped by you\..*Cost \S*\$0\.\d+"))


def test_the_keys_that_send_are_those_of_the_device(chromium: Browser, server: Server) -> None:
    key = server.new_key("on-devices")
    with profile(chromium, server) as visit:
        visit.context.add_init_script("Object.defineProperty(navigator, 'platform', { get: () => 'MacIntel' })")
        expect(visit.holder(key).get_by_text("⌘Enter sends")).to_be_visible()
    with profile(chromium, server, has_touch=True, is_mobile=True, viewport={"width": 390, "height": 780}) as visit:
        page = visit.holder(key)
        expect(page.get_by_role("button", name="Send")).to_be_visible()
        expect(page.get_by_text("Enter sends")).to_be_hidden()


def test_who_waits_hears_the_place_in_the_queue(slow: Visit) -> None:
    first, second = slow.holder(slow.server.new_key("goes-first")), slow.holder(slow.server.new_key("goes-second"))
    send(first, "One")
    expect(first.get_by_role("region", name="Answer")).to_contain_text("[demo")
    send(second, "Two")
    expect(second.get_by_text("Waiting in the queue, place 1")).to_be_visible()
    first.get_by_role("button", name="Stop").click()
    expect(second.get_by_role("region", name="Answer")).to_contain_text("[demo")
    second.get_by_role("button", name="Stop").click()
    expect(second.get_by_text("Stopped", exact=True)).to_be_visible()


def test_a_look_at_the_usage_neither_loses_the_prompt_nor_ends_the_answer(slow: Visit) -> None:
    page = slow.holder(slow.server.new_key("looks-away"))
    send(page, "Still here")
    expect(page.get_by_role("region", name="Answer")).to_contain_text("[demo")
    before = len(answer(page))
    page.get_by_role("link", name="My usage").click()
    expect(page.get_by_role("meter", name="Cost today")).to_have_count(0)
    expect(page.get_by_role("heading", name="My usage")).to_be_visible()
    expect(page.get_by_role("heading", name="My usage")).to_be_focused()
    page.go_back()
    expect(page.get_by_label("Prompt", exact=True)).to_be_focused()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("Still here")
    page.wait_for_function("(before) => document.querySelector('.answer-text').textContent.length > before", arg=before)
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("Stopped", exact=True)).to_be_visible()


def test_at_the_cap_one_sees_which_what_is_left_and_when_it_resets(visit: Visit, new_key: NewKey) -> None:
    _, secret = new_key(maxRequestsPerDay=1)
    page = visit.holder(secret)
    send(page, "The first")
    expect(page.get_by_text("Done")).to_be_visible()
    send(page, "The second")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("This key has used its 1 requests for today")
    expect(alert).to_contain_text("Wait for the reset")
    expect(alert).to_contain_text("requests_per_day")
    expect(page.get_by_text(re.compile(r"Resets .* \(midnight in UTC\)"))).to_be_visible()
    visit.expect_refusals()
    page.get_by_role("link", name="My usage").click()
    expect(page.get_by_role("meter", name="Requests today")).to_have_attribute("aria-valuenow", "100")
    expect(page.get_by_text("0 left", exact=True)).to_be_visible()
    table = page.get_by_role("table", name="Your last requests")
    expect(table.get_by_role("row").nth(1)).to_contain_text("requests_per_day")
    expect(table.get_by_role("row").nth(2)).to_contain_text("The first")


def test_images_can_be_chosen_pasted_dropped_and_taken_away(visit: Visit, new_key: NewKey) -> None:
    page = visit.holder(new_key()[1])
    chosen = {"name": "chosen.png", "mimeType": "image/png", "buffer": PIXEL}
    page.get_by_label("Add images").set_input_files([chosen])  # type: ignore[list-item]
    for kind, name in (("paste", "pasted.png"), ("drop", "dropped.png")):
        page.evaluate(
            """([kind, name, base64]) => {
              const bytes = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
              const data = new DataTransfer();
              data.items.add(new File([bytes], name, {type: "image/png"}));
              const how = kind === "paste" ? {clipboardData: data} : {dataTransfer: data};
              const Kind = kind === "paste" ? ClipboardEvent : DragEvent;
              const event = new Kind(kind, {bubbles: true, cancelable: true, ...how});
              document.querySelector("textarea").dispatchEvent(event);
            }""",
            [kind, name, base64.b64encode(PIXEL).decode()],
        )
        expect(page.get_by_role("img", name=name)).to_be_visible()
    page.get_by_role("button", name="Remove chosen.png").press("Enter")
    expect(page.get_by_role("img", name="chosen.png")).to_have_count(0)
    expect(page.get_by_role("button", name="Remove pasted.png")).to_be_focused()
    send(page, "What is on these?")
    expect(page.get_by_role("region", name="Answer")).to_contain_text("You attached 2 image(s).")


def test_a_photo_of_many_megabytes_holds_nothing_up(visit: Visit, new_key: NewKey, tmp_path: Path) -> None:
    page = visit.holder(new_key()[1])
    photo = tmp_path / "photo.png"
    photo.write_bytes(PIXEL + bytes(12 * 2**20))
    page.get_by_label("Add images").set_input_files(photo)
    expect(page.get_by_role("button", name="Remove photo.png")).to_be_visible()
    page.get_by_role("button", name="Python").click()
    send(page, "First")
    code = page.get_by_role("region", name="Code")
    expect(code).to_contain_text(re.compile('import.*First.*base64,iVBOR[^"]*…', re.DOTALL))
    expect(page.get_by_text("Done", exact=True)).to_be_visible()
    page.get_by_label("Go on", exact=True).fill("Second")
    with page.expect_request("**/generate") as caught:
        page.get_by_role("button", name="Reply", exact=True).click()
    assert len(caught.value.post_data_buffer or b"") > 16 * 2**20
    expect(page.locator(".turn")).to_have_count(2)
    expect(page.get_by_text("Done", exact=True)).to_be_visible()


@pytest.mark.parametrize(("text", "images"), [("Cell A1", 0), ("cells.png", 1)])
def test_text_that_comes_with_a_picture_of_it_is_pasted_as_text(
    visit: Visit, new_key: NewKey, text: str, images: int
) -> None:
    """Office puts both on the clipboard; with a file comes its name."""
    page = visit.holder(new_key()[1])
    taken = page.evaluate(
        """(text) => {
          const data = new DataTransfer();
          data.setData("text/plain", text);
          data.items.add(new File([new Uint8Array(9)], "cells.png", {type: "image/png"}));
          const event = new ClipboardEvent("paste", {clipboardData: data, bubbles: true, cancelable: true});
          document.querySelector("textarea").dispatchEvent(event);
          return event.defaultPrevented;
        }""",
        text,
    )
    assert taken == bool(images)
    expect(page.get_by_role("button", name="Remove cells.png")).to_have_count(images)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("picture.svg", b"<svg onload=alert(1) />", "is not a png, jpeg, gif or webp image."),
        ("photo.heic", b"\0\0\0\x18ftypheic", "is not a png, jpeg, gif or webp image."),
        ("huge.png", PIXEL + bytes(20 * 2**20), "is too large: all images together may have 20 MiB."),
    ],
)
def test_what_is_no_image_or_too_large_is_not_taken(
    visit: Visit, new_key: NewKey, tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    page = visit.holder(new_key()[1])
    (tmp_path / name).write_bytes(content)
    page.get_by_label("Add images").set_input_files(tmp_path / name)
    expect(page.get_by_text(f"{name} {told}")).to_be_visible()
    expect(page.get_by_role("img", name=name)).to_have_count(0)


def test_a_schema_gives_a_checked_value_and_a_wrong_one_is_said_before_anything_is_sent(
    visit: Visit, new_key: NewKey
) -> None:
    page = visit.holder(new_key()[1])
    options(page)
    schema = page.get_by_label("JSON Schema that the answer must fit")
    schema.fill('{"type": "object"')
    send(page, "A city")
    expect(page.get_by_text("The schema is not a JSON object yet.")).to_be_visible()
    expect(schema).to_be_focused()
    expect(page.get_by_text("The answer appears here")).to_be_visible()
    schema.fill('{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}')
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("region", name="Structured answer")).to_contain_text('"city": "demo"')
    # It stands close below the answer as it came, also where neither has been seen yet.
    page.set_viewport_size({"width": 390, "height": 500})
    page.evaluate("scrollTo(0, 0)")
    page.reload()
    expect(page.get_by_role("region", name="Structured answer")).to_contain_text('"city": "demo"')
    assert page.get_by_role("region", name="Answer", exact=True).evaluate("(e) => e.clientHeight") < 100


WEATHER = {
    "name": "get_weather",
    "description": "The weather",
    "inputSchema": {"type": "object", "properties": {"city": {"type": "string"}}},
}


def test_a_call_of_a_tool_is_a_card_and_who_types_its_result_goes_on(visit: Visit, new_key: NewKey) -> None:
    page = visit.holder(new_key()[1])
    options(page)
    tools = page.get_by_label("Tools to offer, as JSON")
    tools.fill('{"name": "no list"}')
    send(page, "Weather")
    expect(page.get_by_text("The tools are not a JSON list yet.")).to_be_visible()
    expect(tools).to_be_focused()
    tools.fill(json.dumps([WEATHER, {"name": "now"}]))
    page.get_by_label("Add images").set_input_files([{"name": "a.png", "mimeType": "image/png", "buffer": PIXEL}])  # type: ignore[list-item]
    send(page, "get_weather and now")
    call = page.get_by_role("region", name="Call of get_weather")
    expect(call.get_by_role("region", name="Input of get_weather")).to_contain_text('"city": "demo"')
    expect(page.get_by_text("Waiting for the result")).to_be_visible()
    page.get_by_label("Result of get_weather").fill("sunny <b>")
    page.get_by_label("Result of now").fill("noon")
    with page.expect_request("**/generate") as caught:
        page.keyboard.press("Control+Enter")
    sent = caught.value.post_data_json
    assert sent is not None
    user, assistant, results = sent["messages"]
    assert [part["type"] for part in user["content"]] == ["image", "text"]
    calls = [part for part in assistant["content"] if part["type"] == "tool_use"]
    assert results["content"] == [
        {"type": "tool_result", "toolUseId": part["id"], "content": text}
        for part, text in zip(calls, ("sunny <b>", "noon"), strict=True)
    ]
    assert [tool["name"] for tool in sent["tools"]] == ["get_weather", "now"]
    expect(page.get_by_role("region", name="Answer")).to_contain_text("The tools gave: “sunny <b>”; “noon”.")
    expect(page.get_by_text("Done", exact=True)).to_be_visible()
    expect(call).to_have_count(0)


def test_every_option_goes_into_the_request(visit: Visit, new_key: NewKey) -> None:
    page = visit.holder(new_key()[1])
    page.get_by_role("button", name="Codex").click()
    options(page)
    page.get_by_label("System prompt").fill("Be brief")
    page.get_by_label("Model").fill("gpt-6-sol-mini")
    page.get_by_label("Longest answer, in tokens").fill("5")
    prompt(page, "Count")
    with page.expect_request("**/generate-codex") as caught:
        page.get_by_label("System prompt").press("Control+Enter")
    assert caught.value.post_data_json == {
        "userPrompt": "Count",
        "systemPrompt": "Be brief",
        "model": "gpt-6-sol-mini",
        "maxOutputTokens": 5,
        "stream": True,
    }
    expect(page.get_by_text("Cut at the longest allowed")).to_be_visible()


def test_a_key_with_models_of_its_own_sends_one_that_it_may_use(visit: Visit, new_key: NewKey) -> None:
    page = visit.holder(new_key(models=["gpt-6-luna"])[1])
    expect(page.get_by_role("button", name="Claude")).to_have_count(0)
    expect(page.locator(".card-head").first).to_have_text("Your requestCodex")
    with page.expect_request("**/generate-codex") as caught:
        send(page, "Hello")
    assert caught.value.post_data_json == {"userPrompt": "Hello", "model": "gpt-6-luna", "stream": True}
    expect(page.get_by_text("Done")).to_be_visible()
    expect(page.get_by_role("region", name="Code")).to_contain_text('"model": "gpt-6-luna"')
    page.get_by_role("link", name="My usage").click()
    expect(page.get_by_text("Codex (gpt-6-luna)", exact=True)).to_be_visible()


def test_a_key_without_any_model_is_told_so(visit: Visit, new_key: NewKey) -> None:
    page = visit.holder(new_key(models=[])[1])
    expect(page.get_by_text("No provider is available to this key at the moment.")).to_be_visible()
    options(page)
    expect(page.get_by_label("Model")).to_have_attribute("placeholder", "")


def test_usage_shows_what_remains_and_the_last_requests(visit: Visit, new_key: NewKey) -> None:
    _, secret = new_key(maxCostPerDay=2, maxRequestsPerMonth=10)
    page = visit.holder(secret)
    send(page, "Costs a little")
    expect(page.get_by_text("Done")).to_be_visible()
    page.get_by_role("link", name="My usage").click()
    expect(page.get_by_role("meter", name="Requests this month")).to_have_attribute("aria-valuenow", "10")
    expect(page.get_by_text("9 left", exact=True)).to_be_visible()
    expect(page.get_by_text(re.compile(r"Resets .*midnight in UTC")).first).to_be_visible()
    expect(page.get_by_role("row").nth(1)).to_contain_text("Costs a little")


def test_usage_shows_every_limit_that_the_key_has(visit: Visit, new_key: NewKey) -> None:
    page = visit.holder(new_key(**{name: number for number, name in enumerate(BY_NAME, start=1000)})[1])
    page.get_by_role("link", name="My usage").click()
    expect_every_limit(page, running=False)


def test_an_empty_log_says_what_will_be_there(visit: Visit, new_key: NewKey) -> None:
    page = visit.holder(new_key()[1])
    page.get_by_role("link", name="My usage").click()
    expect(page.get_by_text("No requests yet")).to_be_visible()
    expect(page.get_by_text("Your key has no cap per day or month.")).to_be_visible()


def test_the_end_of_the_key_is_said_and_asks_for_another(visit: Visit, server: Server, new_key: NewKey) -> None:
    name, secret = new_key()
    page = visit.holder(secret)
    server.admin("DELETE", f"/keys/{name}")
    send(page, "Hello?")
    expect(page.get_by_label("Your key")).to_be_visible()
    expect(page.get_by_role("alert")).to_contain_text("This key is not valid.")
    visit.expect_refusals()


def test_a_server_that_went_away_is_said_with_what_to_do(visit: Visit, new_key: NewKey) -> None:
    page = visit.holder(new_key()[1])
    visit.context.set_offline(True)
    send(page, "Hello?")
    expect(page.get_by_role("alert")).to_contain_text("The bridge does not answer.")
    visit.context.set_offline(False)
    visit.expect_refusals()
    send(page, "Again")
    expect(page.get_by_role("region", name="Answer")).to_contain_text("Again")


def test_hints_for_programs_are_told_to_people_in_other_words(visit: Visit, new_key: NewKey) -> None:
    page = visit.holder(new_key()[1])
    for_programs = re.compile(r"GET /|Retry-After|Authorization")
    codes = [code for code, each in CODES.items() if for_programs.search(each.hint)]
    assert {"draining", "provider_not_allowed"} <= set(codes)

    def refuse(route: Route) -> None:
        code = route.request.post_data_json["userPrompt"]
        body = {"error": f"Refused: {code}.", "code": code, "hint": CODES[code].hint, "request_id": ""}
        route.fulfill(status=503, json=body)

    page.route("**/generate", refuse)
    for code in codes:
        send(page, code)
        expect(page.get_by_role("alert")).to_contain_text(re.compile(rf"Refused: {code}\..+\."))
        expect(page.get_by_role("alert")).not_to_contain_text(for_programs)
    visit.expect_refusals()


# --- copied code runs --------------------------------------------------------------------------------

OPENAI_STAND_IN = """
import json, sys

class OpenAI:
    def __init__(self, base_url, api_key):
        self.given = {"base_url": base_url, "api_key": api_key}
        self.chat = self.completions = self

    def create(self, **given):
        text = json.dumps({**self.given, **given})
        answer = lambda: None
        answer.message = lambda: None
        answer.message.content = text
        whole = lambda: None
        whole.choices = [answer]
        return whole
"""
SHEETS_STAND_IN = """
import { execFileSync } from "node:child_process";
const PropertiesService = {
  getScriptProperties: () => ({ getProperty: (name) => (name === "BRIDGE_KEY" ? process.env.KEY : null) }),
};
const UrlFetchApp = {
  fetch(url, { method, headers, payload }) {
    const given = ["-sS", "-w", "\\n%{http_code}", "-X", method.toUpperCase(), url, "-d", payload];
    for (const [name, value] of Object.entries(headers)) given.push("-H", `${name}: ${value}`);
    const text = execFileSync("curl", given).toString();
    const at = text.lastIndexOf("\\n");
    return { getContentText: () => text.slice(0, at), getResponseCode: () => Number(text.slice(at + 1)) };
  },
};
"""


def code(page: Page, language: str) -> str:
    """The code of a language, as the button copies it."""
    page.get_by_role("button", name=language, exact=True).click()
    button = page.locator(".code-head").get_by_role("button", name=re.compile("Copy|Copied"))
    button.click()
    expect(page.locator(".code-head").get_by_role("button", name="Copied")).to_be_visible()
    copied: str = page.evaluate("navigator.clipboard.readText()")
    return copied


def run(argv: list[str], text: str, key: str, folder: Path) -> str:
    env = {"PATH": os.environ["PATH"], "KEY": key, "PYTHONPATH": str(folder)}
    done = subprocess.run(argv, input=text, env=env, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr + text
    return done.stdout


def test_copied_code_runs_and_sends_exactly_what_was_written(
    visit: Visit, server: Server, new_key: NewKey, tmp_path: Path
) -> None:
    visit.context.grant_permissions(["clipboard-read", "clipboard-write"])
    name, secret = new_key()
    page = visit.holder(secret)
    options(page)
    prompt(page, TRICKY)
    page.get_by_label("System prompt").fill(TRICKY)
    page.get_by_label("Longest answer, in tokens").fill("4000")

    run(["bash", "-e"], code(page, "curl"), secret, tmp_path)
    run([sys.executable, "-"], code(page, "Python"), secret, tmp_path)
    run(["node", "--input-type=module", "-"], code(page, "JavaScript"), secret, tmp_path)
    sheet = SHEETS_STAND_IN + code(page, "Google Sheets") + "\ntryIt();\n"
    run(["node", "--input-type=module", "-"], sheet, secret, tmp_path)
    lines = server.admin("GET", f"/logs?key={name}").json["logs"]
    assert [(line["userPrompt"], line["systemPrompt"], line["status"]) for line in lines] == [(TRICKY, TRICKY, 200)] * 4

    env = {"PATH": os.environ["PATH"], "KEY": "cb_not-a-key"}
    code_ = code(page, "Python")
    refused = subprocess.run([sys.executable, "-"], input=code_, env=env, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1
    assert "This key is not valid." in refused.stderr

    (tmp_path / "openai.py").write_text(OPENAI_STAND_IN)
    given = json.loads(run([sys.executable, "-"], code(page, "OpenAI SDK"), secret, tmp_path))
    assert (given["base_url"], given["api_key"]) == (f"{visit.address}/v1", secret)
    assert [message["content"] for message in given["messages"]] == [TRICKY, TRICKY]
    assert (given["model"], given["max_completion_tokens"]) == ("claude-sonnet-5-5", 4000)


def test_images_and_schemas_are_in_the_copied_code(visit: Visit, new_key: NewKey, tmp_path: Path) -> None:
    visit.context.grant_permissions(["clipboard-read", "clipboard-write"])
    _, secret = new_key()
    page = visit.holder(secret)
    options(page)
    prompt(page, "What is it?")
    schema = {
        "type": "object",
        "properties": {"what": {"type": "string"}, "sure": {"const": True}},
        "required": ["what"],
    }
    page.get_by_label("JSON Schema that the answer must fit").fill(json.dumps(schema))
    picture = {"name": "picture.png", "mimeType": "image/png", "buffer": PIXEL}
    page.get_by_label("Add images").set_input_files([picture])  # type: ignore[list-item]
    expect(page.get_by_role("img", name="picture.png")).to_be_visible()
    expect(page.get_by_role("region", name="Code")).to_contain_text("…")
    for language, argv in (
        ("curl", ["bash", "-e"]),
        ("Python", [sys.executable, "-"]),
        ("JavaScript", ["node", "--input-type=module", "-"]),
    ):
        copied = code(page, language)
        assert base64.b64encode(PIXEL).decode() in copied
        assert '"what"' in run(argv, copied, secret, tmp_path).replace('\\"', '"')


# --- before sending --------------------------------------------------------------------------------------


def test_beside_send_stand_what_is_left_and_what_it_may_cost(visit: Visit, server: Server, new_key: NewKey) -> None:
    name, secret = new_key(maxCostPerDay=4, maxCostPerMonth=3.5)
    page = visit.holder(secret)
    with page.expect_request("**/generate/estimate") as caught:
        prompt(page, "How much?")
        page.get_by_label("Add images").set_input_files([{"name": "a.png", "mimeType": "image/png", "buffer": PIXEL}])  # type: ignore[list-item]
    assert caught.value.post_data_json is not None
    assert caught.value.post_data_json["userPrompt"] == "How much?"
    hint = page.get_by_text("left this month · up to")
    # The smaller of what is left counts, and nothing is held for it.
    expect(hint).to_have_text(re.compile(r"^\S*\$3\.50 left this month · up to \S*\$0\.\d+ for this one$"))
    assert server.call("GET", "/me", key=secret).json["usage"]["reserved"]["requests"] == 0
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_text("Done", exact=True)).to_be_visible()
    server.admin("PATCH", f"/keys/{name}", {"maxCostPerDay": 0.000001})
    visit.expect_refusals()
    prompt(page, "And now?")
    expect(page.get_by_text("this request may need")).to_be_visible()
    prompt(page, "")
    expect(page.get_by_text("this request may need")).to_have_count(0)


def test_what_it_may_cost_is_left_out_where_it_cannot_be_known(visit: Visit, new_key: NewKey) -> None:
    page = visit.holder(new_key(maxCostPerDay=4)[1])
    prompt(page, "How much?")
    expect(page.get_by_text("left today · up to")).to_be_visible()
    visit.context.set_offline(True)
    prompt(page, "How much now?")
    expect(page.get_by_text("left today · up to")).to_have_count(0)
    expect(page.get_by_role("alert")).to_have_count(0)
    visit.context.set_offline(False)
    visit.expect_refusals()
