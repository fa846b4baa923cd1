"""The commands as people and scripts use them at a terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import click.testing
import pytest

from bridge.cli import main
from tests.support import server as servers
from tests.support.server import Server

ASK = {"userPrompt": "Hello"}
ESCAPE = "\x1b["


def at_a_terminal(server: Server, *arguments: str, **extra: str) -> str:
    """What a command prints where its output is a terminal."""
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-m", "bridge", *arguments]
    env = {**server.env, "TERM": "xterm", **extra}
    process = subprocess.Popen(argv, env=env, stdin=theirs, stdout=theirs, stderr=theirs, cwd=server.data_dir.parent)
    os.close(theirs)
    shown = b""
    while select.select([ours], [], [], 30)[0]:
        try:
            shown += os.read(ours, 65536)
        except OSError:
            break
    process.wait(30)
    os.close(ours)
    return shown.decode()


@pytest.fixture
def used(server: Server, key: str) -> Server:
    assert server.call("POST", "/generate", ASK, key=key).status == 200
    return server


COMMANDS = (("keys", "list"), ("usage",), ("logs",), ("capacity",))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_colours_are_for_terminals_and_not_where_they_are_unwanted(used: Server, command: tuple[str, ...]) -> None:
    assert ESCAPE in at_a_terminal(used, *command)
    assert ESCAPE not in at_a_terminal(used, *command, NO_COLOR="1")
    assert ESCAPE not in used.command(*command).stdout


@pytest.mark.parametrize(
    ("command", "closed", "status"),
    [
        ("restore -", "<&-", 1),
        ("restore --check -", "<&-", 1),
        ("credentials add one --provider claude", "<&-", 1),
        ("keys list", ">&-", 0),
        ("keys list", "<&- >&-", 0),
    ],
)
def test_what_its_caller_has_closed_is_nothing(
    server: Server, tmp_path: Path, command: str, closed: str, status: int
) -> None:
    argv = ["sh", "-c", f'exec "$0" -m bridge {command} {closed}', sys.executable]
    env = {**server.env, "BRIDGE_DATA_DIR": str(tmp_path / "data")}
    ended = subprocess.run(argv, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, "Traceback" in ended.stderr) == (status, False), ended.stderr
    assert ended.stdout == ""
    assert bool(ended.stderr) == (status == 1)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_that_shows_something_speaks_json(used: Server, command: tuple[str, ...]) -> None:
    assert isinstance(json.loads(used.command(*command, "--json").stdout), dict)


def test_tables_are_aligned_and_end_with_a_sum(used: Server) -> None:
    lines = used.command("usage").stdout.splitlines()
    ends = {len(line) for line in lines}
    assert len(ends) == 1, "the last column is right-aligned"
    assert lines[-1].startswith("total")


def test_a_prompt_or_name_cannot_drive_the_terminal(server: Server, key: str) -> None:
    model = {"userPrompt": "x", "model": "claude-odd"}
    server.call("POST", "/generate", model, key=key)
    assert "\x1b]" not in server.command("logs").stdout
    from bridge.cli.common import print_table

    runner = click.testing.CliRunner()
    shown = runner.invoke(click.Command("x", callback=lambda: print_table(["A"], [["\x1b]0;evil\x07\x9b31m\u202e"]])))
    assert shown.output.splitlines()[1] == "?]0;evil??31m?"


def test_capacity_ends_with_a_status_for_scripts(tmp_path: Path) -> None:
    import threading

    settings = {"BRIDGE_MAX_CONCURRENT": "1", "BRIDGE_QUEUE_LIMIT": "1", "DEMO_PACE_SECONDS": "0.5"}
    with servers.running(tmp_path, settings, demo=True) as server:
        key = server.new_key("ada")
        assert server.command("capacity").returncode == 0
        asked = [threading.Thread(target=server.call, args=("POST", "/generate", ASK), kwargs={"key": key})]
        asked[0].start()
        while len(server.admin("GET", "/runs").json["runs"]) < 1:
            pass
        busy = server.command("capacity", "--json")
        assert (busy.returncode, json.loads(busy.stdout)["verdict"]) == (10, "yellow")
        asked.append(threading.Thread(target=server.call, args=("POST", "/generate", ASK), kwargs={"key": key}))
        asked[1].start()
        while len(server.admin("GET", "/runs").json["runs"]) < 2:
            pass
        full = server.command("capacity")
        assert (full.returncode, full.stdout.split(":")[0]) == (20, "red")
        for run in server.admin("GET", "/runs").json["runs"]:
            server.admin("DELETE", f"/runs/{run['id']}")
        for thread in asked:
            thread.join()
    gone = server.command("capacity")
    assert (gone.returncode, gone.stdout) == (1, "")
    assert "does not run" in gone.stderr


def test_logs_can_be_followed(tmp_path: Path) -> None:
    with servers.running(tmp_path, demo=True) as server:
        key = server.new_key("ada")

        def ask() -> str:
            identity: str = server.call("POST", "/generate", ASK, key=key).json["id"]
            return identity

        ids = [ask(), ask()]
        argv = [sys.executable, "-m", "bridge", "logs", "-f", "--json"]
        process = subprocess.Popen(argv, env=server.env, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        shown = [json.loads(process.stdout.readline())["id"] for _ in ids]
        ids += [ask(), ask()]
        shown += [json.loads(process.stdout.readline())["id"] for _ in range(2)]
        process.terminate()
        process.wait(30)
        process.stdout.close()
    assert shown == ids, "each line once, oldest first"
    nothing = server.command("logs", "-f")
    assert nothing.returncode == 1


def test_exports_are_whole(tmp_path: Path) -> None:
    with servers.running(tmp_path, demo=True) as server:
        key = server.new_key("ada")
        for _ in range(3):
            server.call("POST", "/generate", ASK, key=key)
        online = server.command("export", "logs", "--format", "jsonl").stdout
        assert len(online.splitlines()) == 3
        assert server.command("export", "usage").stdout.splitlines()[1].split(",")[1] == "ada"
    file = tmp_path / "logs.csv"
    done = server.command("export", "logs", "-o", str(file))
    assert done.returncode == 0, done.stderr
    assert len(file.read_text().splitlines()) == 4
    assert file.stat().st_mode & 0o777 == 0o600
    assert server.command("export", "logs", "--format", "jsonl").stdout == online
    assert server.command("export", "usage", "-o", str(tmp_path / "no" / "x")).returncode == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_a_script_for_completion(server: Server, shell: str) -> None:
    done = server.command("completion", shell)
    assert done.returncode == 0
    assert "_CLI_BRIDGE_COMPLETE" in done.stdout


def complete(server: Server, *words: str) -> list[str]:
    env = {**server.env, "_CLI_BRIDGE_COMPLETE": "bash_complete"}
    env |= {"COMP_WORDS": " ".join(("cli-bridge", *words)), "COMP_CWORD": str(len(words))}
    code = "from bridge.cli import main; main(prog_name='cli-bridge')"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    return [line.split(",", 1)[1] for line in done.stdout.splitlines()]


def test_bash_completes_commands_and_names_of_keys(server: Server) -> None:
    server.new_key("complete-me")
    assert complete(server, "cap") == ["capacity"]
    assert complete(server, "keys", "rot") == ["rotate"]
    assert complete(server, "keys", "show", "comp") == ["complete-me"]
    assert complete(server, "keys", "show", "--js") == ["--json"]


def commands(command: click.Command, name: str = "cli-bridge") -> list[tuple[str, click.Command]]:
    inner = command.commands.items() if isinstance(command, click.Group) else []
    return [(name, command), *(found for n, c in inner for found in commands(c, f"{name} {n}"))]


@pytest.mark.parametrize(("name", "command"), commands(main), ids=lambda value: value if isinstance(value, str) else "")
def test_help_says_what_it_does_and_shows_it(name: str, command: click.Command) -> None:
    assert command.help
    assert "Examples:" in (command.epilog or "")
    assert name in (command.epilog or "")
    summary = command.get_short_help_str(limit=200)
    assert summary.endswith(".")
    assert len(summary) < 85


def test_the_list_of_commands_is_not_cut(server: Server) -> None:
    assert "..." not in server.command("--help").stdout.split("Commands:")[1].split("Examples:")[0]


def test_a_settings_file_can_be_named(tmp_path: Path, key_with: Callable[..., str]) -> None:
    file = tmp_path / "settings"
    file.write_text(f"BRIDGE_DATA_DIR={tmp_path}/elsewhere\nBRIDGE_TIMEZONE=Mars\n")
    env = {**servers.environment(tmp_path / "data", {}), "BRIDGE_ENV_FILE": str(file)}
    env.pop("BRIDGE_DATA_DIR")
    server = Server(None, tmp_path / "data", 0, env)  # type: ignore[arg-type]
    assert "BRIDGE_TIMEZONE" in server.command("keys", "list").stderr
    file.write_text(f"BRIDGE_DATA_DIR={tmp_path}/elsewhere\n")
    assert server.command("keys", "list").returncode == 0
    assert (tmp_path / "elsewhere" / "keys.json").exists()
    file.unlink()
    missing = server.command("keys", "list")
    assert (missing.returncode, "cannot be read" in missing.stderr) == (2, True)


def test_a_person_sees_what_is_being_worked_on_and_a_script_does_not(server: Server, tmp_path: Path) -> None:
    file = str(tmp_path / "b.tar.gz")
    assert "backup: writing b.tar.gz" in at_a_terminal(server, "backup", file)
    assert server.command("backup", file).stderr == ""
