"""`/admin/logs…` and `/admin/audit`: what was asked, and who changed what."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

import msgspec
from flask import Response, request

from bridge.clock import parse_iso
from bridge.engine.bill import PREVIEW_CHARACTERS
from bridge.errors import CODES, BridgeError
from bridge.http.context import LARGEST_PAGE, audit, page_limit, service_of
from bridge.http.describe import Query, Routes
from bridge.http.views import AuditEntry, AuditPage, LoggedRun, Logs
from bridge.records.runlog import Filter

routes = Routes("Admin", who="admin")

#: Pieces in which an export is sent, in bytes.
CHUNK_BYTES = 65536

_TIME = {"anyOf": [{"type": "string", "format": "date-time"}, {"const": ""}]}
_PAGE = (
    Query("limit", "Rows of a page.", {"type": "integer", "minimum": 1, "maximum": LARGEST_PAGE}),
    Query("before", "The `next` of the page before."),
)
_FILTERS = (
    Query("key", "Only this key."),
    Query("provider", "Only this CLI."),
    Query("status", "A number, `ok`, `error`, or a code."),
    Query("text", "A part of a prompt or an error."),
    Query("since", "From then on.", _TIME),
    Query("until", "Before then.", _TIME),
)


@routes.add("GET", "/admin/logs", query=(*_FILTERS, *_PAGE), answer=Logs)
def logs() -> dict[str, Any]:
    """The request log, newest first; `next` goes into `before` for the page after."""
    rows, following = service_of().log.page(
        **_log_filters(),
        before=request.args.get("before"),
        limit=page_limit(),
        prompt_characters=PREVIEW_CHARACTERS if request.args.get("prompts") == "preview" else None,
    )
    return {"logs": rows, "next": following}


@routes.add("GET", "/admin/logs/<id>", errors=("not_found",), answer=LoggedRun)
def log_entry(id: str) -> dict[str, Any]:
    """One line of the request log."""
    found = service_of().log.find(id)
    if found is None:
        raise BridgeError("not_found", "The log has no such request.")
    hint = CODES[found["code"]].hint if found["code"] in CODES else None
    return {**found, "hint": hint}


@routes.add(
    "GET",
    "/admin/logs/export",
    query=(Query("format", "How.", {"enum": ["jsonl", "csv"]}), *_FILTERS),
    media={"application/x-ndjson": "Lines of JSON.", "text/csv": "A table."},
)
def export_logs() -> Response:
    """The whole log, or what the filters leave of it, oldest first, as CSV or JSON lines."""
    kind = request.args.get("format", "jsonl")
    if kind not in ("csv", "jsonl"):
        raise BridgeError("invalid_request", "format must be csv or jsonl.")
    rows = service_of().log.iterate(Filter(**_log_filters()))
    audit("logs_exported", kind)
    lines = _csv(rows) if kind == "csv" else (msgspec.json.encode(row) + b"\n" for row in rows)
    response = Response(_in_chunks(lines), mimetype="text/csv" if kind == "csv" else "application/x-ndjson")
    response.headers["Content-Disposition"] = f'attachment; filename="cli-bridge-log.{kind}"'
    return response


@routes.add("GET", "/admin/audit", query=_PAGE)
def show_audit() -> AuditPage:
    """Who changed what, newest first."""
    rows, following = service_of().audit.page(before=request.args.get("before"), limit=page_limit())
    return AuditPage(msgspec.convert(rows, list[AuditEntry]), following)


def _log_filters() -> dict[str, Any]:
    filters: dict[str, Any] = {
        name: request.args.get(name) or None for name in ("key", "provider", "text", "since", "until")
    }
    status = request.args.get("status")
    filters["status"] = status or None
    for name in ("since", "until"):
        if filters[name] is not None:
            try:
                filters[name] = parse_iso(filters[name])
            except (ValueError, OverflowError):
                raise BridgeError(
                    "invalid_request", f"{name} must be a time with a zone, such as 2026-12-31T18:00:00Z."
                ) from None
    return filters


def _in_chunks(lines: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in fewer pieces: each piece is a write to the network."""
    chunk = bytearray()
    for line in lines:
        chunk += line
        if len(chunk) >= CHUNK_BYTES:
            yield bytes(chunk)
            chunk.clear()
    yield bytes(chunk)


def _csv(rows: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    """Rows as CSV. Cells that a spreadsheet would run as a formula begin with an apostrophe."""
    buffer = io.StringIO()
    writer: csv.DictWriter[str] | None = None
    for row in rows:
        if writer is None:
            writer = csv.DictWriter(buffer, list(row), extrasaction="ignore", quoting=csv.QUOTE_ALL)
            writer.writeheader()
        writer.writerow({name: _cell(value) for name, value in row.items()})
        yield buffer.getvalue().encode()
        buffer.seek(0)
        buffer.truncate()


def _cell(value: Any) -> Any:
    """A value as a cell that no spreadsheet takes for a formula: see OWASP, CSV Injection. Every cell is quoted, so
    that one does not end at a semicolon either."""
    begins = isinstance(value, str) and (value[:1] in "\t\r\n" or value.lstrip()[:1] in "=+-@＝＋－＠")
    return "'" + value if value and begins else value
