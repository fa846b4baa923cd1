"""No provider's key comes near a CLI, and what a CLI has in its place is worth nothing to whoever steals it."""

from __future__ import annotations

import http.client
import json
import os
import re
from array import array
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil

from bridge.providers.codex_wire import KEY_VARIABLE
from tests.engine.harness import until
from tests.real_cli.conftest import FAKE_KEYS, Rig
from tests.support.server import ADMIN_KEY

KEYS = [key.encode() for key in FAKE_KEYS.values()]
#: Memory is read in such pieces, in bytes; a page of it is there where its entry has one of the two highest bits.
PIECE, PAGE, PRESENT = 2**21, os.sysconf("SC_PAGE_SIZE"), 1 << 62
LASTING = "[[standin mode=hang_mid]]"
_TOKEN = re.compile(rb"cbt_[A-Za-z0-9_-]{32}")
_GATE = re.compile(r"http://127\.0\.0\.1:(\d+)/v1")


def clis(rig: Rig) -> list[psutil.Process]:
    """All processes below the one that serves."""
    (worker,) = psutil.Process(rig.server.process.pid).children()
    return list(worker.children(recursive=True))


def command(process: psutil.Process) -> list[str]:
    """Its command line; nothing of one that has just ended."""
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def codex_of(rig: Rig) -> psutil.Process:
    (found,) = [process for process in clis(rig) if "app-server" in command(process)]
    return found


def claudes_of(rig: Rig) -> list[psutil.Process]:
    return [process for process in clis(rig) if "--input-format" in command(process)]


def memory(process: psutil.Process) -> Iterator[bytes]:
    """What a process has in the memory that it can write to (proc_pid_pagemap says where there is something)."""
    with (
        open(f"/proc/{process.pid}/mem", "rb", buffering=0) as file,
        open(f"/proc/{process.pid}/pagemap", "rb", buffering=0) as pages,
    ):
        for line in Path(f"/proc/{process.pid}/maps").read_text().splitlines():
            span, rights = line.split()[:2]
            begin, end = (int(each, 16) for each in span.split("-"))
            if not rights.startswith("rw"):
                continue
            for at in range(begin, end, PIECE):
                size = min(PIECE, end - at)
                entries = array("Q", os.pread(pages.fileno(), 8 * size // PAGE, 8 * at // PAGE))
                if max(entries, default=0) >= PRESENT:
                    try:
                        yield os.pread(file.fileno(), size, at)
                    except OSError:
                        break  # it belongs to a device, or is gone by now


def files_of(rig: Rig) -> list[Path]:
    """All that lies where the CLIs may write or read: their homes and what they share."""
    scratch = Path(codex_of(rig).environ()["HOME"]).parent
    return [path for path in scratch.rglob("*") if path.is_file()]


@contextmanager
def under_way(rig: Rig) -> Iterator[None]:
    """A run on each CLI whose model is in the middle of its answer; at the end of the block the admin stops it."""
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(rig.ask, path, prompt=f"{LASTING} x") for path in ("/generate", "/generate-codex")]
        rig.await_words(2)
        yield
        for run in rig.server.admin("GET", "/runs").json["runs"]:
            assert rig.server.admin("DELETE", f"/runs/{run['id']}").status == 200
        assert [each.result().json["code"] for each in asked] == ["cancelled", "cancelled"]


def steal(rig: Rig) -> tuple[set[str], str, int]:
    """What a thief finds who can look into the CLIs: claude's tickets, the token of codex, and the gate's port."""
    tickets = {found.decode() for each in claudes_of(rig) for part in memory(each) for found in _TOKEN.findall(part)}
    codex = codex_of(rig)
    gate = _GATE.search(" ".join(command(codex)))
    assert gate is not None
    return tickets, codex.environ()[KEY_VARIABLE], int(gate[1])


def knock(port: int, path: str, headers: dict[str, str], body: object) -> int:
    """The status that the gate answers to a process that is none of the bridge's."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json", **headers})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def test_no_process_below_the_server_has_a_key_of_a_provider(rig: Rig) -> None:
    assert rig.ask("/generate", prompt="so that a process is kept").status == 200
    rig.standin.control("DELETE", "/__requests", None)
    with under_way(rig):
        assert until(lambda: len(claudes_of(rig)) >= 1), "one is at work"
        processes = clis(rig)
        for process in processes:
            for name in ("environ", "cmdline"):
                said = Path(f"/proc/{process.pid}/{name}").read_bytes()
                assert not any(key in said for key in KEYS), (process, name)
        held = [(process, part) for process in processes for part in memory(process)]
        assert not [process for process, part in held if any(key in part for key in KEYS)]
        assert [process for process, part in held if _TOKEN.search(part)], "the right memory was read"
        for path in files_of(rig):
            said = path.read_bytes()
            assert not any(key in said for key in KEYS), path
            assert b"cbt_" not in said, path
    sent = {each.api: each.headers for each in rig.standin.generations}
    assert sent["anthropic"]["x-api-key"] == FAKE_KEYS["ANTHROPIC_API_KEY"]
    assert sent["openai"]["authorization"] == f"Bearer {FAKE_KEYS['OPENAI_API_KEY']}"
    for each in rig.standin.requests:
        assert not re.search(r"cb[tp]_", json.dumps([each.headers, each.body]))


def test_a_stolen_token_opens_nothing_during_its_call_and_after_it(rig: Rig) -> None:
    with under_way(rig):
        tickets, of_codex, port = steal(rig)
        assert tickets
        claude, codex = sorted(rig.standin.generations, key=lambda each: each.api)
        bearer, thread = {"authorization": f"Bearer {of_codex}"}, codex.headers["thread-id"]
        attempts = [
            *(("/v1/messages?beta=true", {"x-api-key": ticket}, claude.body) for ticket in tickets),
            *(("/v1/messages", {"authorization": f"Bearer {ticket}"}, claude.body) for ticket in tickets),
            ("/v1/messages", {}, claude.body),
            ("/v1/messages", {"x-api-key": FAKE_KEYS["ANTHROPIC_API_KEY"]}, claude.body),
            ("/v1/messages", {"x-api-key": of_codex}, claude.body),
            ("/v1/responses", bearer, codex.body),
            ("/v1/responses", {**bearer, "thread-id": "0198a9f6-0000-7000-8000-000000000000"}, codex.body),
            ("/v1/responses", {**bearer, "thread-id": thread}, codex.body),
            ("/v1/responses", {"thread-id": thread}, codex.body),
            *(("/v1/responses", {"x-api-key": ticket, "thread-id": thread}, codex.body) for ticket in tickets),
        ]
        assert [knock(port, *each) for each in attempts] == [401] * len(attempts)
    assert [knock(port, *each) for each in attempts] == [401] * len(attempts), "its run has ended"
    assert len(rig.standin.requests) == 2
    assert not any(word in line for line in rig.server.output for word in (of_codex, *tickets))
    counted = rig.server.call("GET", "/metrics", key=ADMIN_KEY).body.decode()
    assert re.search(r'gate_refused_total\{reason="second call"\} [1-9]', counted)


def test_the_token_of_a_codex_process_ends_with_it(rig: Rig) -> None:
    assert rig.ask("/generate-codex", prompt="x").status == 200
    _, of_codex, port = steal(rig)
    process = codex_of(rig)
    process.kill()
    process.wait(5)
    assert rig.ask("/generate-codex", prompt="y").status == 200
    sent = rig.standin.generations[-1]
    headers = {"authorization": f"Bearer {of_codex}", "thread-id": sent.headers["thread-id"]}
    assert knock(port, "/v1/responses", headers, sent.body) == 401
