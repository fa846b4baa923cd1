"""`python -m tests.support.demo_server`: a server whose CLIs are simulated and answer without pauses."""

from __future__ import annotations

import os
from collections.abc import Mapping

from bridge.clock import Clock
from bridge.engine.provider import Provider
from bridge.engine.providers.demo import DemoProvider
from bridge.engine.schema import SchemaChecker
from bridge.engine.scratch import Scratch
from bridge.http import respond
from bridge.ops import serve
from bridge.settings import Settings


def providers(settings: Settings, scratch: Scratch, clock: Clock, schemas: SchemaChecker) -> Mapping[str, Provider]:
    pace_s = float(os.environ.get("DEMO_PACE_SECONDS", "0"))
    warm = int(os.environ.get("DEMO_WARM", "4"))
    return {
        name: DemoProvider(name, model, scratch, clock, matches=schemas.mismatch, pace_s=pace_s, warm=warm)
        for name, model in (("claude", settings.claude_default_model), ("codex", settings.codex_default_model))
    }


if __name__ == "__main__":
    if "DEMO_PATIENCE_SECONDS" in os.environ:
        respond.CLOUDFLARE_PATIENCE_S = float(os.environ["DEMO_PATIENCE_SECONDS"])
    if "DEMO_DRAIN_SECONDS" in os.environ:
        serve.DRAIN_S = float(os.environ["DEMO_DRAIN_SECONDS"])
    serve.run(Settings.load(dict(os.environ)), make_providers=providers)
