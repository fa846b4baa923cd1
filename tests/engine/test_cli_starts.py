"""CLIs that do not start: whoever runs the bridge learns why, a client does not, and what is mended is found again."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import BridgeError, Problem
from bridge.providers import claude as claude_module
from bridge.providers import cli, pool
from bridge.providers import codex as codex_module
from bridge.providers.cli import LINE_CHARACTERS, LINES_PER_MINUTE, Stderr
from bridge.registry import PROVIDERS
from tests.engine import harness
from tests.engine.harness import ask, complete, fail, install_fake
from tests.support.ledger import FrozenClock

Make = Callable[..., Any]

#: Several programs start one after the other, each with a Python of its own.
until = partial(harness.until, timeout_s=30.0)
#: Of a flood during which a minute ends: what is logged of both, and how much was left out of the first.
MOST_LOGGED = 2 * LINES_PER_MINUTE + 1
LIBRARY = "libssl.so.3"
SAID = f"error while loading shared libraries: {LIBRARY}: cannot open shared object file: No such file or directory"


@pytest.fixture(params=list(PROVIDERS))
def name(request: pytest.FixtureRequest) -> str:
    """Each CLI."""
    return str(request.param)


@pytest.fixture
def make(make_provider: Make, name: str) -> Make:
    """Opened providers of this CLI, with a process for each run."""
    return lambda **options: make_provider(name, runs=1, **options)


@pytest.fixture
def install(tmp_path: Path, name: str) -> Callable[..., Path]:
    """Puts the fake into its place, also while the provider runs."""
    return lambda **options: install_fake(tmp_path, f"fake_{name}", **options)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "PAUSE_S", 0.1)
    monkeypatch.setattr(cli, "LOOK_AGAIN_S", 0.1)


def refusal(provider: Any) -> Problem:
    """What a client is told now."""
    with pytest.raises(BridgeError) as refused:
        provider.start(ask("hello", provider=provider.name), lambda event: None, "a key")
    return refused.value.problem


def public(problem: Problem) -> str:
    """All that a client sees of a problem."""
    return f"{problem.message} {problem.hint} {problem.facts}"


def logged(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in caplog.records)


# --- at the start -------------------------------------------------------------------------------


def test_a_missing_library_is_known_to_the_operator_and_not_to_a_client(
    make: Make, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    provider = make(missing=LIBRARY)
    status = provider.status()
    assert (status.available, status.problem) == (False, f"The {name} CLI does not start.")
    assert SAID in (status.said or "")
    assert SAID in logged(caplog)
    error = refusal(provider)
    assert (error.code, error.status) == ("cli_unavailable", 503)
    assert LIBRARY not in public(error)


# --- while the bridge runs ----------------------------------------------------------------------


def test_a_program_that_breaks_is_told_by_its_last_words_and_serves_again_once_it_is_mended(
    make: Make, name: str, install: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    provider = make()
    complete(provider, "hello")
    install(missing=LIBRARY)
    error = fail(provider, "hello").problem
    assert (error.code, error.status, error.again) == ("cli_unavailable", 503, True)
    assert LIBRARY not in public(error)
    assert until(lambda: not provider.status().available)
    status = provider.status()
    assert status.problem == f"The {name} CLI does not start."
    assert SAID in (status.said or "")
    assert SAID in logged(caplog)
    assert LIBRARY not in public(refusal(provider))
    install()
    assert until(lambda: provider.status().available)
    assert complete(provider, "hello").answer.text == "echo: hello"


def test_a_program_that_is_removed_is_missed_and_serves_again_once_it_is_back(
    make: Make, name: str, install: Callable[..., Path]
) -> None:
    provider = make()
    install().unlink()
    assert fail(provider, "hello").problem.code == "cli_unavailable"
    assert until(lambda: "not installed" in (provider.status().problem or ""))
    assert refusal(provider).code == "cli_unavailable"
    install()
    assert until(lambda: provider.status().available)
    assert complete(provider, "hello").answer.text == "echo: hello"


def test_a_program_that_was_replaced_by_an_old_one_is_found_to_be_too_old(
    make: Make, name: str, install: Callable[..., Path]
) -> None:
    provider = make()
    old = {"claude": "2.0.0 (Claude Code)", "codex": "codex-cli 0.1.0"}[name]
    install(missing=LIBRARY)
    assert fail(provider, "hello").problem.code == "cli_unavailable"
    install(version=old)
    assert until(lambda: "too old" in (provider.status().problem or ""))


def test_what_a_cli_says_when_it_ends_is_logged_and_shown_without_secrets(
    make: Make, install: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    provider = make()
    install(boot="complain")
    error = fail(provider, "hello").problem
    assert error.code == "cli_unavailable"
    assert "sandbox" not in public(error)
    assert until(lambda: "Error: no sandbox for ***, *** or *** at all" in logged(caplog))
    assert not any(secret in logged(caplog) for secret in ("made-up", "somebody"))
    for _ in range(pool.THRESHOLD):
        # Also where it is left alone by now.
        with contextlib.suppress(BridgeError):
            fail(provider, "hello")
    assert until(lambda: not provider.status().available)
    assert provider.status().said == "warning: an old system | Error: no sandbox for ***, *** or *** at all"


def test_a_flood_of_complaints_is_cut_short_in_the_log(
    make: Make, install: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    provider = make()
    install(boot="flood")
    assert fail(provider, "hello").problem.code == "cli_unavailable"
    assert until(lambda: provider._said == "line | line | the end")
    assert len(caplog.records) <= MOST_LOGGED + 10
    assert max(map(len, logged(caplog).splitlines())) < LINE_CHARACTERS + 100


def test_an_answer_is_not_harmed_by_what_is_printed_beside_it(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    assert complete(make(), "[[fake stderr_flood]] hello").answer.text == "echo: hello"
    assert "EEEE" in logged(caplog)
    assert len(caplog.records) <= MOST_LOGGED


# --- left alone, and tried again ----------------------------------------------------------------


def test_a_claude_that_boots_no_more_is_left_alone_and_found_again_when_it_does(
    make_provider: Make, tmp_path: Path
) -> None:
    provider = make_provider("claude", boot="exit")  # its --version works
    for _ in range(pool.THRESHOLD):
        assert provider.status().available
        assert fail(provider, "hello").problem.code == "cli_unavailable"
    status = provider.status()
    assert (status.available, status.problem) == (False, "The claude CLI does not start.")
    assert refusal(provider).retry_after
    install_fake(tmp_path, "fake_claude")
    assert until(lambda: provider.status().available)
    assert complete(provider, "hello").answer.text == "echo: hello"
    assert complete(provider, "again").answer.text == "echo: again"


def test_a_pool_of_processes_that_die_makes_claude_unavailable_and_its_refill_is_the_probe(
    make_provider: Make, tmp_path: Path
) -> None:
    provider = make_provider("claude", boot="exit", warm=1)
    assert until(lambda: not provider.status().available)
    install_fake(tmp_path, "fake_claude")
    assert until(lambda: provider.status().available and provider.status().warm == 1)


def test_a_claude_that_hangs_while_it_starts_is_given_up(make_provider: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claude_module, "BOOT_TIMEOUT_S", 0.5)
    error = fail(make_provider("claude", boot="hang"), "hello").problem
    assert (error.code, "did not start in time" in error.message) == ("cli_failed", True)


@pytest.mark.parametrize("boot", ["hang", "refuse"])
def test_a_codex_that_does_not_get_ready_says_why_and_is_found_again_when_it_does(
    make_provider: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, boot: str
) -> None:
    monkeypatch.setattr(codex_module, "START_S", 1.0)
    provider = make_provider("codex", boot=boot)
    why = {"hang": "the process does not answer", "refuse": "the state database is locked"}[boot]
    assert (provider.status().problem, provider.status().said) == ("The codex CLI does not start.", why)
    assert why in logged(caplog)
    assert why not in public(refusal(provider))
    monkeypatch.setattr(codex_module, "START_S", 30.0)
    install_fake(tmp_path, "fake_codex")
    assert until(lambda: provider.status().available)
    assert complete(provider, "hello").answer.text == "echo: hello"


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_look_that_raises_what_nobody_expects_is_followed_by_another(
    make_provider: Make, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(cli.CliProvider, "check", lambda provider: {}["nobody expects this"])
        provider = make_provider(name)
        assert not provider.status().available
    assert until(lambda: provider.status().available)
    assert complete(provider, "hello").answer.text == "echo: hello"


# --- lines --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("key my-own-key refused", "key *** refused"),
        ("sk-ant-api03-abc_DEF-123: no", "***: no"),
        ("the client used cb_abcDEF_123", "the client used ***"),
        ("risk-free, task-12, mask-1", "risk-free, task-12, mask-1"),
        ("https://user:hush@proxy.example.com/x", "https://***@proxy.example.com/x"),
        ("authorization: Bearer abc.def", "authorization: Bearer ***"),
        ("sk-an\x1b[1mt-api03", "***"),
        ("token eyJhbGciOi.eyJzdWIi.c2ln", "token ***"),
        ("\x1b[31mred\x1b[0m\tand\x07", "red and "),
        ("x" * 1000, "x" * LINE_CHARACTERS + "..."),
    ],
)
def test_a_line_is_shown_without_secrets_and_control_characters(line: str, shown: str) -> None:
    assert Stderr("claude", ["my-own-key", None], FrozenClock()).mask(line) == shown


def test_of_a_flood_the_beginning_of_each_minute_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    clock = FrozenClock()
    stderr = Stderr("claude", [], clock)
    with caplog.at_level(logging.WARNING):
        for number in range(100):
            stderr.hear(f"line {number}")
        assert len(caplog.records) == LINES_PER_MINUTE
        clock.pass_s(60)
        stderr.hear("the next minute")
    assert [record.getMessage() for record in caplog.records[-2:]] == [
        f"claude printed {100 - LINES_PER_MINUTE} more lines on stderr",
        "claude printed: the next minute",
    ]


def test_a_program_that_was_replaced_is_looked_at_again_while_its_process_goes_on(
    make: Make, install: Callable[..., Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "PROGRAM_LOOK_S", 0.1)
    says = {"claude": "{} (Claude Code)", "codex": "codex-cli {}"}[name]
    provider = make(version=says.format("9.1.0"))
    assert provider.status().version == "9.1.0"
    install(version=says.format("9.2.0"))
    assert until(lambda: provider.status().version == "9.2.0")
    assert provider.status().available
    install(version=says.format("0.1.0"))
    # A start of what is being put in place may fail first.
    assert until(lambda: "too old" in (provider.status().problem or ""))
    install(version=says.format("9.3.0"))
    assert until(lambda: provider.status().version == "9.3.0")
    assert complete(provider, "hello").answer.text == "echo: hello"
