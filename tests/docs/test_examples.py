"""Every example of README.md and docs/api.md runs, against a server with simulated CLIs."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.http.app import document
from tests.support.server import ADMIN_KEY, Server

ROOT = Path(__file__).resolve().parents[2]
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
#: For browsers.
PAGES = {"/", "/docs", "/docs/style.css", "/admin/", "/admin", "/static/{version}/{name}"}
#: What a call of the SDKs in Python asks for, below /v1.
SDK_CALLS = {
    "chat.completions.create(": "chat/completions",
    "client.completions.create(": "completions",
    "responses.create(": "responses",
    "responses.input_tokens.count(": "responses/input_tokens",
    "messages.create(": "messages",
    "messages.count_tokens(": "messages/count_tokens",
}
#: So that a refusal fails the example, and a placeholder does not hide the real key.
SHELL = 'set -e\ncurl() { command curl --silent --show-error --fail-with-body "$@"; }\n'


def _blocks(language: str) -> list[tuple[str, str]]:
    """(where, text) of each example in a language that calls the server."""
    found = []
    for page in ("README.md", "docs/api.md"):
        text = (ROOT / page).read_text()
        for match in re.finditer(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            if "127.0.0.1:3456" in match[1] or "generate(" in match[1]:
                found.append((f"{page}:{text[: match.start()].count(chr(10)) + 1}", match[1]))
    return found


@pytest.mark.parametrize("language", ["sh", "python", "js"])
def test_every_endpoint_has_an_example_in_each_language(language: str) -> None:
    examples = "\n".join(text for _, text in _blocks(language))
    if language == "python":
        # The SDKs know these paths themselves.
        for call, path in SDK_CALLS.items():
            assert call in examples
            examples += f"/v1/{path} "
    missing = []
    for path in document()["paths"]:
        pattern = re.sub(r"\\\{\w+\\\}", r"[^/\\s]+", re.escape(path))
        if path not in PAGES and not re.search(rf"{pattern}(?![\w/-])", examples):
            missing.append(path)
    assert missing == []


def _run(argv: list[str], text: str, server: Server, folder: Path) -> str:
    """Run an example given on standard input; what it printed."""
    if server.admin("GET", "/keys/reader").status == 404:
        server.new_key("reader")
    key = server.admin("POST", "/keys/reader/rotate").json["key"]
    (folder / "picture.png").write_bytes(PIXEL)
    done = subprocess.run(
        argv,
        input=text.replace("127.0.0.1:3456", f"127.0.0.1:{server.port}"),
        env={"PATH": os.environ["PATH"], "KEY": key, "ADMIN_KEY": ADMIN_KEY},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(("where", "text"), _blocks("python"), ids=lambda value: value if ".md:" in value else "")
def test_python(where: str, text: str, server: Server, tmp_path: Path) -> None:
    if "import" not in text:
        text = next(block for _, block in _blocks("python") if "def generate(" in block) + text
    assert _run([sys.executable, "-"], text, server, tmp_path).strip()


@pytest.mark.parametrize(("where", "text"), _blocks("js"), ids=lambda value: value if ".md:" in value else "")
def test_javascript(where: str, text: str, server: Server, tmp_path: Path) -> None:
    assert _run(["node", "--input-type=module", "-"], text, server, tmp_path).strip()


@pytest.mark.parametrize(("where", "text"), _blocks("sh"), ids=lambda value: value if ".md:" in value else "")
def test_shell(where: str, text: str, server: Server, tmp_path: Path) -> None:
    text = re.sub(r"^export \w*KEY=.*\n", "", text, flags=re.MULTILINE)
    assert _run(["bash", "-"], SHELL + text, server, tmp_path).strip()
