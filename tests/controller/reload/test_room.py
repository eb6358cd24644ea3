"""Starting an engine beside a gateway that runs: by whatever command, its arbiter is asked for room first."""

from __future__ import annotations

import time
from typing import Any

import httpx2
import pytest

from controller.residency.memory import GIB
from tests.controller.launch.conftest import Workplace
from tests.controller.launch.test_launching import until
from tests.controller.reload.test_rollout import Place, sim, three_with_room_for_two
from tests.ports import free_port

LOADS = ["--ttft", "0", "--tokens-per-second", "500", "--load-seconds", "1"]


def residency(place: Place) -> Any:
    return httpx2.get(f"{place.url}/residency", trust_env=False).json()


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        ("restart", {"names": ["c"], "wait": True}),
        ("up", {"only": ["c"], "wait": True}),
        ("up", {"only": ["c"], "wait": False}),
        ("up", {"only": [], "wait": True}),
    ],
)
@pytest.mark.parametrize("pinned", [False, True])
def test_whoever_is_started_later(workplace: Workplace, command: str, keys: dict[str, Any], pinned: bool) -> None:
    """An idle one leaves for it first; if nobody may leave, it is said, and its next request is to start it."""
    place = Place(workplace)
    models, sections = three_with_room_for_two(pinned)
    models[2]["start"] = "stopped"
    place.write(*models, sections=sections)
    assert place.do("up", only=[], wait=True)[0] == 0
    del models[2]["start"]
    place.write(*models, sections=sections)
    code, shown = place.do(command, **keys)
    assert code == 0, shown
    assert "c: waiting, for room: 26 GiB more are needed on gpu0" in shown
    found = residency(place)
    assert found["places"]["gpu0"]["free"] >= 0, shown
    assert ("c: there is no room for it now (26 GiB more are needed on gpu0)" in shown) == pinned
    assert ("c" in place.pids()) != pinned
    awake = [one["state"] for one in found["instances"].values() if one["state"] != "asleep"]
    if pinned:
        assert sorted(awake) == ["ready", "ready", "stopped"]
    else:
        assert len(awake) == 2


def test_one_that_can_never_be_awake_is_not_waited_for(workplace: Workplace) -> None:
    """Nobody leaves for it, and no request would start it."""
    place = Place(workplace)
    models, sections = three_with_room_for_two(pinned=False)
    models[2] |= {"start": "stopped", "memory_gib": 500}
    place.write(*models, sections=sections)
    assert place.do("up", only=[], wait=True)[0] == 0
    shown = place.do("up", only=["c"], wait=True)[1]
    assert "c: it can never be awake: it takes 500 GiB on gpu0, which has 64 GiB" in shown
    assert "waiting, for room" not in shown
    assert [one["state"] for one in residency(place)["instances"].values()] == ["ready", "ready", "stopped"]


def test_one_that_the_gateway_does_not_know(workplace: Workplace) -> None:
    """What it takes would be in nobody's books."""
    place = Place(workplace)
    models, sections = three_with_room_for_two(pinned=False)
    place.write(*models[:2], sections=sections)
    assert place.do("up", only=[], wait=True)[0] == 0
    place.write(*models, sim("free", "free", free_port()), sections=sections)
    code, shown = place.do("up", only=[], wait=True)
    assert code == 1
    assert "c failed: the gateway does not know it yet; after --reload its next request starts it" in shown
    assert set(place.pids()) == {"frontend", "a", "b", "free"}
    assert place.do("reload")[0] == 0
    with httpx2.Client(trust_env=False) as client:
        assert place.ask(client, "c").status_code == 200
    assert residency(place)["places"]["gpu0"]["free"] >= 0


def test_another_fleets_gateway_is_not_asked(workplace: Workplace) -> None:
    """Though it has engines of the same names, and no room."""
    place = Place(workplace)
    models, sections = three_with_room_for_two(pinned=True)
    place.write(*models[:2], sections=sections)
    assert place.do("up", only=[], wait=True)[0] == 0
    before = residency(place)["instances"]
    other = Workplace(workplace.folder, workplace.environment, "other.yaml")
    there = {"port": free_port(), "name": "a", "model": "a"}
    sections = {"gpus": {0: {"memory_gib": 64}}, "launch": {"session_prefix": "other-"}}
    other.write({**models[2], **there}, router={"router_port": place.router["router_port"]}, **sections)
    assert other.up("a") == 0, other.output
    assert residency(place)["instances"].keys() == before.keys()
    assert {name: one["state"] for name, one in residency(place)["instances"].items()} == {"a": "ready", "b": "ready"}


def test_new_ones_on_separate_gpus_are_started_together(workplace: Workplace) -> None:
    """Those that share one still come one after the other."""
    place = Place(workplace)
    first, *new = [
        sim(name, name, free_port(), gpus=[number], memory_gib=30, engine_args=LOADS)
        for name, number in {"a": 0, "b": 1, "c": 2, "d": 2}.items()
    ]
    sections = {"gpus": {number: {"memory_gib": 64} for number in range(3)}}
    place.write(first, sections=sections)
    assert place.do("up", only=[], wait=True)[0] == 0
    place.write(first, *new, sections=sections)
    code, shown = place.do("reload")
    assert code == 0, shown
    told = [line.partition(",")[0] for line in shown.splitlines()]
    starts, comes = ({name: told.index(f"{name}: {what}") for name in "bcd"} for what in ("starting", "ready"))
    assert max(starts["b"], starts["c"]) < min(comes.values()), shown
    assert comes["c"] < starts["d"], shown


def test_one_that_the_yaml_has_lost_is_counted_as_long_as_it_runs(workplace: Workplace) -> None:
    """``POST /admin/reload`` ends nothing: it is named, with what it holds, until somebody does."""
    place = Place(workplace)
    models, sections = three_with_room_for_two(pinned=False)
    models[2]["start"] = "asleep"
    place.write(*models, sections=sections)
    assert place.do("up", only=[], wait=True)[0] == 0
    place.write({**models[0], "name": "called-otherwise"}, *models[1:], sections=sections)
    assert httpx2.post(f"{place.url}/admin/reload", trust_env=False).status_code == 200
    assert not residency(place)["departed"]
    assert residency(place)["places"]["gpu0"]["free"] == 2 * GIB
    place.write(*models, sections=sections)
    assert httpx2.post(f"{place.url}/admin/reload", trust_env=False).status_code == 200
    until(lambda: residency(place)["instances"]["a"]["state"] == "ready")  # it has been looked at again
    sections["models"] = {"b": {"pinned": False}}
    place.write(*models[1:], sections=sections)
    assert httpx2.post(f"{place.url}/admin/reload", trust_env=False).status_code == 200
    found = residency(place)
    assert found["departed"] == {"a": {"model": "a", "state": "ready", "in_flight": 0, "held": {"gpu0": 30 * GIB}}}
    assert found["places"]["gpu0"]["free"] == 2 * GIB
    assert place.do("restart", names=["frontend"], wait=True)[0] == 0
    assert residency(place)["departed"] == found["departed"]
    assert residency(place)["places"] == found["places"]
    metrics = httpx2.get(f"{place.url}/metrics", trust_env=False).text
    assert 'torpor_memory_held_bytes{instance="a",model="a",place="gpu0",state="ready"}' in metrics
    assert "kvcached-a is not in the YAML any more and was left alone: --stop a" in place.do("status")[1]
    assert place.do("stop", names=["a"])[0] == 0
    deadline = time.monotonic() + 10
    while residency(place)["departed"] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert residency(place)["places"]["gpu0"]["free"] == 32 * GIB
