"""The request log: the ledger's journal in logs/, read by people.

The line of a run settles it, so log and ledger cannot differ. Between the lines lie records that no reader of the
log wants, such as reservations. Lines of another program lie beside the journal, in `DAY.imported.jsonl`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import date, timedelta, tzinfo
from pathlib import Path
from typing import Any

import gevent
import msgspec

from bridge.clock import Clock, JumpGuard, day_of, first_moment, iso, parse_iso
from bridge.errors import BridgeError, StoreError
from bridge.ledger.tallies import void
from bridge.limits import MICRO, spans_of
from bridge.store.journal import LINES_A_TURN, DayJournal, Journal, intact, read_backwards
from bridge.types import RunRecord

_FILE = re.compile(r"\d{4}-\d{2}-\d{2}(\.imported)?\.jsonl")
#: How a record goes on, behind its number, that is a line of the log.
_LINES = (b',"kind":"settle"', b',"kind":"void"')
#: Fields of a record that are none of its line.
_NOT_SHOWN = ("seq", "crc", "kind", "day", "shared")

#: How much of the log is read for its sums, in bytes: some 60,000 lines.
MOST_SUMMED = 64 * 2**20
_TOKENS = ("inputTokens", "cacheReadTokens", "cacheWriteTokens", "outputTokens")

#: Texts that look the same inside of JSON.
_PLAIN = re.compile(r"[A-Za-z0-9 ._-]+")
_SEARCHED = (
    *("id", "requestId", "upstreamRequestId", "keyName", "model", "alias", "code", "error", "upstreamMessage"),
    *("userPrompt", "systemPrompt", "output", "calls"),
)


class Filter(msgspec.Struct, frozen=True):
    """Which lines are wanted; None: any. `since` and `until` are UTC seconds, the second exclusive."""

    key: str | None = None
    provider: str | None = None
    #: an HTTP status such as "429", "ok" (below 400), "error" (400 and above), or an error code
    status: str | None = None
    #: part of a prompt, an answer, an id, a name, or an error; upper and lower case are the same
    text: str | None = None
    since: float | None = None
    until: float | None = None

    def marks(self) -> list[bytes]:
        """What every line that is wanted has in it as it stands in the file, in lower case. To pass over the
        others without decoding them; a line that has all of it need not be wanted."""
        named = {"keyName": self.key, "provider": self.provider}
        marks = [msgspec.json.encode({name: value})[1:-1] for name, value in named.items() if value is not None]
        if self.text is not None and _PLAIN.fullmatch(self.text):
            marks.append(self.text.encode())
        return [mark.lower() for mark in marks]

    def takes(self, line: dict[str, Any]) -> bool:
        """Whether a line is wanted."""
        when = line["timestamp"]
        return (
            (self.key is None or line["keyName"] == self.key)
            and (self.provider is None or line["provider"] == self.provider)
            and (self.since is None or when >= iso(self.since))
            and (self.until is None or when < iso(self.until))
            and (self.status is None or _has_status(line, self.status))
            and (self.text is None or _has_text(line, self.text.lower()))
        )


class LogSums(msgspec.Struct):
    """What the lines of a filter add up to. `requests` and `errors` count refused ones, too; `since`: where the log was
    too long to read all of it, the time of the oldest line that is counted."""

    requests: int = 0
    errors: int = 0
    tokens: int = 0
    cost_micro: int = 0
    since: str | None = None

    def add(self, line: dict[str, Any]) -> None:
        """Count a line."""
        times = line.get("times", 1)
        self.requests += times
        self.errors += times if line["status"] >= 400 else 0
        self.tokens += sum(line[name] for name in _TOKENS)
        self.cost_micro += round(line["costUsd"] * MICRO)


class RunLog:
    """Every run that was tried, whatever came of it."""

    def __init__(self, journal: DayJournal, clock: Clock, zone: tzinfo, sync: Callable[[], None] | None = None) -> None:
        """`sync` brings all that was noted by now into the journal, and raises BridgeError storage_failed."""
        self.journal = journal
        self._sync = sync or journal.sync
        self._folder = journal.folder
        self._clock = clock
        self._zone = zone
        days = [path.name[:10] for path in self._folder.iterdir() if _FILE.fullmatch(path.name)]
        # The last moment of the newest file is not known: that of its day is late enough.
        last = first_moment(date.fromisoformat(max(days)) + timedelta(days=1), zone) if days else None
        self._jump_guard = JumpGuard(clock, last)

    def add_old(self, records: Iterable[RunRecord]) -> int:
        """Add lines of earlier days, from another program, each to the file of its own day; how many were added.

        A line whose id is there already is passed over. Raises BridgeError storage_failed.
        """
        by_day: dict[str, list[RunRecord]] = {}
        for record in records:
            by_day.setdefault(day_of(parse_iso(record.timestamp), self._zone), []).append(record)
        added = 0
        for day, lines in sorted(by_day.items()):
            path = self._folder / f"{day}.imported.jsonl"
            known = {line["id"] for line in self._lines_with({line.id for line in lines}, [path])}
            fresh = [line for line in lines if line.id not in known]
            try:
                file = Journal(path)
            except StoreError as error:
                raise BridgeError("storage_failed", error.message, error.hint, retry_after=5) from error
            try:
                for line in fresh:
                    file.append(void(line))
                file.sync()
            finally:
                with contextlib.suppress(BridgeError):
                    file.close()
            added += len(fresh)
        return added

    def page(
        self,
        *,
        key: str | None = None,
        provider: str | None = None,
        status: str | int | None = None,
        text: str | None = None,
        before: str | None = None,
        since: float | None = None,
        until: float | None = None,
        limit: int = 100,
        prompt_characters: int | None = None,
    ) -> tuple[list[dict[str, Any]], str | None]:
        """At most `limit` lines, newest first, after the one whose id is `before`; and the id to go on
        from, if there are more. An id that the log does not have (any more) gives none. With
        `prompt_characters`, prompts are cut to so many."""
        wanted = Filter(key, provider, None if status is None else str(status), text, since, until)
        found: list[dict[str, Any]] = []
        for line in self._newest_first(before, self._files(wanted), wanted.marks()):
            if wanted.takes(line):
                if len(found) == limit:
                    return found, found[-1]["id"]
                found.append(line if prompt_characters is None else _cut(line, prompt_characters))
        return found, None

    def sums(self, wanted: Filter) -> LogSums:
        """What all lines that are wanted add up to, as far back as MOST_SUMMED bytes of the log reach."""
        sums, marks, left = LogSums(), wanted.marks(), MOST_SUMMED
        for path in reversed(self._files(wanted)):
            for raw in read_backwards(path):
                left -= len(raw)
                wants = _is_line(raw) and (left <= 0 or _has_marks(raw, marks))
                line = _decode(raw) if wants else None
                if line is None:
                    continue
                if left <= 0:
                    sums.since = line["timestamp"]
                    return sums
                if wanted.takes(line):
                    sums.add(line)
        return sums

    def newest(self, most_lines: int, most_bytes: int) -> Iterator[RunRecord]:
        """The last lines, newest first, up to either bound (or one line beyond it). Lines that another version
        wrote with other fields are left out, like damaged ones."""
        decoder = msgspec.json.Decoder(RunRecord)
        for path in reversed(self._files()):
            for raw in read_backwards(path):
                if most_lines <= 0 or most_bytes <= 0:
                    return
                most_lines, most_bytes = most_lines - _is_line(raw), most_bytes - len(raw)
                if _is_line(raw) and intact(raw):
                    with contextlib.suppress(msgspec.DecodeError):
                        yield decoder.decode(raw)

    def find(self, name: str) -> dict[str, Any] | None:
        """The line of a run, by its id or by the request id that its client got."""
        field = "requestId" if name.startswith("req_") else "id"
        return next(self._lines_with({name}, self._files(), field), None)

    def iterate(self, wanted: Filter | None = None) -> Iterator[dict[str, Any]]:
        """All lines that are wanted, oldest first, for an export. Reads one line at a time."""
        wanted = wanted or Filter()
        marks = wanted.marks()
        for path in self._files(wanted):
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                for number, ended in enumerate(file):
                    if number % LINES_A_TURN == 0:
                        gevent.sleep(0)
                    wants = _is_line(ended) and _has_marks(ended, marks)
                    line = _decode(ended.rstrip(b"\n")) if wants else None
                    if line is not None and wanted.takes(line):
                        yield line

    def prune(self, retention_days: int, oldest_needed: str) -> list[str]:
        """Remove the files of days that are more than `retention_days` ago; the names of those removed.

        What the caps of this day and month can be counted from stays, and the files from `oldest_needed` on, which
        a replay may need. After a clock has jumped ahead, here or before the start, nothing is removed for a day.
        """
        if self._jump_guard.in_doubt():
            return []
        today = date.fromisoformat(day_of(self._clock.now(), self._zone))
        first = today - timedelta(days=min(retention_days, today.toordinal() - 1))
        running = min(day for span in spans_of(today.isoformat()).values() for day in span.days)
        oldest = min(first.isoformat(), running, oldest_needed)
        gone = [path for path in self._files() if path.name < oldest]
        for path in gone:
            path.unlink(missing_ok=True)
        return [path.name for path in gone]

    def _files(self, wanted: Filter | None = None) -> list[Path]:
        """The files that can have what is wanted, oldest first; all that was noted is in them."""
        with contextlib.suppress(BridgeError):
            self._sync()
        paths = sorted(path for path in self._folder.iterdir() if _FILE.fullmatch(path.name))
        if wanted is not None and wanted.since is not None:
            # A line lies in the file of the day on which its run ended, at or after its timestamp.
            # None can be later than today, and the last day of all time has no name in every zone.
            first = day_of(min(wanted.since, self._clock.now()), self._zone)
            paths = [path for path in paths if path.name >= first]
        return paths

    def _newest_first(self, before: str | None, paths: list[Path], marks: list[bytes]) -> Iterator[dict[str, Any]]:
        mark = None if before is None else _mark(before)
        for path in reversed(paths):
            for raw in read_backwards(path):
                if mark is not None:
                    # Not decoded until the place is found: this is the way through the pages before.
                    if mark in raw and (line := _decode(raw)) and line["id"] == before:
                        mark = None
                elif _is_line(raw) and _has_marks(raw, marks) and (line := _decode(raw)):
                    yield line

    def _lines_with(self, ids: set[str], paths: list[Path], field: str = "id") -> Iterator[dict[str, Any]]:
        marks = {_mark(each, field): each for each in ids}
        for path in reversed(paths):
            for raw in read_backwards(path):
                if not marks:
                    return
                for mark in [mark for mark in marks if mark in raw]:
                    line = _decode(raw)
                    if line is not None and line[field] == marks[mark]:
                        del marks[mark]
                        yield line


def _is_line(raw: bytes) -> bool:
    return raw.startswith(_LINES, raw.find(b",", 0, 32))


def _decode(raw: bytes) -> dict[str, Any] | None:
    """A line as it was given; None for another record, and for a damaged line: one must not hide all others."""
    if not (_is_line(raw) and intact(raw)):
        return None
    record: dict[str, Any] = msgspec.json.decode(raw)
    return {name: value for name, value in record.items() if name not in _NOT_SHOWN}


def _cut(line: dict[str, Any], characters: int) -> dict[str, Any]:
    prompts = {name: line[name] and line[name][:characters] for name in ("systemPrompt", "userPrompt")}
    return {**line, **prompts}


def _mark(value: str, field: str = "id") -> bytes:
    return msgspec.json.encode({field: value})[1:-1]


def _has_marks(raw: bytes, marks: list[bytes]) -> bool:
    if not marks:
        return True
    lower = raw.lower()
    return all(mark in lower for mark in marks)


def _has_status(line: dict[str, Any], status: str) -> bool:
    if status == "ok":
        return int(line["status"]) < 400
    if status == "error":
        return int(line["status"]) >= 400
    return status in (str(line["status"]), line["code"])


def _has_text(line: dict[str, Any], text: str) -> bool:
    return any(text in value.lower() for field in _SEARCHED if isinstance(value := line.get(field), str))
