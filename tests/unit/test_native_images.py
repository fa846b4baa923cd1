"""Images of the native API: four kinds, as what they say they are, and nothing else."""

from __future__ import annotations

import base64

import pytest

from bridge.types import Image
from tests.unit.test_native_wire import PNG, PNG_URL, parse, refusal


def data_url(kind: str, raw: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(raw).decode()}"


@pytest.mark.parametrize(
    ("kind", "raw"),
    [("png", b"\x89PNG\r\n\x1a\n"), ("jpeg", b"\xff\xd8\xff"), ("gif", b"GIF89a"), ("webp", b"RIFF\0\0\0\0WEBP")],
)
def test_each_kind_of_image_is_taken(kind: str, raw: bytes) -> None:
    assert parse(userPrompt="x", images=[data_url(kind, raw)]).messages[0].content[0] == Image(
        f"image/{kind}", base64.b64encode(raw).decode()
    )


BAD_IMAGES = [
    "",
    "x",
    "https://example.com/x.png",
    "file:///etc/passwd",
    "/etc/passwd",
    "data:image/png;base64,",
    "data:image/png," + PNG,
    "data:image/png;base64,%%%",
    "data:image/png;base64,A",
    "data:image/svg+xml;base64,PHN2Zy8+",
    "data:text/html;base64,PGI+",
    data_url("png", b"\xff\xd8\xff"),
    data_url("png", b"<svg/>"),
    data_url("jpeg", b"\x89PNG\r\n\x1a\n"),
    data_url("webp", b"RIFF\0\0\0\0WAVEfmt "),
    PNG_URL + "\n\0",
]


@pytest.mark.parametrize("url", BAD_IMAGES, ids=repr)
def test_what_is_no_image_is_refused(url: str) -> None:
    assert "images[1]" in refusal(userPrompt="x", images=[PNG_URL, url])


def test_an_image_part_of_another_kind_or_content_is_refused() -> None:
    for kind, data in (("image/svg+xml", PNG), ("image/gif", PNG), ("image/png", "%%%")):
        part = {"type": "image", "mediaType": kind, "data": data}
        assert "messages[" in refusal(messages=[{"role": "user", "content": [part]}])


def test_fifty_images_are_taken_and_one_more_is_not() -> None:
    assert len(parse(userPrompt="x", images=[PNG_URL] * 50).messages[0].content) == 51
    assert "at most 50 images" in refusal(userPrompt="x", images=[PNG_URL] * 51)
