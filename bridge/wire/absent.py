"""What the APIs of OpenAI and Anthropic have and the bridge has not: the only list. Pure.

A program that asks for it hears what is missing and what to do instead, not only that a path leads nowhere. The list is
a part of docs/compatibility.md, too; tests/contract holds it against all paths that the SDKs ask for.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from bridge.errors import Problem


class Absent(msgspec.Struct, frozen=True):
    """Paths, as they begin below /v1 (`*`: any one part), with what is missing there and what to do instead."""

    paths: Sequence[str]
    text: str
    hint: str


#: The first row that fits counts.
ABSENT = (
    Absent(
        ("embeddings", "rerank"),
        "The bridge runs chat models only: it makes no embeddings, and ranks no texts.",
        "Set another embedder in your program: a model on your own machine, or a provider's own address and key.",
    ),
    Absent(
        ("images", "videos", "audio", "realtime", "live"),
        "The bridge runs chat models only: it makes no images, videos or sound, and hears none.",
        "Set another service for these in your program. Messages may have images.",
    ),
    Absent(
        ("moderations", "decisions", "content_provenance_checks"),
        "The bridge runs chat models only: it has no moderation.",
        "Let a chat model judge the text, or ask the provider's own API.",
    ),
    Absent(
        ("files", "uploads", "vector_stores", "containers", "skills"),
        "The bridge keeps no files.",
        "Send texts and images in the request itself.",
    ),
    Absent(
        ("batches", "messages/batches"),
        "The bridge takes no batches.",
        "Send the requests one by one; with the header 'Prefer: respond-async' each becomes a job.",
    ),
    Absent(
        ("responses/compact",),
        "The bridge changes no conversations.",
        "Send a shorter conversation, or have a model sum it up.",
    ),
    Absent(
        ("responses/*", "chat/completions/*"),
        "The bridge keeps no answers to be fetched later.",
        "Keep each answer in your program; with the header 'Prefer: respond-async' it is a job, at GET /jobs/ID.",
    ),
    Absent(
        ("conversations", "assistants", "threads", "chatkit"),
        "The bridge keeps no conversations.",
        "Send the earlier messages with each request to /v1/responses, /v1/chat/completions or /v1/messages.",
    ),
    Absent(
        (
            *("agents", "sessions", "environments", "deployments", "deployment_runs", "dreams", "memory_stores"),
            *("vaults", "tunnels", "user_profiles"),
        ),
        "The bridge keeps no agents.",
        "Run the agent in your program: the models call its tools, by /v1/messages, /v1/responses and the others.",
    ),
    Absent(
        ("fine_tuning", "evals"),
        "The bridge trains and rates no models.",
        "Use the provider's own API for that.",
    ),
    Absent(
        ("organization", "organizations", "projects", "safety", "webhook_endpoints", "webhook_event_types"),
        "The bridge does not manage the provider's accounts.",
        "GET /me says what your key may and has used. Your admin has the bridge's keys, limits and usage.",
    ),
    Absent(
        ("complete", "edits", "engines"),
        "The bridge does not speak APIs that their providers have given up.",
        "Use /v1/messages, /v1/chat/completions or /v1/responses; GET /v1/models lists the models.",
    ),
)

#: first part of a path -> all its parts, with the row: every request looks here
_BY_FIRST: dict[str, list[tuple[list[str], Absent]]] = {}
for _row in ABSENT:
    for _path in _row.paths:
        _BY_FIRST.setdefault(_path.partition("/")[0], []).append((_path.split("/"), _row))


def absent(path: str) -> Problem | None:
    """Why there is nothing at a path that the SDKs ask for, whatever the base URL before it; None for all others."""
    rest = [part for part in path.rpartition("/v1/")[2].split("/") if part]
    for begin, row in _BY_FIRST.get(rest[0], ()) if rest else ():
        if len(begin) <= len(rest) and all(want in ("*", part) for want, part in zip(begin, rest, strict=False)):
            return Problem("not_found", row.text, row.hint)
    return None
