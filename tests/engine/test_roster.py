"""Which credential a run gets, and what becomes of it where its provider turns that away: through the real gate."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from bridge.engine.engine import Engine
from bridge.errors import BridgeError, Problem
from bridge.keys.credentials import Credential
from bridge.keys.keys import Key
from bridge.limits import Limits
from bridge.service import Service
from bridge.settings import Settings
from bridge.types import Finished, Message, RunRecord, Text
from tests.engine.harness import ask
from tests.standin import StandIn
from tests.support.caller import Caller

FREE = {"maxRequestsPerMinute": 0, "maxConcurrent": 0, "maxCostPerDay": 0}


class Team:
    """A service with a few credentials of claude, and the stand-in that answers by them."""

    def __init__(self, folder: Path, standin: StandIn, **env: str) -> None:
        self.standin = standin
        self.lines: list[RunRecord] = []
        self.told: list[tuple[str, str]] = []
        self.settings = Settings.load(
            {
                "BRIDGE_DATA_DIR": str(folder / "data"),
                "BRIDGE_LOOP_REPEATS": "0",
                "ANTHROPIC_BASE_URL": standin.url,
                "BRIDGE_MAX_CONCURRENT": "16",
                "BRIDGE_QUEUE_LIMIT": "500",
                **env,
            }
        )
        self.open()
        self.service.keys.create("ada", Limits.parse(FREE))
        self.key = self.service.keys.get("ada")

    def open(self) -> None:
        self.service = Service(self.settings, make_providers=lambda *parts: {"claude": self._provider(parts[3])})
        self.service.observers.append(self.lines.append)
        self.service.credentials.watchers.append(lambda each, reason: self.told.append((each.name, reason)))
        self.service.open()

    def _provider(self, gate: Any) -> Caller:
        self.provider = Caller(gate, self.settings.idle_timeout_s)
        return self.provider

    def add(self, *names: str, **fields: Any) -> None:
        for name in names:
            self.service.credentials.create(name, "claude", secret(name), **fields)

    def of(self, name: str) -> Credential:
        return self.service.credentials.get(name)

    def state(self, name: str) -> str:
        return self.service.credentials.state(self.of(name)).name

    @property
    def engine(self) -> Engine:
        assert self.service.engine is not None
        return self.service.engine

    def run(self, prompt: str = "hello", key: Key | None = None, **more: Any) -> Finished:
        finished = self.engine.submit(key or self.key, ask(prompt, **more)).wait(30)
        assert finished is not None
        return finished

    def prove(self) -> None:
        """Let each have worked once."""
        for each in self.service.credentials.list():
            self.service.credentials.note_success(each)

    def used(self) -> Counter[str]:
        """Calls by the name of the credential that the provider saw."""
        return Counter(each.key.removeprefix("sk-secret-of-") for each in self.standin.generations)


def secret(name: str) -> str:
    return f"sk-secret-of-{name}"


@pytest.fixture
def standin() -> Iterator[StandIn]:
    with StandIn() as standin:
        yield standin


@pytest.fixture
def make_team(tmp_path: Path, standin: StandIn) -> Iterator[Callable[..., Team]]:
    made: list[Team] = []

    def make(**env: str) -> Team:
        made.append(Team(tmp_path, standin, **env))
        return made[-1]

    yield make
    for team in made:
        team.service.close()


@pytest.fixture
def team(make_team: Callable[..., Team]) -> Team:
    """Three equal ones, proven."""
    team = make_team(BRIDGE_ROUTING="spread")
    team.add("a", "b", "c")
    team.prove()
    return team


def ok(finished: Finished) -> bool:
    return not isinstance(finished.result, Problem)


def code(finished: Finished) -> str | None:
    return finished.result.code if isinstance(finished.result, Problem) else None


# --- who gets which ----------------------------------------------------------------------------------


def test_three_hundred_runs_are_spread_over_three_equal_credentials(team: Team) -> None:
    runs = [gevent.spawn(team.run, f"number {n}") for n in range(300)]
    gevent.joinall(runs, raise_error=True)
    assert all(ok(run.value) for run in runs)
    assert all(90 <= count <= 110 for count in team.used().values()), team.used()
    assert sum(team.used().values()) == 300


def test_fill_first_takes_the_one_of_the_highest_priority(make_team: Callable[..., Team]) -> None:
    team = make_team(BRIDGE_ROUTING="fill-first")
    team.add("a", "c")
    team.add("b", priority=5)
    team.prove()
    runs = [gevent.spawn(team.run, f"number {n}") for n in range(60)]
    gevent.joinall(runs, raise_error=True)
    assert team.used() == {"b": 60}
    team.service.credentials.enable(team.of("b"), False)
    assert ok(team.run())
    assert team.used()["a"] == 1


def test_one_that_joins_has_nothing_to_catch_up_on(team: Team) -> None:
    for n in range(12):
        team.run(f"number {n}")
    team.add("d")
    team.prove()
    team.standin.journal.clear()
    for n in range(20):
        team.run(f"and {n}")
    assert set(team.used().values()) == {5}


def test_an_unproven_one_has_one_run_at_a_time(make_team: Callable[..., Team]) -> None:
    team = make_team(BRIDGE_ROUTING="spread")
    team.add("a")
    team.standin.script(header_delay=0.3)
    runs = [gevent.spawn(team.run, f"number {n}") for n in range(10)]
    gevent.sleep(0.25)
    assert len(team.standin.generations) == 1
    gevent.joinall(runs, raise_error=True)
    assert all(ok(run.value) for run in runs)
    assert team.used() == {"a": 10}


def test_a_key_whose_runs_hang_keeps_no_other_key_out(make_team: Callable[..., Team]) -> None:
    team = make_team(BRIDGE_ROUTING="spread", BRIDGE_QUEUE_TIMEOUT_SECONDS="2")
    team.add("a")
    team.service.keys.create("bob", Limits.parse(FREE))
    hanging = [gevent.spawn(team.run, f"[[standin mode=hang]] {n}", timeout_s=5) for n in range(5)]
    gevent.sleep(0.3)
    assert len(team.standin.generations) == 1
    assert ok(team.run("hello", key=team.service.keys.get("bob")))
    gevent.killall(hanging)


def test_it_is_not_the_turn_of_a_key_that_may_not_try_again_yet(make_team: Callable[..., Team]) -> None:
    team = make_team(BRIDGE_ROUTING="spread", BRIDGE_QUEUE_TIMEOUT_SECONDS="1")
    team.add("a", max_concurrent=3)
    team.service.keys.create("bob", Limits.parse(FREE))
    bob = team.service.keys.get("bob")
    hanging = [gevent.spawn(team.run, "[[standin mode=hang]] 1", timeout_s=9)]
    gevent.sleep(0.3)
    assert code(team.run("[[standin status=529]]", key=bob)) == "provider_overloaded"

    def go_on() -> None:
        while True:
            team.run("[[standin mode=hang]] again", timeout_s=9)

    for _ in range(5):
        hanging.append(gevent.spawn(go_on))
        gevent.sleep(0.25)
    assert ok(team.run("hello", key=bob))
    gevent.killall(hanging)


def test_keys_take_turns_at_a_credential_that_has_only_so_many_runs(make_team: Callable[..., Team]) -> None:
    team = make_team(BRIDGE_ROUTING="spread")
    team.add("a", max_concurrent=1)
    team.prove()
    team.service.keys.create("bob", Limits.parse(FREE))
    team.standin.script(header_delay=0.2)

    def go_on() -> None:
        while True:
            team.run("again")

    flood = [gevent.spawn(go_on) for _ in range(20)]
    gevent.sleep(0.3)
    team.standin.journal.clear()
    for number in range(3):
        assert ok(team.run(f"hello {number}", key=team.service.keys.get("bob")))
    assert len(team.standin.generations) <= 9
    gevent.killall(flood)


def test_thirty_at_once_on_a_fresh_pool_are_one_on_each_until_it_has_worked(make_team: Callable[..., Team]) -> None:
    team = make_team(BRIDGE_ROUTING="spread", BRIDGE_MAX_CONCURRENT="30")
    team.add("a", "b", "c")
    team.standin.script(header_delay=0.4)
    runs = [gevent.spawn(team.run, f"number {n}") for n in range(30)]
    gevent.sleep(0.35)
    assert set(team.used().values()) == {1}
    gevent.joinall(runs, raise_error=True)
    assert all(ok(run.value) for run in runs)
    assert sum(team.used().values()) == 30


def test_no_credential_has_more_runs_than_it_may(team: Team) -> None:
    for name in "abc":
        team.service.credentials.update(team.of(name), max_concurrent=2)
    team.standin.script(header_delay=0.05)
    seen: list[int] = []

    def look() -> None:
        while True:
            open_ = Counter(each.key for each in team.standin.generations if each.outcome == "open")
            seen.append(max(open_.values(), default=0))
            gevent.sleep(0.005)

    looker = gevent.spawn(look)
    runs = [gevent.spawn(team.run, f"number {n}") for n in range(40)]
    gevent.joinall(runs, raise_error=True)
    looker.kill()
    assert all(ok(run.value) for run in runs)
    assert max(seen) == 2


def test_a_key_uses_the_credentials_that_it_names_and_a_credential_serves_the_keys_that_it_names(team: Team) -> None:
    team.service.keys.create("bound", Limits.parse(FREE), credentials=["b"])
    team.service.credentials.update(team.of("c"), keys=["somebody"])
    bound = team.service.keys.get("bound")
    for n in range(6):
        assert ok(team.run(f"number {n}", bound))
    assert team.used() == {"b": 6}
    for n in range(8):
        assert ok(team.run(f"and {n}"))
    assert team.used()["c"] == 0
    team.service.credentials.enable(team.of("b"), False)
    with pytest.raises(BridgeError) as refused:
        team.run("none is left", bound)
    assert refused.value.code == "no_credentials"


def test_a_conversation_stays_with_its_credential_and_leaves_it_when_that_is_out(team: Team) -> None:
    def turn(number: int) -> tuple[Message, ...]:
        said = [Message("user", (Text("one long beginning"),))]
        for n in range(number):
            said += [Message("assistant", (Text(f"answer {n}"),)), Message("user", (Text(f"question {n}"),))]
        return tuple(said)

    for n in range(6):
        assert ok(team.run(messages=turn(n)))
        team.run(f"something else {n}")
    own = {each.key for each in team.standin.generations if "one long beginning" in str(each.body)}
    assert len(own) == 1
    (name,) = (each.removeprefix("sk-secret-of-") for each in own)
    team.service.credentials.note_limited(team.of(name), 60, "429", 0.5)
    assert ok(team.run(messages=turn(6)))
    assert team.standin.generations[-1].key != secret(name)


def test_a_session_that_the_client_names_stays_too_and_never_across_keys(team: Team) -> None:
    team.service.keys.create("bob", Limits.parse(FREE))
    bob = team.service.keys.get("bob")
    for n in range(5):
        team.run(f"number {n}", session="mine")
        team.run(f"and {n}")
    mine = {each.key for each in team.standin.generations if each.text.startswith("number")}
    assert len(mine) == 1
    # Bob's has the same name, and is another: it goes where there is room, and stays there.
    team.service.credentials.enable(team.of(mine.pop().removeprefix("sk-secret-of-")), False)
    team.standin.journal.clear()
    for n in range(4):
        team.run(f"number {n} of bob", bob, session="mine")
        team.run(f"and {n}")
    assert len({each.key for each in team.standin.generations if each.text.startswith("number")}) == 1


# --- what a provider says -------------------------------------------------------------------------------

ACCOUNT = "blocked"
LIMITS_REACHED = "You have reached your specified API usage limits. You will regain access on 2026-12-01."
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "429 with a time": ({"status": 429, "retry_after": 30}, "benched"),
    "429 without a time": ({"status": 429, "retry_after": -1}, "benched"),
    "402": ({"status": 402}, ACCOUNT),
    "401": ({"status": 401}, ACCOUNT),
    "403": ({"status": 403}, ACCOUNT),
    "credit": ({"status": 400, "says": "Your credit balance is too low to access the Anthropic API."}, ACCOUNT),
    "organization": ({"status": 400, "says": "This organization has been disabled."}, ACCOUNT),
    "usage limits": (
        {
            "status": 400,
            "says": "You have reached your specified API usage limits. You will regain access on 2026-12-01",
        },
        ACCOUNT,
    ),
    "529": ({"status": 529}, "usable"),
    "503": ({"status": 503}, "usable"),
    "an overload that begins a stream": ({"mode": "early_error"}, "usable"),
    "a limit that begins a stream": ({"mode": "early_rate_limit"}, "benched"),
    "silence": ({"mode": "hang"}, "usable"),
}


@pytest.mark.parametrize(("script", "state"), CASES.values(), ids=CASES)
def test_one_of_three_fails_and_no_client_sees_it(
    make_team: Callable[..., Team], script: dict[str, Any], state: str
) -> None:
    team = make_team(BRIDGE_ROUTING="fill-first", BRIDGE_IDLE_TIMEOUT_SECONDS="1")
    team.add("a", priority=9)
    team.add("b", "c")
    team.prove()
    team.standin.script_key(secret("a"), **script)
    finished = team.run("hello")
    assert ok(finished), finished
    assert team.used() == {"a": 1, "b": 1}
    assert team.provider.started == 1, "the CLI never knows"
    assert team.state("a") == state
    assert team.told == ([("a", team.told[0][1])] if state == ACCOUNT else [])
    line = team.lines[-1]
    assert (line.code, line.credential) == (None, "b")
    assert line.tried is not None
    assert line.tried.startswith("a (")
    if "status" in script:
        assert str(script["status"]) in line.tried
    assert secret("a") not in line.tried
    usage = team.service.ledger.credential_usage
    assert usage(team.of("a").id)["today"]["requests"] == 0
    assert usage(team.of("b").id)["today"]["requests"] == 1
    assert usage(team.of("b").id)["today"]["costUsd"] == pytest.approx(line.cost_usd)
    assert team.service.ledger.usage("ada")["today"]["requests"] == 1, "one charge"
    # and from now on nobody asks it
    if state in ("benched", ACCOUNT):
        assert ok(team.run("again"))
        assert team.used() == {"a": 1, "b": 2}


def test_a_connection_that_is_refused_is_tried_elsewhere_and_benches_nobody(make_team: Callable[..., Team]) -> None:
    team = make_team(BRIDGE_ROUTING="fill-first")
    team.add("a", priority=9, base_url="http://127.0.0.1:9")
    team.add("b")
    team.prove()
    assert ok(team.run())
    assert team.used() == {"b": 1}
    assert team.state("a") == "usable"


@pytest.mark.parametrize(("mode", "state"), [("stream_error", "usable"), ("stream_rate_limit", "benched")])
def test_an_error_in_an_answer_that_had_begun_is_not_tried_elsewhere(
    make_team: Callable[..., Team], mode: str, state: str
) -> None:
    team = make_team(BRIDGE_ROUTING="fill-first")
    team.add("a", priority=9)
    team.add("b")
    team.prove()
    team.standin.script_key(secret("a"), mode=mode, after=0)
    finished = team.run()
    assert code(finished) == "provider_broke_off"
    assert finished.charge.cost_micro > 0, "the provider has told its usage"
    assert team.used() == {"a": 1}
    assert (team.state("a"), team.state("b")) == (state, "usable")


@pytest.mark.parametrize(("mode", "expected"), [("early_error", "overloaded"), ("early_rate_limit", "rate_limited")])
def test_an_error_that_begins_every_stream_costs_nothing_and_is_told(
    make_team: Callable[..., Team], mode: str, expected: str
) -> None:
    team = make_team(BRIDGE_QUEUE_TIMEOUT_SECONDS="0.1")
    team.add("a", "b")
    team.prove()
    team.standin.script(mode=mode)
    finished = team.run()
    assert code(finished) == f"provider_{expected}"
    assert finished.charge.cost_micro == 0
    assert team.used() == {"a": 1, "b": 1}


def test_an_answer_that_has_begun_may_pause_as_long_with_a_spare_as_without(make_team: Callable[..., Team]) -> None:
    team = make_team(BRIDGE_ROUTING="fill-first", BRIDGE_IDLE_TIMEOUT_SECONDS="8")
    team.add("a", priority=9)
    team.add("b")
    team.prove()
    # More than the share of the longest silence after which another is tried, and less than all of it.
    team.standin.script_key(secret("a"), first_delay=4.5)
    assert ok(team.run())
    assert team.used() == {"a": 1}


def test_three_at_once_that_are_limited_are_one_bench(make_team: Callable[..., Team]) -> None:
    team = make_team(BRIDGE_ROUTING="fill-first")
    team.add("a", priority=9)
    team.add("b")
    team.prove()
    team.standin.script_key(secret("a"), status=429, retry_after=-1, header_delay=0.1)
    runs = [gevent.spawn(team.run, f"number {n}") for n in range(3)]
    gevent.joinall(runs, raise_error=True)
    assert all(ok(run.value) for run in runs)
    assert team.used() == {"a": 3, "b": 3}
    until = team.service.credentials.state(team.of("a")).until
    assert until is not None
    assert 15 < until - team.service.clock.now() < 25


OF_SONNET = (
    "This request would exceed your organization's rate limit of 30,000 input tokens per minute "
    "(org: 8d477a71-9399-4be9-b1bb-0237cd42f319, model: claude-sonnet-5-5). For details, refer to the docs."
)


def test_a_limit_that_names_its_model_keeps_only_that_from_the_credential(make_team: Callable[..., Team]) -> None:
    team = make_team(BRIDGE_ROUTING="fill-first", BRIDGE_QUEUE_TIMEOUT_SECONDS="0.1")
    team.add("a", priority=9)
    team.add("b")
    team.prove()
    team.standin.script_key(secret("a"), status=429, retry_after=100, says=OF_SONNET)
    assert ok(team.run("one", model="claude-sonnet-5-5"))
    assert team.used() == {"a": 1, "b": 1}
    assert team.state("a") == "usable"
    team.standin.script_key(secret("a"))
    assert ok(team.run("two", model="claude-sonnet-5-5"))
    assert team.used() == {"a": 1, "b": 2}, "it is not asked again for that model"
    assert ok(team.run("three", model="claude-haiku-5"))
    assert team.used() == {"a": 2, "b": 2}, "and goes on with others"
    team.standin.script_key(secret("b"), status=429, retry_after=200, says=OF_SONNET)
    finished = team.run("four", model="claude-sonnet-5-5")
    assert code(finished) == "provider_rate_limited"
    assert isinstance(finished.result, Problem)
    assert 90 < (finished.result.retry_after or 0) <= 100, "the first that can take it"
    with pytest.raises(BridgeError, match="limits the rate"):
        team.run("five", model="claude-sonnet-5-5")
    assert team.used() == {"a": 2, "b": 3}
    assert ok(team.run("six", model="claude-haiku-5"))


def test_a_limited_rate_is_an_organization_s(make_team: Callable[..., Team]) -> None:
    team = make_team(BRIDGE_ROUTING="fill-first")
    team.add("a", priority=9, group="acme")
    team.add("b", priority=8, group="acme")
    team.add("c")
    team.prove()
    team.standin.script_key(secret("a"), status=429)
    assert ok(team.run())
    assert team.used() == {"a": 1, "c": 1}


def test_a_limited_run_hops_once_and_a_rejected_one_as_often_as_there_are_credentials(
    make_team: Callable[..., Team],
) -> None:
    team = make_team(BRIDGE_ROUTING="fill-first", BRIDGE_QUEUE_TIMEOUT_SECONDS="0.1")
    team.add("a", priority=9)
    team.add("b", priority=8)
    team.add("c")
    team.prove()
    for name in "ab":
        team.standin.script_key(secret(name), status=401)
    assert ok(team.run())
    assert team.used() == {"a": 1, "b": 1, "c": 1}
    assert [name for name, _ in team.told] == ["a", "b"]


def test_all_that_are_limited_make_a_503_with_the_true_time(team: Team) -> None:
    for name, seconds in (("a", 300), ("b", 200), ("c", 400)):
        team.standin.script_key(secret(name), status=429, retry_after=seconds)
    finished = team.run()
    assert code(finished) == "provider_rate_limited"
    assert isinstance(finished.result, Problem)
    assert finished.result.retry_after is not None
    assert finished.charge.cost_micro == 0
    for _ in range(2):
        try:
            last = team.run("another")
        except BridgeError as error:
            refused = error
        else:
            assert code(last) == "provider_rate_limited"
    assert refused.code == "provider_rate_limited"
    assert refused.problem.retry_after is not None
    assert 190 <= refused.problem.retry_after <= 200
    seen = len(team.standin.generations)
    with pytest.raises(BridgeError):
        team.run("and another")
    assert len(team.standin.generations) == seen, "nobody asks a provider that has named its time"


def test_a_short_bench_is_waited_for_in_the_queue(make_team: Callable[..., Team]) -> None:
    team = make_team()
    team.add("a")
    team.prove()
    team.standin.script_key(secret("a"), status=429, retry_after=1)

    def recover() -> None:
        gevent.sleep(0.5)
        team.standin.script_key(secret("a"))

    gevent.spawn(recover)
    finished = team.run()
    assert ok(finished), finished
    assert team.used() == {"a": 2}
    assert team.lines[-1].credential == "a"
    assert team.service.ledger.usage("ada")["today"]["requests"] == 1


def test_those_that_wait_for_one_bench_are_not_in_each_other_s_way(make_team: Callable[..., Team]) -> None:
    team = make_team(BRIDGE_QUEUE_TIMEOUT_SECONDS="10")
    team.add("a")
    team.prove()
    team.standin.script_key(secret("a"), status=429, retry_after=1, header_delay=0.2)
    runs = [gevent.spawn(team.run, f"number {n}") for n in range(3)]
    gevent.sleep(0.7)
    assert team.service.ledger.credential_usage("a")["reserved"]["requests"] == 0
    team.standin.script_key(secret("a"))
    finished = [run.get() for run in runs]
    assert all(map(ok, finished))
    assert all(each.duration_ms < 5000 for each in finished)


def test_all_that_are_rejected_make_a_503_that_names_neither_credential_nor_reason(team: Team) -> None:
    for name in "abc":
        team.standin.script_key(secret(name), status=400, says="Your credit balance is too low")
    finished = team.run()
    assert isinstance(finished.result, Problem)
    assert (finished.result.code, finished.result.status) == ("no_credentials", 503)
    said = finished.result.message + finished.result.hint
    assert not any(word in said.lower() for word in ("credit balance", "images", "model"))
    assert [name for name, _ in team.told] == ["a", "b", "c"]
    with pytest.raises(BridgeError) as refused:
        team.run()
    assert refused.value.code == "no_credentials"
    assert not team.engine.statuses()[0].available


def test_without_any_credential_the_service_is_up_and_says_so(make_team: Callable[..., Team]) -> None:
    team = make_team()
    with pytest.raises(BridgeError) as refused:
        team.run()
    assert (refused.value.code, refused.value.problem.status) == ("no_credentials", 503)
    status = team.engine.statuses()[0]
    assert not status.available
    assert status.retry_after is None
    team.add("a")
    assert ok(team.run())
    assert team.engine.statuses()[0].available


def test_a_model_that_an_account_may_not_use_blocks_nobody(make_team: Callable[..., Team]) -> None:
    team = make_team()
    team.add("a")
    team.standin.script_key(secret("a"), status=403, says="Your account does not have access to this model")
    assert code(team.run()) == "model_not_found"
    assert team.state("a") == "usable"


def test_words_of_a_client_in_an_error_block_nobody(team: Team) -> None:
    says = "tools.0.name: 'credit balance is too low' is not allowed"
    for name in "abc":
        team.standin.script_key(secret(name), status=400, says=says)
    assert code(team.run()) == "provider_invalid_request"
    assert sum(team.used().values()) == 1
    assert {team.state(name) for name in "abc"} == {"usable"}


def test_the_limits_of_each_account_are_kept_with_their_time(team: Team) -> None:
    team.standin.script_key(secret("a"), status=429, retry_after=30, limits="anthropic-ratelimit-tokens-remaining:7")
    before = team.service.clock.now()
    for n in range(3):
        assert ok(team.run(f"number {n}"))
    found = team.engine.roster.rate_limits
    assert {id: limits.limits for id, limits in found.items()} == {"a": {"anthropic-ratelimit-tokens-remaining": "7"}}
    assert before <= found["a"].at <= team.service.clock.now()


def test_states_are_there_again_after_a_restart(team: Team) -> None:
    team.standin.script_key(secret("a"), status=429, retry_after=300)
    team.standin.script_key(secret("b"), status=402)
    for n in range(6):
        assert ok(team.run(f"number {n}"))
    before = {name: team.service.credentials.state(team.of(name)) for name in "abc"}
    used = team.service.ledger.credential_usage("c")["today"]
    team.service.close()
    team.open()
    assert {name: team.service.credentials.state(team.of(name)) for name in "abc"} == before
    assert [before[name].name for name in "abc"] == ["benched", "blocked", "usable"]
    assert team.service.ledger.credential_usage("c")["today"] == used
    assert used["requests"] == 6


@pytest.mark.parametrize("whose", ["the environment's", "one of the file"])
def test_another_secret_is_tried_at_once_wherever_it_came_from(make_team: Callable[..., Team], whose: str) -> None:
    old, new, more = secret("old"), secret("new"), {}
    if whose == "the environment's":
        more["ANTHROPIC_API_KEY"] = old
    team = make_team(**more)
    if not more:
        team.add("old")
    team.standin.script_key(old, status=401)
    assert code(team.run()) == "no_credentials"
    team.service.close()
    if more:
        env = {"BRIDGE_DATA_DIR": str(team.settings.data_dir), "ANTHROPIC_BASE_URL": team.standin.url}
        team.settings = Settings.load({**env, "ANTHROPIC_API_KEY": new})
    else:
        path = team.settings.data_dir / "credentials.json"
        path.write_text(path.read_text().replace(old, new))
    team.open()
    assert ok(team.run())


def test_what_a_provider_says_of_the_old_secret_is_not_said_of_the_new_one(make_team: Callable[..., Team]) -> None:
    team = make_team()
    team.add("a")
    team.standin.script_key(secret("a"), status=401, header_delay=0.3)
    run = gevent.spawn(team.run)
    gevent.sleep(0.15)
    team.service.credentials.update(team.of("a"), secret=secret("new"))
    assert ok(run.get())
    assert team.state("a") == "usable"


def test_a_credential_that_was_given_up_stands_in_the_log_once(make_team: Callable[..., Team]) -> None:
    team = make_team(BRIDGE_ROUTING="fill-first")
    team.add("a", priority=9)
    team.add("b")
    team.prove()
    team.standin.script_key(secret("a"), status=429)
    assert code(team.run(schema={"type": "object"})) == "output_mismatch"
    line = team.lines[-1]
    assert (line.repairs, line.credential) == (1, "b")
    assert line.tried is not None
    assert line.tried.count("a (429") == 1


# --- budgets ---------------------------------------------------------------------------------------------


def test_no_run_takes_a_credential_beyond_its_budget(make_team: Callable[..., Team]) -> None:
    team = make_team(BRIDGE_QUEUE_TIMEOUT_SECONDS="2")
    team.add("a", limits={"maxCostPerDay": 1})
    team.prove()
    most: list[float] = []

    def one(number: int) -> str | None:
        try:
            finished = team.run(f"number {number} [[standin words=2000 deltas=4 input=100]]", max_output_tokens=8000)
        except BridgeError as error:
            return error.code
        usage = team.service.ledger.credential_usage("a")
        most.append(usage["today"]["costUsd"] + usage["reserved"]["costUsd"])
        return code(finished)

    codes: Counter[str | None] = Counter()
    for _ in range(4):
        runs = [gevent.spawn(one, n) for n in range(64)]
        gevent.joinall(runs, raise_error=True)
        codes.update(run.value for run in runs)
    assert max(most) <= 1.0
    assert team.service.ledger.credential_usage("a")["today"]["costUsd"] > 0.9
    assert codes[None] >= 10
    assert set(codes) <= {None, "provider_rate_limited", "queue_timeout"}


def test_a_budget_that_is_used_up_sends_runs_elsewhere(make_team: Callable[..., Team]) -> None:
    team = make_team(BRIDGE_ROUTING="fill-first")
    team.add("a", priority=9, limits={"maxCostPerDay": 0.02})
    team.add("b")
    team.prove()
    for n in range(4):
        assert ok(team.run(f"number {n} [[standin output=500]]", max_output_tokens=600))
    assert team.used()["b"] > 0
    assert team.used()["a"] > 0


def test_runs_that_wait_over_midnight_pass_no_budget(make_team: Callable[..., Team]) -> None:
    team = make_team()
    late_s = 86400 - time.time() % 86400 - 3
    team.service.clock.now = lambda: time.time() + late_s
    team.add("a", limits={"maxCostPerDay": 0.1})
    team.prove()
    day = team.service.ledger.today()
    assert ok(team.run("first [[standin output=4000]]", max_output_tokens=4000))
    team.service.credentials.note_limited(team.of("a"), 4, "429", 0.5)

    def one(number: int) -> str | None:
        try:
            return code(team.run(f"number {number} [[standin output=4000]]", max_output_tokens=4000))
        except BridgeError as error:
            return error.code

    runs = [gevent.spawn(one, n) for n in range(8)]
    gevent.joinall(runs, raise_error=True)
    assert team.service.ledger.today() > day
    assert ok(team.run("on the next day [[standin output=4000]]", max_output_tokens=4000))
    spent: Counter[str] = Counter()
    for line in team.lines:
        spent[line.timestamp[:10]] += round(line.cost_usd * 1e6)
    assert {run.value for run in runs} == {None, "provider_rate_limited"}
    assert all(micro <= 100_000 for micro in spent.values()), spent


# --- changes while runs are under way --------------------------------------------------------------------


@pytest.mark.parametrize("change", ["disable", "remove", "rename", "secret"])
def test_changes_under_thirty_two_runs_fail_none(make_team: Callable[..., Team], change: str) -> None:
    team = make_team(BRIDGE_ROUTING="spread", BRIDGE_MAX_CONCURRENT="32")
    team.add("a", "b", "c")
    team.prove()
    team.standin.script(header_delay=0.1)
    runs = [gevent.spawn(team.run, f"number {n}") for n in range(96)]
    gevent.sleep(0.15)
    book = team.service.credentials
    if change == "disable":
        book.enable(team.of("b"), False)
    elif change == "remove":
        book.remove(team.of("b"))
    elif change == "rename":
        book.update(team.of("b"), name="bb")
    else:
        book.update(team.of("b"), secret=secret("new"))
    gevent.joinall(runs, raise_error=True)
    assert [code(run.value) for run in runs if not ok(run.value)] == []
    assert sum(team.used().values()) == 96
    if change == "secret":
        assert team.used()["new"] > 0
    if change == "rename":
        assert team.service.ledger.credential_usage(team.of("bb").id)["today"]["requests"] == team.used()["b"]
