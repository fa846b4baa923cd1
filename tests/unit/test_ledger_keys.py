from __future__ import annotations

import hashlib
import json

import gevent
import pytest

from bridge.errors import BridgeError, StoreError
from bridge.keys.keys import KeyBook
from bridge.limits import Limits
from bridge.store.document import Document
from tests.support.ledger import FrozenClock


@pytest.fixture
def clock():
    return FrozenClock()


@pytest.fixture
def document(tmp_path):
    return Document(tmp_path / "keys.json")


@pytest.fixture
def book(document, clock):
    return KeyBook(document, clock)


def code_of(call, *args, **kwargs):
    with pytest.raises(BridgeError) as refused:
        call(*args, **kwargs)
    return refused.value.code


def test_a_new_key_opens_and_its_secret_is_nowhere_on_disk(book, document):
    key, raw = book.create("alice", Limits.parse({"maxCostPerDay": 2.5}), note="for the team")
    assert raw.startswith("cb_")
    assert book.find(raw) == key
    assert raw not in document.path.read_text()
    assert key.last4 == raw[-4:]


def test_keys_survive_a_restart_as_they_were(book, document, clock):
    key, raw = book.create(
        "alice",
        Limits.parse({"maxCostPerDay": 2.5}),
        expires_at=clock.now() + 60,
        models=["claude-sonnet-5-5"],
        providers=["claude"],
    )
    assert KeyBook(document, clock).find(raw) == key


@pytest.mark.parametrize("raw", ["", "cb_", "x" * 100_000, "cb_ключ", "\udcff", "cb_\0", " "])
def test_whatever_is_not_a_key_is_unauthorized(book, raw):
    book.create("alice", Limits())
    assert code_of(book.find, raw) == "unauthorized"


def test_no_keys_at_all_means_closed(book):
    assert code_of(book.find, "cb_anything") == "unauthorized"


@pytest.mark.parametrize("name", ["", "a" * 51, "a b", "a\n", "ä", "../x", "a.b", None, 3])
def test_names_are_checked(book, name):
    assert code_of(book.create, name, Limits()) == "invalid_request"


def test_a_name_in_use_is_a_conflict_and_a_revoked_one_is_free_again(book):
    _, old = book.create("alice", Limits())
    assert code_of(book.create, "alice", Limits()) == "conflict"
    book.revoke("alice")
    _, new = book.create("alice", Limits())
    assert code_of(book.find, old) == "unauthorized"
    assert book.find(new).name == "alice"


def test_a_revoked_key_is_gone_from_the_list_but_not_from_history(book):
    book.create("alice", Limits())
    book.revoke("alice")
    assert book.list() == []
    assert [key.name for key in book.list(revoked=True)] == ["alice"]
    assert code_of(book.get, "alice") == "not_found"
    assert code_of(book.revoke, "alice") == "not_found"


def test_disabled_and_expired_keys_say_so(book, clock):
    _, raw = book.create("alice", Limits(), expires_at=clock.now() + 10)
    book.disable("alice")
    assert code_of(book.find, raw) == "key_disabled"
    book.enable("alice")
    assert book.find(raw).status(clock.now()) == "active"
    clock.pass_s(10)
    assert code_of(book.find, raw) == "key_expired"


def test_both_secrets_work_during_a_rotations_grace_and_only_the_new_one_after(book, clock):
    _, first = book.create("alice", Limits())
    _, second = book.rotate("alice", grace_s=60)
    assert book.find(first).name == book.find(second).name == "alice"
    _, third = book.rotate("alice", grace_s=60)
    assert code_of(book.find, first) == "unauthorized"
    assert book.find(second) == book.find(third)
    clock.pass_s(60)
    assert code_of(book.find, second) == "unauthorized"
    assert book.find(third).name == "alice"


def test_rotation_without_grace_ends_the_old_secret_at_once(book):
    _, first = book.create("alice", Limits())
    _, second = book.rotate("alice")
    assert code_of(book.find, first) == "unauthorized"
    assert book.find(second).name == "alice"


@pytest.mark.parametrize("grace", [-1, float("nan"), float("inf"), True, 10**10])
def test_a_grace_is_a_number_of_seconds(book, grace):
    book.create("alice", Limits())
    assert code_of(book.rotate, "alice", grace) == "invalid_request"


def test_an_update_merges_limits_and_returns_before_and_after(book):
    book.create("alice", Limits.parse({"maxCostPerDay": 1, "maxConcurrent": 2}))
    before, after = book.update("alice", limits=Limits.parse({"maxCostPerDay": 3}), note="more")
    assert before.limits.to_wire() == {"maxCostPerDay": 1, "maxConcurrent": 2}
    assert after.limits.to_wire() == {"maxCostPerDay": 3, "maxConcurrent": 2}
    assert book.get("alice") == after


@pytest.mark.parametrize(
    "change",
    [
        {"expires_at": "tomorrow"},
        {"expires_at": float("nan")},
        {"models": "claude"},
        {"models": ["bad name"]},
        {"providers": ["gemini"]},
        {"note": "x" * 501},
        {"name": "bob"},
        {"hashes": ()},
    ],
)
def test_an_update_with_a_wrong_field_changes_nothing(book, change):
    before, _ = book.create("alice", Limits())
    assert code_of(book.update, "alice", **change) == "invalid_request"
    assert book.get("alice") == before


def test_an_imported_key_opens_with_its_own_secret(book):
    sha256 = hashlib.sha256(b"old-raw-key").hexdigest()
    book.import_key("legacy", sha256, Limits())
    assert book.find("old-raw-key").name == "legacy"
    assert code_of(book.import_key, "again", sha256, Limits()) == "conflict"
    assert code_of(book.import_key, "bad", "xyz", Limits()) == "invalid_request"


def test_a_save_that_fails_changes_nothing(book, monkeypatch):
    _, raw = book.create("alice", Limits())

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bridge.store.document.write_private", full)
    for change in (book.revoke, book.disable, book.rotate):
        assert code_of(change, "alice") == "storage_failed"
    assert code_of(book.create, "bob", Limits()) == "storage_failed"
    assert book.find(raw).status(0) == "active"
    assert [key.name for key in book.list()] == ["alice"]


def test_changes_at_the_same_time_all_hold(book, document, clock):
    gevent.joinall([gevent.spawn(book.create, f"key-{n}", Limits()) for n in range(20)], raise_error=True)
    assert len(book.list()) == 20
    assert KeyBook(document, clock).list() == book.list()


def test_a_change_is_complete_even_if_the_request_behind_it_is_killed(book, document, clock):
    greenlet = gevent.spawn(book.create, "alice", Limits())
    gevent.sleep(0)
    greenlet.kill()
    with gevent.Timeout(10):
        while not book.list():
            gevent.sleep(0)
    assert KeyBook(document, clock).list() == book.list()


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows[0].pop("name"),
        lambda rows: rows[0].update(limits={"maxCostPerDay": -1}),
        lambda rows: rows[0].update(surprise=1),
        lambda rows: rows.append(dict(rows[0])),
        lambda rows: rows.append({**rows[0], "name": "twin"}),
    ],
)
def test_a_file_that_is_not_as_written_is_refused(book, document, clock, change):
    book.create("alice", Limits())
    content = json.loads(document.path.read_text())
    change(content["keys"])
    document.path.write_text(json.dumps(content))
    with pytest.raises(StoreError, match=r"keys\.json is damaged") as refused:
        KeyBook(document, clock)
    assert "doctor --repair" in refused.value.hint
