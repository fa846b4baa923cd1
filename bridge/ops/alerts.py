"""Watches the service and tells its operator: in the log, on the dashboard, and through a webhook.

Each alert comes once in its window, over restarts too: what was raised is kept in alerts.json.
"""

from __future__ import annotations

import logging
import shutil
from collections import deque
from collections.abc import Iterator
from typing import Any

import gevent
import gevent.event
from gevent.lock import BoundedSemaphore

from bridge.clock import day_of, iso, month_of, parse_iso
from bridge.errors import BridgeError, StoreError
from bridge.limits import effective
from bridge.ops import alert as rules
from bridge.ops.alert import Alert
from bridge.ops.webhook import Post, Webhook
from bridge.service import Service
from bridge.types import RunRecord

log = logging.getLogger("bridge")

#: Between two looks at disk, providers and backups, in seconds.
CHECK_S = 60.0
#: Alerts that are kept to be shown.
KEPT = 50
#: Log lines that wait to be looked at; past that the oldest are passed over.
MOST_RECORDS = 1000
#: After this many seconds nobody asks any more whether an alert was raised: longer than any window.
FORGET_S = 70 * 86400.0

_DOWN = ("cli_unavailable",)
_FAILED = ("cli_failed", "cli_bad_output", "provider_overloaded", "timeout")


class Alerts:
    """The alerts of one running service."""

    def __init__(self, service: Service) -> None:
        """Begin to watch. State that cannot be read is begun afresh: at worst an alert comes twice."""
        self._service = service
        self._document = service.store.document("alerts.json")
        self._records: deque[RunRecord] = deque(maxlen=MOST_RECORDS)
        self._news = gevent.event.Event()
        self._failures: dict[str, int] = {}
        #: mark -> when it was raised, in UTC seconds
        self._raised: dict[str, float] = {}
        self._recent: deque[dict[str, Any]] = deque(maxlen=KEPT)
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
        assert service.engine is not None
        service.engine.observers.append(self.observe)
        self._watcher = gevent.spawn(self._watch)

    def observe(self, record: RunRecord) -> None:
        """Take note of one line of the request log. Returns at once."""
        self._records.append(record)
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
                limits = effective(service.keys.get(name).limits, service.settings.default_limits).to_wire()
            except BridgeError:
                continue  # revoked meanwhile
            self._raise_all(rules.key_alerts(name, limits, service.ledger.usage(name), windows, frozenset(codes)))
        most = {"today": service.settings.alert_cost_per_day, "thisMonth": service.settings.alert_cost_per_month}
        self._raise_all(rules.spend_alerts(service.ledger.totals(), windows, most))

    def _of_record(self, record: RunRecord) -> Iterator[Alert]:
        """What one run, or one refusal, says about its provider and its key."""
        name, problem = record.provider, record.error or ""
        if record.code is None:
            self._failures[name] = 0
            self._note_worked(name)
        elif record.code == "loop_suspected":
            yield rules.loop_suspected(record.key_name, problem)
        elif record.code == "provider_rate_limited":
            yield rules.provider_limited(name, problem)
        elif record.code in _DOWN and name in self._worked:
            yield rules.provider_down(name, problem)
        elif record.code in _FAILED:
            self._failures[name] = self._failures.get(name, 0) + 1
            if self._failures[name] >= rules.FAILURES_IN_A_ROW:
                yield rules.provider_failing(name, self._failures[name], problem)

    def _look_around(self) -> None:
        service = self._service
        for status in service.engine.statuses() if service.engine is not None else []:
            if status.available:
                self._note_worked(status.name)
            elif status.name in self._worked:
                self._raise_all([rules.provider_down(status.name, status.problem or "")])
                # Once: it may have been taken away on purpose.
                self._worked.discard(status.name)
                self._save()
        free = shutil.disk_usage(service.settings.data_dir).free
        self._raise_all(rules.disk_alerts(free, writable=service.ledger.open_for_business))
        notes, good_age_s = service.backups.notes(), None
        if notes["lastGoodAt"] is not None:
            good_age_s = service.clock.now() - parse_iso(notes["lastGoodAt"])
        self._raise_all(rules.backup_alerts(notes, good_age_s))

    def _windows(self) -> dict[str, str]:
        day = day_of(self._service.clock.now(), self._service.settings.zone)
        return {"today": day, "thisMonth": month_of(day)}

    # --- raising -----------------------------------------------------------------------------------------

    def _raise_all(self, alerts: Iterator[Alert] | list[Alert]) -> None:
        now = self._service.clock.now()
        for each in alerts:
            last = self._raised.get(each.mark)
            if last is not None and now - last < rules.WINDOWS_S[each.kind]:
                continue
            self._raised[each.mark] = now
            log.warning("alert: %s", each.message)
            shown = {"kind": each.kind, "subject": each.subject, "message": each.message, "at": iso(now)}
            self._recent.append({**shown, "waiting": self._webhook is not None})
            self._save()
            if self._webhook is not None:
                self._webhook.put(shown)

    def _note_worked(self, name: str) -> None:
        if name not in self._worked:
            self._worked.add(name)
            self._save()

    def _delivered(self, post: Post) -> None:
        for each in self._recent:
            if _post(each) == post:
                each["waiting"] = False
        self._save()

    # --- what is kept ------------------------------------------------------------------------------------

    def _load(self) -> None:
        try:
            content = self._document.load() or {}
            self._raised = {str(mark): float(at) for mark, at in content.get("raised", {}).items()}
            self._recent.extend(each for each in content.get("recent", []) if set(each) == _KEPT_FIELDS)
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


_SHOWN = ("kind", "subject", "message", "at")
_KEPT_FIELDS = {*_SHOWN, "waiting"}


def _post(kept: dict[str, Any]) -> Post:
    return {name: kept[name] for name in _SHOWN}
