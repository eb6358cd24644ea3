"""docs/conformance.md and the table that the suite writes."""

from __future__ import annotations

from pathlib import Path

from tests.conformance.report import table

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")


def test_the_page_has_every_promise() -> None:
    """A row for each file of checks."""
    promises = {file.stem.removeprefix("test_") for file in (ROOT / "tests" / "conformance").glob("test_*.py")}
    rows = {line.split("`")[1] for line in PAGE.splitlines() if line.startswith("| `") and not line.startswith("| `--")}
    assert rows == promises


def test_the_page_has_every_option() -> None:
    text = (ROOT / "tests" / "conformance" / "target.py").read_text(encoding="utf-8")
    options = {line.split('"')[1] for line in text.splitlines() if "addoption(" in line}
    assert options
    assert {option for option in options if f"`{option}`" not in PAGE} == set()


def test_a_promise_is_a_row() -> None:
    """Checks with parameters are counted; those that were skipped are not; one without any does not apply."""
    outcomes = {"b": {"x[1]": "passed", "x[2]": "failed", "y": "skipped"}, "a": {"z": "skipped"}}
    assert table(outcomes).splitlines()[2:] == ["| `a` | does not apply |  |", "| `b` | 1 of 2 | `x` (1 of 2) |"]
