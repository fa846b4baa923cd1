from __future__ import annotations

import gevent
import pytest

from bridge.clock import parse_iso
from bridge.errors import BridgeError
from bridge.records.audit import Audit
from bridge.records.runlog import Filter, RequestLog
from tests.support.ledger import NOON, FrozenClock, record


@pytest.fixture
def clock():
    return FrozenClock()


@pytest.fixture
def log(tmp_path, clock):
    from zoneinfo import ZoneInfo

    return RequestLog(tmp_path / "logs", clock, ZoneInfo("UTC"))


def ids(page):
    return [line["id"] for line in page[0]]


def fill(log, clock, days=3, runs=4):
    """run_0_0 … run_2_3, four a day."""
    for day in range(days):
        for n in range(runs):
            log.write(record(f"run_{day}_{n}", clock.now()))
        clock.pass_s(86_400)


def test_a_line_comes_back_as_it_was_written(log):
    log.write(record("run_1", user_prompt="über\nzwei Zeilen"))
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
    log.write(record("run_1"))
    log.write(record("run_2", user_prompt='"id":"run_1"'))
    log.write(record("run_3"))
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
    log.write(record("a", user_prompt="a needle in hay"))
    log.write(record("b", key_name="bob"))
    log.write(record("c", provider="codex"))
    log.write(record("d", parse_iso(NOON) + 60, status=429, code="cost_per_day", error="no"))
    assert ids(log.page(**wanted)) == found
    given = {name: str(value) if name == "status" else value for name, value in wanted.items()}
    assert [line["id"] for line in log.iterate(Filter(**given))] == found[::-1]


def test_the_last_second_of_all_time_can_be_asked_for_in_every_zone(tmp_path, clock):
    from zoneinfo import ZoneInfo

    log = RequestLog(tmp_path / "logs", clock, ZoneInfo("Pacific/Kiritimati"))
    log.write(record("run_1"))
    assert log.page(since=parse_iso("9999-12-31T23:59:59Z")) == ([], None)
    assert ids(log.page(until=parse_iso("9999-12-31T23:59:59Z"))) == ["run_1"]


def test_a_damaged_line_is_skipped_and_counted(log, tmp_path):
    for n in range(3):
        log.write(record(f"run_{n}"))
    path = next((tmp_path / "logs").iterdir())
    path.write_bytes(path.read_bytes().replace(b"run_1", b"run_X"))
    assert ids(log.page()) == ["run_2", "run_0"]
    assert log.damaged == 1
    assert [line["id"] for line in log.iterate()] == ["run_0", "run_2"]


def test_a_torn_line_does_not_keep_the_log_from_going_on(log, clock, tmp_path):
    log.write(record("run_1"))
    log.close()
    path = next((tmp_path / "logs").glob("*.jsonl"))
    with path.open("ab") as file:
        file.write(b'{"seq":2,"id":"run_2","ti')
    log.write(record("run_3"))
    assert ids(log.page()) == ["run_3", "run_1"]


def test_old_days_are_removed_and_nothing_else(log, clock, tmp_path):
    fill(log, clock)
    (tmp_path / "logs" / "notes.jsonl").write_text("mine")
    assert log.prune(2) == ["2026-11-20"]
    assert ids(log.page(limit=1)) == ["run_2_3"]
    assert (tmp_path / "logs" / "notes.jsonl").exists()
    assert log.prune(100_000_000) == []


def test_charges_of_runs_are_found_in_the_last_files(log, clock):
    fill(log, clock, days=4)
    charges = log.known_charges(["run_3_1", "run_2_0", "run_0_0", "run_9_9"])
    assert set(charges) == {"run_3_1", "run_2_0"}
    assert (charges["run_3_1"].cost_micro, charges["run_3_1"].usage.total) == (330, 30)


def test_lines_written_at_once_are_all_there(log):
    gevent.joinall([gevent.spawn(log.write, record(f"run_{n}")) for n in range(60)], raise_error=True)
    assert len(log.page(limit=100)[0]) == 60


def test_the_log_goes_on_in_a_new_file_where_somebody_moved_the_old_one(log, tmp_path):
    log.write(record("run_1"))
    path = next((tmp_path / "logs").iterdir())
    path.rename(path.with_suffix(".old"))
    log.write(record("run_2"))
    assert ids(log.page()) == ["run_2"]


def test_a_full_disk_is_told_and_the_log_goes_on_once_there_is_room(log, monkeypatch):
    log.write(record("run_1"))

    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("bridge.store.journal.write_all", full)
        with pytest.raises(BridgeError) as refused:
            log.write(record("run_2"))
        assert refused.value.code == "storage_failed"
    log.write(record("run_3"))
    assert ids(log.page()) == ["run_3", "run_1"]


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
            log.write(record(f"run_{number}_{name}", key_name=name, user_prompt=text, provider="codex"))
    log.write(record("run_last", key_name='quo"te', provider="claude"))
    every = log.page(limit=1000)[0]
    expected = [line["id"] for line in every if Filter(**wanted).takes(line)]
    assert ids(log.page(**wanted, limit=1000)) == expected
    assert [line["id"] for line in log.iterate(Filter(**wanted))] == expected[::-1]


def test_prompts_are_cut_only_where_that_is_asked_for(log):
    log.write(record("run_1", user_prompt="x" * 500, system_prompt=None))
    (line,), _ = log.page(prompt_characters=10)
    assert (line["userPrompt"], line["systemPrompt"]) == ("x" * 10, None)
    assert len(log.page()[0][0]["userPrompt"]) == 500
