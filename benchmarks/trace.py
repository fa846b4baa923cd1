"""`./run bench trace`: how many modules of the bridge one plain POST /generate goes through, on the demo provider.

A call is a function of bridge/ that is entered. A move is a call into another module than that of the call before it,
in the order in which they happen: in the request, in its run, in the provider and in what they wake.
"""

from __future__ import annotations

import gevent.monkey

gevent.monkey.patch_all()

import argparse  # noqa: E402
import statistics  # noqa: E402
import sys  # noqa: E402
from collections import Counter  # noqa: E402
from itertools import pairwise  # noqa: E402
from pathlib import Path  # noqa: E402
from types import CodeType, FrameType  # noqa: E402
from typing import Any  # noqa: E402

import bridge  # noqa: E402
from benchmarks import lab  # noqa: E402
from bridge.http.app import create_app  # noqa: E402
from bridge.service import Service, demo_providers  # noqa: E402
from bridge.settings import Settings  # noqa: E402

ADMIN_KEY = "made-up-admin-key-for-a-trace"
PACKAGE = Path(bridge.__file__).parent


class Trace:
    """The calls between `with` and its end: `steps` holds a (module, function) for each, in order."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, str]] = []
        self._modules: dict[CodeType, str | None] = {}

    def __enter__(self) -> Trace:
        sys.setprofile(self._see)
        return self

    def __exit__(self, *exc: object) -> None:
        sys.setprofile(None)

    def _see(self, frame: FrameType, event: str, argument: Any) -> None:
        if event != "call":
            return
        code = frame.f_code
        if code not in self._modules:
            self._modules[code] = _module(code)
        module = self._modules[code]
        if module is not None:
            self.steps.append((module, code.co_qualname))

    @property
    def modules(self) -> list[str]:
        """Each module once, in the order of its first call."""
        return list(dict.fromkeys(module for module, _ in self.steps))

    @property
    def moves(self) -> Counter[tuple[str, str]]:
        """How often the next call was in another module, by (from, to)."""
        pairs = pairwise(module for module, _ in self.steps)
        return Counter((before, after) for before, after in pairs if before != after)


def _module(code: CodeType) -> str | None:
    """The name of a module of the bridge, without `bridge.`; None for code of anybody else."""
    path = Path(code.co_filename)
    if not path.is_relative_to(PACKAGE):
        return None
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def traces(times: int) -> list[Trace]:
    """A trace of each of so many POSTs, one after the other, on an engine that has answered some before."""
    with lab.folder() as folder:
        settings = Settings.load({"BRIDGE_DATA_DIR": str(folder / "data"), "BRIDGE_ADMIN_KEY": ADMIN_KEY})
        service = Service(settings, make_providers=demo_providers)
        app = create_app(service)
        service.open()
        client = app.test_client()
        try:
            made = client.post("/admin/keys", json={"name": "tracer"}, headers=_bearer(ADMIN_KEY))
            key = made.get_json()["key"]
            found = []
            for number in range(-2, times):
                with Trace() as trace:
                    answer = client.post("/generate", json={"userPrompt": f"hello {number}"}, headers=_bearer(key))
                    body = answer.get_data()
                assert answer.status_code == 200, body
                answer.close()
                if number >= 0:
                    found.append(trace)
                gevent.sleep(0.5)  # the process that took the place of the used one has got ready
            return found
        finally:
            service.close()


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def main() -> None:
    """Trace, and print."""
    parser = argparse.ArgumentParser(prog="./run bench trace", description=__doc__)
    parser.add_argument("--times", type=int, default=5, help="POSTs to take the median of (default: 5)")
    parser.add_argument("--moves", action="store_true", help="list the moves between each two modules, most first")
    parser.add_argument("--steps", action="store_true", help="list the calls in order")
    parser.add_argument("--json", metavar="FILE", help="write the result to a file as well")
    options = parser.parse_args()

    found = sorted(traces(options.times), key=lambda trace: trace.moves.total())
    middle = found[len(found) // 2]
    if options.steps:
        for (module, function), (before, _) in zip(middle.steps, [("", ""), *middle.steps], strict=False):
            print(f"{module if module != before else '':28} {function}")
        print()
    if options.moves:
        rows = [(f"{before} → {after}", count) for (before, after), count in middle.moves.most_common()]
        print(lab.table(("move", "times"), rows), end="\n\n")
    calls = Counter(module for module, _ in middle.steps)
    print(lab.table(("module", "calls"), [(module, calls[module]) for module in middle.modules]), end="\n\n")
    figures = {
        "modules": round(statistics.median(len(trace.modules) for trace in found)),
        "calls": round(statistics.median(len(trace.steps) for trace in found)),
        "moves": round(statistics.median(trace.moves.total() for trace in found)),
    }
    print(", ".join(f"{count} {what}" for what, count in figures.items()), f"(median of {len(found)})")
    lab.write_json(options.json, {"machine": lab.machine(), **figures, "order": middle.modules})


if __name__ == "__main__":
    main()
