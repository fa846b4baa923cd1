"""Searches of the web as the model APIs have them: the tool that asks for them, what it found, and what cites it. Pure.

Neither CLI is told of it: the gate puts the tool in, and the provider runs it, inside of the one call. Source of the
shapes: Anthropic's page on its web search tool, OpenAI's guide to web search.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge.types import Citation, Found, Search, WebSearch

#: What Anthropic's own tool is called, and the version of it that every model takes.
TOOL = "web_search"
_CLAUDE_TYPE = "web_search_20250305"


def claude_tool(search: WebSearch) -> dict[str, Any]:
    """The tool of Anthropic's API."""
    tool: dict[str, Any] = {"type": _CLAUDE_TYPE, "name": TOOL, "max_uses": search.most}
    if search.domains:
        tool["allowed_domains"] = list(search.domains)
    if search.blocked:
        tool["blocked_domains"] = list(search.blocked)
    return {**tool, "user_location": {"type": "approximate", **search.place}} if search.place else tool


def openai_tool(search: WebSearch) -> dict[str, Any]:
    """The tool of OpenAI's API, which has its bound beside it, in `max_tool_calls`."""
    tool: dict[str, Any] = {"type": TOOL}
    if search.domains:
        tool["filters"] = {"allowed_domains": list(search.domains)}
    if search.context is not None:
        tool["search_context_size"] = search.context
    return {**tool, "user_location": {"type": "approximate", **search.place}} if search.place else tool


def claude_search(id: str, query: str, content: Any) -> Search:
    """What a search of Anthropic's found: a list of results, or an error."""
    if not isinstance(content, list):
        error = content.get("error_code") if isinstance(content, dict) else None
        return Search(id, query, error=_text(error) or "unavailable")
    found = [each for each in content if isinstance(each, dict) and isinstance(each.get("url"), str)]
    return Search(
        id,
        query,
        tuple(
            Found(
                each["url"],
                _text(each.get("title")),
                _text(each.get("page_age")) or None,
                _text(each.get("encrypted_content")),
            )
            for each in found
        ),
    )


def openai_search(item: Mapping[str, Any]) -> Search | None:
    """A search of OpenAI's; None for what else its tool does, which costs nothing: to open a page, to look into it."""
    action = item.get("action")
    if not isinstance(action, dict):
        return Search(_text(item.get("id")), "")
    if action.get("type") != "search":
        return None
    sources = action.get("sources") if isinstance(action.get("sources"), list) else []
    urls = [each["url"] for each in sources or () if isinstance(each, dict) and isinstance(each.get("url"), str)]
    error = "unavailable" if item.get("status") == "failed" else None
    return Search(_text(item.get("id")), _text(action.get("query")), tuple(Found(url, "") for url in urls), error)


def citation(raw: Any) -> Citation | None:
    """What a text cites, of all of it (Anthropic) or from a character to another (OpenAI); None for another kind."""
    if not isinstance(raw, dict) or not isinstance(raw.get("url"), str):
        return None
    start, end = raw.get("start_index"), raw.get("end_index")
    exact = type(start) is int and type(end) is int and 0 <= start <= end
    return Citation(
        raw["url"],
        _text(raw.get("title")),
        start if exact and type(start) is int else 0,
        end if exact and type(end) is int else None,
        _text(raw.get("cited_text")),
        _text(raw.get("encrypted_index")),
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
