"""Install the pinned CLIs for the tests that run the real ones, once per version of the lock file.

`python tests/real_cli/install.py` prints where they are, for a shell to evaluate::

    BRIDGE_CLAUDE_COMMAND=…/claude
    BRIDGE_CODEX_COMMAND=…/codex

They come from deploy/clis with `npm ci --ignore-scripts` and are kept outside of the source tree,
in `${XDG_CACHE_HOME:-~/.cache}/cli-bridge/clis-<hash of the lock file>`. The native binaries are
called directly, so neither Node.js nor an install script is needed to run them.

With CLI_BRIDGE_NEWEST=1 in the environment they are the newest versions that the registry has instead.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

CLIS = Path(__file__).resolve().parents[2] / "deploy" / "clis"
_FILES = ("package.json", "package-lock.json", ".npmrc")

# By (system, machine): npm's name of the platform, and the Rust target in the codex package.
_PLATFORMS = {
    ("Linux", "x86_64"): ("linux-x64", "x86_64-unknown-linux-musl"),
    ("Linux", "aarch64"): ("linux-arm64", "aarch64-unknown-linux-musl"),
    ("Darwin", "x86_64"): ("darwin-x64", "x86_64-apple-darwin"),
    ("Darwin", "arm64"): ("darwin-arm64", "aarch64-apple-darwin"),
}


class InstallError(RuntimeError):
    """The CLIs could not be installed; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Binaries:
    """Paths of the two native binaries."""

    claude: Path
    codex: Path


def binaries(wanted: dict[str, str] | None = None) -> Binaries:
    """The CLIs in these versions, by package, or else in those of `versions`; installed if they are not yet. Safe to
    call from parallel processes.

    Raises InstallError.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cli-bridge"
    wanted = wanted or versions()
    name = _lock_hash() if wanted == _pinned() else "-".join(wanted.values())
    target = cache / f"clis-{name}"
    found = _locate(target)
    if target.is_dir():
        return _checked(found)
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / "install.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file is closed
        if not target.is_dir():
            _install(target, wanted)
    return _checked(found)


def _newest_wanted() -> bool:
    return os.environ.get("CLI_BRIDGE_NEWEST") == "1"


@functools.cache
def versions() -> dict[str, str]:
    """The version of each package: as pinned, or the newest. Raises InstallError."""
    pinned = _pinned()
    return {name: _npm(["view", name, "version"], CLIS).strip() for name in pinned} if _newest_wanted() else pinned


def _pinned() -> dict[str, str]:
    found: dict[str, str] = json.loads((CLIS / "package.json").read_text())["dependencies"]
    return found


def _lock_hash() -> str:
    return hashlib.sha256((CLIS / "package-lock.json").read_bytes()).hexdigest()[:16]


def _locate(root: Path) -> Binaries:
    here = (platform.system(), platform.machine())
    if here not in _PLATFORMS:
        raise InstallError(f"no pinned CLI binaries for {here[0]} on {here[1]}")
    npm_platform, rust_target = _PLATFORMS[here]
    modules = root / "node_modules"
    return Binaries(
        claude=modules / f"@anthropic-ai/claude-code-{npm_platform}" / "claude",
        codex=modules / f"@openai/codex-{npm_platform}" / "vendor" / rust_target / "bin" / "codex",
    )


def _checked(found: Binaries) -> Binaries:
    for binary in (found.claude, found.codex):
        if not os.access(binary, os.X_OK):
            raise InstallError(f"{binary} is missing or not executable; remove its clis-… folder and try again")
    return found


def _install(target: Path, wanted: dict[str, str]) -> None:
    """Install beside `target` and rename, so that a folder of that name is always complete."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as temporary:
        work = Path(temporary) / "clis"
        work.mkdir()
        for name in _FILES:
            shutil.copyfile(CLIS / name, work / name)
        options = ["--ignore-scripts", "--no-audit", "--no-fund"]
        if wanted != _pinned():
            (work / "package-lock.json").unlink()
            (work / "package.json").write_text(json.dumps({"private": True, "dependencies": wanted}))
            _npm(["install", "--package-lock-only", *options], work)
        _npm(["ci", *options], work)
        _checked(_locate(work))
        work.rename(target)


def _npm(arguments: list[str], folder: Path) -> str:
    """What npm prints. Raises InstallError."""
    npm = shutil.which("npm")
    if npm is None:
        raise InstallError("npm was not found: install Node.js (20 or later), which brings it, and try again")
    done = subprocess.run([npm, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        said = "\n".join(done.stderr.strip().splitlines()[-15:])
        raise InstallError(f"`npm {arguments[0]}` in a copy of {CLIS} failed with code {done.returncode}:\n{said}")
    return done.stdout


def main() -> None:
    """Install, and print the settings that point to the binaries."""
    try:
        found = binaries()
    except InstallError as error:
        sys.exit(f"error: {error}")
    print(f"BRIDGE_CLAUDE_COMMAND={shlex.quote(str(found.claude))}")
    print(f"BRIDGE_CODEX_COMMAND={shlex.quote(str(found.codex))}")


if __name__ == "__main__":
    main()
