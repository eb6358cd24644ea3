"""A fleet that does not fit at once comes up one by one."""

from __future__ import annotations

import asyncio

from state.database import open_database
from state.sleep_marks import Phase, SleepMark, SleepMarks
from tests.controller.launch.conftest import Workplace, processes_of
from tests.ports import free_port

SIM = "--ttft 0 --tokens-per-second 0 --sleep-seconds 0 --log-level error --enable-sleep-mode"


async def marks(workplace: Workplace) -> dict[str, SleepMark]:
    async with open_database(f"sqlite:///{workplace.folder / 'fleet.state.db'}") as database:
        return dict(await SleepMarks(database).all())


def test_each_sleeps_before_the_next_is_started(workplace: Workplace) -> None:
    """Those to sleep first, in the file's order; then those to be awake; what starts stopped not at all."""

    def sim(name: str, start: str, dialect: str = "vllm") -> dict[str, object]:
        args = f"{SIM} --dialect {dialect}"
        own = {"model": name, "engine": "sim", "port": free_port(), "engine_args": args, "start": start}
        return {**own, "gpus": [0], "memory_gib": 30}

    workplace.write(
        sim("up", "awake"),
        sim("one", "asleep"),
        sim("two", "asleep", "sglang"),
        sim("rare", "stopped"),
        gpus={0: {"memory_gib": 40}},
        sleep_manager={"level2_after_seconds": 60},
    )
    assert workplace.check() == 0
    assert workplace.output.count("drops its weights after 60 s asleep") == 3
    assert "is put to sleep when it is ready" in workplace.output
    assert "starts when one, two came up or failed" in workplace.output
    assert workplace.up() == 0, workplace.output
    steps = [line for line in workplace.output.splitlines() if line.split(": ")[-1].split(",")[0] in STEPS]
    told = [tuple(line.split(",")[0].split(": ")) for line in steps]
    assert [one for one in told if one[1] != "waiting" and one[0] != "rare"] == [
        ("one", "starting"),
        ("one", "starting"),
        ("one", "asleep"),
        ("two", "starting"),
        ("two", "starting"),
        ("two", "asleep"),
        ("up", "starting"),
        ("up", "ready"),
    ]
    assert set(workplace.panes()) == {"up", "one", "two"}
    assert {name: (mark.phase, mark.level) for name, mark in asyncio.run(marks(workplace)).items()} == {
        "one": (Phase.ASLEEP, 1),
        "two": (Phase.ASLEEP, 2),  # an SGLang has no other
    }
    assert workplace.status() == 0
    states = {line.split()[0]: line for line in workplace.output.splitlines()}
    assert " asleep " in states["one"] and " asleep " in states["two"] and " ready " in states["up"]
    assert "stopped until it is asked for" in states["rare"]
    assert workplace.kill_all() == 0
    assert not processes_of(workplace.folder)


def test_through_the_gateway_too_it_is_no_sleep_that_has_to_last(workplace: Workplace) -> None:
    engine = {"model": "one", "engine": "sim", "port": free_port(), "engine_args": SIM, "start": "asleep"}
    workplace.write(engine, router={"enable_router": True, "router_port": free_port()})
    assert workplace.up() == 0, workplace.output
    assert asyncio.run(marks(workplace))["one"].cause == "start"
    assert workplace.kill_all() == 0


STEPS = ("starting", "asleep", "ready", "waiting")
