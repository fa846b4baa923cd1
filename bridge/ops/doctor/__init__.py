"""`cli-bridge doctor`: what is well, what is not, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator

from bridge.errors import SettingsError, StoreError
from bridge.ops import repair as repairs
from bridge.ops.doctor import clis, data, host, network
from bridge.ops.doctor.finding import Finding, fail
from bridge.settings import Settings

__all__ = ["Finding", "about_settings", "examine", "repair"]


def examine(settings: Settings, *, probe: bool = False) -> Iterator[Finding]:
    """All checks, one by one as they are done. Changes nothing; spends only where `probe` says so."""
    yield from host.check(settings)
    yield from data.check(settings)
    yield from network.check(settings, probe=probe)
    yield from clis.check(settings, probe=probe)


def about_settings(error: SettingsError) -> Iterator[Finding]:
    """What is wrong with settings that cannot even be read; nothing else can be looked at then."""
    for problem in error.problems:
        yield fail("settings", problem, "Correct it; docs/configuration.md has them all.")


def repair(settings: Settings) -> list[str]:
    """Mend the data folder as far as that is safe; a sentence for each thing done. Raises StoreError."""
    try:
        return repairs.repair(settings.data_dir) or ["There was nothing to repair."]
    except OSError as error:
        raise StoreError(f"The data folder cannot be repaired ({error.strerror}).", "Check the disk.") from None
