"""What goes wrong upstream becomes one clear error, after one call, within the time that was asked for."""

from __future__ import annotations

import pytest

from tests.real_cli.conftest import Rig

BOTH = pytest.mark.parametrize("path", ["/generate", "/generate-codex"])


@BOTH
@pytest.mark.parametrize(
    ("directive", "status", "codes"),
    [
        ("status=401", 503, {"no_credentials"}),
        ("status=403", 503, {"no_credentials"}),
        ("status=404", 404, {"model_not_found"}),
        ("status=429 retry_after=100", 503, {"provider_rate_limited"}),
        ("status=500", 0, {"cli_failed", "provider_overloaded"}),
        ("status=503", 503, {"provider_overloaded"}),
        ("mode=quota", 503, {"no_credentials"}),
        ("mode=cut", 0, {"cli_failed", "timeout"}),
        ("mode=cut_early", 502, {"cli_failed"}),
        ("mode=garbage", 0, {"cli_failed", "cli_bad_output"}),
        ("mode=stream_error", 422, {"provider_broke_off"}),
        ("mode=stream_rate_limit", 422, {"provider_broke_off"}),
        ("mode=context", 413, {"prompt_too_long"}),
    ],
)
def test_an_error_upstream_is_one_clear_error_here(
    rig: Rig, path: str, directive: str, status: int, codes: set[str]
) -> None:
    answer = rig.ask(path, prompt=f"[[standin {directive}]] x")
    assert answer.json["code"] in codes, answer.body
    assert status in (0, answer.status)
    for secret in ("sk-", "127.0.0.1", "/dev/shm", "Traceback"):
        assert secret not in answer.body.decode()
    assert len(rig.standin.generations) == 1
    # and the next one works, once nobody holds that against the credential
    rig.server.reset_credentials()
    assert rig.ask(path, prompt="again").status == 200


@BOTH
def test_529_is_overload(rig: Rig, path: str) -> None:
    answer = rig.ask(path, prompt="[[standin status=529]] x")
    assert (answer.status, answer.json["code"]) in ((503, "provider_overloaded"), (502, "cli_failed"))


@BOTH
def test_an_empty_answer_is_an_answer_after_one_call(rig: Rig, path: str) -> None:
    answer = rig.ask(path, prompt="[[standin mode=empty]] x")
    assert (answer.status, answer.json["stop_reason"], answer.json["content"][0]["text"]) == (200, "end_turn", "")
    assert answer.json["cost_usd"] > 0
    assert len(rig.standin.generations) == 1


@BOTH
def test_a_refusal_is_an_answer_that_says_so_after_one_call(rig: Rig, path: str) -> None:
    answer = rig.ask(path, prompt="[[standin mode=refusal]] x")
    assert len(rig.standin.generations) == 1
    row = rig.server.admin("GET", "/logs?limit=1").json["logs"][0]
    assert (row["status"], row["code"]) == (200, None)
    assert (answer.status, answer.json["stop_reason"], row["stopReason"]) == (200, "refusal", "refusal")
    assert answer.json["content"][0]["text"]


@BOTH
@pytest.mark.parametrize("mode", ["hang", "hang_headers", "hang_mid"])
def test_a_model_that_hangs_is_given_up_at_the_deadline(rig: Rig, path: str, mode: str) -> None:
    answer = rig.ask(path, prompt=f"[[standin mode={mode}]] x", timeoutSeconds=2)
    assert (answer.status, answer.json["code"]) == (504, "timeout")
    (sent,) = rig.standin.wait(lambda records: all(r.closed_early for r in records))
    assert sent.closed_early, "the call upstream ended with the run"
    row = rig.server.admin("GET", "/logs?limit=1").json["logs"][0]
    assert (row["code"], row["assumed"]) == ("timeout", True)
    assert row["costUsd"] > 0


def test_a_codex_process_that_dies_is_replaced(rig: Rig) -> None:
    import psutil

    server = psutil.Process(rig.server.process.pid)
    (app_server,) = [p for p in server.children(recursive=True) if "app-server" in p.cmdline()]
    app_server.kill()
    app_server.wait(5)
    assert rig.ask("/generate-codex", prompt="hello").status == 200


def test_codex_cannot_think_beyond_what_its_key_has_left(rig: Rig) -> None:
    poor = rig.server.new_key("poor", maxTokensPerDay=1700)
    ask = {"userPrompt": "[[standin words=5000 reasoning=5000]] think"}
    answer = rig.server.call("POST", "/generate-codex", ask, key=poor)
    assert (answer.status, answer.json["stop_reason"]) == (200, "max_tokens")
    (sent,) = rig.standin.generations
    assert sent.body["max_output_tokens"] < 1700
    used = rig.server.call("GET", "/me", key=poor).json["usage"]
    assert used["today"]["tokens"] == sum(answer.json["usage"][kind] for kind in ("input_tokens", "output_tokens"))
    assert used["today"]["tokens"] <= 1700


def test_codex_may_think_on_while_the_key_has_money_left(rig: Rig) -> None:
    rich = rig.server.new_key("rich", maxTokensPerDay=100_000)
    ask = {"userPrompt": "[[standin first_delay=4]] think", "maxOutputTokens": 256}
    answer = rig.server.call("POST", "/generate-codex", ask, key=rich)
    assert answer.status == 200
