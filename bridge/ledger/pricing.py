"""What tokens cost: the table in prices.json of this package, and an operator's own beside the data.

Prices are dollars per million tokens in the files, which is micro-dollars per token; inside they are
whole pico-dollars per token, so that every sum is exact. A run's cost is rounded up to a micro-dollar once.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from decimal import Decimal
from importlib import resources
from pathlib import Path

import msgspec

from bridge.clock import Clock
from bridge.store.document import OperatorFile
from bridge.types import LONG_CONTEXT, Usage

PICO = 1_000_000
"""Pico-dollars in a micro-dollar."""

_DATE = re.compile(r"-(\d{8}|\d{4}-\d{2}-\d{2})\Z")
_HINT = "Correct or remove prices.json in the data folder; docs/limits.md shows what it may hold."
_NO_END = 2**53


class Rates(msgspec.Struct, frozen=True):
    """Pico-dollars per token by kind. `cache_write_1h`: written to be kept an hour, where that costs more."""

    input: int
    cached: int
    cache_write: int
    output: int
    cache_write_1h: int = 0

    @property
    def dearest_input(self) -> int:
        """The most that a token of a prompt can cost."""
        return max(self.input, self.cached, self.cache_write, self.cache_write_1h)


class Price(msgspec.Struct, frozen=True):
    """What a model costs. `known` is false where the table does not have it: then it is the dearest."""

    model: str
    rates: Rates
    #: the tariff of prompts with more than `above_tokens` tokens; it then holds for the whole run
    long_prompt: Rates | None = None
    above_tokens: int = 0
    known: bool = True
    #: pico-dollars for each search of the web
    search: int = 0

    def for_prompt(self, tokens: int) -> Rates:
        """The rates of a prompt of that length."""
        return self.long_prompt if self.long_prompt and tokens > self.above_tokens else self.rates

    def worst_for(self, tokens: int) -> tuple[int, int]:
        """The most that an input and an output token can cost for a prompt of up to that length."""
        long = self.for_prompt(tokens)
        return (
            max(self.rates.dearest_input, long.dearest_input),
            max(self.rates.output, long.output),
        )


def cost(price: Price, usage: Usage) -> int:
    """What a run cost, in micro-dollars, rounded up."""
    rates = price.for_prompt(usage.prompt)
    pico = (
        usage.input_tokens * rates.input
        + usage.cache_read_tokens * rates.cached
        + usage.cache_write_tokens * rates.cache_write
        + usage.output_tokens * rates.output
        + usage.searches * price.search
    )
    return -(-pico // PICO)


def ceiling_cost(price: Price, input_tokens: int, output_tokens: int, searches: int = 0) -> int:
    """The most that a run with at most so many tokens and searches can cost, in micro-dollars, rounded up."""
    dearest_input, dearest_output = price.worst_for(input_tokens)
    return -(-(input_tokens * dearest_input + output_tokens * dearest_output + searches * price.search) // PICO)


def affordable_output(price: Price, input_tokens: int, budget_micro: int, searches: int = 0) -> int:
    """The most output tokens with which `ceiling_cost` stays within the budget; below 0 where the
    prompt alone does not, with its searches."""
    dearest_input, dearest_output = price.worst_for(input_tokens)
    left = budget_micro * PICO - input_tokens * dearest_input - searches * price.search
    return left // dearest_output if dearest_output else (_NO_END if left >= 0 else -1)


class _Prices(msgspec.Struct, frozen=True):
    """What is known of a provider: model -> price, and alias -> model; all in lower case."""

    models: Mapping[str, Price] = {}
    aliases: Mapping[str, str] = {}
    #: pico-dollars for each search of the web; None where that is not said
    search: int | None = None

    def of(self, name: str) -> Price | None:
        """The price of a model or an alias."""
        return self.models.get(self.aliases.get(name, name))

    def with_own(self, own: _Prices) -> _Prices:
        """These prices with an operator's over them, whose models are no aliases."""
        aliases = {alias: name for alias, name in self.aliases.items() if alias not in own.models}
        search = self.search if own.search is None else own.search
        return _Prices({**self.models, **own.models}, {**aliases, **own.aliases}, search)


class PriceTable:
    """The prices in force. An operator's prices.json adds models to the package's, or replaces their prices.

    A change of it holds within about a second.
    """

    def __init__(self, override: Path, clock: Clock) -> None:
        """Raises StoreError where the operator's file cannot be used at start."""
        packaged = _parse(resources.files("bridge.ledger").joinpath("prices.json").read_bytes())

        def merged(data: bytes) -> dict[str, _Prices]:
            own = _parse(data)
            return {
                name: packaged.get(name, _Prices()).with_own(own.get(name, _Prices()))
                for name in packaged.keys() | own.keys()
            }

        self._file = OperatorFile(override, clock, merged, packaged, _HINT)

    @property
    def problem(self) -> str | None:
        """What is wrong with the operator's file, if it cannot be used any more."""
        return self._file.problem

    @property
    def digest(self) -> str:
        """A text that differs where any price does."""
        return hashlib.sha256(msgspec.json.encode(self._file.value, order="deterministic")).hexdigest()

    def price_of(self, provider: str, model: str) -> Price:
        """The price of a model: by its name, as an alias, without its date, else the provider's dearest."""
        every, name = self._file.value, model.lower().removesuffix(LONG_CONTEXT)
        table = every.get(provider, _Prices())
        price = table.of(name) or table.of(_DATE.sub("", name))
        if price is None:
            every_price = [one for each in every.values() for one in each.models.values()]
            price = _dearest(model, list(table.models.values()) or every_price)
        search = table.search if table.search is not None else max(each.search or 0 for each in every.values())
        return msgspec.structs.replace(price, search=search)

    def stands_for(self, provider: str, model: str) -> str:
        """The model that an alias, or the name of a retired model, stands for: what the CLI really asks for, and what
        is paid. Any other name is its own."""
        plain = model.lower().removesuffix(LONG_CONTEXT)
        aliases = self._file.value.get(provider, _Prices()).aliases
        real = aliases.get(plain) or aliases.get(_DATE.sub("", plain))
        return model if real is None else real + model[len(plain) :].lower()

    def models(self, provider: str) -> list[str]:
        """The names that a provider's prices are known for."""
        table = self._file.value.get(provider, _Prices())
        return sorted({*table.models, *table.aliases})


def _dearest(model: str, prices: list[Price]) -> Price:
    """A price for a model without one: of each kind of token, the dearest of all."""
    long = [price for price in prices if price.long_prompt is not None]
    return Price(
        model,
        _highest([price.rates for price in prices]),
        _highest([price.long_prompt or price.rates for price in prices]) if long else None,
        min((price.above_tokens for price in long), default=0),
        known=False,
    )


def _highest(rates: list[Rates]) -> Rates:
    return Rates(*(max(kind) for kind in zip(*map(msgspec.structs.astuple, rates), strict=True)))


# --- the file ---------------------------------------------------------------------------------


class _Row(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    input: Decimal
    cached: Decimal
    cache_write: Decimal
    output: Decimal
    cache_write_1h: Decimal = msgspec.field(name="cacheWrite1h", default=Decimal(0))
    above_tokens: int = 0
    long_prompt: _Row | None = None


class _Provider(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    models: dict[str, _Row] = {}
    #: dollars for a thousand searches of the web
    web_searches: Decimal | None = None
    aliases: dict[str, str] = {}
    source: str = ""
    note: str = ""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    providers: dict[str, _Provider]
    schema: int = 1
    date: str = ""
    unit: str = ""


def _parse(data: bytes) -> dict[str, _Prices]:
    """Provider -> its prices. Raises ValueError that says what is wrong."""
    # Numbers stay text until they are decimals: as a float, 0.1 would already be another price.
    file = msgspec.json.decode(data, type=_File)
    if file.schema != 1:
        raise ValueError(f"it has schema {file.schema}, not 1")
    prices: dict[str, _Prices] = {}
    for provider, table in file.providers.items():
        models = {name.lower(): _price(name, row) for name, row in table.models.items()}
        for alias, name in table.aliases.items():
            if name.lower() not in models:
                raise ValueError(f"the alias {alias} stands for {name}, which has no price there")
        search = None if table.web_searches is None else _pico("webSearches", table.web_searches * 1000)
        aliases = {alias.lower(): name.lower() for alias, name in table.aliases.items()}
        prices[provider] = _Prices(models, aliases, search)
    return prices


def _price(model: str, row: _Row) -> Price:
    if row.long_prompt is None:
        return Price(model, _rates(model, row))
    long = row.long_prompt
    if long.above_tokens < 1 or long.long_prompt is not None:
        raise ValueError(f"longPrompt of {model} needs aboveTokens, and no longPrompt of its own")
    return Price(model, _rates(model, row), _rates(model, long), long.above_tokens)


def _rates(model: str, row: _Row) -> Rates:
    return Rates(
        *(_pico(model, dollars) for dollars in (row.input, row.cached, row.cache_write, row.output, row.cache_write_1h))
    )


def _pico(model: str, dollars: Decimal) -> int:
    pico = dollars * PICO
    if not 0 <= dollars <= 100_000 or pico != int(pico):
        raise ValueError(f"a price of {model} is not a number of dollars from 0 to 100000 with 6 decimals at most")
    return int(pico)
