"""The official SDKs as clients of a real server: simulated CLIs for breadth, the real ones in test_real_clis.py."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import anthropic
import openai
import pytest
from pydantic import BaseModel

from tests.real_cli.conftest import environment
from tests.standin import StandIn
from tests.support import server as servers
from tests.support.server import Server

_numbers = itertools.count(1)
#: Clients that a test has made.
_opened = ExitStack()

CLAUDE, CODEX = "claude-sonnet-5-5", "gpt-6-sol"
BOTH_CLIS = pytest.mark.parametrize("model", [CLAUDE, CODEX])
HELLO: list[Any] = [{"role": "user", "content": "hello"}]
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


class City(BaseModel):
    """What the tests ask for where an answer must have a shape."""

    city: str
    country: str


@dataclass
class Clients:
    """Both SDKs with one key. They try nothing again unless a test wants it."""

    server: Server
    key: str
    name: str

    def openai(self, **options: Any) -> openai.OpenAI:
        return _opened.enter_context(openai.OpenAI(**self._options("/v1", options)))

    def openai_async(self, **options: Any) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(**self._options("/v1", options))

    def anthropic(self, **options: Any) -> anthropic.Anthropic:
        return _opened.enter_context(anthropic.Anthropic(**self._options("", options)))

    def anthropic_async(self, **options: Any) -> anthropic.AsyncAnthropic:
        return anthropic.AsyncAnthropic(**self._options("", options))

    def _options(self, path: str, options: dict[str, Any]) -> dict[str, Any]:
        base = f"http://127.0.0.1:{self.server.port}{path}"
        return {"api_key": self.key, "base_url": base, "max_retries": 0, **options}

    def log(self) -> list[dict[str, Any]]:
        """What the request log has of this key, newest first."""
        rows: list[dict[str, Any]] = self.server.admin("GET", f"/logs?key={self.name}").json["logs"]
        return rows

    def runs(self) -> list[dict[str, Any]]:
        """What this key has running."""
        runs = self.server.admin("GET", "/runs").json["runs"]
        return [run for run in runs if run["keyName"] == self.name]


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """No connection outlives its test."""
    yield
    _opened.close()


def clients_of(server: Server, **limits: Any) -> Clients:
    name = f"sdk-{next(_numbers)}"
    return Clients(server, server.new_key(name, **limits), name)


@pytest.fixture(scope="module")
def slow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One whose answers take about ten seconds."""
    env = {"DEMO_PACE_SECONDS": "0.4", "DEMO_WARM": "2"}
    with servers.running(tmp_path_factory.mktemp("slow"), env, demo=True) as running:
        yield running


@pytest.fixture
def clients(server: Server) -> Clients:
    """Both SDKs with a fresh key without limits."""
    return clients_of(server)


@pytest.fixture
def clients_with(server: Server) -> Callable[..., Clients]:
    """Both SDKs with a fresh key that has the given limits."""
    return lambda **limits: clients_of(server, **limits)


@pytest.fixture
def slow(slow_server: Server) -> Clients:
    """Both SDKs on the slow server."""
    return clients_of(slow_server)


@pytest.fixture(scope="module")
def standin() -> Iterator[StandIn]:
    """What stands in for the model APIs."""
    with StandIn() as standin:
        yield standin


@pytest.fixture(scope="module")
def real_server(standin: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the real CLIs, and the stand-in behind them."""
    with servers.running(tmp_path_factory.mktemp("real"), environment(standin)) as running:
        yield running


@pytest.fixture
def real(real_server: Server, standin: StandIn) -> Clients:
    """Both SDKs, nothing recorded yet, and credentials that may be used."""
    real_server.reset_credentials()
    standin.control("DELETE", "/__requests", None)
    return clients_of(real_server)


def eventually(check: Callable[[], bool], within_s: float = 10) -> None:
    """Wait for what nobody announces."""
    deadline = time.monotonic() + within_s
    while not check():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
