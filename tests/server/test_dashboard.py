"""The pages over HTTP: their headers and files, and what they ask the API for."""

from __future__ import annotations

import csv
import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from bridge.store.journal import encode
from bridge.types import RunRecord
from tests.support import history
from tests.support import server as servers
from tests.support.server import Server

ASK = {"userPrompt": "x"}


@pytest.mark.parametrize("path", ["/", "/admin/"])
def test_a_page_holds_no_data_and_allows_nothing_but_its_own_files(server: Server, path: str) -> None:
    server.admin("POST", "/keys", {"name": f"secret-name-{len(path)}"})
    page = server.call("GET", path)
    assert page.status == 200
    assert b"secret-name" not in page.body
    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    assert (policy["default-src"], policy["script-src"], policy["style-src"]) == ("'none'", "'self'", "'self'")
    assert (policy["frame-ancestors"], policy["require-trusted-types-for"]) == ("'none'", "'script'")
    assert "unsafe" not in page.headers["content-security-policy"]
    assert (page.headers["cache-control"], page.headers["x-frame-options"]) == ("no-store", "DENY")
    text = page.body.decode()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|javascript:|https?://", text)


def test_the_files_of_a_page_are_there_and_may_be_kept_for_ever(server: Server) -> None:
    kinds = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    for path in ("/", "/admin/"):
        found = set(re.findall(r'(?:href|src)="(/static/[^"]+)"', server.call("GET", path).body.decode()))
        assert len(found) > 8
        for name in found:
            file = server.call("GET", name)
            assert (file.status, file.headers["cache-control"]) == (200, "public, max-age=31536000, immutable")
            assert file.headers["content-type"].startswith(kinds[name.rpartition(".")[2]])
            assert file.headers["x-content-type-options"] == "nosniff"


def test_every_module_that_is_imported_is_loaded_with_the_page(server: Server) -> None:
    for path in ("/", "/admin/"):
        page = server.call("GET", path).body.decode()
        modules = set(re.findall(r'"(/static/[^"]+/js/[^"]+\.js)"', page))
        for module in modules:
            text = server.call("GET", module).body.decode()
            for target in re.findall(r'^(?:import|export)[^"]* from "(\.[^"]+)"', text, re.MULTILINE):
                assert str((Path(module).parent / target).resolve()) in modules, (module, target)


@pytest.mark.parametrize(
    "path",
    [
        "/static/000000000000/app.css",
        "/static/{version}/nothing.css",
        "/static/{version}/vendor/README.md",
        "/static/{version}/../../templates/base.html",
        "/static/{version}/..%2f..%2fapp.py",
        "/static/{version}/",
    ],
)
def test_nothing_else_is_served(server: Server, path: str) -> None:
    version = re.findall(r"/static/(\w+)/", server.call("GET", "/").body.decode())[0]
    assert server.call("GET", path.format(version=version)).status == 404


def test_files_come_compressed_to_who_takes_them_so(server: Server) -> None:
    path = re.findall(r'href="(/static/\w+/app\.css)"', server.call("GET", "/").body.decode())[0]
    plain = server.call("GET", path)
    small = server.call("GET", path, headers={"Accept-Encoding": "br, gzip"})
    assert "content-encoding" not in plain.headers
    assert (small.headers["content-encoding"], small.headers["vary"]) == ("gzip", "Accept-Encoding")
    assert gzip.decompress(small.body) == plain.body
    assert len(small.body) < len(plain.body) / 3


def test_without_its_slash_the_dashboard_is_found_too_whatever_the_host_is_called(server: Server) -> None:
    answer = server.call("GET", "/admin", headers={"Host": "evil.example.com"})
    assert (answer.status, answer.headers["location"]) == (302, "/admin/")


def test_the_overview_says_who_is_closest_to_a_cap_and_how_it_went(server: Server) -> None:
    near = server.new_key("near", maxRequestsPerDay=2)
    server.new_key("far", maxRequestsPerDay=100)
    assert [server.call("POST", "/generate", ASK, key=near).status for _ in range(3)] == [200, 200, 429]
    overview = server.admin("GET", "/overview").json
    assert [row["name"] for row in overview["closest"]][:2] == ["near", "far"]
    assert overview["closest"][0] | {"share": 1.0} == {
        "name": "near",
        "status": "active",
        "limit": "maxRequestsPerDay",
        "used": 2,
        "reserved": 0,
        "most": 2,
        "share": 1.0,
    }
    day = overview["activity"]["lastDay"]
    assert (day["ok"], day["refused"], day["failed"]) == (2, 1, 0)
    assert day["durationMs"]["p50"] > 0
    assert overview["capacity"]["verdict"] == "green"
    assert {row["name"]: (row["busy"], row["queued"]) for row in overview["providers"]} == {
        "claude": (0, 0),
        "codex": (0, 0),
    }
    daily = server.admin("GET", "/usage/daily?days=7").json
    assert len(daily["days"]) == 7
    assert {"key": "near", "requests": [0] * 6 + [2]}.items() <= daily["series"][0].items()
    assert server.admin("GET", "/usage/daily?days=7&key=far").json["series"] == []
    assert server.admin("GET", "/usage/daily?days=0").status == 400


def test_a_holder_sees_the_last_requests_of_the_own_key_only(server: Server) -> None:
    ada, bob = server.new_key("ada"), server.new_key("bob")
    server.call("POST", "/generate", {"userPrompt": "from ada " + "x" * 500}, key=ada)
    server.call("POST", "/generate", {"userPrompt": "from bob"}, key=bob)
    (line,) = server.call("GET", "/me/requests", key=ada).json["requests"]
    assert line["userPrompt"].startswith("from ada")
    assert len(line["userPrompt"]) == 120
    assert (line["status"], line["costUsd"] > 0, line["durationMs"] > 0) == (200, True, True)
    assert server.call("GET", "/me/requests").status == 401


def test_a_new_holder_of_an_old_name_does_not_see_what_was_asked_before(server: Server) -> None:
    old = server.new_key("used-again")
    server.call("POST", "/generate", {"userPrompt": "confidential"}, key=old)
    server.admin("DELETE", "/keys/used-again")
    new = server.new_key("used-again")
    assert server.call("GET", "/me/requests", key=new).json == {"requests": []}
    server.call("POST", "/generate", {"userPrompt": "my own"}, key=new)
    assert [row["userPrompt"] for row in server.call("GET", "/me/requests", key=new).json["requests"]] == ["my own"]


def test_a_line_of_the_log_has_a_hint_and_lists_may_cut_the_prompts(tmp_path: Path) -> None:
    with servers.running(tmp_path, {"BRIDGE_LOG_PROMPTS": "full"}, demo=True) as server:
        key = server.new_key("full", maxRequestsPerDay=1)
        for _ in range(2):
            server.call("POST", "/generate", {"userPrompt": "x" * 5000}, key=key)
        refused, answered = server.admin("GET", "/logs?prompts=preview").json["logs"]
        assert (len(answered["userPrompt"]), answered["systemPrompt"]) == (200, "")
        assert len(server.admin("GET", f"/logs/{answered['id']}").json["userPrompt"]) == 5000
        hint = server.admin("GET", f"/logs/{refused['id']}").json["hint"]
        assert hint == "Wait for the reset, or ask your admin for a higher limit."
        assert server.admin("GET", f"/logs/{answered['id']}").json["hint"] is None


def test_an_export_is_whole_also_where_it_is_longer_than_a_piece(tmp_path: Path) -> None:
    history.write(tmp_path / "data", history.TEAM, days=3, lines=1000)
    with servers.running(tmp_path, demo=True) as server:
        table = server.admin("GET", "/logs/export?format=csv").body
        lines = server.admin("GET", "/logs/export?format=jsonl").body
        assert (table.count(b"\n"), lines.count(b"\n")) == (1001, 1000)
        of_one = server.admin("GET", "/logs/export?format=jsonl&key=design-team").body
        assert of_one.count(b'"keyName":"design-team"') == of_one.count(b"\n") > 0


def test_a_table_has_all_columns_of_today_also_where_its_first_rows_are_older(tmp_path: Path) -> None:
    history.write(tmp_path / "data", history.TEAM, days=3, lines=100)
    oldest = min((tmp_path / "data/logs").iterdir())
    lines = [json.loads(line) for line in oldest.read_bytes().splitlines()]
    for line in lines:
        # As a version wrote it that knew nothing of these.
        for name in ("crc", "calls", "credential", "tried", "hint"):
            del line[name]
    oldest.write_bytes(b"".join(encode(line.pop("seq"), msgspec.json.encode(line)) for line in lines))
    with servers.running(tmp_path, demo=True) as server:
        server.call("POST", "/generate", {"userPrompt": "x"}, key=server.new_key("poor", maxCostPerRequest=0.000001))
        table = server.admin("GET", "/logs/export?format=csv").body.decode("utf-8-sig")
        rows = list(csv.DictReader(table.splitlines()))
        assert len(rows) == 101
        assert list(rows[0]) == list(RunRecord.__struct_encode_fields__)
        assert (rows[0]["hint"], rows[-1]["code"]) == ("", "cost_per_request")
        assert rows[-1]["hint"]


def test_the_start_says_where_the_pages_are(server: Server) -> None:
    line = server.process.stderr.readline() if server.process.stderr else ""
    assert f"http://127.0.0.1:{server.port}/admin/" in line


def test_the_demo_says_where_the_pages_are(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "bridge", "demo", "--port", "0"],
        env=servers.environment(tmp_path / "data", {}),
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    try:
        assert process.stderr is not None
        seen = ""
        while "/admin/" not in seen:
            line = process.stderr.readline()
            assert line, seen
            seen += line
        assert "demo-admin-key-not-secret" in process.stderr.readline()
    finally:
        process.terminate()
        process.communicate(timeout=60)
