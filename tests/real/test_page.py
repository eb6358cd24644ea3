"""docs/real-engines.md: what it shows can be used as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from controller.config.load import load

PAGE = Path(__file__).parents[2] / "docs" / "real-engines.md"
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=["gpu", "cpu"])
def test_the_examples_are_valid(tmp_path: Path, example: str) -> None:
    """Each loads without a mistake once its virtual environments are there."""
    for venv in re.findall(r"venv_path: (\S+)", example):
        python = tmp_path / venv / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.touch()
    file = tmp_path / "fleet.yaml"
    file.write_text(example)
    assert load(file, {}).instances
