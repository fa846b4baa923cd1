"""What tests of every folder share: a real server process with simulated CLIs, and keys for it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from tests.support import server as servers
from tests.support.redis import end_module_server

_numbers = itertools.count(1)


@pytest.fixture(scope="module", autouse=True)
def _end_of_redis() -> Iterator[None]:
    """No test of another module is to find a process that it has not started."""
    yield
    end_module_server()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    """One server for all tests of a module; each makes keys of its own. Modules that need another one define it."""
    with servers.running(tmp_path_factory.mktemp("server"), demo=True) as running:
        yield running


@pytest.fixture
def key(server: servers.Server) -> str:
    """A fresh key without limits."""
    return server.new_key(f"key-{next(_numbers)}")


@pytest.fixture
def key_with(server: servers.Server) -> Callable[..., str]:
    """Makes fresh keys with the given limits."""
    return lambda **limits: server.new_key(f"key-{next(_numbers)}", **limits)
