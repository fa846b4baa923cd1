"""What the routes answer, as types: a handler returns one of these, and the API description shows the same.

What other APIs answer is in bridge/wire. Types that are converted from plain objects of other rooms forbid unknown
fields, so that no field of those falls out unseen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from bridge.clock import iso, parse_iso
from bridge.engine.nodes import Node
from bridge.gate.ticket import RateLimits
from bridge.keys.credentials import BOUNDS
from bridge.keys.keys import invalid
from bridge.limits import LIMITS, MOST, MOST_DOLLARS, WINDOWS
from bridge.providers.provider import ProviderStatus
from bridge.records.lately import LatelyLine
from bridge.records.statistics import CredentialDay, OwnRequest
from bridge.registry import PROVIDERS
from bridge.types import MODEL_PATTERN, RunRecord

Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
Name = Annotated[str, Meta(extra_json_schema={"pattern": "^[A-Za-z0-9_-]{1,50}$"})]
Provider = Annotated[str, Meta(extra_json_schema={"enum": list(PROVIDERS)})]
Limit = Annotated[float, Meta(ge=0)]
#: A limit as it is asked for: whole numbers, and dollars, which are rounded to millionths.
Asked = {
    limit.name: Annotated[float, Meta(ge=0, le=MOST_DOLLARS)] if limit.is_cost else Annotated[int, Meta(ge=0, le=MOST)]
    for limit in LIMITS
}
Models = Annotated[
    list[Annotated[str, Meta(extra_json_schema={"pattern": f"^{MODEL_PATTERN}$"})]], Meta(max_length=100)
]

LimitsView = msgspec.defstruct("LimitsView", [(name, Limit) for name in Asked])
LimitsView.__doc__ = "Every limit as it holds; 0 means none. Costs in dollars."


# --- generating --------------------------------------------------------------------------------


class Accepted(msgspec.Struct):
    """A request that has become a job."""

    id: str
    status: Literal["queued", "running"]


class JobView(msgspec.Struct):
    """A job. `result` has the shape of the API that was asked, `error` too."""

    id: str
    status: Literal["queued", "running", "done", "failed"]
    provider: Provider
    model: str
    created_at: Time
    queue_position: int | UnsetType = UNSET
    output_tokens_so_far: int | UnsetType = UNSET
    result: dict[str, Any] | UnsetType = UNSET
    error: dict[str, Any] | UnsetType = UNSET


# --- the service -------------------------------------------------------------------------------


class Health(msgspec.Struct):
    """The process answers."""

    status: Literal["ok"]


class ProviderDetails(msgspec.Struct):
    """What the admin may know of a CLI."""

    version: str | None
    problem: str | None
    hint: str | None
    said: str | None


_Parts: Any = msgspec.defstruct(
    "_Parts", [(name, Literal["ok", "unavailable"] | UnsetType, UNSET) for name in PROVIDERS], kw_only=True
)


class Ready(_Parts):  # type: ignore[misc]
    """Whether work can be done: by the whole, by its parts, and by each CLI. `details` for the admin."""

    status: Literal["ok", "unavailable"]
    store: Literal["ok", "failed"]
    queue: Literal["ok", "draining"]
    details: dict[str, ProviderDetails] | UnsetType = UNSET
    #: what the store that hosts share does not promise
    warning: str | UnsetType = UNSET


class NodeCapacity(msgspec.Struct):
    """How much one of several hosts can take on."""

    slots_free: int
    queued: int
    draining: bool


class Capacity(msgspec.Struct):
    """Whether work is welcome now: green (a slot is free), yellow (you would wait), red (you would be refused)."""

    verdict: Literal["green", "yellow", "red"]
    slots_free: int
    queued: int
    retry_after_seconds: int
    #: until the next of the credentials is tried again that a provider limits now; null: none is limited
    soonest_reset_seconds: int | None
    #: with several hosts: each of them, the one that was asked first; all else here is about that one
    nodes: list[NodeCapacity] | UnsetType = UNSET


# --- keys and usage ----------------------------------------------------------------------------


class TotalsView(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """What was used, or is reserved. Costs in dollars."""

    requests: int
    tokens: int
    cost_usd: float


class WindowView(TotalsView, rename="camel", forbid_unknown_fields=True):
    """What was used in a day or a month; `assumed_usd` of it was never told by a CLI. `searches`: of the web."""

    errors: int
    assumed_usd: float
    searches: int = 0


class Left(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """What is left, of the limits that the key has."""

    requests: int | UnsetType = UNSET
    tokens: int | UnsetType = UNSET
    cost_usd: float | UnsetType = UNSET


def _by_window(name: str, text: str, shape: Any, *more: tuple[str, Any]) -> Any:
    """A type with a field for each window."""
    made = msgspec.defstruct(name, [*((window.field, shape) for window in WINDOWS), *more], forbid_unknown_fields=True)
    made.__doc__ = text
    return made


KeyUsage = _by_window("KeyUsage", "The usage of a key.", WindowView, ("reserved", TotalsView))
OwnUsage = _by_window(
    "OwnUsage", "The usage of your key.", WindowView, ("reserved", TotalsView), ("lastUsedAt", Time | None)
)
Remaining = _by_window("Remaining", "What is left.", Left)
Resets = _by_window("Resets", "When the running windows end.", Time)


class ProviderModels(msgspec.Struct):
    """The models of a CLI that the key may use. `default`: the server's, or else the first of them; null: none."""

    available: bool
    default: str | None
    allowed: list[str] | Literal["any"]


class Me(msgspec.Struct, rename="camel"):
    """What a key holder may know of their key."""

    name: Name
    status: Literal["active"]
    expires_at: Time | None
    limits: LimitsView  # type: ignore[valid-type]
    usage: OwnUsage  # type: ignore[valid-type]
    remaining: Remaining  # type: ignore[valid-type]
    resets_at: Resets  # type: ignore[valid-type]
    #: what this month may come to; null: too early to say
    forecast: TotalsView | None
    timezone: str
    models: dict[str, ProviderModels]


class Estimate(msgspec.Struct, rename="camel"):
    """What a request may cost and use at most: what would be reserved for it, and what is left before that."""

    provider: Provider
    model: str
    cost_usd: float
    input_tokens: int
    max_output_tokens: int
    remaining: Remaining  # type: ignore[valid-type]


class OwnRequests(msgspec.Struct):
    """The last requests of a key, newest first."""

    requests: list[OwnRequest]


# --- keys, for the admin -----------------------------------------------------------------------


class KeyField(msgspec.Struct, frozen=True):
    """A field of a key that the admin may set. keys/keys.py checks its values."""

    #: in `Key`; bodies and answers have it in camelCase
    name: str
    #: its type in answers, and in what is asked for
    shown: Any
    asked: Any
    #: from the body, given the time, as `Key` has it; and back
    read: Callable[[Any, float], Any] = lambda value, now: value
    show: Callable[[Any], Any] = lambda value: value

    @property
    def wire_name(self) -> str:
        """Its name in bodies and answers."""
        first, *rest = self.name.split("_")
        return first + "".join(word.capitalize() for word in rest)


def _read_expiry(value: Any, now: float) -> float | None:
    if value is None:
        return None
    try:
        at = parse_iso(value)
    except (TypeError, ValueError, OverflowError):
        raise invalid("expiresAt", "must be a time with a zone, such as 2026-12-31T18:00:00Z") from None
    if at <= now:
        raise invalid("expiresAt", "must lie in the future")
    return at


def show_time(at: float | None) -> str | None:
    """A time as the API shows it, or null for none."""
    return None if at is None else iso(at)


KEY_FIELDS = (
    KeyField("expires_at", Time | None, Time | None, _read_expiry, show_time),
    KeyField("models", list[str] | None, Models | None),
    KeyField("providers", list[Provider] | None, list[Provider] | None),
    KeyField("credentials", list[Name] | None, Annotated[list[Name], Meta(max_length=100)] | None),
    KeyField("note", str, Annotated[str, Meta(max_length=500)]),
    KeyField("loop_repeats", int | None, Annotated[int, Meta(ge=0, le=100_000)] | None),
    KeyField("web_search", bool, bool),
)
_KeyFields: Any = msgspec.defstruct("_KeyFields", [(field.name, field.shown) for field in KEY_FIELDS], rename="camel")


class KeyView(_KeyFields):  # type: ignore[misc]
    """A key as the admin sees it: never its secret. `ending`: the last characters of the secret."""

    name: Name
    status: Literal["active", "disabled", "expired", "revoked"]
    created_at: Time
    last_used_at: Time | None
    ending: str
    limits: LimitsView  # type: ignore[valid-type]
    own_limits: dict[str, float]
    usage: KeyUsage  # type: ignore[valid-type]
    #: what this month may come to; null: too early to say
    forecast: TotalsView | None
    rotating_until: Time | None


class OneKey(KeyView):
    """A key, and when its windows end."""

    resets_at: Resets  # type: ignore[valid-type]


class NamedModel(msgspec.Struct):
    """A name of a model, and whose it is."""

    id: str
    provider: Provider


class NamedModels(msgspec.Struct):
    """Names of models."""

    models: list[NamedModel]


class Keys(msgspec.Struct):
    """Keys."""

    keys: list[KeyView]


class NamedKey(msgspec.Struct):
    """What has been done, and the limits that hold now."""

    message: str
    name: Name
    limits: LimitsView  # type: ignore[valid-type]


class Example(msgspec.Struct):
    """What a request with a key can name."""

    provider: Provider
    model: str


class NewKey(NamedKey):
    """A secret, shown this once. `example`: a model that the key may use; null: none."""

    key: str
    note: str
    example: Example | None


class Done(msgspec.Struct):
    """What has been done."""

    message: str


_ASKED: list[tuple[str, Any, Any]] = [
    *((field.wire_name, field.asked | UnsetType, UNSET) for field in KEY_FIELDS),
    *((name, type_ | UnsetType, UNSET) for name, type_ in Asked.items()),
]
KeyChange = msgspec.defstruct("KeyChange", _ASKED, forbid_unknown_fields=True)
KeyChange.__doc__ = "What is to be changed; what is not named stays."
KeyOrder = msgspec.defstruct("KeyOrder", [("name", Name), *_ASKED], forbid_unknown_fields=True)
KeyOrder.__doc__ = "A key to be made. Limits that are not named take the server's defaults; 0 means none."


class Rotation(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """How long the old secret still works, in seconds."""

    grace_seconds: Annotated[float, Meta(ge=0, le=366 * 86400)] = 0


# --- credentials, for the admin ------------------------------------------------------------------

_CredentialLimit = Annotated[float, Meta(ge=0, le=MOST_DOLLARS)]


class CredentialLimits(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """What may be spent with a credential, in dollars; 0: no limit."""

    max_cost_per_day: _CredentialLimit = 0
    max_cost_per_month: _CredentialLimit = 0


class RateLimitsView(msgspec.Struct):
    """The limits of the account as its provider last named them, by the names of its headers; `at`: when."""

    limits: dict[str, str]
    at: Time


def show_rate_limits(found: RateLimits) -> RateLimitsView:
    """The limits of an account as the API shows them."""
    return RateLimitsView(dict(found.limits), iso(found.at))


class LimitedModel(msgspec.Struct, rename="camel"):
    """A model for which alone a credential is limited: why, and until when; `estimated`: by the bridge's own guess."""

    model: str
    reason: str
    until: Time | None
    estimated: bool


class CredentialView(msgspec.Struct, rename="camel"):
    """A credential as the admin sees it: never its secret, but the end of that. `state`: how it is, `reason`: why, and
    `until`: when it is tried again; `estimated`: that time is the bridge's own guess; `limited_models`: for which it is
    limited, and not for others. `base_url` null: `endpoint` is what the settings say. `running`: runs that use it."""

    name: Name
    provider: Provider
    kind: Literal["api-key", "login"]
    source: Literal["file", "env"]
    last4: str
    base_url: str | None
    endpoint: str | None
    group: str
    priority: int
    weight: int
    max_concurrent: int
    limits: CredentialLimits
    models: list[str] | None
    keys: list[str] | None
    enabled: bool
    note: str
    state: Literal["usable", "probing", "benched", "blocked", "disabled"]
    reason: str
    until: Time | None
    estimated: bool
    limited_models: list[LimitedModel]
    running: int
    usage: KeyUsage  # type: ignore[valid-type]
    last_used_at: Time | None
    last_day: CredentialDay
    rate_limits: RateLimitsView | None


class CredentialList(msgspec.Struct, rename="camel"):
    """All credentials, when their windows end, and by what runs are spread over them; `problem`: what is wrong with
    credentials.json, where the last good one is in force."""

    credentials: list[CredentialView]
    problem: str | None
    resets_at: Resets  # type: ignore[valid-type]
    routing: str


class OneCredential(msgspec.Struct):
    """What has been done, and the credential as it is now."""

    message: str
    credential: CredentialView


class CredentialTest(msgspec.Struct):
    """Whether a provider takes a credential, and what it said; `models`: how many it lists."""

    ok: bool
    message: str
    status: int | None
    models: int | None


def _length(field: str) -> Meta:
    least, most = BOUNDS[field]
    return Meta(min_length=least or None, max_length=most)


def _amount(field: str) -> Meta:
    least, most = BOUNDS[field]
    return Meta(ge=least, le=most)


Secret = Annotated[str, _length("apiKey")]


class CredentialChange(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """What is to be changed; what is not named stays. `apiKey` is the secret, which no answer ever shows."""

    name: Name | UnsetType = UNSET
    api_key: Secret | UnsetType = UNSET
    base_url: Annotated[str, _length("baseUrl")] | UnsetType | None = UNSET
    group: Annotated[str, _length("group")] | UnsetType = UNSET
    priority: Annotated[int, _amount("priority")] | UnsetType = UNSET
    weight: Annotated[int, _amount("weight")] | UnsetType = UNSET
    max_concurrent: Annotated[int, _amount("maxConcurrent")] | UnsetType = UNSET
    limits: CredentialLimits | UnsetType = UNSET
    models: Annotated[list[str], _length("models")] | UnsetType | None = UNSET
    keys: Annotated[list[str], _length("keys")] | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET
    note: Annotated[str, _length("note")] | UnsetType = UNSET


class CredentialOrder(CredentialChange, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """A credential to be added."""

    name: Name
    provider: Provider
    api_key: Secret


# --- runs, logs, audit -------------------------------------------------------------------------


class LiveRun(msgspec.Struct, rename="camel"):
    """What is queued or runs now."""

    id: str
    key_name: str
    provider: str
    model: str
    api: str
    state: str
    stream: bool
    queue_position: int
    age_ms: int
    output_tokens_so_far: int
    started_at: Time
    cost_usd_so_far: float
    reserved_usd: float
    repairs: int
    request_id: str | None
    #: the beginning of the prompt, as far as the log may keep it
    user_prompt: str | None
    #: what it is paid with: the credential that it uses now, or that is reserved for it
    credential: str | None
    #: where it runs, if not on the node that was asked
    node: str | UnsetType = UNSET


class Runs(msgspec.Struct):
    """All that is queued or runs now, oldest first."""

    runs: list[LiveRun]


class LogSumsView(msgspec.Struct, rename="camel"):
    """What all lines of a filter add up to. `requests` and `errors` count refused ones, too. `since`: the log was too
    long to read all of it, and this is the oldest line that is counted."""

    requests: int
    errors: int
    tokens: int
    cost_usd: float
    since: Time | None


class Logs(msgspec.Struct):
    """A page of the request log, newest first; `next` goes into `before`. `sums`: of the first page alone."""

    logs: list[RunRecord]
    next: str | None
    sums: LogSumsView | UnsetType = UNSET


class Day(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """What a key used on a day."""

    day: str
    key: str
    requests: int
    errors: int
    tokens: int
    input_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cost_usd: float
    assumed_usd: float


class Share(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """What was used of all. The fields that it is broken down by are there; null: it is not known so finely."""

    requests: int
    tokens: int
    cost_usd: float
    errors: int
    key: str | UnsetType = UNSET
    provider: str | UnsetType | None = UNSET
    model: str | UnsetType | None = UNSET
    credential: str | UnsetType | None = UNSET


class Breakdown(msgspec.Struct, rename={"first": "from", "last": "to"}):
    """Who spent what on what, from one day to another, dearest first."""

    first: str
    last: str
    rows: list[Share]
    total: Share


class UsageView(msgspec.Struct):
    """Usage per day and key, oldest first."""

    usage: list[Day]


class Series(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """What a key used on each day; key null: all keys that are not named."""

    key: str | None
    cost_usd: list[float]
    requests: list[int]
    tokens: list[int]
    errors: list[int]


class DailyUsage(msgspec.Struct, forbid_unknown_fields=True):
    """Usage per day as columns for a chart: the days, and for each key a value for each day."""

    days: list[str]
    series: list[Series]


class AuditEntry(msgspec.Struct, forbid_unknown_fields=True):
    """Who changed what, when, and from where."""

    id: str
    at: Time
    action: str
    subject: str
    actor: str
    address: str
    before: Any
    after: Any


class AuditPage(msgspec.Struct):
    """A page of the audit, newest first; `next` goes into `before`."""

    audit: list[AuditEntry]
    next: str | None


class ProviderView(ProviderStatus, frozen=True):
    """A CLI, how many runs it has and waits for, and how many credentials there are for it; `credentials_open`: of
    them those that a run may get now."""

    busy: int = 0
    queued: int = 0
    credentials_open: int = 0
    credentials_known: int = 0
    rate_limits: RateLimitsView | None = None


class Nearest(msgspec.Struct, kw_only=True):
    """Of the caps of a key, the one of which most is used or held. `share`: 1 is all of it."""

    limit: str
    used: float
    reserved: float
    most: float
    share: float


class NearestCap(Nearest, kw_only=True):
    """A key and its nearest cap."""

    name: str
    status: str


class AlertView(msgspec.Struct, forbid_unknown_fields=True):
    """What the operator was told."""

    kind: str
    subject: str
    message: str
    at: Time


class Overview(msgspec.Struct, rename="camel"):
    """All at one glance: totals, providers, queue, latency, the keys that are closest to a cap, and problems.

    With several hosts, `slots`, `running`, `queued` and what runs on each provider are of all of them, and `nodes` has
    each."""

    totals: dict[str, dict[str, float]]
    #: what this month may come to; null: too early to say
    forecast: TotalsView | None
    providers: list[ProviderView]
    slots: int
    running: int
    queued: int
    draining: bool
    capacity: Capacity
    keys: int
    closest: list[NearestCap]
    activity: dict[str, Any]
    timezone: str
    resets_at: Resets  # type: ignore[valid-type]
    alerts: list[AlertView]
    backup: dict[str, Any]
    problems: list[str]
    nodes: list[Node] | UnsetType = UNSET


class TopProvider(msgspec.Struct, rename="camel"):
    """A CLI, and what runs on it. `last`: its last request, where that needed no credential."""

    name: str
    available: bool
    problem: str | None
    hint: str | None
    running: int
    queued: int
    requests: int
    limited: int
    last: LatelyLine | None
    rate_limits: RateLimitsView | None


class Budget(msgspec.Struct):
    """The cap of a credential for a window, in dollars. `share`: the part that is used or held; `line`: the part that
    is used less the part of the window that is over, so that above 0 it will not last."""

    window: str
    used: float
    reserved: float
    most: float
    share: float
    line: float


class TopCredential(msgspec.Struct, rename="camel"):
    """A credential, how it is, and how it did in the last quarter of an hour. `last`: its last request."""

    name: str
    provider: str
    kind: str
    state: str
    reason: str
    until: Time | None
    enabled: bool
    priority: int
    max_concurrent: int
    today_usd: float
    budget: Budget | None
    running: int
    requests: int
    limited: int
    last: LatelyLine | None


class TopKey(msgspec.Struct, rename="camel"):
    """A key that moved lately or is close to a cap. `refused`: requests, in the last quarter of an hour."""

    name: str
    status: str
    today: WindowView
    closest: Nearest | None
    running: int
    refused: int
    last_used_at: Time | None


class TopAction(msgspec.Struct, rename="camel"):
    """What an admin did."""

    id: str
    at: Time
    action: str
    subject: str
    actor: str


class Attention(msgspec.Struct):
    """What the operator should look at. `kind` and `subject` stay the same as long as it is the same matter."""

    kind: str
    subject: str
    text: str


class Top(msgspec.Struct, rename="camel"):
    """All that `cli-bridge top` shows, in bounded lists. `alerts_at`: spending at which there is an alert, 0 for none;
    `runs_in_all`, `keys_in_all`: how many there are of which a part is shown. With several hosts, `slots`, `running`,
    `queued` and the runs are of all of them, and `nodes` has each."""

    at: Time
    version: str
    capacity: Capacity
    slots: int
    running: int
    queued: int
    draining: bool
    totals: dict[str, dict[str, float]]
    alerts_at: dict[str, float]
    answered: int
    failed: int
    tokens_per_minute: list[int]
    attention: list[Attention]
    providers: list[TopProvider]
    credentials: list[TopCredential]
    runs: list[LiveRun]
    runs_in_all: int
    keys: list[TopKey]
    keys_in_all: int
    log: list[LatelyLine]
    audit: list[TopAction]
    nodes: list[Node] | UnsetType = UNSET


# --- the dashboard's session -------------------------------------------------------------------


class ErrorCode(msgspec.Struct):
    """A code of errors, and its HTTP status."""

    code: str
    status: int


class DefaultLimit(msgspec.Struct):
    """A limit, what it limits, and what holds for a key that does not name it."""

    name: str
    text: str
    default: float


class SessionView(msgspec.Struct, rename="camel"):
    """What the pages of a session know: of it, and of the server's settings. `token` goes with every change."""

    actor: str
    token: str
    ends_at: Time
    by_access: bool
    timezone: str
    log_prompts: str
    default_models: dict[str, str]
    limits: list[DefaultLimit]
    codes: list[ErrorCode]


class LoggedIn(msgspec.Struct):
    """The session that was opened."""

    session: SessionView


class LogInState(msgspec.Struct):
    """The session of this browser, if any; `access`: whether Cloudflare Access can open one."""

    session: SessionView | None
    access: bool
