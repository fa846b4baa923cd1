"""Paths of other people's APIs, as clients spell them; and the shape of errors where there is nothing."""

from __future__ import annotations

import pytest

from bridge.wire.apis import api_at, respelled

CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"


@pytest.mark.parametrize(
    ("path", "right"),
    [
        ("/chat/completions", CHAT),
        ("//v1//chat/completions", CHAT),
        ("/v1//chat//completions", CHAT),
        ("/v1/v1/chat/completions", CHAT),
        ("/v1/chat/completions/", CHAT),
        ("/responses", RESPONSES),
        ("/completions", "/v1/completions"),
        ("/v1/v1/responses", RESPONSES),
        ("/responses/input_tokens", "/v1/responses/input_tokens"),
        ("/v1/responses//input_tokens/", "/v1/responses/input_tokens"),
        ("/messages", MESSAGES),
        ("//v1/messages", MESSAGES),
        ("/v1/v1/messages", MESSAGES),
        ("/messages/count_tokens", "/v1/messages/count_tokens"),
        ("/v1/v1/messages/count_tokens", "/v1/messages/count_tokens"),
        ("/models", "/v1/models"),
        ("//models/gpt-6-sol", "/v1/models/gpt-6-sol"),
    ],
)
def test_a_base_url_with_a_part_too_many_or_too_few_is_understood(path: str, right: str) -> None:
    assert respelled(path) == right


@pytest.mark.parametrize(
    "path",
    [
        *(CHAT, RESPONSES, MESSAGES, "/v1/models", "/v1/models/gpt-6-sol", "/v1/messages/count_tokens"),
        "/v1/responses/input_tokens",
        # What rules of a proxy may guard keeps its own spelling only.
        *("/", "", "//", "//admin/", "//admin/keys", "/v1//admin/keys", "/v1/admin/messages", "//generate", "//me"),
        *("/v1/embeddings", "/openai/v1/chat/completions", "/messages/batches", "/responses/resp_1", "/v1", "/v1/v1"),
    ],
)
def test_all_other_paths_stay_as_they_are(path: str) -> None:
    assert respelled(path) is None


@pytest.mark.parametrize(
    ("path", "anthropic", "name"),
    [
        ("/admin/models", False, "native"),
        ("/admin/models", True, "native"),
        ("/v1/embeddings", False, "openai-chat"),
        ("/embeddings", False, "openai-chat"),
        ("/openai/v1/chat/completions", False, "openai-chat"),
        ("/v1/completions", False, "openai-completions"),
        ("/anthropic/v1/messages", False, "anthropic"),
        ("/v1/messages/batches", False, "anthropic"),
        ("/v1/complete", True, "anthropic"),
        ("/v1/files", True, "anthropic"),
        ("/v1/models", True, "anthropic"),
        ("/v1/models", False, "openai-chat"),
        ("/nothing", True, "native"),
        ("/generate", False, "native"),
        ("/admin/keys", False, "native"),
    ],
)
def test_an_error_has_the_shape_that_the_client_at_this_path_expects(path: str, anthropic: bool, name: str) -> None:
    assert (
        api_at(path, lambda header: "2023-06-01" if anthropic and header == "Anthropic-Version" else None).name == name
    )
