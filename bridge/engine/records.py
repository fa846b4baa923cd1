"""What a run leaves behind: its id, and its line in the request log."""

from __future__ import annotations

import base64
import os

import msgspec

from bridge.clock import Clock, iso
from bridge.errors import BridgeError
from bridge.ledger.ledger import Reservation
from bridge.types import Answer, Charge, GenerationRequest, RunRecord


def new_run_id(clock: Clock) -> str:
    """`run_` and 26 characters that sort by time: 48 bits of milliseconds, 80 of chance, base32hex."""
    raw = int(clock.now() * 1000).to_bytes(6, "big") + os.urandom(10)
    return "run_" + base64.b32hexencode(raw).decode().rstrip("=").lower()


def cut_off(reservation: Reservation) -> RunRecord:
    """The log line of a run that ended with the server, charged what it had reserved."""
    request = GenerationRequest(reservation.provider, reservation.model, ())
    error = BridgeError("cli_failed", "The bridge stopped in the middle of this request.")
    line = log_line(reservation.id, reservation.at, reservation.key_name, request, error, reservation.as_charge())
    return msgspec.structs.replace(line, reserved_usd=reservation.cost_micro / 1e6)


def _stop_reason(result: Answer | BridgeError) -> str | None:
    if isinstance(result, BridgeError):
        return "refusal" if result.code == "refused" else None
    return result.stop_reason


def log_line(
    run_id: str,
    at: float,
    key_name: str,
    request: GenerationRequest,
    result: Answer | BridgeError,
    charge: Charge,
) -> RunRecord:
    """A line of the log with what every line has."""
    error = result if isinstance(result, BridgeError) else None
    usage = charge.usage
    return RunRecord(
        id=run_id,
        timestamp=iso(at),
        key_name=key_name,
        provider=request.provider,
        model=request.model,
        api=request.api,
        status=error.status if error else 200,
        code=error.code if error else None,
        error=error.message if error else None,
        stream=False,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        cost_usd=charge.cost_micro / 1e6,
        reserved_usd=0.0,
        assumed=charge.assumed,
        duration_ms=0,
        queued_ms=0,
        first_token_ms=None,
        warm=None,
        stop_reason=_stop_reason(result),
        system_prompt=None,
        user_prompt=None,
        request_id=request.request_id,
    )
