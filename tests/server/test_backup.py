"""Backups of a running server, and what is restored from them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from tests.support import server as servers
from tests.support.receiver import receiving
from tests.support.server import Server

ASK = {"userPrompt": "Hello"}


def figures(server: Server) -> dict[str, Any]:
    """What the ledger says of every key, as far as it may not change by a restart."""
    return {
        key["name"]: {window: key["usage"][window] for window in ("today", "thisMonth")}
        for key in server.admin("GET", "/keys").json["keys"]
    }


def elsewhere(server: Server, folder: Path) -> Server:
    """The commands of a server that is somewhere else, and does not run."""
    env = {**server.env, "BRIDGE_DATA_DIR": str(folder / "data")}
    return Server(None, folder / "data", 0, env)  # type: ignore[arg-type]


def test_a_backup_under_load_restores_every_answered_request(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    file = tmp_path / "backup.tar.gz"
    with servers.running(tmp_path / "one", {"DEMO_WARM": "2"}, demo=True) as server:
        keys = [server.new_key(f"key-{number}") for number in range(4)]
        stop = threading.Event()
        answered: list[str] = []

        def load(key: str) -> None:
            while not stop.is_set():
                answer = server.call("POST", "/generate", ASK, key=key)
                assert answer.status == 200
                answered.append(answer.json["id"])

        threads = [threading.Thread(target=load, args=(key,)) for key in keys]
        for thread in threads:
            thread.start()
        while len(answered) < 20:
            threading.Event().wait(0.05)
        before = list(answered)
        made = server.command("backup", str(file), "--json")
        assert made.returncode == 0, made.stderr
        stop.set()
        for thread in threads:
            thread.join()
    other = elsewhere(server, tmp_path / "two")
    done = other.command("restore", str(file))
    assert done.returncode == 0, done.stderr
    with servers.running(tmp_path / "two", demo=True) as restored:
        log = restored.admin("GET", "/logs/export?format=jsonl").body.splitlines()
        lines = {line["id"]: line for line in map(json.loads, log)}
        assert set(before) <= set(lines), "what was answered before the backup is in it"
        used = figures(restored)
        requests = sum(each["today"]["requests"] for each in used.values())
        assert len(before) <= requests <= len(lines)
        assert restored.admin("GET", "/overview").json["totals"]["reserved"]["requests"] == 0
        for key in keys:
            assert restored.call("GET", "/me", key=key).status == 200


def test_a_quiet_server_restored_elsewhere_has_an_equal_ledger(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    file = tmp_path / "backup.tar.gz"
    with servers.running(tmp_path / "one", demo=True) as server:
        key = server.new_key("ada", maxCostPerDay=3)
        for _ in range(5):
            assert server.call("POST", "/generate", ASK, key=key).status == 200
        server.admin("POST", "/keys/ada/reset-usage")
        assert server.call("POST", "/generate", ASK, key=key).status == 200
        assert server.command("backup", str(file)).returncode == 0
        before, history = figures(server), server.admin("GET", "/usage").json
        logs, audit = server.admin("GET", "/logs").json, server.admin("GET", "/audit").json
        assert server.admin("GET", "/overview").json["backup"]["lastGoodBytes"] == file.stat().st_size
        assert server.command("restore", str(file)).returncode == 1, "not while a server has the folder"
    other = elsewhere(server, tmp_path / "two")
    assert other.command("restore", str(file)).returncode == 0
    with servers.running(tmp_path / "two", demo=True) as restored:
        assert figures(restored) == before
        assert restored.admin("GET", "/usage").json == history
        assert restored.admin("GET", "/logs").json == logs
        assert restored.admin("GET", "/audit").json == audit
        assert restored.call("POST", "/generate", ASK, key=key).status == 200


def test_dated_backups_are_kept_up_to_a_number(tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    for day in range(1, 6):
        (folder / f"cli-bridge-2026010{day}T000000Z.tar.gz").write_bytes(b"old")
    (folder / "notes.tar.gz").write_bytes(b"mine")
    with servers.running(tmp_path, demo=True) as server:
        made = json.loads(server.command("backup", "--keep", "3", "--json", str(folder)).stdout)
    assert made["removed"] == [f"cli-bridge-2026010{day}T000000Z.tar.gz" for day in (1, 2, 3)]
    names = sorted(path.name for path in folder.iterdir())
    assert names[:2] == ["cli-bridge-20260104T000000Z.tar.gz", "cli-bridge-20260105T000000Z.tar.gz"]
    assert names[-1] == "notes.tar.gz"
    assert len(names) == 4


def test_a_backup_goes_through_pipes(tmp_path: Path) -> None:
    def piped(settings: Server, *arguments: str, backup: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        argv = [sys.executable, "-m", "bridge", *arguments]
        return subprocess.run(argv, env=settings.env, cwd=tmp_path, input=backup, capture_output=True, timeout=60)

    with servers.running(tmp_path, demo=True) as server:
        key = server.new_key()
        made = piped(server, "backup", "-")
        assert made.returncode == 0, made.stderr
        assert server.admin("GET", "/overview").json["backup"]["lastGoodBytes"] == len(made.stdout)
        # Not beside a server, and that is said before anything has come through the pipe.
        argv = [sys.executable, "-m", "bridge", "restore", "-"]
        with subprocess.Popen(argv, env=server.env, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as early:
            assert early.stderr is not None
            refused = early.stderr.read()
        assert b"is in use" in refused
    (tmp_path / "two").mkdir()
    other = elsewhere(server, tmp_path / "two")
    checked = piped(other, "restore", "--check", "-", backup=made.stdout)
    assert (checked.returncode, b"is whole" in checked.stdout) == (0, True), checked.stderr
    assert not other.data_dir.exists(), "a check leaves nothing"
    cut = piped(other, "restore", "-", backup=made.stdout[:-100])
    assert (cut.returncode, b"Traceback" in cut.stderr) == (1, False), cut.stderr
    restored = piped(other, "restore", "-", backup=made.stdout)
    assert restored.returncode == 0, restored.stderr
    with servers.running(tmp_path / "two", demo=True) as again:
        assert again.call("POST", "/generate", ASK, key=key).status == 200


def test_a_backup_that_fails_says_why_and_raises_an_alert(tmp_path: Path) -> None:
    with receiving() as receiver:
        settings = {"BRIDGE_ALERT_WEBHOOK": receiver.url}
        with servers.running(tmp_path, settings, demo=True) as server:
            failed = server.command("backup", str(tmp_path / "no-such-folder" / "b.tar.gz"))
            assert failed.returncode == 1
            assert "No such file" in failed.stderr
            assert server.admin("GET", "/overview").json["backup"]["lastFailure"]["error"]
        # The next look around is at the next start at the latest.
        with servers.running(tmp_path, settings, demo=True) as again:
            post = receiver.next()
            assert (post["kind"], "No such file" in post["message"]) == ("backup_failed", True)
            assert again.command("backup", str(tmp_path / "b.tar.gz")).returncode == 0
            assert again.admin("GET", "/overview").json["backup"]["lastFailure"] is None


def test_what_only_commands_on_this_host_may_ask_is_not_for_the_admin_key(tmp_path: Path) -> None:
    with servers.running(tmp_path, demo=True) as server:
        for method, path, body in (
            ("GET", "/snapshot", None),
            ("POST", "/backups", {"bytes": 1}),
            ("POST", "/import", {"keys": []}),
        ):
            assert server.admin(method, path, body).status == 404
            assert server.call(method, f"/admin{path}", body).status == 401


def test_a_damaged_folder_can_be_replaced_by_a_backup(tmp_path: Path) -> None:
    file = tmp_path / "b.tar.gz"
    with servers.running(tmp_path, demo=True) as server:
        key = server.new_key("ada")
        assert server.command("backup", str(file)).returncode == 0
    (server.data_dir / "usage.json").write_text("{")
    shutil.rmtree(server.data_dir / "logs")
    assert server.command("keys", "list").returncode == 1
    assert server.command("restore", str(file)).returncode == 0
    with servers.running(tmp_path, demo=True) as again:
        assert again.call("POST", "/generate", ASK, key=key).status == 200
