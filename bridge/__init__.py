"""cli-bridge: the Claude Code and Codex command lines as one HTTP service with caps that hold."""

__version__ = "0.1.0"
