"""Words of one run never reach the model in another, whoever asked for it and however hot the processes are."""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.real_cli.conftest import Rig, await_both, environment, everything
from tests.standin import Recorded, StandIn
from tests.support import server as servers

KEYS, RUNS = 5, 500
_SECRET = re.compile(r"SECRET-\d+-[a-z]+-\d+")


def request(owner: int, number: int, chance: random.Random) -> tuple[str, dict[str, Any]]:
    """A request with secrets of its own in each place that takes words; every kind of way through a process."""

    def secret(place: str) -> str:
        return f"SECRET-{owner}-{place}-{number}"

    messages: list[dict[str, Any]] = []
    for turn in range(chance.choice((0, 0, 1, 3))):
        messages.append({"role": "user", "content": f"earlier {turn} {secret('history')}"})
        messages.append({"role": "assistant", "content": f"said {turn} {secret('history')}"})
    messages.append({"role": "user", "content": f"say hello {secret('prompt')}"})
    tools = chance.random() < 0.4
    if tools and chance.random() < 0.6:
        call = {"type": "tool_use", "id": f"toolu_{number}", "name": "look", "input": {"q": secret("call")}}
        result = {"type": "tool_result", "toolUseId": call["id"], "content": secret("result")}
        messages += [{"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
    body: dict[str, Any] = {"messages": messages, "maxOutputTokens": chance.choice((64, 500, 2000))}
    if chance.random() < 0.7:
        body["systemPrompt"] = f"be brief {secret('system')}"
    if tools:
        body["tools"] = [{"name": "look", "description": secret("tool"), "inputSchema": {"type": "object"}}]
    path = chance.choice(("/generate", "/generate-codex"))
    if path == "/generate" and chance.random() < 0.3:
        body["model"] = chance.choice(("claude-haiku-4-5", "claude-opus-5-5"))
    return path, body


@pytest.fixture
def roomy(tmp_path: Path) -> Iterator[Rig]:
    """A bridge that can keep processes of every key."""
    with StandIn() as standin:
        env = {**environment(standin), "BRIDGE_MAX_CONCURRENT": "8"}
        with servers.running(tmp_path, env) as server:
            await_both(server)
            yield Rig(server, standin, server.new_key())


def owner_of(sent: Recorded) -> str:
    (owner,) = {secret.split("-")[1] for secret in _SECRET.findall(everything(sent))}
    return owner


@pytest.mark.timeout(300)
def test_no_request_to_a_model_has_a_word_of_another_run_and_no_process_serves_two_keys(roomy: Rig) -> None:
    chance = random.Random(4711)
    keys = [roomy.server.new_key(f"isolated-{owner}") for owner in range(KEYS)]
    asked = [[request(owner, number, chance) for number in range(owner, RUNS, KEYS)] for owner in range(KEYS)]

    def ask_all(owner: int) -> list[tuple[int, set[str], str]]:
        found = []
        for path, body in asked[owner]:
            answer = roomy.server.call("POST", path, body, key=keys[owner], timeout_s=120)
            found.append((answer.status, set(_SECRET.findall(json.dumps(body))), answer.body.decode()))
        return found

    with ThreadPoolExecutor(KEYS) as pool:
        answers = [each for found in pool.map(ask_all, range(KEYS)) for each in found]
    assert {status for status, _, _ in answers} == {200}
    generations = roomy.standin.generations
    said = [frozenset(_SECRET.findall(everything(sent))) for sent in generations]
    assert len(said) == RUNS
    assert sorted(map(sorted, said)) == sorted(sorted(secrets) for _, secrets, _ in answers)
    for _, own, answer in answers:
        assert set(_SECRET.findall(answer)) <= own
    # A claude process names itself in each of its calls.
    owners: dict[str, set[str]] = defaultdict(set)
    by_claude = [sent for sent in generations if sent.api == "anthropic"]
    for sent in by_claude:
        owners[sent.headers["x-claude-code-session-id"]].add(owner_of(sent))
    assert all(len(each) == 1 for each in owners.values())
    assert len(owners) < len(by_claude) / 3, "most runs were on a process that had served others"
