"""What runs take in memory: bounded while they live, and nothing once they have ended."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from bridge.engine import admission, engine
from bridge.engine.run import Run
from bridge.errors import BridgeError
from bridge.http.app import create_app
from bridge.limits import Limits
from bridge.records import recent
from bridge.service import Service, demo_providers
from bridge.settings import Settings
from bridge.types import Answer, GenerationRequest, Image, Message, Text
from tests.engine.harness import until

MIB = 2**20


@pytest.fixture
def client(tmp_path: Path) -> Iterator[FlaskClient]:
    """A client of a whole service in this process, with a key."""
    settings = Settings.load({"BRIDGE_DATA_DIR": str(tmp_path / "data"), "BRIDGE_RATE_LIMIT_PER_MINUTE": "0"})
    service = Service(settings, make_providers=demo_providers)
    try:
        service.open()
        _, raw = service.keys.create("tester", Limits())
        client = create_app(service).test_client()
        client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {raw}"
        yield client
    finally:
        service.close()


def test_an_answer_that_is_too_old_to_be_referred_to_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "TIDY_S", 0.01)
    monkeypatch.setattr(recent, "KNOWN_S", 0.2)
    service = Service(Settings.load({"BRIDGE_DATA_DIR": str(tmp_path / "data")}), make_providers=demo_providers)
    try:
        known = service.open().recent
        known.add("ada", "run_1", Answer((Text("x"),), "the-model", "end_turn", None))
        assert until(lambda: not vars(known)["_kept"])
    finally:
        service.close()


def runs_in_memory() -> list[Run]:
    """All of them: who keeps the list has those of other tests stay, so that it can be compared with another."""
    return [thing for thing in gc.get_objects() if isinstance(thing, Run)]


@pytest.mark.parametrize(
    ("more", "headers", "status"),
    [
        ({}, {}, 200),
        ({"stream": True}, {}, 200),
        ({}, {"Prefer": "respond-async"}, 202),
        ({}, {"Idempotency-Key": "x"}, 200),
        ({"timeoutSeconds": 0.001}, {}, 504),
        ({"timeoutSeconds": 0.001, "stream": True}, {}, 200),
    ],
    ids=["answer", "stream", "job", "repeatable", "failure", "failed stream"],
)
def test_a_run_that_has_ended_is_gone_with_its_prompt(
    client: FlaskClient, more: dict[str, Any], headers: dict[str, str], status: int
) -> None:
    gc.collect()
    before = runs_in_memory()
    gc.disable()  # without circles, nobody has to look for them
    try:
        response = client.post("/generate", json={"userPrompt": "hello", **more}, headers=headers)
        assert response.data
        assert response.status_code == status
        response.close()
        del response
        assert until(lambda: len(runs_in_memory()) == len(before))
    finally:
        gc.enable()


def test_prompts_are_let_go_with_the_end_of_a_run_although_somebody_still_reads(client: FlaskClient) -> None:
    before = runs_in_memory()
    response = client.post("/generate", json={"userPrompt": "hello", "stream": True}, buffered=False)
    body = iter(response.response)
    assert b"event: start" in next(body)
    (run,) = [run for run in runs_in_memory() if run not in before]
    run.wait(10)
    assert (run.finished is not None, run.request.size, run.attempt.request.size) == (
        True,
        0,
        0,
    )
    assert b"demo answer" in b"".join(body)
    response.close()


# --- large requests -------------------------------------------------------------------------------


def held(key_name: str, size: int) -> tuple[str, GenerationRequest]:
    return key_name, ask(size)


def ask(size: int) -> GenerationRequest:
    return GenerationRequest("claude", "m", (Message("user", (Image("image/png", "x" * size), Text("what?"))),))


def refused(runs: list[tuple[str, GenerationRequest]], key_name: str, size: int) -> bool:
    try:
        admission.check_load(runs, key_name, ask(size), MIB)
    except BridgeError as error:
        return error.code == "overloaded" and error.problem.retry_after is not None
    return False


def test_one_key_can_hold_two_of_the_largest_size_and_others_can_go_on() -> None:
    mine = [held("ann", MIB - 100), held("ann", MIB - 100)]
    assert not refused(mine[:1], "ann", MIB - 100)
    assert refused(mine, "ann", MIB // 2)
    assert not refused(mine, "bob", MIB)


def test_all_keys_together_can_hold_four() -> None:
    runs = [held(f"key-{number}", MIB) for number in range(4)]
    assert refused(runs, "ann", MIB)
    assert not refused(runs[:3], "ann", MIB // 2)


def test_small_requests_are_never_too_many() -> None:
    runs = [held("ann", MIB) for _ in range(9)] + [held("ann", admission.SMALL_BYTES // 2)] * 100
    assert not refused(runs, "ann", admission.SMALL_BYTES // 2)


def test_a_picture_counts_by_its_pixels_where_those_are_more_than_its_file() -> None:
    messages = (Message("user", (Image("image/png", "x" * 1000, 40_000_000), Text("what?"))),)
    request = GenerationRequest("codex", "m", messages)
    assert (request.size, request.pixels) == (10_000_005, 40_000_000)


def test_all_of_a_request_counts() -> None:
    request = GenerationRequest(
        "claude", "m", (Message("user", (Text("abc"),)), Message("user", (Image("image/png", "12345"),))), system="xy"
    )
    assert request.size == 10
