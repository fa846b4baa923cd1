"""Bodies, headers and paths that nobody should send, made by chance but repeatably."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

NAMES = ["userPrompt", "messages", "model", "schema", "stream", "input", "stop", "name", "maxCostPerDay", "\x00", "é"]
#: In the place of a value that belongs there.
VALUES: list[Callable[[], Any]] = [
    lambda: None,
    lambda: True,
    lambda: -1,
    lambda: 0,
    lambda: 10**400,
    lambda: 1e308,
    lambda: float("nan"),
    lambda: float("-inf"),
    lambda: "",
    lambda: " ",
    lambda: "\x00",
    lambda: "\ud800",
    lambda: "x" * 70_000,
    lambda: "<script>alert(1)</script>\u202e\x1b[31m",
    lambda: "../../etc/passwd",
    lambda: "-p --dangerously-skip-permissions",
    lambda: "claude-sonnet-5-5\n",
    lambda: "data:image/png;base64,AAAA",
    lambda: "https://example.com/x.png",
    lambda: "9999-12-31T23:59:59Z",
    list,
    dict,
    lambda: [[]] * 300,
    lambda: nested(60),
    lambda: [{"type": "text", "text": "hi"}],
    lambda: {"type": "object", "properties": {"a": {"$ref": "#"}}},
    lambda: {"$ref": "http://127.0.0.1:9/x"},
    lambda: {"$ref": "file:///etc/passwd"},
    lambda: {"type": "string", "pattern": "^(a+)+$"},
    lambda: {"allOf": [{"$ref": "#"}]},
]
HEADERS = {
    "Content-Type": ["application/json", "text/plain", "multipart/form-data; boundary=x", "", "é"],
    "Accept": ["text/event-stream", "*/*", "application/json;q=nonsense", ""],
    "Prefer": ["respond-async", "wait=0", "wait=-1", "wait=1e9", "wait=x, respond-async", ",;="],
    "Idempotency-Key": ["a", "", "x" * 300, "é", '"quoted"'],
    "Content-Encoding": ["gzip", "br"],
    "X-Forwarded-For": ["1.2.3.4", "nonsense", ",,,"],
    "CF-Connecting-IP": ["::1", "no"],
    "Cookie": ["session=x", "bridge=..", "=;=;"],
    "X-CSRF-Token": ["x"],
    "X-Request-Id": ["../x", "x" * 500],
    "X-API-Key": ["x", ""],
    "Range": ["bytes=0-1"],
    "Origin": ["null"],
}


def nested(depth: int) -> Any:
    """Lists in lists."""
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


def body(example: Any, chance: random.Random) -> bytes:
    """A body like the example, and wrong in one of many ways; now and then not wrong at all."""
    way = chance.randrange(8)
    if way == 0:
        return chance.randbytes(chance.randrange(200))
    if way == 1:
        return b"[" * chance.choice([10, 5000, 100_000])
    if way == 2:
        return json.dumps(chance.choice(VALUES)()).encode()
    changed = copy.deepcopy(example)
    if isinstance(changed, dict):
        for _ in range(chance.randrange(3)):
            _change(changed, chance)
    raw = json.dumps(changed).encode()
    if way == 3:
        return raw[: chance.randrange(len(raw) + 1)]
    if way == 4:
        spoilt = bytearray(raw)
        for _ in range(chance.randrange(1, 4)):
            spoilt[chance.randrange(len(spoilt))] = chance.randrange(256)
        return bytes(spoilt)
    return raw


def _change(value: Any, chance: random.Random) -> None:
    """Put something else somewhere into a dict or a list."""
    while True:
        if isinstance(value, dict):
            name = chance.choice([*value, *NAMES])
        elif value:
            name = chance.randrange(len(value))
        else:
            return
        deeper = value.get(name) if isinstance(value, dict) else value[name]
        if isinstance(deeper, dict | list) and deeper and chance.random() < 0.7:
            value = deeper
            continue
        value[name] = chance.choice(VALUES)()
        return


def headers(chance: random.Random) -> dict[str, str]:
    """A few headers that mean something to the bridge, with right and wrong values."""
    names = chance.sample(list(HEADERS), chance.choice([0, 0, 1, 2, 3]))
    return {name: chance.choice(HEADERS[name]) for name in names}


def segment(chance: random.Random) -> str:
    """A part of a path."""
    return chance.choice(["x", "..%2f..%2fetc", "%00", "%ff", "a" * 3000, "%F0%9F%98%80", "me", "-", "%20", "x;y"])


def query(names: list[str], chance: random.Random) -> str:
    """Parameters, known and unknown."""
    values = ["", "1", "-1", "1e9", "x", "%00", "%ff", "2026-02-30", "9" * 400, "%27%22%3Cx", "a&a=b", "%ud800"]
    chosen = chance.sample([*names, "unknown"], chance.randrange(min(3, len(names) + 1) + 1))
    return "&".join(f"{name}={chance.choice(values)}" for name in chosen)


def head(chance: random.Random) -> bytes:
    """The beginning of a connection that is hardly HTTP."""
    lines = [
        b"POST /generate HTTP/1.1",
        b"GET /me HTTP/9.9",
        b"GET  /me",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0",
        b"Host: a",
        b"Host:",
        b"Content-Length: 5",
        b"Content-Length: -1",
        b"Content-Length: 5, 6",
        b"Content-Length: 99999999999999999999",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: chunked, identity",
        b"Expect: 100-continue",
        b"Connection: keep-alive, upgrade",
        b"Upgrade: websocket",
        b" folded: x",
        b"no colon",
        b"Bad Name: x",
        b"X: " + b"y" * 9000,
        b"Script_Name: /x",
        b"SCRIPT_NAME: /x",
        chance.randbytes(20),
    ]
    ends = chance.choice(
        [b"\r\n\r\n", b"\n\n", b"\r\n\r\nhello", b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n", b"\r\n\r\nffffffffff\r\n"]
    )
    return b"\r\n".join(chance.choices(lines[:5], k=1) + chance.choices(lines, k=chance.randrange(6))) + ends
