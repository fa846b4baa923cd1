"""The command line: `cli-bridge serve`, `demo`, `keys …`, `usage`, `logs`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from dotenv import dotenv_values

from bridge import __version__
from bridge.errors import BridgeError, SettingsError, StoreError
from bridge.ops.table import money, print_table
from bridge.settings import LIMIT_DEFAULTS, TABLE, Settings

FAILED, WRONG_USE = 1, 2


def environment() -> dict[str, str]:
    """The environment with a `.env` of the working directory below it: what is really set wins."""
    file = {name: value for name, value in dotenv_values(Path(".env")).items() if value is not None}
    return {**file, **os.environ}


def load_settings(**overrides: str | None) -> Settings:
    """The settings; mistakes are listed all at once and end the command with status 2."""
    given = {name: value for name, value in overrides.items() if value is not None}
    with plain_errors():
        return Settings.load(environment(), given)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Show what went wrong as a sentence and a hint, and end with status 1; with 2 for wrong settings."""
    try:
        yield
    except SettingsError as error:
        for problem in error.problems:
            click.echo(f"cli-bridge: {problem}", err=True)
        raise SystemExit(WRONG_USE) from None
    except BridgeError as error:
        click.echo(f"cli-bridge: {error.message}\n  {error.hint}", err=True)
        raise SystemExit(FAILED) from None
    except StoreError as error:
        click.echo(f"cli-bridge: {error.message}\n  {error.hint}", err=True)
        raise SystemExit(FAILED) from None


def ask(method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """One call of the admin API: of the running server, or of the data folder."""
    from bridge.ops.local import admin_client

    with plain_errors(), admin_client(load_settings()) as client:
        return client.call(method, path, body)


def _settings_help() -> str:
    rows = []
    for row in TABLE:
        default = "" if not row["default"] else f" [{row['default']}]"
        rows.append(f"  {row['variable']}{default}\n      {row['text']}")
    return "\b\nSettings (environment, or a .env file in the working directory):\n" + "\n".join(rows)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="cli-bridge")
def main() -> None:
    """The Claude Code and Codex command lines as one HTTP service, with caps that hold."""


@main.command(epilog=_settings_help())
@click.option("--host", help="listen address (BRIDGE_HOST)")
@click.option("--port", help="listen port (BRIDGE_PORT)")
def serve(host: str | None, port: str | None) -> None:
    """Run the service until it is stopped."""
    from bridge.ops import serve as server

    given = {"BRIDGE_HOST": host, "BRIDGE_PORT": port}
    overrides = {name: value for name, value in given.items() if value is not None}

    def read() -> Settings:
        return Settings.load(environment(), overrides)

    with plain_errors():
        server.run(read(), reread=read)


@main.command()
@click.option("--host", help="listen address (BRIDGE_HOST)")
@click.option("--port", help="listen port (BRIDGE_PORT)")
def demo(host: str | None, port: str | None) -> None:
    """Try everything with a simulated CLI, without an account; ctrl-C ends it."""
    from bridge.ops import demo as demonstration

    given = {"BRIDGE_HOST": host, "BRIDGE_PORT": port}
    overrides = {name: value for name, value in given.items() if value is not None}
    with plain_errors():
        demonstration.run(environment(), overrides)


# --- keys ------------------------------------------------------------------------------------------


@main.group()
def keys() -> None:
    """Make, show, change and revoke keys. Works while the server runs and while it does not."""


def as_json(command: Callable[..., Any]) -> Callable[..., Any]:
    """The `--json` option of every command that shows something."""
    return click.option("--json", "raw", is_flag=True, help="print JSON")(command)


def limit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """An option for each limit: maxCostPerDay -> --max-cost-per-day."""
    for name, (_, what) in reversed(LIMIT_DEFAULTS.items()):
        flag = "--" + "".join(f"-{c.lower()}" if c.isupper() else c for c in name)
        command = click.option(flag, name, type=float, help=f"{what}; 0 = no limit")(command)
    return command


def detail_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The other fields of a key."""
    for decorate in (
        click.option("--note", help="a remark for yourself"),
        click.option("--providers", help="comma-separated: claude, codex; 'any' for all"),
        click.option("--models", help="comma-separated model names; 'any' for all"),
        click.option("--expires-at", help="such as 2026-12-31T18:00:00Z; 'never' for no end"),
    ):
        command = decorate(command)
    return command


def _key_body(given: dict[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = {}
    for name in LIMIT_DEFAULTS:
        value = given.get(name)
        if value is not None:
            body[name] = int(value) if value == value // 1 and abs(value) < 1e15 else value
    for option, field in (("models", "models"), ("providers", "providers")):
        text = given.get(option)
        if text is not None:
            body[field] = None if text == "any" else [n.strip() for n in text.split(",") if n.strip()]
    if given.get("note") is not None:
        body["note"] = given["note"]
    if given.get("expires_at") is not None:
        body["expiresAt"] = None if given["expires_at"] == "never" else given["expires_at"]
    return body


def _show_secret(answer: dict[str, Any], raw: bool) -> None:
    if raw:
        click.echo(json.dumps(answer, indent=2))
        return
    click.echo(answer["message"])
    click.echo(f"\n    {answer['key']}\n")
    click.echo(answer["note"])


@keys.command("create")
@click.argument("name")
@limit_options
@detail_options
@as_json
def create_key(name: str, raw: bool, **given: Any) -> None:
    """Make a key and show it, this once."""
    _show_secret(ask("POST", "/admin/keys", {"name": name, **_key_body(given)}), raw)


@keys.command("list")
@click.option("--revoked", is_flag=True, help="revoked ones, too")
@as_json
def list_keys(revoked: bool, raw: bool) -> None:
    """All keys and what they have used."""
    answer = ask("GET", "/admin/keys" + ("?revoked=1" if revoked else ""))
    if raw:
        click.echo(json.dumps(answer, indent=2))
        return
    if not answer["keys"]:
        click.echo("There are no keys. Make one: cli-bridge keys create NAME")
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
        ["NAME", "STATUS", "REQUESTS", "TOKENS", "COST TODAY", "THIS MONTH", "LAST USED"],
        rows,
        right={2, 3, 4, 5},
    )


@keys.command("show")
@click.argument("name")
@as_json
def show_key(name: str, raw: bool) -> None:
    """One key: limits, usage, and what is left."""
    key = ask("GET", f"/admin/keys/{_path(name)}")
    if raw:
        click.echo(json.dumps(key, indent=2))
        return
    for label in ("name", "status", "createdAt", "expiresAt", "lastUsedAt", "note"):
        click.echo(f"{label:<12} {key[label] if key[label] not in (None, '') else '-'}")
    for label in ("models", "providers"):
        click.echo(f"{label:<12} {', '.join(key[label]) if key[label] is not None else 'any'}")
    rows = []
    for name_, (_, what) in LIMIT_DEFAULTS.items():
        value = key["limits"][name_]
        shown = "no limit" if not value else money(value) if "Cost" in name_ else str(value)
        rows.append([name_, shown, "own" if name_ in key["ownLimits"] else "default", what])
    click.echo()
    print_table(["LIMIT", "VALUE", "FROM", "WHAT"], rows, right={1})
    click.echo()
    usage = key["usage"]
    rows = [
        [label, str(part["requests"]), str(part["tokens"]), money(part["costUsd"])]
        for label, part in (
            ("today", usage["today"]),
            ("this month", usage["thisMonth"]),
            ("reserved", usage["reserved"]),
        )
    ]
    print_table(["USED", "REQUESTS", "TOKENS", "COST"], rows, right={1, 2, 3})


@keys.command("set")
@click.argument("name")
@limit_options
@detail_options
@as_json
def set_key(name: str, raw: bool, **given: Any) -> None:
    """Change limits or fields of a key; what is not named stays."""
    body = _key_body(given)
    if not body:
        raise click.UsageError("Name at least one thing to change.")
    answer = ask("PATCH", f"/admin/keys/{_path(name)}", body)
    click.echo(json.dumps(answer, indent=2) if raw else answer["message"])


@keys.command("rotate")
@click.argument("name")
@click.option("--grace-seconds", type=int, default=0, help="how long the old secret still works")
@as_json
def rotate_key(name: str, grace_seconds: int, raw: bool) -> None:
    """Give a key a new secret and show it, this once."""
    _show_secret(ask("POST", f"/admin/keys/{_path(name)}/rotate", {"graceSeconds": grace_seconds}), raw)


def _simple(command: str, method: str, path: str, text: str) -> None:
    @keys.command(command, help=text)
    @click.argument("name")
    @as_json
    def act(name: str, raw: bool) -> None:
        answer = ask(method, path.format(_path(name)))
        click.echo(json.dumps(answer, indent=2) if raw else answer["message"])


_simple("disable", "POST", "/admin/keys/{}/disable", "Refuse a key until it is enabled again.")
_simple("enable", "POST", "/admin/keys/{}/enable", "Take a disabled or paused key again.")
_simple("revoke", "DELETE", "/admin/keys/{}", "End a key for good; its history stays.")
_simple("reset-usage", "POST", "/admin/keys/{}/reset-usage", "Count from zero again today and this month.")


def _path(name: str) -> str:
    from urllib.parse import quote

    return quote(name, safe="")


# --- looking after it ---------------------------------------------------------------------------------


@main.command()
@click.option("--repair", is_flag=True, help="mend the data folder as far as that is safe (server stopped)")
@as_json
def doctor(repair: bool, raw: bool) -> None:
    """Check settings, data folder and CLIs, and say what to do about what is wrong."""
    from bridge.ops import doctor as doctors

    settings = load_settings()
    if repair:
        with plain_errors():
            for sentence in doctors.repair(settings):
                click.echo(sentence)
    findings = doctors.examine(settings)
    if raw:
        click.echo(json.dumps([vars(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            colour = {"ok": "green", "warn": "yellow", "fail": "red"}[finding.level]
            click.echo(f"{click.style(finding.level.ljust(5), fg=colour)} {finding.what}: {finding.found}")
            if finding.todo:
                click.echo(f"      {finding.todo}")
    raise SystemExit(FAILED if any(finding.level == "fail" for finding in findings) else 0)


# --- what was used -----------------------------------------------------------------------------------


@main.command()
@click.option("--days", type=int, default=30, show_default=True)
@as_json
def usage(days: int, raw: bool) -> None:
    """Requests, tokens and cost per day and key."""
    answer = ask("GET", f"/admin/usage?days={days}")
    if raw:
        click.echo(json.dumps(answer, indent=2))
        return
    rows = [
        [row["day"], row["key"], str(row["requests"]), str(row["tokens"]), money(row["costUsd"])]
        for row in answer["usage"]
    ]
    print_table(["DAY", "KEY", "REQUESTS", "TOKENS", "COST"], rows, right={2, 3, 4}, empty="Nothing was used yet.")


@main.command()
@click.option("--key", help="only this key")
@click.option("--status", help="only this HTTP status or error code")
@click.option("-n", "--limit", type=int, default=20, show_default=True)
@as_json
def logs(key: str | None, status: str | None, limit: int, raw: bool) -> None:
    """The request log, newest first."""
    from urllib.parse import urlencode

    given = {"limit": limit, "key": key, "status": status}
    answer = ask("GET", "/admin/logs?" + urlencode({n: v for n, v in given.items() if v is not None}))
    if raw:
        click.echo(json.dumps(answer, indent=2))
        return
    rows = [
        [
            row["timestamp"][:19].replace("T", " "),
            row["keyName"],
            row["model"],
            str(row["status"]) if row["code"] is None else row["code"],
            str(row["inputTokens"]),
            str(row["outputTokens"]),
            money(row["costUsd"]),
            f"{row['durationMs'] / 1000:.1f} s",
        ]
        for row in answer["logs"]
    ]
    print_table(
        ["TIME (UTC)", "KEY", "MODEL", "STATUS", "IN", "OUT", "COST", "TOOK"],
        rows,
        right={4, 5, 6, 7},
        empty="The log is empty.",
    )
