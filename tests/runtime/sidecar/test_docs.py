"""docs/sidecar.md and docs/metrics.md say what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from runtime.engines.kinds import KINDS
from runtime.metrics.names import STANDARDS, VOCABULARIES
from runtime.metrics.scrape import RESULTS
from runtime.settings import Settings
from runtime.sidecar.app import create_app
from runtime.sidecar.options import parse

DOCS = Path(__file__).parents[3] / "docs"
SIDECAR, METRICS = ((DOCS / name).read_text() for name in ("sidecar.md", "metrics.md"))
ROWS = {
    cells[0].strip().strip("`"): cells[2:]
    for cells in (line.strip("|").split("|") for line in METRICS.splitlines() if line.startswith("| `torpor:"))
}


@pytest.mark.parametrize(("kind", "column"), [("vllm", 0), ("sglang", 1)])
def test_the_table_of_names_is_the_rules(kind: str, column: int) -> None:
    """Each engine's names, the newest first."""
    for standard in STANDARDS.values():
        rule = KINDS[kind].metrics.get(standard.name)
        ending = "_total" if standard.kind == "counter" else ""
        wanted = [source.partition(":")[2] + ending for source in rule.sources] if rule else []
        assert re.findall(r"`(\w+)`", ROWS[f"torpor:{standard.shown}"][column]) == wanted, standard.name


def test_further_names_are_told() -> None:
    """Those of the other vocabularies."""
    for vocabulary in VOCABULARIES.values():
        assert f"`{vocabulary.prefix}" in METRICS
        for names in vocabulary.also.values():
            assert all(f"`{name}`" in METRICS for name in names)
    assert all(f"`{result}`" in METRICS for result in RESULTS)


def test_every_path_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """In the document and in --help."""
    app = create_app(parse(["-E", "sim"], {}), Settings())
    with pytest.raises(SystemExit):
        parse(["--help"], {})
    told = capsys.readouterr().out
    for path in {getattr(route, "path", "").rstrip("/") for route in app.routes} - {""}:
        shown = path.replace("{id}", "ID")
        assert shown in SIDECAR, path
        assert shown in told, path


def test_every_flag_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """With its short form."""
    with pytest.raises(SystemExit):
        parse(["--help"], {})
    told = capsys.readouterr().out
    for flag in set(re.findall(r"(?<!\S)--?[A-Za-z][a-z-]*", told)) - {"-h", "--help", "-m"}:
        assert f"`{flag}`" in SIDECAR, flag
