"""The ledger: reserve before a run, settle after it, and know at any time what every key has used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import tzinfo
from typing import Any

import gevent
import msgspec

from bridge.clock import Clock, iso
from bridge.ledger import report
from bridge.ledger.caps import MINIMUM_OUTPUT_TOKENS, Ask, Purse, bounds_of, fit, purse_of
from bridge.ledger.pricing import PICO, Price, PriceTable, Rates
from bridge.ledger.tallies import Counts, Reservation, Tallies, Tally
from bridge.limits import Caps, Limit, Limits, Moment, Window, effective
from bridge.types import RunRecord

#: The smallest request that costs anything.
_ONE_MICRO = Ask(Price("", Rates(PICO, PICO, PICO, PICO)), 0, 1)

PurseOf = Callable[[str, Limits], Purse]
"""The purse of the credential with an id and these limits, at the moment of a choice."""

Pick = Callable[[PurseOf, int], str | None]
"""The id of a credential whose purse has room for so many output tokens; None where there is none. Must not wait."""
#: Tallies that are read before other greenlets get their turn: a few milliseconds.
TALLIES_A_TURN = 10


def no_credential(purse_of: PurseOf, output_tokens: int) -> None:
    """The choice where there are no credentials to choose from."""


class Ceiling(msgspec.Struct, frozen=True):
    """The most that a request may come to: tokens, and searches of the web. `output_tokens` is what it wants."""

    provider: str
    model: str
    input_tokens: int
    output_tokens: int
    searches: int = 0


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

    def recover(self) -> None:
        """Settle what processes have left open that are gone. Raises BridgeError storage_failed."""
        for owner in self._tallies.orphans():
            self._tallies.recover(owner)

    def reserve(
        self, key_name: str, limits: Limits, run_id: str, ceiling: Ceiling, pick: Pick = no_credential
    ) -> Reservation:
        """Hold what a run can use at most, of its key's caps and of those of the credential that `pick` finds; on the
        disk when this returns.

        Its `output_tokens` are what the run may be asked for: fewer than wanted where money or tokens
        run short. It has no credential where `pick` finds none. Raises BridgeError with the code of the cap that does
        not allow it, or storage_failed; then nothing is held and nothing counted.
        """
        return self._tallies.admit(key_name, self._decision(key_name, limits, run_id, ceiling, pick))

    def check(self, key_name: str, limits: Limits) -> None:
        """Raise BridgeError with the code of a cap that leaves no room for any request, however small, like `reserve`;
        nothing is held."""
        fit(self._caps(limits), self._tallies.tally(key_name), self._now(), _ONE_MICRO)

    def quote(self, key_name: str, limits: Limits, ceiling: Ceiling) -> Reservation:
        """What `reserve` would hold at this moment; nothing is held. Raises BridgeError with the code of a cap."""
        return self._decision(key_name, limits, "", ceiling, no_credential)(self._tallies.tally(key_name), {})

    def _decision(
        self, key_name: str, limits: Limits, run_id: str, ceiling: Ceiling, pick: Pick
    ) -> Callable[[Tally, Mapping[str, Tally]], Reservation]:
        ask = self._ask(ceiling)
        caps = self._caps(limits)

        def decide(tally: Tally, credentials: Mapping[str, Tally]) -> Reservation:
            now = self._now()
            output_tokens, cost_micro = fit(caps, tally, now, ask)
            fitting = msgspec.structs.replace(ask, output_tokens=output_tokens)
            rooms: dict[str, int] = {}

            def purse(id: str, own: Limits) -> Purse:
                found = purse_of(effective(own, {}), credentials.get(id) or Tally(), now, fitting)
                rooms[id] = found.output
                return found

            # All of it where there is room for that; else a shorter answer, as with the key's own caps.
            credential = pick(purse, output_tokens) or pick(purse, min(output_tokens, MINIMUM_OUTPUT_TOKENS))
            if credential is not None and rooms[credential] < output_tokens:
                output_tokens = rooms[credential]
                cost_micro = ask.cost(output_tokens)
            return Reservation(
                id=run_id,
                key_name=key_name,
                provider=ceiling.provider,
                model=ceiling.model,
                at=now.at,
                day=now.day,
                input_tokens=ceiling.input_tokens,
                output_tokens=output_tokens,
                cost_micro=cost_micro,
                owner=self._tallies.owner,
                credential=credential,
                searches=ceiling.searches,
            )

        return decide

    def move(self, held: Reservation, pick: Pick) -> Reservation | None:
        """Let a run go on with another credential, within what it holds; on the disk when this returns. None where
        `pick` finds none. Raises BridgeError storage_failed."""

        def decide(credentials: Mapping[str, Tally]) -> str | None:
            return pick(self._purses(credentials, held), held.output_tokens) or held.credential

        moved = self._tallies.move(held, decide)
        return None if moved.credential == held.credential else moved

    def let_go(self, held: Reservation) -> Reservation:
        """What a run holds that waits: of its key as before, and of no credential. On the disk when this returns.
        Raises BridgeError storage_failed."""
        return self._tallies.move(held, lambda credentials: None)

    def purses(self, held: Reservation | None = None) -> PurseOf:
        """The purses of credentials as they are now, to look at: for what a run holds, or for nothing."""
        return self._purses(self._tallies.credentials(), held)

    def _purses(self, credentials: Mapping[str, Tally], held: Reservation | None) -> PurseOf:
        now, ask, run_id = self._now(), _ONE_MICRO, ""
        if held is not None:
            ask, run_id = self._ask(held), held.id
            # What it uses counts for the day of its reservation, whatever day it is by now.
            now = Moment.of(held.at, self._zone)
        return lambda id, own: purse_of(effective(own, {}), credentials.get(id) or Tally(), now, ask, run_id)

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

    def credential_usage(self, id: str) -> dict[str, Any]:
        """What was used with a credential in each window, `reserved` and `lastUsedAt`, as the API shows them."""
        return report.usage(self._tallies.credentials().get(id) or Tally(), self._now())

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

    def breakdown(self, first: str, last: str, by: str, only: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Who spent what on what, from one day to another; see `report.breakdown`."""
        return report.breakdown(self._in_turns(), first, last, by, only or {})

    def _in_turns(self) -> Iterator[tuple[str, Tally]]:
        """Every tally; other greenlets get their turn in between."""
        for number, each in enumerate(list(self._tallies.all().items()), start=1):
            if number % TALLIES_A_TURN == 0:
                gevent.sleep(0)
            yield each

    def forecast(self, key_name: str | None = None) -> dict[str, Any] | None:
        """What the running month may come to, for a key or for all together; see `report.forecast`."""
        tallies = self._tallies.all().values() if key_name is None else [self._tallies.tally(key_name)]
        return report.forecast(tallies, self._now())

    def today(self) -> str:
        """The day that it is in the bridge's time zone, `YYYY-MM-DD`."""
        return self._now().day

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

    def _ask(self, most: Ceiling | Reservation) -> Ask:
        price = self._prices.price_of(most.provider, most.model)
        return Ask(price, most.input_tokens, most.output_tokens, most.searches)

    def _caps(self, limits: Limits) -> Caps:
        return effective(limits, self._defaults)

    def _now(self) -> Moment:
        return Moment.of(self._clock.now(), self._zone)
