"""The command line: `cli-bridge serve`, `demo`, `keys …`, `usage`, `logs`, `doctor`, `backup` and the rest."""

from __future__ import annotations

import os

import click

from bridge import __version__
from bridge.cli import backup, clis, cluster, credentials, export_import, keys, serve, usage_logs
from bridge.cli.common import completion, examples, open_standard_files
from bridge.cli.doctor import doctor
from bridge.cli.top import top

__all__ = ["main"]


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples(
        "cli-bridge demo                                   try it, without an account",
        "cli-bridge doctor                                 is everything as it should be?",
        "cli-bridge keys create ada --max-cost-per-day 2   a key for Ada",
        "cli-bridge COMMAND --help                         more about a command",
    ),
)
@click.version_option(__version__, prog_name="cli-bridge")
@click.pass_context
def main(context: click.Context) -> None:
    """The Claude Code and Codex command lines as one HTTP service, with caps that hold.

    Commands that look or change something work while the server runs and while it does not. They take
    the settings of the server: from the environment, or from a file .env in the working directory.

    Exit status: 0 done, 1 failed, 2 wrong use.
    """
    open_standard_files()
    if os.environ.get("NO_COLOR"):
        context.color = False


for command in (
    *serve.COMMANDS,
    keys.keys,
    credentials.credentials,
    *usage_logs.COMMANDS,
    top,
    doctor,
    clis.clis,
    cluster.cluster,
    *backup.COMMANDS,
    *export_import.COMMANDS,
    completion,
):
    main.add_command(command)
