"""Words of one run never reach the model in another, whoever asked for it and however hot the processes are."""

from __future__ import annotations

import json
import random
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.real_cli.conftest import Rig, everything

KEYS, RUNS, AT_ONCE = 5, 150, 8
_SECRET = re.compile(r"SECRET-\d+-[a-z]+-\d+")


def request(owner: int, number: int, chance: random.Random) -> tuple[str, dict[str, Any]]:
    """A request with secrets of its own in each place that takes words; every kind of way through a process."""

    def secret(place: str) -> str:
        return f"SECRET-{owner}-{place}-{number}"

    messages: list[dict[str, str]] = []
    for turn in range(chance.choice((0, 0, 1, 3))):
        messages.append({"role": "user", "content": f"earlier {turn} {secret('history')}"})
        messages.append({"role": "assistant", "content": f"said {turn} {secret('history')}"})
    messages.append({"role": "user", "content": f"say hello {secret('prompt')}"})
    body: dict[str, Any] = {"messages": messages, "maxOutputTokens": chance.choice((64, 500, 2000))}
    if chance.random() < 0.7:
        body["systemPrompt"] = f"be brief {secret('system')}"
    path = chance.choice(("/generate", "/generate-codex"))
    if path == "/generate" and chance.random() < 0.3:
        body["model"] = chance.choice(("claude-haiku-4-5", "claude-opus-5-5"))
    return path, body


@pytest.mark.timeout(300)
def test_no_request_to_a_model_has_a_word_of_another_run(rig: Rig) -> None:
    chance = random.Random(4711)
    keys = [rig.server.new_key(f"isolated-{owner}") for owner in range(KEYS)]
    asked = []
    for number in range(RUNS):
        owner = chance.randrange(KEYS)
        asked.append((owner, *request(owner, number, chance)))

    def ask(order: tuple[int, str, dict[str, Any]]) -> tuple[int, set[str], str]:
        owner, path, body = order
        answer = rig.server.call("POST", path, body, key=keys[owner], timeout_s=120)
        return answer.status, set(_SECRET.findall(json.dumps(body))), answer.body.decode()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(ask, asked))
    assert {status for status, _, _ in answers} == {200}
    said = [frozenset(_SECRET.findall(everything(sent))) for sent in rig.standin.generations]
    assert len(said) == RUNS
    assert sorted(map(sorted, said)) == sorted(sorted(secrets) for _, secrets, _ in answers)
    for _, own, answer in answers:
        assert set(_SECRET.findall(answer)) <= own
