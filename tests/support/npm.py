"""npm packages for the tests: fetched once per version of a lock file, outside of the source tree."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

_FILES = ("package.json", "package-lock.json", ".npmrc")


def installed(source: Path, name: str) -> Path:
    """The folder that has the packages of source/package.json in `node_modules`, which is
    `${XDG_CACHE_HOME:-~/.cache}/cli-bridge/NAME-<hash of the lock file>`. Safe to call from parallel processes."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cli-bridge"
    digest = hashlib.sha256((source / "package-lock.json").read_bytes()).hexdigest()[:16]
    target = cache / f"{name}-{digest}"
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / f"install-{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file is closed
        if not target.is_dir():
            _install(source, target)
    return target


def _install(source: Path, target: Path) -> None:
    """Install beside `target` and rename, so that a folder of that name is always complete."""
    npm = shutil.which("npm")
    assert npm is not None, "npm was not found: install Node.js (20 or later), which brings it, and try again"
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as temporary:
        work = Path(temporary) / "packages"
        work.mkdir()
        for name in _FILES:
            shutil.copyfile(source / name, work / name)
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        work.rename(target)
