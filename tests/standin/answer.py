"""The answer that a script asks for, before either API gives it a shape."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from .instances import instance, violation
from .script import Script

Stop = Literal["end", "limit", "refusal", "tool", "sequence"]
Call = tuple[str, str]  # a tool's name, and its arguments as JSON

UNBOUNDED_WORDS = 4096  # of a model that would never stop, when the request names no limit
_PIECE = 512  # characters of one delta in a long answer


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the stand-in has to know of a request."""

    text: str  # the last thing that the user wrote
    size: int  # characters of all that the model would read
    limit: int | None  # output tokens allowed
    schema: dict[str, Any] | None  # of the structured output that is asked for
    tool_answered: bool  # the conversation ends in tool results
    by_tool: bool = False  # the structured output is asked for with a tool
    stops: tuple[str, ...] = ()  # sequences at which the answer ends
    forced: Call | None = None  # the tool that must be called, with arguments that fit
    may_call: bool = True  # whether tools may be called at all
    one_call: bool = False  # whether only one may be called
    searches: int = 0  # of the web, that may be made
    seal: str = ""  # of all that came before the answer, for what is thought in it


@dataclass(frozen=True, slots=True)
class Tokens:
    """Usage figures, as the API reports them."""

    input: int
    output: int
    cached: int
    cache_write: int
    reasoning: int
    searches: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """One model answer. `pieces` are the deltas of the text, or of a tool's input."""

    pieces: tuple[str, ...]
    stop: Stop
    tokens: Tokens
    thinking: str = ""
    redacted: bool = False
    searches: int = 0  # of the web, that were made
    barred: bool = False  # whether there would have been more
    seal: str = ""
    by_tool: bool = False  # the pieces are JSON for the tool of the structured output
    tool: str = ""
    calls: tuple[Call, ...] = ()
    stop_sequence: str | None = None

    @property
    def text(self) -> str:
        """All pieces together."""
        return "".join(self.pieces)


def compose(script: Script, prompt: Prompt, rest: str) -> Answer:
    """The answer to `prompt`, whose text without directives is `rest`."""
    stop: Stop = "end"
    structured = False
    tool = "" if prompt.tool_answered else script.tool
    calls = _calls(script, prompt)
    if tool:
        text, stop = "", "tool"
    elif calls:
        text, stop = script.text, "tool"
    elif prompt.schema is not None and not script.schema_never and script.mode != "refusal":
        made = violation(prompt.schema) if script.schema_bad else instance(prompt.schema)
        text, structured = json.dumps(made, ensure_ascii=False), True
    elif script.mode == "empty":
        text = ""
    elif script.text:
        text = script.text
    elif script.size:
        text = ("The quick brown fox jumps over the lazy dog. " * (script.size // 45 + 1))[: script.size]
    elif script.long or script.words:
        limit = prompt.limit if prompt.limit is not None else UNBOUNDED_WORDS
        wanted = limit + 1 if script.long else script.words
        text = "word " * min(wanted, limit)
        stop = "limit" if wanted > limit else "end"
    else:
        text = f"ECHO<{rest}>"
    found = min((s for s in prompt.stops if s in text), key=text.index, default=None)
    if found is not None and not structured:
        text, stop, calls = text[: text.index(found)], "sequence", ()
    if text and not script.text:
        text = text.ljust(script.deltas, " " if structured else ".")
    if script.mode in ("incomplete", "max_tokens"):
        stop = "limit"
    elif script.mode == "refusal":
        stop = "refusal"
    searches = min(script.searches, prompt.searches)
    thinking = "Let me think about that step by step." if script.thinking else ""
    return Answer(
        pieces=_split(text, script.deltas),
        stop=stop,
        tokens=_tokens(script, prompt, text + "".join(map("".join, calls)), searches),
        thinking=thinking,
        redacted=script.redacted,
        searches=searches,
        barred=script.searches > searches > 0,
        seal=prompt.seal,
        by_tool=structured and prompt.by_tool,
        tool=tool,
        calls=calls,
        stop_sequence=found if stop == "sequence" else None,
    )


def _calls(script: Script, prompt: Prompt) -> tuple[Call, ...]:
    """The calls of an answer: those of the script, but not after they were answered; else the one that is forced."""
    if not prompt.may_call:
        return ()
    scripted = () if prompt.tool_answered else script.asked
    calls = scripted or ((prompt.forced,) if prompt.forced is not None else ())
    return calls[:1] if prompt.one_call else calls


def arguments_for(schema: dict[str, Any]) -> str:
    """Arguments that fit the schema of a tool."""
    return json.dumps(instance(schema), ensure_ascii=False)


def _split(text: str, deltas: int) -> tuple[str, ...]:
    if not text:
        return ()
    count = min(deltas or max(4, math.ceil(len(text) / _PIECE)), len(text))
    cuts = [len(text) * i // count for i in range(count + 1)]
    return tuple(text[a:b] for a, b in pairwise(cuts))


#: Tokens of what one search finds.
FOUND_TOKENS = 3000


def _tokens(script: Script, prompt: Prompt, text: str, searches: int) -> Tokens:
    reasoning = script.reasoning if script.reasoning >= 0 else (16 if script.thinking else 0)
    counted = text.count("word ") if script.long or script.words else math.ceil(len(text) / 4)
    output = max(1, counted) + reasoning
    if prompt.limit is not None:
        output = min(output, prompt.limit)
    return Tokens(
        # After each search all is read again, with what was found by then.
        input=script.input
        if script.input >= 0
        else max(1, prompt.size // 4) * (searches + 1) + FOUND_TOKENS * searches * (searches + 1) // 2,
        output=script.output if script.output >= 0 else output,
        cached=script.cached,
        cache_write=script.cache_write,
        reasoning=reasoning,
        searches=searches,
    )
