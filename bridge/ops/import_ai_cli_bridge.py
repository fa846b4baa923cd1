"""`cli-bridge import-ai-cli-bridge`: reads the data folder of an ai-cli-bridge and takes it over.

Its files (version 1.0, src/keys.ts there):

    keys.json    {"keys":  {SHA-256: {"name", "createdAt", "limits": {maxRequestsPerDay, …}}}}
    usage.json   {"usage": {SHA-256: {"daily": {"2026-02-15": {"requests", "tokens", "costUsd"}}, "monthly": {…}}}}
    logs.json    {"logs":  [{"id", "timestamp", "keyName", "provider", "model", "inputTokens", …}]}

Days and months are those of UTC there. A limit of 0 means none in both programs.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from dotenv import dotenv_values

from bridge.errors import StoreError
from bridge.ops.admin_client import admin_client
from bridge.settings import TABLE, Settings

#: Rows that go to the server at once.
_AT_ONCE = 2000

_LIMITS = ("maxRequestsPerDay", "maxRequestsPerMonth", "maxTokensPerMonth", "maxCostPerDay", "maxCostPerMonth")
_LINE = (
    "id",
    "timestamp",
    "keyName",
    "provider",
    "model",
    "inputTokens",
    "outputTokens",
    "costUsd",
    "durationMs",
    "systemPrompt",
    "userPrompt",
)
_COUNTED = ("daysAdded", "daysPresent", "daysRefused", "linesAdded", "linesPresent", "linesRefused")

#: Settings with the same meaning there and here.
_SAME = {
    "PORT": "BRIDGE_PORT",
    "CLAUDE_DEFAULT_MODEL": "BRIDGE_CLAUDE_DEFAULT_MODEL",
    "CODEX_DEFAULT_MODEL": "BRIDGE_CODEX_DEFAULT_MODEL",
    "CORS_ORIGINS": "BRIDGE_CORS_ORIGINS",
}
#: Settings that have no counterpart here, and why.
_WITHOUT = {
    "CLAUDE_MAX_BUFFER_BYTES": "answers are bounded by BRIDGE_MAX_OUTPUT_TOKENS",
    "CODEX_MAX_BUFFER_BYTES": "answers are bounded by BRIDGE_MAX_OUTPUT_TOKENS",
}


def run(settings: Settings, folder: Path, show: Callable[[str], None] = lambda what: None) -> dict[str, Any]:
    """Take over what is in `folder`, which is only read; a report. Raises StoreError, BridgeError.

    `show(text)` is called with what is being read or sent.
    """
    if folder.resolve() == settings.data_dir.resolve():
        raise StoreError(
            "This folder is the data folder of cli-bridge itself.",
            "Give cli-bridge a BRIDGE_DATA_DIR of its own, and name the folder of ai-cli-bridge here.",
        )
    show("reading its files")
    keys, notes = _keys(_table(folder / "keys.json", "keys", required=True))
    usage = list(_usage(_table(folder / "usage.json", "usage")))
    logs = _lines(folder / "logs.json")
    report: dict[str, Any] = {"keysAdded": [], "keysPresent": [], "refused": [], **dict.fromkeys(_COUNTED, 0)}
    done, rows = 0, len(keys) + len(usage) + len(logs)
    with admin_client(settings) as client:
        for body in ({"keys": keys}, *_parts("usage", usage), *_parts("logs", logs)):
            show(f"{done:,} of {rows:,} keys, days and lines")
            done += sum(map(len, body.values()))
            answer = client.call("POST", "/admin/import", body)
            for name in ("keysAdded", "keysPresent", "refused", *_COUNTED):
                report[name] += answer[name]
    report["notes"] = notes
    report["settings"] = suggest(folder)
    return report


def sentences(report: dict[str, Any]) -> Iterator[str]:
    """The report for people."""
    added, present = report["keysAdded"], report["keysPresent"]
    yield f"Keys: {len(added)} taken over{_listed(added)}, {len(present)} were here already."
    yield from (f"  not taken over: {sentence}" for sentence in report["refused"])
    yield (
        f"Usage: {report['daysAdded']} days taken over, {report['daysPresent']} were here already, "
        f"{report['daysRefused']} left out."
    )
    yield (
        f"Log: {report['linesAdded']} lines taken over, {report['linesPresent']} were here already, "
        f"{report['linesRefused']} left out (damaged, or older than BRIDGE_LOG_RETENTION_DAYS)."
    )
    yield from report["notes"]
    if report["settings"]:
        yield "\nSettings, as its .env suggests them; put them into yours:\n"
        yield from (f"    {line}" for line in report["settings"])


def _listed(names: list[str]) -> str:
    return f" ({', '.join(names[:20])}{' …' if len(names) > 20 else ''})" if names else ""


def _parts(name: str, rows: list[Any]) -> Iterator[dict[str, Any]]:
    for start in range(0, len(rows), _AT_ONCE):
        yield {name: rows[start : start + _AT_ONCE]}


# --- reading its files -----------------------------------------------------------------------------------


def _read(path: Path) -> Any:
    """The JSON of a file; None where there is none. Raises StoreError."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(
            f"{path.name} cannot be read ({os.strerror(error.errno or 0)}).", "Check its rights."
        ) from None
    except (ValueError, RecursionError):
        raise StoreError(
            f"{path.name} is damaged: it is not JSON. Nothing was taken over.",
            "Use an older copy of it, or move it away to go without it.",
        ) from None


def _table(path: Path, field: str, *, required: bool = False) -> dict[str, dict[str, Any]]:
    content = _read(path)
    if content is None and required:
        raise StoreError(
            f"The folder has no {path.name}.", "Name the data folder of ai-cli-bridge, which holds its keys.json."
        )
    table = content.get(field) if isinstance(content, dict) else None if content is not None else {}
    if not isinstance(table, dict) or not all(isinstance(row, dict) for row in table.values()):
        raise StoreError(
            f"{path.name} does not look like a file of ai-cli-bridge. Nothing was taken over.",
            f'It should hold {{"{field}": {{…}}}}, with an entry for each key.',
        )
    return table


def _keys(table: dict[str, dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """Keys in our form, and notes about them."""
    keys, open_ended = [], []
    for sha256, entry in table.items():
        given = entry.get("limits")
        limits = {name: _limit(name, given.get(name)) for name in _LIMITS} if isinstance(given, dict) else {}
        name, created_at = str(entry.get("name")), entry.get("createdAt")
        key = {"name": name, "sha256": sha256.lower(), "limits": limits}
        keys.append({**key, "createdAt": created_at} if isinstance(created_at, str) else key)
        if not limits.get("maxCostPerDay") and not limits.get("maxCostPerMonth"):
            open_ended.append(name)
    notes = []
    if open_ended:
        notes.append(
            f"Without any limit on dollars, as they were: {', '.join(open_ended)}. "
            "To set one: cli-bridge keys set NAME --max-cost-per-day 5"
        )
    return keys, notes


def _limit(name: str, value: Any) -> float:
    """A limit as a number that we take. Counts are whole here: a fraction is rounded down, but never to 0,
    which would mean no limit."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        return 0
    return value if "Cost" in name else max(1, math.floor(value))


def _usage(table: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A row for each key and day. Months whose days are gone already (after 90 days) keep their sum: it is put
    on the first of the month."""
    for sha256, entry in table.items():
        days = {day: _figures(row) for day, row in _rows(entry.get("daily"))}
        for month, row in _rows(entry.get("monthly")):
            known = [figures for day, figures in days.items() if day.startswith(f"{month}-")]
            rest = [total - sum(f[i] for f in known) for i, total in enumerate(_figures(row))]
            if any(value > 1e-9 for value in rest):
                first = f"{month}-01"
                days[first] = tuple(a + max(0, b) for a, b in zip(days.get(first, (0, 0, 0.0)), rest, strict=True))
        for day, (requests, tokens, cost) in sorted(days.items()):
            yield {
                "sha256": sha256.lower(),
                "day": day,
                "requests": round(requests),
                "tokens": round(tokens),
                "costUsd": round(cost, 9),
            }


def _rows(value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(value, dict):
        yield from ((window, row) for window, row in value.items() if isinstance(row, dict))


def _figures(row: dict[str, Any]) -> tuple[float, ...]:
    values = (row.get(name) for name in ("requests", "tokens", "costUsd"))
    return tuple(value if _is_number(value) else 0 for value in values)


def _is_number(value: Any) -> TypeGuard[float]:
    return not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value) and value >= 0


def _lines(path: Path) -> list[dict[str, Any]]:
    content = _read(path)
    lines = content.get("logs") if isinstance(content, dict) else []
    if not isinstance(lines, list):
        raise StoreError(
            f"{path.name} does not look like a file of ai-cli-bridge. Nothing was taken over.",
            'It should hold {"logs": […]}; or move it away to go without it.',
        )
    return [_line(line) for line in lines if isinstance(line, dict)]


def _line(line: dict[str, Any]) -> dict[str, Any]:
    """A line with the fields that we take, each of the type that it must have."""
    taken: dict[str, Any] = {}
    for name in _LINE:
        value = line.get(name)
        if name in ("inputTokens", "outputTokens"):
            taken[name] = round(value) if _is_number(value) else 0
        elif name in ("costUsd", "durationMs"):
            taken[name] = value if _is_number(value) else 0
        else:
            taken[name] = value if isinstance(value, str) else ""
    return taken


# --- its settings ----------------------------------------------------------------------------------------


def suggest(folder: Path) -> list[str]:
    """Lines for a .env, from the one beside or in a data folder of ai-cli-bridge; none where there is none."""
    for path in (folder / ".env", folder.parent / ".env"):
        if path.is_file():
            try:
                given = {name: value for name, value in dotenv_values(path).items() if value}
            except (OSError, UnicodeDecodeError):
                return [f"# {path.name} cannot be read"]
            return list(suggest_settings(given))
    return []


def suggest_settings(given: Mapping[str, str]) -> Iterator[str]:
    """The suggestion for settings of ai-cli-bridge. No secret is repeated."""
    for theirs, ours in _SAME.items():
        if theirs in given:
            yield from _setting(ours, ",".join(part.strip().rstrip("/") for part in given[theirs].split(",")))
    if "CORS_ORIGINS" not in given:
        yield "# CORS_ORIGINS was empty: every web page could call. Here none can until BRIDGE_CORS_ORIGINS names it."
    requests, window = _number(given.get("RATE_LIMIT_MAX_REQUESTS")), _number(given.get("RATE_LIMIT_WINDOW_MS"))
    if requests is not None or window is not None:
        yield from _setting(
            "BRIDGE_RATE_LIMIT_PER_MINUTE", str(max(1, round((requests or 30) * 60000 / (window or 60000))))
        )
    timeouts = [_number(given.get(name)) for name in ("CLAUDE_TIMEOUT_MS", "CODEX_TIMEOUT_MS")]
    longest = max((timeout for timeout in timeouts if timeout is not None), default=None)
    if longest is not None:
        yield from _setting("BRIDGE_TIMEOUT_SECONDS", f"{longest / 1000:g}")
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


def _setting(variable: str, value: str) -> Iterator[str]:
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
