"""`cli-bridge doctor`: each check finds what it is for, and says what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bridge.cli.doctor import examine
from bridge.ops.doctor import Finding, clis, data, host, network
from bridge.providers import machine_files
from bridge.registry import PROVIDERS
from bridge.settings import Settings
from tests.engine.harness import install_fake, until
from tests.support import server as servers
from tests.support.receiver import receiving
from tests.support.server import Server


def settings(folder: Path, **env: str) -> Settings:
    base = {"BRIDGE_DATA_DIR": str(folder / "data"), "BRIDGE_CLAUDE_COMMAND": "/nonexistent/claude"}
    return Settings.load({**base, "BRIDGE_CODEX_COMMAND": "/nonexistent/codex", **env})


def one(findings: Any, what: str) -> Finding:
    found = [finding for finding in findings if finding.what == what]
    assert found, what
    return next((finding for finding in found if finding.level != "ok"), found[0])


def test_every_check_has_a_level_and_every_problem_something_to_do(tmp_path: Path) -> None:
    findings = list(examine(settings(tmp_path)))
    assert {finding.level for finding in findings} <= {"ok", "warn", "fail"}
    assert [finding.what for finding in findings if finding.level != "ok" and not finding.todo] == []
    wanted = {
        "Python", "setpriv", "user", "user of the CLIs", "memory", "clock", "zone", "data folder", "disk",
        "settings", "admin key", "address", "tunnel", "alerts", "claude", "codex",
    }  # fmt: skip
    assert wanted <= {finding.what for finding in findings}
    assert not (tmp_path / "data").exists(), "it changes nothing"


def test_a_sound_bridge_passes_and_scripts_can_tell(tmp_path: Path) -> None:
    with servers.running(tmp_path, demo=True) as server:
        server.new_key("ada", maxCostPerDay=1)
        done = server.command("doctor", "--json")
        assert done.returncode == 1, "there is no CLI"
        findings = {row["what"]: row for row in json.loads(done.stdout)}
        assert findings["CLIs"]["level"] == "fail"
        assert findings["files"]["level"] == "ok"
        assert "in use by process" in findings["data folder"]["found"]
        assert findings["keys"]["level"] == "ok"
        assert findings["claude in the server"]["level"] == "ok"
        people = server.command("doctor").stdout
        assert people.splitlines()[-1].endswith("1 failed.")


@pytest.mark.parametrize(
    ("env", "what", "level", "word"),
    [
        ({}, "admin key", "ok", "first start"),
        ({"BRIDGE_ADMIN_KEY": "a" * 40}, "admin key", "warn", "guess"),
        ({"BRIDGE_ADMIN_KEY": "adminadminadmin1"}, "admin key", "warn", "guess"),
        ({"BRIDGE_ADMIN_KEY": "Zk3vQ9wX1mB7nR5tY2uI8oP4"}, "admin key", "ok", "24"),
        ({"BRIDGE_HOST": "0.0.0.0"}, "address", "warn", "outside"),
        ({"BRIDGE_HOST": "::1"}, "address", "ok", "this host"),
        ({"BRIDGE_SOCKET": "/run/x.sock"}, "address", "ok", "unix socket"),
        ({"BRIDGE_HOST": "0.0.0.0", "BRIDGE_TRUSTED_PROXY": "cloudflare"}, "proxy", "fail", "anybody"),
        ({"BRIDGE_CORS_ORIGINS": "*"}, "web pages", "warn", "every web page"),
        ({"BRIDGE_DEFAULT_MAX_COST_PER_DAY": "0"}, "default limits", "warn", "without end"),
        ({"BRIDGE_ALERT_WEBHOOK": "http://chat.example.com/x"}, "alerts", "warn", "TLS"),
        ({"BRIDGE_ALERT_WEBHOOK": "https://hooks.slack.com/x"}, "alerts", "ok", "slack"),
        ({"ALL_PROXY": "http://proxy:3128"}, "HTTPS_PROXY", "ok", "proxy:3128; reached without it: this host"),
        (
            {"https_proxy": "bob:pw@proxy:3128", "no_proxy": "x.test"},
            "HTTPS_PROXY",
            "ok",
            "user; reached without it: x.",
        ),
        ({"ANTHROPIC_AUTH_TOKEN": "sk-ant-x"}, "ANTHROPIC_AUTH_TOKEN", "warn", "set ANTHROPIC_API_KEY"),
    ],
)
def test_what_the_outside_can_reach(tmp_path: Path, env: dict[str, str], what: str, level: str, word: str) -> None:
    found = one(network.check(settings(tmp_path, **env), probe=False), what)
    assert (found.level, word in found.found) == (level, True), found


TUNNEL = """\
tunnel: x
ingress:
  - hostname: b.example.com
{rule}    service: {service}
  - service: http_status:404
"""


@pytest.mark.parametrize(
    ("service", "rule", "proxy", "level", "word"),
    [
        ("http://localhost:3456", "    path: ^/admin\n", "cloudflare", "ok", "/admin"),
        ("http://127.0.0.1:3456", "", "cloudflare", "warn", "open to everyone"),
        ("http://localhost:3456", "    path: ^/admin\n", "none", "warn", "one address"),
        ("http://localhost:8080", "", "cloudflare", "warn", "does not lead"),
        ("unix:/run/other.sock", "", "cloudflare", "warn", "does not lead"),
    ],
)
def test_the_tunnel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, service: str, rule: str, proxy: str, level: str, word: str
) -> None:
    (tmp_path / "config.yml").write_text(TUNNEL.format(service=service, rule=rule))
    monkeypatch.setattr(network, "TUNNELS", (tmp_path / "none.yml", tmp_path / "config.yml"))
    found = one(network.check(settings(tmp_path, BRIDGE_TRUSTED_PROXY=proxy), probe=False), "tunnel")
    assert (found.level, word in found.found) == (level, True), found


def test_the_templates_of_the_tunnel_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(__file__).resolve().parents[2] / "deploy" / "cloudflared"
    for name, env in (
        ("config.yml", {"BRIDGE_SOCKET": "/run/cli-bridge/bridge.sock"}),
        ("config-tcp.yml", {}),
    ):
        monkeypatch.setattr(network, "TUNNELS", (folder / name,))
        bridge = settings(tmp_path, BRIDGE_TRUSTED_PROXY="cloudflare", **env)
        assert one(network.check(bridge, probe=False), "tunnel").level == "ok"
        # What counts are the rules, not what the comments say about them.
        lines = (folder / name).read_text().splitlines()
        for changed, level in (
            ([line for line in lines if not line.lstrip().startswith("#")], "ok"),
            ([line.replace("path: /(admin|metrics)", "path: /metrics") for line in lines], "warn"),
        ):
            (tmp_path / name).write_text("\n".join(changed))
            monkeypatch.setattr(network, "TUNNELS", (tmp_path / name,))
            assert one(network.check(bridge, probe=False), "tunnel").level == level


def test_a_settings_file_that_others_can_read(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("")
    for mode, level in ((0o640, "fail"), (0o604, "fail"), (0o600, "ok")):
        file.chmod(mode)
        found = one(network.check(settings(tmp_path, BRIDGE_ENV_FILE=str(file)), probe=False), "settings")
        assert found.level == level, oct(mode)


def test_a_test_alert_is_sent_only_when_asked_for(tmp_path: Path) -> None:
    with receiving() as receiver:
        ours = settings(tmp_path, BRIDGE_ALERT_WEBHOOK=receiver.url)
        list(network.check(ours, probe=False))
        assert one(network.check(ours, probe=True), "test alert").level == "ok"
        assert receiver.next()["kind"] == "test"
        receiver.answers = [(404, {})]
        assert one(network.check(ours, probe=True), "test alert").level == "fail"
        assert receiver.posts.qsize() == 1


def test_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = servers.environment(tmp_path / "data", {})
    commands = Server(None, tmp_path / "data", 0, env)  # type: ignore[arg-type]
    ours = settings(tmp_path)
    assert one(data.check(ours), "data folder").level == "ok"
    assert commands.command("keys", "create", "ada", "--max-cost-per-day", "0").returncode == 0
    keys = one(data.check(ours), "keys")
    assert (keys.level, "ada" in keys.found) == ("warn", True)
    assert commands.command("keys", "set", "ada", "--max-cost-per-day", "1").returncode == 0
    assert one(data.check(ours), "keys").level == "ok"
    assert one(data.check(ours), "backup").level == "warn"
    assert commands.command("backup", str(tmp_path / "b.tar.gz")).returncode == 0
    assert one(data.check(ours), "backup").level == "ok"

    (tmp_path / "data").chmod(0o755)
    assert one(data.check(ours), "rights").todo.startswith("chmod 700")
    (tmp_path / "data").chmod(0o700)
    (tmp_path / "data" / "restoring").mkdir()
    assert one(data.check(ours), "restore").level == "fail"
    (tmp_path / "data" / "restoring").rmdir()
    whole = (tmp_path / "data" / "keys.json").read_text()
    (tmp_path / "data" / "keys.json").write_text(whole.replace('"schema": 1', '"schema": 2'))
    assert "newer version" in one(data.check(ours), "files").found
    (tmp_path / "data" / "keys.json").write_text("{")
    assert one(data.check(ours), "keys.json").level == "fail"
    monkeypatch.setattr(data, "LOW_DISK_BYTES", 2**62)
    assert one(data.check(ours), "disk").level == "warn"


def test_files_of_another_user_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = servers.environment(tmp_path / "data", {})
    Server(None, tmp_path / "data", 0, env).command("keys", "create", "ada")  # type: ignore[arg-type]
    real = Path.stat

    def strange(self: Path, **how: bool) -> os.stat_result:
        status = real(self, **how)
        return os.stat_result((*status[:4], 4242, *status[5:])) if self.name == "keys.json" else status

    monkeypatch.setattr(Path, "stat", strange)
    found = one(data.check(settings(tmp_path)), "rights")
    assert "keys.json" in found.found
    assert "chown" in found.todo


def test_memory_that_does_not_bear_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "total_bytes", lambda: 2**30)
    found = one(host.check(settings(tmp_path, BRIDGE_MAX_CONCURRENT="20")), "memory")
    assert found.level == "warn"
    assert "BRIDGE_MAX_CONCURRENT" in found.todo
    assert one(host.check(settings(tmp_path, BRIDGE_MAX_CONCURRENT="2")), "memory").level == "ok"


def test_a_clock_that_must_be_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.Clock, "now", lambda self: 0.0)
    assert one(host.check(settings(tmp_path)), "clock").level == "fail"


def test_a_cli_is_judged_without_spending_and_probed_when_asked(tmp_path: Path) -> None:
    command = {"BRIDGE_CLAUDE_COMMAND": str(install_fake(tmp_path, "fake_claude"))}
    found = list(clis.check(settings(tmp_path, **command, ANTHROPIC_API_KEY="sk-ant-made-up"), probe=False))
    assert one(found, "claude").level == "ok"
    assert one(found, "claude credential default").level == "ok"
    assert not [finding for finding in found if "probe" in finding.what]
    assert one(found, "codex").level == "warn"
    assert "CLIs" not in {finding.what for finding in found}, "one of the two is enough"
    # The simulated CLI asks no model; a real one is probed through the gate in tests/real_cli.
    logged_in = settings(tmp_path, **command, BRIDGE_CLAUDE_CREDENTIALS="login")
    probed = one(clis.check(logged_in, probe=True), "claude probe")
    assert probed.level == "ok", probed
    assert "cost <$0.0001" in probed.found


def test_what_the_machine_has_for_everybody_is_pointed_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_files, "FOLDERS", {"claude": tmp_path / "etc"})
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "managed-settings.json").write_text('{"hooks": {}}')
    found = one(clis.check(settings(tmp_path), probe=False), "claude on this machine")
    assert (found.level, "hooks" in found.found) == ("warn", True)


def test_odd_keys_and_subscriptions_are_pointed_out(tmp_path: Path) -> None:
    command = str(install_fake(tmp_path, "fake_claude"))
    odd = settings(tmp_path, BRIDGE_CLAUDE_COMMAND=command, ANTHROPIC_API_KEY="not-a-key")
    found = one(clis.check(odd, probe=False), "claude credential default")
    assert (found.level, "sk-ant-" in found.found, "not-a-key" in str(found)) == ("warn", True, False)
    login = settings(tmp_path, BRIDGE_CLAUDE_COMMAND=command, BRIDGE_CLAUDE_CREDENTIALS="login")
    found = one(clis.check(login, probe=False), "claude credentials")
    assert "several people" in found.todo


def test_a_cli_that_only_the_server_cannot_use_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    install_fake(folder, "fake_claude").rename(folder / "claude-of-a-command")
    env = {"BRIDGE_CLAUDE_COMMAND": "claude-of-a-command", "ANTHROPIC_API_KEY": "sk-ant-made-up"}
    with servers.running(tmp_path, env) as server:
        # It is on the PATH of the command alone.
        server.env["PATH"] = f"{folder}:{server.env['PATH']}"
        rows = json.loads(server.command("doctor", "--json").stdout)
        assert [row["level"] for row in rows if row["what"] == "claude"] == ["ok"]
        (seen,) = [row for row in rows if row["what"] == "claude in the server"]
        assert seen["level"] == "fail"
        assert "not installed" in seen["found"]
        (provider,) = [row for row in server.admin("GET", "/overview").json["providers"] if row["name"] == "claude"]
        assert seen["todo"].startswith(provider["hint"])
        assert "restart the server" in seen["todo"]


def test_a_cli_that_does_not_start_is_diagnosed_by_what_it_printed(tmp_path: Path) -> None:
    for name in PROVIDERS:
        command = str(install_fake(tmp_path, f"fake_{name}", missing="libssl.so.3"))
        ours = settings(tmp_path, **{PROVIDERS[name].variable("COMMAND"): command})
        found = one(clis.check(ours, probe=False), name)
        assert f"The {name} CLI does not start. It printed: {command}: error while loading" in found.found
        assert "libssl.so.3" in found.found


def test_a_cli_that_breaks_is_told_to_the_admin_and_not_to_a_client_and_serves_again(tmp_path: Path) -> None:
    command = install_fake(tmp_path, "fake_claude")
    env = {
        "BRIDGE_CLAUDE_COMMAND": str(command),
        "BRIDGE_CLAUDE_CREDENTIALS": "login",
        "BRIDGE_WARM_PROCESSES": "0",
    }
    with servers.running(tmp_path, env) as server:
        key = server.new_key("ada")
        ask = {"userPrompt": "hello"}
        assert server.call("POST", "/generate", ask, key=key).status == 200
        install_fake(tmp_path, "fake_claude", missing="libssl.so.3")
        for _ in range(2):
            refused = server.call("POST", "/generate", ask, key=key)
            assert (refused.status, refused.json["code"]) == (503, "cli_unavailable")
            assert b"libssl" not in refused.body
        assert until(lambda: not overview_of(server, "claude")["available"])
        assert "libssl.so.3" in overview_of(server, "claude")["said"]
        (seen,) = [row for row in json.loads(server.command("doctor", "--json").stdout) if row["what"] == "claude"]
        assert "libssl.so.3" in seen["found"]
        install_fake(tmp_path, "fake_claude")
        assert until(lambda: server.call("POST", "/generate", ask, key=key).status == 200, 70)
    assert any("libssl.so.3" in line for line in server.output)


def overview_of(server: Server, provider: str) -> Any:
    """What the overview says of a provider."""
    (seen,) = [each for each in server.admin("GET", "/overview").json["providers"] if each["name"] == provider]
    return seen


def test_the_tested_versions_are_those_that_are_installed(tmp_path: Path) -> None:
    pins = json.loads((Path(__file__).resolve().parents[2] / "deploy" / "clis" / "package.json").read_text())
    named = {name.split("/")[1].removesuffix("-code"): version for name, version in pins["dependencies"].items()}
    assert named == {name: row.tested for name, row in PROVIDERS.items()}


def test_wrong_settings_are_findings_like_others(tmp_path: Path) -> None:
    env = servers.environment(tmp_path / "data", {"BRIDGE_PORT": "many", "BRIDGE_QUEUE_LIMIT": "-1"})
    argv = [sys.executable, "-m", "bridge", "doctor"]
    done = subprocess.run([*argv, "--json"], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    rows = json.loads(done.stdout)
    assert done.returncode == 1
    assert [row["level"] for row in rows] == ["fail", "fail"]
    assert "BRIDGE_PORT" in rows[0]["found"] + rows[1]["found"]
    people = subprocess.run(argv, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert people.stdout.splitlines()[-1] == "0 ok, 0 to look at, 2 failed."


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"HTTPS_PROXY": "http://bob:hidden@proxy:port"}, "HTTPS_PROXY must be a proxy such as"),
        ({"all_proxy": "socks5://bob:hidden@proxy:1080"}, "ALL_PROXY must be an HTTP proxy"),
        ({"SSL_CERT_FILE": "/nonexistent.pem"}, "SSL_CERT_FILE must be a file with certificates"),
    ],
)
def test_a_way_to_the_models_that_is_none_stops_the_start(tmp_path: Path, env: dict[str, str], said: str) -> None:
    argv = [sys.executable, "-m", "bridge", "serve", "--port", "0"]
    made = servers.environment(tmp_path / "data", env)
    done = subprocess.run(argv, env=made, cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert said in done.stderr
    assert "hidden" not in done.stdout + done.stderr


def test_certificates_that_cannot_be_read_stop_the_start(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    with pytest.raises(AssertionError, match="SSL_CERT_FILE has certificates that cannot be read"):
        servers.start(tmp_path, {"SSL_CERT_FILE": str(tmp_path / "ca.pem")})


def test_the_start_says_what_is_set_in_vain(tmp_path: Path) -> None:
    with servers.running(tmp_path, {"NODE_EXTRA_CA_CERTS": "/x.pem", "OPENAI_ORG_ID": "org-hidden"}) as server:
        said = [line for line in server.output if "not heeded" in line]
    assert [line.split()[1] for line in said] == ["NODE_EXTRA_CA_CERTS", "OPENAI_ORG_ID"]
    assert "hidden" not in str(said)
