"""The connection to the server that the nodes of a cluster share: leases, writes in one order, and refusals."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bridge.clock import Clock
from bridge.errors import BridgeError, StoreError
from bridge.store.redis import Cluster, cluster_id, load_functions, name, persistence_of
from tests.property.tallies_suite import refused
from tests.support.proxy import certificate
from tests.support.redis import RedisServer, redis_server
from tests.support.server import ROOT

Join = Callable[..., Cluster]
#: Of a user of the server, as docs/cluster.md has them.
RIGHTS = ("~{cb}*", "+@all", "-@dangerous", "+info", "+config|get")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as started:
        yield started


@pytest.fixture
def join(server: RedisServer) -> Iterator[Join]:
    url = server.found()
    opened: list[Cluster] = []

    def join(node: str, place: str = "", digest: str = "d") -> Cluster:
        cluster = Cluster(url, node, Clock())
        opened.append(cluster)
        cluster.join(place or node, digest)
        return cluster

    yield join
    for each in opened:
        each.abandon()


def write(cluster: Cluster, check: str, run: str, *subjects: str, had: int = 0, compared: int = 0) -> str:
    state: bytes = cluster.call("cb_write", cluster.owner, had, check, run, "{}", compared, *subjects)[0]
    return state.decode()


def seq(cluster: Cluster) -> int:
    return int(cluster.command("GET", name("seq")) or 0)


def test_a_run_is_begun_and_ended_once(join: Join) -> None:
    a = join("a")
    assert [write(a, "new", "run"), write(a, "new", "run")] == ["ok", "ok"]
    assert seq(a) == 1
    assert [write(a, "end", "run"), write(a, "end", "run"), write(a, "open", "run")] == ["ok", "gone", "gone"]
    assert [write(a, "correct", "run")] == ["gone"]


def test_what_another_node_wrote_about_a_subject_must_be_known_to_write_about_it(join: Join) -> None:
    a, b = join("a"), join("b")
    assert write(a, "new", "run_1", "k:ada", compared=1) == "ok"
    assert write(a, "new", "run_2", "k:ada", compared=1) == "ok"
    assert write(b, "new", "run_3", "k:bob", compared=1) == "ok"
    assert write(b, "new", "run_4", "k:ada", had=1, compared=1) == "conflict"
    assert write(b, "new", "run_4", "k:ada", had=2, compared=1) == "ok"
    assert write(a, "new", "run_5", "k:ada", had=3, compared=1) == "conflict"
    assert write(a, "new", "run_5", "k:bob", "k:ada", had=3, compared=1) == "ok"


def test_a_node_that_was_taken_for_dead_writes_nothing_into_that_life(join: Join, server: RedisServer) -> None:
    a, b = join("a"), join("b")
    first = a.owner
    assert write(a, "new", "run") == "ok"
    b.beat()
    server.command("HSET", name("alive"), first, 1)
    b.beat()
    assert not b.alive(first)
    assert write(a, "end", "run") == "fenced"
    assert write(b, "assume", "run") == "ok"
    a.beat()
    assert a.owner != first
    assert [write(a, "end", "run"), write(a, "correct", "run"), write(a, "correct", "run")] == ["gone", "ok", "gone"]


def test_a_node_that_was_taken_for_dead_knows_at_once_who_is_alive(join: Join) -> None:
    a, b = join("a"), join("b")
    b.command("HDEL", name("alive"), a.owner)
    a.beat()
    assert a.alive(a.owner)
    assert a.alive(b.owner)


def test_where_all_were_silent_nobody_is_taken_for_dead(join: Join, server: RedisServer) -> None:
    a, b = join("a"), join("b")
    a.beat()
    server.command("HSET", name("alive"), a.owner, 1)
    server.command("SET", name("beat"), 1)
    b.beat()
    assert b.alive(a.owner)
    b.beat()
    assert b.alive(a.owner)


def test_a_silent_node_that_nobody_has_missed_goes_on(join: Join, server: RedisServer) -> None:
    a = join("a")
    before = a.owner
    server.command("HSET", name("alive"), before, 1)
    a.beat()
    assert a.owner == before


def test_who_joins_again_from_the_same_folder_ends_its_former_life(join: Join) -> None:
    a = join("a")
    again = join("a")
    assert again.owner != a.owner
    assert write(a, "new", "run") == "fenced"


@pytest.mark.parametrize(
    ("node", "place", "digest", "says"),
    [
        ("a", "elsewhere", "d", "under the name of this one"),
        ("b", "b", "other", "differ from those of the other nodes"),
    ],
)
def test_a_node_that_does_not_fit_is_refused(join: Join, node: str, place: str, digest: str, says: str) -> None:
    join("a")
    with pytest.raises(StoreError, match=says):
        join(node, place, digest)


def test_what_changes_caps_may_change_while_no_node_is_there(join: Join, server: RedisServer) -> None:
    join("a").close()
    b = join("b", digest="other")
    with pytest.raises(StoreError, match="differ"):
        join("a")
    server.command("HSET", name("alive"), b.owner, 1)
    assert join("a").owner


def test_an_empty_server_is_closed(join: Join, server: RedisServer) -> None:
    a = join("a")
    server.command("FLUSHALL")
    assert write(a, "new", "run") == "fenced"
    with pytest.raises(StoreError, match="holds no cluster"):
        a.beat()
    server.command("FUNCTION", "FLUSH")
    assert refused(lambda: write(a, "new", "run")) == "storage_failed"


def test_a_server_that_knows_less_than_a_node_is_found_out(join: Join) -> None:
    assert write(join("a"), "any", "", had=1) == "lost"


@pytest.fixture(scope="module")
def tls(server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path, Path]:
    """The port on which it speaks TLS, the authority that vouches for it, and another one."""
    own, elsewhere = (tmp_path_factory.mktemp(each) for each in ("own", "elsewhere"))
    authority, _ = certificate(own, "localhost")
    other, _ = certificate(elsewhere, "localhost")
    for user, *rights in (("bridge", *RIGHTS), ("noscripts", *RIGHTS, "-fcall"), ("nostream", *RIGHTS, "-xadd")):
        server.command("ACL", "SETUSER", user, "on", ">pass-word", *rights)
    return server.serve_tls(own / "server.pem", authority), authority, other


@pytest.mark.parametrize(
    ("login", "host", "believed", "says"),
    [
        ("bridge:pass-word", "localhost", "own", None),
        ("bridge:pass-word", "127.0.0.1", "own", "its certificate is for another host"),
        ("bridge:pass-word", "localhost", "other", "its certificate is not one that this host believes"),
        ("bridge:pass-word", "localhost", "system", "its certificate is not one that this host believes"),
        ("bridge:another", "localhost", "own", "it refuses the password"),
        ("noscripts:pass-word", "localhost", "own", "its user may not do what the bridges need"),
        ("nostream:pass-word", "localhost", "own", "its user may not do what the bridges need"),
    ],
)
def test_over_tls_certificate_user_and_rights_must_be_right(
    join: Join, tls: tuple[int, Path, Path], login: str, host: str, believed: str, says: str | None
) -> None:
    port, authority, other = tls
    network = {"own": {"SSL_CERT_FILE": str(authority)}, "other": {"SSL_CERT_FILE": str(other)}, "system": {}}
    cluster = Cluster(f"rediss://{login}@{host}:{port}/0", "tls", Clock(), network[believed])
    try:
        if says is None:
            load_functions(cluster)
            assert take_part(cluster) == "ok"
            assert persistence_of(cluster).problem is None
            assert " ".join(RIGHTS) in (ROOT / "docs/cluster.md").read_text()
        else:
            with pytest.raises(BridgeError) as caught:
                take_part(cluster)
            assert caught.value.message.endswith(f"({says}).")
    finally:
        cluster.close()


def take_part(cluster: Cluster) -> str:
    cluster.join("tls", "d")
    return write(cluster, "any", "")


@pytest.mark.parametrize("url", ["rediss://h/0?ssl_no=1", "redis://h/0?ssl_ca_certs=x", "redis://h:99999999"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(StoreError, match="is no address of a Redis"):
        Cluster(url, "a", Clock())


def test_a_server_that_does_not_answer_is_waited_for_no_longer_than_the_documentation_says() -> None:
    # In a process of its own: the other tests have more patience.
    code = "from bridge.store.redis import *; print(TURN_S + CONNECT_S + ANSWER_S)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert f"within {float(done.stdout):g} seconds" in (ROOT / "docs/cluster.md").read_text()


def test_a_server_that_is_not_there_is_asked_once_a_second(tmp_path: Path) -> None:
    cluster = Cluster(f"unix://{tmp_path}/none", "a", Clock())
    assert refused(lambda: cluster.command("PING")) == "storage_failed"
    assert "no connection" in (cluster.trouble or "")


def test_a_server_whose_memory_is_full_is_in_trouble_until_a_function_works_again(
    join: Join, server: RedisServer
) -> None:
    a = join("a")
    server.command("CONFIG", "SET", "maxmemory", 1)
    try:
        assert refused(a.beat) == "storage_failed"
        assert cluster_id(a) == "cluster-0"
        assert "its memory is full" in (a.trouble or "")
        assert "once its memory is full" in (persistence_of(a).warning or "")
    finally:
        server.command("CONFIG", "SET", "maxmemory", 0)
    a.beat()
    assert a.trouble is None
