"""A thousand runs whose CLIs hang, lie, flood and leave children behind: everybody is answered, nothing is left."""

from __future__ import annotations

import http.client
import json
import os
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks import soak_books
from tests.engine.harness import install_fake
from tests.support import server as servers
from tests.support.server import Server
from tests.support.wire import head

RUNS, CLIENTS, WARM = 1000, 8, 2
#: For a run that hangs, in seconds.
SHORT_S = 1.0
#: What a CLI is told to do -> how often, and what its client may get. `ok` is a whole answer.
CLAUDE: dict[str, tuple[int, set[str]]] = {
    "": (200, {"ok"}),
    "[[fake slow count=5 delay=0.02]]": (40, {"ok"}),
    "[[fake exit code=3]]": (20, {"cli_failed"}),
    "[[fake half_line]]": (20, {"cli_failed"}),
    "[[fake exit_midway]]": (20, {"cli_failed"}),
    "[[fake garbage]]": (20, {"ok"}),
    "[[fake binary]]": (20, {"ok"}),
    "[[fake deep]]": (10, {"ok"}),
    "[[fake long_line]]": (10, {"ok"}),
    "[[fake endless_line]]": (4, {"cli_failed"}),
    "[[fake stdout_flood megabytes=4]]": (5, {"ok"}),
    "[[fake stderr_flood megabytes=4]]": (5, {"ok"}),
    "[[fake empty]]": (20, {"ok"}),
    "[[fake local]]": (20, {"cli_failed"}),
    "[[fake is_error status=429]]": (20, {"provider_rate_limited", "provider_broke_off"}),
    "[[fake is_error status=529]]": (20, {"provider_overloaded", "provider_broke_off"}),
    "[[fake no_usage]]": (20, {"ok"}),
    "[[fake cost is=NaN]]": (10, {"ok", "cli_failed"}),
    "[[fake cost is=-5]]": (20, {"ok"}),
    "[[fake cost is=1e400]]": (20, {"ok", "cli_failed"}),
    "[[fake leave]]": (20, {"ok"}),
    "[[fake daemon]]": (20, {"ok"}),
    "[[fake grandchild]]": (20, {"ok"}),
    "[[fake forks count=8]]": (10, {"ok"}),
    "[[fake hang]]": (10, {"timeout"}),
    "[[fake hang_midway]]": (10, {"timeout"}),
    "[[fake ignore_sigterm]][[fake daemon]][[fake hang]]": (10, {"timeout"}),
}
CODEX: dict[str, tuple[int, set[str]]] = {
    "": (200, {"ok"}),
    "[[fake slow count=5 delay=0.02]]": (40, {"ok"}),
    "[[fake fail how=429]]": (20, {"provider_rate_limited"}),
    "[[fake fail how=503]]": (20, {"provider_overloaded"}),
    "[[fake fail how=other]]": (20, {"cli_failed"}),
    "[[fake odd_shapes]]": (20, {"ok"}),
    "[[fake ask_approval]]": (10, {"ok"}),
    "[[fake no_usage]]": (20, {"ok"}),
    "[[fake empty]]": (20, {"ok"}),
    "[[fake binary]]": (20, {"ok"}),
    "[[fake wait]]": (10, {"timeout"}),
    # These take the one process that all share with them.
    "[[fake exit_midway]]": (4, {"cli_failed"}),
    "[[fake half_line]]": (4, {"cli_failed"}),
    "[[fake daemon]]": (4, {"ok"}),
}
#: What any run on codex may get: another one has just ended the process that it was on.
SHARED = {"cli_failed", "timeout"}
CODES = {"claude": CLAUDE, "codex": CODEX}
ENDPOINTS = {"claude": "/generate", "codex": "/generate-codex"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    env = {
        "BRIDGE_CLAUDE_COMMAND": str(install_fake(tmp_path, "fake_claude")),
        "BRIDGE_CODEX_COMMAND": str(install_fake(tmp_path, "fake_codex")),
        # The CLIs are simulated, and ask no model: the gate would not believe a word of theirs.
        "BRIDGE_CLAUDE_CREDENTIALS": "login",
        "BRIDGE_CODEX_CREDENTIALS": "login",
        "BRIDGE_WARM_PROCESSES": str(WARM),
        "BRIDGE_MAX_CONCURRENT": str(CLIENTS),
    }
    with servers.running(tmp_path, env) as running:
        yield running


class House:
    """What a server holds: processes, descriptors, files."""

    def __init__(self, server: Server) -> None:
        (self.worker,) = psutil.Process(server.process.pid).children()
        self.scratch = Path(self.worker.children()[0].environ()["HOME"]).parent

    def look(self) -> Counter[str]:
        children = self.worker.children(recursive=True)
        kinds = Counter(self._kind(child) for child in children)
        # Pipes of a process that lives belong to it.
        return kinds + Counter(
            {
                "descriptors": self.worker.num_fds() - 3 * len(children),
                "files": sum(1 for _ in self.scratch.iterdir()),
                "daemons": len(set(living(self.scratch)) - {child.pid for child in children}),
            }
        )

    def _kind(self, child: psutil.Process) -> str:
        try:
            if child.status() == psutil.STATUS_ZOMBIE:
                return "zombies" if child.ppid() == self.worker.pid else "zombies of a living CLI"
            command = child.cmdline()
        except psutil.Error:
            return "ended"
        return next((name for name in ("claude", "codex", "schema") if any(name in part for part in command)), "others")


def living(scratch: Path) -> list[int]:
    """Every process on the machine whose files are below `scratch`."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(scratch) in process.environ().get("HOME", ""):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def at_rest(server: Server, house: House, wanted: Callable[[Counter[str]], bool]) -> Counter[str]:
    """What there is when no run is left and all is as `wanted`, or when that does not come."""
    deadline = time.monotonic() + 20
    while True:
        found = house.look()
        if (wanted(found) and not server.admin("GET", "/runs").json["runs"]) or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


class Client(threading.Thread):
    """Sends its part of the runs, one after the other, and notes what came."""

    def __init__(self, server: Server, key: str, orders: list[tuple[str, str, str]]) -> None:
        super().__init__()
        self.came: list[tuple[str, str, str]] = []
        self.ids: list[str] = []
        self.left = 0
        self._server, self._key, self._orders = server, key, orders

    def run(self) -> None:
        for provider, order, way in self._orders:
            body: dict[str, Any] = {"userPrompt": f"hello {order}", "stream": way != "whole"}
            if "timeout" in CODES[provider][order][1]:
                body["timeoutSeconds"] = SHORT_S
            try:
                if way == "leave":
                    self._leave(ENDPOINTS[provider], body)
                    continue
                answer = self._server.call("POST", ENDPOINTS[provider], body, key=self._key)
                self.ids.append(answer.headers["x-request-id"])
                self.came.append((provider, order, _code(answer)))
            except (OSError, http.client.HTTPException) as error:
                self.came.append((provider, order, f"connection lost: {error!r}"))

    def _leave(self, path: str, body: dict[str, Any]) -> None:
        """Send a request, wait for the beginning of its answer, and be gone."""
        raw = json.dumps(body).encode()
        with socket.create_connection(("127.0.0.1", self._server.port), timeout=60) as connection:
            connection.sendall(head("POST", path, f"Content-Length: {len(raw)}", key=self._key) + raw)
            connection.recv(100)
            self.left += 1


def _code(answer: servers.Answer) -> str:
    if answer.status != 200:
        return str(answer.json["code"])
    if answer.headers["content-type"].startswith("application/json"):
        return "ok"
    name, data = answer.events[-1]
    return "ok" if name == "done" else str(data["code"])


def orders(chance: random.Random) -> list[tuple[str, str, str]]:
    """(provider, what its CLI is told to do, how the client takes the answer) of every run."""
    kinds = [(provider, order, weight) for provider in CODES for order, (weight, _) in CODES[provider].items()]
    drawn = chance.choices(kinds, [weight for _, _, weight in kinds], k=RUNS - len(kinds))
    ways = {"whole": 5, "stream": 4, "leave": 1}
    return [
        (provider, order, chance.choices(list(ways), list(ways.values()))[0])
        for provider, order, _ in chance.sample([*drawn, *kinds], RUNS)
    ]


def test_a_thousand_nasty_runs_leave_nothing_and_are_all_accounted_for(server: Server) -> None:
    seed = int(os.environ.get("RUNS_SEED", random.randrange(2**32)))
    print(f"RUNS_SEED={seed}")
    key = server.new_key("nasty")
    for path in ENDPOINTS.values():
        assert server.call("POST", path, {"userPrompt": "first"}, key=key).status == 200
    house = House(server)
    before = at_rest(server, house, lambda found: found["claude"] == WARM)
    all_orders = orders(random.Random(seed))
    clients = [Client(server, key, all_orders[number::CLIENTS]) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(240)
    assert not any(client.is_alive() for client in clients), "somebody still waits for an answer"

    wrong = Counter(
        (provider, order, code)
        for client in clients
        for provider, order, code in client.came
        if code not in CODES[provider][order][1] | (SHARED if provider == "codex" else set())
    )
    assert not wrong
    # What an app-server has left behind ends with it, which without another run is after a minute. So one ends here,
    # once none of the runs that were left can end it.
    at_rest(server, house, lambda found: True)
    last = {"[[fake daemon]]": "ok", "[[fake exit_midway]]": "cli_failed", "": "ok"}
    end = Client(server, key, [("codex", order, "whole") for order in last])
    end.run()
    assert [code for _, _, code in end.came] == list(last.values())
    clients.append(end)
    after = at_rest(server, house, lambda found: all(found[what] <= before[what] for what in found))
    grown = {what: (before[what], number) for what, number in after.items() if number > before[what]}
    assert not grown

    lines = logs(server)
    counted = Counter(line["requestId"] for line in lines)
    assert set(counted.values()) == {1}
    answered = [id for client in clients for id in client.ids]
    assert len(answered) == len(set(answered))
    assert set(answered) <= set(counted)
    # Whoever left had the beginning of an answer, so the run was there.
    assert len(answered) + sum(client.left for client in clients) == RUNS + len(last)
    assert len(lines) == RUNS + len(last) + len(ENDPOINTS)
    books = soak_books.Books()
    charged = [line for line in lines if soak_books.was_submitted(line)]
    soak_books.compare_accounts(books, lines, charged, server.admin("GET", "/usage?days=2").json["usage"])
    assert not books.wrong
    assert not any(server.call("GET", "/me", key=key).json["usage"]["reserved"].values())


def logs(server: Server) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    before = ""
    while True:
        page = server.admin("GET", f"/logs?limit=1000{before}").json
        lines += page["logs"]
        if page["next"] is None:
            return lines
        before = f"&before={page['next']}"
