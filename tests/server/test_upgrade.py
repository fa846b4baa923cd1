"""Another version of a CLI comes into service under load, and goes again where its runs fail."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.clock import Clock
from bridge.ops.upgrade import LEAST_FAILED, WATCHED
from bridge.providers.programs import ChosenProgram, ProgramBook, ProgramCheck, digest_of, stamp_of
from bridge.registry import PROVIDERS
from tests.engine.harness import install_fake
from tests.support import server as servers
from tests.support.server import Server

CLIENTS = 8


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server on a fake claude in the tested version."""
    env = {
        "BRIDGE_CLAUDE_COMMAND": str(install_fake(tmp_path, "fake_claude")),
        "BRIDGE_CLAUDE_CREDENTIALS": "login",
        "BRIDGE_MAX_CONCURRENT": str(CLIENTS),
    }
    with servers.running(tmp_path, env, module="tests.support.quick_server") as running:
        yield running


@pytest.fixture
def answers(server: Server) -> Iterator[Counter[int]]:
    """Eight clients that ask for as long as the test runs; the statuses of what they get."""
    key, got, ended = server.new_key(), Counter[int](), threading.Event()

    def ask() -> None:
        while not ended.is_set():
            got[server.call("POST", "/generate", {"userPrompt": "hello"}, key=key).status] += 1

    clients = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    yield got
    ended.set()
    for client in clients:
        client.join()


def choose(server: Server, folder: Path, version: str, **options: Any) -> None:
    """What `clis upgrade` does at its end, with a fake."""
    book, tested, command = ProgramBook(server.data_dir), PROVIDERS["claude"].tested, str(folder / "claude")
    beside = folder / version
    beside.mkdir()
    path = str(install_fake(beside, "fake_claude", version=f"{version} (Claude Code)", **options))
    stamp = stamp_of(path)
    assert stamp is not None
    book.note(ProgramCheck("claude", version, Clock().now(), digest_of(path), stamp))
    before = book.choice("claude", command, tested)
    with book.change() as record:
        record.chosen["claude"] = ChosenProgram(version, path, Clock().now(), command, tested, before)


def overview(server: Server) -> Any:
    return server.admin("GET", "/overview").json


def serving(server: Server) -> str:
    found: str = next(each["version"] for each in overview(server)["providers"] if each["name"] == "claude")
    return found


def news(server: Server) -> list[str]:
    """What the alerts say about upgrades."""
    return [each["message"] for each in overview(server)["alerts"] if each["kind"] == "cli_upgrade"]


def until(condition: Callable[[], Any], within_s: float = 120.0) -> Any:
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def test_versions_change_under_load_and_nobody_notices(server: Server, answers: Counter[int], tmp_path: Path) -> None:
    until(lambda: answers[200] > CLIENTS)
    choose(server, tmp_path, "9.1.0")
    until(lambda: serving(server) == "9.1.0")
    assert until(lambda: news(server)) == [f"claude 9.1.0 stays: 0 of its first {WATCHED} runs failed."]
    choose(server, tmp_path, "9.0.0")  # and back, to an older one
    until(lambda: serving(server) == "9.0.0")
    assert until(lambda: len(news(server)) == 2)
    assert set(answers) == {200}


def test_one_whose_runs_fail_is_taken_back_and_told_of_once(
    server: Server, answers: Counter[int], tmp_path: Path
) -> None:
    until(lambda: answers[200] > 3 * CLIENTS)
    tested = serving(server)
    choose(server, tmp_path, "9.2.0", boot="exit")
    (message,) = until(lambda: news(server))
    assert message.startswith("claude 9.2.0 was taken back: ")
    until(lambda: serving(server) == tested)
    good = answers[200]
    until(lambda: answers[200] > good + 3 * CLIENTS)
    # Who asked in between was refused as one is who asks a CLI that does not start.
    assert set(answers) == {200, 503}
    failed, runs = map(int, re.findall(r"(\d+) of its first (\d+) runs", message)[0])
    assert LEAST_FAILED <= failed <= runs < WATCHED
    assert len(news(server)) == 1
    record = ProgramBook(server.data_dir).read()
    assert record.chosen == {}
    assert [each.problem is None for each in record.checks if each.version == "9.2.0"] == [False]
