"""What a run's way through the gate leaves for the admin: the provider's words, times, limits, and oddities."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bridge.clock import Clock
from bridge.gate.server import Gate
from bridge.gate.ticket import Oddity, Upstream
from bridge.providers.gated import Passage
from bridge.registry import PROVIDERS
from bridge.types import Answer, Completed, GenerationRequest, Usage
from tests.gate.conftest import HELLO, SECRET, ask, messages_body
from tests.standin import StandIn

REQUEST = GenerationRequest("claude", "claude-sonnet-5-5", HELLO, "Be brief.", 256)


def passage_to(gate: Gate, url: str) -> Passage:
    upstream = Upstream("messages", url, SECRET)
    made = Passage(gate, upstream, REQUEST, Clock(), lambda: None, row=PROVIDERS["claude"], silence_s=30)
    made.open()
    return made


def plain(head: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n%b" % (head, len(body), body)


def test_the_receipt_has_status_time_and_request_id(gate: Gate, standin: StandIn) -> None:
    passage = passage_to(gate, standin.url)
    assert passage.receipt is None, "nothing was sent yet"
    ask(gate, passage.ticket.token, messages_body())
    passage.close()
    receipt = passage.receipt
    assert receipt is not None
    assert (receipt.status, receipt.message) == (200, None)
    assert receipt.request_id
    assert 0 <= receipt.model_ms < 10_000


def test_the_providers_words_are_bounded_and_without_the_secret(
    gate: Gate, upstream_that_says: Callable[..., str]
) -> None:
    words = b"x" * 490 + SECRET.encode() + b" is no good key. " + b"y" * 600
    body = b'{"type":"error","error":{"type":"authentication_error","message":"%b"}}' % words
    passage = passage_to(gate, upstream_that_says(plain(b"401 No", body)))
    ask(gate, passage.ticket.token, messages_body())
    receipt = passage.receipt
    assert receipt is not None
    assert receipt.status == 401
    assert receipt.message == ("x" * 490 + "*** is no good key.")[:500]


def test_a_call_under_way_has_taken_its_time_so_far(gate: Gate, upstream_that_says: Callable[..., str]) -> None:
    passage = passage_to(gate, upstream_that_says(b"HTTP/1.1 200 OK\r\n\r\n", hang=True))
    passage.call.sent_at = Clock().monotonic() - 2.0
    receipt = passage.receipt
    assert receipt is not None
    assert 2000 <= receipt.model_ms < 3000


def test_a_refused_body_is_reported_once_and_without_its_text(gate: Gate, standin: StandIn) -> None:
    seen: list[Oddity] = []
    gate.watchers.append(seen.append)
    passage = passage_to(gate, standin.url)
    ask(gate, passage.ticket.token, messages_body("something secret"))
    passage.close()
    passage.close()
    assert seen == [Oddity("refused", "claude", "message 0")]
    assert passage.receipt is None


def test_other_figures_than_the_providers_are_reported_and_not_charged(gate: Gate, standin: StandIn) -> None:
    seen: list[Oddity] = []
    gate.watchers.append(seen.append)
    passage = passage_to(gate, standin.url)
    ask(gate, passage.ticket.token, messages_body("hello"))
    true = passage.call.usage
    assert true is not None
    told = Usage(true.input_tokens + 5, true.cache_read_tokens, true.cache_write_tokens, true.output_tokens)
    end = passage.correct(Completed(Answer((), REQUEST.model, "end_turn", told)))
    assert isinstance(end, Completed)
    assert end.answer.usage == true
    what = f"input_tokens {true.input_tokens + 5} instead of {true.input_tokens}"
    assert seen == [Oddity("misreported", "claude", what)]
    assert gate.misreported == {"claude": 1}
    passage.correct(Completed(Answer((), REQUEST.model, "end_turn", true)))
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("before", "usage"),
    [
        (b"", Usage()),
        (b'data: {"type":"message_start","message":{"model":"m","usage":{"input_tokens":5}}}\n\n', None),
    ],
)
def test_an_error_before_the_model_has_begun_has_cost_nothing(
    gate: Gate, upstream_that_says: Callable[..., str], before: bytes, usage: Usage | None
) -> None:
    error = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n'
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n"
    passage = passage_to(gate, upstream_that_says(head % len(before + error) + before + error))
    ask(gate, passage.ticket.token, messages_body())
    assert passage.usage == usage
