"""What one answer shall look like: directives, written in the prompt or set for the whole server.

A prompt carries its own directives, so tests that run at the same time do not collide::

    Tell me a story. [[standin deltas=20 delay=0.05 mode=hang_mid]]

The fields of `Script` are the directives and their meaning. A name or value that is not known is
an error (the stand-in answers 400 and says so): a misspelt directive must not pass as "ok".
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass, fields, replace
from typing import Any

MODES = frozenset(
    {
        "ok",
        "quota",  # 429; OpenAI's code is insufficient_quota
        "hang",  # silence before the headers
        "hang_headers",  # headers, then silence
        "hang_mid",  # some deltas, then silence
        "cut",  # some deltas, then the connection is closed
        "cut_early",  # headers, then the connection is closed
        "garbage",  # an event stream whose data is not JSON
        "stream_error",  # an error event midway: overloaded_error, response.failed server_error
        "stream_rate_limit",  # an error event midway: rate limit
        "early_error",  # a stream that begins with an error event: overloaded
        "early_rate_limit",  # the same: rate limit
        "context",  # the prompt is too long for the model
        "incomplete",  # the answer ends at the output limit; max_tokens means the same
        "max_tokens",
        "refusal",
        "empty",  # an answer without text
    }
)
STATUSES = frozenset({400, 401, 402, 403, 404, 413, 429, 500, 502, 503, 504, 529})

_DIRECTIVE = re.compile(r"\[\[standin((?:\s+[^\s\]]+)*)\s*\]\]")


class ScriptError(ValueError):
    """A directive that the stand-in does not know."""


@dataclass(frozen=True, slots=True)
class Script:
    """How to answer one request. Durations in seconds, amounts in tokens or characters."""

    mode: str = "ok"
    status: int = 200  # any other: the error of that status
    retry_after: int = 7  # header of a 429, in seconds; -1: none
    limits: str = ""  # headers of an error or a stream, as "name:value,name:value"
    says: str = ""  # the message of an error, in the place of the usual one
    deltas: int = 0  # number of pieces (a short text is filled up with dots); 0: as suits the text
    delay: float = 0.0  # between two deltas
    header_delay: float = 0.0  # before the headers
    first_delay: float = 0.0  # after the opening events, before the first delta
    after: int = -1  # deltas sent before the fault of a mode; -1: half of them
    text: str = ""  # answer exactly this (base64 in a directive)
    size: int = 0  # answer this many characters
    words: int = 0  # the model wants this many one-token words, and gets at most the limit
    long: bool = False  # the model would never stop: the limit's worth of words
    thinking: bool = False  # a thinking block, or a reasoning item, before the text
    searches: int = 0  # searches of the web before the text, as far as they are allowed
    redacted: bool = False  # what the model thought is not to be read
    tool: str = ""  # ask for this tool, with /etc/passwd; "custom:NAME" is an OpenAI custom tool
    calls: str = ""  # call these tools: JSON, [[name, arguments as JSON], …] (base64 in a directive)
    schema_bad: bool = False  # structured output that breaks the schema
    schema_never: bool = False  # plain text although a schema was given
    input: int = -1  # usage; -1: about the size of the prompt. Anthropic: without cached
    output: int = -1  # usage; -1: about the size of the answer. OpenAI: with reasoning
    cached: int = 0  # usage: read from the prompt cache
    cache_write: int = 0  # usage: written to the prompt cache
    reasoning: int = -1  # usage; -1: 16 with thinking, else 0

    @property
    def asked(self) -> tuple[tuple[str, str], ...]:
        """The calls of tools: name, arguments as JSON."""
        return tuple((name, arguments) for name, arguments in json.loads(self.calls or "[]"))

    def with_(self, **directives: object) -> Script:
        """The same with some directives changed; values may be text. Raises ScriptError."""
        return replace(self, **{k: _value(k, v) for k, v in directives.items()})


_TYPES: dict[str, str] = {f.name: str(f.type) for f in fields(Script)}


def _value(name: str, given: object) -> Any:
    kind = _TYPES.get(name)
    if kind is None:
        raise ScriptError(f"unknown directive {name!r}; known: {', '.join(sorted(_TYPES))}")
    try:
        value: Any
        if kind == "int":
            value = int(str(given))
        elif kind == "float":
            value = float(str(given))
        elif kind == "bool":
            value = {"1": True, "0": False, "true": True, "false": False}[str(given).lower()]
        else:
            value = str(given)
    except (ValueError, KeyError):
        raise ScriptError(f"directive {name}={given!r} is not of type {kind}") from None
    if name == "mode" and value not in MODES:
        raise ScriptError(f"unknown mode {value!r}; known: {', '.join(sorted(MODES))}")
    if name == "status" and value != 200 and value not in STATUSES:
        raise ScriptError(f"unknown status {value}; known: {sorted(STATUSES)}")
    return value


def encode_text(text: str) -> str:
    """The value of a `text=` directive that makes the stand-in answer exactly `text`."""
    return base64.urlsafe_b64encode(text.encode()).decode()


def encode_calls(*calls: tuple[str, str]) -> str:
    """The value of a `calls=` directive: tools to call, each with its name and its arguments as JSON."""
    return encode_text(json.dumps(calls))


def _decode_text(value: str) -> str:
    try:
        return base64.b64decode(value, altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise ScriptError("a directive is not base64 of UTF-8") from None


def read_prompt(text: str, default: Script) -> tuple[Script, str]:
    """Split a prompt into its script and what is left of it.

    A text without directives is left as it is; with some, the rest is stripped.
    Raises ScriptError.
    """
    script = default
    found = False
    for match in _DIRECTIVE.finditer(text):
        found = True
        for word in match.group(1).split():
            name, eq, value = word.partition("=")
            if not eq:
                raise ScriptError(f"directive {word!r} has no value")
            script = script.with_(**{name: _decode_text(value) if name in ("text", "calls") else value})
    return script, _DIRECTIVE.sub("", text).strip() if found else text
