from __future__ import annotations

import json
import os
import stat
import subprocess
import sys

import gevent
import pytest

from bridge.errors import BridgeError, StoreError, StoreLocked
from bridge.store.document import Document
from bridge.store.folder import Store
from bridge.store.journal import Journal, Position, intact, read_backwards, read_forwards, seq_of
from tests.support.ledger import Desk


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


# --- the folder ---


def test_the_folder_and_its_files_are_private_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        desk = Desk(tmp_path / "data")
        desk.spend()
        desk.ledger.close()
    finally:
        os.umask(before)
    assert mode(tmp_path / "data") == 0o700
    for path in (tmp_path / "data").rglob("*"):
        assert mode(path) == (0o700 if path.is_dir() else 0o600), path


def test_files_that_others_could_read_are_tightened_at_open(tmp_path):
    desk = Desk(tmp_path / "data")
    desk.store.close()
    (tmp_path / "data").chmod(0o755)
    (tmp_path / "data" / "keys.json").chmod(0o644)
    desk.open()
    assert mode(tmp_path / "data") == 0o700
    assert mode(tmp_path / "data" / "keys.json") == 0o600


def test_root_does_not_open_the_folder_of_another_user(tmp_path, monkeypatch):
    status = os.stat_result((0o40700, 1, 1, 1, 990, 990, 0, 0, 0, 0))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(type(tmp_path), "stat", lambda self, **how: status)
    with pytest.raises(StoreError, match="another user than root") as refused:
        Store.open(tmp_path)
    assert "#990" in refused.value.hint
    assert not os.path.exists(tmp_path / "lock")


def test_a_second_process_is_refused_and_told_who_has_the_folder(tmp_path):
    Store.open(tmp_path)
    other = (
        "import sys; from pathlib import Path; from bridge.store.folder import Store\n"
        "from bridge.errors import StoreLocked\n"
        "try: Store.open(Path(sys.argv[1]))\n"
        "except StoreLocked as e: print(e.pid)"
    )
    done = subprocess.run([sys.executable, "-c", other, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout.strip() == str(os.getpid()), done.stderr


def test_the_lock_is_free_again_after_close_and_after_death(tmp_path):
    Store.open(tmp_path).close()
    dying = (
        "import os, sys; from pathlib import Path; from bridge.store.folder import Store\n"
        "Store.open(Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", dying, str(tmp_path)]).returncode == -9
    assert Store.holder(tmp_path) is None
    Store.open(tmp_path).close()


def test_waiting_for_the_lock_gets_it_when_it_is_given_back(tmp_path):
    first = Store.open(tmp_path)
    waiting = gevent.spawn(Store.open, tmp_path, wait_s=30)
    gevent.sleep(0)
    first.close()
    assert waiting.get(timeout=30).folder == tmp_path


def test_the_holder_says_where_it_can_be_reached(tmp_path):
    assert Store.holder(tmp_path / "nowhere") is None
    store = Store.open(tmp_path)
    store.announce({"address": "http://127.0.0.1:1", "token": "t"})
    holder = Store.holder(tmp_path)
    assert holder is not None
    assert (holder["pid"], holder["address"], holder["token"]) == (os.getpid(), "http://127.0.0.1:1", "t")
    store.close()
    assert Store.holder(tmp_path) is None
    assert "t" not in (tmp_path / "lock").read_text()


def test_looking_for_the_holder_does_not_keep_a_server_from_starting(tmp_path):
    Store.open(tmp_path).close()
    for _ in range(20):
        Store.holder(tmp_path)
        Store.open(tmp_path).close()


def test_locked_is_said_with_a_pid_or_without(tmp_path):
    store = Store.open(tmp_path)
    (tmp_path / "lock").write_text("garbage")
    with pytest.raises(StoreLocked) as refused:
        Store.open(tmp_path)
    assert refused.value.pid is None
    store.close()


@pytest.mark.parametrize("lost", ["usage.json", "keys.json", "logs/2026-11-20.jsonl"])
def test_a_lost_file_is_not_taken_for_a_first_start(tmp_path, lost):
    desk = Desk(tmp_path / "data")
    desk.spend()
    desk.reopen()
    desk.store.close()
    for path in (tmp_path / "data").glob(lost + "*"):
        path.unlink()
    with pytest.raises(StoreError, match=rf"{lost} is missing"):
        desk.open()


@pytest.mark.parametrize("made", [[], ["usage.json"]])
def test_a_first_start_that_was_cut_off_is_simply_done_again(tmp_path, made):
    for name in made:
        Document(tmp_path / name).save({})
    Desk(tmp_path).spend()


# --- documents ---


def test_a_document_comes_back_as_saved_and_keeps_one_version_before(tmp_path):
    document = Document(tmp_path / "a.json")
    assert document.load() is None
    document.save({"n": 1})
    document.save({"n": 2})
    assert document.load() == {"schema": 1, "n": 2}
    assert json.loads((tmp_path / "a.json.previous").read_text())["n"] == 1


def test_a_previous_version_is_never_used_by_itself(tmp_path):
    document = Document(tmp_path / "a.json")
    document.save({"n": 1})
    document.save({"n": 2})
    document.path.unlink()
    with pytest.raises(StoreError, match="missing"):
        document.load()


# --- journals ---


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "j.jsonl")


def write(journal, *texts):
    for text in texts:
        journal.commit(journal.append(json.dumps({"t": text}).encode()))


def texts(path):
    return [json.loads(line)["t"] for line in read_forwards([path], Position())]


def test_lines_are_read_forwards_and_backwards(journal):
    write(journal, "a", "b", "c")
    assert texts(journal.path) == ["a", "b", "c"]
    assert [json.loads(line)["t"] for line in read_backwards(journal.path)] == ["c", "b", "a"]


def test_lines_longer_than_a_chunk_are_read_whole_from_both_ends(journal):
    long = ["x" * size for size in (0, 1, 65_520, 65_536, 70_000, 200_000, 3)]
    write(journal, *long)
    assert texts(journal.path) == long
    assert [json.loads(line)["t"] for line in read_backwards(journal.path)] == long[::-1]


def test_numbers_go_on_after_reopening(journal):
    write(journal, "a", "b")
    journal.close()
    again = Journal(journal.path)
    write(again, "c")
    assert [seq_of(line) for line in read_forwards([journal.path], Position())] == [1, 2, 3]


def test_records_that_come_together_share_one_sync(journal, monkeypatch):
    syncs = []
    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (syncs.append(fd), real(fd)))
    greenlets = [gevent.spawn(write, journal, f"r{n}") for n in range(50)]
    gevent.joinall(greenlets, raise_error=True)
    assert len(texts(journal.path)) == 50
    assert len(syncs) <= 2


def test_the_event_loop_goes_on_while_the_disk_is_busy(journal, monkeypatch):
    real, turns = os.fdatasync, []
    go_on = gevent.get_hub().loop.async_()
    seen = gevent.event.Event()
    go_on.start(seen.set)
    import threading

    released = threading.Event()
    monkeypatch.setattr(os, "fdatasync", lambda fd: (go_on.send(), released.wait(30), real(fd))[-1])
    writer = gevent.spawn(write, journal, "slow")
    assert seen.wait(30)
    turns.append("another greenlet ran")
    assert not writer.ready()
    released.set()
    writer.get(timeout=30)
    assert turns


def test_a_killed_waiter_does_not_stop_the_write(journal):
    waiter = gevent.spawn(write, journal, "a")
    gevent.sleep(0)
    waiter.kill()
    journal.sync()
    assert texts(journal.path) == ["a"]


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_torn_last_line_is_cut_off_and_kept_aside(journal, cut):
    write(journal, "a", "b")
    journal.close()
    whole = journal.path.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    kept = last[: max(1, len(last) - cut)]
    journal.path.write_bytes(whole[: -len(last)] + kept)
    again = Journal(journal.path)
    assert again.cut is not None
    assert again.cut.read_bytes() == kept
    write(again, "c")
    assert texts(journal.path) == ["a", "c"]


@pytest.mark.parametrize("tail", [b"\0" * 5000, b"garbage", b'{"seq":3,"t":1,"crc":"00000000"}\n', b"{}\n"])
def test_a_tail_that_was_never_a_record_is_cut_off(journal, tail):
    write(journal, "a", "b")
    journal.close()
    with journal.path.open("ab") as file:
        file.write(tail)
    Journal(journal.path).close()
    assert texts(journal.path) == ["a", "b"]


@pytest.mark.parametrize("position", [0, 5, 12, 30])
def test_a_flipped_bit_before_the_end_is_damage_with_a_line_number(journal, position):
    write(journal, "alpha", "beta", "gamma")
    journal.close()
    data = bytearray(journal.path.read_bytes())
    data[position] ^= 1
    journal.path.write_bytes(data)
    Journal(journal.path).close()
    with pytest.raises(StoreError, match="record 1") as refused:
        texts(journal.path)
    assert "doctor --repair" in refused.value.hint


def test_a_missing_line_is_damage(journal):
    write(journal, "a", "b", "c")
    lines = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(lines[0] + lines[2])
    with pytest.raises(StoreError, match="before record 3"):
        texts(journal.path)


def test_a_line_is_not_intact_without_its_checksum():
    assert not intact(b"")
    assert not intact(b"{}")
    assert not intact(b'{"seq":1,"t":1}')


def fail_once(monkeypatch, name, error):
    real, calls = getattr(os, name), []

    def failing(*args):
        calls.append(args)
        if len(calls) == 1:
            raise error
        return real(*args)

    monkeypatch.setattr(os, name, failing)


@pytest.mark.parametrize("call", ["write", "fdatasync"])
def test_a_failed_write_is_told_to_everybody_and_leaves_no_trace(journal, monkeypatch, call):
    write(journal, "a")
    fail_once(monkeypatch, call, OSError(28, "No space left on device"))
    tickets = [journal.append(b'{"t":"b"}'), journal.append(b'{"t":"c"}')]
    for ticket in tickets:
        with pytest.raises(BridgeError) as refused:
            journal.commit(ticket)
        assert refused.value.code == "storage_failed"
        assert str(journal.path) not in refused.value.message
    assert texts(journal.path) == ["a"]
    with pytest.raises(BridgeError):
        journal.commit(journal.append(b'{"t":"d"}'))


def test_a_journal_that_is_opened_again_has_all_that_it_was_given(journal, monkeypatch):
    write(journal, "a")
    fail_once(monkeypatch, "fdatasync", OSError(5, "Input/output error"))
    with pytest.raises(BridgeError):
        write(journal, "b")
    with pytest.raises(BridgeError):
        write(journal, "c")
    journal.reopen()
    assert not journal.moved
    write(journal, "d")
    assert texts(journal.path) == ["a", "b", "c", "d"]


def test_what_a_journal_is_owed_survives_further_failures(journal, monkeypatch):
    fail_once(monkeypatch, "write", OSError(28, "No space left on device"))
    with pytest.raises(BridgeError):
        write(journal, "a")
    fail_once(monkeypatch, "fdatasync", OSError(28, "No space left on device"))
    with pytest.raises(BridgeError):
        journal.reopen()
    journal.append(b'{"t":"b"}')
    journal.reopen()
    assert texts(journal.path) == ["a", "b"]


def test_one_failure_is_not_told_to_those_who_can_wait_for_the_next_try(journal, monkeypatch):
    fail_once(monkeypatch, "write", OSError(28, "No space left on device"))
    journal.write(b'{"t":"a"}')
    assert texts(journal.path) == ["a"]


def test_a_place_lies_between_what_memory_has_and_what_comes_later(journal):
    tickets = [journal.append(b'{"t":"a"}'), journal.append(b'{"t":"b"}')]
    taken, place = journal.capture(lambda: "memory")
    tickets.append(journal.append(b'{"t":"c"}'))
    journal.commit(tickets[-1])
    assert (taken, place.seq, place.file) == ("memory", 2, "j.jsonl")
    assert [json.loads(line)["t"] for line in read_forwards([journal.path], place)] == ["c"]


def test_a_lazy_record_waits_for_company_but_not_for_long(journal, monkeypatch):
    monkeypatch.setattr("bridge.store.journal.LAZY_S", 0.02)
    alone = journal.append(b'{"t":"a"}', lazily=True)
    gevent.sleep(0)
    assert journal.size == 0
    assert alone.done.wait(30)
    journal.append(b'{"t":"b"}', lazily=True)
    write(journal, "c")
    assert texts(journal.path) == ["a", "b", "c"]


def test_a_journal_that_somebody_removed_is_noticed(journal):
    write(journal, "a")
    journal.path.unlink()
    with pytest.raises(BridgeError, match="could not write"):
        write(journal, "b")
    journal.reopen()
    assert journal.moved
    assert [json.loads(line)["t"] for line in read_backwards(journal.path)] == ["b"]
