"""However an answer ends, the model is asked once for one request, and what it counted is what is charged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from benchmarks.soak_books import charged_usage, counted_usage, sent
from bridge.clock import Clock
from bridge.ledger.pricing import PriceTable, cost
from bridge.types import Usage
from tests.real_cli.conftest import Rig, texts
from tests.real_cli.test_schemas import SCHEMA
from tests.standin import Recorded

#: path of a request -> provider, and the model whose price is charged
CLIS = {"/generate": ("claude", "claude-sonnet-5-5"), "/generate-codex": ("codex", "gpt-6-sol")}
#: how a run is charged: what the stand-in counted, nothing at all, or as assumed because the end never came
EXACT, NOTHING, ASSUMED = "exact", "nothing", "assumed"
FIGURES = "input=900 cached=70 output=40"


@dataclass(frozen=True)
class Case:
    """What the stand-in does, and what has to come of it. `end`: a stop reason, or the code of an error."""

    name: str
    directives: str
    status: int
    end: str
    charge: str
    calls: int = 1
    body: dict[str, Any] = field(default_factory=dict)


CASES = [
    Case("success", FIGURES, 200, "end_turn", EXACT),
    Case("a long answer", f"size=30000 deltas=60 {FIGURES}", 200, "end_turn", EXACT),
    Case("thinking", f"thinking=1 {FIGURES}", 200, "end_turn", EXACT),
    Case("max_tokens", "words=5000", 200, "max_tokens", EXACT, body={"maxOutputTokens": 64}),
    Case("an empty answer", f"mode=empty {FIGURES}", 200, "end_turn", EXACT),
    Case("a refusal", f"mode=refusal {FIGURES}", 200, "refusal", EXACT),
    Case("a schema", FIGURES, 200, "end_turn", EXACT, body={"schema": SCHEMA}),
    Case("a schema miss", f"schema_bad=1 {FIGURES}", 200, "end_turn", EXACT, calls=2, body={"schema": SCHEMA}),
    Case("a tool of claude", f"tool=Bash {FIGURES}", 0, "", EXACT),
    Case("a tool of codex", f"tool=shell {FIGURES}", 0, "", EXACT),
    Case("a tool of its own kind", f"tool=custom:apply_patch {FIGURES}", 0, "", EXACT),
    Case("400", "status=400", 400, "provider_invalid_request", NOTHING),
    Case("401", "status=401", 503, "no_credentials", NOTHING),
    Case("403", "status=403", 503, "no_credentials", NOTHING),
    Case("404", "status=404", 404, "model_not_found", NOTHING),
    Case("413", "status=413", 413, "prompt_too_long", NOTHING),
    Case("429", "status=429 retry_after=100", 503, "provider_rate_limited", NOTHING),
    Case("429 for good", "mode=quota retry_after=100", 503, "no_credentials", NOTHING),
    Case("500", "status=500", 503, "provider_overloaded", NOTHING),
    Case("503", "status=503", 503, "provider_overloaded", NOTHING),
    Case("529", "status=529", 503, "provider_overloaded", NOTHING),
    Case("too long for the model", "mode=context", 413, "prompt_too_long", NOTHING),
    Case("an error in mid-stream", "mode=stream_error", 422, "provider_broke_off", ASSUMED),
    Case("a limit in mid-stream", "mode=stream_rate_limit", 422, "provider_broke_off", ASSUMED),
    Case("cut", "mode=cut deltas=20", 502, "cli_failed", ASSUMED),
    Case("cut after the headers", "mode=cut_early", 502, "cli_failed", ASSUMED),
    Case("garbage", "mode=garbage", 502, "cli_failed", ASSUMED),
    Case("a hang", "mode=hang", 504, "timeout", ASSUMED, body={"timeoutSeconds": 1.5}),
    Case("a hang after the headers", "mode=hang_headers", 504, "timeout", ASSUMED, body={"timeoutSeconds": 1.5}),
    Case("a hang in mid-stream", "mode=hang_mid", 504, "timeout", ASSUMED, body={"timeoutSeconds": 1.5}),
]


def counted(generations: list[Recorded]) -> dict[str, int]:
    """All that a stand-in has counted, by kind."""
    found = [counted_usage(each.as_json()) for each in generations]
    return {kind: sum(each[kind] for each in found) for kind in found[0]}


def used(rig: Rig) -> tuple[int, int]:
    """What the key has used today: tokens, micro-dollars."""
    today = rig.server.call("GET", "/me", key=rig.key).json["usage"]["today"]
    return today["tokens"], round(today["costUsd"] * 1e6)


@pytest.fixture(scope="module")
def prices(tmp_path_factory: pytest.TempPathFactory) -> PriceTable:
    return PriceTable(tmp_path_factory.mktemp("prices") / "prices.json", Clock())


@pytest.mark.parametrize("path", list(CLIS))
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_one_call_and_its_charge(rig: Rig, prices: PriceTable, path: str, stream: bool, case: Case) -> None:
    provider, model = CLIS[path]
    tokens_before, micro_before = used(rig)
    answer = rig.ask(path, prompt=f"[[standin {case.directives}]] x", model=model, stream=stream, **case.body)
    generations = rig.standin.wait(lambda seen: all(each.outcome != "open" for each in seen))
    assert [each.generates for each in generations] == [True] * case.calls, "all that went to the model"
    row = rig.server.admin("GET", "/logs?limit=1").json["logs"][0]
    end = row["code"] or row["stopReason"]
    if case.end:
        assert (row["status"], end) == (case.status, case.end), answer.body
        assert stream or answer.status == case.status
    usage = charged_usage(row)
    if case.charge == EXACT:
        assert usage == counted(generations)
    elif case.charge == NOTHING:
        assert (sum(usage.values()), row["costUsd"]) == (0, 0)
    else:
        (prompt, output) = sent(generations[0].as_json())
        assert usage.pop("output") >= output
        assert sum(usage.values()) >= prompt
    assert row["assumed"] is (case.charge == ASSUMED)
    kinds = charged_usage(row)
    charged = Usage(kinds["input"], kinds["cache read"], kinds["cache write"], kinds["output"])
    micro = round(row["costUsd"] * 1e6)
    # Each attempt is rounded up to a micro-dollar.
    assert 0 <= micro - cost(prices.price_of(provider, model), charged) < case.calls
    assert micro <= round(row["reservedUsd"] * 1e6)
    tokens, micro_after = used(rig)
    assert (tokens - tokens_before, micro_after - micro_before) == (charged.total, micro)


@pytest.mark.parametrize("path", list(CLIS))
def test_a_conversation_that_a_cli_would_sum_up_goes_up_whole_in_one_call(rig: Rig, path: str) -> None:
    words = "汉字" * 240_000
    model = "claude-sonnet-5-5" if path == "/generate" else "gpt-5.5"
    turns = [*[("user", words), ("assistant", "ok")] * 4, ("user", "What was it?")]
    messages = [{"role": role, "content": text} for role, text in turns]
    answer = rig.ask(path, messages=messages, model=model)
    assert answer.status == 200, answer.body
    (call,) = rig.standin.requests
    assert texts(call) == turns
    row = rig.server.admin("GET", "/logs?limit=1").json["logs"][0]
    assert charged_usage(row) == counted([call])
