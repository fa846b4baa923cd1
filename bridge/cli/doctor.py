"""`cli-bridge doctor`: runs all checks, shows what they found, and repairs where that is asked for."""

from __future__ import annotations

from collections.abc import Iterator

import click

from bridge.cli.common import FAILED, as_json, environment, examples, plain_errors, say, show_findings
from bridge.errors import SettingsError, StoreError
from bridge.ops.doctor import Finding, fail
from bridge.settings import Settings


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
    with plain_errors():
        failed = show_findings(_check(probe=probe, repair=repair, raw=raw), raw=raw)
    raise SystemExit(FAILED if failed else 0)


def _check(*, probe: bool, repair: bool, raw: bool) -> Iterator[Finding]:
    """All checks; where the settings are wrong, only those, since every other check reads them."""
    try:
        settings = Settings.load(environment())
    except SettingsError as error:
        for problem in error.problems:
            yield fail("settings", problem, "Correct it; docs/configuration.md has them all.")
        return
    for sentence in _repair(settings) if repair else ():
        say(sentence, err=raw)
    yield from examine(settings, probe=probe)


def examine(settings: Settings, *, probe: bool = False) -> Iterator[Finding]:
    """All checks, one by one as they are done. Changes nothing; spends only where `probe` says so."""
    from bridge.ops.doctor import clis, data, host, network

    yield from host.check(settings)
    yield from data.check(settings)
    yield from network.check(settings, probe=probe)
    yield from clis.check(settings, probe=probe)


def _repair(settings: Settings) -> list[str]:
    """Mend the data folder as far as that is safe; a sentence for each thing done. Raises StoreError."""
    from bridge.ops import repair

    try:
        return repair.repair(settings.data_dir) or ["There was nothing to repair."]
    except OSError as error:
        raise StoreError(f"The data folder cannot be repaired ({error.strerror}).", "Check the disk.") from None
