"""A claude process that has served a run serves the next one of its key, whatever the runs were."""

from __future__ import annotations

from typing import Any

import pytest

from tests.real_cli.conftest import Rig
from tests.real_cli.test_schemas import SCHEMA

RUNS = 8


def conversation(messages: int) -> dict[str, Any]:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[number % 2], "content": f"turn {number}"} for number in range(messages)]}


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("a prompt", conversation(1)),
        ("three messages", conversation(3)),
        ("seven messages", conversation(7)),
        ("forty-one messages", conversation(41)),
        ("a schema", {**conversation(1), "schema": SCHEMA}),
        ("an answer that is cut", {"userPrompt": "[[standin words=500]] x", "maxOutputTokens": 20}),
        ("an empty answer", {"userPrompt": "[[standin mode=empty]] x"}),
        ("a refusal", {"userPrompt": "[[standin mode=refusal]] x"}),
        ("an error", {"userPrompt": "[[standin status=529]] x"}),
        ("an error in mid-stream", {"userPrompt": "[[standin mode=stream_error]] x"}),
    ],
)
def test_a_key_that_asks_again_finds_its_process(rig: Rig, name: str, body: dict[str, Any]) -> None:
    key = rig.server.new_key(name.replace(" ", "-"))
    for _ in range(RUNS):
        rig.server.call("POST", "/generate", body, key=key, timeout_s=120)
    processes = {sent.headers["x-claude-code-session-id"] for sent in rig.standin.generations}
    assert len(rig.standin.generations) == RUNS
    # More than one where a busy host rewinds too slowly for the next run to wait.
    assert len(processes) <= RUNS // 2
