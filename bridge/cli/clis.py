"""`cli-bridge clis`: whether the two CLIs do what the bridge relies on."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import click

from bridge.cli.common import FAILED, as_json, environment, examples, plain_errors, show_findings
from bridge.ops.doctor import Finding
from bridge.registry import PROVIDERS
from bridge.settings import Settings


@click.group(epilog=examples("cli-bridge clis check"))
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
    import gevent.monkey

    gevent.monkey.patch_all()
    from bridge.ops import conformance

    # What the CLIs print beside is in the service's log; here it would stand between the findings.
    logging.getLogger("bridge").addHandler(logging.NullHandler())
    named = {PROVIDERS[name].variable("COMMAND"): path for name, path in programs.items() if path}
    with plain_errors():
        settings = Settings.load(environment(), named)
    yield from conformance.check(settings)
