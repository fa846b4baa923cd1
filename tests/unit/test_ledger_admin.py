from __future__ import annotations

import hashlib
import json

import gevent
import pytest

from bridge.errors import BridgeError, StoreError
from bridge.keys.admin import AdminCredentials
from bridge.store.document import Document

WRONG = ["", " ", "x", "cba_", "x" * 1_000_000, "ключ", "\udcff\ud800", "\0", "a\nb"]


@pytest.fixture
def document(tmp_path):
    return Document(tmp_path / "admin.json")


@pytest.fixture
def scrypts(monkeypatch):
    """How often scrypt was computed."""
    calls, real = [], hashlib.scrypt
    monkeypatch.setattr(hashlib, "scrypt", lambda *a, **k: (calls.append(1), real(*a, **k))[1])
    return calls


def test_the_first_start_makes_a_key_and_keeps_only_its_hash(document):
    raw = AdminCredentials(document, None).ensure()
    assert raw.startswith("cba_")
    assert raw not in document.path.read_text()
    again = AdminCredentials(document, None)
    assert again.ensure() is None
    assert again.verify(raw)


@pytest.mark.parametrize("candidate", WRONG)
def test_wrong_keys_are_wrong_whatever_they_look_like(document, candidate):
    credentials = AdminCredentials(document, None)
    raw = credentials.ensure()
    assert not credentials.verify(candidate)
    assert not credentials.verify(raw + candidate) or candidate == ""
    assert not AdminCredentials(document, "k" * 16).verify(candidate)


def test_every_wrong_guess_costs_a_scrypt_and_the_right_key_only_one(document, scrypts):
    credentials = AdminCredentials(document, None)
    raw = credentials.ensure()
    scrypts.clear()
    for candidate in WRONG:
        credentials.verify(candidate)
    assert len(scrypts) == len(WRONG)
    for _ in range(5):
        assert credentials.verify(raw)
    assert len(scrypts) == len(WRONG) + 1


def test_without_any_key_nobody_is_admin(document, scrypts):
    credentials = AdminCredentials(document, None)
    assert not credentials.verify("")
    assert not credentials.verify("anything")
    assert len(scrypts) == 2


def test_a_key_from_the_environment_wins_and_is_written_nowhere(document):
    stored = AdminCredentials(document, None).ensure()
    credentials = AdminCredentials(document, "from-the-environment")
    assert credentials.ensure() is None
    assert credentials.verify("from-the-environment")
    assert not credentials.verify(stored)
    assert "from-the-environment" not in document.path.read_text()
    assert AdminCredentials(document, None).verify(stored)


def test_taking_the_key_out_of_the_environment_makes_one(document):
    AdminCredentials(document, "from-the-environment").ensure()
    assert AdminCredentials(document, None).ensure() is not None


def test_guesses_at_the_same_time_take_turns(document, monkeypatch):
    credentials = AdminCredentials(document, None)
    credentials.ensure()
    running, most, real = [], [], hashlib.scrypt

    def counted(*args, **kwargs):
        running.append(1)
        most.append(len(running))
        result = real(*args, **kwargs)
        running.pop()
        return result

    monkeypatch.setattr(hashlib, "scrypt", counted)
    gevent.joinall([gevent.spawn(credentials.verify, str(n)) for n in range(6)], raise_error=True)
    assert max(most) == 1


def test_a_reset_replaces_the_key_and_ends_sessions(document):
    credentials = AdminCredentials(document, None)
    old = credentials.ensure()
    assert credentials.verify(old)
    epoch = credentials.epoch
    new = credentials.reset()
    assert credentials.verify(new)
    assert not credentials.verify(old)
    assert credentials.epoch == epoch + 1


def test_cookie_secrets_rotate_and_survive_a_restart(document):
    credentials = AdminCredentials(document, None)
    credentials.ensure()
    first = credentials.cookie_secrets
    credentials.end_sessions()
    assert credentials.cookie_secrets[:-1] == first
    again = AdminCredentials(document, None)
    assert (again.cookie_secrets, again.epoch) == (credentials.cookie_secrets, credentials.epoch)


def test_a_reset_that_cannot_be_saved_leaves_the_old_key(document, monkeypatch):
    credentials = AdminCredentials(document, None)
    old = credentials.ensure()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bridge.store.document.write_private", full)
    with pytest.raises(BridgeError, match="could not write"):
        credentials.reset()
    assert credentials.verify(old)


@pytest.mark.parametrize("change", [{"key": 3}, {"epoch": "x"}, {"cookieSecrets": None}])
def test_a_damaged_file_is_refused(document, change):
    AdminCredentials(document, None).ensure()
    document.path.write_text(json.dumps({**json.loads(document.path.read_text()), **change}))
    with pytest.raises(StoreError, match=r"admin\.json is damaged"):
        AdminCredentials(document, None)
