"""One database: SQLite beside the YAML by default. Opened once, brought to the newest schema, closed at the end."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, event, inspect, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from state.file import StateFile
from state.tables import REVISION

log = logging.getLogger(__name__)

DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}
BUSY_MILLISECONDS = 10_000

LOOK_SECONDS = 1.0
"""How often it is looked whether the file is there: who starts something else meanwhile would begin with a new one."""


class StateError(Exception):
    """The state database cannot be used; the message says why and what to do."""


@asynccontextmanager
async def reading(database: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection to read with. What goes wrong becomes ``StateError``."""
    try:
        async with _connected(database) as connection:
            yield connection
    except (SQLAlchemyError, OSError) as broken:
        raise StateError(f"the state database cannot be read: {_reason(broken)}") from broken


@asynccontextmanager
async def writing(database: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A transaction, committed at the end. What goes wrong becomes ``StateError``."""
    try:
        async with _connected(database) as connection, connection.begin():
            yield connection
    except (SQLAlchemyError, OSError) as broken:
        raise StateError(f"the state database cannot be written: {_reason(broken)}") from broken


@asynccontextmanager
async def _connected(database: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Whoever is cancelled has made it whole and given it back: else nobody would end its thread."""
    connection = database.connect()
    try:
        await _to_the_end(connection.start())
        yield connection
    finally:
        if connection.sync_connection is not None:
            await _to_the_end(connection.close())


async def _to_the_end(work: Coroutine[Any, Any, object]) -> None:
    """Whoever is cancelled meanwhile waits until it is done."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    finally:
        if not task.done():
            await asyncio.wait([task])


@asynccontextmanager
async def open_database(url: str) -> AsyncIterator[AsyncEngine]:
    """Open ``url`` at the newest schema. Raises ``StateError``. Several processes may have it open at once."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise StateError("state.url is no database address; write one such as sqlite:///state.db") from None
    asynchronous = parsed.set(drivername=DRIVERS.get(parsed.drivername, parsed.drivername))
    shown = parsed.render_as_string(hide_password=True)
    file = _file_of(parsed)
    try:
        engine = create_async_engine(asynchronous) if file is None else file.engine(asynchronous)
    except ModuleNotFoundError as missing:
        raise StateError(f"{shown} needs the package {missing.name}: pip install {missing.name}") from None
    except SQLAlchemyError as unknown:
        raise StateError(f"cannot use the state database {shown}: {unknown}") from None
    try:
        if parsed.drivername.startswith("sqlite"):
            event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        try:
            if file is not None:
                sqlite3.connect(file.path).close()  # aiosqlite's thread outlives a file it cannot open
            async with engine.begin() as connection:
                await connection.run_sync(migrate, shown)
        except (SQLAlchemyError, sqlite3.Error, OSError) as broken:
            raise StateError(f"cannot use the state database {shown}: {_reason(broken)}") from broken
        async with _kept(engine, file):
            yield engine
    finally:
        await engine.dispose()


@asynccontextmanager
async def _kept(engine: AsyncEngine, file: StateFile | None) -> AsyncIterator[None]:
    """While open, and once more at the end: a ``file`` that is gone is used, by which it is there again."""

    async def look() -> None:
        if file is not None and file.is_gone:
            with suppress(StateError):  # whoever uses it next is told
                async with reading(engine):
                    pass

    async def keep_looking() -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await look()

    looking = asyncio.create_task(keep_looking(), name="looking for the state database")
    try:
        yield
        await look()
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


def _file_of(url: URL) -> StateFile | None:
    """Of an SQLite database; None of one in memory, and where the address says more than that."""
    if not url.drivername.startswith("sqlite") or url.query or url.database in (None, "", ":memory:"):
        return None
    return StateFile(Path(str(url.database)))


def _reason(error: Exception) -> str:
    """What the driver said. SQLAlchemy's own text would show the statement and all that was to be written."""
    return str(error.orig) if isinstance(error, DBAPIError) else str(error)


def migrate(connection: Connection, shown: str) -> None:
    """Bring the schema up to date. Safe to run by two processes at once: the second finds nothing to do."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    if _revision(connection) == REVISION:
        return
    from alembic import command  # a sixth of a gateway's start, and of use but once a release
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as newer:
        raise StateError(f"the state database {shown} is of a newer Torpor than this one: {newer}") from newer


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _prepare_sqlite(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    try:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.close()
    except BaseException:
        connection.close()  # the pool does not know it yet, and its thread would outlive us
        raise
