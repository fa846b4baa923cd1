"""`python -m bridge.ops.docs`: writes docs/configuration.md from the table of settings."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from bridge.settings import TABLE

#: The file that is written, in a checkout.
CONFIGURATION = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"
WIDTH = 119

_HEAD = """\
# Configuration

<!-- Written by `python -m bridge.ops.docs` from bridge/settings.py: change it there. -->

Settings are environment variables. A file `.env` in the working directory is read, too; the real environment wins.
`NAME=${OTHER}` in that file puts in another variable. An empty value counts as not set. All are checked at the start:
every mistake is listed at once, and the server does not start (exit status 2). A change holds from the next start on.

`cli-bridge serve --help` prints the same list. `--host` and `--port` of `serve` and `demo` win over the settings.
`demo` reads only `BRIDGE_HOST` and `BRIDGE_PORT`. The path of a CLI may be relative to the working directory.
`BRIDGE_ALERT_WEBHOOK` has no effect yet.
"""

_FOOT = """\
What the limits mean: [limits.md](limits.md). What the CLIs get to see of these settings: [clis.md](clis.md).
"""

#: Title -> how the variables of that section begin. The first match counts; the last section takes the rest.
_SECTIONS: dict[str, tuple[str, ...]] = {
    "Limits of keys that name none": ("BRIDGE_DEFAULT_",),
    "Credentials and CLIs": ("ANTHROPIC_", "OPENAI_", "BRIDGE_CLAUDE_", "BRIDGE_CODEX_", "BRIDGE_WARM_"),
    "Runs": ("BRIDGE_MAX_OUTPUT_", "BRIDGE_TIMEOUT_", "BRIDGE_IDLE_", "BRIDGE_MAX_CONCURRENT", "BRIDGE_QUEUE_"),
    "Log and clock": ("BRIDGE_LOG_", "BRIDGE_TIMEZONE"),
    "Guards": ("BRIDGE_LOOP_", "BRIDGE_RATE_", "BRIDGE_MAX_BODY_", "BRIDGE_ALERT_"),
    "Server": ("",),
}
_ORDER = ("Server", "Credentials and CLIs", "Runs", "Limits of keys that name none", "Guards", "Log and clock")


def configuration() -> str:
    """The text of docs/configuration.md."""
    parts = [_HEAD]
    for title in _ORDER:
        rows = [row for row in TABLE if _section(row["variable"]) == title]
        parts.append(f"## {title}\n\n" + "\n".join(_entry(row) for row in rows) + "\n")
    return "\n".join([*parts, _FOOT])


def _section(variable: str) -> str:
    return next(title for title, starts in _SECTIONS.items() if variable.startswith(starts))


def _entry(row: dict[str, Any]) -> str:
    default = f"default `{row['default']}`" if row["default"] else "not set by default"
    secret = "; secret" if row["secret"] else ""
    text = f"- `{row['variable']}` ({default}{secret}): {row['text']}"
    return textwrap.fill(text, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def main() -> None:
    """Write the file."""
    CONFIGURATION.write_text(configuration())


if __name__ == "__main__":
    main()
