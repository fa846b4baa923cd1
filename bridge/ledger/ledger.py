"""The ledger: reserve before a run, settle after it, and know at any time what every key has used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import tzinfo
from typing import Any

from bridge.clock import Clock, iso
from bridge.errors import BridgeError, StoreError
from bridge.ledger import report
from bridge.ledger.caps import Ask, fit
from bridge.ledger.pricing import PriceTable
from bridge.ledger.tallies import Counts, FileTallies, Import, Release, Reservation, Reserve, Reset, Settle, counts_of
from bridge.limits import Caps, Limit, Limits, Moment, Window, effective
from bridge.store.folder import Store
from bridge.types import Charge

__all__ = ["Ledger", "Reservation"]

Resolve = Callable[[Sequence[Reservation]], Mapping[str, Charge]]
"""Runs that a crash cut off -> what those of them that are in the request log were charged. It is called
before they are settled, so that it can also give the others their line in the log."""


class Ledger:
    """Who has used what, and who may use more.

    One ledger serves the caps, the headers, the dashboard and the metrics, so that they cannot differ.
    """

    #: reservations of runs that a crash cut off, and that no log line knows the cost of: they were
    #: charged what they held, marked as assumed
    recovered: list[Reservation]

    def __init__(
        self,
        store: Store,
        clock: Clock,
        zone: tzinfo,
        defaults: Mapping[str, float],
        prices: PriceTable,
        resolve: Resolve | None = None,
    ) -> None:
        """Read the state and settle what a crash left open. Raises StoreError where it cannot be trusted.

        `defaults`: the limits of keys that name none (wire names, dollars).
        """
        self._clock = clock
        self._zone = zone
        self._defaults = defaults
        self._prices = prices
        self._books = FileTallies(store, clock)
        self.recovered = self._settle_left_open(resolve)
        try:
            self._books.compact()
        except BridgeError as error:
            raise StoreError(error.message, error.hint) from error

    def reserve(
        self,
        key_name: str,
        limits: Limits,
        run_id: str,
        provider: str,
        request_model: str,
        input_ceiling: int,
        output_wanted: int,
    ) -> Reservation:
        """Hold what a run can use at most; on the disk when this returns.

        Its `output_tokens` are what the run may be asked for: fewer than wanted where money or tokens
        run short. Raises BridgeError with the code of the cap that does not allow it, or
        storage_failed; then nothing is held and nothing counted.
        """
        self._books.ensure_open()
        ask = Ask(self._prices.price_of(provider, request_model), input_ceiling, output_wanted)
        caps = self._caps(limits)
        # From here until `write` has applied the record there is no switch to another greenlet, so that
        # no two requests see the same money.
        now = self._now()
        output_tokens, cost_micro = fit(caps, self._books.tallies[key_name], now, ask)
        reservation = Reservation(
            id=run_id,
            key_name=key_name,
            provider=provider,
            model=request_model,
            at=now.at,
            day=now.day,
            input_tokens=input_ceiling,
            output_tokens=output_tokens,
            cost_micro=cost_micro,
        )
        try:
            self._books.write(Reserve(reservation))
        except BaseException:
            # The disk failed, or the caller was killed while waiting for it and will never settle.
            self._books.undo(Release(run_id, key_name))
            raise
        return reservation

    def settle(self, reservation: Reservation, charge: Charge, *, error: bool = False) -> None:
        """Put what a run really cost in the place of what it held; on the disk when this returns.

        Settling twice changes nothing. Where the disk fails, BridgeError storage_failed is raised, but
        the money was spent: it counts from now on, and is saved as soon as the disk works again.
        """
        counts = counts_of(charge, error=error)
        self._books.write(Settle(reservation.id, reservation.key_name, counts))

    def release(self, reservation: Reservation, *, tried: bool = False) -> None:
        """Give everything back, the request too: the run never reached a CLI. Raises like `settle`.

        With `tried` it still counts for the requests of a minute: a process may have been started for it.
        """
        self._books.write(Release(reservation.id, reservation.key_name, tried=tried))

    def reset(self, key_name: str) -> None:
        """Count the running windows of a key from zero. Its history stays, and what it holds.

        Raises BridgeError storage_failed like `settle`.
        """
        self._books.write(Reset(key_name, self._now().day))

    def import_usage(self, key_name: str, day: str, counts: Counts) -> None:
        """Take over a day's usage from elsewhere, unless the key has some on that day already.

        Raises BridgeError storage_failed like `settle`.
        """
        self._books.write(Import(key_name, day, counts))

    def has_usage(self, key_name: str, day: str) -> bool:
        """Whether anything is booked for a key on a day."""
        return day in self._books.tallies[key_name].days

    def usage(self, key_name: str) -> dict[str, Any]:
        """What a key used in each window, `reserved` and `lastUsedAt`, as the API shows them."""
        return report.usage(self._books.tallies[key_name], self._now())

    def remaining(self, key_name: str, limits: Limits) -> list[tuple[Limit, Window, int]]:
        """What is left of each cap that adds up in a window and holds for the key."""
        return report.remaining(self._caps(limits), self._books.tallies[key_name], self._now())

    def history(self, days: int) -> list[dict[str, Any]]:
        """One row per day and key, of the last `days` days on which anything was used; oldest first."""
        return report.history(self._books.tallies, days)

    def daily(self, days: int, most: int, only: str | None = None) -> dict[str, Any]:
        """Columns for a chart of the last `days` calendar days; see `report.daily`."""
        return report.daily(self._books.tallies, self._now().day, days, most, only)

    def nearest_cap(self, key_name: str, limits: Limits) -> dict[str, Any] | None:
        """The cap that adds up in a window and that a key is closest to; None where it has none."""
        return report.nearest_cap(self._caps(limits), self._books.tallies[key_name], self._now())

    def totals(self) -> dict[str, Any]:
        """All keys together: each window, and `reserved`."""
        return report.totals(self._books.tallies, self._now())

    def resets_at(self) -> dict[str, str]:
        """When each window ends, as ISO times."""
        now = self._now()
        return {span.window.field: iso(now.ends_at(name)) for name, span in now.spans.items()}

    def open_reservations(self) -> list[Reservation]:
        """What is held at the moment."""
        return list(self._books.tallies.open())

    @property
    def open_for_business(self) -> bool:
        """Whether the last write worked. Where it did not, `reserve` raises storage_failed until one does."""
        return self._books.open

    def snapshot(self) -> bytes:
        """Everything as usage.json would hold it at this moment, for a backup: with an empty usage.jsonl beside
        it, a ledger that opens them has the same figures. What is reserved now is still open there."""
        return self._books.snapshot()

    @property
    def journal_bytes(self) -> int:
        """Size of the journal."""
        return self._books.journal.size

    def watch_commits(self, observe: Callable[[float], None]) -> None:
        """Call `observe` with the seconds that each write of the journal takes. It must not block or raise."""
        self._books.journal.on_commit = observe

    def close(self) -> None:
        """Save everything and close the files. Never raises for the disk: what was confirmed is on it."""
        self._books.close()

    def _settle_left_open(self, resolve: Resolve | None) -> list[Reservation]:
        """Settle, in memory, every run that a crash cut off; return those that had to be assumed."""
        left = self.open_reservations()
        known = resolve(left) if resolve and left else {}
        for each in left:
            charge = known.get(each.id) or each.as_charge()
            counts = counts_of(charge, error=charge.assumed)
            self._books.tallies.apply(Settle(each.id, each.key_name, counts))
        return [each for each in left if each.id not in known]

    def _caps(self, limits: Limits) -> Caps:
        return effective(limits, self._defaults)

    def _now(self) -> Moment:
        return Moment.of(self._clock.now(), self._zone)
