"""Kept answers: what they bring back, whose they are, and how many there can be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.clock import JUMP_S
from bridge.errors import BridgeError, Problem, StoreError
from bridge.records import jobs as module
from bridge.records.jobs import Job, JobBook, Repeat, read
from bridge.types import (
    Answer,
    Charge,
    Finished,
    GenerationRequest,
    Usage,
    content_of,
)
from tests.support.ledger import FrozenClock

#: When the book is opened, in UTC seconds.
START = 1_795_000_000.0


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock(START)


@pytest.fixture
def book(tmp_path: Path, clock: FrozenClock) -> JobBook:
    return JobBook(tmp_path / "jobs", clock)


REQUEST = GenerationRequest("claude", "claude-sonnet-5-5", (), schema={"type": "object"})


def begun(number: int, owner: str = "ada 1", repeat: Repeat | None = None, at: float = START) -> Job:
    return Job(f"run_{number:05}", owner, at, REQUEST, repeat)


def finished(job: Job, text: str = "hi", cost: int = 5) -> Job:
    answer = Answer(content_of(text), "m", "end_turn", Usage(1, 2, 3, 4, 1), output={"a": [1, None]})
    return Job(job.id, job.owner, job.started_at, job.request, job.repeat, Finished(answer, Charge(Usage(1), cost), 7))


def failed(job: Job, cost: int) -> Job:
    problem = Problem("timeout", "Too long.", "Less.", 3, {"limit": 5, "text": "x\u2028\x00"})
    return Job(job.id, job.owner, job.started_at, job.request, job.repeat, Finished(problem, Charge(Usage(2), cost), 7))


def keep(book: JobBook, job: Job) -> None:
    book.add(Job(job.id, job.owner, job.started_at, job.request, job.repeat))
    book.finish(job)


@pytest.mark.parametrize("again", [False, True])
def test_an_answer_comes_back_as_it_was(book: JobBook, tmp_path: Path, clock: FrozenClock, again: bool) -> None:
    job = finished(begun(1))
    keep(book, job)
    book = JobBook(tmp_path / "jobs", clock) if again else book
    assert book.get("run_00001", "ada 1") == job


def test_an_error_comes_back_with_all_that_it_said(book: JobBook, tmp_path: Path, clock: FrozenClock) -> None:
    keep(book, failed(begun(1), cost=1))
    found = JobBook(tmp_path / "jobs", clock).get("run_00001", "ada 1")
    assert found is not None
    assert found.finished is not None
    error = found.finished.result
    assert isinstance(error, Problem)
    assert (error.code, error.message, error.hint, error.retry_after) == ("timeout", "Too long.", "Less.", 3)
    assert error.facts == {"limit": 5, "text": "x\u2028\x00"}


def test_an_answer_that_was_damaged_meanwhile_is_an_error_for_its_owner_without_the_operators_words(
    book: JobBook, tmp_path: Path
) -> None:
    keep(book, finished(begun(1)))
    (tmp_path / "jobs/run_00001.json").write_bytes(b"{")
    with pytest.raises(BridgeError) as refused:
        book.get("run_00001", "ada 1")
    assert (refused.value.code, refused.value.message) == ("storage_failed", "The kept answer cannot be read.")
    assert "file" not in refused.value.hint


def test_only_the_owner_gets_it(book: JobBook) -> None:
    keep(book, finished(begun(1)))
    assert book.get("run_00001", "ada 2") is None
    assert book.get("run_00002", "ada 1") is None


def test_a_repeat_gets_the_first_answer_and_another_body_or_one_under_way_a_conflict(book: JobBook) -> None:
    repeat = Repeat("k", "b")
    job = begun(1, repeat=repeat)
    assert book.earlier("ada 1", repeat) is None
    book.add(job)
    with pytest.raises(BridgeError, match="still running"):
        book.earlier("ada 1", repeat)
    with pytest.raises(BridgeError, match="another request"):
        book.earlier("ada 1", Repeat("k", "c"))
    with pytest.raises(BridgeError):
        book.add(begun(2, repeat=repeat))
    book.finish(finished(job))
    assert book.earlier("ada 1", repeat) == finished(job)
    assert book.earlier("bob 1", repeat) is None


@pytest.mark.parametrize(("cost", "kept"), [(0, False), (1, True)])
def test_a_failure_is_repeated_only_if_it_was_paid_for(book: JobBook, cost: int, kept: bool) -> None:
    repeat = Repeat("k", "b")
    keep(book, failed(begun(1, repeat=repeat), cost))
    assert (book.earlier("ada 1", repeat) is not None) is kept
    assert book.get("run_00001", "ada 1") is not None


def test_what_ran_when_the_server_ended_is_no_longer_running(book: JobBook, tmp_path: Path, clock: FrozenClock) -> None:
    repeat = Repeat("k", "b")
    book.add(begun(1, repeat=repeat))
    found = JobBook(tmp_path / "jobs", clock).earlier("ada 1", repeat)
    assert found is not None
    assert found.finished is not None
    assert isinstance(found.finished.result, Problem)
    assert "stopped in the middle" in found.finished.result.message


def test_answers_are_kept_for_a_day(book: JobBook, clock: FrozenClock, tmp_path: Path) -> None:
    keep(book, finished(begun(1)))
    book.add(begun(2))
    clock.pass_s(module.KEPT_S + 1)
    book.prune()
    assert [path.name for path in (tmp_path / "jobs").iterdir()] == ["run_00002.json"]
    assert book.get("run_00001", "ada 1") is None


def test_no_answer_is_removed_because_a_clock_jumped_ahead(book: JobBook, clock: FrozenClock, tmp_path: Path) -> None:
    keep(book, finished(begun(1)))
    clock.wall += 60 * 365 * 86400
    book.prune()
    assert book.get("run_00001", "ada 1") is not None
    again = JobBook(tmp_path / "jobs", clock)
    again.prune()
    assert again.get("run_00001", "ada 1") is not None, "nor where it had jumped before the start"
    clock.pass_s(JUMP_S + 1)
    again.prune()
    assert again.get("run_00001", "ada 1") is None, "so it was no mistake"


def test_a_keys_answers_push_out_its_own_and_nobody_elses(
    book: JobBook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_OF_KEY", 3)
    keep(book, finished(begun(0, "bob 1")))
    book.add(begun(1))  # still under way: stays
    for number in range(2, 7):
        keep(book, finished(begun(number)))
    left = sorted(path.stem for path in (tmp_path / "jobs").glob("*.json"))
    assert left == ["run_00000", "run_00001", "run_00005", "run_00006"]


@pytest.mark.parametrize("bound", ["MOST_BYTES_OF_KEY", "MOST_BYTES"])
def test_large_answers_push_out_older_ones(
    book: JobBook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    monkeypatch.setattr(module, bound, 5000)
    for number in range(10):
        keep(book, finished(begun(number), "x" * 2000))
        assert sum(path.stat().st_size for path in (tmp_path / "jobs").iterdir()) <= 5000
    assert book.get("run_00009", "ada 1") is not None


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"schema":1}', b"\xff", b'{"schema": 99}'])
def test_a_damaged_file_keeps_the_book_shut(book: JobBook, tmp_path: Path, clock: FrozenClock, damage: bytes) -> None:
    keep(book, finished(begun(1)))
    (tmp_path / "jobs" / "run_00001.json").write_bytes(damage)
    with pytest.raises(StoreError):
        JobBook(tmp_path / "jobs", clock)


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_are_a_job_or_damage(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("jobs") / "run_1.json"
    path.write_bytes(data)
    with pytest.raises(StoreError):
        read(path)


def test_a_full_disk_refuses_a_new_job_and_forgets_it(
    book: JobBook, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_private", full)
    repeat = Repeat("k", "b")
    with pytest.raises(BridgeError) as refused:
        book.add(begun(1, repeat=repeat))
    assert refused.value.code == "storage_failed"
    monkeypatch.undo()
    assert book.earlier("ada 1", repeat) is None
    keep(book, finished(begun(2, repeat=repeat)))
    assert book.earlier("ada 1", repeat) is not None
