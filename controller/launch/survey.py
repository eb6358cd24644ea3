"""What is there now: sessions, answers and records, brought together for each unit and instance."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import httpx2

from controller.config.model import FRONTEND, Config, Instance
from controller.fleet.keeper import Rest
from controller.launch.plan import Seen, find
from controller.launch.readiness import EngineProbe, Probe, ServiceProbe
from controller.launch.tmux import Pane, Tmux
from controller.launch.unit import Unit
from runtime.processes import identity, is_running, listener
from state.launches import Launch
from state.sleep_marks import SleepMarks

NOT_RUNNING = "not running"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a status table."""

    name: str
    model: str
    engine: str
    url: str
    state: str
    healthy: bool
    session: str | None


class Survey:
    """``units``: what is launched. Instances with a ``url`` are asked too, but have no session."""

    def __init__(
        self, config: Config, units: Sequence[Unit], tmux: Tmux, client: httpx2.AsyncClient, marks: SleepMarks
    ) -> None:
        self._config = config
        self._marks = marks
        self._units = {unit.name: unit for unit in units}
        self._tmux = tmux
        self.probes: dict[str, Probe] = {instance.name: EngineProbe(instance, client) for instance in config.instances}
        for unit in units:
            if unit.service is not None:
                self.probes[unit.name] = ServiceProbe(unit.url, unit.service.health, client)

    async def seen(self, units: Sequence[Unit], records: Mapping[str, Launch]) -> dict[str, Seen]:
        panes = await asyncio.to_thread(self._panes)
        found = await asyncio.gather(*(self._look(unit, panes, records.get(unit.name)) for unit in units))
        return {unit.name: seen for unit, seen in zip(units, found, strict=True)}

    def _panes(self) -> Sequence[Pane]:
        panes = self._tmux.panes()
        if any((pane.dead and not pane.status) or _has_ended(pane) for pane in panes):
            self._tmux.reap()
            panes = self._tmux.panes()
        return [replace(pane, dead=True) if _has_ended(pane) else pane for pane in panes]

    async def pane(self, unit: Unit) -> Pane | None:
        return find(unit, await asyncio.to_thread(self._tmux.panes))[0]

    async def rows(self, rests: Mapping[str, Rest], failures: Collection[str] = ()) -> list[Row]:
        """Every instance and its sidecar, the frontend last.

        ``rests``: why nothing of an instance runs. ``failures``: names known to have failed, whatever is seen.
        """
        services = [unit for unit in self._units.values() if unit.service is not None]
        seen = await self.seen(tuple(self._units.values()), {})
        rows = [self._row(instance, seen, rests, failures) for instance in self._config.instances]
        done = list(await asyncio.gather(*rows))
        for unit in sorted(services, key=lambda one: one.name == FRONTEND):
            assert unit.service is not None
            state, healthy = await self._state(unit.name, seen[unit.name])
            if unit.name in failures:
                state, healthy = "failed", False
            session = _session(unit, seen[unit.name])
            done.append(Row(unit.name, "", unit.service.kind, unit.url, state, healthy, session))
        return done

    async def _row(
        self, instance: Instance, seen: Mapping[str, Seen], rests: Mapping[str, Rest], failures: Collection[str]
    ) -> Row:
        spec, unit = instance.spec, self._units.get(instance.name)
        if unit is None:
            healthy = bool(await self.probes[instance.name].healthy())
            state = "runs elsewhere" if healthy else "elsewhere, no answer"
            return Row(instance.name, instance.model, spec.kind, spec.base_url, state, healthy, None)
        look = seen[instance.name]
        state, healthy = await self._state(instance.name, look)
        if state == NOT_RUNNING and (rest := rests.get(instance.name)) is not None:
            state, healthy = rest.cause, not rest.hold
        if instance.name in failures:
            state, healthy = "failed", False
        return Row(instance.name, instance.model, spec.kind, spec.base_url, state, healthy, _session(unit, look))

    async def _state(self, name: str, seen: Seen) -> tuple[str, bool]:
        if seen.pane is not None and not seen.pane.dead:
            if seen.healthy:
                return ("asleep" if await self._asleep(name) else "ready"), True
            return ("no answer" if seen.healthy is None else "starting"), False
        if seen.serving:
            return "ready, outside tmux", True
        if seen.strange is not None:
            return "not running; its session is another's", False
        return (f"died ({seen.pane.status or 'how is not known'})" if seen.pane is not None else NOT_RUNNING), False

    async def _asleep(self, name: str) -> bool:
        """By the engine's own word; where it cannot be asked, by the gateway's mark about the process that answers."""
        asleep = await self.probes[name].is_asleep()
        if asleep is not None or self._is_service(name):
            return bool(asleep)
        mark = (await self._marks.all()).get(name)
        return mark is not None and mark.process == await asyncio.to_thread(listener, self._units[name].port)

    def _is_service(self, name: str) -> bool:
        return name in self._units and self._units[name].service is not None

    async def _look(self, unit: Unit, panes: Sequence[Pane], record: Launch | None) -> Seen:
        pane, strange = find(unit, panes)
        probe = self.probes[unit.name]
        if pane is not None and not pane.dead:
            return Seen(pane, healthy=await probe.healthy(), record=record)
        serving = await probe.recognised()
        ours = record is not None and await asyncio.to_thread(is_running, record.process)
        return Seen(pane, strange, healthy=serving, serving=serving, ours=ours, record=record)


def _has_ended(pane: Pane) -> bool:
    """Whether the program in a pane of ours has ended, and tmux has not noticed."""
    return bool(pane.config) and not pane.dead and identity(pane.pid) is None


def _session(unit: Unit, seen: Seen) -> str | None:
    return unit.session if seen.pane is not None else None
