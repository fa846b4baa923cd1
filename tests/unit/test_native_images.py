"""Images of the native API: four kinds, as what they say they are, and nothing else."""

from __future__ import annotations

import base64

import pytest

from bridge.types import Image
from tests.unit.test_native_wire import PNG, PNG_URL, parse, refusal
from tests.unit.test_pixels import SIZE, picture, png_head


def data_url(kind: str, raw: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(raw).decode()}"


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "webp"])
def test_each_kind_of_image_is_taken(kind: str) -> None:
    raw = picture(kind)
    assert parse(userPrompt="x", images=[data_url(kind, raw)]).messages[0].content[0] == Image(
        f"image/{kind}", base64.b64encode(raw).decode(), SIZE[0] * SIZE[1]
    )


def test_an_image_with_too_many_pixels_is_refused_and_the_sentence_says_how_many_it_may_have() -> None:
    bomb = data_url("png", png_head(30_000, 30_000))
    said = refusal(userPrompt="x", images=[PNG_URL, bomb])
    assert said == "images[1] has 30000 x 30000 pixels; an image may have 50 million."
    assert parse(userPrompt="x", images=[data_url("png", png_head(10_000, 5_000))]).pixels == 50_000_000


def test_the_images_of_a_request_have_a_bound_together_wherever_they_stand() -> None:
    image = {"type": "image", "mediaType": "image/png"}
    data = base64.b64encode(png_head(10_000, 4_500)).decode()
    turns = [{"role": "user", "content": [{**image, "data": data}]}, {"role": "assistant", "content": "yes"}] * 4
    said = refusal(messages=[*turns, {"role": "user", "content": [{**image, "data": data}]}])
    assert said == "The images have 225.0 million pixels together; they may have 200."


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
    data_url("png", b"\x89PNG\r\n\x1a\n"),
    data_url("gif", b"GIF89a"),
    data_url("png", png_head(0, 7)),
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
