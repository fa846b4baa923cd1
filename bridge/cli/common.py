"""What all commands share: settings, errors as sentences, calls of the admin API, options, tables; and `completion`."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
from click.shell_completion import get_completion_class
from dotenv import dotenv_values

from bridge.errors import BridgeError, SettingsError, StoreError
from bridge.ops.doctor import Finding
from bridge.settings import ENV_FILE, Settings

FAILED, WRONG_USE = 1, 2
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def open_standard_files() -> None:
    """Open as nothing what the caller has closed of standard input, output and error: a file that is opened later
    would get its number, and what is meant for a terminal."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115


def environment() -> dict[str, str]:
    """The environment with the settings file below it: what is really set wins. Raises SettingsError where a file
    was named and cannot be read, or is no text in UTF-8."""
    named = os.environ.get(ENV_FILE)
    path = Path(named or ".env")
    try:
        if named:
            path.open("rb").close()
        elif path.exists() and path.stat().st_uid not in (os.geteuid(), 0):
            raise SettingsError(
                [
                    "the file .env in this folder belongs to another user, and could name programs of theirs: go to "
                    f"another folder, or set {ENV_FILE}=.env where you trust it"
                ]
            )
        file = {name: value for name, value in dotenv_values(path).items() if value is not None}
    except OSError as error:
        raise SettingsError([f"the settings file {path} cannot be read ({error.strerror})"]) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        problem = f"the settings file {path} is not in UTF-8 (see its line {line}): save it with that encoding"
        raise SettingsError([problem]) from None
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
            say(f"cli-bridge: {problem}", err=True)
        raise SystemExit(WRONG_USE) from None
    except (BridgeError, StoreError) as error:
        say(f"cli-bridge: {error.message}\n  {error.hint}", err=True)
        raise SystemExit(FAILED) from None


def ask(method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """One call of the admin API: of the running server, or of the data folder."""
    from bridge.ops.admin_client import admin_client

    with plain_errors(), admin_client(load_settings()) as client:
        return client.call(method, path, body)


def say(text: str = "", *, err: bool = False) -> None:
    """Print a text for people, on stderr with `err`. All that commands print goes through here, or is JSON."""
    click.echo("\n".join(map(plain, text.split("\n"))), err=err)


def say_coloured(parts: Iterable[tuple[str, str | None]]) -> None:
    """Print a line of texts, each with the name of its colour; colours are left out where the output is no terminal."""
    click.echo("  ".join(click.style(plain(text), fg=colour) if colour else plain(text) for text, colour in parts))


def plain(text: str) -> str:
    """A line without anything that would move the cursor, colour the terminal or turn the text round: names, notes
    and prompts come from outside. C0, DEL, C1, and the marks for the direction of a text."""
    return "".join(character if character.isprintable() else "?" for character in text)


def show_json(value: Any, *, indent: int | None = 2) -> None:
    """Print a value as JSON for programs: what `plain` would take away is written as \\uXXXX."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    click.echo("".join(each if each.isprintable() or each == "\n" else json.dumps(each)[1:-1] for each in text))


def show_findings(findings: Iterable[Finding], *, raw: bool) -> int:
    """Print what checks find, each as it comes, and a sum; with `raw` all of it as JSON. How many failed."""
    shown = []
    for finding in findings:
        shown.append(finding)
        if raw:
            continue
        level = click.style(finding.level.ljust(5), fg=_COLOURS[finding.level])
        click.echo(f"{level} {plain(f'{finding.what}: {finding.found}')}")
        if finding.todo:
            say(f"      {finding.todo}")
    count = Counter(finding.level for finding in shown)
    if raw:
        show_json([vars(finding) for finding in shown])
    else:
        say(f"\n{count['ok']} ok, {count['warn']} to look at, {count['fail']} failed.")
    return count["fail"]


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
    """A line on a terminal that says what is being worked on; nothing where there is no terminal."""
    shown = sys.stderr.isatty()

    def show(what: str) -> None:
        if shown:
            click.echo(f"\r\x1b[K{plain(f'{text}: {what}')}"[:200], err=True, nl=False)

    try:
        yield show
    finally:
        if shown:
            click.echo("\r\x1b[K", err=True, nl=False)


def print_table(
    head: Sequence[str] | None,
    rows: Sequence[Sequence[str]],
    *,
    right: Collection[int] = (),
    empty: str = "",
    widths: Sequence[int] | None = None,
    colour: Callable[[str], str | None] = lambda cell: None,
) -> None:
    """Print rows under a head, if there is one; columns in `right` are right-aligned.

    `empty` stands for no rows. `widths` are the least widths, for a table that is printed row by row.
    `colour(cell)` names the colour of a cell; colours are left out where the output is no terminal.
    """
    if not rows and empty:
        say(empty)
        return
    lines = [row for row in (head, *rows) if row is not None]
    least = widths or [0] * len(lines[0])
    wide = [max(least[i], *(len(plain(line[i])) for line in lines)) for i in range(len(lines[0]))]
    for line in lines:
        cells = [plain(cell) for cell in line]
        padded = [c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(cells, wide, strict=True))]
        if line is head:
            click.secho("  ".join(padded).rstrip(), bold=True)
            continue
        styled = [click.style(p, fg=found) if (found := colour(c)) else p for c, p in zip(cells, padded, strict=True)]
        click.echo("  ".join(styled).rstrip())


@click.command(
    epilog=examples(
        'eval "$(cli-bridge completion bash)"                              in ~/.bashrc',
        'eval "$(cli-bridge completion zsh)"                               in ~/.zshrc',
        "cli-bridge completion fish > ~/.config/fish/completions/cli-bridge.fish",
    )
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script for your shell.

    With it, SHELL completes commands, options and names of keys.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(context.find_root().command, {}, "cli-bridge", "_CLI_BRIDGE_COMPLETE")
    click.echo(script.source_template % script.source_vars())
