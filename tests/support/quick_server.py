"""`python -m tests.support.quick_server`: a server that looks at the programs of its CLIs, and around, more often, and
asks the providers for their models at once."""

from __future__ import annotations

import os

from bridge import service
from bridge.ops import alerts, serve
from bridge.providers import cli
from bridge.settings import Settings

if __name__ == "__main__":
    cli.PROGRAM_LOOK_S = alerts.CHECK_S = 0.5
    service.FIRST_LIST_S = 0.0
    serve.run(Settings.load(dict(os.environ)))
