"""Lists of models, in the shapes of both APIs, with what the bridge adds: the CLI and the price. Pure."""

from __future__ import annotations

from typing import Literal

import msgspec

from bridge.types import ModelChoice


class ModelRates(msgspec.Struct, frozen=True):
    """Dollars per million tokens, by kind."""

    input: float
    cached: float
    cache_write: float
    output: float


class LongPrompt(ModelRates, frozen=True, kw_only=True):
    """The rates of a whole run with more prompt tokens than that."""

    above_tokens: int


class Pricing(ModelRates, frozen=True, kw_only=True):
    """What a model costs. `assumed`: its price is not known, so the dearest of its provider is counted."""

    assumed: bool = False
    long_prompt: LongPrompt | None = None


class Listed(msgspec.Struct, frozen=True):
    """A model that a key may use. `max_output_tokens`: the most that a request may ask for. `listed`: whether its
    provider lists it; None where that is not known."""

    choice: ModelChoice
    pricing: Pricing
    max_output_tokens: int
    listed: bool | None = None

    @property
    def id(self) -> str:
        """The name to ask for it by."""
        return self.choice.alias or self.choice.model


class OpenAIModel(msgspec.Struct):
    """A model, as OpenAI's SDKs read it. `created` is not known. `alias_of`: the model behind a name of the
    operator's own. `listed`: whether its provider has it, as it told within a day; null: it was not asked."""

    id: str
    owned_by: str
    provider: str
    alias_of: str | None
    pricing: Pricing
    listed: bool | None = None
    created: int = 0
    object: Literal["model"] = "model"


class OpenAIModels(msgspec.Struct):
    """All of them."""

    data: list[OpenAIModel]
    object: Literal["list"] = "list"


class AnthropicModel(msgspec.Struct):
    """A model, as Anthropic's SDKs read it. `created_at` is not known. `listed`: as for OpenAI's."""

    id: str
    display_name: str
    provider: str
    alias_of: str | None
    pricing: Pricing
    max_tokens: int
    listed: bool | None = None
    type: Literal["model"] = "model"
    created_at: str = "1970-01-01T00:00:00Z"
    lifecycle: Literal["active"] = "active"


class AnthropicModels(msgspec.Struct):
    """All of them; there are no further pages."""

    data: list[AnthropicModel]
    first_id: str | None
    last_id: str | None
    has_more: Literal[False] = False


def entry(listed: Listed, *, anthropic: bool) -> OpenAIModel | AnthropicModel:
    """One model."""
    return _anthropic(listed) if anthropic else _openai(listed)


def listing(all_listed: list[Listed], *, anthropic: bool) -> OpenAIModels | AnthropicModels:
    """All models."""
    if not anthropic:
        return OpenAIModels([_openai(listed) for listed in all_listed])
    rows = [_anthropic(listed) for listed in all_listed]
    return AnthropicModels(rows, rows[0].id if rows else None, rows[-1].id if rows else None)


def _openai(listed: Listed) -> OpenAIModel:
    provider = listed.choice.provider
    owner = f"cli-bridge-{provider}"
    return OpenAIModel(listed.id, owner, provider, _alias_of(listed), listed.pricing, listed.listed)


def _anthropic(listed: Listed) -> AnthropicModel:
    return AnthropicModel(
        listed.id,
        listed.id,
        listed.choice.provider,
        _alias_of(listed),
        listed.pricing,
        listed.max_output_tokens,
        listed.listed,
    )


def _alias_of(listed: Listed) -> str | None:
    return None if listed.choice.alias is None else listed.choice.model
