"""`cli-bridge demo`: the whole service on a throw-away data folder, with simulated CLIs."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from bridge.limits import Limits
from bridge.ops import serve
from bridge.service import Service, demo_providers
from bridge.settings import Settings

_TEXT = """
cli-bridge demo on {address}
Answers come from a small simulated CLI; no model is asked and nothing is spent.
The key below has a cap of $1 a day. Everything is thrown away when you press ctrl-C.

    curl {address}/generate \\
      -H "Authorization: Bearer {key}" \\
      -d '{{"userPrompt": "Write a haiku about limits"}}'

Add "stream": true and curl's -N to see it stream; GET /me shows what is left of the cap.
In a browser: {address}/ with that key, and {address}/admin/ with the admin key
{admin}
"""


def run(env: dict[str, str], overrides: dict[str, str]) -> None:
    """Serve until ctrl-C, then remove the data folder. Raises like `serve.run`."""
    folder = Path(tempfile.mkdtemp(prefix="cli-bridge-demo-"))
    # Nothing of the operator's real set-up: no data folder, no keys, no credentials.
    settings = Settings.load(
        {"BRIDGE_DATA_DIR": str(folder), "BRIDGE_ADMIN_KEY": _ADMIN_KEY, **_address(env)}, overrides
    )
    try:
        serve.run(settings, make_providers=demo_providers, ready=_ready)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


_ADMIN_KEY = "demo-admin-key-not-secret"


def _address(env: dict[str, str]) -> dict[str, str]:
    return {name: env[name] for name in ("BRIDGE_HOST", "BRIDGE_PORT") if name in env}


def _ready(service: Service, address: str) -> None:
    _, raw = service.keys.create("demo", Limits.parse({"maxCostPerDay": 1}))
    serve.say(_TEXT.format(address=address, key=raw, admin=_ADMIN_KEY))
