"""An answer on its way back: stop sequences, the JSON that a schema asks for, and the second try. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from bridge.errors import Problem
from bridge.ledger.caps import MINIMUM_OUTPUT_TOKENS
from bridge.ledger.pricing import Price, affordable_output
from bridge.ledger.tallies import Reservation
from bridge.types import Charge, Completed, Failed, GenerationRequest, Message, PartDelta, Text, ToolCall

#: With one way to match only: whatever a model writes is looked at in no more than linear time.
_FENCE = re.compile(r"```(?:json)?[^\S\n]*\n(.*?)```", re.DOTALL | re.IGNORECASE)
#: How deep an answer may be nested: far above what anybody means, far below what readers of JSON can take.
MAX_DEPTH = 200
#: Room that a second answer gets at least, as a multiple of what the first one took.
ROOM = 2
_STRICT_HINT = "Send it again, simplify the schema of the tool, or leave strict out."
_AGAIN = "{problem} Answer again, with JSON only that fits the schema."


Mismatch = Callable[[dict[str, Any], Any], str | None]
"""Why an output does not fit a schema, in words; None where it does."""


class Attempt(msgspec.Struct, frozen=True):
    """What the CLI is asked, and the most input tokens that it may count."""

    request: GenerationRequest
    input_tokens: int
    #: what the attempt before it was charged
    spent: Charge | None = None


class StopFilter:
    """Lets an answer through up to the first of some sequences in one of its texts; what may still become one is held
    back."""

    def __init__(self, sequences: Sequence[str]) -> None:
        self._sequences = sequences
        self._held = ""
        #: the part of the answer that is held back
        self._index = 0
        #: the sequence that was found
        self.found: str | None = None

    def feed(self, delta: PartDelta) -> list[PartDelta]:
        """What can be shown of the answer so far, and was not before. Nothing more once a sequence is `found`."""
        if self.found is not None:
            return []
        if not isinstance(delta.part, Text) or delta.part.citations:
            return [*self.rest(), delta]
        before = self.rest() if delta.index != self._index else []
        self._index = delta.index
        text = self._cut(self._held + delta.part.text)
        return [*before, PartDelta(delta.index, Text(text))] if text else before

    def rest(self) -> list[PartDelta]:
        """What was held back, at the end of a text in which it did not become a sequence."""
        rest, self._held = self._held, ""
        return [PartDelta(self._index, Text(rest))] if rest else []

    def _cut(self, text: str) -> str:
        """What can be shown of a text; the rest is held back, or is of no interest any more."""
        # The one that is complete first, as if the text came letter by letter; of several, the longest.
        hits = [(text.index(each) + len(each), -len(each), each) for each in self._sequences if each in text]
        if hits:
            end, _, self.found = min(hits)
            self._held = ""
            return text[: end - len(self.found)]
        keep = max((_overlap(text, each) for each in self._sequences), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, sequence: str) -> int:
    """How many characters at the end of `text` are a beginning of `sequence`, at most."""
    for size in range(min(len(text), len(sequence) - 1), 0, -1):
        if text.endswith(sequence[:size]):
            return size
    return 0


def with_output(end: Completed, schema: dict[str, Any], mismatch: Mismatch) -> Completed | Failed:
    """An answer with the output that is read from it; the failure of one that misses `schema`.

    An answer that was cut has no output, nor has a refusal, nor one that calls tools first.
    """
    answer = end.answer
    if answer.stop_reason in ("max_tokens", "refusal", "tool_use"):
        return end
    try:
        text, output = read(answer.text)
        problem = mismatch(schema, output)
    except ValueError:
        problem = "it is not valid JSON"
    if problem is None:
        return Completed(msgspec.structs.replace(answer, content=(*answer.thoughts, Text(text)), output=output))
    missed = Problem("output_mismatch", f"The answer does not fit the schema: {problem}.", facts={"text": answer.text})
    return Failed(missed, answer.usage)


def with_calls(end: Completed, schemas: Mapping[str, dict[str, Any]], mismatch: Mismatch) -> Completed | Failed:
    """An answer whose calls fit what their tools want (name -> schema); the failure of one that has another."""
    answer = end.answer
    if answer.stop_reason == "max_tokens":
        return end
    for part in answer.content:
        if isinstance(part, ToolCall) and part.name in schemas:
            try:
                problem = mismatch(schemas[part.name], parse(part.arguments or "{}"))
            except ValueError:
                problem = "they are not valid JSON"
            if problem is not None:
                message = f"The arguments for the tool {part.name} do not fit its schema: {problem}."
                facts = {"text": part.arguments, "tool": part.name}
                missed = Problem("output_mismatch", message, _STRICT_HINT, facts=facts)
                return Failed(missed, answer.usage)
    return end


def read(text: str) -> tuple[str, Any]:
    """The JSON of an answer, as text and as a value. A code fence or words around it do no harm.

    Raises ValueError where there is none.
    """
    found: ValueError | None = None
    for candidate in _candidates(text):
        try:
            return candidate, parse(candidate)
        except ValueError as error:
            found = found or error
    raise found or ValueError("it is empty")


def parse(text: str) -> Any:
    """The value of a JSON text. Raises ValueError."""
    try:
        # Stricter than Python's own reader: no NaN, no halves of characters.
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if _depth(value) > MAX_DEPTH:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
    return value


def _candidates(text: str) -> Iterator[str]:
    yield text.strip()
    fenced = _FENCE.search(text)
    if fenced is not None:
        yield fenced[1].strip()
    starts = [at for at in (text.find("{"), text.find("[")) if at >= 0]
    end = max(text.rfind("}"), text.rfind("]"))
    if starts and end > min(starts):
        yield text[min(starts) : end + 1]


def _depth(value: Any) -> int:
    """How deep lists and objects lie in each other; looks no deeper than is of interest."""
    level, depth = [value], 0
    while level and depth <= MAX_DEPTH:
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        depth += 1
    return depth


def second_attempt(
    request: GenerationRequest,
    mismatch: Problem,
    reserved: Reservation,
    spent: Charge,
    price: Price,
    input_ceiling: Callable[[GenerationRequest], int],
) -> Attempt | None:
    """What to ask after an answer that cost `spent`; None where what is left of the reservation, in tokens and
    in money, does not cover the most that the second call can use."""
    again = repaired(request, str(mismatch.facts.get("text", "")), mismatch.message)
    input_tokens = input_ceiling(again)
    output_tokens = min(
        request.max_output_tokens,
        reserved.input_tokens + reserved.output_tokens - spent.usage.total - input_tokens,
        affordable_output(price, input_tokens, reserved.cost_micro - spent.cost_micro),
    )
    least = max(min(request.max_output_tokens, MINIMUM_OUTPUT_TOKENS), ROOM * spent.usage.output_tokens)
    if output_tokens < least:
        return None
    return Attempt(msgspec.structs.replace(again, max_output_tokens=output_tokens), input_tokens, spent)


def repaired(request: GenerationRequest, text: str, problem: str) -> GenerationRequest:
    """The request for a second attempt: the conversation so far, the answer that missed, and why it did."""
    asked = Text(_AGAIN.format(problem=problem))
    last = request.messages[-1]
    if text.strip():
        messages = (*request.messages, Message("assistant", (Text(text),)), Message("user", (asked,)))
    else:
        messages = (*request.messages[:-1], Message(last.role, (*last.content, asked)))
    return msgspec.structs.replace(request, messages=messages, web_search=None)
