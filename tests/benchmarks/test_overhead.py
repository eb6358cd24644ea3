"""What the hop costs: reading /proc and perf, ratios and targets, the fake engine, and one quick run of it all."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cpu, fake_engine, gateways, verdict
from benchmarks.cpu import Instructions
from benchmarks.flood import Seen, flood, request
from benchmarks.verdict import Round, Target
from controller.config.load import load
from tests.benchmarks.conftest import ROOT
from tests.ports import free_port


def a_round(cpu_each: float = 0.001, **more: Any) -> Round:
    return Round(units=1000, seconds=1.0, cpu=cpu_each * 1000, **more)


# -- what was used ---------------------------------------------------------------------------------------------------


def stat_of(folder: Path, pid: int, parent: int, ticks: int, name: str = "x") -> None:
    (folder / str(pid)).mkdir()
    before = f"{pid} ({name}) S {parent} " + "0 " * 9
    (folder / str(pid) / "stat").write_text(f"{before}{ticks} {ticks} 0 0")


def test_the_descendants_are_counted_with_their_root(tmp_path: Path) -> None:
    """1 → 2 → 3 count, 4 beside them does not; a name with blanks and brackets does not confuse."""
    for pid, parent in ((1, 0), (2, 1), (3, 2), (4, 0)):
        stat_of(tmp_path, pid, parent, cpu.TICK, name=") odd (")
    assert cpu.tree(1, cpu.parents(tmp_path)) == {1, 2, 3}
    assert cpu.cpu_seconds(1, tmp_path) == 6.0


def test_own_memory_and_time_are_read() -> None:
    """A real process has some of both."""
    until = time.process_time() + 0.05
    while time.process_time() < until:
        pass
    assert cpu.resident_bytes(os.getpid()) > 1_000_000
    assert cpu.cpu_seconds(os.getpid()) >= 0.05


def test_what_perf_wrote_is_read() -> None:
    """Both counts; none when one of them was not counted."""
    lines = ["# started on", "", "3000;;instructions:u;1;100.00;;", "1000;;instructions:k;1;100.00;;"]
    found = cpu.parse(lines)
    assert found == Instructions(3000, 1000)
    assert found.per(10) == Instructions(300, 100)
    assert cpu.parse([lines[2], "<not counted>;;instructions:k;0;0.00;;"]) is None


# -- what is made of it ----------------------------------------------------------------------------------------------


def test_a_ratio_is_of_the_same_round() -> None:
    """One round in which all is slow does not move the ratio."""
    ours = [a_round(2e-3), a_round(20e-3), a_round(2e-3)]
    theirs = [a_round(1e-3), a_round(10e-3), a_round(1e-3)]
    found = verdict.summary(ours, theirs)
    assert found["cpu_ratio"] == pytest.approx(2.0)
    assert found["cpu"] == pytest.approx(2e-3)
    assert found["cpu_spread"] == pytest.approx([2e-3, 20e-3])


def test_without_a_yardstick_there_is_no_ratio() -> None:
    """Nginx is not on every machine."""
    found = verdict.summary([a_round()])
    assert found["cpu_ratio"] is None and found["ttft_ratio"] is None
    assert "torpor" in verdict.load_table({"torpor": found}, "request")


def test_growth_leaves_out_what_is_used_without_requests() -> None:
    """A gateway that uses half a core on its own, and nothing more for a request, is flat."""
    counted = {"counted_units": 10, "counted_seconds": 2.0}
    base = [a_round(1e-3, **counted, instructions=Instructions(800, 200))]
    grown = [a_round(1.5e-3, **counted, instructions=Instructions(900, 300))]
    idle = [Round(0, 2.0, 1.0, counted_seconds=1.0, instructions=Instructions(50, 50))]
    found = verdict.growth(base, verdict.without(grown, idle))
    assert found["ratio"] == pytest.approx(1.0)
    assert found["instructions_ratio"] == pytest.approx(1.0)
    assert verdict.growth(base, grown)["ratio"] == pytest.approx(1.5)


@pytest.mark.parametrize(("figure", "met"), [(1.4, True), (1.5, True), (1.6, False), (None, None)])
def test_a_target_is_met_up_to_its_limit(figure: float | None, met: bool | None) -> None:
    """And what was not measured is neither met nor missed."""
    target = Target("x", figure, 1.5, "x nginx")
    assert target.met is met
    assert ("MISSED" in target.line()) is (met is False)


def test_targets_are_found_in_the_results() -> None:
    """All six of the issue, in its units; growth in instructions when they were counted."""
    found = verdict.targets(
        {
            "requests": {"torpor": {"cpu_ratio": 3.0}},
            "streams": {"torpor": {"cpu_ratio": 1.2, "ttft_ratio": 1.9}},
            "memory": {"torpor": {"bytes_per_stream": 12_500.0}},
            "flat": {"models": {"ratio": 1.0}, "replicas": {"ratio": 2.0, "instructions_ratio": 1.05}},
        }
    )
    assert [target.figure for target in found] == [1.2, 3.0, 1.9, 12.5, 1.0, 1.05]
    assert all(target.met for target in found)
    assert [target.met for target in verdict.targets({})] == [None] * 6


# -- the pieces that run ---------------------------------------------------------------------------------------------


def test_torpor_is_configured_as_its_users_do(tmp_path: Path) -> None:
    """The file is a valid one, with replicas that can sleep."""
    gateways.torpor(tmp_path, 9000, {"a": [1, 2], "b": [3]})
    config = load(tmp_path / "torpor.yaml")
    assert [one.model for one in config.instances] == ["a", "a", "b"]
    assert config.router.router_port == 9000


@pytest.mark.skipif(gateways.KINDS["nginx"].missing() is not None, reason="nginx is not here")
def test_nginx_understands_its_file(tmp_path: Path) -> None:
    """As nginx itself says."""
    words = gateways.nginx(tmp_path, free_port(), {"a": [9001, 9002]})
    done = subprocess.run([*words, "-t"], capture_output=True, text=True, check=False, timeout=10)
    assert done.returncode == 0, done.stderr


async def flooded(asked: bytes, tokens: int | None) -> Seen:
    """A fake engine under two clients that expect so many tokens of each stream."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: fake_engine.Engine(loop, 0.001), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    seen = await flood(port, [asked], 2, tokens, 0.05)
    server.close()
    return seen


@pytest.mark.parametrize("tokens", [None, 5])
def test_clients_and_engine_understand_each_other(tokens: int | None) -> None:
    """Every request is answered, each stream with all of its events."""
    more = {} if tokens is None else {"stream": True, "max_tokens": tokens}
    seen = asyncio.run(flooded(request("m", **more), tokens))
    assert not seen.errors
    assert seen.requests >= 2
    assert seen.units == seen.requests * (tokens or 1)


def test_a_stream_with_too_few_events_is_an_error() -> None:
    """A gateway that loses some must not look cheap."""
    seen = asyncio.run(flooded(request("m", stream=True, max_tokens=5), 6))
    assert seen.errors == {"stream with too few events": 2}


def test_a_quick_run_measures_all_of_it(tmp_path: Path) -> None:
    """Structure only: how fast it was says nothing on a machine that tests run on."""
    file = tmp_path / "out.json"
    program = ROOT / "benchmarks" / "overhead.py"
    done = subprocess.run(
        [sys.executable, str(program), "--quick", "--no-perf", "--json", str(file)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    expected = {"torpor", "nginx"} if gateways.KINDS["nginx"].missing() is None else {"torpor"}
    for load_name in ("requests", "streams"):
        assert set(found[load_name]) == expected
        assert all(one["rate"] > 0 and one["errors"] == 0 for one in found[load_name].values())
    assert set(found["memory"]) == expected
    assert set(found["flat"]) == {"one", "models", "replicas"}
    assert len(found["targets"]) == 6
    # In so short a run nginx may use less for its chunks than one tick of the kernel's clock: then there is no ratio.
    if "nginx" in expected and found["streams"]["nginx"]["cpu"] > 0:
        assert all(target["figure"] is not None for target in found["targets"])
    for target in found["targets"]:
        assert target["name"] in done.stdout
    assert shutil.which("perf") is None or not found["machine"]["instructions_counted"]
