"""`cli-bridge credentials …`: the secrets of the providers that runs are paid with.

A secret comes from a prompt without echo, or from standard input, and never from an argument: arguments are seen by
everybody on the host, and kept by shells.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from bridge.cli.common import as_json, ask, examples, path_of, print_table, say, show_json
from bridge.limits import money
from bridge.registry import PROVIDERS

_COLOURS = {"usable": "green", "probing": "yellow", "benched": "yellow", "blocked": "red", "disabled": "red"}
_LIMITS = (("maxCostPerDay", "--max-cost-per-day", "day"), ("maxCostPerMonth", "--max-cost-per-month", "month"))


def _names(text: str) -> list[str] | None:
    return None if text == "any" else [name.strip() for name in text.split(",") if name.strip()]


def _endpoint(text: str) -> str | None:
    return None if text == "usual" else text


#: Fields: name in the API, option, type, help, and how what is given is read.
_FIELDS: tuple[tuple[str, str, Any, str, Callable[[Any], Any]], ...] = (
    ("baseUrl", "--base-url", str, "its endpoint; 'usual' for that of the settings", _endpoint),
    ("group", "--group", str, "the organization, whose rate limits it shares with others of the same", str),
    ("priority", "--priority", int, "with fill-first, higher comes first", int),
    ("weight", "--weight", int, "its share beside others", int),
    ("maxConcurrent", "--max-concurrent", int, "runs at once; 0 = no limit", int),
    ("models", "--models", str, "comma-separated patterns such as claude-opus-*; 'any' for all", _names),
    ("keys", "--keys", str, "comma-separated names of keys that it serves; 'any' for all", _names),
    ("note", "--note", str, "a remark for yourself", str),
)


@click.group(
    epilog=examples(
        "cli-bridge credentials add team --provider claude --max-cost-per-month 200",
        "pass show openai | cli-bridge credentials add spare --provider codex --group acme",
        "cli-bridge credentials list",
        "cli-bridge credentials test team",
    )
)
def credentials() -> None:
    """Whom the providers are paid with: add, test, change.

    What ANTHROPIC_API_KEY and OPENAI_API_KEY bring is called 'default': it can be disabled, and nothing else.
    """


def field_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """An option for each field and limit."""
    for name, flag, window in reversed(_LIMITS):
        command = click.option(flag, name, type=float, help=f"dollars per {window}; 0 = no limit")(command)
    for name, flag, kind, text, _ in reversed(_FIELDS):
        command = click.option(flag, name, type=kind, help=text)(command)
    return command


def provider_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Which one, where both providers have one of that name."""
    text = "which one, where both have one of that name: default"
    return click.option("--provider", type=click.Choice(list(PROVIDERS)), help=text)(command)


def _body(given: dict[str, Any]) -> dict[str, Any]:
    body = {name: read(given[name]) for name, _, _, _, read in _FIELDS if given.get(name) is not None}
    limits = {name: given[name] for name, _, _ in _LIMITS if given.get(name) is not None}
    return {**body, "limits": limits} if limits else body


def _secret() -> str:
    """The secret, from a prompt without echo, or from standard input."""
    if sys.stdin.isatty():
        return str(click.prompt("API key (it is not shown)", hide_input=True, err=True))
    return sys.stdin.read()


def _path(name: str, provider: str | None, step: str = "") -> str:
    return f"/admin/credentials/{path_of(name)}{step}" + (f"?provider={provider}" if provider else "")


@credentials.command(
    "add",
    epilog=examples(
        "cli-bridge credentials add team --provider claude",
        "cli-bridge credentials add spare --provider codex --priority -1 < key.txt",
    ),
)
@click.argument("name")
@click.option("--provider", type=click.Choice(list(PROVIDERS)), required=True, help="whose it is")
@field_options
@as_json
def add_credential(name: str, provider: str, raw: bool, **given: Any) -> None:
    """Add a credential. Its API key is asked for, or read from standard input."""
    body = {"name": name, "provider": provider, "apiKey": _secret(), **_body(given)}
    answer = ask("POST", "/admin/credentials", body)
    if raw:
        show_json(answer)
        return
    say(answer["message"])
    say(f"Try it: cli-bridge credentials test {name}", err=True)


@credentials.command("list", epilog=examples("cli-bridge credentials list", "cli-bridge credentials list --json"))
@as_json
def list_credentials(raw: bool) -> None:
    """All credentials, how each is doing, and what was spent with it."""
    answer = ask("GET", "/admin/credentials")
    if raw:
        show_json(answer)
        return
    rows = []
    for each in answer["credentials"]:
        today, month, limits = each["usage"]["today"], each["usage"]["thisMonth"], each["limits"]
        rows.append(
            [
                each["name"],
                each["provider"],
                f"…{each['last4']}" if each["last4"] else "-",
                each["state"],
                (each["until"] or "")[11:19] or "-",
                str(each["running"]),
                _of(today["costUsd"], limits["maxCostPerDay"]),
                _of(month["costUsd"], limits["maxCostPerMonth"]),
                each["reason"] or _limited(each),
            ]
        )
    print_table(
        ["NAME", "PROVIDER", "KEY", "STATE", "UNTIL (UTC)", "RUNNING", "TODAY", "THIS MONTH", "WHY"],
        rows,
        right={5, 6, 7},
        empty="There are no credentials. Add one: cli-bridge credentials add NAME --provider claude",
        colour=_COLOURS.get,
    )
    if answer["problem"]:
        say(f"cli-bridge: {answer['problem']}", err=True)


def _limited(credential: dict[str, Any]) -> str:
    """For which models alone it is limited."""
    found = [f"{each['model']} until {(each['until'] or '')[11:19]}" for each in credential["limitedModels"]]
    return f"limited for {', '.join(found)}" if found else ""


def _of(spent: float, cap: float) -> str:
    return money(spent) + (f" of {money(cap)}" if cap else "")


@credentials.command("show", epilog=examples("cli-bridge credentials show team"))
@click.argument("name")
@provider_option
@as_json
def show_credential(name: str, provider: str | None, raw: bool) -> None:
    """One credential."""
    found = ask("GET", _path(name, provider))
    if raw:
        show_json(found)
        return
    hidden = ("usage", "limits", "rateLimits", "lastDay", "limitedModels")
    for label, value in found.items():
        if label not in hidden and not isinstance(value, dict):
            shown = ", ".join(value) if isinstance(value, list) else "-" if value in (None, "") else value
            say(f"{label:<14} {shown}")
    if limited := _limited(found):
        say(f"{'limits':<14} {limited}")
    for name_, _, window in _LIMITS:
        cap = found["limits"][name_]
        say(f"{name_:<14} {money(cap) if cap else 'no limit'} per {window}")
    for field, text in (("today", "today"), ("thisMonth", "this month"), ("reserved", "reserved")):
        used = found["usage"][field]
        say(f"{text:<14} {used['requests']} requests, {money(used['costUsd'])}")
    for header, value in (found["rateLimits"] or {"limits": {}})["limits"].items():
        say(f"{header}: {value}")


@credentials.command(
    "set",
    epilog=examples(
        "cli-bridge credentials set team --max-cost-per-day 20 --group acme",
        "cli-bridge credentials set team --api-key",
    ),
)
@click.argument("name")
@click.option("--api-key", "new_secret", is_flag=True, help="replace the API key: it is asked for, or read from stdin")
@field_options
@as_json
def set_credential(name: str, new_secret: bool, raw: bool, **given: Any) -> None:
    """Change a credential; what is not named stays."""
    body = _body(given)
    if new_secret:
        body["apiKey"] = _secret()
    if not body:
        raise click.UsageError("Name at least one thing to change.")
    answer = ask("PATCH", _path(name, None), body)
    show_json(answer) if raw else say(answer["message"])


@credentials.command("rename", epilog=examples("cli-bridge credentials rename team crew"))
@click.argument("name")
@click.argument("new_name")
@as_json
def rename_credential(name: str, new_name: str, raw: bool) -> None:
    """Give a credential another name.

    Keys that use it know it by that, and what was used stays with it.
    """
    answer = ask("PATCH", _path(name, None), {"name": new_name})
    show_json(answer) if raw else say(answer["message"])


@credentials.command("test", epilog=examples("cli-bridge credentials test team"))
@click.argument("name")
@provider_option
@as_json
def try_credential(name: str, provider: str | None, raw: bool) -> None:
    """Ask the provider for its list of models, which is free.

    Exit status 1 where it does not take the credential.
    """
    answer = ask("POST", _path(name, provider, "/test"))
    show_json(answer) if raw else say(("ok: " if answer["ok"] else "") + answer["message"])
    raise SystemExit(0 if answer["ok"] else 1)


@credentials.command("remove", epilog=examples("cli-bridge credentials remove spare"))
@click.argument("name")
@click.option("--force", is_flag=True, help="also while runs use it, or keys name it")
@as_json
def remove_credential(name: str, force: bool, raw: bool) -> None:
    """Forget a credential and its secret."""
    answer = ask("DELETE", _path(name, None) + ("?force=1" if force else ""))
    show_json(answer) if raw else say(answer["message"])


def _simple(step: str, text: str) -> None:
    @credentials.command(step, help=text, epilog=examples(f"cli-bridge credentials {step} team"))
    @click.argument("name")
    @provider_option
    @as_json
    def act(name: str, provider: str | None, raw: bool) -> None:
        answer = ask("POST", _path(name, provider, f"/{step}"))
        show_json(answer) if raw else say(answer["message"])


_simple("enable", "Let runs use a credential again.")
_simple("disable", "Let no run use a credential until it is enabled again; those that do go on.")
_simple("reset", "Forget a credential's failures, and try it again at once.")
