"""`cli-bridge link`."""

from __future__ import annotations

from urllib.parse import urlsplit

import click

from bridge.cli.common import as_json, ask, examples, load_settings, say, show_json


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
