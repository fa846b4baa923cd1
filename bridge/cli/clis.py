"""`cli-bridge clis`: which CLIs serve, whether they do what the bridge relies on, and other versions of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import click

from bridge.cli.common import (
    FAILED,
    as_json,
    environment,
    examples,
    plain_errors,
    print_table,
    say,
    show_findings,
    show_json,
)
from bridge.ops.doctor import Finding
from bridge.registry import PROVIDERS
from bridge.settings import Settings


@click.group(epilog=examples("cli-bridge clis status", "cli-bridge clis check", "cli-bridge clis upgrade"))
def clis() -> None:
    """The Claude Code and Codex CLIs that the bridge runs."""


@clis.command(
    epilog=examples(
        "cli-bridge clis check", "cli-bridge clis check --claude /opt/newer/claude", "cli-bridge clis check --json"
    )
)
@click.option("--claude", metavar="PATH", help="the program to check, instead of that of the settings")
@click.option("--codex", metavar="PATH", help="the same")
@as_json
def check(claude: str | None, codex: str | None, raw: bool) -> None:
    """Play the conversations that the bridge relies on, and say what holds.

    Each CLI talks to a small model on this host: no account, no cost, nothing leaves it. Takes about half a minute.
    Exit status 0 where everything holds, 1 where something does not.
    """
    failed = show_findings(_findings({"claude": claude, "codex": codex}), raw=raw)
    raise SystemExit(FAILED if failed else 0)


def _findings(programs: dict[str, str | None]) -> Iterator[Finding]:
    _prepare()
    from bridge.ops import conformance

    named = {PROVIDERS[name].variable("COMMAND"): path for name, path in programs.items() if path}
    with plain_errors():
        settings = Settings.load(environment(), named)
    yield from conformance.check(settings)


@clis.command(epilog=examples("cli-bridge clis status", "cli-bridge clis status --json"))
@as_json
def status(raw: bool) -> None:
    """Show which versions serve, since when, their last check, and what is newer."""
    _prepare()
    from bridge.ops import upgrade

    with plain_errors():
        settings = Settings.load(environment())
        rows, own = upgrade.status(settings), upgrade.bridge_status(settings)
    if raw:
        show_json({"clis": rows, "bridge": own})
        return
    head = ("cli", "version", "serves since", "tested", "newest known", "last check")
    print_table(head, [[row["name"], *(row[name] or "-" for name in _SHOWN)] for row in rows])
    say(own["note"])
    for row in rows:
        for each in filter(None, (row["note"], row["lastUpgrade"])):
            say(f"{row['name']}: {each}")


_SHOWN = ("version", "since", "tested", "newest", "lastCheck")


@clis.command("upgrade", epilog=examples("cli-bridge clis upgrade", "cli-bridge clis upgrade claude --to 2.1.332"))
@click.argument("name", required=False, type=click.Choice(list(PROVIDERS)))
@click.option("--to", "version", metavar="VERSION", help="this version, instead of the newest; also an older one")
@as_json
def upgrade_clis(name: str | None, version: str | None, raw: bool) -> None:
    """Install another version of both CLIs, or of NAME, check it, and let it serve.

    It has to do what the bridge relies on. It is installed beside the one that serves, below the data folder, and
    checked like 'clis check'. A running service then takes it, refusing nobody; runs end on the one before. Its first
    50 runs are watched: where more of them fail than before, the service goes back by itself. Needs npm.
    """
    if version is not None and name is None:
        # The two count differently: 2.1.332 and 0.171.0.
        name = next((row.name for row in PROVIDERS.values() if row.tested[:2] == version[:2]), None)
        if name is None:
            raise click.UsageError(f"Say which CLI: cli-bridge clis upgrade NAME --to {version}")
    _prepare()
    from bridge.ops import upgrade

    with plain_errors():
        settings = Settings.load(environment())
    wanted = {name: version} if name is not None else dict.fromkeys(PROVIDERS, None)
    raise SystemExit(FAILED if show_findings(upgrade.upgrade(settings, wanted), raw=raw) else 0)


def _prepare() -> None:
    """Before anything of the engine is imported."""
    import gevent.monkey

    gevent.monkey.patch_all()
    # What the CLIs print beside is in the service's log; here it would stand between the findings.
    logging.getLogger("bridge").addHandler(logging.NullHandler())
