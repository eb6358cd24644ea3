"""The fleet with all that it stands on, as one context: database, engine clients, watchers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from controller.config.model import Config
from controller.fleet.fleet import Fleet
from runtime.engines.control import open_client
from runtime.engines.kinds import KINDS
from state.database import open_database
from state.launches import Launches
from state.sleep_marks import SleepMarks


@asynccontextmanager
async def open_fleet(config: Config) -> AsyncIterator[Fleet]:
    """Every instance has been looked at when this opens. Raises ``StateError`` when the database cannot be used."""
    async with open_database(config.state_url) as database, open_client() as client:
        engines = {
            one.name: KINDS[one.spec.kind].connect(one.spec, client, one.sleep.wake_timeout_seconds)
            for one in config.instances
        }
        fleet = Fleet(config, engines, SleepMarks(database), Launches(database))
        async with fleet.watched():
            yield fleet
