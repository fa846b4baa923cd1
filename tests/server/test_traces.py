"""BRIDGE_TRACE_DIR of a real server: a file for each run while it is set, and a reminder that it is."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support import server as servers
from tests.support.server import Server


def ask(server: Server, key: str, prompt: str) -> None:
    assert server.call("POST", "/generate", {"userPrompt": prompt}, key=key).status == 200


def test_each_run_has_a_file_of_its_own_and_the_operator_is_reminded(tmp_path: Path) -> None:
    folder = tmp_path / "traces"
    with servers.running(tmp_path, {"BRIDGE_TRACE_DIR": str(folder)}, demo=True) as server:
        key = server.new_key("ada")
        for prompt in ("the first", "the second"):
            ask(server, key, prompt)
        ids = [line["id"] for line in server.admin("GET", "/logs").json["logs"]]
        assert sorted(path.stem for path in folder.iterdir()) == sorted(ids)
        newest = [json.loads(line) for line in (folder / f"{ids[0]}.jsonl").read_text().splitlines()]
        assert (newest[0]["run"], newest[0]["key"], newest[0]["provider"]) == (ids[0], "ada", "claude")
        told = [line["text"] for line in newest[1:] if (line["from"], line["to"]) == ("bridge", "cli")]
        said = [line["text"] for line in newest[1:] if (line["from"], line["to"]) == ("cli", "bridge")]
        assert "the second" in told[0]
        assert "stopReason" in said[-1]
        assert not any("the first" in line.get("text", "") for line in newest)
        (sentence,) = server.admin("GET", "/overview").json["problems"]
        assert sentence.startswith("BRIDGE_TRACE_DIR is set: what is said in each run is written there until ")
        finding = server.command("doctor").stdout
        assert "traces: BRIDGE_TRACE_DIR is set" in finding
        assert "2 runs in full" in finding
    assert sum("BRIDGE_TRACE_DIR is set" in line for line in server.output) == 1


def test_without_the_setting_nothing_is_written_and_nothing_said(tmp_path: Path) -> None:
    with servers.running(tmp_path, demo=True) as server:
        ask(server, server.new_key("ada"), "hello")
        assert server.admin("GET", "/overview").json["problems"] == []
        assert "traces" not in server.command("doctor").stdout
        assert [path.name for path in tmp_path.iterdir()] == ["data"]
