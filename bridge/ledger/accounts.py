"""What each key has used and holds: plain sums, changed only by the records of the journal.

`Accounts.apply` is the one place where figures change. The running server and the replay at start
both go through it, so that they cannot come to different sums.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from bridge.types import Charge, Usage

KEPT_DAYS = 400
KEPT_MONTHS = 120
MINUTE_S = 60.0


class Reservation(msgspec.Struct, frozen=True, rename="camel"):
    """What a run may use at most. Held until it is settled; costs in micro-dollars, `at` in UTC seconds.

    It counts for the day and the month in which it was made, and so does what comes of it.
    """

    id: str
    key_name: str
    provider: str
    model: str
    at: float
    day: str
    month: str
    input_tokens: int
    output_tokens: int
    cost_micro: int
    requests: int = 1

    @property
    def tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    def as_charge(self) -> Charge:
        """All of it, assumed to have been used."""
        usage = Usage(input_tokens=self.input_tokens, output_tokens=self.output_tokens)
        return Charge(usage, self.cost_micro, assumed=True)


class Counts(msgspec.Struct, rename="camel", omit_defaults=True):
    """What was used in a day or a month. `assumed_micro` is the part of the cost that no CLI confirmed."""

    requests: int = 0
    errors: int = 0
    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cost_micro: int = 0
    assumed_micro: int = 0

    @property
    def tokens(self) -> int:
        """Everything that counts against a token limit."""
        return self.input_tokens + self.cache_read_tokens + self.cache_write_tokens + self.output_tokens

    def add(self, other: Counts) -> None:
        """Add another's figures to these."""
        self.requests += other.requests
        self.errors += other.errors
        self.input_tokens += other.input_tokens
        self.cache_read_tokens += other.cache_read_tokens
        self.cache_write_tokens += other.cache_write_tokens
        self.output_tokens += other.output_tokens
        self.reasoning_tokens += other.reasoning_tokens
        self.cost_micro += other.cost_micro
        self.assumed_micro += other.assumed_micro


def counts_of(charge: Charge, *, error: bool) -> Counts:
    """One run's charge as counts."""
    usage = charge.usage
    return Counts(
        requests=1,
        errors=int(error),
        input_tokens=usage.input_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        output_tokens=usage.output_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        cost_micro=charge.cost_micro,
        assumed_micro=charge.cost_micro if charge.assumed else 0,
    )


class Totals(msgspec.Struct, frozen=True):
    """The three figures that caps are about; cost in micro-dollars."""

    requests: int = 0
    tokens: int = 0
    cost_micro: int = 0


class Account(msgspec.Struct, rename="camel", omit_defaults=True):
    """One key. A window is a day (`2026-11-20`) or a month (`2026-11`)."""

    days: dict[str, Counts] = {}
    months: dict[str, Counts] = {}
    #: window -> what an admin's reset took out of the count
    forgiven: dict[str, Counts] = {}
    #: run id -> what it holds
    open: dict[str, Reservation] = {}
    #: run id -> when it was admitted (UTC seconds), for the last minute
    recent: dict[str, float] = {}
    last_used_at: float | None = None

    def booked(self, window: str) -> Counts | None:
        """All that ended runs used in a window; None where there were none."""
        return (self.days if len(window) > len("2026-11") else self.months).get(window)

    def used(self, window: str) -> Totals:
        """What counts as used in a window; what is held by open runs is not part of it."""
        counts = self.booked(window)
        if counts is None:
            return Totals()
        off = self.forgiven.get(window, _NOTHING)
        return Totals(
            counts.requests - off.requests,
            counts.tokens - off.tokens,
            counts.cost_micro - off.cost_micro,
        )

    def held(self, window: str | None = None) -> Totals:
        """What open runs hold in a window, or altogether."""
        requests = tokens = cost = 0
        for each in self.open.values():
            if window is None or window in (each.day, each.month):
                requests += each.requests
                tokens += each.tokens
                cost += each.cost_micro
        return Totals(requests, tokens, cost)

    def note_recent(self, run_id: str, at: float) -> None:
        """Count a run for the last minute. The oldest come first, and those that are over are dropped."""
        while self.recent and at - next(iter(self.recent.values())) >= MINUTE_S:
            del self.recent[next(iter(self.recent))]
        self.recent[run_id] = at

    def minute_ages_s(self, now: float) -> list[float]:
        """How many seconds ago each run of the last minute was admitted, oldest first.

        One that seems to lie ahead, because the clock was set back, counts as of now: it is over in a
        minute, not when the clock has caught up.
        """
        self.recent = {i: min(at, now) for i, at in self.recent.items() if now - at < MINUTE_S}
        return sorted((now - at for at in self.recent.values()), reverse=True)

    def prune(self) -> None:
        """Forget the oldest windows. They are counted, not compared with today: a clock that was wrong
        for a moment must not cost the history."""
        for windows, kept in ((self.days, KEPT_DAYS), (self.months, KEPT_MONTHS)):
            for window in sorted(windows)[:-kept]:
                del windows[window]
        for window in self.forgiven.keys() - self.days.keys() - self.months.keys():
            del self.forgiven[window]


_NOTHING = Counts()


# --- the records of the journal ------------------------------------------------------------------


class Reserve(msgspec.Struct, frozen=True, tag_field="kind", tag="reserve", omit_defaults=True):
    """A run was admitted."""

    reservation: Reservation
    seq: int = 0


class Settle(msgspec.Struct, frozen=True, tag_field="kind", tag="settle", omit_defaults=True):
    """A run has ended and used this."""

    id: str
    key: str
    counts: Counts
    seq: int = 0


class Release(msgspec.Struct, frozen=True, tag_field="kind", tag="release", omit_defaults=True):
    """A run never reached a CLI: nothing is counted, not even the request. But one that was `tried` counts for
    the pace."""

    id: str
    key: str
    seq: int = 0
    tried: bool = False


class Reset(msgspec.Struct, frozen=True, tag_field="kind", tag="reset", omit_defaults=True):
    """An admin set what counts as used in these windows to zero."""

    key: str
    windows: tuple[str, ...]
    seq: int = 0


class Import(msgspec.Struct, frozen=True, tag_field="kind", tag="import", omit_defaults=True):
    """Usage of a day was taken over from another program. A day that has usage already stays as it is."""

    key: str
    day: str
    counts: Counts
    seq: int = 0


Record = Reserve | Settle | Release | Reset | Import


class Accounts:
    """All accounts, by key name."""

    def __init__(self, accounts: dict[str, Account] | None = None) -> None:
        self.by_name = accounts or {}

    def __getitem__(self, name: str) -> Account:
        """The account of a key; an empty one, which is not kept, where it never used anything."""
        return self.by_name.get(name) or Account()

    def open(self) -> Iterator[Reservation]:
        """Every reservation that is held."""
        for account in self.by_name.values():
            yield from account.open.values()

    def apply(self, record: Record) -> None:
        """Change the figures by one record. A second record about the same run changes nothing."""
        match record:
            case Reserve(reservation):
                account = self._account(reservation.key_name)
                account.open[reservation.id] = reservation
                account.note_recent(reservation.id, reservation.at)
                account.last_used_at = reservation.at
            case Settle(id, key, counts):
                account = self._account(key)
                settled = account.open.pop(id, None)
                if settled is not None:
                    _book(account, settled.day, settled.month, counts)
            case Release(id, key, tried=tried):
                account = self._account(key)
                if account.open.pop(id, None) is not None and not tried:
                    account.recent.pop(id, None)
            case Reset(key, windows):
                account = self._account(key)
                for window in windows:
                    if booked := account.booked(window):
                        account.forgiven[window] = msgspec.structs.replace(booked)
            case Import(key, day, counts):
                account = self._account(key)
                if day not in account.days:
                    _book(account, day, day[:7], counts)

    def _account(self, name: str) -> Account:
        return self.by_name.setdefault(name, Account())


def _book(account: Account, day: str, month: str, counts: Counts) -> None:
    account.days.setdefault(day, Counts()).add(counts)
    account.months.setdefault(month, Counts()).add(counts)
