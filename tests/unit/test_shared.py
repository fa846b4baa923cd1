"""What several hosts share beside their tallies: documents, jobs and the audit, on a real server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import msgspec
import pytest

from bridge.clock import Clock
from bridge.engine.nodes import Nodes, NodeState
from bridge.errors import BridgeError, Problem
from bridge.keys.admin import AdminCredentials
from bridge.keys.credentials import CredentialBook
from bridge.keys.keys import KeyBook
from bridge.limits import Limits
from bridge.records import audit
from bridge.records.audit import Audit, SharedAudit
from bridge.records.jobs import Job, Repeat, SharedJobBook
from bridge.settings import Settings
from bridge.store import shared
from bridge.store.document import Document, Outdated
from bridge.store.redis import Cluster, unreachable
from bridge.store.shared import SharedDocument
from bridge.types import Answer, Charge, Finished, GenerationRequest, Message, Text, Usage
from tests.property.tallies_suite import refused
from tests.support.redis import RedisServer, redis_server

REPEAT = Repeat("d1", "b1")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as started:
        yield started


class Host:
    """What one host of the cluster has."""

    def __init__(self, server: RedisServer, node: str, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.cluster = Cluster(server.url, node, Clock())
        self.cluster.join(node, "d")
        self.documents: list[SharedDocument] = []
        self.keys = KeyBook(self.document("keys.json"), Clock())
        self.admin = AdminCredentials(self.document("admin.json"), None)
        env = {"BRIDGE_DATA_DIR": str(folder), "HOME": str(folder), "ANTHROPIC_API_KEY": "sk-ant-1234567890"}
        pair = self.document("credentials.json"), self.document("credential-states.json")
        self.credentials = CredentialBook(*pair, Clock(), Settings.load(env).providers)
        self.jobs = SharedJobBook(self.cluster)
        self.audit = SharedAudit(self.cluster, folder / "audit.jsonl", Clock())

    def document(self, name: str) -> SharedDocument:
        made = SharedDocument(self.cluster, self.folder / name)
        self.documents.append(made)
        return made

    def look(self) -> None:
        """As a node does each second, and where a reservation says that documents have changed."""
        shared.refresh(self.cluster, self.documents)


MakeHost = Callable[[str], Host]


@pytest.fixture
def host(server: RedisServer, tmp_path: Path) -> Iterator[MakeHost]:
    server.found()
    hosts: list[Host] = []

    def make(node: str) -> Host:
        hosts.append(Host(server, node, tmp_path / node))
        for each in hosts:
            each.cluster.beat()
        return hosts[-1]

    yield make
    for each in hosts:
        each.audit.close()
        each.cluster.abandon()


# --- documents ------------------------------------------------------------------------------------


def test_a_key_that_one_host_makes_opens_the_other_at_once(host: MakeHost) -> None:
    a, b = host("a"), host("b")
    _, raw = a.keys.create("ada", Limits())
    assert b.keys.find(raw).name == "ada"
    assert refused(lambda: b.keys.find("cb_nobody")) == "unauthorized"


def test_a_new_key_opens_another_host_for_all_that_ask_at_once(host: MakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = host("a"), host("b")
    _, raw = a.keys.create("ada", Limits())
    ask = b.cluster.pipe

    def slowly(commands: list[tuple[str, ...]]) -> list[object]:
        gevent.sleep(0.01)  # in a server, others go on while an answer is awaited
        return ask(commands)

    monkeypatch.setattr(b.cluster, "pipe", slowly)
    found = gevent.joinall([gevent.spawn(b.keys.find, raw) for _ in range(10)], raise_error=True)
    assert {each.value.name for each in found} == {"ada"}


def test_a_key_that_one_host_revokes_is_gone_from_the_other_with_its_next_look(host: MakeHost) -> None:
    a, b = host("a"), host("b")
    _, raw = a.keys.create("ada", Limits())
    key = b.keys.find(raw)
    a.keys.revoke("ada")
    b.look()
    assert refused(lambda: b.keys.find(raw)) == "unauthorized"
    assert refused(lambda: b.keys.current(key)) == "unauthorized"


def test_changes_of_two_hosts_at_once_are_both_kept(host: MakeHost) -> None:
    a, b = host("a"), host("b")
    names = [f"key-{number}" for number in range(40)]
    steps = [
        gevent.spawn((a if number % 2 else b).keys.create, name, Limits({"maxCostPerDay": number}))
        for number, name in enumerate(names)
    ]
    gevent.joinall(steps, raise_error=True)
    a.look()
    b.look()
    assert sorted(names) == [key.name for key in a.keys.list()] == [key.name for key in b.keys.list()]
    assert a.keys.get("key-7").limits == b.keys.get("key-7").limits == Limits({"maxCostPerDay": 7})


def test_a_name_is_given_to_one_key_only_whichever_host_is_asked(host: MakeHost) -> None:
    a, b = host("a"), host("b")
    a.keys.create("ada", Limits())
    assert refused(lambda: b.keys.create("ada", Limits())) == "conflict"


def test_a_save_on_an_older_version_fails_and_loads_the_newer_one(host: MakeHost) -> None:
    a, b = host("a"), host("b")
    first, second = a.document("x.json"), b.document("x.json")
    first.save({"n": 1})
    with pytest.raises(Outdated):
        second.save({"n": 2})
    assert second.load() == {"schema": 1, "n": 1}
    second.save({"n": 2})
    assert first.refresh()
    assert not first.refresh()
    assert first.load() == {"schema": 1, "n": 2}


def test_what_another_host_saves_while_an_answer_is_on_its_way_is_not_forgotten(
    host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = host("a"), host("b")
    a.keys.create("ada", Limits())
    b.look()
    ask, looks = a.cluster.call, []

    def slowly(*words: str | bytes | int) -> object:
        answer = ask(*words)  # type: ignore[arg-type]
        b.look()
        b.keys.revoke("ada")
        looks.append(gevent.spawn(a.look))
        gevent.sleep(0.05)
        return answer

    monkeypatch.setattr(a.cluster, "call", slowly)
    a.keys.create("bob", Limits())
    gevent.joinall(looks, raise_error=True)
    assert [key.name for key in a.keys.list()] == ["bob"] == [key.name for key in b.keys.list()]


def test_each_host_has_a_copy_of_what_is_shared(host: MakeHost) -> None:
    a, b = host("a"), host("b")
    a.keys.create("ada", Limits())
    b.look()
    for each in (a, b):
        copy = Document(each.folder / "keys.json")
        with gevent.Timeout(10):
            while not (copy.load() or {}).get("keys"):
                gevent.sleep(0.01)
        assert [key.name for key in KeyBook(copy, Clock()).list()] == ["ada"]


def test_the_first_of_two_hosts_makes_the_admin_key_and_both_sign_with_the_same_secret(host: MakeHost) -> None:
    a, b = host("a"), host("b")
    made = [each.get() for each in gevent.joinall([gevent.spawn(x.admin.ensure) for x in (a, b)])]
    raw = [each for each in made if each is not None]
    assert len(raw) == 1
    a.look()
    b.look()
    assert a.admin.cookie_secrets == b.admin.cookie_secrets != []
    assert a.admin.verify(raw[0])
    assert b.admin.verify(raw[0])


def test_sessions_and_a_replaced_admin_key_end_on_all_hosts(host: MakeHost) -> None:
    a, b = host("a"), host("b")
    raw = a.admin.ensure() or ""
    b.look()
    assert b.admin.verify(raw)
    a.admin.end_sessions()
    new = a.admin.reset()
    b.look()
    assert (b.admin.epoch, b.admin.cookie_secrets) == (a.admin.epoch, a.admin.cookie_secrets)
    assert not b.admin.verify(raw)
    assert b.admin.verify(new)


def test_what_one_host_learns_of_a_credential_the_other_knows(host: MakeHost) -> None:
    a, b = host("a"), host("b")
    told: list[str] = []
    b.credentials.on_change.append(lambda: told.append("changed"))
    team = a.credentials.create("team", "claude", "sk-ant-team-12345678")
    b.look()
    a.credentials.note_limited(team, 60.0, "429", 0.5)
    b.credentials.note_rejected(b.credentials.get("default"), "401")
    a.look()
    b.look()
    states = [
        {name: each.credentials.state(each.credentials.get(name)).name for name in ("team", "default")}
        for each in (a, b)
    ]
    assert states == [{"team": "benched", "default": "blocked"}] * 2
    assert told


def test_a_server_that_lost_what_was_saved_takes_no_change(host: MakeHost, server: RedisServer) -> None:
    a = host("a")
    a.keys.create("ada", Limits())
    server.command("DEL", "{cb}:versions", "{cb}:doc:keys.json")
    assert refused(lambda: a.keys.create("bob", Limits())) == "storage_failed"
    assert refused(lambda: a.keys.find("cb_unknown")) == "storage_failed"
    server.command("FLUSHALL")
    assert refused(lambda: a.keys.create("bob", Limits())) == "storage_failed"
    assert [key.name for key in a.keys.list()] == ["ada"]


# --- jobs -----------------------------------------------------------------------------------------


def job(id: str, *, repeat: Repeat | None = None, owner: str = "ada 1.5") -> Job:
    request = GenerationRequest("claude", "m", (Message("user", ()),), api="native", request_id="req_1")
    return Job(id, owner, Clock().now(), request, repeat)


def ended(begun: Job, text: str = "Hello", *, problem: str | None = None) -> Job:
    result = Problem(problem, "No.") if problem else Answer((Text(text),), "m", "end_turn", Usage())
    return msgspec.structs.replace(begun, finished=Finished(result, Charge(Usage(), 0 if problem else 5), 1))


def test_the_answer_of_a_job_is_had_from_every_host(host: MakeHost) -> None:
    a, b = host("a"), host("b")
    begun = job("run_1")
    a.jobs.add(begun)
    assert b.jobs.host_of(begun) == "a"
    assert a.jobs.host_of(begun) is None
    found = b.jobs.get("run_1", "ada 1.5")
    assert found is not None
    assert found.finished is None
    assert b.jobs.get("run_1", "bob 1") is None
    waiting = gevent.spawn(b.jobs.await_end, found, 20)
    a.jobs.finish(ended(begun))
    done = waiting.get(timeout=20)
    assert done.finished is not None
    assert done.finished == ended(begun).finished
    assert b.jobs.host_of(begun) is None


def test_of_the_same_idempotency_key_on_all_hosts_at_once_one_runs(host: MakeHost) -> None:
    hosts = [host(node) for node in ("a", "b", "c")]
    tries = [
        gevent.spawn(refused, lambda n=n, each=each: each.jobs.add(job(f"run_{n}", repeat=REPEAT)))
        for n, each in enumerate(hosts * 4)
    ]
    gevent.joinall(tries)
    assert sorted(str(each.value) for each in tries) == ["None"] + ["conflict"] * 11
    assert all(each.jobs.knows("ada 1.5", "d1") for each in hosts)


def test_a_repeated_request_gets_the_answer_of_another_host_and_a_free_failure_runs_again(host: MakeHost) -> None:
    a, b = host("a"), host("b")
    begun = job("run_1", repeat=REPEAT)
    a.jobs.add(begun)
    assert refused(lambda: b.jobs.earlier("ada 1.5", REPEAT)) == "conflict"
    assert b.jobs.earlier("bob 1", REPEAT) is None
    a.jobs.finish(ended(begun, problem="timeout"))
    assert b.jobs.earlier("ada 1.5", REPEAT) is None
    again = job("run_2", repeat=REPEAT)
    b.jobs.add(again)
    b.jobs.finish(ended(again))
    found = a.jobs.earlier("ada 1.5", REPEAT)
    assert found is not None
    assert found.id == "run_2"
    assert refused(lambda: a.jobs.earlier("ada 1.5", Repeat("d1", "other"))) == "conflict"


def test_a_job_that_did_not_come_to_run_leaves_its_idempotency_key_free(host: MakeHost) -> None:
    a, b = host("a"), host("b")
    a.jobs.add(job("run_1", repeat=REPEAT))
    a.jobs.drop("run_1")
    b.jobs.add(job("run_2", repeat=REPEAT))
    assert b.jobs.get("run_1", "ada 1.5") is None


def test_a_job_whose_host_is_gone_has_ended_with_that(host: MakeHost, server: RedisServer) -> None:
    a, b = host("a"), host("b")
    a.jobs.add(job("run_1", repeat=REPEAT))
    server.command("HDEL", "{cb}:alive", a.cluster.owner)
    b.cluster.beat()
    found = b.jobs.earlier("ada 1.5", REPEAT)
    assert found is not None
    assert found.finished is not None
    assert isinstance(found.finished.result, Problem)
    assert found.finished.result.code == "cli_failed"


def test_a_job_of_a_host_that_has_just_come_is_not_taken_for_ended(
    host: MakeHost, server: RedisServer, tmp_path: Path
) -> None:
    a = host("a")
    fresh = Host(server, "fresh", tmp_path / "fresh")
    try:
        fresh.jobs.add(job("run_1", repeat=REPEAT))
        found = a.jobs.get("run_1", "ada 1.5")
        assert found is not None
        assert found.finished is None
        assert refused(lambda: a.jobs.earlier("ada 1.5", REPEAT)) == "conflict"
    finally:
        fresh.audit.close()
        fresh.cluster.abandon()


def test_an_idempotency_key_is_free_again_though_the_server_was_away(
    host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = host("a"), host("b")
    monkeypatch.setattr("bridge.records.jobs.AGAIN_S", 0.01)
    real, left = a.cluster.call, [4]

    def call(function: str, *words: str | bytes | int) -> object:
        if function == "cb_job_add":
            real(function, *words)
        elif not left[0]:
            return real(function, *words)
        left[0] -= 1
        raise unreachable("no answer")

    monkeypatch.setattr(a.cluster, "call", call)
    assert refused(lambda: a.jobs.add(job("run_1", repeat=REPEAT))) == "storage_failed"
    a.jobs.drop("run_1")
    with gevent.Timeout(20):
        while b.jobs.knows("ada 1.5", "d1"):
            gevent.sleep(0.01)
    assert b.jobs.get("run_1", "ada 1.5") is None
    b.jobs.add(job("run_2", repeat=REPEAT))


def test_an_end_that_is_kept_twice_is_counted_once(host: MakeHost, server: RedisServer) -> None:
    a = host("a")
    begun = job("run_1", repeat=REPEAT)
    a.jobs.add(begun)
    a.jobs.finish(ended(begun))
    before = server.command("HGETALL", "{cb}:keptsizes")
    a.jobs.finish(ended(begun))
    assert server.command("HGETALL", "{cb}:keptsizes") == before


def test_what_is_kept_has_a_bound_for_each_owner_and_the_oldest_go_first(
    host: MakeHost, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = host("a")
    monkeypatch.setattr("bridge.records.jobs.MOST_OF_KEY", 3)
    for number in range(5):
        begun = job(f"run_{number}", repeat=Repeat(f"d{number}", "b"))
        a.jobs.add(begun)
        a.jobs.finish(ended(begun))
    other = job("run_o", owner="bob 1")
    a.jobs.add(other)
    a.jobs.finish(ended(other))
    kept = [number for number in range(5) if a.jobs.get(f"run_{number}", "ada 1.5")]
    assert kept == [2, 3, 4]
    assert [a.jobs.knows("ada 1.5", f"d{number}") for number in range(5)] == [False, False, True, True, True]
    assert a.jobs.get("run_o", "bob 1")
    monkeypatch.setattr("bridge.records.jobs.MOST_SHARED", 1)
    last = job("run_z", owner="bob 1")
    a.jobs.add(last)
    a.jobs.finish(ended(last))
    assert a.jobs.get("run_z", "bob 1")
    assert not a.jobs.get("run_o", "bob 1")
    assert server.command("ZCARD", "{cb}:kept") == 1


# --- audit ----------------------------------------------------------------------------------------


def test_the_audit_of_all_hosts_is_one_and_is_paged_on_any_of_them(host: MakeHost, tmp_path: Path) -> None:
    a, b = host("a"), host("b")
    for number in range(5):
        (a if number % 2 else b).audit.write("key_changed", f"key-{number}", actor="admin", address="")
    first, following = a.audit.page(limit=3)
    rest, end = b.audit.page(before=following, limit=3)
    assert [entry["subject"] for entry in first + rest] == [f"key-{number}" for number in (4, 3, 2, 1, 0)]
    assert end is None
    assert [entry["subject"] for entry in a.audit.page(text="KEY-2")[0]] == ["key-2"]
    assert audit.unshare(a.cluster, tmp_path / "out.jsonl") == 5
    out = Audit(tmp_path / "out.jsonl", Clock())
    assert [entry["subject"] for entry in out.page()[0]] == [f"key-{number}" for number in (4, 3, 2, 1, 0)]
    out.close()


# --- nodes ----------------------------------------------------------------------------------------


def state(name: str, *runs: str) -> NodeState:
    return NodeState(name, "1.0", 4, len(runs), 0, False, {"claude": True}, [{"id": run} for run in runs])


def test_nodes_see_each_others_runs_and_stop_them(host: MakeHost) -> None:
    a, b = host("a"), host("b")
    looked: list[str] = []
    at_a = Nodes(a.cluster, lambda: looked.append("a"))
    at_b = Nodes(b.cluster, lambda: looked.append("b"))
    at_a.tell, at_b.tell = (lambda: state("a", "run_1")), (lambda: state("b"))
    stopped: list[tuple[str, str]] = []
    at_a.stop = lambda run_id, who: stopped.append((run_id, who))
    at_a.look()
    at_b.look()
    assert list(at_b.others) == ["a"]
    assert at_b.run("run_1") == {"id": "run_1"}
    assert at_b.run("run_2") is None
    at_b.ask_to_stop("a", "run_1", "admin")
    at_a.look()
    at_a.look()
    assert stopped == [("run_1", "admin")]
    assert looked == ["a", "b"]
    a.keys.create("ada", Limits())
    at_b.look()
    assert looked == ["a", "b", "b"]


def test_a_wish_is_heard_once_though_an_answer_was_lost(
    host: MakeHost, monkeypatch: pytest.MonkeyPatch, server: RedisServer
) -> None:
    a, b = host("a"), host("b")
    at_a, at_b = Nodes(a.cluster, lambda: None), Nodes(b.cluster, lambda: None)
    stopped: list[str] = []
    at_a.stop = lambda run_id, who: stopped.append(run_id)
    real = a.cluster.call

    def call(function: str, *words: str | bytes | int) -> object:
        real(function, *words)
        raise unreachable("no answer")

    at_b.ask_to_stop("a", "run_1", "admin")
    with monkeypatch.context() as patch:
        patch.setattr(a.cluster, "call", call)
        assert refused(at_a.look) == "storage_failed"
    assert stopped == []
    at_a.look()
    assert stopped == ["run_1"]
    at_b.ask_to_stop("a", "run_2", "holder")
    at_a.look()
    at_a.look()
    assert stopped == ["run_1", "run_2"]
    resumed: list[str] = []
    at_a.resume = resumed.append
    at_b.others = {"a": state("a")}
    at_b.ask_to_resume("ada")
    at_a.look()
    at_a.look()
    assert (resumed, stopped) == (["ada"], ["run_1", "run_2"])
    assert server.command("EXISTS", "{cb}:wishes:a") == 0


def test_a_node_that_says_nothing_any_more_is_not_shown(host: MakeHost, server: RedisServer) -> None:
    a, b = host("a"), host("b")
    at_a, at_b = Nodes(a.cluster, lambda: None), Nodes(b.cluster, lambda: None)
    at_a.tell = lambda: state("a", "run_1")
    at_a.look()
    server.command("HSET", "{cb}:live", "a", "1\n{}")
    at_b.look()
    assert at_b.others == {}


def test_a_mark_is_claimed_by_one(host: MakeHost) -> None:
    hosts = [host("a"), host("b")]
    assert [each.cluster.call("cb_claim", "disk", 60000) for each in hosts] == [1, 0]


def test_an_empty_server_takes_nothing(host: MakeHost, server: RedisServer) -> None:
    a = host("a")
    server.command("FLUSHALL")
    for step in (
        lambda: a.jobs.add(job("run_1")),
        lambda: a.audit.write("x", "y", actor="", address=""),
        lambda: Nodes(a.cluster, lambda: None).look(),
        lambda: a.cluster.call("cb_claim", "x", 1000),
    ):
        with pytest.raises(BridgeError) as caught:
            step()  # type: ignore[no-untyped-call]
        assert caught.value.code == "storage_failed"


def test_one_host_alone_loads_nothing_of_this() -> None:
    code = """if True:
        import sys
        import bridge.cli, bridge.ops.serve, bridge.http.app
        assert not {"redis", "bridge.store.redis", "bridge.store.shared", "bridge.ledger.replica"} & sys.modules.keys()
    """
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
