"""The state database: opened by several at once, kept through a kill, and clear about what is wrong."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import AsyncAdaptedQueuePool, Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

from state.database import StateError, open_database, reading, writing
from state.sleep_marks import Phase, SleepMark, SleepMarks
from state.tables import REVISION, metadata

pytestmark = pytest.mark.anyio

OPEN = """
import asyncio, sys
from state.database import open_database
from state.sleep_marks import Phase, SleepMark, SleepMarks

async def main(url, name):
    async with open_database(url) as database:
        await SleepMarks(database).put(SleepMark(name, Phase.ASLEEP, 1, "manual", 1.0, None))
        print("written", flush=True)
        if len(sys.argv) > 3:
            await asyncio.sleep(60)

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


def mark(name: str) -> SleepMark:
    return SleepMark(name, Phase.ASLEEP, 1, "manual", 1.0, None)


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", OPEN, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


async def test_migrations_make_the_tables(tmp_path: Path) -> None:
    """What the migrations build is what the code believes; else a migration is missing."""

    def differences(connection: Connection) -> object:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return compare_metadata(context, metadata)

    async with open_database(f"sqlite:///{tmp_path}/s.db") as database, database.connect() as connection:
        assert await connection.run_sync(differences) == []
        assert (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar() == REVISION


async def test_opening_again_keeps_what_is_there(tmp_path: Path) -> None:
    """The second opening finds the schema up to date and the rows in place."""
    url = f"sqlite:///{tmp_path}/s.db"
    async with open_database(url) as database, database.begin() as connection:
        await connection.execute(text("INSERT INTO sleep_marks VALUES ('a', 'asleep', 1, 'idle', 1.0, NULL)"))
    async with open_database(url) as database, database.connect() as connection:
        assert (await connection.execute(text("SELECT instance FROM sleep_marks"))).scalars().all() == ["a"]


def test_processes_may_open_a_new_file_at_once(tmp_path: Path) -> None:
    """Launcher and router start together: one migrates, the others wait, and each can write."""
    file = tmp_path / "s.db"
    processes = [start(f"sqlite:///{file}", f"i{number}") for number in range(4)]
    ends = [process.communicate(timeout=50) for process in processes]
    assert [(process.returncode, errors) for process, (_, errors) in zip(processes, ends, strict=True)] == [(0, "")] * 4
    with sqlite3.connect(file) as connection:
        rows = connection.execute("SELECT instance FROM sleep_marks ORDER BY instance").fetchall()
    connection.close()
    assert rows == [("i0",), ("i1",), ("i2",), ("i3",)]


async def test_what_was_written_survives_a_kill(tmp_path: Path) -> None:
    """After kill -9 the file opens, and every finished write is there."""
    url = f"sqlite:///{tmp_path}/s.db"
    process = start(url, "slept", "stay")
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=10)
    async with open_database(url) as database, database.connect() as connection:
        assert (await connection.execute(text("SELECT instance FROM sleep_marks"))).scalars().all() == ["slept"]


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("nonsense", "no database address"),
        ("", "no database address"),
        ("postgresql://host:port/db", "no database address"),
        ("bogus://host/db", "cannot use the state database"),
        ("sqlite:///{folder}/missing/s.db", "cannot use the state database"),
        ("sqlite:///{folder}", "cannot use the state database"),
        ("sqlite+pysqlite:///{folder}/s.db", "cannot use the state database"),
        ("postgresql://me:secret@127.0.0.1:1/db", "pip install asyncpg"),
    ],
)
async def test_a_database_that_cannot_be_used(url: str, problem: str, tmp_path: Path) -> None:
    """A StateError says which and why, and shows no password."""
    with pytest.raises(StateError, match=problem) as caught:
        async with open_database(url.replace("{folder}", str(tmp_path))):
            pass
    assert "secret" not in str(caught.value)


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    """It is left as it was."""
    file = tmp_path / "s.db"
    file.write_text("this is not a database, but it is long enough to look at" * 20)
    before = file.read_bytes()
    with pytest.raises(StateError, match="not a database"):
        async with open_database(f"sqlite:///{file}"):
            pass
    assert file.read_bytes() == before


async def test_a_database_of_a_newer_version(tmp_path: Path) -> None:
    """It is not touched: the message says that it is newer."""
    url = f"sqlite:///{tmp_path}/s.db"
    async with open_database(url) as database, database.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StateError, match="9999"):
        async with open_database(url):
            pass


def names_in(folder: Path) -> list[str]:
    return [part.name for part in folder.iterdir()]


def delete(folder: Path, all_but: tuple[str, ...] = ()) -> None:
    for part in folder.iterdir():
        if not part.name.endswith(all_but):
            part.unlink()


@pytest.mark.parametrize("leftover", [(), ("-wal", "-shm")], ids=["all of it", "not what goes with it"])
async def test_one_that_is_deleted_in_use_is_written_again(
    tmp_path: Path, leftover: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is lost, whoever had it open and whoever opens it next."""
    file = tmp_path / "s.db"
    url = f"sqlite:///{file}"
    async with open_database(url) as database, open_database(url) as other:
        marks, others = SleepMarks(database), SleepMarks(other)
        await asyncio.gather(*(marks.put(mark(f"{number}")) for number in range(3)), others.put(mark("b")))
        delete(tmp_path, all_but=leftover)
        await asyncio.gather(*(marks.put(mark(f"after {number}")) for number in range(5)))
        assert "was deleted in use, and is written again" in caplog.text
        await others.put(mark("c"))
        assert set(await marks.all()) == set(await others.all())
        file.unlink()  # and nothing is done any more
    assert names_in(tmp_path) == ["s.db"]
    async with open_database(url) as database:
        assert len(await SleepMarks(database).all()) == 10
        async with reading(database) as connection:
            assert (await connection.execute(text("PRAGMA integrity_check"))).scalar() == "ok"


async def test_one_that_nobody_uses_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that is started meanwhile finds it."""
    monkeypatch.setattr("state.database.LOOK_SECONDS", 0.01)
    file = tmp_path / "s.db"
    async with open_database(f"sqlite:///{file}"):
        file.unlink()
        async with asyncio.timeout(10):
            while not names_in(tmp_path):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        async with open_database(f"sqlite:///{file}") as next_one:
            assert await SleepMarks(next_one).all() == {}


async def test_one_that_was_put_in_its_place_is_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Made by a launcher, say, that has found none."""
    url = f"sqlite:///{tmp_path}/s.db"
    async with open_database(url) as database:
        await SleepMarks(database).put(mark("old"))
        delete(tmp_path)
        async with open_database(url) as other:
            await SleepMarks(other).put(mark("new"))
        assert set(await SleepMarks(database).all()) == {"new"}
        assert "is another file than it was" in caplog.text


async def test_one_that_cannot_be_written_again_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is as soon as it can be; that it cannot is said once."""
    folder = tmp_path / "folder"
    folder.mkdir()
    url = f"sqlite:///{folder}/s.db"
    async with open_database(url) as database:
        await SleepMarks(database).put(mark("before"))
        shutil.rmtree(folder)
        for name in "ab":
            await SleepMarks(database).put(mark(name))
        assert caplog.text.count("cannot be written: unable to open database") == 1
        folder.mkdir()
        await SleepMarks(database).put(mark("after"))
    async with open_database(url) as database:
        assert set(await SleepMarks(database).all()) == {"before", "a", "b", "after"}


async def test_an_error_of_the_caller_stays_its_own(tmp_path: Path) -> None:
    """Only what the database did becomes a StateError."""
    with pytest.raises(OSError, match="mine"):
        async with open_database(f"sqlite:///{tmp_path}/s.db"):
            raise OSError("mine")


async def test_a_database_in_memory() -> None:
    """Good for a try: nothing is kept."""
    async with open_database("sqlite://") as database, database.connect() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM sleep_marks"))).scalar() == 0


@pytest.mark.parametrize("using", [reading, writing])
@pytest.mark.parametrize("step", ["create_function", "rollback"])
async def test_who_is_cancelled_leaves_no_connection_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, using: Any, step: str
) -> None:
    """While one is made, or given back: that is done before the database can be closed, or its thread would stay."""
    made, go_on, original = asyncio.Event(), asyncio.Event(), getattr(aiosqlite.Connection, step)

    async def slow(*given: Any, **more: Any) -> None:
        made.set()
        await go_on.wait()
        await original(*given, **more)

    async def use(database: AsyncEngine) -> None:
        async with using(database) as connection:
            await connection.execute(text("SELECT 1"))

    async with open_database(f"sqlite:///{tmp_path}/s.db") as database:
        await database.dispose()  # so that one is made
        monkeypatch.setattr(aiosqlite.Connection, step, slow)
        task = asyncio.create_task(use(database))
        await made.wait()
        task.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        pool = database.pool
        assert isinstance(pool, AsyncAdaptedQueuePool)
        assert (pool.checkedout(), pool.checkedin()) == (0, 1)
        await use(database)
        assert (pool.checkedout(), pool.checkedin()) == (0, 1)
    del task
    gc.collect()  # warns of what was not closed
