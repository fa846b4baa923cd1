"""Bodies that are compressed or in another encoding are read, within bounds, or the error says what is wrong."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import pytest

from bridge.errors import BridgeError
from bridge.http.body import MOST_BESIDES, as_utf8, inflated

BODY = '{"userPrompt": "Grüße 🎉"}'.encode()
PACKED = gzip.compress(BODY, mtime=0)
MOST = 2**20


def raw(data: bytes) -> bytes:
    made = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return made.compress(data) + made.flush()


def read(body: bytes, coding: str, most: int = MOST) -> bytes:
    return inflated(body, coding, most, lambda: None)


@pytest.mark.parametrize(
    ("coding", "pack"),
    [
        ("gzip", gzip.compress),
        (" GZIP ", gzip.compress),
        ("x-gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", raw),
        ("identity", bytes),
        ("", bytes),
    ],
)
def test_what_is_compressed_is_inflated(coding: str, pack: Any) -> None:
    assert read(pack(BODY), coding) == BODY
    large = b"".join(b'{"userPrompt": "%d"}' % (number**3) for number in range(20_000))
    assert read(pack(large), coding) == large


def test_a_gzip_of_several_members_is_one_body() -> None:
    assert read(gzip.compress(BODY[:9]) + gzip.compress(BODY[9:]), "gzip") == BODY


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "nonsense", "x" * 10_000])
def test_another_coding_is_named(coding: str) -> None:
    with pytest.raises(BridgeError) as caught:
        read(BODY, coding)
    assert coding[:40] in caught.value.message
    assert "gzip or deflate" in caught.value.hint
    assert len(caught.value.message) < 100


@pytest.mark.parametrize("body", [BODY, PACKED[:-9], PACKED[:5], b"\x1f\x8b" + BODY])
def test_what_is_no_gzip_is_named(body: bytes) -> None:
    with pytest.raises(BridgeError) as caught:
        read(body, "gzip")
    assert caught.value.code == "invalid_request"
    assert "gzip" in caught.value.message


@pytest.mark.parametrize("size", [MOST + 1, 200 * MOST])
def test_a_body_is_no_larger_for_being_compressed(size: int) -> None:
    turns = []
    with pytest.raises(BridgeError) as caught:
        inflated(gzip.compress(b" " * size), "gzip", MOST, lambda: turns.append(1))
    assert caught.value.code == "payload_too_large"
    assert len(turns) <= 2, "and is not inflated to its end"


def test_little_that_becomes_very_much_is_refused_far_below_the_largest_body() -> None:
    bomb = gzip.compress(b" " * 20 * MOST)
    with pytest.raises(BridgeError) as caught:
        read(bomb, "gzip", 32 * MOST)
    assert caught.value.code == "payload_too_large"
    assert read(gzip.compress(b" " * MOST_BESIDES), "gzip", 32 * MOST) == b" " * MOST_BESIDES


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_text_with_a_mark_is_read(encoding: str) -> None:
    assert as_utf8(BODY.decode().encode(encoding)) == BODY


@pytest.mark.parametrize(("mark", "encoding"), [(b"\xfe\xff", "utf-16-be"), (b"\x00\x00\xfe\xff", "utf-32-be")])
def test_the_other_order_of_bytes_too(mark: bytes, encoding: str) -> None:
    assert as_utf8(mark + BODY.decode().encode(encoding)) == BODY


@pytest.mark.parametrize(
    "body", [b"", BODY, b"\xff\xfe\x00", b"\xff\xfe\x3d\xd8{\x00", b"\x80PG", "Grüße".encode("latin-1")]
)
def test_what_has_no_mark_or_is_not_what_it_says_stays_as_it_is(body: bytes) -> None:
    assert as_utf8(body) == body
