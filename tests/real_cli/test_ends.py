"""However the bridge, its model or their conversation end: nothing runs on, the error is clear, the charge is right."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.real_cli.conftest import Rig, await_both, environment
from tests.standin import StandIn
from tests.support import server as servers
from tests.support.server import Answer, Server

PATHS = ("/generate", "/generate-codex")
#: an answer of about three seconds, and one that never ends
SLOW, ENDLESS = "[[standin deltas=30 delay=0.1]]", "[[standin mode=hang_mid]]"


@contextmanager
def bridge(folder: Path, **settings: str) -> Iterator[Rig]:
    with StandIn() as standin, servers.running(folder, {**environment(standin), **settings}) as server:
        await_both(server)
        yield Rig(server, standin, server.new_key())


@contextmanager
def under_way(rig: Rig, prompt: str) -> Iterator[list[Future[Answer]]]:
    """A run on each CLI, in the middle of its answer; a claude process stands kept beside them, another one warm."""
    assert rig.ask("/generate", prompt="so that a process is hot").status == 200
    rig.standin.control("DELETE", "/__requests", None)
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(rig.ask, path, prompt=prompt) for path in PATHS]
        rig.await_words(2)
        yield asked


def family(server: Server) -> list[psutil.Process]:
    return list(psutil.Process(server.process.pid).children(recursive=True))


def scratch(processes: list[psutil.Process]) -> Path:
    homes = [process.environ()["HOME"] for process in processes if "app-server" in process.cmdline()]
    return Path(homes[0]).parent


def lines(server: Server) -> list[dict[str, object]]:
    """The lines of the two runs that were under way, newest first."""
    found: list[dict[str, object]] = server.admin("GET", "/logs?limit=2").json["logs"]
    return found


def test_a_killed_worker_leaves_no_cli_and_no_call_and_its_runs_are_charged(tmp_path: Path) -> None:
    with bridge(tmp_path) as rig:
        with under_way(rig, ENDLESS) as asked:
            (worker,) = psutil.Process(rig.server.process.pid).children()
            below = worker.children(recursive=True)
            worker.kill()
            _, alive = psutil.wait_procs(below, timeout=20)
            assert not alive
            rig.standin.wait(lambda seen: all(each.closed_early for each in seen))
            assert all(each.exception() is not None for each in asked), "there is nobody to answer"
        for line in lines(rig.server):
            assert (line["code"], line["assumed"]) == ("cli_failed", True)
            assert line["costUsd"] == line["reservedUsd"]
        await_both(rig.server)
        assert [rig.ask(path, prompt="again").status for path in PATHS] == [200, 200]


def test_sigterm_lets_runs_end_and_leaves_nothing(tmp_path: Path) -> None:
    with bridge(tmp_path) as rig:
        with under_way(rig, SLOW) as asked:
            processes = family(rig.server)
            files = scratch(processes)
            rig.server.process.send_signal(signal.SIGTERM)
            assert [each.result().status for each in asked] == [200, 200]
        assert rig.server.process.wait(30) == 0
        _, alive = psutil.wait_procs(processes, timeout=10)
        assert not alive
        assert not files.exists()
        assert [each.outcome for each in rig.standin.requests] == ["complete", "complete"]


def test_sighup_lets_runs_end_on_the_old_worker_and_the_next_ones_begin_on_the_new(tmp_path: Path) -> None:
    with bridge(tmp_path) as rig:
        with under_way(rig, SLOW) as asked:
            old = family(rig.server)
            rig.server.process.send_signal(signal.SIGHUP)
            later = rig.ask("/generate", prompt="after it")
            assert later.status == 200, later.body
            assert [each.result().status for each in asked] == [200, 200]
        _, alive = psutil.wait_procs(old, timeout=20)
        assert not alive, "nothing of the old one is left"
        assert all(each.outcome == "complete" for each in rig.standin.requests)


def test_a_full_pool_says_so_and_what_waits_gets_its_turn(tmp_path: Path) -> None:
    with bridge(tmp_path, BRIDGE_MAX_CONCURRENT="1", BRIDGE_QUEUE_LIMIT="1") as rig, ThreadPoolExecutor(2) as pool:
        first = pool.submit(rig.ask, "/generate", prompt=SLOW)
        rig.standin.wait(lambda seen: len(seen) == 1, 30)
        second = pool.submit(rig.ask, "/generate-codex", prompt="two")
        while rig.server.admin("GET", "/overview").json["queued"] != 1:
            time.sleep(0.02)
        third = rig.ask("/generate", prompt="three")
        assert (third.status, third.json["code"]) == (503, "overloaded")
        assert "retry-after" in third.headers
        assert [first.result().status, second.result().status] == [200, 200]
        assert len(rig.standin.requests) == 2


def test_a_model_that_dies_in_mid_stream_is_an_error_at_once(tmp_path: Path) -> None:
    with bridge(tmp_path) as rig:
        with under_way(rig, ENDLESS) as asked:
            began = time.monotonic()
            rig.standin.stop()
            found = [each.result() for each in asked]
        assert time.monotonic() - began < 15
        assert [(each.status, each.json["code"]) for each in found] == [(502, "cli_failed")] * 2
        for line in lines(rig.server):
            assert line["assumed"] is True
            assert 0 < float(str(line["costUsd"])) <= float(str(line["reservedUsd"]))
        assert not rig.server.admin("GET", "/runs").json["runs"]
        gone = rig.ask("/generate", prompt="x")
        assert (gone.status, gone.json["code"]) == (502, "cli_failed")
        assert "could not be reached" in gone.json["error"]
        assert lines(rig.server)[0]["costUsd"] == 0
