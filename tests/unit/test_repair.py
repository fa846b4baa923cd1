"""A second attempt is made only where what is left of the reservation covers the most that it can use."""

from __future__ import annotations

from typing import Any

from bridge.engine.repair import second_attempt
from bridge.engine.run import Attempt
from bridge.errors import BridgeError
from bridge.ledger.ledger import Reservation
from bridge.ledger.pricing import Price, Rates, ceiling_cost
from bridge.providers.tokens import text_ceiling
from bridge.types import Charge, GenerationRequest, Message, Text, Usage

#: $10 a million tokens, of either kind
PRICE = Price("m", Rates(10_000_000, 10_000_000, 10_000_000, 10_000_000))
REQUEST = GenerationRequest("claude", "m", (Message("user", (Text("hello"),)),), schema={"type": "object"})
MISS = BridgeError("output_mismatch", "The answer does not fit the schema: it is no object.", text="[1]")


def reserved(input_tokens: int, output_tokens: int, cost_micro: int | None = None) -> Reservation:
    cost = ceiling_cost(PRICE, input_tokens, output_tokens) if cost_micro is None else cost_micro
    return Reservation("run_1", "ada", "claude", "m", 0.0, "day", "month", input_tokens, output_tokens, cost)


def attempt(reservation: Reservation, usage: Usage, cost_micro: int | None = None, **asked: Any) -> Attempt | None:
    request = GenerationRequest(**{**{f: getattr(REQUEST, f) for f in REQUEST.__struct_fields__}, **asked})
    charge = Charge(usage, usage.total * 10 if cost_micro is None else cost_micro)
    return second_attempt(request, MISS, reservation, charge, PRICE, lambda r: text_ceiling(r, 0))


def test_it_may_use_what_is_left_and_no_more() -> None:
    spent = Usage(input_tokens=20, output_tokens=10)
    again = attempt(reserved(100, 1000), spent, max_output_tokens=1000)
    assert again is not None
    assert again.spent == Charge(spent, 300)
    assert again.request.messages[1] == Message("assistant", (Text("[1]"),))
    most = again.input_tokens + again.request.max_output_tokens + spent.total
    assert most <= 1100
    assert ceiling_cost(PRICE, again.input_tokens, again.request.max_output_tokens) + 300 <= 11_000


def test_it_never_asks_for_more_than_the_first_did() -> None:
    again = attempt(reserved(100_000, 1000), Usage(input_tokens=20, output_tokens=10), max_output_tokens=1000)
    assert again is not None
    assert again.request.max_output_tokens == 1000


def test_without_room_there_is_none() -> None:
    little = Usage(input_tokens=20, output_tokens=10)
    assert attempt(reserved(100, 300), little, max_output_tokens=300) is None, "too few tokens are left"
    assert attempt(reserved(100, 1000, 3000), little, max_output_tokens=1000) is None, "too little money is left"
    assert attempt(reserved(100, 1000), little, 9000, max_output_tokens=1000) is None, "the first one was dear"
    long = Usage(input_tokens=20, output_tokens=400)
    assert attempt(reserved(100, 1000), long, max_output_tokens=1000) is None, "another of that length would not fit"


def test_a_short_maximum_is_enough_where_it_was_asked_for() -> None:
    again = attempt(reserved(2000, 50), Usage(input_tokens=20, output_tokens=5), max_output_tokens=50)
    assert again is not None
    assert again.request.max_output_tokens == 50
