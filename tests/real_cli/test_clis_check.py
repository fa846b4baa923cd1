"""`cli-bridge clis check` with the real CLIs, as they are and with one thing wrong each."""

from __future__ import annotations

import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.registry import PROVIDERS
from tests.real_cli.install import binaries, versions
from tests.support.server import ROOT

#: A program that stands between the bridge and a CLI: it may change its arguments and each line both ways.
_BETWEEN = """\
#!{python}
import os, subprocess, sys, threading
{change}
arguments = arguments_of(sys.argv[1:])
child = subprocess.Popen(["{program}", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
def down():
    for line in sys.stdin.buffer:
        child.stdin.write(to_cli(line))
        child.stdin.flush()
    child.stdin.close()
threading.Thread(target=down, daemon=True).start()
for line in child.stdout:
    sys.stdout.buffer.write(from_cli(line))
    sys.stdout.buffer.flush()
os._exit(child.wait())
"""
_AS_IT_IS = """
arguments_of = list
to_cli = from_cli = lambda line: line
"""
#: It keeps what opens the gate, and asks once more when an answer has come.
_ASK_AGAIN = """
import re, urllib.request
token = url = ""
def to_cli(line):
    global token, url
    found = re.search(r"cbt_[\\w-]+", line.decode())
    if found:
        token, url = found[0], re.search(r"http://127.0.0.1:\\d+", line.decode())[0]
    return line
def from_cli(line):
    if b'"type":"message_stop"' in line:
        ask = urllib.request.Request(url + "/v1/messages", b"{}", {"x-api-key": token})
        try:
            urllib.request.urlopen(ask)
        except OSError:
            pass
    return line
"""


def check(folder: Path, **programs: Path) -> tuple[int, list[dict[str, str]]]:
    """Exit status and findings, with the pinned CLIs where no others are named."""
    found = {"claude": binaries().claude, "codex": binaries().codex, **programs}
    named = [word for name, path in found.items() for word in (f"--{name}", str(path))]
    done = subprocess.run(
        [sys.executable, "-m", "bridge", "clis", "check", "--json", *named],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(folder)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def between(folder: Path, program: Path, change: str) -> Path:
    """A CLI with something wrong."""
    path = folder / "between"
    path.write_text(_BETWEEN.format(python=sys.executable, program=program, change=_AS_IT_IS + change))
    path.chmod(0o755)
    return path


def test_the_installed_ones_do_what_the_bridge_relies_on(tmp_path: Path) -> None:
    status, findings = check(tmp_path)
    installed = {name: versions()[row.package] for name, row in PROVIDERS.items()}
    untested = [name for name, version in installed.items() if version != PROVIDERS[name].tested]
    assert [(each["level"], each["what"]) for each in findings if each["level"] != "ok"] == [
        ("warn", name) for name in untested
    ]
    assert (status, len(findings)) == (0, 36)
    for name, version in installed.items():
        assert any(each["found"].startswith(f"version {version}") for each in findings if each["what"] == name)


@pytest.mark.timeout(600)
def test_the_oldest_that_are_accepted_do_it_as_well(tmp_path: Path) -> None:
    oldest = {
        row.package: ".".join(map(str, pkgutil.resolve_name(row.run_by).oldest_version)) for row in PROVIDERS.values()
    }
    programs = binaries(oldest)
    status, findings = check(tmp_path, claude=programs.claude, codex=programs.codex)
    assert [each for each in findings if each["level"] == "fail"] == []
    assert (status, len(findings)) == (0, 36)
    for name, row in PROVIDERS.items():
        said = [each["found"] for each in findings if each["what"] == name]
        assert any(text.startswith(f"version {oldest[row.package]}") for text in said)


BAD = {
    "a flag that is refused": (
        "claude",
        'arguments_of = lambda given: ["--no-such-flag", *given] if "-p" in given else given',
        "The claude CLI does not start",
    ),
    "a text about the host": (
        "claude",
        'arguments_of = lambda given: [each for each in given if each != "--bare"]',
        "sent or told something else: a system message among the messages",
    ),
    "a tool that is offered": (
        "codex",
        'TOOL = b\'"dynamicTools":[{"type":"function","name":"look","description":"","inputSchema":{}}]\'\n'
        "to_cli = lambda line: line.replace(b'\"dynamicTools\":[]', TOOL)",
        "sent or told something else",
    ),
    "a message with another name": (
        "claude",
        'from_cli = lambda line: line.replace(b\'"type":"result"\', b\'"type":"outcome"\')',
        "did not end a run within",
    ),
    "a second call": ("claude", _ASK_AGAIN, "asked the model 2 times instead of 1"),
    "a method with another name": (
        "codex",
        "from_cli = lambda line: line.replace(b'turn/completed', b'turn/finished')",
        "did not end a run within",
    ),
    "a prompt that is changed": (
        "codex",
        "to_cli = lambda line: line.replace(b'Hello.', b'Hello there.')",
        "sent or told something else: message 0",
    ),
    "a crash": ("codex", "if 'app-server' in sys.argv: os.abort()", "The codex CLI does not start"),
}


@pytest.mark.parametrize("what", BAD)
def test_one_that_does_not_is_found_out_and_told_in_words(tmp_path: Path, what: str) -> None:
    name, change, words = BAD[what]
    status, findings = check(tmp_path, **{name: between(tmp_path, getattr(binaries(), name), change)})
    failed = [each["found"] for each in findings if each["level"] == "fail" and each["what"] == name]
    assert (status, any(words in each for each in failed)) == (1, True), findings
    assert not [each for each in findings if each["level"] == "fail" and each["what"] != name]
