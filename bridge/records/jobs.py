"""Answers that are kept: of jobs, and of requests with an Idempotency-Key. One file each in jobs/, or in the store that
several hosts share.

A job is on the disk before its CLI sees the prompt, and its answer before anybody is told of it.
Prompts are not kept, answers are: for KEPT_S, within a bound for each key and one for all.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import gevent
import msgspec
from gevent.lock import BoundedSemaphore

from bridge.clock import Clock, JumpGuard
from bridge.errors import BridgeError, Problem, StoreError
from bridge.store.files import in_thread, private_folder, storage_failed, sync_folder, write_private
from bridge.types import Answer, Charge, Finished, GenerationRequest, PartDelta, Usage

if TYPE_CHECKING:
    from bridge.store.redis import Cluster

SCHEMA = 1
#: Seconds that an answer is kept.
KEPT_S = 24 * 3600.0
#: The most that is kept, in answers and bytes of one key, and in bytes of all. The oldest go first.
MOST_OF_KEY, MOST_BYTES_OF_KEY, MOST_BYTES = 1000, 64 * 2**20, 512 * 2**20
#: Retry-After of a repeated request whose first one still runs, in seconds.
COME_AGAIN_S = 5.0
#: What hosts that share a store keep there at most, in bytes of one key and of all: it is memory.
MOST_SHARED_OF_KEY, MOST_SHARED = 16 * 2**20, 128 * 2**20
#: Seconds between two looks at a job that runs on another host.
LOOK_S = 0.5
#: How often, and after how many seconds, the end of a job is tried again that they could not keep.
MOST_TRIES, AGAIN_S = 100, 3.0

log = logging.getLogger("bridge")


class Repeat(msgspec.Struct, frozen=True):
    """By what a repeated request is known: digests (hex) of its Idempotency-Key, and of path and body."""

    key: str
    body: str


class Job(msgspec.Struct, frozen=True):
    """What is kept of a run: what it was, and its end. It can be rendered like the run itself.

    `request` has neither messages nor system prompt; `finished` is None until the end.
    """

    id: str
    owner: str
    started_at: float
    request: GenerationRequest
    repeat: Repeat | None = None
    finished: Finished | None = None
    #: version of its form on the disk
    schema: int = SCHEMA

    @property
    def queue_position(self) -> int:
        """It waits for nothing."""
        return 0

    def follow(self, heartbeat_s: float) -> Iterator[PartDelta | None]:
        """The whole answer at once."""
        if self.finished is not None and isinstance(self.finished.result, Answer):
            yield from self.finished.result.deltas()

    def wait(self, timeout_s: float | None = None) -> Finished | None:
        """Its end; there is no other to wait for."""
        return self.finished


class _Entry(msgspec.Struct):
    owner: str
    started_at: float
    repeat: Repeat | None
    size: int = 0
    ended: bool = False


_decode = msgspec.json.Decoder(Job).decode


class KeptJobs(Protocol):
    """Where jobs are kept: `JobBook` with files, `SharedJobBook` where several hosts share a store.

    What a call has changed stays when it returns. Each but `drop` and `prune` raises BridgeError storage_failed where
    that did not work.
    """

    def knows(self, owner: str, digest: str) -> bool:
        """Whether a job may be kept of that owner and with that `Repeat.key`: it may be too old already."""

    def earlier(self, owner: str, repeat: Repeat) -> Job | None:
        """The job of the same Idempotency-Key that has ended. Raises BridgeError conflict where it had another body, or
        has not ended."""

    def get(self, job_id: str, owner: str) -> Job | None:
        """A job of this owner; one whose process is gone has ended with that."""

    def host_of(self, job: Job) -> str | None:
        """The host on which a job runs, where that is another one."""

    def await_end(self, job: Job, seconds: float) -> Job:
        """A job that runs on another host, as soon as it has ended, or as it is after `seconds`."""

    def add(self, job: Job) -> None:
        """Keep a job that has begun. Raises BridgeError conflict where its Idempotency-Key has been taken meanwhile."""

    def finish(self, job: Job) -> None:
        """Keep the end of a job. A request that failed without cost may be sent again under its Idempotency-Key, and
        then runs again."""

    def drop(self, job_id: str) -> None:
        """Forget a job that did not come to run."""

    def prune(self) -> None:
        """Remove what has been kept long enough."""


class JobBook:
    """All kept answers: what is where, in memory; the answers themselves only on disk."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        """Look at the files. Raises StoreError where one cannot be read."""
        self._folder = folder
        self._clock = clock
        #: oldest first, like what each owner has
        self._entries: dict[str, _Entry] = {}
        self._owned: dict[str, dict[str, None]] = {}
        self._sizes: Counter[str] = Counter()
        self._by_repeat: dict[tuple[str, str], str] = {}
        self._writing = BoundedSemaphore(1)
        try:
            private_folder(folder)
            for leaving in folder.glob("*.new"):
                leaving.unlink()
            for path in sorted(folder.glob("*.json")):
                self._remember(read(path), path.stat().st_size)
        except OSError as error:
            raise StoreError(f"The job folder cannot be used ({error.strerror}).", "Check the data folder.") from None
        last = max((entry.started_at for entry in self._entries.values()), default=None)
        self._jump_guard = JumpGuard(clock, last)

    def knows(self, owner: str, digest: str) -> bool:
        """Whether a job may be kept of that owner and with that `Repeat.key`: it may be too old already."""
        return (owner, digest) in self._by_repeat

    def earlier(self, owner: str, repeat: Repeat) -> Job | None:
        """The job of the same Idempotency-Key that has ended.

        Raises BridgeError conflict where it had another body, or has not ended.
        """
        found = self._by_repeat.get((owner, repeat.key))
        if found is None:
            return None
        entry = self._entries[found]
        _check_repeat(entry.repeat, repeat, ended=entry.ended)
        return self.get(found, owner)

    def get(self, job_id: str, owner: str) -> Job | None:
        """A job of this owner; one that a restart cut off has ended with that. Raises BridgeError storage_failed."""
        entry = self._entries.get(job_id)
        if entry is None or entry.owner != owner:
            return None
        try:
            job: Job = in_thread(read, self._path(job_id))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_failed(error) from None
        except StoreError:
            hint = "Ask your admin to look at the bridge's data folder, or send a new request."
            raise BridgeError("storage_failed", "The kept answer cannot be read.", hint) from None
        return job if job.finished or not entry.ended else msgspec.structs.replace(job, finished=_interrupted())

    def host_of(self, job: Job) -> str | None:
        """See KeptJobs: all run here."""
        return None

    def await_end(self, job: Job, seconds: float) -> Job:
        """See KeptJobs: all run here."""
        return job

    def add(self, job: Job) -> None:
        """Keep a job that has begun; on the disk when this returns.

        Raises BridgeError conflict where its Idempotency-Key has been taken meanwhile, or storage_failed.
        """
        if job.repeat is not None and (job.owner, job.repeat.key) in self._by_repeat:
            self.earlier(job.owner, job.repeat)
            raise _just_ended()
        self._remember(job, 0)
        try:
            self._save(job)
        except BridgeError:
            self._forget(job.id)
            raise

    def finish(self, job: Job) -> None:
        """Keep the end of a job. A request that failed without cost may be sent again under its
        Idempotency-Key, and then runs again. Raises BridgeError storage_failed."""
        if _may_run_again(job):
            self._forget_repeat(job.id)
            job = msgspec.structs.replace(job, repeat=None)
        self._save(job)
        own = self._owned.get(job.owner, {})
        while len(own) > MOST_OF_KEY or self._sizes[job.owner] > MOST_BYTES_OF_KEY:
            if not self._forget_oldest(own):
                break
        while self._sizes.total() > MOST_BYTES and self._forget_oldest(self._entries):
            pass

    def drop(self, job_id: str) -> None:
        """Forget a job that did not come to run."""
        self._forget(job_id)

    def prune(self) -> None:
        """Remove what has been kept long enough; nothing for a day after the clock has jumped ahead."""
        if self._jump_guard.in_doubt():
            return
        too_old = self._clock.now() - KEPT_S
        for job_id in [each for each, entry in self._entries.items() if entry.ended and entry.started_at < too_old]:
            self._forget(job_id)

    def _save(self, job: Job) -> None:
        data = msgspec.json.encode(job)
        try:
            with self._writing:
                in_thread(_replace, self._path(job.id), data)
        except OSError as error:
            raise storage_failed(error) from error
        entry = self._entries.get(job.id)
        if entry is not None:
            self._sizes[job.owner] += len(data) - entry.size
            entry.size, entry.ended = len(data), job.finished is not None

    def _remember(self, job: Job, size: int) -> None:
        # Whatever a file says that was found: nothing runs any more.
        self._entries[job.id] = _Entry(job.owner, job.started_at, job.repeat, size, ended=size > 0)
        self._owned.setdefault(job.owner, {})[job.id] = None
        self._sizes[job.owner] += size
        if job.repeat is not None:
            self._by_repeat[job.owner, job.repeat.key] = job.id

    def _forget_repeat(self, job_id: str) -> None:
        entry = self._entries.get(job_id)
        if entry is not None and entry.repeat is not None:
            self._by_repeat.pop((entry.owner, entry.repeat.key), None)
            entry.repeat = None

    def _forget(self, job_id: str) -> None:
        self._forget_repeat(job_id)
        entry = self._entries.pop(job_id, None)
        if entry is not None:
            self._sizes[entry.owner] -= entry.size
            del self._owned[entry.owner][job_id]
            if not self._owned[entry.owner]:
                del self._owned[entry.owner], self._sizes[entry.owner]
            self._path(job_id).unlink(missing_ok=True)

    def _forget_oldest(self, among: Iterable[str]) -> bool:
        """Remove the first of some jobs that has ended; whether there was one."""
        oldest = next((job_id for job_id in among if self._entries[job_id].ended), None)
        if oldest is not None:
            self._forget(oldest)
        return oldest is not None

    def _path(self, job_id: str) -> Path:
        return self._folder / f"{job_id}.json"


class SharedJobBook:
    """All kept answers of several hosts. A job carries the process that runs it, so that the others know whether its
    end can still come."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        #: jobs of this process that have not ended
        self._begun: dict[str, Job] = {}

    def knows(self, owner: str, digest: str) -> bool:
        """See KeptJobs."""
        return bool(self._cluster.command("EXISTS", _repeat_name(owner, digest)))

    def earlier(self, owner: str, repeat: Repeat) -> Job | None:
        """See KeptJobs."""
        found = self._cluster.command("GET", _repeat_name(owner, repeat.key))
        job = None if found is None else self.get(found.decode(), owner)
        if job is not None:
            _check_repeat(job.repeat, repeat, ended=job.finished is not None)
        return job

    def get(self, job_id: str, owner: str) -> Job | None:
        """See KeptJobs."""
        job, runner = self._read(job_id)
        if job is None or job.owner != owner:
            return None
        if job.finished is None and job.id not in self._begun and (self._is_mine(runner) or not self._lives(runner)):
            # Its end may have come in between.
            job, runner = self._read(job_id)
            if job is not None and job.finished is None:
                return msgspec.structs.replace(job, finished=_interrupted())
        return job

    def host_of(self, job: Job) -> str | None:
        """See KeptJobs."""
        found, runner = self._read(job.id)
        running = found is not None and found.finished is None and not self._is_mine(runner)
        return runner.rpartition(".")[0] if running else None

    def await_end(self, job: Job, seconds: float) -> Job:
        """See KeptJobs."""
        looks = int(seconds / LOOK_S)
        while job.finished is None and looks > 0:
            gevent.sleep(LOOK_S)
            looks -= 1
            job = self.get(job.id, job.owner) or job
        return job

    def add(self, job: Job) -> None:
        """See KeptJobs."""
        self._begun[job.id] = job
        try:
            taken = self._cluster.call("cb_job_add", job.id, job.owner, _digest(job), self._row(job), _KEPT_MS)
        except BridgeError:
            # It may have been kept all the same.
            gevent.spawn(self.drop, job.id)
            raise
        if taken:
            del self._begun[job.id]
            assert job.repeat is not None
            self.earlier(job.owner, job.repeat)
            raise _just_ended()

    def finish(self, job: Job, tries_left: int = MOST_TRIES) -> None:
        """See KeptJobs. An end that could not be kept is tried again later."""
        given, again, digest = job, _may_run_again(job), _digest(job)
        if again:
            job = msgspec.structs.replace(job, repeat=None)
        about = (job.id, job.owner, digest, int(again), self._row(job), _KEPT_MS, round(1000 * job.started_at))
        try:
            self._cluster.call("cb_job_end", *about, MOST_OF_KEY, MOST_SHARED_OF_KEY, MOST_SHARED)
        except BridgeError:
            # Those who wait for it on other hosts would wait for a day.
            if tries_left > 0:
                gevent.spawn_later(AGAIN_S, self._finish_again, given, tries_left - 1)
            raise
        self._begun.pop(job.id, None)

    def _finish_again(self, job: Job, tries_left: int) -> None:
        with contextlib.suppress(BridgeError):
            self.finish(job, tries_left)

    def drop(self, job_id: str) -> None:
        """See KeptJobs. Where that does not work it is tried again later: its Idempotency-Key must be free again."""
        job = self._begun.get(job_id)
        if job is not None:
            self._drop(job, MOST_TRIES)

    def _drop(self, job: Job, tries_left: int) -> None:
        if self._begun.get(job.id) is not job:
            return
        try:
            self._cluster.call("cb_job_drop", job.id, job.owner, _digest(job))
        except BridgeError as error:
            if tries_left > 0:
                gevent.spawn_later(AGAIN_S, self._drop, job, tries_left - 1)
                return
            log.warning("the beginning of %s could not be removed: %s", job.id, error.message)
        if self._begun.get(job.id) is job:
            del self._begun[job.id]

    def prune(self) -> None:
        """See KeptJobs: what is old goes by itself."""

    def _row(self, job: Job) -> bytes:
        return self._cluster.owner.encode() + b"\n" + msgspec.json.encode(job)

    def _read(self, job_id: str) -> tuple[Job | None, str]:
        """A job, and the process that runs or ran it."""
        row = self._cluster.command("GET", "{cb}:job:" + job_id)
        if row is None:
            return None, ""
        runner, _, data = row.partition(b"\n")
        try:
            return _decode(data), runner.decode()
        except msgspec.MsgspecError:
            hint = "Send a new request; or ask your admin whether all hosts have the same version of cli-bridge."
            raise BridgeError("storage_failed", "The kept answer cannot be read.", hint) from None

    def _is_mine(self, runner: str) -> bool:
        return runner.rpartition(".")[0] == self._cluster.node

    def _lives(self, runner: str) -> bool:
        # One that has just begun is not known here before the next beat.
        return self._cluster.alive(runner) or bool(self._cluster.command("HEXISTS", "{cb}:alive", runner))


_KEPT_MS = int(1000 * KEPT_S)


def _repeat_name(owner: str, digest: str) -> str:
    return f"{{cb}}:repeat:{owner}:{digest}"


def _digest(job: Job) -> str:
    return "-" if job.repeat is None else job.repeat.key


def _may_run_again(job: Job) -> bool:
    """Whether a job failed without cost, so that a repeated request runs."""
    assert job.finished is not None
    return isinstance(job.finished.result, Problem) and not job.finished.charge.cost_micro


def _check_repeat(first: Repeat | None, repeat: Repeat, *, ended: bool) -> None:
    """Raise BridgeError conflict where the first request with an Idempotency-Key was another, or has not ended."""
    if first != repeat:
        raise BridgeError(
            "conflict",
            "This Idempotency-Key was used with another request.",
            "Use a new Idempotency-Key for each new request.",
        )
    if not ended:
        raise BridgeError(
            "conflict",
            "The first request with this Idempotency-Key is still running.",
            "Send it again after the time in Retry-After.",
            retry_after=COME_AGAIN_S,
        )


def _just_ended() -> BridgeError:
    return BridgeError("conflict", "The first request with this Idempotency-Key has just ended.", retry_after=1)


def read(path: Path) -> Job:
    """The job in a file. Raises StoreError for anything but a whole one, and OSError."""
    hint = "Move that file away: only a kept answer is lost with it. Usage is not affected."
    try:
        job = _decode(path.read_bytes())
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise StoreError(f"jobs/{path.name} is damaged: {error}.", hint) from None
    if job.schema != SCHEMA or job.id != path.stem:
        raise StoreError(f"jobs/{path.name} is not a job of this version of cli-bridge.", hint)
    return job


def _interrupted() -> Finished:
    """The end of a job that a restart of the bridge cut off; the ledger knows what it was charged."""
    problem = Problem("cli_failed", "The bridge stopped in the middle of this request.")
    return Finished(problem, Charge(Usage(), 0, assumed=True), 0)


def _replace(path: Path, data: bytes) -> None:
    new = path.with_name(path.name + ".new")
    write_private(new, data)
    os.replace(new, path)
    sync_folder(path.parent)
