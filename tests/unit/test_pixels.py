"""How large a picture is, by its header: as decoders see it, whatever the header hides."""

from __future__ import annotations

import io
import struct
import time
import zlib
from collections.abc import Callable

import pytest
from PIL import Image as Picture

from bridge.wire.pixels import size_of

SIZE = (317, 211)


def picture(kind: str, size: tuple[int, int] = SIZE, **options: object) -> bytes:
    file = io.BytesIO()
    Picture.new("RGB", size, "white").save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack("<4sI", kind, len(body)) + body + b"\0" * (len(body) % 2)


def webp(*chunks: bytes) -> bytes:
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def png_head(width: int, height: int) -> bytes:
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + ihdr + struct.pack(">I", zlib.crc32(ihdr))


PICTURES = {
    "png": ("png", picture("PNG")),
    "jpeg": ("jpeg", picture("JPEG")),
    "progressive jpeg": ("jpeg", picture("JPEG", progressive=True)),
    "jpeg with a large profile": ("jpeg", picture("JPEG", icc_profile=b"x" * 200_000)),
    "jpeg with a comment": ("jpeg", picture("JPEG", comment=b"\xff\xc0" * 100)),
    "gif": ("gif", picture("GIF")),
    "gif with a comment": ("gif", picture("GIF", comment=b"," * 3000)),
    "webp": ("webp", picture("WEBP")),
    "webp without loss": ("webp", picture("WEBP", lossless=True)),
    "webp with more": ("webp", picture("WEBP", exif=b"x" * 1001)),
}


@pytest.mark.parametrize("name", PICTURES)
def test_the_size_is_that_which_a_decoder_finds(name: str) -> None:
    kind, raw = PICTURES[name]
    assert size_of(f"image/{kind}", raw) == Picture.open(io.BytesIO(raw)).size == SIZE


def test_a_moving_picture_has_the_size_of_its_canvas() -> None:
    for kind in ("GIF", "WEBP"):
        more = [Picture.new("RGB", SIZE, colour) for colour in ("red", "blue")]
        assert size_of(f"image/{kind.lower()}", picture(kind, save_all=True, append_images=more)) == SIZE


LARGER_THAN_IT_SAYS = {
    "gif": (
        "gif",
        b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0, 0, 0) + b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0),
    ),
    "webp lossy": (
        "webp",
        webp(chunk(b"VP8X", b"\0" * 10), chunk(b"VP8 ", b"\x10\0\0\x9d\x01\x2a" + struct.pack("<HH", 16383, 16383))),
    ),
    "webp lossless": (
        "webp",
        webp(chunk(b"VP8X", b"\0" * 10), chunk(b"VP8L", b"\x2f" + struct.pack("<I", 16382 | 16382 << 14) + b"\0" * 8)),
    ),
}


@pytest.mark.parametrize("name", LARGER_THAN_IT_SAYS)
def test_a_frame_that_is_larger_than_its_canvas_counts(name: str) -> None:
    kind, raw = LARGER_THAN_IT_SAYS[name]
    width, height = size_of(f"image/{kind}", raw) or (0, 0)
    assert width * height >= 16383 * 16383


def test_a_header_of_a_hundred_bytes_can_say_a_billion_pixels() -> None:
    assert size_of("image/png", png_head(30_000, 30_000)) == (30_000, 30_000)


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_that_breaks_off_in_its_header_has_no_size_and_no_error(name: str) -> None:
    kind, raw = PICTURES[name]
    found = [size_of(f"image/{kind}", raw[:length]) for length in range(12, 40)]
    assert set(found) <= {None, SIZE}
    assert found[0] is None


FILLERS: dict[str, Callable[[], tuple[str, bytes]]] = {
    "jpeg of fill bytes": lambda: ("jpeg", b"\xff\xd8" + b"\xff" * 30_000_000),
    "jpeg of small segments": lambda: ("jpeg", b"\xff\xd8" + b"\xff\xe1\0\2" * 7_000_000),
    "jpeg of restart markers": lambda: ("jpeg", b"\xff\xd8" + b"\xff\xd0" * 15_000_000),
    "gif of extensions": lambda: ("gif", b"GIF89a" + bytes(7) + b"!\xfe\0" * 10_000_000),
    "gif of small blocks": lambda: ("gif", b"GIF89a" + bytes(7) + b"!\xfe" + b"\1x" * 15_000_000),
    "webp of empty chunks": lambda: ("webp", webp(b"JUNK\0\0\0\0" * 4_000_000)),
}


@pytest.mark.parametrize("name", FILLERS)
def test_what_only_goes_on_is_given_up_at_once(name: str) -> None:
    kind, raw = FILLERS[name]()
    began = time.process_time()
    assert size_of(f"image/{kind}", raw) is None
    assert time.process_time() - began < 1
