"""`cli-bridge export`: usage and the request log, for spreadsheets and scripts."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from bridge.errors import StoreError
from bridge.ops.local import admin_client
from bridge.settings import Settings
from bridge.store.files import open_private

#: All days that the ledger keeps.
_DAYS = 400
_HINT = "Check the path, its rights, and the space on its disk."


def export(settings: Settings, what: str, kind: str, target: IO[bytes], show: Callable[[str], None]) -> None:
    """Write `usage` or `logs` as `csv` or `jsonl`. Raises StoreError, BridgeError."""
    with admin_client(settings) as client:
        written = 0
        try:
            if what == "usage":
                rows = client.call("GET", f"/admin/usage?days={_DAYS}")["usage"]
                pieces: Iterator[bytes] = _usage(rows, kind)
            else:
                pieces = client.stream(f"/admin/logs/export?format={kind}")
            for piece in pieces:
                target.write(piece)
                written += len(piece)
                show(f"{written:,} bytes")
            target.flush()
        except OSError as error:
            raise StoreError(f"The export failed ({os.strerror(error.errno or 0)}).", _HINT) from None


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to, readable by its owner alone: it may hold prompts. Raises StoreError."""
    try:
        with os.fdopen(open_private(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
            yield file
    except OSError as error:
        raise StoreError(f"The file cannot be written ({os.strerror(error.errno or 0)}).", _HINT) from None


def _usage(rows: list[dict[str, Any]], kind: str) -> Iterator[bytes]:
    if kind == "jsonl":
        for row in rows:
            yield json.dumps(row).encode() + b"\n"
        return
    buffer = io.StringIO()
    if rows:
        writer = csv.DictWriter(buffer, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    yield buffer.getvalue().encode()
