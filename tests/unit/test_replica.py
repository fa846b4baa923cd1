"""Tallies that nodes share: the same figures on each, and one truth about caps, whatever fails in between."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import gevent
import msgspec
import pytest

from bridge.errors import BridgeError
from bridge.ledger.ledger import Ceiling, Ledger
from bridge.ledger.pricing import PriceTable
from bridge.ledger.replica import SharedTallies
from bridge.ledger.tallies import Reservation, Tally
from bridge.limits import Limits, spans_of
from bridge.records.runlog import RunLog
from bridge.store.folder import Store
from bridge.store.redis import Cluster, unreachable
from bridge.types import RunRecord
from tests.property.tallies_suite import refused
from tests.support.ledger import UNLIMITED, FrozenClock, line_of, record
from tests.support.redis import module_server

DAY = spans_of("2026-11-20")["day"]
_databases = itertools.count(50_000)


class Node:
    """A node as far as its tallies. It beats and reads when it is told to."""

    def __init__(self, url: str, folder: Path) -> None:
        self.store = Store.open(folder)
        self.clock = FrozenClock()
        self.cluster = Cluster(url, folder.name, self.clock)
        self.cluster.join(folder.name, "")
        self.tallies = SharedTallies(self.cluster, self.store, self.clock, ZoneInfo("UTC"))
        self.tallies.patience_s = 0
        self.tallies._keeper.kill()
        self.told: list[RunRecord] = []
        self.tallies.on_line = self.told.append

    def reservation(self, run: str, **fields: Any) -> Reservation:
        given = Reservation(run, "ada", "demo", "demo", 0.0, DAY.key, 10, 90, 5000, owner=self.tallies.owner)
        return msgspec.structs.replace(given, **fields)

    def admit(self, run: str, **fields: Any) -> Reservation:
        held = self.reservation(run, **fields)
        return self.tallies.admit("ada", lambda tally, credentials: held)

    def admit_at_most(self, most: int, run: str, credential: str | None = None) -> str | None:
        """Reserve where less than so many runs hold something of the key, or of the credential."""

        def decide(tally: Tally, credentials: Mapping[str, Tally]) -> Reservation:
            holder = tally if credential is None else credentials.get(credential, Tally())
            if len(holder.open) >= most:
                raise BridgeError("concurrent_requests", "no more")
            return self.reservation(run, credential=credential, key_name=key)

        key = "ada" if credential is None else f"key-{run}"
        return refused(lambda: self.tallies.admit(key, decide))

    def catch_up(self) -> None:
        self.tallies._pay()
        self.tallies.sync()
        self.tallies._pay()
        self.tallies.sync()

    @property
    def used(self) -> tuple[int, int, int]:
        self.catch_up()
        counts = self.tallies.tally("ada").used(DAY)
        return counts.requests, counts.cost_micro, counts.assumed_micro

    @property
    def open(self) -> set[str]:
        self.catch_up()
        return set(self.tallies.tally("ada").open)

    def close(self) -> None:
        self.tallies.close()
        self.store.close()


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Callable[[int], list[Node]]]:
    url = module_server().found(next(_databases))
    opened: list[Node] = []

    def make(count: int) -> list[Node]:
        opened.extend(Node(url, tmp_path / name) for name in "abcd"[:count])
        return opened

    yield make
    for node in opened:
        node.close()


@pytest.fixture
def pair(nodes: Callable[[int], list[Node]]) -> list[Node]:
    return nodes(2)


def silence(dead: Node, other: Node) -> None:
    """Let a node's lease end, and another settle what it has left."""
    other.cluster.beat()
    other.cluster.command("HSET", "{cb}:alive", dead.cluster.owner, 1)
    other.cluster.beat()
    other.catch_up()
    other.tallies.sweep()


def drop_answers(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a node asks for is done, but no answer comes."""
    real = node.cluster.call

    def call(function: str, *args: Any) -> Any:
        real(function, *args)
        raise unreachable("no answer")

    monkeypatch.setattr(node.cluster, "call", call)


def no_answer(*words: Any) -> Any:
    """In the place of a call: a server that is away."""
    raise unreachable("no connection")


@pytest.mark.parametrize("credential", [None, "claude/a"], ids=["key", "credential"])
def test_what_fits_once_is_admitted_once_over_all_nodes(
    nodes: Callable[[int], list[Node]], credential: str | None
) -> None:
    several = nodes(4)
    tried = [
        gevent.spawn(node.admit_at_most, 12, f"run_{node.cluster.node}{number}", credential)
        for number in range(15)
        for node in several
    ]
    gevent.joinall(tried, raise_error=True)
    results = [each.value for each in tried]
    assert (results.count(None), results.count("concurrent_requests")) == (12, 48)
    held = []
    for node in several:
        node.catch_up()
        tallies = node.tallies.all().values() if credential is None else [node.tallies.credentials()[credential]]
        held.append({run for tally in tallies for run in tally.open})
    assert len(held[0]) == 12
    assert all(each == held[0] for each in held)


def decisions(node: Node, run: str, meanwhile: Callable[[int], Any]) -> int:
    """How often a node decides about a run, while something happens after each decision."""
    numbers = itertools.count()

    def decide(tally: Tally, credentials: Mapping[str, Tally]) -> Reservation:
        meanwhile(next(numbers))
        return node.reservation(run)

    node.tallies.admit("ada", decide)
    return next(numbers)


TURN = "{cb}:turn:k:ada"


def test_a_node_that_came_too_late_has_its_turn(pair: list[Node]) -> None:
    a, b = pair
    a.admit("run_1")
    late = ("FCALL", "cb_write", 1, "{cb}:", b.tallies.owner, 0, "new", "run_2", b"{}", 1, "k:ada")
    assert b.cluster.pipe([late, ("GET", TURN)]) == [[b"conflict"], b.tallies.owner.encode()]


def test_who_has_its_turn_writes_first(pair: list[Node]) -> None:
    a, b = pair
    b.cluster.command("SET", TURN, b.tallies.owner)
    waiting = gevent.spawn(a.admit, "run_1")
    waiting.join(0.1)
    assert not waiting.ready()
    b.admit("run_2")
    waiting.get()
    assert list(a.tallies.tally("ada").open) == ["run_2", "run_1"]


def test_a_turn_that_nobody_takes_ends(pair: list[Node]) -> None:
    a, b = pair

    def refuse(tally: Tally, credentials: Mapping[str, Tally]) -> Reservation:
        if not tally.open:
            a.admit("run_1")
            return b.reservation("run_2")
        raise BridgeError("concurrent_requests", "no more")

    assert refused(lambda: b.tallies.admit("ada", refuse)) == "concurrent_requests"
    a.admit("run_3")
    assert a.open == {"run_1", "run_3"}


@pytest.mark.parametrize(("cost", "output", "times"), [(5000, 90, 1), (5001, 90, 2), (10, 91, 2)])
def test_only_an_end_above_what_was_reserved_makes_others_decide_again(
    pair: list[Node], cost: int, output: int, times: int
) -> None:
    a, b = pair
    held = a.admit("run_a")
    b.catch_up()
    ended = line_of(held, cost, input_tokens=10, output_tokens=output)
    assert decisions(b, "run_b", lambda number: number or a.tallies.settle(ended)) == times
    assert a.used[1] == b.used[1] == cost


def test_each_node_has_all_figures_and_the_whole_log(pair: list[Node]) -> None:
    a, b = pair
    a.tallies.settle(line_of(a.admit("run_1"), 700))
    b.tallies.settle(line_of(b.admit("run_2"), 40))
    a.tallies.release(a.admit("run_3"))
    a.tallies.note(record("run_4", status=429, code="cost_per_day", cost_usd=0.0))
    a.catch_up()
    for node in pair:
        assert node.used == (2, 740, 0)
        log = RunLog(node.tallies.journal, node.clock, ZoneInfo("UTC"), node.tallies.sync)
        assert {line["id"] for line in log.iterate()} == {"run_1", "run_2", "run_4"}
        assert not {"shared", "seq", "crc"} & {field for line in log.iterate() for field in line}
    assert [line.id for line in b.told] == ["run_1", "run_4"]
    assert [line.id for line in a.told] == ["run_2"]


def test_a_reset_counts_the_same_on_each_node(pair: list[Node]) -> None:
    a, b = pair
    a.tallies.settle(line_of(a.admit("run_1"), 700))
    b.tallies.reset("ada", DAY.key)
    a.tallies.settle(line_of(a.admit("run_2"), 30))
    assert a.used == b.used == (1, 30, 0)


def test_what_a_silent_node_holds_is_settled_by_another_and_put_right_once(pair: list[Node]) -> None:
    a, b = pair
    held = a.admit("run_1", credential="claude/a")
    a.tallies.settle(line_of(a.admit("run_2"), 100))
    silence(a, b)
    assert b.used == (2, 5100, 5000)
    assert [(line.id, line.assumed) for line in b.told] == [("run_2", False), ("run_1", True)]
    for _ in range(2):
        a.tallies.settle(line_of(held, 900, credential="a"))
    assert a.used == b.used == (2, 1000, 0)
    for node in pair:
        assert node.tallies.credentials()["claude/a"].used(DAY).cost_micro == 900
        assert not node.tallies.credentials()["claude/a"].open
        books = node.tallies.tally("ada").books[DAY.key]
        assert sum(each.cost_micro for each in books.values()) == 1000


def test_a_run_that_used_nothing_is_put_right_as_well(pair: list[Node]) -> None:
    a, b = pair
    held = a.admit("run_1")
    silence(a, b)
    a.catch_up()
    a.tallies.release(held)
    assert a.used == b.used == (1, 0, 0)


def test_a_silent_node_does_not_settle_its_own_runs_when_it_is_back(pair: list[Node]) -> None:
    a, b = pair
    held = a.admit("run_1")
    b.cluster.beat()
    a.cluster.command("HSET", "{cb}:alive", a.cluster.owner, 1)
    b.cluster.beat()
    a.cluster.beat()
    a.tallies.sweep()
    assert a.open == {"run_1"}
    a.tallies.settle(line_of(held, 900))
    b.tallies.sweep()
    assert a.used == b.used == (1, 900, 0)


def test_a_node_that_was_taken_for_dead_admits_in_a_new_life(pair: list[Node]) -> None:
    a, b = pair
    before = a.tallies.owner
    silence(a, b)
    assert refused(lambda: a.admit("run_1")) is None
    assert a.tallies.owner != before


def test_a_node_that_has_just_come_is_not_taken_for_dead(nodes: Callable[[int], list[Node]]) -> None:
    a, b = nodes(2)
    b.admit("run_1")
    assert not a.cluster.alive(b.cluster.owner)
    a.catch_up()
    a.tallies.sweep()
    assert a.open == {"run_1"}


def test_a_reservation_whose_answer_was_lost_is_taken_back(pair: list[Node], monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = pair
    with monkeypatch.context() as patch:
        drop_answers(a, patch)
        assert refused(lambda: a.admit("run_1")) == "storage_failed"
    b.tallies.sync()
    assert set(b.tallies.tally("ada").open) == {"run_1"}
    assert a.open == b.open == set()
    assert a.used == (0, 0, 0)


def test_an_end_whose_answer_was_lost_counts_once(pair: list[Node], monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = pair
    held = a.admit("run_1")
    with monkeypatch.context() as patch:
        drop_answers(a, patch)
        assert refused(lambda: a.tallies.settle(line_of(held, 900))) == "storage_failed"
        assert (len(a.tallies.tally("ada").open), a.tallies.tally("ada").used(DAY).cost_micro) == (0, 900)
        assert not a.tallies.writable
    assert a.used == b.used == (1, 900, 0)
    assert a.tallies.writable


def test_an_end_that_could_not_be_told_in_time_is_put_right(pair: list[Node], monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = pair
    held = a.admit("run_1")
    with monkeypatch.context() as patch:
        patch.setattr(a.cluster, "call", lambda *_: (_ for _ in ()).throw(unreachable("no connection")))
        assert refused(lambda: a.tallies.settle(line_of(held, 900))) == "storage_failed"
        silence(a, b)
        assert b.used == (1, 5000, 5000)
    assert a.used == b.used == (1, 900, 0)
    assert a.tallies.writable


def test_documents_are_read_again_before_a_reservation_counts(pair: list[Node]) -> None:
    a, b = pair
    seen: list[str] = []
    a.admit("run_1")
    a.cluster.on_change = lambda: seen.append("looked")
    a.admit("run_2")
    assert seen == []
    b.cluster.command("INCR", "{cb}:changes")
    a.admit("run_3")
    assert seen == ["looked"]
    b.cluster.command("INCR", "{cb}:changes")
    a.cluster.on_change = lambda: (_ for _ in ()).throw(unreachable("no answer"))
    assert refused(lambda: a.admit("run_4")) == "storage_failed"
    a.cluster.on_change = lambda: None
    assert a.open == b.open == {"run_1", "run_2", "run_3"}


def test_a_day_that_ends_meanwhile_has_its_own_cap_on_each_node(pair: list[Node], tmp_path: Path) -> None:
    limits = Limits.parse({**UNLIMITED, "maxRequestsPerDay": 5})
    zone = ZoneInfo("UTC")
    ledgers = [Ledger(n.tallies, n.clock, zone, {}, PriceTable(tmp_path / "p", n.clock)) for n in pair]
    names = itertools.count()

    def reserve(ledger: Ledger) -> str | None:
        return refused(lambda: ledger.reserve("ada", limits, f"run_{next(names)}", Ceiling("demo", "demo", 10, 10)))

    for clock, at in ((pair[0].clock, "2026-11-20T23:59:59Z"), (pair[1].clock, "2026-11-21T00:00:01Z")):
        clock.set(at)
    tried = [gevent.spawn(reserve, ledger) for _ in range(9) for ledger in ledgers]
    gevent.joinall(tried, raise_error=True)
    assert [each.value for each in tried].count(None) == 10
    pair[0].clock.set("2026-11-21T00:00:01Z")
    assert [reserve(ledger) for ledger in ledgers] == ["requests_per_day"] * 2
    for node in pair:
        node.catch_up()
        days = Counter(each.day for each in node.tallies.tally("ada").open.values())
        assert days == {"2026-11-20": 5, "2026-11-21": 5}


def test_nothing_is_refused_for_what_another_node_has_ended(pair: list[Node]) -> None:
    a, b = pair
    held = b.admit("run_1")
    a.catch_up()
    assert a.admit_at_most(1, "run_2") == "concurrent_requests"
    b.tallies.settle(line_of(held, 1))
    assert a.admit_at_most(1, "run_2") is None


def test_a_run_moves_only_where_the_credential_has_room_for_it(pair: list[Node]) -> None:
    a, b = pair
    mine, theirs = a.admit("run_1", credential="claude/a"), b.admit("run_2", credential="claude/b")

    def to_b(credentials: Mapping[str, Tally]) -> str | None:
        return "claude/b" if not credentials.get("claude/b", Tally()).open else None

    assert a.tallies.move(mine, to_b).credential is None
    b.tallies.settle(line_of(theirs, 1))
    a.catch_up()
    assert a.tallies.move(mine, to_b).credential == "claude/b"
    for node in pair:
        node.catch_up()
        assert {id: set(tally.open) for id, tally in node.tallies.credentials().items()} == {
            "claude/a": set(),
            "claude/b": {"run_1"},
        }


def test_a_node_whose_lease_ended_while_it_started_leaves_the_runs_of_others_alone(pair: list[Node]) -> None:
    a, b = pair
    b.admit("run_1")
    a.catch_up()
    b.cluster.command("HDEL", "{cb}:alive", a.cluster.owner)
    a.tallies.sweep()
    assert a.open == {"run_1"}


def test_an_end_is_owed_that_comes_while_a_move_is_written_again(
    pair: list[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = pair
    held = a.admit("run_1", credential="claude/a")
    with monkeypatch.context() as patch:
        patch.setattr(a.cluster, "call", no_answer)
        assert refused(lambda: a.tallies.move(held, lambda credentials: "claude/b")) == "storage_failed"
    send = a.tallies._send

    def send_while_it_ends(change: Any) -> bool:
        done = send(change)
        if change.check == "open":
            with monkeypatch.context() as patch:
                patch.setattr(a.cluster, "call", no_answer)
                assert refused(lambda: a.tallies.settle(line_of(held, 900))) == "storage_failed"
        return done

    with monkeypatch.context() as patch:
        patch.setattr(a.tallies, "_send", send_while_it_ends)
        a.tallies._pay()
    assert a.open == b.open == set()
    assert a.used == b.used == (1, 900, 0)


def test_whoever_is_refused_waits_for_no_store_that_is_away(pair: list[Node], monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = pair
    held = a.admit("run_1")
    a.tallies.patience_s = 600
    with monkeypatch.context() as patch, gevent.Timeout(20):
        patch.setattr(a.cluster, "call", no_answer)
        assert refused(lambda: a.tallies.release(held)) == "storage_failed"
    assert a.open == b.open == set()


def test_an_end_is_tried_for_a_time_however_long_each_try_takes(
    pair: list[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, _ = pair
    held, tries = a.admit("run_1"), []
    a.tallies.patience_s = 30
    monkeypatch.setattr("bridge.ledger.replica.RETRY_S", 0.01)

    def slowly(*words: Any) -> Any:
        tries.append(words)
        a.clock.pass_s(10)
        no_answer()

    with monkeypatch.context() as patch, gevent.Timeout(20):
        patch.setattr(a.cluster, "call", slowly)
        assert refused(lambda: a.tallies.settle(line_of(held, 900))) == "storage_failed"
    assert len(tries) == 3


def test_a_node_that_lacks_just_what_was_cut_off_takes_the_figures(pair: list[Node]) -> None:
    a, b = pair
    a.admit("run_1")
    b.catch_up()
    a.admit("run_2")
    a.tallies._publish()
    assert b.open == {"run_1", "run_2"}


@pytest.mark.parametrize("taken", [False, True], ids=["not taken", "answer lost"])
def test_lines_of_refused_requests_outlive_a_server_that_is_away(
    pair: list[Node], monkeypatch: pytest.MonkeyPatch, taken: bool
) -> None:
    a, b = pair
    real = a.cluster.pipe

    def fail(commands: Any) -> Any:
        if taken:
            real(commands)
        no_answer()

    for number in range(3):
        a.tallies.note(record(f"req_{number}"))
    with monkeypatch.context() as patch:
        patch.setattr(a.cluster, "pipe", fail)
        assert refused(a.tallies.sync) == "storage_failed"
    a.tallies._read()
    a.tallies.note(record("req_3"))
    a.catch_up()
    b.catch_up()
    assert [line.id for line in b.told] == ["req_0", "req_1", "req_2", "req_3"]
    assert a.told == []


def test_lines_of_refused_requests_go_on_in_another_life(pair: list[Node]) -> None:
    a, b = pair
    silence(a, b)
    a.tallies.note(record("req_1"))
    a.catch_up()
    assert b.told == []
    a.cluster.beat()
    a.catch_up()
    b.catch_up()
    assert [line.id for line in b.told] == ["req_1"]


def test_no_more_than_so_many_lines_of_refused_requests_are_kept(
    pair: list[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = pair
    monkeypatch.setattr("bridge.ledger.replica.MOST_NOTES", 2)
    for number in range(5):
        a.tallies.note(record(f"req_{number}"))
    a.catch_up()
    b.catch_up()
    assert [line.id for line in b.told] == ["req_0", "req_1"]
