"""What the stand-in saw: one record for each request, kept in order."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from time import monotonic
from time import time as now
from typing import Any, Literal

Outcome = Literal["open", "complete", "failed", "client_closed", "stopped"]


@dataclass(slots=True)
class Recorded:
    """One request and how it went. Treat what you get as read-only: it is a copy."""

    id: int  # 1, 2, … since the server started
    time: float  # of arrival, seconds since the epoch
    method: str
    path: str  # with the query
    api: str  # "anthropic", "openai", or "other" for what neither CLI should ask for
    headers: dict[str, str]  # names in lower case
    bytes_in: int  # of the body
    body: Any  # parsed JSON, or None
    model: str = ""
    text: str = ""  # the last user text, with its directives
    generates: bool = False  # asks a model for an answer; all else is side traffic
    status: int = 0  # 0: no headers were sent
    bytes_out: int = 0  # of the answer's body
    deltas: int = 0  # pieces of the answer that were sent
    usage: dict[str, Any] | None = None  # figures of the answer; sent in full when complete
    outcome: Outcome = "open"  # failed: an error, a fault, or a cut that was asked for
    seconds: float | None = None  # from arrival to the outcome
    _started: float = field(default_factory=monotonic, repr=False)

    @property
    def key(self) -> str:
        """The API key that it brought."""
        return self.headers.get("x-api-key") or self.headers.get("authorization", "").removeprefix("Bearer ")

    @property
    def closed_early(self) -> bool:
        """Whether the client left before the answer was complete."""
        return self.outcome == "client_closed"

    def as_json(self) -> dict[str, Any]:
        """For the control API."""
        shown = {n: getattr(self, n) for n in self.__slots__ if not n.startswith("_")}
        return {**shown, "closed_early": self.closed_early}


class Journal:
    """The records of one server. Safe to use from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._records: list[Recorded] = []
        self._ids = 0
        self._peak = 0

    def open(self, **known: Any) -> Recorded:
        """Begin the record of a request that has just arrived."""
        with self._changed:
            self._ids += 1
            record = Recorded(id=self._ids, time=now(), **known)
            self._records.append(record)
            running = sum(r.outcome == "open" and r.generates for r in self._records[-1000:])
            self._peak = max(self._peak, running)
            self._changed.notify_all()
            return record

    def close(self, record: Recorded, outcome: Outcome) -> None:
        """Settle how the request ended; the first outcome stays."""
        with self._changed:
            if record.outcome == "open":
                record.outcome = outcome
                record.seconds = monotonic() - record._started
            self._changed.notify_all()

    def all(self) -> list[Recorded]:
        """Copies, oldest first."""
        with self._changed:
            return [replace(r) for r in self._records]

    def clear(self) -> None:
        """Forget everything, the peak as well; ids go on."""
        with self._changed:
            self._records.clear()
            self._peak = 0

    def counts(self) -> dict[str, Any]:
        """Totals: requests, by api, path and outcome, side traffic, most at once."""
        with self._changed:
            records = self._records
            return {
                "total": len(records),
                "generations": sum(r.generates for r in records),
                "side_traffic": sum(not r.generates for r in records),
                "open": sum(r.outcome == "open" for r in records),
                "closed_early": sum(r.closed_early for r in records),
                "most_at_once": self._peak,
                "by_api": dict(Counter(r.api for r in records)),
                "by_path": dict(Counter(f"{r.method} {r.path}" for r in records)),
                "by_outcome": dict(Counter(r.outcome for r in records)),
            }

    def wait(self, wanted: Callable[[list[Recorded]], bool], timeout_s: float) -> list[Recorded]:
        """Block until `wanted(records)` holds and return them. Raises TimeoutError."""
        deadline = monotonic() + timeout_s
        with self._changed:
            while not wanted(self._records):
                left = deadline - monotonic()
                if left <= 0 or not self._changed.wait(left):
                    if wanted(self._records):
                        break
                    raise TimeoutError(f"not within {timeout_s} s; saw {self._records}")
            return [replace(r) for r in self._records]
