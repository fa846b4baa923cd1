"""What is in deploy/ fits together, and passes the checks that can be made without the machines it is for."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bridge.cli import main
from bridge.ops.serve import DRAIN_S, GRACEFUL_TIMEOUT_S, KEEP_ALIVE_S
from bridge.sandbox import host
from bridge.settings import TABLE

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
INSTALLER = (DEPLOY / "install.sh").read_text()
UNITS = [*sorted((DEPLOY / "systemd").glob("*")), DEPLOY / "cloudflared" / "cloudflared.service"]
TUNNELS = sorted((DEPLOY / "cloudflared").glob("*.yml"))
VARIABLES = {row["variable"] for row in TABLE}


def tool(name: str) -> str:
    """A checker of the dev extra, beside this Python."""
    found = shutil.which(name, path=str(Path(sys.executable).parent))
    assert found is not None, f"{name} is missing: ./run test installs it"
    return found


@pytest.mark.parametrize("script", ["deploy/install.sh", "run", ".ci/run"])
def test_shell_scripts_pass_shellcheck(script: str) -> None:
    done = subprocess.run([tool("shellcheck"), script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_dockerfile_passes_hadolint() -> None:
    done = subprocess.run([tool("hadolint"), "deploy/docker/Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_what_the_dockerfile_copies_is_in_its_context() -> None:
    text = (DEPLOY / "docker" / "Dockerfile").read_text()
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE):
        for source in re.sub(r"^--chmod=\S+ ", "", line).split()[:-1]:
            assert (ROOT / source).exists(), source
            assert source in allowed, f"{source} is not let into the context"
    assert set(re.findall(r"\bBRIDGE_\w+", text)) <= VARIABLES


def test_what_goes_from_the_checkout_into_the_image_can_be_read_there() -> None:
    last = (DEPLOY / "docker" / "Dockerfile").read_text().rpartition("\nFROM ")[2]
    copied = re.findall(r"^COPY (?!--from)(.+)$", last, re.MULTILINE)
    assert copied
    assert all(line.startswith("--chmod=0444 ") for line in copied), "a checkout may be its owner's alone"


def services(name: str) -> dict[str, Any]:
    """The services of a compose file."""
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "docker" / name).read_text())["services"]
    return found


def test_compose_keeps_the_bridge_to_itself() -> None:
    found = services("compose.yaml")
    assert set(found) == {"bridge", "cloudflared"}
    for service in found.values():
        assert "ports" not in service
        assert service["cap_drop"] == ["ALL"]
        assert service["read_only"] is True
        assert service["security_opt"] == ["no-new-privileges:true"]
    assert set(found["bridge"]["environment"]) <= VARIABLES
    assert int(found["bridge"]["stop_grace_period"].removesuffix("s")) > DRAIN_S


def test_the_tunnel_of_compose_finds_a_bridge_that_was_started_anew() -> None:
    bridge, tunnel = services("compose.yaml")["bridge"], services("compose.yaml")["cloudflared"]
    assert "network_mode" not in tunnel, "a network of the bridge's container ends with that"
    socket = Path(bridge["environment"]["BRIDGE_SOCKET"])
    assert f"service: unix:{socket}" in TUNNELS[1].read_text()
    for service in (bridge, tunnel):
        assert f"run:{socket.parent}" in service["volumes"]
    text = (DEPLOY / "docker" / "Dockerfile").read_text()
    assert f"install -d -m 0750 -o cli-bridge -g cli-bridge {socket.parent}\n" in text
    assert f"groupadd --gid {tunnel['group_add'][0]} cli-bridge" in text


def test_a_port_instead_of_the_tunnel_is_for_this_host_and_believes_nobody() -> None:
    (service,) = services("port.yaml").values()
    assert service["environment"]["BRIDGE_TRUSTED_PROXY"] == "none"
    assert service["environment"].keys() >= services("compose.yaml")["bridge"]["environment"].keys()
    assert service["ports"] == [f"127.0.0.1:3456:{service['environment']['BRIDGE_PORT']}"], "whatever .env says"


# --- the locks of Python packages ------------------------------------------------------------------------


@dataclass
class Locked:
    """One package of a lock: its version, and the hashes of its files."""

    version: str
    hashes: list[str]


def lock(name: str) -> dict[str, list[Locked]]:
    """Package -> what a file of deploy/python says of it: one entry, or one for each Python that takes another."""
    found: dict[str, list[Locked]] = {}
    text = re.sub(r"^#.*\n", "", (DEPLOY / "python" / name).read_text(), flags=re.MULTILINE)
    for line in text.replace("\\\n", "").splitlines():
        match = re.fullmatch(r"([a-z0-9-]+)==(\S+)(?: ; .+?)?((?: +--hash=sha256:[0-9a-f]{64})+)", line)
        assert match is not None, f"{name}: {line}"
        package, version, hashes = match.groups()
        found.setdefault(package, []).append(Locked(version, hashes.split()))
    return found


def wanted(*extras: str) -> list[Requirement]:
    """The dependencies of pyproject.toml, and those of some extras."""
    project = PYPROJECT["project"]
    lists = [project["dependencies"], *(project["optional-dependencies"][extra] for extra in extras)]
    return [Requirement(text) for each in lists for text in each]


@pytest.mark.parametrize(
    ("name", "extras"), [("requirements.txt", ["build"]), ("requirements-dev.txt", ["build", "dev", "top"])]
)
def test_a_lock_has_what_the_project_depends_on_in_versions_that_fit(name: str, extras: list[str]) -> None:
    locked = lock(name)
    for each in wanted(*extras):
        package = canonicalize_name(each.name)
        assert package in locked, f"{package} is not in {name}: ./run lock"
        for version in locked[package]:
            assert each.specifier.contains(version.version), f"{each}, but {name} has {version.version}: ./run lock"


def test_the_locks_agree() -> None:
    program, dev = lock("requirements.txt"), lock("requirements-dev.txt")
    assert {package: dev[package] for package in program} == program


def test_the_lock_has_what_builds_the_program() -> None:
    assert {Requirement(text).name for text in PYPROJECT["build-system"]["requires"]} <= set(lock("requirements.txt"))


def test_gunicorn_which_is_built_upon_has_an_upper_bound() -> None:
    gunicorn = next(each for each in wanted() if each.name == "gunicorn")
    assert any(bound.operator == "<" for bound in gunicorn.specifier)


@pytest.mark.parametrize("path", ["run", "deploy/install.sh", "deploy/docker/Dockerfile", "docs/install.md"])
def test_whatever_installs_the_program_takes_locked_packages_only(path: str) -> None:
    text = (ROOT / path).read_text()
    assert "--require-hashes" in text
    assert "--no-deps --no-build-isolation" in text
    assert "requirements.txt" in text or "set_up requirements" in text


# --- systemd ---------------------------------------------------------------------------------------------


def unit(path: Path) -> dict[str, list[str]]:
    """Key -> values of a unit, whatever the section. Keys of systemd may come several times."""
    found: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_units_name_only_what_the_installer_makes(path: Path) -> None:
    text = "\n".join(line for line in path.read_text().splitlines() if not line.startswith("#"))
    made = ("/opt/cli-bridge", "/etc/cli-bridge/env", "/var/lib/cli-bridge", "/var/backups/cli-bridge")
    for named in re.findall(r"(?<![\w:/])/(?:opt|etc|var|run)/[\w/.-]+", text):
        assert named.startswith((*made, "/etc/cloudflared")), named
        assert named.split("/")[2] in INSTALLER
    assert path.name in INSTALLER
    assert set(re.findall(r"\bBRIDGE_\w+", text)) <= VARIABLES


@pytest.mark.parametrize("path", [p for p in UNITS if p.suffix == ".service"], ids=lambda path: path.name)
def test_services_run_as_users_of_their_own_and_are_closed_in(path: Path) -> None:
    keys = unit(path)
    assert keys["User"][0] in ("cli-bridge", "cloudflared")
    assert "useradd --system --user-group" in INSTALLER
    for key in ("NoNewPrivileges", "PrivateTmp", "PrivateDevices", "ProtectKernelModules", "RestrictSUIDSGID"):
        assert keys[key] == ["yes"], key
    assert keys["ProtectSystem"] == ["strict"]
    assert keys["SystemCallFilter"][0] == "@system-service"
    assert keys["UMask"] == ["0077"]


def test_the_service_may_change_to_the_user_of_the_clis_and_nothing_more() -> None:
    keys = unit(DEPLOY / "systemd" / "cli-bridge.service")
    assert (
        keys["AmbientCapabilities"]
        == keys["CapabilityBoundingSet"]
        == ["CAP_SETUID CAP_SETGID CAP_KILL CAP_CHOWN CAP_DAC_OVERRIDE CAP_SYS_NICE"]
    )
    numbers = {"CAP_CHOWN": 0, "CAP_DAC_OVERRIDE": 1, "CAP_KILL": 5, "CAP_SETGID": 6, "CAP_SETUID": 7}
    numbers["CAP_SYS_NICE"] = 23
    mask = sum(1 << numbers[name] for name in keys["AmbientCapabilities"][0].split())
    assert host.may_change_users(mask)
    assert unit(DEPLOY / "systemd" / "cli-bridge-backup.service")["CapabilityBoundingSet"] == [""]


def test_the_service_gets_time_to_drain_and_survives_a_greedy_cli() -> None:
    keys = unit(DEPLOY / "systemd" / "cli-bridge.service")
    assert int(keys["TimeoutStopSec"][0]) > max(DRAIN_S, GRACEFUL_TIMEOUT_S)
    assert keys["KillMode"] == ["mixed"], "the CLIs are not told to stop before the server has drained"
    assert keys["OOMPolicy"] == ["continue"]
    assert keys["RestartPreventExitStatus"] == ["2"]


def test_every_command_that_a_unit_or_the_installer_runs_exists() -> None:
    texts = "\n".join([*(path.read_text() for path in UNITS), INSTALLER])
    run = set(re.findall(r"(?:bin/cli-bridge|\"\$COMMAND\"|sudo cli-bridge) ([a-z][a-z-]*)", texts))
    assert {"serve", "backup", "doctor", "keys", "link", "credentials", "clis"} == run
    assert run <= set(main.commands)


def test_the_settings_that_the_installer_writes_exist() -> None:
    assert set(re.findall(r"\b(?:BRIDGE|ANTHROPIC|OPENAI)_\w+", INSTALLER)) <= VARIABLES


def test_the_installer_can_be_asked_without_root_and_changes_nothing(tmp_path: Path) -> None:
    before = sorted(path.name for path in Path("/etc/systemd/system").glob("cli-bridge*"))
    for arguments in (["--dry-run"], ["--dry-run", "--tunnel", "b.example.com"], ["--dry-run", "--uninstall"]):
        done = subprocess.run([DEPLOY / "install.sh", *arguments], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "would run" in done.stdout
    assert sorted(path.name for path in Path("/etc/systemd/system").glob("cli-bridge*")) == before
    assert subprocess.run([DEPLOY / "install.sh", "--nonsense"], capture_output=True).returncode == 2
    evil = subprocess.run([DEPLOY / "install.sh", "--dry-run", "--tunnel", "x;id"], capture_output=True, text=True)
    assert (evil.returncode, "not a host name" in evil.stderr) == (1, True)


def part(first: str, last: str, folder: Path, setup: str = ":") -> str:
    """What a part of the installer, from one line to another, prints when it writes and works below a folder."""
    found = re.search(rf"^{re.escape(first)}.*?^{re.escape(last)}$", INSTALLER, re.MULTILINE | re.DOTALL)
    assert found is not None, first
    before = f"set -eu; PROGRAM={folder} SETTINGS={folder}/env DATA={folder}/data COMMAND=- SOURCE={ROOT} dry=''\n"
    before += f'KEPT_RELEASES=2; put() {{ cat; }}; run() {{ "$@"; }}; {setup}\n'
    done = subprocess.run(["sh", "-c", before + found[0]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def test_the_command_lets_ordinary_users_complete_and_nothing_else(tmp_path: Path) -> None:
    executable(tmp_path / "cli-bridge", part('put "$COMMAND"', "EOF", tmp_path))
    executable(tmp_path / "current/bin/cli-bridge", '#!/bin/sh\necho "$BRIDGE_ENV_FILE $*"\n')
    executable(tmp_path / "tools/id", '#!/bin/sh\n[ "$1" = -u ] && echo 1000 || echo "$NAME"\n')
    executable(tmp_path / "tools/setpriv", "#!/bin/sh\nexit 9\n")

    def call(*arguments: str, name: str = "ada", **more: str) -> tuple[int, str]:
        env = {"PATH": f"{tmp_path}/tools:/usr/bin:/bin", "NAME": name, **more}
        done = subprocess.run([tmp_path / "cli-bridge", *arguments], env=env, capture_output=True, text=True)
        return done.returncode, done.stdout or done.stderr

    assert call("completion", "bash") == (0, "/dev/null completion bash\n")
    assert call(_CLI_BRIDGE_COMPLETE="bash_complete") == (0, "/dev/null \n")
    assert call("keys", "list") == (1, "cli-bridge: run this with sudo\n")
    assert call() == (1, "cli-bridge: run this with sudo\n")
    assert call("keys", "list", name="cli-bridge") == (0, f"{tmp_path}/env keys list\n")


def test_a_release_that_cannot_be_installed_does_not_stay(tmp_path: Path) -> None:
    fails = f"{tmp_path}/python"
    executable(Path(fails), '#!/bin/sh\n[ "$2" = venv ] && mkdir -p "$3"/bin && cp "$0" "$3"/bin/python\n')
    with pytest.raises(AssertionError):
        part("release=", "trap - EXIT HUP INT TERM", tmp_path, f"step() {{ :; }}; python={fails}")
    assert list((tmp_path / "releases").iterdir()) == []


def test_only_whole_releases_count_as_ones_to_go_back_to(tmp_path: Path) -> None:
    for name in ("20260101T000000Z", "20260102T000000Z", "20260104T000000Z"):
        executable(tmp_path / "releases" / name / "bin/cli-bridge", "#!/bin/sh\n")
    (tmp_path / "releases/20260103T000000Z/bin").mkdir(parents=True)
    part('run ln -sfn "$release"', "fi", tmp_path, f"release={tmp_path}/releases/20260104T000000Z")
    assert sorted(path.name for path in (tmp_path / "releases").iterdir()) == ["20260102T000000Z", "20260104T000000Z"]
    assert (tmp_path / "current/bin/cli-bridge").exists()


def test_the_installed_pages_link_to_what_is_installed(tmp_path: Path) -> None:
    part('run install -d -m 0755 "$PROGRAM/docs"', "done", tmp_path)
    pages = sorted(tmp_path.glob("**/*.md"))
    assert tmp_path / "docs/install.md" in pages
    for page in pages:
        for link in re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page}: {link}"


# --- the tunnel --------------------------------------------------------------------------------------------

#: Fields as cloudflared reads them (config/configuration.go there).
TOP = {"tunnel", "credentials-file", "ingress", "originRequest", "metrics", "loglevel"}
RULE = {"hostname", "path", "service", "originRequest"}
ORIGIN = {"connectTimeout", "tlsTimeout", "tcpKeepAlive", "keepAliveConnections", "keepAliveTimeout", "access"}
ACCESS = {"required", "teamName", "audTag"}


def with_access(text: str) -> str:
    """The template as its comments say for Cloudflare Access: the second form of the first rule."""
    lines = text.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("  # - hostname"))
    end = next(n for n in range(start, len(lines)) if not lines[n].startswith("  #"))
    closed = next(n for n, line in enumerate(lines) if line.startswith("  - hostname"))
    opened = [line.replace("  # ", "  ", 1) for line in lines[start:end]]
    return "\n".join([*lines[:closed], *lines[closed + 3 : start], *opened, *lines[end:]])


def problems(config: dict[str, Any]) -> list[str]:
    """What `cloudflared tunnel ingress validate` would say (ingress/ingress.go there), and unknown fields."""
    found = [f"unknown {name}" for name in config.keys() - TOP]
    rules = config["ingress"]
    for number, rule in enumerate(rules):
        last = number == len(rules) - 1
        found += [f"unknown {name}" for name in rule.keys() - RULE]
        origin = rule.get("originRequest", {})
        found += [f"unknown {name}" for name in origin.keys() - ORIGIN]
        found += [f"unknown {name}" for name in origin.get("access", {}).keys() - ACCESS]
        catches_all = rule.get("hostname", "") in ("", "*") and not rule.get("path")
        if catches_all != last:
            found.append("the last rule, and only that, must catch everything")
        if not re.fullmatch(r"unix:/[^\s]+|http_status:[1-5]\d\d|https?://[^/\s]+", rule["service"]):
            found.append(f"service {rule['service']}")
        re.compile(rule.get("path", ""))
    return found


@pytest.mark.parametrize("path", TUNNELS, ids=lambda path: path.name)
@pytest.mark.parametrize("access", [False, True], ids=["closed", "access"])
def test_the_templates_of_the_tunnel_are_valid_and_guard_the_admin(path: Path, access: bool) -> None:
    text = path.read_text()
    config = yaml.safe_load(with_access(text) if access else text)
    assert problems(config) == []
    guard, api = config["ingress"][:2]
    assert guard["hostname"] == api["hostname"]
    for spelling in ("/admin", "/admin/", "/admin/keys", "//admin", "/./admin", "/x/../admin/keys", "/metrics"):
        assert re.search(guard["path"], spelling), spelling
    for free in ("/generate", "/generate-codex", "/me", "/health", "/v1/messages", "/jobs/run_1", "/"):
        assert not re.search(guard["path"], free), free
    if access:
        assert guard["originRequest"]["access"]["required"] is True
        assert guard["service"] == api["service"]
    else:
        assert guard["service"] == "http_status:404"
    idle = api["originRequest"]["keepAliveTimeout"]
    assert int(idle.removesuffix("s")) < KEEP_ALIVE_S, "else cloudflared uses connections that the bridge has closed"


def test_a_wrong_configuration_would_be_noticed() -> None:
    good = yaml.safe_load(TUNNELS[0].read_text())
    assert problems({**good, "ingres": []})
    assert problems({**good, "ingress": good["ingress"][:-1]})
    assert problems({**good, "ingress": [{"service": "http_status:404"}, *good["ingress"]]})
    assert problems({**good, "ingress": [{"hostname": "x", "service": "localhost:1"}, good["ingress"][-1]]})


def test_the_unit_and_the_template_mean_the_same_socket() -> None:
    socket = next(rule["service"] for rule in yaml.safe_load(TUNNELS[1].read_text())["ingress"][1:])
    assert socket == "unix:/run/cli-bridge/bridge.sock"
    assert "SOCKET=/run/cli-bridge/bridge.sock" in INSTALLER
    assert unit(DEPLOY / "systemd" / "cli-bridge.service")["RuntimeDirectory"] == ["cli-bridge"]
    assert unit(DEPLOY / "cloudflared" / "cloudflared.service")["SupplementaryGroups"] == ["cli-bridge"]
