"""Stop sequences, looked for in the text as it streams: the CLIs know none."""

from __future__ import annotations

from collections.abc import Sequence


class StopFilter:
    """Lets text through up to the first of some sequences; what may still become one is held back."""

    def __init__(self, sequences: Sequence[str]) -> None:
        self._sequences = sequences
        self._held = ""
        #: the sequence that was found
        self.found: str | None = None

    def feed(self, text: str) -> str:
        """What can be shown of the text so far, and was not before. Nothing more once one is `found`."""
        if self.found is not None:
            return ""
        held = self._held + text
        # The one that is complete first, as if the text came letter by letter; of several, the longest.
        hits = [(held.index(each) + len(each), -len(each), each) for each in self._sequences if each in held]
        if hits:
            end, _, self.found = min(hits)
            self._held = ""
            return held[: end - len(self.found)]
        keep = max((_overlap(held, each) for each in self._sequences), default=0)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def rest(self) -> str:
        """What was held back, at the end of a text in which it did not become a sequence."""
        rest, self._held = self._held, ""
        return rest


def _overlap(text: str, sequence: str) -> int:
    """How many characters at the end of `text` are a beginning of `sequence`, at most."""
    for size in range(min(len(text), len(sequence) - 1), 0, -1):
        if text.endswith(sequence[:size]):
            return size
    return 0
