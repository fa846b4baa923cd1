"""Behind a proxy with a password and an authority of its own, both ways: through the gate, and with a log-in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.real_cli.conftest import await_both, environment
from tests.standin import StandIn
from tests.support import server as servers
from tests.support.proxy import certificate, proxy_to, tls_before

HOSTS = {"ANTHROPIC": "api.anthropic.com", "OPENAI": "api.openai.com"}


@pytest.mark.parametrize("credentials", ["api-key", "login"])
def test_both_clis_reach_their_models_through_the_proxy_and_its_password_shows_nowhere(
    tmp_path: Path, credentials: str
) -> None:
    trusted, context = certificate(tmp_path, *HOSTS.values())
    env = {"SSL_CERT_FILE": str(trusted), "BRIDGE_ENV_FILE": str(tmp_path / "settings")}
    with StandIn() as standin:
        made = environment(standin)
        for name in ("ANTHROPIC_BASE_URL", "OPENAI_BASE_URL"):
            del made[name]
        if credentials == "login":
            (tmp_path / "auth.json").write_text(json.dumps({"OPENAI_API_KEY": "sk-made-up", "auth_mode": "apikey"}))
            env |= {"CODEX_HOME": str(tmp_path), "CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-made-up"}
            env |= {"BRIDGE_CLAUDE_CREDENTIALS": "login", "BRIDGE_CODEX_CREDENTIALS": "login"}
        with (
            tls_before(int(standin.url.rpartition(":")[2]), context) as port,
            proxy_to(port, login="bob:hid den") as proxy,
        ):
            # In the settings file, where operators write it: the server's own environment has none.
            (tmp_path / "settings").write_text(f"HTTPS_PROXY=bob:hid%20den@127.0.0.1:{proxy.port}\n")
            (tmp_path / "settings").chmod(0o600)
            with servers.running(tmp_path, {**made, **env}) as server:
                await_both(server)
                key = server.new_key()
                for path in ("/generate", "/generate-codex"):
                    answer = server.call("POST", path, {"userPrompt": "hi"}, key=key)
                    assert answer.status == 200, answer.body
                arguments = b"".join(
                    each.read_bytes() for each in Path("/proc").glob("[0-9]*/cmdline") if each.exists()
                )
                doctor = server.command("doctor").stdout
                log = server.admin("GET", "/logs").body
        seen = [arguments.decode(errors="replace"), doctor, log.decode(), *server.output]
        assert not [text for text in seen if "hid%20den" in text or "hid den" in text]
        assert f"HTTPS_PROXY: 127.0.0.1:{proxy.port}, with a user" in doctor
        reached = {line.split()[1] for line in proxy.lines}
        assert {f"{host}:443" for host in HOSTS.values()} <= reached
        assert len(standin.generations) == 2
