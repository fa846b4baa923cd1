"""Files of the CLIs for all people of a machine, which widen every run: neither CLI can be told to leave them out.

The command line of codex takes away what it can (MCP servers, and the command after each answer; not what
managed_config.toml says of that). What else they make of a call is refused by the gate; commands that they start are
not. So they are shown to whoever runs the bridge.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

#: Where they lie, by the name of the CLI: for claude 2.1.332 and codex 0.171.0.
FOLDERS = {"claude": Path("/etc/claude-code"), "codex": Path("/etc/codex")}
_NAMES = {
    "claude": ("managed-settings.json", "managed-settings.d/*.json", "managed-mcp.json"),
    "codex": ("config.toml", "managed_config.toml", "requirements.toml"),
}
#: What their settings do, as far as it matters here.
_MEANINGS = {
    "env": "variables, such as output limits",
    "hooks": "commands that run beside a request",
    "apiKeyHelper": "a command",
    "notify": "a command after each answer",
    "mcpServers": "MCP servers, which are commands and tools",
    "mcp_servers": "MCP servers, which are commands and tools",
}


class MachineFile(NamedTuple):
    """One of them: of which CLI, and what it does, as a sentence."""

    provider: str
    path: Path
    does: str


def machine_files() -> Iterator[MachineFile]:
    """Those that are there and say something."""
    for provider, folder in FOLDERS.items():
        for name in _NAMES[provider]:
            for path in sorted(folder.glob(name)):
                if does := _what_it_does(path):
                    yield MachineFile(provider, path, f"{path} holds for every run of the {provider} CLI: {does}.")


def _what_it_does(path: Path) -> str:
    read: Callable[[str], Any] = tomllib.loads if path.suffix == ".toml" else json.loads
    try:
        content = read(path.read_text())
    except (OSError, ValueError, RecursionError):
        return "it cannot be read"
    if path.name == "managed-mcp.json":
        return "beside it the CLI does not start with what keeps tools out"
    names = sorted(content) if isinstance(content, Mapping) else []
    said = [f"{name} ({_MEANINGS[name]})" if name in _MEANINGS else name for name in names]
    return f"it sets {', '.join(said)}" if said else ""
