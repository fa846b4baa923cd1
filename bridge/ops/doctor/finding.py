"""What one check found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One check: `level` is ok, warn or fail; `todo` says what to do about it, where there is something."""

    level: str
    what: str
    found: str
    todo: str = ""


def ok(what: str, found: str) -> Finding:
    """All is well."""
    return Finding("ok", what, found)


def warn(what: str, found: str, todo: str) -> Finding:
    """It works, but somebody should look at it."""
    return Finding("warn", what, found, todo)


def fail(what: str, found: str, todo: str) -> Finding:
    """It does not work, or is not safe."""
    return Finding("fail", what, found, todo)
