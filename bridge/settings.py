"""The settings: one table, from which `--help`, docs/configuration.md and the checks come.

Every setting is a field of `Settings`; its metadata holds the environment variable, the text, and
the parser. `Settings.load` reads them all and reports every mistake at once.
"""

from __future__ import annotations

import difflib
import zoneinfo
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from bridge import parsers
from bridge.errors import SettingsError
from bridge.limits import DEFAULTS, LIMITS, Limit
from bridge.registry import PROVIDERS, ProviderRow

ENV_FILE = "BRIDGE_ENV_FILE"
"""Names the file that settings are read from besides the environment."""


def default_limit_variable(limit: Limit) -> str:
    """The environment variable with the default of a limit: maxCostPerDay -> BRIDGE_DEFAULT_MAX_COST_PER_DAY."""
    return "_".join(["BRIDGE_DEFAULT", *limit.words]).upper()


# --- the table -------------------------------------------------------------------------------


def _initial(parse: Callable[[str], Any], default: str) -> Any:
    """The value of a setting that is not given. An empty `default` stands for "not set" and gives None or ()."""
    empty = () if parse in (parsers.names, parsers.models, parsers.origins, parsers.hosts) else None
    return parse(default) if default else empty


def _row(
    variable: str, parse: Callable[[str], Any], default: str, text: str, *, secret: bool = False
) -> dict[str, Any]:
    return {"variable": variable, "parse": parse, "default": default, "text": text, "secret": secret}


def _setting(variable: str, parse: Callable[[str], Any], default: str, text: str, *, secret: bool = False) -> Any:
    """A field of Settings."""
    row = _row(variable, parse, default, text, secret=secret)
    # A URL may hold a password.
    return field(default=_initial(parse, default), repr=not secret and parse is not parsers.url, metadata=row)


@dataclass(frozen=True)
class ProviderSettings:
    """The settings of one provider. `base_url` and `token` are None where the CLI knows them by itself."""

    command: str
    #: "api-key" or "login"
    credentials: str
    api_key: str | None = field(repr=False)
    # A URL may hold a password.
    base_url: str | None = field(repr=False)
    default_model: str
    #: the allow-list; empty for any well-formed name
    models: tuple[str, ...]
    #: in the place of the CLI's log-in
    token: str | None = field(default=None, repr=False)


def _provider_rows(row: ProviderRow) -> dict[str, dict[str, Any]]:
    """The settings of one provider, by the fields of ProviderSettings."""
    program = f"the {row.program} CLI"
    login = "what the CLI itself is logged in with, for that one person alone; the terms: docs/security.md"
    endpoint, any_model = f"endpoint for the {row.name} CLI, if not the usual one", "unset: any well-formed name"
    kinds, no_model = parsers.choice("api-key", "login"), "where a request names none"
    rows = {
        "command": _row(row.variable("COMMAND"), parsers.program, row.name, f"{program}: a name on PATH or a path"),
        "api_key": _row(row.key_variable, parsers.secret, "", f"credential for the {row.name} CLI", secret=True),
        "base_url": _row(row.url_variable, parsers.url, row.url, endpoint),
        "credentials": _row(row.variable("CREDENTIALS"), kinds, "api-key", f"api-key, or login: {login}"),
        "default_model": _row(row.variable("DEFAULT_MODEL"), parsers.model, row.default_model, no_model),
        "models": _row(row.variable("MODELS"), parsers.models, "", f"comma-separated allow-list; {any_model}"),
    }
    if row.token_variable is not None:
        text = f"for {row.variable('CREDENTIALS')}=login: a token of '{row.token_command}', in the place of the log-in"
        rows["token"] = _row(row.token_variable, parsers.secret, "", text, secret=True)
    return rows


def _provider(row: ProviderRow, given: Mapping[str, Any]) -> ProviderSettings:
    """The settings of one provider: `given` by field, the defaults for the rest."""
    usual = {name: _initial(each["parse"], each["default"]) for name, each in _provider_rows(row).items()}
    return ProviderSettings(**{**usual, **given})


@dataclass(frozen=True)
class Settings:
    """All settings of one server, checked. See docs/configuration.md, which is made from this table."""

    env_file: str = _setting(
        ENV_FILE,
        parsers.file,
        ".env",
        "file with further settings; only from the real environment, not from that file",
    )
    host: str = _setting("BRIDGE_HOST", parsers.word, "127.0.0.1", "listen address")
    port: int = _setting("BRIDGE_PORT", parsers.integer(0, 65535), "3456", "listen port; 0 picks a free one")
    socket: str | None = _setting(
        "BRIDGE_SOCKET", parsers.socket, "", "listen on this unix socket instead of host and port"
    )
    data_dir: Path = _setting("BRIDGE_DATA_DIR", Path, "data", "folder of all durable state; made 0700, files 0600")
    store_url: str | None = _setting(
        "BRIDGE_STORE_URL",
        parsers.store,
        "",
        "the Redis that several hosts share: redis://, rediss:// or unix://; unset: this host alone, with files",
        secret=True,
    )
    node: str | None = _setting(
        "BRIDGE_NODE", parsers.node, "", "this host's name among those that share a Redis; unset: its host name"
    )
    admin_key: str | None = _setting(
        "BRIDGE_ADMIN_KEY",
        parsers.admin_key,
        "",
        "admin key, at least 16 characters; unset: the first start makes one and prints it once",
        secret=True,
    )
    cli_user: str | None = _setting(
        "BRIDGE_CLI_USER",
        parsers.user,
        "",
        "the user that the CLIs run as, where the service may change users; unset: cli-bridge-run, if there is one",
    )
    max_output_tokens: int = _setting(
        "BRIDGE_MAX_OUTPUT_TOKENS", parsers.integer(1), "8192", "ceiling of one answer where none is asked for"
    )
    max_output_tokens_limit: int = _setting(
        "BRIDGE_MAX_OUTPUT_TOKENS_LIMIT", parsers.integer(1), "32000", "the most that a request may ask for"
    )
    timeout_s: float = _setting(
        "BRIDGE_TIMEOUT_SECONDS", parsers.number(1, 86400), "300", "most time for one run, in seconds"
    )
    idle_timeout_s: float = _setting(
        "BRIDGE_IDLE_TIMEOUT_SECONDS",
        parsers.number(1, 86400),
        "90",
        "most time without a sign of life from the CLI, in seconds",
    )
    claude_reuse: str = _setting(
        "BRIDGE_CLAUDE_REUSE",
        parsers.choice("key", "off"),
        "key",
        "key: a claude process serves many runs of one key, and never another key's; off: one run each",
    )
    routing: str = _setting(
        "BRIDGE_ROUTING",
        parsers.choice("pace", "spread", "fill-first"),
        "pace",
        "which credential a run gets: pace (by what is left of each budget), spread (equal shares) or fill-first (by "
        "priority)",
    )
    schema_repair: bool = _setting(
        "BRIDGE_SCHEMA_REPAIR",
        parsers.switch,
        "on",
        "on or off: whether an answer that misses its schema is asked for once more, within what was reserved",
    )
    max_concurrent: int | None = _setting(
        "BRIDGE_MAX_CONCURRENT",
        parsers.auto(parsers.integer(1, 512)),
        "auto",
        "runs at once; auto: from memory and cores",
    )
    warm_processes: int | None = _setting(
        "BRIDGE_WARM_PROCESSES", parsers.auto(parsers.integer(0, 64)), "auto", "claude processes kept ready; 0 = none"
    )
    queue_limit: int = _setting("BRIDGE_QUEUE_LIMIT", parsers.integer(0, 10000), "64", "waiting runs")
    queue_timeout_s: float = _setting(
        "BRIDGE_QUEUE_TIMEOUT_SECONDS", parsers.number(0, 86400), "60", "longest wait in the queue, in seconds"
    )
    max_body_bytes: int = _setting(
        "BRIDGE_MAX_BODY_BYTES", parsers.integer(1024), "33554432", "largest request body, in bytes"
    )
    rate_limit_per_minute: int = _setting(
        "BRIDGE_RATE_LIMIT_PER_MINUTE", parsers.integer(0), "120", "requests per client address; 0 = off"
    )
    trusted_proxy: str = _setting(
        "BRIDGE_TRUSTED_PROXY",
        parsers.choice("none", "cloudflare", "forwarded"),
        "none",
        "whose word on the client's address, and on TLS (X-Forwarded-Proto), is believed, from a loopback or "
        "unix-socket peer only: none, cloudflare (CF-Connecting-IP) or forwarded (last X-Forwarded-For)",
    )
    access_team_domain: str | None = _setting(
        "BRIDGE_ACCESS_TEAM_DOMAIN",
        parsers.team,
        "",
        "Cloudflare Access, such as example.cloudflareaccess.com: whom it lets in is logged in to the dashboard",
    )
    access_audience: str | None = _setting(
        "BRIDGE_ACCESS_AUDIENCE",
        parsers.word,
        "",
        "the audience tag of the Access application; goes with the team domain",
    )
    cors_origins: tuple[str, ...] = _setting(
        "BRIDGE_CORS_ORIGINS", parsers.origins, "", "comma-separated origins of web pages that may call; * = any"
    )
    log_prompts: str = _setting(
        "BRIDGE_LOG_PROMPTS",
        parsers.choice("off", "preview", "full"),
        "preview",
        "how much of prompts the log keeps: off, preview (200 characters) or full",
    )
    log_retention_days: int = _setting(
        "BRIDGE_LOG_RETENTION_DAYS",
        parsers.integer(1, 36500),
        "90",
        "days that the request log is kept, this month's in any case",
    )
    zone: zoneinfo.ZoneInfo = _setting(
        "BRIDGE_TIMEZONE", parsers.zone, "UTC", "time zone in which days and months begin"
    )
    loop_repeats: int = _setting(
        "BRIDGE_LOOP_REPEATS",
        parsers.integer(0, 100000),
        "30",
        "the same prompt from one key this often within the window pauses the key; 0 = off",
    )
    loop_window_s: float = _setting(
        "BRIDGE_LOOP_WINDOW_SECONDS", parsers.number(1, 86400), "300", "that window, in seconds"
    )
    alert_webhook: str | None = _setting(
        "BRIDGE_ALERT_WEBHOOK", parsers.url, "", "URL that alerts are posted to", secret=True
    )
    alert_format: str = _setting(
        "BRIDGE_ALERT_FORMAT",
        parsers.choice("auto", "json", "slack", "discord"),
        "auto",
        "what is posted there: json, slack or discord; auto: by the host name of the URL",
    )
    alert_cost_per_day: float = _setting(
        "BRIDGE_ALERT_COST_PER_DAY",
        parsers.dollars,
        "0",
        "alert when all keys together have spent this many dollars in a day; 0 = never",
    )
    alert_cost_per_month: float = _setting(
        "BRIDGE_ALERT_COST_PER_MONTH", parsers.dollars, "0", "the same for a month; 0 = never"
    )
    trace_dir: Path | None = _setting(
        "BRIDGE_TRACE_DIR",
        parsers.folder,
        "",
        "folder for traces: a file for each run with all that CLI and model said, secrets masked; ends by itself after "
        "24 hours or 1 GB; unset: none",
    )
    update_check: bool = _setting(
        "BRIDGE_UPDATE_CHECK",
        parsers.switch,
        "off",
        "on or off: whether npm is asked once a day for the newest versions of the CLIs, and the git remote that the "
        "bridge came from for a newer one of itself; nothing updates itself",
    )
    metrics: str = _setting(
        "BRIDGE_METRICS",
        parsers.choice("admin", "loopback", "off"),
        "admin",
        "who may read /metrics: admin (with the admin key), loopback (this host without a key, others with it), or off",
    )
    https_proxy: str | None = _setting(
        "HTTPS_PROXY",
        parsers.proxy,
        "",
        "HTTP proxy on the way to the models, such as http://user:password@proxy.example:3128; never to this host",
        secret=True,
    )
    http_proxy: str | None = _setting(
        "HTTP_PROXY", parsers.proxy, "", "the same for endpoints that begin with http://", secret=True
    )
    all_proxy: str | None = _setting(
        "ALL_PROXY", parsers.proxy, "", "the same where neither of these is set", secret=True
    )
    no_proxy: tuple[str, ...] = _setting(
        "NO_PROXY",
        parsers.hosts,
        "",
        "comma-separated hosts that are reached without it: a name with all below it, an address, a network such as "
        "10.0.0.0/8, any of them with a port, or *",
    )
    certificates: str | None = _setting(
        "SSL_CERT_FILE",
        parsers.certificates,
        "",
        "file with the certificates (PEM) that are believed on the way to the models, in the place of the system's; "
        "and on the way to a shared Redis",
    )
    certificate_folder: str | None = _setting(
        "SSL_CERT_DIR", parsers.certificate_folder, "", "the same as a folder, as c_rehash makes it"
    )
    #: variables that other programs know and the bridge does not, as sentences
    unheeded: tuple[str, ...] = ()
    providers: Mapping[str, ProviderSettings] = field(
        default_factory=lambda: {name: _provider(row, {}) for name, row in PROVIDERS.items()}
    )
    default_limits: Mapping[str, float] = field(default_factory=lambda: DEFAULTS)

    @property
    def secrets(self) -> tuple[str | None, ...]:
        """All that nobody should read, as it was given."""
        of_providers = (each for own in self.providers.values() for each in (own.api_key, own.token))
        return (self.admin_key, self.alert_webhook, self.store_url, *of_providers)

    @property
    def network(self) -> dict[str, str]:
        """The way to the models, in the variables that most programs know."""
        https, http = self.https_proxy or self.all_proxy, self.http_proxy or self.all_proxy
        found = {
            "HTTPS_PROXY": https,
            "HTTP_PROXY": http,
            "NO_PROXY": ",".join((*self.no_proxy, "localhost", "127.0.0.1", "::1")) if https or http else None,
            "SSL_CERT_FILE": self.certificates,
            "SSL_CERT_DIR": self.certificate_folder,
        }
        return {name: value for name, value in found.items() if value}

    @classmethod
    def load(cls, env: Mapping[str, str], overrides: Mapping[str, str] | None = None) -> Settings:
        """Read `env`; `overrides` (variable -> text, from command-line options) wins.

        An empty value counts as not set. Raises SettingsError with all mistakes.
        """
        given = {**env, **(overrides or {})}
        problems: list[str] = []
        values: dict[str, Any] = {}
        of_providers: dict[str, dict[str, Any]] = {name: {} for name in PROVIDERS}
        for row in TABLE:
            text = given.get(row["variable"], "")
            if row["variable"] in _IN_SMALL_LETTERS:
                text = given.get(row["variable"].lower()) or text
            if not text:
                continue
            try:
                own = values if row["provider"] is None else of_providers[row["provider"]]
                own[row["field"]] = row["parse"](text)
            except ValueError as error:
                # A URL may hold a password, too.
                shown = "" if row["secret"] or "@" in text else f" (it is {text[:60]!r})"
                problems.append(f"{row['variable']} {error}{shown}")
        limits = {name: values.pop(name, default) for name, default in DEFAULTS.items()}
        problems += _misspelt(given)
        providers = {name: _provider(row, of_providers[name]) for name, row in PROVIDERS.items()}
        values["unheeded"] = tuple(_unheeded(given, values))
        settings = cls(**values, providers=providers, default_limits=limits)
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
        if self.store_url is not None and self.log_prompts == "full":
            problems.append(
                "BRIDGE_LOG_PROMPTS=full cannot be had with BRIDGE_STORE_URL: whole prompts would fill the memory that "
                "the hosts share"
            )
        for name, own in self.providers.items():
            if own.models and own.default_model not in own.models:
                row = PROVIDERS[name]
                default, models = row.variable("DEFAULT_MODEL"), row.variable("MODELS")
                problems.append(f"{default} ({own.default_model}) must be in {models}")
        return problems


def _rows() -> Iterator[dict[str, Any]]:
    for each in fields(Settings):
        if each.metadata:
            yield {"field": each.name, "provider": None, **each.metadata}
    for name, provider in PROVIDERS.items():
        for own, row in _provider_rows(provider).items():
            yield {"field": own, "provider": name, **row}
    for limit in LIMITS:
        parse = parsers.dollars if limit.is_cost else parsers.integer(0, 10**12)
        text = f"{limit.text}, for keys made without {limit.name}; 0 = no limit"
        row = _row(default_limit_variable(limit), parse, f"{limit.default:g}", text)
        yield {"field": limit.name, "provider": None, **row}


TABLE: list[dict[str, Any]] = list(_rows())
"""Every setting: field, provider (None for those of the server), variable, parse, default (as text), text, secret."""


#: Variables that many programs know in small letters as well; these win, as for curl.
_IN_SMALL_LETTERS = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")

_CERTIFICATES = "certificates are taken from SSL_CERT_FILE or SSL_CERT_DIR"
_ANTHROPIC_ALONE = "claude is reached with ANTHROPIC_API_KEY at ANTHROPIC_BASE_URL, or with a log-in"
_PROJECT_OF_KEY = "calls go to the organization and project that the API key is for"
#: What the CLIs, their SDKs and other programs know, and the bridge does not: what holds instead.
_UNHEEDED = {
    **dict.fromkeys(("NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"), _CERTIFICATES),
    "CODEX_CA_CERTIFICATE": _CERTIFICATES,
    "ANTHROPIC_AUTH_TOKEN": "set ANTHROPIC_API_KEY, which goes up as x-api-key",
    "ANTHROPIC_CUSTOM_HEADERS": "no headers of the operator's are added",
    "ANTHROPIC_MODEL": "set BRIDGE_CLAUDE_DEFAULT_MODEL",
    **dict.fromkeys(("CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX", "CLAUDE_CODE_USE_FOUNDRY"), _ANTHROPIC_ALONE),
    "CODEX_API_KEY": "set OPENAI_API_KEY",
    "OPENAI_API_BASE": "set OPENAI_BASE_URL",
    **dict.fromkeys(("OPENAI_ORG_ID", "OPENAI_ORGANIZATION", "OPENAI_PROJECT", "OPENAI_PROJECT_ID"), _PROJECT_OF_KEY),
}


def _unheeded(given: Mapping[str, str], values: Collection[str]) -> Iterator[str]:
    """A sentence for each variable that somebody has set in vain. `values`: the fields that are set."""
    for variable, instead in _UNHEEDED.items():
        known = instead is _CERTIFICATES and ("certificates" in values or "certificate_folder" in values)
        if not known and given.get(variable, "").lower() not in ("", "0", "false", "no", "off"):
            yield f"{variable} is set, and is not heeded: {instead}."


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
