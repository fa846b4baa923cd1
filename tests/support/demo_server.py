"""`python -m tests.support.demo_server`: a server whose CLIs are simulated and answer without pauses.

With DEMO_GATED there is one CLI, claude, which asks its model through the gate.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from bridge.clock import Clock
from bridge.gate.server import Gate
from bridge.http import body, generate
from bridge.ops import connections, serve
from bridge.providers.demo import DemoProvider
from bridge.providers.provider import Provider
from bridge.registry import PROVIDERS
from bridge.sandbox.scratch import Scratch
from bridge.settings import Settings
from tests.support.caller import Caller


def providers(settings: Settings, scratch: Scratch, clock: Clock, gate: Gate) -> Mapping[str, Provider]:
    if "DEMO_GATED" in os.environ:
        return {"claude": Caller(gate, settings.idle_timeout_s)}
    pace_s = float(os.environ.get("DEMO_PACE_SECONDS", "0"))
    warm = int(os.environ.get("DEMO_WARM", "1"))
    return {
        name: DemoProvider(row, settings, scratch, clock, gate, pace_s=pace_s, warm=warm)
        for name, row in PROVIDERS.items()
    }


#: Times that no test can wait for, and numbers that none can reach, by the variable that sets them.
BOUNDS = {
    "DEMO_PATIENCE_SECONDS": (generate, "CLOUDFLARE_PATIENCE_S"),
    "DEMO_DRAIN_SECONDS": (serve, "DRAIN_S"),
    "DEMO_BODY_SECONDS": (body, "BODY_S"),
    "DEMO_DISCARD_SECONDS": (body, "MOST_SECONDS"),
    "DEMO_TURN_SECONDS": (body, "TURN_S"),
    "DEMO_STALLED_SECONDS": (connections, "STALLED_S"),
    "DEMO_MOST_CONNECTIONS": (connections, "MOST"),
}


if __name__ == "__main__":
    for variable, (module, name) in BOUNDS.items():
        if variable in os.environ:
            setattr(module, name, type(getattr(module, name))(os.environ[variable]))
    try:
        serve.run(Settings.load(dict(os.environ)), make_providers=providers)
    except SystemExit as end:
        sys.stderr.flush()
        if isinstance(end.code, int | None):
            os._exit(end.code or 0)  # at once: that the interpreter clears up takes as long as all else of a stop
        raise
