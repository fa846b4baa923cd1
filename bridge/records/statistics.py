"""What the last two days were like, and what each key did last: in memory, from the request log.

Fed with each line as it is written, and at the start with the newest lines of the files, within bounds.
Nobody is charged by these figures; they may lack what is older than the bounds.
"""

from __future__ import annotations

import logging
import math
import re
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Literal

import gevent
import msgspec

from bridge.clock import Clock, iso, parse_iso
from bridge.errors import usual_hint
from bridge.records.runlog import RunLog
from bridge.store.journal import LINES_A_TURN
from bridge.types import RunRecord

HOUR_S = 3600
#: Hours that are kept, and hours of the summary.
HOURS, SUMMARY_HOURS = 48, 24
#: Lines kept for each key, characters of a prompt in them, and keys for which they are kept.
RECENT, PREVIEW_CHARACTERS, MOST_KEYS = 20, 120, 2000
#: Most that is read of the log at the start.
MOST_LINES, MOST_BYTES = 20_000, 64 * 2**20
#: Between two turns of reading, in seconds.
PAUSE_S = 0.01
#: Times are counted in classes, each this much longer than the one before: a percentile is right within 5%.
_STEP = math.log(1.1)

log = logging.getLogger("bridge")

Times = Counter[int]


class OwnRequest(msgspec.Struct, frozen=True, rename="camel"):
    """A request that a key made, as its holder sees it: what the answer said, and nothing that is for the admin.
    `input_tokens` are those of all kinds; of the prompt there is only its beginning."""

    id: str
    request_id: str | None
    timestamp: str
    provider: str
    model: str
    status: int
    code: str | None
    error: str | None
    hint: str | None
    stop_reason: str | None
    input_tokens: int
    output_tokens: int
    cost_usd: float
    #: the bridge's own figure, because the CLI never gave one
    assumed: bool
    duration_ms: int
    queued_ms: int
    first_token_ms: int | None
    user_prompt: str | None


#: codes of runs whose answer was of no use, whatever status tells an SDK not to pay again
_NO_USE = ("cli_bad_output", "output_mismatch", "provider_broke_off")


def kind_of(line: RunRecord) -> Literal["ok", "failed", "refused", "stopped"]:
    """What became of a request: refused by a cap or for a mistake, stopped by the client or the admin."""
    if line.status < 400:
        return "ok"
    if line.code == "cancelled":
        return "stopped"
    return "refused" if line.status < 500 and line.code not in _NO_USE else "failed"


class CredentialDay(msgspec.Struct):
    """What became of the runs that used a credential, in 24 hours. `ok`: its provider answered; `limited`: 429;
    `rejected`: it was not accepted, or its account cannot pay; `overloaded`: 503 and 529; `stopped`: by the client or
    the admin; `failed`: all else."""

    ok: int = 0
    limited: int = 0
    rejected: int = 0
    overloaded: int = 0
    failed: int = 0
    stopped: int = 0


class Hour:
    """The runs that began in one hour. `refused`: by a cap or a mistake; `stopped`: by the client or the admin."""

    __slots__ = ("credentials", "failed", "first", "ok", "refused", "stopped", "total")

    def __init__(self) -> None:
        self.ok = self.failed = self.refused = self.stopped = 0
        #: (provider, name of a credential, field of CredentialDay) -> runs
        self.credentials: Counter[tuple[str, str, str]] = Counter()
        #: provider -> milliseconds to the first piece of text, and to the end, of runs that went well
        self.first: dict[str, Times] = {}
        self.total: dict[str, Times] = {}

    def add(self, line: RunRecord) -> None:
        """Count one run."""
        kind = kind_of(line)
        if line.credential is not None:
            self.credentials[line.provider, line.credential, _for_its_credential(line)] += 1
        for name, end in _tried_before(line.tried or ""):
            self.credentials[line.provider, name, end] += 1
        if kind == "ok":
            self.ok += 1
            self.total.setdefault(line.provider, Counter())[_class(line.duration_ms)] += 1
            if line.first_token_ms is not None:
                self.first.setdefault(line.provider, Counter())[_class(line.first_token_ms)] += 1
        elif kind == "stopped":
            self.stopped += 1
        elif kind == "refused":
            self.refused += line.times
        else:
            self.failed += 1


class Statistics:
    """Requests, failures and times by the hour, and the last requests of each key."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._hours: dict[int, Hour] = {}
        self._recent: OrderedDict[str, deque[OwnRequest]] = OrderedDict()
        self._since = clock.now()

    def observe(self, record: RunRecord) -> None:
        """Count a line that was just written."""
        self._count(record)
        self._remember(record)

    def fill(self, log_: RunLog) -> None:
        """Count what the log has from before this start. Reads it in the background, newest first, and never
        raises: figures for people must not keep the service from starting."""
        began = self._since
        try:
            for number, record in enumerate(log_.newest(MOST_LINES, MOST_BYTES), start=1):
                at = parse_iso(record.timestamp)
                # What this process has written was observed already.
                if at < began:
                    self._since = min(self._since, at)
                    self._count(record)
                    self._remember_older(record)
                if number % LINES_A_TURN == 0:
                    # Requests come first: right after the start somebody may be waiting.
                    gevent.sleep(PAUSE_S)
        except OSError as error:
            log.warning("the last hours could not be read from the log: %s", error.strerror)

    def recent(self, key_name: str) -> list[OwnRequest]:
        """The last requests of a key, by when they came, newest first."""
        return sorted(self._recent.get(key_name, ()), key=lambda each: each.timestamp, reverse=True)

    def moved(self, most: int) -> list[str]:
        """The keys that asked last, the latest first; at most so many."""
        return list(islice(reversed(self._recent), most))

    def of_credentials(self) -> Callable[[str, str], CredentialDay]:
        """The last 24 hours of each credential, by its provider and name."""
        current, total = int(self._clock.now() // HOUR_S), Counter[tuple[str, str, str]]()
        for ago in range(SUMMARY_HOURS):
            total.update(self._hours.get(current - ago, _NOTHING).credentials)
        ends = CredentialDay.__struct_fields__
        return lambda provider, name: CredentialDay(*(total[provider, name, end] for end in ends))

    def view(self) -> dict[str, Any]:
        """All of it, as the dashboard shows it; times in milliseconds."""
        current = int(self._clock.now() // HOUR_S)
        hours = [self._hours.get(number, _NOTHING) for number in range(current - HOURS + 1, current + 1)]
        summary = hours[-SUMMARY_HOURS:]
        providers = sorted({name for hour in summary for name in hour.total})
        return {
            "since": iso(self._since),
            "hours": [
                {
                    "at": iso((current - HOURS + 1 + number) * HOUR_S),
                    **_counts([hour]),
                    "firstTokenMs": _percentile(_all(hour.first.values()), 0.5),
                    "durationMs": _percentile(_all(hour.total.values()), 0.5),
                }
                for number, hour in enumerate(hours)
            ],
            "lastDay": {
                **_counts(summary),
                **_times(_all(t for h in summary for t in h.first.values()), "firstTokenMs"),
                **_times(_all(t for h in summary for t in h.total.values()), "durationMs"),
            },
            "providers": {
                name: {
                    **_times(_all(h.first[name] for h in summary if name in h.first), "firstTokenMs"),
                    **_times(_all(h.total[name] for h in summary if name in h.total), "durationMs"),
                }
                for name in providers
            },
        }

    def _count(self, record: RunRecord) -> None:
        current = int(self._clock.now() // HOUR_S)
        number = int(parse_iso(record.timestamp) // HOUR_S)
        if current - HOURS < number <= current + 1:
            if number not in self._hours:
                for old in [each for each in self._hours if each <= current - HOURS]:
                    del self._hours[old]
            self._hours.setdefault(number, Hour()).add(record)

    def _remember(self, record: RunRecord) -> None:
        last = self._recent.setdefault(record.key_name, deque(maxlen=RECENT))
        self._recent.move_to_end(record.key_name)
        last.appendleft(_shown(record))
        if len(self._recent) > MOST_KEYS:
            self._recent.popitem(last=False)

    def _remember_older(self, record: RunRecord) -> None:
        """Keep a line that is older than all that are kept, where there is room for it."""
        if record.key_name not in self._recent:
            if len(self._recent) >= MOST_KEYS:
                return
            self._recent[record.key_name] = deque(maxlen=RECENT)
            self._recent.move_to_end(record.key_name, last=False)
        last = self._recent[record.key_name]
        if len(last) < RECENT:
            last.append(_shown(record))


_NOTHING = Hour()


_BY_STATUS = {429: "limited", 401: "rejected", 402: "rejected", 403: "rejected", 503: "overloaded", 529: "overloaded"}


def _for_its_credential(line: RunRecord) -> str:
    """What a run says of the credential that it used: a field of CredentialDay."""
    if line.code == "cancelled":
        return "stopped"
    if line.upstream_status == 200 or (line.upstream_status is None and line.status < 400):
        # Without a status: with a log-in, calls pass no gate.
        return "ok"
    return _BY_STATUS.get(line.upstream_status or 0, "failed")


def _tried_before(tried: str) -> Iterable[tuple[str, str]]:
    """The credentials of a line that were given up for another, each with a field of CredentialDay. A request at which
    a provider finds fault moves to no other: a 400 was an account's trouble."""
    for name, status in re.findall(r"(?:^|; )([\w-]{1,50}) \((\d{3})?", tried):
        yield name, "rejected" if status == "400" else _BY_STATUS.get(int(status or 0), "failed")


def _shown(record: RunRecord) -> OwnRequest:
    return OwnRequest(
        id=record.id,
        request_id=record.request_id,
        timestamp=record.timestamp,
        provider=record.provider,
        model=record.model,
        status=record.status,
        code=record.code,
        error=record.error,
        hint=record.hint or usual_hint(record.code),
        stop_reason=record.stop_reason,
        input_tokens=record.usage.prompt,
        output_tokens=record.output_tokens,
        cost_usd=record.cost_usd,
        assumed=record.assumed,
        duration_ms=record.duration_ms,
        queued_ms=record.queued_ms,
        first_token_ms=record.first_token_ms,
        user_prompt=None if record.user_prompt is None else record.user_prompt[:PREVIEW_CHARACTERS],
    )


def _class(milliseconds: int) -> int:
    return int(math.log(max(1, milliseconds)) / _STEP)


def _all(times: Iterable[Times]) -> Times:
    merged: Times = Counter()
    for each in times:
        merged.update(each)
    return merged


def _percentile(times: Times, share: float) -> int | None:
    """The time that `share` of all stay within, in milliseconds; None where there are none."""
    wanted = share * times.total()
    for number in sorted(times):
        wanted -= times[number]
        if wanted <= 0:
            return round(math.exp((number + 0.5) * _STEP))
    return None


def _times(times: Times, name: str) -> dict[str, Any]:
    return {name: {"p50": _percentile(times, 0.5), "p95": _percentile(times, 0.95)}}


def _counts(hours: Iterable[Hour]) -> dict[str, Any]:
    kinds = ("ok", "failed", "refused", "stopped")
    return {kind: sum(getattr(hour, kind) for hour in hours) for kind in kinds}
