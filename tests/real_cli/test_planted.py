"""Whatever a CLI adds, keeps or changes by a fault, on purpose planted here, the gate lets nothing of it leave."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.real_cli.conftest import Rig, await_both, environment
from tests.standin import StandIn
from tests.support import server as servers
from tests.support.planted_server import EXTRA

BOTH = ["/generate", "/generate-codex"]
#: what is planted, on which CLI, and what the gate says that differs
FAULTS = [
    ("MODEL", "/generate", "the model differs"),
    ("MODEL", "/generate-codex", "the model differs"),
    ("SYSTEM", "/generate", "the system text differs"),
    ("SYSTEM", "/generate-codex", "the system text differs"),
    ("EXTRA", "/generate", "the number of messages (3 instead of 1) differs"),
    ("EXTRA", "/generate-codex", "the number of messages (3 instead of 1) differs"),
    ("LIMIT", "/generate", "the output limit differs"),
    ("TOOL", "/generate", "the tools differs"),
    ("TOOL", "/generate-codex", "the tools differs"),
]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    yield from _planted(tmp_path_factory.mktemp("planted"), {})


def _planted(folder: Path, more: dict[str, str]) -> Iterator[Rig]:
    with StandIn() as standin:
        env = {**environment(standin), "BRIDGE_TRACE_DIR": str(folder / "traces"), **more}
        with servers.running(folder, env, module="tests.support.planted_server") as server:
            await_both(server)
            yield Rig(server, standin, server.new_key())


def refused(rig: Rig, path: str, **body: Any) -> str:
    """What the gate said of a run that has to fail there, and of nothing else: it cost nothing, and nothing left."""
    before = len(rig.standin.requests)
    answer = rig.ask(path, **body)
    assert (answer.status, answer.json["code"]) == (502, "cli_bad_output"), answer.body
    assert len(rig.standin.requests) == before
    row = rig.server.admin("GET", "/logs?limit=1").json["logs"][0]
    assert (row["costUsd"], row["outputTokens"], row["upstreamStatus"]) == (0, 0, None)
    trace = rig.server.data_dir.parent / "traces" / f"{row['id']}.jsonl"
    lines = [json.loads(line) for line in trace.read_text().splitlines()[1:]]
    said, *again = [line["text"] for line in lines if (line["from"], line["to"]) == ("gate", "cli")]
    assert all(each.startswith("401: second call") for each in again)
    return str(said.removeprefix("400: not the run's body, "))


@pytest.mark.parametrize(("fault", "path", "what"), FAULTS)
def test_a_fault_is_stopped_and_the_next_run_is_well(planted: Rig, fault: str, path: str, what: str) -> None:
    assert refused(planted, path, prompt=f"hello PLANT-{fault}", systemPrompt="Be brief.") == what
    for number in range(2):
        assert planted.ask(path, prompt=f"hello {number}").status == 200


def test_a_process_that_was_not_rewound_is_stopped_and_ended(planted: Rig) -> None:
    assert planted.ask("/generate", prompt="my secret PLANT-REWIND").status == 200
    assert refused(planted, "/generate", prompt="the next one") == "the number of messages (3 instead of 1) differs"
    for number in range(3):
        assert planted.ask("/generate", prompt=f"hello {number}").status == 200
    assert sum("my secret" in str(each.body) for each in planted.standin.requests) == 1


def test_an_agents_md_that_appears_does_not_leave(planted: Rig) -> None:
    (worker,) = psutil.Process(planted.server.process.pid).children()
    (codex,) = [each for each in worker.children(recursive=True) if "app-server" in each.cmdline()]
    file = Path(codex.environ()["CODEX_HOME"]) / "AGENTS.md"
    file.write_text(EXTRA)
    assert refused(planted, "/generate-codex", prompt="hello") in ("message 0 differs", "the system text differs")
    file.unlink()
    assert planted.ask("/generate-codex", prompt="hello").status == 200


def test_a_claude_md_that_a_cli_reads_does_not_leave(tmp_path: Path) -> None:
    for rig in _planted(tmp_path, {"PLANT_CLAUDE_MD": "1"}):
        refused(rig, "/generate", prompt="hello")
        assert any(EXTRA in file.read_text() for file in (tmp_path / "traces").iterdir()), "it was in the body"


def test_there_is_one_alert_for_each_cli_that_says_what_differed_and_not_the_text(planted: Rig) -> None:
    for path in BOTH:
        refused(planted, path, prompt="hello PLANT-MODEL")
    found = [each for each in planted.server.admin("GET", "/overview").json["alerts"] if each["kind"] == "gate_refused"]
    assert sorted(each["subject"] for each in found) == ["claude", "codex"]
    for each in found:
        assert "What differed: the model." in each["message"]
    assert EXTRA not in json.dumps(found)
    assert not any(EXTRA in str(each.body) for each in planted.standin.requests)
