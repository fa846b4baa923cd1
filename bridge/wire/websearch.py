"""Searches of the web in the bodies of every API: how they are asked for, and how text and searches cite. Pure.

The provider of the model searches, inside of one call; the bridge and the CLIs fetch nothing. Source of the shapes:
Anthropic's page on its web search tool, OpenAI's guide to web search.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from bridge.types import Part, Text, WebSearch
from bridge.wire.content import invalid

#: Searches of one request where it says nothing, and the most that it may have.
USUAL_SEARCHES, MOST_SEARCHES = 5, 10
#: Most domains of a request, and characters of one, or of a word on the user's place.
_MOST_DOMAINS, _LONGEST = 100, 253
_PLACE = ("city", "region", "country", "timezone")
#: What the vendors' own tools are called, with their dates.
_KIND = re.compile(r"web_search(_preview)?([_-]\d{4,8}([_-]\d{2})*)?")


def is_search(kind: str) -> bool:
    """Whether a tool of this type searches the web."""
    return _KIND.fullmatch(kind) is not None


def asked(
    at: str,
    most: int | None,
    *,
    domains: Sequence[str] | None = None,
    blocked: Sequence[str] | None = None,
    place: Mapping[str, Any] | None = None,
    context: str | None = None,
) -> WebSearch:
    """A search as it is asked for at a place of a body. More searches than the bridge allows count as what it allows.
    Raises BridgeError (invalid_request)."""
    if most is not None and most < 1:
        raise invalid(f"{at} allows no search at all; leave it out.", "tools")
    if domains and blocked:
        raise invalid(f"{at} names domains that may be searched and others that may not; name either.", "tools")
    words = [*(domains or ()), *(blocked or ())]
    where = {name: value for name, value in (place or {}).items() if name in _PLACE and isinstance(value, str)}
    if len(words) > _MOST_DOMAINS or any(not 0 < len(word) <= _LONGEST for word in [*words, *where.values()]):
        raise invalid(
            f"{at} may name {_MOST_DOMAINS} domains, and a place, of up to {_LONGEST} characters each.", "tools"
        )
    most = min(USUAL_SEARCHES if most is None else most, MOST_SEARCHES)
    return WebSearch(most, tuple(domains or ()), tuple(blocked or ()), where, context)


class UrlCitation(msgspec.Struct, tag="url_citation", tag_field="type"):
    """A source of a text, from a character of it to another."""

    start_index: int
    end_index: int
    url: str
    title: str


def citations(part: Text, offset: int = 0) -> list[UrlCitation]:
    """What a text cites, as OpenAI has it; `offset` characters stand before it."""
    end = offset + len(part.text)
    return [
        UrlCitation(offset + each.start, end if each.end is None else min(end, offset + each.end), each.url, each.title)
        for each in part.citations
    ]


def all_citations(parts: Iterable[Part]) -> list[UrlCitation]:
    """What the texts of an answer cite, as if they were one."""
    found: list[UrlCitation] = []
    offset = 0
    for part in parts:
        if isinstance(part, Text):
            found += citations(part, offset)
            offset += len(part.text)
    return found
