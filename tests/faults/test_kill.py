"""Servers killed at random moments under load: what was answered is kept, no cap is passed, nothing stays open."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.client
import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from bridge.ledger.ledger import Ceiling
from bridge.ledger.tallies import FileTallies
from bridge.limits import Limits
from bridge.service import Service
from bridge.settings import Settings
from tests.support import server as servers
from tests.support.server import Server

ROUNDS = 20
WORKER_KILLS = 3
CLIENTS = 16
#: A few answers take longer than others, and a part of the requests waits for a slot when the kill comes.
FAST = {"DEMO_PACE_SECONDS": "0.002", "DEMO_WARM": "2", "BRIDGE_MAX_CONCURRENT": "8"}
#: What one key of each kind may still use in a round, at least and at most: often less than the clients ask for.
CAPS: dict[str, tuple[float, float]] = {
    "maxCostPerDay": (0.004, 0.04),
    "maxRequestsPerDay": (3, 30),
    "maxTokensPerDay": (400, 4000),
}
#: limit -> its name in usage, and the code of its refusal
SHOWN = {
    "maxCostPerDay": ("costUsd", "cost_per_day"),
    "maxRequestsPerDay": ("requests", "requests_per_day"),
    "maxTokensPerDay": ("tokens", "tokens_per_day"),
}


@pytest.fixture
def chance() -> random.Random:
    """Chance with a seed that a failed test shows, and that KILL_SEED sets."""
    seed = int(os.environ.get("KILL_SEED", random.randrange(2**32)))
    print(f"KILL_SEED={seed}")
    return random.Random(seed)


@pytest.mark.timeout(300)
def test_twenty_kills_under_load_lose_nothing_and_pass_no_cap(tmp_path: Path, chance: random.Random) -> None:
    env = {**FAST, "BRIDGE_TIMEZONE": far_from_midnight()}
    seen = Seen()
    keys: dict[str, str] = {}
    for number in range(ROUNDS):
        server = servers.start(tmp_path, env, demo=True)
        if not keys:
            keys = {limit: server.new_key(limit) for limit in CAPS}
        assert reserved(server, keys) == 0, f"round {number}"
        raise_caps(server, keys, chance)
        with hammered(server, keys, seen, chance):
            let_some_happen(seen, chance)
            kill(server)
        assert not seen.wrong, f"round {number}"
    with servers.running(tmp_path, env, demo=True) as server:
        assert reserved(server, keys) == 0
        logged = check_books(server, keys, seen)
    assert not left_over(server.data_dir)
    # It was worth it: every cap was reached, and runs were cut off in the middle.
    assert seen.refused.keys() == {code for _, code in SHOWN.values()}
    assert len(seen.answered) > ROUNDS
    assert any(line["code"] == "cli_failed" and line["assumed"] for line in logged)


def test_a_killed_worker_is_replaced_and_loses_nothing(tmp_path: Path, chance: random.Random) -> None:
    seen = Seen()
    with servers.running(tmp_path, {**FAST, "BRIDGE_TIMEZONE": far_from_midnight()}, demo=True) as server:
        keys = {limit: server.new_key(limit) for limit in CAPS}
        for _ in range(WORKER_KILLS):
            old = worker_of(server)
            raise_caps(server, keys, chance)
            with hammered(server, keys, seen, chance):
                let_some_happen(seen, chance)
                old.kill()
                old.wait(10)
                # The arbiter's socket goes on to take connections; they wait for the new worker.
                assert server.call("GET", "/health").status == 200
                answered = len(seen.answered)
                raise_caps(server, keys, chance)
                eventually(lambda before=answered: len(seen.answered) > before)
            assert worker_of(server).pid != old.pid
            eventually(lambda: reserved(server, keys) == 0)
            assert not seen.wrong
        assert server.process.poll() is None
        check_books(server, keys, seen)
    assert not left_over(server.data_dir)


@pytest.mark.parametrize("step", [(FileTallies, "_append"), (FileTallies, "save")], ids=["line", "snapshot"])
def test_a_kill_during_the_recovery_changes_nothing_of_its_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: tuple[type, str]
) -> None:
    settings = Settings.load({"BRIDGE_DATA_DIR": str(tmp_path / "data"), "BRIDGE_ADMIN_KEY": servers.ADMIN_KEY})
    first = Service(settings)
    key, _ = first.keys.create("tester", Limits())
    model = settings.providers["claude"].default_model
    first.ledger.reserve(key.name, key.limits, "run_open", Ceiling("claude", model, 100, 300))
    first.store.close()  # and that is all: the rest of the process is gone

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(*step, killed)
        with pytest.raises(Killed):
            Service(settings)
    again = Service(settings)
    try:
        used = again.ledger.usage("tester")["today"]
        lines = list(again.log.iterate())
        assert (used["requests"], used["errors"]) == (1, 1)
        assert [(line["id"], line["costUsd"]) for line in lines] == [("run_open", used["costUsd"])]
        assert used["assumedUsd"] == used["costUsd"] > 0
    finally:
        again.close()


class Killed(BaseException):
    """The process ends here: nothing after it is run."""


# --- the load ------------------------------------------------------------------------------------------


@dataclass
class Seen:
    """What the clients of all rounds saw."""

    #: (key, run id, dollars) of every answer that arrived to its end
    answered: list[tuple[str, str, float]] = field(default_factory=list)
    #: code -> how often a cap refused
    refused: Counter[str] = field(default_factory=Counter)
    #: what must never happen
    wrong: list[str] = field(default_factory=list)

    def count(self) -> int:
        """Requests that came to an end."""
        return len(self.answered) + self.refused.total() + len(self.wrong)


@contextmanager
def hammered(server: Server, keys: dict[str, str], seen: Seen, chance: random.Random) -> Iterator[None]:
    """Clients that ask without a pause for the length of a block, and one that watches what is taken."""
    over = threading.Event()
    limits = list(keys)
    calls: list[Callable[[], None]] = [lambda: watch(server, keys, seen, over)]
    for number in range(CLIENTS):
        limit = limits[number % len(limits)]
        own = random.Random(chance.random())
        calls.append(functools.partial(ask, server, limit, keys[limit], seen, over, own))
    threads = [threading.Thread(target=call, daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)


def ask(server: Server, limit: str, key: str, seen: Seen, over: threading.Event, chance: random.Random) -> None:
    while not over.is_set():
        path = chance.choice(("/generate", "/generate-codex"))
        stream = chance.random() < 0.3
        body = {"userPrompt": "hello " * chance.randrange(1, 20), "maxOutputTokens": 300, "stream": stream}
        try:
            answer = server.call("POST", path, body, key=key)
        except (OSError, http.client.HTTPException):
            over.wait(0.01)  # the server is gone, or was just killed
            continue
        if answer.status == 429 and answer.json["code"] == SHOWN[limit][1]:
            seen.refused[answer.json["code"]] += 1
            over.wait(0.02)
        elif answer.status == 200 and (done := whole(answer, stream)):
            seen.answered.append((limit, done["id"], done["cost_usd"]))
        else:
            seen.wrong.append(f"{limit}: {answer.status} {answer.body[:500]!r}")


def whole(answer: servers.Answer, stream: bool) -> Any:
    """The answer's object; None for a stream that did not end with one."""
    if not stream:
        return answer.json
    name, data = answer.events[-1]
    return data if name == "done" else None


def watch(server: Server, keys: dict[str, str], seen: Seen, over: threading.Event) -> None:
    while not over.is_set():
        for limit, key in keys.items():
            try:
                me = server.call("GET", "/me", key=key).json
            except (OSError, http.client.HTTPException):
                over.wait(0.01)
                continue
            if taken(me, limit) > micro(me["limits"][limit]):
                seen.wrong.append(f"{limit}: {me['usage']} is above {me['limits'][limit]}")


def let_some_happen(seen: Seen, chance: random.Random) -> None:
    """Until some more requests were answered or refused: at times before the first cap is reached, at times after."""
    wanted = seen.count() + chance.randrange(5, 200)
    eventually(lambda: seen.count() >= wanted)


# --- the caps and the books ----------------------------------------------------------------------------


def raise_caps(server: Server, keys: dict[str, str], chance: random.Random) -> None:
    """Let every key use a little more than it has by now, whatever that is."""
    for limit, (least, most) in CAPS.items():
        me = server.call("GET", "/me", key=keys[limit]).json
        more = taken(me, limit) + micro(chance.uniform(least, most))
        cap = more / 1e6 if limit == "maxCostPerDay" else more // 10**6
        assert server.admin("PATCH", f"/keys/{limit}", {limit: cap}).status == 200


def taken(me: dict[str, Any], limit: str) -> int:
    """What counts against a key's own limit today, used and reserved, in millionths."""
    what = SHOWN[limit][0]
    return micro(me["usage"]["today"][what]) + micro(me["usage"]["reserved"][what])


def reserved(server: Server, keys: dict[str, str]) -> int:
    """How many runs hold something."""
    return sum(server.call("GET", "/me", key=key).json["usage"]["reserved"]["requests"] for key in keys.values())


def check_books(server: Server, keys: dict[str, str], seen: Seen) -> list[dict[str, Any]]:
    """Every answer is in the log once, with its cost, and the usage of each key is the sum of its lines.

    A run that was cut off has a line, too. So there are as many requests as lines, but for those of requests
    that a cap refused, which count as none. Returns the lines of runs.
    """
    export = server.admin("GET", "/logs/export").body
    lines = [line for line in map(json.loads, export.splitlines()) if line["status"] != 429 or line["costUsd"]]
    by_id = {line["id"]: line for line in lines}
    assert len(by_id) == len(lines), "no run has two lines"
    for limit, run_id, cost_usd in seen.answered:
        line = by_id[run_id]
        assert (line["keyName"], line["status"], line["costUsd"]) == (limit, 200, cost_usd)
    for limit, key in keys.items():
        me = server.call("GET", "/me", key=key).json
        own = [line for line in lines if line["keyName"] == limit]
        today = me["usage"]["today"]
        assert today["requests"] == len(own)
        assert today["errors"] == sum(line["status"] != 200 for line in own)
        assert today["tokens"] == sum(line["inputTokens"] + line["outputTokens"] for line in own)
        assert micro(today["costUsd"]) == sum(micro(line["costUsd"]) for line in own)
        assert micro(today["assumedUsd"]) == sum(micro(line["costUsd"]) for line in own if line["assumed"])
        assert me["usage"]["reserved"] == {"requests": 0, "tokens": 0, "costUsd": 0}
        assert taken(me, limit) <= micro(me["limits"][limit])
    return lines


def micro(amount: float) -> int:
    return round(amount * 1e6)


def far_from_midnight() -> str:
    """A time zone in which it is about noon: a test of a day's caps must not run into the next day."""
    return f"Etc/GMT{datetime.now(UTC).hour - 12:+d}"


# --- the processes --------------------------------------------------------------------------------------


def kill(server: Server) -> None:
    """SIGKILL for the arbiter and its worker; both, and all CLIs, must be gone soon."""
    worker = worker_of(server)
    server.process.kill()
    worker.kill()
    server.stop()
    eventually(lambda: not left_over(server.data_dir))


def worker_of(server: Server) -> psutil.Process:
    (worker,) = psutil.Process(server.process.pid).children()
    return worker


def left_over(data_dir: Path) -> list[psutil.Process]:
    """Every process of a server with this data folder that still runs, known by the folder in which it stands.

    Not by their parents, which are gone; and one that only waits to be reaped stands nowhere.
    """
    # CLIs stand in a folder on tmpfs that is named after the data folder.
    mark = hashlib.sha256(str(data_dir.resolve()).encode()).hexdigest()[:12]
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            cwd = process.cwd()
            if mark in cwd or cwd == str(data_dir.parent):
                found.append(process)
    return found


def eventually(check: Callable[[], bool], within_s: float = 20) -> None:
    deadline = time.monotonic() + within_s
    while not check():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
