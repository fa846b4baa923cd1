"""A model's host that does not speak as it should: redirects, garbage, endless words. Nothing hangs, nothing leaks."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from socketserver import BaseRequestHandler, ThreadingTCPServer

import pytest

from tests.real_cli.conftest import FAKE_KEYS, Rig, await_both, environment
from tests.standin import StandIn
from tests.support import server as servers

BOTH = pytest.mark.parametrize("path", ["/generate", "/generate-codex"])
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"


class Rogue(ThreadingTCPServer):
    """Answers what the word after `ROGUE-` in a request asks for. `other` is the URL that it sends people to."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, other: str) -> None:
        self.other = other
        self.asked: list[bytes] = []
        super().__init__(("127.0.0.1", 0), _Talk)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Talk(BaseRequestHandler):
    server: Rogue

    def handle(self) -> None:
        said = b""
        while b"ROGUE-" not in said or b"\r\n\r\n" not in said:
            chunk = self.request.recv(65536)
            if not chunk:
                return
            said += chunk
        self.server.asked.append(said)
        word = re.findall(rb"ROGUE-(\w+)", said)[-1].decode()
        try:
            self._answer(word)
        except OSError:
            pass

    def _answer(self, word: str) -> None:
        send = self.request.sendall
        if word.isdigit():
            path = "/v1/messages" if b"/v1/messages" in self.server.asked[-1] else "/v1/responses"
            head = f"HTTP/1.1 {word} x\r\nlocation: {self.server.other}{path}\r\ncontent-length: 0\r\n\r\n"
            send(head.encode())
        elif word == "garbage":
            send(b"\x00\xff" * 50_000)
        elif word == "headers":
            send(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 2**20 + b"\r\n\r\n")
        elif word == "endless":
            send(STREAM)
            while True:
                send(b": more\n" * 1000)
                time.sleep(0.005)
        elif word == "line":
            send(STREAM + b"data: ")
            while True:
                send(b"x" * 10_000)
                time.sleep(0.005)
        # "nothing": it hangs up


@pytest.fixture(scope="module")
def rogue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Rig, Rogue]]:
    with StandIn() as other, Rogue(other.url) as model:
        threading.Thread(target=model.serve_forever, args=(0.05,), daemon=True).start()
        env = {
            **environment(other),
            "ANTHROPIC_BASE_URL": model.url,
            "OPENAI_BASE_URL": f"{model.url}/v1",
        }
        with servers.running(tmp_path_factory.mktemp("rogue"), env) as server:
            await_both(server)
            yield Rig(server, other, server.new_key()), model
        model.shutdown()


@BOTH
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_error_and_nothing_goes_where_it_points(
    rogue: tuple[Rig, Rogue], path: str, status: int
) -> None:
    rig, model = rogue
    before = len(model.asked)
    answer = rig.ask(path, prompt=f"ROGUE-{status}")
    assert (answer.status, answer.json["code"]) == (502, "cli_failed"), answer.body
    assert rig.standin.requests == []
    assert len(model.asked) == before + 1, "one call"
    row = rig.server.admin("GET", "/logs?limit=1").json["logs"][0]
    assert (row["upstreamStatus"], row["costUsd"]) == (status, 0)


@BOTH
@pytest.mark.parametrize("word", ["garbage", "headers", "nothing"])
def test_what_is_no_answer_is_an_error_at_once(rogue: tuple[Rig, Rogue], path: str, word: str) -> None:
    rig, model = rogue
    before, began = len(model.asked), time.monotonic()
    answer = rig.ask(path, prompt=f"ROGUE-{word}")
    assert time.monotonic() - began < 20
    assert (answer.status, answer.json["code"]) == (502, "cli_failed"), answer.body
    assert len(model.asked) == before + 1
    _is_charged_within_its_reservation(rig)


@BOTH
@pytest.mark.parametrize("word", ["endless", "line"])
def test_words_without_end_end_at_the_deadline(rogue: tuple[Rig, Rogue], path: str, word: str) -> None:
    rig, _ = rogue
    began = time.monotonic()
    answer = rig.ask(path, prompt=f"ROGUE-{word}", timeoutSeconds=2)
    assert time.monotonic() - began < 20
    assert answer.json["code"] in ("timeout", "cli_failed", "cli_bad_output"), answer.body
    _is_charged_within_its_reservation(rig)
    assert not rig.server.admin("GET", "/runs").json["runs"]


def _is_charged_within_its_reservation(rig: Rig) -> None:
    row = rig.server.admin("GET", "/logs?limit=1").json["logs"][0]
    assert 0 < row["costUsd"] <= row["reservedUsd"]
    assert row["assumed"] is True


def test_nobody_else_ever_got_a_key(rogue: tuple[Rig, Rogue]) -> None:
    rig, model = rogue
    assert model.asked
    for said in model.asked:
        assert b"cbt_" not in said
        assert b"cbp_" not in said
    for sent in rig.standin.requests:
        assert not any(key in str(sent.headers) for key in FAKE_KEYS.values())
