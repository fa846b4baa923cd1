"""What `cli-bridge top` shows of an answer of `/admin/top`: a head, matters, and tables of cells, for any width.

Functions of values: the printed tables and the full screen show the same. Every text from outside is cleaned here
(`plain`), so that a name cannot drive the terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from bridge.cli.common import plain
from bridge.clock import iso, parse_iso
from bridge.limits import BY_NAME, money

Style = Literal["", "good", "warn", "bad", "dim", "bold"]
Answer = Mapping[str, Any]

#: Shares of a cap from which on its bar is yellow, and red.
WARN, BAD = 0.7, 0.9
#: Lines of the log from which on older actions are left out.
MANY_LINES = 20
#: Cells of a bar, and of a line of bars.
BAR, SPARK = 10, 15
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_STEPS = "▁▂▃▄▅▆▇█"
_VERDICTS: dict[str, Style] = {"green": "good", "yellow": "warn", "red": "bad"}


class Cell(msgspec.Struct, frozen=True):
    """A text of one line, and what it is sorted by where that is not the text. `spare`: as of a column."""

    text: str
    style: Style = ""
    rank: float | None = None
    spare: int = 0

    @property
    def order(self) -> tuple[float, str]:
        """For sorting: numbers before texts."""
        return (1.0e18, self.text.lower()) if self.rank is None else (self.rank, "")


class Column(msgspec.Struct, frozen=True):
    """A column of a table. `grows`: so many cells it takes besides, where they are left. Where all do not fit, the one
    with the highest `spare` is left out first, and one with 0 never."""

    name: str
    width: int
    right: bool = False
    spare: int = 0
    grows: int = 0


class Row(msgspec.Struct, frozen=True):
    """A row: a cell for each column. `id` stays the same as long as it is about the same thing."""

    id: str
    cells: tuple[Cell, ...]
    #: what it is about, as the API has it
    about: Answer


class Box(msgspec.Struct, frozen=True):
    """A table with its title."""

    title: str
    columns: tuple[Column, ...]
    rows: list[Row]
    empty: str

    def fitted(self, width: int) -> list[tuple[int, Column]]:
        """The columns for a table so wide, each with its place in a row, two cells between them."""
        shown = list(enumerate(self.columns))
        while (room := width - sum(column.width + 2 for _, column in shown)) < 0:
            most = max(shown, key=lambda each: each[1].spare)
            if not most[1].spare:
                break
            shown.remove(most)
        # Those that grow take turns.
        grown = [0] * len(shown)
        for turn in range(max((column.grows for _, column in shown), default=0)):
            for number, (_, column) in enumerate(shown):
                if room > 0 and turn < column.grows:
                    grown[number] += 1
                    room -= 1
        return [
            (place, msgspec.structs.replace(column, width=column.width + more))
            for (place, column), more in zip(shown, grown, strict=True)
        ]


def fitting(cells: Sequence[Cell], width: int) -> list[Cell]:
    """Those cells of a line that fit, two cells between them; the spare ones are left out first."""
    left = list(cells)
    while sum(len(cell.text) + 2 for cell in left) - 2 > width:
        most = max(left, key=lambda cell: cell.spare)
        if not most.spare:
            break
        left.remove(most)
    return left


# --- small texts -------------------------------------------------------------------------------------------


def text(value: Any, style: Style = "", rank: float | None = None) -> Cell:
    """A cell with a value from outside."""
    return Cell(plain("-" if value is None else str(value)), style, rank)


def bar(share: float, width: int = BAR) -> str:
    """A share as a bar, full at 1 and above."""
    eighths = round(8 * width * min(1.0, max(0.0, share)))
    full, rest = divmod(eighths, 8)
    return f"▕{('█' * full + (_EIGHTHS[rest] if rest else '')).ljust(width)}▏"


def heat(share: float) -> Style:
    """The colour of a share of a cap."""
    return "good" if share < WARN else "warn" if share < BAD else "bad"


def spark(values: Sequence[int]) -> str:
    """Values as a line of small bars."""
    most = max(values, default=0)
    return "".join(_STEPS[(len(_STEPS) - 1) * value // most] if most else _STEPS[0] for value in values)


def ago(seconds: float) -> str:
    """A time that has passed, in its largest unit."""
    seconds = max(0.0, seconds)
    for unit, size, most in (("s", 1, 90), ("m", 60, 5400), ("h", 3600, 172_800)):
        if seconds < most:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def short(number: float) -> str:
    """A large count in a few characters."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if number >= 10 * size or (unit == "M" and number >= size):
            return f"{number / size:.1f}{unit}"
    return f"{number:,.0f}"


def short_money(dollars: float) -> str:
    """Dollars without cents where there are many of them."""
    return f"${dollars:,.0f}" if dollars >= 10 or dollars == int(dollars) else f"${dollars:.2f}"


# --- the head ------------------------------------------------------------------------------------------------


def head(answer: Answer, address: str) -> list[Cell]:
    """The first line: which server, and whether work is welcome."""
    capacity = answer["capacity"]
    return [
        Cell(f"cli-bridge {plain(answer['version'])}", "bold", spare=1),
        Cell(plain(address), "dim", spare=3),
        Cell(capacity["verdict"].upper(), _VERDICTS[capacity["verdict"]]),
        Cell(f"slots {answer['running']}/{answer['slots']}"),
        Cell(f"queue {answer['queued']}", "warn" if answer["queued"] else ""),
        *_hosts(answer),
        *([Cell("stopping", "bad")] if answer["draining"] else []),
    ]


def _hosts(answer: Answer) -> list[Cell]:
    """Each host of a cluster; none where there is but one."""
    hosts = answer.get("nodes", [])
    each = ", ".join(f"{plain(host['name'])} {host['running']}/{host['slots']}" for host in hosts)
    return [Cell(f"hosts {each}", "warn" if any(host["draining"] for host in hosts) else "", spare=2)] if hosts else []


def money_line(answer: Answer) -> list[Cell]:
    """The second line: what was spent, and how runs went."""
    today, month = answer["totals"]["today"], answer["totals"]["thisMonth"]
    held = answer["totals"]["reserved"]["costUsd"]
    ended = answer["answered"] + answer["failed"]
    failed = answer["failed"] / ended if ended else 0.0
    tokens = answer["tokensPerMinute"]
    return [
        *_spent("today", today["costUsd"], answer["alertsAt"]["today"]),
        Cell(f"{today['requests']:,} requests", spare=3),
        Cell(f"{short(today['tokens'])} tokens", spare=4),
        Cell(f"held {money(held)}", spare=2),
        *_spent("month", month["costUsd"], answer["alertsAt"]["thisMonth"]),
        Cell(f"errors 5m {failed:.0%}", "bad" if failed >= 0.2 else "warn" if failed >= 0.05 else ""),
        Cell(f"{spark(tokens[-SPARK:])} {short(tokens[-2] if len(tokens) > 1 else 0)} tok/m", "dim", spare=5),
    ]


def _spent(name: str, dollars: float, alert_at: float) -> list[Cell]:
    if not alert_at:
        return [Cell(f"{name} {money(dollars)}")]
    share = dollars / alert_at
    return [Cell(f"{name} {money(dollars)} of {money(alert_at)} {bar(share)} {share:.0%}", heat(share))]


def matters(answer: Answer) -> list[Cell]:
    """What needs a look, the worst first."""
    return [text(f"! {each['text']}", "bad") for each in answer["attention"]]


# --- the tables ----------------------------------------------------------------------------------------------


_STATES: dict[str, Style] = {
    "usable": "good",
    "probing": "warn",
    "benched": "warn",
    "blocked": "bad",
    "disabled": "dim",
}


def credentials(answer: Answer) -> Box:
    """The credentials, and those CLIs that need none, or have none."""
    now = parse_iso(answer["at"])
    columns = (
        Column("PROVIDER", 8),
        Column("CREDENTIAL", 10, grows=14),
        Column("STATE", 12),
        Column("BUDGET", BAR + 16, spare=3),
        Column("LINE", 5, right=True, spare=4),
        Column("RUN", 5, right=True),
        Column("REQ/15m", 7, right=True, spare=1),
        Column("LIMITED", 7, right=True, spare=2),
        Column("LAST", 12, grows=40),
    )
    rows = [_credential(each, now) for each in answer["credentials"]]
    have = {each["provider"] for each in answer["credentials"]}
    rows += [_provider(each, now) for each in answer["providers"] if each["name"] not in have]
    return Box("Credentials", columns, rows, "There are none. Add one: cli-bridge credentials add NAME")


def _credential(each: Answer, now: float) -> Row:
    state, budget = each["state"], each["budget"]
    left = "" if each["until"] is None else f" {ago(parse_iso(each['until']) - now)}"
    if budget is None:
        money_cell, line = Cell(f"{money(each['todayUsd'])} today", "dim", -1), Cell("-", "dim", -9)
    else:
        amounts = f"{short_money(budget['used'])}/{short_money(budget['most'])}"
        money_cell = Cell(
            f"{bar(budget['share'])} {amounts} {budget['window'][:1]}", heat(budget["share"]), budget["share"]
        )
        line = Cell(f"{budget['line']:+.2f}", "warn" if budget["line"] > 0.1 else "", budget["line"])
    most = f"/{each['maxConcurrent']}" if each["maxConcurrent"] else ""
    cells = (
        text(each["provider"]),
        text(each["name"], "bold"),
        Cell(plain(f"{state}{left}"), _STATES.get(state, "")),
        money_cell,
        line,
        Cell(f"{each['running']}{most}", "" if each["running"] else "dim", each["running"]),
        _count(each["requests"]),
        _count(each["limited"], "warn"),
        text(each["reason"], _STATES.get(state, "")) if each["reason"] else _last(each["last"], now),
    )
    return Row(f"{each['provider']} {each['name']}", cells, each)


def _provider(each: Answer, now: float) -> Row:
    cells = (
        text(each["name"]),
        Cell("-", "dim"),
        Cell("usable", "good") if each["available"] else Cell("unavailable", "bad"),
        Cell("-", "dim", -1),
        Cell("-", "dim", -9),
        _count(each["running"]),
        _count(each["requests"]),
        _count(each["limited"], "warn"),
        _last(each["last"], now) if each["available"] else text(each["problem"], "bad"),
    )
    return Row(each["name"], cells, each)


def _last(last: Answer | None, now: float) -> Cell:
    if last is None:
        return Cell("-", "dim")
    well = last["code"] is None
    word = "ok" if well else f"{last['status']} {last['code']}"
    return text(f"{word} {ago(now - _end(last))}", "" if well else "warn")


def runs(answer: Answer) -> Box:
    """What runs and waits; with `tokensPerSecond` and `ended` where those who ask again and again add them."""
    columns = (
        Column("", 1),
        Column("RUN", 9, spare=2),
        Column("KEY", 12, grows=12),
        Column("MODEL", 12, grows=14),
        Column("CREDENTIAL", 10, spare=4),
        Column("API", 9, spare=6),
        Column("STATE", 10),
        Column("AGE", 6, right=True),
        Column("TOKENS", 7, right=True),
        Column("RATE", 7, right=True, spare=3),
        Column("COST", 9, right=True, spare=1),
        Column("HELD", 9, right=True, spare=5),
    )
    rows = []
    for run in answer["runs"]:
        waits, ended, rate = run["state"] == "queued", run.get("ended"), run.get("tokensPerSecond")
        faint: Style = "dim" if ended else ""
        if ended:
            state = text(ended, "dim")
        elif waits:
            state = Cell(f"queued {run['queuePosition']}", "warn", 1e6 + run["queuePosition"])
        else:
            state = Cell("running", "good", 0)
        cells = (
            Cell(
                "·" if waits else "" if ended else "R" if run["repairs"] else "~" if run["outputTokensSoFar"] else " ",
                faint,
            ),
            text("…" + run["id"][-8:], faint or "dim"),
            text(run["keyName"], faint or "bold"),
            text(run["model"], faint),
            text(run["credential"], faint if run["credential"] else "dim"),
            text(run["api"], faint),
            state,
            Cell(ago(run["ageMs"] / 1000), faint, run["ageMs"]),
            _count(run["outputTokensSoFar"], faint),
            Cell("-" if rate is None else f"{rate:,.0f}/s", faint, rate or 0),
            Cell(money(run["costUsdSoFar"]), faint, run["costUsdSoFar"]),
            Cell(money(run["reservedUsd"]), faint, run["reservedUsd"]),
        )
        rows.append(Row(run["id"], cells, run))
    more = answer["runsInAll"] - sum(not run.get("ended") for run in answer["runs"])
    title = f"Runs ({answer['running']} running, {answer['queued']} queued" + (
        f", {more} not shown)" if more > 0 else ")"
    )
    return Box(title, columns, rows, "Nothing is running.")


def keys(answer: Answer) -> Box:
    """The keys that moved or are close to a cap."""
    now = parse_iso(answer["at"])
    columns = (
        Column("KEY", 12, grows=14),
        Column("NEAREST CAP", BAR + 7),
        Column("OF", 14, spare=1),
        Column("TODAY", 9, right=True, spare=4),
        Column("RUN", 3, right=True, spare=3),
        Column("429", 4, right=True, spare=2),
        Column("SEEN", 6, right=True),
    )
    rows = []
    for key in answer["keys"]:
        nearest = key["closest"]
        seen = None if key["lastUsedAt"] is None else now - parse_iso(key["lastUsedAt"])
        cells = (
            text(key["name"], "bold" if key["status"] == "active" else "dim"),
            *_nearest(nearest),
            Cell(money(key["today"]["costUsd"]), "", key["today"]["costUsd"]),
            _count(key["running"]),
            _count(key["refused"], "warn"),
            Cell("-", "dim", 1e12) if seen is None else Cell(ago(seen), "", seen),
        )
        rows.append(Row(key["name"], cells, key))
    title = f"Keys ({len(rows)} of {answer['keysInAll']})"
    return Box(title, columns, rows, "No key was used yet. Make one: cli-bridge keys create NAME")


def _nearest(nearest: Answer | None) -> tuple[Cell, Cell]:
    if nearest is None:
        return Cell("no cap", "dim", -1), Cell("-", "dim", 0)
    share, limit = nearest["share"], BY_NAME.get(nearest["limit"])
    if limit is None:
        most = nearest["limit"]
    else:
        amount = money(nearest["most"]) if limit.is_cost else f"{short(nearest['most'])} {limit.unit[:3]}"
        most = f"{amount} {limit.window}"
    return Cell(f"{bar(share)} {share:4.0%}", heat(share), share), text(most, "", share)


def log(answer: Answer) -> Box:
    """The newest lines of the log, and what admins did, newest first."""
    columns = (
        Column("TIME", 8),
        Column("KEY", 12),
        Column("MODEL", 18, spare=2),
        Column("STATUS", 14, grows=30),
        Column("TOKENS", 7, right=True, spare=3),
        Column("COST", 9, right=True, spare=1),
        Column("TOOK", 8, right=True),
    )
    ended = [(_end(line), line) for line in answer["log"]]
    # What was done before all of these lines would stand below them for days.
    oldest = min(at for at, _ in ended) if len(ended) >= MANY_LINES else 0.0
    rows = [(at, _line(line, at)) for at, line in ended]
    done = ((parse_iso(each["at"]), each) for each in answer["audit"])
    rows += [(at, _action(each)) for at, each in done if at >= oldest]
    rows.sort(key=lambda row: row[0], reverse=True)
    return Box("Log (UTC)", columns, [row for _, row in rows], "Nothing yet.")


def _end(line: Answer) -> float:
    """When a request ended, in UTC seconds."""
    return parse_iso(line["timestamp"]) + float(line["durationMs"]) / 1000


def _line(line: Answer, at: float) -> Row:
    well = line["code"] is None
    style: Style = "" if well else "bad" if line["status"] >= 500 else "warn"
    word = str(line["status"]) if well else f"{line['status']} {line['code']}"
    many = f" ×{line['times']}" if line["times"] > 1 else ""
    cells = (
        Cell(iso(at)[11:19], "dim"),
        text(line["keyName"], "bold"),
        text(line["model"]),
        text(word + many, style),
        _count(line["tokens"]),
        Cell(money(line["costUsd"]), "", line["costUsd"]),
        Cell(f"{line['durationMs'] / 1000:.1f} s", "", line["durationMs"]),
    )
    return Row(line["id"], cells, line)


def _action(action: Answer) -> Row:
    what = text(f"{action['action'].replace('_', ' ')}: {action['subject']}", "dim")
    nothing = Cell("", "", 0)
    cells = (text(action["at"][11:19], "dim"), text(action["actor"], "dim"), nothing, what, nothing, nothing, nothing)
    return Row(f"audit {action['id']}", cells, action)


def _count(number: int, style: Style = "") -> Cell:
    return Cell(f"{number:,}", style if number else "dim", number)


BOXES: tuple[Callable[[Answer], Box], ...] = (credentials, runs, keys, log)
"""The tables, in their order."""


# --- choosing and sorting ------------------------------------------------------------------------------------


def matching(rows: Iterable[Row], wanted: str) -> list[Row]:
    """The rows with this in one of their cells."""
    low = wanted.lower()
    return [row for row in rows if not low or any(low in cell.text.lower() for cell in row.cells)]


def by_column(rows: Iterable[Row], place: int, *, reverse: bool) -> list[Row]:
    """The rows sorted by one of their cells."""
    return sorted(rows, key=lambda row: row.cells[place].order, reverse=reverse)


# --- all about one thing -------------------------------------------------------------------------------------

#: Lines of details, and characters of each.
MOST_DETAILS, LONGEST_DETAIL = 400, 2000


def details(value: Any, indent: str = "") -> list[str]:
    """An answer of the API as lines to read."""
    found: list[str] = []
    for name, each in value.items() if isinstance(value, Mapping) else enumerate(value):
        if isinstance(each, Mapping) and each:
            found += [plain(f"{indent}{name}"), *details(each, indent + "  ")]
        elif isinstance(each, list) and each and isinstance(each[0], Mapping):
            found += [plain(f"{indent}{name}"), *(line for one in each for line in details(one, indent + "  "))]
        elif each not in (None, "", [], {}):
            shown = ", ".join(map(str, each)) if isinstance(each, list) else str(each)
            found.append(plain(f"{indent}{name!s:<22} {shown}")[:LONGEST_DETAIL])
    return found[:MOST_DETAILS]


def log_line(line: Answer) -> str:
    """A line of the request log to read."""
    status = str(line["status"]) if line["code"] is None else f"{line['status']} {line['code']}"
    tokens = f"{line['inputTokens']:,}+{line['outputTokens']:,}"
    when, took = line["timestamp"][5:19].replace("T", " "), f"{line['durationMs'] / 1000:.1f} s"
    who = f"{line['keyName']:<12.12}  {line['model']:<18.18}  {status:<16.22}"
    prompt = (line["userPrompt"] or "").replace("\n", " ")
    return plain(f"{when}  {who}  {tokens:>11}  {money(line['costUsd']):>8}  {took}  {prompt}")
