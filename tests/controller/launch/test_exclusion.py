"""Who starts or ends a process waits for whoever does so too."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from controller.config.load import load
from controller.launch.exclusion import AtWork, turn
from controller.launch.unit import Unit, units
from tests.controller.launch.conftest import Workplace, server
from tests.controller.launch.conftest import workplace as workplace

pytestmark = pytest.mark.anyio


def unit_in(file: Path, name: str = "a") -> Unit:
    return next(one for one in units(load(file), {}, []) if one.name == name)


async def test_they_meet_though_the_yaml_has_changed(workplace: Workplace) -> None:
    """A gateway that has not read it again has its logs elsewhere."""
    workplace.write(server("a"))
    before = unit_in(workplace.file)
    workplace.write(server("a"), launch={"log_dir": "elsewhere"})
    after = unit_in(workplace.file)
    assert before.log.parent != after.log.parent
    async with turn(before):
        with pytest.raises(AtWork):
            async with turn(after, 0.0):
                pass
    async with turn(after, 0.0):
        pass


async def test_others_are_in_nobodys_way(workplace: Workplace) -> None:
    """Another process of the YAML, and one of the same name in another YAML."""
    workplace.write(server("a"), server("b"))
    other = Path(shutil.copy(workplace.file, workplace.folder / "other.yaml"))
    async with turn(unit_in(workplace.file)), turn(unit_in(workplace.file, "b"), 0.0), turn(unit_in(other), 0.0):
        pass


async def test_where_strangers_may_write_nobody_is_met(workplace: Workplace) -> None:
    """They could keep us waiting, or have us write to a file of theirs."""
    workplace.write(server("a"))
    folder = Path(os.environ["TMUX_TMPDIR"]) / f"torpor-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(PermissionError, match="others may write"):
        async with turn(unit_in(workplace.file)):
            pass
