"""`python -m tests.standin`: prints its URL as the first line and serves until it is stopped."""

from __future__ import annotations

import argparse
import signal

from .script import ScriptError
from .server import StandIn


def main() -> None:
    """Run the stand-in as a command."""
    parser = argparse.ArgumentParser(prog="python -m tests.standin", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 (the default) takes a free one")
    parser.add_argument(
        "directives",
        nargs="*",
        metavar="NAME=VALUE",
        help="default for prompts without directives, such as deltas=20 delay=0.05",
    )
    options = parser.parse_args()
    try:
        standin = StandIn(options.port, **dict(d.split("=", 1) for d in options.directives))
    except (ScriptError, ValueError) as error:
        parser.error(str(error))
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # before the first thread
    with standin:
        print(standin.url, flush=True)
        signal.sigwait(signals)


if __name__ == "__main__":
    main()
