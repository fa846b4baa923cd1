"""The bodies of answers that are made as plain objects, as types: for the API description.

Bodies that are read or made from types have those instead (bridge/wire). A test compares these here with
what a running server answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from bridge.limits import LIMITS, WINDOWS
from bridge.providers.provider import ProviderStatus
from bridge.registry import PROVIDERS
from bridge.types import MODEL_PATTERN, RunRecord

Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
Name = Annotated[str, Meta(extra_json_schema={"pattern": "^[A-Za-z0-9_-]{1,50}$"})]
Limit = Annotated[float, Meta(ge=0)]
#: A limit as it is asked for: whole numbers, and dollars with up to six decimals.
Asked = {
    limit.name: Annotated[float, Meta(ge=0, le=10**9, extra_json_schema={"multipleOf": 0.000001})]
    if limit.is_cost
    else Annotated[int, Meta(ge=0, le=10**12)]
    for limit in LIMITS
}
Models = Annotated[
    list[Annotated[str, Meta(extra_json_schema={"pattern": f"^{MODEL_PATTERN}$"})]], Meta(max_length=100)
]

if TYPE_CHECKING:
    Provider = str
else:
    Provider = Literal[tuple(PROVIDERS)]

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


Ready = msgspec.defstruct(
    "Ready",
    [
        ("status", Literal["ok", "unavailable"]),
        ("store", Literal["ok", "failed"]),
        ("queue", Literal["ok", "draining"]),
        *((name, Literal["ok", "unavailable"] | UnsetType, UNSET) for name in PROVIDERS),
        ("details", dict[str, Any] | UnsetType, UNSET),
    ],
)
Ready.__doc__ = "Whether work can be done. `details` for the admin."


class Capacity(msgspec.Struct):
    """Whether work is welcome now: green (a slot is free), yellow (you would wait), red (you would be refused)."""

    verdict: Literal["green", "yellow", "red"]
    slots_free: int
    queued: int
    retry_after_seconds: int


# --- keys and usage ----------------------------------------------------------------------------


class TotalsView(msgspec.Struct, rename="camel"):
    """What was used, or is reserved. Costs in dollars."""

    requests: int
    tokens: int
    cost_usd: float


class WindowView(TotalsView, rename="camel"):
    """What was used in a day or a month; `assumed_usd` of it was never told by a CLI."""

    errors: int
    assumed_usd: float


class Left(msgspec.Struct, rename="camel"):
    """What is left, of the limits that the key has."""

    requests: int | UnsetType = UNSET
    tokens: int | UnsetType = UNSET
    cost_usd: float | UnsetType = UNSET


def _by_window(name: str, text: str, shape: Any, *more: tuple[str, Any]) -> Any:
    """A type with a field for each window."""
    made = msgspec.defstruct(name, [*((window.field, shape) for window in WINDOWS), *more])
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
    timezone: str
    models: dict[str, ProviderModels]


class KeyView(msgspec.Struct, rename="camel"):
    """A key as the admin sees it: never its secret. `ending`: the last characters of the secret."""

    name: Name
    status: Literal["active", "disabled", "expired", "revoked"]
    created_at: Time
    expires_at: Time | None
    last_used_at: Time | None
    ending: str
    limits: LimitsView  # type: ignore[valid-type]
    own_limits: dict[str, float]
    usage: KeyUsage  # type: ignore[valid-type]
    models: list[str] | None
    providers: list[Provider] | None
    note: str
    rotating_until: Time | None


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


_KEY_FIELDS: list[tuple[str, Any, Any]] = [
    ("expiresAt", Time | None, UNSET),
    ("models", Models | None, UNSET),
    ("providers", list[Provider] | None, UNSET),
    ("note", Annotated[str, Meta(max_length=500)] | UnsetType, UNSET),
    *((name, type_ | UnsetType, UNSET) for name, type_ in Asked.items()),
]
KeyChange = msgspec.defstruct("KeyChange", _KEY_FIELDS, forbid_unknown_fields=True)
KeyChange.__doc__ = "What is to be changed; what is not named stays."
KeyOrder = msgspec.defstruct("KeyOrder", [("name", Name), *_KEY_FIELDS], forbid_unknown_fields=True)
KeyOrder.__doc__ = "A key to be made. Limits that are not named take the server's defaults; 0 means none."


class Rotation(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """How long the old secret still works, in seconds."""

    grace_seconds: Annotated[float, Meta(ge=0, le=366 * 86400)] = 0


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


class Runs(msgspec.Struct):
    """All that is queued or runs now, oldest first."""

    runs: list[LiveRun]


class Logs(msgspec.Struct):
    """A page of the request log, newest first; `next` goes into `before`."""

    logs: list[RunRecord]
    next: str | None


class Day(msgspec.Struct, rename="camel"):
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


class UsageView(msgspec.Struct):
    """Usage per day and key, oldest first."""

    usage: list[Day]


class AuditEntry(msgspec.Struct):
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


class Overview(msgspec.Struct, rename="camel"):
    """Totals, providers, queue and problems."""

    totals: dict[str, dict[str, float]]
    providers: list[ProviderStatus]
    slots: int
    running: int
    queued: int
    draining: bool
    keys: int
    timezone: str
    resets_at: Resets  # type: ignore[valid-type]
    problems: list[str]
