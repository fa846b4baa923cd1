"""Every API that is spoken here, by the name that the log shows and `GenerationRequest.api` holds. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from bridge.wire import anthropic_answer, native_answer, openai_chat_answer, openai_responses_answer
from bridge.wire.api import Api

APIS: Mapping[str, Api] = {
    api.name: api
    for api in (native_answer.API, openai_chat_answer.API, openai_responses_answer.API, anthropic_answer.API)
}
