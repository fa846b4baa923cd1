"""The settings of an ai-cli-bridge as settings of this program: a suggestion to be read, not applied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from dotenv import dotenv_values

from bridge.settings import TABLE

_SAME = {
    "PORT": "BRIDGE_PORT",
    "CLAUDE_DEFAULT_MODEL": "BRIDGE_CLAUDE_DEFAULT_MODEL",
    "CODEX_DEFAULT_MODEL": "BRIDGE_CODEX_DEFAULT_MODEL",
    "CORS_ORIGINS": "BRIDGE_CORS_ORIGINS",
}
_WITHOUT = {
    "CLAUDE_MAX_BUFFER_BYTES": "answers are bounded by BRIDGE_MAX_OUTPUT_TOKENS",
    "CODEX_MAX_BUFFER_BYTES": "answers are bounded by BRIDGE_MAX_OUTPUT_TOKENS",
}


def suggest(folder: Path) -> list[str]:
    """Lines for a .env, from the one beside or in a data folder of ai-cli-bridge; none where there is none."""
    for path in (folder / ".env", folder.parent / ".env"):
        if path.is_file():
            try:
                given = {name: value for name, value in dotenv_values(path).items() if value}
            except (OSError, UnicodeDecodeError):
                return [f"# {path.name} cannot be read"]
            return list(lines(given))
    return []


def lines(given: Mapping[str, str]) -> Iterator[str]:
    """The suggestion for settings of ai-cli-bridge. No secret is repeated."""
    for theirs, ours in _SAME.items():
        if theirs in given:
            yield from _line(ours, ",".join(part.strip().rstrip("/") for part in given[theirs].split(",")))
    if "CORS_ORIGINS" not in given:
        yield "# CORS_ORIGINS was empty: every web page could call. Here none can until BRIDGE_CORS_ORIGINS names it."
    most, window = _number(given.get("RATE_LIMIT_MAX_REQUESTS")), _number(given.get("RATE_LIMIT_WINDOW_MS"))
    if most is not None or window is not None:
        yield from _line("BRIDGE_RATE_LIMIT_PER_MINUTE", str(max(1, round((most or 30) * 60000 / (window or 60000)))))
    timeouts = [_number(given.get(name)) for name in ("CLAUDE_TIMEOUT_MS", "CODEX_TIMEOUT_MS")]
    longest = max((timeout for timeout in timeouts if timeout is not None), default=None)
    if longest is not None:
        yield from _line("BRIDGE_TIMEOUT_SECONDS", f"{longest / 1000:g}")
    if "BRIDGE_ADMIN_KEY" in given:
        short = len(given["BRIDGE_ADMIN_KEY"]) < 16
        yield (
            "# BRIDGE_ADMIN_KEY is shorter than 16 characters: leave it out, and the first start makes a new one."
            if short
            else "# BRIDGE_ADMIN_KEY: copy the line as it is."
        )
    if "DATA_DIR" in given:
        yield "# DATA_DIR: do not use that folder; BRIDGE_DATA_DIR needs one of its own."
    for name, why in _WITHOUT.items():
        if name in given:
            yield f"# {name} has no counterpart: {why}."
    for name in sorted(given):
        if name.startswith(("OPENCODE_", "GEMINI_")):
            yield f"# {name} has no counterpart: there is no such CLI here."
    yield "# ai-cli-bridge used the log-ins of the CLIs. Here each CLI gets an API key, unless you say otherwise:"
    yield "ANTHROPIC_API_KEY="
    yield "OPENAI_API_KEY="


def _line(variable: str, value: str) -> Iterator[str]:
    """A setting, or why its value cannot be taken over."""
    parse = next(row["parse"] for row in TABLE if row["variable"] == variable)
    try:
        parse(value)
    except ValueError as error:
        yield f"# {variable} {error}; it was {value[:60]!r}"
    else:
        yield f"{variable}={value}"


def _number(text: str | None) -> float | None:
    return float(text) if text and text.isascii() and text.isdecimal() and len(text) < 12 else None
