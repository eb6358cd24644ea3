"""The doctor's look at a real machine."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

from tests.controller.launch.conftest import Workplace, run, server
from tests.controller.launch.conftest import workplace as workplace

LAUNCH = [sys.executable, str(Path(__file__).resolve().parents[3] / "launch.py")]


def test_a_fleet_that_runs_and_a_port_that_is_taken(workplace: Workplace) -> None:
    """What is up has its own port; a stranger on a port is a problem, and named; nothing is changed."""
    a, b = server("a"), server("b")
    workplace.write(a, b)
    workplace.up("a")
    doctor = [*LAUNCH, "--config", str(workplace.file), "--doctor"]
    well = run(doctor, workplace.folder)
    assert (well.returncode, well.stderr) == (0, ""), well.stdout
    assert f"a: port {a['port']} is free or its own" in well.stdout
    with socket.create_server(("127.0.0.1", b["port"])):
        ill = run(doctor, workplace.folder)
    assert ill.returncode == 1
    assert f"problem  b: port {b['port']} is taken by pid" in ill.stdout
    assert set(workplace.panes()) == {"a"}
