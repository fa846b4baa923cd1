"""`python -m tools.newest STATUS`: put what the tests of the newest CLIs have shown into docs/clis.md.

`./run test --newest` calls it with the exit status of the tests; a nightly job can do so, and say where it is not 0.
"""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path

from bridge.registry import PROVIDERS
from tests.real_cli.install import versions

PAGE = Path(__file__).resolve().parents[1] / "docs" / "clis.md"
HEAD = "| tested on | claude | codex | result |\n| --- | --- | --- | --- |\n"
#: Rows that the table has at most.
MOST_ROWS = 10


def with_row(page: str, row: str) -> str:
    """The page with a row at the top of the table, in the place of one for the same versions."""
    before, after = page.split(HEAD)
    lines = after.split("\n")
    old = list(itertools.takewhile(lambda line: line.startswith("|"), lines))
    others = [line for line in old if line.split("|")[2:4] != row.split("|")[2:4]]
    return before + HEAD + "\n".join([row, *others][:MOST_ROWS] + lines[len(old) :])


def main() -> None:
    """Write the row of today."""
    found = [versions()[row.package] for row in PROVIDERS.values()]
    result = "all pass" if sys.argv[1] == "0" else "some fail"
    day = time.strftime("%Y-%m-%d", time.gmtime())
    PAGE.write_text(with_row(PAGE.read_text(), f"| {day} | {' | '.join(found)} | {result} |"))


if __name__ == "__main__":
    main()
