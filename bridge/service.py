"""The whole service, put together: what the server, the commands and the tests open and close."""

from __future__ import annotations

import contextlib
import logging
import pkgutil
import secrets
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import gevent
import msgspec

from bridge.clock import Clock
from bridge.engine.admission import Admission
from bridge.engine.engine import Engine
from bridge.engine.nodes import Nodes
from bridge.engine.roster import Roster
from bridge.engine.schema import SchemaChecker
from bridge.errors import BridgeError, SettingsError, StoreError
from bridge.gate.ticket import Call, Upstream
from bridge.keys.admin import AdminCredentials
from bridge.keys.credentials import Credential, CredentialBook
from bridge.keys.keys import KeyBook
from bridge.keys.link import LogInLink
from bridge.ledger.ledger import Ledger
from bridge.ledger.pricing import PriceTable
from bridge.ledger.tallies import FileTallies
from bridge.providers.demo import DemoProvider
from bridge.providers.models import ModelBook, Offers
from bridge.providers.pool import slots
from bridge.providers.provider import Provider
from bridge.records.audit import Audit
from bridge.records.jobs import JobBook, KeptJobs
from bridge.records.lately import Closest, Lately
from bridge.records.runlog import RunLog
from bridge.records.statistics import Statistics
from bridge.registry import PROVIDERS
from bridge.sandbox import host
from bridge.sandbox.scratch import Scratch
from bridge.settings import Settings
from bridge.store.archive import BackupNotes
from bridge.store.document import Document
from bridge.store.folder import CLUSTER_FILE, Store
from bridge.store.trace import TraceFolder
from bridge.types import RunRecord

if TYPE_CHECKING:
    from bridge.gate.server import Gate
    from bridge.ledger.replica import SharedTallies
    from bridge.store.redis import Cluster

#: Between two rounds of housekeeping, in seconds.
HOUSEKEEPING_S = 3600.0

#: Seconds after the start when the providers are asked for their models, between two questions, and the longest that
#: one may take to answer.
FIRST_LIST_S, LIST_EVERY_S, LIST_S = 120.0, 86400.0, 15.0

log = logging.getLogger("bridge")

MakeProviders = Callable[[Settings, Scratch, Clock, "Gate"], Mapping[str, Provider]]


class Service:
    """One data folder, opened: keys, ledger, logs, engine. Only one process can have it."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock | None = None,
        make_providers: MakeProviders | None = None,
        wait_s: float = 0.0,
    ) -> None:
        """Take the lock (waiting up to `wait_s` seconds for it) and read all state. Raises StoreError,
        among them StoreLocked. No CLI is started before `open`."""
        self.settings = settings
        self.clock = clock or Clock()
        folder = settings.data_dir
        self.store = Store.open(folder, wait_s=wait_s)
        #: the hosts that share keys, money and all else, where there are several
        self.cluster: Cluster | None = None
        try:
            self.prices = PriceTable(folder / "prices.json", self.clock)
            allowed = {name: own.models for name, own in settings.providers.items()}
            self.models = ModelBook(
                folder / "models.json",
                self.clock,
                self.prices.models,
                self.prices.stands_for,
                allowed,
                Offers(folder / "offers.json"),
            )
            self.backups = BackupNotes(Document(folder / "backup.json"), self.clock)
            state = open_state(settings, self.store, self.clock, self.prices)
            self.keys, self.credentials, self.admin = state.keys, state.credentials, state.admin
            self.jobs, self.audit, self.tallies = state.jobs, state.audit, state.tallies
            self.cluster, self.nodes = state.cluster, state.nodes
            sync = None if isinstance(self.tallies, FileTallies) else self.tallies.sync
            self.log = RunLog(self.tallies.journal, self.clock, settings.zone, sync)
            self.ledger = Ledger(self.tallies, self.clock, settings.zone, settings.default_limits, self.prices)
            self.ledger.recover()
            self.tallies.save()
        except BridgeError as error:
            self._give_back()
            raise StoreError(error.message, error.hint) from None
        except BaseException:
            self._give_back()
            raise
        self._store_warning: str | None = None
        #: what is said in each run, while the setting asks for it
        self.traces: TraceFolder | None = None
        #: opens the admin API for commands on this host; in the lock file, which only its owner can read
        self.local_token = secrets.token_urlsafe(32)
        self.link = LogInLink(self.clock)
        self._make_providers = make_providers or real_providers
        self.statistics = Statistics(self.clock)
        self.lately = Lately(self.clock)
        self.closest = Closest(self.keys, self.ledger, self.clock)
        #: called with each line of the request log, once it is written; must not block or raise
        self.observers: list[Callable[[RunRecord], None]] = [self.statistics.observe, self.lately.observe]
        #: those of them that hear of this host's runs alone, where others write to the same log
        self.observers_of_this_host: list[Callable[[RunRecord], None]] = []
        #: called when all runs have ended, before the files are closed
        self.closers: list[Callable[[], None]] = []
        #: the latest alerts, newest first (kind, subject, message, at); of the server, which watches
        self.recent_alerts: Callable[[], list[dict[str, Any]]] = list
        #: why the server's last reload changed nothing, as sentences; of the server
        self.why_not_reread: Callable[[], list[str]] = list
        # Imported here: its TLS must not be loaded before the server has made the process a gevent one.
        from bridge.gate.server import Gate
        from bridge.gate.upstream import Connections

        try:
            #: between the CLIs and their models
            self.gate: Gate = Gate(self.clock, Connections(settings.network))
        except SettingsError as error:
            self._give_back()
            raise StoreError(f"{error.problems[0]}.", "Correct the setting.") from None
        self.engine: Engine | None = None

    def _give_back(self) -> None:
        if self.cluster is not None:
            self.cluster.close()
        self.store.close()

    @property
    def has_credentials(self) -> bool:
        """Whether any provider has something to pay with."""
        return any(each.enabled for each in self.credentials.list())

    def open(self) -> Engine:
        """Start the engine and get the CLIs ready."""
        host.give_back_what_is_freed()
        scratch = Scratch(self.settings.data_dir, host.find_user(self.settings.cli_user))
        schemas = SchemaChecker(scratch)
        if self.settings.trace_dir is not None:
            self.traces = TraceFolder(self.settings.trace_dir, self.clock, self._secrets)
        self.gate.open()
        self.engine = Engine(
            self.settings,
            self.clock,
            providers=self._make_providers(self.settings, scratch, self.clock, self.gate),
            ledger=self.ledger,
            prices=self.prices,
            jobs=self.jobs,
            audit=self.audit,
            schemas=schemas,
            admission=Admission(slots(self.settings), self.settings.queue_limit, self.keys.several, self.clock),
            roster=Roster(self.credentials, self.ledger, self.clock, self.settings.routing),
            keys=self.keys,
            observers=self.observers,
            traces=self.traces,
            nodes=self.nodes,
            nearest=self.models.offers.nearest,
        )
        self._take_part(self.engine)
        self._scratch = scratch
        self.engine.open()
        self._housekeeper = gevent.spawn(self._keep_house)
        self._rememberer = gevent.spawn(self._remember)
        self._asker = gevent.spawn(self._ask_for_models)
        return self.engine

    def _take_part(self, engine: Engine) -> None:
        """In a cluster: hear of what the other hosts do, and tell them of this one."""
        if self.cluster is None or self.nodes is None or isinstance(self.tallies, FileTallies):
            return
        self.keys.on_change.append(engine.look_at_keys)
        self.tallies.on_line = partial(self._note_line, engine)
        self.nodes.start()
        self.cluster.on_beat.append(self.tallies.sweep)
        self.cluster.start()

    def _note_line(self, engine: Engine, line: RunRecord) -> None:
        """A run of another host has ended: it counts here, and its credential may be free."""
        for observe in self.observers:
            if observe not in self.observers_of_this_host:
                observe(line)
        engine.roster.changed()

    def _remember(self) -> None:
        """Count what the log has from before this start."""
        self.lately.fill(self.log)
        self.statistics.fill(self.log)

    @property
    def store_warning(self) -> str | None:
        """Why the store that hosts share cannot be used, or what it does not promise, as a sentence."""
        return (self.cluster and self.cluster.trouble) or self._store_warning

    def _secrets(self) -> tuple[str | None, ...]:
        """All that nobody should read, by now."""
        return (*self.settings.secrets, *self.credentials.secrets)

    def _keep_house(self) -> None:
        """Once at the start and then every hour: remove logs and answers that are past their time, and end traces."""
        while True:
            if self.traces is not None:
                self.traces.look_at_bounds()
            self._look_at_store()
            try:
                self.log.prune(self.settings.log_retention_days, self.tallies.oldest_file)
                self.jobs.prune()
            except OSError as error:
                log.warning("old files could not be removed: %s", error.strerror)
            gevent.sleep(HOUSEKEEPING_S)

    def _look_at_store(self) -> None:
        if self.cluster is not None:
            from bridge.store.redis import persistence_of

            with contextlib.suppress(BridgeError):
                self._store_warning = persistence_of(self.cluster).warning

    def list_models(self, credential: Credential) -> tuple[Call, dict[str, float] | None]:
        """Ask the provider of a credential for its models, which costs nothing: what came of it, and each model with
        when it was made; None where there is no list."""
        row = PROVIDERS[credential.provider]
        upstream = Upstream(row.wire, self.credentials.endpoint(credential), credential.secret)
        return self.gate.list_models(upstream, row.models_path, LIST_S)

    def _ask_for_models(self) -> None:
        """Once a day: what the providers list."""
        gevent.sleep(FIRST_LIST_S)
        while True:
            for name, provider in self.engine.providers.items() if self.engine is not None else ():
                due = self.clock.now() - self.models.offers.asked_at(name) >= LIST_EVERY_S
                if due and provider.needs_credential:
                    self._ask(name)
            gevent.sleep(HOUSEKEEPING_S)

    def _ask(self, provider: str) -> None:
        """What a provider lists with all of its credentials together; nothing where one of them gets no list."""
        found: dict[str, float] = {}
        own = [each for each in self.credentials.list() if each.provider == provider and each.enabled and each.secret]
        for each in own:
            call, models = self.list_models(each)
            if models is None:
                log.info("%s did not list its models: %s", provider, call.error_message or call.status)
                return
            found |= models
        if own:
            try:
                self.models.offers.note(provider, self.clock.now(), found)
            except BridgeError as error:
                log.warning("what %s lists could not be written: %s", provider, error.message)

    def close(self, drain_s: float = 0.0) -> None:
        """Stop the engine (runs get `drain_s` seconds to end) and give the data folder back."""
        if self.engine is not None:
            self._housekeeper.kill()
            self._rememberer.kill()
            self._asker.kill()
            self.engine.close(drain_s)
            if self.nodes is not None:
                self.nodes.close()
            self.gate.close()
            self._scratch.clear()
        for close in self.closers:
            close()
        self.ledger.close()
        self.audit.close()
        self.store.close()


class ServiceState(msgspec.Struct):
    """What is known of keys, money, credentials, jobs and changes; of one host, or of all that share it."""

    keys: KeyBook
    credentials: CredentialBook
    admin: AdminCredentials
    jobs: KeptJobs
    audit: Audit
    tallies: FileTallies | SharedTallies
    cluster: Cluster | None = None
    nodes: Nodes | None = None


def open_state(settings: Settings, store: Store, clock: Clock, prices: PriceTable) -> ServiceState:
    """The state behind a data folder: its files, or what several hosts share in the server of BRIDGE_STORE_URL.
    Raises StoreError and BridgeError."""
    folder = store.folder
    if settings.store_url is not None:
        return _shared_state(settings, store, clock, prices)
    if (folder / CLUSTER_FILE).exists():
        raise StoreError(
            "This data folder belongs to a cluster, and BRIDGE_STORE_URL is not set.",
            "Set it; or go on without the cluster with the folder that 'cli-bridge cluster export' makes.",
        )
    return ServiceState(
        keys=KeyBook(Document(folder / "keys.json"), clock),
        credentials=credential_book(settings, clock),
        admin=AdminCredentials(Document(folder / "admin.json"), settings.admin_key),
        jobs=JobBook(folder / "jobs", clock),
        audit=Audit(folder / "audit.jsonl", clock),
        tallies=FileTallies(store, clock, settings.zone),
    )


def _shared_state(settings: Settings, store: Store, clock: Clock, prices: PriceTable) -> ServiceState:
    # Imported here: without BRIDGE_STORE_URL nothing of it is needed.
    from bridge.ledger.replica import SharedTallies, open_cluster
    from bridge.records.audit import SharedAudit
    from bridge.records.jobs import SharedJobBook
    from bridge.store.shared import SharedDocument, refresh

    folder = store.folder
    cluster = open_cluster(settings, store, clock, prices)
    try:
        keys, admin = (SharedDocument(cluster, folder / name) for name in ("keys.json", "admin.json"))
        secrets, states = (
            SharedDocument(cluster, folder / name, keeps_previous=False)
            for name in ("credentials.json", "credential-states.json")
        )
        documents = (keys, admin, secrets, states)
        cluster.on_change = partial(refresh, cluster, documents)
        book = CredentialBook(secrets, states, clock, settings.providers)
        tallies = SharedTallies(cluster, store, clock, settings.zone)
        tallies.bounded = book.is_bounded
        return ServiceState(
            keys=KeyBook(keys, clock),
            credentials=book,
            admin=AdminCredentials(admin, settings.admin_key),
            jobs=SharedJobBook(cluster),
            audit=SharedAudit(cluster, folder / "audit.jsonl", clock),
            tallies=tallies,
            cluster=cluster,
            nodes=Nodes(cluster, cluster.on_change),
        )
    except BaseException:
        cluster.close()
        raise


def credential_book(settings: Settings, clock: Clock) -> CredentialBook:
    """The credentials of a data folder and of the settings. Raises StoreError."""
    # What was removed must be gone: neither file keeps a previous version.
    secrets, states = (
        Document(settings.data_dir / name, keeps_previous=False)
        for name in ("credentials.json", "credential-states.json")
    )
    return CredentialBook(secrets, states, clock, settings.providers)


def real_providers(settings: Settings, scratch: Scratch, clock: Clock, gate: Gate) -> Mapping[str, Provider]:
    """The CLIs of the registry; their modules are imported here."""
    parts = (settings, scratch, clock, gate)
    return {name: pkgutil.resolve_name(row.run_by)(row, *parts) for name, row in PROVIDERS.items()}


def demo_providers(settings: Settings, scratch: Scratch, clock: Clock, gate: Gate) -> Mapping[str, Provider]:
    """Simulated CLIs in the place of all, for `cli-bridge demo`."""
    return {name: DemoProvider(row, settings, scratch, clock, gate) for name, row in PROVIDERS.items()}


def announcement(service: Service, address: str) -> dict[str, Any]:
    """What the lock file says of a running server, for commands on this host."""
    return {"address": address, "token": service.local_token}
