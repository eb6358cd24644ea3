"""The file of an SQLite database while it is in use. Whoever has it open goes on when it is deleted, for nothing."""

from __future__ import annotations

import logging
import os
import sqlite3
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

from sqlalchemy import URL, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

log = logging.getLogger(__name__)


class StateFile:
    """Looked at whenever it is used. When it was deleted it is written again, as the open connection knows it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: tuple[int, int] | None = None
        self._lost = False

    @property
    def is_gone(self) -> bool:
        """Whether it is another one than the connection has open, or none."""
        return self._identity() != self._known

    def engine(self, url: URL) -> AsyncEngine:
        """With one connection, which alone knows what was in a file that is gone, and never makes another one."""
        existing = url.set(database=f"file:{quote(str(self.path))}", query={"mode": "rw", "uri": "true"})
        engine = create_async_engine(existing, pool_size=1, max_overflow=0)
        event.listen(engine.sync_engine, "connect", self._opened)
        event.listen(engine.sync_engine, "checkout", self._used)
        return engine

    def _opened(self, connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
        self._known = self._identity()

    def _used(self, connection: DBAPIConnection, entry: ConnectionPoolEntry, lent: PoolProxiedConnection) -> None:
        there = self._identity()
        if there == self._known:
            return
        try:
            again = there is None and self._write_again(connection)
        except (sqlite3.Error, OSError) as broken:
            if not self._lost:
                log.error("the state database %s was deleted in use, and cannot be written: %s", self.path, broken)
            self._lost = True
            return  # what still knows all is kept, until it can be
        self._lost = False
        if again:
            log.error("the state database %s was deleted in use, and is written again as it was", self.path)
        else:
            log.error("the state database %s is another file than it was: that one is used from now on", self.path)
        raise DisconnectionError("it is open on a file that is gone")  # and is opened anew

    def _identity(self) -> tuple[int, int] | None:
        """None where nothing can be seen."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _write_again(self, connection: DBAPIConnection) -> bool:
        """False where somebody else has been faster."""
        copy = self.path.with_name(f".{self.path.name}.{uuid4().hex}")
        cursor = connection.cursor()
        try:
            cursor.execute("VACUUM INTO ?", (str(copy),))
        finally:
            cursor.close()
        for suffix in ("-wal", "-shm"):  # of the one that is gone: they would be taken for the new one's
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        try:
            os.link(copy, self.path)
        except FileExistsError:
            return False
        finally:
            copy.unlink()
        return True
