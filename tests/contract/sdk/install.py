"""Installs the npm packages of js/package.json for the tests, once per version of the lock file.

They are kept outside of the source tree, in `${XDG_CACHE_HOME:-~/.cache}/cli-bridge/sdks-<hash of the lock file>`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parent / "js"
_FILES = ("package.json", "package-lock.json", ".npmrc")


def installed() -> Path:
    """The folder that has the packages in `node_modules`. Safe to call from parallel processes."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cli-bridge"
    digest = hashlib.sha256((SOURCE / "package-lock.json").read_bytes()).hexdigest()[:16]
    target = cache / f"sdks-{digest}"
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / "install-sdks.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file is closed
        if not target.is_dir():
            _install(target)
    return target


def run_script(name: str, env: Mapping[str, str]) -> dict[str, Any]:
    """What a script of js/ printed last, as JSON."""
    done = subprocess.run(
        ["node", "--input-type=module", "-"],
        input=(SOURCE / name).read_text(),
        # Names of packages are looked for from here.
        cwd=installed(),
        env={"PATH": os.environ["PATH"], **env},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


def _install(target: Path) -> None:
    """Install beside `target` and rename, so that a folder of that name is always complete."""
    npm = shutil.which("npm")
    assert npm is not None, "npm was not found: install Node.js (20 or later), which brings it, and try again"
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as temporary:
        work = Path(temporary) / "sdks"
        work.mkdir()
        for name in _FILES:
            shutil.copyfile(SOURCE / name, work / name)
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        work.rename(target)
