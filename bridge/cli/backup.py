"""`cli-bridge backup` and `restore`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from bridge.cli.common import as_json, examples, load_settings, plain_errors, progress, say, show_json


@click.command(
    epilog=examples(
        "cli-bridge backup bridge.tar.gz",
        "cli-bridge backup --keep 14 /var/backups/cli-bridge",
        "cli-bridge backup - | ssh elsewhere 'cat > bridge.tar.gz'",
    )
)
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--keep", type=click.IntRange(1), help="in a folder: remove all but so many of the newest backups")
@as_json
def backup(file: Path, keep: int | None, raw: bool) -> None:
    """Write a backup of the data folder.

    The server may run meanwhile. FILE may be a folder: then it gets a file with the date in its name. '-' is
    the standard output.

    The backup holds keys as hashes, usage and logs. The settings, with your API keys, are not in it: keep
    those yourself.
    """
    from bridge.ops import backup as backups

    settings = load_settings()
    with plain_errors(), progress("backup") as show:
        if str(file) == "-":
            backups.to_stream(settings, sys.stdout.buffer)
            return
        made = backups.to_file(settings, file, keep=keep, show=show)
    if raw:
        show_json(made)
        return
    say(f"{made['files']} files in {made['file']} ({made['bytes']:,} bytes), read back and checked.")
    for name in made["removed"]:
        say(f"Removed {name}.")


@click.command(
    epilog=examples("cli-bridge restore bridge.tar.gz", "cli-bridge restore --check bridge.tar.gz"),
)
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True))
@click.option("--check", is_flag=True, help="only read the backup and check its sums")
@as_json
def restore(file: Path, check: bool, raw: bool) -> None:
    """Put a backup in the place of the data.

    The server must be stopped. The backup is checked first; what was there is kept in a folder beside it.
    '-' is the standard input.
    """
    from bridge.ops import backup as backups

    settings = load_settings()
    with plain_errors(), progress("restore") as show:
        show(f"reading {file.name}" if check else f"reading {file.name} and putting it in place")
        with click.open_file(str(file), "rb") as source:
            done = backups.check(settings, source) if check else backups.restore(settings, source)
    if raw:
        show_json(done)
        return
    say(f"The backup of {done['madeAt']} (cli-bridge {done['version']}) is whole: {done['files']} files.")
    if not check:
        say(
            "It is in place now."
            if done["aside"] is None
            else f"It is in place now. What was there before: {done['aside']}"
        )


COMMANDS = (backup, restore)
