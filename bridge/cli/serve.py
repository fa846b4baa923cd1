"""`cli-bridge serve`, `demo` and `link`."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import click

from bridge.cli.common import as_json, ask, environment, examples, load_settings, plain_errors, say, show_json
from bridge.settings import TABLE, Settings

_DEMO_ADMIN_KEY = "demo-admin-key-not-secret"
_DEMO = """
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
    from bridge.limits import Limits
    from bridge.ops import serve as server
    from bridge.service import Service, demo_providers

    def ready(service: Service, address: str) -> None:
        _, raw_key = service.keys.create("demo", Limits.parse({"maxCostPerDay": 1}))
        server.say(_DEMO.format(address=address, key=raw_key, admin=_DEMO_ADMIN_KEY))

    with plain_errors():
        folder = Path(tempfile.mkdtemp(prefix="cli-bridge-demo-"))
        # Nothing of the operator's real set-up: no data folder, no keys, no credentials.
        address = {name: text for name, text in environment().items() if name in ("BRIDGE_HOST", "BRIDGE_PORT")}
        ours = {"BRIDGE_DATA_DIR": str(folder), "BRIDGE_ADMIN_KEY": _DEMO_ADMIN_KEY, **address}
        try:
            settings = Settings.load(ours, _given(BRIDGE_HOST=host, BRIDGE_PORT=port))
            server.run(settings, make_providers=demo_providers, ready=ready)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _given(**options: str | None) -> dict[str, str]:
    return {name: value for name, value in options.items() if value is not None}


@click.command(epilog=examples("cli-bridge link", "cli-bridge link --url https://bridge.example.com"))
@click.option("--url", help="where your browser finds the bridge, if it is not the address that it listens on")
@as_json
def link(url: str | None, raw: bool) -> None:
    """Make a link that logs the admin in, once.

    It lasts ten minutes, and ends the link before it. The server must run. Where something is still to be set up, it
    leads through that.
    """
    from bridge.http.login import link_address
    from bridge.ops.serve import browser_address
    from bridge.store.folder import Store

    if url is not None and urlsplit(url).scheme not in ("http", "https"):
        raise click.BadParameter("it must begin with http:// or https://", param_hint="--url")
    made = ask("POST", "/admin/link")
    listens = (Store.holder(load_settings().data_dir) or {}).get("address", "")
    address = link_address(url or browser_address(listens), made["token"])
    if raw:
        show_json({"link": address, "lastsSeconds": made["lastsSeconds"]})
        return
    say(address)
    say("It logs the admin in, once, within ten minutes.", err=True)


COMMANDS = (serve, demo, link)
