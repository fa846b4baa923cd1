"""What runs take in memory: nothing once they have ended."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from bridge.engine.run import Run
from bridge.http.app import create_app
from bridge.ledger.limits import Limits
from bridge.service import Service, demo_providers
from bridge.settings import Settings
from tests.engine.harness import until


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


def runs_in_memory() -> int:
    return sum(isinstance(thing, Run) for thing in gc.get_objects())


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
        assert until(lambda: runs_in_memory() == before)
    finally:
        gc.enable()
