"""The npm packages of the tests in the browser."""

from __future__ import annotations

from pathlib import Path

from tests.support import npm

_FOLDER = Path(__file__).with_name("npm")


def script(name: str) -> str:
    """The text of a file of a package, such as "axe-core/axe.min.js"."""
    return (npm.installed(_FOLDER, "browser") / "node_modules" / name).read_text()
