"""The tables of parameters do what they say: what is ignored passes, what is passed over is named, and so is what is
refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from bridge.errors import BridgeError
from bridge.settings import Settings
from bridge.types import GenerationRequest, ModelChoice, Sampling, Thinking, WebSearch
from bridge.wire import anthropic, openai_chat, openai_completions, openai_responses
from bridge.wire.api import Known, Recall
from bridge.wire.parameters import Parameter, read, refused, table

SETTINGS = Settings.load({})
HELLO = [{"role": "user", "content": "hello"}]
#: API -> (its module, the least body)
APIS: dict[str, tuple[Any, dict[str, Any]]] = {
    "chat": (openai_chat, {"model": "gpt-6-sol", "messages": HELLO}),
    "responses": (openai_responses, {"model": "gpt-6-sol", "input": "hello"}),
    "messages": (anthropic, {"model": "claude-sonnet-5-5", "max_tokens": 100, "messages": HELLO}),
    "completions": (openai_completions, {"model": "gpt-6-sol", "prompt": "hello"}),
}
ROWS = [(api, parameter) for api, (module, _) in APIS.items() for parameter in module.PARAMETERS.values()]
#: Values of every kind: what is ignored takes any of them, what is refused none.
VALUES: list[Any] = [True, False, 0, 1, -3, 0.7, "", "x", [], ["x"], {}, {"x": 1}, {"type": "x"}]

Parse = Callable[..., GenerationRequest]


def nothing(run_id: str) -> None:
    """No earlier answer is known."""


def parse(api: str, recall: Recall = nothing, **fields: Any) -> GenerationRequest:
    module, least = APIS[api]
    body = json.dumps({**least, **fields}).encode()
    resolve = lambda name: ModelChoice("codex" if name.startswith("gpt") else "claude", name)  # noqa: E731
    request: GenerationRequest = module.parse(body, Known(SETTINGS, resolve, recall))[0]
    return request


def refusal(api: str, **fields: Any) -> BridgeError:
    with pytest.raises(BridgeError) as caught:
        parse(api, **fields)
    assert (caught.value.code, caught.value.problem.status) == ("invalid_request", 400)
    return caught.value


def of_kind(*kinds: str) -> Any:
    rows = [(api, parameter) for api, parameter in ROWS if parameter.what in kinds]
    return pytest.mark.parametrize(("api", "parameter"), rows, ids=lambda v: v if isinstance(v, str) else v.name)


@of_kind("ignored")
def test_what_is_ignored_may_be_anything_and_changes_nothing(api: str, parameter: Parameter) -> None:
    for value in VALUES:
        assert parse(api, **{parameter.name: value}) == parse(api)


@of_kind("refused")
def test_what_is_refused_says_so_by_name(api: str, parameter: Parameter) -> None:
    for value in VALUES:
        if value not in parameter.only:
            error = refusal(api, **{parameter.name: value})
            if parameter.words is None:
                assert error.message == f"{parameter.name}: {parameter.note}."
            else:
                assert error.message == parameter.words.format(value=value)
                assert parameter.note[1:] in error.problem.hint
            assert error.problem.facts["param"] == parameter.name


@of_kind("passed over")
def test_what_is_passed_over_is_named_and_changes_nothing_else(api: str, parameter: Parameter) -> None:
    named = msgspec.structs.replace(parse(api), ignored=(parameter.name,))
    for value in VALUES:
        if value not in parameter.only:
            assert parse(api, **{parameter.name: value}) == named


@of_kind("refused", "passed over")
def test_what_asks_for_what_happens_anyway_is_taken(api: str, parameter: Parameter) -> None:
    for value in parameter.only:
        assert parse(api, **{parameter.name: value}) == parse(api)


@of_kind("supported")
def test_what_is_supported_is_a_field_of_the_body(api: str, parameter: Parameter) -> None:
    module, _ = APIS[api]
    assert parameter.name in module.API.body_type.__struct_encode_fields__


@pytest.mark.parametrize("api", APIS)
def test_every_field_of_the_body_is_supported(api: str) -> None:
    module, _ = APIS[api]
    wanted = {name for name, parameter in module.PARAMETERS.items() if parameter.what == "supported"}
    assert set(module.API.body_type.__struct_encode_fields__) == wanted


@of_kind("supported", "ignored", "passed over", "refused")
def test_null_counts_as_not_given(api: str, parameter: Parameter) -> None:
    required = parameter.name in APIS[api][1]
    if required:
        assert parameter.name in refusal(api, **{parameter.name: None}).message
    else:
        assert parse(api, **{parameter.name: None}) == parse(api)


@pytest.mark.parametrize("api", APIS)
def test_what_nobody_knows_is_passed_over_and_named(api: str) -> None:
    assert parse(api, nonsense={"a": 1}).ignored == ("nonsense",)
    assert parse(api, nonsense=None) == parse(api)
    # A header carries what clients write: no line breaks, no end.
    assert parse(api, **{"a\r\nSet-Cookie: x": 1, "ü": 1, "x" * 65: 1}).ignored == ()
    assert len(parse(api, **{f"new_{number}": 1 for number in range(1000)}).ignored) == 20


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[]", b"null", b'"x"', b"[" * 20000, b'{"metadata":' * 20000])
def test_what_is_no_json_object_is_refused(api: str, body: bytes) -> None:
    with pytest.raises(BridgeError) as caught:
        APIS[api][0].parse(body, Known(SETTINGS, lambda name: ModelChoice("claude", name)))
    assert caught.value.code == "invalid_request"


def test_true_is_not_the_number_one_but_one_point_zero_is() -> None:
    assert parse("chat", presence_penalty=0.0) == parse("chat")
    assert parse("chat", presence_penalty=False).ignored == ("presence_penalty",)
    assert parse("chat", logprobs=0).ignored == ("logprobs",)
    assert "n: " in refusal("chat", n=True).message


def test_an_object_that_is_taken_may_say_more() -> None:
    taken = refused("x", "why", {"type": "a"})
    read(b'{"x":{"type":"a","more":1}}', table(taken), msgspec.defstruct("Nothing", []))
    with pytest.raises(BridgeError):
        read(b'{"x":{"type":"b","more":1}}', table(taken), msgspec.defstruct("Nothing", []))


@pytest.mark.parametrize(
    ("api", "field", "values", "wrong"),
    [
        ("chat", "temperature", (0, 0.7, 2), (-0.1, 2.1, True, "hot")),
        ("chat", "top_p", (0, 0.1), (-0.1, 1.1, True)),
        ("responses", "temperature", (0, 0.7, 2), (-0.1, 2.1, True, "hot")),
        ("responses", "top_p", (0, 0.1), (-0.1, 1.1, True)),
        ("messages", "temperature", (0, 0.7, 2), (-0.1, 2.1, True, "hot")),
        ("messages", "top_p", (0, 0.1), (-0.1, 1.1, True)),
        ("messages", "top_k", (0, 40), (-1, 0.5, True)),
        ("completions", "temperature", (0, 0.7, 2), (-0.1, 2.1, True, "hot")),
        ("completions", "top_p", (0, 0.1), (-0.1, 1.1, True)),
    ],
)
def test_how_words_are_picked_arrives(api: str, field: str, values: tuple[Any, ...], wrong: tuple[Any, ...]) -> None:
    for value in values:
        assert parse(api, **{field: value}).sampling == Sampling(**{field: value})
    for value in wrong:
        assert refusal(api, **{field: value}).message.startswith(f"{field}: ")
    if field != "top_k":
        # What the API does anyway.
        assert parse(api, **{field: 1}) == parse(api)


def test_thinking_arrives_as_it_is_asked_for() -> None:
    for mode in ("adaptive", "between_tools", "disabled"):
        request = parse("messages", thinking={"type": mode, "display": "omitted"})
        assert request.thinking == Thinking(mode, None, "omitted")
        assert request.thoughts == (None if mode == "disabled" else "omitted")
    request = parse("messages", thinking={"type": "enabled", "budget_tokens": 2000})
    assert (request.thinking, request.thoughts) == (Thinking("enabled", 2000), "summarized")
    assert parse("messages").thoughts is None
    assert refusal("messages", thinking={"type": "enabled", "budget_tokens": 1000}).message.startswith(
        "thinking.budget"
    )
    assert refusal("messages", thinking={"type": "sometimes"}).message.startswith("thinking.type: ")


SEARCHES = {
    "messages": lambda most: {"tools": [{"type": "web_search_20260209", "name": "web_search", "max_uses": most}]},
    "responses": lambda most: {"tools": [{"type": "web_search_preview"}], "max_tool_calls": most},
    "chat": lambda most: {"web_search_options": {}},
}


@pytest.mark.parametrize("api", SEARCHES)
def test_a_search_of_the_web_arrives_with_its_bound(api: str) -> None:
    for most, left in ((None, 5), (1, 1), (10, 10), (1000, 10)):
        search = parse(api, **SEARCHES[api](most)).web_search
        assert search == WebSearch(5 if api == "chat" else left)
    assert parse(api).web_search is None
    if api != "chat":
        assert "allows no search" in refusal(api, **SEARCHES[api](0)).message
    choice = {"type": "none"} if api == "messages" else "none"
    assert parse(api, **SEARCHES[api](1), tool_choice=choice).web_search is None


def test_where_and_from_where_is_searched_arrives() -> None:
    place = {"type": "approximate", "city": "Oslo", "country": "NO", "planet": "Earth"}
    kept = {"city": "Oslo", "country": "NO"}
    tool = {"type": "web_search_20250305", "name": "web_search", "user_location": place, "allowed_domains": ["a.com"]}
    assert parse("messages", tools=[tool]).web_search == WebSearch(5, ("a.com",), (), kept)
    tool = {"type": "web_search", "user_location": place, "filters": {"allowed_domains": ["a.com"]}}
    request = parse("responses", tools=[{**tool, "search_context_size": "low"}])
    assert request.web_search == WebSearch(5, ("a.com",), (), kept, "low")
    options = {"user_location": {"type": "approximate", "approximate": place}, "search_context_size": "high"}
    assert parse("chat", web_search_options=options).web_search == WebSearch(5, place=kept, context="high")
    both = {"allowed_domains": ["a.com"], "blocked_domains": ["b.com"]}
    for wrong in (
        both,
        {"allowed_domains": ["a.com"] * 101},
        {"blocked_domains": ["x" * 254]},
        {"blocked_domains": [""]},
    ):
        assert (
            "domains"
            in refusal("messages", tools=[{"type": "web_search_20250305", "name": "web_search", **wrong}]).message
        )


def test_a_search_that_must_be_made_is_one_that_may() -> None:
    tool = {"type": "web_search_20250305", "name": "web_search"}
    for choice in ({"type": "tool", "name": "web_search"}, {"type": "any"}):
        request = parse("messages", tools=[tool], tool_choice=choice)
        assert (request.web_search, request.tool_choice.mode) == (WebSearch(5), "auto")
        assert request.ignored == ("tool_choice",)
    for named in ({"type": "web_search"}, "required"):
        request = parse("responses", tools=[{"type": "web_search"}], tool_choice=named)
        assert (request.web_search, request.ignored) == (WebSearch(5), ("tool_choice",))


def test_a_table_knows_its_rows_by_name() -> None:
    assert set(table(refused("a", "why"), refused("b", "why"))) == {"a", "b"}
