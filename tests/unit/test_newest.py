"""The table of docs/clis.md that `./run test --newest` writes."""

from __future__ import annotations

from tools.newest import HEAD, MOST_ROWS, PAGE, with_row

REST = "\n## Next\n\n| another | table |\n"


def row(version: str, result: str = "all pass") -> str:
    return f"| 2026-11-28 | {version} | 0.1.0 | {result} |"


def test_a_row_comes_to_the_top_and_stays_one_for_the_same_versions() -> None:
    page = with_row(f"before\n{HEAD}{REST}", row("2.1.0"))
    assert page == f"before\n{HEAD}{row('2.1.0')}\n{REST}"
    page = with_row(with_row(page, row("2.2.0")), row("2.1.0", "some fail"))
    assert page == f"before\n{HEAD}{row('2.1.0', 'some fail')}\n{row('2.2.0')}\n{REST}"
    for number in range(3 * MOST_ROWS):
        page = with_row(page, row(f"3.0.{number}"))
    assert page.count("| 2026-11-28 |") == MOST_ROWS
    assert page.endswith(REST)


def test_the_page_has_the_table() -> None:
    assert PAGE.read_text().count(HEAD) == 1
