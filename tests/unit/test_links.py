"""Links to images: which ones there may be, in each API that takes them, and what they count."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bridge.providers.provider import USUAL_IMAGE_TOKENS, prompt_estimate
from bridge.types import GenerationRequest, Image, Message, ModelChoice, Text, ToolResult
from bridge.wire import native
from bridge.wire.api import Known
from bridge.wire.apis import APIS
from tests.unit.test_dropin_wire import PNG, PNG_URL, user
from tests.unit.test_native_wire import refusal as native_refusal
from tests.unit.test_parameters import HELLO, SETTINGS, nothing, parse, refusal

LINK = "https://images.example.com/cat.png?size=1&name=%20x#top"
FIELDS = {"chat": "messages", "responses": "input", "messages": "messages"}
MODULES = {"chat": "openai_chat", "responses": "openai_responses", "messages": "anthropic"}
EVERY = pytest.mark.parametrize("api", FIELDS)


def part(api: str, url: str) -> dict[str, Any]:
    """An image of a message, in the words of an API."""
    match api:
        case "chat":
            return {"type": "image_url", "image_url": {"url": url, "detail": "high"}}
        case "responses":
            return {"type": "input_image", "image_url": url, "detail": "auto"}
    return {"type": "image", "source": {"type": "url", "url": url}}


def taken(api: str, url: str) -> GenerationRequest:
    return parse(api, **{FIELDS[api]: [user(part(api, url))]})


def refused(api: str, url: str) -> str:
    said = refusal(api, **{FIELDS[api]: [user(part(api, url))]}).message
    assert said.startswith(f"{FIELDS[api]}[0].content[0]")
    # It stands in the log of all requests.
    assert len(url) < 10 or url not in said
    return said


GOOD = [
    LINK,
    "https://example.com",
    "HTTPS://Example.COM/A.PNG",
    "https://my_bucket.s3.eu-central-1.amazonaws.com:8443/a?X-Amz-Signature=0f%2F",
    "https://xn--bcher-kva.xn--p1ai/x.jpg",
    "https://127.0.0.1.example.com/x.png",
    "https://internal.example.com/x.png",
    "https://lan.corp.example.com/x.png",
    "https://example.homes/x.png",
    'https://example.com/"><script>\\..//@x|{}',
    f"https://example.com/{PNG[:500]}",
    f"https://example.com/{PNG_URL}",
    "https://example.com/" + "x" * 1980,
]


@EVERY
@pytest.mark.parametrize("url", GOOD, ids=range(len(GOOD)))
def test_a_link_arrives_to_the_character_and_nothing_else_does(api: str, url: str) -> None:
    assert taken(api, url).messages == (Message("user", (Image(url=url),)),)


BAD = {
    "no https link to a host with a name": [
        "https://",
        "https:///x.png",
        "https:example.com/x.png",
        "https://user:pw@example.com/x.png",
        "https://user@example.com/x.png",
        "https://example.com:pw@evil.example/x.png",
        "https://example.com\\@127.0.0.1/x.png",
        "https://127.0.0.1/x.png",
        "https://127.1/x.png",
        "https://0x7f.0.0.1/x.png",
        "https://0x7f.0x0.0x0.0x1/x.png",
        "https://2130706433/x.png",
        "https://127.0.0.1./x.png",
        "https://[::1]/x.png",
        "https://[::ffff:127.0.0.1]/x.png",
        "https://localhost/x.png",
        "https://localhost./x.png",
        "https://app.localhost/x.png",
        "https://printer.local:631/x.png",
        "https://metadata.google.internal/computeMetadata/v1/",
        "https://intranet/x.png",
        "https://wiki.intranet/x.png",
        "https://router.lan",
        "https://nas.home:8443/x.png",
        "https://nas.home.arpa/x.png",
        "https://git.corp?x",
        "https://db.Private#x",
        "https://example.com:99999999/x.png",
        "https://example.com:/x.png",
        "https://exa%6dple.com/x.png",
        "https://-/x.png",
    ],
    "2000 characters, of ASCII": [
        "https://example.com/" + "x" * 1981,
        "https://example.com/" + "x" * 10_000,
        "https://" + "a." * 50_000,
        "https://bücher.example/x.png",
        "https://example.com/caf\u00e9.png",
        "https://example.com\u3002evil.example/x.png",
        "https://exam\u017fple.com/x.png",
        "https://example.com/a b.png",
        "https://example.com/x.png\n",
        "https://example.com/\r\nHost: evil",
        "https://example.com/\tx",
        "https://example.com/\0x",
        "https://example.com/\x7f",
    ],
}


@EVERY
@pytest.mark.parametrize(("says", "url"), [(says, url) for says, urls in BAD.items() for url in urls])
def test_what_no_provider_should_follow_is_refused_with_a_sentence(api: str, says: str, url: str) -> None:
    assert says in refused(api, url)


@EVERY
@pytest.mark.parametrize(
    "url",
    [
        *("http://example.com/x.png", "ftp://example.com/x.png", "file:///etc/passwd", "javascript:alert(1)"),
        *("//example.com/x.png", "example.com/x.png", " https://example.com/x.png", "blob:https://example.com/x", ""),
    ],
)
def test_what_is_no_https_link_is_refused(api: str, url: str) -> None:
    said = refused(api, url)
    assert "https" in said
    # Where there is another way, it is named.
    assert api == "messages" or "data URL" in said


def test_a_data_url_is_no_link_and_stays_what_it_is() -> None:
    assert taken("chat", PNG_URL).messages[0].content == (Image("image/png", PNG, 1),)
    assert "no https link" in refused("messages", PNG_URL)


def test_the_bridge_s_own_api_takes_data_alone() -> None:
    assert "data URL" in native_refusal(userPrompt="x", images=[LINK])
    image = {"type": "image", "source": {"type": "url", "url": LINK}}
    assert native_refusal(messages=[{"role": "user", "content": [image]}])
    assert not hasattr(native.NativeImage, "source")


@EVERY
def test_only_users_and_tools_have_some(api: str) -> None:
    turns = [*HELLO, {"role": "assistant", "content": [part(api, LINK)]}, *HELLO]
    assert "image" in refusal(api, **{FIELDS[api]: turns}).message


def test_a_tool_may_give_one_where_the_api_has_images_there() -> None:
    call = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [part("messages", LINK)]}
    given = parse("messages", messages=[*HELLO, {"role": "assistant", "content": [call]}, user(result)])
    output = [part("responses", LINK)]
    items = [
        {"type": "function_call", "call_id": "toolu_1", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "toolu_1", "output": output},
    ]
    for request in (given, parse("responses", input=[*HELLO, *items])):
        assert request.messages[-1].content == (ToolResult("toolu_1", (Image(url=LINK),)),)
        assert request.linked


@EVERY
def test_links_are_counted_with_the_images_of_a_request(api: str) -> None:
    images = [part(api, f"{LINK}{number}") for number in range(50)]
    assert len(parse(api, **{FIELDS[api]: [user(*images)]}).images) == 50
    said = refusal(api, **{FIELDS[api]: [user(*images, part(api, LINK))]}).message
    assert said == "A request may have at most 50 images."


def test_a_link_weighs_what_it_is_and_counts_as_an_image() -> None:
    def made(*parts: Image) -> GenerationRequest:
        return GenerationRequest("claude", "m", (Message("user", (Text("look"), *parts)),))

    none, one = made(), made(Image(url=LINK))
    assert (one.size - none.size, one.pixels) == (len(LINK), 0)
    assert prompt_estimate(one) - prompt_estimate(none) == USUAL_IMAGE_TOKENS
    assert (none.linked, one.linked, made(Image("image/png", PNG, 1)).linked) == (False, True, False)
    assert one.messages[0].text == "look"


@EVERY
def test_streams_and_counts_of_tokens_take_them_as_well(api: str) -> None:
    assert parse(api, stream=True, **{FIELDS[api]: [user(part(api, LINK))]}).linked
    (row,) = [row for row in APIS.values() if row.parse.__module__.endswith(MODULES[api])]
    if row.count is not None:
        body = json.dumps({"model": "m", FIELDS[api]: [user(part(api, LINK))]}).encode()
        asked = row.count.parse(body, Known(SETTINGS, lambda name: ModelChoice("claude", name), nothing))
        assert asked.request.linked
