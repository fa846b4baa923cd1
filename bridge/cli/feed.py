"""What somebody knows who asks `/admin/top` again and again: more than the last answer says."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

#: Lines of the log that are kept, and seconds for which a run that has ended stays in its place.
LINES, LINGER_S = 100, 5.0


class Feed:
    """The answers, one after the other: lines of the log are gathered, runs get their rate and their end."""

    def __init__(self) -> None:
        #: what is looked for, among all runs and keys of the server
        self.wanted = ""
        self._log: list[dict[str, Any]] = []
        self._runs: dict[str, dict[str, Any]] = {}
        #: run id -> how it ended, and until when (monotonic) it is shown
        self._ended: dict[str, tuple[dict[str, Any], float]] = {}

    def query(self) -> str:
        """What the next question has behind its path."""
        asked = {"since": self._log[-1]["id"] if self._log else "", "text": self.wanted}
        return "?" + urlencode({name: value for name, value in asked.items() if value})

    def take(self, answer: dict[str, Any], now: float) -> dict[str, Any]:
        """The answer with all that is known besides: lines from before, `tokensPerSecond` of runs, and runs that have
        just ended with their `ended`. `now` is monotonic seconds."""
        known = {line["id"] for line in self._log}
        fresh = [line for line in answer["log"] if line["id"] not in known]
        self._log = [*self._log, *fresh][-LINES:]
        runs = [self._with_rate(run) for run in answer["runs"]]
        live = {run["id"] for run in runs}
        ends = {line["id"]: line for line in fresh}
        for identity, run in self._runs.items():
            if identity not in live and identity in ends:
                line = ends[identity]
                over = {**run, "state": "ended", "ended": f"ended {line['status']}", "costUsdSoFar": line["costUsd"]}
                self._ended[identity] = over, now + LINGER_S
        self._ended = {identity: end for identity, end in self._ended.items() if end[1] > now and identity not in live}
        self._runs = {run["id"]: run for run in runs}
        shown = [*runs, *(run for run, _ in self._ended.values())]
        shown.sort(key=lambda run: (run["state"] == "queued", run["id"]))
        return {**answer, "log": self._log, "runs": shown}

    def _with_rate(self, run: dict[str, Any]) -> dict[str, Any]:
        before = self._runs.get(run["id"])
        if before is None:
            return run
        passed_s = (run["ageMs"] - before["ageMs"]) / 1000
        rate = before.get("tokensPerSecond")
        if passed_s > 0:
            rate = max(0.0, (run["outputTokensSoFar"] - before["outputTokensSoFar"]) / passed_s)
        return run if rate is None else {**run, "tokensPerSecond": rate}
