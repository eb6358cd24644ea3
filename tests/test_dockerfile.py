"""The Dockerfile, as far as it can be looked at without building it."""

from __future__ import annotations

import fnmatch
import importlib.util
import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAGES = {
    re.match(r"\S+ AS (\w+)", stage)[1]: stage  # type: ignore[index]
    for stage in re.split(r"^FROM ", (ROOT / "Dockerfile").read_text(), flags=re.M)[1:]
}


@pytest.mark.parametrize(("target", "port"), [("gateway", 8080), ("runtime", 9000)])
def test_each_target_serves_and_is_looked_at(target: str, port: int) -> None:
    """Its module exists, its port is the one that its health check asks."""
    stage = STAGES[target]
    entry = json.loads(re.search(r"^ENTRYPOINT (.*)$", stage, re.M)[1])  # type: ignore[index]
    assert entry[:2] == ["python", "-m"]
    assert importlib.util.find_spec(f"{entry[2]}.__main__") is not None
    assert f"EXPOSE {port}\n" in stage
    assert f"http://127.0.0.1:{port}/health" in stage


def test_nothing_runs_as_root() -> None:
    """The stage that both are made from has a user, and they do not change it."""
    assert "\nUSER torpor\n" in STAGES["base"]
    for target in ("gateway", "runtime"):
        assert (ROOT / "Dockerfile").read_text().count("USER ") == 1
        assert STAGES[target].startswith("base AS")


def test_what_is_built_is_not_ignored() -> None:
    """Packages, and what pyproject.toml names, reach the build."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["setuptools"]["packages"]["find"]["include"]
    wanted = ["pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]]
    wanted += [package.rstrip("*") for package in packages]
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert [one for one in wanted for pattern in ignored if fnmatch.fnmatch(one, pattern)] == []
    assert all((ROOT / one).exists() for one in wanted)
