"""Whatever somebody writes, it is shown as text: names, notes, prompts, errors, answers."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import Visit
from tests.support.server import Server

NewKey = Callable[..., tuple[str, str]]

#: Each would do something where it were not shown as text; any of them that runs opens a dialog.
HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"'><svg onload=alert(1)>",
    "</title></textarea></script><script>alert(1)</script>",
    "[click](javascript:alert(1))",
    "{{7*7}} ${alert(1)} <%= 1 %>",
    "\u202egnp.exe \u2066\u200f",
    "\u001b[31mred\u001b[0m \u001b]0;title\u0007",
)
ALL = " ".join(HOSTILE)


def assert_harmless(page: Page) -> None:
    """Nothing on the page came from the hostile texts: no element of theirs, no link that runs something."""
    assert (
        page.locator("script:not([src]), img[onerror], svg[onload], [href^='javascript:'], iframe, object").count() == 0
    )
    assert page.locator("img[src='x']").count() == 0


def stream_of(*events: tuple[str, dict[str, object]]) -> str:
    return "".join(f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n" for name, data in events)


def answering(page: Page, text: str) -> None:
    """Let the next request of the playground be answered with this text."""
    done = {
        "id": "run_1",
        "model": text[:80],
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 1, "output_tokens": 2},
        "cost_usd": 0.5,
        "duration_ms": 5,
        "output": {text[:80]: text[:80]},
    }
    pieces = [text[at : at + 4000] for at in range(0, len(text), 4000)]
    deltas: list[tuple[str, dict[str, object]]] = [("delta", {"text": piece}) for piece in pieces]
    body = stream_of(("start", {"id": "run_1", "model": "m"}), *deltas, ("done", done))

    def answer(route: Route) -> None:
        route.fulfill(status=200, content_type="text/event-stream", body=body)

    page.route("**/generate", answer)


def send(page: Page, text: str) -> None:
    page.get_by_label("Prompt", exact=True).fill(text)
    page.get_by_role("button", name="Send").click()


@pytest.mark.parametrize("text", HOSTILE)
def test_an_answer_is_text_whatever_it_says(visit: Visit, new_key: NewKey, text: str) -> None:
    page = visit.holder(new_key()[1])
    answering(page, text)
    send(page, "x")
    expect(page.get_by_text("Done", exact=True)).to_be_visible()
    assert page.get_by_role("region", name="Answer", exact=True).evaluate("(box) => box.textContent") == text
    assert page.get_by_role("region", name="Structured answer").evaluate("(box) => JSON.parse(box.textContent)") == {
        text[:80]: text[:80]
    }
    assert_harmless(page)


def test_an_answer_of_a_megabyte_does_not_hold_the_page_up(visit: Visit, new_key: NewKey) -> None:
    page = visit.holder(new_key()[1])
    text = "<b>0123456789</b> \u202e" * 55_000
    answering(page, text)
    send(page, "x")
    expect(page.get_by_text("Done", exact=True)).to_be_visible()
    assert page.get_by_role("region", name="Answer", exact=True).evaluate("(box) => box.textContent.length") == len(
        text
    )
    page.get_by_label("Prompt", exact=True).fill("still alive")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert_harmless(page)


def test_an_answer_that_breaks_off_is_an_error_and_what_came_stays(visit: Visit, new_key: NewKey) -> None:
    page = visit.holder(new_key()[1])
    body = stream_of(("start", {"id": "run_1", "model": "m"}), ("delta", {"text": "the first half"}))
    page.route("**/generate", lambda route: route.fulfill(status=200, content_type="text/event-stream", body=body))
    send(page, "x")
    expect(page.get_by_role("alert")).to_contain_text("The answer broke off before its end.")
    expect(page.get_by_role("region", name="Answer", exact=True)).to_have_text("the first half")


@pytest.mark.parametrize("how", ["refused", "in the stream", "by a proxy"])
def test_an_error_is_text_whatever_it_says(visit: Visit, new_key: NewKey, how: str) -> None:
    page = visit.holder(new_key()[1])
    error = {"error": ALL, "code": ALL[:60], "hint": ALL, "request_id": ALL[:40], "resets_at": None, "limit": 1}
    answers = {
        "refused": {"status": 502, "content_type": "application/json", "body": json.dumps(error)},
        "in the stream": {"status": 200, "content_type": "text/event-stream", "body": stream_of(("error", error))},
        "by a proxy": {"status": 524, "content_type": "text/html", "body": f"<html>{ALL}</html>"},
    }
    page.route("**/generate", lambda route: route.fulfill(**answers[how]))  # type: ignore[arg-type]
    send(page, "x")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("HTTP 524" if how == "by a proxy" else "<script>alert(1)</script>")
    assert_harmless(page)
    visit.expect_refusals()


def test_hostile_prompts_and_notes_are_text_everywhere_in_the_dashboard(visit: Visit, server: Server) -> None:
    name = "hostile"
    secret = server.admin("POST", "/keys", {"name": name, "note": ALL[:500], "maxRequestsPerDay": 2}).json["key"]
    # The log keeps 200 characters of each.
    body = {"userPrompt": " ".join(HOSTILE[:5]), "systemPrompt": " ".join(HOSTILE[5:])}
    assert server.call("POST", "/generate", body, key=secret).status == 200
    refused = server.call("POST", "/generate", {**body, "model": "x" * 100}, key=secret)
    assert refused.status == 200
    assert server.call("POST", "/generate", body, key=secret).status == 429
    server.admin("PATCH", f"/keys/{name}", {"note": ALL[100:400]})

    page = visit.admin("keys")
    expect(page.get_by_role("row").filter(has_text=name)).to_contain_text("<script>alert(1)</script>")
    assert_harmless(page)
    for view in (
        "",
        "keys/hostile",
        "logs",
        "audit",
        f"keys/{'%3Cimg src=x onerror=alert(1)%3E'}",
        "logs?text=%3Cscript%3E",
    ):
        visit.go(page, view)
        page.locator(".skeleton").first.wait_for(state="detached")
        expect(page.locator("h1")).to_be_visible()
        assert_harmless(page)
    visit.go(page, "logs?key=hostile")
    expect(page.locator("tbody tr")).to_have_count(3)
    page.locator("tbody tr").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("region", name="Prompt", exact=True)).to_contain_text("<script>alert(1)</script>")
    # What one could not see is made visible, and cannot turn the line around.
    expect(dialog.get_by_role("region", name="System prompt")).to_contain_text("␛[31mred")
    expect(dialog.get_by_role("region", name="System prompt")).to_contain_text("⟨202E⟩gnp.exe")
    assert_harmless(page)
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Playground").click()
    visit.expect_refusals()

    holder = visit.holder(secret)
    holder.get_by_role("link", name="My usage").click()
    expect(holder.get_by_role("table", name="Your last requests")).to_contain_text("<script>alert(1)</script>")
    assert_harmless(holder)


def test_hostile_words_of_the_server_itself_are_text_too(visit: Visit) -> None:
    """What comes from CLIs and settings: versions, problems, alerts, run ids."""
    page = visit.open("/admin/")

    def spoil(route: Route) -> None:
        answer = route.fetch()
        body = answer.json()
        body["problems"] = [ALL]
        body["alerts"] = [{"kind": ALL, "subject": ALL, "message": ALL, "at": "2026-11-20T10:00:00.000Z"}]
        for provider in body["providers"]:
            provider.update(available=False, version=ALL, problem=ALL, hint=ALL, credentials=ALL)
        body["closest"] = [
            {"name": ALL, "status": ALL, "limit": "maxCostPerDay", "used": 1, "reserved": 1, "most": 2, "share": 1}
        ]
        route.fulfill(json=body)

    def runs(route: Route) -> None:
        run = {name: ALL for name in ("id", "keyName", "provider", "model", "api")}
        numbers = {"queuePosition": 0, "ageMs": 1, "outputTokensSoFar": 1, "costUsdSoFar": 0.1}
        route.fulfill(json={"runs": [{**run, **numbers, "state": "running", "stream": True}]})

    page.route("**/admin/overview", spoil)
    page.route("**/admin/runs", runs)
    page.close()
    visit.context.route("**/admin/overview", spoil)
    visit.context.route("**/admin/runs", runs)
    page = visit.admin()
    expect(page.get_by_role("heading", name="Alerts")).to_be_visible()
    expect(page.locator("main")).to_contain_text("⟨202E⟩")
    assert_harmless(page)
    visit.go(page, "live")
    expect(page.get_by_role("row").nth(1)).to_contain_text("<script>alert(1)</script>")
    assert_harmless(page)


def test_a_script_that_got_onto_the_page_all_the_same_would_not_run(visit: Visit) -> None:
    page = visit.open("/admin/")
    expect(page.get_by_label("Admin key")).to_be_visible()
    for attempt in (
        "const s = document.createElement('script'); s.text = 'window.ran = 1'; document.body.append(s)",
        "document.body.innerHTML = '<img src=x onerror=\"window.ran = 1\">'",
        "document.body.setAttribute('onclick', 'window.ran = 1'); document.body.click()",
        "new Function('window.ran = 1')()",
    ):
        # In the page's own world, where its policy holds; the test's own world is exempt from it.
        page.evaluate("(code) => { try { setTimeout(code) } catch { /* refused already */ } }", attempt)
    assert page.evaluate("window.ran") is None
    assert visit.complaints
    visit.complaints.clear()


def test_no_page_loads_anything_from_another_host(visit: Visit, new_key: NewKey) -> None:
    hosts: set[str] = set()
    visit.context.on("request", lambda request: hosts.add(request.url.split("/")[2]))
    page = visit.admin("keys")
    expect(page.locator("tbody tr").first).to_be_visible()
    visit.go(page, "")
    expect(page.get_by_role("heading", name="Cost per day")).to_be_visible()
    play = visit.holder(new_key()[1])
    send(play, "x")
    expect(play.get_by_text("Done", exact=True)).to_be_visible()
    assert hosts == {f"127.0.0.1:{visit.server.port}"}


def test_the_pages_cannot_be_framed(visit: Visit) -> None:
    stranger = visit.context.new_page()
    with stranger.expect_console_message(lambda message: "frame-ancestors" in message.text):
        stranger.set_content(f"<iframe src='{visit.address}/admin/'></iframe>")
