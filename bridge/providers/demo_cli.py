"""The simulated CLI of the demo: reads one question, streams a made-up answer, and ends.

A child process like the real CLIs, so that the demo exercises pipes, processes and limits. One line of
JSON in; lines of JSON out: `{"type":"delta","text"}` and at the end `{"type":"done",…}`. Standard
library only: it has to start quickly.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

_WORDS_PER_DELTA = 3


def compose(question: dict[str, Any]) -> str:
    """A plausible answer that says it is none."""
    prompt = " ".join(str(question["prompt"]).split())
    shown = prompt if len(prompt) <= 120 else prompt[:117] + "..."
    pictures = f" You attached {question['images']} image(s)." if question["images"] else ""
    return (
        "[demo answer, no model was asked] "
        f"You wrote: “{shown}”.{pictures} "
        "A real model would answer here. This text comes from a small simulated CLI that runs as a "
        "child process, streams at a reading pace, and reports its tokens, so that you can try keys, "
        "limits, streaming and the log without an account. Start the bridge with 'cli-bridge serve' and "
        "an API key to get real answers."
    )


def instance(schema: Any, root: Any, depth: int = 0) -> Any:
    """Something small that fits most schemas: the structured answer of the demo."""
    if not isinstance(schema, dict) or depth > 8:
        return None
    if isinstance(schema.get("$ref"), str) and schema["$ref"].startswith("#/"):
        target = root
        for part in schema["$ref"][2:].split("/"):
            target = target.get(part, {}) if isinstance(target, dict) else {}
        return instance(target, root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for several in ("anyOf", "oneOf", "allOf"):
        if schema.get(several):
            return instance(schema[several][0], root, depth + 1)
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind == "object" or "properties" in schema:
        wanted = schema.get("properties") or {}
        return {name: instance(inner, root, depth + 1) for name, inner in wanted.items()}
    if kind == "array":
        return [instance(schema.get("items", {}), root, depth + 1) for _ in range(min(schema.get("minItems", 1), 20))]
    simple = {"integer": schema.get("minimum", 1), "number": schema.get("minimum", 1.5), "boolean": True}
    if kind in simple:
        return simple[kind]
    if kind == "null":
        return None
    return "demo".ljust(min(int(schema.get("minLength", 0)), 1000), "o")[: int(schema.get("maxLength", 10**6))]


def main() -> None:
    """Answer the one question on standard input."""
    line = sys.stdin.buffer.readline()
    if not line:
        return
    question = json.loads(line)
    if question["schema"] is not None:
        text = json.dumps(instance(question["schema"], question["schema"]), ensure_ascii=False)
    else:
        text = compose(question)
    words = text.split(" ")
    limit = int(question["maxOutputTokens"])
    cut = len(words) > limit
    words = words[:limit]
    for start in range(0, len(words), _WORDS_PER_DELTA):
        piece = " ".join(words[start : start + _WORDS_PER_DELTA])
        _say({"type": "delta", "text": piece if start == 0 else " " + piece})
        if question["paceSeconds"]:
            time.sleep(question["paceSeconds"])
    _say(
        {
            "type": "done",
            "stopReason": "max_tokens" if cut else "end_turn",
            "inputTokens": question["inputTokens"],
            "outputTokens": len(words),
        }
    )
    # All is said. Python's own clearing up would take 3 ms of a processor from the reader of the answer.
    os._exit(0)


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message, ensure_ascii=False) + "\n")
    sys.stdout.flush()
