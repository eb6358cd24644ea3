"""What a gateway counts that it has never had in its YAML: what was launched before that lost it, and runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest

from controller.residency.memory import GIB
from controller.residency.occupancy import lost, occupant_of
from controller.service import count_lost
from state.footprints import Measurement
from state.launches import Launch
from state.sleep_marks import Phase, SleepMark
from tests.controller.residency.house import House, launched, tenant
from tests.controller.residency.yard import Records

AWAKE, ASLEEP = {"gpu0": 60 * GIB}, {"gpu0": GIB, "host": 60 * GIB}


@pytest.fixture
def house() -> Iterator[House]:
    built = House([launched(0, "a", 60), tenant("b", 10)], {0: 80})
    yield built
    built.demolish()
    assert not built.wrong, built.wrong[0]


def launch(house: House) -> Launch:
    return house.yard.records.kept["a"]


def test_only_what_the_yaml_has_lost(house: House) -> None:
    """Not what was launched before such was kept, nor what another instance is now."""
    record, config, without = launch(house), house.config, replace(house.config, instances=house.config.instances[1:])
    renamed = replace(config, instances=(replace(config.instances[0], name="c"), config.instances[1]))
    assert record.occupant == occupant_of(config.instances[0])
    assert lost(config, {"a": record}) == lost(renamed, {"a": record}) == []
    assert lost(without, {"a": replace(record, occupant=None)}) == []
    [found] = lost(without, {"a": record})
    assert (found.name, found.model, found.spec.kind) == ("a", "a", "sim")
    assert found.footprint == config.instances[0].footprint


@pytest.mark.parametrize(
    ("phase", "since", "held"),
    [
        (None, 0, AWAKE),
        (Phase.ASLEEP, 5, ASLEEP),
        (Phase.WAKING, 5, {**AWAKE, "host": 60 * GIB}),
        (Phase.FALLING_ASLEEP, 5, {**AWAKE, "host": 60 * GIB}),
        (Phase.ASLEEP, -5, AWAKE),
    ],
    ids=["awake", "asleep", "waking", "falling asleep", "asleep before it was launched"],
)
def test_as_its_mark_says(house: House, phase: Phase | None, since: float, held: Mapping[str, int]) -> None:
    house.close()
    house.tenants.pop("a")
    house.write()
    if phase is not None:
        at = launch(house).launched_at + since
        house.marks.kept["a"] = SleepMark("a", phase, 1, "idle", at, launch(house).process)
    house.open()
    house.loop.pass_time(5)
    assert house.arbiter.books().held["a"] == held


@pytest.mark.parametrize("runs", [True, False])
def test_what_was_not_said_is_as_it_was_measured(house: House, runs: bool) -> None:
    occupant = occupant_of(replace(house.config.instances[0], footprint=None))
    records = Records()
    records.kept["x"] = replace(launch(house), instance="x", occupant=replace(occupant, url="http://127.0.0.1:1"))
    measured = {"x": Measurement("x", "", AWAKE, {}, 0.0)}
    house.loop.run_until_complete(count_lost(house.fleet, {"x": runs}, records, house.marks, measured))
    held = house.arbiter.books().held
    assert held.get("x") == (AWAKE if runs else None)
