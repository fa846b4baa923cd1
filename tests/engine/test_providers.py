"""What every provider does, on a fake CLI: an answer, an end, and nothing left behind when the CLI misbehaves."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest

from bridge.errors import BridgeError, Problem
from bridge.gate.server import Gate
from bridge.providers import claude_body, codex_body
from bridge.providers.structured import MOST_STRICT_BYTES
from bridge.registry import PROVIDERS
from bridge.sandbox.scratch import Scratch
from bridge.types import Completed, Failed, PartDelta, Submitted, Tool, Usage
from tests.engine.conftest import KEYS
from tests.engine.harness import (
    SCHEMA,
    Running,
    ask,
    children,
    complete,
    descriptors,
    fail,
    install_fake,
    mismatch,
    talking,
    told,
    until,
)

Make = Callable[..., Any]

CLIS = tuple(PROVIDERS)
#: How many processes are left where nothing runs, and what else lies in the scratch folder.
IDLE = {"claude": 0, "codex": 1, "demo": 0}
KEPT = {"claude": {"empty"}, "codex": {"codex-models.json", "codex-certificate.pem", "empty"}, "demo": {"empty"}}
#: How a fake is told to take a prompt and then do nothing.
WAIT = {"claude": "hang", "codex": "wait"}


@pytest.fixture(params=CLIS)
def name(request: pytest.FixtureRequest) -> str:
    """Each CLI."""
    return str(request.param)


@pytest.fixture
def make(make_provider: Make, name: str) -> Make:
    """Opened providers of this CLI."""
    return lambda *settings, **more: make_provider(name, *settings, **more)


@pytest.fixture
def install(tmp_path: Path, name: str) -> Callable[..., Path]:
    """Puts the fake of this CLI into its place, also while the provider runs."""
    return lambda **options: install_fake(tmp_path, f"fake_{name}", **options)


@pytest.fixture(params=[*CLIS, "demo"])
def any_provider(request: pytest.FixtureRequest, make_provider: Make) -> Any:
    """Each CLI, and the demo."""
    provider = make_provider(request.param)
    provider.kind = request.param
    return provider


def ask_of(provider: Any, prompt: str, **more: Any) -> Running:
    return Running(provider, ask(prompt, provider=provider.name, **more))


def nothing_left(kind: str, scratch: Scratch) -> bool:
    return until(lambda: not children() and set(os.listdir(scratch.path)) == KEPT[kind])


# --- answers ------------------------------------------------------------------------------------


def test_the_prompt_is_announced_once_and_an_answer_comes_as_deltas_and_then_whole(any_provider: Any) -> None:
    run = ask_of(any_provider, "hello there")
    end = run.end()
    assert isinstance(end, Completed)
    assert end.answer.text == run.streamed
    assert "hello there" in end.answer.text
    assert end.answer.stop_reason == "end_turn"
    kinds = [type(event) for event in run.events]
    assert kinds.count(Submitted) == 1
    assert kinds.index(Submitted) < kinds.index(PartDelta)
    assert run.ends == [end]


@pytest.mark.parametrize(
    ("name", "model", "usage"),
    [("claude", "claude-sonnet-5-5", Usage(11, 0, 0, 3)), ("codex", "gpt-6-sol", Usage(400, 600, 0, 3))],
)
def test_the_figures_are_those_of_the_cli(make_provider: Make, name: str, model: str, usage: Usage) -> None:
    answer = complete(make_provider(name), "hello there").answer
    assert answer.text == "echo: hello there"
    assert (answer.model, answer.usage) == (model, usage)


def test_structured_output_is_returned_parsed(any_provider: Any) -> None:
    answer = complete(any_provider, "hello", schema=SCHEMA).answer
    assert mismatch(SCHEMA, answer.output) is None
    assert (json.loads(answer.text), answer.stop_reason) == (answer.output, "end_turn")


WRONG = [("claude", '{"echo":1}'), ("claude", "{"), ("codex", '{"echo":1}'), ("codex", "{")]
WRONG += [("codex", "[" * 5000), ("codex", '{"echo":' + "9" * 5000 + "}")]


@pytest.mark.parametrize(("name", "said"), WRONG)
def test_structured_output_that_is_wrong_is_a_mismatch(make_provider: Make, name: str, said: str) -> None:
    assert fail(make_provider(name), f"[[fake say json={said}]]", schema=SCHEMA).problem.code == "output_mismatch"


# --- CLIs that misbehave ------------------------------------------------------------------------

NASTY = {
    "empty": None,
    "exit": "cli_failed",
    "exit_midway": "cli_failed",
    "half_line": "cli_failed",
    "no_usage": None,
    "stderr_flood": None,
    "stdout_flood": None,
    "long_line": None,
    "binary": None,
    "deep": None,
    "garbage": None,
    "grandchild": None,
    "daemon": None,
    "daemon]][[fake exit": "cli_failed",
    "forks": None,
}
NASTY_OF = {
    "claude": {
        "exit code=0": "cli_failed",
        # The process is its own; one that codex runs share passes it over, and silence ends the run.
        "endless_line": "cli_failed",
        "is_error": "cli_failed",
        "is_error status=401": "cli_unavailable",
        "is_error status=429": "provider_rate_limited",
        "is_error status=529": "provider_overloaded",
        "local": "cli_failed",
        "budget_left]][[fake num_turns is=0": "cli_failed",
        "budget_left]][[fake num_turns is=-1": "cli_failed",
        "budget_left": None,
        "twice": "cli_bad_output",
        "cost is=1e400": None,
        "cost is=NaN": None,
        "cost is=-5": None,
        "cost is=true": None,
        'cost is="1"': None,
        "ignore_sigterm": None,
        "slow count=20 delay=0.01": None,
    },
    "codex": {
        "fail how=401": "cli_unavailable",
        "fail how=429": "provider_rate_limited",
        "fail how=quota": "provider_rate_limited",
        "fail how=503": "provider_overloaded",
        "fail how=404": "model_not_found",
        "fail how=other": "cli_failed",
        "odd_shapes": None,
        "twice": "cli_bad_output",
    },
}
MISDEEDS = [(name, *misdeed) for name in CLIS for misdeed in {**NASTY, **NASTY_OF[name]}.items()]


@pytest.mark.parametrize(("name", "order", "code"), MISDEEDS)
def test_a_misbehaving_cli_gives_one_end_and_leaves_nothing_and_the_next_run_works(
    make_provider: Make, scratch: Scratch, name: str, order: str, code: str | None
) -> None:
    provider = make_provider(name)
    run = ask_of(provider, f"[[fake {order}]] some words")
    end = run.end()
    assert (end.problem.code if isinstance(end, Failed) else None) == code
    said = "" if order == "empty" else "echo: some words"
    assert isinstance(end, Failed) or end.answer.text == said
    assert isinstance(end, Completed) or "sk-secret" not in repr(end.problem)
    assert complete(provider, "again").answer.text == "echo: again"
    # What a codex process leaves goes with it; it may still be serving others.
    assert until(lambda: IDLE[name] or not children())
    assert run.ends == [end]
    provider.close()
    assert nothing_left(name, scratch), (children(), os.listdir(scratch.path))


@pytest.mark.parametrize(
    ("name", "order", "code"),
    [
        ("claude", "exit_before_reading", "cli_unavailable"),
        ("claude", "refuse_settings", "cli_failed"),
        ("codex", "exit_before_reading", "cli_failed"),
        ("codex", "refuse_thread", "cli_failed"),
    ],
)
def test_a_cli_that_never_takes_the_prompt_fails_without_having_cost_anything(
    make_provider: Make, name: str, order: str, code: str
) -> None:
    provider = make_provider(name)
    run = ask_of(provider, "hello", system=f"[[fake {order}]]")
    end = run.end()
    assert isinstance(end, Failed)
    assert end.problem.code == code
    assert not any(isinstance(event, Submitted) for event in run.events)
    assert complete(provider, "again").answer.text == "echo: again"


def test_a_folder_of_homes_that_somebody_removed_is_made_anew(make: Make, scratch: Scratch) -> None:
    provider = make(runs=1)
    scratch.clear()
    assert complete(provider, "hello").answer.text == "echo: hello"


def test_a_hundred_runs_leave_no_process_folder_or_descriptor(make: Make, scratch: Scratch, name: str) -> None:
    provider = make(runs=10)
    complete(provider, "first")
    assert until(lambda: len(children()) == IDLE[name])
    before = descriptors()
    for number in range(100):
        ask_of(provider, f"run {number}" + ("" if number % 10 else "[[fake exit_midway]]")).end()
    assert until(lambda: len(children()) == IDLE[name])
    assert until(lambda: len(os.listdir(scratch.path)) == len(KEPT[name]) + IDLE[name]), os.listdir(scratch.path)
    assert until(lambda: descriptors() <= before + 2 * IDLE[name]), (before, descriptors())


# --- cancel and close ---------------------------------------------------------------------------

CANCELS = [
    ("claude", "hang"),
    ("claude", "hang_midway"),
    ("claude", "slow count=1000 delay=0.05"),
    ("claude", "ignore_sigterm]][[fake hang"),
    ("codex", "wait"),
    ("codex", "slow count=1000 delay=0.05"),
]


@pytest.mark.parametrize(("name", "order"), CANCELS)
def test_a_cancel_ends_the_work_at_once_and_says_nothing_more(make_provider: Make, name: str, order: str) -> None:
    run = ask_of(make_provider(name), f"[[fake {order}]] " + "word " * 300)
    run.until(lambda event: isinstance(event, Submitted))
    run.conversation.cancel()
    run.conversation.cancel()
    assert until(lambda: not talking(run.conversation) and len(children()) == IDLE[name], 5)
    seen = len(run.queue.queue)
    gevent.idle()
    assert len(run.queue.queue) == seen
    assert run.ends == []


def test_a_cancel_that_comes_before_the_prompt_was_sent_keeps_it_from_being_sent(any_provider: Any) -> None:
    run = ask_of(any_provider, "hello")
    run.conversation.cancel()
    assert until(lambda: not talking(run.conversation), 5)
    assert run.queue.empty()


def test_close_stops_what_is_warm_and_what_runs_and_waits_for_it(make: Make, name: str) -> None:
    provider = make(warm=2)
    run = ask_of(provider, f"[[fake {WAIT[name]}]]")
    run.until(lambda event: isinstance(event, Submitted))
    assert until(lambda: provider.status().warm == (2 if name == "claude" else 1))
    provider.close()
    assert [child for child in children() if child.status() != "zombie"] == []
    assert isinstance(run.end(), Failed)
    assert not provider.status().available


# --- what it gets to see ------------------------------------------------------------------------

SEES = {
    "claude": (
        ("CLAUDE_CONFIG_DIR", "TMPDIR"),
        [".claude.json"],
        ".credentials.json",
        {"ANTHROPIC_API_KEY": "sk-ant-made-up"},
    ),
    "codex": (("CODEX_HOME",), [], "auth.json", {"OPENAI_API_KEY": "sk-made-up"}),
}


def test_the_cli_sees_nothing_of_the_host_but_what_it_needs(
    make: Make, scratch: Scratch, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    homes, files, _, credentials = SEES[name]
    monkeypatch.setenv("BRIDGE_ADMIN_KEY", "the-admin-key-of-the-bridge")
    for variable in KEYS:
        monkeypatch.setenv(variable, "sk-of-somebody-else")
    leak = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(leak, True)
    try:
        seen = told(complete(make(), "[[fake report]]"))
    finally:
        os.close(leak)
    home = seen["env"]["HOME"]
    assert set(seen["fds"]) == {"0", "1", "2"}
    assert (seen["cwd"], seen["cwd_files"]) == (str(scratch.empty), [])
    assert home.startswith(f"{scratch.path}/{name}-")
    assert {seen["env"][variable] for variable in homes} == {home}
    assert (seen["home_files"], seen["home_mode"]) == (files, "0o700")
    assert seen["pid"] == seen["pgid"] == seen["sid"] != os.getsid(0)
    assert not {*credentials, *KEYS, "BRIDGE_ADMIN_KEY", "PYTHONPATH", "USER"} & set(seen["env"])
    assert not set(credentials.values()) & set(" ".join(seen["argv"]).split())


def test_with_a_login_the_cli_gets_the_login_and_not_the_key(
    make: Make, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home, *_), files, login, credentials = SEES[name]
    config = tmp_path / "operator"
    config.mkdir()
    (config / login).write_text("{}")
    (config / "INSTRUCTIONS.md").write_text("not for the bridge")
    monkeypatch.setenv(home, str(config))
    monkeypatch.delenv("CLAUDE_CODE_OAUTH_TOKEN", raising=False)
    variable = PROVIDERS[name].variable("CREDENTIALS")
    seen = told(complete(make({variable: "login"}), "[[fake report]]"))
    assert not set(credentials) & set(seen["env"])
    if name == "claude":
        # It replaces the file when it renews the log-in, and so has to find it in its own place.
        assert seen["env"]["CLAUDE_SECURESTORAGE_CONFIG_DIR"] == str(config)
        assert seen["home_files"] == files
    else:
        assert seen["home_files"] == [*files, login]


def test_a_token_of_its_own_leaves_the_operators_login_alone(make_provider: Make) -> None:
    token = {"BRIDGE_CLAUDE_CREDENTIALS": "login", "CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-made-up"}
    seen = told(complete(make_provider("claude", token), "[[fake report]]"))
    assert seen["env"]["CLAUDE_CODE_OAUTH_TOKEN"] == "sk-ant-oat01-made-up"
    assert "CLAUDE_SECURESTORAGE_CONFIG_DIR" not in seen["env"]


# --- whether it can serve -----------------------------------------------------------------------

UNAVAILABLE = [
    ("claude", {"command": "/nonexistent/claude"}, "not installed"),
    ("claude", {"command": "no-such-claude-on-path"}, "not installed"),
    ("claude", {"version": "2.1.328 (Claude Code)"}, "too old"),
    ("claude", {"version": "1.99.999 (Claude Code)"}, "too old"),
    ("claude", {"version": "Python 3.11.7"}, "does not run the Claude Code CLI"),
    ("claude", {"version": "hello"}, "does not run the Claude Code CLI"),
    ("claude", {"command": "/bin/true"}, "does not run the Claude Code CLI"),
    ("claude", {"command": "/bin/false"}, "does not start"),
    ("claude", {"settings": {"BRIDGE_CLAUDE_CREDENTIALS": "login"}, "logged_in": False}, "not logged in"),
    ("codex", {"command": "/nonexistent/codex"}, "not installed"),
    ("codex", {"version": "codex-cli 0.168.9"}, "too old"),
    ("codex", {"version": "Python 3.11.7"}, "does not run the Codex CLI"),
    ("codex", {"command": "/bin/true"}, "does not run the Codex CLI"),
    ("codex", {"command": "/bin/false"}, "does not start"),
    ("codex", {"settings": {"BRIDGE_CODEX_CREDENTIALS": "login"}, "logged_in": False}, "not logged in"),
    ("codex", {"models": "no json"}, "cannot be run"),
    ("codex", {"models": '{"models":[1]}'}, "cannot be run"),
    ("codex", {"models": "[]"}, "cannot be run"),
    ("codex", {"boot": "exit"}, "does not start"),
]


@pytest.mark.parametrize("name", ["claude", "codex"])
def test_a_cli_starts_without_a_credential_and_only_a_run_needs_one(
    make_provider: Make, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Gate, "url", "http://127.0.0.1:9")
    provider = make_provider(name, {f"BRIDGE_{name.upper()}_CREDENTIALS": "api-key"})
    assert provider.status().available
    with pytest.raises(BridgeError) as refusal:
        provider.start(ask("hello", provider=name), lambda event: None, "a key")
    assert refusal.value.code == "no_credentials"


@pytest.mark.parametrize(("name", "options", "problem"), UNAVAILABLE)
def test_a_cli_that_cannot_serve_makes_the_provider_unavailable_and_says_why(
    make_provider: Make, name: str, options: dict[str, Any], problem: str
) -> None:
    provider = make_provider(name, **options)
    status = provider.status()
    assert not status.available
    assert problem in (status.problem or "")
    with pytest.raises(BridgeError) as refusal:
        provider.start(ask("hello", provider=name), lambda event: None, "a key")
    # What cannot be read is not for a person to mend.
    assert status.hint or problem == "cannot be run"
    # Settings, paths and versions are the operator's.
    told = Problem(
        "cli_unavailable", f"The {name} CLI is not available.", retry_after=refusal.value.problem.retry_after
    )
    assert refusal.value.problem == told


@pytest.mark.parametrize(
    ("name", "said", "version"),
    [("claude", "2.10.0 (Claude Code)", "2.10.0"), ("codex", "codex-cli 0.200.0", "0.200.0")],
)
def test_a_newer_version_is_taken(make_provider: Make, name: str, said: str, version: str) -> None:
    status = make_provider(name, version=said).status()
    assert (status.available, status.version) == (True, version)


def test_a_command_given_relative_to_the_working_directory_is_found_there(
    make: Make, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make()
    monkeypatch.chdir(tmp_path)
    assert make(command=f"./{name}").status().problem is None


def test_a_cli_that_is_installed_later_is_found_when_it_is_looked_for_again(
    make: Make, name: str, tmp_path: Path, install: Callable[..., Path]
) -> None:
    provider = make(command=str(tmp_path / name))
    assert not provider.status().available
    install()
    provider.open()
    assert provider.status().available
    assert complete(provider, "hello").answer.text == "echo: hello"


@pytest.mark.parametrize(("name", "how", "may"), [("claude", "api-key", True), ("claude", "login", False)])
def test_only_what_goes_through_the_gate_searches_the_web(make_provider: Make, name: str, how: str, may: bool) -> None:
    credentials = {"BRIDGE_CLAUDE_CREDENTIALS": how}
    assert make_provider(name, credentials).searches is may
    assert make_provider("demo", credentials).searches is False


@pytest.mark.parametrize(("how", "may"), [("api-key", True), ("login", False)])
def test_no_cli_is_told_a_link_that_it_might_follow(make_provider: Make, name: str, how: str, may: bool) -> None:
    credentials = {f"BRIDGE_{name.upper()}_CREDENTIALS": how}
    assert make_provider(name, credentials).takes_links is may
    # The simulation has nobody who could follow one.
    assert make_provider("demo", credentials).takes_links is True


def test_the_strict_tools_of_a_large_offer_are_held_to_their_schemas_by_the_bridge(make: Make, name: str) -> None:
    """To find out whether the API takes a megabyte of them, everybody's requests would have to wait."""
    shape = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    tool = Tool("a", "", shape, strict=True)
    model, provider = PROVIDERS[name].default_model, make({f"BRIDGE_{name.upper()}_CREDENTIALS": "api-key"})
    for others, strict, held in (((), True, []), ((Tool("b", "x" * MOST_STRICT_BYTES),), False, [tool])):
        request = ask("hello", provider=name, model=model, tools=(tool, *others))
        body = claude_body.ask(request).body if name == "claude" else codex_body.tools_body(request)
        assert body["tools"][0].get("strict", False) is strict
        assert provider.unchecked(request) == held
