"""What is seen while engines come up."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from controller.launch.display import Lines, LiveTable, progress


def test_lines_where_nobody_looks() -> None:
    """One line for each event, long ones and those that look like markup as they are."""
    out = io.StringIO()
    with progress(Console(file=out, width=40)) as display:
        assert isinstance(display, Lines)
        display.begin("a", Path("/none"))
        display.tell("a", "starting")
        display.tell("a", "failed", "[red]" + "x" * 60)
        display.show("a: the end:", ["last [b]word"])
    assert out.getvalue() == f"a: starting\na: failed, [red]{'x' * 60}\na: the end:\n  | last [b]word\n"


def test_a_live_table_on_a_terminal(tmp_path: Path) -> None:
    """Each engine with its state, and the last line of its log while it starts."""
    (tmp_path / "b.log").write_text("old\r\n10%\r20% of weights\r\n")
    out = io.StringIO()
    console = Console(file=out, width=60, force_terminal=True, color_system=None)
    with progress(console) as display:
        assert isinstance(display, LiveTable)
        for name in ("a-rather-long-name", "b"):
            display.begin(name, tmp_path / f"{name}.log")
        display.tell("a-rather-long-name", "failed", "died, exit status 1, " + "x" * 60)
        display.tell("b", "starting")
        console.print(display._render())
    shown = out.getvalue()
    assert "a-rather-long-name  failed    0        died, exit" in shown
    assert "b                   starting  0        20% of weights" in shown
