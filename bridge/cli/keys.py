"""`cli-bridge keys …`: make, show, change and revoke keys."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from bridge.cli.common import as_json, ask, environment, examples, path_of, print_table, say, show_json
from bridge.errors import SettingsError
from bridge.limits import LIMITS, WINDOWS, money
from bridge.registry import PROVIDERS

_COLOURS = {"active": "green", "disabled": "yellow", "expired": "yellow", "revoked": "red"}


@click.group(
    epilog=examples(
        "cli-bridge keys create ada --max-cost-per-day 2 --note 'prototype'",
        "cli-bridge keys list",
        "cli-bridge keys set ada --max-cost-per-day 5",
        "cli-bridge keys revoke ada",
    )
)
def keys() -> None:
    """Make, show, change and revoke keys."""


def _complete(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    """Names for the shell to offer; none where the data folder cannot be read."""
    try:
        folder = Path(environment().get("BRIDGE_DATA_DIR") or "data")
        rows = json.loads((folder / "keys.json").read_bytes())["keys"]
        return [row["name"] for row in rows if row["name"].startswith(begun)]
    except (OSError, ValueError, KeyError, TypeError, SettingsError):
        return []


def name_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """NAME, of a key that is there."""
    return click.argument("name", shell_complete=_complete)(command)


def limit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """An option for each limit: maxCostPerDay -> --max-cost-per-day."""
    for limit in reversed(LIMITS):
        flag = "--" + "-".join(limit.words)
        command = click.option(flag, limit.name, type=float, help=f"{limit.text}; 0 = no limit")(command)
    return command


def _names(text: str) -> list[str] | None:
    return None if text == "any" else [name.strip() for name in text.split(",") if name.strip()]


def _switch(text: str) -> bool | str:
    return {"on": True, "off": False}.get(text, text)


#: The other fields of a key: name in the API, option, help, how the option is read, and what null is called.
_DETAILS: tuple[tuple[str, str, str, Callable[[str], Any], str], ...] = (
    (
        "expiresAt",
        "--expires-at",
        "such as 2026-12-31T18:00:00Z; 'never' for no end",
        lambda text: None if text == "never" else text,
        "-",
    ),
    ("models", "--models", "comma-separated model names; 'any' for all", _names, "any"),
    ("providers", "--providers", f"comma-separated: {', '.join(PROVIDERS)}; 'any' for all", _names, "any"),
    ("credentials", "--credentials", "comma-separated names of credentials; 'any' for all", _names, "any"),
    ("note", "--note", "a remark for yourself", str, "-"),
    (
        "loopRepeats",
        "--loop-repeats",
        "equal requests that pause it; 0 = never, 'default' for BRIDGE_LOOP_REPEATS",
        lambda text: None if text == "default" else int(text) if text.isdigit() else text,
        "default",
    ),
    ("webSearch", "--web-search", "'on' or 'off': whether it may search the web", _switch, "-"),
)


def detail_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """An option for each of the other fields."""
    for name, flag, text, _, _ in reversed(_DETAILS):
        command = click.option(flag, name, help=text)(command)
    return command


def _key_body(given: dict[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = {}
    for limit in LIMITS:
        value = given.get(limit.name)
        if value is not None:
            body[limit.name] = int(value) if value == value // 1 and abs(value) < 1e15 else value
    for name, _, _, read, _ in _DETAILS:
        if given.get(name) is not None:
            body[name] = read(given[name])
    return body


def _show_secret(answer: dict[str, Any], raw: bool) -> None:
    if raw:
        show_json(answer)
        return
    say(answer["message"])
    say(f"\n    {answer['key']}\n")
    say(answer["note"])


@keys.command(
    "create",
    epilog=examples(
        "cli-bridge keys create ada",
        "cli-bridge keys create ci --max-cost-per-day 1 --max-concurrent 1 --providers claude",
        "cli-bridge keys create guest --expires-at 2026-12-31T18:00:00Z --json",
    ),
)
@click.argument("name")
@limit_options
@detail_options
@as_json
def create_key(name: str, raw: bool, **given: Any) -> None:
    """Make a key and show it, this once.

    A limit that is not named takes the server's default; `cli-bridge keys show NAME` tells which hold.
    """
    _show_secret(ask("POST", "/admin/keys", {"name": name, **_key_body(given)}), raw)


@keys.command("list", epilog=examples("cli-bridge keys list", "cli-bridge keys list --revoked --json"))
@click.option("--revoked", is_flag=True, help="revoked ones, too")
@as_json
def list_keys(revoked: bool, raw: bool) -> None:
    """All keys and what they have used."""
    answer = ask("GET", "/admin/keys" + ("?revoked=1" if revoked else ""))
    if raw:
        show_json(answer)
        return
    rows = []
    for key in answer["keys"]:
        today, month, limits = key["usage"]["today"], key["usage"]["thisMonth"], key["limits"]
        cap = limits["maxCostPerDay"]
        rows.append(
            [
                key["name"],
                key["status"],
                str(today["requests"]),
                str(today["tokens"]),
                money(today["costUsd"]) + (f" of {money(cap)}" if cap else ""),
                money(month["costUsd"]),
                (key["lastUsedAt"] or "never")[:16].replace("T", " "),
            ]
        )
    print_table(
        ["NAME", "STATUS", "REQUESTS", "TOKENS", "COST TODAY", "THIS MONTH", "LAST USED (UTC)"],
        rows,
        right={2, 3, 4, 5},
        empty="There are no keys. Make one: cli-bridge keys create NAME",
        colour=_COLOURS.get,
    )


@keys.command("show", epilog=examples("cli-bridge keys show ada", "cli-bridge keys show ada --json"))
@name_argument
@as_json
def show_key(name: str, raw: bool) -> None:
    """One key: limits, usage, and what is left."""
    key = ask("GET", f"/admin/keys/{path_of(name)}")
    if raw:
        show_json(key)
        return
    for label in ("name", "status", "createdAt", "lastUsedAt"):
        say(f"{label:<12} {key[label] or '-'}")
    for label, _, _, _, null in _DETAILS:
        value = null if key[label] is None else key[label]
        say(f"{label:<12} {', '.join(value) if isinstance(value, list) else '-' if value == '' else value}")
    rows = []
    for limit in LIMITS:
        value = key["limits"][limit.name]
        shown = "no limit" if not value else money(value) if limit.is_cost else str(value)
        rows.append([limit.name, shown, "own" if limit.name in key["ownLimits"] else "default", limit.text])
    say()
    print_table(["LIMIT", "VALUE", "FROM", "WHAT"], rows, right={1})
    say()
    usage = key["usage"]
    rows = [
        [label, str(part["requests"]), str(part["tokens"]), money(part["costUsd"])]
        for label, part in (
            *((window.text, usage[window.field]) for window in WINDOWS),
            ("reserved", usage["reserved"]),
        )
    ]
    print_table(["USED", "REQUESTS", "TOKENS", "COST"], rows, right={1, 2, 3})


@keys.command(
    "set",
    epilog=examples(
        "cli-bridge keys set ada --max-cost-per-day 5", "cli-bridge keys set ada --models any --expires-at never"
    ),
)
@name_argument
@limit_options
@detail_options
@as_json
def set_key(name: str, raw: bool, **given: Any) -> None:
    """Change limits or fields of a key; what is not named stays."""
    body = _key_body(given)
    if not body:
        raise click.UsageError("Name at least one thing to change.")
    answer = ask("PATCH", f"/admin/keys/{path_of(name)}", body)
    show_json(answer) if raw else say(answer["message"])


@keys.command(
    "rotate", epilog=examples("cli-bridge keys rotate ada", "cli-bridge keys rotate ada --grace-seconds 86400")
)
@name_argument
@click.option("--grace-seconds", type=int, default=0, help="how long the old secret still works")
@as_json
def rotate_key(name: str, grace_seconds: int, raw: bool) -> None:
    """Give a key a new secret and show it, this once."""
    _show_secret(ask("POST", f"/admin/keys/{path_of(name)}/rotate", {"graceSeconds": grace_seconds}), raw)


def _simple(command: str, method: str, path: str, text: str) -> None:
    @keys.command(command, help=text, epilog=examples(f"cli-bridge keys {command} ada"))
    @name_argument
    @as_json
    def act(name: str, raw: bool) -> None:
        answer = ask(method, path.format(path_of(name)))
        show_json(answer) if raw else say(answer["message"])


_simple("disable", "POST", "/admin/keys/{}/disable", "Refuse a key until it is enabled again.")
_simple("enable", "POST", "/admin/keys/{}/enable", "Take a disabled or paused key again.")
_simple("revoke", "DELETE", "/admin/keys/{}", "End a key for good; its history stays.")
_simple(
    "reset-usage",
    "POST",
    "/admin/keys/{}/reset-usage",
    f"Count from zero again {' and '.join(window.text for window in WINDOWS)}.",
)
