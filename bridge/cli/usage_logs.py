"""`cli-bridge usage`, `logs`, `capacity`: what was used, and how things stand."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import click

from bridge.cli.common import FAILED, as_json, ask, examples, load_settings, plain_errors, print_table, say, show_json
from bridge.errors import BridgeError
from bridge.limits import money
from bridge.ops.admin_client import admin_client
from bridge.store.folder import Store

#: Exit status of `capacity` by its verdict.
VERDICTS = {"green": 0, "yellow": 10, "red": 20}
#: Seconds between two calls of `logs -f`.
FOLLOW_S = 2.0
#: Lines that `logs -f` asks for at once; of more lines between two calls, the oldest are not shown.
FOLLOW_LINES = 200

_HEAD = ["TIME (UTC)", "KEY", "MODEL", "API", "STATUS", "IN", "OUT", "COST", "TOOK"]
_WIDTHS = [19, 12, 22, 16, 14, 7, 7, 9, 8]
_RIGHT = {5, 6, 7, 8}


@click.command(epilog=examples("cli-bridge usage", "cli-bridge usage --days 7", "cli-bridge usage --json"))
@click.option("--days", type=int, default=30, show_default=True)
@as_json
def usage(days: int, raw: bool) -> None:
    """Requests, tokens and cost per day and key."""
    answer = ask("GET", f"/admin/usage?days={days}")
    if raw:
        show_json(answer)
        return
    rows = [
        [row["day"], row["key"], str(row["requests"]), str(row["errors"]), str(row["tokens"]), money(row["costUsd"])]
        for row in answer["usage"]
    ]
    if rows:
        total = [sum(row[name] for row in answer["usage"]) for name in ("requests", "errors", "tokens", "costUsd")]
        rows.append(["total", "", *map(str, total[:3]), money(total[3])])
    print_table(
        ["DAY", "KEY", "REQUESTS", "ERRORS", "TOKENS", "COST"],
        rows,
        right={2, 3, 4, 5},
        empty="Nothing was used yet.",
    )


@click.command(
    epilog=examples(
        "cli-bridge logs",
        "cli-bridge logs --key ada --status error -n 50",
        "cli-bridge logs --text req_e5c0f5715baeedcce62461b1",
        "cli-bridge logs -f",
        "cli-bridge logs -f --json | jq .costUsd",
    )
)
@click.option("--key", help="only this key")
@click.option("--status", help="only this HTTP status or error code; 'ok' or 'error' for all of a kind")
@click.option("--text", help="only lines with this in a prompt, an error, a model, or an id (also a request id)")
@click.option("-n", "--limit", type=int, default=20, show_default=True, help="how many lines")
@click.option("-f", "--follow", is_flag=True, help="go on with each request as it ends; ctrl-C stops")
@as_json
def logs(key: str | None, status: str | None, text: str | None, limit: int, follow: bool, raw: bool) -> None:
    """The request log, newest first; with -f newest last."""
    given = {"key": key, "status": status, "text": text}
    query = urlencode({name: value for name, value in given.items() if value is not None})
    if follow:
        _follow(query, limit, raw)
        return
    answer = ask("GET", f"/admin/logs?limit={limit}&{query}")
    if raw:
        show_json(answer)
        return
    print_table(_HEAD, [_row(line) for line in answer["logs"]], right=_RIGHT, empty="The log is empty.", colour=_colour)


def _follow(query: str, limit: int, raw: bool) -> None:
    if not raw:
        print_table(_HEAD, [], right=_RIGHT, widths=_WIDTHS)
    try:
        for line in _new_lines(query, limit):
            if raw:
                show_json(line, indent=None)
            else:
                print_table(None, [_row(line)], right=_RIGHT, widths=_WIDTHS, colour=_colour)
    except KeyboardInterrupt:
        say()


def _new_lines(query: str, limit: int) -> Iterator[dict[str, Any]]:
    """Lines of the log of the running server, oldest first, for ever."""
    settings = load_settings()
    seen: str | None = None
    first = True
    while True:
        # Never through the data folder itself: that would keep a server from starting.
        if Store.holder(settings.data_dir) is None:
            if first:
                say("cli-bridge: The server does not run, so there is nothing to follow.", err=True)
                raise SystemExit(FAILED)
        else:
            try:
                with admin_client(settings) as client:
                    page = client.call("GET", f"/admin/logs?limit={limit if first else FOLLOW_LINES}&{query}")["logs"]
            except BridgeError as error:
                if first:
                    with plain_errors():
                        raise
                page = []  # it is just starting again
                say(f"cli-bridge: {error.message}", err=True)
            ids = [line["id"] for line in page]
            fresh = page[: ids.index(seen)] if seen in ids else page
            yield from reversed(fresh)
            seen = ids[0] if ids else seen
        first = False
        time.sleep(FOLLOW_S)


def _row(line: dict[str, Any]) -> list[str]:
    return [
        line["timestamp"][:19].replace("T", " "),
        line["keyName"],
        line["model"],
        line["api"],
        str(line["status"]) if line["code"] is None else line["code"],
        str(line["inputTokens"]),
        str(line["outputTokens"]),
        money(line["costUsd"]),
        f"{line['durationMs'] / 1000:.1f} s",
    ]


def _colour(cell: str) -> str | None:
    from bridge.errors import CODES

    return "red" if cell in CODES else None


@click.command(
    epilog=examples(
        "cli-bridge capacity", "cli-bridge capacity >/dev/null && ./nightly-job.sh", "cli-bridge capacity --json"
    )
)
@as_json
def capacity(raw: bool) -> None:
    """Whether work is welcome now.

    Exit status 0 for green (a slot is free), 10 for yellow (you would wait), 20 for red (you would be
    refused), 1 where the server does not run.
    """
    settings = load_settings()
    if Store.holder(settings.data_dir) is None:
        say("cli-bridge: The server does not run.\n  Start it: cli-bridge serve", err=True)
        raise SystemExit(FAILED)
    answer = ask("GET", "/capacity")
    if raw:
        show_json(answer)
    else:
        verdict = click.style(answer["verdict"], fg=answer["verdict"])
        soonest = answer["soonest_reset_seconds"]
        limited = f", a limited credential is back in {soonest} s" if soonest else ""
        later = f", try again in {answer['retry_after_seconds']} s" if answer["retry_after_seconds"] else ""
        click.echo(f"{verdict}: {answer['slots_free']} slots free, {answer['queued']} waiting{later}{limited}")
    raise SystemExit(VERDICTS[answer["verdict"]])


@click.command(epilog=examples("cli-bridge openapi > openapi.json"))
def openapi() -> None:
    """Print the API description (OpenAPI 3.1). Needs no server."""
    from bridge.http.app import document

    show_json(document())


COMMANDS = (usage, logs, capacity, openapi)
