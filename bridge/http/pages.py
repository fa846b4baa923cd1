"""The pages: `/` for key holders and `/admin/` for the admin, and the files that they are made of.

A page is an empty frame that is the same for everybody: it holds no data, and its modules ask the API
like any other client. So what a page may show is decided in one place.
"""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
import re
from functools import cache
from pathlib import Path

import msgspec
from flask import Response, make_response, render_template, request

from bridge import __version__
from bridge.errors import BridgeError
from bridge.http.describe import Routes
from bridge.keys.credentials import BOUNDS
from bridge.limits import rows
from bridge.registry import PROVIDERS

routes = Routes("Pages")

STATIC = "/static/"
_HTML = {"text/html": "A page."}
_FOLDER = Path(__file__).with_name("static")
_PUBLIC = (".css", ".js", ".svg")
#: Lines that consist of a comment alone: `// …`, and `/* … */` over one or more.
_COMMENT = re.compile(rb"^[ \t]*(?://.*|/\*(?:[^*]|\*(?!/))*\*/[ \t]*)$", re.MULTILINE)

# No inline scripts or styles, no other hosts, and no text that becomes HTML (Trusted Types without a policy).
_CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)


class Files(msgspec.Struct, frozen=True):
    """All public files of the pages, by their path below static/, and a name for this very set of them."""

    version: str
    content: dict[str, bytes]

    def modules(self, area: str) -> list[str]:
        """The paths of the modules that a page of that area imports."""
        return sorted(name for name in self.content if name.startswith(("js/lib/", f"js/{area}/")))


@cache
def files() -> Files:
    """Read once; they belong to the program."""
    paths = sorted(path for path in _FOLDER.rglob("*") if path.suffix in _PUBLIC)
    content = {path.relative_to(_FOLDER).as_posix(): without_comments(path.read_bytes()) for path in paths}
    content["js/lib/registry.js"] = _registry()
    digest = hashlib.sha256()
    for name, data in content.items():
        digest.update(f"{name} {len(data)} ".encode() + data)
    return Files(digest.hexdigest()[:12], content)


def without_comments(source: bytes) -> bytes:
    """A script or a style sheet as a browser needs it: a comment's lines are empty, so that all others keep their
    numbers. A text of several lines must not have one that looks like a comment; a test reads every file for that."""
    return _COMMENT.sub(lambda comment: b"\n" * comment[0].count(b"\n"), source)


@cache
def _compressed(name: str) -> bytes:
    """A file with gzip; it is the same for everybody and holds no secret."""
    return gzip.compress(files().content[name], mtime=0)


def _registry() -> bytes:
    """A module with the tables that the pages read: each provider by its name, the limits in their order, and the
    bounds of a credential's fields."""
    fields = ("title", "program", "vendor", "path", "key_prefix", "key_variable")
    known = {name: {_camel(each): getattr(row, each) for each in fields} for name, row in PROVIDERS.items()}
    # What a limit has not is left out: a script finds nothing there, as in an empty text.
    limits = [{field: text for field, text in row.items() if text} for row in rows()]
    tables = {"PROVIDERS": known, "LIMITS": limits, "CREDENTIAL_BOUNDS": BOUNDS}
    return b"".join(b"export const %s = %s;\n" % (n.encode(), msgspec.json.encode(t)) for n, t in tables.items())


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))


@routes.add("GET", "/", media=_HTML)
def playground() -> Response:
    """The page for key holders: playground and own usage."""
    return _page("playground.html", "play")


@routes.add("GET", "/admin/", media=_HTML)
def admin() -> Response:
    """The dashboard."""
    return _page("admin.html", "admin")


@routes.add("GET", "/admin", status=302, media=_HTML)
def admin_without_slash() -> Response:
    """Leads to the dashboard, by a path: what scheme and host the browser sees is not known here."""
    return Response(status=302, headers={"Location": "/admin/"})


@routes.add("GET", f"{STATIC}<version>/<path:name>", counted=False, errors=("not_found",), media=_HTML)
def static_file(version: str, name: str) -> Response:
    """A file of the pages. Its URL changes with the content, so it may be kept for ever."""
    found = files()
    if version != found.version or name not in found.content:
        raise BridgeError("not_found", "There is no such file; reload the page.")
    kind = "text/javascript" if name.endswith(".js") else mimetypes.guess_type(name)[0]
    small = request.accept_encodings.quality("gzip") > 0
    response = Response(_compressed(name) if small else found.content[name], mimetype=kind)
    if small:
        response.headers["Content-Encoding"] = "gzip"
    response.vary.add("Accept-Encoding")
    response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
    return response


def _page(template: str, area: str) -> Response:
    found = files()

    def static(name: str) -> str:
        return f"{STATIC}{found.version}/{name}"

    response = make_response(render_template(template, static=static, modules=found.modules(area), version=__version__))
    response.headers["Content-Security-Policy"] = _CONTENT_SECURITY_POLICY
    response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
    return response
