"""`cli-bridge top`: how things stand, as they change; printed once, as JSON, or on a full screen."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import click

from bridge.cli import picture
from bridge.cli.common import (
    FAILED,
    WRONG_USE,
    as_json,
    environment,
    examples,
    load_settings,
    plain_errors,
    print_table,
    say,
    say_coloured,
    show_json,
)
from bridge.cli.picture import Answer
from bridge.cli.usage_logs import VERDICTS
from bridge.ops.admin_client import RemoteAdmin, elsewhere, here

#: Seconds between two looks: by default, at least and at most.
EVERY_S, LEAST_S, MOST_S = 2.0, 0.5, 60.0
#: Lines of the log that are printed once.
LINES = 10

COLOURS = {"good": "green", "warn": "yellow", "bad": "red"}


@click.command(
    epilog=examples(
        "cli-bridge top",
        "cli-bridge top --once",
        "cli-bridge top --json | jq .attention",
        "cli-bridge top --url https://bridge.example.com --key-file ~/.bridge-admin-key",
    )
)
@click.option(
    "-d",
    "every_s",
    metavar="SECONDS",
    type=click.FloatRange(LEAST_S, MOST_S),
    default=EVERY_S,
    show_default=True,
    help="between two looks",
)
@click.option("--once", is_flag=True, help="print it once; exit status as of capacity")
@click.option("--url", help="a bridge elsewhere; the admin key comes from BRIDGE_ADMIN_KEY or --key-file")
@click.option(
    "--key-file", type=click.Path(path_type=Path, dir_okay=False), help="a file with the admin key, for --url"
)
@as_json
def top(every_s: float, once: bool, url: str | None, key_file: Path | None, raw: bool) -> None:
    """Watch the bridge: load, money, runs, keys and log.

    A full screen that keeps itself up to date; ? shows its keys. What changes something asks first, and is in the
    audit. Printed once where the output is no terminal. Looks at the server that has this data folder, or with --url
    at one elsewhere.

    Exit status of --once and --json: 0 for green, 10 for yellow, 20 for red, 1 where no server answers.
    """
    connect = _connector(url, key_file)
    if raw or once or not _full_screen():
        _print_once(connect(), raw)
    try:
        from bridge.cli.screen import TopApp
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("textual", "rich"):
            raise
        say("The full screen needs one more package: pip install 'cli-bridge[top]'\n", err=True)
        _print_once(connect(), raw)
    with plain_errors():
        connect().top()
    app = TopApp(connect, every_s)
    status = app.run()
    if app.farewell:
        say(f"cli-bridge: {app.farewell}", err=True)
    raise SystemExit(status)


def _connector(url: str | None, key_file: Path | None) -> Callable[[], RemoteAdmin]:
    """Makes clients of the server that is meant; wrong use ends the command."""
    if url is None:
        if key_file is not None:
            raise click.UsageError("--key-file goes with --url.")
        settings = load_settings()
        return lambda: RemoteAdmin(lambda: here(settings))
    with plain_errors():
        secret = environment().get("BRIDGE_ADMIN_KEY", "")
    if key_file is not None:
        try:
            secret = key_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            say(f"cli-bridge: The key file cannot be read ({getattr(error, 'strerror', None) or 'no text'}).", err=True)
            raise SystemExit(FAILED) from None
    if not secret:
        raise click.UsageError("--url needs the admin key: set BRIDGE_ADMIN_KEY, or name a file with --key-file.")
    try:
        access = elsewhere(url, secret)
    except ValueError as error:
        say(f"cli-bridge: {error}", err=True)
        raise SystemExit(WRONG_USE) from None
    return lambda: RemoteAdmin(lambda: access)


def _full_screen() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _print_once(admin: RemoteAdmin, raw: bool) -> NoReturn:
    with plain_errors():
        answer = admin.top()
    if raw:
        show_json(answer)
    else:
        _print(answer, admin.address)
    raise SystemExit(VERDICTS[answer["capacity"]["verdict"]])


def _print(answer: Answer, address: str) -> None:
    for cells in (
        picture.head(answer, address),
        picture.money_line(answer),
        *([each] for each in picture.matters(answer)),
    ):
        say_coloured([(cell.text, COLOURS.get(cell.style)) for cell in cells])
    for make in picture.BOXES:
        box = make(answer)
        rows = box.rows[:LINES] if make is picture.log else box.rows
        colours = {cell.text: COLOURS.get(cell.style) for row in rows for cell in row.cells}
        # Not the columns that nobody fills who looks only once.
        places = [at for at in range(len(box.columns)) if any(row.cells[at].text not in ("", "-") for row in rows)]
        say(f"\n{box.title}")
        print_table(
            [box.columns[at].name for at in places],
            [[row.cells[at].text for at in places] for row in rows],
            right={number for number, at in enumerate(places) if box.columns[at].right},
            empty=box.empty,
            colour=colours.get,
        )
