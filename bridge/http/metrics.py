"""`GET /metrics`: what happens in the bridge, in the text format of Prometheus.

Counters and histograms are fed as runs end; gauges are read when somebody asks. No label takes a value from
a client: key names, models and paths are in the log, which is the place for them.
"""

from __future__ import annotations

import ipaddress
import shutil
from collections import Counter as Counts
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from flask import Response, g, has_request_context, request
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from bridge import __version__
from bridge.clock import parse_iso
from bridge.engine.engine import Engine
from bridge.engine.nodes import Nodes
from bridge.errors import CODES, BridgeError
from bridge.http.context import edge, is_admin, require_admin, service_of
from bridge.http.describe import Routes
from bridge.limits import WINDOWS
from bridge.registry import PROVIDERS
from bridge.sandbox.host import descendants, resident_bytes
from bridge.service import Service
from bridge.types import RunRecord

routes = Routes("Admin", who="admin")

PREFIX = "cli_bridge"
#: Most different values of a label that is not a fixed list; further ones become `other`.
MOST_VALUES = 16
#: Bounds of the histograms, in seconds.
FIRST_TOKEN_S = (0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20, 40, 90)
DURATION_S = (0.5, 1, 2, 3, 5, 10, 20, 30, 60, 90, 120, 180, 300, 600)
OVERHEAD_S = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 2, 5, 10)
QUEUED_S = (0.01, 0.1, 0.5, 1, 2, 5, 10, 20, 30, 60)
COMMIT_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1)
#: What a proxy or a tunnel adds to a request that it passes on.
_PROXY_HEADERS = ("CF-Ray", "CF-Connecting-IP", "Forwarded", "X-Forwarded-For", "X-Real-IP", "Via", "Cdn-Loop")

disable_created_metrics()  # type: ignore[no-untyped-call]


@routes.add("GET", "/metrics", guarded=False, media={"text/plain": "Metrics."})
def metrics() -> Response:
    """All metrics, for the admin key; or without one from this host, where BRIDGE_METRICS says so."""
    setting = service_of().settings.metrics
    if setting == "off":
        raise BridgeError("not_found", "Metrics are switched off on this bridge.")
    if setting == "loopback" and _from_this_host():
        g.names_credentials = is_admin()
    else:
        require_admin()
        g.names_credentials = True
    return Response(generate_latest(edge().metrics), content_type=CONTENT_TYPE_LATEST)


def _from_this_host() -> bool:
    """Whether a request comes from this host itself, and not through a tunnel or proxy on it.

    Behind a tunnel every peer is 127.0.0.1, so that alone says nothing: the name that was asked for must be
    this host's too, and nothing on the way may have left its mark.
    """
    name = request.host.rsplit(":", 1)[0].strip("[]")
    return (
        _is_loopback(request.environ.get("REMOTE_ADDR") or "")
        and (name == "localhost" or _is_loopback(name))
        and not any(header in request.headers for header in _PROXY_HEADERS)
    )


def _is_loopback(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_loopback
    except ValueError:
        return False


class Metrics:
    """The counters of one service, in a registry of its own."""

    def __init__(self, service: Service) -> None:
        """Counts what happens in `service` from now on, but for `responses`."""
        self.registry = CollectorRegistry()
        self._apis: set[str] = set()
        made: dict[str, Any] = {"registry": self.registry, "namespace": PREFIX}
        self.responses = Counter("http_responses", "HTTP answers of any kind, by status.", ["status"], **made)
        self.requests = Counter(
            "requests",
            "Requests to generate, by how they ended; those that were refused are among them.",
            ["provider", "api", "status", "code"],
            **made,
        )
        self.tokens = Counter("tokens", "Tokens charged. Reasoning is a part of output.", ["provider", "kind"], **made)
        self.cost = Counter(
            "cost_usd", "Dollars charged. Assumed: the CLI did not say what it used.", ["provider", "assumed"], **made
        )
        self.first_token = Histogram(
            "first_token_seconds",
            "From admission to the first piece of the answer.",
            ["provider"],
            buckets=FIRST_TOKEN_S,
            **made,
        )
        self.duration = Histogram(
            "duration_seconds",
            "From admission to the end of a run, whatever the end.",
            ["provider"],
            buckets=DURATION_S,
            **made,
        )
        # The one name without the prefix: dashboards know it so.
        self.overhead = Histogram(
            "bridge_overhead_seconds",
            "What CLI and bridge add to the model's time, the wait for a slot aside.",
            ["provider"],
            buckets=OVERHEAD_S,
            registry=self.registry,
        )
        self.queued = Histogram(
            "queued_seconds", "How long runs waited for a slot.", ["provider"], buckets=QUEUED_S, **made
        )
        self.cold = Counter(
            "cold_starts", "Runs that found no process ready and had to wait for one.", ["provider"], **made
        )
        self.repairs = Counter(
            "schema_repairs", "Further attempts after an answer that missed its schema.", ["provider"], **made
        )
        self.commit_seconds = Histogram(
            "ledger_commit_seconds", "Writing to the ledger's journal, disk included.", buckets=COMMIT_S, **made
        )
        self.registry.register(_Now(service))
        service.observers.append(self.observe)
        service.tallies.journal.on_commit = self.commit_seconds.observe

    def observe(self, record: RunRecord) -> None:
        """Count one line of the request log."""
        provider = record.provider if record.provider in PROVIDERS else "other"
        code = "ok" if record.code is None else record.code if record.code in CODES else "other"
        self.requests.labels(provider, self._api(record.api), str(record.status), code).inc()
        for name, count in msgspec.structs.asdict(record.usage).items():
            self.tokens.labels(provider, name.removesuffix("_tokens")).inc(count)
        self.cost.labels(provider, "true" if record.assumed else "false").inc(record.cost_usd)
        if not record.reserved_usd and not record.duration_ms:
            return  # refused: it never was a run
        self.duration.labels(provider).observe(record.duration_ms / 1000)
        self.queued.labels(provider).observe(record.queued_ms / 1000)
        if record.first_token_ms is not None:
            self.first_token.labels(provider).observe(record.first_token_ms / 1000)
        if record.overhead_ms is not None:
            self.overhead.labels(provider).observe(record.overhead_ms / 1000)
        if record.repairs:
            self.repairs.labels(provider).inc(record.repairs)
        if record.warm is False:
            self.cold.labels(provider).inc()

    def _api(self, name: str) -> str:
        if name not in self._apis and len(self._apis) >= MOST_VALUES:
            return "other"
        self._apis.add(name)
        return name


class _Now(Collector):
    """What is read at the moment of asking. Never raises: a scrape must show the rest all the same."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def describe(self) -> list[Metric]:
        """Nothing ahead of time: there may be no engine yet."""
        return []

    def collect(self) -> Iterator[Metric]:
        service = self._service
        yield InfoMetricFamily(f"{PREFIX}_build", "Version of the bridge.", {"version": __version__})
        yield from self._ledger()
        gate = service.gate
        yield _counter("gate_refused", "Requests of CLIs that the gate turned away.", "reason", gate.refused)
        text = "Calls of which a CLI told other figures than its provider."
        yield _counter("gate_misreported", text, "provider", gate.misreported)
        if service.engine is not None:
            yield from _engine(service.engine)
        yield from self._credentials()
        if service.nodes is not None:
            yield from self._nodes(service.nodes)
        keys = service.keys.list()
        by_status = dict.fromkeys(("active", "disabled", "expired"), 0)
        for key in keys:
            by_status[key.status(service.clock.now())] += 1
        yield _gauge("keys", "Keys that are not revoked.", ["status"], by_status)
        children = list(descendants())
        yield _gauge("processes", "Processes below the bridge.", [], {"": len(children)})
        yield _gauge(
            "memory_bytes",
            "Resident memory of the bridge, and of all processes below it; shared pages count for each.",
            ["of"],
            {"bridge": resident_bytes(), "children": sum(map(resident_bytes, children))},
        )
        free = shutil.disk_usage(service.settings.data_dir).free
        last = service.backups.notes()["lastGoodAt"]
        at = {} if last is None else {"": parse_iso(last)}
        yield _gauge(
            "last_backup_timestamp_seconds", "When the last good backup was made; none yet: no sample.", [], at
        )
        yield _gauge("disk_free_bytes", "Free space where the data folder is.", [], {"": free})

    def _credentials(self) -> Iterator[Metric]:
        """How the credentials are; by their names for the admin only."""
        service, states = self._service, Counts[tuple[str, str]]()
        running = GaugeMetricFamily(
            f"{PREFIX}_credential_running", "Runs that use a credential.", labels=["provider", "credential"]
        )
        up = GaugeMetricFamily(
            f"{PREFIX}_credential_usable", "1 where a credential may be used now.", labels=["provider", "credential"]
        )
        spent = GaugeMetricFamily(
            f"{PREFIX}_credential_spent_usd",
            "Dollars charged with a credential in the running day and month.",
            labels=["provider", "credential", "window"],
        )
        purses, named = service.ledger.purses(), has_request_context() and g.get("names_credentials", False)
        for each in service.credentials.list():
            state, own = service.credentials.state(each), [each.provider, each.name]
            states[each.provider, state.name] += 1
            if not named:
                continue
            usage = service.ledger.credential_usage(each.id)
            running.add_metric(own, purses(each.id, each.limits).running)
            up.add_metric(own, int(state.open))
            for window in WINDOWS:
                spent.add_metric([*own, window.name], usage[window.field]["costUsd"])
        found = GaugeMetricFamily(f"{PREFIX}_credentials", "Credentials by state.", labels=["provider", "state"])
        for labels, count in states.items():
            found.add_metric(list(labels), count)
        yield from (found, running, up, spent)

    def _nodes(self, nodes: Nodes) -> Iterator[Metric]:
        """The other hosts, as each has told of itself; by their names for the admin only."""
        others = nodes.others.values()
        yield _gauge("nodes", "Hosts of the cluster that are there.", [], {"": 1 + len(others)})
        if not (has_request_context() and g.get("names_credentials", False)):
            return
        yield _gauge("node_slots", "Slots of another host.", ["node"], {each.name: each.slots for each in others})
        busy = {each.name: each.running for each in others}
        yield _gauge("node_slots_busy", "Slots of another host that a run has.", ["node"], busy)
        queued = {each.name: each.queued for each in others}
        yield _gauge("node_queue_length", "Runs that wait for a slot of another host.", ["node"], queued)

    def _ledger(self) -> Iterator[Metric]:
        ledger = self._service.ledger
        totals = ledger.totals()
        reserved = totals["reserved"]
        spent = {window.name: totals[window.field]["costUsd"] for window in WINDOWS}
        yield _gauge("spent_usd", "Dollars charged in the running day and month.", ["window"], spent)
        yield _gauge("reserved_usd", "Dollars held by running requests.", [], {"": reserved["costUsd"]})
        yield _gauge("reserved_tokens", "Tokens held by running requests.", [], {"": reserved["tokens"]})
        yield _gauge("ledger_open", "1 while the ledger can be written.", [], {"": int(ledger.open_for_business)})
        yield _gauge(
            "ledger_journal_bytes",
            "Bytes written since the last snapshot of the ledger.",
            [],
            {"": self._service.tallies.journal.bytes},
        )


def _engine(engine: Engine) -> Iterator[Metric]:
    admission, statuses = engine.admission, engine.statuses()
    running = [run.request.provider for run in engine.runs.values() if run.state == "running"]
    yield _gauge("slots", "Runs that may go at once.", [], {"": admission.slots})
    yield _gauge("slots_busy", "Slots that a run has.", [], {"": admission.running})
    yield _gauge("queue_length", "Runs that wait for a slot.", [], {"": admission.queued})
    yield _gauge("draining", "1 while the bridge stops and takes nothing on.", [], {"": int(engine.draining)})
    up = {status.name: int(status.available) for status in statuses}
    yield _gauge("provider_up", "1 where the CLI is there and has credentials.", ["provider"], up)
    info = InfoMetricFamily(f"{PREFIX}_provider", "What is known of a CLI.", labels=["provider"])
    pool = GaugeMetricFamily(
        f"{PREFIX}_pool_processes",
        "CLI processes: warm ones stand ready, busy ones have a run.",
        labels=["provider", "state"],
    )
    unknown = CounterMetricFamily(
        f"{PREFIX}_cli_unknown",
        "Messages, fields and warnings of CLIs that the bridge does not know.",
        labels=["provider"],
    )
    failures = Metric(f"{PREFIX}_pool_boot_failures", "CLI processes that ended before they were used.", "counter")
    for status in statuses:
        info.add_metric([status.name], {"version": status.version or "", "credentials": status.credentials})
        pool.add_metric([status.name, "warm"], status.warm)
        pool.add_metric([status.name, "busy"], running.count(status.name))
        unknown.add_metric([status.name], sum(status.unknown.values()))
        failures.add_sample(f"{failures.name}_total", {"provider": status.name}, status.boot_failures)
    yield from (info, pool, unknown, failures)


def _counter(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    """A counter with one label; `values` by the label's value."""
    family = CounterMetricFamily(f"{PREFIX}_{name}", text, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family


def _gauge(name: str, text: str, labels: list[str], values: Mapping[str, float]) -> Metric:
    """A gauge with one label, or none; `values` by the label's value."""
    family = GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=labels)
    for value, number in values.items():
        family.add_metric([value] if labels else [], number)
    return family
