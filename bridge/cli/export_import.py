"""`cli-bridge export`: usage and the request log, for spreadsheets and scripts; and `import-ai-cli-bridge`."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click

from bridge.cli.common import as_json, examples, load_settings, plain_errors, progress, say, show_json
from bridge.errors import StoreError
from bridge.ledger.tallies import KEPT_DAYS
from bridge.ops.admin_client import admin_client
from bridge.settings import Settings
from bridge.store.files import open_private

_HINT = "Check the path, its rights, and the space on its disk."


@click.command(
    epilog=examples(
        "cli-bridge export usage > usage.csv",
        "cli-bridge export logs --format jsonl --output logs.jsonl",
    )
)
@click.argument("what", type=click.Choice(["usage", "logs"]))
@click.option("--format", "kind", type=click.Choice(["csv", "jsonl"]), default="csv", show_default=True)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="a file; default: standard output"
)
def export(what: str, kind: str, output: Path | None) -> None:
    """Write all usage, or the request log, to a file.

    Usage is per day and key. As CSV, or as JSON lines.
    """
    settings = load_settings()
    with plain_errors(), progress("export") as show:
        if output is None:
            _export(settings, what, kind, sys.stdout.buffer, show)
            return
        with _open(output) as file:
            _export(settings, what, kind, file, show)


def _export(settings: Settings, what: str, kind: str, target: IO[bytes], show: Callable[[str], None]) -> None:
    """Write `usage` or `logs` as `csv` or `jsonl`. Raises StoreError, BridgeError."""
    with admin_client(settings) as client:
        written = 0
        try:
            if what == "usage":
                rows = client.call("GET", f"/admin/usage?days={KEPT_DAYS}")["usage"]
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
def _open(path: Path) -> Iterator[IO[bytes]]:
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


@click.command("import-ai-cli-bridge", epilog=examples("cli-bridge import-ai-cli-bridge ~/ai-cli-bridge/data"))
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@as_json
def import_ai_cli_bridge(folder: Path, raw: bool) -> None:
    """Take over the data of an ai-cli-bridge.

    FOLDER is its data folder, with keys.json, usage.json and logs.json; it is only read. Keys go on working,
    since both programs keep the SHA-256 of the raw key. Doing it twice changes nothing. A .env beside the
    folder is shown as settings for this program.
    """
    from bridge.ops import import_ai_cli_bridge as importer

    settings = load_settings()
    with plain_errors(), progress("import") as show:
        report = importer.run(settings, folder, show)
    if raw:
        show_json(report)
        return
    for line in importer.sentences(report):
        say(line)


COMMANDS = (export, import_ai_cli_bridge)
