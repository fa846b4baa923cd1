"""Alerts of a real server: raised once, posted, shown, and kept over a restart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import server as servers
from tests.support.receiver import Receiver, receiving
from tests.support.server import Server

ASK = {"userPrompt": "Hello"}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def ask(server: Server, key: str, times: int = 1) -> list[int]:
    return [server.call("POST", "/generate", ASK, key=key).status for _ in range(times)]


def test_a_key_is_alerted_once_at_each_level_and_a_restart_repeats_nothing(tmp_path: Path, receiver: Receiver) -> None:
    settings = {"BRIDGE_ALERT_WEBHOOK": receiver.url}
    with servers.running(tmp_path, settings, demo=True) as server:
        key = server.new_key("ada", maxRequestsPerDay=5)
        assert ask(server, key, 4) == [200] * 4
        first = receiver.next()
        assert (first["kind"], first["subject"], first["source"]) == ("key_limit", "ada", "cli-bridge")
        assert first["message"] == "The key ada has used 80 % of its requests per day: 4 of 5."
        assert ask(server, key, 3) == [200, 429, 429]
        assert "used up its requests per day: 5 of 5" in receiver.next()["message"]
        shown = server.admin("GET", "/overview").json["alerts"]
        assert [alert["kind"] for alert in shown] == ["key_limit", "key_limit"]
        assert set(shown[0]) == {"kind", "subject", "message", "at"}
        assert receiver.url not in server.admin("GET", "/overview").body.decode()
    with servers.running(tmp_path, settings, demo=True) as again:
        assert ask(again, key) == [429]
        # Another key's alert comes, so whatever the first one's refusal might have raised would be here, too.
        other = again.new_key("bob", maxRequestsPerDay=1)
        assert ask(again, other) == [200]
        assert receiver.next()["subject"] == "bob"
        assert receiver.posts.empty()
        assert len(again.admin("GET", "/overview").json["alerts"]) == 3
    assert sum("alert: " in line for line in again.output) == 1


def test_a_post_that_fails_is_tried_again(tmp_path: Path, receiver: Receiver) -> None:
    receiver.answers = [(500, {})]
    with servers.running(tmp_path, {"BRIDGE_ALERT_WEBHOOK": receiver.url}, demo=True) as server:
        ask(server, server.new_key("ada", maxRequestsPerDay=1))
        assert receiver.next() == receiver.next()
        assert receiver.posts.empty()


def test_what_was_not_posted_is_posted_after_the_next_start(tmp_path: Path, receiver: Receiver) -> None:
    receiver.answers = [(503, {"Retry-After": "3000"})]
    settings = {"BRIDGE_ALERT_WEBHOOK": receiver.url}
    with servers.running(tmp_path, settings, demo=True) as server:
        ask(server, server.new_key("ada", maxRequestsPerDay=1))
        first = receiver.next()
    with servers.running(tmp_path, settings, demo=True):
        assert receiver.next() == first
    with servers.running(tmp_path, settings, demo=True) as third:
        ask(third, third.new_key("bob", maxRequestsPerDay=1))
        assert receiver.next()["subject"] == "bob"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_no_redirect_is_followed(tmp_path: Path, receiver: Receiver, status: int) -> None:
    receiver.answers = [(status, {"Location": receiver.url.replace("/hook", "/elsewhere")})]
    with servers.running(tmp_path, {"BRIDGE_ALERT_WEBHOOK": receiver.url}, demo=True) as server:
        ask(server, server.new_key("ada", maxRequestsPerDay=1))
        receiver.next()
        ask(server, server.new_key("bob", maxRequestsPerDay=1))
        path, _, body = receiver.posts.get(timeout=30)
        assert (path, body["subject"]) == ("/hook?token=abc", "bob"), "the first one was given up, not sent elsewhere"


def test_a_webhook_that_hangs_holds_no_request_up(tmp_path: Path) -> None:
    import socket

    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(1)
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/"
        with servers.running(tmp_path, {"BRIDGE_ALERT_WEBHOOK": url}, demo=True) as server:
            key = server.new_key("ada", maxRequestsPerDay=10)
            assert ask(server, key, 10) == [200] * 10
            assert server.admin("GET", "/overview").json["alerts"][0]["kind"] == "key_limit"


def test_the_spend_of_all_keys_and_a_loop(tmp_path: Path, receiver: Receiver) -> None:
    settings = {
        "BRIDGE_ALERT_WEBHOOK": receiver.url,
        "BRIDGE_ALERT_COST_PER_DAY": "0.000001",
        "BRIDGE_ALERT_FORMAT": "slack",
        "BRIDGE_LOOP_REPEATS": "2",
        "BRIDGE_LOOP_WINDOW_SECONDS": "60",
    }
    with servers.running(tmp_path, settings, demo=True) as server:
        key = server.new_key("ada")
        assert ask(server, key, 3) == [200, 200, 429]
        assert "All keys together have spent" in receiver.next()["text"]
        assert "The key ada: This key is paused" in receiver.next()["text"]
        assert receiver.posts.empty()


def test_a_cli_that_was_never_set_up_is_no_alert(tmp_path: Path, receiver: Receiver) -> None:
    with servers.running(tmp_path, {"BRIDGE_ALERT_WEBHOOK": receiver.url}) as server:
        key = server.new_key("ada")
        assert ask(server, key, 6) == [503] * 6
        assert server.admin("GET", "/overview").json["alerts"] == []


def test_a_cli_that_worked_before_and_is_gone_is_one(tmp_path: Path, receiver: Receiver) -> None:
    settings = {"BRIDGE_ALERT_WEBHOOK": receiver.url}
    with servers.running(tmp_path, settings, demo=True) as server:
        assert ask(server, server.new_key("ada")) == [200]
    with servers.running(tmp_path, settings):
        posts = [receiver.next(), receiver.next()]
    assert {(post["kind"], post["subject"]) for post in posts} == {
        ("provider_down", "claude"),
        ("provider_down", "codex"),
    }
    with servers.running(tmp_path, settings) as again:
        assert ask(again, again.new_key("bob", maxRequestsPerDay=1)) == [503]
        assert len(again.admin("GET", "/overview").json["alerts"]) == 2


def test_alerts_that_cannot_be_read_keep_nobody_from_starting(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("alerts.json", "backup.json"):
        (tmp_path / "data" / name).write_text("{")
    with servers.running(tmp_path, demo=True) as server:
        assert ask(server, server.new_key("ada")) == [200]
