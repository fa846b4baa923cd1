"""Images of the native API: four kinds, told by their bytes, in every spelling of a data URL, and nothing else."""

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


#: A PNG with all the letters of base64 that differ between its alphabets, and with padding.
PICTURE = picture("png") + b"\xfb\xef\xbe\xff" * 3
PICTURE += b"\xff" * (1 - len(PICTURE) % 3 or 3)
DATA = base64.b64encode(PICTURE).decode()
SPELLINGS = [
    f"data:image/jpeg;base64,{DATA}",
    f"data:image/jpg;base64,{DATA}",
    f"data:application/octet-stream;base64,{DATA}",
    f"data:;base64,{DATA}",
    f"data:image/png;charset=utf-8;base64,{DATA}",
    f"DATA:IMAGE/PNG;BASE64,{DATA}",
    f"data:image/png;base64, {DATA[:20]}\r\n {DATA[20:]}",
    f"data:image/png;base64,{DATA.rstrip('=')}",
    f"data:image/png;base64,{base64.urlsafe_b64encode(PICTURE).decode()}",
    f"data:image/png;base64,{DATA.replace('+', '%2B').replace('/', '%2F').replace('=', '%3D')}",
]


@pytest.mark.parametrize("url", SPELLINGS, ids=range(len(SPELLINGS)))
def test_the_bytes_say_what_an_image_is_however_its_data_url_is_spelled(url: str) -> None:
    assert {"+", "/", "="} <= set(DATA)
    (image, _) = parse(userPrompt="x", images=[url]).messages[0].content
    assert image == Image("image/png", DATA, SIZE[0] * SIZE[1])


@pytest.mark.parametrize("label", ["image/jpeg", "image/jpg", "application/octet-stream", "IMAGE/PNG", ""])
def test_the_bytes_say_what_an_image_part_is(label: str) -> None:
    part = {"type": "image", "mediaType": label, "data": DATA}
    (image,) = parse(messages=[{"role": "user", "content": [part]}]).messages[0].content
    assert image == Image("image/png", DATA, SIZE[0] * SIZE[1])


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
    data_url("png", b"<svg/>"),
    data_url("png", b"\x89PNG\r\n\x1a\n"),
    data_url("gif", b"GIF89a"),
    data_url("png", png_head(0, 7)),
    data_url("webp", b"RIFF\0\0\0\0WAVEfmt "),
    PNG_URL + "\n\0",
]


@pytest.mark.parametrize("url", BAD_IMAGES, ids=repr)
def test_what_is_no_image_is_refused(url: str) -> None:
    assert "images[1]" in refusal(userPrompt="x", images=[PNG_URL, url])


def test_an_image_part_of_another_kind_or_content_is_refused() -> None:
    for kind, data in (("image/svg+xml", "PHN2Zy8+"), ("image/png", "%%%"), ("image/png", "PHN2Zy8+")):
        part = {"type": "image", "mediaType": kind, "data": data}
        assert "messages[" in refusal(messages=[{"role": "user", "content": [part]}])


def test_fifty_images_are_taken_and_one_more_is_not() -> None:
    assert len(parse(userPrompt="x", images=[PNG_URL] * 50).messages[0].content) == 51
    assert "at most 50 images" in refusal(userPrompt="x", images=[PNG_URL] * 51)
