"""The request log: one line per run, one file per day in logs/.

A run's line is on the disk before the ledger settles it: what is settled is in the log.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterable, Iterator
from datetime import date, timedelta, tzinfo
from pathlib import Path
from typing import Any

import gevent
import msgspec

from bridge.clock import Clock, day_of, iso, parse_iso
from bridge.errors import StoreError
from bridge.limits import MICRO
from bridge.store.files import private_folder
from bridge.store.journal import LINES_A_TURN, LogFile, intact, read_backwards
from bridge.types import Charge, RunRecord, Usage

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}\.jsonl")
#: Texts that look the same inside of JSON.
_PLAIN = re.compile(r"[A-Za-z0-9 ._-]+")
_SEARCHED = ("id", "requestId", "keyName", "model", "code", "error", "userPrompt", "systemPrompt", "output")


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


class RequestLog:
    """Every run that was tried, whatever came of it. `damaged` counts lines that had to be skipped."""

    def __init__(self, folder: Path, clock: Clock, zone: tzinfo) -> None:
        """Raises StoreError where the folder cannot be used."""
        try:
            private_folder(folder)
        except OSError as error:
            raise StoreError(f"The log folder cannot be used ({error.strerror}).", "Check the data folder.") from None
        self.damaged = 0
        self._folder = folder
        self._clock = clock
        self._zone = zone
        self._file: LogFile | None = None

    def write(self, record: RunRecord) -> None:
        """Add a line; on the disk when this returns. Raises BridgeError storage_failed."""
        path = self._folder / f"{day_of(self._clock.now(), self._zone)}.jsonl"
        if self._file is None or self._file.path != path:
            previous, self._file = self._file, LogFile.create(path)
            if previous is not None:
                previous.close()
        self._file.write(msgspec.json.encode(record))

    def add_old(self, records: Iterable[RunRecord]) -> int:
        """Add lines of earlier days, from another program, each to the file of its own day; how many were added.

        A line whose id is there already is passed over. Raises BridgeError storage_failed.
        """
        by_day: dict[str, list[RunRecord]] = {}
        for record in records:
            by_day.setdefault(day_of(parse_iso(record.timestamp), self._zone), []).append(record)
        added = 0
        for day, lines in sorted(by_day.items()):
            path = self._folder / f"{day}.jsonl"
            known = {line["id"] for line in self._lines_with({line.id for line in lines}, [path])}
            fresh = [line for line in lines if line.id not in known]
            if self._file is not None and self._file.path == path:
                file = self._file
            else:
                file = LogFile.create(path)
            try:
                for line in fresh:
                    file.write(msgspec.json.encode(line))
            finally:
                if file is not self._file:
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
        for line in self._newest_first(before, self._days(wanted), wanted.marks()):
            if wanted.takes(line):
                if len(found) == limit:
                    return found, found[-1]["id"]
                found.append(line if prompt_characters is None else _cut(line, prompt_characters))
        return found, None

    def newest(self, most_lines: int, most_bytes: int) -> Iterator[RunRecord]:
        """The last lines, newest first, up to either bound (or one line beyond it). Lines that another version
        wrote with other fields are left out, like damaged ones."""
        decoder = msgspec.json.Decoder(RunRecord)
        for path in reversed(self._days()):
            for raw in read_backwards(path):
                if most_lines <= 0 or most_bytes <= 0:
                    return
                most_lines, most_bytes = most_lines - 1, most_bytes - len(raw)
                with contextlib.suppress(msgspec.DecodeError):
                    if intact(raw):
                        yield decoder.decode(raw)

    def find(self, run_id: str) -> dict[str, Any] | None:
        """The line of a run."""
        return next(self._lines_with({run_id}, self._days()), None)

    def known_charges(self, run_ids: Collection[str], days: int = 3) -> dict[str, Charge]:
        """What the runs of these ids were charged, as far as the last `days` files have them."""
        lines = self._lines_with(set(run_ids), self._days()[-days:])
        return {line["id"]: _charge(line) for line in lines}

    def iterate(self, wanted: Filter | None = None) -> Iterator[dict[str, Any]]:
        """All lines that are wanted, oldest first, for an export. Reads one line at a time."""
        wanted = wanted or Filter()
        marks = wanted.marks()
        for path in self._days(wanted):
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                for number, ended in enumerate(file):
                    if number % LINES_A_TURN == 0:
                        gevent.sleep(0)
                    line = self._decode(ended.rstrip(b"\n")) if _has_marks(ended, marks) else None
                    if line is not None and wanted.takes(line):
                        yield line

    def prune(self, retention_days: int) -> list[str]:
        """Remove the files of days that are more than `retention_days` ago; the days removed."""
        today = date.fromisoformat(day_of(self._clock.now(), self._zone))
        oldest = (today - timedelta(days=min(retention_days, today.toordinal() - 1))).isoformat()
        gone = [path for path in self._days() if path.stem < oldest]
        for path in gone:
            path.unlink(missing_ok=True)
        return [path.stem for path in gone]

    def close(self) -> None:
        """Close the file of the day."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _days(self, wanted: Filter | None = None) -> list[Path]:
        """The day files that can have what is wanted, oldest first."""
        paths = sorted(path for path in self._folder.iterdir() if _DAY.fullmatch(path.name))
        if wanted is not None and wanted.since is not None:
            # A line lies in the file of the day on which its run ended, at or after its timestamp.
            # None can be later than today, and the last day of all time has no name in every zone.
            first = day_of(min(wanted.since, self._clock.now()), self._zone)
            paths = [path for path in paths if path.stem >= first]
        return paths

    def _newest_first(self, before: str | None, paths: list[Path], marks: list[bytes]) -> Iterator[dict[str, Any]]:
        mark = None if before is None else _mark(before)
        for path in reversed(paths):
            for raw in read_backwards(path):
                if mark is not None:
                    # Not decoded until the place is found: this is the way through the pages before.
                    if mark in raw and (line := self._decode(raw)) and line["id"] == before:
                        mark = None
                elif _has_marks(raw, marks) and (line := self._decode(raw)):
                    yield line

    def _lines_with(self, run_ids: set[str], paths: list[Path]) -> Iterator[dict[str, Any]]:
        marks = {_mark(run_id): run_id for run_id in run_ids}
        for path in reversed(paths):
            for raw in read_backwards(path):
                if not marks:
                    return
                for mark in [mark for mark in marks if mark in raw]:
                    line = self._decode(raw)
                    if line is not None and line["id"] == marks[mark]:
                        del marks[mark]
                        yield line

    def _decode(self, raw: bytes) -> dict[str, Any] | None:
        """A line as it was given, or None for a damaged one: one bad line must not hide all others."""
        if not intact(raw):
            self.damaged += 1
            return None
        line: dict[str, Any] = msgspec.json.decode(raw)
        del line["seq"], line["crc"]
        return line


def _cut(line: dict[str, Any], characters: int) -> dict[str, Any]:
    prompts = {name: line[name] and line[name][:characters] for name in ("systemPrompt", "userPrompt")}
    return {**line, **prompts}


def _mark(run_id: str) -> bytes:
    return b'"id":' + msgspec.json.encode(run_id)


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


def _charge(line: dict[str, Any]) -> Charge:
    usage = Usage(
        input_tokens=line["inputTokens"],
        cache_read_tokens=line["cacheReadTokens"],
        cache_write_tokens=line["cacheWriteTokens"],
        output_tokens=line["outputTokens"],
        reasoning_tokens=line["reasoningTokens"],
    )
    return Charge(usage, round(line["costUsd"] * MICRO), assumed=line["assumed"])
