"""Work that outlasts its request: downloads and loads, each once, with progress, a result or an error, and an end."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from runtime.downloads.progress import Progress
from runtime.sidecar.problems import EXPECTED, Conflict, Failure, NotFound, failure_of

log = logging.getLogger(__name__)

KEPT = 500
"""Ended jobs that are remembered, and jobs that may run at once."""
NOTHING_YET = Progress(0, None, 0, None)


class Status(StrEnum):
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass
class Job:
    """``claims``: names and folders that no other job may change meanwhile. ``shown``: of the request, no secrets.

    ``final``: it is past the point where it can be called off.
    """

    id: str
    kind: str
    request: Any
    claims: frozenset[str]
    shown: Mapping[str, Any]
    created_at: float
    status: Status = Status.RUNNING
    phase: str = "downloading"
    progress: Progress = NOTHING_YET
    result: Any = None
    failure: Failure | None = None
    error: Exception | None = None
    finished_at: float | None = None
    final: bool = False
    task: asyncio.Task[None] | None = field(default=None, repr=False)

    def told(self, progress: Progress) -> None:
        self.progress = progress

    def go_on(self, phase: str) -> None:
        """To the last ``phase``, which ends by itself."""
        self.phase, self.final = phase, True
        self.note(phase)

    def note(self, what: str) -> None:
        """A line in the log."""
        about = ", ".join(f"{key} {value}" for key, value in self.shown.items() if value)
        log.info("job %s (%s; %s): %s", self.id, self.kind, about, what)

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "kind": self.kind,
            "status": self.status,
            "phase": self.phase if self.status is Status.RUNNING else None,
            **self.shown,
            "created_at": self.created_at,
            "finished_at": self.finished_at,
            "progress": asdict(self.progress),
            "result": self.result,
            "error": None if self.failure is None else asdict(self.failure),
        }


Work = Callable[[Job], Awaitable[Any]]


class Jobs:
    """All jobs of this process. Their tasks are cancelled by ``close``."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._jobs: dict[str, Job] = {}
        self._clock = clock

    def start(self, kind: str, request: Any, claims: frozenset[str], shown: Mapping[str, Any], work: Work) -> Job:
        """Begin, or join the one that is at the same request. ``Conflict`` when another has the name or the folder."""
        running = [job for job in self._jobs.values() if job.status is Status.RUNNING]
        for other in running:
            if other.kind == kind and other.request == request:
                return other
            if taken := other.claims & claims:
                raise Conflict(f"job {other.id} ({other.kind}) is at work on {', '.join(sorted(taken))}")
        if len(running) >= KEPT:
            raise Conflict(f"{KEPT} jobs are running")
        job = Job(secrets.token_hex(8), kind, request, claims, shown, self._clock())
        self._jobs[job.id] = job
        job.note("begins")
        job.task = asyncio.create_task(self._run(job, work))
        job.task.add_done_callback(lambda task: self._ended(job, task.cancelled()))
        self._forget()
        return job

    def get(self, identity: str) -> Job:
        job = self._jobs.get(identity)
        if job is None:
            raise NotFound(f"there is no job {identity[:40]!r}")
        return job

    def all(self) -> list[Job]:
        return list(self._jobs.values())

    def running(self) -> list[Job]:
        return [job for job in self._jobs.values() if job.status is Status.RUNNING]

    def last(self, kind: str, request: Any) -> Job | None:
        """The newest one with this request, ended or not."""
        found = [job for job in self._jobs.values() if job.kind == kind and job.request == request]
        return found[-1] if found else None

    def forget(self, job: Job) -> None:
        """One that has ended."""
        self._jobs.pop(job.id, None)

    async def wait(self, job: Job) -> Any:
        """Its result, or its error raised. Whoever waits may go; the job goes on."""
        assert job.task is not None
        await asyncio.wait([job.task])
        if job.status is Status.CANCELLED:
            raise Conflict(f"job {job.id} was cancelled")
        if job.error is not None:
            raise job.error
        return job.result

    async def cancel(self, identity: str) -> Job:
        """End it and see that it has ended. One that has ended stays as it is; one too far gone is a ``Conflict``."""
        job = self.get(identity)
        if job.status is Status.RUNNING and job.task is not None:
            if job.final:
                raise Conflict(f"job {job.id} has its files and is {job.phase}: that ends by itself")
            job.task.cancel()
            await asyncio.wait([job.task])
        return job

    async def close(self) -> None:
        tasks = [job.task for job in self.running() if job.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, job: Job, work: Work) -> None:
        try:
            job.result = await work(job)
            job.status = Status.COMPLETED
            job.note(f"completed, {size} bytes" if (size := job.progress.done_bytes) else "completed")
        except Exception as error:
            job.error, job.failure, job.status = error, failure_of(error), Status.FAILED
            if isinstance(error, EXPECTED):
                log.warning("job %s (%s): %s", job.id, job.kind, job.failure.message)
            else:
                log.error("job %s (%s)", job.id, job.kind, exc_info=error)

    def _ended(self, job: Job, cancelled: bool) -> None:
        """Also of one that was cancelled before it had begun."""
        if cancelled:
            job.status = Status.CANCELLED
            job.note("cancelled")
        job.finished_at = self._clock()

    def _forget(self) -> None:
        """The oldest that have ended, beyond what is kept."""
        ended = [job for job in self._jobs.values() if job.status is not Status.RUNNING]
        for job in ended[: max(0, len(ended) - KEPT)]:
            del self._jobs[job.id]
