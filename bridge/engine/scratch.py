"""Throw-away folders for the CLIs: an empty place to stand in, a HOME and a config of their own."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from bridge.engine.process import ChildError


class Scratch:
    """A private folder on tmpfs (where there is one) that lives as long as the server.

    Its name comes from the data folder, so that what a killed server left behind is cleared away by
    the next one, and two servers never share it.
    """

    def __init__(self, data_dir: Path) -> None:
        base = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path(tempfile.gettempdir())
        mark = hashlib.sha256(str(data_dir.resolve()).encode()).hexdigest()[:12]
        self.path = base / f"cli-bridge-{os.getuid()}-{mark}"
        self.clear()
        self.path.mkdir(mode=0o700)
        #: An empty folder: the working directory of every CLI. Nobody writes into it.
        self.empty = self.path / "empty"
        self.empty.mkdir(mode=0o500)

    def folder(self, prefix: str) -> Path:
        """A fresh private folder; its owner removes it with `remove`. Raises ChildError."""
        try:
            return Path(tempfile.mkdtemp(prefix=f"{prefix}-", dir=self.path))
        except OSError as error:
            raise ChildError(f"there is no place for its files ({error.strerror})") from None

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
        """Remove everything; at start (leavings of a crash) and at the end."""
        if self.path.is_symlink():
            self.path.unlink()
        shutil.rmtree(self.path, ignore_errors=True)
