"""A bridge on its first day, with the real CLIs: closed for want of an API key, and open as soon as there is one."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.real_cli.conftest import environment
from tests.standin import StandIn
from tests.support import server as servers

KEYS = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY")
#: provider -> its path, the vendor, a made-up API key
PROVIDERS = {
    "claude": ("/generate", "Anthropic", "sk-ant-first-minute-0001"),
    "codex": ("/generate-codex", "OpenAI", "sk-first-minute-0001"),
}


def test_without_an_api_key_everybody_reads_what_is_missing_and_with_one_there_is_an_answer(tmp_path: Path) -> None:
    with StandIn() as standin:
        env = {name: value for name, value in environment(standin).items() if name not in KEYS}
        with servers.running(tmp_path, env) as server:
            key = server.new_key()
            # Until the CLIs have started, it is them who are missing.
            until = time.monotonic() + 90
            for path, vendor, _ in PROVIDERS.values():
                answer = server.call("POST", path, {"userPrompt": "x"}, key=key)
                while answer.json["code"] != "no_credentials":
                    assert time.monotonic() < until, answer.body
                    time.sleep(0.2)
                    answer = server.call("POST", path, {"userPrompt": "x"}, key=key)
                assert answer.status == 503
                assert answer.json["error"] == f"The bridge has no API key of {vendor} yet."
                assert answer.json["hint"].startswith("Tell your admin")
            ready = server.call("GET", "/ready")
            assert (ready.status, ready.json["claude"], ready.json["codex"]) == (503, "unavailable", "unavailable")
            done = server.command("doctor", "--json")
            found = {each["what"]: each for each in json.loads(done.stdout)}
            assert "there is none" in found["claude credentials"]["found"]
            assert "credentials add" in found["codex credentials"]["todo"]
            assert standin.generations == []

            for name, (path, _, secret) in PROVIDERS.items():
                body = {"name": f"first-{name}", "provider": name, "apiKey": secret}
                assert server.admin("POST", "/credentials", body).status == 201
                assert server.admin("POST", f"/credentials/first-{name}/test").json["ok"] is True
                answer = server.call("POST", path, {"userPrompt": "hello"}, key=key, timeout_s=120)
                assert answer.status == 200, answer.body
            assert server.call("GET", "/ready").status == 200
