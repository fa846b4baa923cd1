"""`cli-bridge completion`: what a shell needs to complete commands, options and key names."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from bridge.cli.common import examples


@click.command(
    epilog=examples(
        'eval "$(cli-bridge completion bash)"                              in ~/.bashrc',
        'eval "$(cli-bridge completion zsh)"                               in ~/.zshrc',
        "cli-bridge completion fish > ~/.config/fish/completions/cli-bridge.fish",
    )
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script for your shell.

    With it, SHELL completes commands, options and names of keys.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(context.find_root().command, {}, "cli-bridge", "_CLI_BRIDGE_COMPLETE")
    click.echo(script.source_template % script.source_vars())
