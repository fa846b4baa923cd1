"""What is drawn anew stays the same where it says the same: its focus, its place, what is unfolded in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.conftest import profile
from tests.support.server import Server


@pytest.fixture(scope="module")
def page(chromium: Browser, server: Server) -> Iterator[Page]:
    """A page with an empty box, and the functions that draw."""
    with profile(chromium, server) as visit:
        page = visit.open("/")
        page.evaluate(
            """async () => {
              const dom = await import(document.querySelector('[href$="lib/dom.js"]').href);
              const box = dom.h("div");
              document.body.append(box);
              const draw = (...children) => dom.redraw(box, ...children);
              Object.assign(window, { box, draw, h: dom.h });
            }"""
        )
        yield page


def test_a_row_is_the_same_element_wherever_it_goes(page: Page) -> None:
    moved = page.evaluate(
        """() => {
          const rows = (...names) => draw(names.map((key) => h("p", { key }, key)));
          rows("a", "b", "c");
          const [a, b, c] = box.children;
          rows("c", "new", "a");
          return [box.children[0] === c, box.children[2] === a, b.isConnected, box.textContent];
        }"""
    )
    assert moved == [True, True, False, "cnewa"]


def test_the_focus_outlives_what_goes_and_comes_around_it(page: Page) -> None:
    focused = page.evaluate(
        """() => {
          const buttons = (...names) => draw(names.map((key) => h("button", { key }, key)));
          const focused = () => document.activeElement.textContent;
          buttons("a", "b", "c");
          box.children[1].focus();
          buttons("new", "b");
          const seen = [focused()];
          buttons("c", "new");
          return [...seen, focused()];
        }"""
    )
    # The one that had it is gone: the first beside it gets it.
    assert focused == ["b", "c"]


def test_the_focus_goes_along_with_what_is_moved(page: Page) -> None:
    focused = page.evaluate(
        """() => {
          const rows = (...names) => draw(names.map((key) => h("p", { key }, h("button", key))));
          rows("a", "b", "c");
          box.children[2].firstChild.focus();
          rows("c", "a", "b");
          return document.activeElement.textContent;
        }"""
    )
    assert focused == "c"


def test_attributes_and_listeners_are_those_of_the_new_one(page: Page) -> None:
    left = page.evaluate(
        """() => {
          const pressed = [];
          const press = (name) => () => pressed.push(name);
          const one = (given, name) => draw(h("button", { ...given, onclick: press(name) }, "x"));
          one({ title: "old", class: "first", key: "k" }, "old");
          const button = box.firstChild;
          one({ "aria-label": "new", class: "second", key: "k" }, "new");
          button.click();
          return [button === box.firstChild, button.outerHTML, pressed];
        }"""
    )
    assert left == [True, '<button type="button" class="second" aria-label="new">x</button>', ["new"]]


def test_what_somebody_has_done_to_an_element_stays(page: Page) -> None:
    left = page.evaluate(
        """() => {
          const figures = (text) => draw(h("details", h("summary", "More"), text), h("input", { value: "given" }));
          figures("1");
          const text = box.firstChild.lastChild;
          box.firstChild.open = true;
          box.lastChild.value = "typed";
          figures("2");
          return [box.firstChild.open, box.lastChild.value, text.isConnected, text.data];
        }"""
    )
    assert left == [True, "typed", True, "2"]
