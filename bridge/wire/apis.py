"""Every API that is spoken here, by the name that the log shows and `GenerationRequest.api` holds. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from bridge.wire import anthropic, native, openai_chat, openai_responses
from bridge.wire.api import Api

APIS: Mapping[str, Api] = {api.name: api for api in (native.API, openai_chat.API, openai_responses.API, anthropic.API)}
