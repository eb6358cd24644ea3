"""One writer at a time, whatever the moment."""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.downloads import lock
from runtime.downloads.lock import only_writer
from tests.runtime.downloads.stage import names


async def nothing() -> None:
    """What a waiter has to do."""


@pytest.mark.anyio
async def test_many_writers_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None meets another, all get in, and the file is gone in the end."""
    monkeypatch.setattr(lock, "POLL_SECONDS", 0.0)
    inside, entered = 0, 0

    async def write() -> None:
        nonlocal inside, entered
        async with only_writer(tmp_path / "lock", nothing):
            inside += 1
            assert inside == 1
            await asyncio.sleep(0)
            inside -= 1
            entered += 1

    await asyncio.gather(*(write() for _ in range(20)))
    assert entered == 20
    assert names(tmp_path) == []


def test_a_lock_that_was_deleted_meanwhile_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opened before its holder let go, locked after somebody else had made a new one: two would be holders."""
    path, real = tmp_path / "lock", fcntl.flock
    held: list[int | None] = [lock._take(path)]

    def late(descriptor: int, operation: int) -> None:
        if len(held) == 1:
            assert held[0] is not None
            held.append(None)
            lock._release(path, held[0])
            held[1] = lock._take(path)
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    assert lock._take(path) is None
    assert held[1] is not None
    lock._release(path, held[1])


@pytest.mark.anyio
async def test_a_killed_holder_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel lets go for it; its file does not count."""
    monkeypatch.setattr(lock, "POLL_SECONDS", 0.005)
    program = (
        "import pathlib, sys, time; from runtime.downloads import lock; "
        "lock._take(pathlib.Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    )
    command = (sys.executable, "-c", program, str(tmp_path / "lock"))
    holder = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"held\n"
    waited = asyncio.Event()

    async def kill() -> None:
        waited.set()
        holder.kill()

    async with only_writer(tmp_path / "lock", kill):
        assert waited.is_set()
    await holder.communicate()


def test_whoever_only_names_sources_loads_no_librarys_weight() -> None:
    """The gateway imports this; the hub's library takes a tenth of a second."""
    program = (
        "import sys, runtime.downloads.keyed, runtime.downloads.fetch; "
        "sys.exit(bool({'huggingface_hub', 'obstore'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", program], env=dict(os.environ)).returncode == 0
