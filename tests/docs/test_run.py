"""`./run`: what it starts, and where it finds the CLIs. On a checkout of stand-ins: nothing is installed."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: Stands for cli-bridge: says how it was called, and what it finds.
PROGRAM = """#!/bin/sh
echo "called: $*"
echo "claude: $(command -v claude)"
"""
#: Stands for tests/real_cli/install.py: makes the CLIs where npm would have put them, or fails.
INSTALL = """import os, pathlib, sys
if "FAILS" in os.environ:
    sys.exit("error: no network")
pathlib.Path(os.environ["FOLDER"]).mkdir(parents=True, exist_ok=True)
home = pathlib.Path(os.environ["CLIS"])
for name in ("claude", "codex"):
    (home / name).mkdir(parents=True, exist_ok=True)
    (home / name / name).write_text("#!/bin/sh\\n")
    (home / name / name).chmod(0o755)
    print(f"BRIDGE_{name.upper()}_COMMAND='{home / name / name}'")
"""


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def folder(home: Path) -> Path:
    """Where the CLIs of this lock file lie."""
    digest = hashlib.sha256((ROOT / "deploy/clis/package-lock.json").read_bytes()).hexdigest()
    return home / ".cache/cli-bridge" / f"clis-{digest[:16]}"


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Calls `./run` in a checkout whose Python parts are installed, on a machine without CLIs."""
    checkout, tools = tmp_path / "check out", tmp_path / "tools"
    script(checkout / "run", (ROOT / "run").read_text())
    script(checkout / "tests/real_cli/install.py", INSTALL)
    script(checkout / ".venv/bin/cli-bridge", PROGRAM)
    (checkout / ".venv/bin/python").symlink_to(sys.executable)
    for name in ("pyproject.toml", "deploy/python/requirements.txt", "deploy/clis/package-lock.json"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, checkout / name)
    (checkout / ".venv/.installed-requirements").touch()
    script(tools / "npm", "#!/bin/sh\n")
    script(checkout / "benchmarks/gate.py", '"""As `./run bench gate [--rounds 200]`."""\n')
    script(checkout / "benchmarks/soak.py", '"""\n    ./run bench soak\n    ./run bench soak --hostile\n"""\n')
    needed = ("sh", "dirname", "sha256sum", "cut", "printenv", "grep", "sed", "id", "sort", "python3")
    for name in needed:
        found = sys.executable if name == "python3" else shutil.which(name)
        assert found is not None
        (tools / name).symlink_to(found)

    def call(*arguments: str, npm: bool = True, env_file: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        if not npm:
            (tools / "npm").unlink()
        if env_file:
            (checkout / ".env").write_text(env_file)
        clis = str(tmp_path / "c l i s")
        own = {"PATH": str(tools), "HOME": str(tmp_path), "CLIS": clis, "FOLDER": str(folder(tmp_path)), **env}
        return subprocess.run([checkout / "run", *arguments], env=own, capture_output=True, text=True, timeout=60)

    return call


def test_run_alone_installs_the_clis_and_serves(run: Run, tmp_path: Path) -> None:
    done = run()
    assert done.returncode == 0, done.stderr
    assert "installing Claude Code and Codex" in done.stderr
    assert done.stdout.splitlines() == ["called: serve", f"claude: {tmp_path / 'c l i s' / 'claude' / 'claude'}"]


def test_clis_that_are_there_are_used_by_every_command(run: Run, tmp_path: Path) -> None:
    folder(tmp_path).mkdir(parents=True)
    for arguments in (["serve", "--port", "8080"], ["keys", "list"]):
        done = run(*arguments)
        assert done.stderr == ""
        assert done.stdout.splitlines() == [
            f"called: {' '.join(arguments)}",
            f"claude: {tmp_path / 'c l i s' / 'claude' / 'claude'}",
        ]


def test_other_commands_install_no_clis(run: Run) -> None:
    done = run("keys", "list")
    assert (done.stdout.splitlines(), done.stderr) == (["called: keys list", "claude: "], "")


@pytest.mark.parametrize("where", ["environment", "file"])
def test_clis_that_the_settings_name_are_left_to_them(run: Run, where: str) -> None:
    named = {"BRIDGE_CLAUDE_COMMAND": "/usr/bin/true", "BRIDGE_CODEX_COMMAND": "/usr/bin/true"}
    file = "".join(f"{name}={value}\n" for name, value in named.items())
    done = run(**named) if where == "environment" else run(env_file=file)
    assert (done.stdout.splitlines()[0], done.stderr) == ("called: serve", "")


def test_without_npm_it_says_so_and_goes_on(run: Run) -> None:
    done = run(npm=False)
    assert "without npm, the CLIs are not installed" in done.stderr
    assert "called: serve" in done.stdout


def test_clis_that_cannot_be_installed_are_no_reason_not_to_serve(run: Run) -> None:
    done = run(FAILS="yes")
    assert "error: no network" in done.stderr
    assert "going on without the CLIs" in done.stderr
    assert "called: serve" in done.stdout


@pytest.mark.parametrize("arguments", [[], ["--help"], ["gat"], ["gate soak"], ["*"]])
def test_bench_without_the_name_of_a_benchmark_names_them(run: Run, arguments: list[str]) -> None:
    done = run("bench", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "run: which benchmark? One of: gate soak\n"


@pytest.mark.parametrize("argument", ["help", "--help", "-h"])
def test_help_says_what_there_is(run: Run, argument: str) -> None:
    done = run(argument)
    assert done.returncode == 0
    for command in ("./run serve", "./run demo", "./run test", "./run bench", "./run lock", "./run link"):
        assert command in done.stdout
    assert os.linesep + "set -eu" not in done.stdout
