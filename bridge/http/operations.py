"""Every route, described: what /openapi.json, /docs and `cli-bridge openapi` are made from.

A route that is not here fails a test, and so does one here that the server does not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from bridge.errors import CODES
from bridge.http import views as shapes
from bridge.types import RunRecord
from bridge.wire import anthropic, models, native, openai, openai_chat
from bridge.wire import openai_responses as responses
from bridge.wire.parameters import Parameter

Who = Literal["anybody", "key", "admin"]
HELLO = [{"role": "user", "content": "Hello"}]


class Query(msgspec.Struct, frozen=True):
    """A parameter of the address, or a header of the request. `schema` is JSON Schema."""

    name: str
    text: str
    schema: dict[str, Any] = msgspec.field(default_factory=lambda: {"type": "string"})
    where: Literal["query", "path", "header"] = "query"


class Operation(msgspec.Struct, frozen=True):
    """One method of one path. `path` has `{names}`; types are those of the bodies, a tuple for one of several."""

    method: str
    path: str
    text: str
    who: Who
    group: str
    answer: Any = None
    status: int = 200
    body: Any = None
    body_needed: bool = True
    example: Any = None
    parameters: Sequence[Query] = ()
    #: of other people's APIs: what becomes of each field of the body
    table: Sequence[Parameter] = ()
    #: codes of CODES
    errors: Sequence[str] = ()
    error_type: Any = shapes.Error
    #: media type -> text, of answers that are no JSON
    also: dict[str, str] = {}


_EVERY = ("too_many_requests", "internal")
_KEY = ("unauthorized", "key_disabled", "key_expired", *_EVERY)
_NOT_WHEN_SPENDING = ("not_found", "method_not_allowed")
_SPENDING = tuple(code for code in CODES if code not in _NOT_WHEN_SPENDING)
_ADMIN = ("unauthorized", "invalid_request", "storage_failed", "payload_too_large", *_EVERY)

_SECONDS = {"type": "integer", "minimum": 0, "maximum": 999999}
_PREFER = Query(
    "Prefer", "`respond-async`: a job at once. `wait=N`: a job after N seconds. Not for streams.", where="header"
)
_AGAIN = Query(
    "Idempotency-Key",
    "The same key and body within 24 hours get the first answer again, and spend nothing.",
    {"type": "string", "minLength": 1, "maxLength": 255},
    "header",
)
_STREAM = {"text/event-stream": "With `stream`: server-sent events; see docs/api.md for their names and order."}
_CLAUDE = Query("anthropic-version", "Where it is sent, the answer has Anthropic's shape.", where="header")


def _spending(path: str, text: str, group: str, body: Any, answer: Any, **more: Any) -> Operation:
    return Operation(
        "POST",
        path,
        text,
        "key",
        group,
        answer,
        body=body,
        parameters=(_PREFER, _AGAIN),
        also=_STREAM,
        **{"errors": _SPENDING, **more},
    )


_GENERATE = {"userPrompt": "Hello", "systemPrompt": "Answer in one sentence."}
_CHAT = {"model": "gpt-6-sol", "messages": HELLO}
_RESPONSE = {"model": "gpt-6-sol", "input": "Hello"}
_MESSAGE = {"model": "claude-sonnet-5-5", "max_tokens": 500, "messages": HELLO}
_V1 = (*_SPENDING, "not_found")
_OPENAI: dict[str, Any] = {"errors": _V1, "error_type": openai.OpenAIErrorBody}
_ANTHROPIC: dict[str, Any] = {"errors": _V1, "error_type": anthropic.AnthropicErrorBody}
_EITHER = (openai.OpenAIErrorBody, anthropic.AnthropicErrorBody)

_GENERATING = (
    _spending(
        "/generate", "Generate with claude.", "Generate", native.GenerateBody, shapes.Generated, example=_GENERATE
    ),
    _spending(
        "/generate-codex", "Generate with codex.", "Generate", native.GenerateBody, shapes.Generated, example=_GENERATE
    ),
    Operation(
        "GET",
        "/jobs/{id}",
        "A job as it is now, or as soon as it has ended.",
        "key",
        "Generate",
        shapes.Job,
        parameters=(Query("wait", "Seconds to wait for the end, up to 90.", _SECONDS),),
        errors=("invalid_request", "not_found", "draining", *_KEY),
    ),
    Operation(
        "DELETE",
        "/jobs/{id}",
        "Stop a job; it is charged what it has used.",
        "key",
        "Generate",
        shapes.Job,
        errors=("not_found", "draining", *_KEY),
    ),
    _spending(
        "/v1/chat/completions",
        "OpenAI's chat completions.",
        "Drop-in",
        openai_chat.ChatBody,
        openai_chat.ChatCompletion,
        example=_CHAT,
        table=tuple(openai_chat.PARAMETERS.values()),
        **_OPENAI,
    ),
    _spending(
        "/v1/responses",
        "OpenAI's responses.",
        "Drop-in",
        responses.ResponsesBody,
        responses.Response,
        example=_RESPONSE,
        table=tuple(responses.PARAMETERS.values()),
        **_OPENAI,
    ),
    _spending(
        "/v1/messages",
        "Anthropic's messages.",
        "Drop-in",
        anthropic.MessagesBody,
        anthropic.MessageBody,
        example=_MESSAGE,
        table=tuple(anthropic.PARAMETERS.values()),
        **_ANTHROPIC,
    ),
    Operation(
        "POST",
        "/v1/messages/count_tokens",
        "About how many tokens a message has: an estimate. Costs nothing.",
        "key",
        "Drop-in",
        anthropic.TokenCount,
        body=anthropic.CountBody,
        example={"model": "claude-sonnet-5-5", "messages": HELLO},
        table=tuple(anthropic.COUNT_PARAMETERS.values()),
        errors=("invalid_request", "not_found", "payload_too_large", *_KEY),
        error_type=anthropic.AnthropicErrorBody,
    ),
    Operation(
        "GET",
        "/v1/models",
        "The models that the key may use, with prices.",
        "key",
        "Drop-in",
        (models.OpenAIModels, models.AnthropicModels),
        parameters=(_CLAUDE,),
        errors=("draining", *_KEY),
        error_type=_EITHER,
    ),
    Operation(
        "GET",
        "/v1/models/{id}",
        "One of them.",
        "key",
        "Drop-in",
        (models.OpenAIModel, models.AnthropicModel),
        parameters=(_CLAUDE,),
        errors=("not_found", "draining", *_KEY),
        error_type=_EITHER,
    ),
)

_SERVICE = (
    Operation(
        "GET", "/me", "Your own limits, usage and models.", "key", "Service", shapes.Me, errors=("draining", *_KEY)
    ),
    Operation("GET", "/health", "The process answers.", "anybody", "Service", shapes.Health),
    Operation(
        "GET",
        "/ready",
        "Whether work can be done; 503 where not, with the same body.",
        "anybody",
        "Service",
        shapes.Ready,
        errors=_EVERY,
    ),
    Operation(
        "GET",
        "/capacity",
        "Whether work is welcome now.",
        "anybody",
        "Service",
        shapes.Capacity,
        errors=("draining", *_EVERY),
    ),
    Operation(
        "GET", "/openapi.json", "This description.", "anybody", "Service", dict[str, Any], errors=("too_many_requests",)
    ),
    Operation(
        "GET",
        "/docs",
        "This description, to read.",
        "anybody",
        "Service",
        errors=("too_many_requests",),
        also={"text/html": "A page."},
    ),
    Operation(
        "GET",
        "/docs/style.css",
        "How that page looks.",
        "anybody",
        "Service",
        errors=("too_many_requests",),
        also={"text/css": "A style sheet."},
    ),
)

_TIME = {"anyOf": [{"type": "string", "format": "date-time"}, {"const": ""}]}
_PAGE = (
    Query("limit", "Rows of a page.", {"type": "integer", "minimum": 1, "maximum": 1000}),
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


def _admin(method: str, path: str, text: str, answer: Any, *more_errors: str, **more: Any) -> Operation:
    return Operation(method, f"/admin{path}", text, "admin", "Admin", answer, errors=(*_ADMIN, *more_errors), **more)


_ADMINS = (
    _admin(
        "GET",
        "/keys",
        "All keys with their usage.",
        shapes.Keys,
        parameters=(Query("revoked", "`1`: revoked ones, too."),),
    ),
    _admin(
        "POST",
        "/keys",
        "Make a key; the answer is the only one that shows it.",
        shapes.NewKey,
        "conflict",
        status=201,
        body=shapes.KeyOrder,
        example={"name": "ada", "maxCostPerDay": 2.5, "providers": ["claude"], "note": "prototype"},
    ),
    _admin("GET", "/keys/{name}", "One key, also a revoked one.", shapes.Key, "not_found"),
    _admin(
        "PATCH",
        "/keys/{name}",
        "Change limits or fields.",
        shapes.NamedKey,
        "not_found",
        body=shapes.KeyChange,
        body_needed=False,
        example={"maxConcurrent": 2},
    ),
    _admin("DELETE", "/keys/{name}", "Revoke a key for good; its history stays.", shapes.Done, "not_found"),
    _admin("POST", "/keys/{name}/reset-usage", "Count from zero again.", shapes.Done, "not_found"),
    _admin(
        "POST",
        "/keys/{name}/rotate",
        "A new secret.",
        shapes.NewKey,
        "not_found",
        body=shapes.Rotation,
        body_needed=False,
        example={"graceSeconds": 3600},
    ),
    _admin("POST", "/keys/{name}/disable", "Refuse the key until it is enabled again.", shapes.Done, "not_found"),
    _admin("POST", "/keys/{name}/enable", "Take a disabled or paused key again.", shapes.Done, "not_found", "draining"),
    _admin("GET", "/runs", "What is queued or runs now.", shapes.Runs, "draining"),
    _admin("DELETE", "/runs/{id}", "Stop a run; it is charged what it has used.", shapes.Done, "not_found", "draining"),
    _admin("GET", "/logs", "The request log, newest first.", shapes.Logs, parameters=(*_FILTERS, *_PAGE)),
    _admin("GET", "/logs/{id}", "One line of it.", RunRecord, "not_found"),
    _admin(
        "GET",
        "/logs/export",
        "All of it, oldest first.",
        None,
        parameters=(Query("format", "How.", {"enum": ["jsonl", "csv"]}), *_FILTERS),
        also={"application/x-ndjson": "Lines of JSON.", "text/csv": "A table."},
    ),
    _admin(
        "GET",
        "/usage",
        "Usage per day and key.",
        shapes.Usage,
        parameters=(Query("days", "How many days.", {"type": "integer", "minimum": 1, "maximum": 400}),),
    ),
    _admin("GET", "/audit", "Who changed what, newest first.", shapes.AuditPage, parameters=_PAGE),
    _admin("GET", "/overview", "Totals, providers, queue and problems.", shapes.Overview, "draining"),
)

_ANY = dict[str, Any]
_HTML = {"text/html": "A page."}
_FEW = ("too_many_requests",)
_UPKEEP = (
    _admin(
        "GET",
        "/usage/daily",
        "Usage per day as columns for a chart.",
        _ANY,
        parameters=(
            Query("days", "How many days.", {"type": "integer", "minimum": 1, "maximum": 400}),
            Query("key", "Only this key."),
        ),
    ),
    Operation("GET", "/admin/session", "Who is logged in with this cookie.", "anybody", "Admin", _ANY, errors=_FEW),
    _admin("POST", "/session", "Log in; sets the cookie.", _ANY),
    _admin("DELETE", "/session", "Log out.", _ANY, "csrf_failed"),
    _admin("DELETE", "/sessions", "Log out everywhere.", _ANY, "csrf_failed"),
    Operation("GET", "/metrics", "For Prometheus.", "admin", "Admin", errors=_ADMIN, also={"text/plain": "Metrics."}),
)
_PAGES = (
    Operation("GET", "/", "The playground.", "anybody", "Pages", errors=_FEW, also=_HTML),
    Operation("GET", "/admin", "Leads to the dashboard.", "anybody", "Pages", status=302, errors=_FEW, also=_HTML),
    Operation("GET", "/admin/", "The dashboard.", "anybody", "Pages", errors=_FEW, also=_HTML),
    Operation(
        "GET", "/static/{id}/{name}", "Files of the pages.", "anybody", "Pages", errors=("not_found",), also=_HTML
    ),
    Operation("GET", "/me/requests", "Your last requests.", "key", "Service", _ANY, errors=("unauthorized", *_FEW)),
)

OPERATIONS: tuple[Operation, ...] = (*_GENERATING, *_SERVICE, *_ADMINS, *_UPKEEP, *_PAGES)
