"""An answer of `GET /admin/top`."""

from __future__ import annotations

import copy
from typing import Any

AT = "2026-11-28T12:04:31.000Z"


def run(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "id": f"run_{number:026d}",
        "keyName": "ada",
        "provider": "claude",
        "model": "claude-sonnet-5-5",
        "api": "messages",
        "state": "running",
        "stream": True,
        "queuePosition": 0,
        "ageMs": 14_000,
        "outputTokensSoFar": 1930,
        "startedAt": AT,
        "costUsdSoFar": 0.0301,
        "reservedUsd": 0.12,
        "repairs": 0,
        "credential": "team-a",
        **fields,
    }


def line(number: int, second: int, **fields: Any) -> dict[str, Any]:
    return {
        "id": f"run_{number:026d}",
        "timestamp": f"2026-11-28T12:04:{second:02d}.000Z",
        "keyName": "ada",
        "provider": "claude",
        "model": "claude-sonnet-5-5",
        "status": 200,
        "code": None,
        "error": None,
        "tokens": 1204,
        "costUsd": 0.018,
        "durationMs": 2100,
        "times": 1,
        "credential": "team-a",
        **fields,
    }


def key(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "status": "active",
        "today": {"requests": 3, "tokens": 900, "costUsd": 4.65, "errors": 0, "assumedUsd": 0},
        "closest": {"limit": "maxCostPerDay", "used": 4.6, "reserved": 0.05, "most": 5, "share": 0.93},
        "running": 1,
        "refused": 2,
        "lastUsedAt": "2026-11-28T12:04:30.000Z",
        **fields,
    }


def provider(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "available": True,
        "problem": None,
        "hint": None,
        "running": 1,
        "queued": 0,
        "requests": 182,
        "limited": 1,
        "last": line(1, 29),
        "rateLimits": None,
        **fields,
    }


def credential(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "provider": "claude",
        "kind": "api-key",
        "state": "usable",
        "reason": "",
        "until": None,
        "enabled": True,
        "priority": 0,
        "maxConcurrent": 5,
        "todayUsd": 3.1,
        "budget": {"window": "month", "used": 65, "reserved": 1, "most": 100, "share": 0.66, "line": -0.03},
        "running": 1,
        "requests": 182,
        "limited": 1,
        "last": line(1, 29),
        **fields,
    }


ANSWER: dict[str, Any] = {
    "at": AT,
    "version": "1.4.0",
    "capacity": {"verdict": "green", "slots_free": 15, "queued": 1, "retry_after_seconds": 0},
    "slots": 16,
    "running": 1,
    "queued": 1,
    "draining": False,
    "totals": {
        "today": {"requests": 1204, "tokens": 2_100_000, "costUsd": 3.21},
        "thisMonth": {"requests": 20_000, "tokens": 40_000_000, "costUsd": 61.07},
        "reserved": {"requests": 2, "tokens": 9000, "costUsd": 0.42},
    },
    "alertsAt": {"today": 20, "thisMonth": 0},
    "answered": 98,
    "failed": 2,
    "tokensPerMinute": [*range(0, 29_000, 1000), 500],
    "attention": [{"kind": "key_limit", "subject": "ada maxCostPerDay", "text": "ada: 92% of $5.00 per day"}],
    "providers": [
        provider("claude"),
        provider("codex", available=False, problem="codex is not logged in", hint="Log in.", last=None),
    ],
    "credentials": [
        credential(
            "team-b",
            state="benched",
            reason="429 of the provider",
            until="2026-11-28T12:05:12.000Z",
            budget=None,
            priority=3,
        ),
        credential("team-a"),
    ],
    "runs": [run(1), run(2, keyName="ci-bot", state="queued", queuePosition=1, outputTokensSoFar=0)],
    "runsInAll": 2,
    "keys": [key("ada"), key("free", closest=None, lastUsedAt=None)],
    "keysInAll": 12,
    "log": [line(7, 27, keyName="designer", status=429, code="cost_per_day", times=3), line(8, 29)],
    "audit": [
        {"id": "4", "at": "2026-11-28T12:04:28.000Z", "action": "key_disabled", "subject": "eve", "actor": "admin"}
    ],
}


def answer_with(**fields: Any) -> dict[str, Any]:
    """The answer with some fields in the place of others."""
    return {**copy.deepcopy(ANSWER), **fields}
