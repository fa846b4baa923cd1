from __future__ import annotations

import os

import gevent
import msgspec
import pytest

from bridge.clock import parse_iso
from bridge.errors import BridgeError
from bridge.records import runlog
from bridge.records.audit import Audit
from bridge.records.runlog import Filter, RunLog
from bridge.store.journal import Position, day_files, read_forwards, seq_of
from tests.support.ledger import NOON, Desk, FrozenClock, line_of, open_log, record, write


@pytest.fixture
def clock():
    return FrozenClock()


@pytest.fixture
def log(tmp_path, clock):
    return open_log(tmp_path, clock)


def ids(page):
    return [line["id"] for line in page[0]]


def fill(log, clock, days=3, runs=4):
    """run_0_0 … run_2_3, four a day."""
    for day in range(days):
        for n in range(runs):
            write(log, record(f"run_{day}_{n}", clock.now()))
        clock.pass_s(86_400)


def test_a_line_comes_back_as_it_was_written(log):
    write(log, record("run_1", user_prompt="über\nzwei Zeilen"))
    line = log.find("run_1")
    assert line["userPrompt"] == "über\nzwei Zeilen"
    assert set(line) == set(line) - {"seq", "crc"}
    assert log.find("run_2") is None


def test_pages_go_from_new_to_old_over_all_days(log, clock):
    fill(log, clock)
    seen, before = [], None
    while True:
        page = log.page(before=before, limit=5)
        seen += ids(page)
        before = page[1]
        if before is None:
            break
    assert seen == [f"run_{day}_{n}" for day in (2, 1, 0) for n in (3, 2, 1, 0)]


def test_a_page_after_an_unknown_id_is_empty(log, clock):
    fill(log, clock)
    assert log.page(before="run_gone") == ([], None)


def test_an_id_inside_a_prompt_is_not_taken_for_the_line_itself(log):
    write(log, record("run_1"))
    write(log, record("run_2", user_prompt='"id":"run_1"'))
    write(log, record("run_3"))
    assert ids(log.page(before="run_2")) == ["run_1"]
    assert log.find("run_1")["userPrompt"] == "hello"


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"key": "bob"}, ["b"]),
        ({"provider": "codex"}, ["c"]),
        ({"status": "429"}, ["d"]),
        ({"status": 429}, ["d"]),
        ({"status": "cost_per_day"}, ["d"]),
        ({"status": "error"}, ["d"]),
        ({"status": "ok"}, ["c", "b", "a"]),
        ({"text": "NEEDLE"}, ["a"]),
        ({"since": parse_iso(NOON) + 60}, ["d"]),
        ({"until": parse_iso(NOON) + 60}, ["c", "b", "a"]),
        ({"key": "bob", "provider": "codex"}, []),
    ],
)
def test_pages_can_be_filtered(log, wanted, found):
    write(log, record("a", user_prompt="a needle in hay"))
    write(log, record("b", key_name="bob"))
    write(log, record("c", provider="codex"))
    write(log, record("d", parse_iso(NOON) + 60, status=429, code="cost_per_day", error="no"))
    assert ids(log.page(**wanted)) == found
    given = {name: str(value) if name == "status" else value for name, value in wanted.items()}
    assert [line["id"] for line in log.iterate(Filter(**given))] == found[::-1]


def test_the_last_second_of_all_time_can_be_asked_for_in_every_zone(tmp_path, clock):
    log = open_log(tmp_path, clock, "Pacific/Kiritimati")
    write(log, record("run_1"))
    assert log.page(since=parse_iso("9999-12-31T23:59:59Z")) == ([], None)
    assert ids(log.page(until=parse_iso("9999-12-31T23:59:59Z"))) == ["run_1"]


def test_a_damaged_line_is_skipped(log, tmp_path):
    for n in range(3):
        write(log, record(f"run_{n}"))
    path = next((tmp_path / "logs").iterdir())
    path.write_bytes(path.read_bytes().replace(b"run_1", b"run_X"))
    assert ids(log.page()) == ["run_2", "run_0"]
    assert [line["id"] for line in log.iterate()] == ["run_0", "run_2"]


def test_a_torn_line_does_not_keep_the_log_from_going_on(log, clock, tmp_path):
    write(log, record("run_1"))
    log.journal.close()
    path = next((tmp_path / "logs").glob("*.jsonl"))
    with path.open("ab") as file:
        file.write(b'{"seq":2,"id":"run_2","ti')
    log = open_log(tmp_path, clock)
    write(log, record("run_3"))
    assert ids(log.page()) == ["run_3", "run_1"]


def test_old_days_are_removed_and_nothing_else(log, clock, tmp_path):
    fill(log, clock, days=14)
    (tmp_path / "logs" / "notes.jsonl").write_text("mine")
    assert log.prune(9, "2026-12-04.jsonl") == [f"2026-11-{day}.jsonl" for day in range(20, 25)]
    assert ids(log.page(limit=1)) == ["run_13_3"]
    assert (tmp_path / "logs" / "notes.jsonl").exists()
    assert log.prune(100_000_000, "2026-12-04.jsonl") == []


def test_what_the_running_month_or_a_replay_needs_is_not_removed(log, clock, tmp_path):
    fill(log, clock, days=14)
    log.prune(1, "2026-11-28.jsonl")
    assert day_files(tmp_path / "logs")[0].stem == "2026-11-28"
    log.prune(1, "2026-12-04.jsonl")
    assert day_files(tmp_path / "logs")[0].stem == "2026-12-01"


def test_nothing_is_removed_because_a_clock_jumped_ahead(log, clock):
    fill(log, clock)
    clock.set("2099-01-01T00:00:00Z")
    assert log.prune(2, "2099-01-01.jsonl") == []
    clock.pass_s(86_399)
    assert log.prune(2, "2099-01-01.jsonl") == []
    clock.pass_s(1)
    assert len(log.prune(2, "2099-01-01.jsonl")) == 3  # so it was no mistake


def test_nothing_is_removed_because_a_clock_had_jumped_ahead_before_the_start(log, clock, tmp_path):
    fill(log, clock)
    clock.set("2086-01-01T00:00:00Z")
    again = open_log(tmp_path, clock)
    assert again.prune(2, "2086-01-01.jsonl") == []
    clock.pass_s(86_400)
    assert len(again.prune(2, "2086-01-01.jsonl")) == 3  # so it was no mistake


def test_a_clock_that_is_set_back_writes_into_no_earlier_file(log, clock, tmp_path):
    fill(log, clock, days=2, runs=1)
    clock.set(NOON)
    write(log, record("run_late"))
    assert ids(log.page()) == ["run_late", "run_1_0", "run_0_0"]
    assert [path.stem for path in day_files(tmp_path / "logs")] == ["2026-11-20", "2026-11-21"]
    again = open_log(tmp_path, clock)
    write(again, record("run_later"))
    assert ids(again.page()) == ["run_later", "run_late", "run_1_0", "run_0_0"]


def test_numbers_go_on_from_file_to_file(log, clock, tmp_path):
    fill(log, clock, days=3, runs=2)
    again = open_log(tmp_path, clock)
    write(again, record("run_last"))
    lines = list(read_forwards(day_files(tmp_path / "logs"), Position()))
    assert [seq_of(line) for line in lines] == list(range(1, 8))


def test_refused_requests_share_a_write_and_are_seen_at_once(tmp_path, monkeypatch):
    desk = Desk(tmp_path / "data")
    log = RunLog(desk.tallies.journal, desk.clock, desk.zone)
    syncs = []
    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (syncs.append(fd), real(fd)))
    for number in range(20):
        desk.ledger.note(record(f"run_{number}", status=429, code="cost_per_day"))
        gevent.sleep(0)
    assert not syncs
    assert len(log.page()[0]) == 20
    assert len(syncs) == 1


def test_lines_of_another_program_lie_on_their_own_day_and_come_once(log, clock, tmp_path):
    write(log, record("run_1"))
    day_before = parse_iso(NOON) - 86_400
    old = [record("old_1", day_before), record("old_2", day_before), record("old_3")]
    assert (log.add_old(old), log.add_old(old)) == (3, 0)
    assert ids(log.page()) == ["run_1", "old_3", "old_2", "old_1"]
    assert list(read_forwards(day_files(tmp_path / "logs"), Position()))


def test_reservations_are_no_lines_of_the_log(tmp_path):
    desk = Desk(tmp_path / "data")
    reservation = desk.reserve()
    log = RunLog(desk.tallies.journal, desk.clock, desk.zone)
    assert ids(log.page()) == []
    assert log.find(reservation.id) is None
    desk.settle(reservation, 700)
    desk.reserve()
    assert ids(log.page()) == [reservation.id]
    line = log.find(reservation.id)
    assert line == msgspec.to_builtins(line_of(reservation, 700, output_tokens=40))
    assert list(log.iterate()) == [line]
    assert [each.id for each in log.newest(1, 10**6)] == [reservation.id]
    assert log.page(before=reservation.id) == ([], None)


def test_lines_written_at_once_are_all_there(log):
    gevent.joinall([gevent.spawn(write, log, record(f"run_{n}")) for n in range(60)], raise_error=True)
    assert len(log.page(limit=100)[0]) == 60


def test_the_log_goes_on_in_a_new_file_where_somebody_moved_the_old_one(log, tmp_path):
    write(log, record("run_1"))
    path = next((tmp_path / "logs").iterdir())
    path.rename(path.with_suffix(".old"))
    with pytest.raises(BridgeError):
        write(log, record("run_2"))
    log.journal.reopen()
    assert ids(log.page()) == ["run_2"]


def test_a_full_disk_is_told_and_the_log_goes_on_once_there_is_room(log, monkeypatch):
    write(log, record("run_1"))

    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("bridge.store.journal.write_all", full)
        with pytest.raises(BridgeError) as refused:
            write(log, record("run_2"))
        assert refused.value.code == "storage_failed"
        with pytest.raises(BridgeError):
            log.journal.reopen()
    log.journal.reopen()
    write(log, record("run_3"))
    assert ids(log.page()) == ["run_3", "run_2", "run_1"]


# --- audit ---


def test_the_audit_says_who_did_what_when_from_where(tmp_path, clock):
    audit = Audit(tmp_path / "audit.jsonl", clock)
    audit.write("key.update", "alice", actor="admin", address="10.0.0.1", before={"n": 1}, after={"n": 2})
    entries, following = audit.page()
    assert following is None
    assert entries == [
        {
            "id": "1",
            "at": "2026-11-20T12:00:00.000Z",
            "action": "key.update",
            "subject": "alice",
            "actor": "admin",
            "address": "10.0.0.1",
            "before": {"n": 1},
            "after": {"n": 2},
        }
    ]


def test_the_audit_is_paged_and_goes_on_after_a_restart(tmp_path, clock):
    for n in range(6):
        audit = Audit(tmp_path / "audit.jsonl", clock)
        audit.write("a", str(n), actor="admin", address="")
        audit.close()
    first, following = audit.page(limit=4)
    rest, end = audit.page(before=following, limit=4)
    assert [entry["subject"] for entry in first + rest] == ["5", "4", "3", "2", "1", "0"]
    assert end is None


@pytest.mark.parametrize("before", ["x", "-1", "1e3", "9" * 5000])
def test_what_is_no_number_of_an_entry_gives_the_newest(tmp_path, clock, before):
    audit = Audit(tmp_path / "audit.jsonl", clock)
    audit.write("a", "only", actor="admin", address="")
    assert [entry["subject"] for entry in audit.page(before=before)[0]] == ["only"]


@pytest.mark.parametrize(
    "wanted",
    [
        {"key": "Ada-1"},
        {"key": 'quo"te'},
        {"provider": "codex"},
        {"text": "plain words"},
        {"text": "PLAIN WORDS"},
        {"text": 'say "so"'},
        {"text": "back\\slash"},
        {"text": "über"},
        {"text": "ÜBER"},
        {"text": "line\nbreak"},
        {"text": "keyname"},
        {"key": "Ada-1", "text": "words", "status": "ok"},
    ],
    ids=repr,
)
def test_lines_are_passed_over_undecoded_only_where_they_are_not_wanted(log, wanted):
    texts = ["plain words", 'Say "So"', "back\\slash", "Über", "line\nbreak", '"keyName":"Ada-1"', None]
    for number, text in enumerate(texts):
        for name in ("Ada-1", "bob"):
            write(log, record(f"run_{number}_{name}", key_name=name, user_prompt=text, provider="codex"))
    write(log, record("run_last", key_name='quo"te', provider="claude"))
    every = log.page(limit=1000)[0]
    expected = [line["id"] for line in every if Filter(**wanted).takes(line)]
    assert ids(log.page(**wanted, limit=1000)) == expected
    assert [line["id"] for line in log.iterate(Filter(**wanted))] == expected[::-1]


def test_prompts_are_cut_only_where_that_is_asked_for(log):
    write(log, record("run_1", user_prompt="x" * 500, system_prompt=None))
    (line,), _ = log.page(prompt_characters=10)
    assert (line["userPrompt"], line["systemPrompt"]) == ("x" * 10, None)
    assert len(log.page()[0][0]["userPrompt"]) == 500


# --- sums ----------------------------------------------------------------------------------------


def test_the_sums_of_a_filter_are_those_of_its_lines(log, clock):
    write(
        log, record("run_1", cost_usd=0.25, input_tokens=5, cache_read_tokens=2, cache_write_tokens=1, output_tokens=4)
    )
    write(log, record("run_2", key_name="bob", cost_usd=0.5, input_tokens=1, output_tokens=0))
    clock.pass_s(86_400)
    write(log, record("run_3", clock.now(), status=429, code="cost_per_day", cost_usd=0, times=40, input_tokens=0))
    every = log.sums(Filter())
    assert (every.requests, every.errors, every.cost_micro, every.since) == (42, 40, 750_000, None)
    assert log.sums(Filter(key="bob")).tokens == 1
    assert log.sums(Filter(key="alice", status="ok")).tokens == 12
    assert log.sums(Filter(text="cost_per")).requests == 40
    assert log.sums(Filter(since=clock.now())).requests == 40
    assert log.sums(Filter(key="nobody")).requests == 0


def test_sums_of_a_log_that_is_too_long_say_from_when_they_count(log, clock, monkeypatch):
    fill(log, clock, days=2, runs=3)
    monkeypatch.setattr(runlog, "MOST_SUMMED", 1600)
    some = log.sums(Filter())
    newest = [line["timestamp"] for line in log.page()[0]]
    assert 0 < some.requests < 6
    assert some.since == newest[some.requests]


def test_a_line_is_found_by_the_request_id_that_its_client_has(log):
    write(log, record("run_1", request_id="req_a"), record("run_2", request_id="req_b", user_prompt="req_a"))
    assert log.find("req_a")["id"] == "run_1"
    assert log.find("req_b")["id"] == "run_2"
    assert log.find("req_c") is None
