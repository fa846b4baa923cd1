"""`/admin/logs…` and `/admin/audit`: what was asked, and who changed what."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator
from typing import Any

import msgspec
from flask import Response, request

from bridge.clock import parse_iso
from bridge.engine.bill import PREVIEW_CHARACTERS
from bridge.errors import BridgeError, usual_hint
from bridge.http.context import LARGEST_PAGE, audit, page_limit, service_of
from bridge.http.describe import Query, Routes
from bridge.http.views import AuditEntry, AuditPage, Logs, LogSumsView
from bridge.limits import dollars
from bridge.records.runlog import Filter
from bridge.types import RunRecord

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
    Query("text", "A part of a prompt, an error, a name or an id."),
    Query("since", "From then on.", _TIME),
    Query("until", "Before then.", _TIME),
)


@routes.add(
    "GET",
    "/admin/logs",
    query=(*_FILTERS, *_PAGE, Query("sums", "`0`: without them.")),
    answer=Logs,
)
def logs() -> dict[str, Any]:
    """The request log, newest first, and what it adds up to; `next` goes into `before` for the page after."""
    filters, before, log = _log_filters(), request.args.get("before"), service_of().log
    rows, following = log.page(
        **filters,
        before=before,
        limit=page_limit(),
        prompt_characters=PREVIEW_CHARACTERS if request.args.get("prompts") == "preview" else None,
    )
    page: dict[str, Any] = {"logs": rows, "next": following}
    if before is None and request.args.get("sums") != "0":
        sums = log.sums(Filter(**filters))
        cost_usd = dollars(sums.cost_micro)
        page["sums"] = LogSumsView(sums.requests, sums.errors, sums.tokens, cost_usd, sums.since)
    return page


@routes.add("GET", "/admin/logs/<id>", errors=("not_found",), answer=RunRecord)
def log_entry(id: str) -> dict[str, Any]:
    """One line of the request log, by its id or by its request id."""
    found = service_of().log.find(id)
    if found is None:
        raise BridgeError("not_found", "The log has no such request.", "Lines are removed after the days of retention.")
    return {**found, "hint": found.get("hint") or usual_hint(found["code"])}


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
    name = f"cli-bridge-log-{service_of().ledger.today()}.{kind}"
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


@routes.add("GET", "/admin/audit", query=(*_PAGE, Query("text", "Only entries with this anywhere.")))
def show_audit() -> AuditPage:
    """Who changed what, newest first."""
    before, text = request.args.get("before"), request.args.get("text")
    rows, following = service_of().audit.page(before=before, limit=page_limit(), text=text)
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
    if None not in (since := filters["since"], until := filters["until"]) and since >= until:
        raise BridgeError("invalid_request", "since lies after until.", "Swap the two times.")
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
    """Rows as CSV, with the mark by which spreadsheets know that it is UTF-8. Cells that they would run as a formula
    begin with an apostrophe. The columns are those of today: an old row lacks some of them."""
    yield codecs.BOM_UTF8
    buffer = io.StringIO()
    names = RunRecord.__struct_encode_fields__
    writer = csv.DictWriter(buffer, names, extrasaction="ignore", quoting=csv.QUOTE_ALL)
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(value) for name, value in row.items()})
        yield buffer.getvalue().encode()
        buffer.seek(0)
        buffer.truncate()
    yield buffer.getvalue().encode()


def _cell(value: Any) -> Any:
    """A value as a cell that no spreadsheet takes for a formula: see OWASP, CSV Injection. Every cell is quoted, so
    that one does not end at a semicolon either."""
    begins = isinstance(value, str) and (value[:1] in "\t\r\n" or value.lstrip()[:1] in "=+-@＝＋－＠")
    return "'" + value if value and begins else value
