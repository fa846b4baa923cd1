"""How many tokens a text can be at most, and how many it probably is."""

from __future__ import annotations

import json
import math

from bridge.types import GenerationRequest, Image, words

#: Frame of one message in a conversation, in tokens.
MESSAGE_OVERHEAD_TOKENS = 16
#: What the frame of a message usually counts, and an image of a usual size, in tokens.
FRAME_TOKENS, USUAL_IMAGE_TOKENS = 4, 1600


def text_ceiling(request: GenerationRequest, image_tokens: int) -> int:
    """The most tokens that the client's part of a prompt can be.

    Every tokenizer in use is a byte-level one, in which a token stands for one byte or more: the number
    of UTF-8 bytes is a bound that no prompt can break, at about four times the usual count of English.
    An image counts `image_tokens`, whatever it shows.
    """
    total = len(request.system.encode()) + MESSAGE_OVERHEAD_TOKENS
    for message in request.messages:
        total += MESSAGE_OVERHEAD_TOKENS
        total += image_tokens * len(message.images)
        total += sum(len(words(part).encode()) + 4 for part in message.content if not isinstance(part, Image))
    if request.schema is not None:
        total += len(json.dumps(request.schema))
    return total


def estimate(text_bytes: int, deltas: int) -> int:
    """About how many tokens a streamed text is: a quarter of its bytes, or its pieces if those are more."""
    return max(math.ceil(text_bytes / 4), deltas)


def prompt_estimate(request: GenerationRequest) -> int:
    """About how many tokens a prompt is, without what a CLI adds: a quarter of its bytes, and a usual image."""
    images = sum(len(message.images) for message in request.messages)
    size = len(request.system.encode()) + sum(len(message.text.encode()) for message in request.messages)
    if request.schema is not None:
        size += len(json.dumps(request.schema))
    return math.ceil(size / 4) + len(request.messages) * FRAME_TOKENS + images * USUAL_IMAGE_TOKENS
