"""The books of the soak: what the bridge has charged, against what the stand-in has counted for itself."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Line = Mapping[str, Any]
"""A line of the request log, as GET /admin/logs shows it."""
Generation = Mapping[str, Any]
"""What the stand-in has recorded of one call of a model."""

#: Pieces of an answer where the prompt does not say how many: see tests/standin/answer.py.
FEWEST_DELTAS = 4


@dataclass
class Books:
    """The comparison: rows for people, and whatever does not fit."""

    rows: list[list[Any]] = field(default_factory=list)
    broken_off: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


def compare(lines: Sequence[Line], generations: Sequence[Generation], usage: Iterable[Mapping[str, Any]]) -> Books:
    """`usage` has the rows of GET /admin/usage."""
    books = Books()
    by_tag: dict[str, list[Generation]] = defaultdict(list)
    for generation in generations:
        by_tag[tag_of(generation["text"])].append(generation)
        if generation["outcome"] == "open":
            books.wrong.append(f"a call of a model goes on although its run has ended: {generation['text'][:100]}")
    charged = [line for line in lines if was_submitted(line)]
    _compare_models(books, charged, by_tag)
    _compare_broken_off(books, charged, by_tag)
    compare_accounts(books, lines, charged, usage)
    known = Counter(tag_of(line["userPrompt"] or "") for line in charged)
    books.wrong += [f"{number} runs for the one prompt {tag}" for tag, number in known.items() if number > 1]
    books.wrong += [f"a call of a model that no run was charged for: {tag}" for tag in by_tag if tag not in known]
    return books


def tag_of(text: str) -> str:
    """The word that a prompt of the soak begins with."""
    return text.split(" ", 1)[0]


def was_submitted(line: Line) -> bool:
    """Whether a run came so far that its CLI may have had the prompt."""
    return line["warm"] is not None or tokens(line) > 0


def tokens(line: Line) -> int:
    """All tokens that a run was charged."""
    return sum(charged_usage(line).values())


def charged_usage(line: Line) -> dict[str, int]:
    """The tokens of a run by kind."""
    return {
        "input": line["inputTokens"],
        "cache read": line["cacheReadTokens"],
        "cache write": line["cacheWriteTokens"],
        "output": line["outputTokens"],
    }


def counted_usage(generation: Generation) -> dict[str, int]:
    """The tokens of a call of a model by kind, as the stand-in has reported them to the CLI."""
    usage = generation["usage"]
    if generation["api"] == "anthropic":
        return {
            "input": usage["input_tokens"],
            "cache read": usage["cache_read_input_tokens"],
            "cache write": usage["cache_creation_input_tokens"],
            "output": usage["output_tokens"],
        }
    details = usage["input_tokens_details"]
    cached, written = details["cached_tokens"], details["cache_write_tokens"]
    return {
        "input": usage["input_tokens"] - cached - written,
        "cache read": cached,
        "cache write": written,
        "output": usage["output_tokens"],
    }


def sent(generation: Generation) -> tuple[int, int]:
    """(tokens of the prompt, tokens of the answer that had come when the call was broken off): where the other side
    left, the last piece may have been under way still."""
    if generation["status"] != 200 or generation["usage"] is None:
        return 0, 0
    usage = counted_usage(generation)
    output = usage.pop("output")
    found = re.search(r"deltas=(\d+)", generation["text"])
    pieces = int(found[1]) if found else FEWEST_DELTAS
    came = generation["deltas"] - (1 if generation.get("closed_early") else 0)
    return sum(usage.values()), output * min(max(0, came), pieces) // pieces


def _compare_models(books: Books, charged: Sequence[Line], by_tag: Mapping[str, Sequence[Generation]]) -> None:
    """Runs that completed with known usage: each for itself, and summed up by model, the same on both sides."""
    ours: dict[str, Counter[str]] = defaultdict(Counter)
    theirs: dict[str, Counter[str]] = defaultdict(Counter)
    for line in charged:
        if line["status"] != 200 or line["assumed"]:
            continue
        tag, usage = tag_of(line["userPrompt"]), charged_usage(line)
        calls = by_tag.get(tag, [])
        ours[line["model"]].update({"requests": 1, **usage})
        for call in calls:
            theirs[call["model"]].update({"requests": 1, **counted_usage(call)})
        counted = [counted_usage(call) for call in calls]
        if counted != [usage]:
            books.wrong.append(f"{tag} ({line['id']}) was charged {usage}, and the stand-in counted {counted}")
    for model in sorted({*ours, *theirs}):
        for what in ("requests", "input", "cache read", "cache write", "output"):
            same = "yes" if ours[model][what] == theirs[model][what] else "NO"
            books.rows.append([model, what, ours[model][what], theirs[model][what], same])
            if same == "NO":
                books.wrong.append(f"{model}: {what} differ, {ours[model][what]} and {theirs[model][what]}")


def _compare_broken_off(books: Books, charged: Sequence[Line], by_tag: Mapping[str, Sequence[Generation]]) -> None:
    """Runs that were broken off, or failed: charged at least what had been sent, whether anybody said it or not."""
    total = Counter[str]()
    for line in charged:
        if line["status"] == 200 and not line["assumed"]:
            continue
        usage = charged_usage(line)
        output = usage.pop("output")
        calls = [sent(call) for call in by_tag.get(tag_of(line["userPrompt"]), [])]
        prompt_sent, output_sent = (sum(each) for each in zip(*calls, strict=True)) if calls else (0, 0)
        total.update(
            {
                "runs": 1,
                "of them assumed": int(line["assumed"]),
                "prompt tokens charged": sum(usage.values()),
                "prompt tokens sent": prompt_sent,
                "output tokens charged": output,
                "output tokens sent": output_sent,
            }
        )
        if sum(usage.values()) < prompt_sent or output < output_sent:
            books.wrong.append(f"{line['id']} ({line['code']}) was charged less than was sent: {line}, {calls}")
    books.broken_off = dict(total)


def compare_accounts(
    books: Books, lines: Sequence[Line], charged: Sequence[Line], usage: Iterable[Mapping[str, Any]]
) -> None:
    """What the ledger has booked for each key is what the log says of its runs, to the micro-dollar."""
    booked: dict[str, Counter[str]] = defaultdict(Counter)
    for row in usage:
        cost = round(row["costUsd"] * 1e6)
        booked[row["key"]].update({"requests": row["requests"], "tokens": row["tokens"], "micro-dollars": cost})
    logged: dict[str, Counter[str]] = defaultdict(Counter)
    for line in charged:
        cost = round(line["costUsd"] * 1e6)
        logged[line["keyName"]].update({"requests": 1, "tokens": tokens(line), "micro-dollars": cost})
    for name in sorted({line["keyName"] for line in lines} | set(booked)):
        if booked[name] != logged[name]:
            books.wrong.append(f"{name}: booked {dict(booked[name])}, and in the log {dict(logged[name])}")
