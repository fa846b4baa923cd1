"""The credentials: what may be one, how each is doing by what has happened, and the book that keeps them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest

from bridge.errors import BridgeError, StoreError
from bridge.http.app import document
from bridge.keys.credentials import (
    BLOCK_S,
    BOUNDS,
    CHECKS,
    LONGEST_WAIT_S,
    MOST,
    MOST_MODELS,
    Credential,
    CredentialBook,
    Standing,
    bare_name,
    check_base_url,
    check_secret,
    limited,
    may_serve,
    rejected,
    state_of,
)
from bridge.limits import Limits
from bridge.settings import Settings
from bridge.store.document import Document
from tests.support.ledger import FrozenClock

NOW = 1_000_000.0
SECRET = "sk-ant-0123456789abcdef"
FRESH = Standing()


def credential(**fields: Any) -> Credential:
    return Credential(**{"id": "a", "name": "a", "provider": "claude", "secret": SECRET, **fields})


def benched(pause_s: float | None, *, at: float = NOW, before: Standing = FRESH, chance: float = 0.5) -> Standing:
    return limited(before, at, pause_s, "429", chance)


# --- how one is doing: a pure function of what has happened, and of the time -----------------------


@pytest.mark.parametrize(
    ("standing", "at", "name", "until"),
    [
        (Standing(), NOW, "usable", None),
        (benched(7), NOW, "benched", NOW + 7),
        (benched(7), NOW + 6.9, "benched", NOW + 7),
        (benched(7), NOW + 7, "probing", None),
        (benched(None), NOW + 19.9, "benched", NOW + 20),
        (benched(None), NOW + 20, "probing", None),
        (benched(18 * 86400), NOW, "benched", NOW + LONGEST_WAIT_S),
        (benched(18 * 86400), NOW + LONGEST_WAIT_S, "probing", None),
        (benched(7), NOW - 100, "probing", None),  # the clock was set back
        (rejected(Standing(), NOW, "401"), NOW, "blocked", NOW + BLOCK_S),
        (rejected(Standing(), NOW, "401"), NOW + BLOCK_S, "probing", None),
        (rejected(Standing(), NOW, "401"), NOW - 2 * BLOCK_S, "probing", None),
        (rejected(benched(7), NOW, "401"), NOW + 8, "blocked", NOW + BLOCK_S),
        (benched(7, before=rejected(Standing(), NOW - BLOCK_S, "402")), NOW + 1, "blocked", NOW + 7),
    ],
)
def test_the_state_is_a_function_of_what_has_happened_and_of_the_time(
    standing: Standing, at: float, name: str, until: float | None
) -> None:
    state = state_of(credential(), standing, at)
    assert (state.name, state.until) == (name, until)


def test_what_the_admin_has_disabled_is_disabled_whatever_happened() -> None:
    assert state_of(credential(enabled=False), rejected(Standing(), NOW, "401"), NOW).name == "disabled"


def test_one_without_its_secret_is_blocked_and_says_why() -> None:
    state = state_of(credential(secret=""), Standing(), NOW)
    assert state.name == "blocked"
    assert "backup" in state.reason


def test_benches_without_a_time_double_up_to_five_minutes() -> None:
    standing, at, lengths = Standing(), NOW, []
    for _ in range(7):
        standing = limited(standing, at, None, "429")
        assert standing.benched_until is not None
        lengths.append(standing.benched_until - at)
        at = standing.benched_until
    assert lengths == [20, 40, 80, 160, 300, 300, 300]


@pytest.mark.parametrize(("chance", "length"), [(0.0, 16.0), (1.0, 24.0)])
def test_such_a_bench_lies_within_a_fifth_of_its_time(chance: float, length: float) -> None:
    assert benched(None, chance=chance).benched_until == pytest.approx(NOW + length)


def test_failures_of_runs_that_were_under_way_do_not_climb_the_ladder() -> None:
    first = benched(None)
    third = benched(None, at=NOW + 2, before=benched(None, at=NOW + 1, before=first))
    assert (third.streak, third.benched_until) == (1, first.benched_until)


def test_a_longer_bench_replaces_a_shorter_one_and_not_the_other_way_round() -> None:
    assert benched(60, at=NOW + 1, before=benched(5)).benched_until == NOW + 61
    assert benched(5, at=NOW + 1, before=benched(60)).benched_until == NOW + 60


def test_a_half_open_try_that_fails_waits_again_for_as_long() -> None:
    at = NOW + LONGEST_WAIT_S
    again = limited(benched(18 * 86400), at, None, "429")
    state = state_of(credential(), again, at + 1)
    assert (state.name, state.until) == ("benched", at + LONGEST_WAIT_S)


def test_a_time_that_is_the_bridge_s_own_guess_is_called_so() -> None:
    assert state_of(credential(), benched(None), NOW).guessed
    assert not state_of(credential(), benched(7), NOW).guessed


OPUS, SONNET = "claude-opus-5-5", "claude-sonnet-5-5"


def test_a_limit_that_names_a_model_is_for_that_alone_with_a_ladder_of_its_own() -> None:
    first = limited(FRESH, NOW, None, "429 opus", 0.5, OPUS)
    assert state_of(credential(), first, NOW).name == "usable"
    assert state_of(credential(), first, NOW, SONNET).name == "usable"
    seen = state_of(credential(), first, NOW, OPUS)
    assert (seen.name, seen.reason, seen.until, seen.guessed) == ("benched", "429 opus", NOW + 20, True)
    assert state_of(credential(), first, NOW + 21, OPUS).open
    second = limited(first, NOW + 21, None, "429 opus", 0.5, OPUS)
    assert state_of(credential(), second, NOW + 21, OPUS).until == NOW + 61
    other = limited(second, NOW + 21, None, "429 sonnet", 0.5, SONNET)
    assert state_of(credential(), other, NOW + 21, SONNET).until == NOW + 41
    # What is said of all of it counts for each model.
    whole = limited(other, NOW + 21, 500, "429", 0.5)
    assert state_of(credential(), whole, NOW + 100, OPUS).until == NOW + 521
    assert state_of(credential(enabled=False), other, NOW + 21, OPUS).name == "disabled"


def test_only_so_many_models_are_remembered_and_the_newest() -> None:
    standing = FRESH
    for number in range(3 * MOST_MODELS):
        standing = limited(standing, NOW, 60, "429", 0.5, f"model-{number}")
    assert list(standing.models) == [f"model-{number}" for number in range(2 * MOST_MODELS, 3 * MOST_MODELS)]


@pytest.mark.parametrize(
    ("model", "bare"),
    [
        ("claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("Claude-Opus-5-5", OPUS),
        ("claude-opus-5-5[1m]", OPUS),
        ("claude-sonnet-4-5-20250929[1m]", "claude-sonnet-4-5"),
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("gpt-6-sol", "gpt-6-sol"),
        ("my-20250929-model", "my-20250929-model"),
    ],
)
def test_a_model_s_limits_are_the_same_with_a_date_and_a_long_context(model: str, bare: str) -> None:
    assert bare_name(model) == bare


# --- what may be one -------------------------------------------------------------------------------


#: field of a body -> its check, and a value of that size
SIZED: dict[str, tuple[Callable[[Any], Any], Callable[[int], Any]]] = {
    "apiKey": (CHECKS["secret"], lambda size: "k" * size),
    "baseUrl": (CHECKS["base_url"], lambda size: "https://a.b/".ljust(size, "c")),
    "group": (CHECKS["group"], lambda size: "g" * size),
    "priority": (CHECKS["priority"], int),
    "weight": (CHECKS["weight"], int),
    "maxConcurrent": (CHECKS["max_concurrent"], int),
    "models": (CHECKS["models"], lambda size: ["m"] * size),
    "keys": (CHECKS["keys"], lambda size: ["k"] * size),
    "note": (CHECKS["note"], lambda size: "n" * size),
}


@pytest.mark.parametrize("field", BOUNDS)
def test_each_field_has_the_bounds_that_the_api_describes(field: str) -> None:
    check, sized = SIZED[field]
    described = document()["components"]["schemas"]["CredentialChange"]["properties"][field]
    described = described.get("anyOf", [described])[0]
    _, most = BOUNDS[field]
    assert most in (described.get("maxLength"), described.get("maxItems"), described.get("maximum"))
    check(sized(most))
    refused = [sized(most + 1)]
    for name in ("minimum", "minLength"):
        if described.get(name):
            refused.append(sized(described[name] - 1) if field != "baseUrl" else "")
    for value in refused:
        with pytest.raises(BridgeError) as caught:
            check(value)
        assert caught.value.problem.facts["field"] == field


@pytest.mark.parametrize("given", [f"  {SECRET}\n", f"\ufeff{SECRET}", f"\t{SECRET}\r\n"])
def test_blanks_around_a_secret_are_taken_away(given: str) -> None:
    assert check_secret(given) == SECRET


@pytest.mark.parametrize(
    "given", ["", "short", "sk-a b c d e f g", "sk-ant\n-0123456789", "sk-äöü-12345", "x" * 4097, 7]
)
def test_what_is_no_secret_is_refused_with_a_sentence_that_does_not_repeat_it(given: Any) -> None:
    with pytest.raises(BridgeError) as caught:
        check_secret(given)
    assert caught.value.code == "invalid_request"
    assert not str(given) or str(given) not in caught.value.message


@pytest.mark.parametrize(
    "url",
    [
        "http://api.example.com",
        "http://10.0.0.1:8080",
        "ftp://api.example.com",
        "https://",
        "https://user:password@api.example.com",
        "https://api.example.com?x=1",
        "api.example.com",
        "https://api.example.com/a b",
        "https://[::1",
        "https://api.example.com:0",
        7,
    ],
)
def test_an_endpoint_without_tls_or_sense_is_refused(url: Any) -> None:
    with pytest.raises(BridgeError) as caught:
        check_base_url(url)
    assert caught.value.code == "invalid_request"


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080", "http://localhost:1", "http://[::1]:2", "https://api.example.com"]
)
def test_plain_http_is_for_this_host_alone(url: str) -> None:
    assert check_base_url(url + "/") == url


@pytest.mark.parametrize(
    ("fields", "serves"),
    [
        ({}, True),
        ({"models": ("claude-opus-*",)}, False),
        ({"models": ("claude-sonnet-*", "x")}, True),
        ({"models": ()}, False),
        ({"keys": ("ada",)}, True),
        ({"keys": ("bob",)}, False),
    ],
)
def test_a_credential_serves_what_it_is_for(fields: dict[str, Any], serves: bool) -> None:
    assert may_serve(credential(**fields), "claude-sonnet-5-5", "ada", None) is serves


def test_a_key_that_is_bound_uses_what_it_names_and_no_other() -> None:
    assert may_serve(credential(), "m", "ada", ("a", "b"))
    assert not may_serve(credential(), "m", "ada", ("b",))
    assert not may_serve(credential(), "m", "ada", ())


# --- the book --------------------------------------------------------------------------------------


Open = Callable[..., CredentialBook]


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def open_book(tmp_path: Path, clock: FrozenClock) -> Open:
    def make(**env: str) -> CredentialBook:
        documents = (Document(tmp_path / name, keeps_previous=False) for name in ("credentials.json", "states.json"))
        return CredentialBook(*documents, clock, Settings.load(env).providers)

    return make


def secret(number: int) -> str:
    return f"sk-ant-{number:012d}"


def test_what_was_added_is_there_after_a_restart_in_a_file_for_its_owner(open_book: Open, tmp_path: Path) -> None:
    made = open_book().create("team", "claude", SECRET, limits={"maxCostPerDay": 2.5}, group="acme")
    (again,) = open_book().list()
    assert again == made
    assert again.limits == {"maxCostPerDay": 2_500_000}
    assert (tmp_path / "credentials.json").stat().st_mode & 0o777 == 0o600


def test_the_environment_s_are_the_default_of_their_providers(open_book: Open) -> None:
    book = open_book(ANTHROPIC_API_KEY=secret(1), OPENAI_API_KEY=secret(2))
    assert [(each.name, each.provider, each.source) for each in book.list()] == [
        ("default", "claude", "env"),
        ("default", "codex", "env"),
    ]
    assert book.get("default", "codex").secret == secret(2)
    with pytest.raises(BridgeError, match="one of each provider"):
        book.get("default")


def test_the_environment_s_can_be_disabled_over_restarts_and_not_be_changed(open_book: Open) -> None:
    book = open_book(ANTHROPIC_API_KEY=secret(1))
    own = book.get("default")
    with pytest.raises(BridgeError, match="comes from the environment"):
        book.update(own, weight=2)
    with pytest.raises(BridgeError, match="comes from the environment"):
        book.remove(own)
    book.enable(own, False)
    again = open_book(ANTHROPIC_API_KEY=secret(1))
    assert again.state(again.get("default")).name == "disabled"
    again.enable(again.get("default"), True)
    assert again.state(again.get("default")).name == "usable"


def test_the_same_secret_or_name_twice_is_refused_and_names_the_other(open_book: Open) -> None:
    book = open_book(OPENAI_API_KEY=secret(9))
    book.create("a", "claude", secret(1))
    for name, provider, given, twin in (
        ("b", "claude", secret(1), "'a' of claude"),
        ("b", "codex", secret(9), "'default' of codex"),
        ("a", "codex", secret(2), "'a'"),
        ("default", "claude", secret(2), "default"),
    ):
        with pytest.raises(BridgeError, match=twin) as caught:
            book.create(name, provider, given)
        assert caught.value.code == "conflict"
    assert len(book.list()) == 2


def test_a_secret_that_is_in_the_file_and_in_the_environment_counts_once(open_book: Open) -> None:
    open_book().create("a", "claude", secret(1))
    assert [each.name for each in open_book(ANTHROPIC_API_KEY=secret(1)).list()] == ["a"]


def test_a_new_name_keeps_the_id_and_no_other_gets_it(open_book: Open) -> None:
    book = open_book()
    first = book.create("a", "claude", secret(1))
    book.update(first, name="b")
    second = book.create("a", "claude", secret(2))
    assert {each.name: each.id for each in open_book().list()} == {"b": "a", "a": "a.2"}
    assert second.id != first.id


def test_a_new_secret_is_tried_at_once(open_book: Open, clock: FrozenClock) -> None:
    book = open_book()
    made = book.create("a", "claude", secret(1))
    book.note_rejected(made, "401")
    _, after = book.update(made, secret=secret(2))
    assert book.state(after).name == "usable"


def test_states_survive_a_restart(open_book: Open, clock: FrozenClock) -> None:
    book = open_book()
    a, b = book.create("a", "claude", secret(1)), book.create("b", "claude", secret(2))
    book.note_limited(a, 60, "429 slow down", 0.5)
    book.note_rejected(b, "402 pay")
    again = open_book()
    assert [again.state(each).name for each in again.list()] == ["benched", "blocked"]
    assert again.state(again.get("a")).until == clock.now() + 60
    assert again.state(again.get("b")).reason == "402 pay"


def test_a_limit_of_a_model_survives_a_restart_and_ends_with_its_success(open_book: Open, clock: FrozenClock) -> None:
    book = open_book()
    a = book.create("a", "claude", secret(1))
    book.note_success(a, SONNET)
    book.note_limited(a, 300, "429 opus", 0.5, f"{OPUS}-20260101")
    book.note_limited(a, 300, "429 haiku", 0.5, "claude-haiku-5")
    assert book.is_proven(a), "that it is limited for a model says nothing of others"
    book.note_success(a, SONNET)
    assert list(open_book().limited_models(a)) == [OPUS, "claude-haiku-5"]
    book.note_success(a, OPUS)
    assert list(book.limited_models(a)) == ["claude-haiku-5"]
    assert book.state(a, OPUS).open
    assert not book.state(a, "claude-haiku-5").open
    gevent.sleep(0.1)
    assert list(open_book().limited_models(a)) == ["claude-haiku-5"]
    book.update(a, secret=secret(2))
    assert book.limited_models(book.get("a")) == {}, "what was known of another secret"
    book.note_limited(book.get("a"), 300, "429 opus", 0.5, OPUS)
    book.reset(book.get("a"))
    assert book.limited_models(book.get("a")) == {}


def test_success_ends_whatever_was(open_book: Open) -> None:
    book = open_book()
    a = book.create("a", "claude", secret(1))
    assert not book.is_proven(a)
    book.note_rejected(a, "402")
    book.note_success(a)
    assert book.state(a).name == "usable"
    assert book.is_proven(a)
    book.note_limited(a, None, "429", 0.5)
    assert not book.is_proven(a)


def test_a_block_is_told_once_until_it_is_over(open_book: Open) -> None:
    book, told = open_book(), []
    book.watchers.append(lambda each, reason: told.append((each.name, reason)))
    a = book.create("a", "claude", secret(1))
    for _ in range(3):
        book.note_rejected(a, "402")
    assert told == [("a", "402")]
    book.note_success(a)
    book.note_rejected(a, "401")
    assert told == [("a", "402"), ("a", "401")]


def test_a_hand_edit_holds_within_a_second(open_book: Open, clock: FrozenClock, tmp_path: Path) -> None:
    book = open_book()
    book.create("a", "claude", secret(1))
    path = tmp_path / "credentials.json"
    content = json.loads(path.read_text())
    content["credentials"].append({"name": "b", "provider": "codex", "apiKey": secret(2), "weight": 3})
    path.write_text(json.dumps(content))
    clock.pass_s(1.1)
    assert [each.name for each in book.list()] == ["a", "b"]
    assert book.problem is None


BAD = {
    "no JSON": "{",
    "empty": "",
    "a list": "[]",
    "another schema": '{"schema": 2}',
    "no rows": '{"schema": 1, "credentials": {}}',
    "a row that is none": '{"schema": 1, "credentials": [7]}',
    "no name": '{"schema": 1, "credentials": [{"provider": "claude", "apiKey": "sk-0123456789"}]}',
    "a wrong name": '{"schema": 1, "credentials": [{"name": "../a", "provider": "claude", "apiKey": "sk-0123456789"}]}',
    "no provider": '{"schema": 1, "credentials": [{"name": "a", "provider": "x", "apiKey": "sk-0123456789"}]}',
    "a bad secret": '{"schema": 1, "credentials": [{"name": "a", "provider": "claude", "apiKey": "sk 0123456789"}]}',
    "plain HTTP": json.dumps(
        {"schema": 1, "credentials": [{"name": "a", "provider": "claude", "apiKey": SECRET, "baseUrl": "http://x.y"}]}
    ),
    "a bad limit": json.dumps(
        {"schema": 1, "credentials": [{"name": "a", "provider": "claude", "apiKey": SECRET, "limits": {"x": 1}}]}
    ),
    "a secret in the wrong place": json.dumps(
        {"schema": 1, "credentials": [{"name": "a", "provider": "claude", SECRET: "apiKey"}]}
    ),
    "a secret twice": json.dumps(
        {"schema": 1, "credentials": [{"name": name, "provider": "claude", "apiKey": SECRET} for name in "ab"]}
    ),
    "far too many": json.dumps(
        {
            "schema": 1,
            "credentials": [{"name": f"c{n}", "provider": "claude", "apiKey": secret(n)} for n in range(10 * MOST)],
        }
    ),
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_a_bad_file_keeps_the_service_from_starting_and_leaves_a_running_one_as_it_was(
    open_book: Open, clock: FrozenClock, tmp_path: Path, text: str
) -> None:
    book = open_book()
    book.create("kept", "claude", secret(77))
    (tmp_path / "credentials.json").write_text(text)
    with pytest.raises(StoreError) as caught:
        open_book()
    assert "credentials.json" in caught.value.message
    assert SECRET not in caught.value.message
    clock.pass_s(2)
    assert [each.name for each in book.list()] == ["kept"]
    assert book.problem is not None
    assert SECRET not in book.problem
    with pytest.raises(BridgeError) as refused:
        book.create("more", "claude", secret(78))
    assert refused.value.code == "conflict"
    assert (tmp_path / "credentials.json").read_text() == text, "a hand edit is never written over"


def test_a_file_that_is_gone_leaves_the_last_good_one_in_force(
    open_book: Open, clock: FrozenClock, tmp_path: Path
) -> None:
    book = open_book()
    book.create("kept", "claude", secret(1))
    os.unlink(tmp_path / "credentials.json")
    clock.pass_s(2)
    assert [each.name for each in book.list()] == ["kept"]
    assert book.problem is not None


def test_what_was_removed_is_on_the_disk_no_longer(open_book: Open, tmp_path: Path) -> None:
    book = open_book()
    made = book.create("a", "claude", SECRET)
    book.remove(made)
    assert all(SECRET.encode() not in path.read_bytes() for path in tmp_path.iterdir() if path.is_file())


def test_more_than_a_thousand_are_refused(open_book: Open, tmp_path: Path) -> None:
    rows = [{"name": f"c{n}", "provider": "claude", "apiKey": secret(n)} for n in range(MOST)]
    (tmp_path / "credentials.json").write_text(json.dumps({"schema": 1, "credentials": rows}))
    with pytest.raises(BridgeError, match="1000 credentials"):
        open_book().create("more", "claude", SECRET)


def test_a_thousand_changes_at_once_leave_the_file_whole(open_book: Open) -> None:
    book = open_book()

    def admin(number: int) -> None:
        for turn in range(125):
            made = book.create(f"c{number}_{turn}", "claude", secret(1000 * number + turn))
            if turn % 2:
                book.remove(made)

    gevent.joinall([gevent.spawn(admin, number) for number in range(8)], raise_error=True)
    assert [each.name for each in open_book().list()] == [each.name for each in book.list()]
    assert len(book.list()) == 8 * 63


def test_limits_that_are_changed_leave_the_others(open_book: Open) -> None:
    book = open_book()
    made = book.create("a", "claude", SECRET, limits={"maxCostPerDay": 1})
    _, after = book.update(made, limits={"maxCostPerMonth": 9})
    assert after.limits == Limits({"maxCostPerDay": 1_000_000, "maxCostPerMonth": 9_000_000})
