"""`/admin/top`: what `cli-bridge top` shows, in one bounded answer that is cheap to ask for every second."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterable
from datetime import date
from typing import Any

import msgspec
from flask import request

from bridge import __version__
from bridge.clock import first_moment, iso, parse_iso
from bridge.engine.run import Run
from bridge.errors import BridgeError
from bridge.http.admin_runs import (
    live_run,
    nodes,
    problems,
    rate_limits,
    runs_by_state,
    runs_elsewhere,
    states_elsewhere,
)
from bridge.http.context import engine_of, service_of
from bridge.http.describe import Query, Routes
from bridge.http.me import capacity
from bridge.http.views import (
    Attention,
    Budget,
    LiveRun,
    Nearest,
    Top,
    TopAction,
    TopCredential,
    TopKey,
    TopProvider,
    WindowView,
)
from bridge.keys.credentials import Credential
from bridge.keys.keys import Key
from bridge.limits import BY_NAME, Moment, effective, money, summed

routes = Routes("Admin", who="admin")

#: The most that each list has.
MOST_RUNS, MOST_KEYS, MOST_CREDENTIALS, MOST_ACTIONS, MOST_MATTERS = 60, 50, 30, 20, 20
#: The most bytes that an answer has, and the lists that get shorter for it.
MOST_BYTES = 30_000
_LISTS = ("runs", "keys", "credentials", "log", "audit", "attention")
#: Minutes over which requests and refusals are counted, and those of the share of failures.
QUARTER, FIVE = 15, 5
#: Share of a cap from which on it is said.
CLOSE = 0.9
#: How long an alert is shown, in seconds.
ALERT_S = 3600.0
#: Alerts about what is shown anyhow, as it is now.
_SHOWN_AS_IT_IS = ("key_limit", "provider_down", "loop_suspected")


@routes.add(
    "GET",
    "/admin/top",
    query=(
        Query("since", "Only lines of the log behind the one with this id, while it is still known."),
        Query("text", "Only runs and keys with this in their key, model, provider or state."),
    ),
    errors=("draining",),
)
def top() -> Top:
    """All that `cli-bridge top` shows: head, matters, CLIs, runs, keys, and the newest lines of log and audit."""
    service, engine = service_of(), engine_of()
    text = request.args.get("text", "").lower()
    answered, failed = service.lately.answered_and_failed(FIVE)
    others, elsewhere = states_elsewhere(service), list(runs_elsewhere(service))
    runs, keys = _runs(text, elsewhere), _keys(text, elsewhere)
    settings = service.settings
    answer = Top(
        at=iso(service.clock.now()),
        version=__version__,
        capacity=capacity(),
        slots=engine.admission.slots + sum(each.slots for each in others),
        running=engine.admission.running + sum(each.running for each in others),
        queued=engine.admission.queued + sum(each.queued for each in others),
        draining=engine.draining,
        totals=service.ledger.totals(),
        alerts_at={"today": settings.alert_cost_per_day, "thisMonth": settings.alert_cost_per_month},
        answered=answered,
        failed=failed,
        tokens_per_minute=service.lately.tokens(),
        attention=_matters(keys)[:MOST_MATTERS],
        providers=_providers(),
        credentials=_credentials(),
        runs=runs,
        runs_in_all=len(engine.runs) + len(elsewhere),
        keys=keys,
        keys_in_all=service.keys.count,
        log=service.lately.lines(request.args.get("since")),
        audit=_actions(),
        nodes=nodes(service),
    )
    return bounded(answer)


def bounded(answer: Top) -> Top:
    """The answer as JSON of at most MOST_BYTES: the longest list gives up what matters least in it, till it fits."""
    lists = {name: list(getattr(answer, name)) for name in _LISTS}
    # With the comma behind it.
    sizes = {name: [len(msgspec.json.encode(row)) + 1 for row in rows] for name, rows in lists.items()}
    sums = {name: sum(rows) for name, rows in sizes.items()}
    over = len(msgspec.json.encode(answer)) + len("\n") - MOST_BYTES
    while over > 0 and any(lists.values()):
        name = max(sums, key=sums.__getitem__)
        # What is told in the order of time, ends with what is newest.
        place = 0 if name in ("log", "audit") else -1
        lists[name].pop(place)
        size = sizes[name].pop(place)
        sums[name] -= size
        over -= size
    return msgspec.structs.replace(answer, **lists)


def _runs(text: str, elsewhere: list[LiveRun]) -> list[LiveRun]:
    """The runs that match, those that run before those that wait, the oldest first."""
    service = service_of()
    found = (
        run
        for run in engine_of().runs.values()
        if _has(text, (run.key.name, run.request.model, run.request.provider, run.state))
    )
    first = [live_run(service, run) for run in heapq.nsmallest(MOST_RUNS, found, key=_place)]
    first += [run for run in elsewhere if _has(text, (run.key_name, run.model, run.provider, run.state))]
    # Without prompts, which `/admin/runs` has: they are the largest part of it.
    return [msgspec.structs.replace(run, user_prompt=None) for run in heapq.nsmallest(MOST_RUNS, first, key=_place)]


def _place(run: Run | LiveRun) -> tuple[bool, str]:
    return run.state == "queued", run.id


def _keys(text: str, elsewhere: list[LiveRun]) -> list[TopKey]:
    """Keys that are closest to a cap, that have something running, and that asked last; or those that match."""
    service = service_of()
    running = Counter(run.key.name for run in engine_of().runs.values())
    running.update(run.key_name for run in elsewhere)
    found: dict[str, Key] = {}
    if text:
        chosen: Iterable[str] = (key.name for key in service.keys.list() if text in key.name.lower())
    else:
        half = MOST_KEYS // 2
        closest = service.closest.names(MOST_KEYS)
        chosen = (*closest[:half], *running, *service.statistics.moved(MOST_KEYS), *closest[half:])
    for name in chosen:
        try:
            found[name] = service.keys.get(name)
        except BridgeError:
            continue  # revoked
        if len(found) == MOST_KEYS:
            break
    refused = service.lately.refused(QUARTER)
    shown = [_key(key, running[key.name], refused[key.name]) for key in found.values()]
    return sorted(shown, key=lambda each: -(each.closest.share if each.closest else 0.0))


def _key(key: Key, running: int, refused: int) -> TopKey:
    service = service_of()
    usage = service.ledger.usage(key.name)
    status = key.status(service.clock.now())
    nearest = service.ledger.nearest_cap(key.name, key.limits)
    return TopKey(
        name=key.name,
        status=status,
        today=msgspec.convert(usage["today"], WindowView),
        closest=None if nearest is None else Nearest(**nearest),
        running=running,
        refused=refused,
        last_used_at=usage["lastUsedAt"],
    )


def _providers() -> list[TopProvider]:
    service, engine = service_of(), engine_of()
    runs = runs_by_state(service)
    requests, limited = service.lately.requests(QUARTER), service.lately.limited(QUARTER)
    return [
        TopProvider(
            name=status.name,
            available=status.available,
            problem=status.problem,
            hint=status.hint,
            running=runs[status.name, "running"],
            queued=runs[status.name, "queued"],
            requests=sum(count for (name, _), count in requests.items() if name == status.name),
            limited=sum(count for (name, _), count in limited.items() if name == status.name),
            last=service.lately.last((status.name, None)),
            rate_limits=rate_limits(status.name),
        )
        for status in engine.statuses()
    ]


def _credentials() -> list[TopCredential]:
    """The credentials, those first that are not usable."""
    service = service_of()
    requests, limited = service.lately.requests(QUARTER), service.lately.limited(QUARTER)
    purse_of = service.ledger.purses()
    states = [(service.credentials.state(each), each) for each in service.credentials.list()]
    states.sort(key=lambda pair: (pair[0].name == "usable", pair[1].provider, -pair[1].priority, pair[1].name))
    found = []
    for state, each in states[:MOST_CREDENTIALS]:
        usage, source = service.ledger.credential_usage(each.id), (each.provider, each.name)
        found.append(
            TopCredential(
                name=each.name,
                provider=each.provider,
                kind=each.kind,
                state=state.name,
                reason=state.reason,
                until=None if state.until is None else iso(state.until),
                enabled=each.enabled,
                priority=each.priority,
                max_concurrent=each.max_concurrent,
                today_usd=usage["today"]["costUsd"],
                budget=_budget(each, usage),
                running=purse_of(each.id, each.limits).running,
                requests=requests[source],
                limited=limited[source],
                last=service.lately.last(source),
            )
        )
    return found


def _budget(credential: Credential, usage: dict[str, Any]) -> Budget | None:
    """The cap of a credential for its longest window."""
    service = service_of()
    now = Moment.of(service.clock.now(), service.settings.zone)
    for limit, window, amount in reversed(summed(effective(credential.limits, {}))):
        days = now.spans[window.name].days
        begins = first_moment(date.fromisoformat(min(days)), now.zone)
        over = (now.at - begins) / (now.ends_at(window.name) - begins)
        used, held, most = usage[window.field]["costUsd"], usage["reserved"]["costUsd"], limit.shown(amount)
        return Budget(window.name, used, held, most, (used + held) / most, used / most - over)
    return None


def _matters(keys: list[TopKey]) -> list[Attention]:
    """What the operator should look at, the worst first."""
    service, engine = service_of(), engine_of()
    found = []
    if engine.draining:
        found.append(Attention("draining", "bridge", "the bridge is stopping, and takes no requests"))
    if not service.ledger.open_for_business:
        what = "the data folder cannot be written to" if service.cluster is None else "the shared store cannot be used"
        found.append(Attention("disk", "data folder", f"{what}: no requests are taken"))
    found += [
        Attention("provider_down", status.name, f"{status.name}: {status.problem}")
        for status in engine.statuses()
        if not status.available
    ]
    for credential in service.credentials.list():
        state = service.credentials.state(credential)
        if state.name == "blocked":
            text = f"credential {credential.name} of {credential.provider} is blocked: {state.reason}"
            found.append(Attention("credential", f"{credential.provider} {credential.name}", text))
    found += [Attention("problem", text, text) for text in problems()]
    for name, seconds in sorted(engine.loops.paused().items()):
        found.append(Attention("loop", name, f"loop paused: {name}, {math.ceil(seconds / 60)} m more"))
    for key in keys:
        # What is held comes and goes with each run.
        if key.closest is not None and key.closest.used >= CLOSE * key.closest.most:
            limit = BY_NAME[key.closest.limit]
            most = money(key.closest.most) if limit.is_cost else f"{key.closest.most:,.0f} {limit.unit}"
            text = f"{key.name}: {key.closest.used / key.closest.most:.0%} of {most} {limit.label}"
            found.append(Attention("key_limit", f"{key.name} {limit.name}", text))
    since = service.clock.now() - ALERT_S
    for alert in service.recent_alerts():
        if alert["kind"] not in _SHOWN_AS_IT_IS and parse_iso(alert["at"]) >= since:
            found.append(Attention(alert["kind"], f"{alert['subject']} {alert['at']}", alert["message"]))
    return found


def _actions() -> list[TopAction]:
    try:
        rows, _ = service_of().audit.page(limit=MOST_ACTIONS)
    except BridgeError:
        return []  # the store that hosts share does not answer; that is what matters then
    names = TopAction.__struct_fields__
    return [TopAction(**{name: row[name] for name in names}) for row in reversed(rows)]


def _has(text: str, where: Iterable[str]) -> bool:
    return not text or any(text in each.lower() for each in where)
