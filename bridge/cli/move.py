"""`cli-bridge export` and `import-ai-cli-bridge`: data that comes and goes."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from bridge.cli.common import as_json, examples, load_settings, plain_errors, progress, show_json


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
    from bridge.ops import export as exports

    settings = load_settings()
    with plain_errors(), progress("export") as show:
        if output is None:
            exports.export(settings, what, kind, sys.stdout.buffer, show)
            return
        with exports.opened(output) as file:
            exports.export(settings, what, kind, file, show)


@click.command("import-ai-cli-bridge", epilog=examples("cli-bridge import-ai-cli-bridge ~/ai-cli-bridge/data"))
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@as_json
def import_ai_cli_bridge(folder: Path, raw: bool) -> None:
    """Take over the data of an ai-cli-bridge.

    FOLDER is its data folder, with keys.json, usage.json and logs.json; it is only read. Keys go on working,
    since both programs keep the SHA-256 of the raw key. Doing it twice changes nothing. A .env beside the
    folder is shown as settings for this program.
    """
    from bridge.ops import importer

    settings = load_settings()
    with plain_errors(), progress("import") as show:
        report = importer.run(settings, folder, show)
    if raw:
        show_json(report)
        return
    for line in importer.sentences(report):
        click.echo(line)


COMMANDS = (export, import_ai_cli_bridge)
