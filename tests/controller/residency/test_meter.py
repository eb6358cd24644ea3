"""Figures are learned from what engines are seen to hold, and memory is free when it is seen to be."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from controller.config.load import load
from controller.fleet.fleet import Fleet
from controller.fleet.keeper import NoKeeper
from controller.fleet.state import State
from controller.residency import meter, release, tenants
from controller.residency.arbiter import Arbiter, arbitrated
from controller.residency.footprint import Footprint
from controller.residency.ledger import Ledger
from controller.residency.memory import GIB
from controller.residency.meter import Scale, metered
from runtime.gpus import Gpu, Panel
from state.database import open_database
from state.footprints import Footprints, Measurement
from state.launches import Launches
from state.sleep_marks import SleepMarks
from tests.controller.fleet.stage import FakeEngine, Stage, Steps
from tests.controller.residency.fake_gpus import FakeGpus

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "POLL_SECONDS", 0.001)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """What the engine's processes hold of the machine's memory: ``size``."""
    sizes = {"size": 4 * GIB}
    monkeypatch.setattr(meter, "resident", lambda _: sizes["size"])
    return sizes


def amount(**gibs: float) -> dict[str, int]:
    return {place: round(size * GIB) for place, size in gibs.items()}


class Weighed(Stage):
    """A stage with its instance on the scales. ``kept``: what was learned, the last one last."""

    def __init__(self, *totals: float, footprint: Footprint | None = None, **env: str) -> None:
        super().__init__()
        config = self.instance.config
        config = replace(config, footprint=footprint, spec=replace(config.spec, env=env))
        self.instance.configure(config, self.engine)
        self.gpus = FakeGpus(*totals)
        self.kept: list[Footprint] = []
        self.scale = Scale(self.transitions, Panel(self.gpus).read, self._keep)
        self.transitions.scales = self.scale.before

    async def _keep(self, _: object, measured: Footprint) -> None:
        self.kept.append(measured)

    def holds(self, number: int = 0, **gib: float) -> None:
        """What its two processes hold of a GPU, in GiB."""
        self.gpus.held[number] = {1: gib["one"], 2: gib.get("two", 0.0), 99: 3.0}

    async def sleep(self) -> None:
        await self.transitions.sleep("manual", 5)


async def test_what_it_takes_awake_is_learned_when_it_is_ready(host: dict[str, int]) -> None:
    """Of all its processes and GPUs, and of nobody else's. From then on it takes part."""
    stage = Weighed(80, 80)
    stage.holds(0, one=20, two=2)
    stage.holds(1, one=20.5)
    config = stage.instance.config
    assert tenants.footprint_of(stage.instance) is tenants.NO_FIGURES
    assert not tenants.has_figures(stage.instance)
    await stage.scale.measure()
    assert stage.kept == [Footprint(amount(gpu0=22, gpu1=20.5))]
    assert tenants.footprint_of(stage.instance).awake == amount(gpu0=22, gpu1=20.5)
    assert tenants.has_figures(stage.instance)
    assert config.footprint is None


async def test_a_process_is_measured_once(host: dict[str, int]) -> None:
    """What it does with its memory later says nothing about the next one; another process is measured anew."""
    stage = Weighed(80)
    stage.holds(one=20)
    await stage.scale.measure()
    stage.holds(one=25)
    await stage.scale.measure()
    assert [one.awake for one in stage.kept] == [amount(gpu0=20)]
    stage.origin.now = "2:200"
    await stage.scale.measure()
    assert [one.awake for one in stage.kept] == [amount(gpu0=20), amount(gpu0=25)]
    stage.origin.now = "3:300"
    stage.holds(one=15)
    await stage.scale.measure()
    assert stage.kept[-1].awake == amount(gpu0=25), "the ledger must not be too small"


async def test_an_elastic_cache_is_its_weights_and_a_floor(host: dict[str, int]) -> None:
    """kvcached's grows with use: what another gateway saw in the midst of it is no need."""
    stage = Weighed(80, ENABLE_KVCACHED="true")
    stage.scale.remember(Footprint(amount(gpu0=60)))
    stage.holds(one=20)
    await stage.scale.measure()
    assert tenants.footprint_of(stage.instance).awake == amount(gpu0=20)


async def test_asleep_it_is_learned_at_its_level(host: dict[str, int]) -> None:
    """With what it took of the host beyond what it had there awake; other levels keep their careful figures."""
    stage = Weighed(80)
    stage.holds(one=20)
    await stage.scale.measure()
    assert tenants.footprint_of(stage.instance).asleep[1] == amount(gpu0=2, host=20)
    stage.holds(one=1)
    await stage.sleep()
    host["size"] += 17 * GIB
    await stage.scale.measure()
    learned = tenants.footprint_of(stage.instance)
    assert learned.asleep == {1: amount(gpu0=1, host=17), 2: amount(gpu0=2)}
    assert stage.kept[-1] == Footprint(amount(gpu0=20), {1: amount(gpu0=1, host=17)})


async def test_one_that_was_found_asleep_takes_no_part_before_it_was_seen_awake(host: dict[str, int]) -> None:
    """It would seem to need nothing. What the host gave it is not known either."""
    stage = Weighed(80)
    await stage.sleep()
    stage.holds(one=1)
    await stage.scale.measure()
    assert not tenants.has_figures(stage.instance)
    await stage.transitions.wake("manual")
    stage.holds(one=20)
    await stage.scale.measure()
    assert tenants.footprint_of(stage.instance).asleep[1] == amount(gpu0=1, host=20)


async def test_it_is_measured_when_its_state_has_changed() -> None:
    """Once for each time that it becomes ready or falls asleep at a level that is known."""
    stage = Weighed(80)
    assert stage.scale.is_due()
    assert not stage.scale.is_due()
    stage.instance.enter_draining(1)
    assert not stage.scale.is_due()
    stage.instance.enter_asleep(replace(stage.mark(), level=0))
    assert not stage.scale.is_due()


async def test_what_moves_on_meanwhile_is_not_learned(host: dict[str, int]) -> None:
    """A measurement of who is on the way to sleep is one of nothing."""
    stage = Weighed(80)
    stage.holds(one=20)
    look = stage.gpus.look

    def move_on() -> tuple[Gpu, ...]:
        seen = look()
        stage.instance.since += 1
        return seen

    stage.gpus.look = move_on  # type: ignore[method-assign]
    await stage.scale.measure()
    assert stage.kept == []
    assert stage.instance.measured is None


async def test_it_is_measured_when_it_is_steady(host: dict[str, int]) -> None:
    """What is still being filled is looked at until it is full."""
    stage = Weighed(80)
    growing = iter([5.0, 10.0, 10.0, 20.0, 20.0, 20.0])
    look = stage.gpus.look

    def grow() -> tuple[Gpu, ...]:
        stage.holds(one=next(growing))
        return look()

    stage.gpus.look = grow  # type: ignore[method-assign]
    await stage.scale.measure()
    assert [one.awake for one in stage.kept] == [amount(gpu0=20)]


@pytest.mark.parametrize("unseen", ["no GPU", "not on one", "on another machine"])
async def test_who_holds_nothing_that_can_be_seen_has_no_figures(unseen: str, host: dict[str, int]) -> None:
    stage = Weighed() if unseen == "no GPU" else Weighed(80)
    if unseen == "on another machine":
        stage.origin.family = frozenset()
        stage.holds(one=20)
    await stage.scale.measure()
    assert stage.kept == []
    assert not tenants.has_figures(stage.instance)


async def test_the_yaml_wins_and_is_told_when_it_is_wrong(
    host: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    """Once: not again for the next process."""
    declared = Footprint(amount(gpu0=30), {1: amount(gpu0=2, host=30), 2: amount(gpu0=2)})
    stage = Weighed(80, footprint=declared)
    stage.holds(one=40)
    for process in ("1:100", "2:200"):
        stage.origin.now = process
        await stage.scale.measure()
    assert tenants.footprint_of(stage.instance) is declared
    assert stage.instance.measured == Footprint(amount(gpu0=40))
    told = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert told == ["one takes 40 GiB on gpu0 awake, not 30 GiB as the YAML says"]


async def test_a_driver_that_breaks_is_no_reason_not_to_sleep(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody waits for what cannot be seen; it is in the log."""
    stage = Weighed(80, footprint=Footprint(amount(gpu0=30), {1: amount(gpu0=2)}))

    async def broken() -> frozenset[int]:
        raise OSError("no processes today")

    stage.transitions.pids = broken  # type: ignore[method-assign]
    await stage.scale.measure()
    await stage.sleep()
    assert stage.state is State.ASLEEP
    assert caplog.text.count("no processes today") >= 2


# -- giving back -----------------------------------------------------------------------------------------------------

DECLARED = Footprint(amount(gpu0=30), {1: amount(gpu0=2, host=30), 2: amount(gpu0=2)})


async def looked(gpus: FakeGpus, more: int) -> None:
    """Returns when they have been looked at so many times more."""
    wanted = gpus.looks + more
    async with asyncio.timeout(5):
        while gpus.looks < wanted:
            gpus.looked.clear()
            await gpus.looked.wait()


@pytest.mark.parametrize("footprint", [DECLARED, None], ids=["declared", "learned"])
async def test_memory_is_held_until_it_is_given_back(footprint: Footprint | None, host: dict[str, int]) -> None:
    """An engine says that it sleeps before its memory is free: until then nobody else may have it."""
    stage = Weighed(80, footprint=footprint)
    stage.holds(one=28, two=2)
    await stage.scale.measure()
    sleeping = asyncio.create_task(stage.sleep())
    await looked(stage.gpus, 5)
    assert stage.engine.asleep
    assert stage.state is State.FALLING_ASLEEP
    books = Ledger().books({"one": stage.instance}, amount(gpu0=80), ())
    assert books.free == amount(gpu0=50)
    stage.holds(one=10, two=1)  # on its way
    await looked(stage.gpus, 3)
    assert not sleeping.done()
    stage.holds(one=1, two=1)
    await sleeping
    assert Ledger().books({"one": stage.instance}, amount(gpu0=80), ()).free == amount(gpu0=78)


async def test_where_processes_cannot_be_told_apart_what_is_free_counts(host: dict[str, int]) -> None:
    """As in a container of its own, whose processes have other numbers."""
    stage = Weighed(80, footprint=DECLARED)
    stage.gpus.foreign[0] = 35
    sleeping = asyncio.create_task(stage.sleep())
    await looked(stage.gpus, 5)
    assert stage.state is State.FALLING_ASLEEP
    stage.gpus.foreign[0] = 7
    await sleeping
    assert stage.instance.level == 1


async def test_memory_that_is_never_given_back_is_waited_for_no_longer_than_said(
    host: dict[str, int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says so; what it keeps is measured, so that nobody waits for it the next time."""
    monkeypatch.setattr(release, "SETTLE_SECONDS", 0.01)
    stage = Weighed(80, footprint=DECLARED)
    stage.holds(one=30)
    await stage.scale.measure()
    sleeping = asyncio.create_task(stage.sleep())
    await looked(stage.gpus, 1)
    stage.holds(one=9)
    await sleeping
    assert "one has not given back its memory within 0.01 s: 2 GiB on gpu0" in caplog.text
    await stage.scale.measure()
    assert "one takes 9 GiB on gpu0 asleep at level 1, not 2 GiB as the YAML says" in caplog.text
    await stage.transitions.wake("manual")
    caplog.clear()
    monkeypatch.setattr(release, "SETTLE_SECONDS", 30)
    await stage.sleep()
    assert caplog.text == ""


class GoneAtOnce(NoKeeper):
    """Says that a process has ended while the driver still has its memory."""

    async def stop(self, name: str) -> None:
        pass

    def can(self, name: str) -> bool:
        return True


async def test_an_ended_process_holds_its_memory_until_it_is_given_back(host: dict[str, int]) -> None:
    """All of it: it keeps nothing."""
    stage = Weighed(80, footprint=DECLARED)
    stage.transitions.keeper = GoneAtOnce()
    stage.holds(one=30)
    stopping = asyncio.create_task(stage.transitions.stop("manual", 5))
    await looked(stage.gpus, 3)
    stage.holds(one=2)
    await looked(stage.gpus, 3)
    assert Ledger().books({"one": stage.instance}, amount(gpu0=80), ()).free == amount(gpu0=50)
    stage.gpus.held.clear()
    await stopping
    assert Ledger().books({"one": stage.instance}, amount(gpu0=80), ()).free == amount(gpu0=80)


async def test_without_figures_nobody_waits(host: dict[str, int]) -> None:
    stage = Weighed(80)
    stage.holds(one=30)
    await stage.sleep()
    assert stage.gpus.looks == 0


async def test_without_gpus_nobody_waits(host: dict[str, int]) -> None:
    stage = Weighed(footprint=DECLARED)
    await stage.sleep()
    assert stage.gpus.looks == 1


# -- the fleet -------------------------------------------------------------------------------------------------------


@pytest.fixture
def listening() -> Iterator[int]:
    """A port on which this process listens: it is the engine's."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


class Kept(Footprints):
    def __init__(self, database: AsyncEngine) -> None:
        super().__init__(database)
        self.written = asyncio.Event()

    async def put(self, measurement: Measurement) -> None:
        await super().put(measurement)
        self.written.set()


@asynccontextmanager
async def metering(
    folder: Path, port: int, gpus: FakeGpus, more: str = ""
) -> AsyncIterator[tuple[Fleet, Arbiter, Kept]]:
    """A fleet of one. Its database outlives it."""
    file = folder / "torpor.yaml"
    file.write_text(f"instances: [{{model: one, engine: sim, url: 'http://127.0.0.1:{port}'{more}}}]")
    async with open_database(f"sqlite:///{folder}/s.db") as database:
        fleet = Fleet(
            load(file, {}), lambda _: FakeEngine(Steps(), tells=True), SleepMarks(database), Launches(database)
        )
        kept = Kept(database)
        async with metered(fleet, gpus, kept) as meter, arbitrated(fleet, meter.capacity) as arbiter:
            yield fleet, arbiter, kept


async def learned(fleet: Fleet, kept: Kept) -> Footprint:
    """Its engine is ready, and what it takes has been written down."""
    fleet.instances["one"].enter_ready()
    async with asyncio.timeout(5):
        await kept.written.wait()
    measured = fleet.instances["one"].measured
    assert measured is not None
    return measured


async def test_what_was_learned_is_known_after_a_restart(tmp_path: Path, listening: int) -> None:
    """Before the engine has been looked at. Its GPU has the size that was measured."""
    gpus = FakeGpus(80, 24)
    gpus.held[1] = {os.getpid(): 9.0}
    async with metering(tmp_path, listening, gpus) as (fleet, arbiter, kept):
        assert arbiter.books().capacity == {}
        assert await learned(fleet, kept) == Footprint(amount(gpu1=9))
        assert arbiter.books().capacity == amount(gpu1=23.5)
        assert arbiter.books().free == amount(gpu1=14.5)
    async with metering(tmp_path, listening, gpus) as (fleet, arbiter, kept):
        assert fleet.instances["one"].measured == Footprint(amount(gpu1=9))
        assert arbiter.books().used == amount(gpu1=9, host=9)  # until it has told whether it sleeps


async def test_what_another_command_took_is_forgotten(tmp_path: Path, listening: int) -> None:
    gpus = FakeGpus(80)
    gpus.held[0] = {os.getpid(): 9.0}
    async with metering(tmp_path, listening, gpus) as (fleet, _, kept):
        await learned(fleet, kept)
    async with metering(tmp_path, 1, gpus) as (fleet, _, kept):
        assert fleet.instances["one"].measured is None


async def test_without_a_driver_residency_does_nothing(tmp_path: Path, listening: int) -> None:
    """No figures, no capacity, nobody on the scales."""
    async with metering(tmp_path, listening, FakeGpus()) as (fleet, arbiter, _):
        fleet.instances["one"].enter_ready()
        assert arbiter.books().capacity == arbiter.books().used == {}
        assert not tenants.is_managed(fleet.instances["one"], fleet.config)
        assert await fleet.transitions["one"].scales(fleet.instances["one"], 1) is not None


async def test_a_gpu_that_the_yaml_names_has_the_size_it_says(tmp_path: Path, listening: int) -> None:
    """One that it does not name is measured, if somebody is there."""
    more = ", gpus: [0], memory_gib: 30"
    async with metering(tmp_path, listening, FakeGpus(80, 80), more) as (_, arbiter, _):
        assert arbiter.books().capacity == amount(gpu0=79.5)
    named = tmp_path / "named"
    named.mkdir()
    more += "}]\ngpus: {0: {memory_gib: 40}}\n#"
    async with metering(named, listening, FakeGpus(80, 80), more) as (_, arbiter, _):
        assert arbiter.books().capacity == amount(gpu0=40)


async def test_who_was_measured_has_fitted(tmp_path: Path, listening: int) -> None:
    """An engine that takes more than we would leave alone is not asked to leave, and can wake again."""
    gpus = FakeGpus(80)
    gpus.held[0] = {os.getpid(): 79.9}
    async with metering(tmp_path, listening, gpus) as (fleet, arbiter, kept):
        await learned(fleet, kept)
        assert arbiter.books().free == {"gpu0": 0}
