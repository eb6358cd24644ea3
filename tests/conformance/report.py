"""The table of the promises: one row for each file of checks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest


class Report:
    """Collects what came of each check. ``file``: where the table goes."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._outcomes: dict[str, dict[str, str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if "tests/conformance/" not in report.nodeid:
            return
        file, _, check = report.nodeid.partition("::")
        outcome = "failed" if hasattr(report, "wasxfail") else report.outcome  # a known bug is one all the same
        checks = self._outcomes.setdefault(Path(file).stem.removeprefix("test_"), {})
        if report.when == "call" or outcome != "passed":
            checks[check.removeprefix("test_")] = outcome

    def pytest_sessionfinish(self) -> None:
        self._file.write_text(table(self._outcomes), encoding="utf-8")


def table(outcomes: dict[str, dict[str, str]]) -> str:
    """Outcomes of the checks, by promise, as Markdown."""
    rows = ["| promise | kept | checks that fail |", "|---|---|---|"]
    for promise, checks in sorted(outcomes.items()):
        ran = [name for name, outcome in checks.items() if outcome != "skipped"]
        failed = [name for name in ran if checks[name] == "failed"]
        kept = f"{len(ran) - len(failed)} of {len(ran)}" if ran else "does not apply"
        cases, broken = (Counter(name.partition("[")[0] for name in names) for names in (ran, failed))
        named = ", ".join(f"`{name}` ({count} of {cases[name]})" for name, count in broken.items())
        rows.append(f"| `{promise}` | {kept} | {named} |")
    return "\n".join(rows) + "\n"
