"""A model's name picks the CLI; the operator's own names do too, and a damaged file opens nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import BridgeError, StoreError
from bridge.ledger.pricing import PriceTable
from bridge.providers.models import ModelBook, Offers
from bridge.types import ModelChoice
from tests.support.ledger import FrozenClock


def book(folder: Path, clock: FrozenClock | None = None, **allowed: tuple[str, ...]) -> ModelBook:
    clock = clock or FrozenClock()
    prices = PriceTable(folder / "prices.json", clock)
    return ModelBook(
        folder / "models.json", clock, prices.models, prices.stands_for, allowed, Offers(folder / "offers.json")
    )


def write(folder: Path, content: Any) -> None:
    (folder / "models.json").write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.mark.parametrize(
    ("name", "provider"),
    [
        ("claude-sonnet-5-5", "claude"),
        ("claude-something-new", "claude"),
        ("claude-opus-5-5[1m]", "claude"),
        ("Claude-Haiku-5-5", "claude"),
        ("gpt-6-sol", "codex"),
        ("gpt-9", "codex"),
        ("chatgpt-4o-latest", "codex"),
        ("o3", "codex"),
        ("o4-mini", "codex"),
        ("o9-new", "codex"),
        ("codex-mini-latest", "codex"),
    ],
)
def test_the_name_picks_the_cli(tmp_path: Path, name: str, provider: str) -> None:
    assert book(tmp_path).resolve(name) == ModelChoice(provider, name)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("sonnet", "claude-sonnet-5-5"),
        ("opus", "claude-opus-5-5"),
        ("best", "claude-opus-5-5"),
        ("opusplan", "claude-sonnet-5-5"),
        ("haiku[1m]", "claude-haiku-5-5[1m]"),
        ("claude-opus-4-20250514", "claude-opus-5-5"),
    ],
)
def test_the_clis_own_alias_stands_for_what_it_asks_for(tmp_path: Path, name: str, model: str) -> None:
    assert book(tmp_path).resolve(name) == ModelChoice("claude", model, name)
    assert book(tmp_path).of_provider("claude", name) == ModelChoice("claude", model, name)
    write(tmp_path, {"aliases": {"house": {"provider": "claude", "model": name}}})
    assert book(tmp_path).resolve("house") == ModelChoice("claude", model, "house")


@pytest.mark.parametrize("name", ["gemini-3", "llama", "model", "x-gpt", "demo"])
def test_a_name_that_no_cli_has_is_not_found(tmp_path: Path, name: str) -> None:
    with pytest.raises(BridgeError) as caught:
        book(tmp_path).resolve(name)
    assert (caught.value.code, name in caught.value.message) == ("not_found", True)


@pytest.mark.parametrize(
    ("name", "model", "provider"),
    [
        ("openai/gpt-6-sol", "gpt-6-sol", "codex"),
        ("anthropic/claude-sonnet-5-5", "claude-sonnet-5-5", "claude"),
        ("models/gpt-6-sol", "gpt-6-sol", "codex"),
        ("azure/gpt-6-sol-2026-04-14", "gpt-6-sol-2026-04-14", "codex"),
        ("openai/claude-sonnet-5-5", "claude-sonnet-5-5", "claude"),
        ("openrouter/anthropic/claude-sonnet-5-5-20260115", "claude-sonnet-5-5-20260115", "claude"),
    ],
)
def test_a_provider_before_the_name_is_taken_off(tmp_path: Path, name: str, model: str, provider: str) -> None:
    assert book(tmp_path).resolve(name) == ModelChoice(provider, model)


def test_a_name_with_a_slash_that_is_on_a_list_is_that_model(tmp_path: Path) -> None:
    write(tmp_path, {"aliases": {"fast": "gpt-6-luna", "our/fast": "claude-haiku-5-5"}})
    models = book(tmp_path, codex=("openai/gpt-6-sol",))
    assert models.resolve("openai/gpt-6-sol") == ModelChoice("codex", "openai/gpt-6-sol")
    assert models.resolve("our/fast") == ModelChoice("claude", "claude-haiku-5-5", "our/fast")
    assert models.resolve("openai/fast") == ModelChoice("codex", "gpt-6-luna", "fast")
    assert models.of_provider("codex", "openai/gpt-6-sol").model == "openai/gpt-6-sol"
    assert models.of_provider("claude", "anthropic/claude-sonnet-5-5").model == "claude-sonnet-5-5"
    assert models.of_provider("claude", "house/unknown").model == "house/unknown"


def test_a_model_of_the_operators_lists_is_known_whatever_its_name(tmp_path: Path) -> None:
    prices = {"input": 1, "cached": 1, "cacheWrite": 1, "output": 1}
    (tmp_path / "prices.json").write_text(json.dumps({"providers": {"codex": {"models": {"house": prices}}}}))
    models = book(tmp_path, claude=("gpt-look-alike",))
    assert models.resolve("house").provider == "codex"
    assert models.resolve("gpt-look-alike").provider == "claude"
    assert models.names("claude") == ["gpt-look-alike"]
    assert "house" in models.names("codex")


def test_an_alias_stands_for_its_model_and_wins_over_a_name(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "schema": 1,
            "note": "for the team",
            "aliases": {
                "default-fast": "gpt-6-luna",
                "house": {"provider": "claude", "model": "my-own"},
                "gpt-4o": "claude-haiku-5-5",
            },
        },
    )
    models = book(tmp_path)
    assert models.resolve("default-fast") == ModelChoice("codex", "gpt-6-luna", "default-fast")
    assert models.resolve("house") == ModelChoice("claude", "my-own", "house")
    assert models.resolve("gpt-4o") == ModelChoice("claude", "claude-haiku-5-5", "gpt-4o")
    assert set(models.aliases) == {"default-fast", "house", "gpt-4o"}


DAMAGED = [
    ("{", "truncated"),
    ("[]", "object"),
    ('{"aliases": {"x": 5}}', "aliases"),
    ('{"nonsense": {}}', "nonsense"),
    ('{"schema": 2}', "schema 2"),
    ('{"aliases": {"--help": "gpt-6-sol"}}', "--help"),
    ('{"aliases": {"x": "a b"}}', "a b"),
    ('{"aliases": {"x": "unheard-of"}}', "needs a provider"),
    ('{"aliases": {"x": {"model": "gpt-6-sol", "provider": "gemini"}}}', "needs a provider"),
    ('{"aliases": {"x": "y", "y": "gpt-6-sol"}}', "alias itself"),
]


@pytest.mark.parametrize(("content", "says"), DAMAGED)
def test_a_file_that_cannot_be_used_stops_the_start_and_says_why(tmp_path: Path, content: str, says: str) -> None:
    write(tmp_path, content)
    with pytest.raises(StoreError) as caught:
        book(tmp_path)
    assert caught.value.message.startswith("models.json cannot be used: ")
    assert says in caught.value.message
    assert "models.json" in caught.value.hint


def test_a_folder_in_its_place_stops_the_start_too(tmp_path: Path) -> None:
    (tmp_path / "models.json").mkdir()
    with pytest.raises(StoreError):
        book(tmp_path)


def test_a_change_holds_soon_and_a_broken_one_leaves_the_last_good_one(tmp_path: Path) -> None:
    clock = FrozenClock()
    models = book(tmp_path, clock)
    with pytest.raises(BridgeError):
        models.resolve("fast")
    write(tmp_path, {"aliases": {"fast": "gpt-6-luna"}})
    clock.pass_s(1.5)
    assert models.resolve("fast").model == "gpt-6-luna"
    write(tmp_path, "{")
    clock.pass_s(1.5)
    assert models.resolve("fast").model == "gpt-6-luna"
    assert models.problem is not None
    assert "stays in force" in models.problem
    (tmp_path / "models.json").unlink()
    clock.pass_s(1.5)
    assert models.aliases == {}
    assert models.problem is None


def offering(folder: Path, **models: float) -> ModelBook:
    """A book of a provider that lists these, each with how many days ago it was made."""
    now = 1_795_000_000.0
    found = book(folder)
    made = {name.replace("_", "-"): now - 86400 * days for name, days in models.items()}
    found.offers.note("claude", now, made)
    return found


def test_what_a_provider_lists_can_be_named_and_what_it_has_not_is_marked(tmp_path: Path) -> None:
    models = offering(tmp_path, claude_sonnet_5_5_20260901=90, claude_new_9=10, claude_old_1=900, embed_5=1)
    names = models.names("claude")
    assert {"claude-new-9", "claude-old-1", "claude-opus-5-5"} <= set(names)
    assert not {"embed-5", "claude-sonnet-5-5-20260901"} & set(names), "makes no text; has a price without its date"
    offers = models.offers
    assert [offers.has("claude", name) for name in ("claude-sonnet-5-5", "claude-new-9", "claude-opus-5-5")] == [
        *(True, True),
        False,
    ]
    assert offers.has("codex", "gpt-6-sol") is None
    assert models.without_price == {"claude": ["claude-new-9"]}
    assert offers.nearest("claude", "claude-new-8") == "claude-new-9"
    assert offers.nearest("claude", "nothing like it") is None
    assert offers.nearest("codex", "gpt-6-sol") is None
    assert Offers(tmp_path / "offers.json").has("claude", "claude-old-1"), "kept over a restart"


def test_what_was_listed_is_begun_afresh_where_its_file_is_damaged(tmp_path: Path) -> None:
    offering(tmp_path, claude_new_9=1)
    (tmp_path / "offers.json").write_text("{")
    assert book(tmp_path).offers.has("claude", "claude-new-9") is None
