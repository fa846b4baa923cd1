"""A run from its submission to its settlement, on a provider that says what a test wants it to say."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.engine.engine import Engine
from bridge.engine.run import Run
from bridge.errors import BridgeError, Problem
from bridge.gate.ticket import Way
from bridge.keys.keys import Key
from bridge.limits import Limits
from bridge.providers.provider import Emit, ProviderStatus, after_searches
from bridge.records.jobs import Job
from bridge.service import Service
from bridge.settings import Settings
from bridge.types import (
    Activity,
    Answer,
    Completed,
    Event,
    Failed,
    Finished,
    GenerationRequest,
    Message,
    PartDelta,
    Receipt,
    Search,
    Submitted,
    Tap,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    Usage,
    WebSearch,
    whole,
)
from tests.engine.harness import SCHEMA, ask, until

USAGE = Usage(10, output_tokens=5)


class Scripted:
    """A provider of few words: for each call the next script, told as soon as it is asked."""

    default_model = "claude-sonnet-5-5"
    name = "claude"
    needs_credential = False
    searches = True
    takes_links = True

    def __init__(self, *, enforces_output_limit: bool = True) -> None:
        self.enforces_output_limit = enforces_output_limit
        self.least_output_tokens = 1
        self.scripts: list[list[Event]] = []
        self.requests: list[GenerationRequest] = []
        self.emits: list[Emit] = []
        self.cancelled = 0
        self.receipt: Receipt | None = None

    def open(self) -> None: ...

    def close(self) -> None: ...

    def check(self) -> ProviderStatus:
        return self.status()

    def status(self) -> ProviderStatus:
        return ProviderStatus("claude", True)

    def unchecked(self, request: GenerationRequest) -> list[Tool]:
        return [tool for tool in request.tools if tool.strict]

    def input_ceiling(self, request: GenerationRequest) -> int:
        return 100

    def start(self, request: GenerationRequest, emit: Emit, owner: str, tap: Tap | None, way: Way | None) -> Scripted:
        self.requests.append(request)
        self.emits.append(emit)
        for event in self.scripts.pop(0):
            emit(event)
        return self

    def cancel(self) -> None:
        self.cancelled += 1


def answer(*parts: Any, stop_reason: str = "end_turn") -> Completed:
    return Completed(Answer(tuple(parts), "claude-sonnet-5-5", stop_reason, USAGE))


@pytest.fixture
def provider() -> Scripted:
    return Scripted()


@pytest.fixture
def service(tmp_path: Path, provider: Scripted) -> Iterator[Service]:
    loaded = Settings.load({"BRIDGE_DATA_DIR": str(tmp_path / "data"), "BRIDGE_LOG_PROMPTS": "full"})
    service = Service(loaded, make_providers=lambda *_: {"claude": provider})
    service.open()
    yield service
    service.close()


@pytest.fixture
def key(service: Service) -> Key:
    service.keys.create("ada", Limits.parse({"maxCostPerRequest": 1}))
    return service.keys.get("ada")


@pytest.fixture
def submit(service: Service, key: Key) -> Callable[..., Run]:
    def submit(request: GenerationRequest, **more: Any) -> Run:
        return engine_of(service).submit(key, request, **more)

    return submit


def engine_of(service: Service) -> Engine:
    assert service.engine is not None
    return service.engine


def lines(service: Service) -> list[dict[str, Any]]:
    return service.log.page()[0]


def ended(run: Run) -> Finished:
    finished = run.wait(10)
    assert finished is not None
    return finished


CALL = ToolCall("call_1", "look_up", '{"city": "Bern"}')


def test_tool_calls_and_results_come_through_a_run_a_job_and_the_log_without_loss(
    service: Service, key: Key, provider: Scripted, submit: Callable[..., Run]
) -> None:
    pieces = [ToolCall("call_1", "look_up", '{"city"'), ToolCall("call_1", "look_up", ': "Bern"}')]
    provider.scripts = [
        [
            Submitted(),
            PartDelta(0, Text("Let me ")),
            PartDelta(0, Text("look.")),
            *(PartDelta(1, piece) for piece in pieces),
            answer(Text("Let me look."), CALL, stop_reason="tool_use"),
        ]
    ]
    earlier = Message("assistant", (ToolCall("call_0", "look_up", "{}"),))
    result = ToolResult("call_0", (Text("Which city?"),), is_error=True)
    conversation = (Message("user", (Text("Weather?"),)), earlier, Message("user", (result,)))
    run = submit(GenerationRequest("claude", "claude-sonnet-5-5", conversation), keep=True)
    finished = ended(run)
    assert provider.requests[0].messages == conversation
    assert whole(delta for delta in run.follow(1) if delta is not None) == (Text("Let me look."), CALL)
    assert isinstance(finished.result, Answer)
    assert finished.result.content == (Text("Let me look."), CALL)
    kept = engine_of(service).find(key, run.id)
    assert isinstance(kept, Job)
    assert kept.finished == finished
    (line,) = lines(service)
    assert (line["userPrompt"], line["stopReason"], line["calls"]) == ("Which city?", "tool_use", CALL.name)


def test_a_stop_sequence_ends_the_text_and_what_came_before_it_is_the_answer(
    provider: Scripted, submit: Callable[..., Run]
) -> None:
    provider.scripts = [[Submitted(), PartDelta(0, CALL), PartDelta(1, Text("one ST")), PartDelta(1, Text("OP two"))]]
    run = submit(GenerationRequest("claude", "m", (Message("user", (Text("go"),)),), stop=("STOP",)))
    finished = ended(run)
    assert isinstance(finished.result, Answer)
    assert finished.result.content == (CALL, Text("one "))
    assert (finished.result.stop_sequence, finished.charge.assumed, provider.cancelled) == ("STOP", True, 1)


def test_an_answer_that_misses_its_schema_is_asked_for_again_and_charged_twice(
    service: Service, provider: Scripted, submit: Callable[..., Run]
) -> None:
    provider.scripts = [
        [Submitted(), PartDelta(0, Text("[1]")), answer(Text("[1]"))],
        [Submitted(), answer(Text('Here: {"echo": "yes"}'))],
    ]
    run = submit(ask("hello", schema=SCHEMA))
    finished = ended(run)
    assert isinstance(finished.result, Answer)
    assert (finished.result.output, finished.result.text) == ({"echo": "yes"}, '{"echo": "yes"}')
    assert [message.text for message in provider.requests[1].messages][1] == "[1]"
    assert list(run.follow(1)) == [PartDelta(0, Text('{"echo": "yes"}'))]
    assert (finished.charge.cost_micro, finished.charge.usage, run.repairs) == (140, USAGE.plus(USAGE), 1)
    assert service.ledger.usage("ada")["today"]["requests"] == 1


def test_a_run_is_stopped_also_while_its_answer_is_held_against_the_schema(
    service: Service, provider: Scripted, submit: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    checking = gevent.event.Event()

    def mismatch(schema: Any, output: Any, *, owner: str) -> None:
        checking.set()
        gevent.sleep(30)

    monkeypatch.setattr(engine_of(service)._schemas, "mismatch", mismatch)
    provider.scripts = [[Submitted(), answer(Text("{}"))]]
    run = submit(ask("hello", schema=SCHEMA))
    assert checking.wait(10)
    run.cancel(Problem("cancelled", "Enough."))
    finished = ended(run)
    assert isinstance(finished.result, Problem)
    assert (finished.result.code, provider.cancelled) == ("cancelled", 1)


def test_a_cli_that_keeps_no_maximum_is_stopped_once_it_costs_more_than_one_request_may(
    service: Service, provider: Scripted, submit: Callable[..., Run]
) -> None:
    provider.enforces_output_limit = False
    provider.scripts = [[Submitted(), PartDelta(0, Text("word " * 200_000))]]
    finished = ended(submit(ask("hello", max_output_tokens=10)))
    assert isinstance(finished.result, Problem)
    assert (finished.result.code, finished.charge.assumed) == ("stopped_at_cap", True)
    assert finished.result.sdk_status == 403, "no SDK repeats it"
    assert provider.cancelled == 1


def cost_of(output_tokens: int) -> int:
    """Micro-dollars, at 10 dollars for a million."""
    return output_tokens * 10


def test_what_a_cli_without_a_maximum_thought_is_charged_beyond_its_reservation(
    service: Service, provider: Scripted, submit: Callable[..., Run]
) -> None:
    provider.enforces_output_limit = False
    provider.scripts = [[Submitted()]]
    run = submit(ask("hello", max_output_tokens=10))
    assert until(lambda: run.submitted_s is not None)
    assert run._submitted_at is not None
    # As if it had thought for so many seconds.
    run._submitted_at -= 100
    run.cancel(Problem("cancelled", "Enough."))
    charge = ended(run).charge
    assert charge.assumed
    assert charge.usage.output_tokens >= 15_000
    assert charge.cost_micro >= cost_of(15_000) > run.reservation.cost_micro
    assert service.ledger.usage("ada")["today"]["costUsd"] == pytest.approx(charge.cost_micro / 1e6)


def test_a_cli_that_keeps_its_maximum_is_charged_no_guess_beyond_the_reservation(
    service: Service, provider: Scripted, submit: Callable[..., Run]
) -> None:
    provider.scripts = [[Submitted()]]
    run = submit(ask("hello", max_output_tokens=10))
    assert until(lambda: run.submitted_s is not None)
    assert run._submitted_at is not None
    run._submitted_at -= 100
    run.cancel(Problem("cancelled", "Enough."))
    charge = ended(run).charge
    assert (charge.assumed, charge.usage.output_tokens) == (True, 10)
    assert charge.cost_micro <= run.reservation.cost_micro


def test_runs_at_once_count_what_each_other_uses_beyond_its_reservation(service: Service, provider: Scripted) -> None:
    service.keys.create("bob", Limits.parse({"maxCostPerDay": 0.3}))
    provider.enforces_output_limit = False
    provider.scripts = [[Submitted()] for _ in range(4)]
    engine = engine_of(service)
    runs = [engine.submit(service.keys.get("bob"), ask("hello", max_output_tokens=10)) for _ in range(4)]
    assert until(lambda: all(run.submitted_s is not None for run in runs))
    charges = engine._charges
    assert all(charges.overdrawn(run, runs) is None for run in runs)
    for run in runs:
        assert run._submitted_at is not None
        # 9,000 tokens each: 0.09 dollars, of which one, two or three fit, and four do not.
        run._submitted_at -= 60
    assert charges.overdrawn(runs[0], runs[:1]) is None
    problem = charges.overdrawn(runs[0], runs)
    assert problem is not None
    assert problem.code == "stopped_at_cap"
    for run in runs:
        run.cancel(Problem("cancelled", "Enough."))
        ended(run)


@pytest.mark.parametrize(
    ("usage", "output"),
    [
        (Usage(300, output_tokens=5), 10),
        (Usage(10, output_tokens=90_000_000), 10),
        (Usage(0, 50_000_000, output_tokens=1), 10),
        (Usage(0, 0, 50_000_000, output_tokens=1), 10),
    ],
)
def test_a_figure_far_beyond_what_was_possible_is_charged_as_reserved_and_marked(
    provider: Scripted, submit: Callable[..., Run], usage: Usage, output: int
) -> None:
    provider.scripts = [[Submitted(), Completed(Answer((Text("hi"),), "claude-sonnet-5-5", "end_turn", usage))]]
    run = submit(ask("hello", max_output_tokens=output))
    charge = ended(run).charge
    assert (charge.assumed, charge.usage) == (True, Usage(100, output_tokens=output))
    assert 0 < charge.cost_micro <= run.reservation.cost_micro


def test_a_figure_a_little_above_what_was_expected_is_charged_as_it_is(
    provider: Scripted, submit: Callable[..., Run]
) -> None:
    usage = Usage(150, output_tokens=12)
    provider.scripts = [[Submitted(), Completed(Answer((Text("hi"),), "claude-sonnet-5-5", "end_turn", usage))]]
    charge = ended(submit(ask("hello", max_output_tokens=10))).charge
    assert (charge.assumed, charge.usage) == (False, usage)


def test_an_answer_for_nothing_is_not_free(provider: Scripted, submit: Callable[..., Run]) -> None:
    provider.scripts = [[Submitted(), Completed(Answer((Text("hi"),), "claude-sonnet-5-5", "end_turn", Usage()))]]
    charge = ended(submit(ask("hello"))).charge
    assert charge.assumed
    assert charge.cost_micro > 0


def test_an_operators_price_is_what_is_charged(
    service: Service, provider: Scripted, submit: Callable[..., Run]
) -> None:
    row = {"input": 1000, "cached": 1000, "cacheWrite": 1000, "output": 1000}
    prices = {"providers": {"claude": {"models": {"claude-sonnet-5-5": row}}}}
    (service.settings.data_dir / "prices.json").write_text(json.dumps(prices))
    gevent.sleep(1.1)
    provider.scripts = [[Submitted(), answer(Text("hi"))]]
    run = submit(ask("hello", max_output_tokens=10))
    assert ended(run).charge.cost_micro == USAGE.total * 1000


def test_what_an_api_can_not_be_asked_for_less_of_is_reserved(provider: Scripted, submit: Callable[..., Run]) -> None:
    provider.least_output_tokens = 16
    provider.scripts = [[Submitted(), answer(Text("hi"))]]
    run = submit(ask("hello", max_output_tokens=3))
    assert run.reservation.output_tokens == 16
    ended(run)


def test_a_failure_of_the_cli_is_the_end_as_a_value(
    service: Service, provider: Scripted, submit: Callable[..., Run]
) -> None:
    problem = Problem("provider_rate_limited", "Slowly.", retry_after=7, facts={"resets_at": "soon"})
    provider.scripts = [[Submitted(), Failed(problem, Usage())]]
    run = submit(ask("hello"))
    assert ended(run).result == problem
    assert until(lambda: not engine_of(service).runs)
    (line,) = lines(service)
    assert (line["code"], line["error"], line["status"]) == (problem.code, "Slowly.", 503)


def test_the_line_has_what_the_provider_said_and_the_time_that_was_added(
    service: Service, provider: Scripted, submit: Callable[..., Run]
) -> None:
    provider.scripts = [[Submitted(), answer(Text("hello"))]]
    provider.receipt = Receipt(200, None, "req_1", 0)
    run = submit(ask("hello"))
    run.wait(5)
    line = service.log.find(run.id)
    assert line is not None
    assert (line["upstreamStatus"], line["upstreamMessage"], line["upstreamRequestId"]) == (200, None, "req_1")
    assert (line["modelMs"], line["overheadMs"]) == (0, line["durationMs"] - line["queuedMs"])


def test_where_nobody_listened_there_is_no_time_of_the_model(
    service: Service, provider: Scripted, submit: Callable[..., Run]
) -> None:
    provider.scripts = [[Submitted(), answer(Text("hello"))]]
    run = submit(ask("hello"))
    run.wait(5)
    line = service.log.find(run.id)
    assert line is not None
    assert (line["upstreamStatus"], line["modelMs"], line["overheadMs"]) == (None, None, None)


def test_two_attempts_add_their_times_and_keep_the_last_words() -> None:
    first, second = Receipt(200, None, "req_1", 40), Receipt(529, "Overloaded", "req_2", 2)
    assert second.after(first) == Receipt(529, "Overloaded", "req_2", 42)
    assert first.after(None) == first


SEARCHING = WebSearch(3)
#: what the script's provider may be billed for with all three, after the reservation for a prompt of 100 tokens
MOST_READ = after_searches(100, 500, 3)


@pytest.mark.parametrize("allowed", [False, True])
def test_only_keys_that_may_search_the_web(
    service: Service, provider: Scripted, submit: Callable[..., Run], allowed: bool
) -> None:
    service.keys.update("ada", web_search=allowed)
    provider.scripts = [[Submitted(), answer(Text("x"))]]
    request = ask("hi", web_search=SEARCHING, max_output_tokens=500)
    if allowed:
        run = engine_of(service).submit(service.keys.get("ada"), request)
        assert (run.reservation.searches, run.reservation.input_tokens) == (3, MOST_READ)
        ended(run)
        provider.searches = False
    with pytest.raises(BridgeError, match="does not search" if allowed else "may not search"):
        engine_of(service).submit(service.keys.get("ada"), request)
    assert len(provider.requests) == allowed


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.floats(0, 1), st.integers(0, 500), st.booleans()), min_size=1, max_size=12
    ),
    st.integers(20_000, 1_500_000),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_searches_cost_never_takes_a_key_above_its_cap(
    service: Service, provider: Scripted, runs: list[tuple[int, float, int, bool]], cap_micro: int
) -> None:
    name = f"p{service.keys.count}"
    cap = {"maxCostPerDay": cap_micro / 1e6, "maxRequestsPerMinute": 0, "maxConcurrent": 0}
    service.keys.create(name, Limits.parse(cap), web_search=True)
    key, begun = service.keys.get(name), []
    for made, share, output, breaks_off in runs:
        used = Usage(round(share * after_searches(100, 500, made)), output_tokens=output, searches=made)
        seen = [PartDelta(number, Search(str(number), "q")) for number in range(made)]
        end = Failed(Problem("cli_failed", "gone")) if breaks_off else Completed(Answer((), "m", "end_turn", used))
        provider.scripts = [[Submitted(), *seen, end]]
        with contextlib.suppress(BridgeError):
            begun.append(engine_of(service).submit(key, ask("hi", web_search=SEARCHING, max_output_tokens=500)))
        assert sum(run.reservation.cost_micro for run in begun if run.finished is None) <= cap_micro
        for run in begun:
            ended(run)
    assert sum(run.finished.charge.cost_micro for run in begun if run.finished) <= cap_micro
    assert sum(run.finished.charge.usage.searches for run in begun if run.finished) <= 3 * len(begun)


def test_searches_that_were_seen_are_charged_where_an_answer_breaks_off(service: Service, provider: Scripted) -> None:
    service.keys.create("bob", Limits.parse({}), web_search=True)
    start = Activity(Usage(100))
    provider.scripts = [[Submitted(), start, PartDelta(0, Search("1", "q")), Failed(Problem("cli_failed", "gone"))]]
    charge = ended(engine_of(service).submit(service.keys.get("bob"), ask("hi", web_search=SEARCHING))).charge
    assert (charge.assumed, charge.usage.searches) == (True, 2)
    assert charge.usage.input_tokens >= after_searches(100, 0, 2)
    assert lines(service)[0]["searches"] == 2


def test_a_model_that_is_not_there_is_told_with_the_nearest_one_that_the_key_may_use(
    service: Service, key: Key, provider: Scripted, submit: Callable[..., Run]
) -> None:
    service.models.offers.note("claude", 0.0, {"claude-opus-5-5": 0.0, "claude-haiku-5-5": 0.0})
    gone = Failed(Problem("model_not_found", "Anthropic does not know this model.", unpaid=True))
    provider.scripts = [[gone], [gone]]
    told = ended(submit(ask("hello", model="claude-opus-5"))).result
    assert isinstance(told, Problem)
    assert (told.code, told.hint) == ("model_not_found", "The nearest one that is there is claude-opus-5-5.")
    service.keys.update("ada", models=["claude-opus-5"])
    told = engine_of(service).submit(service.keys.get("ada"), ask("hello", model="claude-opus-5")).wait(10).result  # type: ignore[union-attr]
    assert isinstance(told, Problem)
    assert "claude-opus-5-5" not in told.hint


STRICT = Tool("look_up", schema={"type": "object", "properties": {"n": {"maximum": 3}}, "required": ["n"]}, strict=True)


@pytest.mark.parametrize(
    ("tool", "arguments", "says"),
    [
        (STRICT, '{"n": 3}', None),
        (STRICT, '{"n": 4}', "do not fit its schema: "),
        (STRICT, "", "do not fit its schema: "),
        (STRICT, '{"n":', "they are not valid JSON"),
        (msgspec.structs.replace(STRICT, strict=None), '{"n": 4}', None),
        (msgspec.structs.replace(STRICT, schema={"type": "no type"}), '{"n": 4}', None),
    ],
)
@pytest.mark.parametrize("schema", [None, SCHEMA])
def test_the_bridge_holds_calls_against_strict_tools_where_nobody_else_does(
    provider: Scripted,
    submit: Callable[..., Run],
    tool: Tool,
    arguments: str,
    says: str | None,
    schema: dict[str, Any] | None,
) -> None:
    call = ToolCall("call_1", "look_up", arguments)
    provider.scripts = [[Submitted(), PartDelta(0, call), answer(call, stop_reason="tool_use")]]
    result = ended(submit(ask("hi", tools=(tool,), schema=schema))).result
    if says is None:
        assert isinstance(result, Answer)
        assert result.content == (call,)
        return
    assert isinstance(result, Problem)
    assert (result.code, result.facts) == ("output_mismatch", {"text": arguments, "tool": "look_up"})
    assert says in result.message
    assert (result.status, result.sdk_status) == (422, 400)


def test_calls_are_not_held_against_strict_tools_once_the_run_has_ended(
    provider: Scripted, service: Service, submit: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, go_on = list[Any](), gevent.event.Event()

    def mismatch(schema: dict[str, Any], output: Any, owner: str) -> None:
        asked.append(output)
        go_on.wait()

    monkeypatch.setattr(engine_of(service)._schemas, "mismatch", mismatch)
    calls = [ToolCall(f"call_{number}", "look_up", '{"n": 1}') for number in range(3)]
    provider.scripts = [[Submitted(), answer(*calls, stop_reason="tool_use")]]
    run = submit(ask("hi", tools=(STRICT,)))
    assert until(lambda: asked)
    run.cancel(Problem("cancelled", "Stop."))
    ended(run)
    go_on.set()
    gevent.sleep(0.1)
    assert len(asked) == 1
