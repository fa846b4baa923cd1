"""Every API that is spoken here: the only list. A further one is a module with an `Api`, and a row here. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bridge.wire import anthropic, native, openai_chat, openai_responses
from bridge.wire.api import Api

#: by the name that the log shows and `GenerationRequest.api` holds
APIS: Mapping[str, Api] = {api.name: api for api in (native.API, openai_chat.API, openai_responses.API, anthropic.API)}


#: a path under which the SDKs of several APIs ask
_SHARED = "/v1/models"


def api_at(path: str, header: Callable[[str], str | None]) -> Api:
    """The API whose clients ask for `path`: errors come in its shape. `header` looks up one of the request's."""
    for api in APIS.values():
        own = any(path == each or path.startswith(f"{each}/") for each in api.paths)
        if own or (path.startswith(_SHARED) and api.header is not None and header(api.header) is not None):
            return api
    return openai_chat.API if path.startswith("/v1/") else native.API
