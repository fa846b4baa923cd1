"""Every API that is spoken here: the only list. A further one is a module with an `Api`, and a row here. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from bridge.wire import absent, anthropic, native, openai_chat, openai_completions, openai_responses
from bridge.wire.api import Api

#: by the name that the log shows and `GenerationRequest.api` holds
APIS: Mapping[str, Api] = {
    api.name: api for api in (native.API, openai_chat.API, openai_responses.API, anthropic.API, openai_completions.API)
}


#: a path under which the SDKs of several APIs ask
_SHARED = "/v1/models"
#: what stands behind /v1 in the paths of SDKs
_ENDS = "|".join(
    re.escape(path.removeprefix("/v1/")).replace("/", "/+")
    for api in APIS.values()
    if api.sdk
    for path in (*api.paths, *([] if api.count is None else [api.count.path]))
)
#: The same in the spellings that come of a base URL with /v1 twice or not at all, or with slashes too many.
_RESPELLED = re.compile(rf"/+(?:v1/+)*({_ENDS}|models(?:/+[^/]+)*)/*")
#: what OpenAI's SDKs ask for besides, and those of Anthropic
_OPENAI_WORDS = re.compile(r"(?:^|/)(?:v1|completions|responses|models)(?:/|$)")
_ANTHROPIC_WORDS = re.compile(r"(?:^|/)(?:messages|complete)(?:/|$)")


def respelled(path: str) -> str | None:
    """The path that somebody means who asks an SDK's API with a base URL that is not quite right; None for a path
    that is right, or that no SDK asks for."""
    found = _RESPELLED.fullmatch(path)
    right = None if found is None else "/v1/" + re.sub("/+", "/", found[1])
    return None if right == path else right


def api_at(path: str, header: Callable[[str], str | None]) -> Api:
    """The API whose clients ask for `path`: errors come in its shape. `header` looks up one of the request's."""
    if path.startswith("/admin/"):
        return native.API
    for api in APIS.values():
        own = any(path == each or path.startswith(f"{each}/") for each in api.paths)
        if own or (path.startswith(_SHARED) and api.header is not None and header(api.header) is not None):
            return api
    theirs = anthropic.API.header is not None and header(anthropic.API.header) is not None
    sdks = _OPENAI_WORDS.search(path) is not None or absent.absent(path) is not None
    if _ANTHROPIC_WORDS.search(path) or (theirs and sdks):
        return anthropic.API
    return openai_chat.API if sdks else native.API
