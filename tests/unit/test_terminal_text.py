"""What commands print: nothing in it moves the cursor, colours the terminal or turns a text round."""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
import re
from pathlib import Path

import pytest

from bridge.cli import common
from bridge.errors import SettingsError
from bridge.http.admin_logs import _csv

#: ESC, BEL, DEL, CSI and OSC as C1, the marks for directions, the end of a line by another name.
HOSTILE = "a\x1b[31m\x07\x7f\x9b31m\x9d0;x\u202e\u2066\u200f\u2028b"


def test_a_text_for_people_has_none_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    common.say(f"{HOSTILE}\nnext line, with accents: é 日本")
    out = capsys.readouterr().out
    assert out == "a?[31m???31m?0;x????b\nnext line, with accents: é 日本\n"


def test_json_for_programs_has_none_of_it_either_and_loses_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    common.show_json({"note": HOSTILE, "smile": "😀", "tag": "\U000e0041"})
    out = capsys.readouterr().out
    assert all(each.isprintable() or each == "\n" for each in out)
    assert json.loads(out) == {"note": HOSTILE, "smile": "😀", "tag": "\U000e0041"}


def test_every_command_prints_by_these_ways() -> None:
    allowed = {"common.py": 9, "usage_logs.py": 1}
    for path in Path(common.__file__).parent.glob("*.py"):
        found = re.findall(r"\bclick\.(?:echo|secho)\(|(?<![\w.])print\(", path.read_text())
        assert len(found) <= allowed.get(path.name, 0), path.name


@pytest.mark.parametrize(
    "value",
    ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "\n=1+1", " =1", "\u3000=1", "＝1", "＋1", "－1", "＠x"],
)
def test_a_cell_of_a_table_is_no_formula(value: str) -> None:
    table = b"".join(_csv(iter([{"userPrompt": value}]))).decode("utf-8-sig")
    (row,) = csv.DictReader(io.StringIO(table, newline=""))
    assert row["userPrompt"] == "'" + value


def test_a_cell_does_not_end_at_a_semicolon() -> None:
    table = b"".join(_csv(iter([{"userPrompt": "x;=1+1", "calls": 3, "hint": None}])))
    head, row = table.split(b"\r\n", 1)
    assert head.startswith(codecs.BOM_UTF8 + b'"id","timestamp",')
    assert b'"x;=1+1","3",' in row
    assert row.endswith(b',""\r\n')


def test_the_settings_of_another_user_are_refused_where_they_only_lie_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("BRIDGE_CLAUDE_COMMAND=/tmp/evil\n")
    monkeypatch.delenv(common.ENV_FILE, raising=False)
    assert common.environment()["BRIDGE_CLAUDE_COMMAND"] == "/tmp/evil"
    real = Path.stat
    monkeypatch.setattr(Path, "stat", lambda self: os.stat_result((*real(self)[:4], 54321, *real(self)[5:])))
    with pytest.raises(SettingsError) as refused:
        common.environment()
    assert "belongs to another user" in refused.value.problems[0]
    monkeypatch.setenv(common.ENV_FILE, ".env")
    assert common.environment()["BRIDGE_CLAUDE_COMMAND"] == "/tmp/evil"
