"""What nobody should read is masked wherever it stands, and nothing else is."""

from __future__ import annotations

import pytest

from bridge.masks import masked


@pytest.mark.parametrize(
    "secret",
    [
        "sk-ant-api03-AbC_d-9",
        "cb_AbCdEf012345",
        "cbt_AbCd-Ef_0",
        "cbp_AbCd-Ef_0",
        "cba_AbCd-Ef_0",
        "cbl_AbCd-Ef_0",
        "eyJhbGciOi.eyJzdWIi.c2ln",
    ],
)
def test_keys_and_tokens_are_masked_whoever_they_belong_to(secret: str) -> None:
    for text in (f"key {secret}.", f'{{"x-api-key":"{secret}"}}', f"authorization: Bearer {secret}"):
        assert secret not in masked(text)
        assert "***" in masked(text)


def test_what_authorizes_a_request_is_masked_without_a_known_shape() -> None:
    assert masked('{"authorization":"Bearer abc.def"}') == '{"authorization":"Bearer ***"}'
    assert masked("https://user:password@host/path") == "https://***@host/path"


def test_a_given_secret_is_masked_also_as_it_stands_in_json() -> None:
    assert masked('plain odd"one and json odd\\"one', 'odd"one') == "plain *** and json ***"
    assert masked("nothing to hide", None, "") == "nothing to hide"


def test_words_stay_as_they_are() -> None:
    text = "The risk-averse cb radio says: your prompt is too long (max 200000 tokens)."
    assert masked(text) == text
