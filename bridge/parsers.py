"""From the text of a setting to its value. Each raises ValueError with a sentence that fits after the name."""

from __future__ import annotations

import math
import os
import re
import zoneinfo
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from bridge.types import MODEL_PATTERN


def word(value: str) -> str:
    """A text without spaces."""
    if re.search(r"\s|\0", value):
        raise ValueError("must be one word, without spaces")
    return value


def secret(value: str) -> str:
    """A secret, without the spaces and line breaks around it, which a file adds to what is pasted into it."""
    value = value.strip()
    if not value or re.search(r"\s", value) or not value.isprintable():
        raise ValueError("must be one piece, without spaces or line breaks in it")
    return value


def integer(lowest: int, highest: int = 2**31) -> Callable[[str], int]:
    """A whole number within bounds."""

    def parse(value: str) -> int:
        if not re.fullmatch(r"\d{1,12}", value) or not lowest <= int(value) <= highest:
            raise ValueError(f"must be a whole number from {lowest} to {highest}")
        return int(value)

    return parse


def auto(parse: Callable[[str], int]) -> Callable[[str], int | None]:
    """`auto` as None, or what `parse` takes."""
    return lambda value: None if value == "auto" else parse(value)


def number(lowest: float, highest: float = 1e9) -> Callable[[str], float]:
    """A finite number within bounds."""

    def parse(value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not (math.isfinite(number) and lowest <= number <= highest):
            raise ValueError(f"must be a number from {lowest:g} to {highest:g}")
        return number

    return parse


def choice(*choices: str) -> Callable[[str], str]:
    """One of a few words."""

    def parse(value: str) -> str:
        if value not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return value

    return parse


def switch(value: str) -> bool:
    """`on` or `off`."""
    if value not in ("on", "off"):
        raise ValueError("must be on or off")
    return value == "on"


def admin_key(value: str) -> str:
    """A secret that is long enough. It may have spaces in it, for it is typed on a page."""
    value = value.strip()
    if len(value) < 16 or not value.isprintable():
        raise ValueError("must have at least 16 characters, on one line")
    return value


def program(value: str) -> str:
    """The name of a program on PATH, or its path."""
    return _as_it_stands(value, "the name or the path of a program")


def file(value: str) -> str:
    """The path of a file."""
    return _as_it_stands(value, "the path of a file")


def folder(value: str) -> Path:
    """The path of a folder."""
    return Path(_as_it_stands(value, "the path of a folder"))


def socket(value: str) -> str:
    """The path of a unix socket, which the kernel bounds (unix(7))."""
    if len(value.encode()) > 107:
        raise ValueError("must be the path of a unix socket, which has at most 107 bytes")
    return _as_it_stands(value, "the path of a unix socket")


def _as_it_stands(value: str, what: str) -> str:
    if not value or value != value.strip() or "\0" in value:
        raise ValueError(f"must be {what}, without spaces around it")
    return value


def user(value: str) -> str:
    """The name of a user."""
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", value):
        raise ValueError("must be the name of a user")
    return value


def model(value: str) -> str:
    """A model name."""
    if not re.fullmatch(MODEL_PATTERN, value):
        raise ValueError("must be a model name such as claude-sonnet-5-5")
    return value


def models(value: str) -> tuple[str, ...]:
    """Comma-separated model names."""
    found = names(value)
    for name in found:
        model(name)
    return found


def names(value: str) -> tuple[str, ...]:
    """Comma-separated names."""
    return tuple(name.strip() for name in value.split(",") if name.strip())


def origins(value: str) -> tuple[str, ...]:
    """Comma-separated origins; `none` and `*` are words."""
    found = () if value == "none" else names(value)
    for name in found:
        if name != "*" and "*" in name:
            raise ValueError("must name each origin in full: a * stands for all of them, or for nothing")
        if name != "*" and not re.fullmatch(r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?", name):
            raise ValueError("must be origins such as https://app.example.com, or *")
    return found


def url(value: str) -> str:
    """An HTTP URL, without a slash at its end."""
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.netloc or re.search(r"\s", value):
        raise ValueError("must be a URL that begins with http:// or https://, without spaces")
    return value.rstrip("/")


def store(value: str) -> str:
    """The address of a Redis."""
    parts = urlsplit(value.strip())
    if parts.scheme not in ("redis", "rediss", "unix") or not (parts.netloc or parts.path.strip("/")):
        raise ValueError("must begin with redis://, rediss:// or unix://, such as redis://redis.example:6379/0")
    if parts.fragment:
        raise ValueError("must have no '#': in a user or password it is written as %23, '/' as %2F, '@' as %40")
    return value.strip()


def node(value: str) -> str:
    """The name of a host among others."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", value):
        raise ValueError("must be 1 to 63 of A-Z, a-z, 0-9, '.', '_' and '-', and begin with a letter or a digit")
    return value


def proxy(value: str) -> str:
    """The URL of an HTTP proxy, which may lack its scheme (http). User and password come out percent-encoded."""
    value = value.strip()
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        port = "" if parts.port is None else f":{parts.port}"
    except ValueError:
        port = None
    if port is None or not parts.hostname or re.search(r"\s", value) or parts.path not in ("", "/") or parts.query:
        raise ValueError(
            "must be a proxy such as http://proxy.example:3128 or http://user:password@proxy.example:3128; "
            "in a password, / is written as %2F, : as %3A and @ as %40"
        )
    if parts.scheme not in ("http", "https"):
        raise ValueError("must be an HTTP proxy (http:// or https://): others, such as SOCKS, are not spoken")
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    login = "" if parts.username is None else quote(unquote(parts.username), safe="")
    if parts.password is not None:
        login += ":" + quote(unquote(parts.password), safe="")
    return f"{parts.scheme}://{login + '@' if login else ''}{name}{port}"


def hosts(value: str) -> tuple[str, ...]:
    """Hosts between commas or spaces."""
    return tuple(value.replace(",", " ").split())


def certificates(value: str) -> str:
    """The path of a file with certificates (PEM)."""
    path = os.path.abspath(_as_it_stands(value, "the path of a file with certificates"))
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"must be a file with certificates, and cannot be read ({error.strerror})") from None
    if not re.search(rb"-----BEGIN (TRUSTED )?CERTIFICATE-----", text):
        raise ValueError("must be a file with certificates in PEM (-----BEGIN CERTIFICATE-----)")
    return path


def certificate_folder(value: str) -> str:
    """The path of a folder with certificates, named by their hashes as c_rehash does."""
    path = os.path.abspath(_as_it_stands(value, "the path of a folder with certificates"))
    if not os.path.isdir(path):
        raise ValueError("must be a folder with certificates, and is none")
    return path


def team(value: str) -> str:
    """The origin of a Cloudflare Access team; plain HTTP only to this host, which is how tests do it."""
    parts = urlsplit(value if "://" in value else f"https://{value}")
    local = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")
    well_formed = re.fullmatch(r"[A-Za-z0-9.-]+(:\d{1,5})?", parts.netloc) and not (parts.path or parts.query)
    if not well_formed or not (parts.scheme == "https" or local):
        raise ValueError("must be a domain such as example.cloudflareaccess.com")
    return f"{parts.scheme}://{parts.netloc}"


def zone(value: str) -> zoneinfo.ZoneInfo:
    """A time zone."""
    try:
        return zoneinfo.ZoneInfo(value)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("must be a time zone such as UTC or Europe/Berlin") from None


def dollars(value: str) -> float:
    """An amount of money; 0 for no limit."""
    amount = number(0)(value)
    if 0 < amount < 1e-6:
        raise ValueError("must be at least a millionth of a dollar, or 0 for no limit")
    return amount
