"""How soon engines are told of clients that have left: one quick run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.departures import CASES, main


def test_it_measures_every_way_to_leave(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Streamed or not, before the first byte and after; a table and JSON."""
    file = tmp_path / "figures.json"
    assert main(["--number", "8", "--at-once", "4", "--json", str(file)]) == 0
    figures = json.loads(file.read_text())
    assert list(figures) == list(CASES)
    assert all(0 < figure["p50"] <= figure["p99"] <= figure["most"] for figure in figures.values())
    printed = capsys.readouterr().out
    assert all(case in printed for case in CASES)
