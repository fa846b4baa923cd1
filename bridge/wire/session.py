"""What a client calls the conversation that a request belongs to, in each API's own word. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from bridge.errors import BridgeError
from bridge.wire import content

#: The longest name that counts, in characters.
MOST = 500


class _Words(msgspec.Struct):
    """Where APIs have it; all else is passed over unread."""

    metadata: Any = None
    prompt_cache_key: Any = None
    user: Any = None


_decoder = msgspec.json.Decoder(_Words)


def session_of(header: str | None, body: bytes) -> str | None:
    """The name of a conversation: X-Session-Id, Anthropic's `metadata.user_id`, OpenAI's `prompt_cache_key` or
    `user`; None where there is none."""
    found: list[Any] = [header]
    if not header:
        try:
            words = content.decode(body, _decoder)
        except BridgeError:
            return None
        metadata = words.metadata if isinstance(words.metadata, dict) else {}
        found += [metadata.get("user_id"), words.prompt_cache_key, words.user]
    return next((each[:MOST] for each in found if isinstance(each, str) and each), None)
