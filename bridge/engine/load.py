"""How much the prompts of live runs take in memory: with images, far more than anything else of a run."""

from __future__ import annotations

from collections.abc import Collection

from bridge.engine.run import Run
from bridge.errors import BridgeError
from bridge.types import GenerationRequest, Image

#: A request up to this size, in bytes, is not counted: texts are no danger.
SMALL_BYTES = 256 * 1024
#: Requests of the largest size that wait or run at the same time: of one key, and of all.
LARGEST_OF_KEY, LARGEST_OF_ALL = 2, 4
#: When to come again, in seconds.
COME_AGAIN_S = 10.0


def size_of(request: GenerationRequest) -> int:
    """About how many bytes the messages of a request take."""
    parts = [part for message in request.messages for part in message.content]
    return len(request.system) + sum(len(part.data if isinstance(part, Image) else part.text) for part in parts)


def check_load(runs: Collection[Run], key_name: str, request: GenerationRequest, largest: int) -> None:
    """Raise BridgeError overloaded where a large request would be one too many beside the live `runs`.

    `largest` is the most that a body may have, in bytes.
    """
    size = size_of(request)
    if size <= SMALL_BYTES:
        return
    large = [(run.key_name, held) for run in runs if (held := size_of(run.request)) > SMALL_BYTES]
    own = sum(held for name, held in large if name == key_name)
    if own + size > LARGEST_OF_KEY * largest or sum(held for _, held in large) + size > LARGEST_OF_ALL * largest:
        raise BridgeError("overloaded", "Too many large requests are running already.", retry_after=COME_AGAIN_S)
