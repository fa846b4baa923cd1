"""The first minute: the link that a start without an API key prints, and `cli-bridge link`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import server as servers
from tests.support.server import Answer, Server

LINK = re.compile(r"(https?://\S+)/admin/#/link/(cbl_\S+)")


def log_in(server: Server, token: str) -> Answer:
    return server.call("POST", "/admin/session", key=token)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that has no API key of any provider."""
    with servers.running(tmp_path_factory.mktemp("empty")) as server:
        yield server


@pytest.fixture(scope="module")
def supplied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that has one."""
    folder = tmp_path_factory.mktemp("supplied")
    with servers.running(folder, {"ANTHROPIC_API_KEY": "sk-ant-made-up"}) as server:
        yield server


def read_line(server: Server, what: re.Pattern[str]) -> re.Match[str]:
    """The next line that the server prints which has this."""
    assert server.process.stderr is not None
    for line in server.process.stderr:
        server.output.append(line.rstrip())
        if found := what.search(line):
            return found
    raise AssertionError("\n".join(server.output))


def test_a_server_without_an_api_key_prints_a_link_that_logs_in_once(empty: Server) -> None:
    base, token = read_line(empty, LINK).groups()
    assert base == f"http://127.0.0.1:{empty.port}"
    answer = log_in(empty, token)
    assert answer.status == 200
    assert "bridge_session=" in answer.headers["set-cookie"]
    again = log_in(empty, token)
    assert (again.status, again.json["error"]) == (401, "This link has been used; each one logs in once.")


def test_whoever_is_there_by_ssh_reads_how_the_browser_gets_there(tmp_path: Path) -> None:
    with servers.running(tmp_path, {"SSH_CONNECTION": "198.51.100.7 50000 203.0.113.5 22"}) as server:
        (port,) = read_line(server, re.compile(r"ssh -L (\d+):127\.0\.0\.1:\1 203\.0\.113\.5$")).groups()
        assert int(port) == server.port


def test_the_token_is_nowhere_on_the_disk(empty: Server) -> None:
    token = empty.command("link").stdout.strip().rpartition("/")[2]
    assert log_in(empty, token).status == 200
    for path in empty.data_dir.rglob("*"):
        if path.is_file():
            assert token.encode() not in path.read_bytes(), path


def test_the_command_makes_a_link_and_ends_the_one_before(supplied: Server) -> None:
    first, second = (supplied.command("link") for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr
    assert "within ten minutes" in first.stderr
    base, old = LINK.fullmatch(first.stdout.strip()).groups()  # type: ignore[union-attr]
    assert base == f"http://127.0.0.1:{supplied.port}"
    assert log_in(supplied, old).status == 401
    assert log_in(supplied, second.stdout.strip().rpartition("/")[2]).status == 200


def test_a_server_with_an_api_key_prints_no_link(tmp_path: Path) -> None:
    server = servers.start(tmp_path, {"OPENAI_API_KEY": "sk-made-up"})
    server.stop()
    assert "There are no keys yet" in "\n".join(server.output)
    assert not LINK.search("\n".join(server.output))


def test_the_command_knows_the_address_that_it_is_told(supplied: Server) -> None:
    done = supplied.command("link", "--url", "https://bridge.example.com/", "--json")
    made = json.loads(done.stdout)
    assert made["link"].startswith("https://bridge.example.com/admin/#/link/cbl_")
    assert made["lastsSeconds"] == 600
    assert supplied.command("link", "--url", "bridge.example.com").returncode == 2


def test_only_a_command_on_the_host_can_make_a_link(supplied: Server) -> None:
    assert supplied.admin("POST", "/link").status == 404


def test_a_link_to_a_bridge_that_does_not_run_is_not_made(tmp_path: Path) -> None:
    server = servers.start(tmp_path)
    server.stop()
    done = server.command("link")
    assert done.returncode == 1
    assert "The bridge is not running" in done.stderr
    assert "cli-bridge serve" in done.stderr
