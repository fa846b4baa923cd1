"""What `cli-bridge top` shows: cells for an answer."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from bridge.cli import picture
from tests.support.topanswer import ANSWER, answer_with

HOSTILE = "[red]\x1b]0;evil\x07\x9b31m\u202e[/]"


def texts(box: picture.Box) -> list[list[str]]:
    return [[cell.text for cell in row.cells] for row in box.rows]


def test_the_head_says_verdict_load_and_money() -> None:
    assert [cell.text for cell in picture.head(ANSWER, "https://b.example")] == [
        "cli-bridge 1.4.0",
        "https://b.example",
        "GREEN",
        "slots 1/16",
        "queue 1",
    ]
    line = "  ".join(cell.text for cell in picture.money_line(ANSWER))
    assert line.startswith(
        "today $3.21 of $20.00 ▕█▋        ▏ 16%  1,204 requests  2.1M tokens  held $0.42  month $61.07"
    )
    assert "errors 5m 2%" in line


def test_without_an_alert_there_is_no_bar() -> None:
    answer = answer_with(alertsAt={"today": 0, "thisMonth": 0})
    assert picture.money_line(answer)[0].text == "today $3.21"


def test_every_row_has_a_cell_for_each_column() -> None:
    for make in picture.BOXES:
        box = make(ANSWER)
        assert box.rows
        for row in box.rows:
            assert len(row.cells) == len(box.columns)


def test_runs_say_what_they_do() -> None:
    running, queued = texts(picture.runs(ANSWER))
    assert running[0] == "~"
    assert running[4] == "team-a"
    assert running[6:9] == ["running", "14 s", "1,930"]
    assert (queued[0], queued[6]) == ("·", "queued 1")
    ended = copy.deepcopy(ANSWER)
    ended["runs"][0] |= {"ended": "429 cost_per_day", "tokensPerSecond": 138.2}
    row = texts(picture.runs(ended))[0]
    assert (row[6], row[9]) == ("429 cost_per_day", "138/s")
    assert picture.runs(answer_with(runsInAll=80)).title == "Runs (1 running, 1 queued, 78 not shown)"


def test_credentials_say_how_they_are_and_what_is_left() -> None:
    benched, usable, without = texts(picture.credentials(ANSWER))
    assert benched == ["claude", "team-b", "benched 41 s", "$3.10 today", "-", "1/5", "182", "1", "429 of the provider"]
    assert usable[2:6] == ["usable", "▕██████▋   ▏ $65/$100 m", "-0.03", "1/5"]
    assert usable[-1] == "ok 0 s"
    assert without == ["codex", "-", "unavailable", "-", "-", "1", "182", "1", "codex is not logged in"]
    failed = copy.deepcopy(ANSWER)
    failed["credentials"][1] |= {"last": {**failed["log"][0], "times": 1}, "maxConcurrent": 0}
    row = picture.credentials(failed).rows[1]
    assert [cell.text for cell in row.cells[-4:]] == ["1", "182", "1", "429 cost_per_day 2 s"]


def test_caps_are_bars_with_their_number_and_colour() -> None:
    near, free = picture.keys(ANSWER).rows
    assert [cell.text for cell in near.cells][:3] == ["ada", "▕█████████▎▏  93%", "$5.00 day"]
    assert near.cells[1].style == "bad"
    assert free.cells[1].text == "no cap"
    assert [picture.heat(share) for share in (0.69, 0.7, 0.9, 1.4)] == ["good", "warn", "bad", "bad"]


def test_a_cap_of_a_newer_server_is_named() -> None:
    answer = copy.deepcopy(ANSWER)
    answer["keys"][0]["closest"]["limit"] = "maxSomethingNew"
    assert picture.keys(answer).rows[0].cells[2].text == "maxSomethingNew"


def test_log_and_audit_are_one_list_newest_first() -> None:
    rows = texts(picture.log(ANSWER))
    assert [row[0] for row in rows] == ["12:04:31", "12:04:29", "12:04:28"]
    assert rows[1][3] == "429 cost_per_day ×3"
    assert rows[2][3] == "key disabled: eve", "a request stands where it ended"


@pytest.mark.parametrize("share", [-1, 0, 0.01, 0.5, 0.999, 1, 3])
def test_a_bar_has_always_the_same_width(share: float) -> None:
    assert len(picture.bar(share)) == picture.BAR + 2


@pytest.mark.parametrize(
    ("seconds", "shown"), [(-3, "0 s"), (0, "0 s"), (89, "89 s"), (90, "2 m"), (7200, "2 h"), (200_000, "2 d")]
)
def test_times_are_short(seconds: float, shown: str) -> None:
    assert picture.ago(seconds) == shown


def test_a_line_of_bars_begins_at_nothing() -> None:
    assert picture.spark([0, 50, 100]) == "▁▄█"
    assert picture.spark([0, 0]) == "▁▁"
    assert picture.spark([]) == ""


def test_a_hostile_name_drives_no_terminal() -> None:
    answer = _everywhere(ANSWER)
    cells = [*picture.head(answer, HOSTILE), *picture.matters(answer)]
    cells += [cell for make in picture.BOXES for row in make(answer).rows for cell in row.cells]
    assert any("[red]?]0;evil" in cell.text for cell in cells)
    assert all(cell.text.isprintable() for cell in cells)


def _everywhere(value: Any) -> Any:
    """The answer with a hostile text for each that comes from outside."""
    names = (
        "name",
        "keyName",
        "model",
        "api",
        "provider",
        "text",
        "problem",
        "code",
        "subject",
        "actor",
        "version",
        "reason",
    )
    if isinstance(value, dict):
        return {k: HOSTILE if k in names and isinstance(v, str) else _everywhere(v) for k, v in value.items()}
    return [_everywhere(each) for each in value] if isinstance(value, list) else value


def test_columns_fit_the_width() -> None:
    for make in picture.BOXES:
        for width in (60, 80, 100, 140, 200):
            fitted = make(ANSWER).fitted(width)
            assert sum(column.width + 2 for _, column in fitted) <= width, (make, width)
        assert len(make(ANSWER).fitted(200)) == len(make(ANSWER).columns)
    assert [column.width for _, column in picture.runs(ANSWER).fitted(140)][2:4] == [20, 19]
    assert [column.width for _, column in picture.runs(ANSWER).fitted(80)][1:3] == [17, 16], "they take turns"


def test_a_line_keeps_what_matters_most() -> None:
    line = picture.money_line(ANSWER)
    assert picture.fitting(line, 300) == line
    short = picture.fitting(line, 78)
    assert [cell.text.split()[0] for cell in short] == ["today", "held", "month", "errors"]
    assert len("  ".join(cell.text for cell in short)) <= 78


def test_the_columns_that_matter_most_stay() -> None:
    runs = picture.runs(ANSWER)
    assert [column.name for _, column in runs.fitted(60)] == ["", "KEY", "MODEL", "STATE", "AGE", "TOKENS"]
    assert [column.name for _, column in runs.fitted(80)] == ["", "KEY", "MODEL", "STATE", "AGE", "TOKENS", "COST"]
    assert [place for place, _ in runs.fitted(140)] == list(range(12))


def test_rows_are_found_and_sorted() -> None:
    rows = picture.keys(ANSWER).rows
    assert [row.id for row in picture.matching(rows, "AD")] == ["ada"]
    assert [row.id for row in picture.matching(rows, "")] == ["ada", "free"]
    assert [row.id for row in picture.by_column(rows, 0, reverse=True)] == ["free", "ada"]
    assert [row.id for row in picture.by_column(rows, 1, reverse=False)] == ["free", "ada"]
