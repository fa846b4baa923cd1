from __future__ import annotations

import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import StoreError
from bridge.ledger.pricing import PICO, Price, PriceTable, Rates, affordable_output, ceiling_cost, cost
from bridge.types import Usage
from tests.support.ledger import FrozenClock


@pytest.fixture
def clock():
    return FrozenClock()


@pytest.fixture
def override(tmp_path):
    return tmp_path / "prices.json"


@pytest.fixture
def table(override, clock):
    return PriceTable(override, clock)


def own(**models):
    return json.dumps({"schema": 1, "providers": {"codex": {"models": models}}})


ROW = {"input": 1, "cached": 0.1, "cacheWrite": 1, "output": 4}


def test_every_provider_has_prices_and_no_row_is_free(table):
    for provider in ("claude", "codex", "demo"):
        for model in table.models(provider):
            price = table.price_of(provider, model)
            assert price.known
            assert 0 < price.rates.cached <= price.rates.input <= price.rates.output


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("claude-sonnet-5-5", "claude-sonnet-5-5"),
        ("claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("claude-opus-4-6[1m]", "claude-opus-4-6"),
        ("Claude-Opus-5", "claude-opus-5"),
        ("sonnet", "claude-sonnet-5-5"),
        ("opus[1m]", "claude-opus-5-5"),
        ("claude-opus-4-1-20250805", "claude-opus-5-5"),
    ],
)
def test_a_model_is_found_by_name_date_variant_and_alias(table, asked, found):
    assert table.price_of("claude", asked).model == found


def test_dates_are_dropped_for_codex_too(table):
    assert table.price_of("codex", "gpt-5.4-2026-03-05").model == "gpt-5.4"


@pytest.mark.parametrize(
    ("asked", "real"),
    [
        ("opus", "claude-opus-5-5"),
        ("OPUS[1M]", "claude-opus-5-5[1m]"),
        ("haiku", "claude-haiku-5-5"),
        ("fable", "claude-fable-5-2"),
        ("claude-opus-4-1-20250805", "claude-opus-5-5"),
        ("claude-opus-4-0[1m]", "claude-opus-5-5[1m]"),
        ("claude-opus-4-5-20251101", "claude-opus-4-5-20251101"),
        ("My-Model[1m]", "My-Model[1m]"),
    ],
)
def test_an_alias_or_a_retired_name_stands_for_what_the_cli_asks_for(table, asked, real):
    assert table.stands_for("claude", asked) == real
    assert table.price_of("claude", asked) == table.price_of("claude", real)


def test_an_operators_price_of_a_retired_name_makes_it_a_model_again(override, clock):
    model = {"claude": {"models": {"claude-opus-4-1": ROW}}}
    override.write_text(json.dumps({"providers": model}))
    table = PriceTable(override, clock)
    assert table.stands_for("claude", "claude-opus-4-1") == "claude-opus-4-1"
    assert table.price_of("claude", "claude-opus-4-1").rates.output == 4_000_000
    assert table.stands_for("claude", "opus") == "claude-opus-5-5"


@pytest.mark.parametrize("provider", ["claude", "codex", "demo"])
def test_an_unknown_model_is_charged_at_the_dearest_of_its_provider(table, provider):
    unknown = table.price_of(provider, "never-heard-of")
    assert not unknown.known
    usage = Usage(300_000, 300_000, 300_000, 300_000)
    for model in table.models(provider):
        assert cost(unknown, usage) >= cost(table.price_of(provider, model), usage)


def test_long_prompts_have_their_own_tariff(table):
    haiku = table.price_of("claude", "claude-haiku-5-5")
    assert cost(haiku, Usage(input_tokens=100_000)) == 10_000
    assert cost(haiku, Usage(input_tokens=100_001)) == 50_001
    assert cost(haiku, Usage(input_tokens=1, cache_read_tokens=100_000)) == 5001


def test_a_cost_is_rounded_up_once(table):
    haiku = table.price_of("claude", "claude-haiku-5-5")
    assert cost(haiku, Usage(input_tokens=1)) == 1
    assert cost(haiku, Usage(input_tokens=10, output_tokens=2)) == 2
    assert cost(haiku, Usage()) == 0


rates = st.builds(Rates, *(st.integers(0, 200 * PICO) for _ in range(4)), cache_write_1h=st.integers(0, 200 * PICO))
prices = st.builds(
    Price, st.just("m"), rates, st.none() | rates, st.integers(1, 400_000), st.just(True), st.integers(0, 10**10)
)
searches = st.integers(0, 10)
tokens = st.integers(0, 1_000_000)


@given(prices, tokens, tokens, tokens, tokens, searches)
def test_no_usage_within_the_ceiling_costs_more_than_the_ceiling(price, fresh, read, written, output, made):
    usage = Usage(fresh, read, written, output, searches=made)
    assert cost(price, usage) <= ceiling_cost(price, usage.prompt, output, made)


@given(prices, tokens, st.integers(0, 10**10), searches)
def test_affordable_output_is_exactly_what_the_budget_bears(price, prompt, budget, made):
    output = affordable_output(price, prompt, budget, made)
    if output < 0:
        assert ceiling_cost(price, prompt, 0, made) > budget
    else:
        assert ceiling_cost(price, prompt, output, made) <= budget
        assert price.worst_for(prompt)[1] == 0 or ceiling_cost(price, prompt, output + 1, made) > budget


def test_a_search_costs_a_cent_and_an_operator_may_say_otherwise(table, tmp_path):
    for provider, model in (("claude", "claude-haiku-5-5"), ("codex", "gpt-6-sol"), ("claude", "claude-unheard-of")):
        assert cost(table.price_of(provider, model), Usage(searches=3)) == 30_000
    own = {"providers": {"claude": {"webSearches": 2.5, "models": {}}, "codex": {"models": {}}}}
    (tmp_path / "prices.json").write_text(json.dumps(own))
    table = PriceTable(tmp_path / "prices.json", FrozenClock())
    assert cost(table.price_of("claude", "claude-haiku-5-5"), Usage(searches=1)) == 2500
    assert cost(table.price_of("codex", "gpt-6-sol"), Usage(searches=1)) == 10_000


@given(prices, tokens, tokens)
def test_sums_are_exact(price, fresh, output):
    tariff = price.for_prompt(fresh)
    exact = Fraction(fresh * tariff.input + output * tariff.output, PICO)
    assert 0 <= cost(price, Usage(input_tokens=fresh, output_tokens=output)) - exact < 1


def test_an_operators_prices_win_and_add(override, clock):
    override.write_text(own(**{"gpt-6-sol": ROW, "my-model": ROW}))
    table = PriceTable(override, clock)
    assert table.price_of("codex", "gpt-6-sol").rates.output == 4 * PICO
    assert table.price_of("codex", "my-model").known
    assert table.price_of("codex", "gpt-6-luna").rates.output == PICO // 2


def test_new_prices_are_seen_without_a_restart_within_a_second(table, override, clock):
    override.write_text(own(**{"my-model": ROW}))
    assert not table.price_of("codex", "my-model").known
    clock.pass_s(1)
    assert table.price_of("codex", "my-model").known
    override.unlink()
    clock.pass_s(1)
    assert not table.price_of("codex", "my-model").known


BROKEN = [
    "",
    "{",
    "[]",
    '{"providers": []}',
    '{"schema": 2, "providers": {}}',
    own(m={**ROW, "output": -1}),
    own(m={**ROW, "output": "4"}).replace('"4"', '"four"'),
    own(m={**ROW, "output": None}),
    own(m={**ROW, "output": 0.0000001}),
    own(m={**ROW, "outputs": 4}),
    own(m={"input": 1}),
    own(m={**ROW, "longPrompt": {**ROW}}),
    own(m=ROW).replace('"models"', '"aliases": {"a": "b"}, "models"'),
    own(m=ROW).replace("0.1", "NaN"),
    own(m=ROW).replace("0.1", "1e999"),
]


@pytest.mark.parametrize("text", BROKEN)
def test_unusable_prices_stop_the_start_and_keep_the_last_good_ones_later(override, clock, text):
    override.write_text(own(**{"my-model": ROW}))
    table = PriceTable(override, clock)
    override.write_text(text)
    with pytest.raises(StoreError, match=r"prices\.json cannot be used"):
        PriceTable(override, clock)
    clock.pass_s(1)
    assert table.price_of("codex", "my-model").known
    assert table.problem is not None
    override.write_text(own(**{"my-model": ROW, "other": ROW}))
    clock.pass_s(1)
    assert table.price_of("codex", "other").known
    assert table.problem is None
