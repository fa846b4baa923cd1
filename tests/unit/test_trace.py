"""Traces: what they hold, what is masked, and that they end by themselves."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge.clock import Clock
from bridge.store import trace as module
from bridge.store.trace import TraceFolder, trace_files


class Frozen(Clock):
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.passed = 0.0

    def now(self) -> float:
        return 1_790_000_000.0 + self.passed

    def monotonic(self) -> float:
        return 1000.0 + self.passed


@pytest.fixture
def clock() -> Frozen:
    return Frozen()


@pytest.fixture
def make(tmp_path: Path, clock: Frozen) -> Callable[[], TraceFolder]:
    return lambda: TraceFolder(tmp_path / "traces", clock, lambda: ["hunter-2-and-more", None])


def lines_of(folder: Path, run_id: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "traces" / f"{run_id}.jsonl").read_text().splitlines()]


def test_a_file_for_each_run_with_who_said_what_to_whom_and_when(
    make: Callable[[], TraceFolder], clock: Frozen, tmp_path: Path
) -> None:
    traces = make()
    first, second = traces.begin("run_a", {"model": "m"}), traces.begin("run_b", {"model": "n"})
    assert first is not None
    assert second is not None
    clock.passed = 0.0125
    first.note("bridge", "cli", b"a prompt")
    second.note("cli", "bridge", "an answer \u00e9".encode() + b"\xff")
    first.close()
    first.close()
    first.note("cli", "bridge", b"too late")
    begin, said = lines_of(tmp_path, "run_a")
    assert begin == {"run": "run_a", "at": "2026-09-21T14:13:20.000Z", "model": "m"}
    assert said == {"ms": 12.5, "from": "bridge", "to": "cli", "text": "a prompt"}
    assert lines_of(tmp_path, "run_b")[1]["text"] == "an answer \u00e9\ufffd"
    assert (tmp_path / "traces").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in trace_files(tmp_path / "traces")} == {0o600}


def test_secrets_are_masked_and_words_are_not(make: Callable[[], TraceFolder], tmp_path: Path) -> None:
    trace = make().begin("run_a", {})
    assert trace is not None
    trace.note(
        "gate", "provider", b'{"env":{"ANTHROPIC_API_KEY":"cbt_abc-DEF"},"x":"hunter-2-and-more"} sk-ant-1 hello'
    )
    text = lines_of(tmp_path, "run_a")[1]["text"]
    assert text == '{"env":{"ANTHROPIC_API_KEY":"***"},"x":"***"} *** hello'


def test_it_ends_by_itself_after_a_day_and_says_so(
    make: Callable[[], TraceFolder], clock: Frozen, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    traces = make()
    running = traces.begin("run_a", {})
    assert running is not None
    assert "2026-09-22T14:13:20" in traces.state
    clock.passed = module.LONGEST_S
    running.note("cli", "bridge", b"one second too late")
    assert not traces.active
    assert traces.begin("run_b", {}) is None
    assert len(lines_of(tmp_path, "run_a")) == 1
    assert "nothing is written any more: 24 hours have passed" in traces.state
    assert sum("no run is traced any more" in line for line in caplog.messages) == 1


def test_it_ends_by_itself_before_all_files_together_are_too_large(
    make: Callable[[], TraceFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 2000)
    (tmp_path / "traces").mkdir()
    (tmp_path / "traces" / "run_old.jsonl").write_bytes(b"x" * 1000)
    traces = make()
    trace = traces.begin("run_a", {})
    assert trace is not None
    for _ in range(10):
        trace.note("cli", "bridge", b"y" * 300)
    assert sum(path.stat().st_size for path in trace_files(tmp_path / "traces")) <= 2000
    assert len(lines_of(tmp_path, "run_a")) == 3, "as much as fits"
    assert not traces.active
    assert any("1 GB" in line for line in caplog.messages)
    assert make().begin("run_c", {}) is not None, "what is left counts, and there is room for a little"
    monkeypatch.setattr(module, "MOST_BYTES", 1000)
    assert make().begin("run_d", {}) is None


def test_a_folder_that_cannot_be_used_stops_nothing_but_the_traces(tmp_path: Path, clock: Frozen) -> None:
    (tmp_path / "traces").write_text("a file")
    traces = TraceFolder(tmp_path / "traces", clock, list)
    assert traces.begin("run_a", {}) is None
    assert "the folder cannot be used" in traces.state


def test_a_disk_that_refuses_ends_the_traces_and_never_a_run(
    make: Callable[[], TraceFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    traces = make()
    trace = traces.begin("run_a", {})
    assert trace is not None

    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    trace.note("cli", "bridge", b"x")
    assert "No space left on device" in traces.state
    trace.close()
