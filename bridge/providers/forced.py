"""A call that the model must make, where its API takes no word for that: the answer has the schema of the arguments,
and is read as the call. Pure."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from bridge.providers.structured import with_words
from bridge.types import (
    Activity,
    Answer,
    Completed,
    Event,
    GenerationRequest,
    PartDelta,
    Text,
    Thought,
    Tool,
    ToolCall,
)

_MUST = "You must call {} now. Do not answer in words."


class _Choice(msgspec.Struct):
    name: str
    arguments: msgspec.Raw


class _Choices(msgspec.Struct):
    call: _Choice


def forced_tools(request: GenerationRequest) -> tuple[Tool, ...]:
    """The tools of which the model must call one; none where it need not."""
    choice = request.tool_choice
    if choice.mode != "required":
        return ()
    return tuple(tool for tool in request.tools if choice.name in (None, tool.name))


def schema_of_call(tools: Sequence[Tool]) -> dict[str, Any]:
    """The schema of an answer that stands for a call of one of them: its arguments, or which and its arguments."""
    if len(tools) == 1:
        return {"type": "object", "properties": {}, **tools[0].schema}
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"type": "string", "enum": [tool.name]},
                "arguments": {"type": "object", "properties": {}, **tool.schema},
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in tools
    ]
    properties = {"call": {"anyOf": calls}}
    return {"type": "object", "properties": properties, "required": ["call"], "additionalProperties": False}


def told_of_call(request: GenerationRequest, tools: Sequence[Tool]) -> GenerationRequest:
    """The request with what the schema stands for, in words."""
    described = [f"{tool.name}: {tool.description}" if tool.description else tool.name for tool in tools]
    if len(tools) == 1:
        return with_words(request, f"Answer with the arguments of a call of the function {described[0]}")
    functions = "\n\n".join(described)
    return with_words(request, f"Answer with a call of one of these functions, and its arguments.\n\n{functions}")


def told_to_call(request: GenerationRequest) -> GenerationRequest:
    """The request with its forced call in words: the tools stay, and nothing but that makes the model call one."""
    name = request.tool_choice.name
    free = msgspec.structs.replace(request.tool_choice, mode="auto", name=None)
    told = with_words(request, _MUST.format(f"the function {name}" if name else "one of the functions"))
    return msgspec.structs.replace(told, tool_choice=free)


class ForcedCall:
    """Reads an answer in JSON as a call of one of some tools; `read` it event by event."""

    def __init__(self, tools: Sequence[Tool], prefix: str) -> None:
        """`prefix`: how ids of calls begin."""
        self._name = tools[0].name if len(tools) == 1 else None
        self._id = prefix + secrets.token_hex(12)

    def read(self, event: Event) -> Iterator[Event]:
        """The events that an event of the answer stands for."""
        if isinstance(event, PartDelta) and isinstance(event.part, Text):
            # Of several, which one it is stands for sure only at the end.
            yield (
                Activity()
                if self._name is None
                else PartDelta(event.index, ToolCall(self._id, self._name, event.part.text))
            )
        elif isinstance(event, Completed):
            answer = self._as_call(event.answer)
            if self._name is None:
                yield from (delta for delta in answer.deltas() if not isinstance(delta.part, Thought))
            yield Completed(answer)
        else:
            yield event

    def _as_call(self, answer: Answer) -> Answer:
        if answer.stop_reason == "refusal" or not answer.text:
            return answer
        name, arguments = self._name, answer.text
        if name is None:
            try:
                call = msgspec.json.decode(answer.text, type=_Choices).call
                name, arguments = call.name, bytes(call.arguments).decode()
            except (msgspec.DecodeError, RecursionError):
                return answer
        stop_reason = "tool_use" if answer.stop_reason == "end_turn" else answer.stop_reason
        content = (*answer.thoughts, ToolCall(self._id, name, arguments))
        return msgspec.structs.replace(answer, content=content, stop_reason=stop_reason)
