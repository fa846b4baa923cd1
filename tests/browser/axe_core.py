"""axe-core, which looks for barriers on a page."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page

from tests.browser.packages import script


def findings(page: Page) -> list[str]:
    """The barriers on a page as it is now, one line each."""
    if page.evaluate("window.axe === undefined"):
        page.evaluate(script("axe-core/axe.min.js"))
    result: dict[str, Any] = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{found['id']}: {node['target']} {node['failureSummary']}"
        for found in result["violations"]
        for node in found["nodes"]
    ]
