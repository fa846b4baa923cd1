"""The settings: their defaults, and every mistake at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.errors import SettingsError
from bridge.limits import BY_NAME
from bridge.settings import TABLE, Settings, default_limit_variable

DEFAULTS = {
    "BRIDGE_HOST": "127.0.0.1",
    "BRIDGE_PORT": 3456,
    "BRIDGE_SOCKET": None,
    "BRIDGE_DATA_DIR": Path("data"),
    "BRIDGE_ADMIN_KEY": None,
    "BRIDGE_CLAUDE_COMMAND": "claude",
    "BRIDGE_CODEX_COMMAND": "codex",
    "ANTHROPIC_API_KEY": None,
    "ANTHROPIC_BASE_URL": None,
    "OPENAI_API_KEY": None,
    "OPENAI_BASE_URL": "https://api.openai.com/v1",
    "BRIDGE_CLAUDE_CREDENTIALS": "api-key",
    "BRIDGE_CODEX_CREDENTIALS": "api-key",
    "BRIDGE_CLAUDE_MODELS": (),
    "BRIDGE_CODEX_MODELS": (),
    "BRIDGE_MAX_OUTPUT_TOKENS": 8192,
    "BRIDGE_MAX_OUTPUT_TOKENS_LIMIT": 32000,
    "BRIDGE_TIMEOUT_SECONDS": 300,
    "BRIDGE_IDLE_TIMEOUT_SECONDS": 90,
    "BRIDGE_MAX_CONCURRENT": None,
    "BRIDGE_WARM_PROCESSES": None,
    "BRIDGE_QUEUE_LIMIT": 64,
    "BRIDGE_QUEUE_TIMEOUT_SECONDS": 60,
    "BRIDGE_MAX_BODY_BYTES": 33554432,
    "BRIDGE_RATE_LIMIT_PER_MINUTE": 120,
    "BRIDGE_TRUSTED_PROXY": "none",
    "BRIDGE_CORS_ORIGINS": (),
    "BRIDGE_LOG_PROMPTS": "preview",
    "BRIDGE_LOG_RETENTION_DAYS": 90,
    "BRIDGE_LOOP_REPEATS": 30,
    "BRIDGE_LOOP_WINDOW_SECONDS": 300,
    "BRIDGE_ALERT_WEBHOOK": None,
    "BRIDGE_ALERT_FORMAT": "auto",
    "BRIDGE_ALERT_COST_PER_DAY": 0,
    "BRIDGE_ALERT_COST_PER_MONTH": 0,
    "BRIDGE_METRICS": "admin",
    "BRIDGE_ENV_FILE": ".env",
}
ROWS = {row["variable"]: row for row in TABLE}


def value_of(settings: Settings, variable: str) -> object:
    row = ROWS[variable]
    owner = settings if row["provider"] is None else settings.providers[row["provider"]]
    return getattr(owner, row["field"])


def problems(**env: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        Settings.load(env)
    return caught.value.problems


@pytest.mark.parametrize(("variable", "value"), DEFAULTS.items())
def test_the_defaults_are_as_promised(variable: str, value: object) -> None:
    assert value_of(Settings.load({}), variable) == value
    assert value_of(Settings.load({variable: ""}), variable) == value


def test_a_key_made_without_limits_has_safe_ones() -> None:
    limits = Settings.load({}).default_limits
    assert {name: value for name, value in limits.items() if value} == {
        "maxRequestsPerMinute": 30,
        "maxCostPerDay": 5,
        "maxConcurrent": 4,
    }


def test_a_default_limit_can_be_set_and_zero_is_no_limit() -> None:
    env = {"BRIDGE_DEFAULT_MAX_COST_PER_DAY": "0.5", "BRIDGE_DEFAULT_MAX_REQUESTS_PER_MINUTE": "0"}
    limits = Settings.load(env).default_limits
    assert (limits["maxCostPerDay"], limits["maxRequestsPerMinute"], limits["maxConcurrent"]) == (0.5, 0, 4)
    assert default_limit_variable(BY_NAME["maxCostPerDay"]) == "BRIDGE_DEFAULT_MAX_COST_PER_DAY"


def test_every_mistake_is_told_at_once() -> None:
    told = problems(
        BRIDGE_PORT="http",
        BRIDGE_ADMIN_KEY="short",
        BRIDGE_TIMEOUT_SECONDS="-1",
        BRIDGE_TIMEZONE="Mars/Olympus",
        BRIDGE_LOG_PROMTS="off",
        BRIDGE_MAX_OUTPUT_TOKENS="40000",
        BRIDGE_DEFAULT_MAX_COST_PER_DAY="nan",
    )
    assert len(told) == 7
    for name in ("PORT", "ADMIN_KEY", "TIMEOUT", "TIMEZONE", "PROMTS", "OUTPUT_TOKENS", "MAX_COST_PER_DAY"):
        assert any(name in problem for problem in told)


def test_whole_prompts_are_not_kept_where_hosts_share_a_store() -> None:
    env = {"BRIDGE_STORE_URL": "redis://127.0.0.1:6379", "BRIDGE_NODE": "a"}
    assert Settings.load({**env, "BRIDGE_LOG_PROMPTS": "preview"}).store_url == env["BRIDGE_STORE_URL"]
    told = problems(**env, BRIDGE_LOG_PROMPTS="full")
    assert len(told) == 1
    assert "memory" in told[0]


WRONG = {
    "BRIDGE_PORT": ["-1", "65536", "3456.0", "0x10", "3456 ", "٣x"],
    "BRIDGE_CLAUDE_COMMAND": [" claude", "claude "],
    "BRIDGE_STORE_URL": ["redis.example:6379", "http://redis.example", "redis://", "redis://:pass#word@redis.example"],
    "BRIDGE_SOCKET": [" /x", "/x ", "/" + "x" * 107],
    "BRIDGE_ENV_FILE": [" .env"],
    "BRIDGE_HOST": ["127.0.0.1 ", "a b"],
    "ANTHROPIC_API_KEY": [" ", "two words", "key\nX-Header: yes", "key\0"],
    "CLAUDE_CODE_OAUTH_TOKEN": ["to ken"],
    "BRIDGE_ADMIN_KEY": ["fifteen-letters", "a-long-key-of\ntwo-lines"],
    "ANTHROPIC_BASE_URL": [
        "http://a b",
        "http://a\n",
        "localhost:80",
        "ftp://x",
        "http://",
        "file:///etc/passwd",
        "http://[x",
    ],
    "BRIDGE_CLAUDE_CREDENTIALS": ["apikey", "LOGIN", "none"],
    "BRIDGE_CLAUDE_DEFAULT_MODEL": ["-x", "--help", "x y", "x" * 101],
    "BRIDGE_CLAUDE_MODELS": ["claude-opus-5-5,-x"],
    "BRIDGE_MAX_OUTPUT_TOKENS": ["0", "-1", "1e3", "many"],
    "BRIDGE_TIMEOUT_SECONDS": ["0", "-1", "nan", "inf", "1e99", "five"],
    "BRIDGE_MAX_CONCURRENT": ["0", "-1", "all"],
    "BRIDGE_WARM_PROCESSES": ["-1", "65", "1.5"],
    "BRIDGE_MAX_BODY_BYTES": ["0", "1023", "-1"],
    "BRIDGE_TRUSTED_PROXY": ["yes", "nginx"],
    "BRIDGE_CORS_ORIGINS": [
        *("example.com", "https://x/path", "https://*.example.com", "https://*", "https://a.example.com,http://*:3000"),
        *("https://app(1).example.com", "https://app.example.com?", "https://user@example.com"),
    ],
    "HTTPS_PROXY": ["http://", "http://proxy:port", "http://proxy:3128/path", "ftp://proxy:3128", "two words"],
    "HTTP_PROXY": ["http://bob:p@ss/word@proxy:3128", "http://proxy:99999"],
    "ALL_PROXY": ["socks5://proxy:1080", "socks5h://proxy:1080", "socks://proxy:1080"],
    "SSL_CERT_FILE": ["/nonexistent.pem", "/etc/passwd", "/etc"],
    "SSL_CERT_DIR": ["/nonexistent", "/etc/passwd"],
    "BRIDGE_LOG_PROMPTS": ["all", "on"],
    "BRIDGE_ALERT_FORMAT": ["teams", "JSON"],
    "BRIDGE_ALERT_COST_PER_DAY": ["-1", "nan", "much"],
    "BRIDGE_METRICS": ["yes", "localhost"],
    "BRIDGE_TIMEZONE": ["Nowhere", "../etc/passwd", "/etc/passwd"],
    "BRIDGE_DEFAULT_MAX_COST_PER_DAY": ["-1", "nan", "inf", "free"],
    "BRIDGE_DEFAULT_MAX_CONCURRENT": ["-1", "1.5", "nan"],
}


@pytest.mark.parametrize(("variable", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_wrong_value_is_named_with_its_variable(variable: str, value: str) -> None:
    (problem,) = problems(**{variable: value})
    assert problem.startswith(variable)


@pytest.mark.parametrize(
    ("variable", "value", "what"),
    [
        ("BRIDGE_SOCKET", " /x", "the path of a unix socket"),
        ("BRIDGE_ENV_FILE", ".env ", "the path of a file"),
        ("BRIDGE_CLAUDE_COMMAND", " claude", "a program"),
    ],
)
def test_a_mistake_speaks_of_what_the_setting_is(variable: str, value: str, what: str) -> None:
    assert what in problems(**{variable: value})[0]


@pytest.mark.parametrize("variable", ["BRIDGE_ADMIN_KEY", "ANTHROPIC_API_KEY", "OPENAI_API_KEY"])
def test_a_line_break_around_a_secret_does_not_belong_to_it(variable: str) -> None:
    assert value_of(Settings.load({variable: " sk-ant-0123456789ab\n"}), variable) == "sk-ant-0123456789ab"


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("BRIDGE_PROT", "BRIDGE_PORT"),
        ("BRIDGE_MAX_CONCURENT", "BRIDGE_MAX_CONCURRENT"),
        ("BRIDGE_DEFAULT_MAX_COSTS_PER_DAY", "BRIDGE_DEFAULT_MAX_COST_PER_DAY"),
        ("BRIDGE_TRUST_PROXY", "BRIDGE_TRUSTED_PROXY"),
    ],
)
def test_a_misspelt_name_is_a_mistake_and_the_right_one_is_told(variable: str, meant: str) -> None:
    (problem,) = problems(**{variable: "1"})
    assert meant in problem


def test_a_default_limit_that_does_not_exist_is_a_mistake() -> None:
    assert "BRIDGE_DEFAULT_NONSENSE" in problems(BRIDGE_DEFAULT_NONSENSE="1")[0]


def test_what_others_put_into_the_environment_is_no_mistake() -> None:
    assert Settings.load({"PATH": "/bin", "HOME": "/root", "EDITOR": "vi"}) == Settings.load({})


def test_a_default_model_must_be_on_the_allow_list() -> None:
    assert "BRIDGE_CODEX_DEFAULT_MODEL" in problems(BRIDGE_CODEX_MODELS="gpt-6.1-sol")[0]
    env = {"BRIDGE_CODEX_MODELS": "gpt-6.1-sol, gpt-5.5", "BRIDGE_CODEX_DEFAULT_MODEL": "gpt-5.5"}
    assert Settings.load(env).providers["codex"].models == ("gpt-6.1-sol", "gpt-5.5")


def test_command_line_options_win_over_the_environment() -> None:
    assert Settings.load({"BRIDGE_PORT": "1"}, {"BRIDGE_PORT": "2"}).port == 2


SECRETS = [row["variable"] for row in TABLE if row["secret"]]


def test_credentials_are_marked_as_secrets() -> None:
    assert {"BRIDGE_ADMIN_KEY", "ANTHROPIC_API_KEY", "OPENAI_API_KEY", "BRIDGE_ALERT_WEBHOOK"} <= set(SECRETS)


@pytest.mark.parametrize("variable", SECRETS)
def test_a_secret_is_never_shown(variable: str) -> None:
    scheme = "rediss" if variable == "BRIDGE_STORE_URL" else "https"
    value = f"{scheme}://hush-hush-hush@hooks.example.com"
    assert "hush-hush" not in repr(Settings.load({variable: value}))
    for wrong in ("hush-hush", "hush"):
        try:
            Settings.load({variable: wrong})
        except SettingsError as error:
            assert "hush" not in str(error)  # noqa: PT017


def test_a_password_in_a_url_is_not_shown_either() -> None:
    (problem,) = problems(OPENAI_BASE_URL="htp://user:hush-hush@proxy.example.com")
    assert "hush" not in problem
    assert "hush" not in repr(Settings.load({"OPENAI_BASE_URL": "http://user:hush-hush@proxy.example.com"}))


def test_every_setting_has_a_text_of_its_own() -> None:
    assert all(row["text"] for row in TABLE)
    assert len({row["variable"] for row in TABLE}) == len(TABLE)


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("http://proxy.example:3128", "http://proxy.example:3128"),
        ("proxy:3128", "http://proxy:3128"),
        ("proxy", "http://proxy"),
        (" https://proxy:443/ ", "https://proxy:443"),
        ("bob:secret@proxy:3128", "http://bob:secret@proxy:3128"),
        ("http://bob:p@ss@proxy:3128", "http://bob:p%40ss@proxy:3128"),
        ("http://bob:p%2Fw@[::1]:3128", "http://bob:p%2Fw@[::1]:3128"),
        ("http://bob@proxy:3128", "http://bob@proxy:3128"),
    ],
)
def test_a_proxy_is_taken_as_people_write_it(value: str, url: str) -> None:
    assert Settings.load({"HTTPS_PROXY": value}).network["HTTPS_PROXY"] == url


def test_the_way_to_the_models_is_that_of_the_nearest_variable() -> None:
    env = {"HTTPS_PROXY": "a:1", "https_proxy": "b:2", "ALL_PROXY": "c:3", "no_proxy": "x.test"}
    network = Settings.load(env).network
    assert (network["HTTPS_PROXY"], network["HTTP_PROXY"]) == ("http://b:2", "http://c:3")
    assert network["NO_PROXY"].split(",")[0] == "x.test"
    assert Settings.load({}).network == {}


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_the_password_of_a_proxy_is_in_no_mistake_and_no_description(variable: str) -> None:
    told = problems(**{variable: "http://bob:hidden@proxy:port"})
    assert "hidden" not in str(told)
    assert "hidden" not in repr(Settings.load({variable: "http://bob:hidden@proxy:3128"}))


@pytest.mark.parametrize(
    "variable",
    [
        *("NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "CODEX_CA_CERTIFICATE"),
        *("ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_CUSTOM_HEADERS", "ANTHROPIC_MODEL", "CODEX_API_KEY", "OPENAI_API_BASE"),
        *("CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX", "CLAUDE_CODE_USE_FOUNDRY"),
        *("OPENAI_ORG_ID", "OPENAI_ORGANIZATION", "OPENAI_PROJECT", "OPENAI_PROJECT_ID"),
    ],
)
def test_a_variable_that_is_set_in_vain_is_named_without_its_value(variable: str) -> None:
    (sentence,) = Settings.load({variable: "hidden"}).unheeded
    assert sentence.startswith(f"{variable} is set, and is not heeded: ")
    assert "hidden" not in sentence


def test_what_is_switched_off_or_said_in_another_way_is_not_in_vain(tmp_path: Path) -> None:
    trusted = tmp_path / "ca.pem"
    trusted.write_text("-----BEGIN CERTIFICATE-----\n")
    env = {"CLAUDE_CODE_USE_BEDROCK": "0", "NODE_EXTRA_CA_CERTS": str(trusted), "SSL_CERT_FILE": str(trusted)}
    assert Settings.load(env).unheeded == ()
