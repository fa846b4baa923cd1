"""What the bytes of a body stand for: inflated where they are compressed, and as UTF-8 whatever text they are. Pure.

`Content-Encoding` is that of RFC 9110; "deflate" comes with and without zlib's frame. Byte order marks are Unicode's.
Windows writes UTF-16 and marks by default, and some HTTP clients compress what they send.
"""

from __future__ import annotations

import codecs
import zlib
from collections.abc import Callable

from bridge.errors import BridgeError

#: A body may be this many times as large as what came, and this many bytes besides: texts are 3 to 20 times as large.
MOST_TIMES, MOST_BESIDES = 100, 65536
#: Bytes that are inflated at a time, before others get a turn.
_STEP = 2**20

#: coding -> zlib's window bits: any frame, or none
_CODINGS = {"gzip": zlib.MAX_WBITS | 32, "x-gzip": zlib.MAX_WBITS | 32, "deflate": zlib.MAX_WBITS | 32}
#: The longest mark first: that of UTF-32 begins like the one of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def inflated(body: bytes, coding: str, most: int, turn: Callable[[], None]) -> bytes:
    """A body without its coding, of at most `most` bytes; `turn` is called now and then, to let others go on.

    Raises BridgeError invalid_request for another coding or broken data, payload_too_large.
    """
    coding = coding.strip().lower()
    if coding in ("", "identity"):
        return body
    if coding not in _CODINGS:
        raise _unreadable(f"Content-Encoding {coding[:40]!r} cannot be read.")
    bits = _CODINGS[coding]
    if coding == "deflate" and body[:1] and (body[0] & 15 != 8 or int.from_bytes(body[:2], "big") % 31):
        # No frame of zlib around it.
        bits = -zlib.MAX_WBITS
    allowed = min(most, MOST_TIMES * len(body) + MOST_BESIDES)
    found, rest = bytearray(), body
    try:
        while rest:
            member = zlib.decompressobj(bits)
            while rest and not member.eof:
                found += member.decompress(rest, _STEP)
                rest = member.unconsumed_tail
                if len(found) > allowed:
                    raise BridgeError("payload_too_large", f"The body is larger than {allowed} bytes when inflated.")
                turn()
            if not member.eof:
                raise _unreadable(f"The body breaks off; it is no whole {coding}.")
            rest = member.unused_data
    except zlib.error:
        raise _unreadable(f"The body is no {coding}, which its Content-Encoding says.") from None
    return bytes(found)


def as_utf8(body: bytes) -> bytes:
    """A text in UTF-8, without a byte order mark. What has no mark is left as it is, and what is not what its mark
    says, too: the readers of JSON say what is wrong with it."""
    for mark, encoding in _MARKS:
        if body.startswith(mark):
            rest = body[len(mark) :]
            try:
                return rest if encoding == "utf-8" else rest.decode(encoding).encode()
            except UnicodeError:
                return body
    return body


def _unreadable(message: str) -> BridgeError:
    return BridgeError("invalid_request", message, "Send the body as it is, or compressed with gzip or deflate.")
