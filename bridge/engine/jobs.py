"""Jobs: runs whose end is kept, so that somebody can come back for it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import msgspec

from bridge.engine.run import Run, without_prompts
from bridge.errors import BridgeError
from bridge.keys.keys import Key
from bridge.ledger.tallies import Reservation
from bridge.records.jobs import Job, JobBook, Repeat, interrupted, owner_of
from bridge.types import Finished, GenerationRequest

log = logging.getLogger("bridge")


class Jobs:
    """The live runs of a key and the answers that are kept for it, as one."""

    def __init__(self, book: JobBook, runs: Mapping[str, Run]) -> None:
        self._book = book
        self._runs = runs
        self._waiting: Counter[str] = Counter()

    @contextmanager
    def waiting(self, key: Key, most: int) -> Iterator[bool]:
        """While somebody waits for a job of this key; whether there are no more than `most` of them."""
        self._waiting[key.name] += 1
        try:
            yield self._waiting[key.name] <= most
        finally:
            self._waiting[key.name] -= 1
            if not self._waiting[key.name]:
                del self._waiting[key.name]

    def earlier(self, key: Key, repeat: Repeat) -> Job | None:
        """The answer that the first request with an Idempotency-Key got. Raises BridgeError conflict."""
        found = self._book.earlier(owner_of(key), repeat)
        return None if found is None else _ended(found)

    def find(self, key: Key, job_id: str) -> Run | Job:
        """A live run of this key, or what it left behind. Raises BridgeError not_found."""
        run = self._runs.get(job_id)
        if run is not None and run.owner == owner_of(key):
            return run
        found = self._book.get(job_id, owner_of(key))
        if found is None:
            raise BridgeError(
                "not_found", "You have no such job.", "Answers are kept for 24 hours, and only for the key that asked."
            )
        # It may have been kept on its way out of the list of runs.
        return self._runs.get(job_id) or _ended(found)

    def begin(self, key: Key, reservation: Reservation, request: GenerationRequest, repeat: Repeat | None) -> None:
        """Note a job that is about to run. Raises BridgeError conflict or storage_failed."""
        self._book.add(Job(reservation.id, owner_of(key), reservation.at, without_prompts(request), repeat))

    def drop(self, job_id: str) -> None:
        """Forget a job that did not come to run."""
        self._book.drop(job_id)

    def keep(self, run: Run) -> None:
        """From now on a run goes on whoever leaves, and its end is kept. Raises BridgeError storage_failed."""
        if not run.kept:
            self._book.add(_job(run))
            run.kept = True
            if run.finished is not None:
                # It ended while the file was written.
                self.finish(run, run.finished)

    def finish(self, run: Run, finished: Finished) -> None:
        """Keep the end of a run. It is lost where the disk refuses it: the charge is not."""
        if run.kept:
            try:
                self._book.finish(msgspec.structs.replace(_job(run), finished=finished))
            except BridgeError as error:
                log.warning("the answer of %s could not be kept: %s", run.id, error.message)


def _job(run: Run) -> Job:
    return Job(run.id, run.owner, run.started_at, without_prompts(run.request), run.repeat)


def _ended(job: Job) -> Job:
    return job if job.finished is not None else msgspec.structs.replace(job, finished=interrupted())
