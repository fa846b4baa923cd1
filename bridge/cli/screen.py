"""The full screen of `cli-bridge top`, with textual (the extra `top`); nothing else imports this module.

It asks in a thread of its own, so that a slow answer holds no key up, and draws only what has changed. Every text goes
to the library as a `Text`, never as markup.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from rich.text import Text
from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import DataTable, Input, Static

from bridge.cli import picture
from bridge.cli.common import FAILED, path_of, plain
from bridge.cli.feed import Feed
from bridge.cli.picture import Box, Cell, Row
from bridge.errors import BridgeError
from bridge.ops.admin_client import RemoteAdmin

#: Seconds between two looks, at least and at most.
LEAST_S, MOST_S = 0.5, 60.0
#: Longest pause after answers that failed, in seconds.
LONGEST_PAUSE_S = 30.0
#: Below this size nothing but the verdict is shown; from the other on, all boxes at once.
SMALLEST, LARGE = (60, 15), (110, 28)
#: Lines below the head about what needs a look.
MATTERS = 3
#: Seconds for an orderly end after a hang-up; a terminal that is gone may never take its last words.
HANG_UP_S = 0.8

_STYLES = {"": "", "good": "green", "warn": "yellow", "bad": "bold red", "dim": "dim", "bold": "bold"}
_NAMES = ("credentials", "runs", "keys", "log")
_FOOTER = (
    "? help  q quit  1-4 boxes  / filter  <> sort  x stop  d key  e c p credential  l log  enter details  space pause"
)
_HELP = """
1 2 3 4         show or hide a box; where only one fits: choose it
tab             the next box;  arrows, j, k: rows
enter           all about a row
/               filter by key, model, provider, state;  esc: all
< >             sort by another column, or click on its head;  r: reverse
space           pause;  + - other pace
x               stop the run
d               disable the key, or enable it
e c p           the credential: enable or disable, clear its bench, prefer it
t               test the credential, which costs nothing
l               the log of the key, or of the provider
a               all that needs a look;  b bell on or off
ctrl-z          to the background
q, ctrl-c       quit

x d e c p ask first, and are in the audit.

~ text is coming   · waits   R a further attempt
""".strip("\n")


class Answered(Message):
    """An answer has come."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__()
        self.answer = answer


class Unanswered(Message):
    """No answer has come; it is asked again in `again_s` seconds."""

    def __init__(self, error: BridgeError, again_s: float) -> None:
        super().__init__()
        self.error = error
        self.again_s = again_s


class Acted(Message):
    """What became of something that the person asked for: `show` is called with the answer."""

    def __init__(self, answer: Any, show: Callable[[Any], None]) -> None:
        super().__init__()
        self.answer = answer
        self.show = show


class Resized(Message):
    """A table has another size."""


class _Asker(threading.Thread):
    """Asks again and again. Not waited for at the end: what hangs must not hold the terminal."""

    def __init__(self, app: TopApp, admin: RemoteAdmin) -> None:
        super().__init__(daemon=True)
        self._app = app
        self._admin = admin
        #: set to ask at once
        self.now = threading.Event()
        self.paused = False

    def run(self) -> None:
        pause_s = 1.0
        while True:
            wait_s = self._app.every_s
            try:
                answer = self._admin.top(self._app.feed.query())
                pause_s = 1.0
                self._app.post_message(Answered(answer))
            except BridgeError as error:
                wait_s, pause_s = pause_s, min(LONGEST_PAUSE_S, 2 * pause_s)
                self._app.post_message(Unanswered(error, wait_s))
            self.now.wait(wait_s)
            while self.paused and not self.now.is_set():
                self.now.wait(1.0)
            self.now.clear()


class Grid(DataTable[Text]):
    """A table of one box: fixed columns, and only those cells are drawn that have changed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "cursor_down", show=False),
        Binding("k", "cursor_up", show=False),
    ]

    def __init__(self, name: str) -> None:
        super().__init__(id=name, cursor_type="row", cell_padding=1)
        #: the column by which is sorted, by its place, and whether turned round; None: as the server has it
        self.sorting: tuple[int, bool] | None = None
        self.shown: list[Row] = []
        self._fitted: list[tuple[int, picture.Column]] = []
        self._heads: list[str] = []
        self._cells: dict[tuple[str, int], Cell] = {}
        self._titled = ""

    @property
    def row(self) -> Row | None:
        """The row under the cursor."""
        return self.shown[self.cursor_row] if 0 <= self.cursor_row < len(self.shown) else None

    def draw(self, number: int, box: Box, wanted: str) -> None:
        """Show a box, by its number, with the rows that match."""
        rows = picture.matching(box.rows, wanted)
        if self.sorting is not None:
            rows = picture.by_column(rows, self.sorting[0], reverse=self.sorting[1])
        # A cell on each side for the bar that scrolls.
        fitted = box.fitted(max(20, self.size.width - 2))
        heads = [column.name + self._arrow(place) for place, column in fitted]
        if (fitted, heads) != (self._fitted, self._heads):
            self._fitted, self._heads = fitted, heads
            self._begin()
        if [row.id for row in rows] == [row.id for row in self.shown]:
            self._update(rows)
        else:
            self._replace(rows)
        found = f", /{wanted}" if wanted else ""
        nothing = "" if rows else f": {'nothing matches.' if box.rows else box.empty}"
        title = Text(plain(f" {number} {box.title}{found}{nothing} "))
        if self._titled != title.plain:
            self._titled = title.plain
            self.border_title = title

    def on_resize(self) -> None:
        """Other columns may fit."""
        self.post_message(Resized())

    def sort_by(self, step: int) -> None:
        """Sort by the next column, or the one before."""
        places = [place for place, _ in self._fitted]
        if self.sorting is None:
            self.sorting = (places[0] if step > 0 else places[-1], False)
        else:
            now = places.index(self.sorting[0]) if self.sorting[0] in places else 0
            self.sorting = (places[(now + step) % len(places)], self.sorting[1])

    def _arrow(self, place: int) -> str:
        return "" if self.sorting is None or self.sorting[0] != place else "▼" if self.sorting[1] else "▲"

    def _begin(self) -> None:
        self.clear(columns=True)
        self.shown, self._cells = [], {}
        for (place, column), head in zip(self._fitted, self._heads, strict=True):
            label = Text(head, justify="right" if column.right else "left")
            self.add_column(label, width=column.width, key=str(place))

    def _update(self, rows: list[Row]) -> None:
        self.shown = rows
        for row in rows:
            for place, column in self._fitted:
                cell = row.cells[place]
                if self._cells.get((row.id, place)) != cell:
                    self._cells[row.id, place] = cell
                    self.update_cell(row.id, str(place), _text(cell, column))

    def _replace(self, rows: list[Row]) -> None:
        under, top = self.row, round(self.scroll_y)
        self.clear()
        self.shown, self._cells = rows, {}
        for row in rows:
            for place, _ in self._fitted:
                self._cells[row.id, place] = row.cells[place]
            self.add_row(*(_text(row.cells[place], column) for place, column in self._fitted), key=row.id)
        again = next((at for at, row in enumerate(rows) if under is not None and row.id == under.id), None)
        if again is not None:
            self.move_cursor(row=again, scroll=False)
            self.scroll_to(y=top, animate=False, force=True)


class Sheet(ModalScreen[None]):
    """A text over the screen, to read."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter", "dismiss", show=False),
        Binding("q,ctrl+c", "app.quit_now", show=False, priority=True),
        Binding("j", "down", show=False),
        Binding("k", "up", show=False),
    ]

    def __init__(self, title: str, text: str, *, wraps: bool = True) -> None:
        super().__init__()
        self._wraps = wraps
        self._heading = title
        self._body = text

    def compose(self) -> ComposeResult:
        """The text, in a frame."""
        with VerticalScroll(classes="sheet") as sheet:
            sheet.border_title = Text(plain(f" {self._heading} "))
            sheet.border_subtitle = Text(" esc ")
            yield Static(Text(self._body, no_wrap=not self._wraps, overflow="fold" if self._wraps else "ellipsis"))

    def action_down(self) -> None:
        """Scroll by a line."""
        self.query_one(VerticalScroll).scroll_down(animate=False)

    def action_up(self) -> None:
        """Scroll back by a line."""
        self.query_one(VerticalScroll).scroll_up(animate=False)


class Question(ModalScreen[bool]):
    """Asks before something changes; only y is yes."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+c", "app.quit_now", show=False, priority=True)]

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        """The question, in a frame."""
        with Vertical(classes="question"):
            yield Static(Text(plain(f"{self._question}  y/N"), style="bold"))

    def on_key(self, event: events.Key) -> None:
        """y, or no."""
        event.stop()
        self.dismiss(event.key in ("y", "Y"))


class TopApp(App[int]):
    """The screen. Its result is the exit status."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { layout: vertical; }
    #head { height: auto; padding: 0 1; }
    #boxes { height: 1fr; }
    #below { height: 1fr; }
    Grid { height: 1fr; border-top: solid $secondary; border-title-color: $text; scrollbar-size: 1 1; }
    Grid { overflow-x: hidden; }
    Grid:focus { border-top: heavy $accent; border-title-style: bold; }
    #credentials { max-height: 40%; }
    #runs { height: 1fr; }
    #keys { width: 9fr; }
    #log { width: 11fr; }
    #filter { height: 1; border: none; padding: 0 1; display: none; }
    #foot { height: 1; padding: 0 1; color: $text-muted; }
    Sheet, Question { align: center middle; }
    .sheet { width: 94%; max-width: 140; height: auto; max-height: 90%; border: round $accent; }
    .sheet { padding: 0 1; background: $surface; }
    .question { width: auto; max-width: 90%; height: auto; border: round $warning; padding: 0 2; background: $surface; }
    .question Static { width: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit_now", show=False),
        Binding("ctrl+c", "quit_now", show=False, priority=True),
        Binding("ctrl+z", "suspend_process", show=False),
        *(Binding(str(number), f"box({number})", show=False) for number in (1, 2, 3, 4)),
        Binding("slash", "filter", show=False),
        Binding("escape", "clear_filter", show=False),
        Binding("less_than_sign", "sort(-1)", show=False),
        Binding("greater_than_sign", "sort(1)", show=False),
        Binding("r", "reverse", show=False),
        Binding("space", "pause", show=False),
        Binding("plus", "pace(2)", show=False),
        Binding("minus", "pace(0.5)", show=False),
        Binding("x", "stop_run", show=False),
        Binding("d", "switch_key", show=False),
        Binding("e", "switch_credential", show=False),
        Binding("c", "clear_bench", show=False),
        Binding("p", "prefer", show=False),
        Binding("t", "test_credential", show=False),
        Binding("l", "log", show=False),
        Binding("a", "matters", show=False),
        Binding("b", "mute", show=False),
        Binding("question_mark", "help", show=False),
    ]

    def __init__(self, connect: Callable[[], RemoteAdmin], every_s: float) -> None:
        """`connect` makes a client: one to watch with, and one for each thing that is done."""
        super().__init__()
        self.every_s = every_s
        self.feed = Feed()
        #: why it ended by itself
        self.farewell = ""
        self._connect = connect
        self._watching = connect()
        self._asker = _Asker(self, self._watching)
        self._answer: dict[str, Any] | None = None
        self._heard_at = time.monotonic()
        self._trouble = ""
        #: boxes that are shown on a large terminal, and the one on a small one
        self._open = {1, 2, 3, 4}
        self._view = 2
        self._muted = False
        self._known_matters: set[tuple[str, str]] | None = None
        self._head_text = Text()
        self._extent = self.size
        # Drawn to by what comes, also when the screen has just been taken down and nothing can be found on it.
        self._headline = Static(id="head")
        self._grids = [Grid(name) for name in _NAMES]

    def compose(self) -> ComposeResult:
        """Head, boxes, filter, foot."""
        credentials, runs, keys, log = self._grids
        yield self._headline
        with Vertical(id="boxes"):
            yield credentials
            yield runs
            with Horizontal(id="below"):
                yield keys
                yield log
        yield Input(placeholder="filter", id="filter", select_on_focus=False)
        yield Static(Text(_FOOTER, no_wrap=True, overflow="ellipsis"), id="foot")

    def on_mount(self) -> None:
        """Begin to ask, and listen for a hang-up."""
        loop = asyncio.get_running_loop()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGHUP, signal.SIGTERM):
                loop.add_signal_handler(number, self._hang_up, 128 + number)
        self.query_one(Input).cursor_blink = False
        self._lay_out()
        self.query_one("#runs", Grid).focus()
        self.set_interval(1.0, self._draw_head)
        self._asker.start()

    # --- what comes --------------------------------------------------------------------------------

    def on_answered(self, message: Answered) -> None:
        """Draw what has changed."""
        self._heard_at = time.monotonic()
        self._trouble = ""
        self._answer = self.feed.take(message.answer, self._heard_at)
        self._ring()
        self._draw()

    def on_unanswered(self, message: Unanswered) -> None:
        """Keep the last picture, and say why there is no newer one."""
        if message.error.code == "unauthorized" or (message.error.code == "not_found" and self._answer is None):
            self.farewell = f"{message.error.message}\n  {message.error.hint}"
            self.exit(FAILED)
            return
        self._trouble = f"{message.error.message} Next try in {message.again_s:.0f} s."
        self._draw_head()

    def on_acted(self, message: Acted) -> None:
        """Show what came of something that was asked for."""
        if isinstance(message.answer, BridgeError):
            if message.answer.code == "unauthorized":
                self.on_unanswered(Unanswered(message.answer, 0))
                return
            self.notify(plain(message.answer.message), severity="error", markup=False)
        else:
            message.show(message.answer)

    def _ring(self) -> None:
        assert self._answer is not None
        matters = {(each["kind"], each["subject"]) for each in self._answer["attention"]}
        if self._known_matters is not None and matters - self._known_matters and not self._muted:
            self.bell()
        self._known_matters = matters | (self._known_matters or set())

    # --- drawing -----------------------------------------------------------------------------------

    @property
    def _small(self) -> bool:
        return self._extent.width < LARGE[0] or self._extent.height < LARGE[1]

    @property
    def _tiny(self) -> bool:
        return self._extent.width < SMALLEST[0] or self._extent.height < SMALLEST[1]

    def on_resize(self, event: events.Resize) -> None:
        """Another size may have room for other boxes."""
        self._extent = event.size
        self._lay_out()

    def on_resized(self, message: Resized) -> None:
        """Fit the columns."""
        self._draw()

    def _lay_out(self) -> None:
        small, tiny = self._small, self._tiny
        shown = set() if tiny else {self._view} if small else self._open
        for number, grid in enumerate(self._grids, start=1):
            grid.display = number in shown
        self.query_one("#below").display = bool(shown & {3, 4})
        # They are few: on a large terminal their box is as high as they need, within bounds.
        self.query_one("#credentials").styles.height = "1fr" if small or shown == {1} else "auto"
        self.query_one("#foot").display = not tiny
        self._draw()

    def _draw(self) -> None:
        self._draw_head()
        if self._answer is None or self._tiny:
            return
        for number, (grid, make) in enumerate(zip(self._grids, picture.BOXES, strict=True), start=1):
            if grid.display:
                grid.draw(number, make(self._answer), self.feed.wanted)

    def _draw_head(self) -> None:
        text = self._head()
        if text != self._head_text:
            self._head_text = text
            self._headline.update(text)

    def _head(self) -> Text:
        width = self._extent.width - 2
        age_s = time.monotonic() - self._heard_at
        if self._answer is None:
            return _line([Cell("cli-bridge top", "bold", spare=1), Cell(plain(self._trouble) or "asking …")], width)
        late = age_s > 3 * self.every_s
        clock = Cell(time.strftime("%H:%M:%S", time.gmtime()), "dim", spare=2)
        data = Cell(f"(data {age_s:.0f} s old)", "bad" if late else "dim")
        first = picture.head(self._answer, self._watching.address)
        if self._asker.paused:
            first.append(Cell("PAUSED", "warn"))
        if self._tiny:
            return Text("\n").join([_line(first[2:4], width), _line([Cell("The terminal is too small.")], width)])
        lines = [_line([*first, clock, data], width), _line(picture.money_line(self._answer), width)]
        if self._trouble:
            lines.append(_line([Cell(plain(f"! {self._trouble}"), "bad")], width))
        matters = picture.matters(self._answer)
        if matters:
            most = 1 if self._small else MATTERS
            more = f"  +{len(matters) - most} (a)" if len(matters) > most else ""
            for number, matter in enumerate(matters[:most], start=1):
                lines.append(_line([Cell(matter.text + (more if number == most else ""), matter.style)], width))
        return Text("\n").join(lines)

    # --- keys that change what is shown ------------------------------------------------------------

    def action_quit_now(self) -> None:
        """End."""
        self.exit(0)

    def action_box(self, number: int) -> None:
        """Show or hide a box, or choose the view."""
        if self._small:
            self._view = number
        else:
            self._open ^= {number}
        self._lay_out()
        grid = self._grids[number - 1]
        if grid.display:
            grid.focus()
        elif self._open:
            self._grids[min(self._open) - 1].focus()

    def action_filter(self) -> None:
        """Type a filter."""
        line = self.query_one(Input)
        line.display = True
        line.focus()

    def action_clear_filter(self) -> None:
        """Show all again."""
        line = self.query_one(Input)
        line.value = ""
        self._end_filter()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter what is here at once, and ask the server for what is not."""
        self.feed.wanted = event.value
        self._draw()
        self._asker.now.set()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Keep the filter."""
        self._end_filter()

    def _end_filter(self) -> None:
        line = self.query_one(Input)
        had = line.has_focus
        line.display = False
        if had:
            shown = [grid for grid in self._grids if grid.display]
            next((grid for grid in shown if grid.id == "runs"), shown[0]).focus()

    def action_sort(self, step: int) -> None:
        """Sort the box by another column."""
        if (grid := self._grid()) is not None:
            grid.sort_by(step)
            self._draw()

    def action_reverse(self) -> None:
        """Turn the order round."""
        grid = self._grid()
        if grid is not None and grid.sorting is not None:
            grid.sorting = (grid.sorting[0], not grid.sorting[1])
            self._draw()

    def on_data_table_header_selected(self, event: DataTable.HeaderSelected) -> None:
        """A click on a head sorts by it; a second one turns it round."""
        grid, place = event.data_table, int(event.column_key.value or 0)
        assert isinstance(grid, Grid)
        turned = grid.sorting is not None and grid.sorting[0] == place and not grid.sorting[1]
        grid.sorting = (place, turned)
        self._draw()

    def action_pause(self) -> None:
        """Stop asking, or go on."""
        self._asker.paused = not self._asker.paused
        if not self._asker.paused:
            self._asker.now.set()
        self._draw_head()

    def action_pace(self, factor: float) -> None:
        """Ask less often, or more often."""
        self.every_s = min(MOST_S, max(LEAST_S, self.every_s * factor))
        self._asker.now.set()
        self.notify(f"every {self.every_s:g} s", timeout=2)

    def action_mute(self) -> None:
        """Bell on or off."""
        self._muted = not self._muted
        self.notify("bell off" if self._muted else "bell on", timeout=2)

    def action_help(self) -> None:
        """Show the keys."""
        self.push_screen(Sheet("keys", _HELP))

    def action_matters(self) -> None:
        """Show all that needs a look."""
        texts = [cell.text for cell in picture.matters(self._answer)] if self._answer is not None else []
        self.push_screen(Sheet("what needs a look", "\n".join(texts) or "nothing"))

    # --- keys that ask the server ------------------------------------------------------------------

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """All about a row."""
        grid = event.data_table
        assert isinstance(grid, Grid)
        row = grid.row
        if row is None:
            return
        if grid.id == "credentials" and "provider" in row.about:
            self._ask("GET", _path_of(row.about), self._sheet(f"credential {row.about['name']}"))
        elif grid.id == "keys":
            self._ask("GET", f"/admin/keys/{path_of(row.about['name'])}", self._sheet(f"key {row.about['name']}"))
        elif grid.id == "runs":
            self._ask("GET", "/admin/runs", lambda answer: self._show_run(row, answer["runs"]))
        elif grid.id == "log" and "status" in row.about:
            self._ask("GET", f"/admin/logs/{path_of(row.id)}", self._sheet(f"request {row.id}"))
        else:
            self._sheet(row.id)(row.about)

    def action_log(self) -> None:
        """The log of what the row is about."""
        row, grid = self._row()
        if row is None:
            return
        if grid == "credentials":
            query, about = "provider", row.about.get("provider") or row.about["name"]
        else:
            query, about = "key", row.about.get("keyName") or row.about.get("name")
        if about is not None:
            path = f"/admin/logs?{query}={path_of(about)}&limit=100&prompts=preview"
            self._ask("GET", path, lambda answer: self._show_log(about, answer["logs"]))

    def action_stop_run(self) -> None:
        """Stop the run, after a question."""
        row, grid = self._row()
        if row is None or grid != "runs" or row.about.get("ended"):
            self.notify("Choose a run that waits or runs first.", timeout=3)
            return
        about = row.about
        self._change(f"Stop …{row.id[-8:]} of {about['keyName']}?", "DELETE", f"/admin/runs/{path_of(row.id)}")

    def action_switch_key(self) -> None:
        """Disable the key, or enable it, after a question."""
        row, grid = self._row()
        name = None if row is None else row.about.get("keyName") or row.about.get("name")
        if name is None or grid == "credentials":
            self.notify("Choose a key first.", timeout=3)
            return
        assert self._answer is not None
        active = all(key["status"] == "active" for key in self._answer["keys"] if key["name"] == name)
        paused = any(each["kind"] == "loop" and each["subject"] == name for each in self._answer["attention"])
        what = "disable" if active and not paused else "enable"
        question = (
            f"Disable the key {name}? Its requests are refused." if what == "disable" else f"Enable the key {name}?"
        )
        self._change(question, "POST", f"/admin/keys/{path_of(name)}/{what}")

    def _credential(self) -> dict[str, Any] | None:
        """The credential under the cursor."""
        row, grid = self._row()
        if row is None or grid != "credentials" or "provider" not in row.about:
            self.notify("Choose a credential first.", timeout=3)
            return None
        return dict(row.about)

    def action_switch_credential(self) -> None:
        """Disable the credential, or enable it, after a question."""
        if (about := self._credential()) is not None:
            word = "disable" if about["enabled"] else "enable"
            question = f"{word.title()} the credential {about['name']} of {about['provider']}?"
            self._change(question, "POST", _path_of(about, f"/{word}"))

    def action_clear_bench(self) -> None:
        """Have the credential tried again at once, after a question."""
        if (about := self._credential()) is not None:
            question = f"Forget the failures of {about['name']} of {about['provider']}? It is tried again at once."
            self._change(question, "POST", _path_of(about, "/reset"))

    def action_prefer(self) -> None:
        """Give the credential the highest priority of its provider, after a question."""
        if (about := self._credential()) is not None:
            assert self._answer is not None
            others = [each for each in self._answer["credentials"] if each["provider"] == about["provider"]]
            priority = 1 + max(each["priority"] for each in others if each["name"] != about["name"] or len(others) == 1)
            question = f"Prefer {about['name']} of {about['provider']} (priority {priority})? Counts with fill-first."
            self._change(question, "PATCH", _path_of(about), {"priority": priority})

    def action_test_credential(self) -> None:
        """Ask the provider whether it takes the credential; changes nothing."""
        if (about := self._credential()) is not None:
            self.notify(plain(f"Asking {about['provider']} …"), markup=False, timeout=2)
            self._ask("POST", _path_of(about, "/test"), self._notice)

    def _notice(self, answer: Any) -> None:
        self.notify(plain(answer["message"]), markup=False)

    def _change(self, question: str, method: str, path: str, body: dict[str, Any] | None = None) -> None:
        def done(answer: Any) -> None:
            self._notice(answer)
            self._asker.now.set()

        def decided(yes: bool | None) -> None:
            if yes:
                self._ask(method, path, done, body)

        self.push_screen(Question(question), decided)

    def _ask(self, method: str, path: str, show: Callable[[Any], None], body: dict[str, Any] | None = None) -> None:
        """One call beside those who watch."""

        def call() -> None:
            try:
                answer: Any = self._connect().call(method, path, body)
            except BridgeError as error:
                answer = error
            self.post_message(Acted(answer, show))

        threading.Thread(target=call, daemon=True).start()

    def _sheet(self, title: str) -> Callable[[Any], None]:
        return lambda answer: self._push(Sheet(title, "\n".join(picture.details(answer))))

    def _show_run(self, row: Row, runs: list[dict[str, Any]]) -> None:
        """All about a run; what was asked is in no answer of `/admin/top`."""
        whole = next((run for run in runs if run["id"] == row.id), row.about)
        self._sheet(f"run {row.id}")(whole)

    def _show_log(self, about: str, lines: list[dict[str, Any]]) -> None:
        self._push(Sheet(f"log of {about}", "\n".join(map(picture.log_line, lines)) or "Nothing yet.", wraps=False))

    def _push(self, sheet: Sheet) -> None:
        # What comes late must not cover a question.
        if len(self.screen_stack) == 1:
            self.push_screen(sheet)

    def _grid(self) -> Grid | None:
        return self.focused if isinstance(self.focused, Grid) else None

    def _row(self) -> tuple[Row | None, str]:
        grid = self._grid()
        return (None, "") if grid is None else (grid.row, grid.id or "")

    # --- the end -----------------------------------------------------------------------------------

    def _hang_up(self, status: int) -> None:
        """The terminal is gone, or somebody asks it to end."""
        last = threading.Timer(HANG_UP_S, os._exit, (status,))
        last.daemon = True
        last.start()
        self.exit(status)


def _path_of(credential: Mapping[str, Any], end: str = "") -> str:
    name, provider = path_of(credential["name"]), path_of(credential["provider"])
    return f"/admin/credentials/{name}{end}?provider={provider}"


def _text(cell: Cell, column: picture.Column) -> Text:
    text = Text(cell.text, style=_STYLES[cell.style], justify="right" if column.right else "left", no_wrap=True)
    text.truncate(column.width, overflow="ellipsis")
    return text


def _line(cells: list[Cell], width: int) -> Text:
    shown = picture.fitting(cells, width)
    text = Text("  ").join(Text(cell.text, style=_STYLES[cell.style]) for cell in shown)
    text.no_wrap = True
    text.truncate(max(1, width), overflow="ellipsis")
    return text
