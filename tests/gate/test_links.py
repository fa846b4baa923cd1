"""Links to images at the gate: no CLI knows one, the provider gets it to the character, and the log has none."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from bridge.gate.body import ANY_IMAGE, marks, with_stand_ins, with_texts_for_parts, without_tool_words
from bridge.gate.server import Gate
from bridge.gate.ticket import Ticket, Upstream
from bridge.providers import claude_body, codex_body
from bridge.providers.claude import MOST_IMAGE_BYTES
from bridge.providers.gated import problem_of
from bridge.types import GenerationRequest, Image, Message, Text, ToolCall, ToolResult
from tests.gate.conftest import SECRET, ask, messages_body, responses_body, vouched
from tests.standin import StandIn
from tests.standin.links import UNREACHABLE, links_in

LINK = 'https://images.example.com/cat.png?a=1&b="<%20>#x'
OTHER = "https://images.example.com/dog.png"
BROKEN = f"https://{UNREACHABLE}/secret.png?X-Amz-Signature=0123"
WIRES = pytest.mark.parametrize("wire", ["messages", "responses"])


def asked(*images: Image) -> GenerationRequest:
    return GenerationRequest("claude", "claude-sonnet-5-5", (Message("user", (*images, Text("hello"))),), "Be brief.")


def told_ticket(gate: Gate, url: str, wire: str, request: GenerationRequest) -> tuple[Ticket, list[Image]]:
    """A ticket of a request, and the images that its CLI is told."""
    told, pictures = with_stand_ins(request, lambda image: False)
    model = "claude-sonnet-5-5" if wire == "messages" else "gpt-6-sol"
    own = vouched(messages=marks(told.messages, pictures), model=model)
    upstream = Upstream("messages" if wire == "messages" else "responses", url, SECRET)
    made = Ticket(upstream, own, pictures=pictures, linked=request.linked)
    gate.tickets.add(made)
    return made, told.images


def says(wire: str, images: list[Image], last: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a CLI makes of images and a text; `last` is what it adds to the last of the images."""
    if wire == "messages":
        parts = claude_body.blocks([*images, Text("hello")])
        parts[-2] |= last or {}
        return messages_body(messages=[{"role": "user", "content": parts}])
    (item,) = codex_body.items([Message("user", (*images, Text("hello")))])
    item["content"][-2] |= last or {}
    body = responses_body()
    return {**body, "input": [body["input"][0], item]}


def path_of(wire: str) -> str:
    return f"/v1/{wire}"


def base_of(standin: StandIn, wire: str) -> str:
    return standin.url if wire == "messages" else standin.openai_url


@WIRES
def test_a_link_goes_up_to_the_character_in_the_place_of_what_stood_for_it(
    gate: Gate, standin: StandIn, wire: str
) -> None:
    ticket, images = told_ticket(gate, base_of(standin, wire), wire, asked(Image(url=LINK), Image(url=OTHER)))
    added = {"cache_control": {"type": "ephemeral"}} if wire == "messages" else {"detail": "high"}
    body = says(wire, images, added)
    assert "example.com" not in json.dumps(body)
    reply = ask(gate, ticket.token, body, path_of(wire))
    assert reply.status == 200
    (sent,) = standin.generations
    assert list(links_in(sent.body)) == [LINK, OTHER]
    turn = (sent.body.get("messages") or sent.body["input"])[-1]
    first, second = turn["content"][:2]
    if wire == "messages":
        assert first == {"type": "image", "source": {"type": "url", "url": LINK}}
        assert second == {"type": "image", "source": {"type": "url", "url": OTHER}, **added}
    else:
        assert first == {"type": "input_image", "image_url": LINK}
        assert second == {"type": "input_image", "image_url": OTHER, **added}


def _linked(image: Image) -> Image:
    return Image(url=OTHER)


def _changed(image: Image) -> Image:
    return Image(image.media_type, image.data[:-8] + "AAAAAAA=")


@WIRES
@pytest.mark.parametrize(
    "change",
    [
        lambda images: images[::-1],
        lambda images: images[:1],
        lambda images: [*images, images[0]],
        lambda images: [images[0], images[0]],
        lambda images: [images[0], _changed(images[1])],
        lambda images: [images[0], _linked(images[1])],
        lambda images: [Image(url=LINK), Image(url=OTHER)],
    ],
    ids=["swapped", "one left out", "one more", "the same twice", "changed", "a link of its own", "the links"],
)
def test_a_cli_that_changes_what_stands_for_a_link_sends_nothing(
    gate: Gate, standin: StandIn, wire: str, change: Callable[[list[Image]], list[Image]]
) -> None:
    ticket, images = told_ticket(gate, base_of(standin, wire), wire, asked(Image(url=LINK), Image(url=OTHER)))
    assert ask(gate, ticket.token, says(wire, change(images)), path_of(wire)).status == 400
    assert ticket.call.refused
    assert standin.generations == []


def test_what_is_as_small_as_a_stand_in_never_becomes_the_link_of_another() -> None:
    (stands_for_it,) = with_stand_ins(asked(Image(url=LINK)))[0].images
    large, twin = Image("image/png", "A" * 100, 50), Image("image/png", stands_for_it.data, 1)
    request = asked(twin, Image(url=LINK), large)
    told, pictures = with_stand_ins(request, lambda image: False)
    assert [pictures.get(image.data, image) for image in told.images] == list(request.images)
    (marked,) = marks(told.messages, pictures)
    assert [mark[1] == ANY_IMAGE for mark in marked[1]] == [False, False, True, False]


def test_a_link_always_has_a_stand_in_and_counts_nothing_of_its_own(gate: Gate) -> None:
    """However many images there are, and however large: claude is left the others."""
    many = [Image("image/png", f"{number:0>8}", 50) for number in range(24)]
    many[7:7] = [Image(url=LINK)]
    told, pictures = with_stand_ins(asked(*many), lambda image: len(image.data) > MOST_IMAGE_BYTES)
    assert list(pictures.values()) == [Image(url=LINK)]
    assert (told.linked, [image.pixels for image in told.images].count(1)) == (False, 1)


def test_a_link_that_a_tool_gave_is_put_in_with_its_result() -> None:
    call, result = ToolCall("call_1", "look", "{}"), ToolResult("call_1", (Text("see"), Image(url=LINK)))
    turns = (Message("user", (Text("go"),)), Message("assistant", (call,)), Message("user", (result,)))
    request = GenerationRequest("claude", "m", turns)
    told, parts = with_texts_for_parts(request)
    assert not told.linked
    assert list(links_in([claude_body.block(part) for part in parts.values()])) == [LINK]
    assert not without_tool_words(request).linked
    assert list(links_in(codex_body.tool_parts(turns))) == [LINK]


#: What the providers say of a link that they cannot follow, and what a client is told.
@WIRES
@pytest.mark.parametrize("stream", [False, True])
def test_the_client_hears_why_and_nobody_else_the_link(
    gate: Gate, standin: StandIn, upstream_that_says: Callable[..., str], wire: str, stream: bool
) -> None:
    url = base_of(standin, wire)
    if stream:
        error = {"code": "invalid_prompt", "message": f"Timeout while downloading {BROKEN}."}
        kinds = {
            "messages": {"type": "error", "error": {"type": "invalid_request_error", **error}},
            "responses": {"type": "response.failed", "response": {"status": "failed", "error": error}},
        }
        event = f"data: {json.dumps(kinds[wire])}\n\n".encode()
        url = upstream_that_says(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n", event)
    ticket, images = told_ticket(gate, url, wire, asked(Image(url=BROKEN)))
    ask(gate, ticket.token, says(wire, images), path_of(wire))
    problem = problem_of(ticket.call, "The provider")
    assert problem.code == "provider_invalid_request"
    assert problem.message in (
        "The provider did not accept the request: Unable to download the file. Please verify the URL and try again.",
        "The provider did not accept the request: Error while downloading [link].",
        "The provider did not accept the request: Timeout while downloading [link].",
    )
    assert UNREACHABLE not in f"{ticket.call}"


@pytest.mark.parametrize(
    ("said", "noted"),
    [
        (f"Failed to fetch '{BROKEN}' (HTTP://x), see {BROKEN[:70]}", "Failed to fetch '[link]' ([link]), see [link]"),
        ('{"url": "https://a.example/b c.png"}', '{"url": "[link] c.png"}'),
        ("no link", "no link"),
    ],
)
@pytest.mark.parametrize("linked", [True, False])
def test_no_link_is_noted_of_a_call_that_had_some(
    gate: Gate, upstream_that_says: Callable[..., str], said: str, noted: str, linked: bool
) -> None:
    body = json.dumps({"error": {"type": "invalid_request_error", "message": said}}).encode()
    url = upstream_that_says(b"HTTP/1.1 400 No\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
    ticket = Ticket(Upstream("messages", url, SECRET), vouched(), linked=linked)
    gate.tickets.add(ticket)
    ask(gate, ticket.token, messages_body())
    assert ticket.call.error_message == (noted if linked else said)
