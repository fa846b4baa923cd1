"""Every way in which the bridge says no.

    Problem                     what went wrong, a value: a code of the table below, a sentence, a hint
    BridgeError                 the exception that carries a Problem
    SettingsError               mistakes in the settings, all of them (start-up only)
    StoreError                  the data folder cannot be trusted or used (start-up only)
      StoreLocked               another process has it

A `BridgeError` is raised where the trouble is known and rendered at the edge (`wire/`), in the shape
that the client's API expects. What is kept, logged or sent between greenlets is its `Problem`. Neither
ever holds a path of the host or a credential.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from bridge.limits import LIMITS

#: The longest wait that a program should sit out by itself, in seconds.
SOON_S = 60.0


@dataclass(frozen=True, slots=True)
class Code:
    """A row of the table of errors: its HTTP status, and the hint given when nothing better is known.

    `again`: it passes by itself, so that a program may send the same request again a little later.
    `sdk_status`: the status for the SDKs of other APIs, where it is another. What was paid has none that they repeat by
    themselves: 408, 409, 425, 429 and 5xx, and some of them 422.
    """

    status: int
    hint: str
    again: bool = False
    sdk_status: int | None = None
    unpaid_status: int | None = None


CODES: dict[str, Code] = {
    "invalid_request": Code(400, "Correct the field that the message names and send the request again."),
    "unauthorized": Code(401, "Send your key as 'Authorization: Bearer KEY'. Ask your admin for one."),
    "key_disabled": Code(403, "Ask your admin to enable this key."),
    "key_expired": Code(403, "Ask your admin for a new key or a later expiry."),
    "model_not_allowed": Code(403, "Choose one of the models that GET /me lists."),
    "web_search_not_allowed": Code(403, "Ask your admin to let this key search the web, or leave it out."),
    "provider_not_allowed": Code(403, "Use the endpoint of a provider that GET /me lists."),
    "csrf_failed": Code(403, "Reload the page and try again."),
    "provider_invalid_request": Code(400, "Correct what the message names and send the request again."),
    "model_not_found": Code(404, "Choose one of the models that GET /me lists."),
    "prompt_too_long": Code(413, "Shorten the conversation, or choose a model that takes longer ones."),
    "not_found": Code(404, "Check the path; docs/api.md lists every endpoint."),
    "method_not_allowed": Code(405, "Use one of the methods in the Allow header."),
    "conflict": Code(409, "Read the message; the thing exists already or is still in use."),
    "payload_too_large": Code(413, "Send less: shorten the prompt or use smaller images."),
    **{limit.code: Code(429, limit.hint, limit.again) for limit in LIMITS if limit.code},
    "loop_suspected": Code(429, "Vary the prompt, or ask your admin to resume the key."),
    "too_many_requests": Code(429, "Slow down; this address sends too many requests.", again=True),
    "cli_failed": Code(502, "Try again; if it happens again, tell your admin the request id."),
    "cli_bad_output": Code(
        422, "Try again; if it happens again, tell your admin the request id.", sdk_status=400, unpaid_status=502
    ),
    "provider_broke_off": Code(422, "A part of it was paid; send it again if you need it.", sdk_status=400),
    "output_mismatch": Code(422, "Simplify the schema or say in the prompt what each field means.", sdk_status=400),
    "stopped_at_cap": Code(403, "A part of it was paid. Ask for a shorter answer, or ask your admin for more."),
    "cancelled": Code(403, "The request was stopped before it was finished; send it again if you need it."),
    "cli_unavailable": Code(503, "Ask your admin to run 'cli-bridge doctor'; the other provider may work."),
    "no_credentials": Code(503, "Ask your admin to look at the bridge's credentials; the other provider may work."),
    "provider_rate_limited": Code(503, "The provider limits this account at the moment; try again later.", again=True),
    "provider_overloaded": Code(503, "The provider is overloaded; try again in a little while.", again=True),
    "overloaded": Code(503, "The bridge is busy; try again after the time in Retry-After.", again=True),
    "queue_timeout": Code(503, "The bridge is busy; try again after the time in Retry-After.", again=True),
    "draining": Code(503, "The bridge is restarting; try again after the time in Retry-After.", again=True),
    "storage_failed": Code(503, "Nothing was spent. Ask your admin to look at the disk of the bridge.", again=True),
    "internal": Code(500, "Tell your admin the request id; the bridge's log says more."),
    "timeout": Code(504, "Ask for a shorter answer, or set a higher timeoutSeconds."),
}


def usual_hint(code: str | None) -> str | None:
    """What to do after an error of a code, where no more is known; None where there is no such code."""
    return CODES[code].hint if code in CODES else None


class Problem(msgspec.Struct, frozen=True, tag="problem"):
    """What went wrong, as it is stored, sent and shown: a value, which holds no trace of where it came from."""

    #: a key of CODES; clients branch on it
    code: str
    #: one plain sentence
    message: str
    #: what to do next; the code's own where none is given
    hint: str = ""
    #: seconds until it may work again, for Retry-After; None where that is not known
    retry_after: float | None = None
    #: further public facts for the body, such as limit, used, resets_at, text
    facts: dict[str, Any] = {}
    #: whether it is known that nothing was paid, which some codes have a status of their own for
    unpaid: bool = False

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise ValueError(f"there is no code {self.code}")
        if not self.hint:
            msgspec.structs.force_setattr(self, "hint", CODES[self.code].hint)

    @property
    def status(self) -> int:
        """The HTTP status of this code in the bridge's own API."""
        row = CODES[self.code]
        return row.unpaid_status if self.unpaid and row.unpaid_status else row.status

    @property
    def sdk_status(self) -> int:
        """Its status in the APIs that are other people's, whose SDKs repeat requests."""
        return self.status if self.unpaid else CODES[self.code].sdk_status or self.status

    @property
    def again(self) -> bool:
        """Whether a program may simply send the request again: what is in the way passes soon by itself."""
        return CODES[self.code].again if self.retry_after is None else self.retry_after <= SOON_S


class BridgeError(Exception):
    """A problem on its way to the edge of HTTP or of the command line: raised where it is known, rendered there."""

    def __init__(
        self, code: str, message: str, hint: str | None = None, *, retry_after: float | None = None, **facts: Any
    ) -> None:
        super().__init__(message)
        self.problem = Problem(code, message, hint or "", retry_after, facts)

    @classmethod
    def of(cls, problem: Problem) -> BridgeError:
        """The exception that carries a problem which was found, or kept, as a value."""
        error = cls(problem.code, problem.message)
        error.problem = problem
        return error

    @property
    def code(self) -> str:
        """The code of its problem."""
        return self.problem.code

    @property
    def message(self) -> str:
        """The sentence of its problem."""
        return self.problem.message

    @property
    def hint(self) -> str:
        """What its problem says to do."""
        return self.problem.hint


class SettingsError(Exception):
    """The settings are wrong. `problems` has a sentence for every mistake, not only the first."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class StoreError(Exception):
    """The data folder cannot be used as it is; the service must not open. `hint` says what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class StoreLocked(StoreError):
    """Another process has the data folder; `pid` is its process id, where it could be read."""

    def __init__(self, pid: int | None) -> None:
        who = f"process {pid}" if pid else "another process"
        super().__init__(
            f"The data folder is in use by {who}.",
            "Stop that server first, or give this one its own BRIDGE_DATA_DIR.",
        )
        self.pid = pid
