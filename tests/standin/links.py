"""Links to images: the model APIs follow them, the stand-in only looks at where they lead.

Anthropic: the page on vision, and what its users report. OpenAI: the guide on images, and what its users report.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

#: A host from which nothing can be fetched.
UNREACHABLE = "unreachable.example.com"


def links_in(body: Any) -> Iterator[str]:
    """All links to images in a body of either API, in messages and in results of tools."""
    match body:
        case {"type": "image", "source": {"type": "url", "url": url}}:
            yield url
        case {"type": "input_image", "image_url": url} if not url.startswith("data:"):
            yield url
        case dict():
            yield from links_in(list(body.values()))
        case list():
            for each in body:
                yield from links_in(each)


def broken_link(body: Any) -> str | None:
    """The first link in a body that leads nowhere."""
    return next((url for url in links_in(body) if urlsplit(url).hostname == UNREACHABLE), None)
