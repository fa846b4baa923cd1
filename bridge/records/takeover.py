"""Takes over keys, usage and log lines from another program. Doing it twice changes nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import date
from typing import Any

import msgspec

from bridge.clock import iso, parse_iso
from bridge.errors import BridgeError
from bridge.keys.keys import KeyBook
from bridge.ledger.ledger import Ledger
from bridge.ledger.tallies import Counts
from bridge.limits import MICRO, Limits, WrongLimit
from bridge.records.runlog import RunLog
from bridge.types import RunRecord

#: What the lines that were taken over have as their API.
API = "imported"
_MOST_PROMPT = 200
_MOST = 10**15


class ForeignKey(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A key: the SHA-256 (hex) of its secret, its limits under our names, and when it was made (ISO)."""

    name: str
    sha256: str
    limits: dict[str, float]
    created_at: str | None = None


class ForeignUsage(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What the key with that hash used on a day (`YYYY-MM-DD`)."""

    sha256: str
    day: str
    requests: int
    tokens: int
    cost_usd: float


class ForeignLine(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A request that was answered."""

    id: str
    timestamp: str
    key_name: str
    provider: str
    model: str
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    duration_ms: float = 0
    system_prompt: str = ""
    user_prompt: str = ""


class Foreign(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What another program knew."""

    keys: list[ForeignKey] = []
    usage: list[ForeignUsage] = []
    logs: list[ForeignLine] = []


class Result(msgspec.Struct, rename="camel"):
    """What came of it. `refused` has a sentence for each key that could not be taken over."""

    keys_added: list[str] = []
    keys_present: list[str] = []
    refused: list[str] = []
    days_added: int = 0
    days_present: int = 0
    days_refused: int = 0
    lines_added: int = 0
    lines_present: int = 0
    lines_refused: int = 0


def take_over(
    foreign: Foreign,
    *,
    keys: KeyBook,
    ledger: Ledger,
    log: RunLog,
    oldest_line: str,
    kept: Callable[[str], str | None],
) -> Result:
    """Add what is not there yet. Raises BridgeError storage_failed; then run it again.

    `oldest_line`: ISO time before which log lines would be removed at once, and are left out.
    `kept(prompt)` is what the log keeps of a prompt.
    """
    result = Result()
    for key in foreign.keys:
        _take_key(key, keys, result)
    names = {hash_.sha256: key.name for key in keys.list() for hash_ in key.hashes}
    for usage in foreign.usage:
        _take_day(usage, names.get(usage.sha256), ledger, result)
    lines = [record for line in foreign.logs if (record := _record(line, kept)) and record.timestamp >= oldest_line]
    result.lines_added = log.add_old(lines)
    result.lines_present = len(lines) - result.lines_added
    result.lines_refused = len(foreign.logs) - len(lines)
    return result


def _take_key(foreign: ForeignKey, keys: KeyBook, result: Result) -> None:
    ours = next((key for key in keys.list(revoked=True) if key.name == foreign.name), None)
    if ours is not None and foreign.sha256 in (hash_.sha256 for hash_ in ours.hashes):
        result.keys_present.append(foreign.name)
        return
    try:
        if ours is not None:
            raise BridgeError("conflict", "there is another key of that name, or there was one")
        created_at = None if foreign.created_at is None else _time(foreign.created_at)
        limits = Limits.parse(foreign.limits)
        keys.import_key(foreign.name, foreign.sha256, limits, created_at=created_at, note="imported")
        result.keys_added.append(foreign.name)
    except WrongLimit as error:
        result.refused.append(f"{foreign.name[:50]}: {error}")
    except BridgeError as error:
        if error.code == "storage_failed":
            raise
        result.refused.append(f"{foreign.name[:50]}: {error.message}")


def _take_day(foreign: ForeignUsage, name: str | None, ledger: Ledger, result: Result) -> None:
    figures = (foreign.requests, foreign.tokens, foreign.cost_usd)
    sound = all(math.isfinite(figure) and 0 <= figure < _MOST for figure in figures)
    if name is None or not sound or not _is_day(foreign.day):
        result.days_refused += 1
        return
    if ledger.has_usage(name, foreign.day):
        result.days_present += 1
        return
    # The other program kept one number of tokens; which of them were output is not known any more.
    counts = Counts(
        requests=foreign.requests, input_tokens=foreign.tokens, cost_micro=math.ceil(foreign.cost_usd * MICRO - 1e-6)
    )
    ledger.import_usage(name, foreign.day, counts)
    result.days_added += 1


def _record(line: ForeignLine, kept: Callable[[str], str | None]) -> RunRecord | None:
    try:
        timestamp = iso(_time(line.timestamp))
    except BridgeError:
        return None
    figures = (line.input_tokens, line.output_tokens, line.cost_usd, line.duration_ms)
    if not all(math.isfinite(figure) and 0 <= figure < _MOST for figure in figures):
        return None
    return RunRecord(
        id=f"old_{line.id[:50]}",
        timestamp=timestamp,
        key_name=line.key_name[:50],
        provider=line.provider[:50],
        model=line.model[:100],
        api=API,
        status=200,
        code=None,
        error=None,
        input_tokens=line.input_tokens,
        output_tokens=line.output_tokens,
        cost_usd=line.cost_usd,
        duration_ms=round(line.duration_ms),
        system_prompt=kept(line.system_prompt[:_MOST_PROMPT]),
        user_prompt=kept(line.user_prompt[:_MOST_PROMPT]),
    )


def _time(text: str) -> float:
    try:
        return parse_iso(text)
    except (ValueError, OverflowError):
        raise BridgeError("invalid_request", f"{text[:40]!r} is not a time") from None


def _is_day(text: str) -> bool:
    try:
        return bool(re.fullmatch(r"\d{4}-\d{2}-\d{2}", text)) and bool(date.fromisoformat(text))
    except ValueError:
        return False


def read(body: Any) -> Foreign:
    """What a request body says. Raises BridgeError invalid_request."""
    try:
        return msgspec.convert(body, Foreign)
    except msgspec.ValidationError as error:
        raise BridgeError("invalid_request", f"This cannot be taken over: {error}.") from None
