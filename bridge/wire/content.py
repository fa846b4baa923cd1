"""What the bodies of every API are made of, checked the same way: JSON, texts, images, names. Pure.

`field` and `where` are the place in the body, as the sentence of a refusal names it. Everything here
raises BridgeError (invalid_request).
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated, Any, TypeVar
from urllib.parse import unquote

import msgspec
from msgspec import Meta

from bridge.errors import BridgeError
from bridge.types import MODEL_PATTERN, Image
from bridge.wire import pixels

T = TypeVar("T")

#: Longest prompt, and all of a conversation together, in characters.
MAX_PROMPT_CHARACTERS, MAX_CONVERSATION_CHARACTERS = 500_000, 2_000_000
#: Most pixels of one image, and of all images of a request together: what a CLI decodes lies in memory.
MAX_PIXELS, MAX_PIXELS_TOGETHER = 50_000_000, 200_000_000
#: Most values of a body. `[],` takes three bytes in a body, and sixty-four in memory; all other requests stand still
#: while a body is decoded.
MAX_VALUES = 50_000

#: Longest link, in characters.
MAX_LINK_CHARACTERS = 2000

NO_DATA_URL = "is not a data URL of a png, jpeg, gif or webp image (data:image/png;base64,...)."

#: Types of fields whose further rules the checks below tell better than a decoder; the API description has them.
ModelName = Annotated[str, Meta(extra_json_schema={"pattern": f"^{MODEL_PATTERN}$"})]
Prompt = Annotated[str, Meta(extra_json_schema={"minLength": 1, "maxLength": MAX_PROMPT_CHARACTERS, "pattern": r"\S"})]
#: No data URL of an image is shorter than 24: said here, so that millions of short texts end the decoding at once.
ImageUrl = Annotated[str, Meta(min_length=24, extra_json_schema={"pattern": "^[dD][aA][tT][aA]:[^,]*;base64,"})]
MediaType = Annotated[str, Meta(extra_json_schema={"examples": ["image/png", "image/jpeg", "image/gif", "image/webp"]})]
Schema = Annotated[dict[str, Any], Meta(extra_json_schema={"description": "a JSON Schema"})]

_DATA_URL = re.compile(r"data:[^,]{0,200};\s*base64\s*", re.IGNORECASE)
#: A link that a provider can follow: to a host by a name that is known outside. No address is one, in any spelling, nor
#: is a name below what RFC 6762 (appendix G), RFC 8375 and ICANN leave to networks of one's own.
_LINK = re.compile(
    r"https://(?:[a-z0-9_-]+\.)+"
    r"(?!(?:internal|intranet|private|corp|home|lan|local|localhost|arpa)(?![a-z0-9-]))[a-z][a-z0-9-]*"
    r"(?::\d{1,5})?(?:[/?#].*)?",
    re.IGNORECASE,
)
#: base64's alphabet for URLs -> the plain one
_PLAIN = bytes.maketrans(b"-_", b"+/")
#: how the files of each type begin
_MAGIC = {
    "image/png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "image/jpeg": re.compile(rb"\xff\xd8\xff"),
    "image/gif": re.compile(rb"GIF8[79]a"),
    "image/webp": re.compile(rb"RIFF....WEBP", re.DOTALL),
}
#: The escape of half a character, in JSON: one without its other half cannot be read.
_HALF = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F]")


def invalid(message: str, param: str | None = None) -> BridgeError:
    """The refusal of a body; `param` is the field, for the APIs whose errors have a place for it."""
    facts: dict[str, Any] = {} if param is None else {"param": param}
    return BridgeError("invalid_request", message, **facts)


def decode(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """The value of a body. One with more values than anybody means is refused before it is decoded."""
    if len(body) > MAX_VALUES and _marks(body) > MAX_VALUES and _has_too_many_values(body):
        raise invalid(f"The body has more than {MAX_VALUES} values.")
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise invalid(sentence(str(error))) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise invalid(_why_no_json(body)) from None


def _why_no_json(body: bytes) -> str:
    """What is wrong with a body that cannot be read."""
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return f"The body is not UTF-8, from byte {error.start} on; send it as UTF-8."
    if _HALF.search(body):
        return "The body has half a character (an escape such as \\ud83d without its other half)."
    return "The body is not valid JSON."


def _marks(body: bytes) -> int:
    return sum(map(body.count, (b",", b"[", b"{")))


def _has_too_many_values(body: bytes) -> bool:
    """Whether there are too many, by the marks between texts: those within one count nothing."""
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    if body.count(b'"') > 4 * MAX_VALUES:
        return True
    return sum(map(_marks, body.split(b'"')[::2])) > MAX_VALUES


def prompt(field: str, text: str) -> str:
    """`text`, if it is something that a CLI can be given."""
    if len(text) > MAX_PROMPT_CHARACTERS:
        raise invalid(f"{field} is longer than {MAX_PROMPT_CHARACTERS} characters.")
    if "\0" in text:
        raise invalid(f"{field} contains a NUL character.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise invalid(f"{field} contains half a character (a lone surrogate).") from None
    return text


def encode(value: Any, where: str) -> str:
    """A value of a body as JSON again."""
    try:
        return msgspec.json.encode(value).decode()
    except (UnicodeEncodeError, RecursionError, msgspec.MsgspecError):
        raise invalid(f"{where} is nested too deep, or has half a character.") from None


def image_at(url: str, where: str) -> Image:
    """The image of a data URL, or a link to one."""
    if url[:6].lower() == "https:":
        return linked_image(url, where)
    if url[:5].lower() == "data:":
        return image_of_url(url, where)
    raise invalid(f"{where} is no https link to an image, and {NO_DATA_URL}")


def linked_image(url: str, where: str) -> Image:
    """An image that its provider fetches; the bridge fetches nothing."""
    if len(url) > MAX_LINK_CHARACTERS or not url.isascii() or not url.isprintable() or " " in url:
        raise invalid(f"{where}: an https link may have {MAX_LINK_CHARACTERS} characters, of ASCII, and no blanks.")
    if not _LINK.fullmatch(url):
        raise invalid(
            f"{where} is no https link to a host with a name, such as https://example.com/cat.png; it may have no user "
            "name and no password."
        )
    return Image(url=url)


def image_of_url(url: str, where: str) -> Image:
    """The image of a data URL, however that is spelled."""
    head, comma, data = url.partition(",")
    if not comma or not _DATA_URL.fullmatch(head):
        raise invalid(f"{where} {NO_DATA_URL}")
    return image(unquote(data) if "%" in data else data, where)


def image(data: str, where: str) -> Image:
    """An image of base64: in either alphabet, with padding or without. The bytes say of which kind it is, since what
    clients call it is often wrong."""
    try:
        # Not by a regular expression: a body of nothing but blanks would take seconds.
        plain = data.encode("ascii").translate(_PLAIN, b" \t\r\n\f\v").rstrip(b"=")
        raw = base64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise invalid(f"{where} is not valid base64.") from None
    media_type = next((name for name, magic in _MAGIC.items() if magic.match(raw)), None)
    if media_type is None:
        raise invalid(f"{where} is no png, jpeg, gif or webp image.")
    size = pixels.size_of(media_type, raw)
    if size is None:
        raise invalid(f"{where} is no {media_type} image that can be read: its header does not say its size.")
    width, height = size
    if width * height > MAX_PIXELS:
        raise invalid(f"{where} has {width} x {height} pixels; an image may have {MAX_PIXELS // 10**6} million.")
    return Image(media_type, base64.b64encode(raw).decode(), width * height)


def model_name(name: str) -> str:
    """`name`, if it may be that of a model."""
    if not re.fullmatch(MODEL_PATTERN, name):
        raise invalid("model is not a well-formed model name.")
    return name


def sentence(error: str) -> str:
    """msgspec's message with the field's name first: ``Expected `str`, got `int` - at `$.userPrompt` ``."""
    text, _, path = error.partition(" - at ")
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", text, re.DOTALL)
    place = path.strip("`").removeprefix("$").removeprefix(".")
    if unknown:
        field = f"{place}.{unknown.group(1)}" if place else unknown.group(1)
        return f"Unknown field {field[:100]!r}."
    if place.startswith("images[") and "length" in text:
        return f"{place} {NO_DATA_URL}"
    text = text.replace("`", "")
    return f"{place[:200]}: {text[:300]}." if place else f"{text[:300]}."
