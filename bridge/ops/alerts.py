"""Watches the service and tells its operator: in the log, on the dashboard, and through a webhook.

Each alert comes once in its window, over restarts too: what was raised is stored in alerts.json. The URL of the
webhook comes from the settings alone; nothing that a client sends can change where a post goes, and no redirect is
followed. A post is never in a request's way, and does not take for ever.
"""

from __future__ import annotations

import base64
import http.client
import json
import logging
import math
import shutil
import socket
import ssl
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

import gevent
import gevent.event
import msgspec
from gevent.lock import BoundedSemaphore

from bridge.clock import iso, parse_iso
from bridge.errors import BridgeError, StoreError
from bridge.gate.ticket import Oddity
from bridge.keys.credentials import Credential
from bridge.limits import WINDOWS, Caps, Moment, effective, money, summed
from bridge.providers.programs import Outcome, ProgramBook
from bridge.service import Service
from bridge.types import RunRecord

log = logging.getLogger("bridge")

# --- what an alert is about --------------------------------------------------------------------------------

#: Shares of a limit at which there is an alert, in percent; the last one means: used up.
LEVELS = (80, 100)
#: Runs of a provider that fail one after the other before it counts as down.
FAILURES_IN_A_ROW = 5
#: Free disk space below which there is an alert, in bytes. `doctor` warns at the same.
LOW_DISK_BYTES = 512 * 2**20
#: A backup that was made once should be made again within this time, in seconds.
BACKUP_OVERDUE_S = 50 * 3600.0

_HOUR_S = 3600.0
#: Kind of an alert -> how long the same one is not raised again, in seconds. Those about a day or a month
#: have it in their mark, so that once is once.
WINDOWS_S: dict[str, float] = {
    "key_limit": math.inf,
    "spend": math.inf,
    "provider_down": 6 * _HOUR_S,
    "provider_rate_limited": _HOUR_S,
    "credential_blocked": _HOUR_S,
    "gate_refused": _HOUR_S,
    "gate_misreported": _HOUR_S,
    "cli_drift": 24 * _HOUR_S,
    "cli_upgrade": math.inf,
    "disk": 12 * _HOUR_S,
    "loop_suspected": _HOUR_S,
    "backup_failed": 24 * _HOUR_S,
}


class Alert(msgspec.Struct, frozen=True):
    """Something that the operator should know. `mark` is what two alerts about the same thing share."""

    kind: str
    subject: str
    message: str
    mark: str


def key_alerts(
    name: str, caps: Caps, usage: Mapping[str, Any], windows: Mapping[str, str], refused: frozenset[str]
) -> Iterator[Alert]:
    """Alerts about how much of its limits per day, month and so on a key has used.

    `usage` is as the API shows it, `windows` names the running ones by their fields (`today`: `2026-11-20`), and
    `refused` has the codes of limits that refused a request of this key: a limit of which nothing more can be had is
    used up, also where a few cents of it are left.
    """
    for limit, window, amount in summed(caps):
        limit_shown, used = limit.shown(amount), usage[window.field][limit.field]
        percent = 100 * used / limit_shown
        if percent >= LEVELS[0] and limit.code in refused:
            percent = 100
        reached = [level for level in LEVELS if percent >= level]
        if not reached:
            continue
        amounts = f"{money(used)} of {money(limit_shown)}" if limit.is_cost else f"{used:,} of {limit_shown:,}"
        share = "used up its" if reached[-1] == 100 else f"used {reached[-1]} % of its"
        yield Alert(
            "key_limit",
            name,
            f"The key {name} has {share} {limit.text}: {amounts}.",
            f"key_limit:{name}:{limit.name}:{windows[window.field]}:{limit_shown:g}:{reached[-1]}",
        )


def spend_alerts(
    totals: Mapping[str, Any], windows: Mapping[str, str], thresholds: Mapping[str, float]
) -> Iterator[Alert]:
    """Alerts about what all keys together have spent; `thresholds` has dollars for each window, 0 for none."""
    for window in WINDOWS:
        alert_at = thresholds.get(window.field)
        if alert_at and (spent := totals[window.field]["costUsd"]) >= alert_at:
            message = (
                f"All keys together have spent {money(spent)} {window.text}; the alert is set to {money(alert_at)}."
            )
            yield Alert("spend", "all keys", message, f"spend:{windows[window.field]}")


def provider_down(name: str, problem: str) -> Alert:
    """A CLI that worked before cannot be used."""
    return Alert("provider_down", name, f"{name} is not available: {problem}", f"provider_down:{name}")


def cli_drift(name: str, problem: str) -> Alert:
    """The program of a CLI was replaced, and what is there now does not serve."""
    return Alert("cli_drift", name, f"The program of {name} has changed. {problem}", f"cli_drift:{name}:{problem}")


def cli_upgrade(name: str, outcome: Outcome) -> Alert:
    """The first runs of another version of a CLI were watched: it stays, or was taken back."""
    return Alert("cli_upgrade", name, outcome.message, f"cli_upgrade:{name}:{outcome.version}:{outcome.at:.0f}")


def provider_failing(name: str, count: int, problem: str) -> Alert:
    """Every run on a CLI fails."""
    message = f"The last {count} runs on {name} failed. The latest said: {problem}"
    return Alert("provider_down", name, message, f"provider_down:{name}")


def provider_limited(name: str, problem: str) -> Alert:
    """The provider limits the account."""
    message = f"The provider of {name} limits the bridge's account. It said: {problem}"
    return Alert("provider_rate_limited", name, message, f"provider_rate_limited:{name}")


def credential_blocked(credential: Credential, reason: str) -> Alert:
    """A provider does not take a credential any more, or its account cannot pay."""
    name = credential.name
    message = f"The credential {name} of {credential.provider} is blocked. Its provider said: {reason}"
    return Alert("credential_blocked", name, message, f"credential_blocked:{credential.id}")


def gate_oddity(oddity: Oddity) -> Alert:
    """A call of a CLI was not as it should be."""
    name = oddity.provider
    messages = {
        "refused": f"The gate stopped a call of {name} that was not what its run asks for. What differed: ",
        "misreported": f"{name} told other figures of a call than its provider, whose own were charged: ",
    }
    kind = f"gate_{oddity.kind}"
    return Alert(kind, name, f"{messages[oddity.kind]}{oddity.what}.", f"{kind}:{name}")


def loop_suspected(key_name: str, problem: str) -> Alert:
    """The loop breaker has paused a key."""
    return Alert("loop_suspected", key_name, f"The key {key_name}: {problem}", f"loop_suspected:{key_name}")


def disk_alerts(free_bytes: int, *, writable: bool, trouble: str | None = None) -> Iterator[Alert]:
    """Alerts about the disk of the data folder, and about the store that hosts share, whose `trouble` is a sentence."""
    if not writable:
        message = f"{trouble or 'The bridge cannot write to its data folder.'} It takes no requests."
        yield Alert("disk", "data folder", message, "disk:write")
    if free_bytes < LOW_DISK_BYTES:
        message = f"Only {free_bytes / 2**20:.0f} MiB are free on the disk of the data folder."
        yield Alert("disk", "data folder", message, "disk:space")


def backup_alerts(notes: Mapping[str, Any], good_age_s: float | None) -> Iterator[Alert]:
    """Alerts about backups: `notes` as `Service.backups` has them, and how old the last good one is."""
    failure = notes["lastFailure"]
    if failure is not None:
        message = f"A backup failed: {failure['error']}"
        yield Alert("backup_failed", "backup", message, "backup_failed:failure")
    elif good_age_s is not None and good_age_s > BACKUP_OVERDUE_S:
        message = f"The last good backup is {good_age_s / 3600:.0f} hours old."
        yield Alert("backup_failed", "backup", message, "backup_failed:overdue")


# --- the webhook ---------------------------------------------------------------------------------------------

#: Pauses before each further try, in seconds. After the last one an alert is given up.
PAUSES_S = (1.0, 10.0, 60.0, 300.0, 900.0)
#: Longest that one try may take, in seconds.
TIMEOUT_S = 10.0
#: Alerts that wait to be sent; past that the oldest is dropped.
MOST_WAITING = 100
#: Longest pause that the other side may ask for with Retry-After, in seconds.
LONGEST_PAUSE_S = 3600.0

_ANSWER_BYTES = 4096
_SLACK_HOSTS = ("hooks.slack.com", "hooks.slack-gov.com")
_DISCORD_HOSTS = ("discord.com", "discordapp.com", "ptb.discord.com", "canary.discord.com")

Post = Mapping[str, Any]
"""An alert as it is posted: kind, subject, message, at."""


class Rejected(Exception):
    """The other side did not take a post. `final`: it will not take it later either."""

    def __init__(self, message: str, *, final: bool = False, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.final = final
        self.retry_after_s = retry_after_s


def format_of(url: str, setting: str) -> str:
    """json, slack or discord: as set, or by the host of the URL."""
    if setting != "auto":
        return setting
    host = urlsplit(url).hostname or ""
    return "slack" if host in _SLACK_HOSTS else "discord" if host in _DISCORD_HOSTS else "json"


def body_of(post: Post, shape: str) -> dict[str, Any]:
    """What is sent. Slack: https://api.slack.com/messaging/webhooks; Discord:
    https://discord.com/developers/docs/resources/webhook#execute-webhook."""
    host = socket.gethostname()
    text = f"cli-bridge on {host}: {post['message']}"
    if shape == "slack":
        # The three characters that Slack reads as markup.
        return {"text": text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")}
    if shape == "discord":
        return {"content": text[:2000], "allowed_mentions": {"parse": []}}
    return {"source": "cli-bridge", "host": host, **post}


def send(url: str, body: Mapping[str, Any]) -> None:
    """One try. Raises Rejected."""
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    data = json.dumps(body).encode()
    try:
        with gevent.Timeout(TIMEOUT_S, TimeoutError(f"no answer within {TIMEOUT_S:g} seconds")):
            connection = _connection(parts.scheme, parts.hostname or "", parts.port)
            try:
                headers = {"Content-Type": "application/json", "User-Agent": "cli-bridge", **_credentials(url)}
                connection.request("POST", path, data, headers)
                answer = connection.getresponse()
                answer.read(_ANSWER_BYTES)
            finally:
                connection.close()
    except (OSError, http.client.HTTPException) as error:
        raise Rejected(str(error) or type(error).__name__) from None
    if not 200 <= answer.status < 300:
        # A redirect is not followed: the receiver must not choose where the next post goes.
        final = answer.status < 500 and answer.status not in (408, 425, 429)
        raise Rejected(
            f"it answered {answer.status}", final=final, retry_after_s=_seconds(answer.headers.get("Retry-After"))
        )


def _connection(scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
    if scheme == "https":
        return http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=ssl.create_default_context())
    return http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)


def _credentials(url: str) -> dict[str, str]:
    """The header for `https://user:password@host/`."""
    name, at, _ = urlsplit(url).netloc.rpartition("@")
    return {"Authorization": "Basic " + base64.b64encode(unquote(name).encode()).decode()} if at else {}


def _seconds(text: str | None) -> float | None:
    return min(float(text), LONGEST_PAUSE_S) if text and text.isascii() and text.isdecimal() else None


class Webhook:
    """A queue of posts, and one greenlet that sends them in turn."""

    def __init__(self, url: str, setting: str, done: Callable[[Post], None]) -> None:
        """`done(post)` is called when one has been sent, or given up for good."""
        self._url = url
        self._shape = format_of(url, setting)
        self._done = done
        self._waiting: deque[Post] = deque()
        self._more = gevent.event.Event()
        self._sender = gevent.spawn(self._run)

    def put(self, post: Post) -> None:
        """Send it soon. Returns at once."""
        if len(self._waiting) >= MOST_WAITING:
            dropped = self._waiting.popleft()
            log.warning("too many alerts wait for the webhook; one was dropped: %s", dropped["message"])
            self._done(dropped)
        self._waiting.append(post)
        self._more.set()

    def close(self) -> None:
        """Stop; what still waits is not sent."""
        self._sender.kill()

    def _run(self) -> None:
        while True:
            self._more.wait()
            self._more.clear()
            while self._waiting:
                post = self._waiting.popleft()
                self._deliver(post)
                self._done(post)

    def _deliver(self, post: Post) -> None:
        for pause_s in (*PAUSES_S, None):
            try:
                send(self._url, body_of(post, self._shape))
                return
            except Rejected as error:
                if error.final or pause_s is None:
                    log.warning("an alert could not be posted to the webhook: %s", error)
                    return
                gevent.sleep(max(pause_s, error.retry_after_s or 0.0))


# --- the watcher ---------------------------------------------------------------------------------------------

#: Seconds between checks of disk, providers and backups.
CHECK_S = 60.0
#: Alerts that the overview shows.
SHOWN = 50
#: Log lines that wait to be examined; past that the oldest are dropped.
MOST_RECORDS = 1000
#: Seconds after which a mark is removed: longer than any window.
FORGET_S = 70 * 86400.0

#: How long the end of an upgrade is news, in seconds.
_OUTCOME_S = 86400.0
_DOWN = ("cli_unavailable",)
_FAILED = ("cli_failed", "cli_bad_output", "provider_overloaded", "provider_broke_off", "timeout")


class Alerts:
    """The alerts of one running service."""

    def __init__(self, service: Service) -> None:
        """Begin to watch. State that cannot be read is begun afresh: at worst an alert comes twice."""
        self._service = service
        self._document = service.store.document("alerts.json")
        self._programs = ProgramBook(service.settings.data_dir)
        self._records: deque[RunRecord] = deque(maxlen=MOST_RECORDS)
        self._oddities: deque[Oddity] = deque(maxlen=MOST_RECORDS)
        self._blocked: deque[tuple[Credential, str]] = deque(maxlen=MOST_RECORDS)
        self._news = gevent.event.Event()
        self._failures: dict[str, int] = {}
        #: mark -> when it was raised, in UTC seconds
        self._raised: dict[str, float] = {}
        self._recent: deque[dict[str, Any]] = deque(maxlen=SHOWN)
        #: CLIs that have worked: one that was never set up is not "down"
        self._worked: set[str] = set()
        self._saving = BoundedSemaphore(1)
        self._load()
        settings = service.settings
        self._webhook: Webhook | None = None
        if settings.alert_webhook is not None:
            self._webhook = Webhook(settings.alert_webhook, settings.alert_format, self._delivered)
            for each in self._recent:
                if each["waiting"]:
                    self._webhook.put(_post(each))
        service.observers.append(self.observe)
        service.gate.watchers.append(self.watch_gate)
        service.credentials.watchers.append(self.watch_credentials)
        service.closers.append(self.close)
        service.recent_alerts = self.recent
        self._watcher = gevent.spawn(self._watch)

    def observe(self, record: RunRecord) -> None:
        """Take note of one line of the request log. Returns at once."""
        self._records.append(record)
        self._news.set()

    def watch_gate(self, oddity: Oddity) -> None:
        """Take note of a call that was not as it should be. Returns at once."""
        self._oddities.append(oddity)
        self._news.set()

    def watch_credentials(self, credential: Credential, reason: str) -> None:
        """Take note of a credential that has just been blocked. Returns at once."""
        self._blocked.append((credential, reason))
        self._news.set()

    def recent(self) -> list[dict[str, Any]]:
        """The latest alerts, newest first: kind, subject, message, at."""
        return [dict(_post(each)) for each in reversed(self._recent)]

    def close(self) -> None:
        """Stop watching; what was not posted yet is posted after the next start."""
        self._watcher.kill()
        if self._webhook is not None:
            self._webhook.close()

    # --- watching --------------------------------------------------------------------------------------

    def _watch(self) -> None:
        next_check = 0.0
        while True:
            try:
                self._look_at_records()
                while self._blocked:
                    self._raise_all([credential_blocked(*self._blocked.popleft())])
                while self._oddities:
                    self._raise_all([gate_oddity(self._oddities.popleft())], here=True)
                if self._service.clock.monotonic() >= next_check:
                    next_check = self._service.clock.monotonic() + CHECK_S
                    self._look_around()
            except Exception:
                log.exception("an alert could not be worked out")
            self._news.wait(CHECK_S)
            self._news.clear()

    def _look_at_records(self) -> None:
        refused: dict[str, set[str]] = {}
        while self._records:
            record = self._records.popleft()
            refused.setdefault(record.key_name, set())
            if record.code is not None:
                refused[record.key_name].add(record.code)
            self._raise_all(self._of_record(record))
        if not refused:
            return
        service, windows = self._service, self._windows()
        for name, codes in refused.items():
            try:
                caps = effective(service.keys.get(name).limits, service.settings.default_limits)
            except BridgeError:
                continue  # revoked meanwhile
            self._raise_all(key_alerts(name, caps, service.ledger.usage(name), windows, frozenset(codes)))
        thresholds = {"today": service.settings.alert_cost_per_day, "thisMonth": service.settings.alert_cost_per_month}
        if any(thresholds.values()):
            self._raise_all(spend_alerts(service.ledger.totals(), windows, thresholds))

    def _of_record(self, record: RunRecord) -> Iterator[Alert]:
        """What one run, or one refusal, says about its provider and its key."""
        name, problem = record.provider, record.error or ""
        if record.code is None:
            self._failures[name] = 0
            self._note_worked(name)
        elif record.code == "loop_suspected":
            yield loop_suspected(record.key_name, problem)
        elif record.code == "provider_rate_limited":
            yield provider_limited(name, problem)
        elif record.code in _DOWN and name in self._worked:
            yield provider_down(name, problem)
        elif record.code in _FAILED:
            self._failures[name] = self._failures.get(name, 0) + 1
            if self._failures[name] >= FAILURES_IN_A_ROW:
                yield provider_failing(name, self._failures[name], problem)

    def _look_around(self) -> None:
        service, engine = self._service, self._service.engine
        for status in engine.statuses() if engine is not None else []:
            if status.drift is not None:
                self._raise_all([cli_drift(status.name, status.drift)])
            if status.available:
                self._note_worked(status.name)
            elif status.name in self._worked and not (engine is not None and engine.roster.is_out(status.name)):
                # Where it lacks a credential that may be used, that was told when it was blocked, or limited.
                self._raise_all([provider_down(status.name, status.problem or "")], here=True)
                # Once: it may have been taken away on purpose.
                self._worked.discard(status.name)
                self._save()
        for name, outcome in self._programs.read().outcomes.items():
            if service.clock.now() - outcome.at < _OUTCOME_S:
                self._raise_all([cli_upgrade(name, outcome)])
        free = shutil.disk_usage(service.settings.data_dir).free
        trouble = None if service.cluster is None else service.cluster.trouble
        self._raise_all(disk_alerts(free, writable=service.ledger.open_for_business, trouble=trouble), here=True)
        notes, good_age_s = service.backups.notes(), None
        if notes["lastGoodAt"] is not None:
            good_age_s = service.clock.now() - parse_iso(notes["lastGoodAt"])
        self._raise_all(backup_alerts(notes, good_age_s), here=True)

    def _windows(self) -> dict[str, str]:
        now = Moment.of(self._service.clock.now(), self._service.settings.zone)
        return {span.window.field: span.key for span in now.spans.values()}

    # --- raising -----------------------------------------------------------------------------------------

    def _raise_all(self, alerts: Iterator[Alert] | list[Alert], *, here: bool = False) -> None:
        """Show alerts and post them. Of several hosts that raise the same, one posts it, unless it is about what is
        `here`."""
        now = self._service.clock.now()
        for each in alerts:
            last = self._raised.get(each.mark)
            if last is not None and now - last < WINDOWS_S[each.kind]:
                continue
            self._raised[each.mark] = now
            cluster = self._service.cluster
            message = each.message if cluster is None or not here else f"{cluster.node}: {each.message}"
            log.warning("alert: %s", message)
            shown = {"kind": each.kind, "subject": each.subject, "message": message, "at": iso(now)}
            posts = self._webhook is not None and (here or self._is_first(each))
            self._recent.append({**shown, "waiting": posts})
            self._save()
            if self._webhook is not None and posts:
                self._webhook.put(shown)

    def _is_first(self, alert: Alert) -> bool:
        """Whether no other host has raised it; so, too, where nobody can be asked: better twice than never."""
        cluster = self._service.cluster
        if cluster is None:
            return True
        window_ms = int(1000 * min(WINDOWS_S[alert.kind], FORGET_S))
        try:
            return bool(cluster.call("cb_claim", alert.mark, window_ms))
        except BridgeError:
            return True

    def _note_worked(self, name: str) -> None:
        if name not in self._worked:
            self._worked.add(name)
            self._save()

    def _delivered(self, post: Post) -> None:
        for each in self._recent:
            if _post(each) == post:
                each["waiting"] = False
        self._save()

    # --- what is stored ------------------------------------------------------------------------------------

    def _load(self) -> None:
        try:
            content = self._document.load() or {}
            self._raised = {str(mark): float(at) for mark, at in content.get("raised", {}).items()}
            self._recent.extend(each for each in content.get("recent", []) if set(each) == _STORED)
            self._worked = set(map(str, content.get("worked", [])))
        except (StoreError, ValueError, TypeError, AttributeError) as error:
            log.warning("alerts.json is begun afresh: %s", error)

    def _save(self) -> None:
        with self._saving:
            self._save_now()

    def _save_now(self) -> None:
        now = self._service.clock.now()
        self._raised = {mark: at for mark, at in self._raised.items() if now - at < FORGET_S}
        content = {"raised": self._raised, "recent": list(self._recent), "worked": sorted(self._worked)}
        try:
            self._document.save(content)
        except BridgeError as error:
            log.warning("alerts.json could not be written: %s", error.message)


_POSTED = ("kind", "subject", "message", "at")
_STORED = {*_POSTED, "waiting"}


def _post(alert: dict[str, Any]) -> Post:
    return {name: alert[name] for name in _POSTED}
