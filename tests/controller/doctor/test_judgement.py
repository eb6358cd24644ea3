"""Facts in, findings out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.doctor.finding import Facts, Level, Program
from controller.doctor.judgement import judge
from controller.residency.memory import GIB
from tests.controller.launch.conftest import Workplace, server
from tests.controller.launch.conftest import workplace as workplace

WELL = Facts(tmux="tmux 3.3a", gpus={}, memory=64 * GIB, log_space=100 * GIB, files=65536)
CARD = {"gpus": {0: {"memory_gib": 80}}}


def model(name: str, size: float = 30, **keys: Any) -> dict[str, Any]:
    return {"model": name, "engine": "sim", "gpus": [0], "memory_gib": size, "asleep_memory_gib": 2, **keys}


def told(workplace: Workplace, facts: Facts) -> dict[Level, list[str]]:
    found: dict[Level, list[str]] = {level: [] for level in Level}
    for finding in judge(workplace.config(), facts):
        assert finding.level is Level.OK or finding.cure or finding.about == "access"
        found[finding.level].append(f"{finding.about}: {finding.what}")
    return found


def test_where_all_is_well_nothing_else_is_said(workplace: Workplace) -> None:
    workplace.write(server("a"))
    found = told(workplace, replace(WELL, programs=(Program("a", 1),)))
    assert not found[Level.PROBLEM] + found[Level.WARNING]
    assert found[Level.OK]


@pytest.mark.parametrize(
    ("facts", "level", "what"),
    [
        ({"tmux": None}, Level.PROBLEM, "tmux: is not installed"),
        ({"tmux": "tmux 2.9a"}, Level.PROBLEM, "tmux: tmux 2.9a is too old"),
        ({"state_problem": "no"}, Level.PROBLEM, "state: no"),
        ({"programs": (Program("a", 7, holder="pid 3 (nginx)"),)}, Level.PROBLEM, "port 7 is taken by pid 3 (nginx)"),
        ({"programs": (Program("a", 7, missing="no vllm"),)}, Level.PROBLEM, "a: no vllm"),
        ({"programs": (Program("a", 7, version="vllm 0.32"),)}, Level.OK, "vllm 0.32"),
        ({"log_space": GIB // 2}, Level.WARNING, "left for logs"),
        ({"files": 1024}, Level.WARNING, "1024 files"),
        ({"orphans": ("old: runs",)}, Level.WARNING, "orphan: old: runs"),
        ({"strays": ("old",)}, Level.WARNING, "old is not in the YAML"),
        ({"open": ("OPEN: a",)}, Level.PROBLEM, "access: OPEN: a"),
    ],
)
def test_the_machine(workplace: Workplace, facts: dict[str, Any], level: Level, what: str) -> None:
    workplace.write(server("a"))
    assert any(what in one for one in told(workplace, replace(WELL, **facts))[level])


@pytest.mark.parametrize(
    ("models", "level", "what"),
    [
        ([model("a"), model("b")], Level.OK, "memory of gpu0: 60 GiB of 80 GiB at the start"),
        ([model("a"), model("b"), model("c")], Level.PROBLEM, "awake at the start takes 90 GiB of 80 GiB"),
        ([model("a"), model("b"), model("c", start="asleep")], Level.OK, "62 GiB of 80 GiB at the start"),
        ([model("a"), model("b"), model("c", start="stopped")], Level.OK, "60 GiB of 80 GiB at the start"),
        ([model("a", 90)], Level.PROBLEM, "a takes 90 GiB, and there are 80 GiB: it can never be awake"),
        ([model("a", 79), model("b", 1, start="asleep")], Level.OK, "80 GiB of 80 GiB"),
        ([model("a", 79), model("b", start="stopped")], Level.WARNING, "the others 2 GiB at the least: more"),
        ([model("a", 40), model("b", 40)], Level.WARNING, "all asleep take 80 GiB of 64 GiB"),
        ([model("a"), model("b")], Level.OK, "memory of the host: 60 GiB of 64 GiB when all sleep"),
    ],
)
def test_memory(workplace: Workplace, models: list[dict[str, Any]], level: Level, what: str) -> None:
    workplace.write(*models, **CARD)
    assert any(what in one for one in told(workplace, WELL)[level]), told(workplace, WELL)


def test_who_never_leaves_is_counted_as_it_is(workplace: Workplace) -> None:
    """It is pinned, or its engine has no way to sleep."""
    server_of_its_own = {"model": "c", "command": ["/bin/true"], "gpus": [0], "memory_gib": 20}
    rest = model("a", 40, start="asleep"), model("b", 50, start="asleep")
    workplace.write(*rest, server_of_its_own, **CARD, models={"a": {"pinned": True}})
    problems = told(workplace, WELL)[Level.PROBLEM]
    assert [one for one in problems if "memory" in one] == [
        "memory of gpu0: b takes 50 GiB, beside what leaves for nobody, a (pinned) 40 GiB, c (cannot sleep) 20 GiB: "
        "more than 80 GiB"
    ]


def test_groups(workplace: Workplace) -> None:
    groups = {"g": {"members": ["a", "b"], "exclusive": True}}
    workplace.write(model("a"), model("b"), model("c"), groups=groups)
    assert "groups: a, b start awake, and one of their exclusive group may be" in told(workplace, WELL)[Level.WARNING]
    workplace.write(model("a"), model("b", start="asleep"), groups=groups, models={"a": {"pinned": True}})
    found = told(workplace, WELL)
    assert not [one for one in found[Level.WARNING] if "groups" in one]
    assert [one for one in found[Level.PROBLEM] if "as long as it is awake, nobody wakes b" in one]


def test_a_host_with_a_limit_is_no_reason_to_worry(workplace: Workplace) -> None:
    """Some sleep at level 2 then: nobody is told to set what is set."""
    workplace.write(model("a", 40), model("b", 40), **CARD, host={"memory_gib": 50})
    found = told(workplace, WELL)
    assert any("80 GiB of 50 GiB when all sleep: some will sleep at level 2" in one for one in found[Level.OK])
    assert not any("host" in one for one in found[Level.WARNING])


KEEPS = ["--dialect", "sglang", "--enable-weights-cpu-backup"]
DROPS = ["--dialect", "sglang"]


@pytest.mark.parametrize(
    ("models", "sections", "level", "what"),
    [
        ([model("a", 40, args=DROPS), model("b", 40)], {}, Level.OK, "40 GiB of 64 GiB when all sleep"),
        (
            [model("a", 40, args=KEEPS), model("b", 40)],
            {"host": {"memory_gib": 50}},
            Level.OK,
            "80 GiB of 50 GiB when all sleep: some will sleep at level 2",
        ),
        (
            [model("a", 40, args=KEEPS), model("b", 40, args=KEEPS), model("c", 10)],
            {"host": {"memory_gib": 50}},
            Level.WARNING,
            "a, b, which cannot drop their weights, take 80 GiB of 50 GiB asleep",
        ),
        ([model("a", 40, args=KEEPS)], {"sleep_manager": {"level": 2}}, Level.OK, "40 GiB of 64 GiB when all sleep"),
        ([model("a", 60), model("b", 60)], {"models": {"a": {"pinned": True}}}, Level.OK, "60 GiB of 64 GiB when all"),
    ],
)
def test_who_can_sleep_how_deep(
    workplace: Workplace, models: list[dict[str, Any]], sections: dict[str, Any], level: Level, what: str
) -> None:
    """An SGLang has one level, by how it is started; nobody counts on another."""
    workplace.write(*models, gpus={0: {"memory_gib": 200}}, **sections)
    found = told(workplace, WELL)
    assert any("memory of the host" in one and what in one for one in found[level]), found


def test_what_never_leaves_is_beside_the_others(workplace: Workplace) -> None:
    models = model("a", 40), model("b", 38, asleep_memory_gib=1), model("c", 30, asleep_memory_gib=3)
    workplace.write(*models, **CARD, models={"a": {"pinned": True}})
    assert [one for one in told(workplace, WELL)[Level.WARNING] if "gpu0" in one] == [
        "memory of gpu0: b takes 38 GiB, the others 43 GiB at the least: more than 80 GiB"
    ]


@pytest.mark.parametrize(
    ("args", "what"),
    [
        (KEEPS, "m: sleeps at level 1 alone, its weights in the host's memory, as it is started"),
        (DROPS, "m: sleeps at level 2 alone, and reads its weights again to wake, as it is started"),
    ],
)
def test_an_engine_with_one_level_is_told_of(workplace: Workplace, args: list[str], what: str) -> None:
    workplace.write({"model": "m", "engine": "sim", "args": args, "start": "asleep"})
    assert what in told(workplace, WELL)[Level.OK]
    workplace.write({"model": "m", "engine": "sim", "start": "asleep"})
    assert not any("level" in one for one in told(workplace, WELL)[Level.OK])


@pytest.mark.parametrize(
    ("sections", "gpus", "what"),
    [
        ({"gpus": {0: {"memory_gib": 90}}}, {0: 80 * GIB}, "gpu0 has 80 GiB, and the YAML says 90 GiB"),
        ({"gpus": {1: {"memory_gib": 80}}}, {0: 80 * GIB}, "gpu1 is in the YAML, not in this machine"),
        ({"host": {"memory_gib": 65}}, {}, "host.memory_gib is 65 GiB, and this machine has 64 GiB"),
    ],
)
def test_what_the_file_says_of_the_machine(
    workplace: Workplace, sections: dict[str, Any], gpus: dict[int, int], what: str
) -> None:
    workplace.write(server("a"), **sections)
    assert any(what in one for one in told(workplace, replace(WELL, gpus=gpus))[Level.PROBLEM])


@pytest.mark.parametrize(
    ("keys", "level", "what"),
    [
        ({"engine": "vllm", "sleep_flags": False, "start": "asleep"}, Level.PROBLEM, "VLLM_SERVER_DEV_MODE"),
        ({"engine": "sglang", "sleep_flags": False, "start": "asleep"}, Level.PROBLEM, "--enable-memory-saver"),
        ({"engine": "vllm", "start": "asleep"}, Level.WARNING, "no driver answers, and m may need one"),
    ],
)
def test_engines(workplace: Workplace, keys: dict[str, Any], level: Level, what: str) -> None:
    workplace.write({"model": "m", **keys})
    assert any(what in one for one in told(workplace, WELL)[level])
