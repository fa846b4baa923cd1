"""Throw-away folders for the CLIs: an empty place to stand in, a HOME and a config of their own."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from bridge.sandbox import keeper
from bridge.sandbox.child import ChildError
from bridge.sandbox.host import User

log = logging.getLogger("bridge")


class NoPlace(ChildError):
    """There is no room, or no folder, for the files of a CLI: the host's trouble, and no CLI's."""


class Scratch:
    """A private folder on tmpfs (where there is one) that lives as long as the server.

    Its name comes from the data folder, so that what a killed server left behind is cleared away by
    the next one, and two servers never share it.
    """

    def __init__(self, data_dir: Path, user: User | None = None) -> None:
        """`user` is who the CLIs run as, if not the service's own user: the folders become theirs."""
        self.user = user
        base = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path(tempfile.gettempdir())
        mark = hashlib.sha256(str(data_dir.resolve()).encode()).hexdigest()[:12]
        self.path = base / f"cli-bridge-{os.getuid()}-{mark}"
        # Its name can be computed: where somebody else was here first, it gets another.
        for path in base.glob(f"{self.path.name}*"):
            if path.lstat().st_uid == os.geteuid():
                keeper.end_leavings(path)
                _remove(path)
        if os.path.lexists(self.path):
            log.warning("what lies in the place of the CLIs' files is not the service's; they get another")
            self.path = base / f"{self.path.name}-{secrets.token_hex(8)}"
        #: An empty folder: the working directory of every CLI. Nobody writes into it.
        self.empty = self.path / "empty"
        #: name -> content of files that every CLI can read
        self._shared: dict[str, bytes] = {}
        with suppress(ChildError):  # the first that needs it says so
            self.make()

    def make(self) -> None:
        """Make what is missing: the host may clear it away (logind does, where a user logs out who has no service),
        or had no room for it before. Raises NoPlace."""
        try:
            try:
                self.path.mkdir(mode=0o700)
            except FileExistsError:
                status = self.path.lstat()
                if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
                    raise PermissionError(errno.EPERM, "what lies in its place is not the service's") from None
            if self.user is not None:
                # To be walked through, not to be looked at.
                self.path.chmod(0o711)
            if not self.empty.exists():
                self.empty.mkdir()
                # Not by mkdir itself: the service's umask is stricter than what the CLIs' user needs.
                self.empty.chmod(0o500 if self.user is None else 0o555)
            for name, content in self._shared.items():
                if not (self.path / name).exists():
                    self._write_shared(name, content)
        except OSError as error:
            raise _no_place(error) from None

    def folder(self, prefix: str, files: Mapping[str, bytes] | None = None) -> Path:
        """A fresh private folder with these files; its owner removes it with `remove`. Raises NoPlace."""
        self.make()
        try:
            folder = Path(tempfile.mkdtemp(prefix=f"{prefix}-", dir=self.path))
        except OSError as error:
            raise _no_place(error) from None
        try:
            paths = [folder / name for name in files or {}]
            for path, content in zip(paths, (files or {}).values(), strict=True):
                path.write_bytes(content)
            if self.user is not None:
                for path in [*paths, folder]:
                    os.chown(path, self.user.uid, self.user.gid)
            return folder
        except OSError as error:
            self.remove(folder)
            raise _no_place(error) from None

    def shared_file(self, name: str, content: bytes) -> Path:
        """A file that every CLI can read and none can write. Raises NoPlace."""
        self.make()
        try:
            self._write_shared(name, content)
        except OSError as error:
            raise _no_place(error) from None
        self._shared[name] = content
        return self.path / name

    def _write_shared(self, name: str, content: bytes) -> None:
        """Whole, or not at all: one that is there is never looked into again."""
        new = self.path / f"{name}.new"
        new.unlink(missing_ok=True)
        try:
            new.write_bytes(content)
            new.chmod(0o400 if self.user is None else 0o444)
            new.replace(self.path / name)
        except OSError:
            new.unlink(missing_ok=True)
            raise

    def login_folder(self, variable: str, name: str) -> Path:
        """Where the CLIs' user keeps a log-in: the folder that an environment variable names, or ~/NAME."""
        if self.user is not None:
            return self.user.home / name
        return Path(os.environ.get(variable) or Path.home() / name)

    @staticmethod
    def link(file: Path, folder: Path) -> None:
        """Show one file of the host in a private folder (a log-in, which its CLI may refresh)."""
        target = folder / file.name
        if file.exists() and not target.is_symlink():
            target.symlink_to(file)

    @staticmethod
    def remove(folder: Path) -> None:
        """Remove a folder and what is in it; quietly, since a dying CLI may still be writing."""
        shutil.rmtree(folder, ignore_errors=True)

    def clear(self) -> None:
        """Remove everything, at the end."""
        _remove(self.path)


def _remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    shutil.rmtree(path, ignore_errors=True)


def _no_place(error: OSError) -> NoPlace:
    return NoPlace(f"there is no place for its files ({error.strerror})")
