"""Searches of the web with a log-in: without the gate, which counts them, there are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bridge.registry import PROVIDERS
from tests.engine.harness import install_fake
from tests.support import server as servers

TOOL = {"type": "web_search_20250305", "name": "web_search"}
OWN = {"name": "weather", "input_schema": {"type": "object", "properties": {}}}


@pytest.mark.parametrize("name", PROVIDERS)
def test_with_a_login_nobody_searches(tmp_path: Path, name: str) -> None:
    row = PROVIDERS[name]
    env = {row.variable("COMMAND"): str(install_fake(tmp_path, f"fake_{name}")), row.variable("CREDENTIALS"): "login"}
    with servers.running(tmp_path, env) as server:
        key = server.new_key("ada", webSearch=True)
        body: dict[str, Any] = {"model": row.default_model, "messages": [{"role": "user", "content": "hi"}]}
        body |= {"max_tokens": 100, "tools": [TOOL]}
        refused = server.call("POST", "/v1/messages", body, key=key)
        assert (refused.status, refused.json["error"]["code"]) == (403, "web_search_not_allowed")
        answer = server.call("POST", "/v1/messages", {**body, "tools": [OWN, TOOL]}, key=key)
        assert (answer.status, answer.headers["x-bridge-ignored"]) == (200, "web_search")
