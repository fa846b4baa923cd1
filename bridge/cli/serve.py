"""`cli-bridge serve` and `demo`."""

from __future__ import annotations

import click

from bridge.cli.common import environment, examples, plain_errors
from bridge.settings import TABLE, Settings


def _settings_help() -> str:
    rows = []
    for row in TABLE:
        default = "" if not row["default"] else f" [{row['default']}]"
        rows.append(f"  {row['variable']}{default}\n      {row['text']}")
    return "\b\nSettings (environment, or a .env file in the working directory):\n" + "\n".join(rows)


@click.command(epilog=examples("cli-bridge serve", "cli-bridge serve --port 8080") + "\n\n" + _settings_help())
@click.option("--host", help="listen address (BRIDGE_HOST)")
@click.option("--port", help="listen port (BRIDGE_PORT)")
def serve(host: str | None, port: str | None) -> None:
    """Run the service until it is stopped.

    The first start makes an admin key and prints it, once. SIGTERM gives running requests time to end.
    """
    from bridge.ops import serve as server

    overrides = _given(BRIDGE_HOST=host, BRIDGE_PORT=port)

    def read() -> Settings:
        return Settings.load(environment(), overrides)

    with plain_errors():
        server.run(read(), reread=read)


@click.command(epilog=examples("cli-bridge demo", "cli-bridge demo --port 8080"))
@click.option("--host", help="listen address (BRIDGE_HOST)")
@click.option("--port", help="listen port (BRIDGE_PORT)")
def demo(host: str | None, port: str | None) -> None:
    """Try everything with a simulated CLI.

    Needs no account, and spends nothing. ctrl-C ends it and throws everything away.
    """
    from bridge.ops import demo as demonstration

    with plain_errors():
        demonstration.run(environment(), _given(BRIDGE_HOST=host, BRIDGE_PORT=port))


def _given(**options: str | None) -> dict[str, str]:
    return {name: value for name, value in options.items() if value is not None}


COMMANDS = (serve, demo)
