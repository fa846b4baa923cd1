"""What stands around a CLI's process: who it runs as, what it may use, and that it dies with the bridge.

All of it is set by small programs of util-linux and coreutils that run one after the other in the new
process (each replaces itself by the next), so that no Python runs between fork and exec.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from bridge.sandbox.account import Account

#: Largest file that a CLI may write, in bytes: its home lies in memory.
FILE_BYTES = 256 * 2**20
#: Most open files of a CLI.
OPEN_FILES = 4096
#: Most processes and threads of the CLIs' own user; a CLI has about 30. (Where the CLIs share the service's
#: user, its other processes would count as well, so only the watch in process.py holds there.)
TASKS = 2000
#: If memory runs out, the kernel ends a CLI first, and not the service: see proc(5), oom_score_adj.
OOM_SCORE = 500


def command(argv: Sequence[str], cwd: Path, account: Account | None) -> list[str]:
    """`argv` with everything that is set up before it, in the folder `cwd`."""
    limits = ["--core=0:0", f"--fsize={FILE_BYTES}", f"--nofile={OPEN_FILES}"]
    if account is not None:
        limits.append(f"--nproc={TASKS}")
    return [
        *_if_there("choom", "-n", str(OOM_SCORE), "--"),
        *_if_there("prlimit", *limits, "--"),
        *_if_there("setpriv", *_identity(account), "--no-new-privs", "--pdeathsig", "KILL", "--"),
        *_env(cwd),
        *argv,
    ]


def _identity(account: Account | None) -> list[str]:
    if account is None:
        return []
    return [
        *("--reuid", str(account.uid), "--regid", str(account.gid), "--clear-groups"),
        *("--inh-caps=-all", "--ambient-caps=-all"),
    ]


@functools.cache
def _program(name: str) -> str | None:
    return shutil.which(name)


def _if_there(name: str, *arguments: str) -> list[str]:
    path = _program(name)
    return [] if path is None else [path, *arguments]


def _env(cwd: Path) -> list[str]:
    return ["/usr/bin/env", "-C", os.fspath(cwd)]
