"""The full screen of `cli-bridge top`, without a terminal and against a client that only plays."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from textual.pilot import Pilot

from bridge.cli.screen import Answered, Grid, TopApp, Unanswered
from bridge.errors import BridgeError
from tests.support.topanswer import ANSWER, answer_with, credential, key, line, run

LARGE, SMALL, TINY = (140, 40), (80, 24), (50, 10)


class Player:
    """Stands for a server: what it is to say next, and what was asked of it."""

    address = "https://bridge.example.com"

    def __init__(self, answer: Any = ANSWER) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str]] = []
        self.bodies: list[Any] = []
        self.looks: list[str] = []
        self.news: dict[str, Any] = {}
        #: looks are held while it is clear
        self.may_answer = threading.Event()
        self.may_answer.set()

    def top(self, query: str = "") -> Any:
        self.looks.append(query)
        self.may_answer.wait(20)
        if isinstance(self.answer, BridgeError):
            raise self.answer
        return self.answer

    def call(self, method: str, path: str, body: Any = None) -> Any:
        self.asked.append((method, path))
        self.bodies.append(body)
        found = self.news.get(path, {"message": f"done: {path}"})
        if isinstance(found, BridgeError):
            raise found
        return found


Script = Callable[[TopApp, Pilot[int]], Awaitable[None]]


def play(script: Script, player: Player | None = None, size: tuple[int, int] = LARGE, every_s: float = 60) -> TopApp:
    """Run the screen for the length of a script that begins when the first answer is drawn."""
    player = player or Player()
    app = TopApp(lambda: player, every_s)  # type: ignore[arg-type,return-value]

    async def go() -> None:
        async with app.run_test(size=size, notifications=True) as pilot:
            if not isinstance(player.answer, BridgeError):
                await until(pilot, lambda: app._answer is not None)
            await script(app, pilot)

    asyncio.run(go())
    return app


async def until(pilot: Pilot[int], true: Callable[[], Any]) -> None:
    """Wait for something that a thread brings about."""
    for _ in range(400):
        if true():
            break
        await pilot.pause(0.02)
    else:
        raise AssertionError(f"it did not come:\n{seen(pilot.app)}")
    await pilot.pause()


def seen(app: TopApp) -> str:
    """What the screen shows, as text."""
    return "\n".join(strip.text for strip in app.screen._compositor.render_strips())


# --- what it shows -------------------------------------------------------------------------------


def test_a_large_terminal_shows_all() -> None:
    async def script(app: TopApp, pilot: Pilot[int]) -> None:
        shown = seen(app)
        for text in (
            "GREEN  slots 1/16  queue 1",
            "https://bridge.example.com",
            "today $3.21 of $20.00",
            "! ada: 92% of $5.00 per day",
            "1 Credentials",
            "codex is not logged in",
            "2 Runs (1 running, 1 queued)",
            "queued 1",
            "3 Keys (2 of 12)",
            "▕█████████▎▏  93%",
            "4 Log (UTC)",
            "429 cost_per_day ×3",
            "q quit",
        ):
            assert text in shown, text
        assert app.focused is app.query_one("#runs")

    play(script)


def test_a_small_terminal_shows_one_box_and_the_digits_choose() -> None:
    async def script(app: TopApp, pilot: Pilot[int]) -> None:
        for number, title, other in ((3, "3 Keys", "2 Runs"), (4, "4 Log", "3 Keys"), (2, "2 Runs", "4 Log")):
            await pilot.press(str(number))
            await pilot.pause()
            assert title in seen(app)
            assert other not in seen(app)
        assert "GREEN" in seen(app)
        assert "s old)" in seen(app)
        assert "today $3.21" in seen(app)
        assert "q quit" in seen(app)

    play(script, size=SMALL)


def test_a_tiny_terminal_shows_the_verdict() -> None:
    async def script(app: TopApp, pilot: Pilot[int]) -> None:
        assert "GREEN  slots 1/16" in seen(app)
        assert "too small" in seen(app)
        await pilot.press("1", "j", "x", "question_mark", "escape")

    play(script, size=TINY)


def test_another_size_has_another_layout() -> None:
    async def script(app: TopApp, pilot: Pilot[int]) -> None:
        for size, boxes in ((SMALL, 1), (TINY, 0), (LARGE, 4)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
            await pilot.pause()
            assert sum(f" {number} " in seen(app) and grid.display for number, grid in _grids(app)) == boxes
        assert "claude-sonnet-5-5" in seen(app)

    play(script)


def _grids(app: TopApp) -> list[tuple[int, Grid]]:
    return list(enumerate(app.query(Grid), start=1))


def test_boxes_of_a_large_terminal_can_be_hidden() -> None:
    async def script(app: TopApp, pilot: Pilot[int]) -> None:
        await pilot.press("1", "4")
        await pilot.pause()
        assert [grid.display for _, grid in _grids(app)] == [False, True, True, False]
        await pilot.press("2", "3", "1")
        await pilot.pause()
        assert [grid.display for _, grid in _grids(app)] == [True, False, False, False]

    play(script)


def test_a_hostile_name_stays_a_text() -> None:
    name = "[red]x[/red]\x1b]0;evil\x07[link=http://x]"
    answer = answer_with(
        runs=[run(1, keyName=name, model=name)],
        keys=[key(name)],
        log=[line(1, 2, keyName=name, code=name, status=500)],
        attention=[{"kind": "x", "subject": "x", "text": name}],
    )

    async def script(app: TopApp, pilot: Pilot[int]) -> None:
        shown = seen(app)
        assert shown.count("[red]x[/red]") >= 3
        assert "\x1b" not in shown
        assert "evil" in shown
        await pilot.press("a")
        assert "! [red]x[/red]?]0;evil?[link=http://x]" in seen(app)
        await pilot.press("escape", "slash", *"[/b]")
        await pilot.pause()
        assert "/[/b]" in seen(app)

    play(script, Player(answer))


def test_only_what_changed_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    changed: list[tuple[str, str]] = []
    real = Grid.update_cell

    def update_cell(self: Grid, row_key: Any, column_key: Any, value: Any, **more: Any) -> None:
        changed.append((row_key, column_key))
        real(self, row_key, column_key, value, **more)

    monkeypatch.setattr(Grid, "update_cell", update_cell)
    player = Player()

    async def script(app: TopApp, pilot: Pilot[int]) -> None:
        changed.clear()
        player.answer = answer_with(runs=[run(1, outputTokensSoFar=1999), *ANSWER["runs"][1:]])
        await _again(app, pilot, player)
        assert changed == [(run(1)["id"], "8")]

    play(script, player)


async def _again(app: TopApp, pilot: Pilot[int], player: Player) -> None:
    """Let it ask once more, and wait until that is drawn."""
    before = app._heard_at
    app._asker.now.set()
    await until(pilot, lambda: app._heard_at > before)


def test_the_cursor_stays_on_its_row() -> None:
    player = Player(answer_with(runs=[run(number) for number in range(10, 20)], runsInAll=10))

    async def script(app: TopApp, pilot: Pilot[int]) -> None:
        await pilot.press("j", "j", "down")
        grid = app.query_one("#runs", Grid)
        assert grid.row is not None
        assert grid.row.id == run(13)["id"]
        player.answer = answer_with(runs=[run(number) for number in (1, 2, 13, 15)], runsInAll=4)
        await _again(app, pilot, player)
        assert grid.row.id == run(13)["id"]

    play(script, player)


def test_a_run_that_has_ended_stays_a_moment_with_its_status() -> None:
    player = Player(answer_with(runs=[run(1), run(2)], runsInAll=2, log=[]))

    async def script(app: TopApp, pilot: Pilot[int]) -> None:
        player.answer = answer_with(runs=[run(2)], runsInAll=1, log=[line(1, 30, status=502, code="cli_failed")])
        await _again(app, pilot, player)
        grid = app.query_one("#runs", Grid)
        assert [row.about.get("ended") for row in grid.shown] == ["ended 502", None]
        assert "ended 502" in seen(app)
        await pilot.press("home", "x")
        assert player.asked == [], "it cannot be stopped any more"

    play(script, player)


# --- keys that change what is shown --------------------------------------------------------------


def test_a_filter_is_applied_at_once_and_asked_of_the_server() -> None:
    player = Player()

    async def script(app: TopApp, pilot: Pilot[int]) -> None:
        await pilot.press("slash", *"ci-b")
        await until(pilot, lambda: any("text=ci-b" in query for query in player.looks))
        assert [row.about["keyName"] for row in app.query_one("#runs", Grid).shown] == ["ci-bot"]
        assert "Keys (2 of 12), /ci-b : nothing matches." in seen(app).replace("  ", " ") or "/ci-b: nothing" in seen(
            app
        )
        await pilot.press("q", "enter")
        assert app.feed.wanted == "ci-bq", "in the line, q is a letter"
        await pilot.press("escape")
        await pilot.pause()
        assert app.feed.wanted == ""
        assert len(app.query_one("#runs", Grid).shown) == 2
        assert app.focused is app.query_one("#runs")

    play(script, player)


def test_tables_are_sorted_by_keys_and_by_a_click() -> None:
    player = Player(answer_with(keys=[key("bea"), key("ada"), key("cem")]))

    async def script(app: TopApp, pilot: Pilot[int]) -> None:
        grid = app.query_one("#keys", Grid)
        grid.focus()
        await pilot.pause()
        assert [row.id for row in grid.shown] == ["bea", "ada", "cem"]
        await pilot.press("greater_than_sign")
        assert [row.id for row in grid.shown] == ["ada", "bea", "cem"]
        assert "KEY▲" in seen(app)
        await pilot.press("r")
        assert [row.id for row in grid.shown] == ["cem", "bea", "ada"]
        await pilot.press("less_than_sign")
        assert "SEEN▼" in seen(app)
        await pilot.click(grid, offset=(2, 1))
        await pilot.pause()
        assert [row.id for row in grid.shown] == ["ada", "bea", "cem"]

    play(script, player)


def test_pause_asks_nothing_until_it_goes_on() -> None:
    player = Player()

    async def script(app: TopApp, pilot: Pilot[int]) -> None:
        await pilot.press("space")
        assert "PAUSED" in seen(app)
        looks = len(player.looks)
        await pilot.pause(0.7)
        assert len(player.looks) <= looks + 1
        await pilot.press("space")
        await until(pilot, lambda: len(player.looks) > looks + 1)
        assert "PAUSED" not in seen(app)

    play(script, player, every_s=0.5)


def test_the_pace_stays_within_bounds() -> None:
    async def script(app: TopApp, pilot: Pilot[int]) -> None:
        await pilot.press("minus")
        assert app.every_s == 1
        await pilot.press(*["minus"] * 4)
        assert app.every_s == 0.5
        await pilot.press(*["plus"] * 9)
        assert app.every_s == 60

    play(script, every_s=2)


def test_the_bell_rings_once_for_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    bells: list[int] = []
    monkeypatch.setattr(TopApp, "bell", lambda self: bells.append(1))
    player = Player()
    new = [*ANSWER["attention"], {"kind": "disk", "subject": "x", "text": "the disk is full"}]

    async def script(app: TopApp, pilot: Pilot[int]) -> None:
        assert bells == [], "not for what was there before"
        player.answer = answer_with(attention=new)
        await _again(app, pilot, player)
        await _again(app, pilot, player)
        assert bells == [1]
        await pilot.press("b")
        player.answer = answer_with(attention=[{"kind": "other", "subject": "y", "text": "z"}])
        await _again(app, pilot, player)
        assert bells == [1], "off"

    play(script, player)


def test_more_matters_than_lines_are_counted_and_listed() -> None:
    several = [{"kind": "x", "subject": str(number), "text": f"matter {number}"} for number in range(5)]

    async def script(app: TopApp, pilot: Pilot[int]) -> None:
        assert "matter 2  +2 (a)" in seen(app)
        assert "matter 4" not in seen(app)
        await pilot.press("a")
        assert "matter 4" in seen(app)
        await pilot.press("escape", "question_mark")
        assert "disable the key, or enable it" in seen(app)

    play(script, Player(answer_with(attention=several)))


# --- keys that ask the server --------------------------------------------------------------------

ADA = run(1)["id"]
CHANGES = [
    ("#runs", "x", ("DELETE", f"/admin/runs/{ADA}")),
    ("#runs", "d", ("POST", "/admin/keys/ada/disable")),
    ("#keys", "d", ("POST", "/admin/keys/ada/disable")),
    ("#log", "d", ("POST", "/admin/keys/ada/disable")),
    ("#credentials", "e", ("POST", "/admin/credentials/team-b/disable?provider=claude")),
    ("#credentials", "c", ("POST", "/admin/credentials/team-b/reset?provider=claude")),
    ("#credentials", "p", ("PATCH", "/admin/credentials/team-b?provider=claude")),
]


@pytest.mark.parametrize(("box", "pressed", "call"), CHANGES, ids=str)
def test_a_change_goes_out_after_yes_and_only_then(box: str, pressed: str, call: tuple[str, str]) -> None:
    player = Player()

    async def script(app: TopApp, pilot: Pilot[int]) -> None:
        app.query_one(box, Grid).focus()
        for no in ("n", "escape", "enter"):
            await pilot.press(pressed)
            assert "y/N" in seen(app)
            await pilot.press(no)
            await pilot.pause()
            assert "y/N" not in seen(app)
        assert player.asked == []
        await pilot.press(pressed, "y")
        await until(pilot, lambda: player.asked)
        assert player.asked == [call]
        assert player.bodies == [{"priority": 1} if pressed == "p" else None], "above those of all others"
        await until(pilot, lambda: "done: /admin/" in seen(app))

    play(script, player)


@pytest.mark.parametrize(
    "fields",
    [
        {"keys": [key("ada", status="disabled")]},
        {"attention": [{"kind": "loop", "subject": "ada", "text": "loop paused: ada, 3 m more"}]},
    ],
    ids=["disabled", "paused"],
)
def test_a_key_that_is_off_or_paused_is_enabled(fields: Any) -> None:
    player = Player(answer_with(**fields))

    async def script(app: TopApp, pilot: Pilot[int]) -> None:
        await pilot.press("d")
        assert "Enable the key ada?" in seen(app)
        await pilot.press("y")
        await until(pilot, lambda: player.asked)
        assert player.asked == [("POST", "/admin/keys/ada/enable")]

    play(script, player)


def test_a_credential_is_enabled_and_tested() -> None:
    player = Player(answer_with(credentials=[credential("spare", state="disabled", enabled=False)]))
    player.news["/admin/credentials/spare/test?provider=claude"] = {"message": "Anthropic took it.", "ok": True}

    async def script(app: TopApp, pilot: Pilot[int]) -> None:
        app.query_one("#credentials", Grid).focus()
        await pilot.press("t")
        await until(pilot, lambda: "Anthropic took it." in seen(app))
        await pilot.press("e")
        assert "Enable the credential spare of claude?" in seen(app)
        await pilot.press("y")
        await until(pilot, lambda: len(player.asked) > 1)
        assert player.asked[1] == ("POST", "/admin/credentials/spare/enable?provider=claude")

    play(script, player)


def test_what_the_server_refuses_is_shown() -> None:
    player = Player()
    player.news[f"/admin/runs/{ADA}"] = BridgeError("not_found", "No such run is queued or running.")

    async def script(app: TopApp, pilot: Pilot[int]) -> None:
        await pilot.press("x", "y")
        await until(pilot, lambda: "No such run is queued or running." in seen(app))

    play(script, player)


def test_keys_on_the_wrong_box_do_nothing() -> None:
    player = Player(answer_with(runs=[], runsInAll=0, credentials=[]))

    async def script(app: TopApp, pilot: Pilot[int]) -> None:
        for box in ("#credentials", "#runs"):
            app.query_one(box, Grid).focus()
            await pilot.press("x", "d", "e", "c", "p", "t", "y", "enter", "escape")
        app.query_one("#log", Grid).focus()
        await pilot.press("x", "y")
        assert player.asked == []

    play(script, player)


def test_details_and_log_are_asked_for_and_shown() -> None:
    player = Player()
    logged = {**line(8, 29), "inputTokens": 3, "outputTokens": 4, "userPrompt": "a [b]prompt\nin lines\x1b[31m"}
    player.news = {
        "/admin/runs": {"runs": [run(1, userPrompt="what [b]is asked")]},
        "/admin/keys/ada": {"name": "ada", "limits": {"maxCostPerDay": 5}, "note": "[red]note", "models": ["a", "b"]},
        "/admin/logs?key=ada&limit=100&prompts=preview": {"logs": [logged], "next": None},
        "/admin/logs?provider=claude&limit=100&prompts=preview": {"logs": [], "next": None},
        f"/admin/logs/{line(8, 29)['id']}": {**logged, "hint": None},
    }

    async def script(app: TopApp, pilot: Pilot[int]) -> None:
        await pilot.press("enter")
        await until(pilot, lambda: "what [b]is asked" in seen(app))
        await pilot.press("escape", "down", "enter")
        await until(pilot, lambda: "ci-bot" in seen(app) and f"run {run(2)['id']}" in seen(app))
        await pilot.press("escape", "up", "l")
        await until(pilot, lambda: "a [b]prompt in lines?[31m" in seen(app))
        await pilot.press("escape")
        app.query_one("#keys", Grid).focus()
        await pilot.press("enter")
        await until(pilot, lambda: "[red]note" in seen(app))
        assert "maxCostPerDay" in seen(app)
        assert "a, b" in seen(app)
        await pilot.press("escape")
        app.query_one("#log", Grid).focus()
        await pilot.press("enter")
        await until(pilot, lambda: "durationMs" in seen(app))
        await pilot.press("j", "k", "escape")
        app.query_one("#credentials", Grid).focus()
        await pilot.press("l")
        await until(pilot, lambda: "Nothing yet." in seen(app))

    play(script, player)


# --- a server that is away -----------------------------------------------------------------------


def test_the_last_picture_stays_while_the_server_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    player = Player()
    waits: list[float] = []
    real = TopApp.on_unanswered

    def on_unanswered(self: TopApp, message: Unanswered) -> None:
        waits.append(message.again_s)
        real(self, message)

    monkeypatch.setattr(TopApp, "on_unanswered", on_unanswered)

    async def script(app: TopApp, pilot: Pilot[int]) -> None:
        player.answer = BridgeError("overloaded", "The server cannot be reached: Connection refused.")
        app._asker.now.set()
        await until(pilot, lambda: "Connection refused" in seen(app))
        assert "Next try in " in seen(app)
        assert "queued 1" in seen(app)
        await until(pilot, lambda: len(waits) > 1)
        assert waits[:2] == [1, 2]
        player.answer = ANSWER
        app._asker.now.set()
        await until(pilot, lambda: "Connection refused" not in seen(app))

    play(script, player)


def test_a_key_that_is_no_longer_valid_ends_it() -> None:
    player = Player()

    async def script(app: TopApp, pilot: Pilot[int]) -> None:
        player.answer = BridgeError("unauthorized", "This is not the admin key.")
        app._asker.now.set()
        await until(pilot, lambda: app.farewell)

    app = play(script, player)
    assert app.return_value == 1
    assert app.farewell.startswith("This is not the admin key.\n")


def test_a_slow_server_holds_no_key_up() -> None:
    player = Player()

    async def script(app: TopApp, pilot: Pilot[int]) -> None:
        player.may_answer.clear()
        app._asker.now.set()
        looks = len(player.looks)
        await until(pilot, lambda: len(player.looks) > looks or not player.may_answer.is_set())
        await pilot.press("3", "q")
        assert app._exit
        assert len(player.looks) == looks + 1, "the server has not answered"
        player.may_answer.set()

    play(script, player)


def test_what_comes_while_it_ends_is_drawn_nowhere() -> None:
    player = Player()
    app = TopApp(lambda: player, 60)  # type: ignore[arg-type,return-value]

    async def go() -> None:
        async with app.run_test(size=LARGE) as pilot:
            await until(pilot, lambda: app._answer is not None)
        app._answer = None
        with app._context():
            app.on_answered(Answered(answer_with(keys=[key("eve")])))
            app._draw_head()

    asyncio.run(go())
    assert app._answer is not None


# --- what it costs -------------------------------------------------------------------------------


def test_as_much_as_an_answer_can_hold_is_drawn_quickly() -> None:
    player = Player(
        answer_with(
            runs=[run(number, keyName=f"key-{number}") for number in range(60)],
            keys=[key(f"key-{number}") for number in range(50)],
            log=[line(number, number % 60) for number in range(50)],
            runsInAll=500,
            keysInAll=10_000,
        )
    )
    times = []

    async def script(app: TopApp, pilot: Pilot[int]) -> None:
        assert "440 not shown" in seen(app)
        for turn in range(5):
            player.answer = {**player.answer, "runs": [run(n, ageMs=turn * 1000 + n) for n in range(60)]}
            before = time.process_time()
            await _again(app, pilot, player)
            times.append(time.process_time() - before)

    began = time.process_time()
    play(script, player)
    assert min(times) < 0.5, times
    assert time.process_time() - began < 10
