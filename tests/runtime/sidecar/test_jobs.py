"""Jobs: joined, kept apart, cancelled, remembered for a while."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from runtime.sidecar import jobs as module
from runtime.sidecar.jobs import Job, Jobs, Status
from runtime.sidecar.problems import BadRequest, Conflict, NotFound

pytestmark = pytest.mark.anyio


class Work:
    """Ends when it is told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.go_on = asyncio.Event()
        self.error = error
        self.begun = 0

    async def __call__(self, job: Job) -> Any:
        self.begun += 1
        await self.go_on.wait()
        if self.error is not None:
            raise self.error
        return {"done": True}


def start(jobs: Jobs, work: Work, request: str = "r", *claims: str, kind: str = "k") -> Job:
    return jobs.start(kind, request, frozenset(claims), {"request": request}, work)


async def test_the_same_request_joins() -> None:
    """Another kind, or another request for the same thing, does not."""
    jobs, work = Jobs(), Work()
    first = start(jobs, work, "r", "a")
    assert start(jobs, work, "r", "a") is first
    for other in (("r2", "a", "b"), ("r3", "b", "a")):
        with pytest.raises(Conflict, match=first.id):
            start(jobs, work, *other)
    with pytest.raises(Conflict):
        start(jobs, work, "r", "a", kind="other")
    work.go_on.set()
    assert await jobs.wait(first) == {"done": True}
    assert start(jobs, work, "r", "a") is not first
    assert work.begun == 1
    await jobs.close()


async def test_what_came_of_it_is_kept() -> None:
    """Result or error, with times; all who wait are told the same."""
    ticks = iter(range(100))
    jobs = Jobs(clock=lambda: float(next(ticks)))
    good, bad = Work(), Work(BadRequest("why"))
    for work in (good, bad):
        work.go_on.set()
    one, two = start(jobs, good, "1"), start(jobs, bad, "2")
    assert [await jobs.wait(one), await jobs.wait(one)] == [{"done": True}] * 2
    with pytest.raises(BadRequest, match="why"):
        await jobs.wait(two)
    told = two.as_json()
    assert (told["status"], told["error"]["status"], told["error"]["message"]) == ("failed", 400, "why")
    assert one.as_json()["result"] == {"done": True}
    assert one.finished_at is not None
    assert one.finished_at > one.created_at
    assert jobs.last("k", "2") is two
    jobs.forget(two)
    with pytest.raises(NotFound):
        jobs.get(two.id)


@pytest.mark.parametrize("begun", [True, False])
async def test_cancelled_is_cancelled(begun: bool) -> None:
    """Also before it has begun; who waits is told, and what has ended stays as it was."""
    jobs, work = Jobs(), Work()
    job = start(jobs, work)
    if begun:
        await asyncio.sleep(0)
    waiting = asyncio.create_task(jobs.wait(job))
    assert (await jobs.cancel(job.id)).status is Status.CANCELLED
    assert work.begun == int(begun)
    with pytest.raises(Conflict, match="cancelled"):
        await waiting
    assert (await jobs.cancel(job.id)).status is Status.CANCELLED
    assert job.finished_at is not None


async def test_one_that_is_too_far_gone_ends_by_itself() -> None:
    """But not at the end of all."""
    jobs, work = Jobs(), Work()
    job = start(jobs, work)
    job.final, job.phase = True, "loading"
    with pytest.raises(Conflict, match="loading"):
        await jobs.cancel(job.id)
    await jobs.close()
    assert job.status is Status.CANCELLED
    assert jobs.running() == []


async def test_old_ones_are_forgotten_and_few_may_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest are kept; who asks for ever more is refused."""
    monkeypatch.setattr(module, "KEPT", 3)
    jobs, quick, slow = Jobs(), Work(), Work()
    quick.go_on.set()
    ended = []
    for number in range(6):
        ended.append(start(jobs, quick, str(number)))
        await jobs.wait(ended[-1])
    running = [start(jobs, slow, f"slow {number}") for number in range(3)]
    assert [job for job in jobs.all() if job.status is Status.COMPLETED] == ended[-3:]
    with pytest.raises(Conflict, match="3 jobs are running"):
        start(jobs, slow, "one more")
    await jobs.close()
    assert {job.status for job in running} == {Status.CANCELLED}
