"""The npm packages of the tests in the browser: fetched once per version of the lock file, outside of the tree."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

_FOLDER = Path(__file__).with_name("npm")


def script(name: str) -> str:
    """The text of a file of a package, such as "axe-core/axe.min.js". Safe to call from parallel processes."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cli-bridge"
    lock_hash = hashlib.sha256((_FOLDER / "package-lock.json").read_bytes()).hexdigest()[:16]
    target = cache / f"browser-{lock_hash}"
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / "install.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file is closed
        if not target.is_dir():
            _install(target)
    return (target / "node_modules" / name).read_text()


def _install(target: Path) -> None:
    """Install beside `target` and rename, so that a folder of that name is always complete."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as temporary:
        work = shutil.copytree(_FOLDER, Path(temporary) / "npm")
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run(command, cwd=work, check=True, capture_output=True)
        work.rename(target)
