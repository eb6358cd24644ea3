"""What runs without a session: taken over if it serves, named and ended if not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from controller.launch.environment import MARKER, marker
from controller.launch.orphans import Found, judge
from controller.launch.tmux import Pane
from state.launches import Launch
from tests.controller.launch.conftest import Workplace, processes_of, server, shell, tmux

PANE = Pane("%1", "kvcached-a", 7, dead=False, unit="a", config="/f.yaml")
DEAD = Pane("%2", "kvcached-b", 8, dead=True, unit="b", config="/f.yaml")
B = Launch("b", "kvcached-b", "8:1", [], {}, 1.0)


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ([], []),
        ([Found(71, "a", 1, 7), Found(72, "a", 1, 71)], []),  # it has its session
        ([Found(81, "b", 5 << 20, 8)], ["b: its tmux session is gone, but it runs and holds 5 MiB (pid 81)"]),
        ([Found(8, "b", 0, 1)], ["b: its tmux session is gone, but it runs and holds 0 MiB (pid 8)"]),
        ([Found(80, "b", 1, 1)], ["b: left behind by its last run, but it runs and holds 0 MiB (pid 80)"]),
        (
            [Found(92, "gone", 1 << 20, 91), Found(91, "gone", 1 << 20, 9)],
            ["gone: the YAML does not have it any more, but it runs and holds 2 MiB (pid 91, 92)"],
        ),
    ],
)
def test_what_is_an_orphan(found: list[Found], told: list[str]) -> None:
    assert [str(one) for one in judge(found, [PANE, DEAD], {"a", "b"}, {"b": B})] == told


def test_an_engine_whose_session_is_gone_is_taken_over(workplace: Workplace) -> None:
    """It is named; a second run keeps it, a change of the YAML is told; a stop ends it."""
    script = f"trap '' HUP; exec {sys.executable} -I -S tiny_server.py {{port}} {{model}}"
    a = shell("a", script)
    a["command"] = [["sh", "-c", script]]
    workplace.write(a)
    workplace.up()
    pid = workplace.program("a").pid
    tmux("kill-session", "-t", "=kvcached-a")
    assert workplace.up() == 0
    assert "its tmux session is gone" in workplace.output
    assert [process.pid for process in processes_of(workplace.folder)] == [pid]
    workplace.status()
    assert f"(pid {pid}); --stop a ends it" in workplace.output
    assert workplace.stop("a") == 0
    assert not processes_of(workplace.folder)


def test_what_the_file_has_lost_is_named_and_ended(workplace: Workplace, tmp_path: Path) -> None:
    """By its name, or with all."""
    workplace.write(server("a"))
    environment = {**workplace.environment, MARKER: marker(workplace.file.resolve(), "old")}
    lost = subprocess.Popen(["sleep", "60"], env=environment)
    try:
        workplace.status()
        assert "old: the YAML does not have it any more" in workplace.output
        assert workplace.stop("old") == 0
        assert "old: ended" in workplace.output
        assert lost.wait(5) != 0
    finally:
        lost.kill()
        lost.wait()
