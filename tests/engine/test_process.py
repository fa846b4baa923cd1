"""The one module that starts processes: pipes, limits, and the end of a whole group."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import gevent
import psutil
import pytest

from bridge.sandbox import child as process
from bridge.sandbox.child import Child, ChildError, capture
from tests.engine.harness import children, descriptors, until

#: A sleep that no other process on the machine sleeps.
LONG = f"{1000 + os.getpid() / 1e7:.7f}"
ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin"}


def start(*argv: str) -> Child:
    return Child(argv, env=ENV, cwd=Path("/"))


def python(code: str) -> Child:
    return start(sys.executable, "-IS", "-c", code)


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    yield
    left = [] if until(lambda: not _running(), 3) else _running()
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert until(lambda: not children()), children()
    assert left == []


def test_lines_come_without_their_newline_and_the_unfinished_last_is_no_line() -> None:
    child = python("print('one'); print(); print('två'); print('half', end='')")
    assert list(child.lines()) == [b"one", b"", "två".encode()]
    child.stop()


def test_what_one_that_has_ended_by_itself_had_printed_is_read_to_its_end_though_it_is_stopped_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process, "LAST_WORDS_S", 30)
    child = python("print('begun', flush=True); input(); print('the end')")
    lines = child.lines()
    assert next(lines) == b"begun"
    child.write(b"\n")
    assert child.wait(10) == 0
    with_pipes = descriptors()
    child.stop()
    assert not until(lambda: descriptors() < with_pipes, 0.5)  # they are left open for who reads
    assert list(lines) == [b"the end"]
    assert until(lambda: descriptors() < with_pipes)


def test_a_line_longer_than_the_pipe_comes_whole() -> None:
    child = python("print('x' * 5_000_000); print('y')")
    assert [len(line) for line in child.lines()] == [5_000_000, 1]
    child.stop()


def test_a_line_without_end_is_refused_and_memory_stays_bounded() -> None:
    child = python("import sys\nwhile True: sys.stdout.write('x' * 65536)")
    before = psutil.Process().memory_info().rss
    with pytest.raises(ChildError, match="without end"):
        list(child.lines())
    assert psutil.Process().memory_info().rss - before < 6 * process.MAX_LINE_BYTES
    child.stop()


def test_of_one_that_serves_many_a_line_that_is_too_long_is_passed_over_and_the_next_ones_come() -> None:
    long = process.MAX_LINE_BYTES + 1
    child = python(f"print('one'); print('x' * {long}); print('two'); print('y' * {3 * long}); print('three')")
    passed: list[tuple[int, bytes]] = []
    child.pass_over = lambda head, tail: passed.append((len(head), tail[-3:]))
    before = psutil.Process().memory_info().rss
    assert list(child.lines()) == [b"one", b"two", b"three"]
    assert passed == [(process.LINE_ENDS_BYTES, b"xxx"), (process.LINE_ENDS_BYTES, b"yyy")]
    assert psutil.Process().memory_info().rss - before < 4 * process.MAX_LINE_BYTES
    child.stop()


def test_a_flood_lets_other_greenlets_run() -> None:
    child = start("yes")
    turns = []
    other = gevent.spawn(lambda: [turns.append(gevent.sleep(0)) for _ in range(100)])
    lines = child.lines()
    while not other.dead:
        next(lines)
    assert len(turns) == 100
    child.stop()


@pytest.mark.parametrize("script", ["exec yes", "exec yes >&2"])
def test_a_flood_lets_timers_and_sockets_go_on(script: str) -> None:
    seen = Counter[str]()

    def tick() -> None:
        while True:
            gevent.sleep(0.001)
            seen["ticks"] += 1

    child = Child(["sh", "-c", script], env=ENV, cwd=Path("/"), hear=lambda line: seen.update(lines=1))
    reader = gevent.spawn(lambda: [seen.update(lines=1) for line in child.lines()])
    assert until(lambda: seen["lines"])
    seen.clear()
    ticking = gevent.spawn(tick)
    # Ten times what is read before others get their turn.
    assert until(lambda: seen["lines"] > 10 * process._YIELD_BYTES // len("y\n"), 60)
    assert seen["ticks"] >= 5
    ticking.kill()
    child.stop()
    reader.join()


def test_only_the_last_lines_of_stderr_are_kept_and_all_are_heard() -> None:
    heard: list[str] = []
    script = "import sys; sys.stderr.write('line\\n\\n' * 5000 + 'the end')"
    child = Child([sys.executable, "-IS", "-c", script], env=ENV, cwd=Path("/"), hear=heard.append)
    assert child.wait(10) == 0
    assert child.last_words() == ["line"] * (process.STDERR_LINES - 1) + ["the end"]
    assert (len(heard), heard[-1]) == (5001, "the end")
    child.stop()


@pytest.mark.parametrize(
    ("printed", "kept"),
    [
        ("x" * 5_000_000, "..."),
        ("two words " + "x" * 5_000_000, "two words ..."),
        ("two words " * 500_000, "two words " * 199 + "two words ..."),
    ],
    ids=["one word", "a long last word", "many words"],
)
def test_a_line_of_stderr_without_end_is_cut_between_words(printed: str, kept: str) -> None:
    child = python("import sys; sys.stderr.write(sys.stdin.readline())")
    child.write(printed.encode() + b"\n")
    assert child.wait(10) == 0
    assert child.last_words() == [kept]
    child.stop()


@pytest.mark.parametrize(("script", "left"), [("exit 3", 3), ("exit 0", 0), ("kill -9 $$", -9), ("sleep 100", None)])
def test_it_is_known_whether_a_process_ended_by_itself(script: str, left: int | None) -> None:
    child = start("sh", "-c", script)
    if left is None:
        child.stop()
    child.wait(10)
    child.stop()
    assert child.left == left


def test_what_several_greenlets_write_at_once_is_not_mixed() -> None:
    child = start("cat")
    wanted = [bytes([97 + n]) * 500_000 for n in range(4)]
    writers = [gevent.spawn(child.write, line + b"\n") for line in wanted]
    gevent.sleep(0.05)  # the pipes fill up, and every writer has to wait for room
    lines = child.lines()
    assert sorted(next(lines) for _ in wanted) == wanted
    gevent.joinall(writers, raise_error=True)
    child.stop()


def test_writing_to_a_process_that_has_ended_is_an_error_not_a_signal() -> None:
    child = start("true")
    assert child.wait(10) == 0
    with pytest.raises(ChildError):
        child.write(b"x" * 1_000_000)
    child.stop()


def test_a_program_that_does_not_exist_prints_nothing_and_does_not_end_well() -> None:
    with contextlib.suppress(ChildError):
        child = start("/nonexistent/program")
        assert list(child.lines()) == []
        assert child.wait(10) != 0
        child.stop()


def test_arguments_are_never_read_by_a_shell() -> None:
    child = start("printf", "%s\n", "$(id) `id` ; id | id > /tmp/x '\"")
    assert list(child.lines()) == [b"$(id) `id` ; id | id > /tmp/x '\""]
    child.stop()


def test_stop_kills_the_whole_group() -> None:
    child = start("sh", "-c", "sleep 1000 & sleep 1000 & echo $!; wait")
    grandchild = int(next(child.lines()))
    child.stop()
    assert until(lambda: is_gone(grandchild))
    assert child.wait(5) == -signal.SIGKILL


def test_stop_kills_what_the_leader_left_in_its_group() -> None:
    child = start("sh", "-c", "sleep 1000 & echo $!")
    grandchild = int(next(child.lines()))
    assert child.wait(5) == 0
    child.stop()
    assert until(lambda: is_gone(grandchild))


def test_stop_reaches_a_daemon_that_left_the_group() -> None:
    child = start("sh", "-c", f"setsid -f sleep {LONG}; echo started; wait")
    next(child.lines())
    child.stop()
    assert until(lambda: not _running())


def _running() -> list[int]:
    """Process ids of the long sleeps that are left."""
    found = psutil.process_iter(["cmdline"])
    return [process.pid for process in found if process.info["cmdline"] == ["sleep", LONG]]


def test_stop_is_gentle_first_where_it_is_told_to() -> None:
    code = "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\nprint('ready', flush=True)\n"
    child = python(code + "signal.pause()")
    next(child.lines())
    child.stop(grace_s=10)
    assert child.wait(10) == 7


def test_a_process_that_ignores_sigterm_is_killed_after_its_grace() -> None:
    code = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('ready', flush=True)\n"
    child = python(code + "while True: signal.pause()")
    next(child.lines())
    child.stop(grace_s=0.1)
    assert child.wait(10) == -signal.SIGKILL


def test_stop_twice_and_stop_after_the_end_are_harmless() -> None:
    child = start("true")
    child.wait(10)
    child.stop()
    child.stop()
    child.stop(grace_s=1)


def test_a_reader_wakes_when_the_process_is_stopped_though_a_stray_holds_the_pipe() -> None:
    child = start("sh", "-c", f"setsid -f sleep {LONG}; echo started; wait")
    lines = child.lines()
    next(lines)
    reader = gevent.spawn(list, lines)
    gevent.sleep(0)
    child.stop()
    reader.join(5)
    assert reader.dead


def test_the_descriptor_of_a_stopped_process_is_read_by_nobody_any_more() -> None:
    # A greenlet left waiting on a bare number would steal the output of the next process that gets it.
    before = descriptors()
    for _ in range(5):
        child = start("sh", "-c", f"setsid -f sleep {LONG}; echo started; wait")
        lines = child.lines()
        next(lines)
        gevent.spawn(list, lines)
        gevent.sleep(0)
        child.stop()
    assert until(lambda: descriptors() <= before)
    echoes = [list(start("echo", str(n)).lines()) for n in range(10)]
    assert echoes == [[str(n).encode()] for n in range(10)]


def test_a_writer_is_woken_by_the_end_and_never_writes_into_the_next_process() -> None:
    before = descriptors()
    daemon = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(20)\n"
    code = daemon + "print('ready', flush=True)\ntime.sleep(20)"
    child = python(code)
    next(child.lines())
    writer = gevent.spawn(child.write, b"the prompt of somebody else\n" * 50_000)
    gevent.sleep(0)
    child.stop()
    assert until(lambda: descriptors() <= before)
    others = [start("cat") for _ in range(5)]
    writer.join(5)
    assert writer.dead
    assert isinstance(writer.exception, ChildError)
    for number, other in enumerate(others):
        other.write(f"{number}\n".encode())
        assert next(other.lines()) == str(number).encode()
        other.stop()


def test_no_descriptor_is_inherited_not_even_one_that_could_be() -> None:
    inside, outside = os.pipe()
    os.set_inheritable(inside, True)
    child = start("ls", "/proc/self/fd")
    seen = [int(line) for line in child.lines()]
    child.stop()
    os.close(inside)
    os.close(outside)
    assert seen[:3] == [0, 1, 2]
    assert len(seen) == 4  # and the one that lists them


def test_a_child_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    root = Path(process.__file__).resolve().parents[2]
    code = (
        f"import sys; sys.path.insert(0, {str(root)!r})\n"
        "from pathlib import Path\nfrom bridge.sandbox.child import Child\nimport time\n"
        "child = Child(['sleep', '1003'], env={'PATH': '/usr/bin:/bin'}, cwd=Path('/'))\n"
        "print(child.pid, flush=True)\ntime.sleep(1000)\n"
    )
    parent = Child([sys.executable, "-c", code], env=ENV, cwd=Path("/"))
    grandchild = int(next(parent.lines()))
    # Between its start and the guard's prctl it has only the closed stdin to tell it, which sleep does not read.
    assert until(lambda: Path(f"/proc/{grandchild}/comm").read_text().strip() == "sleep")
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait(5)
    assert until(lambda: is_gone(grandchild))
    parent.stop()


def test_capture_returns_status_and_output() -> None:
    assert capture(["sh", "-c", "echo one; echo two; exit 3"], env=ENV, cwd=Path("/"), timeout_s=10) == (
        3,
        "one\ntwo",
        [],
    )


def test_capture_gives_up_on_a_command_that_does_not_end() -> None:
    assert capture(["sh", "-c", "echo one; sleep 1000"], env=ENV, cwd=Path("/"), timeout_s=0.5) == (None, "one", [])


def test_a_hundred_processes_leave_no_descriptor() -> None:
    capture(["true"], env=ENV, cwd=Path("/"), timeout_s=10)
    before = descriptors()
    for number in range(100):
        child = start("cat" if number % 2 else "true")
        gevent.spawn(list, child.lines())
        child.stop()
    assert until(lambda: not children() and descriptors() <= before), (before, descriptors())


def test_without_descriptors_it_is_an_error_like_any_other_and_none_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    real, before = os.pipe, descriptors()

    def scarce() -> tuple[int, int]:
        if descriptors() >= before + 4:
            raise OSError(24, "Too many open files")
        return real()

    with monkeypatch.context() as patched:
        patched.setattr(os, "pipe", scarce)
        # Without the path of the program: it may be told to a client.
        with pytest.raises(ChildError, match=r"^cannot start true: Too many open files$"):
            start("/usr/bin/true")
    assert descriptors() == before


@pytest.mark.parametrize("newline", ["", "\\n"], ids=["one line", "many lines"])
def test_a_short_command_that_floods_is_ended_and_memory_stays_bounded(newline: str) -> None:
    before = psutil.Process().memory_info().rss
    with pytest.raises(ChildError, match=r"too much|without end"):
        capture(
            [sys.executable, "-IS", "-c", f"import sys\nwhile True: sys.stdout.write('x' * 65536 + '{newline}')"],
            env=ENV,
            cwd=Path("/"),
            timeout_s=30,
        )
    assert psutil.Process().memory_info().rss - before < 8 * process.MAX_LINE_BYTES
