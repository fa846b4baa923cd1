"""Answers shown as what their Markdown means: of nodes, never of HTML, and never at the cost of the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Visit, profile
from tests.browser.test_safety import ALL, HOSTILE, answering, assert_harmless, send
from tests.support.server import Server

NewKey = Callable[..., tuple[str, str]]
LINK = 'target="_blank" rel="noopener noreferrer"'

#: Markdown, and the elements that it becomes.
MEANINGS = {
    "# One\n\n### Three #": "<h3>One</h3><h5>Three</h5>",
    "two\nlines\n\nanother": "<p>two\nlines</p><p>another</p>",
    "**bold** and *lean*, __both__ _ways_, ***all***, ~~gone~~": (
        "<p><strong>bold</strong> and <em>lean</em>, <strong>both</strong> <em>ways</em>,"
        " <strong><em>all</em></strong>, <s>gone</s></p>"
    ),
    "snake_case_name, 2 * 3 * 4, **open, \\*not\\*": "<p>snake_case_name, 2 * 3 * 4, **open, *not*</p>",
    "*a **b* c**": "<p><em>a **b</em> c**</p>",
    "`a*b*` and ``c`d``, `open": "<p><code>a*b*</code> and <code>c`d</code>, `open</p>",
    "- a\n- b\n  - c\n\n    more\n- [x] d": (
        "<ul><li>a</li><li><p>b</p><ul><li><p>c</p><p>more</p></li></ul></li><li>☑ d</li></ul>"
    ),
    "3. a\n4. b\n\ntext": '<ol start="3"><li>a</li><li>b</li></ol><p>text</p>',
    "- a\n- b\n\n1. c": '<ul><li>a</li><li>b</li></ul><ol start="1"><li>c</li></ol>',
    "> a\n> > b\n\n---": "<blockquote><p>a</p><blockquote><p>b</p></blockquote></blockquote><hr>",
    "[words](https://a.example/x_(y)?q=1) <https://b.example>, see https://c.example/d.": (
        f'<p><a href="https://a.example/x_(y)?q=1" title="https://a.example/x_(y)?q=1" {LINK}>words</a>'
        f' <a href="https://b.example" title="https://b.example" {LINK}>https://b.example</a>,'
        f' see <a href="https://c.example/d" title="https://c.example/d" {LINK}>https://c.example/d</a>.</p>'
    ),
    "[a](javascript:alert(1)) ![b](data:image/png;base64,x) [c](//d)": (
        "<p>[a](javascript:alert(1)) ![b](data:image/png;base64,x) [c](//d)</p>"
    ),
    "<b>no</b> &amp; <script>alert(1)</script>": (
        "<p>&lt;b&gt;no&lt;/b&gt; &amp;amp; &lt;script&gt;alert(1)&lt;/script&gt;</p>"
    ),
    "": "",
}
#: A hundred kilobytes of what costs a careless parser or a layout the most.
LONG = {
    "prose": "a sentence with **bold** words, `code` and https://a.example too.\n\n" * 1400,
    "one line": "word " * 20_000,
    "stars": "*" * 100_000,
    "open emphasis": "*a _b **c " * 10_000,
    "ticks": "".join("`" * (number % 300) + " " for number in range(700)),
    "brackets": "[" * 100_000,
    "links that do not end": f"[]({'https://a.example/' + 'a' * 1900} " * 50,
    "quotes": ">" * 100_000,
    "nested lists": "".join(" " * (2 * (number % 40)) + "- a\n" for number in range(2200)),
    "items": "- a\n" * 25_000,
    "rows": "|0|9|\n|-|-|\n" + "|1|2|\n" * 16_000,
    "cells": "|".join("a" * 20_000) + "\n" + "|".join("-" * 20_000),
    "blank lines": "- a\n" + "\n" * 100_000,
    "a fence": "```\n" + "code\n" * 20_000,
    "rules": "- " * 50_000 + "x",
    "hashes": "# " + "# " * 50_000,
}


@pytest.fixture(scope="module")
def page(chromium: Browser, server: Server) -> Iterator[Page]:
    """A page of the bridge with the parser at hand."""
    with profile(chromium, server) as visit:
        page = visit.open("/")
        page.evaluate(
            """() => import(document.querySelector('[href$="play/markdown.js"]').href).then((all) => {
              window.render = async (text) => {
                const box = document.createElement("div");
                await all.markdown(box, text).done;
                return box;
              };
            })"""
        )
        yield page


@pytest.mark.parametrize("text", MEANINGS)
def test_markdown_becomes_what_it_means(page: Page, text: str) -> None:
    assert page.evaluate("async (text) => (await render(text)).innerHTML", text) == MEANINGS[text]


def test_a_table_has_its_alignment_and_its_marks(page: Page) -> None:
    text = "| Name | Cost |\n| :--- | ---: |\n| **a** \\| b | $1 |\n| c |\n\nafter"
    rows = """async (text) => [...(await render(text)).querySelectorAll("tr")].map((row) =>
      [...row.children].map((cell) => `${cell.tagName}.${cell.className} ${cell.innerHTML}`))"""
    assert page.evaluate(rows, text) == [
        ["TH. Name", "TH.num Cost"],
        ["TD. <strong>a</strong> | b", "TD.num $1"],
        ["TD. c", "TD.num "],
    ]


def test_a_long_head_above_short_rows_is_not_more_than_was_written(page: Page) -> None:
    """A hundred kilobytes must not become millions of cells."""
    count = """async (text) => {
      const box = await render(text);
      return [box.querySelectorAll("table").length, box.querySelectorAll("*").length];
    }"""
    tables, elements = page.evaluate(count, f"{'|a' * 100}|\n{'|-' * 100}|\n" + "|\n" * 2000)
    assert tables == 20
    assert elements < 10_000
    tables, elements = page.evaluate(count, f"{'|a' * 101}|\n{'|-' * 101}|\n" + "|\n" * 2000)
    assert tables == 0
    assert elements < 10_000


def test_code_is_to_the_character_and_has_its_language(page: Page) -> None:
    text = "Look:\n```python\nif a < b:\n\n    print('**x**')\n```\n~~~\n```\n~~~\n\n    four\n\n     five\n"
    blocks = """async (text) => [...(await render(text)).querySelectorAll(".code-block")].map((each) =>
      [each.querySelector("bdi").textContent, each.querySelector("pre").textContent])"""
    assert page.evaluate(blocks, text) == [
        ["python", "if a < b:\n\n    print('**x**')"],
        ["", "```"],
        ["", "four\n\n five"],
    ]


@pytest.mark.parametrize("name", LONG)
def test_a_hundred_kilobytes_are_shown_whole(page: Page, name: str) -> None:
    text = LONG[name]
    shown = page.evaluate(
        """async (text) => {
          const box = await render(text);
          for (const head of box.querySelectorAll(".code-head")) head.remove();
          return box.textContent.replace(/[^a-z]/g, "").length;
        }""",
        text,
    )
    assert shown == sum(letter.isalpha() and letter.islower() for letter in text)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_formatted_answer_does_nothing_whatever_it_says(visit: Visit, new_key: NewKey, text: str) -> None:
    page = visit.holder(new_key()[1])
    for around in (
        "{}",
        "# {}\n\n- {}\n\n> {}",
        "```{}\n{}\n```",
        "| {} |\n| --- |\n| {} |",
        "**{}** [{}](https://a.example)",
    ):
        answering(page, around.replace("{}", text))
        send(page, "x")
        expect(page.get_by_text("Done", exact=True)).to_be_visible()
        page.get_by_role("button", name="Formatted").click()
        answer = page.get_by_role("region", name="Answer", exact=True)
        expect(answer).to_have_attribute("aria-busy", "false")
        assert_harmless(page)
        links = answer.locator("a").evaluate_all("all => all.map((each) => each.protocol)")
        assert set(links) <= {"https:"}


def test_the_choice_stays_and_text_is_a_press_away(visit: Visit, new_key: NewKey) -> None:
    visit.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = visit.holder(new_key()[1])
    text = "# Title\n\n```js\nlet a = 1;\n```\n\n" + ALL
    answering(page, text)
    send(page, "x")
    answer = page.get_by_role("region", name="Answer", exact=True)
    expect(page.get_by_text("Done", exact=True)).to_be_visible()
    page.get_by_role("button", name="Formatted").click()
    expect(answer.get_by_role("heading", name="Title")).to_be_visible()
    answer.get_by_role("button", name="Copy").click()
    expect(answer.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == "let a = 1;"
    page.reload()
    expect(answer.get_by_role("heading", name="Title")).to_be_visible()
    send(page, "again")
    expect(page.get_by_text("Done", exact=True)).to_be_visible()
    expect(answer.get_by_role("heading", name="Title")).to_be_visible()
    page.get_by_role("button", name="Text", exact=True).click()
    assert answer.evaluate("(box) => box.textContent") == text
