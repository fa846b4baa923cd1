"""Links to images through the real CLIs: the model's API gets them to the character, and nobody else follows them."""

from __future__ import annotations

import base64
import io
from typing import Any

import pytest
from PIL import Image

from tests.real_cli.conftest import Rig, texts
from tests.real_cli.test_conversations import EVERY_WAY, ask
from tests.real_cli.test_requests import photo
from tests.standin.links import UNREACHABLE, links_in
from tests.unit.test_links import LINK, part

BROKEN = f"https://{UNREACHABLE}/secret.png?X-Amz-Signature=0123"


@EVERY_WAY
@pytest.mark.parametrize("stream", [False, True])
def test_links_of_two_turns_arrive_where_they_stood(rig: Rig, api: str, model: str, stream: bool) -> None:
    word = {"chat": "text", "responses": "input_text", "messages": "text"}[api]
    turns: list[dict[str, Any]] = [
        {"role": "user", "content": [part(api, LINK), {"type": word, "text": "What is this?"}]},
        {"role": "assistant", "content": "A cat."},
        {"role": "user", "content": [{"type": word, "text": "And"}, part(api, LINK + "2"), part(api, LINK)]},
    ]
    sent = ask(rig, api, model, turns, stream=stream)
    assert list(links_in(sent.body)) == [LINK, LINK + "2", LINK]
    assert texts(sent) == [("user", "What is this?"), ("assistant", "A cat."), ("user", "And")]
    assert rig.standin.side_traffic == []


@EVERY_WAY
def test_one_of_many_images_may_be_a_link(rig: Rig, api: str, model: str) -> None:
    file = io.BytesIO()
    Image.radial_gradient("L").save(file, "PNG")
    data = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(file.getvalue()).decode()}
    own = {"type": "image", "source": data} if api == "messages" else part(api, f"data:image/png;base64,{data['data']}")
    sent = ask(rig, api, model, [{"role": "user", "content": [*[own] * 12, part(api, LINK), *[own] * 12]}])
    (turn,) = [each for each in sent.body.get("messages") or sent.body["input"] if each["role"] == "user"]
    images = [each for each in turn["content"] if each["type"] in ("image", "input_image")]
    assert (len(images), list(links_in(images[12]))) == (25, [LINK])
    assert list(links_in(sent.body)) == [LINK]
    assert str(images).count(data["data"]) == 24


def test_beside_images_that_claude_makes_smaller_a_link_stays_one(rig: Rig) -> None:
    large = {"type": "base64", "media_type": "image/jpeg", "data": photo(4.5).partition(",")[2]}
    content = [{"type": "image", "source": large}, part("messages", LINK), {"type": "image", "source": large}]
    sent = ask(rig, "messages", "claude-sonnet-5-5", [{"role": "user", "content": content}])
    assert list(links_in(sent.body)) == [LINK]
    assert large["data"] not in str(sent.body)


@pytest.mark.parametrize("model", ["claude-sonnet-5-5", "gpt-6-sol"])
@pytest.mark.parametrize("api", ["responses", "messages"])
def test_a_link_that_a_tool_gave_arrives_in_its_result(rig: Rig, api: str, model: str) -> None:
    turns: list[dict[str, Any]] = [{"role": "user", "content": "look"}]
    if api == "messages":
        schema: dict[str, Any] = {"tools": [{"name": "see", "input_schema": {"type": "object"}}]}
        result = {"type": "tool_result", "tool_use_id": "call_1", "content": [part(api, LINK)]}
        turns.append(
            {"role": "assistant", "content": [{"type": "tool_use", "id": "call_1", "name": "see", "input": {}}]}
        )
        turns.append({"role": "user", "content": [result, part(api, LINK + "2")]})
    else:
        schema = {"tools": [{"type": "function", "name": "see", "parameters": {"type": "object"}}]}
        turns.append({"type": "function_call", "call_id": "call_1", "name": "see", "arguments": "{}"})
        turns.append({"type": "function_call_output", "call_id": "call_1", "output": [part(api, LINK)]})
        turns.append({"role": "user", "content": [part(api, LINK + "2")]})
    sent = ask(rig, api, model, turns, **schema)
    assert list(links_in(sent.body)) == [LINK, LINK + "2"]


@EVERY_WAY
@pytest.mark.parametrize("stream", [False, True])
def test_a_link_that_leads_nowhere_is_the_client_s_mistake(rig: Rig, api: str, model: str, stream: bool) -> None:
    path = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}[api]
    field = "input" if api == "responses" else "messages"
    turns = [{"role": "user", "content": [part(api, BROKEN)]}]
    answer = rig.ask(
        path, model=model, stream=stream, **{field: turns}, **({"max_tokens": 2000} if api == "messages" else {})
    )
    said = answer.body.decode()
    assert answer.status == (200 if stream else 400), said
    assert "provider_invalid_request" in said
    words = "Unable to download the file." if model.startswith("claude") else "Error while downloading [link]."
    assert f"did not accept the request: {words}" in said
    (line, *_) = rig.server.admin("GET", "/logs").json["logs"]
    assert (line["code"], line["costUsd"], line["upstreamStatus"]) == ("provider_invalid_request", 0, 400)
    assert words in line["upstreamMessage"]
    assert not [text for text in (str(line), *rig.server.output) if UNREACHABLE in text]


@pytest.mark.parametrize("model", ["claude-sonnet-5-5", "gpt-6-sol"])
def test_a_link_that_a_provider_repeats_is_told_to_nobody(rig: Rig, model: str) -> None:
    """Also where a tool gave it."""
    result = {"type": "tool_result", "tool_use_id": "call_1", "content": [part("messages", BROKEN)]}
    turns = [
        {"role": "user", "content": "look"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "call_1", "name": "see", "input": {}}]},
        {"role": "user", "content": [result]},
    ]
    tools = [{"name": "see", "input_schema": {"type": "object"}}]
    rig.standin.script(status=400, says=f"{BROKEN} is no image.")
    try:
        answer = rig.ask("/v1/messages", model=model, max_tokens=2000, messages=turns, tools=tools)
    finally:
        rig.standin.script()
    assert "did not accept the request: [link] is no image." in answer.json["error"]["message"]
    (line, *_) = rig.server.admin("GET", "/logs").json["logs"]
    assert line["upstreamMessage"] == "[link] is no image."
    assert not [text for text in (str(line), *rig.server.output) if UNREACHABLE in text]
