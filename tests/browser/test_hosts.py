"""The pages where several hosts share a Redis."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import profile
from tests.support import server as servers
from tests.support.redis import redis_server
from tests.support.server import Server

ROW = {"type": "array", "minItems": 20, "items": {"type": "integer"}}
#: What a simulated CLI answers with 400 words, which takes two minutes.
LONG = {"userPrompt": "hello", "schema": {"type": "array", "minItems": 20, "items": ROW}}


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[list[Server]]:
    with redis_server(tmp_path / "redis") as redis, ExitStack() as started:
        redis.found()
        found = []
        for each in ("paris", "lyon"):
            (tmp_path / each).mkdir()
            env = {"BRIDGE_STORE_URL": redis.url, "BRIDGE_NODE": each, "DEMO_PACE_SECONDS": "1"} | {
                "BRIDGE_MAX_CONCURRENT": "3"
            }
            found.append(started.enter_context(servers.running(tmp_path / each, env, demo=True)))
        yield found


def test_each_host_is_shown_and_what_runs_on_another_is_stopped(chromium: Browser, pair: list[Server]) -> None:
    paris, lyon = pair
    key = paris.new_key("ada")
    accepted = paris.call("POST", "/generate", LONG, key=key, headers={"Prefer": "respond-async"})
    with profile(chromium, lyon) as visit:
        page = visit.admin()
        hosts = page.locator("section", has=page.get_by_role("heading", name="Hosts")).locator("li")
        expect(hosts).to_have_count(2)
        expect(hosts.first).to_contain_text("lyon")
        expect(hosts.filter(has_text="paris")).to_contain_text("1 of 3 slots in use")
        visit.go(page, "live")
        row = page.get_by_role("row").filter(has_text=accepted.json["id"])
        expect(row).to_contain_text("on paris")
        page.get_by_role("button", name="Stop the request of ada").click()
        expect(row).to_contain_text("ended")
    ended = paris.call("GET", f"/jobs/{accepted.json['id']}?wait=20", key=key).json
    assert ended["error"]["code"] == "cancelled"


def test_a_single_host_has_no_list_of_hosts(chromium: Browser, tmp_path: Path) -> None:
    with servers.running(tmp_path, demo=True) as server, profile(chromium, server) as visit:
        page = visit.admin()
        expect(page.get_by_role("heading", name="Alerts")).to_be_visible()
        expect(page.get_by_role("heading", name="Hosts")).to_be_hidden()
