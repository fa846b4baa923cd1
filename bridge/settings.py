"""The settings: one table, from which `--help`, docs/configuration.md and the checks come.

Every setting is a field of `Settings`; its metadata holds the environment variable, the text, and
the parser. `Settings.load` reads them all and reports every mistake at once.
"""

from __future__ import annotations

import difflib
import zoneinfo
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from bridge.errors import SettingsError
from bridge.limits import DEFAULTS, LIMITS, Limit
from bridge.parsers import (
    admin_key as _admin_key,
)
from bridge.parsers import (
    auto as _auto,
)
from bridge.parsers import (
    choice as _choice,
)
from bridge.parsers import (
    command as _command,
)
from bridge.parsers import (
    dollars as _dollars,
)
from bridge.parsers import (
    integer as _integer,
)
from bridge.parsers import (
    model as _model,
)
from bridge.parsers import (
    models as _models,
)
from bridge.parsers import (
    names as _names,
)
from bridge.parsers import (
    number as _number,
)
from bridge.parsers import (
    origins as _origins,
)
from bridge.parsers import (
    switch as _switch,
)
from bridge.parsers import (
    team as _team,
)
from bridge.parsers import (
    text as _text,
)
from bridge.parsers import (
    url as _url,
)
from bridge.parsers import (
    user as _user,
)
from bridge.parsers import (
    zone as _zone,
)

ENV_FILE = "BRIDGE_ENV_FILE"
"""Names the file that settings are read from besides the environment."""


def default_limit_variable(limit: Limit) -> str:
    """The environment variable with the default of a limit: maxCostPerDay -> BRIDGE_DEFAULT_MAX_COST_PER_DAY."""
    return "_".join(["BRIDGE_DEFAULT", *limit.words]).upper()


# --- the table -------------------------------------------------------------------------------


def _setting(variable: str, parse: Callable[[str], Any], default: str, text: str, *, secret: bool = False) -> Any:
    """A field of Settings. An empty `default` stands for "not set" and gives None or ()."""
    initial = parse(default) if default else (() if parse in (_names, _models, _origins) else None)
    return field(
        default=initial,
        # A URL may hold a password.
        repr=not secret and parse is not _url,
        metadata={
            "variable": variable,
            "parse": parse,
            "default": default,
            "text": text,
            "secret": secret,
        },
    )


@dataclass(frozen=True)
class Settings:
    """All settings of one server, checked. See docs/configuration.md, which is made from this table."""

    env_file: str = _setting(
        ENV_FILE,
        _command,
        ".env",
        "file with further settings; only from the real environment, not from that file",
    )
    host: str = _setting("BRIDGE_HOST", _text, "127.0.0.1", "listen address")
    port: int = _setting("BRIDGE_PORT", _integer(0, 65535), "3456", "listen port; 0 picks a free one")
    socket: str | None = _setting("BRIDGE_SOCKET", _command, "", "listen on this unix socket instead of host and port")
    data_dir: Path = _setting("BRIDGE_DATA_DIR", Path, "data", "folder of all durable state; made 0700, files 0600")
    admin_key: str | None = _setting(
        "BRIDGE_ADMIN_KEY",
        _admin_key,
        "",
        "admin key, at least 16 characters; unset: the first start makes one and prints it once",
        secret=True,
    )
    claude_command: str = _setting(
        "BRIDGE_CLAUDE_COMMAND", _command, "claude", "the Claude Code CLI: a name on PATH or a path"
    )
    codex_command: str = _setting("BRIDGE_CODEX_COMMAND", _command, "codex", "the Codex CLI: a name on PATH or a path")
    cli_user: str | None = _setting(
        "BRIDGE_CLI_USER",
        _user,
        "",
        "the user that the CLIs run as, where the service may change users; unset: cli-bridge-run, if there is one",
    )
    anthropic_api_key: str | None = _setting(
        "ANTHROPIC_API_KEY", _text, "", "credential for the claude CLI", secret=True
    )
    anthropic_base_url: str | None = _setting(
        "ANTHROPIC_BASE_URL", _url, "", "endpoint for the claude CLI, if not the usual one"
    )
    openai_api_key: str | None = _setting("OPENAI_API_KEY", _text, "", "credential for the codex CLI", secret=True)
    openai_base_url: str = _setting("OPENAI_BASE_URL", _url, "https://api.openai.com/v1", "endpoint for the codex CLI")
    claude_credentials: str = _setting(
        "BRIDGE_CLAUDE_CREDENTIALS",
        _choice("api-key", "login"),
        "api-key",
        "api-key, or login: whatever the CLI itself is logged in with (see Terms of service)",
    )
    codex_credentials: str = _setting(
        "BRIDGE_CODEX_CREDENTIALS", _choice("api-key", "login"), "api-key", "the same for codex"
    )
    claude_oauth_token: str | None = _setting(
        "CLAUDE_CODE_OAUTH_TOKEN",
        _text,
        "",
        "for BRIDGE_CLAUDE_CREDENTIALS=login: a token of 'claude setup-token', in the place of the log-in",
        secret=True,
    )
    claude_default_model: str = _setting(
        "BRIDGE_CLAUDE_DEFAULT_MODEL", _model, "claude-sonnet-5-5", "where a request names none"
    )
    codex_default_model: str = _setting("BRIDGE_CODEX_DEFAULT_MODEL", _model, "gpt-6-sol", "where a request names none")
    claude_models: tuple[str, ...] = _setting(
        "BRIDGE_CLAUDE_MODELS", _models, "", "comma-separated allow-list; unset: any well-formed name"
    )
    codex_models: tuple[str, ...] = _setting(
        "BRIDGE_CODEX_MODELS", _models, "", "comma-separated allow-list; unset: any well-formed name"
    )
    max_output_tokens: int = _setting(
        "BRIDGE_MAX_OUTPUT_TOKENS", _integer(1), "8192", "ceiling of one answer where none is asked for"
    )
    max_output_tokens_limit: int = _setting(
        "BRIDGE_MAX_OUTPUT_TOKENS_LIMIT", _integer(1), "32000", "the most that a request may ask for"
    )
    timeout_s: float = _setting("BRIDGE_TIMEOUT_SECONDS", _number(1, 86400), "300", "most time for one run, in seconds")
    idle_timeout_s: float = _setting(
        "BRIDGE_IDLE_TIMEOUT_SECONDS",
        _number(1, 86400),
        "90",
        "most time without a sign of life from the CLI, in seconds",
    )
    schema_repair: bool = _setting(
        "BRIDGE_SCHEMA_REPAIR",
        _switch,
        "on",
        "on or off: whether an answer that misses its schema is asked for once more, within what was reserved",
    )
    max_concurrent: int | None = _setting(
        "BRIDGE_MAX_CONCURRENT",
        _auto(_integer(1, 512)),
        "auto",
        "runs at once; auto: from memory and cores",
    )
    warm_processes: int | None = _setting(
        "BRIDGE_WARM_PROCESSES", _auto(_integer(0, 64)), "auto", "claude processes kept ready; 0 = none"
    )
    queue_limit: int = _setting("BRIDGE_QUEUE_LIMIT", _integer(0, 10000), "64", "waiting runs")
    queue_timeout_s: float = _setting(
        "BRIDGE_QUEUE_TIMEOUT_SECONDS", _number(0, 86400), "60", "longest wait in the queue, in seconds"
    )
    max_body_bytes: int = _setting(
        "BRIDGE_MAX_BODY_BYTES", _integer(1024), "33554432", "largest request body, in bytes"
    )
    rate_limit_per_minute: int = _setting(
        "BRIDGE_RATE_LIMIT_PER_MINUTE", _integer(0), "120", "requests per client address; 0 = off"
    )
    trusted_proxy: str = _setting(
        "BRIDGE_TRUSTED_PROXY",
        _choice("none", "cloudflare", "forwarded"),
        "none",
        "whose word on the client's address, and on TLS (X-Forwarded-Proto), is believed, from a loopback or "
        "unix-socket peer only: none, cloudflare (CF-Connecting-IP) or forwarded (last X-Forwarded-For)",
    )
    access_team_domain: str | None = _setting(
        "BRIDGE_ACCESS_TEAM_DOMAIN",
        _team,
        "",
        "Cloudflare Access, such as example.cloudflareaccess.com: whom it lets in is logged in to the dashboard",
    )
    access_audience: str | None = _setting(
        "BRIDGE_ACCESS_AUDIENCE", _text, "", "the audience tag of the Access application; goes with the team domain"
    )
    cors_origins: tuple[str, ...] = _setting(
        "BRIDGE_CORS_ORIGINS", _origins, "", "comma-separated origins of web pages that may call; * = any"
    )
    log_prompts: str = _setting(
        "BRIDGE_LOG_PROMPTS",
        _choice("off", "preview", "full"),
        "preview",
        "how much of prompts the log keeps: off, preview (200 characters) or full",
    )
    log_retention_days: int = _setting(
        "BRIDGE_LOG_RETENTION_DAYS", _integer(1, 36500), "90", "days that the request log is kept"
    )
    zone: zoneinfo.ZoneInfo = _setting("BRIDGE_TIMEZONE", _zone, "UTC", "time zone in which days and months begin")
    loop_repeats: int = _setting(
        "BRIDGE_LOOP_REPEATS",
        _integer(0, 100000),
        "30",
        "the same prompt from one key this often within the window pauses the key; 0 = off",
    )
    loop_window_s: float = _setting("BRIDGE_LOOP_WINDOW_SECONDS", _number(1, 86400), "300", "that window, in seconds")
    alert_webhook: str | None = _setting("BRIDGE_ALERT_WEBHOOK", _url, "", "URL that alerts are posted to", secret=True)
    alert_format: str = _setting(
        "BRIDGE_ALERT_FORMAT",
        _choice("auto", "json", "slack", "discord"),
        "auto",
        "what is posted there: json, slack or discord; auto: by the host name of the URL",
    )
    alert_cost_per_day: float = _setting(
        "BRIDGE_ALERT_COST_PER_DAY",
        _dollars,
        "0",
        "alert when all keys together have spent this many dollars in a day; 0 = never",
    )
    alert_cost_per_month: float = _setting(
        "BRIDGE_ALERT_COST_PER_MONTH", _dollars, "0", "the same for a month; 0 = never"
    )
    metrics: str = _setting(
        "BRIDGE_METRICS",
        _choice("admin", "loopback", "off"),
        "admin",
        "who may read /metrics: admin (with the admin key), loopback (this host without a key, others with it), or off",
    )
    default_limits: Mapping[str, float] = field(default_factory=lambda: DEFAULTS)

    @classmethod
    def load(cls, env: Mapping[str, str], overrides: Mapping[str, str] | None = None) -> Settings:
        """Read `env`; `overrides` (variable -> text, from command-line options) wins.

        An empty value counts as not set. Raises SettingsError with all mistakes.
        """
        given = {**env, **(overrides or {})}
        problems: list[str] = []
        values: dict[str, Any] = {}
        for row in TABLE:
            text = given.get(row["variable"], "")
            if not text:
                continue
            try:
                values[row["field"]] = row["parse"](text)
            except ValueError as error:
                # A URL may hold a password, too.
                shown = "" if row["secret"] or "@" in text else f" (it is {text[:60]!r})"
                problems.append(f"{row['variable']} {error}{shown}")
        limits = {name: values.pop(name, default) for name, default in DEFAULTS.items()}
        problems += _misspelt(given)
        settings = cls(**values, default_limits=limits)
        problems += settings._contradictions()
        if problems:
            raise SettingsError(problems)
        return settings

    def _contradictions(self) -> list[str]:
        problems = []
        if self.max_output_tokens > self.max_output_tokens_limit:
            problems.append(
                "BRIDGE_MAX_OUTPUT_TOKENS must not be above BRIDGE_MAX_OUTPUT_TOKENS_LIMIT "
                f"({self.max_output_tokens} > {self.max_output_tokens_limit})"
            )
        if (self.access_team_domain is None) != (self.access_audience is None):
            problems.append("BRIDGE_ACCESS_TEAM_DOMAIN and BRIDGE_ACCESS_AUDIENCE must be set together, or neither")
        for name in ("claude", "codex"):
            models, default = getattr(self, f"{name}_models"), getattr(self, f"{name}_default_model")
            if models and default not in models:
                problems.append(
                    f"BRIDGE_{name.upper()}_DEFAULT_MODEL ({default}) must be in BRIDGE_{name.upper()}_MODELS"
                )
        return problems


def _rows() -> list[dict[str, Any]]:
    rows = [{"field": f.name, **f.metadata} for f in fields(Settings) if f.metadata]
    for limit in LIMITS:
        rows.append(
            {
                "field": limit.name,
                "variable": default_limit_variable(limit),
                "parse": _dollars if limit.is_cost else _integer(0, 10**12),
                "default": f"{limit.default:g}",
                "text": f"{limit.text}, for keys made without {limit.name}; 0 = no limit",
                "secret": False,
            }
        )
    return rows


TABLE: list[dict[str, Any]] = _rows()
"""Every setting: field, variable, parse, default (as text), text, secret."""


def _misspelt(given: Mapping[str, str]) -> list[str]:
    """A cap that is silently ignored because of a typing error would be the worst kind of surprise."""
    known = [row["variable"] for row in TABLE]
    problems = []
    for variable in given:
        if variable.startswith("BRIDGE_") and variable not in known:
            near = difflib.get_close_matches(variable, known, n=1, cutoff=0.84)
            if near:
                problems.append(f"{variable} is not a setting; did you mean {near[0]}?")
            elif variable.startswith("BRIDGE_DEFAULT_"):
                problems.append(f"{variable} is not a setting")
    return problems
