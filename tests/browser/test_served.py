"""The files that are served say what the sources say, line by line: only comments are gone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

import bridge.http.pages as pages
from tests.browser.packages import script

STATIC = Path(pages.__file__).with_name("static")
SCRIPTS, STYLES = (sorted(STATIC.rglob(f"*.{kind}")) for kind in ("js", "css"))


@pytest.fixture(scope="module")
def readers(chromium: Browser) -> Iterator[Page]:
    """An empty page that can read both languages: `program(text)` and `rules(text)`."""
    page = chromium.new_page()
    page.evaluate(script("acorn/dist/acorn.js"))
    page.evaluate(
        """() => {
          // Places are lines and columns; what a file has before them does not count.
          const plain = (name, value) => (name === "start" || name === "end") && Number.isInteger(value) ? 0 : value;
          window.program = (text) =>
            JSON.stringify(acorn.parse(text, { ecmaVersion: "latest", sourceType: "module", locations: true }), plain);
          window.rules = (text) => {
            const sheet = new CSSStyleSheet();
            sheet.replaceSync(text);
            return Array.from(sheet.cssRules, (rule) => rule.cssText).join("\\n");
          };
        }"""
    )
    yield page
    page.close()


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(STATIC)))
def test_a_script_is_the_same_program_on_the_same_lines(readers: Page, path: Path) -> None:
    source, served = path.read_text(), pages.files().content[path.relative_to(STATIC).as_posix()].decode()
    assert readers.evaluate("([one, other]) => program(one) === program(other)", [source, served])


@pytest.mark.parametrize("path", STYLES, ids=lambda path: path.name)
def test_a_style_sheet_has_the_same_rules_on_the_same_lines(readers: Page, path: Path) -> None:
    source, served = path.read_text(), pages.files().content[path.relative_to(STATIC).as_posix()].decode()
    assert readers.evaluate("([one, other]) => rules(one) === rules(other)", [source, served])
    for line, kept in zip(source.split("\n"), served.split("\n"), strict=True):
        assert kept in ("", line)
