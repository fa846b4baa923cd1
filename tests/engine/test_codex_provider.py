"""The codex provider on a fake app-server: many runs on one process, and what happens when it misbehaves."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest

from bridge.errors import BridgeError
from bridge.providers.codex import CodexProvider
from bridge.sandbox.scratch import Scratch
from bridge.types import Completed, Failed, Image, Message, Submitted, Text, TextDelta, Usage
from tests.engine.harness import SCHEMA, Running, ask, children, complete, descriptors, fail, talking, told, until

Make = Callable[..., CodexProvider]


def start(codex: CodexProvider, prompt: str, **more: Any) -> Running:
    return Running(codex, ask(prompt, provider="codex", **more))


def pid_of(codex: CodexProvider) -> int:
    return int(told(complete(codex, "[[fake report]]"))["pid"])


def test_an_answer_comes_as_deltas_and_then_whole(codex: CodexProvider) -> None:
    run = start(codex, "hello there")
    end = run.end()
    assert isinstance(end, Completed)
    assert end.answer.text == run.streamed == "echo: hello there"
    assert (end.answer.model, end.answer.stop_reason, end.answer.cost_micro) == ("gpt-6-sol", "end_turn", None)
    assert end.answer.usage == Usage(400, 600, 0, 3)
    kinds = [type(event) for event in run.events]
    assert kinds.count(Submitted) == 1
    assert kinds.index(Submitted) < kinds.index(TextDelta)


def test_the_cli_is_told_the_conversation_and_can_do_nothing_else(codex: CodexProvider, scratch: Scratch) -> None:
    messages = (
        Message("user", (Text("first"),)),
        Message("assistant", (Text("second"),)),
        Message("user", (Image("image/png", "aGk="), Text("[[fake told]]"))),
    )
    seen = told(complete(codex, "", messages=messages, system="Be brief.", effort="high"))
    assert seen["thread"]["developerInstructions"] == "Be brief."
    assert (seen["thread"]["cwd"], seen["thread"]["environments"]) == (str(scratch.empty), [])
    assert [item["role"] for item in seen["earlier"]] == ["user", "assistant"]
    assert [part["type"] for part in seen["turn"]["input"]] == ["image", "text"]
    assert seen["turn"]["effort"] == "high"


def test_structured_output_is_returned_parsed(codex: CodexProvider) -> None:
    answer = complete(codex, "hello", schema=SCHEMA).answer
    assert (answer.output, answer.text) == ({"echo": "yes"}, '{"echo":"yes"}')


@pytest.mark.parametrize("said", ['{"echo":1}', "{", "[" * 5000, '{"echo":' + "9" * 5000 + "}"])
def test_structured_output_that_is_wrong_is_a_mismatch(codex: CodexProvider, said: str) -> None:
    error = fail(codex, f"[[fake say json={said}]]", schema=SCHEMA).error
    assert error.code == "output_mismatch"


def test_eight_runs_share_one_process_and_do_not_mix(codex: CodexProvider) -> None:
    runs = [start(codex, f"[[fake slow count=5 delay=0.02]] number {n}") for n in range(8)]
    texts = [end.answer.text for run in runs if isinstance(end := run.end(), Completed)]
    assert texts == [f"echo: number {n}" for n in range(8)]
    assert len(children()) == 1


def test_large_prompts_written_at_the_same_time_arrive_whole(codex: CodexProvider) -> None:
    lengths = [200_000 + n for n in range(8)]
    runs = [start(codex, "[[fake count]]" + chr(97 + n) * (length - 14)) for n, length in enumerate(lengths)]
    ends = [run.end() for run in runs]
    assert [int(end.answer.text) for end in ends if isinstance(end, Completed)] == lengths


def test_an_answer_is_stopped_at_its_output_limit(codex: CodexProvider) -> None:
    run = start(codex, "[[fake slow count=200 delay=0.01]] " + "word " * 400, max_output_tokens=20)
    end = run.end()
    assert isinstance(end, Completed)
    assert end.answer.stop_reason == "max_tokens"
    assert 0 < len(end.answer.text) < 400


FAILURES = {
    "fail how=401": "cli_unavailable",
    "fail how=429": "provider_rate_limited",
    "fail how=quota": "provider_rate_limited",
    "fail how=503": "provider_overloaded",
    "fail how=404": "cli_failed",
    "fail how=other": "cli_failed",
    "empty": "cli_bad_output",
    "exit": "cli_failed",
    "exit_midway": "cli_failed",
    "half_line": "cli_failed",
    "endless_line": "cli_failed",
    "odd_shapes": None,
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


@pytest.mark.parametrize(("order", "code"), FAILURES.items())
def test_a_misbehaving_cli_gives_one_end_and_the_next_run_works(
    codex: CodexProvider, scratch: Scratch, order: str, code: str | None
) -> None:
    run = start(codex, f"[[fake {order}]] some words")
    end = run.end()
    assert (end.error.code if isinstance(end, Failed) else None) == code
    assert isinstance(end, Failed) or end.answer.text == "echo: some words"
    assert isinstance(end, Completed) or "sk-secret" not in repr(end.error.args) + end.error.hint
    assert run.ends == [end]
    assert complete(codex, "again").answer.text == "echo: again"
    codex.close()
    assert until(lambda: not children()), children()
    assert until(lambda: sorted(os.listdir(scratch.path)) == ["codex-models.json", "empty"])


@pytest.mark.parametrize("order", ["exit_before_reading", "refuse_thread"])
def test_a_thread_that_does_not_start_costs_nothing(codex: CodexProvider, order: str) -> None:
    run = start(codex, "hello", system=f"[[fake {order}]]")
    end = run.end()
    assert isinstance(end, Failed)
    assert end.error.code == "cli_failed"
    assert not any(isinstance(event, Submitted) for event in run.events)
    assert complete(codex, "again").answer.text == "echo: again"


def test_a_dying_process_fails_all_runs_on_it_and_no_others(codex: CodexProvider) -> None:
    waiting = [start(codex, "[[fake wait]]") for _ in range(4)]
    for run in waiting:
        run.until(lambda event: isinstance(event, Submitted))
    assert fail(codex, "[[fake exit]]").error.code == "cli_failed"
    ends = [run.end() for run in waiting]
    assert {end.error.code for end in ends if isinstance(end, Failed)} == {"cli_failed"}
    assert len(ends) == 4
    assert complete(codex, "again").answer.text == "echo: again"
    assert len(children()) == 1


def test_nothing_that_the_cli_asks_for_is_approved(codex: CodexProvider) -> None:
    seen = told(complete(codex, "[[fake ask_approval]]"))
    assert (seen["id"], seen["error"]["code"]) == ("q1", -32601)


@pytest.mark.parametrize("order", ["wait", "slow count=1000 delay=0.05"])
def test_a_cancel_interrupts_the_turn_and_says_nothing_more(codex: CodexProvider, order: str) -> None:
    process = pid_of(codex)
    run = start(codex, f"[[fake {order}]] " + "word " * 300)
    run.until(lambda event: isinstance(event, Submitted))
    run.conversation.cancel()
    run.conversation.cancel()
    assert until(lambda: not talking(run.conversation), 5)
    assert run.ends == []
    assert pid_of(codex) == process


def test_a_cancel_that_comes_before_the_prompt_was_sent_keeps_it_from_being_sent(codex: CodexProvider) -> None:
    run = start(codex, "hello")
    run.conversation.cancel()
    assert until(lambda: not talking(run.conversation), 5)
    assert run.queue.empty()


def test_a_process_that_does_not_obey_an_interrupt_is_ended(codex: CodexProvider) -> None:
    process = pid_of(codex)
    run = start(codex, "[[fake deaf]]")
    run.until(lambda event: isinstance(event, Submitted))
    run.conversation.cancel()
    assert until(lambda: not talking(run.conversation), 20)
    assert run.ends == []
    assert pid_of(codex) != process


def test_a_process_is_replaced_after_its_share_and_finishes_what_it_has(make_codex: Make) -> None:
    codex = make_codex(runs=3)
    slow = start(codex, "[[fake slow count=10 delay=0.1]][[fake report]]")
    slow.until(lambda event: isinstance(event, TextDelta))
    processes = {pid_of(codex) for _ in range(4)}
    assert len(processes) == 2
    old = told(slow.end())["pid"]
    assert old in processes
    assert until(lambda: len(children()) == 1)
    assert children()[0].pid in processes - {old}


def test_a_hundred_runs_leave_no_process_folder_or_descriptor(make_codex: Make, scratch: Scratch) -> None:
    codex = make_codex(runs=10)
    complete(codex, "first")
    before = descriptors()
    for number in range(100):
        start(codex, f"run {number}" + ("" if number % 10 else "[[fake exit_midway]]")).end()
    assert until(lambda: len(children()) == 1)
    assert until(lambda: len(os.listdir(scratch.path)) == 3), os.listdir(scratch.path)
    assert until(lambda: descriptors() <= before + 2), (before, descriptors())


def test_the_cli_sees_nothing_of_the_host_but_what_it_needs(
    make_codex: Make, scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRIDGE_ADMIN_KEY", "the-admin-key-of-the-bridge")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-of-the-other-provider")
    seen = told(complete(make_codex(), "[[fake report]]"))
    home = seen["env"]["HOME"]
    assert set(seen["fds"]) == {"0", "1", "2"}
    assert (seen["cwd"], seen["cwd_files"]) == (str(scratch.empty), [])
    assert home.startswith(f"{scratch.path}/codex-")
    assert seen["env"]["CODEX_HOME"] == home
    assert (seen["home_files"], seen["home_mode"]) == ([], "0o700")
    assert seen["pid"] == seen["pgid"] == seen["sid"]
    assert not {"BRIDGE_ADMIN_KEY", "ANTHROPIC_API_KEY", "OPENAI_API_KEY", "PYTHONPATH"} & set(seen["env"])
    assert "sk-made-up" not in " ".join(seen["argv"])


def test_the_catalog_that_the_cli_is_given_has_no_tools(codex: CodexProvider, scratch: Scratch) -> None:
    (model,) = json.loads((scratch.path / "codex-models.json").read_text())["models"]
    assert (model["slug"], model["shell_type"], model["apply_patch_tool_type"]) == ("gpt-6-sol", "disabled", None)


UNAVAILABLE = [
    ({"command": "/nonexistent/codex"}, "not installed"),
    ({"version": "codex-cli 0.168.9"}, "too old"),
    ({"version": "Python 3.11.7"}, "does not run the Codex CLI"),
    ({"command": "/bin/true"}, "does not run the Codex CLI"),
    ({"settings": {"OPENAI_API_KEY": ""}}, "No OpenAI API key"),
    ({"settings": {"BRIDGE_CODEX_CREDENTIALS": "login"}, "logged_in": False}, "not logged in"),
    ({"models": "no json"}, "cannot be run"),
    ({"models": '{"models":[1]}'}, "cannot be run"),
    ({"models": "[]"}, "cannot be run"),
    ({"boot": "exit"}, "does not start"),
]


@pytest.mark.parametrize(("options", "problem"), UNAVAILABLE)
def test_a_cli_that_cannot_serve_makes_the_provider_unavailable_and_says_why(
    make_codex: Make, options: dict[str, Any], problem: str
) -> None:
    codex = make_codex(**options)
    status = codex.status()
    assert not status.available
    assert problem in (status.problem or "")
    with pytest.raises(BridgeError) as refusal:
        codex.start(ask("hello", provider="codex"), lambda event: None)
    assert refusal.value.code == "cli_unavailable"
    assert refusal.value.hint


def test_a_command_given_relative_to_the_working_directory_is_found_there(
    make_codex: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_codex()
    monkeypatch.chdir(tmp_path)
    assert make_codex(command="./codex").status().problem is None


def test_close_ends_the_process_and_waits_for_it(codex: CodexProvider) -> None:
    run = start(codex, "[[fake wait]]")
    run.until(lambda event: isinstance(event, Submitted))
    codex.close()
    assert children() == []
    end = run.end()
    assert isinstance(end, Failed)
    assert not codex.status().available


def test_a_process_that_ignores_sigterm_is_ended_all_the_same(make_codex: Make) -> None:
    codex = make_codex(boot="ignore_sigterm")
    complete(codex, "hello")
    codex.close()
    assert children() == []


def test_a_run_without_a_place_for_a_new_process_fails_and_says_so(make_codex: Make, scratch: Scratch) -> None:
    codex = make_codex(runs=1)
    scratch.clear()
    assert fail(codex, "hello").error.code == "cli_failed"


def test_a_first_run_does_not_wait_for_another_that_hangs(codex: CodexProvider) -> None:
    hanging = start(codex, "[[fake wait]]")
    with gevent.Timeout(5):
        assert complete(codex, "hello").answer.text == "echo: hello"
    hanging.conversation.cancel()
    assert until(lambda: not talking(hanging.conversation), 5)
