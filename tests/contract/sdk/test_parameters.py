"""The tables of parameters have every one that the SDKs know, so that none falls through unnoticed."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any

import pytest
from anthropic.types import message_count_tokens_params, message_create_params
from anthropic.types.beta import message_create_params as beta_message_create_params
from openai.types import completion_create_params as completions_create_params
from openai.types.chat import completion_create_params
from openai.types.responses import input_token_count_params, response_create_params

from bridge.wire import anthropic, openai_chat, openai_completions, openai_responses

#: Sent as headers, not in the body.
IN_HEADERS = {"betas", "workspace_id"}

KNOWN: list[tuple[Mapping[str, Any], Any, str]] = [
    (openai_chat.PARAMETERS, completion_create_params, "CompletionCreateParamsBase"),
    (openai_chat.PARAMETERS, completion_create_params, "CompletionCreateParamsStreaming"),
    (openai_completions.PARAMETERS, completions_create_params, "CompletionCreateParamsBase"),
    (openai_completions.PARAMETERS, completions_create_params, "CompletionCreateParamsStreaming"),
    (openai_responses.PARAMETERS, response_create_params, "ResponseCreateParamsBase"),
    (openai_responses.PARAMETERS, response_create_params, "ResponseCreateParamsStreaming"),
    (openai_responses.PARAMETERS, input_token_count_params, "InputTokenCountParams"),
    (anthropic.PARAMETERS, message_create_params, "MessageCreateParamsBase"),
    (anthropic.PARAMETERS, message_create_params, "MessageCreateParamsStreaming"),
    (anthropic.PARAMETERS, beta_message_create_params, "MessageCreateParamsBase"),
    (anthropic.COUNT_PARAMETERS, message_count_tokens_params, "MessageCountTokensParams"),
]


@pytest.mark.parametrize(("parameters", "module", "name"), KNOWN)
def test_every_parameter_of_the_sdk_is_in_the_table(parameters: Mapping[str, Any], module: Any, name: str) -> None:
    known = set(typing.get_type_hints(getattr(module, name), vars(module))) - IN_HEADERS
    assert len(known) > 8
    assert known - set(parameters) == set()
