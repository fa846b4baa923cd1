"""The npm packages of js/package.json, and the scripts of js/ that use them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support import npm

SOURCE = Path(__file__).resolve().parent / "js"


def run_script(name: str, env: Mapping[str, str]) -> dict[str, Any]:
    """What a script of js/ printed last, as JSON."""
    done = subprocess.run(
        ["node", "--input-type=module", "-"],
        input=(SOURCE / name).read_text(),
        # Names of packages are looked for from here.
        cwd=npm.installed(SOURCE, "sdks"),
        env={"PATH": os.environ["PATH"], **env},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen
