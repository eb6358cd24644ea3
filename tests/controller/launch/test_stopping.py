"""What is stopped is gone, with all its processes, and nothing else is."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from controller.launch.tmux import Tmux
from runtime.processes import identity
from state.database import open_database
from state.launches import Launches
from tests.controller.launch.conftest import Workplace, processes_of, server, shell, tmux
from tests.ports import free_port


def runs(pid: int) -> bool:
    return identity(pid) is not None


def test_stop_leaves_no_process(workplace: Workplace) -> None:
    """A grandchild with a session of its own, deaf to SIGTERM and SIGHUP, goes too; the record is cleared."""
    workplace.write(server("a", "--child"), server("b"), launch={"stop_timeout_seconds": 0.5})
    workplace.up()
    grandchild = int((workplace.folder / "grandchild.pid").read_text())
    assert runs(grandchild)
    assert workplace.stop("a") == 0
    assert not runs(grandchild)
    assert set(workplace.panes()) == {"b"}
    assert {process.pid for process in processes_of(workplace.folder)} == {workplace.program("b").pid}
    assert set(asyncio.run(records(workplace))) == {"b"}


async def records(workplace: Workplace) -> list[str]:
    async with open_database(f"sqlite:///{workplace.folder / 'fleet.state.db'}") as database:
        return [*await Launches(database).all()]


def test_what_outlived_its_session_goes_before_a_new_start(workplace: Workplace) -> None:
    """A leftover of a dead engine is ended when it is started again, for it holds memory or the port."""
    script = "setsid sh -c 'trap \"\" HUP TERM; echo $$ > left.pid; while :; do sleep 1; done' & sleep 0.3; exit 1"
    workplace.write(shell("a", script), launch={"stop_timeout_seconds": 0.3})
    workplace.up()
    first = int((workplace.folder / "left.pid").read_text())
    Tmux().kill("kvcached-a")
    assert runs(first)
    workplace.up()
    assert not runs(first)
    assert workplace.stop("a") == 0
    assert not processes_of(workplace.folder)


def test_a_name_that_begins_like_another_is_not_taken_for_it(workplace: Workplace) -> None:
    """instance1 is not found, stopped or kept in place of instance10."""
    workplace.write(server("instance10"), server("instance1"))
    workplace.up("instance10")
    tmux("has-session", "-t", "=kvcached-instance10")
    assert workplace.stop("instance1") == 0
    assert set(workplace.panes()) == {"instance10"}
    assert workplace.up("instance1") == 0
    assert set(workplace.panes()) == {"instance1", "instance10"}
    assert workplace.stop("instance1") == 0
    assert set(workplace.panes()) == {"instance10"}


def test_kill_all_ends_this_files_sessions_only(workplace: Workplace, tmp_path: Path) -> None:
    """Those of an instance the file no longer names too; not another file's, nor one made by hand."""
    other = Workplace(workplace.folder, file_name="other.yaml")
    other.write(server("theirs"))
    other.up()
    tmux("new-session", "-d", "-s", "kvcached-byhand", "sleep", "60")
    workplace.write(server("a"), server("gone"), router={"enable_router": True, "router_port": free_port()})
    workplace.up()
    workplace.write(server("a"))
    assert workplace.kill_all() == 0
    assert not workplace.panes()
    assert set(other.panes()) == {"theirs"}
    assert "kvcached-byhand" in tmux("list-sessions")
    assert asyncio.run(records(workplace)) == []


def test_what_the_yaml_no_longer_names_is_said_and_can_be_stopped(workplace: Workplace) -> None:
    """It is left alone until --stop names it."""
    workplace.write(server("a"), server("gone"))
    workplace.up()
    workplace.write(server("b"))
    workplace.up()
    assert "kvcached-gone is not in the YAML any more and was left alone: --stop gone" in workplace.output
    assert workplace.stop("gone") == 0
    assert set(workplace.panes()) == {"a", "b"}


def test_a_wrapped_server_is_asked_before_it_is_killed(workplace: Workplace) -> None:
    """A child whose shell dies of SIGTERM still gets a SIGTERM and time to leave."""
    script = "sh -c 'trap \"echo > left.well; exit 0\" TERM; echo > up; while :; do sleep 0.05; done' & wait"
    workplace.write(shell("a", script))
    workplace.up(wait=False)
    deadline = time.monotonic() + 5
    while not (workplace.folder / "up").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert workplace.stop("a") == 0
    assert (workplace.folder / "left.well").exists()


@pytest.mark.parametrize("name", ["a", "frontend"])
def test_stopping_what_does_not_run_is_no_error(workplace: Workplace, name: str) -> None:
    """Also with no tmux server at all."""
    workplace.write(server("a"))
    assert workplace.stop(name) == 0
