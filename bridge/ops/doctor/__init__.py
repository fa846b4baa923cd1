"""`cli-bridge doctor`: what is well, what is not, and what to do about it. Each module here checks one part."""

from __future__ import annotations

from dataclasses import dataclass

FAIL = "fail"
"""The level of what does not work."""


@dataclass(frozen=True)
class Finding:
    """What one check found: `level` is ok, warn or fail; `todo` says what to do about it, if anything."""

    level: str
    what: str
    found: str
    todo: str = ""


def ok(what: str, found: str) -> Finding:
    """It works."""
    return Finding("ok", what, found)


def warn(what: str, found: str, todo: str) -> Finding:
    """It works, but the operator should look at it."""
    return Finding("warn", what, found, todo)


def fail(what: str, found: str, todo: str) -> Finding:
    """It does not work, or is not safe."""
    return Finding(FAIL, what, found, todo)
