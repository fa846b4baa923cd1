"""An answer as it is put together from what a CLI prints: texts, thoughts and calls of tools, in their order. Pure."""

from __future__ import annotations

from bridge.types import Citation, Part, PartDelta, Search, Text, Thought, ToolCall, whole


class Assembly:
    """The parts of an answer under way. Each piece that is added gives the event of it; pieces of one part follow each
    other, and texts with nothing between them are one."""

    def __init__(self) -> None:
        self._deltas: list[PartDelta] = []
        self._number = -1
        #: the kind and the id of the last part
        self._last: tuple[str, str] | None = None

    def add_text(self, piece: str) -> PartDelta:
        """A further piece of text."""
        return self._add(("text", ""), Text(piece))

    def begin_text(self) -> PartDelta:
        """A text of its own, of which nothing is there yet."""
        self._last = None
        return self.add_text("")

    def cite(self, citation: Citation) -> PartDelta:
        """Something that the text cites."""
        return self._add(("text", ""), Text("", (citation,)))

    def add_search(self, search: Search) -> PartDelta:
        """A search that has been made."""
        return self._add(("search", search.id), search)

    def add_call(self, id: str, name: str, piece: str) -> PartDelta:
        """A call, or a further piece of its arguments."""
        return self._add(("call", id), ToolCall(id, name, piece))

    def add_thought(self, id: str, piece: Thought) -> PartDelta:
        """A thought, or a further piece of it."""
        return self._add(("thought", id), piece)

    @property
    def content(self) -> tuple[Part, ...]:
        """The parts so far."""
        return whole(self._deltas)

    @property
    def calls(self) -> list[ToolCall]:
        """The calls so far."""
        return [part for part in self.content if isinstance(part, ToolCall)]

    def _add(self, what: tuple[str, str], part: Part) -> PartDelta:
        if what != self._last:
            self._number, self._last = self._number + 1, what
        delta = PartDelta(self._number, part)
        self._deltas.append(delta)
        return delta
