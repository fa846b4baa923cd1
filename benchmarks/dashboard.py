"""What the dashboard costs the server: its first view, its pages, and searches of a long log. One run.

    ./run bench dashboard [--rounds 9] [--json FILE]

On a data folder with 50 keys, 90 days of usage and 100,000 log lines. Times are those of the server, seen
from the same host over one kept connection, one request after the other.
"""

from __future__ import annotations

import argparse
import http.client
import json
import time
from pathlib import Path
from typing import Any

from benchmarks import lab
from tests.support import history
from tests.support import server as servers

KEYS, DAYS, LINES = 50, 90, 100_000
#: To reach: everything that the first view of the overview asks for, in milliseconds; and what memory may
#: grow by while the whole log is searched and exported, in MiB.
FIRST_VIEW_MS, GROWTH_MIB = 300.0, 16.0
FIRST_VIEW = ("/admin/session", "/admin/overview", "/admin/usage/daily?days=30")
PAGES = (
    "/admin/usage/daily?days=90",
    "/admin/keys",
    "/admin/keys/key-7",
    "/admin/runs",
    "/admin/logs?limit=50&prompts=preview&sums=0",
    "/admin/logs?limit=50&prompts=preview&sums=0&key=key-7",
    "/admin/audit?limit=50",
)
SEARCHES = (
    "/admin/logs?limit=50&sums=0&text=no+such+words",
    "/admin/logs?limit=50&sums=0&key=nobody",
    # What all lines add up to, which a page asks for once it has its lines.
    "/admin/logs?limit=1",
    "/admin/logs/run_none",
)
EXPORT = "/admin/logs/export?format=csv"


class Browser:
    """Requests of one logged-in browser on a kept connection."""

    def __init__(self, server: servers.Server) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
        self._connection.request("POST", "/admin/session", headers={"Authorization": f"Bearer {servers.ADMIN_KEY}"})
        answer = self._connection.getresponse()
        answer.read()
        self._headers = {"Cookie": str(answer.headers["Set-Cookie"]).split(";")[0]}

    def get(self, path: str) -> bytes:
        """The whole answer."""
        self._connection.request("GET", path, headers=self._headers)
        answer = self._connection.getresponse()
        body = answer.read()
        assert answer.status == (404 if path.endswith("run_none") else 200), (path, body[:300])
        return body

    def timed(self, path: str) -> float:
        """Milliseconds for an answer."""
        return lab.timed(lambda: self.get(path))


def files_of(page: bytes) -> list[str]:
    """The files that a page names: what a browser fetches that has none of them yet."""
    return sorted({part.split('"')[0] for part in page.decode().split('="')[1:] if part.startswith("/static/")})


def fill(folder: Path) -> None:
    """The data folder. Every key has caps, and some keys are busier than others."""
    limits = {"maxCostPerDay": 5, "maxCostPerMonth": 100, "maxRequestsPerDay": 5000}
    people = [history.Person(f"key-{number}", limits, 1 + number % 7) for number in range(KEYS)]
    history.write(folder, people, days=DAYS, lines=LINES)


def measure(rounds: int) -> dict[str, Any]:
    """Run everything."""
    facts = lab.machine()
    figures: dict[str, lab.Figures] = {}
    with lab.folder() as folder:
        fill(folder / "data")
        with servers.running(folder, demo=True) as server:
            # At once after the start, while the last hours are still being read from the log.
            began = time.perf_counter()
            browser = Browser(server)
            page = browser.get("/admin/")
            files = files_of(page)
            for path in (*files, *FIRST_VIEW):
                browser.get(path)
            cold_ms = 1000 * (time.perf_counter() - began)
            sent = {path: len(browser.get(path)) for path in (*FIRST_VIEW, *PAGES)}
            before = lab.memory_mib(server.process.pid)["bridge_rss"]
            whole: list[float] = []
            samples: dict[str, list[float]] = {path: [] for path in (*FIRST_VIEW, *PAGES, *SEARCHES, EXPORT)}
            most = before
            for _ in range(rounds):
                whole.append(sum(browser.timed(path) for path in ("/admin/", *files, *FIRST_VIEW)))
                for path, values in samples.items():
                    values.append(browser.timed(path))
                    most = max(most, lab.memory_mib(server.process.pid)["bridge_rss"])
            lines = browser.get(EXPORT).count(b"\n") - 1
            assert lines == LINES, lines
        figures["first view, all of it"] = lab.Figures.of("first view, all of it", whole)
        for path, values in samples.items():
            figures[path] = lab.Figures.of(path, values)
    return {
        "machine": facts,
        "figures": figures,
        "files": len(files),
        "sent_bytes": sent,
        "first_view_right_after_start_ms": round(cold_ms, 1),
        "memory_mib": {"before": before, "most": most, "growth": round(most - before, 1)},
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    result = measure(options.rounds)
    figures: dict[str, lab.Figures] = result["figures"]
    sent = result["sent_bytes"]
    rows = [[f.name, f"{f.median:.1f}", f"{f.p95:.1f}", sent.get(f.name, "")] for f in figures.values()]
    print(lab.table(["request", "median ms", "p95 ms", "bytes"], rows), end="\n\n")
    targets = {
        f"first view with its {result['files']} files, median ms": (
            figures["first view, all of it"].median,
            FIRST_VIEW_MS,
        ),
        "the same right after the start, ms": (result["first_view_right_after_start_ms"], FIRST_VIEW_MS),
        "growth of memory over searches and exports, MiB": (result["memory_mib"]["growth"], GROWTH_MIB),
    }
    reached = [[k, f"{v:.1f}", most, "yes" if v <= most else "NO"] for k, (v, most) in targets.items()]
    print(lab.table(["target", "measured", "at most", "reached"], reached), end="\n\n")
    print(f"{KEYS} keys, {DAYS} days, {LINES:,} log lines; memory:", json.dumps(result["memory_mib"]))
    print("machine:", json.dumps(result["machine"]))
    lab.write_json(
        options.json,
        {
            **result,
            "figures": {name: vars(f) for name, f in figures.items()},
            "targets": {name: {"measured": v, "at_most": most} for name, (v, most) in targets.items()},
        },
    )


if __name__ == "__main__":
    main()
