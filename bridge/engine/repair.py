"""The one further attempt after an answer that missed its schema, within what the first one reserved. Pure."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from bridge.engine.run import Attempt
from bridge.engine.structured import repaired
from bridge.errors import BridgeError
from bridge.ledger.caps import MINIMUM_OUTPUT_TOKENS
from bridge.ledger.ledger import Reservation
from bridge.ledger.pricing import Price, affordable_output
from bridge.types import Charge, GenerationRequest

#: Room that a second answer gets at least, as a multiple of what the first one took.
ROOM = 2


def second_attempt(
    request: GenerationRequest,
    mismatch: BridgeError,
    reserved: Reservation,
    spent: Charge,
    price: Price,
    input_ceiling: Callable[[GenerationRequest], int],
) -> Attempt | None:
    """What to ask after an answer that cost `spent`; None where what is left of the reservation, in tokens and
    in money, does not cover the most that the second call can use."""
    again = repaired(request, str(mismatch.facts.get("text", "")), mismatch.message)
    input_tokens = input_ceiling(again)
    output_tokens = min(
        request.max_output_tokens,
        reserved.input_tokens + reserved.output_tokens - spent.usage.total - input_tokens,
        affordable_output(price, input_tokens, reserved.cost_micro - spent.cost_micro),
    )
    least = max(min(request.max_output_tokens, MINIMUM_OUTPUT_TOKENS), ROOM * spent.usage.output_tokens)
    if output_tokens < least:
        return None
    return Attempt(msgspec.structs.replace(again, max_output_tokens=output_tokens), input_tokens, spent)
