"""`cli-bridge clis upgrade`: another version of a CLI, installed beside, checked, and watched in its first runs.

What serves is chosen in clis.json. The command on this host writes the choice, and the service heeds it within seconds;
the service takes it back where the first runs go worse than those before.
"""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import re
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gevent
import gevent.event
import msgspec

from bridge import __version__
from bridge.clock import Clock, iso, parse_iso
from bridge.engine.run import SILENT
from bridge.errors import BridgeError, StoreError
from bridge.ops import conformance, origin
from bridge.ops.admin_client import admin_client
from bridge.ops.doctor import FAIL, Finding, fail, ok, warn
from bridge.providers.programs import ChosenProgram, Newest, Outcome, ProgramBook, ProgramCheck, digest_of, stamp_of
from bridge.registry import PROVIDERS, ProviderRow
from bridge.sandbox.child import ChildError, capture, program
from bridge.service import Service
from bridge.settings import Settings
from bridge.store.folder import Store
from bridge.types import RunRecord

#: Where programs are installed, below the data folder.
FOLDER = "clis"
#: Room that an install needs, in bytes: what is downloaded, and what that becomes.
NEEDED_BYTES = 2**30
#: Longest that npm may take to answer a question, and to install, in seconds.
ASK_S, INSTALL_S = 60.0, 900.0
#: Longest that the running service may take to serve with another program, in seconds.
SWAP_S = 90.0
#: Runs of a new version that are watched, and runs before it that they are compared with.
WATCHED, COMPARED = 50, 200
#: Failures, among so many runs, that are assumed besides those that were seen: a few runs say little.
ASSUMED_FAILED, ASSUMED_RUNS = 1, 50
#: A version is taken back where so many runs failed, and so many or more would fail by chance this seldom.
LEAST_FAILED, SELDOM = 3, 0.001
#: What a run ends with that its CLI has failed.
FAILURES = ("cli_failed", "cli_bad_output", "cli_unavailable", "timeout")
#: Seconds between two questions for the newest versions.
UPDATE_CHECK_S = 86400.0

_VERSION = re.compile(r"\d+\.\d+\.\d+")
_UNREACHABLE = re.compile(r"\b(ECONNREFUSED|ECONNRESET|EAI_AGAIN|ENETUNREACH|ENOTFOUND|ETIMEDOUT)\b")
_LARGEST = 2**40

log = logging.getLogger("bridge")


class NotInstalled(Exception):
    """A version could not be installed, or not be asked for: a sentence, and what to do."""

    def __init__(self, problem: str, todo: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.todo = todo


# --- npm --------------------------------------------------------------------------------------------


def newest(row: ProviderRow, settings: Settings) -> str:
    """The newest version that the registry has. Raises NotInstalled."""
    with tempfile.TemporaryDirectory() as folder:
        said = _npm(["view", row.package, "version"], Path(folder), settings, ASK_S).strip()
    if not _VERSION.fullmatch(said):
        raise NotInstalled(f"npm named no version of {row.package}.", "Name one: --to VERSION")
    return said


def install(row: ProviderRow, version: str, settings: Settings) -> str:
    """Install a version below the data folder, with a lock whose sums npm has checked; the path of its program.

    Nothing of the packages is run. Raises NotInstalled.
    """
    folder = settings.data_dir / FOLDER
    target = folder / f"{row.name}-{version}"
    inside = row.programs.get((platform.system(), platform.machine()))
    if inside is None:
        raise NotInstalled(f"There is no {row.name} CLI for this machine.", "See deploy/clis/README.md.")
    path = target / "node_modules" / inside
    if os.access(path, os.X_OK):
        return str(path)
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if shutil.disk_usage(folder).free < NEEDED_BYTES:
            problem = f"There is no room for it: {NEEDED_BYTES // 2**20} MiB are needed beside the data."
            raise NotInstalled(problem, "Make room on the disk of the data folder.")
        with tempfile.TemporaryDirectory(dir=folder, prefix=f".{row.name}-") as temporary:
            beside = Path(temporary) / "new"
            beside.mkdir()
            wanted = {"private": True, "dependencies": {row.package: version}}
            (beside / "package.json").write_text(json.dumps(wanted))
            options = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
            _npm(["install", "--package-lock-only", *options], beside, settings, ASK_S)
            _look_at_lock(beside, row, version)
            _npm(["ci", *options], beside, settings, INSTALL_S)
            if not os.access(beside / "node_modules" / inside, os.X_OK):
                raise NotInstalled(f"{row.package} {version} brought no program for this machine.", "Name another one.")
            shutil.rmtree(target, ignore_errors=True)
            beside.rename(target)
    except OSError as error:
        problem = f"It cannot be installed below the data folder ({error.strerror})."
        raise NotInstalled(problem, "Look at the disk, and at who owns the folder.") from None
    return str(path)


def _look_at_lock(folder: Path, row: ProviderRow, version: str) -> None:
    """Whether the lock names the version, and a sum for each package. Raises NotInstalled."""
    packages = json.loads((folder / "package-lock.json").read_text())["packages"]
    found = {name.removeprefix("node_modules/"): each for name, each in packages.items() if name}
    summed = all(str(each.get("integrity", "")).startswith("sha512-") for each in found.values())
    if found.get(row.package, {}).get("version") != version or not summed:
        problem = f"The registry has no sums for {row.package} {version}."
        raise NotInstalled(problem, "Look at the registry that npm is set to.")


def _npm(arguments: list[str], folder: Path, settings: Settings, timeout_s: float) -> str:
    """What npm prints. Raises NotInstalled."""
    npm = program("npm")
    if npm is None:
        todo = "Install it: apt-get install npm. The container builds other versions in: deploy/docker/README.md."
        raise NotInstalled("npm is not installed.", todo)
    with tempfile.TemporaryDirectory() as cache:
        env = {name: value for name, value in os.environ.items() if name.lower().startswith("npm_config_")}
        env |= {"PATH": os.environ.get("PATH", os.defpath), "HOME": os.environ.get("HOME", cache), **settings.network}
        if settings.certificates:
            env["NODE_EXTRA_CA_CERTS"] = settings.certificates
        env |= {"npm_config_cache": cache, "npm_config_update_notifier": "false"}
        # Where there is no network, that is to be known within seconds.
        env = {"npm_config_fetch_retries": "1", "npm_config_fetch_retry_mintimeout": "1000", **env}
        try:
            done = capture([npm, *arguments], env=env, cwd=folder, timeout_s=timeout_s, file_bytes=_LARGEST)
        except ChildError as error:
            raise NotInstalled(f"npm cannot be run: {error}.", "Look at the host.") from None
    if done.status is None:
        raise NotInstalled(
            f"npm did not answer within {timeout_s:g} seconds.", "Look at the network, or at HTTPS_PROXY."
        )
    if done.status != 0:
        words = "\n".join(done.last_words)
        if unreachable := _UNREACHABLE.search(words):
            problem = f"npm cannot reach the registry ({unreachable[0]})."
            raise NotInstalled(problem, "Look at the network, or at HTTPS_PROXY.")
        if "ENOSPC" in words:
            raise NotInstalled("npm found no room on the disk.", "Make room where the data and /tmp are.")
        said = next((line for line in done.last_words if "error" in line.lower() and " code " not in line), "")
        raise NotInstalled(f"npm failed: {said or 'it did not say why'}"[:300], "Look at the network, and try again.")
    return done.output


# --- the command ------------------------------------------------------------------------------------


def upgrade(settings: Settings, versions: Mapping[str, str | None]) -> Iterator[Finding]:
    """Another version of each of these CLIs, None for the newest: installed, checked, chosen, and serving."""
    for name, version in versions.items():
        try:
            yield from _upgrade(settings, PROVIDERS[name], version)
        except NotInstalled as error:
            yield fail(name, f"{error.problem} What serves goes on.", error.todo)
        except (BridgeError, StoreError, OSError) as error:
            found = error.message if isinstance(error, BridgeError | StoreError) else str(error.strerror)
            yield fail(name, f"{found} What serves goes on.", "Look at the data folder: cli-bridge doctor")


def _upgrade(settings: Settings, row: ProviderRow, version: str | None) -> Iterator[Finding]:
    clock, book, own = Clock(), ProgramBook(settings.data_dir), settings.providers[row.name]
    if version is not None and not _VERSION.fullmatch(version):
        raise NotInstalled(f"{version} is no version.", f"Such as: --to {row.tested}")
    if version is None:
        version = newest(row, settings)
        with book.change() as record:
            record.newest[row.name] = Newest(version, clock.now())
    before = book.choice(row.name, own.command, row.tested)
    if before is not None and before.version == version:
        yield ok(row.name, f"version {version} is chosen already")
        return
    path = install(row, version, settings)
    yield ok(row.name, f"version {version} is installed beside the one that serves")
    problem = None
    for finding in conformance.check(settings, (row.name,), program=path):
        yield finding
        problem = problem or (finding.found if finding.level == FAIL else None)
    stamp = stamp_of(path)
    assert stamp is not None
    book.note(ProgramCheck(row.name, version, clock.now(), digest_of(path), stamp, problem))
    if problem is not None:
        yield fail(row.name, f"version {version} does not serve", "What served before goes on.")
        return
    with book.change() as record:
        if before is not None:
            before.before = None
        record.chosen[row.name] = ChosenProgram(version, path, clock.now(), own.command, row.tested, before)
        record.outcomes.pop(row.name, None)
        _clear(settings.data_dir / FOLDER, row.name, record.chosen[row.name])
    yield _await_service(settings, row.name, version)


def _clear(folder: Path, name: str, choice: ChosenProgram) -> None:
    """Remove what was installed and is not chosen any more, nor gone back to; what runs of it goes on."""
    kept = {choice.version, choice.before.version if choice.before is not None else ""}
    for each in folder.glob(f"{name}-*"):
        if each.name.removeprefix(f"{name}-") not in kept:
            shutil.rmtree(each, ignore_errors=True)


def _await_service(settings: Settings, name: str, version: str) -> Finding:
    """Wait until the running service serves with it."""
    if Store.holder(settings.data_dir) is None:
        return ok(name, f"version {version} serves from the next start on")
    until = time.monotonic() + SWAP_S
    found: dict[str, Any] = {}
    while time.monotonic() < until:
        with admin_client(settings) as client:
            providers = client.call("GET", "/admin/overview")["providers"]
        found = next(each for each in providers if each["name"] == name)
        if found["version"] == version and found["available"] and not found["drift"]:
            return ok(name, f"version {version} serves; its first {WATCHED} runs are watched")
        time.sleep(0.5)
    why = found.get("drift") or found.get("problem") or "it does not say why"
    return warn(name, f"the service does not serve with version {version} yet: {why}", "cli-bridge doctor")


def status(settings: Settings) -> list[dict[str, Any]]:
    """Each CLI: what serves and since when, its last check, the newest that is known, and what is to be said of it.
    Raises StoreError, BridgeError."""
    book, live = ProgramBook(settings.data_dir), dict[str, dict[str, Any]]()
    if Store.holder(settings.data_dir) is not None:
        with admin_client(settings) as client:
            live = {each["name"]: each for each in client.call("GET", "/admin/overview")["providers"]}
    record, rows = book.read(), []
    for name, row in PROVIDERS.items():
        own, found = settings.providers[name], live.get(name, {})
        choice = book.choice(name, own.command, row.tested)
        path = choice.program if choice is not None else program(own.command)
        stamp = None if path is None else stamp_of(path)
        check = next((each for each in record.checks if each.provider == name and each.stamp == stamp), None)
        outcome, known = record.outcomes.get(name), record.newest.get(name)
        version = found.get("version") or (check.version if check is not None else None)
        rows.append(
            {
                "name": name,
                "version": version,
                "since": None if found.get("since") is None else iso(found["since"]),
                "program": path,
                "tested": row.tested,
                "newest": None if known is None else known.version,
                "newestAskedAt": None if known is None else iso(known.at),
                "lastCheck": None if check is None else f"{iso(check.at)}: {check.problem or 'all holds'}",
                "watchedRuns": None if choice is None else choice.runs,
                "failedRuns": None if choice is None else choice.failed,
                "note": found.get("drift") or found.get("problem"),
                "lastUpgrade": None if outcome is None else f"{iso(outcome.at)}: {outcome.message}",
            }
        )
    return rows


def bridge_status(settings: Settings) -> dict[str, Any]:
    """The bridge itself: its version, the newest that is known, and what is to be said of it."""
    found = ProgramBook(settings.data_dir).read().bridge if settings.update_check else None
    return {
        "version": __version__,
        "newest": None if found is None else found.newest,
        "newestAskedAt": None if found is None else iso(found.at),
        "note": origin.sentence(settings, found),
    }


# --- the first runs ---------------------------------------------------------------------------------


def leaves_behind(failed: int, runs: int, usual_failed: int, usual_runs: int) -> bool:
    """Whether `failed` of `runs` is so much worse than what was usual that it is hardly chance."""
    usual = (usual_failed + ASSUMED_FAILED) / (usual_runs + ASSUMED_RUNS)
    chances = (math.comb(runs, k) * usual**k * (1 - usual) ** (runs - k) for k in range(failed, runs + 1))
    return failed >= LEAST_FAILED and sum(chances) < SELDOM


class Trials:
    """Watches the first runs of what `clis upgrade` has chosen, in a running service, and takes it back where they go
    worse than those before. Asks once a day for the newest versions, of the bridge, too, where BRIDGE_UPDATE_CHECK says
    so."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._book = ProgramBook(service.settings.data_dir)
        self._records: deque[RunRecord] = deque(maxlen=COMPARED)
        self._news = gevent.event.Event()
        #: whether the latest runs before an upgrade failed, by provider
        self._usual: dict[str, deque[bool]] = {name: deque(maxlen=COMPARED) for name in PROVIDERS}
        service.observers.append(self.observe)
        # The CLIs of other hosts are others.
        service.observers_of_this_host.append(self.observe)
        service.closers.append(self.close)
        self._greenlets = [gevent.spawn(self._watch)]
        if service.settings.update_check:
            self._greenlets.append(gevent.spawn(self._ask_daily))

    def observe(self, record: RunRecord) -> None:
        """Take note of one line of the request log. Returns at once."""
        self._records.append(record)
        self._news.set()

    def close(self) -> None:
        """Stop watching."""
        gevent.killall(self._greenlets)

    def _watch(self) -> None:
        while True:
            self._news.wait()
            self._news.clear()
            while self._records:
                try:
                    self._look_at(self._records.popleft())
                except (BridgeError, OSError) as error:
                    log.warning("a run of a new CLI could not be noted: %s", error)

    def _look_at(self, record: RunRecord) -> None:
        name, engine = record.provider, self._service.engine
        if name not in PROVIDERS or engine is None:
            return
        # What could not be reached says nothing about the CLI.
        failed = record.code in FAILURES and record.upstream_message is None
        if record.code == "timeout" and not (record.error or "").startswith(SILENT):
            # How long an answer may take is its client's choice.
            failed = False
        if record.code is not None and not failed:
            return
        settings, status, clock = self._service.settings, engine.providers[name].status(), self._service.clock
        usual = self._usual[name]
        since = -1.0 if status.since is None else status.since
        chosen = self._book.choice(name, settings.providers[name].command, PROVIDERS[name].tested)
        if chosen is None or chosen.runs >= WATCHED or not chosen.since <= since <= parse_iso(record.timestamp):
            usual.append(failed)
            return
        with self._book.change() as kept:
            choice = kept.chosen.get(name)
            if choice is None or choice.version != chosen.version:
                return  # another one was chosen this moment
            choice.runs, choice.failed = choice.runs + 1, choice.failed + failed
            counts = f"{choice.failed} of its first {choice.runs} runs failed"
            worse = leaves_behind(choice.failed, choice.runs, sum(usual), len(usual))
            if worse:
                message = f"{name} {choice.version} was taken back: {counts}, and {sum(usual)} of {len(usual)} before."
                kept.outcomes[name] = Outcome(choice.version, clock.now(), False, message)
                del kept.chosen[name]
                if choice.before is not None:
                    kept.chosen[name] = choice.before
                stamp = stamp_of(choice.program)
                kept.checks = [
                    msgspec.structs.replace(each, at=clock.now(), problem=f"{counts}.") if each.stamp == stamp else each
                    for each in kept.checks
                ]
            elif choice.runs == WATCHED:
                kept.outcomes[name] = Outcome(
                    choice.version, clock.now(), True, f"{name} {choice.version} stays: {counts}."
                )
        if worse:
            engine.providers[name].open()

    def _ask_daily(self) -> None:
        while True:
            self._ask_for_bridge()
            for row in PROVIDERS.values():
                try:
                    found = Newest(newest(row, self._service.settings), self._service.clock.now())
                    with self._book.change() as record:
                        record.newest[row.name] = found
                except NotInstalled as error:
                    log.warning("the newest version of %s is not known: %s", row.name, error.problem)
                except (BridgeError, OSError) as error:
                    log.warning("the newest version of %s could not be noted: %s", row.name, error)
            gevent.sleep(UPDATE_CHECK_S)

    def _ask_for_bridge(self) -> None:
        found = origin.look(self._service.settings, self._book.read().bridge, self._service.clock.now())
        if found.problem is not None:
            log.warning("whether a newer cli-bridge is out, is not known: %s", found.problem)
        try:
            with self._book.change() as record:
                record.bridge = found
        except (BridgeError, OSError) as error:
            log.warning("whether a newer cli-bridge is out, could not be noted: %s", error)
