"""How large a picture is, by its header: what a decoder of it would have to hold. Pure.

A picture of a hundred kilobytes can have a billion pixels. Only headers are read, and no more steps are taken than a
picture that somebody means needs; where the size is not found within them, there is none.

Facts: PNG (W3C, 11.2.1 IHDR), GIF89a (sections 18 and 20), JPEG (ITU T.81, B.2.2), WebP (RFC 9649, 2.5 to 2.7).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

#: Most segments, blocks or chunks that are looked at before the size.
_MOST_STEPS = 4096
#: Markers of JPEG that begin a frame: C0 to CF without DHT, JPG and DAC.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}

Size = tuple[int, int]


def size_of(media_type: str, raw: bytes) -> Size | None:
    """Width and height of an image of this type; None where its header does not say them."""
    try:
        found = _READERS[media_type](raw)
    except IndexError:
        return None
    return found if found is not None and all(found) else None


def _png(raw: bytes) -> Size | None:
    if raw[12:16] != b"IHDR" or len(raw) < 24:
        return None
    return int.from_bytes(raw[16:20], "big"), int.from_bytes(raw[20:24], "big")


def _jpeg(raw: bytes) -> Size | None:
    at = 2
    for _ in range(_MOST_STEPS):
        if raw[at] != 0xFF:
            return None
        # As many bytes FF as one likes may stand before a marker.
        end = at + len(raw[at : at + _MOST_STEPS]) - len(raw[at : at + _MOST_STEPS].lstrip(b"\xff"))
        marker, at = raw[end], end
        at += 1
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            continue
        if marker in _FRAMES:
            height, width = raw[at + 3 : at + 5], raw[at + 5 : at + 7]
            return int.from_bytes(width, "big"), int.from_bytes(height, "big")
        at += max(2, raw[at] << 8 | raw[at + 1])
    return None


def _gif(raw: bytes) -> Size | None:
    """The screen, or the first frame where that is larger."""
    screen = _pair(raw, 6)
    at = 13 + _table(raw[10])
    inside = False
    for _ in range(_MOST_STEPS):
        if inside:
            # A block of an extension; an empty one ends it.
            inside = raw[at] > 0
            at += 1 + raw[at]
        elif raw[at] == 0x21:
            inside = True
            at += 2
        elif raw[at] == 0x2C:
            frame = _pair(raw, at + 5)
            return max(screen[0], frame[0]), max(screen[1], frame[1])
        else:
            return None
    return None


def _webp(raw: bytes) -> Size | None:
    """The canvas, or the first picture on it where that is larger."""
    at, canvas = 12, (0, 0)
    for _ in range(_MOST_STEPS):
        kind, size, body = raw[at : at + 4], int.from_bytes(raw[at + 4 : at + 8], "little"), at + 8
        found = None
        if kind == b"VP8X":
            canvas = (1 + _three(raw, body + 4), 1 + _three(raw, body + 7))
        elif kind == b"VP8 ":
            found = (_pair(raw, body + 6)[0] & 0x3FFF, _pair(raw, body + 6)[1] & 0x3FFF)
        elif kind == b"VP8L":
            bits = int.from_bytes(raw[body + 1 : body + 5], "little")
            found = (1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
        elif kind == b"ANMF":
            found = (1 + _three(raw, body + 6), 1 + _three(raw, body + 9))
        if found is not None:
            # Read it, so that a header that breaks off has no size.
            raw[body + 9]
            return max(canvas[0], found[0]), max(canvas[1], found[1])
        at = body + size + size % 2
        raw[at]
    return None


def _pair(raw: bytes, at: int) -> Size:
    raw[at + 3]
    return raw[at] | raw[at + 1] << 8, raw[at + 2] | raw[at + 3] << 8


def _three(raw: bytes, at: int) -> int:
    raw[at + 2]
    return int.from_bytes(raw[at : at + 3], "little")


def _table(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


_READERS: Mapping[str, Callable[[bytes], Size | None]] = {
    "image/png": _png,
    "image/jpeg": _jpeg,
    "image/gif": _gif,
    "image/webp": _webp,
}
