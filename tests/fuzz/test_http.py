"""Ten thousand requests that nobody should send: each gets an answer that the API's description knows."""

from __future__ import annotations

import http.client
import json
import os
import random
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from bridge.errors import CODES
from bridge.http.app import document
from tests.fuzz import inputs
from tests.support import server as servers
from tests.support.server import Server

BODIES, OTHERS, HEADS = 10_000, 2_000, 500
#: What may go wrong here although the request is right: the simulated CLI fails for no input.
MAY_FAIL = {"output_mismatch"}


@pytest.fixture
def chance() -> random.Random:
    """Chance with a seed that a failed test shows, and that FUZZ_SEED sets."""
    seed = int(os.environ.get("FUZZ_SEED", random.randrange(2**32)))
    print(f"FUZZ_SEED={seed}")
    return random.Random(seed)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = servers.start(tmp_path_factory.mktemp("fuzz"), demo=True)
    try:
        yield running
    finally:
        status = running.stop()
    assert status == 0
    # What went wrong inside has a trace there.
    assert not [line for line in running.output if "Traceback" in line or "rror:" in line]


@pytest.fixture(scope="module")
def token(server: Server) -> str:
    """For commands on this host: opens the admin API also while guesses are throttled."""
    found: str = json.loads((server.data_dir / "lock").read_text())["token"]
    return found


@pytest.fixture(scope="module")
def key(server: Server) -> str:
    return server.new_key("fuzz")


class Operation:
    """A route of the description, and how to call it."""

    def __init__(self, method: str, path: str, described: dict[str, Any]) -> None:
        self.method, self.path = method.upper(), path
        content = described.get("requestBody", {}).get("content", {}).get("application/json")
        self.example = content and content["example"]
        self.query = [p["name"] for p in described.get("parameters", []) if p.get("in") == "query"]
        self.admin = path.startswith("/admin") or path == "/metrics"
        self.answers = set(described["responses"])

    def address(self, chance: random.Random) -> str:
        path = self.path
        for name in ("{id}", "{name}"):
            path = path.replace(name, chance.choice(["example", inputs.segment(chance)]))
        query = inputs.query(self.query, chance)
        return f"{path}?{query}" if query else path


OPERATIONS = [Operation(m, path, op) for path, ops in document()["paths"].items() for m, op in ops.items()]


class Caller:
    """One connection after the other, each for as long as the server keeps it."""

    def __init__(self, server: Server, key: str, token: str, chance: random.Random) -> None:
        self._chance, self._key, self._token = chance, key, token
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        self.statuses: Counter[int] = Counter()

    def close(self) -> None:
        self._connection.close()

    def send(self, operation: Operation, body: bytes | None) -> None:
        headers = {name: value.encode("utf-8") for name, value in inputs.headers(self._chance).items()}
        if self._chance.random() < 0.95:
            secret = self._token if operation.admin else self._key
            headers["Authorization"] = f"Bearer {secret}".encode()
        address = operation.address(self._chance)
        told = f"{operation.method} {address[:200]} {headers} {(body or b'')[:300]!r}"
        try:
            self._connection.request(operation.method, address, body, headers)
            answer = self._connection.getresponse()
            raw = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise AssertionError(f"no answer: {error!r} to {told}") from error
        self.statuses[answer.status] += 1
        check(operation, answer, raw, told)


def check(operation: Operation, answer: http.client.HTTPResponse, raw: bytes, told: str) -> None:
    """An answer is one that is described; a refusal has a sentence, a code and a request id."""
    told += f": {answer.status} {raw[:300]!r}"
    assert answer.getheader("X-Request-Id"), told
    # A path with strange parts may not be that route any more.
    assert str(answer.status) in operation.answers | {"404", "405"}, told
    if answer.status < 400 or operation.path.startswith("/static/"):
        return
    refusal = json.loads(raw)
    code = refusal.get("code") or refusal["error"].get("code") or refusal["error"].get("bridge_code")
    assert answer.status < 500 or code in MAY_FAIL, told
    assert code in CODES, told


@pytest.fixture
def caller(server: Server, key: str, token: str, chance: random.Random) -> Iterator[Caller]:
    with closing(Caller(server, key, token, chance)) as caller:
        yield caller


@pytest.mark.timeout(300)
def test_ten_thousand_bodies_are_answered(caller: Caller, chance: random.Random) -> None:
    with_body = [operation for operation in OPERATIONS if operation.example is not None]
    for number in range(BODIES):
        operation = with_body[number % len(with_body)]
        caller.send(operation, inputs.body(operation.example, chance))
    print(caller.statuses)
    assert caller.statuses[200] > BODIES / 100
    assert caller.statuses[400] > BODIES / 4


def test_strange_paths_and_parameters_are_answered(caller: Caller, chance: random.Random) -> None:
    for number in range(OTHERS):
        operation = OPERATIONS[number % len(OPERATIONS)]
        if operation.path != "/admin/sessions":
            caller.send(operation, chance.choice([None, b"", b"{}", b"x" * 100]))
    print(caller.statuses)
    assert caller.statuses[404] > OTHERS / 20


def test_what_is_hardly_http_harms_nobody(server: Server, key: str, chance: random.Random) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as bystander:
        for number in range(HEADS):
            with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
                connection.sendall(inputs.head(chance))
                if chance.random() < 0.5:
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65536):
                        pass
            if number % 50 == 0:
                bystander.request("GET", "/me", headers={"Authorization": f"Bearer {key}"})
                answer = bystander.getresponse()
                assert (answer.status, answer.read()[:8]) == (200, b'{"name":')
    body = {"userPrompt": "hello"}
    assert server.call("POST", "/generate", body, key=key).status == 200
