"""What all commands share: settings, errors as sentences, calls of the admin API, and options."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
from dotenv import dotenv_values

from bridge.errors import BridgeError, SettingsError, StoreError
from bridge.settings import ENV_FILE, Settings

FAILED, WRONG_USE = 1, 2


def environment() -> dict[str, str]:
    """The environment with the settings file below it: what is really set wins. Ends with status 2 where a file
    was named and cannot be read."""
    named = os.environ.get(ENV_FILE)
    path = Path(named or ".env")
    try:
        if named:
            path.open("rb").close()
        file = {name: value for name, value in dotenv_values(path).items() if value is not None}
    except OSError as error:
        click.echo(f"cli-bridge: the settings file {path} cannot be read ({error.strerror})", err=True)
        raise SystemExit(WRONG_USE) from None
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
    except (BridgeError, StoreError) as error:
        click.echo(f"cli-bridge: {error.message}\n  {error.hint}", err=True)
        raise SystemExit(FAILED) from None


def ask(method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """One call of the admin API: of the running server, or of the data folder."""
    from bridge.ops.local import admin_client

    with plain_errors(), admin_client(load_settings()) as client:
        return client.call(method, path, body)


def show_json(value: Any) -> None:
    """Print a value as JSON for programs."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def as_json(command: Callable[..., Any]) -> Callable[..., Any]:
    """The `--json` option of every command that shows something."""
    return click.option("--json", "raw", is_flag=True, help="print JSON")(command)


def examples(*lines: str) -> str:
    """The end of a command's help: what one types, as it stands."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def path_of(name: str) -> str:
    """A name as a part of a path."""
    return quote(name, safe="")


@contextmanager
def progress(text: str) -> Iterator[Callable[[str], None]]:
    """A line on a terminal that says what is being worked on; nothing where nobody looks."""
    shown = sys.stderr.isatty()

    def show(what: str) -> None:
        if shown:
            click.echo(f"\r\x1b[K{text}: {what}"[:200], err=True, nl=False)

    try:
        yield show
    finally:
        if shown:
            click.echo("\r\x1b[K", err=True, nl=False)
