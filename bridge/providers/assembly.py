"""An answer as it is put together from what a CLI prints: texts and calls of tools, in their order. Pure."""

from __future__ import annotations

from bridge.types import Part, PartDelta, Text, ToolCall, whole


class Assembly:
    """The parts of an answer under way. Each piece that is added gives the event of it; pieces of one part follow each
    other, and texts without a call between them are one."""

    def __init__(self) -> None:
        self._deltas: list[PartDelta] = []
        self._number = -1
        #: the id of the call that the last part is; None for a text
        self._call: str | None = None

    def add_text(self, piece: str) -> PartDelta:
        """A further piece of text."""
        if self._number < 0 or self._call is not None:
            self._number, self._call = self._number + 1, None
        return self._add(Text(piece))

    def add_call(self, id: str, name: str, piece: str) -> PartDelta:
        """A call, or a further piece of its arguments."""
        if self._number < 0 or self._call != id:
            self._number, self._call = self._number + 1, id
        return self._add(ToolCall(id, name, piece))

    @property
    def content(self) -> tuple[Part, ...]:
        """The parts so far."""
        return whole(self._deltas)

    @property
    def calls(self) -> list[ToolCall]:
        """The calls so far."""
        return [part for part in self.content if isinstance(part, ToolCall)]

    def _add(self, part: Text | ToolCall) -> PartDelta:
        delta = PartDelta(self._number, part)
        self._deltas.append(delta)
        return delta
