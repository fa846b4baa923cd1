"""The simulated CLI of the demo: reads one question, streams a made-up answer, and ends.

A child process like the real CLIs, so that the demo exercises pipes, processes and limits. One line of
JSON in; lines of JSON out: pieces of the answer's parts, `{"type":"delta","index","text"}` of a text and
`{"type":"call","index","id","name","text"}` of a call's arguments, and at the end `{"type":"done",…}`. Standard library
only: it has to start quickly.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from typing import Any

_WORDS_PER_DELTA = 3


def called(question: dict[str, Any]) -> list[dict[str, Any]]:
    """The tools that the answer calls. One that must be called is; after results, and without a reason, none is. A
    reason is that the prompt has the tool's name, or one of its words, or that there is no other tool."""
    tools, choice = question["tools"], question["toolChoice"]
    prompt = str(question["prompt"])
    if choice["name"] is not None:
        return [tool for tool in tools if tool["name"] == choice["name"]]
    if question["toolResults"]:
        wanted: list[dict[str, Any]] = []
    else:
        wanted = [tool for tool in tools for _ in range(prompt.count(tool["name"]))]
        wanted = wanted or [tool for tool in tools if _speaks_of(tool["name"], prompt)]
        wanted = wanted or (tools if len(tools) == 1 else [])
    if not wanted and choice["mode"] == "required":
        # An agent that goes on until a certain tool is called gets there.
        wanted = [tool for tool in tools if tool["name"] not in question["toolsCalled"]][-1:] or tools[-1:]
    return wanted if choice["parallel"] else wanted[:1]


def _speaks_of(name: str, prompt: str) -> bool:
    words = re.sub(r"([a-z])([A-Z])", r"\1 \2", name).replace("_", " ").replace("-", " ").lower().split()
    said = re.findall(r"\w+", prompt.lower())
    return any(len(word) > 3 and word in said for word in words)


def compose(question: dict[str, Any]) -> str:
    """A plausible answer that says it is none."""
    if question["toolResults"]:
        results = "; ".join(f"“{_short(result)}”" for result in question["toolResults"])
        return f"[demo answer, no model was asked] The tools gave: {results}. A real model would answer with it here."
    shown = _short(str(question["prompt"]))
    pictures = f" You attached {question['images']} image(s)." if question["images"] else ""
    return (
        "[demo answer, no model was asked] "
        f"You wrote: “{shown}”.{pictures} "
        "A real model would answer here. This text comes from a small simulated CLI that runs as a "
        "child process, streams at a reading pace, and reports its tokens, so that you can try keys, "
        "limits, streaming and the log without an account. Start the bridge with 'cli-bridge serve' and "
        "an API key to get real answers."
    )


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 120 else text[:117] + "..."


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
    calls = called(question)
    if calls:
        names = ", ".join(dict.fromkeys(tool["name"] for tool in calls))
        # Words before calls are what models that may choose write, and those that must call do not.
        text = f"[demo answer, no model was asked] Calls {names}." if question["toolChoice"]["mode"] == "auto" else ""
    elif question["schema"] is not None:
        text = json.dumps(instance(question["schema"], question["schema"]), ensure_ascii=False)
    else:
        text = compose(question)
    parts: list[tuple[dict[str, Any], str]] = [({"type": "delta"}, text)] if text else []
    for tool in calls:
        call = {"type": "call", "id": f"call_{os.urandom(12).hex()}", "name": tool["name"]}
        made = instance(tool["schema"], tool["schema"])
        parts.append((call, json.dumps(made if isinstance(made, dict) else {}, ensure_ascii=False)))
    left = limit = int(question["maxOutputTokens"])
    cut = False
    for index, (part, said) in enumerate(parts):
        words = said.split(" ")
        cut = len(words) > left
        words = words[:left]
        left -= len(words)
        for start in range(0, len(words), _WORDS_PER_DELTA):
            piece = " ".join(words[start : start + _WORDS_PER_DELTA])
            _say({**part, "index": index, "text": piece if start == 0 else " " + piece})
            if question["paceSeconds"]:
                time.sleep(question["paceSeconds"])
        if cut:
            break
    reason = "tool_use" if calls else "end_turn"
    _say(
        {
            "type": "done",
            "stopReason": "max_tokens" if cut else reason,
            "inputTokens": question["inputTokens"],
            "outputTokens": limit - left,
        }
    )
    # All is said. Python's own clearing up would take 3 ms of a processor from the reader of the answer.
    os._exit(0)


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message, ensure_ascii=False) + "\n")
    sys.stdout.flush()
