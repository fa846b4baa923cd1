"""BRIDGE_TRACE_DIR with the real CLIs: all that was said in a run, of that run alone, and no secret."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.real_cli.conftest import FAKE_KEYS, Rig, environment
from tests.standin import StandIn
from tests.support import server as servers
from tests.unit.test_links import LINK, part

BOTH = pytest.mark.parametrize("path", ["/generate", "/generate-codex"])
#: who speaks to whom, in each run
WAYS = {
    ("bridge", "cli"),
    ("cli", "bridge"),
    ("cli", "gate"),
    ("gate", "provider"),
    ("provider", "gate"),
    ("provider", "cli"),
}


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Rig, Path]]:
    folder = tmp_path_factory.mktemp("traced")
    with StandIn() as standin:
        settings = {**environment(standin), "BRIDGE_TRACE_DIR": str(folder / "traces")}
        with servers.running(folder, settings) as server:
            yield Rig(server, standin, server.new_key()), folder / "traces"


def words_of(file: Path) -> dict[tuple[str, str], str]:
    """All that was said in a run, by who said it to whom."""
    found: dict[tuple[str, str], str] = {}
    for line in map(json.loads, file.read_text().splitlines()[1:]):
        way = (line["from"], line["to"])
        found[way] = found.get(way, "") + line["text"] + "\n"
    return found


@BOTH
def test_all_that_was_said_is_there_without_secrets(traced: tuple[Rig, Path], path: str) -> None:
    rig, folder = traced
    run = rig.ask(path, prompt="What is a heron?", systemPrompt="Be a zoologist.").json["id"]
    said = words_of(folder / f"{run}.jsonl")
    assert said.keys() >= WAYS
    for way in (("bridge", "cli"), ("cli", "gate")):
        assert "What is a heron?" in said[way]
        assert "Be a zoologist." in said[way]
    assert said["gate", "provider"].startswith(f"POST {rig.standin.url}")
    assert ": ***" in said["gate", "provider"]
    assert said["provider", "gate"].startswith("200")
    assert "message_stop" in said["provider", "cli"] or "response.completed" in said["provider", "cli"]
    if path == "/generate-codex":
        assert "max_output_tokens" in said["gate", "provider"]
    whole = (folder / f"{run}.jsonl").read_text()
    for secret in (*FAKE_KEYS.values(), "cbt_", "cbp_", rig.key):
        assert secret not in whole


@pytest.mark.parametrize("model", ["claude-sonnet-5-5", "gpt-6-sol"])
def test_no_cli_is_told_a_link_that_a_message_or_a_tool_has(traced: tuple[Rig, Path], model: str) -> None:
    rig, folder = traced
    earlier = set(folder.iterdir())
    result = {"type": "tool_result", "tool_use_id": "call_1", "content": [part("messages", LINK)]}
    call = {"type": "tool_use", "id": "call_1", "name": "see", "input": {}}
    turns = [
        {"role": "user", "content": [part("messages", LINK)]},
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result, part("messages", LINK)]},
    ]
    tools = [{"name": "see", "input_schema": {"type": "object"}}]
    answer = rig.ask("/v1/messages", model=model, max_tokens=2000, messages=turns, tools=tools)
    assert answer.status == 200, answer.body
    (file,) = set(folder.iterdir()) - earlier
    told = [way for way, said in words_of(file).items() if LINK.partition("?")[0] in said]
    assert told == [("gate", "provider")]


@BOTH
def test_runs_on_one_process_at_the_same_time_and_after_each_other_are_kept_apart(
    traced: tuple[Rig, Path], path: str
) -> None:
    rig, folder = traced
    names = [f"HERON-{number}-{path[-3:]}" for number in range(6)]
    with ThreadPoolExecutor(3) as pool:
        runs = list(
            pool.map(lambda name: rig.ask(path, prompt=f"{name} [[standin deltas=5 delay=0.05]]").json["id"], names)
        )
    for name, run in zip(names, runs, strict=True):
        whole = (folder / f"{run}.jsonl").read_text()
        assert name in whole
        assert not any(other in whole for other in names if other != name)


@BOTH
def test_a_failure_shows_what_the_provider_said(traced: tuple[Rig, Path], path: str) -> None:
    rig, folder = traced
    rig.ask(path, prompt="[[standin status=429 retry_after=100]] x")
    row = rig.server.admin("GET", "/logs?limit=1").json["logs"][0]
    said = words_of(folder / f"{row['id']}.jsonl")
    assert said["provider", "gate"].startswith("429")
    assert row["upstreamMessage"] in said["provider", "cli"]
