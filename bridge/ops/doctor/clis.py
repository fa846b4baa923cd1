"""The CLIs: found, of a tested version, with which credentials; and one real request if asked for."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import gevent
import gevent.queue

from bridge import __version__
from bridge.clock import Clock, iso
from bridge.errors import BridgeError, StoreError
from bridge.gate.server import Gate
from bridge.gate.ticket import OneWay, Upstream
from bridge.gate.upstream import Connections
from bridge.ledger.pricing import PriceTable, cost
from bridge.limits import dollars, money
from bridge.ops import origin
from bridge.ops.admin_client import admin_client
from bridge.ops.doctor import Finding, fail, ok, warn
from bridge.providers.machine_files import machine_files
from bridge.providers.programs import BridgeNews, ProgramBook
from bridge.providers.provider import Provider, ProviderStatus
from bridge.registry import PROVIDERS
from bridge.sandbox.scratch import Scratch
from bridge.service import credential_book, real_providers
from bridge.settings import Settings
from bridge.store.folder import Store
from bridge.types import Completed, Event, Failed, GenerationRequest, Message, Text

#: Longest that the one real request may take, in seconds.
PROBE_S = 120.0
PROBE_OUTPUT_TOKENS = 64
_PROMPT = "Answer with the word OK."


def check(settings: Settings, *, probe: bool) -> Iterator[Finding]:
    """Each CLI. `probe` sends a tiny request, which costs a little."""
    # A scratch folder of its own: a running server uses its own.
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Scratch(Path(temporary))
        # A check needs no process in reserve.
        lean = dataclasses.replace(settings, warm_processes=0)
        gate = Gate(Clock(), Connections(settings.network))
        try:
            gate.open()
            usable = set()
            for provider in real_providers(lean, scratch, Clock(), gate).values():
                status = provider.check()
                if status.available:
                    usable.add(provider.name)
                yield from _status(status, settings)
                if probe and status.available:
                    yield _probe(provider, settings)
            if not usable:
                yield fail("CLIs", "neither can be used", "Install one (deploy/clis/README.md) and set its API key.")
            for found in machine_files():
                todo = "Remove it, or run the bridge in a container or on another machine: docs/security.md."
                yield warn(f"{found.provider} on this machine", found.does, todo)
            news = ProgramBook(settings.data_dir).read().bridge if settings.update_check else None
            yield _own(settings, news)
            yield from _in_the_server(settings, usable, None if news is None else news.news)
        finally:
            gate.close()
            scratch.clear()


def _status(status: ProviderStatus, settings: Settings) -> Iterator[Finding]:
    name = status.name
    if not status.available:
        said = f" It printed: {status.said}" if status.said else ""
        yield warn(name, (status.problem or "not available") + said, status.hint or "")
        return
    version, tested = status.version or "", PROVIDERS[name].tested
    if version == tested:
        yield ok(name, f"version {version}, the tested one")
    else:
        yield warn(name, f"version {version}; tested was {tested}", "Watch it, or install the one of deploy/clis.")
    yield from _credentials(name, settings)


def _credentials(name: str, settings: Settings) -> Iterator[Finding]:
    """The credentials of a provider."""
    row, own = PROVIDERS[name], settings.providers[name]
    if own.credentials == "login":
        yield warn(
            f"{name} credentials",
            "the CLI's own log-in",
            "Consumer terms do not allow one subscription for several people; for a team, use an API key.",
        )
        return
    try:
        book = credential_book(settings, Clock())
    except StoreError:
        return  # the check of the files has said it
    found = [each for each in book.list() if each.provider == name]
    usual = own.base_url == (row.url or None)
    for each in found:
        what, state = f"{name} credential {each.name}", book.state(each)
        at_home = each.base_url is None and usual
        if state.name in ("blocked", "benched"):
            again = "" if state.until is None else f"; it is tried again at {iso(state.until)}"
            yield warn(what, f"{state.name}: {state.reason}{again}", f"cli-bridge credentials test {each.name}")
        elif at_home and not each.secret.startswith(row.key_prefix):
            yield warn(what, f"an API key that does not begin with {row.key_prefix}", "Is it the right one?")
        else:
            yield ok(what, f"an API key, {state.name}" + ("" if at_home else ", for an endpoint of your own"))
    if not any(each.enabled for each in found):
        todo = f"cli-bridge credentials add NAME --provider {name}, or set {row.key_variable}."
        yield warn(f"{name} credentials", "there is none, so its requests get no_credentials", todo)
    if len(found) > 1 and not any(each.group for each in found):
        todo = "Where several are of one organization, say so: cli-bridge credentials set NAME --group ORGANIZATION"
        yield warn(f"{name} credentials", "none has a group; those of one organization share its rate limits", todo)


def _own(settings: Settings, news: BridgeNews | None) -> Finding:
    """Whether a newer bridge is out."""
    if news is not None and news.news is not None:
        return warn("bridge", news.news, "Read CHANGELOG.md first.")
    return ok("bridge", f"version {__version__}. {origin.sentence(settings, news)}")


def _in_the_server(settings: Settings, usable: Collection[str], known: str | None) -> Iterator[Finding]:
    """What a running server says of those that this command could use: its users and bounds are others. `known`: one of
    its problems that was told already."""
    try:
        if Store.holder(settings.data_dir) is None:
            return
        with admin_client(settings) as client:
            overview = client.call("GET", "/admin/overview")
            credentials = client.call("GET", "/admin/credentials")["credentials"]
    except (BridgeError, StoreError, OSError):
        yield warn("server", "it does not answer", "Look at its own output: journalctl -u cli-bridge")
        return
    for problem in filter(lambda each: each != known, overview["problems"]):
        yield warn("server", problem, "Correct it, then: systemctl reload cli-bridge, or restart, if it says so")
    for each in overview["providers"]:
        what = f"{each['name']} in the server"
        states = [own["state"] for own in credentials if own["provider"] == each["name"]]
        if not each["available"] and not {"usable", "probing"} & set(states):
            yield warn(what, each["problem"] or "not available", "cli-bridge credentials list says why.")
        elif each["name"] in usable and not each["available"]:
            # One that is new here only has to pass its check.
            todo = f"{each['hint'] or ''} It works for this command: if nothing else helps, restart the server.".strip()
            said = f" It printed: {each['said']}" if each["said"] else ""
            yield fail(what, (each["problem"] or "not available") + said, todo)
        elif each["available"]:
            yield from _unknown(what, each["unknown"])
            yield ok(what, f"available, {each['warm']} kept ready")


def _unknown(what: str, counts: Mapping[str, int]) -> Iterator[Finding]:
    """What a CLI said that the bridge does not know. Its warnings alone are no reason to look."""
    said = ", ".join(f"{name} ({count})" for name, count in counts.items())
    if any(not name.lower().endswith("warning") for name in counts):
        todo = "Runs go on. Where they fail: cli-bridge clis check, and report it."
        yield warn(what, f"it said what the bridge does not know: {said}", todo)
    elif counts:
        yield ok(what, f"it warned: {said}")


def _probe(provider: Provider, settings: Settings) -> Finding:
    """One real request, outside the ledger: no key is charged for it."""
    name = f"{provider.name} probe"
    request = GenerationRequest(
        provider.name,
        provider.default_model,
        (Message("user", (Text(_PROMPT),)),),
        max_output_tokens=PROBE_OUTPUT_TOKENS,
        timeout_s=PROBE_S,
    )
    events: gevent.queue.Queue[Event] = gevent.queue.Queue()
    began = Clock().monotonic()
    provider.open()
    try:
        conversation = provider.start(request, events.put, "doctor", None, _way(provider.name, settings))
        try:
            end = _end(events)
        finally:
            conversation.cancel()
    except BridgeError as error:
        return fail(name, error.message, error.hint)
    except gevent.Timeout:
        return fail(name, f"no answer within {PROBE_S:g} seconds", "Look at the network, and at the provider's status.")
    finally:
        provider.close()
    took = f"{Clock().monotonic() - began:.1f} s"
    if isinstance(end, Failed):
        return fail(name, end.problem.message, end.problem.hint)
    paid = "cost unknown"
    if end.answer.usage is not None:
        price = PriceTable(settings.data_dir / "prices.json", Clock()).price_of(provider.name, provider.default_model)
        paid = f"cost {money(dollars(cost(price, end.answer.usage)))}"
    return ok(name, f"{provider.default_model} answered in {took}, {paid}")


def _way(name: str, settings: Settings) -> OneWay | None:
    """The way of the one request, with the first credential that may be used; None where there is none."""
    book = credential_book(settings, Clock())
    usable = (each for each in book.list() if each.provider == name and each.secret and book.state(each).open)
    found = next(usable, None)
    return None if found is None else OneWay(Upstream(PROVIDERS[name].wire, book.endpoint(found), found.secret))


def _end(events: gevent.queue.Queue[Event]) -> Completed | Failed:
    """The last event. Raises gevent.Timeout."""
    with gevent.Timeout(PROBE_S):
        while True:
            event = events.get()
            if isinstance(event, Completed | Failed):
                return event
