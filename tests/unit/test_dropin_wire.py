"""Bodies of the OpenAI and Anthropic APIs: what they ask for arrives, and what cannot be done says where."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import CODES, BridgeError, Problem
from bridge.records.jobs import Job
from bridge.types import (
    Answer,
    Charge,
    Finished,
    GenerationRequest,
    Image,
    Message,
    PartDelta,
    Text,
    Thought,
    ToolCall,
    Usage,
    content_of,
)
from bridge.wire.apis import APIS as RENDERED
from tests.unit.test_parameters import APIS as EVERY
from tests.unit.test_parameters import HELLO, parse, refusal

#: the APIs that have conversations
APIS = {name: api for name, api in EVERY.items() if name != "completions"}

#: A picture of one pixel.
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
PNG_URL = f"data:image/png;base64,{PNG}"
SCHEMA = {"type": "object", "properties": {"a": {}}}
USAGE = Usage(input_tokens=10, cache_read_tokens=20, cache_write_tokens=5, output_tokens=30, reasoning_tokens=7)


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


@pytest.mark.parametrize("api", APIS)
def test_the_least_body_takes_every_default(api: str) -> None:
    request = parse(api)
    assert request == GenerationRequest(
        provider="claude" if api == "messages" else "codex",
        model=APIS[api][1]["model"],
        messages=(Message("user", (Text("hello"),)),),
        max_output_tokens=100 if api == "messages" else 8192,
        timeout_s=300.0,
        api={"chat": "openai-chat", "responses": "openai-responses", "messages": "anthropic"}[api],
        referable=api == "responses",
    )


def test_system_messages_become_one_prompt_wherever_they_stand() -> None:
    chat = parse(
        "chat",
        messages=[
            {"role": "system", "content": "one"},
            *HELLO,
            {"role": "developer", "content": [{"type": "text", "text": "two"}, {"type": "text", "text": "three"}]},
        ],
    )
    assert chat.system == "one\n\ntwo\n\nthree"
    assert chat.messages == parse("chat").messages
    response = parse("responses", instructions="one", input=[{"role": "system", "content": "two"}, *HELLO])
    assert response.system == "one\n\ntwo"
    blocks = [{"type": "text", "text": "one"}, {"type": "text", "text": "two", "cache_control": {"type": "ephemeral"}}]
    assert parse("messages", system=blocks).system == "one\n\ntwo"
    assert parse("messages", system="one").system == "one"


@pytest.mark.parametrize(("api", "field"), [("chat", "messages"), ("responses", "input"), ("messages", "messages")])
def test_turns_of_one_role_that_follow_each_other_become_one(api: str, field: str) -> None:
    turns = [
        {"role": "user", "content": "a"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "c"},
        {"role": "user", "content": "d"},
    ]
    assert parse(api, **{field: turns}).messages == (
        Message("user", (Text("a"), Text("b"))),
        Message("assistant", (Text("c"),)),
        Message("user", (Text("d"),)),
    )


IMAGES = [
    ("chat", "messages", {"type": "image_url", "image_url": {"url": PNG_URL, "detail": "high"}}),
    ("responses", "input", {"type": "input_image", "image_url": PNG_URL, "detail": "auto"}),
    ("messages", "messages", {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}),
]


@pytest.mark.parametrize(("api", "field", "part"), IMAGES)
def test_images_arrive_and_only_users_have_some(api: str, field: str, part: dict[str, Any]) -> None:
    assert parse(api, **{field: [user(part)]}).messages == (Message("user", (Image("image/png", PNG, 1),)),)
    turns = [*HELLO, {"role": "assistant", "content": [part]}, *HELLO]
    assert "image" in refusal(api, **{field: turns}).message


@pytest.mark.parametrize(
    ("api", "field", "part", "says"),
    [
        ("chat", "messages", {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}, "no png"),
        ("chat", "messages", {"type": "input_audio", "input_audio": {}}, "input_audio"),
        ("chat", "messages", {"type": "file", "file": {}}, "file"),
        ("chat", "messages", {"text": "x"}, "type"),
        ("responses", "input", {"type": "input_image", "file_id": "x"}, "keeps no files"),
        ("responses", "input", {"type": "input_file", "file_id": "x"}, "input_file"),
        (
            "messages",
            "messages",
            {"type": "image", "source": {"type": "file", "file_id": "x"}},
            "file",
        ),
        ("messages", "messages", {"type": "document", "source": {}}, "document"),
        ("messages", "messages", {"type": "mcp_tool_use", "id": "x"}, "mcp_tool_use"),
        ("messages", "messages", {"type": "thinking", "thinking": "x"}, "thinking"),
    ],
)
def test_a_part_that_cannot_be_passed_on_is_named_with_its_place(
    api: str, field: str, part: dict[str, Any], says: str
) -> None:
    error = refusal(api, **{field: [user({"type": "text", "text": "x"} if api != "responses" else {**TEXT}, part)]})
    assert error.message.startswith(f"{field}[0].content[1]")
    assert says in error.message


TEXT = {"type": "input_text", "text": "x"}
CALL = {"id": "x", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("api", "body", "says"),
    [
        ("chat", {"messages": [*HELLO, {"role": "assistant", "tool_calls": [CALL]}, *HELLO]}, "'x' has no result"),
        ("chat", {"messages": [*HELLO, {"role": "tool", "tool_call_id": "x", "content": "1"}]}, "no tool call 'x'"),
        ("chat", {"messages": [{"role": "assistant", "content": ""}]}, "no message of a user"),
        ("chat", {"verbosity": "loud"}, "verbosity"),
        ("chat", {"n": 2}, "n: "),
        ("chat", {"messages": [{"role": "user", "content": None}]}, "empty"),
        ("chat", {"messages": "hello"}, "messages"),
        ("chat", {"max_tokens": 0}, "max_tokens"),
        ("chat", {"max_tokens": 1.5}, "max_tokens"),
        ("chat", {"reasoning_effort": "huge"}, "reasoning_effort"),
        ("chat", {"response_format": {"type": "yaml"}}, "response_format"),
        ("chat", {"response_format": {"type": "json_schema"}}, "response_format"),
        ("chat", {"stop": ""}, "stop"),
        ("chat", {"stop": ["x"] * 17}, "stop"),
        ("chat", {"stop": ["x" * 501, "y" * 500]}, "stop"),
        ("chat", {"stream": "yes"}, "stream"),
        ("responses", {"input": ""}, "empty"),
        ("responses", {"input": []}, "no message of a user"),
        ("responses", {"input": [{"type": "function_call", "name": "f"}]}, "no call_id"),
        ("responses", {"input": [{"type": "item_reference", "id": "x"}]}, "no message of a user"),
        ("responses", {"input": [{"content": "x"}]}, "role"),
        ("responses", {"input": [{"role": "user"}]}, "content"),
        ("responses", {"text": {"verbosity": "loud"}}, "verbosity"),
        ("responses", {"previous_response_id": "resp_1"}, "response with id 'resp_1' not found."),
        ("messages", {"max_tokens": 0}, "max_tokens"),
        ("messages", {"messages": [{"role": "developer", "content": "x"}]}, "role"),
        ("messages", {"messages": [{"role": "user", "content": []}]}, "empty"),
        ("messages", {"messages": [*HELLO, {"role": "assistant", "content": "The best answer is ("}]}, "from the user"),
        ("messages", {"output_config": {"format": {"type": "json_schema"}}}, "schema"),
        ("messages", {"stop_sequences": [""]}, "stop"),
        # Turns of one role become one; of so many, that must not take longer and longer.
        ("chat", {"messages": HELLO * 12_000}, "parts"),
        ("responses", {"input": HELLO * 12_000}, "parts"),
        ("messages", {"messages": HELLO * 12_000}, "parts"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_sentence(api: str, body: dict[str, Any], says: str) -> None:
    message = refusal(api, **body).message
    assert says in message
    assert "$" not in message
    assert message.endswith(".")


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("text", ["a\0b", "x" * 500_001, "\ud800"])
def test_text_that_no_cli_can_be_given_is_refused(api: str, text: str) -> None:
    field = "input" if api == "responses" else "messages"
    refusal(api, **{field: [{"role": "user", "content": text}]})


FIELDS = {"chat": "messages", "responses": "input", "messages": "messages"}
EVERY_API = pytest.mark.parametrize("api", APIS)


def one(text: str) -> tuple[Message, ...]:
    return (Message("user", (Text(text),)),)


@EVERY_API
def test_it_is_known_which_turns_stood_before_the_system_prompt_grew(api: str) -> None:
    field = "input" if api == "responses" else "messages"
    turns = [{"role": role, "content": "x"} for role in ("system", "user", "assistant", "user", "assistant", "user")]
    more = {"role": "system", "content": "Be brief."}
    assert [
        parse(api, **{field: [*turns[:number], more, *turns[number:]]}).before_system for number in range(len(turns))
    ] == [0, 0, 1, 2, 3, 4]


@EVERY_API
def test_a_system_message_adds_to_the_system_prompt_wherever_it_stands(api: str) -> None:
    turns = [*HELLO, {"role": "assistant", "content": "Hi."}, *HELLO, {"role": "system", "content": "In French."}]
    request = parse(api, **{FIELDS[api]: turns})
    assert request.system == "In French."
    assert [message.role for message in request.messages] == ["user", "assistant", "user"]


@EVERY_API
@pytest.mark.parametrize("empty", ["", None, " \n", []])
def test_an_empty_turn_of_the_assistant_is_left_out(api: str, empty: Any) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": empty}]
    assert parse(api, **{FIELDS[api]: [*turns, {"role": "user", "content": "b"}]}).messages == (
        Message("user", (Text("a"), Text("b"))),
    )
    assert parse(api, **{FIELDS[api]: turns}).messages == one("a")


@EVERY_API
def test_a_system_message_alone_is_the_prompt_and_is_said_once(api: str) -> None:
    request = parse(
        api, **{FIELDS[api]: [{"role": "system", "content": "A haiku"}, {"role": "system", "content": "!"}]}
    )
    assert (request.system, request.messages) == ("", one("A haiku\n\n!"))


def test_instructions_alone_are_the_prompt() -> None:
    assert parse("responses", input=[], instructions="A haiku").messages == one("A haiku")
    assert parse("messages", messages=[], system="A haiku").messages == one("A haiku")


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_a_conversation_that_ends_with_the_model_goes_on(api: str) -> None:
    request = parse(api, **{FIELDS[api]: [*HELLO, {"role": "assistant", "content": "It is"}]})
    assert [(message.role, message.text) for message in request.messages] == [
        ("user", "hello"),
        ("assistant", "It is"),
        ("user", "Continue."),
    ]


def test_references_to_items_that_nobody_knows_are_passed_over_and_named() -> None:
    turns: list[dict[str, Any]] = [{"role": "user", "content": "I am Ada"}, {"role": "user", "content": "Who am I?"}]
    answer = {"type": "message", "id": "msg_1", "role": "assistant", "content": [{"type": "output_text", "text": "Hi"}]}
    request = parse("responses", input=[turns[0], {"type": "item_reference", "id": "msg_9"}, turns[1]])
    assert (request.messages[0].text, request.ignored) == ("I am Ada\n\nWho am I?", ("item_reference",))
    bare = parse("responses", input=[turns[0], {"id": "msg_9"}, turns[1]])
    assert bare == request
    assert parse("responses", input=[turns[0], {"type": "item_reference"}, turns[1]]) == request
    known = parse("responses", input=[turns[0], answer, {"type": "item_reference", "id": "msg_1"}, turns[1]])
    assert ([message.text for message in known.messages], known.ignored) == (["I am Ada", "Hi", "Who am I?"], ())
    assert parse("responses", input=[turns[0], *[{"id": f"msg_{n}"} for n in range(3)]]).ignored == ("item_reference",)


def test_references_stand_for_the_items_of_earlier_answers() -> None:
    parts = (
        Thought("Hm"),
        Text("I look "),
        Text("it up."),
        ToolCall("call_1", "find", '{"of":"Ada"}'),
        ToolCall("call_2", "note", '{"input":"a text"}'),
    )
    earlier = answer(refusal="No more.")
    answers = {"run_1": msgspec.structs.replace(answer(), content=parts), "run_2": earlier}
    ids = ["rs_1", "msg_1_1", "fc_1_2", "fc_1_3"]
    told = [item["id"] for item in body_of("openai-responses", ended("openai-responses", answers["run_1"]))["output"]]
    assert told == [each.replace("_1", "_0123", 1) for each in ids]
    outputs = [{"type": "function_call_output", "call_id": f"call_{n}", "output": "42"} for n in (1, 2)]
    # One that is named twice is there once, and of those that are not named nothing is there.
    items = [{"type": "item_reference", "id": each} for each in (*ids, ids[1])]
    whole = [
        {"role": "user", "content": "Who?"},
        *items,
        *outputs,
        {"id": "msg_2"},
        {"role": "user", "content": "And?"},
    ]
    request = parse("responses", answers.get, input=whole)
    assert request.ignored == ()
    assert [message.role for message in request.messages] == ["user", "assistant", "user", "assistant", "user"]
    assert request.messages[1].content == (Text("I look it up."), *parts[3:])
    assert request.messages[3].text == "Hi there\n\nNo more."
    one = parse("responses", answers.get, input=[whole[0], items[1], whole[-1]])
    assert [message.text for message in one.messages] == ["Who?", "I look it up.", "And?"]
    for unknown in ("msg_1_9", "fc_1_1", "msg_3", "msg_", "_", "1", "msg_1_1_1", "run_1"):
        assert parse("responses", answers.get, input=[whole[0], {"id": unknown}]).ignored == ("item_reference",)


def test_an_answer_is_looked_up_once_however_often_it_is_named() -> None:
    asked: list[str] = []
    items = [{"id": f"msg_{run}_{number}"} for number in range(500) for run in (1, 2)]
    recall = lambda run: asked.append(run) or (answer() if run == "run_1" else None)  # type: ignore[func-returns-value]  # noqa: E731
    parse("responses", recall, input=[{"role": "user", "content": "Who?"}, *items])
    assert asked == ["run_1", "run_2"]


def test_an_output_whose_call_is_not_known_any_more_is_refused_with_the_reference() -> None:
    asked = [{"role": "user", "content": "Who?"}, {"type": "item_reference", "id": "ctc_9"}]
    for kind in ("function_call_output", "custom_tool_call_output"):
        with pytest.raises(BridgeError) as caught:
            parse("responses", input=[*asked, {"type": kind, "call_id": "call_1", "output": "42"}])
        assert caught.value.code == "invalid_request"
        assert "input[1] refers to 'ctc_9', which the bridge does not know any more" in caught.value.message
    call = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"}
    sent = [*asked, call, {"type": "function_call_output", "call_id": "call_1", "output": "42"}]
    assert parse("responses", input=sent).ignored == ("item_reference",)


def test_an_answer_can_be_referred_to_unless_its_client_says_otherwise() -> None:
    assert [parse("responses", store=given).referable for given in (None, True, False)] == [True, True, False]
    assert [parse(api).referable for api in APIS if api != "responses"] == [False, False]


@pytest.mark.parametrize("verbosity", ["low", "medium", "high"])
def test_verbosity_reaches_codex_and_is_passed_over_by_claude(verbosity: str) -> None:
    for api, fields in (("chat", {"verbosity": verbosity}), ("responses", {"text": {"verbosity": verbosity}})):
        request = parse(api, **fields)
        assert (request.verbosity, request.ignored) == (verbosity, ())
        other = parse(api, model="claude-sonnet-5-5", **fields)
        assert (other.verbosity, other.ignored) == (None, () if verbosity == "medium" else ("verbosity",))
    told = body_of("openai-responses", ended("openai-responses", answer(), text={"verbosity": verbosity}))
    assert told["text"]["verbosity"] == verbosity


def test_the_answer_says_what_was_asked_of_the_model_and_no_more() -> None:
    asked = {"text": {"verbosity": "low"}, "reasoning": {"summary": "auto"}, "model": "claude-sonnet-5-5"}
    told = body_of("openai-responses", ended("openai-responses", answer(), **asked))
    assert (told["text"]["verbosity"], told["reasoning"]) == ("medium", {"effort": None, "summary": "auto"})


@pytest.mark.parametrize("name", ["summary", "generate_summary"])
def test_a_summary_of_the_reasoning_is_asked_for_by_either_name(name: str) -> None:
    for value in ("auto", "concise", "detailed"):
        request = parse("responses", reasoning={name: value, "effort": "low"})
        assert (request.effort, request.thoughts, request.ignored) == ("low", value, ())
    assert refusal("responses", reasoning={name: "long"}).message.startswith(f"reasoning.{name}: ")


THOUGHTS = (Thought("I look it up.", "seal"), Text("One moment. "), Thought(redacted="secret"), Text("Done."))


def test_what_a_model_thought_stands_in_a_message_where_it_was_thought() -> None:
    told = ended("anthropic", Answer(THOUGHTS, "the-model", "end_turn", USAGE), thinking={"type": "adaptive"})
    blocks = [
        {"type": "thinking", "thinking": "I look it up.", "signature": "seal"},
        {"type": "text", "text": "One moment. "},
        {"type": "redacted_thinking", "data": "secret"},
        {"type": "text", "text": "Done."},
    ]
    assert body_of("anthropic", told)["content"] == blocks
    found = list(events("anthropic", told))
    assert [event["content_block"] for event in found if event["type"] == "content_block_start"] == [
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "text", "text": ""},
        blocks[2],
        {"type": "text", "text": ""},
    ]
    assert [event["delta"] for event in found if event["type"] == "content_block_delta"] == [
        {"type": "thinking_delta", "thinking": "I look it up."},
        {"type": "signature_delta", "signature": "seal"},
        {"type": "text_delta", "text": "One moment. "},
        {"type": "text_delta", "text": "Done."},
    ]


def test_what_a_model_thought_is_an_item_of_a_response_without_what_is_its_providers() -> None:
    told = ended("openai-responses", Answer(THOUGHTS, "the-model", "end_turn", USAGE), reasoning={"summary": "auto"})
    output = body_of("openai-responses", told)["output"]
    assert [(item["type"], item.get("summary")) for item in output] == [
        ("reasoning", [{"type": "summary_text", "text": "I look it up."}]),
        ("message", None),
        ("reasoning", []),
        ("message", None),
    ]
    found = list(events("openai-responses", told))
    assert [event["item"] for event in found if event["type"] == "response.output_item.done"] == output
    assert not {"seal", "secret"} & set(json.dumps([output, found]).replace('"', " ").split())


@pytest.mark.parametrize("api", ["openai-chat", "native"])
def test_elsewhere_only_what_was_said_is_told(api: str) -> None:
    told = ended(api, Answer(THOUGHTS, "the-model", "end_turn", USAGE))
    whole = json.dumps([body_of(api, told), list(events(api, told))])
    assert "One moment. " in whole
    assert not any(each in whole for each in ("I look it up.", "seal", "secret"))


def test_thoughts_of_an_earlier_answer_arrive_and_no_user_has_any() -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "seal"}
    said = [thought, {"type": "redacted_thinking", "data": "secret"}, {"type": "text", "text": "Hi"}]
    hello, go_on = {"role": "user", "content": "Hello"}, {"role": "user", "content": "Go on"}
    turns = [hello, {"role": "assistant", "content": said}, go_on]
    message = parse("messages", messages=turns).messages[1]
    assert message.content == (Thought("Hm.", "seal"), Thought(redacted="secret"), Text("Hi"))
    only = [hello, {"role": "assistant", "content": [thought]}, go_on]
    assert [each.role for each in parse("messages", messages=only).messages] == ["user"]
    assert "only an assistant's message may have thinking" in refusal("messages", messages=[user(thought)]).message


def test_efforts_and_maxima_arrive() -> None:
    assert parse("chat", reasoning_effort="none").effort == "none"
    assert parse("responses", reasoning={"effort": "max", "summary": "auto"}).effort == "max"
    assert parse("messages", output_config={"effort": "xhigh"}).effort == "xhigh"
    assert parse("chat", max_tokens=7).max_output_tokens == 7
    assert parse("chat", max_tokens=7, max_completion_tokens=9).max_output_tokens == 9
    assert parse("responses", max_output_tokens=7).max_output_tokens == 7
    for api, field in (("chat", "max_tokens"), ("responses", "max_output_tokens"), ("messages", "max_tokens")):
        assert parse(api, **{field: 128_000}).max_output_tokens == 32_000


def test_every_way_of_asking_for_json_is_a_schema() -> None:
    named = {"name": "x", "schema": SCHEMA, "strict": True}
    assert parse("chat", response_format={"type": "json_schema", "json_schema": named}).schema == SCHEMA
    assert parse("chat", response_format={"type": "json_object"}).schema == {"type": "object"}
    assert parse("chat", response_format={"type": "text"}).schema is None
    assert parse("responses", text={"format": {"type": "json_schema", **named}}).schema == SCHEMA
    assert parse("responses", text={"format": {"type": "json_object"}}).schema == {"type": "object"}
    assert parse("responses", text={"format": {"type": "text"}, "verbosity": "medium"}).schema is None
    form = {"type": "json_schema", "schema": SCHEMA}
    assert parse("messages", output_config={"format": form}).schema == SCHEMA
    assert parse("messages", output_format=form).schema == SCHEMA


def test_stop_sequences_arrive() -> None:
    assert parse("chat", stop="END").stop == ("END",)
    assert parse("chat", stop=["a", "b"]).stop == ("a", "b")
    assert parse("messages", stop_sequences=["a", "b"]).stop == ("a", "b")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
@pytest.mark.parametrize("api", APIS)
def test_no_json_at_all_is_more_than_a_refusal(api: str, anything: Any) -> None:
    field = "input" if api == "responses" else "messages"
    refused = set()
    for body in ({field: anything}, {field: [anything]}, {field: [{"role": "user", "content": anything}]}):
        try:
            parse(api, **body)
        except BridgeError as error:
            refused.add(error.code)
    assert refused <= {"invalid_request"}


# --- answers -------------------------------------------------------------------------------------


def ended(api: str, result: Answer | Problem, **asked: Any) -> Job:
    bodies = {"openai-chat": "chat", "openai-responses": "responses", "anthropic": "messages", "native": "chat"}
    request = parse(bodies[api], **asked)
    return Job("run_0123", "ada", 1000.5, request, finished=Finished(result, Charge(USAGE, 42), 2500))


def answer(text: str = "Hi there", stop_reason: str = "end_turn", **more: Any) -> Answer:
    return Answer(content_of(text), "the-model", stop_reason, USAGE, **more)


def events(api: str, generation: Job) -> Iterator[dict[str, Any]]:
    for event in RENDERED[api].events(generation, "req_1"):
        for line in event.decode().splitlines():
            if line.startswith("data: {"):
                yield json.loads(line[6:])


def body_of(api: str, generation: Job) -> dict[str, Any]:
    return RENDERED[api].answer(generation, generation.finished)


DROPIN = ["openai-chat", "openai-responses", "anthropic"]


def test_every_api_is_found_by_its_name() -> None:
    assert set(RENDERED) == {"native", "openai-completions", *DROPIN}
    assert all(api.name == name for name, api in RENDERED.items())


def test_usage_is_told_in_the_words_of_each_api() -> None:
    bodies = {api: RENDERED[api].answer(ended(api, answer()), ended(api, answer()).finished) for api in DROPIN}
    chat = bodies["openai-chat"]["usage"]
    assert (chat["prompt_tokens"], chat["completion_tokens"], chat["total_tokens"]) == (35, 30, 65)
    assert chat["prompt_tokens_details"]["cached_tokens"] == 20
    assert chat["completion_tokens_details"]["reasoning_tokens"] == 7
    response = bodies["openai-responses"]["usage"]
    assert (response["input_tokens"], response["output_tokens"], response["total_tokens"]) == (35, 30, 65)
    assert response["input_tokens_details"] == {"cached_tokens": 20, "cache_write_tokens": 5}
    message = bodies["anthropic"]["usage"]
    assert (message["input_tokens"], message["cache_read_input_tokens"]) == (10, 20)
    assert (message["cache_creation_input_tokens"], message["output_tokens"]) == (5, 30)


@pytest.mark.parametrize(
    ("stop_reason", "chat", "status", "message"),
    [
        ("end_turn", "stop", "completed", "end_turn"),
        ("max_tokens", "length", "incomplete", "max_tokens"),
        ("stop_sequence", "stop", "completed", "stop_sequence"),
        ("model_context_window_exceeded", "length", "incomplete", "model_context_window_exceeded"),
        ("something_new", "stop", "completed", "end_turn"),
    ],
)
def test_the_end_of_an_answer_is_told_in_the_words_of_each_api(
    stop_reason: str, chat: str, status: str, message: str
) -> None:
    told = []
    for api in DROPIN:
        generation = ended(api, answer(stop_reason=stop_reason))
        told.append(RENDERED[api].answer(generation, generation.finished))
    assert told[0]["choices"][0]["finish_reason"] == chat
    assert told[1]["status"] == status
    assert told[2]["stop_reason"] == message


def test_the_stop_sequence_that_ended_an_answer_is_named() -> None:
    generation = ended("anthropic", answer(stop_reason="stop_sequence", stop_sequence="END"))
    assert RENDERED["anthropic"].answer(generation, generation.finished)["stop_sequence"] == "END"
    delta = next(event for event in events("anthropic", generation) if event["type"] == "message_delta")
    assert delta["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": "END", "stop_details": None}


def declined(api: str, text: str = "") -> Job:
    return ended(api, answer(text, "refusal", refusal="I cannot help with that."))


def test_a_refusal_is_an_answer_in_the_words_of_each_api() -> None:
    chat = body_of("openai-chat", declined("openai-chat"))["choices"][0]
    assert chat["finish_reason"] == "content_filter"
    assert (chat["message"]["content"], chat["message"]["refusal"]) == (None, "I cannot help with that.")
    message = body_of("anthropic", declined("anthropic"))
    assert (message["content"], message["stop_reason"]) == ([], "refusal")
    assert message["stop_details"]["explanation"] == "I cannot help with that."
    response = body_of("openai-responses", declined("openai-responses"))
    assert response["status"] == "completed"
    assert response["output"][0]["content"] == [{"type": "refusal", "refusal": "I cannot help with that."}]
    native = body_of("native", declined("native"))
    assert (native["stop_reason"], native["content"][0]["text"]) == ("refusal", "I cannot help with that.")


def test_what_was_written_before_a_refusal_is_not_lost() -> None:
    message = body_of("openai-chat", declined("openai-chat", "First, "))["choices"][0]["message"]
    assert (message["content"], message["refusal"]) == ("First, ", "I cannot help with that.")
    assert body_of("anthropic", declined("anthropic", "First, "))["content"][0]["text"] == "First, "
    kinds = [
        part["type"]
        for part in body_of("openai-responses", declined("openai-responses", "First, "))["output"][0]["content"]
    ]
    assert kinds == ["output_text", "refusal"]
    assert body_of("native", declined("native", "First, "))["content"][0]["text"] == "First, "


@pytest.mark.parametrize("text", ["", "First, "])
def test_the_stream_of_a_refusal_tells_it_with_events_of_its_own(text: str) -> None:
    told = list(events("openai-responses", declined("openai-responses", text)))
    kinds = [event["type"].removeprefix("response.") for event in told]
    written = ["content_part.added", "output_text.delta", "output_text.done", "content_part.done"] if text else []
    refusal = ["content_part.added", "refusal.delta", "refusal.done", "content_part.done"]
    item = ["output_item.added", *written, *refusal, "output_item.done"]
    assert kinds == ["created", "in_progress", *item, "completed"]
    assert {event["content_index"] for event in told if "refusal" in event["type"]} == {1 if text else 0}
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    chunks = [event["choices"][0] for event in events("openai-chat", declined("openai-chat", text))]
    assert [chunk["delta"].get("refusal") for chunk in chunks[-2:]] == ["I cannot help with that.", None]
    assert chunks[-1]["finish_reason"] == "content_filter"
    last = list(events("anthropic", declined("anthropic", text)))[-2]["delta"]
    assert (last["stop_reason"], last["stop_details"]["explanation"]) == ("refusal", "I cannot help with that.")


@pytest.mark.parametrize("code", ["output_mismatch", "cli_bad_output", "cancelled"])
def test_what_was_paid_has_no_status_that_sdks_repeat(code: str) -> None:
    problem = Problem(code, "One sentence.")
    # Beside 408, 409, 425, 429 and 5xx, LangChain.js repeats all that it does not know, such as 422.
    assert problem.sdk_status in (400, 403)
    assert not problem.again


@pytest.mark.parametrize("api", DROPIN)
def test_a_stored_answer_streams_again_with_the_same_text(api: str) -> None:
    told = json.dumps(list(events(api, ended(api, answer()))))
    assert "Hi there" in told


@pytest.mark.parametrize("api", DROPIN)
def test_an_answer_without_text_has_no_empty_block(api: str) -> None:
    generation = ended(api, answer("", "max_tokens"))
    told = list(events(api, generation))
    kinds = [event.get("type") for event in told]
    assert "content_block_start" not in kinds
    assert "response.output_item.added" not in kinds
    body = RENDERED[api].answer(generation, generation.finished)
    assert body.get("content", []) == []
    assert body.get("output", []) == []


@pytest.mark.parametrize("api", DROPIN)
@pytest.mark.parametrize("code", CODES)
def test_every_error_has_its_code_hint_and_request_id_in_the_shape_of_the_api(api: str, code: str) -> None:
    error = Problem(code, "A sentence.", retry_after=5, facts={"limit": 3, "param": "x"})
    body = RENDERED[api].error(error, "req_1")
    inner = body["error"]
    assert (inner["code"], inner["hint"], inner["limit"]) == (code, CODES[code].hint, 3)
    assert isinstance(inner["type"], str)
    assert inner["message"].startswith("A sentence.")
    assert "req_1" in (body.get("request_id"), inner.get("request_id"))
    if api == "anthropic":
        assert body["type"] == "error"
    else:
        assert inner["param"] == "x"


@pytest.mark.parametrize("api", DROPIN)
def test_a_failure_is_the_last_event(api: str) -> None:
    told = list(events(api, ended(api, Problem("cli_failed", "It broke."))))
    assert "It broke." in json.dumps(told[-1])
    assert "It broke." not in json.dumps(told[:-1])


class Queued(Job):
    """One that waits in the queue, and then is over."""

    @property
    def queue_position(self) -> int:
        return 2

    def follow(self, heartbeat_s: float) -> Iterator[PartDelta | None]:
        yield None
        yield from super().follow(heartbeat_s)


@pytest.mark.parametrize("api", DROPIN)
def test_a_stream_says_in_a_comment_where_in_the_queue_it_is(api: str) -> None:
    over = ended(api, answer())
    queued = Queued(over.id, over.owner, over.started_at, over.request, finished=over.finished)
    raw = b"".join(RENDERED[api].events(queued, "req_1"))
    assert b"\n\n: queued, place 2\n\n" in raw
