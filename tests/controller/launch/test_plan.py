"""What is to be done about a unit, and whom it waits for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.launch import plan
from controller.launch.mask import Mask
from controller.launch.plan import Seen, Step
from controller.launch.tmux import Pane
from controller.launch.unit import YAML_DIGEST, Unit
from state.launches import Launch
from tests.controller.launch.conftest import Workplace

UNIT = Unit(
    name="a",
    session="kvcached-a",
    config="/c.yaml",
    argv=("serve", "--port", "1"),
    folder=Path("/"),
    log=Path("/a.log"),
    host="127.0.0.1",
    port=1,
    url="http://127.0.0.1:1",
    environment={},
    declared={"X": "1"},
    mask=Mask(),
)
OURS = Pane("%1", "kvcached-a", 7, dead=False, unit="a", config="/c.yaml")
DEAD = replace(OURS, dead=True, status="exit status 1")
STRANGE = Pane("%2", "kvcached-a", 8, dead=False)


def record(unit: Unit = UNIT) -> Launch:
    argv, environment = unit.record
    return Launch("a", "kvcached-a", "7:0.00", argv, environment, 0.0)


@pytest.mark.parametrize(
    ("seen", "step", "reason"),
    [
        (Seen(), Step.START, ""),
        (Seen(record=record()), Step.START, "its session was gone"),
        (Seen(pane=DEAD), Step.START, "had died (exit status 1)"),
        (Seen(pane=OURS, healthy=True, record=record()), Step.KEEP, "runs already"),
        (Seen(pane=OURS, healthy=False), Step.WAIT, "runs already"),
        (Seen(pane=OURS, healthy=None), Step.WAIT, "runs already"),
        (Seen(healthy=True, serving=True), Step.LEAVE, "not in a tmux session"),
        (Seen(pane=DEAD, healthy=True, serving=True), Step.LEAVE, "not in a tmux session"),
        (Seen(strange=STRANGE, serving=True), Step.LEAVE, "not in a tmux session"),
        (Seen(strange=STRANGE), Step.REFUSE, "was not made by this launcher"),
        (Seen(strange=replace(STRANGE, config="/d.yaml")), Step.REFUSE, "belongs to /d.yaml"),
    ],
)
def test_what_is_decided(seen: Seen, step: Step, reason: str) -> None:
    """What is healthy is kept, what has died is started, what is not ours is left alone."""
    decision = plan.decide(UNIT, seen)
    assert decision.step is step
    assert reason in decision.reason


@pytest.mark.parametrize(
    ("now", "told"),
    [
        ({}, ()),
        ({"argv": ("serve", "--port", "2")}, ("arguments: runs with 1, the YAML has 2",)),
        ({"argv": ("serve",)}, ("arguments: runs with --port 1, which the YAML no longer has",)),
        ({"argv": ("serve", "--port", "1", "-v")}, ("arguments: runs without -v",)),
        ({"argv": ("serve", "1", "--port")}, ("arguments: in another order",)),
        ({"declared": {"X": "2", "Y": "1"}}, ("variables: X, Y",)),
        ({"declared": {}}, ("variables: X",)),
        ({"declared": {"X": "1", YAML_DIGEST: "1"}}, ("the YAML file has changed since it was started",)),
        ({"environment": {"PATH": "/elsewhere"}}, ()),
    ],
)
def test_what_differs(now: dict[str, Any], told: tuple[str, ...]) -> None:
    """Words of the command, names of variables; the launcher's own environment does not count."""
    assert plan.differences(replace(UNIT, **now), record()) == told


def test_a_changed_key_differs_and_is_not_shown() -> None:
    """A key that an engine takes as an argument is kept as its digest."""
    before = replace(UNIT, argv=("serve", "--api-key", "open-sesame"))
    kept = record(before)
    assert "open-sesame" not in str(kept)
    found = plan.differences(replace(before, argv=("serve", "--api-key", "changed")), kept)
    assert found[0].startswith("arguments: runs with sha256:")
    assert "changed" not in found[0]


def test_a_pane_is_found_by_its_tag() -> None:
    """A shell split off in our session is not the engine; a session without a tag is a stranger's."""
    split = replace(OURS, id="%9", unit="", config="")
    assert plan.find(UNIT, [split, OURS]) == (OURS, None)
    assert plan.find(UNIT, [STRANGE]) == (None, STRANGE)
    assert plan.find(UNIT, [replace(OURS, session="kvcached-a1")]) == (None, None)


FLEET = """
instances:
  - {model: every, engine: vllm, port: 101}
  - {model: zero, engine: vllm, port: 102, gpus: [0]}
  - {model: one, engine: sglang, port: 103, gpus: [1]}
  - {model: both, engine: vllm, port: 104, gpus: [0, 1]}
  - {model: two, engine: vllm, port: 105, env: {CUDA_VISIBLE_DEVICES: "2"}}
  - {model: none, engine: vllm, port: 106, env: {CUDA_VISIBLE_DEVICES: ""}}
  - {model: sim, engine: sim, port: 107}
  - {model: simzero, engine: sim, port: 108, gpus: [0]}
  - {model: own, engine: openai, port: 109, command: serve}
"""


def test_engines_wait_for_those_before_them_on_the_same_gpu(workplace: Workplace) -> None:
    """One given no GPU may use any; simulated ones and those without a GPU wait for nobody."""
    workplace.file.write_text(FLEET)
    workplace.environment.pop("CUDA_VISIBLE_DEVICES", None)
    fleet = workplace.operations().units
    assert {unit.name: plan.before(unit, fleet) for unit in fleet} == {
        "every": (),
        "zero": ("every",),
        "one": ("every",),
        "both": ("every", "zero", "one"),
        "two": ("every",),
        "none": (),
        "sim": (),
        "simzero": ("every", "zero", "both"),
        "own": (),
    }


def test_those_that_load_already_come_first(workplace: Workplace) -> None:
    """A start waits for an engine that is loading, wherever the file names it."""
    workplace.file.write_text(FLEET)
    fleet = workplace.operations().units
    assert plan.order(fleet, ["both"])[0].name == "both"


def test_all_units_of_a_file(workplace: Workplace) -> None:
    """The frontend first and only when wanted; an instance with a url is none."""
    workplace.write({"model": "a", "engine": "sim"}, {"model": "b", "url": "http://127.0.0.1:1"})
    assert [unit.name for unit in workplace.operations().units] == ["a"]
    workplace.write({"model": "a", "engine": "sim"}, router={"enable_router": True})
    assert [unit.name for unit in workplace.operations().units] == ["frontend", "a"]
