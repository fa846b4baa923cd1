"""The admin's credentials: admin.json with a scrypt hash, the secrets of cookies, and the session epoch."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from typing import Any

import msgspec
from gevent.lock import BoundedSemaphore

from bridge.errors import StoreError
from bridge.store.document import REPAIR_HINT, Document, Outdated
from bridge.store.files import in_thread, unbroken

PREFIX = "cba_"
#: What nobody guesses: 256 bits that were drawn by chance, by the bridge, its installer, or `openssl rand -hex 32`.
_DRAWN = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{43}}|[0-9a-f]{{64}}")
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 2**14, 8, 1
_COOKIE_SECRETS = 3

#: One at a time for the whole process: guesses wait for each other instead of taking the processor.
_scrypt_turn = BoundedSemaphore(1)


class _Hash(msgspec.Struct, frozen=True):
    salt: str
    scrypt: str


class _State(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """admin.json."""

    schema: int = 1
    key: _Hash | None = None
    #: oldest to newest; the newest signs, all verify
    cookie_secrets: tuple[str, ...] = ()
    epoch: int = 1


class AdminCredentials:
    """Who is the admin. A key from the environment wins, and is kept nowhere but in memory."""

    def __init__(self, document: Document, settings_key: str | None) -> None:
        """Read admin.json. Raises StoreError where it is damaged."""
        self._document = document
        # Candidates are compared as keyed digests: equally long, and of no use outside this process.
        self._pepper = secrets.token_bytes(32)
        self._from_settings = settings_key is not None
        self._good: bytes | None = None if settings_key is None else self._digest(settings_key)
        self._state = _State()
        self._load()
        document.watchers.append(self._load)

    def _load(self) -> None:
        before = self._state.key
        try:
            self._state = msgspec.convert(self._document.load() or {}, _State)
        except msgspec.ValidationError as error:
            raise StoreError(f"admin.json is damaged: {error}.", REPAIR_HINT) from None
        if self._state.key != before and not self._from_settings:
            self._good = None

    @property
    def cookie_secrets(self) -> list[str]:
        """For signing sessions: oldest to newest. Empty before `ensure`."""
        return list(self._state.cookie_secrets)

    @property
    def epoch(self) -> int:
        """Sessions of an earlier epoch are over."""
        return self._state.epoch

    def ensure(self) -> str | None:
        """Make what is missing. Returns the admin key if one was made now, which is the only time that it
        can be seen. Raises BridgeError storage_failed."""
        raw = PREFIX + secrets.token_urlsafe(32)
        made = _hash(raw) if self._state.key is None and not self._from_settings else None
        used = False

        def change(state: _State) -> dict[str, Any]:
            nonlocal used
            used = made is not None and state.key is None
            changes: dict[str, Any] = {"key": made} if used else {}
            if not state.cookie_secrets:
                changes["cookie_secrets"] = (secrets.token_hex(32),)
            return changes

        self._change(change)
        return raw if used else None

    def reset(self) -> str:
        """Replace the stored key by a new one, end all sessions, and return the key.

        Raises BridgeError storage_failed; then the old one stays.
        """
        raw = PREFIX + secrets.token_urlsafe(32)
        made = _hash(raw)
        self._change(lambda state: {"key": made, "epoch": state.epoch + 1})
        if not self._from_settings:
            self._good = None
        return raw

    def recognises(self, candidate: str) -> bool:
        """Whether a text is the admin key, where that is known at once and cannot be a lucky guess: the key has been
        right before, or is of the settings, and was drawn by chance."""
        digest = self._digest(candidate) if is_drawn(candidate) else b""
        return self._good is not None and hmac.compare_digest(digest, self._good)

    def verify(self, candidate: str) -> bool:
        """Whether a text is the admin key.

        Whatever a wrong text looks like, it is treated the same: no early answer tells a guesser about
        length or alphabet. After the key has been right once, it is recognised without scrypt.
        """
        digest = self._digest(candidate)
        if self._good is not None and hmac.compare_digest(digest, self._good):
            return True
        if self._from_settings:
            return False
        stored = self._state.key or _NOBODY
        right = hmac.compare_digest(_scrypt(candidate, stored.salt), stored.scrypt)
        if not right or stored is not self._state.key:
            return False
        self._good = digest
        return True

    def end_sessions(self) -> None:
        """Log everybody out: a new epoch, and a new secret to sign with. Raises BridgeError storage_failed."""
        fresh = secrets.token_hex(32)

        def change(state: _State) -> dict[str, Any]:
            kept = (*state.cookie_secrets, fresh)[-_COOKIE_SECRETS:]
            return {"epoch": state.epoch + 1, "cookie_secrets": kept}

        self._change(change)

    def _change(self, change: Callable[[_State], dict[str, Any]]) -> None:
        """Save what `change` makes of the state; it may be asked again, where another host has changed that."""

        def step() -> None:
            while changes := change(self._state):
                state = msgspec.structs.replace(self._state, **changes)
                try:
                    self._document.save(msgspec.to_builtins(state))
                except Outdated:
                    continue
                self._state = state
                return

        unbroken(step)

    def _digest(self, candidate: str) -> bytes:
        return hmac.digest(self._pepper, _bytes(candidate), "sha256")


def is_drawn(candidate: str) -> bool:
    """Whether a text looks like a key that was drawn by chance, which nobody guesses."""
    return _DRAWN.fullmatch(candidate) is not None


def _hash(raw: str) -> _Hash:
    salt = secrets.token_hex(16)
    return _Hash(salt, _scrypt(raw, salt))


def _scrypt(candidate: str, salt: str) -> str:
    # Of the candidate's SHA-256, so that the work does not depend on its length.
    secret = hashlib.sha256(_bytes(candidate)).digest()
    with _scrypt_turn:
        return in_thread(
            lambda: hashlib.scrypt(
                secret, salt=bytes.fromhex(salt), n=_SCRYPT_N, r=_SCRYPT_R, p=_SCRYPT_P, dklen=32
            ).hex()
        )


def _bytes(candidate: str) -> bytes:
    """Any text as bytes; what no encoding allows must not be an error that tells it from other guesses."""
    return candidate.encode("utf-8", "surrogatepass")


_NOBODY = _Hash("00" * 16, "")
"""Compared with where there is no key yet; nothing is equal to it."""


def check_state(content: dict[str, Any]) -> None:
    """Raise ValueError where the content of admin.json cannot be used."""
    msgspec.convert(content, _State)
