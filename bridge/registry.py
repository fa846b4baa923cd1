"""The registry of providers: a row for each CLI that the bridge can run. Pure.

Adding one is a row here, the module that its `run_by` names, and its prices in ledger/prices.json. Settings, keys,
endpoints, models, pages, `doctor` and the documentation read these rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import msgspec


class ProviderRow(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a provider before anything of it runs."""

    #: in keys, settings, prices, the log and the ledger; also the usual name of its program
    name: str
    #: for people: the provider on the pages, its program, and who answers behind it
    title: str
    program: str
    vendor: str
    #: dotted path of the class that runs it: a bridge.providers.provider.Provider
    run_by: str
    #: its native endpoint
    path: str
    default_model: str
    #: how the names of its models begin, as a regular expression; the first provider that fits counts
    model_names: str
    #: the version that the tests cover, which is that of deploy/clis
    tested: str
    #: its package on npm, and where the program lies in what that installs, by system and machine
    package: str
    programs: Mapping[tuple[str, str], str]
    #: environment variable of its API key, and how the keys of the vendor's own endpoint begin
    key_variable: str
    key_prefix: str
    #: environment variable of its endpoint, and the usual one; empty where the CLI knows it by itself
    url_variable: str
    url: str = ""
    #: the API that its models are asked in, where that is unless told otherwise, and the path of its list of models
    wire: Literal["messages", "responses"]
    home: str
    models_path: str
    #: environment variable of a token that takes the place of the CLI's log-in, and the command that makes it
    token_variable: str | None = None
    token_command: str = ""
    #: whether its models can be told how many words to make
    verbosity: bool = False
    #: whose words its usage has in native answers
    usage_words: Literal["anthropic", "openai"]

    def variable(self, setting: str) -> str:
        """The environment variable of a setting that every provider has, such as COMMAND."""
        return f"BRIDGE_{self.name.upper()}_{setting}"

    def names_model(self, model: str) -> bool:
        """Whether a model's name looks like one of its own."""
        return re.match(self.model_names, model, re.IGNORECASE) is not None


_ROWS = (
    ProviderRow(
        name="claude",
        title="Claude",
        program="Claude Code",
        vendor="Anthropic",
        run_by="bridge.providers.claude.ClaudeProvider",
        path="/generate",
        default_model="claude-sonnet-5-5",
        model_names=r"claude|sonnet|opus|haiku|fable|mythos",
        tested="2.1.332",
        package="@anthropic-ai/claude-code",
        programs={
            ("Linux", "x86_64"): "@anthropic-ai/claude-code-linux-x64/claude",
            ("Linux", "aarch64"): "@anthropic-ai/claude-code-linux-arm64/claude",
            ("Darwin", "x86_64"): "@anthropic-ai/claude-code-darwin-x64/claude",
            ("Darwin", "arm64"): "@anthropic-ai/claude-code-darwin-arm64/claude",
        },
        key_variable="ANTHROPIC_API_KEY",
        key_prefix="sk-ant-",
        url_variable="ANTHROPIC_BASE_URL",
        wire="messages",
        home="https://api.anthropic.com",
        models_path="/v1/models",
        token_variable="CLAUDE_CODE_OAUTH_TOKEN",
        token_command="claude setup-token",
        usage_words="anthropic",
    ),
    ProviderRow(
        name="codex",
        title="Codex",
        program="Codex",
        vendor="OpenAI",
        run_by="bridge.providers.codex.CodexProvider",
        path="/generate-codex",
        default_model="gpt-6-sol",
        model_names=r"gpt|chatgpt|codex|o\d",
        tested="0.171.0",
        package="@openai/codex",
        programs={
            ("Linux", "x86_64"): "@openai/codex-linux-x64/vendor/x86_64-unknown-linux-musl/bin/codex",
            ("Linux", "aarch64"): "@openai/codex-linux-arm64/vendor/aarch64-unknown-linux-musl/bin/codex",
            ("Darwin", "x86_64"): "@openai/codex-darwin-x64/vendor/x86_64-apple-darwin/bin/codex",
            ("Darwin", "arm64"): "@openai/codex-darwin-arm64/vendor/aarch64-apple-darwin/bin/codex",
        },
        key_variable="OPENAI_API_KEY",
        key_prefix="sk-",
        url_variable="OPENAI_BASE_URL",
        url="https://api.openai.com/v1",
        wire="responses",
        home="https://api.openai.com/v1",
        models_path="/models",
        verbosity=True,
        usage_words="openai",
    ),
)

PROVIDERS: dict[str, ProviderRow] = {row.name: row for row in _ROWS}
"""Name -> row, in the order in which people see them."""
