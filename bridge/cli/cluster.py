"""`cli-bridge cluster`: several hosts that share one Redis."""

from __future__ import annotations

from pathlib import Path

import click

from bridge.cli.common import as_json, examples, load_settings, plain_errors, print_table, say, show_json


@click.group(
    epilog=examples(
        "cli-bridge cluster init --from-data data", "cli-bridge cluster status", "cli-bridge cluster leave b"
    )
)
def cluster() -> None:
    """Several hosts that share one Redis.

    They have the same keys, caps, credentials and log. BRIDGE_STORE_URL names the Redis; docs/cluster.md says how to
    set that up.
    """


@cluster.command(epilog=examples("cli-bridge cluster init", "cli-bridge cluster init --from-data data"))
@click.option(
    "--from-data", "folder", type=click.Path(path_type=Path, exists=True, file_okay=False), help="the folder to put in"
)
@as_json
def init(folder: Path | None, raw: bool) -> None:
    """Make a cluster in an empty Redis.

    With --from-data it begins with the keys, usage, credentials and audit of that data folder, whose server must be
    stopped; the folder is then that of the first host. On a Redis that holds a cluster, it renews the functions there,
    as a newer version may want.
    """
    from bridge.ops import cluster as clusters

    with plain_errors():
        made = clusters.init(load_settings(), folder)
    if raw:
        show_json(made)
    elif made["new"]:
        say(f"The cluster {made['id']} is made" + (f", with {made['keys']} keys." if folder else "."))
        say("Start the hosts now, with the same BRIDGE_STORE_URL.")
    else:
        say(f"The functions of the cluster {made['id']} are those of this version now.")


@cluster.command(epilog=examples("cli-bridge cluster status", "cli-bridge cluster status --json"))
@as_json
def status(raw: bool) -> None:
    """Show the hosts, and how the Redis keeps what they share."""
    from bridge.ops import cluster as clusters

    with plain_errors():
        found = clusters.status(load_settings())
    if raw:
        show_json(found)
        return
    say(f"Cluster {found['id']}: {found['records']} records, {found['kept']} of them in Redis.")
    memory = found["memory"]
    most = f" of {memory['most'] / 2**20:.0f} MB" if memory["most"] else ", without a bound"
    say(f"Redis uses {memory['used'] / 2**20:.0f} MB{most}.")
    for text in filter(None, (found["problem"], found["warning"])):
        say(text)
    say()
    rows = [(each["name"], "running" if each["alive"] else "gone", str(each["behind"])) for each in found["nodes"]]
    print_table(("host", "state", "records behind"), rows, right=(2,), empty="No host has taken part yet.")


@cluster.command(epilog=examples("cli-bridge cluster leave b"))
@click.argument("node")
def leave(node: str) -> None:
    """Forget a host that is gone for good."""
    from bridge.ops import cluster as clusters

    with plain_errors():
        clusters.leave(load_settings(), node)
    say(f"{node} is no part of the cluster any more.")


@cluster.command(epilog=examples("cli-bridge cluster export data-of-one-host"))
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@as_json
def export(folder: Path, raw: bool) -> None:
    """Write keys, usage, credentials and audit into a new data folder.

    A server that runs with it and without BRIDGE_STORE_URL goes on from there. Stop the hosts first. The log of
    earlier days is in logs/ of each host's own data folder.
    """
    from bridge.ops import cluster as clusters

    with plain_errors():
        made = clusters.export(load_settings(), folder)
    if raw:
        show_json(made)
    else:
        say(f"{made['keys']} keys, usage up to record {made['records']}, and {made['audit']} entries of the audit.")


@cluster.command("accept-loss", epilog=examples("cli-bridge cluster accept-loss"))
@click.option("--yes", is_flag=True, help="do not ask")
def accept_loss(yes: bool) -> None:
    """Let this host go on with what the Redis has, although that is less than it had.

    What the Redis lost counts for no cap any more. See "Lost data" in docs/cluster.md before. The server of this host
    must be stopped; each host needs this once.
    """
    from bridge.ops import cluster as clusters

    settings = load_settings()
    with plain_errors():
        found = clusters.loss(settings)
    say(f"This host has seen record {found.here}, the Redis has {found.there}.")
    if yes or click.confirm("Go on with what the Redis has?"):
        with plain_errors():
            clusters.accept_loss(settings)
        say("It will, from its next start on.")
