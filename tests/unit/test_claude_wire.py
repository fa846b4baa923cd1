"""The stream-json conversation with claude: what is written, and what the recorded lines mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bridge.engine.answer import with_output
from bridge.providers import claude_wire as meaning
from bridge.registry import PROVIDERS
from bridge.types import (
    DECLINED,
    Activity,
    Completed,
    Event,
    Failed,
    GenerationRequest,
    Message,
    PartDelta,
    Text,
    Thought,
    Usage,
    words,
)

#: Of each version that is supported, the newest first. Not every case was recorded in each.
RECORDINGS = sorted((Path(__file__).resolve().parents[1] / "recordings").glob("claude-*"), reverse=True)
EVERY = sorted(path for folder in RECORDINGS for path in folder.glob("*.jsonl"))
SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}

#: the time of these tests, in UTC seconds
NOW = 1_795_000_000.0


def ask(*messages: Message, **more: Any) -> GenerationRequest:
    return GenerationRequest("claude", "claude-opus-5-5", messages or (Message("user", (Text("hello"),)),), **more)


def recorded(name: str) -> list[bytes]:
    path = next(path for folder in RECORDINGS if (path := folder / f"{name}.jsonl").exists())
    return path.read_bytes().splitlines()


def play(lines: list[bytes], request: GenerationRequest | None = None) -> list[Event]:
    """The events up to the first end, as a provider takes them."""
    request = request or ask()
    parser = meaning.AnswerParser(request, lambda: NOW, by_tool=request.schema is not None)
    events = []
    for line in lines:
        for event in parser.feed(line):
            events.append(event)
            if isinstance(event, Completed | Failed):
                return events
    return events


def answer_of(name: str, **more: Any) -> Any:
    """The answer of a recording; the results of silent lines are read by whoever sent them."""
    end = play([line for line in recorded(name) if b'"num_turns":0' not in line], ask(**more))[-1]
    assert isinstance(end, Completed), end
    return end.answer


def failure_of(name: str, **more: Any) -> Failed:
    end = play(recorded(name), ask(**more))[-1]
    assert isinstance(end, Failed), end
    return end


# --- recordings ---------------------------------------------------------------------------------


def test_a_recorded_answer_is_understood() -> None:
    events = play(recorded("success"))
    answer = answer_of("success")
    assert "".join(words(e.part) for e in events if isinstance(e, PartDelta)) == answer.text
    assert answer.text
    assert (answer.model, answer.stop_reason) == ("claude-sonnet-5-5", "end_turn")
    assert answer.usage is not None
    assert answer.usage.input_tokens > 0 < answer.usage.output_tokens


def test_a_long_recorded_stream_gives_a_delta_for_each_piece() -> None:
    deltas = [e for e in play(recorded("long-stream")) if isinstance(e, PartDelta)]
    assert len(deltas) == sum(b"text_delta" in line for line in recorded("long-stream")) >= 19


def test_an_answer_with_thinking_or_a_history_is_only_its_text() -> None:
    assert answer_of("history").text == answer_of("history").text.strip() != ""
    thinking = answer_of("thinking")
    thought = b"".join(line for line in recorded("thinking") if b"thinking_delta" in line).decode()
    assert thinking.text
    assert thinking.text not in thought


def test_recorded_structured_output_is_the_json_that_the_tool_was_given() -> None:
    answer = answer_of("schema", schema=SCHEMA)
    assert set(json.loads(answer.text)) == {"name"}
    assert answer.stop_reason == "end_turn"


def test_structured_output_that_does_not_fit_is_a_mismatch_with_its_text_and_cost() -> None:
    (*_, answer) = play(recorded("schema-broken"), ask(schema=SCHEMA))
    assert isinstance(answer, Completed)
    end = with_output(answer, SCHEMA, lambda schema, output: "$.name is wrong")
    assert isinstance(end, Failed)
    assert end.problem.code == "output_mismatch"
    assert "$.name is wrong" in end.problem.message
    assert json.loads(end.problem.facts["text"])
    assert end.usage is not None
    assert end.usage == answer.answer.usage


def test_words_instead_of_structure_are_a_mismatch_and_are_not_streamed() -> None:
    events = play(recorded("schema-ignored"), ask(schema=SCHEMA))
    assert isinstance(events[-1], Completed)
    end = with_output(events[-1], SCHEMA, lambda schema, output: None)
    assert isinstance(end, Failed)
    assert (end.problem.code, end.usage) == ("output_mismatch", events[-1].answer.usage)
    assert not any(isinstance(event, PartDelta) for event in events)


def test_an_answer_cut_at_the_limit_is_an_answer_that_says_so() -> None:
    answer = answer_of("max-tokens")
    assert answer.stop_reason == "max_tokens"
    assert answer.usage is not None
    assert answer.usage.output_tokens == 20


def test_a_refusal_is_an_answer_that_says_so_and_costs_what_it_costs() -> None:
    answer = answer_of("refusal")
    assert (answer.text, answer.stop_reason, answer.refusal) == ("", "refusal", DECLINED)
    assert answer.usage is not None
    assert answer.usage.output_tokens > 0


def test_a_refusal_has_what_was_written_before_it_and_why_the_provider_stopped() -> None:
    why = "This request could enable cyber harm."
    text = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "First, "}}
    written = json.dumps({"type": "stream_event", "event": text}).encode()
    lines = []
    for line in recorded("refusal"):
        message = json.loads(line)
        if str(message.get("subtype")).startswith("model_refusal"):
            message["api_refusal_explanation"] = why
            lines.append(written)
        lines.append(json.dumps(message).encode())
    end = play(lines, ask())[-1]
    assert isinstance(end, Completed)
    assert (end.answer.text, end.answer.stop_reason, end.answer.refusal) == ("First, ", "refusal", why)
    with_schema = with_output(end, SCHEMA, lambda schema, output: "it is not valid JSON")
    assert with_schema == end, "nobody pays for a second try"


def test_an_empty_answer_is_an_answer_and_costs_what_it_costs() -> None:
    answer = answer_of("empty")
    assert (answer.content, answer.stop_reason) == ((), "end_turn")
    assert answer.usage is not None
    assert answer.usage.prompt > 0


def test_a_tool_that_the_model_was_not_given_is_bad_output_and_costs_what_it_costs() -> None:
    failure = failure_of("tool")
    assert failure.problem.code == "cli_bad_output"
    assert failure.usage is not None
    assert failure.usage.prompt > 0


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("fail-400", "provider_invalid_request"),
        ("fail-401", "cli_unavailable"),
        ("fail-403", "cli_unavailable"),
        ("fail-404", "model_not_found"),
        ("fail-413", "prompt_too_long"),
        ("fail-429", "provider_rate_limited"),
        ("fail-500", "cli_failed"),
        ("fail-529", "provider_overloaded"),
        ("prompt-too-long", "prompt_too_long"),
        ("not-logged-in", "cli_unavailable"),
        ("hang", "timeout"),
        ("hang-mid-stream", "timeout"),
        ("cut", "cli_failed"),
        ("garbage", "cli_failed"),
        ("stream-error", "provider_overloaded"),
        ("interrupt", "cli_failed"),
    ],
)
def test_a_recorded_failure_has_its_code_and_keeps_the_details_back(name: str, code: str) -> None:
    error = failure_of(name).problem
    assert error.code == code
    shown = f"{error.message} {error.hint}"
    assert not any(word in shown for word in ("stub", "127.0.0.1", "Error:", "/login", "CLAUDE_CODE"))


@pytest.mark.parametrize(
    "name", [f"fail-{status}" for status in (400, 401, 403, 404, 413, 429, 500, 529)] + ["not-logged-in"]
)
def test_a_request_that_the_api_turned_away_costs_nothing(name: str) -> None:
    failure = failure_of(name)
    assert failure.usage == Usage()


@pytest.mark.parametrize("trouble", ["Connection refused (ECONNREFUSED)", "Can't reach the server (ENOTFOUND)"])
def test_a_request_that_was_never_sent_costs_nothing(trouble: str) -> None:
    (line,) = [line for line in recorded("cut") if b'"terminal_reason"' in line]
    said = json.loads(line)
    (failure,) = play([json.dumps({**said, "result": f"API Error: {trouble}"}).encode()])
    assert isinstance(failure, Failed)
    assert failure.usage == Usage()


@pytest.mark.parametrize("name", ["hang", "hang-mid-stream", "stream-error", "cut", "garbage"])
def test_a_stream_that_broke_does_not_claim_to_have_cost_nothing(name: str) -> None:
    failure = failure_of(name)
    assert failure.usage is None


def test_a_second_call_of_the_model_ends_the_run() -> None:
    (requesting,) = [line for line in recorded("success") if b'"requesting"' in line]
    events = play([requesting, requesting])
    assert isinstance(events[-1], Failed)
    assert events[-1].problem.code == "cli_bad_output"


def test_a_rate_limit_event_is_a_sign_of_life_and_no_more() -> None:
    (line,) = [line for line in recorded("rate-limit-event") if b'"rate_limit_event"' in line]
    assert play([line]) == [Activity()]
    assert isinstance(play(recorded("rate-limit-event"))[-1], Completed)


@pytest.mark.parametrize(
    ("resets_at", "retry_after"), [(NOW + 90, 90), (NOW - 5, None), (NOW + 10**9, None), ("soon", None), (True, None)]
)
def test_a_rate_limit_says_when_it_ends_where_that_is_known(resets_at: Any, retry_after: float | None) -> None:
    event = {"type": "rate_limit_event", "rate_limit_info": {"status": "rejected", "resetsAt": resets_at}}
    end = play([json.dumps(event).encode(), *recorded("fail-429")])[-1]
    assert isinstance(end, Failed)
    assert end.problem.code == "provider_rate_limited"
    assert end.problem.retry_after == retry_after
    assert ("resets_at" in end.problem.facts) == (retry_after is not None)


@pytest.mark.parametrize("path", EVERY, ids=lambda path: f"{path.parent.name}-{path.stem}")
@pytest.mark.parametrize("schema", [None, SCHEMA])
def test_every_recording_has_exactly_one_end(path: Path, schema: Any) -> None:
    lines = [line for line in path.read_bytes().splitlines() if b'"num_turns":0' not in line]
    ends = [e for e in play(lines, ask(schema=schema)) if isinstance(e, Completed | Failed)]
    assert len(ends) == 1


@pytest.mark.parametrize("path", EVERY, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_what_was_recorded_is_known(path: Path) -> None:
    heard: list[str] = []
    parser = meaning.AnswerParser(ask(), lambda: NOW, note=heard.append)
    for line in path.read_bytes().splitlines():
        list(parser.feed(line))
    assert heard == []


def test_the_tested_version_was_recorded_in_every_case() -> None:
    recorded_of = {folder.name: {path.stem for path in folder.glob("*.jsonl")} for folder in RECORDINGS}
    assert recorded_of[f"claude-{PROVIDERS['claude'].tested}"] == {path.stem for path in EVERY}


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ({"type": "bulletin", "text": "new"}, "bulletin"),
        ({"type": "system", "subtype": "weather", "session_id": "x"}, "system/weather"),
        ({"type": "result", "subtype": "success", "mood": "good", "is_error": True}, "result.mood"),
        ({}, "None"),
    ],
)
def test_what_the_cli_did_not_say_before_is_noted_and_harms_nothing(line: dict[str, Any], what: str) -> None:
    heard: list[str] = []
    parser = meaning.AnswerParser(ask(), lambda: NOW, note=heard.append)
    list(parser.feed(json.dumps(line).encode()))
    assert heard == [what]


def test_a_thought_that_goes_back_names_its_model_or_the_cli_drops_it() -> None:
    thought = Thought("Hm.", "seal")
    asked, said = Message("user", (Text("hi"),)), (thought, Thought(redacted="secret"), Text("yes"))
    request = GenerationRequest("claude", "claude-haiku-4-5", (asked, Message("assistant", said), asked))
    ((_, _), (line, _)) = meaning.history(request)
    assert json.loads(line)["message"] == {
        "role": "assistant",
        "model": "claude-haiku-4-5",
        "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": "seal"},
            {"type": "redacted_thinking", "data": "secret"},
            {"type": "text", "text": "yes"},
        ],
    }
