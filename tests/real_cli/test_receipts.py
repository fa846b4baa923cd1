"""What the log says of the provider: for the admin, never for a key holder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bridge.ops.doctor import clis
from bridge.settings import Settings
from tests.real_cli.conftest import Rig, environment

BOTH = pytest.mark.parametrize("path", ["/generate", "/generate-codex"])


def newest(rig: Rig) -> dict[str, Any]:
    row: dict[str, Any] = rig.server.admin("GET", "/logs?limit=1").json["logs"][0]
    return row


@BOTH
def test_the_models_time_and_what_was_added_make_up_the_whole(rig: Rig, path: str) -> None:
    assert rig.ask(path, prompt="[[standin header_delay=0.3 deltas=4 delay=0.1]] x").status == 200
    row = newest(rig)
    assert (row["upstreamStatus"], row["upstreamMessage"]) == (200, None)
    assert row["upstreamRequestId"]
    assert 600 <= row["modelMs"] <= row["durationMs"]
    assert row["modelMs"] + row["overheadMs"] + row["queuedMs"] == row["durationMs"]


@BOTH
@pytest.mark.parametrize("status", [400, 401, 429, 500])
def test_the_providers_own_words_are_in_the_log_and_nowhere_else(rig: Rig, path: str, status: int) -> None:
    answer = rig.ask(path, prompt=f"[[standin status={status}]] x")
    row = newest(rig)
    assert row["upstreamStatus"] == status
    assert row["upstreamMessage"]
    own = rig.server.call("GET", "/me/requests", key=rig.key).body.decode()
    for shown in (answer.body.decode(), own):
        assert "upstream" not in shown
        if status == 401:
            assert row["upstreamMessage"] not in shown
    found = rig.server.admin("GET", f"/logs?text={row['upstreamRequestId']}").json["logs"]
    assert [line["id"] for line in found] == [row["id"]]


@BOTH
def test_a_run_that_was_given_up_says_how_long_the_model_had(rig: Rig, path: str) -> None:
    rig.ask(path, prompt="[[standin mode=hang_mid]] x", timeoutSeconds=1)
    row = newest(rig)
    assert (row["code"], row["upstreamStatus"]) == ("timeout", 200)
    assert 500 <= row["modelMs"] <= row["durationMs"]


@BOTH
def test_a_second_attempt_adds_its_time(rig: Rig, path: str) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    rig.standin.script(header_delay=0.3)
    try:
        rig.ask(path, prompt="[[standin schema_bad=true]] x", schema=schema)
    finally:
        rig.standin.script()
    row = newest(rig)
    assert row["repairs"] == 1
    assert 600 <= row["modelMs"] <= row["durationMs"]


def test_the_probe_of_doctor_asks_each_model_once_through_the_gate(rig: Rig, tmp_path: Path) -> None:
    env = {name: value for name, value in environment(rig.standin).items() if name != "BRIDGE_WARM_PROCESSES"}
    found = list(clis.check(Settings.load({**env, "BRIDGE_DATA_DIR": str(tmp_path / "data")}), probe=True))
    probes = {each.what: each for each in found if each.what.endswith(" probe")}
    assert probes.keys() == {"claude probe", "codex probe"}
    assert all(
        each.level == "ok" and "cost " in each.found and "unknown" not in each.found for each in probes.values()
    ), probes
    assert len(rig.standin.generations) == 2
