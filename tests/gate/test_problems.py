"""What a call that brought no whole answer means for the client, by what the provider said."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from openai.types.responses import ResponseError

from bridge.gate.ticket import Call
from bridge.providers.gated import MOST_SAID, failure_of, is_of_a_model, problem_of

#: What OpenAI calls the error of a response.
CODES = get_args(ResponseError.model_fields["code"].annotation)


def call(status: int | None, kind: str | None = None, message: str | None = None, **more: Any) -> Call:
    return Call(sent_at=1.0, status=status, error_type=kind, error_message=message, **more)


@pytest.mark.parametrize(
    ("seen", "code", "status"),
    [
        (call(400, "invalid_request_error", "messages.1: roles must alternate"), "provider_invalid_request", 400),
        (call(422, "invalid_request_error", "bad"), "provider_invalid_request", 400),
        (call(200, "invalid_prompt", "The prompt was flagged."), "provider_invalid_request", 400),
        (call(200, "bio_policy", "The prompt was flagged."), "provider_invalid_request", 400),
        (call(200, "invalid_value", "Timeout while downloading [link]."), "provider_invalid_request", 400),
        (call(200, "server_error", "The server had an error."), "provider_overloaded", 503),
        (call(404, "not_found_error", "model: claude-opus-9"), "model_not_found", 404),
        (call(413, "request_too_large", "Request exceeds the maximum size"), "prompt_too_long", 413),
        (call(400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000"), "prompt_too_long", 413),
        (call(200, "context_length_exceeded", "Your input exceeds the context window"), "prompt_too_long", 413),
        (call(400, "invalid_request_error", "Your credit balance is too low"), "no_credentials", 503),
        (call(400, "invalid_request_error", "This organization has been disabled."), "no_credentials", 503),
        (call(429, "insufficient_quota", "You exceeded your current quota"), "no_credentials", 503),
        (call(401, "authentication_error", "invalid x-api-key"), "no_credentials", 503),
        (call(402, "billing_error", "pay"), "no_credentials", 503),
        (call(403, "permission_error", "no"), "no_credentials", 503),
        (call(429, "rate_limit_error", "slow down"), "provider_rate_limited", 503),
        (call(529, "overloaded_error", "Overloaded"), "provider_overloaded", 503),
        (call(500, "api_error", "Internal server error"), "provider_overloaded", 503),
        (call(None, unreachable=True), "cli_failed", 502),
        (Call(refused="the model"), "cli_bad_output", 502),
    ],
)
def test_a_provider_s_no_is_the_client_s_to_act_on_or_not(seen: Call, code: str, status: int) -> None:
    problem = problem_of(seen, "Anthropic")
    assert (problem.code, problem.status) == (code, status)


@pytest.mark.parametrize(
    ("seen", "code"),
    [
        (
            call(
                429,
                "rate_limit_exceeded",
                "Request too large for gpt-6-sol on tokens per min (TPM): Limit 30000, Requested 36055.",
            ),
            "prompt_too_long",
        ),
        (call(429, "rate_limit_error", "Extra usage is required for long context requests."), "prompt_too_long"),
        (call(401, "key_model_access_denied", "key not allowed to access model. This key can only"), "model_not_found"),
        (call(403), "provider_overloaded"),
    ],
)
def test_what_one_request_has_brought_about_says_nothing_of_its_credential(seen: Call, code: str) -> None:
    assert failure_of(seen) in ("model", "other")
    assert problem_of(seen, "OpenAI").code == code


@pytest.mark.parametrize(
    ("seen", "failure"),
    [
        (call(429, "rate_limit_exceeded", "Rate limit reached for gpt-6-sol: request too large for"), "limited"),
        (call(401, "authentication_error", "invalid key: key not allowed to access model"), "rejected"),
        (call(403, "forbidden", "Request not allowed"), "rejected"),
    ],
)
def test_such_words_count_only_at_the_beginning(seen: Call, failure: str) -> None:
    assert failure_of(seen) == failure


@pytest.mark.parametrize("code", [*(code for code in CODES if "image" in code), "image\n" * 9])
def test_what_openai_says_of_an_image_in_a_stream_is_the_client_s_to_act_on(code: str) -> None:
    seen = call(200, code, "The image is no image.")
    assert failure_of(seen) == "request"
    assert problem_of(seen, "OpenAI").message == "OpenAI did not accept the request: The image is no image."


def test_a_sentence_on_the_request_is_shown() -> None:
    problem = problem_of(call(400, "invalid_request_error", "max_tokens: must be\n at least 1"), "Anthropic")
    assert problem.message == "Anthropic did not accept the request: max_tokens: must be at least 1"


@pytest.mark.parametrize(
    "said",
    [
        "Project `proj_abc` does not have access to the model",
        "Organization org-J2x must be verified to use this",
        "Incorrect key sk-ant-abc",
        "See https://platform.example.com/account",
        "Your account is not allowed to use images",
        "mail support@example.com",
        "\x1b[31mred",
        "",
        None,
    ],
)
def test_a_sentence_that_tells_more_than_the_request_is_not(said: str | None) -> None:
    assert (
        problem_of(call(400, "invalid_request_error", said), "OpenAI").message == "OpenAI did not accept the request."
    )


def test_a_long_sentence_is_cut() -> None:
    message = problem_of(call(400, "invalid_request_error", "word " * 1000), "OpenAI").message
    assert len(message) <= MOST_SAID + 60
    assert message.endswith("…")


@pytest.mark.parametrize(
    ("says", "of_a_model"),
    [
        (
            "Rate limit reached for gpt-6-sol in organization org-uO on tokens per min (TPM): Limit 30000, Used 29937.",
            True,
        ),
        (
            "This request would exceed your organization's rate limit of 30,000 input tokens per minute "
            "(org: 8d477a71-9399, model: claude-opus-5-5). For details, refer to the docs.",
            True,
        ),
        ("This request would exceed the rate limit for your organization (c26fc127) of 30,000 input tokens.", False),
        ("This request would exceed your organization's rate limit of 50 requests per minute.", False),
        ("Number of concurrent connections has exceeded your rate limit. (org: a, model: b)", False),
        ("Please slow down. Rate limit reached for gpt-6-sol in organization org-uO", False),
        (None, False),
    ],
)
def test_a_limit_is_a_model_s_where_the_provider_s_sentence_begins_by_that(says: str | None, of_a_model: bool) -> None:
    seen = call(429, "rate_limit_error", says)
    assert failure_of(seen) == "limited"
    assert is_of_a_model(seen) is of_a_model
