"""The codex provider on a fake app-server: many runs on one process, and what happens when it misbehaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import gevent
import pytest

from bridge.providers import codex as codex_module
from bridge.providers import codex_turn
from bridge.providers.codex import CodexProvider
from bridge.sandbox import keeper
from bridge.sandbox.child import MAX_LINE_BYTES
from bridge.sandbox.scratch import Scratch
from bridge.types import Completed, Failed, Image, Message, PartDelta, Submitted, Text, Usage
from tests.engine.harness import Running, ask, children, complete, fail, talking, told, until

Make = Callable[..., CodexProvider]


def start(codex: CodexProvider, prompt: str, **more: Any) -> Running:
    return Running(codex, ask(prompt, provider="codex", **more))


def pid_of(codex: CodexProvider) -> int:
    return int(told(complete(codex, "[[fake report]]"))["pid"])


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


def test_a_dying_process_fails_all_runs_on_it_and_no_others(codex: CodexProvider) -> None:
    waiting = [start(codex, "[[fake wait]]") for _ in range(4)]
    for run in waiting:
        run.until(lambda event: isinstance(event, Submitted))
    assert fail(codex, "[[fake exit]]").problem.code == "cli_failed"
    ends = [run.end() for run in waiting]
    assert {end.problem.code for end in ends if isinstance(end, Failed)} == {"cli_failed"}
    assert len(ends) == 4
    assert complete(codex, "again").answer.text == "echo: again"
    assert len(children()) == 1


def picture(pixels: int = 0, size: int = 100) -> tuple[Message, ...]:
    return (Message("user", (Image("image/png", "A" * size, pixels), Text("[[fake report]]"))),)


@pytest.mark.parametrize(
    ("pixels", "size", "alone"),
    [(codex_module.LARGE_PIXELS, 100, False), (codex_module.LARGE_PIXELS + 1, 100, True), (1, 5_000_000, True)],
    ids=["small", "many pixels", "a large file"],
)
def test_a_run_with_large_pictures_has_a_process_of_its_own_which_ends_with_it(
    codex: CodexProvider, pixels: int, size: int, alone: bool
) -> None:
    shared = pid_of(codex)
    assert (told(complete(codex, "", messages=picture(pixels, size)))["pid"] != shared) == alone
    assert until(lambda: [child.pid for child in children()] == [shared])
    assert codex._own_servers == {}


def test_a_large_run_that_is_ended_for_its_memory_ends_alone_and_says_why(
    codex: CodexProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "INTERVAL_S", 0.05)
    monkeypatch.setattr(keeper, "MOST_BYTES", 250 * 2**20)
    other = start(codex, "[[fake slow count=40 delay=0.05]] " + "word " * 40)
    other.until(lambda event: isinstance(event, PartDelta))
    bomb = (Message("user", (Image("image/png", "AAAA", 10**7), Text("[[fake memory megabytes=300]]"))),)
    failed = fail(codex, "", messages=bomb)
    assert "it took too much memory" in failed.problem.message
    assert isinstance(other.end(), Completed)


def test_a_large_run_waits_for_memory_and_is_then_refused_alone(
    codex: CodexProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codex_module, "ROOM_WAIT_S", 0.3)
    monkeypatch.setattr(codex_module.host, "available_bytes", lambda: 2**29)
    failed = fail(codex, "", messages=picture(50_000_000))
    assert (failed.problem.code, failed.problem.again) == ("overloaded", True)
    assert complete(codex, "small").answer.text == "echo: small"


def test_an_answer_in_a_line_without_bounds_fails_its_run_and_no_other(codex: CodexProvider) -> None:
    other = start(codex, "[[fake slow count=40 delay=0.05]] " + "word " * 40)
    other.until(lambda event: isinstance(event, PartDelta))
    failed = fail(codex, f"[[fake bulky bytes={3 * MAX_LINE_BYTES}]]")
    assert failed.problem.code == "cli_bad_output"
    assert isinstance(other.end(), Completed)


def test_what_the_cli_repeats_of_a_large_prompt_does_no_harm(codex: CodexProvider) -> None:
    process = pid_of(codex)
    whole = (Message("user", (Image("image/png", "A" * (MAX_LINE_BYTES + 1)), Text("hello"))),)
    assert complete(codex, "", messages=whole).answer.text.startswith("echo: ")
    assert pid_of(codex) == process


def test_a_process_that_has_grown_is_replaced_before_it_is_ended(
    codex: CodexProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = pid_of(codex)
    running = start(codex, "[[fake slow count=10 delay=0.1]][[fake report]]")
    running.until(lambda event: isinstance(event, PartDelta))
    monkeypatch.setattr(codex_module, "MOST_SHARED_BYTES", 1)
    assert pid_of(codex) != process
    assert told(running.end())["pid"] == process


def test_a_process_that_nobody_uses_is_replaced_once_and_what_it_remembers_is_gone(
    make_codex: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codex_module, "LOOK_S", 0.02)
    monkeypatch.setattr(codex_module, "IDLE_S", 0.2)
    codex = make_codex()
    process = pid_of(codex)
    assert until(lambda: codex._server is not None and codex._server.child.pid != process, 10)
    assert until(lambda: len(children()) == 1)
    fresh = children()[0].pid
    gevent.sleep(0.5)
    assert [child.pid for child in children()] == [fresh], "one that had no run is as good as new"


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


def test_a_process_that_does_not_obey_an_interrupt_is_ended(codex: CodexProvider) -> None:
    process = pid_of(codex)
    run = start(codex, "[[fake deaf]]")
    run.until(lambda event: isinstance(event, Submitted))
    run.conversation.cancel()
    assert until(lambda: not talking(run.conversation), 20)
    assert run.ends == []
    assert pid_of(codex) != process


def test_behind_the_gate_a_process_that_does_not_obey_an_interrupt_gets_no_more_runs_and_others_end_as_they_may(
    codex: CodexProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codex_turn, "INTERRUPT_TIMEOUT_S", 0.5)
    process = pid_of(codex)
    run, other = start(codex, "[[fake deaf]]"), start(codex, "[[fake slow count=20 delay=0.1]][[fake report]]")
    run.until(lambda event: isinstance(event, Submitted))
    # The call upstream ends with this, whatever the CLI does.
    run.conversation._passage = SimpleNamespace(close=lambda: None)
    run.conversation.cancel()
    assert until(lambda: not talking(run.conversation), 20)
    assert run.ends == []
    assert pid_of(codex) != process
    assert told(other.end())["pid"] == process
    assert until(lambda: process not in [child.pid for child in children()])


def test_a_process_is_replaced_after_its_share_and_finishes_what_it_has(make_codex: Make) -> None:
    codex = make_codex(runs=3)
    slow = start(codex, "[[fake slow count=10 delay=0.1]][[fake report]]")
    slow.until(lambda event: isinstance(event, PartDelta))
    processes = {pid_of(codex) for _ in range(4)}
    assert len(processes) == 2
    old = told(slow.end())["pid"]
    assert old in processes
    assert until(lambda: len(children()) == 1)
    assert children()[0].pid in processes - {old}


def test_the_catalog_that_the_cli_is_given_has_no_tools(codex: CodexProvider, scratch: Scratch) -> None:
    (model,) = json.loads((scratch.path / "codex-models.json").read_text())["models"]
    assert (model["slug"], model["shell_type"], model["apply_patch_tool_type"]) == ("gpt-6-sol", "disabled", None)


def test_a_process_that_ignores_sigterm_is_ended_all_the_same(make_codex: Make) -> None:
    codex = make_codex(boot="ignore_sigterm")
    complete(codex, "hello")
    codex.close()
    assert children() == []


def test_a_second_call_of_the_model_ends_the_run_and_both_are_known(codex: CodexProvider) -> None:
    end = fail(codex, "[[fake twice]] hi")
    assert end.problem.code == "cli_bad_output"
    assert end.usage == Usage(800, 1200, 0, 4)
    assert complete(codex, "hi").answer.usage == Usage(400, 600, 0, 2)


def test_a_first_run_does_not_wait_for_another_that_hangs(codex: CodexProvider) -> None:
    hanging = start(codex, "[[fake wait]]")
    with gevent.Timeout(5):
        assert complete(codex, "hello").answer.text == "echo: hello"
    hanging.conversation.cancel()
    assert until(lambda: not talking(hanging.conversation), 5)
