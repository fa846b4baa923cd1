"""The claude provider on a fake CLI: what it is given, what comes of it, and what is left when it misbehaves."""

from __future__ import annotations

import os
from collections.abc import Callable

import gevent
import pytest

from bridge.providers.claude import ClaudeProvider
from bridge.sandbox.scratch import Scratch
from bridge.types import Completed, Failed, Image, Message, Submitted, Text, TextDelta
from tests.engine.harness import SCHEMA, Running, ask, children, complete, descriptors, fail, talking, told, until

Make = Callable[..., ClaudeProvider]


def test_an_answer_comes_as_deltas_and_then_whole(claude: ClaudeProvider) -> None:
    run = Running(claude, ask("hello there"))
    end = run.end()
    assert isinstance(end, Completed)
    assert end.answer.text == run.streamed == "echo: hello there"
    assert (end.answer.model, end.answer.stop_reason, end.answer.cost_micro) == ("claude-sonnet-5-5", "end_turn", 200)
    assert end.answer.usage is not None
    assert (end.answer.usage.input_tokens, end.answer.usage.output_tokens) == (11, 3)


def test_the_prompt_is_announced_once_and_before_any_text(claude: ClaudeProvider) -> None:
    run = Running(claude, ask("hello"))
    run.end()
    kinds = [type(event) for event in run.events]
    assert kinds.count(Submitted) == 1
    assert kinds.index(Submitted) < kinds.index(TextDelta)


def test_the_cli_is_told_model_limit_effort_system_prompt_and_the_conversation(claude: ClaudeProvider) -> None:
    messages = (
        Message("user", (Text("first"),)),
        Message("assistant", (Text("second"),)),
        Message("user", (Text("third"),)),
        Message("assistant", (Text("fourth"),)),
        Message("user", (Image("image/png", "aGk="), Text("[[fake told]]"))),
    )
    seen = told(complete(claude, "", messages=messages, system="Be brief.", effort="high", max_output_tokens=77))
    assert seen["system"] == "Be brief."
    assert seen["settings"] == {
        "model": "claude-sonnet-5-5",
        "effortLevel": "high",
        "env": {"CLAUDE_CODE_MAX_OUTPUT_TOKENS": "77"},
    }
    assert seen["earlier"] == [["user", "first"], ["assistant", "second"], ["user", "third"], ["assistant", "fourth"]]


def test_structured_output_is_returned_parsed(claude: ClaudeProvider) -> None:
    answer = complete(claude, "hello", schema=SCHEMA).answer
    assert (answer.output, answer.text, answer.stop_reason) == ({"echo": "yes"}, '{"echo":"yes"}', "end_turn")


def test_json_in_words_is_as_good_as_the_output_tool_where_it_fits(claude: ClaudeProvider) -> None:
    answer = complete(claude, "[[fake no_structure]]", schema=SCHEMA).answer
    assert (answer.output, answer.text) == ({"echo": "yes"}, '{"echo":"yes"}')


@pytest.mark.parametrize(
    "order",
    ["[[fake no_structure]] [[fake say json=words]]", '[[fake say json={"echo":1}]]', "[[fake say json={]]"],
)
def test_structured_output_that_is_absent_or_wrong_is_a_mismatch(claude: ClaudeProvider, order: str) -> None:
    assert fail(claude, order, schema=SCHEMA).error.code == "output_mismatch"


def test_structured_output_with_half_a_character_is_an_answer_or_a_mismatch_but_never_silence(
    make_claude: Make,
) -> None:
    end = Running(make_claude(), ask('[[fake say json={"echo":"\\ud800"}]]', schema=SCHEMA)).end(10)
    assert isinstance(end, Failed)
    assert end.error.code in ("output_mismatch", "cli_bad_output", "cli_failed")


def test_an_answer_cut_at_the_output_limit_is_an_answer_that_says_so(claude: ClaudeProvider) -> None:
    answer = complete(claude, "[[fake max_tokens]] one two").answer
    assert (answer.stop_reason, answer.text) == ("max_tokens", "echo: one two")
    assert answer.usage is not None


NASTY = {
    "exit": "cli_failed",
    "exit code=0": "cli_failed",
    "exit_midway": "cli_failed",
    "half_line": "cli_failed",
    "endless_line": "cli_failed",
    "is_error": "cli_failed",
    "is_error status=401": "cli_unavailable",
    "is_error status=429": "provider_rate_limited",
    "is_error status=529": "provider_overloaded",
    "empty": "cli_bad_output",
    "local": "cli_bad_output",
    "budget_left]][[fake num_turns is=0": "cli_bad_output",
    "budget_left]][[fake num_turns is=-1": "cli_bad_output",
    "budget_left": None,
    "twice": "cli_bad_output",
    "cost is=1e400": None,
    "cost is=NaN": None,
    "cost is=-5": None,
    "cost is=true": None,
    'cost is="1"': None,
    "no_usage": None,
    "ignore_sigterm": None,
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
    "slow count=20 delay=0.01": None,
}


@pytest.mark.parametrize(("order", "code"), NASTY.items())
def test_a_misbehaving_cli_gives_one_end_and_leaves_nothing(
    claude: ClaudeProvider, scratch: Scratch, order: str, code: str | None
) -> None:
    run = Running(claude, ask(f"[[fake {order}]] some words"))
    end = run.end()
    assert (end.error.code if isinstance(end, Failed) else None) == code
    assert isinstance(end, Failed) or end.answer.text == "echo: some words"
    assert until(lambda: not children()), children()
    assert until(lambda: os.listdir(scratch.path) == ["empty"]), os.listdir(scratch.path)
    assert run.ends == [end]


@pytest.mark.parametrize("order", ["exit_before_reading", "refuse_settings"])
def test_a_cli_that_never_takes_the_prompt_fails_without_having_cost_anything(
    claude: ClaudeProvider, order: str
) -> None:
    run = Running(claude, ask("hello", system=f"[[fake {order}]]"))
    end = run.end()
    assert isinstance(end, Failed)
    assert end.error.code == "cli_failed"
    assert not any(isinstance(event, Submitted) for event in run.events)


def test_a_cli_that_exits_while_a_large_prompt_is_written_is_a_failure(claude: ClaudeProvider) -> None:
    assert fail(claude, "x" * 400_000, system="[[fake exit_before_reading]]" + "y" * 400_000).error.code == "cli_failed"


def test_a_cost_or_usage_that_makes_no_sense_is_not_believed(claude: ClaudeProvider) -> None:
    assert complete(claude, "[[fake cost is=-5]] hi").answer.cost_micro is None
    answer = complete(claude, "[[fake no_usage]] hi").answer
    assert (answer.usage, answer.cost_micro) == (None, None)


@pytest.mark.parametrize("order", ["hang", "hang_midway", "slow count=1000 delay=0.05", "ignore_sigterm]][[fake hang"])
def test_a_cancel_ends_the_process_at_once_and_says_nothing_more(claude: ClaudeProvider, order: str) -> None:
    run = Running(claude, ask(f"[[fake {order}]] " + "word " * 300))
    run.until(lambda event: isinstance(event, Submitted))
    run.conversation.cancel()
    run.conversation.cancel()
    assert until(lambda: not children(), 5)
    seen = len(run.queue.queue)
    gevent.idle()
    assert len(run.queue.queue) == seen
    assert run.ends == []


def test_a_cancel_before_the_cli_has_read_anything_ends_it_too(claude: ClaudeProvider) -> None:
    run = Running(claude, ask("hello", system="[[fake hang_before_reading]]"))
    assert until(children)
    run.conversation.cancel()
    assert until(lambda: not children(), 5)
    assert run.ends == []


def test_a_cancel_before_the_process_exists_starts_nothing_upstream(claude: ClaudeProvider) -> None:
    run = Running(claude, ask("hello"))
    run.conversation.cancel()
    assert until(lambda: not talking(run.conversation), 5)
    assert run.queue.empty()


def test_a_cancelled_run_whose_daemon_holds_the_pipes_leaves_no_greenlet_waiting(claude: ClaudeProvider) -> None:
    run = Running(claude, ask("[[fake daemon]][[fake hang]]"))
    run.until(lambda event: isinstance(event, Submitted))
    assert until(lambda: len(children()) >= 2)
    gevent.sleep(0.2)  # that the daemon has left its group can be seen nowhere
    run.conversation.cancel()
    assert until(lambda: not talking(run.conversation), 5)


def test_without_a_place_for_its_home_the_run_fails_and_says_so(claude: ClaudeProvider, scratch: Scratch) -> None:
    scratch.clear()
    assert fail(claude, "hello").error.code == "cli_failed"


def test_a_cli_that_exits_right_after_its_last_line_is_read_to_the_end(claude: ClaudeProvider) -> None:
    words = "word " * 20_000
    for _ in range(30):
        answer = complete(claude, f"[[fake leave]][[fake daemon]] {words}").answer
        assert answer.text == f"echo: {words}".strip()


def test_a_hundred_runs_leave_no_process_folder_or_descriptor(claude: ClaudeProvider, scratch: Scratch) -> None:
    complete(claude, "first")
    assert until(lambda: not children())
    before = descriptors()
    for number in range(100):
        Running(claude, ask(f"run {number}" + ("" if number % 3 else "[[fake exit_midway]]"))).end()
    assert until(lambda: not children())
    assert until(lambda: os.listdir(scratch.path) == ["empty"])
    assert until(lambda: descriptors() <= before), (before, descriptors())


def test_the_cli_sees_nothing_of_the_host_but_what_it_needs(
    make_claude: Make, scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRIDGE_ADMIN_KEY", "the-admin-key-of-the-bridge")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-other-provider")
    leak = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(leak, True)
    try:
        seen = told(complete(make_claude(), "[[fake report]]"))
    finally:
        os.close(leak)
    home = seen["env"]["HOME"]
    assert set(seen["fds"]) == {"0", "1", "2"}
    assert (seen["cwd"], seen["cwd_files"]) == (str(scratch.empty), [])
    assert home.startswith(f"{scratch.path}/claude-")
    assert seen["env"]["CLAUDE_CONFIG_DIR"] == home
    assert (seen["home_files"], seen["home_mode"]) == ([".claude.json"], "0o700")
    assert seen["pid"] == seen["pgid"] == seen["sid"] != os.getsid(0)
    assert seen["env"]["ANTHROPIC_API_KEY"] == "sk-ant-made-up"
    assert not {"BRIDGE_ADMIN_KEY", "OPENAI_API_KEY", "PYTHONPATH", "USER"} & set(seen["env"])
    assert "sk-ant-made-up" not in " ".join(seen["argv"])


def test_two_runs_share_no_home(claude: ClaudeProvider) -> None:
    homes = {told(complete(claude, "[[fake report]]"))["env"]["HOME"] for _ in range(2)}
    assert len(homes) == 2


def test_warm_processes_serve_one_run_each(make_claude: Make) -> None:
    claude = make_claude(warm=2)
    assert until(lambda: claude.status().warm == 2)
    pids = [told(complete(claude, "[[fake report]]"))["pid"] for _ in range(3)]
    assert len(set(pids)) == 3
    assert until(lambda: claude.status().warm == 2)


def test_close_stops_what_is_warm_and_what_runs_and_waits_for_it(make_claude: Make) -> None:
    claude = make_claude(warm=2)
    run = Running(claude, ask("[[fake hang]]"))
    run.until(lambda event: isinstance(event, Submitted))
    assert until(lambda: claude.status().warm == 2)
    claude.close()
    assert [child for child in children() if child.status() != "zombie"] == []
