"""The ledger: reserve before a run, settle after it, and know at any time what every key has used."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import tzinfo
from typing import Any

from bridge.clock import Clock, iso
from bridge.ledger import report
from bridge.ledger.caps import Ask, bounds_of, fit
from bridge.ledger.pricing import PriceTable
from bridge.ledger.tallies import Counts, Reservation, Tallies, Tally
from bridge.limits import Caps, Limit, Limits, Moment, Window, effective
from bridge.types import RunRecord


class Ledger:
    """Who has used what, and who may use more.

    One ledger serves the caps, the headers, the dashboard and the metrics, so that they cannot differ.
    """

    def __init__(
        self, tallies: Tallies, clock: Clock, zone: tzinfo, defaults: Mapping[str, float], prices: PriceTable
    ) -> None:
        """`defaults`: the limits of keys that name none (wire names, dollars)."""
        self._tallies = tallies
        self._clock = clock
        self._zone = zone
        self._defaults = defaults
        self._prices = prices
        self._owner = secrets.token_hex(8)

    def recover(self) -> None:
        """Settle what processes have left open that are gone: every one but this. Raises BridgeError storage_failed."""
        for owner in {each.owner for each in self.open_reservations()} - {self._owner}:
            self._tallies.recover(owner)

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
        ask = Ask(self._prices.price_of(provider, request_model), input_ceiling, output_wanted)
        caps = self._caps(limits)

        def decide(tally: Tally) -> Reservation:
            now = self._now()
            output_tokens, cost_micro = fit(caps, tally, now, ask)
            return Reservation(
                id=run_id,
                key_name=key_name,
                provider=provider,
                model=request_model,
                at=now.at,
                day=now.day,
                input_tokens=input_ceiling,
                output_tokens=output_tokens,
                cost_micro=cost_micro,
                owner=self._owner,
            )

        return self._tallies.admit(key_name, decide)

    def settle(self, line: RunRecord) -> None:
        """Put what a run really cost, by its line of the log, in the place of what it held; both are on the disk
        when this returns.

        Settling twice changes nothing. Where the disk fails, BridgeError storage_failed is raised, but
        the money was spent: it counts from now on, and is saved as soon as the disk works again.
        """
        self._tallies.settle(line)

    def release(self, reservation: Reservation, line: RunRecord | None = None) -> None:
        """Give everything back, the request too: the run never reached a CLI. Raises like `settle`.

        With a line, which goes into the log, it still counts for the requests of a minute: a process may have
        been started for it.
        """
        self._tallies.release(reservation, line)

    def note(self, line: RunRecord) -> None:
        """Put the line of a refused request into the log. It counts nothing; never raises."""
        self._tallies.note(line)

    def reset(self, key_name: str) -> None:
        """Count the running windows of a key from zero. Its history stays, and what it holds.

        Raises BridgeError storage_failed like `settle`.
        """
        self._tallies.reset(key_name, self._now().day)

    def import_usage(self, key_name: str, day: str, counts: Counts) -> None:
        """Take over a day's usage from elsewhere, unless the key has some on that day already.

        Raises BridgeError storage_failed like `settle`.
        """
        self._tallies.take_over(key_name, day, counts)

    def has_usage(self, key_name: str, day: str) -> bool:
        """Whether anything is booked for a key on a day."""
        return day in self._tallies.tally(key_name).days

    def usage(self, key_name: str) -> dict[str, Any]:
        """What a key used in each window, `reserved` and `lastUsedAt`, as the API shows them."""
        return report.usage(self._tallies.tally(key_name), self._now())

    def remaining(self, key_name: str, limits: Limits) -> list[tuple[Limit, Window, int]]:
        """What is left of each cap that adds up in a window and holds for the key: a count, or micro-dollars."""
        bounds = bounds_of(self._caps(limits), self._tallies.tally(key_name), self._now())
        return [(bound.limit, bound.window, bound.left) for bound in bounds if bound.window]

    def history(self, days: int) -> list[dict[str, Any]]:
        """One row per day and key, of the last `days` days on which anything was used; oldest first."""
        return report.history(self._tallies.all(), days)

    def daily(self, days: int, most: int, only: str | None = None) -> dict[str, Any]:
        """Columns for a chart of the last `days` calendar days; see `report.daily`."""
        return report.daily(self._tallies.all(), self._now().day, days, most, only)

    def nearest_cap(self, key_name: str, limits: Limits) -> dict[str, Any] | None:
        """The cap that adds up in a window and that a key is closest to; None where it has none."""
        return report.nearest_cap(self._caps(limits), self._tallies.tally(key_name), self._now())

    def totals(self) -> dict[str, Any]:
        """All keys together: each window, and `reserved`."""
        return report.totals(self._tallies.all(), self._now())

    def resets_at(self) -> dict[str, str]:
        """When each window ends, as ISO times."""
        now = self._now()
        return {span.window.field: iso(now.ends_at(name)) for name, span in now.spans.items()}

    def open_reservations(self) -> list[Reservation]:
        """What is held at the moment."""
        return [each for tally in self._tallies.all().values() for each in tally.open.values()]

    @property
    def open_for_business(self) -> bool:
        """Whether the last write worked. Where it did not, `reserve` raises storage_failed until one does."""
        return self._tallies.writable

    def snapshot(self) -> bytes:
        """Everything as usage.json would hold it at this moment, for a backup. What is reserved now is still open
        there."""
        return self._tallies.snapshot()

    def close(self) -> None:
        """Save everything and close the files. Never raises for the disk: what was confirmed is on it."""
        self._tallies.close()

    def _caps(self, limits: Limits) -> Caps:
        return effective(limits, self._defaults)

    def _now(self) -> Moment:
        return Moment.of(self._clock.now(), self._zone)
