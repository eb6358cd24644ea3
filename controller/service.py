"""The fleet with all that it stands on, as one context: database, engine clients, watchers, adapters."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace

from controller.adapters.artifacts import Artifacts
from controller.adapters.controller import AdapterController
from controller.adapters.credentials import Credentials
from controller.adapters.delegate import Sidecar
from controller.adapters.ground import Ground
from controller.config.model import Config
from controller.config.model import Instance as InstanceConfig
from controller.fleet.chronicle import Chronicle
from controller.fleet.fleet import Fleet
from controller.fleet.instance import Instance
from controller.fleet.journal import Happened
from controller.launch.unit import launchers_environment
from controller.residency.arbiter import Arbiter, arbitrated
from controller.residency.footprint import Footprint
from controller.residency.meter import metered
from controller.residency.occupancy import lost
from controller.residency.seniority import Seniority, recall
from controller.supervisor.keeper import LaunchKeeper
from controller.supervisor.sidecars import Sidecars
from controller.supervisor.supervisor import Supervisor
from runtime import settings
from runtime.downloads.keyed import fetch_keyed
from runtime.engines.base import Engine
from runtime.engines.control import Control, open_client
from runtime.engines.kinds import KINDS
from runtime.gpus import Nvml
from state.adapters import Adapters
from state.database import open_database
from state.desired_states import DesiredStates
from state.events import Events
from state.footprints import Footprints, Measurement
from state.launches import Launches
from state.sleep_marks import SleepMarks

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Company:
    """The fleet, and who works on it."""

    fleet: Fleet
    adapters: AdapterController
    arbiter: Arbiter
    chronicle: Chronicle
    supervisor: Supervisor


@asynccontextmanager
async def open_fleet(config: Config, *, has_predecessor: bool = False) -> AsyncIterator[Company]:
    """Every instance has been looked at when this opens, and those that are up have their adapters.

    ``has_predecessor``: another gateway has requests in flight there.
    Raises ``StateError`` when the database cannot be used.
    """
    async with open_database(config.state_url) as database, open_client() as client:

        def connect(config: InstanceConfig, key: str | None) -> Engine:
            spec = replace(config.spec, api_key=key)
            return KINDS[spec.kind].connect(spec, client, config.sleep.wake_timeout_seconds)

        fleet = Fleet(config, lambda one: connect(one, one.spec.api_key), SleepMarks(database), Launches(database))
        fleet.has_predecessor = has_predecessor
        credentials = Credentials(config.credentials_file, config.credentials)
        artifacts = Artifacts(config.adapters_folder, fetch_keyed, credentials, settings.read())

        def beside(instance: Instance, key: str | None) -> Sidecar | None:
            sidecar, spec = instance.config.sidecar, instance.config.spec
            if sidecar is None:
                return None
            address = replace(spec, name=sidecar.name, base_url=sidecar.url, api_key=key)
            return Sidecar(Control(address, client), spec.call_seconds)

        ground = Ground(
            fleet,
            Adapters(database),
            artifacts,
            credentials,
            lambda instance, key: connect(instance.config, key),
            beside,
        )
        adapters = AdapterController(ground)
        await adapters.restore(config.adapters)
        chronicle = Chronicle(fleet.journal, Events(database))
        desired = DesiredStates(database)
        keeper = LaunchKeeper(fleet, launchers_environment(), Launches(database), desired, SleepMarks(database), client)
        fleet.put_in_keeping(keeper)
        measured = await Footprints(database).all()
        await count_lost(fleet, await keeper.processes(), Launches(database), SleepMarks(database), measured)
        supervisor = Supervisor(fleet, keeper, desired)
        for wake in await chronicle.last(Happened.WOKEN):
            if (one := fleet.instances.get(wake.instance)) is not None and wake.seconds is not None:
                one.remember_wake(wake.level or 0, wake.seconds)
        async with (
            aclosing(keeper),
            chronicle.kept(),
            metered(fleet, Nvml(), Footprints(database)) as meter,
            arbitrated(fleet, meter.capacity, await _seniority(fleet, chronicle)) as arbiter,
            fleet.watched(),
            adapters.running(),
            supervisor.running(),
            Sidecars(fleet, keeper).running(),
        ):
            yield Company(fleet, adapters, arbiter, chronicle, supervisor)


async def count_lost(
    fleet: Fleet,
    processes: Mapping[str, bool],
    launches: Launches,
    marks: SleepMarks,
    measured: Mapping[str, Measurement],
) -> None:
    """Have ``fleet`` count what the configuration has lost since it was launched. ``processes``: whether they run."""
    launched, kept = await launches.all(), await marks.all()
    for one in lost(fleet.config, launched):
        if processes.get(one.name):
            log.warning("%s is not in the configuration any more, but still runs: what it holds is counted", one.name)
            mark, figures = kept.get(one.name), measured.get(one.name)
            fleet.count(
                one,
                mark if mark is not None and mark.since >= launched[one.name].launched_at else None,
                Footprint(figures.awake, figures.asleep) if figures is not None else None,
            )


async def _seniority(fleet: Fleet, chronicle: Chronicle) -> Seniority:
    return recall(await chronicle.last(Happened.WAITS), fleet.clock(), fleet.wall())
