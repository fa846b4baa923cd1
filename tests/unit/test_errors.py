"""What an error says to programs: whether trying again by themselves is of any use."""

from __future__ import annotations

import pytest

from bridge.errors import Problem


@pytest.mark.parametrize(
    ("code", "retry_after", "again"),
    [
        ("requests_per_minute", 20, True),
        ("concurrent_requests", 1, True),
        ("cost_per_day", 1, True),  # where running requests hold what is missing
        ("cost_per_day", 40_000, False),
        ("cost_per_request", None, False),
        ("loop_suspected", 300, False),
        ("overloaded", 5, True),
        ("provider_rate_limited", None, True),
        ("provider_rate_limited", 7200, False),
        ("cli_unavailable", None, False),
        ("cli_unavailable", 10, True),
        ("conflict", None, False),
        ("conflict", 2, True),
        ("output_mismatch", None, False),
        ("cli_failed", None, False),
        ("timeout", None, False),
        ("invalid_request", None, False),
        ("unauthorized", None, False),
    ],
)
def test_only_what_passes_soon_by_itself_is_worth_trying_again(
    code: str, retry_after: float | None, again: bool
) -> None:
    assert Problem(code, "A sentence.", retry_after=retry_after).again is again


def test_what_was_stopped_before_it_cost_anything_is_the_bridges_fault_in_every_api() -> None:
    paid, unpaid = Problem("cli_bad_output", "A sentence."), Problem("cli_bad_output", "A sentence.", unpaid=True)
    assert (paid.status, paid.sdk_status) == (422, 400)
    assert (unpaid.status, unpaid.sdk_status) == (502, 502)
