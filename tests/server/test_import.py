"""Taking over the data folder of an ai-cli-bridge: keys go on working, caps go on counting."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import StoreError
from bridge.ops import import_ai_cli_bridge as importer
from bridge.ops.import_ai_cli_bridge import suggest, suggest_settings
from bridge.settings import Settings
from tests.support import server as servers
from tests.support.server import Server

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "ai-cli-bridge"
ALICE, BOB, ODD = "a" * 64, "b" * 64, "c" * 64
ASK = {"userPrompt": "Hello"}
KEPT_LONG = {"BRIDGE_LOG_RETENTION_DAYS": "36500"}


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """Their folder, which is only read."""
    shutil.copytree(FIXTURE / "data", tmp_path / "theirs" / "data")
    shutil.copy(FIXTURE / "env.example", tmp_path / "theirs" / ".env")
    for path in (tmp_path / "theirs" / "data").iterdir():
        path.chmod(0o400)
    return tmp_path / "theirs" / "data"


def run(server: Server, folder: Path) -> dict[str, Any]:
    done = server.command("import-ai-cli-bridge", str(folder), "--json")
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_keys_usage_and_logs_are_taken_over_and_a_second_time_changes_nothing(tmp_path: Path, theirs: Path) -> None:
    with servers.running(tmp_path, KEPT_LONG, demo=True) as server:
        report = run(server, theirs)
        assert report["keysAdded"] == ["alice", "bob-2"]
        assert len(report["refused"]) == 1
        assert "odd name" in report["refused"][0]
        assert (report["daysAdded"], report["daysRefused"], report["linesAdded"]) == (4, 1, 3)
        assert any("bob-2" in note and "dollars" in note for note in report["notes"])

        for name, raw in (("alice", ALICE), ("bob-2", BOB)):
            answer = server.call("POST", "/generate", ASK, key=raw)
            assert answer.status == 200, answer.body
            assert server.call("GET", "/me", key=raw).json["name"] == name
        assert server.call("GET", "/me", key=ODD).status == 401

        alice = server.admin("GET", "/keys/alice").json
        assert alice["createdAt"] == "2026-02-15T13:42:45.911Z"
        assert alice["ownLimits"] == {
            "maxRequestsPerDay": 50,
            "maxRequestsPerMonth": 1000,
            "maxTokensPerMonth": 2000000,
            "maxCostPerDay": 1.5,
            "maxCostPerMonth": 20.0,
        }
        bob = server.admin("GET", "/keys/bob-2").json
        assert bob["limits"]["maxCostPerDay"] == 0, "none, as it was there"
        assert bob["limits"]["maxConcurrent"] == 4, "and what that program did not have comes from the defaults"

        def state() -> tuple[Any, ...]:
            rows = [r for r in server.admin("GET", "/usage?days=400").json["usage"] if r["day"] < "2026-11-21"]
            return rows, server.admin("GET", "/logs?limit=100").json, server.admin("GET", "/keys").json

        before = state()
        again = run(server, theirs)
        assert (again["keysAdded"], again["keysPresent"]) == ([], ["alice", "bob-2"])
        assert (again["daysAdded"], again["daysPresent"]) == (0, 4)
        assert (again["linesAdded"], again["linesPresent"]) == (0, 3)
        assert state() == before
        history = {(row["key"], row["day"]): row for row in before[0]}
        assert history["alice", "2026-11-20"]["tokens"] == 27382
        assert history["alice", "2026-11-20"]["costUsd"] == 0.009
        assert history["bob-2", "2026-11-20"]["costUsd"] == 0, "an older file without dollars"
        july = history["alice", "2026-07-01"]
        assert (july["requests"], july["costUsd"]) == (45, 1.23), "a month whose days are gone"
        old = [line for line in before[1]["logs"] if line["api"] == "imported"]
        assert [line["id"] for line in old] == ["old_2a1b2c3d4e5f", "old_1a1b2c3d4e5f", "old_0a1b2c3d4e5f"]
        assert old[0]["userPrompt"] == "What is 2+2?"
        assert {entry["action"] for entry in server.admin("GET", "/audit").json["audit"]} == {"key_imported"}


def test_it_works_while_no_server_runs_and_old_lines_stay_out(tmp_path: Path, theirs: Path) -> None:
    with servers.running(tmp_path, demo=True) as server:
        pass
    report = run(server, theirs)
    assert report["keysAdded"] == ["alice", "bob-2"]
    people = server.command("import-ai-cli-bridge", str(theirs)).stdout
    assert "Keys: 0 taken over, 2 were here already." in people
    assert "BRIDGE_CLAUDE_DEFAULT_MODEL=claude-sonnet-4-20250514" in people
    assert "0123456789abcdef" not in people, "no secret is repeated"
    with servers.running(tmp_path, demo=True) as again:
        assert again.call("POST", "/generate", ASK, key=ALICE).status == 200


def test_a_name_that_is_taken_is_not_taken_over(tmp_path: Path, theirs: Path) -> None:
    with servers.running(tmp_path, KEPT_LONG, demo=True) as server:
        mine = server.new_key("alice")
        report = run(server, theirs)
        assert report["keysAdded"] == ["bob-2"]
        assert any(sentence.startswith("alice: ") for sentence in report["refused"])
        assert server.call("GET", "/me", key=mine).json["usage"]["thisMonth"]["requests"] == 0
        assert server.call("GET", "/me", key=ALICE).status == 401


BROKEN = {
    "keys that are no JSON": ("keys.json", "{"),
    "keys of another program": ("keys.json", '{"keys": []}'),
    "usage that is no JSON": ("usage.json", "nothing"),
    "usage of another program": ("usage.json", '{"usage": {"a": 5}}'),
    "logs of another program": ("logs.json", '{"logs": {}}'),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_damaged_folder_is_refused_as_a_whole(tmp_path: Path, theirs: Path, case: str) -> None:
    name, content = BROKEN[case]
    (theirs / name).unlink()
    (theirs / name).write_text(content)
    settings = Settings.load({"BRIDGE_DATA_DIR": str(tmp_path / "ours")})
    with pytest.raises(StoreError, match=name):
        importer.run(settings, theirs)
    assert not (tmp_path / "ours").exists()


def test_a_folder_without_keys_or_our_own_is_refused(tmp_path: Path) -> None:
    settings = Settings.load({"BRIDGE_DATA_DIR": str(tmp_path)})
    with pytest.raises(StoreError, match="data folder of cli-bridge itself"):
        importer.run(settings, tmp_path)
    with pytest.raises(StoreError, match=r"no keys\.json"):
        importer.run(settings, tmp_path.parent)


ODD_ENTRIES = {
    "requests": [-1, 1e30, "5", None, True],
    "tokens": [-1, 1e30, "5", None],
    "costUsd": [-1, float("nan"), float("inf"), "5", None],
}


def test_odd_figures_do_no_harm(tmp_path: Path, theirs: Path) -> None:
    sha = next(iter(json.loads((theirs / "keys.json").read_text())["keys"]))
    days = {}
    for field, values in ODD_ENTRIES.items():
        for value in values:
            days[f"2025-01-{len(days) + 1:02d}"] = {"requests": 1, "tokens": 1, "costUsd": 0.1, field: value}
    days |= {"2025-13-99": {"requests": 1}, "../../x": {"requests": 1}, "": {}, "2025-02-01": {"requests": 7}}
    (theirs / "usage.json").unlink()
    (theirs / "usage.json").write_text(json.dumps({"usage": {sha: {"daily": days, "monthly": {"x": {"tokens": 5}}}}}))
    with servers.running(tmp_path, demo=True) as server:
        run(server, theirs)
        rows = [r for r in server.admin("GET", "/usage?days=400").json["usage"] if r["day"].startswith("2025")]
    assert {row["day"] for row in rows} >= {"2025-02-01", "2025-01-03"}
    assert all(0 <= row["requests"] <= 7 and 0 <= row["costUsd"] <= 0.1 for row in rows)


def test_their_settings_as_ours() -> None:
    given = {
        "PORT": "3456",
        "RATE_LIMIT_WINDOW_MS": "30000",
        "RATE_LIMIT_MAX_REQUESTS": "30",
        "CORS_ORIGINS": "https://app.example.com/, https://b.example.com",
        "CLAUDE_DEFAULT_MODEL": "--help",
        "CLAUDE_TIMEOUT_MS": "120000",
        "CODEX_TIMEOUT_MS": "180000",
        "BRIDGE_ADMIN_KEY": "short",
        "GEMINI_DEFAULT_MODEL": "x",
    }
    suggestion = list(suggest_settings(given))
    settings = dict(line.split("=", 1) for line in suggestion if not line.startswith("#"))
    assert settings == {
        "BRIDGE_PORT": "3456",
        "BRIDGE_RATE_LIMIT_PER_MINUTE": "60",
        "BRIDGE_CORS_ORIGINS": "https://app.example.com,https://b.example.com",
        "BRIDGE_TIMEOUT_SECONDS": "180",
        "ANTHROPIC_API_KEY": "",
        "OPENAI_API_KEY": "",
    }
    Settings.load(settings)
    comments = "\n".join(line for line in suggestion if line.startswith("#"))
    for told in ("BRIDGE_CLAUDE_DEFAULT_MODEL must be", "shorter than 16", "GEMINI_DEFAULT_MODEL has no counterpart"):
        assert told in comments
    assert "short" not in settings.values()


def test_without_settings_of_theirs_nothing_is_suggested(tmp_path: Path) -> None:
    assert suggest(tmp_path / "data") == []
    assert any("every web page could call" in line for line in suggest_settings({}))


def test_it_says_how_far_it_is(tmp_path: Path, theirs: Path) -> None:
    said: list[str] = []
    importer.run(Settings.load({"BRIDGE_DATA_DIR": str(tmp_path / "ours")}), theirs, said.append)
    assert said[0] == "reading its files"
    assert said[1].startswith("0 of ")
    assert said[1].endswith(" keys, days and lines")
