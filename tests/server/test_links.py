"""Links to images with a log-in: without the gate a CLI would have to be told them, so there are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.registry import PROVIDERS
from tests.engine.harness import install_fake
from tests.support import server as servers
from tests.unit.test_links import FIELDS, LINK, part


@pytest.mark.parametrize("name", PROVIDERS)
def test_with_a_login_a_link_is_refused_before_anything_is_spent(tmp_path: Path, name: str) -> None:
    row = PROVIDERS[name]
    env = {row.variable("COMMAND"): str(install_fake(tmp_path, f"fake_{name}")), row.variable("CREDENTIALS"): "login"}
    with servers.running(tmp_path, env) as server:
        key = server.new_key("ada")
        for api, path in {"chat": "chat/completions", "responses": "responses", "messages": "messages"}.items():
            for stream in (False, True):
                body = {FIELDS[api]: [{"role": "user", "content": [part(api, LINK)]}], "stream": stream}
                body |= {"model": row.default_model, "max_tokens": 100}
                refused = server.call("POST", f"/v1/{path}", body, key=key)
                assert (refused.status, refused.json["error"]["code"]) == (400, "invalid_request"), refused.body
                assert "with a log-in" in refused.json["error"]["message"]
                assert "data URL" in refused.json["error"]["hint"]
        log = server.admin("GET", "/logs")
        assert {(line["code"], line["costUsd"]) for line in log.json["logs"]} == {("invalid_request", 0)}
        assert "example.com" not in log.body.decode()


def test_requests_that_differ_in_their_link_are_no_loop(tmp_path: Path) -> None:
    env = {"BRIDGE_LOOP_REPEATS": "4", "BRIDGE_LOOP_WINDOW_SECONDS": "600"}
    with servers.running(tmp_path, env, demo=True) as server:
        key = server.new_key("ada")

        def ask(url: str) -> int:
            turns = [{"role": "user", "content": [part("chat", url)]}]
            return server.call(
                "POST", "/v1/chat/completions", {"model": "gpt-6-sol", "messages": turns}, key=key
            ).status

        assert [ask(f"{LINK}{number}") for number in range(6)] == [200] * 6
        assert [ask(LINK) for _ in range(5)] == [200] * 4 + [429]
