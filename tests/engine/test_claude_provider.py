"""The claude provider on a fake CLI: what it is given, what comes of it, and what is left when it misbehaves."""

from __future__ import annotations

from collections.abc import Callable

import gevent

from bridge.providers.claude import ClaudeProvider
from bridge.types import Failed, Image, Message, Submitted, Text, Usage
from tests.engine.harness import SCHEMA, Running, ask, children, complete, fail, talking, told, until

Make = Callable[..., ClaudeProvider]
#: a model whose API has no structured output of its own
BY_TOOL = "claude-opus-4-20250514"


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
        "thinking": None,
        "env": {"CLAUDE_CODE_MAX_OUTPUT_TOKENS": "77"},
    }
    assert seen["earlier"] == [["user", "first"], ["assistant", "second"], ["user", "third"], ["assistant", "fourth"]]


def test_json_in_words_is_as_good_as_the_output_tool_where_it_fits(claude: ClaudeProvider) -> None:
    answer = complete(claude, "[[fake no_structure]]", schema=SCHEMA, model=BY_TOOL).answer
    assert (answer.output, answer.text) == ({"echo": "yes"}, '{"echo":"yes"}')


def test_words_instead_of_the_asked_for_structure_are_a_mismatch(claude: ClaudeProvider) -> None:
    error = fail(claude, "[[fake no_structure]] [[fake say json=words]]", schema=SCHEMA, model=BY_TOOL).problem
    assert error.code == "output_mismatch"


def test_structured_output_with_half_a_character_is_an_answer_or_a_mismatch_but_never_silence(
    make_claude: Make,
) -> None:
    end = Running(make_claude(), ask('[[fake say json={"echo":"\\ud800"}]]', schema=SCHEMA)).end(10)
    assert isinstance(end, Failed)
    assert end.problem.code in ("output_mismatch", "cli_bad_output", "cli_failed")


def test_an_answer_cut_at_the_output_limit_is_an_answer_that_says_so(claude: ClaudeProvider) -> None:
    answer = complete(claude, "[[fake max_tokens]] one two").answer
    assert (answer.stop_reason, answer.text) == ("max_tokens", "echo: one two")
    assert answer.usage is not None


def test_a_cli_that_exits_while_a_large_prompt_is_written_is_a_failure(claude: ClaudeProvider) -> None:
    assert (
        fail(claude, "x" * 400_000, system="[[fake exit_before_reading]]" + "y" * 400_000).problem.code
        == "cli_unavailable"
    )


def test_a_cost_or_usage_that_makes_no_sense_is_not_believed(claude: ClaudeProvider) -> None:
    assert complete(claude, "[[fake cost is=-5]] hi").answer.usage == Usage(11, 0, 0, 2)
    assert complete(claude, "[[fake no_usage]] hi").answer.usage is None


def test_a_cancel_before_the_cli_has_read_anything_ends_it_too(claude: ClaudeProvider) -> None:
    run = Running(claude, ask("hello", system="[[fake hang_before_reading]]"))
    assert until(children)
    run.conversation.cancel()
    assert until(lambda: not children(), 5)
    assert run.ends == []


def test_a_cancelled_run_whose_daemon_holds_the_pipes_leaves_no_greenlet_waiting(claude: ClaudeProvider) -> None:
    run = Running(claude, ask("[[fake daemon]][[fake hang]]"))
    run.until(lambda event: isinstance(event, Submitted))
    assert until(lambda: len(children()) >= 2)
    gevent.sleep(0.2)  # that the daemon has left its group can be seen nowhere
    run.conversation.cancel()
    assert until(lambda: not talking(run.conversation), 5)


def test_a_cli_that_exits_right_after_its_last_line_is_read_to_the_end(claude: ClaudeProvider) -> None:
    words = "word " * 20_000
    for _ in range(30):
        answer = complete(claude, f"[[fake leave]][[fake daemon]] {words}").answer
        assert answer.text == f"echo: {words}".strip()


def test_two_runs_share_no_home(claude: ClaudeProvider) -> None:
    homes = {told(complete(claude, "[[fake report]]"))["env"]["HOME"] for _ in range(2)}
    assert len(homes) == 2


def test_warm_processes_serve_one_run_each(make_claude: Make) -> None:
    claude = make_claude(warm=2)
    assert until(lambda: claude.status().warm == 2)
    pids = [told(complete(claude, "[[fake report]]"))["pid"] for _ in range(3)]
    assert len(set(pids)) == 3
    assert until(lambda: claude.status().warm == 2)
