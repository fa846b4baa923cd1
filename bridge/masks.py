"""What nobody should read, wherever it turns up: API keys, tokens, passwords. Pure."""

from __future__ import annotations

import json
import re

#: API keys, keys of this bridge and tokens of its gate, signed tokens, passwords in URLs, what authorizes a request.
_SECRET = re.compile(
    r"\b(?:sk-|cb[alpt]?_)[\w-]+|\beyJ[\w-]+\.[\w.-]+|(?<=://)[^/\s@]+(?=@)|(?<=bearer )[^\s\"]+", re.IGNORECASE
)


def masked(text: str, *secrets: str | None) -> str:
    """A text without what looks like a secret, and without these, also as they stand in JSON."""
    for secret in filter(None, secrets):
        text = text.replace(secret, "***").replace(json.dumps(secret)[1:-1], "***")
    return _SECRET.sub("***", text)
