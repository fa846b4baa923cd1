"""`cli-bridge doctor`, `backup`, `restore`: looking after a bridge."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from bridge.cli.common import FAILED, as_json, environment, examples, load_settings, plain_errors, progress, show_json

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command(
    epilog=examples(
        "cli-bridge doctor", "cli-bridge doctor --probe", "cli-bridge doctor --json", "cli-bridge doctor --repair"
    )
)
@click.option("--probe", is_flag=True, help="send one tiny real request per CLI, and a test alert; shows the cost")
@click.option("--repair", is_flag=True, help="mend the data folder as far as that is safe (server stopped)")
@as_json
def doctor(probe: bool, repair: bool, raw: bool) -> None:
    """Check everything, and say what to do about it.

    Looks at the host, the settings, the data folder, the tunnel and the CLIs.

    Changes nothing and spends nothing, unless --probe or --repair is given. Exit status 0 where nothing
    failed (there may be warnings), 1 where something did.
    """
    from bridge.errors import SettingsError
    from bridge.ops import doctor as doctors
    from bridge.settings import Settings

    findings = []
    with plain_errors():
        try:
            settings = Settings.load(environment())
        except SettingsError as error:
            found = doctors.about_settings(error)
        else:
            for sentence in doctors.repair(settings) if repair else ():
                click.echo(sentence, err=raw)
            found = doctors.examine(settings, probe=probe)
        for finding in found:
            findings.append(finding)
            if raw:
                continue
            click.echo(
                f"{click.style(finding.level.ljust(5), fg=_COLOURS[finding.level])} {finding.what}: {finding.found}"
            )
            if finding.todo:
                click.echo(f"      {finding.todo}")
    count = {level: sum(finding.level == level for finding in findings) for level in _COLOURS}
    if raw:
        show_json([vars(finding) for finding in findings])
    else:
        click.echo(f"\n{count['ok']} ok, {count['warn']} to look at, {count['fail']} failed.")
    raise SystemExit(FAILED if count["fail"] else 0)


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
    click.echo(f"{made['files']} files in {made['file']} ({made['bytes']:,} bytes), read back and checked.")
    for name in made["removed"]:
        click.echo(f"Removed {name}.")


@click.command(
    epilog=examples("cli-bridge restore bridge.tar.gz", "cli-bridge restore --check bridge.tar.gz"),
)
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--check", is_flag=True, help="only read the backup and check its sums")
@as_json
def restore(file: Path, check: bool, raw: bool) -> None:
    """Put a backup in the place of the data.

    The server must be stopped. The backup is checked first; what was there is kept in a folder beside it.
    """
    from bridge.ops import backup as backups

    settings = load_settings()
    with plain_errors(), progress("restore") as show:
        show(f"reading {file.name}" if check else f"reading {file.name} and putting it in place")
        done = backups.check(file) if check else backups.restore(settings, file)
    if raw:
        show_json(done)
        return
    click.echo(f"The backup of {done['madeAt']} (cli-bridge {done['version']}) is whole: {done['files']} files.")
    if not check:
        click.echo(
            "It is in place now."
            if done["aside"] is None
            else f"It is in place now. What was there before: {done['aside']}"
        )


COMMANDS = (doctor, backup, restore)
