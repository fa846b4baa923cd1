"""axe-core, which looks for barriers on a page: fetched from npm once per version, outside of the tree."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

FOLDER = Path(__file__).with_name("axe")


def script() -> Path:
    """axe.min.js, installed if it is not yet. Safe to call from parallel processes."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cli-bridge"
    lock_hash = hashlib.sha256((FOLDER / "package-lock.json").read_bytes()).hexdigest()[:16]
    target = cache / f"axe-{lock_hash}"
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / "install.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file is closed
        if not target.is_dir():
            _install(target)
    return target / "node_modules" / "axe-core" / "axe.min.js"


def _install(target: Path) -> None:
    """Install beside `target` and rename, so that a folder of that name is always complete."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as temporary:
        work = shutil.copytree(FOLDER, Path(temporary) / "axe")
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run(command, cwd=work, check=True, capture_output=True)
        work.rename(target)


def findings(page: Page) -> list[str]:
    """The barriers on a page as it is now, one line each."""
    if page.evaluate("window.axe === undefined"):
        page.evaluate(script().read_text())
    result: dict[str, Any] = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{found['id']}: {node['target']} {node['failureSummary']}"
        for found in result["violations"]
        for node in found["nodes"]
    ]
