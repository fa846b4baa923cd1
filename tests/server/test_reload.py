"""SIGHUP and the other signals: a service that serves goes on, whatever was written into its files meanwhile."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from bridge.ops import rehearsal
from bridge.settings import Settings
from tests.engine.harness import until
from tests.support import server as servers
from tests.support.server import Server

ENV_FILE = ".env"


@pytest.fixture(scope="module")
def module_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("reload")
    (folder / ENV_FILE).write_text("BRIDGE_QUEUE_LIMIT=64\n")
    with servers.running(folder) as server:
        server.new_key("ada")
        yield server


@pytest.fixture
def server(module_server: Server) -> Iterator[Server]:
    """The server of the module; whatever a test does to its files is undone."""
    folder = module_server.data_dir
    kept = {path: path.read_bytes() for path in (folder.parent / ENV_FILE, *folder.glob("*.json"))}
    yield module_server
    for path in (folder / "prices.json", folder / "models.json"):
        path.unlink(missing_ok=True)
    for path, content in kept.items():
        path.write_bytes(content)


def workers(server: Server) -> list[int]:
    return [worker.pid for worker in psutil.Process(server.process.pid).children()]


def worker_of(server: Server) -> int:
    """The worker, once the one before it has left."""
    assert until(lambda: len(workers(server)) == 1, PATIENCE_S)
    return workers(server)[0]


def handed_over(server: Server, before: int) -> bool:
    """Whether another worker has taken over from that one."""
    now = workers(server)
    return len(now) == 1 and now != [before]


def problems(server: Server) -> list[str]:
    found: list[str] = server.admin("GET", "/overview").json["problems"]
    return found


def hang_up(server: Server) -> None:
    server.process.send_signal(signal.SIGHUP)


def write(name: str, content: bytes) -> Callable[[Server], None]:
    return lambda server: (server.data_dir / name).resolve().write_bytes(content) and None


def write_settings(content: bytes) -> Callable[[Server], None]:
    return lambda server: (server.data_dir.parent / ENV_FILE).write_bytes(content) and None


#: Seconds after which nothing more comes: a busy disk alone, which each look before a hand-over waits for, takes many.
PATIENCE_S = 90
MISTAKES = {
    "prices": (write("prices.json", b'{"claude": {"opus": '), "prices.json cannot be used"),
    "models": (write("models.json", b'{"aliases": {"a": 1}}'), "models.json cannot be used"),
    "keys": (write("keys.json", b'{"schema": 1, "keys": ['), "keys.json is damaged"),
    "no keys": (write("keys.json", b""), "keys.json is empty"),
    "admin": (write("admin.json", b"{}"), "admin.json has schema"),
    "job": (write("jobs/run_1.json", b"{"), "jobs/run_1.json is damaged"),
    "user": (write_settings(b"BRIDGE_CLI_USER=nobody-of-this-name\n"), "BRIDGE_CLI_USER"),
    "setting": (write_settings(b"BRIDGE_TIMEZONE=Nowhere/Nothing\n"), "BRIDGE_TIMEZONE"),
    "latin-1": (write_settings("# für alle\n".encode("latin-1")), "not in UTF-8 (see its line 1)"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_leaves_the_service_as_it_is_and_is_shown(server: Server, mistake: str) -> None:
    make, words = MISTAKES[mistake]
    before = worker_of(server)
    make(server)
    try:
        hang_up(server)
        assert until(lambda: any(words in each for each in problems(server)), PATIENCE_S), problems(server)
        assert any(each.startswith("SIGHUP changed nothing: ") for each in problems(server))
        assert worker_of(server) == before
        assert server.call("GET", "/ready").status in (200, 503)
        rows = json.loads(server.command("doctor", "--json").stdout)
        assert any(words in row["found"] and row["level"] != "ok" for row in rows), rows
    finally:
        (server.data_dir / "jobs" / "run_1.json").unlink(missing_ok=True)


def test_when_the_mistake_is_corrected_the_next_sighup_hands_over(server: Server) -> None:
    before = worker_of(server)
    write("models.json", b"{")(server)
    hang_up(server)
    assert until(lambda: bool(problems(server)), PATIENCE_S)
    (server.data_dir / "models.json").unlink()
    hang_up(server)
    assert until(lambda: handed_over(server, before), PATIENCE_S)
    assert until(lambda: problems(server) == [], PATIENCE_S)


def test_what_belongs_to_the_start_stays_and_a_port_that_is_taken_ends_nothing(server: Server) -> None:
    before = worker_of(server)
    write_settings(f"BRIDGE_PORT={server.port}\nBRIDGE_SOCKET=/nowhere/at/all.sock\n".encode())(server)
    hang_up(server)
    assert until(lambda: handed_over(server, before), PATIENCE_S)
    assert server.call("GET", "/health").status == 200


def test_no_other_signal_ends_or_stops_the_service(server: Server) -> None:
    before = worker_of(server)
    for number in (signal.SIGTTIN, signal.SIGTTOU, signal.SIGWINCH, signal.SIGUSR1, signal.SIGUSR2):
        server.process.send_signal(number)
        psutil.Process(before).send_signal(number)
        assert server.call("GET", "/health").status == 200
    psutil.Process(before).send_signal(signal.SIGHUP)
    # The arbiter takes its signals in turn, and this one last.
    write("models.json", b"{")(server)
    hang_up(server)
    assert until(lambda: bool(problems(server)), PATIENCE_S)
    assert psutil.Process(server.process.pid).children() == [psutil.Process(before)]
    assert server.call("GET", "/health").status == 200


def test_a_new_worker_that_cannot_start_after_all_is_followed_by_another(tmp_path: Path) -> None:
    with servers.running(tmp_path) as server:
        # Nothing finds this out: the old worker makes it while it ends.
        (server.data_dir / "usage.json.new").mkdir()
        (server.data_dir / "usage.json").unlink()
        before = worker_of(server)
        hang_up(server)
        assert until(lambda: before not in [each.pid for each in psutil.Process(server.process.pid).children()], 20)
        assert not until(lambda: server.process.poll() is not None, 4)
        (server.data_dir / "usage.json.new").rmdir()
        (server.data_dir / "usage.json").write_text('{"schema": 1}\n')
        assert until(lambda: server.call("GET", "/health", timeout_s=30).status == 200, PATIENCE_S)
    assert any("The new worker could not start" in line for line in server.output)


def test_half_of_another_program_is_never_served(tmp_path: Path) -> None:
    program = tmp_path / "program" / "bridge"
    shutil.copytree(servers.ROOT / "bridge", program, ignore=shutil.ignore_patterns("__pycache__"))
    with servers.running(tmp_path, {"PYTHONPATH": str(program.parent)}) as server:
        first = worker_of(server)
        hang_up(server)
        assert until(lambda: handed_over(server, first), PATIENCE_S)
        # One that answers has loaded the program.
        assert problems(server) == []
        before = worker_of(server)
        with (program / "http" / "app.py").open("a") as file:
            file.write("# Of another version.\n")
        hang_up(server)
        assert until(lambda: any("Restart the server." in each for each in problems(server)), PATIENCE_S)
        assert worker_of(server) == before
        # With no worker at all, it ends: whoever starts it anew starts the new program.
        psutil.Process(before).kill()
        assert until(lambda: server.process.poll() is not None, PATIENCE_S)
    assert any("cli-bridge cannot start: the program was replaced" in line for line in server.output)


def test_a_disk_that_is_full_is_found_before_the_old_worker_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    settings = Settings.load({"BRIDGE_DATA_DIR": str(tmp_path / "data")})
    assert rehearsal.problems(settings) == []
    monkeypatch.setattr(rehearsal, "LEAST_DISK_BYTES", 2**60)
    (problem,) = rehearsal.problems(settings)
    assert "cannot be written to" in problem
    assert list((tmp_path / "data").iterdir()) == []
