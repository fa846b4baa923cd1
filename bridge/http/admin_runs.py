"""`/admin/runs`, `/admin/usage…` and `/admin/overview`: what goes on now, and what was used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import msgspec
from flask import request
from msgspec import UNSET, UnsetType

from bridge import __version__
from bridge.clock import iso
from bridge.engine.bill import preview
from bridge.engine.nodes import MOST_RUNS, Node, NodeState
from bridge.engine.run import Run
from bridge.errors import BridgeError
from bridge.http.context import audit, engine_of, number, service_of
from bridge.http.describe import Query, Routes
from bridge.http.me import FROM_TO, breakdown, capacity
from bridge.http.views import (
    AlertView,
    Breakdown,
    DailyUsage,
    Day,
    Done,
    LiveRun,
    NearestCap,
    Overview,
    ProviderView,
    RateLimitsView,
    Resets,
    Runs,
    TotalsView,
    UsageView,
    show_rate_limits,
)
from bridge.ledger.pricing import cost as cost_of
from bridge.ledger.report import BY
from bridge.limits import dollars
from bridge.providers.programs import ProgramBook
from bridge.registry import PROVIDERS
from bridge.service import Service

routes = Routes("Admin", who="admin")

#: Keys that are named one by one; what all others used is shown as one sum.
MOST_SERIES = 8
#: Keys in the list of those that are closest to a cap.
CLOSEST = 6

_DAYS = Query("days", "How many days.", {"type": "integer", "minimum": 1, "maximum": 400})


@routes.add("GET", "/admin/runs", errors=("draining",))
def list_runs() -> Runs:
    """What is queued or runs now, on all hosts, oldest first."""
    service = service_of()
    own = [live_run(service, run) for run in engine_of().runs.values()]
    return Runs(sorted([*own, *runs_elsewhere(service)], key=lambda run: run.id))


def live_run(service: Service, run: Run) -> LiveRun:
    """A run as the admin sees it while it lives."""
    price = service.prices.price_of(run.request.provider, run.request.model)
    reserved = service.credentials.find(run.reservation.credential or "")
    return LiveRun(
        id=run.id,
        key_name=run.key.name,
        provider=run.request.provider,
        model=run.request.model,
        api=run.request.api,
        state=run.state,
        stream=run.stream,
        queue_position=run.queue_position,
        age_ms=round(1000 * run.age_s),
        output_tokens_so_far=run.usage_so_far.output_tokens,
        started_at=iso(run.started_at),
        cost_usd_so_far=dollars(cost_of(price, run.usage_so_far)),
        reserved_usd=dollars(run.reservation.cost_micro),
        repairs=run.repairs,
        request_id=run.request.request_id,
        user_prompt=preview(run.request.messages, service.settings.log_prompts),
        credential=run.credential or (None if reserved is None else reserved.name),
    )


def runs_elsewhere(service: Service) -> Iterator[LiveRun]:
    """The runs of the other hosts, as each has told of them a second or two ago."""
    for state in states_elsewhere(service):
        for run in state.runs:
            try:
                yield msgspec.convert({**run, "node": state.name}, LiveRun)
            except msgspec.ValidationError:
                continue  # of another version of cli-bridge


def states_elsewhere(service: Service) -> list[NodeState]:
    """What the other hosts have told a second or two ago, by their names."""
    nodes = None if service.engine is None else service.engine.nodes
    return [] if nodes is None else [nodes.others[name] for name in sorted(nodes.others)]


def state_of_node(service: Service) -> NodeState | None:
    """What this host tells the others of itself; None where it does not run."""
    engine = service.engine
    if engine is None or service.cluster is None:
        return None
    runs = sorted(engine.runs.values(), key=lambda run: run.id)[:MOST_RUNS]
    return NodeState(
        name=service.cluster.node,
        version=__version__,
        slots=engine.admission.slots,
        running=engine.admission.running,
        queued=engine.admission.queued,
        draining=engine.draining,
        providers={status.name: status.available for status in engine.statuses()},
        runs=[msgspec.to_builtins(live_run(service, run)) for run in runs],
        loops=engine.loops.told(),
    )


def nodes(service: Service) -> list[Node] | UnsetType:
    """Each host of the cluster, this one first; unset where there is none."""
    own = state_of_node(service)
    if own is None:
        return UNSET
    names = Node.__struct_fields__
    states = (own, *states_elsewhere(service))
    return [Node(**{name: getattr(state, name) for name in names}) for state in states]


@routes.add("DELETE", "/admin/runs/<id>", errors=("not_found", "draining"))
def stop_run(id: str) -> Done:
    """Stop a run, on whatever host it is; it is charged what it has used."""
    service, engine = service_of(), engine_of()
    run = engine.stop(id, "admin")
    if run is not None:
        audit("run_stopped", id, before={"keyName": run.key.name})
        return Done(f"Run {id} is being stopped.")
    held = next((each for each in service.ledger.open_reservations() if each.id == id), None)
    if held is None or engine.nodes is None or held.owner == service.tallies.owner:
        raise BridgeError("not_found", "No such run is queued or running.")
    node = held.owner.rpartition(".")[0]
    engine.nodes.ask_to_stop(node, id, "admin")
    audit("run_stopped", id, before={"keyName": held.key_name, "node": node})
    return Done(f"Run {id} is being stopped.")


@routes.add("GET", "/admin/usage", query=(_DAYS,))
def usage() -> UsageView:
    """Requests, tokens and cost per day and key."""
    return UsageView(msgspec.convert(service_of().ledger.history(number("days", 30, 400)), list[Day]))


@routes.add("GET", "/admin/usage/daily", query=(_DAYS, Query("key", "Only this key.")))
def daily_usage() -> DailyUsage:
    """Usage per day as columns for a chart: the keys that cost most one by one, the rest as one."""
    days, key = number("days", 30, 400), request.args.get("key")
    return msgspec.convert(service_of().ledger.daily(days, MOST_SERIES, key), DailyUsage)


@routes.add(
    "GET",
    "/admin/usage/breakdown",
    query=(
        *FROM_TO,
        Query("by", "What the rows are.", {"enum": list(BY)}),
        *(Query(name, f"Only this {name}.") for name in BY),
    ),
)
def usage_breakdown() -> Breakdown:
    """Who spent what on what, dearest first."""
    only = {name: value for name in BY if (value := request.args.get(name))}
    return breakdown(tuple(BY), only)


@routes.add("GET", "/admin/overview", errors=("draining",))
def overview() -> Overview:
    """Totals, providers, queue, latency and warnings at one glance."""
    service, engine = service_of(), engine_of()
    others = states_elsewhere(service)
    return Overview(
        totals=service.ledger.totals(),
        forecast=msgspec.convert(service.ledger.forecast(), TotalsView | None),
        providers=_providers(),
        slots=engine.admission.slots + sum(each.slots for each in others),
        running=engine.admission.running + sum(each.running for each in others),
        queued=engine.admission.queued + sum(each.queued for each in others),
        draining=engine.draining,
        capacity=capacity(),
        keys=len(service.keys.list()),
        closest=_closest(),
        activity=service.statistics.view(),
        timezone=str(service.settings.zone),
        resets_at=Resets(**service.ledger.resets_at()),
        alerts=msgspec.convert(service.recent_alerts(), list[AlertView]),
        backup=service.backups.notes(),
        problems=problems(),
        nodes=nodes(service),
    )


def problems() -> list[str]:
    """What the operator should mend, as sentences."""
    service = service_of()
    traces = None if service.traces is None else service.traces.state
    found = (
        service.prices.problem,
        service.models.problem,
        service.credentials.problem,
        service.store_warning,
        traces,
        *service.why_not_reread(),
        *(status.drift for status in engine_of().statuses()),
        *_newer(),
        *_without_price(),
    )
    return list(filter(None, found))


def _newer() -> Iterator[str]:
    """What is out in newer versions than those that serve, the bridge and the CLIs, where that is asked for."""
    if not service_of().settings.update_check:
        return
    known = ProgramBook(service_of().settings.data_dir).read()
    if known.bridge is not None and known.bridge.news is not None:
        yield known.bridge.news
    for status in engine_of().statuses():
        found = known.newest.get(status.name)
        if found is not None and status.version is not None and _numbers(found.version) > _numbers(status.version):
            yield f"{status.name} {found.version} is out; {status.version} serves. cli-bridge clis upgrade installs it."


def _without_price() -> Iterator[str]:
    for name, models in service_of().models.without_price.items():
        shown = ", ".join(models[:5]) + (" …" if len(models) > 5 else "")
        yield f"{PROVIDERS[name].vendor} has new models without a price here, which count as the dearest: {shown}."


def _numbers(version: str) -> list[int]:
    return [int(number) for number in version.split(".") if number.isdigit()]


def _providers() -> list[ProviderView]:
    """Each provider, and how many runs and credentials it has."""
    book = service_of().credentials
    known = Counter(each.provider for each in book.list())
    open_ = Counter(each.provider for each in book.list() if book.state(each).open)
    runs = runs_by_state(service_of())
    return [
        ProviderView(
            **msgspec.structs.asdict(status),
            busy=runs[status.name, "running"],
            queued=runs[status.name, "queued"],
            credentials_open=open_[status.name],
            credentials_known=known[status.name],
            rate_limits=rate_limits(status.name),
        )
        for status in engine_of().statuses()
    ]


def runs_by_state(service: Service) -> Counter[tuple[str, str]]:
    """How many runs there are on all hosts, by provider and state."""
    own = () if service.engine is None else service.engine.runs.values()
    found = Counter((run.request.provider, run.state) for run in own)
    found.update((run.provider, run.state) for run in runs_elsewhere(service))
    return found


def rate_limits(provider: str) -> RateLimitsView | None:
    """What a provider last said of the limits of its account."""
    own = [each.id for each in service_of().credentials.list() if each.provider == provider]
    found = [limits for id, limits in engine_of().roster.rate_limits.items() if id in own]
    return max((show_rate_limits(each) for each in found), key=lambda shown: shown.at, default=None)


def _closest() -> list[NearestCap]:
    """The keys that have used most of one of their caps, the closest first."""
    service = service_of()
    now = service.clock.now()
    found = [
        NearestCap(name=key.name, status=key.status(now), **nearest)
        for key in service.keys.list()
        if (nearest := service.ledger.nearest_cap(key.name, key.limits)) is not None
    ]
    return sorted(found, key=lambda row: -row.share)[:CLOSEST]
